"""What the experiments on networks share: populations, projections, and the loop that runs them on all devices.

A network is one array of neurons, every few of which are inhibitory, so that each device's part of the array has its
share of both. A device has its own neurons and all synapses onto them: it updates, delivers and learns by itself, and
the devices exchange spikes once in the smallest delay, when nothing waits for them. No result depends on how many
devices there are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax.sharding import Layout

CHUNK_STEPS = 1000  # after so many steps, spikes are fetched, and progress is told
PAYS = 5_000_000  # synapses and more, with which devices of one process gain more than meeting costs them


class Neurons(Protocol):
    """A population of model neurons, as the loop asks for it."""

    time_step: u.Quantity

    def start(self, ids: np.ndarray, rng: np.random.Generator) -> Any:
        """State of these neurons at first: a pytree of arrays with one entry per neuron."""

    def drive(self, ids: jax.Array, steps: jax.Array) -> Any:
        """What comes from outside, at these steps, to these neurons: a pytree of arrays `(steps, neurons)`."""

    def step(self, state: Any, excitation: jax.Array, inhibition: jax.Array, drive: Any) -> tuple[Any, jax.Array]:
        """Advance by a step, in which this arrives; return the state and the spikes."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """Synapses of one kind, within the network.

    Attributes
    ----------
    synapses : Synapses
    weight : float
        Of all of them, at first if they learn.
    inhibitory : bool
        Whether what arrives is inhibition.
    rule : rule of hebbax, optional
        How the weights change.
    """

    synapses: hebbax.Synapses
    weight: float
    inhibitory: bool = False
    rule: Any = None


@dataclasses.dataclass(frozen=True)
class Network:
    """Neurons, projections, and the delay of all of these.

    Attributes
    ----------
    neurons : Neurons
    excitatory : array of bool, shape (n,)
    projections : sequence of Projection
    delay : int
        Steps from a spike to its effect, at least 1.
    dendritic : bool
        Whether all of the delay is between synapse and soma, as in NEST, and not between the presynaptic soma and the
        synapse. Then a synapse sees a presynaptic spike at once, and postsynaptic ones after the delay, and it sends
        the weight that it has after the presynaptic spike. (The loop does all of that one delay later, with the same
        result: so it can deliver spikes when they act.)
    """

    neurons: Neurons
    excitatory: np.ndarray
    projections: Sequence[Projection]
    delay: int = 1
    dendritic: bool = False


class State(NamedTuple):
    """What an interval of one delay hands to the next one."""

    arriving: jax.Array  # (delay, n) bool: spikes of the last interval, of all neurons
    returning: Any  # (2 * delay, own) bool, if dendritic, else None: own spikes of the last two
    neurons: Any
    weights: tuple  # of the projections that learn
    traces: tuple


@dataclasses.dataclass(frozen=True)
class Run:
    """A simulation's result; weights are those of the first projection that learns, in CSR order."""

    network: Network
    steps: int
    spike_step: np.ndarray  # (spikes,), ascending
    spike_neuron: np.ndarray  # (spikes,)
    weight_start: np.ndarray  # (nse,), empty if nothing learns
    weight_end: np.ndarray
    devices: int
    build_time: u.Quantity  # of drawing the network and sharing it out
    compile_time: u.Quantity
    wall_time: u.Quantity  # of the steps

    @property
    def time(self) -> u.Quantity:
        """Biological time."""
        return self.steps * self.network.neurons.time_step

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.network.excitatory.size

    def rates(self, first: int = 0) -> u.Quantity:
        """Firing rate of every neuron from step `first` on."""
        counts = np.bincount(self.spike_neuron[self.spike_step >= first], minlength=self.n)
        return counts / ((self.steps - first) * (self.network.neurons.time_step / u.second)) * u.Hz


