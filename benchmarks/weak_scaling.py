"""Weak scaling by model: the compute of one node is measured, the network between nodes is assumed.

A plastic network (`hebbax.experiments.hpc`) grows with the number of nodes: each node holds as many neurons, and as
many synapses onto each, as before, and their partners are among ever more neurons. What one node computes in the steps
of one delay is measured here, by the loop of the experiments itself, on the very structure that the node would have:
all neurons of the whole network are rows, each the shorter the more nodes there are. Spikes of the whole network are
drawn beforehand and arrive as lists, as an exchange leaves them. What that takes is computed: latency, bandwidth.
"""

from __future__ import annotations

import datetime
import gc
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from lines import LINE, Lines, rows, seconds
from machine import commit, machine, versions
from rich.console import Console
from rich.table import Table

import hebbax
from hebbax._core.building import CSC, CSR
from hebbax._core.layout import part_of_columns
from hebbax._core.pytree import assemble
from hebbax._core.reference import SENT_HEADER
from hebbax._core.sent import merge, nobody, pack, second_half
from hebbax._core.specs import Sent
from hebbax.experiments import hpc, network, network_split
from hebbax.experiments.joining import joined
from hebbax.experiments.learning import learning_of

RESULTS = Path(__file__).parent / "results"
NODES = [1, 4, 16, 64, 256, 1024]
PATTERNS = 512  # different intervals of spikes, in turn: at 10.5 Hz, 3 in 10 000 neurons have none in these
TOGETHER = 128  # intervals that are timed at a time, or a multiple of these
DELAYS = 512  # that are timed one by one
MEASURED = (
    "nodes", "neurons", "synapses", "bytes a node", "spikes a step", "plastic synapses of a row", "sent a node",
    "compute a step, measured", "longest delay, in medians", "cache lines a step", "touching these alone",
)  # fmt: skip


@dataclass(frozen=True)
class Fabric:
    """What joins the nodes."""

    name: str
    latency: float  # seconds of a message
    bandwidth: float  # bytes a second

    def ring(self, nodes: int, part: int) -> float:
        """Seconds of an all-gather of `part` bytes from each node, where in every round a node passes one part on."""
        return (nodes - 1) * (self.latency + part / self.bandwidth)

    def tree(self, nodes: int, part: int) -> float:
        """The same where what has been gathered doubles in every round (recursive doubling, or Bruck's algorithm)."""
        return math.ceil(math.log2(nodes)) * self.latency + (nodes - 1) * part / self.bandwidth


FABRICS = (Fabric("InfiniBand", 2e-6, 25e9), Fabric("TCP", 30e-6, 10e9))


@dataclass(frozen=True)
class Row:
    """One number of nodes; times are in seconds and of one step, but for the exchange, which is of one delay."""

    nodes: int
    neurons: int
    synapses: int
    node_bytes: int
    spikes: float  # of all nodes in a step
    row: float  # mean number of plastic synapses of a neuron on this node
    compute: float
    longest: float  # of some delays, how many times as long as their median
    message: int  # bytes that a node sends
    lines: float  # that a step visits
    touched: float  # seconds that touching them takes

    def step(self, delay: int, exchange: Callable[[int, int], float]) -> float:
        return self.compute + exchange(self.nodes, self.message) / delay


