"""What huge pages are worth to updates in scattered order: with them, and in a process that Linux gives none.

    python benchmarks/huge_pages.py

Prints a Markdown table: microseconds a step, the median over processes that take turns, one thread each.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine

import hebbax

PR_SET_THP_DISABLE = 41
CASES = ((10_000, 0.1, 0.003), (32_000, 0.02, 0.0003), (32_000, 0.1, 0.0003))  # neurons, connectivity, P(spike)
ROUNDS, STEPS, CALLS = 3, 300, 9


def measure(n: int, prob: float, p_spike: float) -> list[float]:
    """Weights in MB, and microseconds a step."""
    hebbax.set_num_threads(1)
    synapses, rng = hebbax.Synapses.random((n, n), prob=prob), np.random.default_rng(0)
    spikes = jnp.asarray(rng.random((STEPS, n)) < p_spike)
    trace = jnp.asarray(1e-5 * rng.random(n), jnp.float32)

    @jax.jit
    def run(weight: jax.Array, synapses: hebbax.Synapses, spikes: jax.Array) -> jax.Array:
        def step(weight: jax.Array, spike: jax.Array) -> tuple[jax.Array, None]:
            return synapses.update_on_post(weight, trace, spike, 0.0, 1.0, weight_in_bounds=True), None

        return jax.lax.scan(step, weight, spikes)[0]

    weight = jnp.full(synapses.nse, 0.5, jnp.float32)
    compiled = jax.jit(run, donate_argnums=0).lower(weight, synapses, spikes).compile()
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        weight = jax.block_until_ready(compiled(weight, synapses, spikes))
        times.append((time.perf_counter() - started) / STEPS * 1e6)
    return [4e-6 * synapses.nse, statistics.median(times)]


def main() -> None:
    if len(sys.argv) > 1:  # a process of the rounds
        case, without = json.loads(sys.argv[1])
        if without and ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0):
            raise OSError("this system cannot keep huge pages from a process")
        print(json.dumps(measure(*case)))
        return
    where = machine()
    print(f"`python benchmarks/huge_pages.py` at {commit()}; {where['cpu']}, load {where['load_average'][0]}\n")
    print("| neurons | weights, MB | with, µs a step | without | times as long |\n|---|---:|---:|---:|---:|")
    for case in CASES:
        found: dict[bool, list] = {False: [], True: []}
        for _ in range(ROUNDS):
            for without, samples in found.items():
                child = [sys.executable, __file__, json.dumps([case, without])]
                samples.append(json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout))
        size = found[False][0][0]
        us = {without: statistics.median(x[1] for x in samples) for without, samples in found.items()}
        print(f"| {case[0]} | {size:.0f} | {us[False]:.1f} | {us[True]:.1f} | {us[True] / us[False]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
