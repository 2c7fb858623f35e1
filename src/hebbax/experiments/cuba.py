r"""A network that keeps itself going, with synapses that learn: the current-based network of Vogels & Abbott (2005).

    T. P. Vogels & L. F. Abbott (2005), Signal propagation and logic gating in networks of integrate-and-fire neurons,
    Journal of Neuroscience 25:10786-10795, doi:10.1523/JNEUROSCI.3508-05.2005

in the form of the simulators' benchmark 2 (R. Brette et al. 2007, Journal of Computational Neuroscience 23:349-398,
doi:10.1007/s10827-007-0038-6), whose constants these are:

    tau_m dv/dt = E - v + g_e + g_i        tau_e dg_e/dt = -g_e        tau_i dg_i/dt = -g_i

Nothing comes from outside: the potential without input, E, is above the threshold. The synapses between excitatory
neurons learn by pairs of spikes, additively, which the paper's do not; these constants are ours.
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
from hebbax.experiments.poisson import uniform

PUBLISHED = 4000  # neurons that the weights are for


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source."""

    membrane_time: u.Quantity = parameter(20.0 * u.ms, "membrane time constant")
    leak_potential: u.Quantity = parameter(-49.0 * u.mV, "potential without input")
    threshold: u.Quantity = parameter(-50.0 * u.mV, "potential at which a neuron spikes")
    reset_potential: u.Quantity = parameter(-60.0 * u.mV, "potential after a spike, and the least at the start")
    refractory_time: u.Quantity = parameter(5.0 * u.ms, "time after a spike in which the potential is held")
    excitatory_time: u.Quantity = parameter(5.0 * u.ms, "decay time of excitation")
    inhibitory_time: u.Quantity = parameter(10.0 * u.ms, "decay time of inhibition")
    excitatory_weight: u.Quantity = parameter(1.62 * u.mV, "step of excitation by a spike, of 4 000 neurons")
    inhibitory_weight: u.Quantity = parameter(-9.0 * u.mV, "the same of inhibition")
    connectivity: float = parameter(0.02, "probability that a neuron connects to another")
    largest_weight: float = parameter(2.0, "upper bound of a weight that learns, in its first value", "hebbax")
    potentiation: float = parameter(0.005, "largest step up by a pair of spikes, in largest weights", "hebbax")
    depression_ratio: float = parameter(1.05, "largest step down over largest step up", "hebbax")
    trace_time: u.Quantity = parameter(20.0 * u.ms, "time constant of potentiation and of depression", "hebbax")
    time_step: u.Quantity = parameter(0.1 * u.ms, "time step")

    @property
    def delay_steps(self) -> int:
        """One: the published network has no delays, and this is the least."""
        return 1


class Constants(NamedTuple):
    """What a step computes with: float32, potentials in mV above the leak potential, and an int32."""

    threshold: Any
    reset: Any
    membrane_decay: Any
    excitatory_decay: Any
    inhibitory_decay: Any
    excitatory_reached: Any  # how much the voltage has of a current, over what the current has left, after a step
    inhibitory_reached: Any
    rest: Any  # refractory steps


class Membrane(NamedTuple):
    """State of the neurons, in mV, and refractory steps that remain."""

    voltage: Any  # (n,), above the leak potential, as it was before the threshold
    excitation: Any  # (n,)
    inhibition: Any  # (n,)
    refractory: Any  # (n,)


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Leaky integrate-and-fire neurons with exponential currents."""

    parameters: Parameters
    seed: int = 0
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

        def decay(time: u.Quantity) -> np.float32:
            return np.float32(math.exp(-(p.time_step / time)))

        def reached(time: u.Quantity) -> np.float32:
            return np.float32(time / (time - p.membrane_time)) * (1 - decay(p.membrane_time) / decay(time))

        return Constants(
            threshold=np.float32((p.threshold - p.leak_potential) / u.mV),
            reset=np.float32((p.reset_potential - p.leak_potential) / u.mV),
            membrane_decay=decay(p.membrane_time),
            excitatory_decay=decay(p.excitatory_time),
            inhibitory_decay=decay(p.inhibitory_time),
            excitatory_reached=reached(p.excitatory_time),
            inhibitory_reached=reached(p.inhibitory_time),
            rest=np.int32(round(p.refractory_time / p.time_step)),
        )

    def start(self, ids: jax.Array) -> Membrane:
        """Potentials from the reset to the threshold."""
        low, high = self.constants.reset, self.constants.threshold
        voltage = low + (high - low) * uniform(self.seed, ids)
        return Membrane(voltage, jnp.zeros(ids.size), jnp.zeros(ids.size), jnp.zeros(ids.size, jnp.int32))

    def drive(self, ids: jax.Array, steps: jax.Array) -> None:
        """Nothing."""

    def step(
        self, state: Membrane, excitation: jax.Array, inhibition: jax.Array, drive: None
    ) -> tuple[Membrane, jax.Array]:
        """Take up what arrives, then the exact solution over a step."""
        c = self.constants
        excitation = (state.excitation + excitation) * c.excitatory_decay
        inhibition = (state.inhibition + inhibition) * c.inhibitory_decay
        excitation, inhibition = hebbax.fence((excitation, inhibition))
        moved = state.voltage * c.membrane_decay + excitation * c.excitatory_reached + inhibition * c.inhibitory_reached
        voltage = hebbax.fence(jnp.where(state.refractory > 0, c.reset, moved))
        spike = voltage > c.threshold
        refractory = jnp.where(spike, c.rest, jnp.maximum(state.refractory - 1, 0))
        return Membrane(jnp.where(spike, c.reset, voltage), excitation, inhibition, refractory), spike


def plasticity(p: Parameters, weight: float) -> hebbax.PairSTDP:
    """The rule by which weights change that are this at first."""
    largest = p.largest_weight * weight
    up = p.potentiation * largest
    return hebbax.PairSTDP(p.trace_time, p.trace_time, up, p.depression_ratio * up, 0.0, largest)


def build(p: Parameters, *, neurons: int, plastic: bool, seed: int) -> network.Network:
    """The network; a fifth of its neurons is inhibitory, and its weights go with the inverse of its size."""
    is_excitatory = network.a_fifth_inhibitory(neurons)
    excitation, inhibition = (x / u.mV * PUBLISHED / neurons for x in (p.excitatory_weight, p.inhibitory_weight))
    rule = plasticity(p, excitation) if plastic else None
    projections = network.at_random(is_excitatory, p.connectivity, excitation, inhibition, rule, seed)
    return network.Network(Neurons(p, seed), is_excitatory, projections, p.delay_steps)


def simulate(
    parameters: Parameters | None = None, *, neurons: int = PUBLISHED, plastic: bool = True, seconds: float = 1.0,
    seed: int = 0, **options: Any,
) -> network.Run:  # fmt: skip
    """Simulate the network; the same seed gives the same result on any devices.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default the published ones.
    neurons : int
        Of which a fifth is inhibitory. Weights are scaled by 4 000 over this.
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
    >>> from hebbax.experiments import cuba
    >>> run = cuba.simulate(neurons=500, seconds=0.01)
    >>> run.n, run.steps
    (500, 100)
    """
    p = Parameters() if parameters is None else parameters
    arguments: Any = dict(neurons=neurons, plastic=plastic)
    draw = functools.partial(build, p, **arguments, seed=seed)
    about = "cuba", arguments
    return network_loop.simulate(draw, seconds=seconds, seed=seed, about=about, **options)
