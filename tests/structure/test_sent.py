"""Spikes as lists, as devices send them: what operators, rules and traces make of them, against arrays of bool."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax._core.sent import _fade_in_jax, _merge_in_jax, _pack_in_jax, fade, merge, pack, second_half
from hebbax._core.specs import Sent
from hebbax.errors import ShapeError

STATUS = Path("/proc/self/status")
STEPS, N = 4, 70
RULE = hebbax.PairSTDP(15.0, 30.0, 0.01, 0.0105, 0.0, 1.0)


@pytest.fixture
def network(rng):
    synapses = hebbax.Synapses.random((N, 30), indegree=12)
    return synapses, jnp.asarray(rng.random(synapses.nse), jnp.float32)


def draw(rng, steps=STEPS, n=N, probability=0.2):
    spikes = rng.random((steps, n)) < probability
    spikes[1] = False
    return jnp.asarray(spikes)


def of_devices(spikes, shards, capacity=None):
    """The lists of so many devices' equal parts, as an exchange puts them together."""
    parts = np.split(np.asarray(spikes), shards, axis=1)
    capacity = parts[0].size if capacity is None else capacity
    messages = [pack(jnp.asarray(x), capacity) for x in parts]
    return merge(jnp.concatenate([x.message for x in messages]), shards, messages[0].sent)


def _with(lists, messages):
    return jax.tree.unflatten(jax.tree.structure(lists), [messages])


@pytest.mark.parametrize("shards", [1, 5])
def test_operators_take_lists_for_arrays(network, rng, shards, backend):
    synapses, weight = network
    spikes, trace = draw(rng), jnp.asarray(rng.normal(size=30), jnp.float32)
    lists = of_devices(spikes, shards)
    np.testing.assert_array_equal(lists.count, spikes.sum(1))
    assert lists.overflow == 0
    for k in range(STEPS):
        np.testing.assert_array_equal(lists.at(k).todense(), spikes[k])
        for listed, dense in (
            (
                synapses.propagate_on_pre(weight, x, gain=jnp.linspace(0, 1, N), backend=backend)
                for x in (lists.at(k), spikes[k])
            ),
            (synapses.update_on_pre(weight, x, trace, 0.0, 1.0, backend=backend) for x in (lists.at(k), spikes[k])),
        ):
            np.testing.assert_allclose(listed, dense, rtol=1e-6 if backend == "cupy" else 0)  # that sums by atomics


def test_two_populations_share_lists(network, rng, backend):
    """Of which the second one's steps are behind those of the first, for operators and for traces."""
    synapses, weight = network
    spikes, trace = draw(rng, 2 * STEPS), jnp.asarray(rng.normal(size=30), jnp.float32)
    first = of_devices(spikes, 5)
    for k in range(STEPS):
        second = second_half(first.at(k))
        np.testing.assert_array_equal(second.todense(), spikes[STEPS + k])
        for listed, dense in (
            (synapses.propagate_on_pre(weight, x, backend=backend) for x in (second, spikes[STEPS + k])),
            (synapses.update_on_pre(weight, x, trace, 0.0, 1.0, backend=backend) for x in (second, spikes[STEPS + k])),
            (fade(jnp.ones(N), 0.5, 2.0, second, sets=False), 0.5 + 2.0 * spikes[STEPS + k]),
        ):
            np.testing.assert_allclose(listed, dense, rtol=1e-6 if backend == "cupy" else 0)  # that sums by atomics


@pytest.mark.parametrize("step", [-1, STEPS, 2 * STEPS, 2**31 - 1])
def test_a_step_that_the_second_population_does_not_have(network, rng, step):
    """Nor is the last of an odd number of steps one of its."""
    synapses, weight = network
    lists = second_half(pack(draw(rng, 2 * STEPS + 1), 2 * STEPS * N).at(jnp.int32(step)))
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="a step that they do not have"):
        jax.block_until_ready(synapses.propagate_on_pre(weight, lists, backend="cython"))


