"""
reward: a reward that comes late finds its synapse
==================================================

The distal reward problem as in Izhikevich, *Cerebral Cortex* 17:2443 (2007), Figure 1. 1 000 neurons fire at random.
Whenever a chosen one is followed by a chosen other one within 20 ms, dopamine is released, but 1 to 3 s later, when
each of the 80 000 plastic synapses has seen other pairs of spikes:

.. code-block:: bash

   hebbax simulate reward

That runs 3 600 s of biological time, which takes a few minutes on one core. The synapse between the two starts
at 0 and grows to the largest weight, since its pair of spikes comes before every reward; for a while it may fall
back, by pairs of spikes that do not. The mean of the others falls.

.. image:: ../../reward.png
   :alt: Weights and rewards over 3 600 s, weights at the end, and the correlation of the two neurons

With the seeds 0 (which is shown) to 4, the chosen weight passed nine tenths of the largest, 3.6 mV, after 1 140,
1 010, 1 700, 1 860 and 690 s, was above that in 54%, 100%, 97%, 100% and 78% of the last quarter, and at the end. The
mean of the others fell from 1 mV to 0.60 to 0.70 mV; 1.5% to 2.5% of them were above 3.6 mV at the end, by chance.

The same from Python, for 100 s unless the pages are made in full size, in which not much happens yet:
"""

import os

from hebbax.experiments import reward, reward_report
from hebbax.experiments.reward_figure import figure

full = os.environ.get("HEBBAX_DOCS_FULL") == "1"
result = reward.simulate(seconds=3600.0 if full else 100.0)
for name, value in reward_report.summary(result).items():
    print(f"{name}: {value}")

fig = figure(result)

# %%
# Parameters, their sources and all results are in ``reward/reward.h5``, which the command writes. The rule is
# :class:`hebbax.RewardSTDP`, whose step costs what its spikes cost; in ``hebbax.experiments.reward`` it is used so.
