"""A network shared out among devices, and the function that runs it there for intervals of one delay.

A device has its own neurons and all synapses onto them: it updates, delivers and learns by itself, and the devices
exchange spikes once in the delay of the network, when nothing waits for them, as lists. A step costs what a device's
own neurons do, and the spikes that arrive. No result depends on the number of devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
from hebbax.experiments.joining import joined
from hebbax.experiments.keeping import Refused, like, named, on_devices
from hebbax.experiments.learning import Learning, learning_of
from hebbax.experiments.network import Network, check_senders
from hebbax.sharding import Layout, exchange

# Between processes, so many of a device's neurons may spike in a step before their spikes are sent as bits: these would
# take four times as many bytes. In steps of 0.1 ms it is 78 spikes a second of every neuron.
LISTED = 1 / 128
JOINED = 1 << 27  # weights that every process may have


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
    exist: Any  # (own,) bool: at a device's last places there may be none
    learns: dict[int, Any] = {}  # noqa: RUF012  # (own,) bool, by projection: onto which synapses learn, if not onto all

    def by_population(self, spikes: jax.Array) -> jax.Array:
        """Spikes `(steps, own)` of those that are excitatory, then those of the others, as they are exchanged.

        So that no spike has its row looked up among synapses that its neuron has not.
        """
        return jnp.concatenate([spikes & self.excitatory, spikes & ~self.excitatory])


class Split:
    """A network shared out among the devices of a mesh, and its state."""

    def __init__(self, network: Network, mesh: Mesh, seed: int, backend: str | None):
        platform = mesh.devices.flat[0].platform
        network, self.learns = joined(network, learning_of(network, backend, platform), mesh.size)
        self.network, self.backend, (self.axis,) = network, backend, mesh.axis_names
        self.layout = Layout.even(network.excitatory.size, mesh.size)
        layouts: Any = dict(pre=self.layout, post=self.layout)
        self.learning = learning_of(network, backend, platform)
        reads_csc = {k for k, x in self.learning.items() if x.csc}  # (an update does; to send weights, CSR is enough)
        self.shards = [
            hebbax.sharding.split(p.drawn, mesh, **layouts, csc=k in reads_csc)
            if isinstance(p.drawn, hebbax.Synapses)
            else hebbax.sharding.from_parts(p.drawn, network.shape, mesh, **layouts, csc=k in reads_csc)
            for k, p in enumerate(network.projections)
        ]
        for k in self.learning.keys() - reads_csc:
            if self.shards[k].indices.dtype != np.int32:
                got = f"{mesh.size} devices, one of which has 64-bit indices in a projection that learns"
                raise OverflowError(f"mesh: got {got}, expected more devices, or backend='jax', which takes those")
        excitatory = np.zeros(self.layout.length, bool)
        excitatory[self.layout.places] = network.excitatory
        for p, shard in zip(network.projections, self.shards, strict=True):
            for part in shard.indptr.addressable_shards:
                check_senders(p, np.asarray(part.data), excitatory)
        self.on_every_device = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
        delay, size = network.delay, self.layout.size
        part, whole, columns = P(self.axis), P(), P(None, self.axis)
        self.capacity = math.ceil(listed() * delay * size)
        sent = Sent(mesh.size * size, 2 * delay, mesh.size * self.capacity)
        kept = (1 + network.dendritic) * delay
        ids = np.arange(self.layout.n, dtype=np.int32)
        split_post = self.shards[0].split_post
        excited, exist = split_post(network.excitatory), split_post(np.ones(ids.size, bool))
        self.own = Own(split_post(ids), excited, exist, {k: split_post(x) for k, x in self.learns.items()})
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
        """Traces of all presynaptic neurons, on every device, and of its own postsynaptic ones."""
        options: Any = dict(in_specs=P(self.axis), out_specs=learning.specs(P(self.axis)))
        return jax.jit(self.on_every_device(lambda s: learning.start(s.local()), **options))(shard)

    def weight(self) -> np.ndarray:
        """Weights of the first projection that learns, in CSR order; of many, in several processes, own ones only."""
        if not self.learning:
            return np.zeros(0, np.float32)
        first, weight = next(iter(self.learning)), self.state.weights[0]
        if jax.process_count() == 1 or self.shards[first].count <= JOINED:
            return self._join_weight(first, weight)
        own = (weight, self.shards[first].indptr, self._learns(first))
        shards = zip(*(x.addressable_shards for x in own), strict=True)
        ends = ((np.asarray(x.data), int(indptr.data[-1]), np.asarray(y.data)) for x, indptr, y in shards)
        return np.concatenate([x[:end][learns[:end]] for x, end, learns in ends])

    def _learns(self, k: int) -> jax.Array:
        """Which synapses of a projection learn, as weights are split."""

        def onto(synapses: hebbax.sharding.ShardedSynapses, own: Own) -> jax.Array:
            indices = synapses.local().indices
            return own.learns[k][indices] if k in own.learns else jnp.ones(indices.size, bool)

        spec = P(self.axis)
        return jax.jit(self.on_every_device(onto, in_specs=(spec, spec), out_specs=spec))(self.shards[k], self.own)

    def _join_weight(self, k: int, weight: jax.Array) -> np.ndarray:
        """The weights of the synapses of a projection that learn, in CSR order."""
        whole = np.asarray(self.shards[k].join_weight(weight))
        return whole[self._places(k)] if k in self.learns else whole

    def _split_weight(self, k: int, weight: np.ndarray) -> jax.Array:
        """The inverse."""
        if k in self.learns:
            weight, learnt = np.full(self.shards[k].count, self.network.projections[k].weight, np.float32), weight
            weight[self._places(k)] = learnt
        return self.shards[k].split_weight(weight)

    def _places(self, k: int) -> np.ndarray:
        return np.asarray(self.shards[k].join_weight(self._learns(k)))

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
        weights = tuple(self._join_weight(k, w) for k, w in zip(self.learning, self.state.weights, strict=True))
        whole = jax.tree.map(self._joined, self._neurons(self.state))
        return named(whole._replace(weights=weights))

    def restore(self, arrays: dict[str, np.ndarray], step: int) -> None:
        """Go on at this step from a state that was kept, on these or on other devices."""
        weights = tuple(self._split_weight(k, arrays[f".weights[{i}]"]) for i, k in enumerate(self.learning))
        state = like(self._neurons(self.state), arrays, self._split)
        delay, part, columns = self.network.delay, P(self.axis), P(None, self.axis)

        def send(own: Own, spikes: jax.Array) -> hebbax.sharding.SpikeLists:
            return exchange(own.by_population(spikes), self.axis, capacity=self.capacity)

        def restored(shards: list, own: Own, kept: tuple, step: jax.Array) -> tuple:
            learning = zip(self.learning.items(), shards, kept, strict=True)
            return tuple(x.restored(s.local(), y, step, own.learns.get(k)) for (k, x), s, y in learning)

        send_all = jax.jit(self.on_every_device(send, in_specs=(part, columns), out_specs=P()))
        arriving = send_all(self.own, state.own[-delay:])
        options: Any = dict(in_specs=(part, part, self._kept_specs(), P()), out_specs=self.specs.traces)
        restore_all = self.on_every_device(restored, **options)
        traces = jax.jit(restore_all)(self._learning(), self.own, state.traces, np.int32(step))
        self.state = state._replace(arriving=arriving, weights=weights, traces=traces)

    def _neurons(self, state: State) -> State:
        """What is kept of a state that is one number for each neuron, or for all."""
        return state._replace(arriving=(), weights=(), traces=self._kept(state.traces))

    def _kept_specs(self) -> tuple:
        return tuple(x.kept_specs(P(self.axis)) for x in self.learning.values())

    @functools.cached_property
    def _kept(self) -> Callable:

        def kept(traces: tuple) -> tuple:
            return tuple(x.kept(y) for x, y in zip(self.learning.values(), traces, strict=True))

        return jax.jit(self.on_every_device(kept, in_specs=(self.specs.traces,), out_specs=self._kept_specs()))

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
            return run_interval(self.network, synapses, self.learning, own, drive, state, arriving, steps, self.backend)

        def by_bits(state: State) -> tuple[tuple, jax.Array]:
            bits = everyone_by_bits(jnp.vstack([state.own[-delay:], own.excitatory]), self.axis)
            everyone = pack(Own(None, bits[-1], None).by_population(bits[:-1]), bits[:-1].size)
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
    network: Network, synapses: list, learning: dict[int, Learning], own: Own, drive: Any, state: State,
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

        def heard(k: int, spikes: jax.Array | None) -> jax.Array | None:
            """The postsynaptic spikes of which the rule is told."""
            return spikes if spikes is None or k not in own.learns else spikes & own.learns[k]

        arriving = []
        for k, p in enumerate(network.projections):
            if k in learning:
                given = synapses[k], weights[k], traces[k], spikes_to(k), heard(k, returned), step
                weights[k], traces[k], arrives = learning[k].arrive(*given)
            else:
                arrives = synapses[k].propagate_on_pre(number(p.weight), spikes_to(k), backend=backend)
            arriving.append(arrives)
        received: dict[bool, list] = {False: [], True: []}
        for p, x in zip(network.projections, arriving, strict=True):
            received[p.inhibitory].append(x)
        nothing = jnp.zeros(state.own.shape[1], np.float32)
        excitation, inhibition = (functools.reduce(jnp.add, x or [nothing]) for x in received.values())
        of_neurons, spike = neurons.step(of_neurons, excitation, inhibition, drive)
        of_neurons, spike = hebbax.fence((of_neurons, spike & own.exist))
        for k, how in learning.items():
            told = synapses[k], weights[k], traces[k], spikes_to(k), heard(k, spike), arriving[k]
            weights[k], traces[k] = how.leave(*told)
        return (lists, of_neurons, tuple(weights.values()), tuple(traces.values())), spike

    returned = state.own[:delay] if network.dendritic else None
    start = arriving, state.neurons, state.weights, state.traces
    (_, *carry), spikes = jax.lax.scan(step, start, (jnp.arange(delay), steps, returned, drive))
    return tuple(carry), spikes


def number(weight: Any) -> Any:
    """A weight of all synapses, float32; one of a sweep's members is that already."""
    return weight if isinstance(weight, jax.Array) else np.float32(weight)
