"""Weak scaling by model: the compute of one node is measured, the network between nodes is assumed.

A plastic network (`hebbax.experiments.hpc`) grows with the number of nodes: each node holds as many neurons, and as many
synapses onto each, as before, and their partners are among ever more neurons. What one node computes in the steps of one
delay is measured here, by the loop of the experiments itself, on the very structure that the node would have: all neurons of
the whole network are rows, each the shorter the more nodes there are. Spikes of the whole network are drawn beforehand and
arrive as lists, as an exchange leaves them. What the exchange takes is computed from latency and bandwidth.
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
from machine import commit, machine, versions
from rich.console import Console
from rich.table import Table

import hebbax
from hebbax._core.sent import SpikeLists, pack
from hebbax._core.pytree import assemble
from hebbax._core.specs import Sent
from hebbax.experiments import hpc, network, network_loop

RESULTS = Path(__file__).parent / "results"
PATTERNS = 8  # different intervals of spikes, which take turns
COLUMNS = (
    "nodes", "neurons", "synapses", "bytes a node", "spikes a step", "rows' mean length", "compute a step", "sent a node",
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
    message: int  # bytes that a node sends

    def step(self, delay: int, exchange: Callable[[int, int], float]) -> float:
        return self.compute + exchange(self.nodes, self.message) / delay


class Node:
    """The part of the first of so many nodes, ready to be timed."""

    def __init__(self, nodes: int, neurons: int, inputs: float, rate: float):
        p = hpc.Parameters()
        self.network = hpc.build(p, scale=nodes * neurons / 11250, inputs=inputs, plastic=True, seed=0)
        self.nodes, n = nodes, self.network.excitatory.size
        self.layout = hebbax.sharding.Layout.even(n, nodes)
        self.synapses = [part(x, self.layout.size, n) for x in self.network.projections]
        delay, size = self.network.delay, self.layout.size
        capacity = math.ceil(network_loop.LISTED * delay * size)
        self.sent = Sent(nodes, size, delay, capacity)
        rng, probability = np.random.default_rng(nodes), rate * 1e-4
        own = [rng.random((delay, size)) < probability for _ in range(PATTERNS)]
        self.patterns = jnp.stack([self._gathered(x, probability, rng) for x in own])
        self.own = jnp.asarray(np.stack(own))
        ids = jnp.arange(size, dtype=jnp.int32)
        weights = tuple(jnp.full(s.nse, x.weight) for s, x in self._learning())
        traces = tuple(x.rule.init(s, at_events=True) for s, x in self._learning())
        kept = jnp.zeros((2 * delay, size), bool)
        self.state = network_loop.State(None, kept, jnp.int32(0), self.network.neurons.start(ids), weights, traces)
        self.compiled = jax.jit(self._run, static_argnames="intervals", donate_argnums=0)
        self.timed(PATTERNS)  # compiles

    def _learning(self) -> Iterator[tuple[hebbax.Synapses, network.Projection]]:
        return ((s, x) for s, x in zip(self.synapses, self.network.projections, strict=True) if x.rule is not None)

    def _gathered(self, own: np.ndarray, probability: float, rng: np.random.Generator) -> jax.Array:
        """The messages of all nodes: the own one, and those of others, who spike as probably."""
        steps, size = own.shape
        messages = [pack(jnp.asarray(own), self.sent.capacity).messages]
        for _ in range(self.nodes - 1):
            cells = np.flatnonzero(rng.random(steps * size) < probability)[: self.sent.capacity]
            starts = np.searchsorted(cells, size * np.arange(steps + 1))
            message = np.zeros(messages[0].size, np.int32)
            message[:4] = 0, size, steps, self.sent.capacity
            message[4 : 5 + steps], message[5 + steps :][: cells.size] = starts, cells % size
            messages.append(message)
        return jnp.concatenate(messages)

    def _run(self, state: Any, synapses: list, patterns: jax.Array, own: jax.Array, intervals: int) -> Any:
        delay = self.network.delay
        ids = jnp.arange(self.layout.size, dtype=jnp.int32)

        def interval(state: Any, k: jax.Array) -> tuple[Any, None]:
            steps = k * delay + jnp.arange(delay, dtype=jnp.int32)
            arriving = assemble(SpikeLists, dict(messages=patterns[k % PATTERNS], sent=self.sent))
            drive = self.network.neurons.drive(ids, steps)
            carry, spikes = network_loop.run_interval(self.network, synapses, drive, state, arriving)
            sent = pack(spikes, self.sent.capacity).messages  # which the exchange would send
            kept = hebbax.fence((jnp.concatenate([state.own[delay:], own[k % PATTERNS]]), sent))[0]
            return network_loop.State(None, kept, state.crowded, *carry), None

        return jax.lax.scan(interval, state, jnp.arange(intervals, dtype=jnp.int32))[0]

    def timed(self, intervals: int) -> float:
        """Seconds of a step, over so many intervals of one delay."""
        started = time.perf_counter()
        self.state = self.compiled(self.state, self.synapses, self.patterns, self.own, intervals=intervals)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - started) / (intervals * self.network.delay)

    def row(self, compute: float, rate: float) -> Row:
        size = sum(x.nbytes for x in jax.tree.leaves((self.synapses, self.state.weights, self.state.traces)))
        n, synapses = self.network.excitatory.size, sum(s.nse for s in self.synapses)
        plastic, x = next(self._learning())
        return Row(
            nodes=self.nodes, neurons=n, synapses=self.nodes * synapses, node_bytes=size, spikes=n * rate * 1e-4,
            row=plastic.nse / self.network.excitatory.sum(), compute=compute, message=4 * (self.patterns.shape[1] // self.nodes),
        )  # fmt: skip


def part(projection: network.Projection, size: int, n: int) -> hebbax.Synapses:
    """The synapses onto the first `size` of `n` neurons."""
    return projection.part(0, size)


def measure(nodes, neurons, inputs, rate, rounds, duration, say=lambda _: None) -> list[Row]:
    """A row for each number of nodes; the first of them is measured again beside every other, in turn."""
    say("building what one node holds")
    first = Node(nodes[0], neurons, inputs, rate)
    intervals = PATTERNS * max(1, math.ceil(duration / (first.timed(PATTERNS) * PATTERNS * first.network.delay)))
    alone = statistics.median(first.timed(intervals) for _ in range(rounds))
    found = [first.row(alone, rate)]
    for n in nodes[1:]:
        say(f"building what one of {n} nodes holds")
        node, pairs = Node(n, neurons, inputs, rate), []
        for k in range(rounds):
            say(f"{n} nodes, round {k + 1} of {rounds}")
            pairs.append((first.timed(intervals), node.timed(intervals)))
        ratio = statistics.median(b / a for a, b in pairs)
        found.append(node.row(alone * ratio, rate))
        del node
        gc.collect()
        jax.clear_caches()
    return found
