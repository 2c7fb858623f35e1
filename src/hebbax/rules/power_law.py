"""STDP by a power law of the weight."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import brainunit as u

from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import EITHER, NONE, POST, PRE, Factors, Shaped, check, check_range, factors
from hebbax.rules._traces import PairTraces, check_step, pair_traces
from hebbax.rules.pair import Change, Changes, step_pairs
from hebbax.synapses import Synapses


@pytree("mu")
@dataclasses.dataclass(frozen=True)
class PowerLawSTDP:
    r"""Pair-based STDP that potentiates by a power of the weight, without an upper bound: Morrison et al. (2007).

    Parameters
    ----------
    tau_plus : Quantity, scalar or shape (n_pre, 1)
        Time constant of potentiation, one for all or one per presynaptic neuron.
    tau_minus : Quantity, scalar or shape (1, n_post)
        Time constant of depression, one for all or one per postsynaptic neuron.
    learning_rate : number or Array, scalar or shape (n_pre, 1) or (1, n_post)
        :math:`\lambda`, at least 0.
    alpha : number or Array, scalar or shape (n_pre, 1) or (1, n_post)
        :math:`\alpha`, depression over potentiation, at least 0.
    w_0 : number, Array or Quantity, scalar
        Reference weight, more than 0, with the weight's dimension: a weight that equals it is potentiated by
        :math:`\lambda w_0 x_i`.
    mu : float, default 0.4
        Exponent of potentiation, at least 0.

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
    With traces :math:`x_i` and :math:`y_j` that decay exponentially with :math:`\tau_+` and :math:`\tau_-` and that
    every spike of their neuron raises by 1:

    .. math::

        \text{pre spike: } & w_{ij} \leftarrow w_{ij} - \lambda \, \alpha \, w_{ij} \, y_j \\
        \text{post spike: } & w_{ij} \leftarrow w_{ij} + \lambda \, w_0^{1 - \mu} \, w_{ij}^\mu \, x_i

    and at least 0. A weight of 0 stays 0 (where :math:`\mu` is not 0).

    This is NEST's `stdp_pl_synapse_hom`, with weights in pA and :math:`w_0` = 1 pA. There `tau_minus` belongs to the
    postsynaptic neuron, `learning_rate` is called `lambda`, the delay is all dendritic, and where spikes coincide at
    the synapse, potentiation comes before depression, which is here the other way round.

    References
    ----------
    A. Morrison, A. Aertsen & M. Diesmann (2007), Spike-timing-dependent plasticity in balanced random networks, Neural
    Computation 19:1437-1467, doi:10.1162/neco.2007.19.6.1437.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> rule = hebbax.PowerLawSTDP(15.0 * u.ms, 30.0 * u.ms, learning_rate=0.1, alpha=0.0513, w_0=1.0 * u.pA)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[45.6]]) * u.pA)
    >>> state = rule.init(synapses)
    >>> yes, no = jnp.array([True]), jnp.array([False])
    >>> weight, state = rule.step(synapses, weight, state, yes, no, 1.0 * u.ms)  # the input spikes,
    >>> weight, state = rule.step(synapses, weight, state, no, yes, 1.0 * u.ms)  # then the neuron
    >>> print(f"{weight.mantissa[0]:.4f}")  # 45.6 + 0.1 * 45.6 ** 0.4 * exp(-1 / 15)
    46.0312
    """

    tau_plus: Any
    tau_minus: Any
    learning_rate: Any
    alpha: Any
    w_0: Any
    mu: float = 0.4

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {
        "tau_plus": PRE, "tau_minus": POST, "learning_rate": EITHER, "alpha": EITHER, "w_0": NONE,
    }  # fmt: skip

    def __post_init__(self) -> None:
        numbers = ("learning_rate", "alpha")
        check(self, positive=("tau_plus", "tau_minus"), not_negative=numbers, weights=("w_0",))
        check_range(self, ("w_0",), lambda x: (x > 0) & (x < math.inf), "a finite value of more than 0")
        for name in numbers:
            in_unit(name, getattr(self, name), u.UNITLESS)

    def init(self, synapses: Synapses, *, at_events: bool = False) -> PairTraces:
        """Return the traces of neurons that have not spiked yet; `at_events` as in `PairSTDP.init`."""
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
        """Return the weight and the traces after a step of length `dt`; the arguments are those of `PairSTDP.step`."""
        unit, dtype = check_step(weight, state, PairTraces)
        changes = self._changes(synapses, unit, dtype)
        return step_pairs(self, synapses, weight, state, pre_spike, post_spike, dt, after, changes, backend)

    def _changes(self, synapses: Shaped, unit: u.Unit, dtype: Any) -> Changes:
        """What spikes do to weights in this unit."""
        rate, alpha, w_0 = (factors(self, x, synapses, y, dtype) for x, y in (
            ("learning_rate", u.UNITLESS), ("alpha", u.UNITLESS), ("w_0", unit),
        ))  # fmt: skip
        # Without an upper bound, the distance to the lower one is the weight, in its unit.
        up = Change(rate.times(Factors(w_0.one ** (1 - self.mu))), dict(soft_bound="lower", mu=self.mu))
        down = Change(rate.times(alpha), dict(soft_bound="lower", mu=1.0))
        return Changes(up, down, dict(w_min=u.Quantity(0.0, unit=unit)))
