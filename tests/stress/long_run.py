"""One long run, in a process of its own: what it holds while it runs, and how far float32 drifts from float64.

    python tests/stress/long_run.py small|song2000 STEPS SEED ERROR

The last line that it prints is JSON. The reference (pairs.c) is given the spikes of the run, and nothing else: whether
spikes differ between precisions is chance (networks are chaotic), but the same spikes have to do the same to weights.
"""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import psutil
from built import library

import hebbax
from hebbax.experiments import song2000

ROUNDING, PER_STEP = 2.0**-24, 4  # a trace's product, sum and factor, and what its amplitude is rounded by
SAMPLES = 400


class Side(ctypes.Structure):
    _fields_ = (
        ("n", ctypes.c_int64), ("indptr", ctypes.c_void_p), ("partners", ctypes.c_void_p), ("slots", ctypes.c_void_p),
        ("trace", ctypes.c_void_p), ("aged", ctypes.c_void_p), ("last", ctypes.c_void_p),
        ("decay", ctypes.c_double), ("amplitude", ctypes.c_double),
    )  # fmt: skip


class Weights(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p), ("bound", ctypes.c_void_p), ("low", ctypes.c_double), ("high", ctypes.c_double),
        ("touches", ctypes.c_void_p), ("rounding", ctypes.c_double), ("per_step", ctypes.c_double),
    )  # fmt: skip


class Reference:
    """The weights of a network by pairs.c."""

    def __init__(self, rule: hebbax.PairSTDP, synapses: hebbax.Synapses, weight: Any, dt: Any, error: float):
        s = synapses
        self.library, self.steps = ctypes.CDLL(str(library("pairs"))), 0
        self.weight = np.array(weight, np.float64)
        self.bound, self.touches = np.zeros(s.nse), np.zeros(s.nse, np.int64)
        pre = np.array(s.indptr, np.int32), np.array(s.indices, np.int32), None
        post = (np.array(x, np.int32) for x in (s.csc_indptr, s.csc_indices, s.weight_indices))
        self.kept: list[Any] = []
        self.pre = self._side(s.n_pre, *pre, float(dt / rule.tau_plus), -rule.a_minus * (1 + error))
        self.post = self._side(s.n_post, *post, float(dt / rule.tau_minus), rule.a_plus * (1 + error))
        low, high = (float(np.float32(x)) for x in (rule.w_min, rule.w_max))
        arrays = (self.weight.ctypes.data, self.bound.ctypes.data)
        self.weights = Weights(*arrays, low, high, self.touches.ctypes.data, ROUNDING, PER_STEP)
        self.high = high

    def _side(self, n: int, *arrays: Any) -> Side:
        *structure, decay, amplitude = arrays
        state = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
        self.kept += [*structure, *state]
        pointers = [None if x is None else x.ctypes.data for x in (*structure, *state)]
        return Side(n, *pointers, decay, amplitude)

    def follow(self, pre_spike: Any, post_spike: Any) -> None:
        """Take the steps whose spikes are the rows of these."""
        spikes = [np.ascontiguousarray(x) for x in (pre_spike, post_spike)]
        steps = len(spikes[0])
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in spikes]
        parts = (ctypes.byref(x) for x in (self.pre, self.post, self.weights))
        self.library.follow(*parts, *pointers, ctypes.c_int64(self.steps), ctypes.c_int64(steps))
        self.steps += steps

    def compared(self, weight: Any) -> dict[str, float]:
        """How far weights of float32 are from it, in largest weights, and how far they might be."""
        drift = np.abs(np.asarray(weight, np.float64) - self.weight)
        bound = 1.01 * self.bound + 2**-23 * self.high  # (1.01: products of roundings; and those of the bound itself)
        return {
            "drift": float(drift.max() / self.high), "bound": float(bound.max() / self.high),
            "share": float((drift / bound).max()), "touches": float(self.touches.mean()),
            "moved": float(np.std(self.weight) / self.high), "finite": bool(np.isfinite(weight).all()),
        }  # fmt: skip


Block = Iterator[tuple[int, Any, Reference]]  # after each: the steps so far, the weight, and what it should be


def small(steps: int, seed: int, follow: Callable[..., Reference]) -> Block:
    """64 neurons with 8 synapses each, that spike by chance, about 10 times a second, more where they are driven."""
    n, block, dt = 64, 20_000, 0.1 * u.ms
    synapses = hebbax.Synapses.random((n, n), outdegree=8, autapses=False, seed=seed)
    rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.01, 0.0105, 0.0, 1.0)
    weight = jax.random.uniform(jax.random.key(seed), (synapses.nse,), jnp.float32)
    reference = follow(rule, synapses, weight, dt)

    def step(state, drawn):
        weight, traces, spike, drive = state
        drive = 0.98 * drive + synapses.propagate_on_pre(weight, spike)
        spike = drawn < 0.0008 + 0.0004 * drive
        weight, traces = rule.step(synapses, weight, traces, spike, spike, dt, after=drive)
        return (weight, traces, spike, drive), spike

    def run(state, block_number):
        key = jax.random.fold_in(jax.random.key(seed + 1), block_number)
        return jax.lax.scan(step, state, jax.random.uniform(key, (block, n)))

    run = jax.jit(run, donate_argnums=0)
    state = (weight + 0, rule.init(synapses), jnp.zeros(n, bool), jnp.zeros(n))
    for number in range(-(-steps // block)):
        state, spikes = run(state, number)
        reference.follow(spikes, spikes)
        yield (number + 1) * block, state[0], reference


def song(steps: int, seed: int, follow: Callable[..., Reference]) -> Block:
    """The experiment as `hebbax simulate song2000` runs it: 4 neurons with 1000 inputs each."""
    p, neurons, inputs, block = song2000.Parameters(), 4, 1000, song2000.BLOCK_STEPS
    start_key, input_key = jax.random.split(jax.random.key(seed))
    synapses, ids = song2000.connect(neurons, inputs), jnp.arange(neurons)
    weight = song2000.initial_weight(p, ids, inputs, start_key)
    reference = follow(song2000.plasticity(p), synapses, weight, p.time_step)
    state = song2000.initial_state(p, synapses, weight + 0)

    def run(state, number):
        key = jax.random.fold_in(input_key, number)
        pre_spikes, counts, _ = song2000.draw_inputs(p, ids, inputs, block, key)
        state, spikes = jax.lax.scan(song2000.make_step(p, synapses, None), state, (pre_spikes, counts))
        return state, pre_spikes, spikes

    run = jax.jit(run, donate_argnums=0)
    for number in range(-(-steps // block)):
        state, pre_spikes, post_spikes = run(state, number)
        reference.follow(pre_spikes, post_spikes)
        yield (number + 1) * block, state.weight, reference


def main(which: str, steps: int, seed: int, error: float) -> None:
    process, samples, now, worst, done = psutil.Process(), [], {}, 0.0, 0
    started, every = time.perf_counter(), max(1, steps // SAMPLES)
    follow = functools.partial(Reference, error=error)
    for done, weight, reference in {"small": small, "song2000": song}[which](steps, seed, follow):
        if done >= (len(samples) + 1) * every:
            samples.append((done, process.memory_info().rss, process.num_fds(), process.num_threads()))
            now = reference.compared(weight)
            worst = max(worst, now["share"])
            print(samples[-1], now, flush=True)
    found = {"steps": done, "seconds": time.perf_counter() - started, "samples": samples, "worst": worst, **now}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
