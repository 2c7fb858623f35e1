"""What `hebbax.brainevent.enable()` gains: programs written for brainevent, brainstate and BrainPy, before and after.

Each program runs by brainevent's own kernels and by hebbax's in turn, `--rounds` times. Times are those of the
processor, of all threads, in which other work on the machine counts least. The networks of brainevent
itself are also written with hebbax's functions, to show what a program that cannot be changed still pays for: that
brainevent clips every weight outside its kernels, and that the updates cannot be told to wait for the propagation
(`after`), so that XLA copies all weights.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import typer
from machine import commit, machine, versions

import hebbax.brainevent

ROOT = Path(__file__).parents[1]
PACKAGES = ("hebbax", "jax", "brainevent", "brainstate", "brainpy", "numba")
STEPS, BATCH = 1000, 8
COLUMNS = (
    "program", "neurons, synapses of each", "spikes a step", "brainevent, µs a step", "with hebbax", "times less",
    "hebbax's own functions",
)  # fmt: skip


Timed = tuple[float, Any]  # seconds of processor time, and results of which the first counts the spikes of each step


class Program(NamedTuple):
    """One program, as it runs in either way, and written with hebbax's own functions if it is."""

    name: str
    neurons: int
    synapses: int
    steps: int
    before: Callable[[], Timed]
    after: Callable[[], Timed]
    own: Callable[[], Timed] | None = None


def plastic(neurons: int, synapses: int, bounds: tuple, batch: int | None = None) -> tuple[Callable, Callable, tuple]:
    """A recurrent network with pair-based STDP: by brainevent, by hebbax, and the state that it starts with."""
    rng = np.random.default_rng(1)
    indices = jnp.asarray(rng.integers(0, neurons, (neurons, synapses)).ravel(), jnp.int32)
    indptr = jnp.arange(neurons + 1, dtype=jnp.int32) * synapses
    shape = neurons, neurons
    weight = jnp.asarray(rng.uniform(0, 0.4 / synapses, neurons * synapses), jnp.float32)
    drive = jnp.asarray(rng.uniform(0.8, 1.3, neurons), jnp.float32)
    matrix = brainevent.CSR((weight, indices, indptr), shape=shape).build_weight_indices()
    brainevent.BinaryArray(drive > 1) @ matrix  # or it would keep a workspace from inside the first `jit`
    synapses_too = hebbax.Synapses(indptr, indices, shape=shape, multapses=True)

    def by_brainevent(weight, spike, pre_trace, post_trace):
        one = matrix.with_data(weight)
        current = brainevent.BinaryArray(spike) @ one
        one = one.update_on_pre(spike, -1e-5 * post_trace, *bounds)
        return current, one.update_on_post(1e-5 * pre_trace, spike, *bounds).data

    def by_hebbax(weight, spike, pre_trace, post_trace):
        current = synapses_too.propagate_on_pre(weight, spike)
        options = dict(after=current, weight_in_bounds=True) if bounds else dict(after=current)
        weight = synapses_too.update_on_pre(weight, spike, -1e-5 * post_trace, *bounds, **options)
        return current, synapses_too.update_on_post(weight, 1e-5 * pre_trace, spike, *bounds, **options)

    def simulation(operators: Callable) -> Callable:
        def step(state, _):
            weight, voltage, spike, trace = state
            current, weight = operators(weight, spike, trace, trace)
            voltage = jnp.where(spike, 0, voltage + 0.05 * (drive - voltage) + current)
            spike = voltage > 1
            return (weight, voltage, spike, 0.95 * trace + spike), jnp.count_nonzero(spike)

        def run(state):
            state, spikes = jax.lax.scan(step, state, None, length=STEPS)
            return spikes, *state

        return jax.vmap(run) if batch else run

    voltage = jnp.asarray(rng.random((batch or 1, neurons)), jnp.float32)
    state = jnp.broadcast_to(weight, (batch or 1, weight.size)), voltage, voltage > 1, jnp.zeros_like(voltage)
    return simulation(by_brainevent), simulation(by_hebbax), state if batch else tuple(x[0] for x in state)


