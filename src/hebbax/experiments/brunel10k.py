r"""The plastic network on which simulators are compared: Brunel's, with 10 000 neurons and 35 spikes a second each.

Integrate-and-fire neurons whose voltage jumps with every spike that arrives, each driven by a Poisson process from
outside, connected at random. Synapses between excitatory neurons learn by multiplicative depression and by potentiation
that vanishes at the largest weight:

    presynaptic spike:  w -= lambda * alpha * w * y        postsynaptic spike:  w += lambda * (w_max - w) * x

with the traces x and y of the partners' spikes. The benchmark is that of

    N. Ahmad, J. B. Isbister, T. S. C. Smithe & S. M. Stringer (2018), Spike: a GPU optimised spiking neural network
    simulator, bioRxiv 461160, doi:10.1101/461160

after the network of

    N. Brunel (2000), Dynamics of sparsely connected networks of excitatory and inhibitory spiking neurons, Journal of
    Computational Neuroscience 8:183-208, doi:10.1023/A:1008925309027
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import hebbax
from hebbax.experiments import network, network_loop
from hebbax.experiments.parameters import parameter
from hebbax.experiments.poisson import Limits, poisson_counts, poisson_limits


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source."""

    membrane_time: u.Quantity = parameter(20.0 * u.ms, "membrane time constant")
    refractory_time: u.Quantity = parameter(2.0 * u.ms, "time after a spike in which the voltage rests")
    threshold: u.Quantity = parameter(20.0 * u.mV, "potential at which a neuron spikes, above rest")
    excitatory_weight: u.Quantity = parameter(0.1 * u.mV, "jump of the voltage by an excitatory spike")
    inhibitory_weight: u.Quantity = parameter(-0.5 * u.mV, "the same by an inhibitory one")
    delay: u.Quantity = parameter(1.5 * u.ms, "from a spike to its effect")
    connectivity: float = parameter(0.1, "probability that a neuron connects to another")
    drive_rate: u.Quantity = parameter(20.0 * u.kHz, "rate of the Poisson input of every neuron")
    learning_rate: float = parameter(0.01, "lambda: part of the way to its bound that a weight goes")
    depression_ratio: float = parameter(2.02, "alpha: depression over potentiation")
    largest_weight: u.Quantity = parameter(0.3 * u.mV, "upper bound of a weight that learns (the lower is 0)")
    trace_time: u.Quantity = parameter(20.0 * u.ms, "time constant of both traces")
    time_step: u.Quantity = parameter(0.1 * u.ms, "time step")

    @property
    def delay_steps(self) -> int:
        """The delay in steps; a ValueError where these are not a whole number, at least 1."""
        return network.delay_steps(self.delay, self.time_step)


class Constants(NamedTuple):
    """What a step computes with: float32, in mV, an int32, and what the drive is drawn by."""

    decay: Any
    weight: Any
    threshold: Any
    rest: Any  # refractory steps
    drive: Limits


class Membrane(NamedTuple):
    """State of the neurons."""

    voltage: Any  # (n,), in mV
    refractory: Any  # (n,), steps that remain


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Leaky integrate-and-fire neurons whose voltage jumps with what arrives, and rests after a spike."""

    parameters: Parameters
    seed: int
    given: Constants | None = None

    @property
    def time_step(self) -> u.Quantity:
        return self.parameters.time_step

    @property
    def constants(self) -> Constants:
        """What a step computes with."""
        if self.given is not None:
            return self.given
        p = self.parameters
        return Constants(
            decay=np.float32(math.exp(-(p.time_step / p.membrane_time))),
            weight=np.float32(p.excitatory_weight / u.mV),
            threshold=np.float32(p.threshold / u.mV),
            rest=np.int32(round(p.refractory_time / p.time_step)),
            drive=poisson_limits(float(p.drive_rate * p.time_step)),
        )

    def start(self, ids: jax.Array) -> Membrane:
        """All at rest."""
        return Membrane(jnp.zeros(ids.size), jnp.zeros(ids.size, jnp.int32))

    def drive(self, ids: jax.Array, steps: jax.Array) -> jax.Array:
        """Numbers of spikes from outside."""
        return poisson_counts(self.seed, self.constants.drive, ids, steps)

    def step(
        self, state: Membrane, excitation: jax.Array, inhibition: jax.Array, drive: jax.Array
    ) -> tuple[Membrane, jax.Array]:
        """Decay, spike, then take up what arrives; in the refractory time that is lost."""
        c = self.constants
        spike = hebbax.fence(state.voltage * c.decay >= c.threshold)
        refractory = jnp.where(spike, c.rest, jnp.maximum(state.refractory - 1, 0))
        voltage = state.voltage * c.decay + (excitation + inhibition + c.weight * drive)
        return Membrane(jnp.where(spike | (refractory > 0), np.float32(0), voltage), refractory), spike


def plasticity(p: Parameters) -> hebbax.PairSTDP:
    """The rule by which the weights change; soft bounds are in units of the range, hence its products."""
    step, unit = p.learning_rate * (p.largest_weight / u.mV), p.depression_ratio
    return hebbax.PairSTDP(
        p.trace_time, p.trace_time, step, step * unit, 0.0, p.largest_weight / u.mV, mu_plus=1.0, mu_minus=1.0
    )


def build(p: Parameters, *, neurons: int, plastic: bool, seed: int) -> network.Network:
    """The network; a fifth of its neurons is inhibitory."""
    is_excitatory = network.a_fifth_inhibitory(neurons)
    excitation, inhibition = p.excitatory_weight / u.mV, p.inhibitory_weight / u.mV
    rule = plasticity(p) if plastic else None
    projections = network.at_random(is_excitatory, p.connectivity, excitation, inhibition, rule, seed)
    return network.Network(Neurons(p, seed), is_excitatory, projections, p.delay_steps)


def simulate(
    parameters: Parameters | None = None, *, neurons: int = 10_000, plastic: bool = True, seconds: float = 1.0,
    seed: int = 0, **options: Any,
) -> network.Run:  # fmt: skip
    """Simulate the network; the same seed gives the same result on any devices.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default the published ones.
    neurons : int
        Of which a fifth is inhibitory.
    plastic : bool
        Whether the synapses between excitatory neurons learn.
    seconds, seed, **options
        As `hebbax.experiments.network_loop.simulate` takes them: `backend`, `mesh`, `on_progress` and `keeper` too.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        An argument is out of range.

    Examples
    --------
    >>> from hebbax.experiments import brunel10k
    >>> run = brunel10k.simulate(neurons=100, seconds=0.01)
    >>> run.n, run.steps
    (100, 100)
    """
    p = Parameters() if parameters is None else parameters
    arguments: Any = dict(neurons=neurons, plastic=plastic)
    draw = functools.partial(build, p, **arguments, seed=seed)
    about = "brunel10k", arguments
    return network_loop.simulate(draw, seconds=seconds, seed=seed, about=about, **options)
