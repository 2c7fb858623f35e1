"""Weak scaling by model: the compute of one device is measured, the network is assumed. See `weak_scaling.py --help`.

A network grows with the number of nodes: each node holds as many postsynaptic neurons, and as many synapses onto each,
as before. What one of them computes in a step is measured here, on a part of the very size and shape that it would
have: a row for every neuron of the whole network, of which each is the shorter the more nodes there are. Communication
is computed: a ring all-gather of one byte a neuron, as in the library that JAX uses between CPUs (Gloo, over TCP).
"""

from __future__ import annotations

import datetime
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from machine import commit, machine, versions
from rich.console import Console
from rich.table import Table

import hebbax

RESULTS = Path(__file__).parent / "results"
STEPS = [0.1, 1.0]  # milliseconds
PATTERNS = 16  # different spike vectors, which take turns
COLUMNS = (
    "nodes", "neurons", "synapses", "bytes a node", "spikes a step", "gathered a step", "compute, measured",
    "all-gather, modelled", "step, predicted", "of real time", "efficiency",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One size of the network; times are in seconds."""

    nodes: int
    neurons: int
    synapses: int  # of all nodes
    node_bytes: int  # weights, CSR and CSC structure of a node
    spikes: float  # of all nodes, mean of a step
    compute: float
    gather_bytes: int  # that a node receives
    gather: float
    step: float
    real_time: float  # a step over the time that it stands for
    efficiency: float  # a step on one node over a step on so many


def gather_time(nodes: int, part: int, latency: float, bandwidth: float) -> float:
    """Seconds of a ring all-gather of `part` bytes from each node: in every round, a node passes one part on."""
    return (nodes - 1) * (latency + part / bandwidth)


def prepare(
    neurons: int, indegree: int, nodes: int, probability: float, duration: float
) -> tuple[int, Callable[[], float]]:
    """Return the bytes of a node, and what measures the seconds of a step there.

    A step is propagation, both updates, and the traces of all neurons.
    """
    synapses = hebbax.Synapses.random((neurons * nodes, neurons), indegree=indegree, seed=nodes)
    rule = hebbax.PairSTDP(20.0, 20.0, 0.01, 0.0105, 0.0, 1.0)
    rng = np.random.default_rng(nodes)
    patterns = tuple(jnp.asarray(rng.random((PATTERNS, n)) < probability) for n in synapses.shape)

    def run(carry: tuple, synapses: hebbax.Synapses, patterns: tuple, steps: int) -> tuple:
        def step(carry: tuple, k: jax.Array) -> tuple:
            weight, traces, total = carry
            pre_spike, post_spike = (x[k % PATTERNS] for x in patterns)
            current = synapses.propagate_on_pre(weight, pre_spike)
            weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, 0.1, after=current)
            return (weight, traces, total + current), None

        return jax.lax.scan(step, carry, jnp.arange(steps))[0]

    compiled = jax.jit(run, static_argnames="steps", donate_argnames="carry")
    carry = jnp.full(synapses.nse, 0.5), rule.init(synapses), jnp.zeros(neurons)
    size = sum(x.nbytes for x in jax.tree.leaves((synapses, carry[0])))

    def timed(steps: int) -> float:
        nonlocal carry
        started = time.perf_counter()
        carry = jax.block_until_ready(compiled(carry, synapses, patterns, steps=steps))
        return (time.perf_counter() - started) / steps

    timed(PATTERNS)  # compiles
    steps = PATTERNS * max(1, math.ceil(duration / (timed(PATTERNS) * PATTERNS)))
    return size, lambda: timed(steps)


def rows(neurons, indegree, rate, dt, nodes, latency, bandwidth, rounds, duration, say=lambda _: None) -> list[Row]:
    """A row for each number of nodes; all units are SI's."""
    probability = rate * dt
    say("building what a node holds")
    ready = [prepare(neurons, indegree, n, probability, duration) for n in nodes]
    samples: list[list[float]] = [[] for _ in nodes]
    for k in range(rounds):  # in turn, so that a busy machine is slow for all of them
        say(f"round {k + 1} of {rounds}")
        for (_, measure), own in zip(ready, samples, strict=True):
            own.append(measure())
    found: list[Row] = []
    for n, (size, _), own in zip(nodes, ready, samples, strict=True):
        compute = statistics.median(own)
        gather = gather_time(n, neurons, latency, bandwidth)
        step = compute + gather
        first = found[0].step if found else step
        found.append(
            Row(
                nodes=n, neurons=n * neurons, synapses=n * neurons * indegree, node_bytes=size,
                spikes=n * neurons * probability, compute=compute, gather_bytes=(n - 1) * neurons, gather=gather,
                step=step, real_time=step / dt, efficiency=first / step,
            )
        )  # fmt: skip
    return found


def cells(row: Row) -> list[str]:
    """A row of the table, as `COLUMNS`."""
    return [
        str(row.nodes), f"{row.neurons:,}", f"{row.synapses:.3g}", f"{row.node_bytes / 1e6:.0f} MB",
        f"{row.spikes:,.0f}", f"{row.gather_bytes / 1e3:,.0f} kB", f"{row.compute * 1e6:,.0f} µs",
        f"{row.gather * 1e6:,.0f} µs", f"{row.step * 1e6:,.0f} µs",
        f"{row.real_time:.2g} times", f"{row.efficiency:.0%}",
    ]  # fmt: skip


def markdown(tables: dict[str, list[Row]], text: list[str]) -> str:
    """The tables and what they rest on."""
    out = ["# Weak scaling, by model"]
    for title, found in tables.items():
        lines = [" | ".join(COLUMNS), "|".join(["---:"] * len(COLUMNS)), *(" | ".join(cells(row)) for row in found)]
        out += [f"## {title}", "\n".join(f"| {line} |" for line in lines)]
    return "\n\n".join([*out, *text]) + "\n"


def show(console: Console, title: str, found: list[Row]) -> None:
    table = Table(*COLUMNS, title=title, title_justify="left")
    for column in table.columns:
        column.justify = "right"
    for row in found:
        table.add_row(*cells(row))
    # As wide as the table needs: a narrower terminal breaks lines rather than leave out figures.
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)


