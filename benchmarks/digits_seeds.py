"""How well `hebbax simulate digits` does, and how long it takes, for several seeds.

    taskset -c 1 python benchmarks/digits_seeds.py [--seeds 10]

Prints a Markdown table. Every seed is another network that sees other images, and others of them held out.
"""

from __future__ import annotations

import argparse
import time

import brainunit as u
import numpy as np
from machine import commit, machine, versions

from hebbax.experiments import digits
from hebbax.experiments.digits import classify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds, where, at = parser.parse_args().seeds, machine(), commit()
    listed = ", ".join(f"{name} {number}" for name, number in versions(("hebbax", "jax", "jaxlib")).items())
    print(f"`python benchmarks/digits_seeds.py` at {at}; {where['cpu']}, load {where['load_average'][0]}; {listed}\n")
    print("| seed | right, held out (%) | learned from (%) | worst class (%) | wall clock (s) | CPU (s) |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    rows = []
    for seed in range(seeds):
        started = time.process_time()
        result = digits.simulate(seed=seed)
        used = time.process_time() - started
        known = (classify(result.assignment, result.known.spikes) == result.known.label).mean()
        worst = (np.diag(result.confusion) / result.confusion.sum(1)).min()
        rows.append((100 * result.accuracy, 100 * known, 100 * worst, result.wall_time / u.second, used))
        _row(str(seed), rows[-1])
    for name, row in (("mean", np.mean(rows, 0)), ("least", np.min(rows, 0)), ("most", np.max(rows, 0))):
        _row(name, row)


def _row(name: str, numbers: tuple | np.ndarray) -> None:
    print(f"| {name} | " + " | ".join(f"{x:.1f}" for x in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
