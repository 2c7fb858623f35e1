"""What test_sharding.py runs twice at a time: one network on the devices of two processes that talk over the network.

Takes the rank and the coordinator's address. Ends with status 77 where this build of JAX has no collectives for CPUs.
"""

import dataclasses
import sys

import brainunit as u
import jax
import numpy as np
from jax.sharding import Mesh

rank, address = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, num_processes=2, process_id=rank, initialization_timeout=60)
try:
    assert jax.device_count() == 4 and jax.local_device_count() == 2
    mesh = Mesh(jax.devices(), ("devices",))
    total = jax.jit(lambda x: x.sum())(
        jax.make_array_from_callback(
            (4,), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices")), lambda i: np.ones(4)[i]
        )
    )
    assert total.addressable_data(0) == 4
except (AttributeError, jax.errors.JaxRuntimeError, RuntimeError) as error:
    if "collectives" in str(error) or "Multiprocess computations" in str(error):
        print(f"no collectives: {error}")
        sys.exit(77)
    raise

import recurrent  # noqa: E402 (JAX must be told first)

import hebbax  # noqa: E402
from hebbax import sharding  # noqa: E402

network = synapses, weight, inputs = recurrent.make()
sharded = sharding.split(synapses, mesh, recurrent=True)
split = sharded.split_weight(weight)
for x in jax.tree.leaves((sharded, split)):
    held = {shard.device for shard in x.addressable_shards}
    assert held == set(jax.local_devices()) and not x.is_fully_addressable, "a process holds its own shards alone"
np.testing.assert_array_equal(sharded.join_weight(split).mantissa, weight.mantissa)

# The same from parts, of which a process builds its own, and an error of one process in both.
asked = []


def part(first, stop):
    asked.append((first, stop))
    assert first < 37 - 9 * failing, "this part fails"
    return hebbax.Synapses.random((37, 37), indegree=7, seed=2, part=(first, stop))


failing = False
parts = sharding.from_parts(part, (37, 37), mesh, recurrent=True)
assert asked == [[(0, 10), (10, 20)], [(20, 30), (30, 37)]][rank]
whole = sharding.split(hebbax.Synapses.random((37, 37), indegree=7, seed=2), mesh, recurrent=True, post=parts.post)
for x, y in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
    for a, b in zip(x.addressable_shards, y.addressable_shards, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
failing = True
try:
    sharding.from_parts(part, (37, 37), mesh)
except (RuntimeError, AssertionError) as error:
    assert str(error) == ["part: raised in process 1, whose error says what", "this part fails"][rank], error
else:
    raise AssertionError("a part that raises in one process raises in all")

rule = recurrent.RULES["pair"]
recurrent.assert_same(recurrent.on_mesh(rule, *network, mesh), recurrent.on_one_device(rule, *network))

# A rule whose parameters are in other processes too.
low = np.where(np.arange(synapses.nse) % 3 > 0, 0, weight.mantissa).astype(np.float32) * u.mV
per_neuron = np.linspace(10, 30, 37, dtype=np.float32) * u.ms
rule = dataclasses.replace(rule, tau_plus=per_neuron[:, None], tau_minus=per_neuron[None], w_min=low, mu_minus=0.0)
local, (pre, post) = rule.init(synapses), (np.arange(37) % 2 == 0, np.arange(37) % 3 == 0)
far, split_rule, new = rule.init(sharded), sharded.split_rule(rule), split
spikes = sharded.split_pre(pre, replicated=True), sharded.split_post(post)
for _ in range(2):
    weight, local = rule.step(synapses, weight, local, pre, post, 1 * u.ms)
    new, far = split_rule.step(sharded, new, far, *spikes, 1 * u.ms)
np.testing.assert_allclose(sharded.join_weight(new).mantissa, weight.mantissa, rtol=1e-5)
split = new

spike = np.arange(synapses.n_post) % 3 == 0
sums = sharded.join_pre(sharded.propagate_on_post(split, sharded.split_post(spike)))
expected = synapses.propagate_on_post(weight, spike)
np.testing.assert_allclose(sums / u.mV, expected / u.mV, rtol=1e-5)
print(f"process {rank} is done")
