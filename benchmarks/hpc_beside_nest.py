"""The network `hpc` in hebbax and in NEST: rates, irregularity and weights, each simulator in a process of its own.

    python benchmarks/hpc_beside_nest.py [--scale 1] [--seconds 0.3] [--static] [--first 0] [--seeds 2] [--threads 2]

Prints two Markdown tables, the second one of how rates go on: as weights grow, this network synchronises. It takes `pip
install hebbax[simulators]`, and at scale 1 some minutes and 5 GB.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import brainunit as u
import numpy as np
import typer
from machine import commit, machine, versions

SKIPPED = 0.05  # seconds at the start, as in NEST's example, and of one mean of the rates as they go on
COURSE = "course"


def in_hebbax(scale: float, seconds: float, seed: int, plastic: bool, threads: int) -> dict[str, Any]:
    import hebbax
    from hebbax.experiments import hpc
    from hebbax.experiments.network_report import irregularity

    hebbax.set_num_threads(threads)
    run = hpc.simulate(scale=scale, inputs=1.0, seconds=seconds, seed=seed, plastic=plastic)
    step = run.network.neurons.time_step / u.second
    first = round(SKIPPED / step)
    rates, excitatory = run.rates(first) / u.Hz, run.network.excitatory
    found = described(rates[excitatory], rates[~excitatory], irregularity(run, first), run.weight_end)
    return found | {COURSE: course(run.spike_step * step, run.n, seconds)}


def in_nest(scale: float, seconds: float, seed: int, plastic: bool, threads: int) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).with_name("networks")))
    import nest
    from constants import DT, Hpc
    from nest_networks import hpc, sample

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.local_num_threads, nest.resolution, nest.rng_seed = threads, DT, seed + 1
    p = Hpc(scale=scale)
    excitatory = hpc(nest, p, plastic)
    recorder = nest.Create("spike_recorder")
    nest.Connect(nest.NodeCollection(range(1, p.neurons + 1)), recorder)
    nest.Simulate(1000 * seconds)
    events = recorder.events
    kept = events["times"] > 1000 * SKIPPED
    neuron, time = events["senders"][kept] - 1, events["times"][kept]
    rates = np.bincount(neuron, minlength=p.neurons) / (seconds - SKIPPED)
    variation = []
    for k in range(p.excitatory):
        interval = np.diff(np.sort(time[neuron == k]))
        if interval.size >= 3:
            variation.append(interval.std() / interval.mean())
    weight = sample(nest, excitatory, nest.GetDefaults("e_to_e", "num_connections")) if plastic else np.zeros(0)
    found = described(rates[: p.excitatory], rates[p.excitatory :], np.array(variation), weight)
    return found | {COURSE: course(events["times"] / 1000, p.neurons, seconds)}


def course(times: np.ndarray, neurons: int, seconds: float) -> list[float]:
    """The rate of all neurons in Hz, in one span of time after the other."""
    counts, _ = np.histogram(times, np.arange(round(seconds / SKIPPED) + 1) * SKIPPED)
    return (counts / (neurons * SKIPPED)).tolist()


def described(excitatory: np.ndarray, inhibitory: np.ndarray, variation: np.ndarray, weight: np.ndarray) -> dict:
    of_all = {"weight, pA": np.mean, "its SD": np.std} if weight.size else {}
    return {
        "E rate, Hz": float(excitatory.mean()),
        "I rate, Hz": float(inhibitory.mean()),
        "CV of intervals": float(variation.mean()) if variation.size else float("nan"),
        **{name: float(number(weight, dtype=np.float64)) for name, number in of_all.items()},
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [["", *head], ["---", *["---:"] * len(head)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    scale: Annotated[float, typer.Option(help="Neurons, in 11 250.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Biological time.")] = 0.3,
    seeds: Annotated[int, typer.Option(help="So many of them, each a run.")] = 2,
    first: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of either. What NEST draws depends on it.")] = 2,
    static: Annotated[bool, typer.Option("--static", help="Let nothing learn.")] = False,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    if child:
        name, seed = child.split(":")
        print(json.dumps({"hebbax": in_hebbax, "NEST": in_nest}[name](scale, seconds, int(seed), not static, threads)))
        return
    where, at, packages = machine(), commit(), versions(("hebbax", "jax", "nest-simulator"))
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    summaries, courses = [], []
    for seed in range(first, first + seeds):
        for name in ("hebbax", "NEST"):
            options = [f"--scale={scale}", f"--seconds={seconds}", f"--threads={threads}", f"--child={name}:{seed}"]
            options += ["--static"] * static
            done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            courses.append([f"{name}, seed {seed}", *(f"{x:.1f}" for x in found.pop(COURSE))])
            summaries.append([f"{name}, seed {seed}", *(f"{x:.4g}" for x in found.values())])
    ends = [f"{1000 * SKIPPED * (k + 1):.0f} ms" for k in range(len(courses[0]) - 1)]
    print(f"`{shlex.join(['python', 'benchmarks/hpc_beside_nest.py', *sys.argv[1:]])}` at {at}; {listed};")
    print(f"{where['cpu']}. Of the time after {SKIPPED} s; NEST's weights are those of the last presynaptic spike.\n")
    print(table(list(found), summaries))
    print(f"\nRates of all neurons in Hz, means of {1000 * SKIPPED:.0f} ms, by when these end:\n")
    print(table(ends, courses))


if __name__ == "__main__":
    typer.run(main)
