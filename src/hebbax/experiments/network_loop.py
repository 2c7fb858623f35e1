"""The loop that runs a network on devices.

A device has its own neurons and all synapses onto them: it updates, delivers and learns by itself, and the devices
exchange spikes once in the delay of the network, when nothing waits for them, as lists. A step costs what a device's
own neurons do, and the spikes that arrive. No result depends on the number of devices.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax._core.exchange import everyone_by_bits
from hebbax._core.layout import everywhere, place, to_host
from hebbax._core.sent import nobody, pack, second_half
from hebbax._core.specs import Sent
from hebbax.experiments.keeping import Journal, Keeper, Refused, check_not_over, described, like, named, on_devices
from hebbax.experiments.learning import Learning, learning_of
from hebbax.experiments.network import Network, Run, check_senders
from hebbax.experiments.processes import any_process
from hebbax.sharding import Layout, exchange

CHUNK_STEPS = 1000  # after so many steps, spikes are fetched, and progress is told
MOST_STEPS = 2_000_000_000  # which fit int32
# Between processes, so many of a device's neurons may spike in a step before their spikes are sent as bits: these would
# take four times as many bytes. In steps of 0.1 ms it is 78 spikes a second of every neuron.
LISTED = 1 / 128
JOINED = 1 << 27  # weights that every process may have
PAYS = 2_500_000  # synapses for each device, with which devices of one process gain more than meeting costs them

_one_at_a_time = threading.Lock()  # which is what an exchange asks for


class State(NamedTuple):
    """What an interval of one delay hands to the next one."""

    arriving: Any  # spikes of the last interval, of all neurons, as lists
    own: Any  # (delay, own) bool: a device's own in it; if dendritic, (2 * delay, own) of the last two
    crowded: Any  # int32: intervals whose spikes had no room in lists
    neurons: Any
    weights: Any  # of the projections that learn
    traces: Any


class Own(NamedTuple):
    """A device's neurons."""

    ids: Any  # (own,)
    excitatory: Any  # (own,) bool

    def by_population(self, spikes: jax.Array) -> jax.Array:
        """Spikes `(steps, own)` of those that are excitatory, then those of the others, as they are exchanged.

        So that no spike has its row looked up among synapses that its neuron has not.
        """
        return jnp.concatenate([spikes & self.excitatory, spikes & ~self.excitatory])


