r"""Networks split over devices and processes, by postsynaptic neuron.

A device owns contiguous postsynaptic neurons with all synapses onto them. Arrays that are split have one axis for all
devices, one equal part for each, padded where neurons or synapses are fewer; what is added belongs to no neuron and no
synapse. Updates need no communication, because presynaptic traces and spikes are whole on every device. Propagation
to postsynaptic neurons gathers the spikes, a byte a neuron unless they are floating; propagation to presynaptic ones
adds up what the devices have. The first two give the same bits as one device, the last the same up to rounding.

In a simulation, run the loop within one `jax.shard_map`. There, `ShardedSynapses.local` is an ordinary `Synapses`, for
the rules and operators as they are (with `check_vma=False`, or JAX asks which of the traces that a rule starts with
will differ between devices):

>>> import brainunit as u, hebbax, jax, jax.numpy as jnp
>>> from jax.sharding import Mesh, PartitionSpec as P
>>> mesh = Mesh(jax.devices()[:1], ("devices",))
>>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.105, 0.0, 1.0)
>>> synapses = hebbax.Synapses.random((100, 100), prob=0.1, autapses=False)
>>> sharded = hebbax.sharding.split(synapses, mesh, recurrent=True)
>>> weight = sharded.split_weight(jnp.full(synapses.nse, 0.5))
>>> spike = sharded.split_post(jnp.arange(100) % 7 == 0)
>>> def simulate(sharded, weight, spike):  # the arguments are this device's parts
...     synapses = sharded.local()
...     def step(state, _):
...         weight, traces, post_spike = state
...         pre_spike = jax.lax.all_gather(post_spike, "devices", tiled=True)
...         current = synapses.propagate_on_pre(weight, pre_spike)
...         post_spike = current > 0.75
...         weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, 1.0 * u.ms, after=current)
...         return (weight, traces, post_spike), post_spike.sum()
...     (weight, *_), spikes = jax.lax.scan(step, (weight, rule.init(synapses), spike), length=3)
...     return weight, jax.lax.psum(spikes, "devices")
>>> out_specs = P("devices"), P()
>>> simulate = jax.shard_map(simulate, mesh=mesh, in_specs=P("devices"), out_specs=out_specs, check_vma=False)
>>> weight, spikes = jax.jit(simulate)(sharded, weight, spike)
>>> sharded.join_weight(weight).shape == (synapses.nse,)
True
"""

from hebbax._core.exchange import exchange, exchange_all
from hebbax._core.layout import Layout
from hebbax._core.sent import SpikeLists
from hebbax.sharding.sharded import ShardedSynapses
from hebbax.sharding.splitting import from_parts, split

__all__ = ["Layout", "ShardedSynapses", "SpikeLists", "exchange", "exchange_all", "from_parts", "split"]