@pytest.mark.parametrize("indegree", [5, 60, 900])
def test_longer_lists_than_a_batch_of_rows(rng, threads, indegree):
    """Of more than 2 048 spikes, whose rows threads look up, and copy where they are short, in one go."""
    synapses = hebbax.Synapses.random((6000, 400), indegree=indegree)
    weight, trace = (jnp.asarray(rng.random(n), jnp.float32) for n in (synapses.nse, 400))
    spikes = draw(rng, 2, 6000, 0.9)
    lists, results = of_devices(spikes, 3).at(0), []
    for spike, n in ((spikes[0], 1), (lists, 1), (lists, 2), (lists, 8)):
        threads(n)
        results.append((synapses.propagate_on_pre(weight, spike), synapses.update_on_pre(weight, spike, trace, 0, 1)))
    assert results[0][0].any() and (results[0][1] != weight).any()
    for got in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, got, results[0])


def test_more_spikes_than_are_found_in_one_go(rng):
    synapses = hebbax.Synapses.random((90_000, 50), outdegree=2)
    weight, spikes = jnp.asarray(rng.random(synapses.nse), jnp.float32), jnp.ones((1, 90_000), bool)
    sums = (synapses.propagate_on_pre(weight, x) for x in (pack(spikes, 90_000).at(0), spikes[0]))
    np.testing.assert_array_equal(*sums)


@pytest.mark.skipif(not STATUS.exists(), reason="how much memory a process has is read in /proc")
def test_memory_for_a_long_list_is_given_back(threads):
    threads(2)
    n = 60_000  # so many rows that a call takes some megabytes for them, and for what threads copy of them
    synapses, lists = hebbax.Synapses.random((n, 400), indegree=300), pack(jnp.ones((1, n), bool), n).at(0)
    weight, before = jnp.ones(synapses.nse, jnp.float32), 0
    for k in range(60):
        if k == 10:
            before = memory()
        jax.block_until_ready(synapses.propagate_on_pre(weight, lists))
    assert memory() - before < 30_000


def memory():
    """What this process has in use, in kB."""
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def test_rows_may_be_postsynaptic(network, rng):
    synapses, weight = network
    spikes = draw(rng, n=30)
    sums = (synapses.propagate_on_post(weight, x) for x in (pack(spikes, 99).at(2), spikes[2]))
    np.testing.assert_array_equal(*sums)
    doubled = (synapses.apply_on_post(lambda w, *_: 2 * w, weight, x) for x in (pack(spikes, 99).at(2), spikes[2]))
    np.testing.assert_array_equal(*doubled)


@pytest.mark.parametrize("at_events", [False, True])
@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("tau", [15.0, 0.5, 1e5])
def test_a_rule_takes_lists(network, rng, at_events, pairing, tau):
    """With traces that are written at events, or at every step: either are those of float64."""
    synapses, weight = network
    rule = dataclasses.replace(RULE, tau_plus=tau, pairing=pairing)
    pre, post = draw(rng, 600, probability=0.02), draw(rng, 600, n=30, probability=0.05)
    lists = of_devices(pre, 2)

    @jax.jit
    def run(weight, lists):
        def step(carry, k):
            weight, traces, lists = carry
            seen = pre[k] if lists is None else lists.at(k)
            weight, traces = rule.step(synapses, weight, traces, seen, post[k], 1.0)
            return (weight, traces, lists), None

        start = weight, rule.init(synapses, at_events=at_events), lists
        return jax.lax.scan(step, start, jnp.arange(600))[0][:2]

    (weight_1, listed), (weight_2, dense) = run(weight, lists), run(weight, None)
    np.testing.assert_array_equal(weight_1, weight_2)
    jax.tree.map(np.testing.assert_array_equal, listed, dense)
    trace = listed.pre.value * listed.pre.left if at_events else listed.pre
    expected = np.zeros(N)
    for spike in np.asarray(pre):
        expected = expected * np.exp(-1 / tau)
        expected = np.where(spike, 1.0 if pairing == "nearest" else expected + 1.0, expected)
    np.testing.assert_allclose(trace, expected, rtol=2e-5, atol=1e-6)


def test_traces_of_a_batch_are_those_of_its_members(network, rng):
    synapses, weight = network
    spikes, post = jnp.stack([draw(rng), draw(rng)]), draw(rng, n=30)[0]
    traces = RULE.init(synapses, at_events=True)

    def run(spikes, scale):
        return RULE.step(synapses, weight * scale, traces, pack(spikes, 200).at(2), post, 1.0)

    both = jax.vmap(run)(spikes, jnp.array([1.0, 0.5]))
    for k, scale in enumerate((1.0, 0.5)):
        one = run(spikes[k], scale)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[k], b, rtol=1e-6), both, one)  # noqa: B023