class Split:
    """A network shared out among the devices of a mesh, and its state."""

    def __init__(self, network: Network, mesh: Mesh, seed: int, backend: str | None):
        self.network, self.backend, (self.axis,) = network, backend, mesh.axis_names
        self.layout = Layout.even(network.excitatory.size, mesh.size)
        layouts: Any = dict(pre=self.layout, post=self.layout)
        shape = 2 * (self.layout.n,)
        self.shards = [
            hebbax.sharding.split(p.drawn, mesh, **layouts)
            if isinstance(p.drawn, hebbax.Synapses)
            else hebbax.sharding.from_parts(p.drawn, shape, mesh, **layouts)
            for p in network.projections
        ]
        excitatory = np.zeros(self.layout.length, bool)
        excitatory[self.layout.places] = network.excitatory
        for p, shard in zip(network.projections, self.shards, strict=True):
            for part in shard.indptr.addressable_shards:
                check_senders(p, np.asarray(part.data), excitatory)
        self.learning = learning_of(network, self.shards, backend, mesh.devices.flat[0].platform)
        self.on_every_device = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
        delay, size = network.delay, self.layout.size
        part, whole, columns = P(self.axis), P(), P(None, self.axis)
        self.capacity = math.ceil(listed() * delay * size)
        sent = Sent(mesh.size * size, 2 * delay, mesh.size * self.capacity)
        kept = (1 + network.dendritic) * delay
        ids = np.arange(self.layout.n, dtype=np.int32)
        self.own = Own(*map(self.shards[0].split_post, (ids, network.excitatory)))
        start = self.on_every_device(network.neurons.start, in_specs=part, out_specs=part)
        self.state = State(
            arriving=jax.tree.map(functools.partial(everywhere, mesh), nobody(sent)),
            own=place(mesh, self.axis, lambda _: np.zeros((kept, size), bool), (kept,), size, bool),
            crowded=everywhere(mesh, np.int32(0)),
            neurons=jax.jit(start)(self.own.ids),
            weights=tuple(self.shards[k].full(network.projections[k].weight) for k in self.learning),
            traces=tuple(self._start(x, self.shards[k]) for k, x in self.learning.items()),
        )
        traces = tuple(x.specs(part) for x in self.learning.values())
        self.specs = State(whole, columns, whole, part, part, traces)

    def _start(self, learning: Learning, shard: Any) -> Any:
        """Traces of all presynaptic neurons, whole on every device, and of a device's postsynaptic ones."""
        options: Any = dict(in_specs=P(self.axis), out_specs=learning.specs(P(self.axis)))
        return jax.jit(self.on_every_device(lambda s: learning.start(s.local()), **options))(shard)

    def weight(self) -> np.ndarray:
        """Weights of the first projection that learns, in CSR order; of many, in several processes, own ones only."""
        if not self.learning:
            return np.zeros(0, np.float32)
        shard, weight = self.shards[next(iter(self.learning))], self.state.weights[0]
        if jax.process_count() == 1 or shard.count <= JOINED:
            return np.asarray(shard.join_weight(weight))
        own = zip(weight.addressable_shards, shard.indptr.addressable_shards, strict=True)
        return np.concatenate([np.asarray(x.data)[: int(indptr.data[-1])] for x, indptr in own])

    @property
    def how(self) -> list[str]:
        """How each projection learns that does: what is kept of it goes by that."""
        return [x.name for x in self.learning.values()]

    def settle(self, step: int) -> None:
        """Let all weights learn from all spikes before this step."""
        self.state = jax.block_until_ready(self._settle(self.state, self.shards, np.int32(step)))

    @functools.cached_property
    def _settle(self) -> Callable:

        def settle_own(state: State, shards: list, step: jax.Array) -> State:
            pairs = [
                x.settle(shards[k].local(), weight, traces, step)
                for (k, x), weight, traces in zip(self.learning.items(), state.weights, state.traces, strict=True)
            ]
            weights, traces = zip(*pairs, strict=True) if pairs else ((), ())
            return state._replace(weights=weights, traces=traces)

        specs: Any = dict(in_specs=(self.specs, P(self.axis), P()), out_specs=self.specs)
        return jax.jit(self.on_every_device(settle_own, **specs), donate_argnums=0)

    def kept(self) -> dict[str, Any]:
        """The state by neurons and synapses, settled; what arrives is left out, as what was sent. Of all processes."""
        weights = tuple(s.join_weight(w) for s, w in zip(self._learning(), self.state.weights, strict=True))
        joined = jax.tree.map(self._joined, self._neurons(self.state))
        return named(joined._replace(weights=weights))

    def restore(self, arrays: dict[str, np.ndarray], step: int) -> None:
        """Go on at this step from a state that was kept, on these or on other devices."""
        weights = tuple(s.split_weight(arrays[f".weights[{k}]"]) for k, s in enumerate(self._learning()))
        state = like(self._neurons(self.state), arrays, self._split)
        delay, part, columns = self.network.delay, P(self.axis), P(None, self.axis)

        def send(own: Own, spikes: jax.Array) -> hebbax.sharding.SpikeLists:
            return exchange(own.by_population(spikes), self.axis, capacity=self.capacity)

        def restored(kept: tuple, step: jax.Array) -> tuple:
            return tuple(x.restored(y, step) for x, y in zip(self.learning.values(), kept, strict=True))

        send_all = jax.jit(self.on_every_device(send, in_specs=(part, columns), out_specs=P()))
        arriving = send_all(self.own, state.own[-delay:])
        specs = jax.tree.map(lambda x: x.sharding.spec, state.traces)
        restore_all = self.on_every_device(restored, in_specs=(specs, P()), out_specs=self.specs.traces)
        traces = jax.jit(restore_all)(state.traces, np.int32(step))
        self.state = state._replace(arriving=arriving, weights=weights, traces=traces)

    def _neurons(self, state: State) -> State:
        """What is kept of a state that is one number for each neuron, or for all."""
        kept = tuple(x.kept(traces) for x, traces in zip(self.learning.values(), state.traces, strict=True))
        return state._replace(arriving=(), weights=(), traces=kept)

    def _learning(self) -> list[Any]:
        return [self.shards[k] for k in self.learning]

    def _joined(self, x: jax.Array) -> np.ndarray:
        numbers = to_host(x)
        return numbers[..., self.layout.places] if numbers.ndim else numbers

    def _split(self, x: jax.Array, kept: np.ndarray) -> jax.Array:
        numbers = np.array(to_host(x))
        if not numbers.ndim:
            return on_devices(x, kept)
        if kept.shape != (*numbers.shape[:-1], self.layout.n):
            message = f"checkpoint: got an array of shape {kept.shape}, expected one for {self.layout.n} neurons"
            raise Refused(message)
        numbers[..., self.layout.places] = kept
        return on_devices(x, numbers)

    def compile(self, intervals: int) -> Any:
        """The function `(state, shards, own, first step) -> (state, raster)` of so many intervals of one delay."""

        def run_own(state: State, shards: list, own: Own, first: jax.Array) -> tuple[State, Any]:
            interval = functools.partial(self._interval, [shard.local() for shard in shards], own)
            return jax.lax.scan(interval, state, first + self.network.delay * jnp.arange(intervals, dtype=jnp.int32))

        specs: Any = dict(in_specs=(self.specs, P(self.axis), P(self.axis), P()))
        run = self.on_every_device(run_own, **specs, out_specs=(self.specs, P(None, None, self.axis)))
        arguments = self.state, self.shards, self.own, np.int32(0)
        return jax.jit(run, donate_argnums=0).lower(*arguments).compile()

    def run(self, compiled: Any, first: int) -> jax.Array:
        """Go on by a compiled function; return the raster of the spikes, which may yet have to be computed."""
        self.state, raster = compiled(self.state, self.shards, self.own, np.int32(first))
        return raster

    def _interval(self, synapses: list, own: Own, state: State, first: jax.Array) -> tuple[State, jax.Array]:
        """The steps of one delay, in which what arrives is known, and then the exchange of what was sent in them."""
        delay = self.network.delay
        steps = first + jnp.arange(delay, dtype=jnp.int32)
        drive = self.network.neurons.drive(own.ids, steps)

        def run(state: State, arriving: hebbax.sharding.SpikeLists) -> tuple[tuple, jax.Array]:
            return run_interval(self.network, synapses, self.learning, drive, state, arriving, steps, self.backend)

        def by_bits(state: State) -> tuple[tuple, jax.Array]:
            bits = everyone_by_bits(jnp.vstack([state.own[-delay:], own.excitatory]), self.axis)
            everyone = pack(Own(None, bits[-1]).by_population(bits[:-1]), bits[:-1].size)
            return run(state, everyone)

        def by_lists(state: State) -> tuple[tuple, jax.Array]:
            return run(state, state.arriving)

        crowded = state.arriving.overflow > 0  # which all devices know
        if self.capacity == delay * self.layout.size:
            carry, spikes = by_lists(state)
        else:
            carry, spikes = jax.lax.cond(crowded, by_bits, by_lists, state)
        everyone = exchange(own.by_population(spikes), self.axis, capacity=self.capacity, awake=True)
        kept = jnp.concatenate([state.own[delay:], spikes])
        return State(everyone, kept, state.crowded + crowded, *carry), spikes


