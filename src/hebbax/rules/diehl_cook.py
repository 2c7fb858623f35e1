"""STDP that leaves a neuron's synapses to the inputs which are active when it spikes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u

from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax._core.unitless import spikes_of
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import EITHER, PRE, check, factors
from hebbax.rules._traces import Pairing, add_spikes, check_step, decay, zeros
from hebbax.synapses import Synapses


class PreTrace(NamedTuple):
    """Dimensionless traces of the presynaptic neurons."""

    pre: Any  # (n_pre,)


@pytree("mu", "pairing")
@dataclasses.dataclass(frozen=True)
class DiehlCookSTDP:
    r"""Plasticity on postsynaptic spikes only, up where the input was more active than a target, after Diehl & Cook.

    Parameters
    ----------
    tau : Quantity, scalar or shape (n_pre, 1)
        Time constant of the trace, one for all or one per presynaptic neuron.
    eta : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Learning rate, at least 0, with the weight's dimension.
    target : number or Array, scalar or shape (n_pre, 1)
        Trace that leaves the weight as it is, at least 0: inputs below it lose their synapses onto neurons that spike.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight. A synapse with two equal bounds stays as it is.
    mu : float, default 0.2
        Exponent of the weight dependence, at least 0, of changes in either direction: unless it is 0, a weight at
        `w_max` stays there.
    pairing : 'all' or 'nearest', default 'all'
        Whether a spike raises the trace by 1, as the paper says, or sets it to 1, as the authors' program does.

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
    With traces :math:`x_i` that decay exponentially with :math:`\tau` and that every spike of their neuron raises by 1
    (or, for 'nearest', sets to 1), and the target :math:`x_\text{tar}`:

    .. math::

        \text{post spike: } w_{ij} \leftarrow
        w_{ij} + \eta \, (x_i - x_\text{tar}) \left( \frac{w_\max - w_{ij}}{w_\max - w_\min} \right)^\mu

    clipped to the bounds. (The paper's :math:`(w_\max - w_{ij})^\mu` is the same where bounds are 0 and 1.) Presynaptic
    spikes change nothing but the trace: a step costs what its postsynaptic spikes cost.

    References
    ----------
    P. U. Diehl & M. Cook (2015), Unsupervised learning of digit recognition using spike-timing-dependent plasticity,
    Frontiers in Computational Neuroscience 9:99, doi:10.3389/fncom.2015.00099: the first of its rules, with a power of
    the weight. `hebbax simulate digits` learns with it.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> rule = hebbax.DiehlCookSTDP(20.0 * u.ms, 0.01 * u.nS, target=0.4, w_min=0.0 * u.nS, w_max=1.0 * u.nS)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.full((2, 1), 0.5) * u.nS)
    >>> state = rule.init(synapses)
    >>> first, none = jnp.array([True, False]), jnp.array([False, False])
    >>> weight, state = rule.step(synapses, weight, state, first, none[:1], 1.0 * u.ms)  # an input spikes,
    >>> weight, state = rule.step(synapses, weight, state, none, first[:1], 1.0 * u.ms)  # then the neuron
    >>> print(*(f"{w:.4f}" for w in weight.mantissa))  # 0.5 + 0.01 * (exp(-1 / 20) - 0.4) * 0.5 ** 0.2, and without it
    0.5048 0.4965
    """

    tau: Any
    eta: Any
    target: Any
    w_min: Any
    w_max: Any
    mu: float = 0.2
    pairing: Pairing = "all"

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {"tau": PRE, "eta": EITHER, "target": PRE}

    def __post_init__(self) -> None:
        check(self, positive=("tau",), not_negative=("eta", "target"), weights=("eta",))
        in_unit("target", self.target, u.UNITLESS)

    def init(self, synapses: Synapses) -> PreTrace:
        """Return the traces of neurons that have not spiked yet."""
        return PreTrace(*zeros(synapses.n_pre))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: PreTrace,
        pre_spike: Plain,
        post_spike: Plain,
        dt: WithUnit,
        after: Any = None,
        backend: str | None = None,
    ) -> tuple[Any, PreTrace]:
        """Return the weight and the traces after a step of length `dt`; the arguments are those of `PairSTDP.step`."""
        unit, dtype = check_step(weight, state, PreTrace)
        pre_spike = spikes_of("pre_spike", pre_spike, synapses.n_pre)  # which no operator sees
        pre = decay(self, "tau", dt, synapses, "pre", dtype).of(state.pre)
        rate = factors(self, "eta", synapses, unit, dtype)
        target = factors(self, "target", synapses, u.UNITLESS, dtype).gain("pre")
        weight = synapses.update_on_post(
            weight, u.Quantity(rate.scaled(pre - target, "pre"), unit=unit), post_spike, self.w_min, self.w_max,
            gain=rate.gain("post"), soft_bound="upper", mu=self.mu, weight_in_bounds=True, after=after, backend=backend,
        )  # fmt: skip
        return weight, PreTrace(add_spikes(pre, pre_spike, self.pairing))