def interleaved(excitatory: int, inhibitory: int) -> np.ndarray:
    """Which of so many neurons are excitatory, evenly spread."""
    n = excitatory + inhibitory
    return np.diff(np.arange(n + 1) * inhibitory // max(n, 1)) == 0


def simulate(
    build: Callable[[], Network], *, seconds: float, seed: int = 0, backend: str | None = None,
    mesh: Mesh | None = None, on_progress: Callable[[float], object] | None = None,
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
        Devices of this process to share the network out among, by default as many of the host's as pay.
    on_progress : callable, optional
        Called with the biological time in seconds; if what it returns is true, the run ends there.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds: got {seconds}, expected a positive number")
    started = time.perf_counter()
    network = build()
    steps = max(1, round(seconds * u.second / network.neurons.time_step))
    mesh = best_mesh(network) if mesh is None else mesh
    (axis,), devices, delay = mesh.axis_names, mesh.size, network.delay
    layout = Layout.even(network.excitatory.size, devices)
    shards = [hebbax.sharding.split(p.synapses, mesh, pre=layout, post=layout) for p in network.projections]
    rules = [p.rule for p in network.projections]
    part, whole = P(axis), P()
    on_every_device = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def put(x: np.ndarray, spec: P) -> jax.Array:
        return jax.device_put(x, NamedSharding(mesh, spec))

    ids = np.arange(layout.n)
    of_neurons = network.neurons.start(ids, np.random.default_rng(seed))
    weights = tuple(
        shard.split_weight(np.full(p.synapses.nse, p.weight, np.float32))
        for p, shard in zip(network.projections, shards, strict=True)
        if p.rule is not None
    )
    state = State(
        arriving=put(np.zeros((delay, layout.length), bool), whole),
        returning=put(np.zeros((2 * delay, layout.length), bool), P(None, axis)) if network.dendritic else None,
        neurons=jax.tree.map(shards[0].split_post, of_neurons),
        weights=weights,
        traces=tuple(
            _start_traces(rule, shard, on_every_device, part)
            for rule, shard in zip(rules, shards, strict=True)
            if rule is not None
        ),
    )
    specs = State(whole, P(None, axis), part, part, jax.tree.map(lambda x: x.sharding.spec, state.traces))
    own = shards[0].split_post(ids.astype(np.int32))
    shared = [None if p.rule is not None else np.float32(p.weight) for p in network.projections]

    def run_own(state: State, shards: list, own: jax.Array, first: jax.Array, intervals: int) -> tuple[State, Any]:
        synapses = [shard.local() for shard in shards]
        interval = functools.partial(
            _interval, network, synapses, rules, shared, own, backend, axis if devices > 1 else None
        )
        return jax.lax.scan(interval, state, first + delay * jnp.arange(intervals, dtype=jnp.int32))

    @functools.partial(jax.jit, static_argnames="intervals", donate_argnames="state")
    def run_chunk(state: State, shards: list, own: jax.Array, first: jax.Array, intervals: int) -> tuple[State, Any]:
        run = on_every_device(
            functools.partial(run_own, intervals=intervals), in_specs=(specs, part, part, whole),
            out_specs=(specs, P(None, None, axis)),
        )  # fmt: skip
        return run(state, shards, own, first)

    weight_start = np.asarray(shards[_learns(rules)].join_weight(weights[0])) if weights else np.zeros(0, np.float32)
    intervals = max(1, CHUNK_STEPS // delay)
    firsts = range(0, math.ceil(steps / delay), intervals)
    lengths = {min(intervals, math.ceil(steps / delay) - first) for first in (firsts[0], firsts[-1])}
    built = time.perf_counter()
    compiled = {n: run_chunk.lower(state, shards, own, np.int32(0), intervals=n).compile() for n in lengths}
    ready = time.perf_counter()
    spikes: list[tuple[np.ndarray, np.ndarray]] = []
    done = 0
    for first in firsts:
        length = min(intervals, math.ceil(steps / delay) - first)
        state, raster = compiled[length](state, shards, own, np.int32(first * delay))
        spikes.append(_sparse(raster, layout, first * delay))
        done = min((first + length) * delay, steps)
        if on_progress and on_progress(done * (network.neurons.time_step / u.second)):
            break
    jax.block_until_ready(state)
    finished = time.perf_counter()
    step, neuron = (np.concatenate(x) for x in zip(*spikes, strict=True))
    kept = step < done
    weight_end = np.asarray(shards[_learns(rules)].join_weight(state.weights[0])) if weights else weight_start
    return Run(
        network, done, step[kept], neuron[kept], weight_start, weight_end, devices, (built - started) * u.second,
        (ready - built) * u.second, (finished - ready) * u.second,
    )  # fmt: skip


def best_mesh(network: Network) -> Mesh:
    """As many of the host's devices as a network of this size gains from; one of any other kind."""
    devices = jax.local_devices()
    synapses = sum(p.synapses.nse for p in network.projections)
    several = devices[0].platform == "cpu" and synapses >= PAYS
    return Mesh(devices if several else devices[:1], ("neurons",))


def _learns(rules: list) -> int:
    return next(k for k, rule in enumerate(rules) if rule is not None)


def _start_traces(rule: Any, shard: Any, on_every_device: Callable, part: P) -> Any:
    """Traces of all presynaptic neurons, whole on every device, and of a device's postsynaptic ones."""
    traces = jax.eval_shape(rule.init, hebbax.Synapses([0, 0], [], shape=(1, 1)))
    specs = type(traces)(**{name: P() if name.startswith("pre") else part for name in traces._fields})
    return jax.jit(on_every_device(lambda s: rule.init(s.local()), in_specs=part, out_specs=specs))(shard)


def _interval(
    network: Network, synapses: list, rules: list, shared: list, own: jax.Array, backend: str | None, axis: str | None,
    state: State, first: jax.Array,
) -> tuple[State, jax.Array]:  # fmt: skip
    """The steps of one delay, in which what arrives is known, and then the exchange of what was sent in them."""
    neurons, dt = network.neurons, network.neurons.time_step
    drive = neurons.drive(own, first + jnp.arange(network.delay, dtype=jnp.int32))

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        of_neurons, weights, traces = carry
        pre_spike, returned, drive = inputs
        weights, traces = list(weights), list(traces)
        received = {False: [], True: []}
        for k, projection in enumerate(network.projections):
            w, mine = shared[k], sum(rule is not None for rule in rules[:k])
            if rules[k] is not None:
                if network.dendritic:
                    weights[mine], traces[mine] = rules[k].step(
                        synapses[k], weights[mine], traces[mine], pre_spike, returned, dt, backend=backend
                    )
                w = weights[mine]
            received[projection.inhibitory].append(synapses[k].propagate_on_pre(w, pre_spike, backend=backend))
        excitation, inhibition = (functools.reduce(jnp.add, x) for x in received.values())
        of_neurons, spike = neurons.step(of_neurons, excitation, inhibition, drive)
        if not network.dendritic:
            for mine, k in enumerate(k for k, rule in enumerate(rules) if rule is not None):
                weights[mine], traces[mine] = rules[k].step(
                    synapses[k], weights[mine], traces[mine], pre_spike, spike, dt, after=excitation, backend=backend
                )
        return (of_neurons, tuple(weights), tuple(traces)), spike

    returned = state.returning[: network.delay] if network.dendritic else None
    carry, spikes = jax.lax.scan(step, state[2:], (state.arriving, returned, drive), length=network.delay)
    everyone = spikes if axis is None else jax.lax.all_gather(spikes, axis, axis=1, tiled=True)
    returning = jnp.concatenate([state.returning[network.delay :], spikes]) if network.dendritic else state.returning
    return State(everyone, returning, *carry), spikes


def _sparse(raster: jax.Array, layout: Layout, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and neurons of the spikes in `(intervals, delay, places)`."""
    steps, neurons = [], []
    for shard in raster.addressable_shards:
        own = np.asarray(shard.data).reshape(-1, layout.size)
        k = (shard.index[2].start or 0) // layout.size
        step, place = np.divmod(np.flatnonzero(own), layout.size)
        real = place < layout.starts[k + 1] - layout.starts[k]
        steps.append(step[real] + first)
        neurons.append(place[real] + layout.starts[k])
    step, neuron = np.concatenate(steps), np.concatenate(neurons)
    order = np.lexsort((neuron, step))
    return step[order].astype(np.int32), neuron[order].astype(np.int32)
