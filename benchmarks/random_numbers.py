"""What random numbers cost in a loop, beside a step of plasticity: 10 000 draws a step, by each of JAX's generators.

    python benchmarks/random_numbers.py

Prints a Markdown table: microseconds a step of `lax.scan`, the smallest of rounds in which programs take turns, less
what the loop takes without draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine, versions

import hebbax
from hebbax.experiments.poisson import bernoulli_cells, poisson_counts

N, STEPS, ROUNDS = 10_000, 320, 25
RATE = 0.002  # spikes a step, of neurons and of rare events
DRAWS = {
    "32 bits": lambda key: jax.random.bits(key, (N,), jnp.uint32),
    "uniform": lambda key: jax.random.uniform(key, (N,)),
    "bernoulli": lambda key: jax.random.bernoulli(key, RATE, (N,)),
    "normal": lambda key: jax.random.normal(key, (N,)),
}


def drawing(draw: Callable, implementation: str) -> Callable:
    """A loop whose state takes up what is drawn in every step."""

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        def step(total: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
            drawn = draw(jax.random.fold_in(key, k))
            return hebbax.fence(0.9 * total + drawn.astype(jnp.float32)), None

        return jax.lax.scan(step, jnp.zeros(N), jnp.arange(STEPS))[0]

    key = jax.random.key(0, impl=implementation)
    return lambda: run(key)


def counts() -> Callable:
    """`poisson_counts`, of 16 steps at once, as the experiments draw them."""

    @jax.jit
    def run() -> jax.Array:
        def block(total: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
            drawn = poisson_counts(0, 2.0, jnp.arange(N), first + jnp.arange(16))
            return jax.lax.scan(lambda x, y: (hebbax.fence(0.9 * x + y), None), total, drawn)

        return jax.lax.scan(block, jnp.zeros(N), 16 * jnp.arange(STEPS // 16))[0]

    return run


def rare_events() -> Callable:
    """`bernoulli_cells`, of all steps at once."""

    @jax.jit
    def run() -> jax.Array:
        cells = bernoulli_cells(jax.random.key(0), N * STEPS, RATE)
        spikes = jnp.zeros(N * STEPS, bool).at[cells].set(True, mode="drop").reshape(STEPS, N)
        return jax.lax.scan(lambda x, y: (hebbax.fence(0.9 * x + y), None), jnp.zeros(N), spikes)[0]

    return run


def plasticity() -> Callable:
    """A step of `PairSTDP` on 100 synapses a neuron, whose spikes are given."""
    synapses = hebbax.Synapses.random((N, N), outdegree=100)
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.01, 0.0105, 0.0, 1.0)
    spikes = jnp.asarray(np.random.default_rng(0).random((2, STEPS, N)) < RATE)

    @jax.jit
    def run(synapses: hebbax.Synapses, weight: jax.Array) -> jax.Array:
        def step(state: tuple, spikes: tuple) -> tuple:
            return rule.step(synapses, *state, *spikes, 1 * u.ms), None

        return jax.lax.scan(step, (weight, rule.init(synapses)), tuple(spikes))[0][0]

    weight = jnp.full(synapses.nse, 0.5, jnp.float32)
    return lambda: run(synapses, weight)


def main() -> None:
    where, at = machine(), commit()
    programs = {(name, kind): drawing(draw, kind) for name, draw in DRAWS.items() for kind in ("threefry2x32", "rbg")}
    programs |= {("nothing", ""): drawing(lambda key: jnp.zeros(N), "threefry2x32")}
    programs |= {("Poisson counts, `poisson_counts`", "its own threefry"): counts()}
    programs |= {
        ("bernoulli, `bernoulli_cells`", "threefry2x32"): rare_events(),
        ("a step of PairSTDP", ""): plasticity(),
    }
    times: dict[tuple, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append((time.perf_counter() - started) / STEPS * 1e6)
    smallest = {name: min(x) for name, x in times.items()}
    loop = smallest.pop(("nothing", ""))
    listed = ", ".join(f"{name} {number}" for name, number in versions(("hebbax", "jax", "jaxlib")).items())
    print(f"`python benchmarks/random_numbers.py` at {at}; {where['cpu']}, load {where['load_average'][0]}; {listed}\n")
    print("| 10 000 draws | generator | µs a step |\n|---|---|---:|")
    for (name, kind), microseconds in smallest.items():
        less = 0.0 if name.startswith("a step") else loop
        print(f"| {name} | {kind} | {microseconds - less:.1f} |")


if __name__ == "__main__":
    main()
