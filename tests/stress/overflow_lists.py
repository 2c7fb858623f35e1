"""Cases of `overflow`: spikes as lists, delays, and functions of single synapses, far from the start of arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from far import Place, Problem, large, small, weights_at
from overflow_operators import Case, check_sums, check_update, shown
from pretended import enable_x64, owned_by_jax, put, take, zeros

import hebbax
from hebbax import operators
from hebbax._core import events
from hebbax._core.pytree import assemble
from hebbax._core.sent import SpikeLists, fade, merge, pack
from hebbax._core.specs import PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE, Arrivals, Sent

VIEWS = ("indptr", "indices", "csc_indptr", "csc_indices", "weight_indices")
OPTIONS = (False, None, 1.0)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    for spec, index in ((spec, index) for spec in (PROPAGATE_PRE, UPDATE_PRE, UPDATE_POST) for index in WIDTHS):
        problem = small(rng, spec, 300, 200, np.float32, index, index)
        yield f"{spec.name} {np.dtype(index)}: lists of 2^30 numbers", functools.partial(recorded, problem)
        if spec.event == "pre":
            yield f"{spec.name} {np.dtype(index)}: messages of 2^30 numbers", functools.partial(packed, problem)
            yield f"{spec.name} {np.dtype(index)}: messages merged, 2^31 numbers", functools.partial(joined, problem)
    yield "traces of 2^31 - 3 neurons, by lists", faded
    yield "two devices exchange messages of 2^30 numbers, awake", exchanged
    for index, boundary in ((np.int32, 1 << 31), (np.int64, 1 << 31), (np.int64, 1 << 32)):
        delay = functools.partial(delayed, index=index, boundary=boundary)
        yield f"delays, {np.dtype(index)}: synapses at {boundary}", delay
        for side in ("pre", "post"):
            run = functools.partial(applied, side=side, index=index, boundary=boundary)
            yield f"apply_on_{side}, {np.dtype(index)}: synapses at {boundary}", run


WIDTHS = (np.int32, np.int64)


def small_and_large(problem: Problem, n_event: int, lists: Any, spec: Any) -> None:
    """What an operator makes of lists of spikes, whose last neurons are those of the small network."""
    place = Place(events=n_event - problem.sizes[1] - 3)
    expected = np.asarray(run_on(problem.spec, problem, problem.given["weight"], problem.given["spike"]))
    big = large(problem, place)
    assert big.sizes[1] == n_event
    got = run_on(spec, big, big.given["weight"], lists)
    if spec.kind == "propagate":
        check_sums(got, expected, 0)
    else:
        where = weights_at(problem, place)
        check_update(got, problem.given["weight"], expected, where, problem.sizes[0], got.size)


def run_on(spec: Any, problem: Problem, weight: np.ndarray, spike: Any) -> Any:
    given = {name: shown(x) for name, x in problem.given.items() if name not in ("weight", "spike")}
    given |= {"weight": weight, "spike": spike}
    values = tuple(given.get(name) for name in spec.parameters)
    return operators.call(spec, problem.shape, None, values, OPTIONS if spec.kind == "update" else ())


def recorded(problem: Problem) -> None:
    length, n = 16, 1 << 26
    arrivals = Arrivals(n, (length - 1, 0))
    header = events.none_yet(dataclasses.replace(arrivals, n=0))[:7]
    header[3] = n
    size = header.size + length * (n + 1)
    spike = zeros(n, bool)
    spike[n - problem.sizes[1] - 3 : n - 3] = problem.given["spike"]
    with enable_x64(True):
        record = jax.jit(functools.partial(events.record, arrivals=arrivals), donate_argnums=0)
        before = put(owned_by_jax(size, np.int32), header, 0)
        address = before.unsafe_buffer_pointer()
        lists = record(before, shown(spike), jnp.int32(length - 1), jnp.int32(0), jnp.zeros(1))
        assert lists.unsafe_buffer_pointer() == address, "the lists were copied"
        count = take(lists, size - n - 1, 1)[0]
        assert count == problem.given["spike"].sum(), "not as many spikes as there are"
        small_and_large(problem, length * n, lists, dataclasses.replace(problem.spec, arrivals=arrivals))


def packed(problem: Problem) -> None:
    n, capacity = (1 << 31) - 3, (1 << 30) + 5
    spike = zeros(n, bool)
    spike[n - problem.sizes[1] - 3 : n - 3] = problem.given["spike"]
    with enable_x64(True):
        lists = pack(shown(spike).reshape(1, n), capacity)
        small_and_large(problem, n, lists.message, dataclasses.replace(problem.spec, arrivals=lists.sent))


def joined(problem: Problem) -> None:
    """The second of two devices, whose message begins at 4 GB, has all spikes but one of a silent neuron."""
    own, capacity, steps = (1 << 30) - 2, (1 << 30) - 2, 2
    start = 5 + steps + 1
    size = start + capacity
    messages = zeros(2 * size, np.int32)
    ids = own - problem.sizes[1] - 3 + np.flatnonzero(problem.given["spike"])
    messages[:start] = 0, own, steps, capacity, 0, 0, 1, 1
    messages[start] = 5
    messages[size : size + start] = 0, own, steps, capacity, 0, 0, ids.size, ids.size
    messages[size + start :][: ids.size] = ids
    with enable_x64(True):
        lists = merge(shown(messages), 2, Sent(own, steps, capacity))
        np.testing.assert_array_equal(take(lists.message, start, ids.size + 2), [5, *(ids + own), 0])
        small_and_large(problem, 2 * own, lists.message, dataclasses.replace(problem.spec, arrivals=lists.sent))


def faded() -> None:
    n = (1 << 31) - 3
    spike = zeros(n, bool)
    spike[[n - 7, n - 2]] = True
    with enable_x64(True):
        lists = pack(shown(spike).reshape(1, n), 10)
        run = jax.jit(
            lambda trace, message: fade(trace, 1.0, 0.5, of(message, lists.sent), sets=False), donate_argnums=0
        )
        got = run(put(owned_by_jax(n, np.float32), np.full(8, 0.25, np.float32), n - 8), lists.message)
        expected = np.full(8, 0.25, np.float32)
        expected[[1, 6]] += 0.5
        np.testing.assert_array_equal(take(got, n - 8, 8), expected)


def of(message: jax.Array, sent: Sent) -> SpikeLists:
    return assemble(SpikeLists, dict(message=message, sent=sent))


def exchanged() -> None:
    """On two devices of this process, which `overflow` asks XLA for."""
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("x",))
    P = jax.sharding.PartitionSpec
    spikes = np.random.default_rng(0).random((3, 2000)) < 0.1

    def messages(capacity: int) -> jax.Array:
        def run(x: jax.Array) -> jax.Array:
            return hebbax.sharding.exchange(x, "x", capacity=capacity, awake=True).message[None]

        return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(None, "x"), out_specs=P("x"), check_vma=False))(spikes)

    few, many = messages(1000), messages((1 << 30) - 5)
    for k in (0, 1):
        one, other = (x.addressable_data(k).reshape(-1) for x in (few, many))
        count = spikes.sum() + 5 + 4
        expected = np.array(take(one, 0, int(count)))
        expected[3] = 2 * ((1 << 30) - 5)
        np.testing.assert_array_equal(take(other, 0, int(count)), expected)


def far_views(synapses: Any, index: Any, boundary: int) -> tuple[dict[str, Any], int, int]:
    """A structure whose only rows begin far behind the start of its arrays, where these begin, and their size."""
    nse = synapses.nse
    start = boundary - nse // 2 if index == np.int64 else boundary - nse - 8
    total = start + nse + 3
    views = {}
    for name in VIEWS:
        x = np.asarray(getattr(synapses, name))
        if name.endswith("indptr"):
            views[name] = jnp.asarray(x.astype(index) + index(start))
            continue
        memory = zeros(total, index)
        memory[start : start + nse] = x.astype(np.int64) + (start if name == "weight_indices" else 0)
        views[name] = shown(memory)
    return views, start, total


def delayed(index: Any, boundary: int) -> None:
    rng = np.random.default_rng(0)
    synapses = hebbax.Synapses.random((60, 70), indegree=20, seed=1)
    axonal, dendritic = (rng.integers(0, 6, synapses.nse) * 0.1 * u.ms for _ in range(2))
    network = hebbax.delays.DelayedSynapses(synapses, 0.1 * u.ms, axonal=axonal, dendritic=dendritic)
    rule = hebbax.PairSTDP(15.0 * u.ms, 30.0 * u.ms, 0.01, 0.0105, 0.0, 1.0)

    @functools.partial(jax.jit, donate_argnums=1)
    def step(network: Any, weight: Any, state: Any, traces: Any, pre: Any, post: Any) -> Any:
        state = network.push(state, pre, post)
        current, state = network.propagate(weight, state)
        weight, traces, state = network.step(rule, weight, traces, state, pre, post, after=current)
        return weight, state, traces, current

    with enable_x64(index == np.int64):
        first = rng.random(synapses.nse).astype(np.float16)
        views, start, total = far_views(network.unrolled, index, boundary)
        unrolled = assemble(hebbax.Synapses, {**views, "shape": network.unrolled.shape})
        fields = {**vars(network), "unrolled": unrolled, "permutation": shown(zeros(total, index))}
        far = assemble(type(network), fields)
        ours = jnp.array(first), network.init(first, rule), rule.init(network)
        weights, theirs = put(owned_by_jax(total, np.float16), first, start), ours[1:]
        address = weights.unsafe_buffer_pointer()
        for _ in range(20):
            pre, post = (jnp.asarray(rng.random(n) < 0.2) for n in (60, 70))
            *ours, expected = step(network, *ours, pre, post)
            weights, *theirs, got = step(far, weights, *theirs, pre, post)
            np.testing.assert_array_equal(got, expected)
        assert weights.unsafe_buffer_pointer() == address, "the weight was copied"
        check_update(weights, first, np.asarray(ours[0]), start, synapses.nse, total)


def applied(side: str, index: Any, boundary: int) -> None:
    rng = np.random.default_rng(0)
    synapses = hebbax.Synapses.random((60, 70), indegree=20, seed=1)
    n = synapses.shape[0 if side == "pre" else 1]

    def change(synapse: Any, pre: Any, post: Any) -> Any:
        weight, uses = synapse
        return weight + pre * post, uses + 1

    @functools.partial(jax.jit, donate_argnums=1)
    def run(synapses: Any, values: Any, spike: Any, pre: Any, post: Any) -> Any:
        return getattr(synapses, f"apply_on_{side}")(change, values, spike, pre=pre, post=post)

    with enable_x64(index == np.int64):
        weight = (rng.integers(-8, 8, synapses.nse) / 8).astype(np.float16)
        spike, pre, post = rng.random(n) < 0.5, *((rng.integers(0, 8, k) / 8).astype(np.float16) for k in (60, 70))
        zero = np.zeros(synapses.nse, np.uint8)
        expected = run(synapses, (jnp.array(weight), jnp.array(zero)), spike, pre, post)
        views, start, total = far_views(synapses, index, boundary)
        far = assemble(hebbax.Synapses, {**views, "shape": synapses.shape})
        values = put(owned_by_jax(total, np.float16), weight, start), owned_by_jax(total, np.uint8)
        got = run(far, values, spike, pre, post)
        for mine, other, before in zip(got, expected, (weight, zero), strict=True):
            check_update(mine, before, np.asarray(other), start, synapses.nse, total)
