"""Recorders: what a compiled loop has seen, in arrays of a fixed size that it carries and writes in place.

Each is a frozen pytree: make it by `of`, carry it through a loop, donate it, save it, and read it on the host.

>>> import brainunit as u, hebbax, jax, jax.numpy as jnp
>>> synapses = hebbax.Synapses.random((100, 100), prob=0.2)
>>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.05 * u.nS, 0.0525 * u.nS, 0.0 * u.nS, 1.0 * u.nS)
>>> weight = jnp.full(synapses.nse, 0.5, jnp.float32) * u.nS
>>> def step(state, spike):
...     weight, traces, spikes, rates, weights = state
...     weight, traces = rule.step(synapses, weight, traces, spike, spike, 0.1 * u.ms)
...     return (weight, traces, spikes.record(spike), rates.record(spike), weights.record(weight)), None
>>> state = (
...     weight,
...     rule.init(synapses),
...     hebbax.record.Spikes.of(100, capacity=5000),
...     hebbax.record.Rates.of(100, every=100, bins=10),
...     hebbax.record.Weights.of(weight, [0, 7, 9], every=250, samples=4),
... )
>>> raster = jax.random.bernoulli(jax.random.key(0), 0.02, (1000, 100))
>>> (*_, spikes, rates, weights), _ = jax.jit(lambda state: jax.lax.scan(step, state, raster))(state)

Tables are dicts of NumPy arrays that are equal in length: `pandas.DataFrame(spikes.table(0.1))` is one with times in
milliseconds, and `pandas.DataFrame(weights.table(0.1))` another. Given a time step with a unit, columns have units:

>>> sorted(spikes.table()), spikes.table(0.1 * u.ms)["time"].unit == u.ms
(['neuron', 'step'], True)
>>> rates.rates(0.1 * u.ms).shape, weights.course().shape
((10, 100), (4, 3))

One list of times for each neuron makes spike trains, those of Neo by
`[neo.SpikeTrain(times, units="ms", t_stop=0.1 * float(spikes.steps)) for times in spikes.trains(0.1)]`:

>>> len(spikes.trains(0.1)), sum(times.size for times in spikes.trains(0.1)) == int(raster.sum())
(100, True)
"""

from hebbax.errors import RecordOverflow
from hebbax.record.rates import Rates
from hebbax.record.spikes import Spikes
from hebbax.record.weights import Weights

__all__ = ["Rates", "RecordOverflow", "Spikes", "Weights"]
