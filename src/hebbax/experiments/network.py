"""What the experiments on networks share: populations, projections, and what a run comes to.

A network is one array of neurons, every few of which are inhibitory, so that each device's part of the array has its
share of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import brainunit as u
import jax
import numpy as np

import hebbax


class Neurons(Protocol):
    """A population of model neurons, as the loop asks for it.

    It is a frozen dataclass. What it computes from the parameters, once, is `constants`, which a sweep gives it as
    `given`, those of all members, in their place.
    """

    @property
    def constants(self) -> Any:
        """A pytree of numbers."""

    @property
    def parameters(self) -> Any:
        """A dataclass of constants."""

    @property
    def time_step(self) -> u.Quantity:
        """Length of a step."""

    def start(self, ids: jax.Array) -> Any:
        """State of these neurons at first: a pytree of arrays with one entry per neuron."""

    def drive(self, ids: jax.Array, steps: jax.Array) -> Any:
        """What comes from outside, at these steps, to these neurons: a pytree of arrays `(steps, neurons)`."""

    def step(self, state: Any, excitation: jax.Array, inhibition: jax.Array, drive: Any) -> tuple[Any, jax.Array]:
        """Advance by a step, in which this arrives; return the state and the spikes."""


@dataclass(frozen=True)
class Projection:
    """Synapses of one kind, within the network.

    Attributes
    ----------
    drawn : Synapses or callable
        The structure, or what draws the synapses onto the neurons from `first` to `stop` (exclusive), by default all,
        the same each time: so that each process draws its own, and the whole is nowhere while none needs it.
    weight : float
        Of all of them, at first if they learn.
    inhibitory : bool
        Whether what arrives is inhibition. It comes from neurons of the network that are not excitatory, all else from
        those that are: only their spikes are looked up (see `check_senders`).
    rule : rule of hebbax, optional
        How the weights change.
    expected : int
        About how many synapses there are, if they are yet to be drawn.
    onto : array of bool, shape (n,), optional
        Neurons that synapses may be onto, if that is known: a projection that does not learn may then be visited with
        one that does (see `hebbax.experiments.joining`).
    """

    drawn: hebbax.Synapses | Callable[..., hebbax.Synapses]
    weight: float
    inhibitory: bool = False
    rule: Any = None
    expected: int = 0
    onto: np.ndarray | None = None

    @property
    def synapses(self) -> hebbax.Synapses:
        """The structure."""
        return self.drawn if isinstance(self.drawn, hebbax.Synapses) else self.drawn()


def check_senders(projection: Projection, indptr: np.ndarray, excitatory: np.ndarray) -> None:
    """A ValueError where neurons of the other population than the projection's have synapses in it."""
    has = np.diff(indptr)[: excitatory.size] > 0
    if wrong := np.flatnonzero(has & (excitatory == projection.inhibitory)).tolist():
        kinds = ("inhibitory", "excitatory") if projection.inhibitory else ("excitatory", "inhibitory")
        raise ValueError(f"projections: got an {kinds[0]} one of neuron {wrong[0]}, which is {kinds[1]}")


@dataclass(frozen=True)
class Network:
    """Neurons, projections, and the delay of all of these.

    Attributes
    ----------
    neurons : Neurons
    excitatory : array of bool, shape (n,)
    projections : sequence of Projection
    delay : int
        Steps from a spike to its effect, at least 1.
    dendritic : bool
        Whether all of the delay is between synapse and soma, as in NEST, and not between the presynaptic soma and the
        synapse. Then a synapse sees a presynaptic spike at once, and postsynaptic ones after the delay, these first
        where both come in one step, and it sends the weight that it has after the presynaptic spike. (The loop does all
        of that one delay later, with the same result: so it can deliver spikes when they act.)
    weight_unit : str
        That the weights, which are plain numbers, are in.
    """

    neurons: Neurons
    excitatory: np.ndarray
    projections: Sequence[Projection]
    delay: int
    dendritic: bool = False
    weight_unit: str = "mV"

    @property
    def shape(self) -> tuple[int, int]:
        """That of the weight matrix of each projection."""
        return 2 * (self.excitatory.size,)


