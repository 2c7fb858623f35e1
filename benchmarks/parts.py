"""What one of many processes needs to draw and hold its part of a large network, by `hebbax.sharding.from_parts`.

    python benchmarks/parts.py > benchmarks/results/parts.md

A process of its own stands for one of so many: it has all presynaptic neurons, and its share of the postsynaptic ones
with all synapses onto them, drawn as a process draws its part. `Synapses.random` draws no more of a network for a part
than has to be there, and where parts begin and end changes nothing of it: tests/structure/test_random_synapses.py.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Annotated

import jax
import numpy as np
from machine import commit, machine
from typer import Argument, run

import hebbax

MEGABYTE = 1e6
BEFORE, DRAWN, HELD = "imports alone", "drawn", "split, with weights"


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE  # (Linux counts in kB)


def measure(neurons: int, inputs: int, parts: int) -> dict[str, tuple[float, float]]:
    """Seconds since the start, and the peak of memory so far, at each stage of one of so many parts."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("parts",))
    shape, found, started = (neurons, -(-neurons // parts)), {BEFORE: (0.0, peak())}, time.perf_counter()

    def part(first: int, stop: int) -> hebbax.Synapses:
        synapses = hebbax.Synapses.random(shape, indegree=inputs, part=(first, stop))
        found[DRAWN] = time.perf_counter() - started, peak()
        return synapses

    sharded = hebbax.sharding.from_parts(part, shape, mesh)
    jax.block_until_ready(sharded.full(0.5))
    found[HELD] = time.perf_counter() - started, peak()
    return found


def main(
    neurons: Annotated[int, Argument(min=1)] = 1_000_000, inputs: Annotated[int, Argument(min=1)] = 1000,
    parts: Annotated[int, Argument(min=1)] = 64,
) -> None:  # fmt: skip
    """Measure one of so many parts, in a process of its own, and print a table."""
    command = [sys.executable, __file__, "--child", json.dumps([neurons, inputs, parts])]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    where = machine()
    print(f"One of {parts} parts of {neurons:,} neurons with {inputs:,} synapses onto each.\n")
    print("| stage | seconds | peak of memory, MB |\n|---|---:|---:|")
    for stage, (seconds, memory) in found.items():
        print(f"| {stage} | {seconds:.1f} | {memory:,.0f} |")
    print(f"\n`python benchmarks/parts.py {neurons} {inputs} {parts}` at {commit()}; {where['cpu']}, load "
          f"{where['load_average'][0]:.1f}.")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        run(main)