def plastic_program(name: str, neurons: int, synapses: int, bounds: tuple, batch: int | None = None) -> Program:
    """Compiled ahead of time, so that nothing is compiled anew whenever backends take turns."""
    by_brainevent, by_hebbax, state = plastic(neurons, synapses, bounds, batch)

    def compiled(function: Callable) -> Callable[[], Timed]:
        program = jax.jit(function).lower(state).compile()

        def run() -> Timed:
            started = time.process_time()
            results = jax.block_until_ready(program(state))
            return time.process_time() - started, results

        run()
        return run

    before = compiled(by_brainevent)
    with hebbax.brainevent.enable():
        after = compiled(by_brainevent)
    return Program(name, neurons, synapses, STEPS, before, after, compiled(by_hebbax))


def example(file: str, name: str, neurons: int, synapses: int, milliseconds: int) -> Program:
    """One of the examples, which compiles in every round, but times only what comes after."""
    spec = importlib.util.spec_from_file_location(file, ROOT / "examples" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    steps = milliseconds * 10

    def run() -> Timed:
        spikes, *others, seconds = module.simulate(neurons, synapses, steps)
        return seconds, (spikes.sum(1), *others)

    def enabled() -> Timed:
        with hebbax.brainevent.enable():
            return run()

    return Program(name, neurons, synapses, steps, run, enabled)


BOUNDS = (0.0, 1.0)
PROGRAMS: tuple[tuple[str, Callable[[str], Program]], ...] = (
    ("brainevent, STDP with bounds", lambda name: plastic_program(name, 1_000, 100, BOUNDS)),
    ("brainevent, STDP without bounds", lambda name: plastic_program(name, 1_000, 100, ())),
    ("brainevent, STDP with bounds", lambda name: plastic_program(name, 10_000, 100, BOUNDS)),
    ("brainevent, STDP without bounds", lambda name: plastic_program(name, 10_000, 100, ())),
    (f"brainevent, STDP with bounds, `vmap` of {BATCH}", lambda name: plastic_program(name, 1_000, 100, BOUNDS, BATCH)),
    ("BrainPy, `STDP_Song2000`", lambda name: example("brainpy_network", name, 1_000, 100, 200)),
    ("BrainPy, `STDP_Song2000`", lambda name: example("brainpy_network", name, 4_000, 100, 100)),
    ("brainstate, `EventFixedProb`", lambda name: example("brainstate_network", name, 4_000, 80, 500)),
)


def measure(program: Program, rounds: int) -> str:
    """The line of the table."""
    ways = [way for way in (program.before, program.after, program.own) if way]
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        results = []
        for k, way in enumerate(ways):
            taken, result = way()
            seconds[k].append(taken)
            results.append(result)
    same = all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True)
    )
    times = [statistics.median(x) / program.steps * 1e6 for x in seconds]
    faster = statistics.median(x / y for x, y in zip(*seconds[:2], strict=True))
    own = f"{times[2]:.1f}" if program.own else ""
    return (
        f"| {program.name} | {program.neurons:,}, {program.synapses} | {np.mean(results[0][0]):.1f} | {times[0]:.1f} "
        f"| {times[1]:.1f} | {faster:.1f} | {own} |" + ("" if same else " RESULTS DIFFER")
    )


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    programs: Annotated[str, typer.Option(help="Only those whose name matches this regular expression.")] = "",
) -> None:
    """Print a table in Markdown."""
    found, load = versions(PACKAGES), machine()
    print(
        f"`{shlex.join(['python', 'benchmarks/brainevent_backend.py', *sys.argv[1:]])}` at {commit()}; {load['cpu']},",
        end=" ",
    )
    print(
        f"{load['cpus']} CPUs, load {load['load_average'][0]} before,", ", ".join(f"{k} {v}" for k, v in found.items())
    )
    print(f"\nProcessor time, medians of {rounds} rounds, in which versions take turns. Spikes and weights of")
    print("brainevent and of hebbax as its backend are compared, all bits of them.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|---|---|---:|---:|---:|---:|---:|", flush=True)
    for name, make in PROGRAMS:
        if re.search(programs, name):
            print(measure(make(name), rounds), flush=True)
    print(f"\nLoad {os.getloadavg()[0]:.2f} after.")


if __name__ == "__main__":
    typer.run(main)
