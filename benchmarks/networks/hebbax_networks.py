"""The networks of `hebbax.experiments`; see script.py for the arguments.

As many of JAX's CPU devices as threads: `simulate` itself chooses how many of these it shares a network out among.
"""

from __future__ import annotations

import argparse
import functools

import brainunit as u
import jax
import jax.numpy as jnp
from constants import Brunel, Cuba
from script import Network, Outcome, keep_to, main, peak_memory, since_start, weights

import hebbax


def run(options: argparse.Namespace, network: Network) -> Outcome:
    keep_to(options.threads)  # before JAX starts its threads
    jax.config.update("jax_num_cpu_devices", options.threads)
    hebbax.set_num_threads(options.threads)
    jax.block_until_ready(jnp.zeros(1))
    memory_before, imported = peak_memory(), since_start()
    result = simulation(network)(seconds=options.seconds, seed=options.seed, plastic=not options.static)
    build, compilation, wall = (x / u.second for x in (result.build_time, result.compile_time, result.wall_time))
    return Outcome(
        wall=wall,
        cpu=None,
        build=build,
        compilation=compilation,
        before_first_step=imported + build + compilation,
        memory=peak_memory(),
        memory_before=memory_before,
        rate=float((result.rates() / u.Hz).mean()),
        **weights(None if options.static else result.weight_end),
    )


def simulation(network: Network):
    """The experiment, at the size of `network`."""
    from hebbax.experiments import brunel10k, cuba, hpc

    if isinstance(network, Cuba):
        return functools.partial(cuba.simulate, neurons=network.neurons)
    if isinstance(network, Brunel):
        return brunel10k.simulate
    return functools.partial(hpc.simulate, scale=network.scale, inputs=1.0)  # by default it has fewer


if __name__ == "__main__":
    main(run)
