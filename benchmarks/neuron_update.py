"""What the neurons of the experiments take in XLA, beside one C loop over the same arrays, one thread each.

    python benchmarks/neuron_update.py

Prints a Markdown table: the smallest and the median of rounds in which both take turns, microseconds a step.
"""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine

import hebbax
from hebbax.experiments import brunel10k, cuba, hpc

SIZES, ROUNDS, STEPS = (4_000, 10_000, 40_000), 15, 1000
F = np.float32


def models() -> dict[str, tuple[Any, list[float]]]:
    """Neurons of every experiment, and the constants that the loop in neuron_update.c takes."""
    c, b, h = cuba.Parameters(), brunel10k.Parameters(), hpc.Parameters()

    def decay(p: Any, time_constant: u.Quantity) -> float:
        return math.exp(-(p.time_step / time_constant))

    def reached(time_constant: u.Quantity) -> float:
        left = decay(c, c.membrane_time) / decay(c, time_constant)
        return time_constant / (time_constant - c.membrane_time) * (1 - left)

    times = c.membrane_time, c.excitatory_time, c.inhibitory_time
    of_cuba = [
        *(decay(c, x) for x in times), reached(c.excitatory_time), reached(c.inhibitory_time),
        (c.reset_potential - c.leak_potential) / u.mV, (c.threshold - c.leak_potential) / u.mV,
        round(c.refractory_time / c.time_step),
    ]  # fmt: skip
    of_brunel = [
        decay(b, b.membrane_time), b.threshold / u.mV, round(b.refractory_time / b.time_step),
        b.excitatory_weight / u.mV,
    ]  # fmt: skip
    (v_v, v_i, v_r), (_, i_i, i_r), (_, _, r_r) = h.propagator
    of_hpc = [v_v, v_i, v_r, i_i, i_r, r_r, h.threshold / u.mV, round(h.refractory_time / h.time_step), h.weight / u.pA]
    return {
        "cuba": (cuba.Neurons(c), of_cuba),
        "brunel10k": (brunel10k.Neurons(b, 0), of_brunel),
        "hpc": (hpc.Neurons(h, h.weight / u.pA, 0), of_hpc),
    }


def arriving(name: str, n: int) -> list[np.ndarray]:
    """What arrives in every step: excitation, inhibition, and the drive of those that have one."""
    rng = np.random.default_rng(1)
    scale = {"cuba": 1.0, "brunel10k": 0.5, "hpc": 50.0}[name]
    arrays = [scale * rng.random(n), -0.3 * scale * rng.random(n)]
    return [x.astype(F) for x in (*arrays, *([] if name == "cuba" else [rng.poisson(2.0, n)]))]


def in_xla(neurons: Any, state: Any, inputs: list[np.ndarray]) -> Callable[[], Any]:
    """A loop as in the experiments."""

    @jax.jit
    def run(state: Any, spikes: jax.Array, inputs: list[jax.Array]) -> Any:
        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            excitation, inhibition, *drive = inputs
            return hebbax.fence(neurons.step(carry[0], excitation, inhibition, *(drive or [None]))), None

        return jax.lax.scan(step, (state, spikes), length=STEPS)[0]

    operands = jax.tree.map(jnp.asarray, (state, np.zeros(inputs[0].size, bool), inputs))
    return lambda: jax.block_until_ready(run(*operands))


def in_c(library: ctypes.CDLL, name: str, state: Any, inputs: list[np.ndarray], constants: list[float]) -> Callable:
    spike = np.zeros(inputs[0].size, np.uint8)
    numbers = np.array(constants, F)

    def run() -> Any:
        arrays = [x.copy() for x in state]
        pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (*arrays, *inputs, spike, numbers)]
        for _ in range(STEPS):
            getattr(library, name)(ctypes.c_int64(spike.size), *pointers)
        return arrays, spike

    return run


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # or XLA shares out loops over 40 000 neurons
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with tempfile.TemporaryDirectory() as folder:
        path, source = Path(folder) / "neurons.so", Path(__file__).with_suffix(".c")
        subprocess.run(
            ["cc", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o", path, source, "-lm"], check=True
        )
        library = ctypes.CDLL(str(path))
    where = machine()
    print(f"{where['cpu']}, {where['cpus']} CPUs, commit {commit()}; {STEPS} steps, {ROUNDS} rounds\n")
    print("| neurons | n | XLA, µs (median) | C, µs (median) | ratio of the smallest |\n|---|---|---|---|---|")
    for name, (neurons, constants) in models().items():
        for n in SIZES:
            state, inputs = neurons.start(jnp.arange(n)), arriving(name, n)
            runs = {"xla": in_xla(neurons, state, inputs), "c": in_c(library, name, state, inputs, constants)}
            first = {key: run() for key, run in runs.items()}
            for ours, theirs in zip(first["xla"][0], first["c"][0], strict=True):  # rounding may move a spike
                assert np.mean(np.isclose(ours, theirs, rtol=1e-3, atol=1e-3)) > 0.9, name
            samples: dict[str, list[float]] = {key: [] for key in runs}
            for _ in range(ROUNDS):
                for key, run in runs.items():
                    started = time.perf_counter()
                    run()
                    samples[key].append((time.perf_counter() - started) / STEPS * 1e6)
            shown = (f"{min(x):.2f} ({statistics.median(x):.2f})" for x in samples.values())
            print(f"| {name} | {n} | {' | '.join(shown)} | {min(samples['xla']) / min(samples['c']):.2f} |", flush=True)


if __name__ == "__main__":
    main()