def test_lists_without_room_are_refused(network, rng):
    synapses, weight = network
    spikes = draw(rng)
    lists = pack(spikes, 5)
    assert repr(lists) == f"SpikeLists(n={N}, steps={STEPS}, room for 5 spikes)"
    assert lists.overflow == spikes.sum() - 5
    np.testing.assert_array_equal(lists.count, spikes.sum(1))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="more spikes than the lists have room for"):
        jax.block_until_ready(synapses.propagate_on_pre(weight, lists.at(3)))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="more spikes than the lists have room for"):
        jax.block_until_ready(synapses.propagate_on_pre(weight, lists.at(0)))  # which had room, for once
    assert np.isnan(synapses.propagate_on_pre(weight, lists.at(3), backend="jax")).all()
    for step in (-1, STEPS):
        with pytest.raises(IndexError, match=f"step: got {step}, expected 0 to 3"):
            lists.at(step)


@pytest.mark.parametrize("shards, capacity", [(1, None), (2, None), (7, None), (5, 20), (2, 3)])
def test_merged_lists_are_those_of_all_neurons(rng, shards, capacity):
    """By the kernel as by JAX, also in a batch; too many spikes of one device are told, and who spiked when is not."""
    spikes = draw(rng)
    lists = of_devices(spikes, shards, capacity)
    most = max(part.sum() for part in np.split(np.asarray(spikes), shards, axis=1))
    assert lists.overflow == max(0, most - (STEPS * N if capacity is None else capacity))
    np.testing.assert_array_equal(lists.count, spikes.sum(1))
    parts = [pack(x, capacity or STEPS * N // shards) for x in jnp.split(spikes, shards, axis=1)]
    messages = jnp.concatenate([x.message for x in parts])
    merged = Sent(N, STEPS, shards * parts[0].sent.capacity)
    in_jax = _merge_in_jax(messages.reshape(shards, -1), sent=merged)
    both = jax.vmap(lambda x: merge(x, shards, parts[0].sent))(jnp.stack([messages, messages]))
    said = 6 + STEPS + (int(lists.count.sum()) if lists.overflow == 0 else 0)  # what lies behind means nothing
    for message in (in_jax, *both.message):
        np.testing.assert_array_equal(message[:said], lists.message[:said])
    if lists.overflow == 0:
        np.testing.assert_array_equal(lists.message[4:said], pack(spikes, said).message[4:said])


@pytest.mark.parametrize("threads", [1, 3])
def test_messages_of_many_devices_are_merged_by_threads(rng, threads):
    """Each its part of the devices; and a message that is not as it was packed is found wherever it is."""
    shards, own = 1500, 3
    spikes = rng.random((STEPS, shards, own)) < 0.3
    parts = [pack(jnp.asarray(spikes[:, k]), STEPS * own) for k in range(shards)]
    messages, expected = jnp.concatenate([x.message for x in parts]), pack(spikes.reshape(STEPS, -1), spikes.size)
    said, before = 6 + STEPS + int(spikes.sum()), hebbax.get_num_threads()
    hebbax.set_num_threads(threads)
    try:
        merged = jax.jit(lambda x: merge(x, shards, parts[0].sent).message)
        np.testing.assert_array_equal(merged(messages)[4:said], expected.message[4:said])
        for shard in (1, 700, 1499):
            wrong = messages.reshape(shards, -1).at[shard, 1].set(own + 1).reshape(-1)
            with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="merge: the messages are not as they"):
                jax.block_until_ready(merged(wrong))
    finally:
        hebbax.set_num_threads(before)


@pytest.mark.parametrize("capacity", [99, 3])
def test_lists_are_packed_alike_by_the_kernel_and_by_jax(rng, capacity):
    """But for what lies behind the last spike, and who spiked where not all had room."""
    spikes = draw(rng)
    native, in_jax = pack(spikes, capacity).message, _pack_in_jax(spikes, capacity=capacity)
    assert in_jax.shape == native.shape
    said = 6 + STEPS + (int(spikes.sum()) if spikes.sum() <= capacity else 0)
    np.testing.assert_array_equal(in_jax[:said], native[:said])


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("sets", [False, True])
def test_traces_fade_alike_by_the_kernel_and_by_jax(rng, sets, second):
    lists = second_half(pack(draw(rng), 99).at(0)) if second else pack(draw(rng), 99).at(2)
    trace = jnp.asarray(rng.random(N), jnp.float32)
    native = fade(trace, 0.875, 0.25, lists, sets=sets)
    in_jax = _fade_in_jax(trace, lists.message, jnp.array([0.875, 0.25, sets], jnp.float32), sent=lists.sent)
    np.testing.assert_array_equal(in_jax, native)
    assert np.any(native != trace * 0.875)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 5, 7, 9, 10, 13])
