"""Rules of spike-timing-dependent plasticity (STDP): traces, amplitudes, and which update runs when.

A rule is a frozen dataclass, and a pytree: it may be an argument of a function under `jit`. It has two methods:

    state = rule.init(synapses)
    weight, state = rule.step(synapses, weight, state, pre_spike, post_spike, dt)

All rules order what happens within a step alike. First the traces decay by `dt`. Then spikes change weights: those of
presynaptic neurons first, those of postsynaptic neurons after them, both by the traces as they were before the spikes
of this step, so that spikes which coincide do not see each other. Last, this step's spikes are added to the traces.

Weights are promised to lie within the bounds, where a rule also keeps them: a step then costs what its events cost. A
weight that starts outside is left there until one of its neurons spikes.

To write a rule of one's own takes an update or two, and traces. In Diehl & Cook (2015), doi:10.3389/fncom.2015.00099,
weights change on postsynaptic spikes only, up if the input was more active than a target:

>>> import hebbax, jax.numpy as jnp
>>> def step(synapses, weight, pre_trace, pre_spike, post_spike, eta=0.01, target=0.4, w_max=1.0):
...     pre_trace = 0.95 * pre_trace
...     weight = synapses.update_on_post(
...         weight, eta * (pre_trace - target), post_spike, 0.0, w_max, soft_bound="upper", mu=0.2
...     )
...     return weight, jnp.where(pre_spike, 1.0, pre_trace)
>>> synapses, weight = hebbax.Synapses.from_dense(jnp.full((2, 1), 0.5))
>>> weight, pre_trace = step(synapses, weight, jnp.array([1.0, 0.0]), jnp.array([False, False]), jnp.array([True]))
>>> print(*(f"{w:.4f}" for w in weight))
0.5048 0.4965
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

import brainunit as u
import jax.numpy as jnp

from hebbax._pytree import pytree
from hebbax._traces import add_spikes, check, check_state, decay_factor
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.synapses import Synapses

Pairing: TypeAlias = Literal["all", "nearest"]


class PairTraces(NamedTuple):
    """Dimensionless traces of the neurons on either side."""

    pre: Any  # (n_pre,)
    post: Any  # (n_post,)


class TripletTraces(NamedTuple):
    """Dimensionless traces; the names are those of Pfister & Gerstner (2006)."""

    r1: Any  # (n_pre,), decays with tau_plus
    r2: Any  # (n_pre,), with tau_x
    o1: Any  # (n_post,), with tau_minus
    o2: Any  # (n_post,), with tau_y


@pytree("mu_plus", "mu_minus", "pairing")
@dataclasses.dataclass(frozen=True)
class PairSTDP:
    r"""Pair-based STDP: additive, multiplicative or in between.

    Parameters
    ----------
    tau_plus, tau_minus : Quantity
        Time constants of potentiation and of depression.
    a_plus, a_minus : number or Quantity
        Amplitudes, at least 0, with the weight's dimension: what one isolated pair at a vanishing lag would change if
        the exponents were 0.
    w_min, w_max : number or Quantity
        Bounds of the weight.
    mu_plus, mu_minus : float
        Exponents of the weight dependence, at least 0: 0 is the additive rule (Song et al. 2000), 1 the multiplicative
        one (Rubin et al. 2001), and what lies between interpolates (Guetig et al. 2003).
    pairing : 'all' or 'nearest'
        Whether a spike pairs with all earlier ones of the other side, or with the last only.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    brainunit.UnitMismatchError
        Two parameters that share a unit do not.

    Notes
    -----
    With :math:`u = (w - w_\min) / (w_\max - w_\min)`, traces :math:`x_i` and :math:`y_j` that decay exponentially with
    :math:`\tau_+` and :math:`\tau_-` and that every spike of their neuron raises by 1 (or, for 'nearest', sets to 1):

    .. math::

        \text{pre spike: } & w_{ij} \leftarrow w_{ij} - A_- \, u^{\mu_-} \, y_j \\
        \text{post spike: } & w_{ij} \leftarrow w_{ij} + A_+ \, (1 - u)^{\mu_+} \, x_i

    clipped to the bounds. An isolated pair with lag :math:`\Delta t` so changes an additive weight by
    :math:`\pm A_\pm e^{-|\Delta t| / \tau_\pm}`.

    References
    ----------
    S. Song, K. D. Miller & L. F. Abbott (2000), Nature Neuroscience 3:919, doi:10.1038/78829.
    J. Rubin, D. D. Lee & H. Sompolinsky (2001), Physical Review Letters 86:364, doi:10.1103/PhysRevLett.86.364.
    R. Guetig, R. Aharonov, S. Rotter & H. Sompolinsky (2003), Journal of Neuroscience 23:3697,
    doi:10.1523/JNEUROSCI.23-09-03697.2003.
    A. Morrison, M. Diesmann & W. Gerstner (2008), Biological Cybernetics 98:459, doi:10.1007/s00422-008-0233-1, for the
    pairings ('nearest' is their symmetric nearest-neighbour scheme).

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1 * u.nS, 0.12 * u.nS, 0.0 * u.nS, 1.0 * u.nS)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[0.5]]) * u.nS)
    >>> state = rule.init(synapses)
    >>> yes, no = jnp.array([True]), jnp.array([False])
    >>> weight, state = rule.step(synapses, weight, state, yes, no, 1.0 * u.ms)  # the input spikes,
    >>> weight, state = rule.step(synapses, weight, state, no, yes, 1.0 * u.ms)  # then the neuron
    >>> print(f"{weight.mantissa[0]:.4f}")  # 0.5 + 0.1 * exp(-1 / 20)
    0.5951
    """

    tau_plus: Any
    tau_minus: Any
    a_plus: Any
    a_minus: Any
    w_min: Any
    w_max: Any
    mu_plus: float = 0.0
    mu_minus: float = 0.0
    pairing: Pairing = "all"

    def __post_init__(self) -> None:
        amplitudes = ("a_plus", "a_minus")
        check(self, positive=("tau_plus", "tau_minus"), not_negative=amplitudes, weights=amplitudes)

    def init(self, synapses: Synapses) -> PairTraces:
        """Return the traces of neurons that have not spiked yet."""
        return PairTraces(jnp.zeros(synapses.n_pre), jnp.zeros(synapses.n_post))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: PairTraces,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: WithUnit | None = None,
        backend: str | None = None,
    ) -> tuple[Any, PairTraces]:
        """Return the weight and the traces after a step of length `dt`, with the spikes at its end.

        Parameters
        ----------
        synapses : Synapses
            Structure of the network.
        weight : Array or Quantity, shape (nse,)
            Weights in CSR order, within the bounds.
        state : PairTraces
            From `init` or the step before.
        pre_spike : Array, shape (n_pre,), bool or real
            Whether each presynaptic neuron spikes.
        post_spike : Array, shape (n_post,), bool or real
            Whether each postsynaptic neuron spikes.
        dt : Quantity
            Length of the step.
        after : Array or Quantity, optional
            What was computed from `weight` in the same step, as in `update_csr_on_binary_pre`.
        backend : str, optional
            Of the updates (see `hebbax.backends`).
        """
        check_state(state, PairTraces)
        unit = u.get_unit(weight)
        decay_plus, decay_minus = decay_factor(dt, self.tau_plus), decay_factor(dt, self.tau_minus)
        up, down = in_unit("a_plus", self.a_plus, unit), in_unit("a_minus", self.a_minus, unit)
        pre, post = (u.Quantity(trace, unit=unit) for trace in state)
        options: Any = dict(w_min=self.w_min, w_max=self.w_max, weight_in_bounds=True, backend=backend)
        depress: Any = dict(gain=-down * decay_minus, soft_bound="lower", mu=self.mu_minus)
        potentiate: Any = dict(gain=up * decay_plus, soft_bound="upper", mu=self.mu_plus)
        weight = synapses.update_on_pre(weight, pre_spike, post, after=after, **depress, **options)
        weight = synapses.update_on_post(weight, pre, post_spike, **potentiate, **options)
        return weight, PairTraces(
            add_spikes(state.pre * decay_plus, pre_spike, self.pairing),
            add_spikes(state.post * decay_minus, post_spike, self.pairing),
        )


@pytree("pairing")
@dataclasses.dataclass(frozen=True)
class TripletSTDP:
    r"""The triplet rule of Pfister & Gerstner (2006).

    Parameters
    ----------
    tau_plus, tau_minus : Quantity
        Time constants of the pair terms' traces :math:`r_1` and :math:`o_1`.
    tau_x, tau_y : Quantity
        Time constants of the triplet terms' traces :math:`r_2` and :math:`o_2`.
    a2_plus, a2_minus : number or Quantity
        Amplitudes of the pair terms, at least 0, in the weight's unit.
    a3_plus, a3_minus : number or Quantity
        Amplitudes of the triplet terms, at least 0, in the weight's unit.
    w_min, w_max : number or Quantity
        Bounds of the weight.
    pairing : 'all' or 'nearest'
        Whether a spike raises its neuron's traces by 1 or sets them to 1.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    brainunit.UnitMismatchError
        Two parameters that share a unit do not.

    Notes
    -----
    .. math::

        \text{pre spike of } i\text{: } & w_{ij} \leftarrow w_{ij} - o_{1j} \, (A_2^- + A_3^- \, r_{2i}) \\
        \text{post spike of } j\text{: } & w_{ij} \leftarrow w_{ij} + r_{1i} \, (A_2^+ + A_3^+ \, o_{2j})

    clipped to the bounds. All traces are those just before the spike.

    References
    ----------
    J.-P. Pfister & W. Gerstner (2006), Triplets of spikes in a model of spike timing-dependent plasticity, Journal of
    Neuroscience 26:9673, doi:10.1523/JNEUROSCI.1425-06.2006. The example has their fit to visual cortex (minimal model,
    all-to-all).

    Examples
    --------
    >>> import brainunit as u, hebbax
    >>> rule = hebbax.TripletSTDP(
    ...     tau_plus=16.8 * u.ms, tau_minus=33.7 * u.ms, tau_x=101.0 * u.ms, tau_y=114.0 * u.ms,
    ...     a2_plus=0.0, a2_minus=7.1e-3, a3_plus=6.5e-3, a3_minus=0.0, w_min=0.0, w_max=2.0,
    ... )
    >>> rule.pairing
    'all'
    """

    tau_plus: Any
    tau_minus: Any
    tau_x: Any
    tau_y: Any
    a2_plus: Any
    a2_minus: Any
    a3_plus: Any
    a3_minus: Any
    w_min: Any
    w_max: Any
    pairing: Pairing = "all"

    def __post_init__(self) -> None:
        amplitudes = ("a2_plus", "a2_minus", "a3_plus", "a3_minus")
        times = ("tau_plus", "tau_minus", "tau_x", "tau_y")
        check(self, positive=times, not_negative=amplitudes, weights=amplitudes)

    def init(self, synapses: Synapses) -> TripletTraces:
        """Return the traces of neurons that have not spiked yet."""
        # Not one array twice: JAX would not let them be donated.
        return TripletTraces(*(jnp.zeros(n) for n in (synapses.n_pre,) * 2 + (synapses.n_post,) * 2))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: TripletTraces,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: WithUnit | None = None,
        backend: str | None = None,
    ) -> tuple[Any, TripletTraces]:
        """Return the weight and the traces after a step of length `dt`; the arguments are those of `PairSTDP.step`."""
        check_state(state, TripletTraces)
        unit = u.get_unit(weight)
        taus = (self.tau_plus, self.tau_x, self.tau_minus, self.tau_y)
        decay = TripletTraces(*(decay_factor(dt, tau) for tau in taus))
        r1, r2, o1, o2 = (trace * factor for trace, factor in zip(state, decay, strict=True))
        depression = in_unit("a2_minus", self.a2_minus, unit) + in_unit("a3_minus", self.a3_minus, unit) * r2
        potentiation = in_unit("a2_plus", self.a2_plus, unit) + in_unit("a3_plus", self.a3_plus, unit) * o2
        options: Any = dict(w_min=self.w_min, w_max=self.w_max, weight_in_bounds=True, backend=backend)
        weight = synapses.update_on_pre(
            weight, pre_spike, u.Quantity(state.o1, unit=unit), gain=-decay.o1 * depression, after=after, **options
        )
        weight = synapses.update_on_post(
            weight, u.Quantity(state.r1, unit=unit), post_spike, gain=decay.r1 * potentiation, **options
        )
        spikes = (pre_spike, pre_spike, post_spike, post_spike)
        return weight, TripletTraces(
            *(add_spikes(x, spike, self.pairing) for x, spike in zip((r1, r2, o1, o2), spikes, strict=True))
        )


@pytree()
@dataclasses.dataclass(frozen=True)
class InhibitorySTDP:
    r"""Plasticity of inhibitory synapses that holds the postsynaptic rate at a target, after Vogels et al. (2011).

    Parameters
    ----------
    tau : Quantity
        Time constant of the traces of either side.
    eta : number or Quantity
        Learning rate, at least 0, in the weight's unit.
    target_rate : Quantity
        Rate that postsynaptic neurons are held at.
    w_min, w_max : number or Quantity
        Bounds of the (positive) weight.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    brainunit.UnitMismatchError
        Two parameters that share a unit do not.

    Notes
    -----
    With traces :math:`x_i` and :math:`y_j` that decay with :math:`\tau` and that every spike of their neuron raises by
    1, and the target rate :math:`\rho_0`:

    .. math::

        \text{pre spike: } & w_{ij} \leftarrow w_{ij} + \eta \, (y_j - 2 \rho_0 \tau) \\
        \text{post spike: } & w_{ij} \leftarrow w_{ij} + \eta \, x_i

    clipped to the bounds.

    References
    ----------
    T. P. Vogels, H. Sprekeler, F. Zenke, C. Clopath & W. Gerstner (2011), Inhibitory plasticity balances excitation and
    inhibition in sensory pathways and memory networks, Science 334:1569, doi:10.1126/science.1211095.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> rule = hebbax.InhibitorySTDP(20.0 * u.ms, 0.125 * u.nS, 6.25 * u.Hz, 0.0 * u.nS, 10.0 * u.nS)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[1.0]]) * u.nS)
    >>> yes, no = jnp.array([True]), jnp.array([False])
    >>> weight, state = rule.step(synapses, weight, rule.init(synapses), yes, no, 1.0 * u.ms)
    >>> weight.mantissa  # 1 - 0.125 * 2 * 6.25 Hz * 20 ms
    Array([0.96875], dtype=float32)
    """

    tau: Any
    eta: Any
    target_rate: Any
    w_min: Any
    w_max: Any

    def __post_init__(self) -> None:
        check(self, positive=("tau",), not_negative=("eta", "target_rate"), weights=("eta",))
        in_unit("target_rate", self.target_rate, u.get_unit(self.tau) ** -1)

    def init(self, synapses: Synapses) -> PairTraces:
        """Return the traces of neurons that have not spiked yet."""
        return PairTraces(jnp.zeros(synapses.n_pre), jnp.zeros(synapses.n_post))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: PairTraces,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: WithUnit | None = None,
        backend: str | None = None,
    ) -> tuple[Any, PairTraces]:
        """Return the weight and the traces after a step of length `dt`; the arguments are those of `PairSTDP.step`."""
        check_state(state, PairTraces)
        unit = u.get_unit(weight)
        decay, rate = decay_factor(dt, self.tau), in_unit("eta", self.eta, unit)
        pre, post = state.pre * decay, state.post * decay
        at_target = 2 * in_unit("target_rate", self.target_rate * self.tau, u.UNITLESS)
        options: Any = dict(w_min=self.w_min, w_max=self.w_max, weight_in_bounds=True, backend=backend)
        weight = synapses.update_on_pre(
            weight, pre_spike, u.Quantity(post - at_target, unit=unit), gain=rate, after=after, **options
        )
        weight = synapses.update_on_post(
            weight, u.Quantity(state.pre, unit=unit), post_spike, gain=rate * decay, **options
        )
        return weight, PairTraces(add_spikes(pre, pre_spike), add_spikes(post, post_spike))
