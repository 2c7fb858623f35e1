"""
hpc: NEST's benchmark for supercomputers
========================================

NEST's example ``hpc_benchmark``, after Morrison, Aertsen & Diesmann, *Neural Computation* 19:1437 (2007): currents that
are alpha functions, power-law STDP, delays on the dendrites, and 11 250 synapses onto every neuron. The published
network is

.. code-block:: bash

   hebbax simulate hpc --scale 1 --inputs 1

and has 127 million synapses, which take 4 to 5 GB. By default the command takes half of the neurons, and a fifth of
each one's synapses, which weigh as much more:

.. code-block:: bash

   hebbax simulate hpc

The same from Python: **not the published network**, unless the pages are made in full size.
"""

import os

from hebbax.experiments import hpc, network_report
from hebbax.experiments.network_figure import figure

full = os.environ.get("HEBBAX_DOCS_FULL") == "1"
run = hpc.simulate(scale=1.0, inputs=1.0) if full else hpc.simulate()
for name, value in network_report.summary(run).items():
    print(f"{name}: {value}")

fig = figure(run)

# %%
# At small scales with all inputs, where most synapses share their two neurons with others, the network fires in bursts;
# in NEST too. Rates and weights of the published one are compared with NEST's in :doc:`agreement </agreement>`.
