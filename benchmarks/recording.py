"""What recorders take of a step of a plastic network.

    python benchmarks/recording.py

Writes benchmarks/results/recording.md. The network is `hebbax.experiments.cuba`: 4 000 neurons with 80 synapses each,
of which the excitatory ones learn, in one `scan` on one thread. Programs take turns, each round in another order; what
is told is the median of the ratios of processor time, within a round, to the program that records nothing.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine, versions

import hebbax
from hebbax.experiments import cuba

NEURONS, STEPS, WARM_UP, ROUNDS = 4000, 250, 3000, 201
SAMPLED, EVERY = 100, 100
CAPACITY, BINS = 1 << 18, 1000  # enough for all rounds: to empty it would turn the caches over
OUT = Path(__file__).parent / "results" / "recording.md"


def recorders(weight: jax.Array) -> dict[str, Any]:
    """For each row of the table, what is recorded."""
    rng = np.random.default_rng(0)
    spikes = hebbax.record.Spikes.of(NEURONS, CAPACITY)
    rates = hebbax.record.Rates.of(NEURONS, EVERY, BINS)
    population = hebbax.record.Rates.of(NEURONS, EVERY, BINS, group=np.arange(NEURONS) % 5 // 4)
    positions = rng.integers(weight.size, size=SAMPLED)
    weights = hebbax.record.Weights.of(weight, positions, EVERY, BINS)
    return {
        "nothing": (),
        "`Spikes`": (spikes,),
        f"`Rates` of every neuron, bins of {EVERY} steps": (rates,),
        f"`Rates` of two populations, bins of {EVERY} steps": (population,),
        f"`Weights`, {SAMPLED} every {EVERY} steps": (weights,),
        "`Spikes`, `Rates` of two populations and `Weights`": (spikes, population, weights),
        "the raster, returned by `scan`": "raster",
        "ids by `jnp.nonzero(size=64)`, returned by `scan`": "ids",
    }


def program(network: Any, record: Any) -> tuple[Callable, Any]:
    """A compiled function of a donated state, and that state after a while."""
    neurons, dt = network.neurons, network.neurons.time_step
    synapses = tuple(p.drawn() for p in network.projections)
    learns = next(k for k, p in enumerate(network.projections) if p.rule is not None)
    rule = network.projections[learns].rule
    returned = record if isinstance(record, str) else None
    kept = () if returned else record

    def step(synapses: tuple, state: tuple, _: None) -> tuple:
        membrane, spike, weight, traces, recorders = state
        numbers = [weight if k == learns else np.float32(p.weight) for k, p in enumerate(network.projections)]
        arriving = [s.propagate_on_pre(w, spike) for s, w in zip(synapses, numbers, strict=True)]
        received = [
            functools.reduce(
                jnp.add, [x for x, p in zip(arriving, network.projections, strict=True) if p.inhibitory == inhibitory]
            )
            for inhibitory in (False, True)
        ]
        membrane, new = hebbax.fence(neurons.step(membrane, *received, None))
        weight, traces = rule.step(synapses[learns], weight, traces, spike, new, dt, after=arriving[learns])
        recorders = tuple(x.record(weight if isinstance(x, hebbax.record.Weights) else new) for x in recorders)
        out = {"raster": new, "ids": jnp.nonzero(new, size=64, fill_value=NEURONS)[0] if returned == "ids" else None}
        return (membrane, new, weight, traces, recorders), out.get(returned)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: tuple, synapses: tuple) -> tuple:
        return jax.lax.scan(functools.partial(step, synapses), state, None, STEPS)

    weight = jnp.full(synapses[learns].nse, network.projections[learns].weight, jnp.float32)
    ids = jnp.arange(NEURONS)
    state = neurons.start(ids), jnp.zeros(NEURONS, bool), weight, rule.init(synapses[learns]), kept
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)
    compiled = run.lower(state, synapses).compile()
    for _ in range(-(-WARM_UP // STEPS)):
        state, _ = compiled(state, synapses)
    return lambda state: compiled(state, synapses), jax.block_until_ready(state)


def main() -> None:
    hebbax.set_num_threads(1)
    load = os.getloadavg()[0]
    network = cuba.build(cuba.Parameters(), neurons=NEURONS, plastic=True, seed=0)
    start = jnp.zeros(sum(p.drawn().nse for p in network.projections if p.rule is not None), jnp.float32)
    programs = {name: list(program(network, record)) for name, record in recorders(start).items()}
    taken: dict[str, list[float]] = {name: [] for name in programs}
    names = list(programs)
    for k in range(ROUNDS):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            call, state = programs[name]
            started = time.process_time()
            state, _ = jax.block_until_ready(call(state))
            taken[name].append((time.process_time() - started) / STEPS * 1e6)
            programs[name][1] = state
    (spikes,) = programs["`Spikes`"][1][-1]
    rate = spikes.table()["step"].size / (NEURONS * int(spikes.steps) * 1e-4)
    lines = ["| recorded | µs a step | more than nothing | quartiles |", "|---|---:|---:|---:|"]
    nothing = np.array(taken["nothing"])
    for name, times in taken.items():
        ratios = 100 * (np.array(times) / nothing - 1)
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        more = "" if name == "nothing" else f"{middle:.1f}% | {low:.1f} to {high:.1f}%"
        lines.append(f"| {name} | {np.median(times):.2f} | {more or ' | '} |")
        print(lines[-1], flush=True)
    listed = ", ".join(f"{name} {number}" for name, number in versions(("hebbax", "jax", "jaxlib")).items())
    head = (
        f"`python benchmarks/recording.py` at {commit()}; {machine()['cpu']}, load {load:.1f} to "
        f"{os.getloadavg()[0]:.1f}; {listed}"
    )
    foot = (
        f"{NEURONS} neurons with 80 synapses each, `hebbax.experiments.cuba`, at {rate:.1f} Hz in steps of 0.1 ms, "
        f"plastic, on one thread. Programs take turns, {ROUNDS} rounds of {STEPS} steps; medians of the processor's "
        "time, and of the ratios to the first row within a round."
    )
    OUT.write_text("\n\n".join(["# Recording", head, "\n".join(lines), foot]) + "\n")


if __name__ == "__main__":
    main()
