"""Measuring one case: every contender is checked, then all are timed in turn, round after round."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from cases import PATTERNS, Case, network
from contenders import Contender, Run, contenders

import hebbax

# A contender whose measurement takes longer than this many seconds is not warmed up, and has only so many rounds.
SLOW, SLOW_ROUNDS = 0.25, 3
MAX_STEPS = 1 << 15
TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 3e-2}


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(case: Case, rounds: int, duration: float, say: Callable[[str], Any]) -> dict:
    """Medians, quartiles and samples in microseconds a step, why contenders failed, and the case's targets."""
    with jax.enable_x64(case.dtype == "float64"):
        ready, failures = _prepare(case, duration, say)
        samples = interleave(ready, rounds, say)
    jax.clear_caches()
    steps = {contender.name: steps for contender, _, steps in ready}
    return {
        "group": case.group,
        "size": case.size,
        "contenders": {name: {"steps": steps[name], **summary(values)} for name, values in samples.items()},
        "failures": failures,
        "targets": [judge(target, samples) for target in case.targets if {*target[:2]} <= samples.keys()],
    }


def interleave(ready: list[tuple[Contender, Run, int]], rounds: int, say: Callable[[str], Any]) -> dict:
    """Microseconds a step by contender, one for each round; in a round all take turns."""
    samples: dict[str, list[float]] = {contender.name: [] for contender, _, _ in ready}
    gc.collect()
    gc.disable()
    for i in range(rounds):
        for contender, run, steps in ready[i % len(ready) :] + ready[: i % len(ready)]:
            past = samples[contender.name]
            slow = bool(past) and past[-1] * steps > SLOW * 1e6
            if slow and len(past) >= SLOW_ROUNDS:
                continue
            say(f"{contender.name}, round {i + 1} of {rounds}")
            if not slow:  # compiles the first time, then refills the caches
                time_step(contender, run, steps)
            past.append(time_step(contender, run, steps) * 1e6)
    gc.enable()
    return samples


def _prepare(case: Case, duration: float, say) -> tuple[list[tuple[Contender, Run, int]], dict[str, str]]:
    """Every contender that gives the right result, with the steps that take it about `duration` seconds."""
    structure = network(case.n, case.synapses)
    pilot = PATTERNS if case.mode == "eager" else min(512, max(2, 2 * 10**7 // structure.pre.indices.size))
    ready: list[tuple[Contender, Run, int]] = []
    failures: dict[str, str] = {}
    expected: dict = {}
    counts: dict[str, int] = {}
    for contender in contenders(case, min(2, usable_cpus())):
        say(f"{contender.name}, check")
        try:
            hebbax.set_num_threads(contender.threads)
            run = contender.make(case, structure)
            result = run(pilot)
        except Exception as error:
            if contender.ours:
                raise
            failures[contender.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        if contender.expected:
            if contender.expected not in expected:
                expected[contender.expected] = contender.expected(case, structure, pilot)
            _check(contender.name, case, result, expected[contender.expected])
        seconds = time_step(contender, run, pilot)
        if seconds * pilot < duration:  # the shorter, the more it depends on what else runs
            seconds = min(seconds, *(time_step(contender, run, pilot) for _ in range(4)))
        steps = min(MAX_STEPS, PATTERNS * max(1, int(duration / seconds / PATTERNS)))
        if seconds * PATTERNS > SLOW:
            steps = 1
        # With two threads at least as many as with one: on a busy machine a short run shows the scheduler instead.
        family = contender.name.removesuffix(f" {contender.threads}t")
        counts[family] = steps = max(steps, counts.get(family, 1))
        ready.append((contender, run, steps))
    return ready, failures


def _check(name: str, case: Case, result: dict, expected: dict) -> None:
    """The time of a wrong result means nothing."""
    for key in expected.keys() & result.keys():
        tolerance = 1e-3 if key == "sum" else TOLERANCE[case.dtype]
        np.testing.assert_allclose(
            np.asarray(result[key], np.float64),
            np.asarray(expected[key], np.float64),
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{key} of {name}, {case.label}",
        )


def time_step(contender: Contender, run: Run, steps: int) -> float:
    """Seconds a step."""
    hebbax.set_num_threads(contender.threads)
    time.sleep(0.002)  # other contenders' idle threads spin for a while
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps


def summary(values: list[float]) -> dict:
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"median_us": median, "quartiles_us": [low, high], "samples_us": values}


def judge(target, samples: dict[str, list[float]]) -> dict:
    """The median over rounds of the ratio within a round: what disturbs a round disturbs both."""
    pairs = zip(samples[target.numerator], samples[target.denominator], strict=False)
    ratio = statistics.median(a / b for a, b in pairs)
    return {**target._asdict(), "ratio": ratio, "reached": target.reached(ratio)}
