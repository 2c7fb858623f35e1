"""A recurrent network of integrate-and-fire neurons that learn, on one device and on the devices of a mesh."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import hebbax

STEPS = 60
RULES = {
    "pair": hebbax.PairSTDP(
        20 * u.ms, 20 * u.ms, 0.1 * u.mV, 0.11 * u.mV, 0 * u.mV, 2 * u.mV, mu_plus=0.0, mu_minus=1.0
    ),
    "diehl cook": hebbax.DiehlCookSTDP(20 * u.ms, 0.3 * u.mV, 0.2, 0 * u.mV, 2 * u.mV),
    "power law": hebbax.PowerLawSTDP(20 * u.ms, 20 * u.ms, 0.2, 0.6, 2 * u.mV),
    "triplet": hebbax.TripletSTDP(
        17 * u.ms, 34 * u.ms, 100 * u.ms, 110 * u.ms, 0.01 * u.mV, 0.1 * u.mV, 0.1 * u.mV, 0 * u.mV, 0 * u.mV, 2 * u.mV
    ),
}  # fmt: skip


def make(seed=21, n=37):
    """Synapses, weight, and input of each step and neuron; no sum depends on how a compiler orders it."""
    rng = np.random.default_rng(seed)
    synapses = hebbax.Synapses.random((n, n), prob=0.3, autapses=False, seed=seed)
    weight = rng.uniform(0, 1, synapses.nse).astype(np.float32) * u.mV
    return synapses, weight, rng.integers(0, 3, (STEPS, n)).astype(np.float32)


def run(rule, synapses, weight, inputs, gather):
    """The weight, the traces and the spikes of each step; `gather` makes presynaptic spikes of postsynaptic ones."""

    def step(state, inputs):
        weight, traces, voltage, spike = state
        pre_spike = gather(spike)
        current = synapses.propagate_on_pre(weight, pre_spike)
        voltage = voltage * 0.5 + current.to(u.mV).mantissa + inputs - 0.5 * pre_spike.sum()  # inhibited by all
        spike = voltage > 2.5
        voltage = jnp.where(spike, 0.0, voltage)
        weight, traces = rule.step(synapses, weight, traces, pre_spike, spike, 1.0 * u.ms, after=current)
        return (weight, traces, voltage, spike), spike

    n = inputs.shape[1]
    state = weight, rule.init(synapses), jnp.zeros(n), jnp.zeros(n, bool)
    (weight, traces, _, _), spikes = jax.lax.scan(step, state, inputs)
    return weight, traces, spikes


def on_one_device(rule, synapses, weight, inputs):
    return jax.jit(lambda *x: run(rule, *x, lambda spike: spike))(synapses, weight, inputs)


def on_mesh(rule, synapses, weight, inputs, mesh):
    """The same, joined."""
    (axis,) = mesh.axis_names
    sharded = hebbax.sharding.split(synapses, mesh, recurrent=True)
    traces = rule.init(synapses)
    trace_specs = type(traces)(*(P() if name in ("pre", "r1", "r2") else P(axis) for name in traces._fields))

    def body(sharded, weight, inputs):
        return run(rule, sharded.local(), weight, inputs, lambda x: jax.lax.all_gather(x, axis, tiled=True))

    specs = dict(in_specs=(P(axis), P(axis), P(None, axis)), out_specs=(P(axis), trace_specs, P(None, axis)))
    simulate = jax.jit(jax.shard_map(body, mesh=mesh, check_vma=False, **specs))
    weight, traces, spikes = simulate(sharded, sharded.split_weight(weight), sharded.split_post(inputs))
    joined = [
        sharded.join_pre(x) if spec == P() else sharded.join_post(x)
        for x, spec in zip(traces, trace_specs, strict=True)
    ]
    return sharded.join_weight(weight), type(traces)(*joined), sharded.join_post(spikes)


def assert_same(results, expected):
    """Bit for bit, and something happened."""
    for x, y in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)
    spikes = np.asarray(expected[2])
    assert 0.05 < spikes[STEPS // 2 :].mean() < 0.6
    assert (spikes.sum(0) > 0).mean() > 0.9
