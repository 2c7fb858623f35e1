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
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import hebbax
from hebbax.experiments import network
from hebbax.experiments.parameters import parameter
from hebbax.experiments.poisson import poisson_counts


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


class Membrane(NamedTuple):
    """State of the neurons: voltages before the threshold is applied, and refractory steps that remain."""

    voltage: jax.Array  # (n,), in mV
    refractory: jax.Array  # (n,), int32


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Leaky integrate-and-fire neurons with a voltage that jumps; in numbers of mV."""

    parameters: Parameters
    seed: int

    @property
    def time_step(self) -> u.Quantity:
        return self.parameters.time_step

    def start(self, ids: np.ndarray, rng: np.random.Generator) -> Membrane:
        """Voltages from rest to threshold."""
        high = self.parameters.threshold / u.mV
        return Membrane(rng.uniform(0, high, ids.size).astype(np.float32), np.zeros(ids.size, np.int32))

    def drive(self, ids: jax.Array, steps: jax.Array) -> jax.Array:
        """Numbers of spikes from outside."""
        return poisson_counts(self.seed, float(self.parameters.drive_rate * self.time_step), ids, steps)

    def step(
        self, state: Membrane, excitation: jax.Array, inhibition: jax.Array, drive: jax.Array
    ) -> tuple[Membrane, jax.Array]:
        p = self.parameters
        decay = np.float32(math.exp(-(p.time_step / p.membrane_time)))
        weight, threshold = (np.float32(x / u.mV) for x in (p.excitatory_weight, p.threshold))
        arriving = excitation + inhibition + weight * drive
        voltage = jnp.where(state.refractory > 0, jnp.float32(0), state.voltage * decay + arriving)
        voltage = hebbax.fence(voltage)
        spike = voltage >= threshold
        rest = jnp.int32(round(p.refractory_time / p.time_step))
        refractory = jnp.where(spike, rest, jnp.maximum(state.refractory - 1, 0))
        return Membrane(jnp.where(spike, jnp.float32(0), voltage), refractory), spike


def plasticity(p: Parameters) -> hebbax.PairSTDP:
    """The rule by which the weights change; soft bounds are in units of the range, hence its products."""
    step, unit = p.learning_rate * (p.largest_weight / u.mV), p.depression_ratio
    return hebbax.PairSTDP(
        p.trace_time, p.trace_time, step, step * unit, 0.0, p.largest_weight / u.mV, mu_plus=1.0, mu_minus=1.0
    )


def build(
    parameters: Parameters | None = None, *, excitatory: int = 8000, inhibitory: int = 2000, plastic: bool = True,
    seed: int = 0,
) -> network.Network:  # fmt: skip
    """The network, its structure drawn at random."""
    p = Parameters() if parameters is None else parameters
    is_excitatory = network.interleaved(excitatory, inhibitory)
    e, i = np.flatnonzero(is_excitatory), np.flatnonzero(~is_excitatory)
    n, rng = is_excitatory.size, np.random.default_rng(seed)
    j, g = p.excitatory_weight / u.mV, p.inhibitory_weight / u.mV

    def connect(pre: np.ndarray, post: np.ndarray | None) -> hebbax.Synapses:
        return hebbax.Synapses.random((n, n), prob=p.connectivity, pre=pre, post=post, autapses=False, seed=rng)

    if plastic:
        learning = connect(e, e)
        weight = np.full(learning.nse, j, np.float32)
        own = [network.Projection(learning, weight, rule=plasticity(p)), network.Projection(connect(e, i), j)]
    else:
        own = [network.Projection(connect(e, None), j)]
    return network.Network(
        Neurons(p, seed), is_excitatory, [*own, network.Projection(connect(i, None), g, inhibitory=True)],
        delay=round(p.delay / p.time_step),
    )  # fmt: skip


def simulate(
    parameters: Parameters | None = None, *, seconds: float = 1.0, plastic: bool = True, excitatory: int = 8000,
    inhibitory: int = 2000, seed: int = 0, backend: str | None = None, mesh: Mesh | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> network.Run:  # fmt: skip
    """Simulate the network."""
    p = Parameters() if parameters is None else parameters
    net = build(p, plastic=plastic, excitatory=excitatory, inhibitory=inhibitory, seed=seed)
    steps = max(1, round(seconds * u.second / p.time_step))
    return network.simulate(net, steps, seed=seed, backend=backend, mesh=mesh, on_progress=on_progress)