@pytest.mark.parametrize("value", [-(2**31), -1, 70, 2**31 - 1])
def test_no_list_makes_a_kernel_leave_its_buffers(network, rng, place, value):
    synapses, weight = network
    lists = pack(draw(rng), 99)
    broken = _with(lists, lists.message.at[place].set(value)).at(2) if place else _with(
        lists, lists.message.at[0].set(value)
    )  # fmt: skip
    try:
        out = synapses.propagate_on_pre(weight, broken)
        assert np.isfinite(jax.block_until_ready(out)).all()
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        assert "the lists" in str(error) or "indptr" in str(error)


@pytest.mark.parametrize("message", [0, 1, slice(None)], ids=["first", "second", "both"])
@pytest.mark.parametrize("place", range(1, 8))
@pytest.mark.parametrize("value", [-(2**31), -6, 100_000, 2**31 - 1])
def test_no_message_makes_merging_leave_its_buffers(rng, message, place, value):
    """Whatever devices have sent, also where all of them have sent the same."""
    own = pack(draw(rng, 2, 5), 10)
    messages = np.array([own.message, own.message])
    messages[message, place] = value
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="merge: the messages are not as they were"):
        jax.block_until_ready(merge(jnp.asarray(messages.reshape(-1)), 2, own.sent).message)


def test_wrong_arguments_are_named(network):
    synapses, weight = network
    with pytest.raises(ShapeError, match=r"pre_spike: got lists of 8 neurons, expected 70 for shape \(70, 30\)"):
        synapses.propagate_on_pre(weight, pack(jnp.zeros((2, 8), bool), 3).at(0))
    rule = dataclasses.replace(RULE, tau_plus=jnp.full((N, 1), 10.0))
    with pytest.raises(ValueError, match="at_events: got True with a tau_plus that differs between neurons"):
        rule.init(synapses, at_events=True)
    mesh = Mesh(jax.devices()[:1], ("x",))

    def exchanged(spikes, **options):
        run = lambda x: hebbax.sharding.exchange(x, "x", **options)  # noqa: E731
        run = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        return jax.eval_shape(run, spikes)

    with pytest.raises(ShapeError, match=r"spikes: got shape \(3,\), expected \(steps, neurons\)"):
        exchanged(jnp.zeros(3))
    with pytest.raises(ValueError, match="capacity: got -1, expected an integer of at least 0"):
        exchanged(jnp.zeros((3, 3)), capacity=-1)
    for capacity in (2**31, np.uint32(2**31)):
        with pytest.raises(ValueError, match="capacity: got 2147483648 for 3 neurons on each of 1 devices"):
            exchanged(jnp.zeros((3, 3)), capacity=capacity)
    with pytest.raises(TypeError, match="spikes: got dtype complex64, expected a real dtype"):
        exchanged(jnp.zeros((3, 3), complex))


def test_more_spikes_than_int32_counts_are_refused_by_name():
    """Of lists of them, a step's beginning would be negative, and `overflow` nothing. (On several: four_devices.py)"""
    mesh = Mesh(jax.devices()[:1], ("x",))

    def exchanged(spikes, function, **options):
        run = lambda x: function(x, "x", **options).message  # noqa: E731
        mapped = jax.shard_map(run, mesh=mesh, in_specs=P(None, "x"), out_specs=P(), check_vma=False)
        return jax.eval_shape(mapped, spikes)

    spikes = jax.ShapeDtypeStruct((3, 2**30), bool)
    for function, options in ((hebbax.sharding.exchange, {"capacity": 10}), (hebbax.sharding.exchange_all, {})):
        with pytest.raises(ValueError, match=r"^spikes: got shape \(3, 1073741824\).*, expected at most 2147483647"):
            exchanged(spikes, function, **options)
    most = jax.ShapeDtypeStruct((1, 2**31 - 1), bool)
    assert exchanged(most, hebbax.sharding.exchange, capacity=10).shape
    assert exchanged(most, hebbax.sharding.exchange_all).shape
