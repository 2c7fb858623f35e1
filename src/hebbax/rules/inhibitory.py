"""Inhibition that learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import brainunit as u
import jax.numpy as jnp

from hebbax._core.pytree import pytree
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules.traces import PairTraces, add_spikes, check, check_state, decay_factor
from hebbax.synapses import Synapses


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
        after: Any = None,
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
