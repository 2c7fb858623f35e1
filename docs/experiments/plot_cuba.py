"""
cuba: a network that keeps itself going
=======================================

The current-based network of Vogels & Abbott, *Journal of Neuroscience* 25:10786 (2005), in the form of the simulators'
benchmark 2 (Brette et al. 2007): 4 000 integrate-and-fire neurons, 80 synapses each, and no input from outside. Its
synapses between excitatory neurons learn by pairs of spikes, which the paper's do not.

.. code-block:: bash

   hebbax simulate cuba

The same from Python, in the published size:
"""

from hebbax.experiments import cuba, network_report
from hebbax.experiments.network_figure import figure

run = cuba.simulate(seconds=1.0)
for name, value in network_report.summary(run).items():
    print(f"{name}: {value}")

fig = figure(run)

# %%
# ``--neurons 40000`` makes it ten times as large, with weights that are as much smaller. It is the first network of
# :doc:`the comparison with other simulators </speed>`.