def listed() -> float:
    """The part of a device's neurons that may spike in a step: all in one process, where what is used is copied."""
    return 1.0 if jax.process_count() == 1 else LISTED


def run_interval(
    network: Network, synapses: list, learning: dict[int, Learning], drive: Any, state: State,
    arriving: hebbax.sharding.SpikeLists, steps: jax.Array, backend: str | None = None,
) -> tuple[tuple, jax.Array]:  # fmt: skip
    """Run the steps of one delay on a device; return the state of its neurons, weights and traces, and its spikes.

    What arrives are lists of both populations, as `Own.by_population` orders them.
    """
    neurons, delay = network.neurons, network.delay

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        lists, of_neurons, *of_synapses = carry
        k, step, returned, drive = inputs
        lists = lists.at(k)
        pre_spikes = {False: lists, True: second_half(lists)}  # by whether they are inhibitory
        weights, traces = (dict(zip(learning, x, strict=True)) for x in of_synapses)

        def spikes_to(k: int) -> hebbax.sharding.SpikeLists:
            return pre_spikes[network.projections[k].inhibitory]

        arriving = []
        for k, p in enumerate(network.projections):
            if k in learning:
                given = synapses[k], weights[k], traces[k], spikes_to(k), returned, step
                weights[k], traces[k], arrives = learning[k].arrive(*given)
            else:
                arrives = synapses[k].propagate_on_pre(number(p.weight), spikes_to(k), backend=backend)
            arriving.append(arrives)
        received: dict[bool, list] = {False: [], True: []}
        for p, x in zip(network.projections, arriving, strict=True):
            received[p.inhibitory].append(x)
        nothing = jnp.zeros(state.own.shape[1], np.float32)
        excitation, inhibition = (functools.reduce(jnp.add, x or [nothing]) for x in received.values())
        of_neurons, spike = hebbax.fence(neurons.step(of_neurons, excitation, inhibition, drive))
        for k, own in learning.items():
            weights[k], traces[k] = own.leave(synapses[k], weights[k], traces[k], spikes_to(k), spike, arriving[k])
        return (lists, of_neurons, tuple(weights.values()), tuple(traces.values())), spike

    returned = state.own[:delay] if network.dendritic else None
    start = arriving, state.neurons, state.weights, state.traces
    (_, *carry), spikes = jax.lax.scan(step, start, (jnp.arange(delay), steps, returned, drive))
    return tuple(carry), spikes


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
    synapses = [shard.count for shard in split.shards]
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
        network, seed, done, sum(synapses), step[kept], neuron[kept],
        np.broadcast_to(np.float32(first_weight), weight.shape), weight, mesh.size, int(split.state.crowded),
        *(x * u.second for x in (built - started, ready - built, taken)),
    )  # fmt: skip


def number(weight: Any) -> Any:
    """A weight of all synapses, float32; one of a sweep's members is that already."""
    return weight if isinstance(weight, jax.Array) else np.float32(weight)


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