class Node:
    """The part of the first of so many nodes, ready to be timed."""

    def __init__(self, nodes: int, neurons: int, inputs: float, rate: float):
        p = hpc.Parameters()
        built = hpc.build(p, scale=nodes * neurons / 11250, inputs=inputs, plastic=True, seed=0)
        self.network, self.learns = joined(built, learning_of(built, None, "cpu"), nodes)
        self.nodes, n = nodes, self.network.excitatory.size
        self.layout = hebbax.sharding.Layout.even(n, nodes)
        self.learning = learning_of(self.network, None, "cpu")
        self.synapses = [own_part(x, self.layout) for x in self.network.projections]
        delay, size = self.network.delay, self.layout.size
        capacity = math.ceil(network_split.LISTED * delay * size)
        self.sent = Sent(size, 2 * delay, capacity)
        rng, probability = np.random.default_rng(nodes), rate * 1e-4
        own = [rng.random((delay, size)) < probability for _ in range(PATTERNS)]
        self.intervals = 0  # that were run
        self.excitatory = np.zeros((nodes, size), bool)  # of all nodes
        self.excitatory.reshape(-1)[self.layout.places] = self.network.excitatory
        self.exist = np.zeros((nodes, size), bool)
        self.exist.reshape(-1)[self.layout.places] = True
        self.patterns = [jnp.asarray(self._gathered(spikes, probability, rng)) for spikes in own]
        self.own = jnp.asarray(np.stack(own))
        ids = jnp.arange(size, dtype=jnp.int32)
        weights = tuple(jnp.full(s.nse, x.weight) for s, x in self._learning())
        traces = tuple(x.start(self.synapses[k]) for k, x in self.learning.items())
        kept = jnp.zeros((2 * delay, size), bool)
        self.state = network_split.State(None, kept, jnp.int32(0), self.network.neurons.start(ids), weights, traces)
        self.compiled = jax.jit(self._run, static_argnames="intervals", donate_argnums=0)
        for _ in range(PATTERNS // TOGETHER):  # compiles, and lets nearly every neuron spike
            self.timed(TOGETHER)

    def _learning(self) -> Iterator[tuple[hebbax.Synapses, network.Projection]]:
        return ((s, x) for s, x in zip(self.synapses, self.network.projections, strict=True) if x.rule is not None)

    def _gathered(self, own: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
        """The messages of all nodes: the own one, and those of others, who spike as probably."""
        size, steps, capacity = own.shape[1], self.sent.steps, self.sent.capacity
        messages = np.tile(nobody(self.sent).message, (self.nodes, 1))
        messages[0] = pack(self._populations(0).by_population(jnp.asarray(own)), capacity).message
        counts = rng.binomial(own.size, probability, self.nodes)
        for node in range(1, self.nodes):
            step, neuron = np.divmod(rng.choice(own.size, counts[node], replace=False, shuffle=False), size)
            later = np.where(self.excitatory[node, neuron], step, step + len(own))
            cells = np.sort(later * size + neuron)
            if cells.size > capacity:
                raise ValueError(f"rate: got {probability * 1e4:g} Hz, at which {capacity} spikes are too few")
            messages[node, SENT_HEADER : SENT_HEADER + 1 + steps] = np.searchsorted(cells, size * np.arange(steps + 1))
            messages[node, SENT_HEADER + 1 + steps :][: cells.size] = cells % size
        return messages.reshape(-1)

    def _populations(self, node: int) -> network_split.Own:
        size, ids = self.layout.size, np.arange(self.layout.size, dtype=np.int32)
        return network_split.Own(
            *map(jnp.asarray, (ids, self.excitatory[node], self.exist[node])),
            {k: jnp.asarray(x[:size]) for k, x in self.learns.items()},
        )

    def _run(
        self, state: Any, synapses: list, patterns: list[jax.Array], own: jax.Array, first: jax.Array, intervals: int
    ) -> Any:
        delay = self.network.delay
        populations = self._populations(0)
        merged = [lambda x=x: merge(x, self.nodes, self.sent) for x in patterns]

        def interval(state: Any, k: jax.Array) -> tuple[Any, None]:
            steps = k * delay + jnp.arange(delay, dtype=jnp.int32)
            arriving = one_of(merged, k % PATTERNS)
            drive = self.network.neurons.drive(populations.ids, steps)
            carry, spikes = network_split.run_interval(
                self.network, synapses, self.learning, populations, drive, state, arriving, steps
            )
            sent = pack(populations.by_population(spikes), self.sent.capacity).message  # which the exchange would send
            spikes = jnp.roll(own[k % PATTERNS], k // PATTERNS, axis=1)  # (others spike often in each turn)
            kept = hebbax.fence((jnp.concatenate([state.own[delay:], spikes]), sent))[0]
            return network_split.State(None, kept, state.crowded, *carry), None

        return jax.lax.scan(interval, state, first + jnp.arange(intervals, dtype=jnp.int32))[0]

    def timed(self, intervals: int) -> float:
        """Seconds of a step, over so many intervals of one delay."""
        started = time.perf_counter()
        first = np.int32(self.intervals)
        self.intervals += intervals
        self.state = self.compiled(self.state, self.synapses, self.patterns, self.own, first, intervals=intervals)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / (intervals * self.network.delay)

    def longest(self, intervals: int) -> float:
        """Of so many intervals of one delay the longest, in medians: for one node that is late, others wait."""
        self.timed(1)  # compiles
        times = [self.timed(1) for _ in range(intervals)]
        return max(times) / statistics.median(times)

    def lines(self) -> tuple[list[np.ndarray], int]:
        """The cache lines that each step of an interval visits, and how many there are in all."""
        lines, ((plastic, _),) = Lines(), self._learning()
        (weight,), neurons = self.state.weights, self.state.traces[0].pre.rows
        lists = merge(self.patterns[0], self.nodes, self.sent)
        steps = []
        for k in range(self.network.delay):
            excited, inhibited = (np.flatnonzero(x.at(k).todense()) for x in (lists, second_half(lists)))
            for s, projection in zip(self.synapses, self.network.projections, strict=True):
                spiking = inhibited if projection.inhibitory else excited
                rows(lines, s, weight if s is plastic else None, spiking)
            lines.visit(neurons, 4 * excited, 4 * excited + 4, writes=True)
            steps.append(lines.step())
        return steps, lines.size

    def row(self, compute: float, rate: float, rounds: int) -> Row:
        size = sum(x.nbytes for x in jax.tree.leaves((self.synapses, self.state.weights, self.state.traces)))
        n, synapses = self.network.excitatory.size, sum(s.nse for s in self.synapses)
        (k,) = self.learning
        onto, plastic = self._populations(0).learns.get(k), self.synapses[k]
        learning = plastic.nse if onto is None else int(onto[plastic.indices].sum())
        steps, memory = self.lines()
        touched = seconds(steps, memory, hebbax.get_num_threads(), 5 * rounds)
        return Row(
            nodes=self.nodes, neurons=n, synapses=self.nodes * synapses, node_bytes=size, spikes=n * rate * 1e-4,
            row=learning / self.network.excitatory.sum(), compute=compute,
            message=4 * (self.patterns[0].size // self.nodes), lines=sum(x.size for x in steps) / len(steps),
            touched=touched, longest=self.longest(DELAYS),
        )  # fmt: skip


def one_of(branches: list[Callable[[], Any]], k: jax.Array) -> Any:
    """What the `k`-th branch returns: of arrays in branches, none is copied, as one in a larger array would be.

    By two switches, for XLA takes eight times as long to compile one of 512 branches.
    """
    groups = [lambda own=branches[i : i + 64]: jax.lax.switch(k % 64, own) for i in range(0, len(branches), 64)]
    return jax.lax.switch(k // 64, groups)


def own_part(projection: network.Projection, layout: hebbax.sharding.Layout) -> hebbax.Synapses:
    """The synapses onto the first node's neurons, as that node has them: by rows, which is what late learning reads."""
    drawn = projection.drawn(0, layout.size)
    columns = np.asarray(drawn.csc_indptr)[: layout.size + 1], np.asarray(drawn.csc_indices)
    shape = layout.length, layout.size
    views = part_of_columns(*columns, layout.places.astype(np.int32), int(columns[0][-1]), shape, csc=False)
    fields = {name: jnp.asarray(x, jnp.int32) for name, x in zip(CSR, views, strict=True)}
    return assemble(hebbax.Synapses, {**fields, **dict.fromkeys(CSC), "shape": shape})


def measure(
    nodes: list[int], neurons: int, inputs: float, rate: float, rounds: int, duration: float,
    say: Callable[[str], object] = lambda _: None,
) -> list[Row]:  # fmt: skip
    """A row for each number of nodes; the first of them is measured again beside every other, in turn."""
    say("building what one node holds")
    first = Node(nodes[0], neurons, inputs, rate)
    intervals = TOGETHER * max(1, math.ceil(duration / (first.timed(TOGETHER) * TOGETHER * first.network.delay)))
    alone = statistics.median(first.timed(intervals) for _ in range(rounds))
    found = [first.row(alone, rate, rounds)]
    for n in nodes[1:]:
        say(f"building what one of {n} nodes holds")
        node, pairs = Node(n, neurons, inputs, rate), []
        for k in range(rounds):
            say(f"{n} nodes, round {k + 1} of {rounds}")
            pairs.append((first.timed(intervals), node.timed(intervals)))
        ratio = statistics.median(b / a for a, b in pairs)
        found.append(node.row(alone * ratio, rate, rounds))
        del node
        gc.collect()
    return found


def schedules(fabric: Fabric) -> dict[str, Callable[[int, int], float]]:
    """What an all-gather takes, by algorithm."""
    return {"ring": fabric.ring, "tree": fabric.tree}


def tables(found: list[Row], delay: int) -> dict[str, tuple[tuple[str, ...], list[list[str]]]]:
    """What was measured, and what follows: by title, the head and the cells of a table."""
    first = [
        [
            str(row.nodes), f"{row.neurons:,}", f"{row.synapses:.3g}", f"{row.node_bytes / 1e6:,.0f} MB",
            f"{row.spikes:,.0f}", f"{row.row:,.1f}", f"{row.message / 1e3:.1f} kB", f"{row.compute * 1e6:,.0f} µs",
            f"{row.longest:.1f}", f"{row.lines:,.0f}", f"{row.touched * 1e6:,.0f} µs",
        ]
        for row in found
    ]  # fmt: skip
    columns = [(fabric, name, run) for fabric in FABRICS for name, run in schedules(fabric).items()]
    head = ("nodes", *(f"{fabric.name}, {name}" for fabric, name, _ in columns), "compute alone")
    second = [
        [
            str(row.nodes),
            *(
                f"{row.step(delay, run) * 1e6:,.0f} µs, {found[0].compute / row.step(delay, run):.0%}"
                for _, _, run in columns
            ),
            f"{found[0].compute / row.compute:.0%}",
        ]
        for row in found
    ]
    return {"One node, measured": (MEASURED, first), "A step, and efficiency, predicted": (head, second)}


def main(
    neurons: Annotated[int, typer.Option(min=10, help="Neurons a node.")] = 11250,
    inputs: Annotated[float, typer.Option(min=1e-3, max=1, help="Part of the 11 250 synapses onto a neuron.")] = 1.0,
    rate: Annotated[float, typer.Option(min=0, help="Firing rate of every neuron in Hz.")] = 10.5,
    nodes: Annotated[list[int], typer.Option(min=1, help="Numbers of nodes, one or several.")] = NODES,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="as in `hebbax info`")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements, of which the median counts.")] = 5,
    duration: Annotated[float, typer.Option(min=0, help="Seconds that a measurement takes, about.")] = 1.0,
    output: Annotated[Path, typer.Option(help="Folder for the file.")] = RESULTS,
) -> None:
    """Measure one node's part, add the network between nodes by model, print tables and write them as Markdown."""
    if threads is not None:
        hebbax.set_num_threads(threads)
    counts = sorted({1, *nodes})
    with Console(stderr=True).status("") as status:
        found = measure(counts, neurons, inputs, rate, rounds, duration, say=status.update)
    delay = hpc.Parameters().delay_steps
    about, known = machine(), versions()
    used = ", ".join(f"{name} {known[name]}" for name in ("python", "hebbax", "jax", "jaxlib"))
    fabrics = "; ".join(
        f"{x.name} {x.latency * 1e6:g} µs a message, {x.bandwidth / 1e9:g} GB/s a node" for x in FABRICS
    )
    text = [
        f"Not run on a cluster. A node here is a device as fast as the one measured: {about['cpu']}, "
        f"{hebbax.get_num_threads()} threads; {used}. From "
        f"`{shlex.join(['python', 'benchmarks/weak_scaling.py', *sys.argv[1:]])}` at {commit()}, "
        f"{datetime.date.today().isoformat()}.",
        f"Measured (median of {rounds}, each in turn with one node; load average {about['load_average'][0]:.1f} at the "
        f"end): a step of `hebbax.experiments.hpc` on the first node's part, the loop of the experiments, neurons, "
        f"drive and projections, of which excitatory neurons' onto each other learn, at {rate:g} Hz, of {PATTERNS} "
        f"intervals of spikes drawn beforehand, some in each measurement, in turn. Bytes: weights, traces, CSR "
        f"structure. The longest delay is that of {DELAYS}, timed one by one on a machine that others use too.",
        f"Assumed: {fabrics}; a message has room for one spike of each neuron in {1 / network_split.LISTED:.0f} steps "
        f"and is sent whole, once in the delay of {delay} steps; one process a node; no overlap of computing and "
        f"sending; no waiting for the slowest node. Ring: (nodes - 1) (latency + bytes / bandwidth), as Gloo does it. "
        f"Tree: log2(nodes) latency + (nodes - 1) bytes / bandwidth, as MPI's recursive doubling. [messages.md]"
        f"(messages.md) has what two processes of one machine measured.",
        f"Touching: what memory allows on arrays like these, whatever the program: the lines of {LINE} bytes that "
        "a step visits, of weights, structure and presynaptic neurons, each once a step, known beforehand, in the same "
        f"order and by as many threads (`benchmarks/lines.c`), the quickest of {5 * rounds} rounds. Postsynaptic "
        "neurons, which a cache holds, and messages are not among them.",
        "Efficiency: a step of one node alone over a step on so many. Compute grows because the same number of "
        "synapses lies in ever more, ever shorter rows, each of which is found and fetched at a spike.",
    ]
    console, out = Console(), ["# Weak scaling, by model"]
    for title, (head, cells) in tables(found, delay).items():
        table = Table(*head, title=title, title_justify="left")
        for column in table.columns:
            column.justify = "right"
        for line in cells:
            table.add_row(*line)
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
        console.print(table)
        lines = [" | ".join(head), "|".join(["---:"] * len(head)), *(" | ".join(line) for line in cells)]
        out += [f"## {title}", "\n".join(f"| {line} |" for line in lines)]
    output.mkdir(parents=True, exist_ok=True)
    (output / "weak_scaling.md").write_text("\n\n".join([*out, *text]) + "\n")
    for line in text:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"wrote {output / 'weak_scaling.md'}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
