"""What is measured on a GPU: the cases, their networks, made on the device, the bytes that a step must move, and the
bandwidth that limits it."""

from __future__ import annotations

import functools
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case, Half, Network

from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE, Spec

SPECS = (UPDATE_POST, UPDATE_PRE, PROPAGATE_PRE, PROPAGATE_POST)
# Spike vectors that take turns: so many that what a step touches is not still in the L2 cache from the last time,
# where the weights do not fit into it anyway.
PATTERNS = 32
COUNTED = 4  # of them, whose bytes are counted
ITEM, SECTOR = 4, 32  # bytes of float32 and of int32, and of the least that a GPU fetches or writes


class Scale(NamedTuple):
    """Networks, P(spike), and bytes of the array that is copied."""

    neurons: tuple[int, ...]
    synapses: tuple[int, ...]
    rates: tuple[float, ...]
    copied: int


SCALES = {
    "cuda": Scale((10_000, 100_000, 1_000_000), (100, 1_000), (0.001, 0.01, 0.1), 1 << 31),
    "cpu": Scale((100,), (10,), (0.01,), 1 << 22),
}


def cases(scale: Scale) -> list[Case]:
    """All cases, small networks first; those on one network, and of one operator, follow one another."""
    sizes = [(n, synapses) for n in scale.neurons for synapses in scale.synapses]
    networks = sorted(sizes, key=lambda size: size[0] * size[1])
    return [Case(spec, *size, rate) for size in networks for spec in SPECS for rate in scale.rates]


def memory_needed(nse: int) -> int:
    """Bytes on the device, at most about: while the plain-JAX reference runs.

    Four arrays of structure, weights before and after, in use and expected; and ten temporary ones, of indices.
    """
    return 18 * ITEM * nse


@functools.partial(jax.jit, static_argnums=(0, 1))
def network(n: int, synapses: int) -> Network:
    """Random connections: every neuron has the same number of targets, drawn uniformly and sorted.

    As `cases.network`, but made on the device, where sorting 10^9 synapses by target takes no minutes.
    """
    bits = jax.random.bits(jax.random.key(0), (n, synapses), jnp.uint32)
    indices = jnp.sort((bits % n).astype(jnp.int32), axis=1).ravel()
    slots = jnp.arange(n * synapses, dtype=jnp.int32)
    targets, slots = jax.lax.sort((indices, slots), num_keys=1, is_stable=True)
    neurons = jnp.arange(n + 1, dtype=jnp.int32)
    starts = jnp.searchsorted(targets, neurons).astype(jnp.int32)
    return Network(pre=Half(indices, neurons * synapses, None, None), post=Half(slots // synapses, starts, slots, None))


def spikes(case: Case) -> np.ndarray:
    """Which event neurons spike in step i: row `i % PATTERNS`, of shape `(PATTERNS, n)`."""
    rng = np.random.default_rng(1)
    return rng.random((PATTERNS, case.n), dtype=np.float32) < case.rate


@functools.partial(jax.jit, static_argnums=(0, 1))
def initial_state(n: int, nse: int) -> dict[str, jax.Array]:
    """Weights within the bounds 0 and 1, traces of either sign, so that both bounds are met within a few steps."""
    keys = jax.random.split(jax.random.key(2), 3)
    return {
        "weight": jax.random.uniform(keys[0], nse, jnp.float32),
        "out": jnp.zeros(n, jnp.float32),
        "pre_trace": jax.random.uniform(keys[1], n, jnp.float32, -0.05, 0.05),
        "post_trace": jax.random.uniform(keys[2], n, jnp.float32, -0.05, 0.05),
    }


class Touched(NamedTuple):
    """Means of a step: event neurons that spike, their elements, and the sectors of `weight` that these lie in."""

    events: float
    elements: float
    sectors: float


@functools.partial(jax.jit, static_argnums=2)
def _touched(network: Network, patterns: jax.Array, event: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    targets, n = network.pre.indices, network.n

    def count(spike):
        # A weight is touched where its presynaptic neuron spikes, or its postsynaptic one.
        if event == "pre":
            touched = jnp.broadcast_to(spike[:, None], (n, targets.size // n)).ravel()
        else:
            touched = spike[targets]
        sectors = jnp.pad(touched, (0, -touched.size % (SECTOR // ITEM))).reshape(-1, SECTOR // ITEM).any(axis=1)
        return spike.sum(), touched.sum(), sectors.sum()

    return jax.lax.map(count, patterns)


def touched(case: Case, network: Network, patterns: jax.Array) -> Touched:
    """Counted from the spikes themselves."""
    return Touched(*(float(np.mean(count)) for count in _touched(network, patterns[:COUNTED], case.spec.event)))


def bytes_moved(spec: Spec, n: int, nse: int, touched: Touched, clip_all: bool) -> float:
    """What a step must read and write at least, in bytes.

    Of structure: for each element its partner and, where rows are permuted, its slot; for each event row its two ends;
    the spikes. Of weights: the sectors touched, read and, in updates, written; all are read once to clip all. Of the
    partner neurons: the traces read (all, or a sector for each element), or all sums written.
    """
    structure = touched.elements * ITEM * (2 if spec.permuted else 1) + touched.events * 2 * ITEM + n
    if spec.kind == "propagate":
        return structure + touched.sectors * SECTOR + n * ITEM
    traces = min(n * ITEM, touched.elements * SECTOR)
    read = nse * ITEM if clip_all else touched.sectors * SECTOR
    return structure + traces + read + touched.sectors * SECTOR


def free_memory(device: jax.Device) -> float:
    """Bytes that JAX can still use on the device; of CPUs it does not tell."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else float("inf")


def too_large(nse: int, device: jax.Device) -> str | None:
    """Why a network is left out, if it is."""
    free, need = free_memory(device), memory_needed(nse)
    return f"needs about {need / 1e9:.3g} GB, {free / 1e9:.3g} GB are free" if need > free else None


def copy_bandwidth(scale: Scale, device: jax.Device, rounds: int = 7, copies: int = 16) -> float:
    """Bytes a second, read and written, of copying an array on the device."""
    # All copies may be in memory at once, since JAX does not wait for one before it starts the next.
    size = int(min(scale.copied, free_memory(device) // (2 * copies + 2)))
    copy = jax.jit(jnp.copy)
    x = jax.block_until_ready(copy(jnp.zeros(size // ITEM, jnp.float32)))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(copies):
            x = copy(x)
        jax.block_until_ready(x)
        times.append((time.perf_counter() - start) / copies)
    return 2 * (size // ITEM * ITEM) / statistics.median(times)
