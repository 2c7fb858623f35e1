"""Networks small enough for a test: the experiments', and one whose neurons repeat what arrives."""

import dataclasses
import functools
from typing import NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import hebbax
from hebbax.experiments import brunel10k, cuba, hpc, network_loop
from hebbax.experiments.network import Network, Projection

# An odd number of neurons each, with weights that let them fire at some 50 Hz.
RUNS = {
    "brunel10k": functools.partial(
        brunel10k.simulate, dataclasses.replace(brunel10k.Parameters(), connectivity=0.2), neurons=53
    ),
    "cuba": functools.partial(
        cuba.simulate,
        dataclasses.replace(
            cuba.Parameters(),
            connectivity=0.2,
            leak_potential=-30.0 * u.mV,
            excitatory_weight=0.05 * u.mV,
            inhibitory_weight=-0.1 * u.mV,
        ),
        neurons=53,
    ),
    "hpc": functools.partial(
        hpc.simulate,
        dataclasses.replace(
            hpc.Parameters(), excitatory_neurons=43, inhibitory_neurons=10, excitatory_inputs=12, inhibitory_inputs=4
        ),
        scale=1.0,
    ),
}
EXPERIMENTS = {"brunel10k": brunel10k, "cuba": cuba, "hpc": hpc}


class Passing(NamedTuple):
    """State of `Repeating`, as a neuron has to have some."""

    steps: jax.Array  # (n,)


class Repeating:
    """Neurons that spike where excitation arrives, and one of them by itself at first."""

    parameters = None
    time_step = 0.1 * u.ms

    def start(self, ids):
        return Passing(jnp.zeros(ids.size, jnp.int32))

    def drive(self, ids, steps):
        return (ids[None] == 0) & (steps[:, None] == 0)

    def step(self, state, excitation, inhibition, drive):
        return Passing(state.steps + 1), (excitation > 0) & (inhibition == 0) | drive


def echoes(n, delay, steps, **options):
    """Run a ring of neurons around which a spike goes; return the run, and steps and neurons of that spike."""
    dendritic, ids = options.pop("dendritic", False), np.arange(n)
    synapses = hebbax.Synapses.from_coo(ids, (ids + 1) % n, jnp.ones(n), shape=(n, n))[0]
    projections = [Projection(synapses, 1.0)]  # and no inhibition

    def build():
        return Network(Repeating(), np.ones(n, bool), projections, delay, dendritic)

    run = network_loop.simulate(build, seconds=steps * 1e-4, **options)
    times = np.arange(0, steps, delay)
    return run, (times, np.arange(times.size) % n)
