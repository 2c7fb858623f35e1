"""The loop that runs a network on devices, keeps what it comes to, and tells how far it is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import brainunit as u
import jax
import numpy as np
from jax.sharding import Mesh

import hebbax
from hebbax.experiments.keeping import Journal, Keeper, Refused, check_not_over, described
from hebbax.experiments.network import Network, Run
from hebbax.experiments.network_split import JOINED, Split
from hebbax.experiments.processes import any_process
from hebbax.sharding import Layout

CHUNK_STEPS = 1000  # after so many steps, spikes are fetched, and progress is told
MOST_STEPS = 2_000_000_000  # which fit int32
PAYS = 2_500_000  # synapses for each device, with which devices of one process gain more than meeting costs them

_one_at_a_time = threading.Lock()  # which is what an exchange asks for


def simulate(
    build: Callable[[], Network], *, seconds: float, seed: int = 0, backend: str | None = None,
    mesh: Mesh | None = None, on_progress: Callable[[float], object] | None = None, keeper: Keeper | None = None,
    about: tuple[str, dict[str, Any]] = ("network", {}),
) -> Run:  # fmt: skip
    """Build a network and run it.

    Parameters
    ----------
    build : callable
        Returns the network.
    seconds : float
        Biological time, at least one step.
    seed : int
        Of the neurons' states at first. (Structure and drive have their own.)
    backend : str, optional
        Of the operators.
    mesh : jax.sharding.Mesh, optional
        Devices to share the network out among, along its one axis, by default as many of the host's as pay. If they are
        several processes', all of these call this function alike, and have the result.
    on_progress : callable, optional
        Called with the biological time in seconds; if what it returns is true, the run ends there, in all processes.
    keeper : Keeper, optional
        What keeps the run, and has what there was of it (see `hebbax.experiments.keeping`).
    about : tuple of str and dict
        For the keeper: the experiment's name, and the arguments of its network.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        `seconds` is not a positive number, takes too many steps, or fewer than were kept; or several processes have too
        many weights to keep them.
    OverflowError
        A device has more synapses of a projection that learns than the CPU kernels number, 2^31 - 1.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds: got {seconds}, expected a positive number")
    started = time.perf_counter()
    network = build()
    dt, delay = network.neurons.time_step / u.second, network.delay
    steps = steps_in(seconds, network.neurons.time_step)
    mesh = best_mesh(network) if mesh is None else mesh
    split = Split(network, mesh, seed, backend)
    chunk, intervals = max(1, CHUNK_STEPS // delay), math.ceil(steps / delay)
    if keeper and jax.process_count() > 1 and any(s.count > JOINED for s in split._learning()):
        raise Refused(f"keeper: got one for more than {JOINED} weights of several processes, expected fewer")
    synapses = sum(shard.count for shard in split.shards)
    options: Any = dict(seed=seed, delay=delay, synapses=synapses, learning=split.how)
    journal = Journal(keeper, described(about[0], network.neurons.parameters, **about[1], **options), by_process=True)
    start = journal.steps // delay
    check_not_over(start * delay, intervals * delay, "seconds")
    whole = start + (intervals - start) // chunk * chunk  # up to where chunks are those of any longer run
    firsts = range(start, intervals, chunk)
    with _one_at_a_time, _threads_shared_by(len(mesh.local_devices)):
        if journal.kept:
            split.restore(journal.kept.state, start * delay)
        else:
            journal.save(0, split.kept)
        built = time.perf_counter()
        lengths = {min(chunk, intervals - first) for first in (*firsts[:1], *firsts[-1:])}
        compiled = {n: split.compile(n) for n in lengths}
        split.settle(start * delay)  # (nothing is to settle yet but what that takes to compile)
        ready = time.perf_counter()
        journal.begin()
        done = min(start * delay, steps)
        before: tuple[Any, ...] = ()
        if on_progress and start:
            on_progress(done * dt)
        for first in firsts:
            length = min(chunk, intervals - first)
            raster = split.run(compiled[length], first * delay)
            if before:  # while the devices compute this raster
                journal.add(**_sparse(*before))
            before = jax.block_until_ready(raster), split.layout, first * delay
            done = min((first + length) * delay, steps)
            stop = any_process(bool(on_progress and on_progress(done * dt)))
            if length == chunk and (stop or first + length == whole or journal.due()):
                journal.add(**_sparse(*before))
                before = ()
                if keeper:
                    split.settle((first + length) * delay)
                journal.save((first + length) * delay, split.kept)
            if stop:
                break
        if before:
            journal.add(**_sparse(*before))
        split.settle(math.ceil(done / delay) * delay)
        taken = journal.wall_time
    step, neuron = journal.read("spike_step"), journal.read("spike_neuron")
    kept = np.lexsort((neuron, step))  # (which processes have)
    kept = kept[step[kept] < done]  # the last interval is run to its end
    weight, first_weight = split.weight(), next((p.weight for p in network.projections if p.rule is not None), 0.0)
    return Run(
        network, seed, done, synapses, step[kept], neuron[kept],
        np.broadcast_to(np.float32(first_weight), weight.shape), weight, mesh.size, int(split.state.crowded),
        *(x * u.second for x in (built - started, ready - built, taken)),
    )  # fmt: skip


def steps_in(seconds: float, time_step: u.Quantity) -> int:
    """How many steps a run takes; a ValueError where these are too many to be numbered in int32."""
    steps = max(1, round(seconds * u.second / time_step))
    if steps > MOST_STEPS:
        raise ValueError(f"seconds: got {seconds}, {steps} steps of {time_step}, expected at most {MOST_STEPS}")
    return steps


@contextmanager
def _threads_shared_by(devices: int) -> Iterator[None]:
    """The kernels' threads shared out: devices that wait for a neighbour's thread would be slower than alone."""
    before = hebbax.get_num_threads()
    hebbax.set_num_threads(max(1, before // devices))
    try:
        yield
    finally:
        hebbax.set_num_threads(before)


def best_mesh(network: Network) -> Mesh:
    """As many of the host's devices as a network of this size gains from; one of any other kind."""
    devices = jax.local_devices()
    synapses = sum(p.drawn.nse if isinstance(p.drawn, hebbax.Synapses) else p.expected for p in network.projections)
    several = synapses // PAYS if devices[0].platform == "cpu" else 1
    return Mesh(devices[: max(1, several)], ("neurons",))


def _sparse(raster: jax.Array, layout: Layout, first: int) -> dict[str, np.ndarray]:
    """Steps and neurons of the spikes in `(intervals, delay, places)`, of this process's devices, one by one."""
    steps, neurons = [], []
    for shard in raster.addressable_shards:
        own = np.asarray(shard.data).reshape(-1, layout.size)
        k = (shard.index[2].start or 0) // layout.size
        step, place = np.divmod(_spikes_in(own), layout.size)
        real = place < layout.starts[k + 1] - layout.starts[k]
        steps.append(step[real] + first)
        neurons.append(place[real] + layout.starts[k])
    return {name: np.concatenate(x).astype(np.int32) for name, x in (("spike_step", steps), ("spike_neuron", neurons))}


def _spikes_in(raster: np.ndarray) -> np.ndarray:
    """The places of the spikes in a raster, flattened: 8 places at a time, since nearly all are silent."""
    flat = raster.reshape(-1)
    head = flat[: flat.size // 8 * 8]
    words = np.flatnonzero(head.view(np.uint64) != 0)
    word, place = np.nonzero(head.reshape(-1, 8)[words])
    rest = head.size + np.flatnonzero(flat[head.size :])
    return np.concatenate([8 * words[word] + place, rest])
