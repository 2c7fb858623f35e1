"""What a rule costs as a function: `apply_on_pre` and `apply_on_post`, beside built-in updates and dense forms.

    python benchmarks/any_rule.py > benchmarks/results/any_rule.md

The rule is additive with two bounds, so that the built-in update can do the same; all results are compared. `dense` is
one `jnp.where` over all synapses, with the presynaptic neuron of each at hand; brainevent's `csr_apply_on_pre` and
`csr_apply_on_post` are the same, without that.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

if hasattr(os, "sched_setaffinity"):  # before JAX counts the CPUs
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine, versions

import hebbax

CASES = ((10_000, 100, 0.01), (10_000, 100, 0.002), (1_000, 100, 0.02))  # neurons, synapses of each, P(spike)
ROUNDS, STEPS = 9, 100
COLUMNS = ("built-in", "as a function", "times built-in", "dense", "times less", "brainevent", "times less")


def rule(w: jax.Array, pre: jax.Array, post: jax.Array, *_: None) -> jax.Array:
    """The trace of whichever side has one."""
    return jnp.clip(w + 1e-3 * (post if pre is None else pre), 0.0, 1.0)


def steps_of(side: str, synapses: hebbax.Synapses, trace: jax.Array) -> list[Callable]:
    """A step in each of the versions, in the order of `COLUMNS`."""
    rows = jnp.repeat(jnp.arange(synapses.n_pre), jnp.diff(synapses.indptr), total_repeat_length=synapses.nse)
    structure = synapses.indices, synapses.indptr
    bounds = dict(gain=1e-3, w_min=0.0, w_max=1.0, weight_in_bounds=True)
    shape = synapses.shape
    if side == "pre":
        return [
            lambda s, w, spike: s.update_on_pre(w, spike, trace, **bounds),
            lambda s, w, spike: s.apply_on_pre(rule, w, spike, post=trace),
            lambda s, w, spike: jnp.where(spike[rows], rule(w, None, trace[s.indices]), w),
            lambda s, w, spike: brainevent.csr_apply_on_pre(rule, w, *structure, spike, post_vals=trace, shape=shape),
        ]
    return [
        lambda s, w, spike: s.update_on_post(w, trace, spike, **bounds),
        lambda s, w, spike: s.apply_on_post(rule, w, spike, pre=trace),
        lambda s, w, spike: jnp.where(spike[s.indices], rule(w, trace[rows], None), w),
        lambda s, w, spike: brainevent.csr_apply_on_post(rule, w, *structure, spike, pre_vals=trace, shape=shape),
    ]


def measure(side: str, n: int, synapses_of_each: int, p_spike: float) -> list[float]:
    """Microseconds a step of each version."""
    synapses, rng = hebbax.Synapses.random((n, n), prob=synapses_of_each / n), np.random.default_rng(0)
    spikes, trace = jnp.asarray(rng.random((STEPS, n)) < p_spike), jnp.asarray(rng.random(n), jnp.float32)

    def compiled(step: Callable) -> Callable:
        def run(weight: jax.Array, synapses: hebbax.Synapses, spikes: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda w, spike: (step(synapses, w, spike), None), weight, spikes)[0]

        return jax.jit(run, donate_argnums=0).lower(jnp.zeros(synapses.nse), synapses, spikes).compile()

    runs = [compiled(step) for step in steps_of(side, synapses, trace)]
    times: list[list[float]] = [[] for _ in runs]
    results = []
    for _ in range(ROUNDS):
        results = []
        for run, own in zip(runs, times, strict=True):
            weight = jnp.full(synapses.nse, 0.5, jnp.float32).block_until_ready()
            started = time.perf_counter()
            weight = run(weight, synapses, spikes).block_until_ready()
            own.append((time.perf_counter() - started) / STEPS * 1e6)
            results.append(np.asarray(weight))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-5)
    return [statistics.median(own[1:]) for own in times]


def main() -> None:
    """Print the table in Markdown."""
    where, found = machine(), ", ".join(f"{k} {v}" for k, v in versions(("hebbax", "jax", "brainevent")).items())
    load = where["load_average"][0]
    print(f"`python benchmarks/any_rule.py` at {commit()}; {where['cpu']}, load {load} before, {found}\n")
    print(f"Microseconds a step on one CPU, medians of {ROUNDS - 1} rounds in which the versions take turns.\n")
    print(f"| update on | neurons, synapses of each | spikes | {' | '.join(COLUMNS)} |")
    print(f"|---|---|---:|{'---:|' * len(COLUMNS)}")
    for n, synapses_of_each, p_spike in CASES:
        for side in ("pre", "post"):
            built, ours, dense, peer = measure(side, n, synapses_of_each, p_spike)
            cells = f"{built:.1f}", f"{ours:.1f}", f"{ours / built:.1f}", f"{dense:.0f}", f"{dense / ours:.1f}"
            cells += f"{peer:.0f}", f"{peer / ours:.1f}"
            print(f"| {side} | {n:,}, {synapses_of_each} | {p_spike:.1%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
