"""Triplets of spikes."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import brainunit as u
import jax.numpy as jnp

from hebbax._core.pytree import pytree
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules.traces import Pairing, add_spikes, check, check_state, decay_factor
from hebbax.synapses import Synapses


class TripletTraces(NamedTuple):
    """Dimensionless traces; the names are those of Pfister & Gerstner (2006)."""

    r1: Any  # (n_pre,), decays with tau_plus
    r2: Any  # (n_pre,), with tau_x
    o1: Any  # (n_post,), with tau_minus
    o2: Any  # (n_post,), with tau_y


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
        after: Any = None,
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