def main(
    neurons: Annotated[int, typer.Option(min=1, help="Neurons a node.")] = 15625,
    synapses: Annotated[int, typer.Option(min=1, help="Synapses onto each neuron.")] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Firing rate of every neuron in Hz.")] = 5.0,
    dt: Annotated[list[float], typer.Option(min=1e-3, help="Time step in milliseconds, one or several.")] = STEPS,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, at most: 1, 2, 4, ... are computed.")] = 64,
    latency: Annotated[float, typer.Option(min=0, help="Assumed time of a message between nodes, in µs.")] = 30.0,
    bandwidth: Annotated[float, typer.Option(min=1e-3, help="Assumed bandwidth of a node, in GB/s.")] = 10.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="as in `hebbax info`")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements, of which the median counts.")] = 9,
    duration: Annotated[float, typer.Option(min=0, help="Seconds that a measurement takes, about.")] = 0.3,
    output: Annotated[Path, typer.Option(help="Folder for the file.")] = RESULTS,
) -> None:
    """Measure one node's part, add the network by model, print a table and write it as Markdown.

    The defaults of the network are what TCP makes of Ethernet with 100 Gbit/s, about: JAX's own communication between
    CPUs is TCP. For MPI on InfiniBand, 2 µs and 25 GB/s are usual.
    """
    if threads is not None:
        hebbax.set_num_threads(threads)
    if rate * max(dt) > 1000:
        raise typer.BadParameter(f"got {rate:g} Hz in steps of {max(dt):g} ms, expected at most a spike a step")
    counts = [2**k for k in range(nodes.bit_length())]
    tables = {}
    with Console(stderr=True).status("") as status:
        for step in dt:
            measured = neurons, synapses, rate, step / 1e3, counts, latency / 1e6, bandwidth * 1e9, rounds, duration
            tables[f"{rate:g} Hz, steps of {step:g} ms"] = rows(*measured, say=status.update)
    about, known = machine(), versions()
    used = ", ".join(f"{name} {known[name]}" for name in ("python", "hebbax", "jax", "jaxlib"))
    text = [
        f"Not run on a cluster. A node here is a device as fast as the one measured: {about['cpu']}, "
        f"{hebbax.get_num_threads()} threads; {used}. From "
        f"`{shlex.join(['python', 'benchmarks/weak_scaling.py', *sys.argv[1:]])}` at {commit()}, "
        f"{datetime.date.today().isoformat()}.",
        f"Measured (median of {rounds}, all sizes in turn; load average {about['load_average'][0]:.1f} at the end): a "
        f"step of one node's part in `lax.scan`, with `propagate_on_pre` and `PairSTDP.step`; without a model of the "
        f"neurons. Bytes: weights, CSR and CSC structure, of these arrays.",
        f"Assumed: {latency:g} µs a message, {bandwidth:g} GB/s a node (by default what TCP, which JAX uses between "
        f"CPUs, makes of 100 Gbit/s Ethernet, about; MPI on InfiniBand: 2 µs and 25 GB/s), one "
        f"process a node, no overlap of computing "
        f"and sending, no waiting for the slowest node; a ring all-gather of one byte a neuron, which takes "
        f"(nodes - 1) (latency + neurons of a node / bandwidth).",
        "Efficiency: a step on one node over a step on so many. It falls because of the ring's latency, because every "
        "node decays the traces of all neurons of the network and looks for their spikes, and because the same number "
        "of synapses lies in ever more, ever shorter rows.",
    ]
    console = Console()
    for title, found in tables.items():
        show(console, title, found)
    output.mkdir(parents=True, exist_ok=True)
    (output / "weak_scaling.md").write_text(markdown(tables, text))
    for line in text:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"wrote {output / 'weak_scaling.md'}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
