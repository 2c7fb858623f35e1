"""
brunel10k: ten million synapses
===============================

The plastic network on which Ahmad, Isbister, Smithe & Stringer (2018, doi:10.1101/461160) compared simulators, after
Brunel (2000): 10 000 neurons whose voltage jumps with every spike, 1 000 synapses each, and multiplicative STDP between
the excitatory ones.

.. code-block:: bash

   hebbax simulate brunel10k

The same from Python, in the published size:
"""

from hebbax.experiments import brunel10k, network_report
from hebbax.experiments.network_figure import figure

run = brunel10k.simulate(seconds=1.0)
for name, value in network_report.summary(run).items():
    print(f"{name}: {value}")

fig = figure(run)

# %%
# Time, memory and weights beside Brian2, NEST and brainevent are in :doc:`the comparison </speed>`.
