"""Inhibition that learns."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import brainunit as u
import jax.numpy as jnp

from hebbax._core.numbers import concrete
from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import EITHER, NONE, POST, Factors, check, factors
from hebbax.rules._traces import PairTraces, add_spikes, at_target, check_step, decay, zeros
from hebbax.synapses import Synapses


@pytree()
@dataclasses.dataclass(frozen=True)
class InhibitorySTDP:
    r"""Plasticity of inhibitory synapses that holds the postsynaptic rate at a target, after Vogels et al. (2011).

    Parameters
    ----------
    tau : Quantity, scalar
        Time constant of the traces of either side.
    eta : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Learning rate, at least 0, with the weight's dimension.
    target_rate : Quantity, scalar or shape (1, n_post)
        Rate that postsynaptic neurons are held at.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight, of one sign: inhibition may be positive numbers, as conductances are, or, with
        `w_max <= 0`, negative ones. A synapse with two equal bounds stays as it is.

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
    With traces :math:`x_i` and :math:`y_j` that decay with :math:`\tau` and that every spike of their neuron raises by
    1, and the target rate :math:`\rho_0`:

    .. math::

        \text{pre spike: } & w_{ij} \leftarrow w_{ij} + \eta \, (y_j - 2 \rho_0 \tau) \\
        \text{post spike: } & w_{ij} \leftarrow w_{ij} + \eta \, x_i

    clipped to the bounds. Where weights are negative numbers, :math:`\eta` is taken negative, so that inhibition grows
    as they move away from 0. (Which they are is read from `w_max`: where that is a traced array, from all of it at
    every step.)

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

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {"tau": NONE, "eta": EITHER, "target_rate": POST}

    def __post_init__(self) -> None:
        check(self, positive=("tau",), not_negative=("eta", "target_rate"), weights=("eta",))
        in_unit("target_rate", self.target_rate, u.get_unit(self.tau) ** -1)
        low, high = concrete(self.w_min), concrete(self.w_max)
        if low is not None and high is not None and (low < 0).any() and (high > 0).any():
            raise ValueError(
                f"w_min: got {low.min()} where w_max is {high.max()}, expected bounds of one sign: weights are either "
                f"positive or negative numbers"
            )

    def init(self, synapses: Synapses) -> PairTraces:
        """Return the traces of neurons that have not spiked yet."""
        return PairTraces(*zeros(synapses.n_pre, synapses.n_post))

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
        left = decay(self, "tau", dt, synapses, "pre", dtype)
        rate = factors(self, "eta", synapses, unit, dtype).times(Factors(self._sign(dtype)))
        pre, post = left.of(state.pre), left.of(state.post)
        options: Any = dict(w_min=self.w_min, w_max=self.w_max, weight_in_bounds=True, backend=backend)
        trace = u.Quantity(rate.scaled(post - 2 * at_target(self, synapses, dtype), "post"), unit=unit)
        weight = synapses.update_on_pre(weight, pre_spike, trace, gain=rate.gain("pre"), after=after, **options)
        rate = rate.times(left.factors)
        trace = u.Quantity(rate.scaled(state.pre, "pre"), unit=unit)
        weight = synapses.update_on_post(weight, trace, post_spike, gain=rate.gain("post"), **options)
        return weight, PairTraces(add_spikes(pre, pre_spike), add_spikes(post, post_spike))

    def _sign(self, dtype: Any) -> Any:
        """Of the weights: -1 where they are negative numbers."""
        high = concrete(self.w_max)
        if high is not None:
            return -1.0 if (high <= 0).all() else 1.0
        return jnp.where((u.get_mantissa(self.w_max) <= 0).all(), -1, 1).astype(dtype)
