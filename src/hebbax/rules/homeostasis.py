"""What holds the rate of postsynaptic neurons: scaling of all their synapses, and depression that grows with it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp

from hebbax._core.building import weight_numbers, with_unit
from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax._core.unitless import arithmetic_dtype, spikes_of
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import POST, Factors, check, check_range, factors
from hebbax.rules._traces import add_spikes, at_target, check_state, check_step, decay, zeros
from hebbax.rules.triplet import TripletSTDP, TripletTraces, step_triplets
from hebbax.synapses import Synapses


class ScalingState(NamedTuple):
    """Dimensionless numbers of the postsynaptic neurons."""

    rate: Any  # (n_post,), the trace of its spikes, which decays with tau: tau times the rate
    log_factor: Any  # (n_post,)
    rest: Any  # (n_post,), what `log_factor`, a sum of many tiny numbers, has lost to rounding


@pytree()
@dataclasses.dataclass(frozen=True)
class SynapticScaling:
    r"""Synaptic scaling: all weights onto a neuron are multiplied by what brings its rate to a target.

    Each neuron has one factor, so that a step takes O(n_post): multiply what `propagate_on_pre` returns by
    `factor(state)`. `fold` multiplies the weights by it.

    Parameters
    ----------
    tau : Quantity, scalar or shape (1, n_post)
        Time constant of the running average of the rate.
    target_rate : Quantity, scalar or shape (1, n_post)
        Rate that postsynaptic neurons are brought to.
    beta : number or Array, scalar or shape (1, n_post)
        :math:`\beta`, at least 0: by which share the weights grow for each spike that is missing.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    hebbax.errors.ShapeError
        A parameter has another shape, then or in `step` (a ValueError and an AssertionError).
    brainunit.UnitMismatchError
        A parameter's dimension is not the one that it should have.

    Notes
    -----
    With the postsynaptic spikes :math:`t_k` and the target rate :math:`a_{goal}`, every weight :math:`w_{ij}` follows

    .. math::

        \frac{dw_{ij}}{dt} = \beta \, w_{ij} \, (a_{goal} - a_j), \quad
        \tau \frac{da_j}{dt} = -a_j + \sum_k \delta(t - t_k)

    which is a factor of all weights onto :math:`j`, and is solved exactly, for any length of a step. After a time
    :math:`T` with :math:`N` spikes its logarithm is

    .. math:: \ln f_j = \beta \, (a_{goal} T - N + \tau a_j(T) - \tau a_j(0))

    The average starts at the target. The paper has a second term, of the integral of the difference, with a weight of
    its own (:math:`\gamma`), which is left out here.

    References
    ----------
    M. C. W. van Rossum, G. Q. Bi & G. G. Turrigiano (2000), Stable Hebbian learning from spike timing-dependent
    plasticity, Journal of Neuroscience 20:8812, doi:10.1523/JNEUROSCI.20-23-08812.2000, whose tau is 100 s and beta
    4e-5 (per second and hertz).
    G. G. Turrigiano (2008), The self-tuning neuron: synaptic scaling of excitatory synapses, Cell 135:422,
    doi:10.1016/j.cell.2008.10.008.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> scaling = hebbax.SynapticScaling(tau=1.0 * u.second, target_rate=5.0 * u.Hz, beta=0.02)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[0.5, 0.25]]) * u.nS)
    >>> state = scaling.init(synapses)
    >>> for _ in range(50):  # 10 s, in which the first neuron is silent and the second fires at its target rate
    ...     state = scaling.step(state, jnp.array([False, True]), 0.2 * u.second)
    >>> current = synapses.propagate_on_pre(weight, jnp.array([True])) * scaling.factor(state)
    >>> weight, state = scaling.fold(synapses, weight, state)
    >>> print(*(f"{w:.3f}" for w in weight.mantissa))  # 0.5 * exp(0.02 * 5 * (10 - 1)), and about 0.25
    1.230 0.253
    """

    tau: Any
    target_rate: Any
    beta: Any

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {"tau": POST, "target_rate": POST, "beta": POST}

    def __post_init__(self) -> None:
        check(self, positive=("tau",), not_negative=("target_rate", "beta"), weights=("beta",))
        in_unit("target_rate", self.target_rate, u.get_unit(self.tau) ** -1)
        in_unit("beta", self.beta, u.UNITLESS)

    def init(self, synapses: Synapses) -> ScalingState:
        """Return the state of neurons that have long fired at their target rate, with a factor of 1."""
        rate, *logs = zeros(*(synapses.n_post,) * 3)
        return ScalingState(rate + at_target(self, synapses, rate.dtype), *logs)

    def step(self, state: ScalingState, post_spike: Plain, dt: WithUnit) -> ScalingState:
        """Return the state after a step of length `dt`, with the spikes at its end.

        Parameters
        ----------
        state : ScalingState
            From `init` or the step before.
        post_spike : Array, shape (n_post,), bool or real
            Whether each postsynaptic neuron spikes.
        dt : Quantity, scalar
            Length of the step, as in `PairSTDP.step`.
        """
        dtype = check_state(state, ScalingState)
        neurons = jax.ShapeDtypeStruct((1, *state.rate.shape), dtype)  # as many as parameters may be for
        spike = spikes_of("post_spike", post_spike, state.rate.size)
        left = decay(self, "tau", dt, neurons, "post", dtype)
        wanted = at_target(self, neurons, dtype) * left.elapsed.gain("post")  # spikes in this time
        missing = wanted - left.lost.gain("post") * state.rate
        change = factors(self, "beta", neurons, u.UNITLESS, dtype).gain("post") * missing + state.rest
        log_factor = state.log_factor + change
        rest = change - (log_factor - state.log_factor)
        return ScalingState(add_spikes(left.of(state.rate), spike), log_factor, rest)

    def factor(self, state: ScalingState) -> jax.Array:
        """Return what the weights onto each neuron are to be multiplied by, shape (n_post,)."""
        check_state(state, ScalingState)
        return jnp.exp(state.log_factor)

    def fold(self, synapses: Synapses, weight: WithUnit, state: ScalingState) -> tuple[Any, ScalingState]:
        """Return the weight times the factors, and the state with factors of 1; it takes O(nse).

        Where another rule keeps the weights in bounds, clip the result to these.
        """
        numbers, unit = weight_numbers("weight", weight, None)
        numbers = jnp.asarray(numbers)
        dtype = arithmetic_dtype(numbers.dtype)  # one of 16 bits would round the factor, or not hold it
        factor, everybody = self.factor(state), jnp.ones(synapses.n_pre, bool)
        if factor.shape != (synapses.n_post,):
            raise ShapeError(f"state: got shape {factor.shape}, expected {(synapses.n_post,)}, one factor per neuron")
        factor = synapses.update_on_pre(jnp.zeros(numbers.shape, dtype), everybody, factor)
        folded = (numbers.astype(dtype) * factor).astype(numbers.dtype)
        return with_unit(folded, unit), state._replace(log_factor=state.log_factor * 0, rest=state.rest * 0)


class HomeostaticTraces(NamedTuple):
    """Dimensionless traces: those of `TripletTraces`, and one for the rate."""

    r1: Any  # (n_pre,)
    r2: Any  # (n_pre,)
    o1: Any  # (n_post,)
    o2: Any  # (n_post,)
    rate: Any  # (n_post,), decays with tau: tau times the rate


@pytree()
@dataclasses.dataclass(frozen=True)
class HomeostaticTripletSTDP:
    r"""The triplet rule with depression that grows with the postsynaptic rate: Zenke, Hennequin & Gerstner (2013).

    Parameters
    ----------
    rule : TripletSTDP
        The rule, as it is for a neuron at its target rate.
    tau : Quantity, scalar or shape (1, n_post)
        Time constant of the running average of the rate.
    target_rate : Quantity, scalar or shape (1, n_post)
        :math:`\kappa`, more than 0.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    hebbax.errors.ShapeError
        A parameter has another shape, then or in `step` (a ValueError and an AssertionError).
    brainunit.UnitMismatchError
        A parameter's dimension is not the one that it should have.

    Notes
    -----
    Depression, :math:`A_2^-` and :math:`A_3^-` in `TripletSTDP`, is multiplied by :math:`(\bar\nu_j / \kappa)^2`, with
    the average :math:`\tau \, d\bar\nu_j/dt = -\bar\nu_j + \sum_k \delta(t - t_k)` over the postsynaptic spikes as it
    was before the presynaptic one; it starts at :math:`\kappa`. For independent Poisson spikes of rates :math:`\rho`
    and :math:`\nu`, and the minimal model (:math:`A_2^+ = A_3^- = 0`), the weight drifts as in the rule of Bienenstock,
    Cooper & Munro, with a threshold :math:`\theta` that slides:

    .. math::

        \Big\langle \frac{dw}{dt} \Big\rangle = A_3^+ \tau_+ \tau_y \, \rho \, \nu \, (\nu - \theta), \quad
        \theta = \frac{A_2^- \tau_-}{A_3^+ \tau_+ \tau_y} \frac{\bar\nu^2}{\kappa^2}

    With :math:`A_2^- = A_3^+ \tau_+ \tau_y \kappa / \tau_-`, as in the paper, :math:`\kappa` is its fixed point.

    References
    ----------
    F. Zenke, G. Hennequin & W. Gerstner (2013), Synaptic plasticity in neural networks needs homeostasis with a fast
    rate detector, PLoS Computational Biology 9:e1003330, doi:10.1371/journal.pcbi.1003330.

    Examples
    --------
    >>> import brainunit as u, hebbax
    >>> kappa, a3_plus = 3.0 * u.Hz, 6.5e-3
    >>> tau_plus, tau_minus, tau_y = 16.8 * u.ms, 33.7 * u.ms, 114.0 * u.ms
    >>> a2_minus = a3_plus * tau_plus * tau_y * kappa / tau_minus
    >>> triplet = hebbax.TripletSTDP(
    ...     tau_plus, tau_minus, tau_x=101.0 * u.ms, tau_y=tau_y, a2_plus=0.0, a2_minus=a2_minus, a3_plus=a3_plus,
    ...     a3_minus=0.0, w_min=0.0, w_max=1.0,
    ... )
    >>> rule = hebbax.HomeostaticTripletSTDP(triplet, tau=10.0 * u.second, target_rate=kappa)
    >>> synapses = hebbax.Synapses([0, 1], [0], shape=(1, 1))
    >>> print(rule.init(synapses).rate)  # 10 s * 3 Hz
    [30.]
    """

    rule: TripletSTDP
    tau: Any
    target_rate: Any

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {"tau": POST, "target_rate": POST}

    def __post_init__(self) -> None:
        if not isinstance(self.rule, TripletSTDP):
            raise TypeError(f"rule: got {self.rule!r}, expected a TripletSTDP")
        check(self, positive=("tau",), weights=("target_rate",))
        check_range(self, ("target_rate",), lambda x: (x > 0) & (x < math.inf), "a finite value of more than 0")
        in_unit("target_rate", self.target_rate, u.get_unit(self.tau) ** -1)
        in_unit("tau", self.tau, u.get_unit(self.rule.tau_plus))

    def init(self, synapses: Synapses) -> HomeostaticTraces:
        """Return the traces of neurons that have not spiked yet, with averages at the target rate."""
        (rate,) = zeros(synapses.n_post)
        return HomeostaticTraces(*self.rule.init(synapses), rate + at_target(self, synapses, rate.dtype))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: HomeostaticTraces,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: Any = None,
        backend: str | None = None,
    ) -> tuple[Any, HomeostaticTraces]:
        """Return the weight and the traces after a step of length `dt`; the arguments are those of `PairSTDP.step`."""
        _, dtype = check_step(weight, state, HomeostaticTraces)
        rate = decay(self, "tau", dt, synapses, "post", dtype).of(state.rate)
        stronger = Factors.along("post", (rate / at_target(self, synapses, dtype)) ** 2)
        weight, triplet = step_triplets(
            self.rule, synapses, weight, TripletTraces(*state[:-1]), pre_spike, post_spike, dt, after, backend, stronger
        )
        return weight, HomeostaticTraces(*triplet, add_spikes(rate, post_spike))
