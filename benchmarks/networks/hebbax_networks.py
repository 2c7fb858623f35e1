"""The networks of `hebbax.experiments`; see script.py for the arguments."""

from __future__ import annotations

import argparse
import functools

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from constants import Brunel, Cuba
from script import Network, Outcome, keep_to, main, peak_memory, since_start, weights

import hebbax


def run(options: argparse.Namespace, network: Network) -> Outcome:
    keep_to(options.threads)  # before JAX starts its threads
    hebbax.set_num_threads(options.threads)
    jax.block_until_ready(jnp.zeros(1))
    memory_before = peak_memory()
    simulate = simulation(network)
    result = simulate(seconds=options.seconds, seed=options.seed, plastic=not options.static)
    wall = result.wall_time / u.second
    before_first_step = since_start() - wall
    return Outcome(
        wall=wall,
        cpu=None,
        build=result.build_time / u.second,
        compilation=result.compile_time / u.second,
        before_first_step=before_first_step,
        memory=peak_memory(),
        memory_before=memory_before,
        rate=float(np.mean(result.rate / u.Hz)),
        **weights(None if options.static else np.asarray(u.get_mantissa(result.weight_end))),
    )


def simulation(network: Network):
    """The experiment, at the size of `network`."""
    from hebbax.experiments import brunel10k, cuba, hpc

    if isinstance(network, Cuba):
        return functools.partial(cuba.simulate, neurons=network.neurons)
    return brunel10k.simulate if isinstance(network, Brunel) else functools.partial(hpc.simulate, scale=network.scale)


if __name__ == "__main__":
    main(run)
