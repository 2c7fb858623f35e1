"""Delays: what arrives at a synapse, or at a soma, some time after it left.

The axonal part of a delay lies between the presynaptic neuron and the synapse: it delays presynaptic spikes. The
dendritic part lies between the synapse and the soma: it delays currents on their way there, and postsynaptic spikes on
their way back. Rules and operators see what is at the synapse, so that one delay for all synapses takes only a `Ring`
for what it delays:

>>> import brainunit as u, hebbax, jax, jax.numpy as jnp, numpy as np
>>> dt, axonal, dendritic = 0.1 * u.ms, 1.0 * u.ms, 0.5 * u.ms
>>> synapses = hebbax.Synapses.random((100, 50), prob=0.2)
>>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.05 * u.nS, 0.0525 * u.nS, 0.0 * u.nS, 1.0 * u.nS)
>>> weight, traces = jnp.full(synapses.nse, 0.5) * u.nS, rule.init(synapses)
>>> pre_spikes = jax.random.bernoulli(jax.random.key(0), 0.1, (1000, 100))
>>> post_spikes = jax.random.bernoulli(jax.random.key(1), 0.1, (1000, 50))
>>> def step(state, spikes):
...     weight, traces, axon, back, dendrite = state
...     axon, pre_spike = axon.push(spikes[0])  # those that arrive at the synapses
...     back, post_spike = back.push(spikes[1])
...     current = synapses.propagate_on_pre(weight, pre_spike)
...     weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, dt, after=current)
...     dendrite, current = dendrite.push(current)  # what arrives at the somata
...     return (weight, traces, axon, back, dendrite), current
>>> rings = (
...     hebbax.delays.Ring.of(pre_spikes[0], axonal, dt),
...     hebbax.delays.Ring.of(post_spikes[0], dendritic, dt),
...     hebbax.delays.Ring.of(jnp.zeros(50) * u.nS, dendritic, dt),
... )
>>> (weight, *_), currents = jax.lax.scan(step, (weight, traces, *rings), (pre_spikes, post_spikes))
>>> bool((currents[:15] == 0 * u.nS).all()), bool((currents[15] > 0 * u.nS).any())
(True, True)

Where synapses differ in their delays, `DelayedSynapses` visits each when a spike arrives at it:

>>> axonal = np.random.default_rng(0).integers(1, 16, synapses.nse) * dt
>>> delayed = hebbax.delays.DelayedSynapses(synapses, dt, axonal=axonal)
>>> weight = synapses.reorder(jnp.full(synapses.nse, 0.5) * u.nS, delayed.permutation)
>>> traces, state = rule.init(synapses), delayed.init(weight, rule)
>>> def step(carry, spikes):
...     weight, traces, state = carry
...     current, state = delayed.propagate_due(weight, state)  # known before the spikes of this step
...     state = delayed.push(state, *spikes)
...     weight, traces, state = delayed.step(rule, weight, traces, state, *spikes, after=current)
...     return (weight, traces, state), current
>>> (weight, *_), currents = jax.lax.scan(step, (weight, traces, state), (pre_spikes, post_spikes))
>>> weight = synapses.restore(weight, delayed.permutation)
"""

from hebbax.delays.per_synapse import DelayedSynapses, DelayState
from hebbax.delays.ring import Ring, steps

__all__ = ["DelayState", "DelayedSynapses", "Ring", "steps"]
