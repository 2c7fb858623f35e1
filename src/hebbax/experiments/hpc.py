r"""The network by which NEST is measured on supercomputers: balanced, with power-law STDP and thousands of inputs each.

NEST's example `hpc_benchmark`, after

    A. Morrison, A. Aertsen & M. Diesmann (2007), Spike-timing-dependent plasticity in balanced random networks, Neural
    Computation 19:1437-1467, doi:10.1162/neco.2007.19.6.1437

    M. Helias et al. (2012), Supercomputers ready for use as discovery machines for neuroscience, Frontiers in
    Neuroinformatics 6:26, doi:10.3389/fninf.2012.00026

    S. Kunkel et al. (2014), Spiking network simulation code for petascale computers, Frontiers in Neuroinformatics
    8:78, doi:10.3389/fninf.2014.00078

Neurons with currents that are alpha functions, each driven by a Poisson process from outside,

    tau_m dv/dt = -v + tau_m I / C        tau_s dI/dt = e r - I        tau_s dr/dt = -r

where a spike adds its weight to r, so that the current's peak is the weight. Every neuron has the same number of inputs
whatever the scale. Synapses between excitatory neurons learn:

    presynaptic spike:  w -= lambda * alpha * w * y        postsynaptic spike:  w += lambda * w^mu * x

with weights in pA. All of the delay is between synapse and soma, so that the synapse sees the neuron's own spikes late.
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
import scipy.linalg
import scipy.special

import hebbax
from hebbax.experiments import network, network_loop
from hebbax.experiments.parameters import parameter
from hebbax.experiments.poisson import Limits, poisson_counts, poisson_limits, uniform


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source ("paper": NEST's example)."""

    excitatory_neurons: int = parameter(9000, "excitatory neurons at scale 1")
    inhibitory_neurons: int = parameter(2250, "inhibitory neurons at scale 1")
    excitatory_inputs: int = parameter(9000, "excitatory synapses onto a neuron")
    inhibitory_inputs: int = parameter(2250, "inhibitory synapses onto a neuron")
    capacitance: u.Quantity = parameter(250.0 * u.pF, "of the membrane")
    membrane_time: u.Quantity = parameter(10.0 * u.ms, "membrane time constant")
    refractory_time: u.Quantity = parameter(0.5 * u.ms, "time after a spike in which the potential rests")
    threshold: u.Quantity = parameter(20.0 * u.mV, "potential at which a neuron spikes, above rest")
    start_mean: u.Quantity = parameter(5.7 * u.mV, "mean of the normal distribution of potentials at the start")
    start_sd: u.Quantity = parameter(7.2 * u.mV, "its standard deviation")
    synaptic_time: u.Quantity = parameter(0.32582722403722841 * u.ms, "rise time of a current")
    potential_peak: u.Quantity = parameter(0.14 * u.mV, "of what an excitatory spike causes")
    inhibition_ratio: float = parameter(-5.0, "inhibitory over excitatory weight")
    drive: float = parameter(1.685, "eta: external input over what would just reach the threshold")
    delay: u.Quantity = parameter(1.5 * u.ms, "from a spike to its effect")
    learning_rate: float = parameter(0.1, "lambda")
    depression_ratio: float = parameter(0.0513, "alpha")
    exponent: float = parameter(0.4, "mu")
    potentiation_time: u.Quantity = parameter(15.0 * u.ms, "time constant of x")
    depression_time: u.Quantity = parameter(30.0 * u.ms, "time constant of y")
    time_step: u.Quantity = parameter(0.1 * u.ms, "time step")

    @property
    def delay_steps(self) -> int:
        """The delay in steps; a ValueError where these are not a whole number, at least 1."""
        return network.delay_steps(self.delay, self.time_step)

    @property
    def weight(self) -> u.Quantity:
        """Peak of an excitatory current, 45.6 pA, by which a potential peaks at `potential_peak`."""
        a = self.membrane_time / self.synaptic_time
        b = (1 / self.synaptic_time - 1 / self.membrane_time) * u.ms
        # When the potential after an alpha function peaks, and how high, of 1 pA.
        time = (-scipy.special.lambertw(-math.exp(-1 / a) / a, -1).real - 1 / a) / b
        slow, fast = math.exp(-time / (self.membrane_time / u.ms)), math.exp(-time / (self.synaptic_time / u.ms))
        peak = math.e / (self.synaptic_time / u.ms * b) * ((slow - fast) / b - time * fast)
        return self.potential_peak / (peak * u.ms / self.capacitance)

    @property
    def drive_rate(self) -> u.Quantity:
        """Of the Poisson input of a neuron, with the excitatory weight."""
        charge = self.weight * math.e * self.synaptic_time
        return self.drive * self.threshold * self.capacitance / (self.membrane_time * charge)

    @property
    def propagator(self) -> np.ndarray:
        """What a step makes of voltage (mV), current and rise (pA) without spikes, as a matrix."""
        tau_m, tau_s, step = (x / u.ms for x in (self.membrane_time, self.synaptic_time, self.time_step))
        per_current = 1.0 / (self.capacitance / u.pF)  # mV that 1 pA makes in 1 ms
        rates = [[-1 / tau_m, per_current, 0], [0, -1 / tau_s, math.e / tau_s], [0, 0, -1 / tau_s]]
        return scipy.linalg.expm(np.array(rates) * step)


