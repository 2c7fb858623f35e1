"""
song2000: competition for the timing of spikes
==============================================

Competitive plasticity as in Song, Miller & Abbott, *Nature Neuroscience* 3:919 (2000). Four neurons, each with 1 000
Poisson inputs at 15 Hz, learn in steps of 0.1 ms:

.. code-block:: bash

   hebbax simulate song2000

That runs 600 s of biological time, which takes 15 to 30 s on two cores (``make demo`` is the same). The inputs compete
for the timing of the output spikes: the weights, uniform at the start, end near either bound (46% below a tenth of the
largest weight, 21% above nine tenths), and the firing rate settles at 13 Hz.

.. image:: ../../song2000.png
   :alt: Weights, firing rate and single synapses over 600 s

The same from Python, for 100 s unless the pages are made in full size: the rate has fallen most of its way by then, and
the weights are on theirs.
"""

import os

from hebbax.experiments import song2000, song2000_report
from hebbax.experiments.song2000_figure import figure

full = os.environ.get("HEBBAX_DOCS_FULL") == "1"
result = song2000.simulate(seconds=600.0 if full else 100.0)
for name, value in song2000_report.summary(result).items():
    print(f"{name}: {value}")

fig = figure(result)

# %%
# Parameters, their sources and all results are in ``song2000/song2000.h5``, which the command writes. The run is
# compared with one of Brian2, of the same model, in :doc:`agreement </agreement>`. ``--devices N`` and
# ``--distributed`` share the neurons out among devices and processes, with the same result.