@dataclass(frozen=True)
class Run:
    """A simulation's result; weights are those of the first projection that learns, in CSR order.

    Where several processes have more than 2^27 of these (with those that are visited with them, see
    `hebbax.experiments.joining`), they are those of the process's own devices.
    """

    network: Network
    seed: int
    steps: int
    synapses: int  # number of them
    spike_step: np.ndarray  # (spikes,), ascending
    spike_neuron: np.ndarray  # (spikes,)
    weight_start: np.ndarray  # (nse,), empty if nothing learns
    weight_end: np.ndarray
    devices: int
    crowded: int  # intervals of one delay whose spikes had no room in lists, and were exchanged as bits
    build_time: u.Quantity  # of drawing the network and sharing it out
    compile_time: u.Quantity
    wall_time: u.Quantity  # of the steps

    @property
    def time(self) -> u.Quantity:
        """Biological time."""
        return self.steps * self.network.neurons.time_step

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.network.excitatory.size

    def rates(self, first: int = 0) -> u.Quantity:
        """Firing rate of every neuron from step `first` on."""
        counts = np.bincount(self.spike_neuron[self.spike_step >= first], minlength=self.n)
        return counts / ((self.steps - first) * (self.network.neurons.time_step / u.second)) * u.Hz


def drawing(seed: Sequence[int], shape: tuple[int, int], **options: Any) -> Callable[..., hebbax.Synapses]:
    """What draws synapses, all or a part, as `Projection` takes it."""
    number = int(np.random.SeedSequence(list(map(int, seed))).generate_state(1, np.uint64)[0])

    def draw(first: int = 0, stop: int | None = None) -> hebbax.Synapses:
        part = None if stop is None else (first, stop)
        return hebbax.Synapses.random(shape, seed=number, part=part, **options)

    return draw


def interleaved(excitatory: int, inhibitory: int) -> np.ndarray:
    """Which of so many neurons are excitatory, evenly spread."""
    n = excitatory + inhibitory
    return np.diff(np.arange(n + 1) * inhibitory // max(n, 1)) == 0


def a_fifth_inhibitory(neurons: int) -> np.ndarray:
    """Which of so many neurons are excitatory, if a fifth is not; a ValueError where that is nobody."""
    if not (isinstance(neurons, Integral) and neurons >= 5):
        raise ValueError(f"neurons: got {neurons!r}, expected an integer of at least 5, a fifth of them inhibitory")
    return interleaved(neurons - neurons // 5, neurons // 5)


def delay_steps(delay: u.Quantity, time_step: u.Quantity) -> int:
    """A delay in steps."""
    steps = int(hebbax.delays.steps(delay, time_step))
    if steps < 1:
        raise ValueError(f"delay: got {delay}, expected at least a step, {time_step}")
    return steps


def at_random(
    is_excitatory: np.ndarray, prob: float, excitation: float, inhibition: float, rule: Any, seed: int
) -> list[Projection]:
    """Projections of neurons each two of which are connected with one probability.

    With a rule, the synapses between excitatory neurons learn by it.
    """
    everyone, n = np.arange(is_excitatory.size), is_excitatory.size
    e, i = np.flatnonzero(is_excitatory), np.flatnonzero(~is_excitatory)

    def connect(pre: np.ndarray, post: np.ndarray, weight: float, **options: Any) -> Projection:
        draw = drawing((seed, pre[0], post[0], post.size), (n, n), prob=prob, pre=pre, post=post)
        onto = np.isin(everyone, post)
        return Projection(draw, weight, expected=int(prob * pre.size * post.size), onto=onto, **options)

    inhibitory = connect(i, everyone, inhibition, inhibitory=True)
    if rule is None:
        return [connect(e, everyone, excitation), inhibitory]
    return [connect(e, e, excitation, rule=rule), connect(e, i, excitation), inhibitory]