class Constants(NamedTuple):
    """What a step computes with: float32, in mV and pA, an int32, and what the drive is drawn by."""

    v_v: Any  # how much of the voltage a step leaves, what it makes of a current, and so on
    v_i: Any
    v_r: Any
    i_i: Any
    i_r: Any
    r_r: Any
    start_mean: Any
    start_sd: Any
    threshold: Any
    weight: Any  # of the drive
    rest: Any  # refractory steps
    drive: Limits


class Membrane(NamedTuple):
    """State of the neurons, and refractory steps that remain."""

    voltage: Any  # (n,), in mV
    current: Any  # (n,), in pA
    rise: Any  # (n,), in pA
    refractory: Any  # (n,)


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Leaky integrate-and-fire neurons with currents that are alpha functions (NEST's `iaf_psc_alpha`)."""

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
        (v_v, v_i, v_r), (_, i_i, i_r), (_, _, r_r) = p.propagator.astype(np.float32)
        return Constants(
            v_v, v_i, v_r, i_i, i_r, r_r,
            start_mean=np.float32(p.start_mean / u.mV),
            start_sd=np.float32(p.start_sd / u.mV),
            threshold=np.float32(p.threshold / u.mV),
            weight=np.float32(p.weight / u.pA),
            rest=np.int32(round(p.refractory_time / p.time_step)),
            drive=poisson_limits(float(p.drive_rate * p.time_step)),
        )  # fmt: skip

    def start(self, ids: jax.Array) -> Membrane:
        """Potentials from a normal distribution, without currents."""
        c = self.constants
        voltage = c.start_mean + c.start_sd * jax.scipy.special.ndtri(uniform(self.seed, ids))
        return Membrane(voltage, jnp.zeros(ids.size), jnp.zeros(ids.size), jnp.zeros(ids.size, jnp.int32))

    def drive(self, ids: jax.Array, steps: jax.Array) -> jax.Array:
        """Numbers of spikes from outside."""
        return poisson_counts(self.seed, self.constants.drive, ids, steps)

    def step(
        self, state: Membrane, excitation: jax.Array, inhibition: jax.Array, drive: jax.Array
    ) -> tuple[Membrane, jax.Array]:
        """Advance by the exact solution, spike, then take up what arrives."""
        c = self.constants
        moved = c.v_v * state.voltage + c.v_i * state.current + c.v_r * state.rise
        spike = hebbax.fence((state.refractory == 0) & (moved >= c.threshold))
        rests = spike | (state.refractory > 0)
        return Membrane(
            jnp.where(rests, np.float32(0), moved),
            c.i_i * state.current + c.i_r * state.rise,
            c.r_r * state.rise + (excitation + inhibition + c.weight * drive),
            jnp.where(spike, c.rest, jnp.maximum(state.refractory - 1, 0)),
        ), spike


def plasticity(p: Parameters) -> hebbax.PowerLawSTDP:
    """The rule by which the weights change, which are in pA."""
    return hebbax.PowerLawSTDP(
        p.potentiation_time, p.depression_time, p.learning_rate, p.depression_ratio, w_0=1.0, mu=p.exponent
    )


def build(p: Parameters, *, scale: float, inputs: float, plastic: bool, seed: int) -> network.Network:
    """The network; with a part of the inputs, each weighs as much more."""
    if not 0 < scale < math.inf:
        raise ValueError(f"scale: got {scale}, expected a positive number")
    if not 0 < inputs <= 1:
        raise ValueError(f"inputs: got {inputs}, expected more than 0 and at most 1")
    numbers = [max(2, int(scale * x)) for x in (p.excitatory_neurons, p.inhibitory_neurons)]
    is_excitatory = network.interleaved(*numbers)
    e, i = np.flatnonzero(is_excitatory), np.flatnonzero(~is_excitatory)
    n = is_excitatory.size
    everyone = np.arange(n)
    published = {True: p.excitatory_inputs, False: p.inhibitory_inputs}
    degrees = {kind: round(inputs * degree) for kind, degree in published.items()}
    if not all(degrees.values()):
        least = 0.5 / min(published.values())
        raise ValueError(f"inputs: got {inputs}, of which nothing is left, expected more than {least:.2g}")
    weights = {kind: p.weight / u.pA * published[kind] / degree for kind, degree in degrees.items()}
    weights[False] *= p.inhibition_ratio

    def connect(pre: np.ndarray, post: np.ndarray, rule: hebbax.PowerLawSTDP | None = None) -> network.Projection:
        options: Any = dict(indegree=degrees[pre is e], autapses=False, multapses=True, pre=pre, post=post)
        draw = network.drawing((seed, pre[0], post[0]), (n, n), **options)
        expected, onto = degrees[pre is e] * post.size, np.isin(everyone, post)
        return network.Projection(draw, weights[pre is e], pre is i, rule, expected, onto)

    # As few as the rule allows: at a spike, its row is looked up in each.
    excitation = [connect(e, e, plasticity(p)), connect(e, i)] if plastic else [connect(e, everyone)]
    return network.Network(
        Neurons(p, seed),
        is_excitatory,
        [*excitation, connect(i, everyone)],
        delay=p.delay_steps,
        dendritic=True,
        weight_unit="pA",
    )


def simulate(
    parameters: Parameters | None = None, *, scale: float = 0.5, inputs: float = 0.2, plastic: bool = True,
    seconds: float = 0.3, seed: int = 0, **options: Any,
) -> network.Run:  # fmt: skip
    """Simulate the network; the same seed gives the same result on any devices.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default those of NEST's example.
    scale : float
        Neurons, in 11 250.
    inputs : float
        Part of the published numbers of synapses onto a neuron, 11 250, each of which then weighs as much more: another
        network, for small machines. (The drive from outside is the same.) With all of them, neurons share most of their
        inputs at scales below 1, and the network bursts, in NEST too.
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
    >>> from hebbax.experiments import hpc
    >>> run = hpc.simulate(scale=0.01, inputs=0.01, seconds=0.01)
    >>> run.n, run.steps
    (112, 100)
    """
    p = Parameters() if parameters is None else parameters
    arguments: Any = dict(scale=scale, inputs=inputs, plastic=plastic)
    draw = functools.partial(build, p, **arguments, seed=seed)
    about = "hpc", arguments
    return network_loop.simulate(draw, seconds=seconds, seed=seed, about=about, **options)
