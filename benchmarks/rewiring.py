"""What it takes to rewire, beside rebuilding the structure and the weights from a list.

    python benchmarks/rewiring.py

Prints a Markdown table: nanoseconds of processor time a synapse, the smallest of a few calls. 100 synapses a neuron, of
which a share is taken away, while as many are offered at random places; the weights are carried along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from machine import commit, machine, versions

import hebbax

SIZES, SHARES, CALLS = (100_000, 1_000_000, 4_000_000), (0.01, 0.1), 5


def programs(nse: int, share: float) -> dict[str, Callable]:
    """The three ways, of which the last two are given the synapses that the first has added."""
    n, rng = nse // 100, np.random.default_rng(0)
    synapses = hebbax.Synapses.random((n, n), outdegree=100)
    keep, weight = rng.random(nse) >= share, jnp.asarray(rng.random(nse), jnp.float32)
    offer = [rng.integers(n, size=round(share * nse), dtype=np.int32) for _ in synapses.shape]
    given = jax.device_put((synapses, keep, *offer, weight))

    @jax.jit
    def within(synapses, keep, pre, post, weight):
        return hebbax.rewire_within(synapses, keep, pre, post, values=weight, new=0.5)

    added = np.asarray(within(*given).added)
    pre, post = (x[added] for x in offer)
    rows, columns = np.repeat(np.arange(n), np.diff(synapses.indptr)), np.asarray(synapses.indices)

    def rebuild():
        pairs = (np.concatenate([x[keep], y]) for x, y in ((rows, pre), (columns, post)))
        numbers = np.concatenate([np.asarray(weight)[keep], np.full(pre.size, 0.5, np.float32)])
        return hebbax.Synapses.from_coo(*pairs, numbers, shape=synapses.shape)

    return {
        "rewire_within": lambda: within(*given),
        "rewire": lambda: hebbax.rewire(synapses, keep, pre, post, values=weight, new=0.5),
        "from_coo": rebuild,
    }


def nanoseconds(program: Callable, nse: int) -> float:
    times = []
    for _ in range(CALLS):
        started = time.process_time()
        jax.block_until_ready(program())
        times.append(time.process_time() - started)
    return min(times) / nse * 1e9


def main() -> None:
    where, at = machine(), commit()
    listed = ", ".join(f"{name} {number}" for name, number in versions(("hebbax", "jax", "jaxlib")).items())
    print(f"`python benchmarks/rewiring.py` at {at}; {where['cpu']}, load {where['load_average'][0]}; {listed}\n")
    print("| synapses | replaced | `rewire_within` | `rewire` | `from_coo` |\n|---:|---:|---:|---:|---:|")
    for nse in SIZES:
        for share in SHARES:
            found = [f"{nanoseconds(program, nse):.0f}" for program in programs(nse, share).values()]
            print(f"| {nse:,} | {share:.0%} | {' | '.join(found)} |".replace(",", " "))


if __name__ == "__main__":
    main()
