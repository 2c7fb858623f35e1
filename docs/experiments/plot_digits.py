"""
digits: handwritten digits, learned from spikes
===============================================

Unsupervised learning as in Diehl & Cook, *Frontiers in Computational Neuroscience* 9:99 (2015), on the 1 797 images of
8 by 8 pixels that scikit-learn ships (``pip install "hebbax[digits]"``). 400 integrate-and-fire neurons inhibit each
other and learn by :class:`hebbax.DiehlCookSTDP` from Poisson spikes, at rates that are the pixels. No label is used
until, with all weights fixed, each neuron is given the class of the images to which it spikes most.

.. code-block:: bash

   hebbax simulate digits

That learns from 1 437 images twice, assigns the classes, and then classifies the 360 that were held out: 93.9% of them
rightly. With other seeds, which hold other images out, it is 90.3 to 94.7%, and each takes 17 s of one core
(:doc:`results </generated/results/digits>`, by ``python benchmarks/digits_seeds.py``).

.. image:: ../../digits.png
   :alt: Weights by class, confusion of classes, and accuracy while learning

The same from Python, by a quarter of the neurons, which see 1 000 images once, unless the pages are made in full size:
"""

import os

from hebbax.experiments import digits, digits_report
from hebbax.experiments.digits_figure import figure

full = os.environ.get("HEBBAX_DOCS_FULL") == "1"
result = digits.simulate() if full else digits.simulate(neurons=100, epochs=1, images=1000)
for name, value in digits_report.summary(result).items():
    print(f"{name}: {value}")

fig = figure(result)

# %%
# Parameters, with their sources, and the neurons' spikes to each image are in ``digits/digits.h5``, which the command
# writes. The paper's network has 784 inputs and sees 60 000 images three times or more; what is different here, and
# why, is on the page of :mod:`hebbax.experiments.digits`.
