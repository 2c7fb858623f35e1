"""Pairs of spikes that count once a reward comes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.any_rule import CAPACITY
from hebbax._core.building import weight_numbers, with_unit
from hebbax._core.numbers import check_number
from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax._core.unitless import arithmetic_dtype, spikes_of
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import EITHER, POST, PRE, check, factors, per_neuron
from hebbax.rules._traces import Decay, Pairing, add_spikes, check_step, decay, zeros
from hebbax.synapses import Synapses

# What is left of an eligibility when a silent neuron's reference time is moved. Later, sums of rewards would lose more
# digits: their error is that of float32, 6e-8, over LEAST. Earlier, its synapses would be visited more often.
LEAST = 1 / 64


class RewardTraces(NamedTuple):
    r"""The state of `RewardSTDP`: traces, eligibilities, and rewards that not all synapses have seen.

    Every postsynaptic neuron has a reference time :math:`t_j`: that of its last spike, or a later one if it is silent
    for long. An eligibility is kept as it would be then, and so changes at spikes only.
    """

    pre: Any  # (n_pre,)
    post: Any  # (n_post,)
    left: Any  # (n_post,), exp(-(t - t_j) / tau_c)
    rewarded: Any  # (n_post,), integral from t_j on of exp(-(s - t_j) / tau_c) d(s)
    eligibility: Any  # (nse,), times exp((t - t_j) / tau_c), in the unit of `a_plus`
    seen: Any  # (nse,), of `rewarded`, what is in the weight


@pytree("pairing")
@dataclasses.dataclass(frozen=True)
class RewardSTDP:
    r"""STDP that a later reward turns into weight: Izhikevich's solution of the distal reward problem (2007).

    Parameters
    ----------
    tau_plus : Quantity, scalar or shape (n_pre, 1)
        Time constant of the presynaptic trace, one for all or one per presynaptic neuron.
    tau_minus : Quantity, scalar or shape (1, n_post)
        Time constant of the postsynaptic trace, one for all or one per postsynaptic neuron.
    tau_c : Quantity, scalar or shape (1, n_post)
        Time constant of eligibilities, one for all or one per postsynaptic neuron.
    a_plus, a_minus : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitudes, of either sign, with the weight's dimension: what one isolated pair at a vanishing lag adds to the
        eligibility, or takes from it.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight. A synapse with two equal bounds stays as it is.
    pairing : 'all' or 'nearest', default 'all'
        Whether a spike pairs with all earlier ones of the other side, or with the last only.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    hebbax.errors.ShapeError
        A parameter has another shape, then or in `step` (a ValueError and an AssertionError).
    brainunit.UnitMismatchError
        Two parameters that share a unit do not.

    Notes
    -----
    With traces :math:`x_i` and :math:`y_j` as in `PairSTDP`, an eligibility :math:`c_{ij}` and the reward :math:`d`:

    .. math::

        \text{pre spike: } & c_{ij} \leftarrow c_{ij} - A_- \, y_j \\
        \text{post spike: } & c_{ij} \leftarrow c_{ij} + A_+ \, x_i \\
        \frac{dc_{ij}}{dt} & = -\frac{c_{ij}}{\tau_c}, \qquad \frac{dw_{ij}}{dt} = c_{ij} \, d_j(t)

    and :math:`w` is clipped to the bounds. The reward is a rate (1 over the unit of the time constants), constant
    within a step, where the solution is exact: a pulse of size :math:`R`, `R / dt` in one step, at a time :math:`T`
    after a pair with lag :math:`\Delta t`, changes a weight by
    :math:`\pm A_\pm \, R \, e^{-|\Delta t| / \tau_\pm} \, e^{-T / \tau_c}`.

    The cost of a step is that of its spikes, though weights change between them: a synapse takes up what it was
    rewarded with when one of its neurons spikes, or when a postsynaptic neuron was silent for :math:`4.2 \, \tau_c`.
    **So the weight of a synapse is current after a step in which one of its neurons spikes**, and old otherwise. What
    delivers spikes reads those of neurons that spike: call `step` first, and then `propagate_on_pre` with the weight
    that it returned and the same spikes. To read all weights, call `settle`.

    The weight is clipped when it is brought up to date. That equals clipping it at every moment, unless the reward
    changes its sign between two spikes of a synapse's neurons, while the weight would have been held at a bound: then
    what was lost there counts against what came after.

    References
    ----------
    E. M. Izhikevich (2007), Solving the distal reward problem through linkage of STDP and dopamine signaling, Cerebral
    Cortex 17:2443, doi:10.1093/cercor/bhl152.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax, jax.numpy as jnp
    >>> rule = hebbax.RewardSTDP(20.0 * u.ms, 20.0 * u.ms, 1.0 * u.second, 0.1 * u.mV, 0.15 * u.mV, 0 * u.mV, 4 * u.mV)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[1.0]]) * u.mV)
    >>> step, state, yes, no = jax.jit(rule.step), rule.init(synapses), jnp.array([True]), jnp.array([False])
    >>> for pre, post, reward, dt in (yes, no, 0.0, 1.0), (no, yes, 0.0, 1.0), (no, no, 0.0, 999.0), (no, no, 5.0, 1.0):
    ...     weight, state = step(synapses, weight, state, pre, post, reward * u.kHz, dt * u.ms)
    >>> weight, state = rule.settle(synapses, weight, state)
    >>> print(f"{weight.mantissa[0]:.3f}")  # 1 + 0.1 * exp(-1 / 20) * 5 * exp(-1)
    1.175
    """

    tau_plus: Any
    tau_minus: Any
    tau_c: Any
    a_plus: Any
    a_minus: Any
    w_min: Any
    w_max: Any
    pairing: Pairing = "all"

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {
        "tau_plus": PRE, "tau_minus": POST, "tau_c": POST, "a_plus": EITHER, "a_minus": EITHER,
    }  # fmt: skip

    def __post_init__(self) -> None:
        amplitudes = ("a_plus", "a_minus")
        check(self, positive=("tau_plus", "tau_minus", "tau_c"), signed=amplitudes, weights=amplitudes)

    def init(self, synapses: Synapses) -> RewardTraces:
        """Return the state of neurons that have not spiked yet."""
        pre, post, rewarded, eligibility, seen = zeros(
            synapses.n_pre, synapses.n_post, synapses.n_post, synapses.nse, synapses.nse
        )
        return RewardTraces(pre, post, jnp.ones_like(rewarded), rewarded, eligibility, seen)

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: RewardTraces,
        pre_spike: Plain,
        post_spike: Plain,
        reward: WithUnit,
        dt: WithUnit,
        capacity: int = CAPACITY,
    ) -> tuple[Any, RewardTraces]:
        """Return the weight, of which not all is current, and the state after a step of length `dt`.

        The reward comes during the step, the spikes at its end. Outside `jit` each call is compiled anew.

        Parameters
        ----------
        synapses : Synapses
            Structure of the network.
        weight : Array or Quantity, shape (nse,)
            Weights in CSR order, within the bounds, from the step before.
        state : RewardTraces
            From `init`, `settle` or the step before.
        pre_spike : Array, shape (n_pre,), bool or real
            Whether each presynaptic neuron spikes.
        post_spike : Array, shape (n_post,), bool or real
            Whether each postsynaptic neuron spikes.
        reward : number, Array or Quantity, scalar or shape (n_post,)
            Rate at which eligibility becomes weight, of either sign: 1 over the unit of the time constants.
        dt : Quantity, scalar
            Length of the step.
        capacity : int
            As in `Synapses.apply_on_pre`.
        """
        _, dtype = check_step(weight, state, RewardTraces)
        _check_sizes(state, synapses)
        pre_spike = spikes_of("pre_spike", pre_spike, synapses.n_pre)
        post_spike = spikes_of("post_spike", post_spike, synapses.n_post)
        up, down = (factors(self, name, synapses, u.get_unit(self.a_plus), dtype) for name in ("a_plus", "a_minus"))
        fade = decay(self, "tau_c", dt, synapses, "post", dtype)
        rewarded = state.rewarded + state.left * self._gained(reward, fade, synapses)
        left = fade.of(state.left)
        pre = decay(self, "tau_plus", dt, synapses, "pre", dtype).of(state.pre)
        post = decay(self, "tau_minus", dt, synapses, "post", dtype).of(state.post)
        renewed = post_spike | (left < LEAST)
        bring = _Bring(self, synapses, weight)

        def on_pre(synapse: tuple, gain: Any, of_post: tuple) -> tuple:
            weight, eligibility, seen, bounds = synapse
            trace, rewarded = of_post
            weight = bring(weight, eligibility, rewarded - seen, bounds)
            return weight, eligibility - gain * trace, rewarded, bounds

        def on_post(synapse: tuple, trace: Any, of_post: tuple) -> tuple:
            weight, eligibility, seen, bounds = synapse
            gain, left, rewarded = of_post
            weight = bring(weight, eligibility, rewarded - seen, bounds)
            return weight, eligibility * left + gain * trace, jnp.zeros_like(seen), bounds

        def of_all(gain: Any, spike: jax.Array) -> jax.Array:
            return jnp.where(spike, jnp.asarray(gain, dtype), 0.0)

        per_synapse = bring.numbers, state.eligibility, state.seen, bring.bounds
        per_synapse = synapses.apply_on_post(
            on_post, per_synapse, renewed, capacity=capacity,
            pre=up.scaled(pre, "pre"), post=(of_all(up.gain("post"), post_spike), left, rewarded),
        )  # fmt: skip
        left, rewarded = jnp.where(renewed, 1.0, left), jnp.where(renewed, 0.0, rewarded)
        number, eligibility, seen, _ = synapses.apply_on_pre(
            on_pre, per_synapse, pre_spike, capacity=capacity,
            pre=of_all(down.gain("pre"), pre_spike), post=(down.scaled(post, "post") / left, rewarded),
        )  # fmt: skip
        return with_unit(number, bring.unit), RewardTraces(
            add_spikes(pre, pre_spike, self.pairing), add_spikes(post, post_spike, self.pairing),
            left, rewarded, eligibility, seen,
        )  # fmt: skip

    def settle(self, synapses: Synapses, weight: WithUnit, state: RewardTraces) -> tuple[Any, RewardTraces]:
        """Return all weights as they are now, and the state that goes with them.

        That takes a pass over all synapses, of whose weights `step` leaves most as they were. The eligibilities of this
        state are those of now, in the unit of `a_plus`. A run may go on from here, or from what was passed.
        """
        check_step(weight, state, RewardTraces)
        _check_sizes(state, synapses)
        bring, post = _Bring(self, synapses, weight), synapses.indices
        number = bring(bring.numbers, state.eligibility, state.rewarded[post] - state.seen, bring.bounds)
        return with_unit(number.astype(bring.numbers.dtype), bring.unit), state._replace(
            left=jnp.ones_like(state.left), rewarded=jnp.zeros_like(state.rewarded),
            eligibility=state.eligibility * state.left[post], seen=jnp.zeros_like(state.seen),
        )  # fmt: skip

    def _gained(self, reward: WithUnit, fade: Decay, synapses: Synapses) -> jax.Array:
        """What an eligibility of 1 at the start of a step becomes within it."""
        check_number("reward", reward)
        rate = in_unit("reward", reward, u.get_unit(self.tau_c) ** -1)
        if np.shape(rate) not in ((), (synapses.n_post,)):
            raise ShapeError(f"reward: got shape {np.shape(rate)}, expected a scalar or ({synapses.n_post},)")
        time = jnp.asarray(per_neuron(self, "tau_c", synapses, fade.dtype), fade.dtype)
        return jnp.asarray(rate, fade.dtype) * time * fade.lost.gain("post")


class _Bring:
    """What brings weights up to date: adds what eligibility has become, and clips. Called with one of them, or all."""

    def __init__(self, rule: RewardSTDP, synapses: Synapses, weight: WithUnit):
        numbers, self.unit = weight_numbers("weight", weight, (synapses.nse,))
        self.numbers = jnp.asarray(numbers)
        unit = u.get_unit(weight)
        self.scale = in_unit("a_plus", u.Quantity(1.0, unit=u.get_unit(rule.a_plus)), unit)
        limits = {name: jnp.asarray(in_unit(name, getattr(rule, name), unit)) for name in ("w_min", "w_max")}
        for name, limit in limits.items():
            if limit.shape not in ((), self.numbers.shape):
                raise ShapeError(f"{name}: got shape {limit.shape}, expected a scalar or {self.numbers.shape}")
        self.limits = limits
        self.bounds = {name: limit for name, limit in limits.items() if limit.shape}  # which go along with the weights

    def __call__(self, weight: Any, eligibility: Any, gained: Any, bounds: dict[str, Any]) -> Any:
        dtype = max(arithmetic_dtype(weight.dtype), eligibility.dtype, key=lambda x: x.itemsize)
        low, high = ((self.limits | bounds)[name].astype(dtype) for name in ("w_min", "w_max"))
        return jnp.clip(weight.astype(dtype) + self.scale * (eligibility * gained).astype(dtype), low, high)


def _check_sizes(state: RewardTraces, synapses: Synapses) -> None:
    for name, x in state._asdict().items():
        expected = (synapses.n_pre,) if name == "pre" else (synapses.n_post,)
        expected = (synapses.nse,) if name in ("eligibility", "seen") else expected
        if jnp.shape(x) != expected:
            got = jnp.shape(x)
            raise ShapeError(f"state.{name}: got shape {got}, expected {expected}, as init of these synapses makes it")
