"""Pair-based STDP."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u

from hebbax._core.fence import fence
from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax.operators import Plain, WithUnit
from hebbax.rules._parameters import EITHER, POST, PRE, Factors, Shaped, check, check_range, factors
from hebbax.rules._traces import EventTrace, Pairing, PairTraces, add_spikes, check_step, decay, pair_traces
from hebbax.synapses import Synapses


@pytree("mu_plus", "mu_minus", "pairing")
@dataclasses.dataclass(frozen=True)
class PairSTDP:
    r"""Pair-based STDP: additive, multiplicative or in between.

    Parameters
    ----------
    tau_plus : Quantity, scalar or shape (n_pre, 1)
        Time constant of potentiation, one for all or one per presynaptic neuron.
    tau_minus : Quantity, scalar or shape (1, n_post)
        Time constant of depression, one for all or one per postsynaptic neuron.
    a_plus, a_minus : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitudes, with the weight's dimension: what one isolated pair at a vanishing lag would change if the exponents
        were 0. A negative one reverses its half of the rule; it takes an exponent of 0.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight. A synapse with two equal bounds stays as it is.
    mu_plus, mu_minus : float, default 0.0
        Exponents of the weight dependence, at least 0: 0 is the additive rule (Song et al. 2000), 1 the multiplicative
        one (Rubin et al. 2001), and what lies between interpolates (Guetig et al. 2003).
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

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {
        "tau_plus": PRE, "tau_minus": POST, "a_plus": EITHER, "a_minus": EITHER,
    }  # fmt: skip

    def __post_init__(self) -> None:
        amplitudes = ("a_plus", "a_minus")
        check(self, positive=("tau_plus", "tau_minus"), signed=amplitudes, weights=amplitudes)
        for name, exponent in (("a_plus", "mu_plus"), ("a_minus", "mu_minus")):
            if getattr(self, exponent):  # the change would vanish at the bound that it leads away from
                check_range(self, (name,), lambda x: x >= 0, f"at least 0 where {exponent} is not 0")

    def init(self, synapses: Synapses, *, at_events: bool = False) -> PairTraces:
        """Return the traces of neurons that have not spiked yet.

        Parameters
        ----------
        synapses : Synapses
            Structure of the network.
        at_events : bool, default False
            Write the presynaptic traces where a neuron spikes only, as `x * exp(age)` of one age for all, and so decay
            them at no cost: for presynaptic spikes that are lists (`hebbax.sharding.exchange`), with which a step then
            costs what the spikes do, however many presynaptic neurons there are. Where spikes are arrays it gains
            nothing. Not with a `tau_plus` that differs between neurons, nor for derivatives.
        """
        return pair_traces(self, synapses, at_events)

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: PairTraces,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: Any = None,
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
        pre_spike : Array, shape (n_pre,), bool or real, or hebbax.sharding.SpikeLists
            Whether each presynaptic neuron spikes.
        post_spike : Array, shape (n_post,), bool or real
            Whether each postsynaptic neuron spikes.
        dt : Quantity, scalar
            Length of the step. Where it is so short that float32 traces do not decay as they should, a RuntimeWarning
            says so (not of a rule that is an argument of `jit`, whose values cannot be seen).
        after : pytree of arrays, optional
            All that was computed from `weight` in the same step, as in `update_csr_on_binary_pre`.
        backend : str, optional
            Of the updates (see `hebbax.backends`).
        """
        unit, dtype = check_step(weight, state, PairTraces)
        changes = self._changes(synapses, unit, dtype)
        return step_pairs(self, synapses, weight, state, pre_spike, post_spike, dt, after, changes, backend)

    def _changes(self, synapses: Shaped, unit: u.Unit, dtype: Any) -> Changes:
        """What spikes do to weights in this unit."""
        up = Change(factors(self, "a_plus", synapses, unit, dtype), dict(soft_bound="upper", mu=self.mu_plus))
        down = Change(factors(self, "a_minus", synapses, unit, dtype), dict(soft_bound="lower", mu=self.mu_minus))
        return Changes(up, down, dict(w_min=self.w_min, w_max=self.w_max))


class Change(NamedTuple):
    """What the spikes of one side do to a weight."""

    amplitude: Factors  # in the weight's unit
    softness: dict[str, Any]  # options of the update


class Changes(NamedTuple):
    """What the spikes of either side do."""

    up: Change
    down: Change
    bounds: dict[str, Any]


def depress(
    rule: Any, synapses: Synapses, weight: WithUnit, trace: Any, pre_spike: Plain, dt: WithUnit, after: Any,
    changes: Changes, backend: str | None,
) -> Any:  # fmt: skip
    """The weight after the presynaptic spikes of a step, from the postsynaptic trace of the step before."""
    minus = decay(rule, "tau_minus", dt, synapses, "post", trace.dtype)
    depression = changes.down.amplitude.times(minus.factors)
    options: Any = changes.down.softness | changes.bounds | dict(backend=backend, weight_in_bounds=True)
    post = u.Quantity(depression.scaled(trace, "post"), unit=u.get_unit(weight))
    return synapses.update_on_pre(weight, pre_spike, post, after=after, gain=-depression.gain("pre"), **options)


def step_pairs(
    rule: Any, synapses: Synapses, weight: WithUnit, state: PairTraces, pre_spike: Plain, post_spike: Plain,
    dt: WithUnit, after: Any, changes: Changes, backend: str | None, returned: bool = False,
) -> tuple[Any, PairTraces]:  # fmt: skip
    """The step of a rule of pairs, which has `tau_plus` and `tau_minus`; `returned`: postsynaptic spikes come first."""
    unit, dtype, pairing = u.get_unit(weight), state.post.dtype, getattr(rule, "pairing", "all")
    plus = decay(rule, "tau_plus", dt, synapses, "pre", dtype)
    minus = decay(rule, "tau_minus", dt, synapses, "post", dtype)
    older = state.pre.older(plus.ratio) if isinstance(state.pre, EventTrace) else None
    left, value = (plus.factors, state.pre) if older is None else (Factors(older.left), older.value)
    potentiation = changes.up.amplitude.times(left)
    options: Any = changes.up.softness | changes.bounds | dict(backend=backend, weight_in_bounds=True)
    pre = u.Quantity(potentiation.scaled(value, "pre"), unit=unit)

    def depressed(weight: Any, after: Any) -> Any:
        return depress(rule, synapses, weight, state.post, pre_spike, dt, after, changes, backend)

    if not returned:
        weight, after = depressed(weight, after), None
    weight = synapses.update_on_post(weight, pre, post_spike, gain=potentiation.gain("post"), after=after, **options)
    if returned:
        weight = depressed(weight, None)
    # New traces are written where the old ones were, which takes that the updates have read these.
    weight, (value, post) = fence((weight, PairTraces(value, state.post)))
    if older is None:
        pre = add_spikes(plus.of(value), pre_spike, pairing)
    else:
        pre = older._replace(value=value).with_spikes(pre_spike, pairing)
    return weight, PairTraces(pre, add_spikes(minus.of(post), post_spike, pairing))
