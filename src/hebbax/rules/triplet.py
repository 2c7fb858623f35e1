"""Triplets of spikes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u

from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax.operators import Plain, WithUnit
from hebbax.rules._parameters import EITHER, POST, PRE, Factors, check, factors
from hebbax.rules._traces import Pairing, add_spikes, check_step, decay, zeros
from hebbax.synapses import Synapses

OTHER: dict[Side, Side] = {"pre": "post", "post": "pre"}


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
    tau_plus, tau_x : Quantity, scalar or shape (n_pre, 1)
        Time constants of the presynaptic traces :math:`r_1` (pair terms) and :math:`r_2` (triplet terms).
    tau_minus, tau_y : Quantity, scalar or shape (1, n_post)
        Time constants of the postsynaptic traces :math:`o_1` (pair terms) and :math:`o_2` (triplet terms).
    a2_plus, a2_minus : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitudes of the pair terms, of either sign, with the weight's dimension.
    a3_plus, a3_minus : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitudes of the triplet terms, of either sign, with the weight's dimension.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight. A synapse with two equal bounds stays as it is.
    pairing : 'all' or 'nearest', default 'all'
        Whether a spike raises its neuron's traces by 1 or sets them to 1.

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
    .. math::

        \text{pre spike of } i\text{: } & w_{ij} \leftarrow w_{ij} - o_{1j} \, (A_2^- + A_3^- \, r_{2i}) \\
        \text{post spike of } j\text{: } & w_{ij} \leftarrow w_{ij} + r_{1i} \, (A_2^+ + A_3^+ \, o_{2j})

    clipped to the bounds. All traces are those just before the spike.

    Where `a2_minus` or `a3_minus` differs between postsynaptic neurons, or `a2_plus` or `a3_plus` between presynaptic
    ones, the two terms are no longer one product, and take an update each: twice the time.

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

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {
        "tau_plus": PRE, "tau_minus": POST, "tau_x": PRE, "tau_y": POST,
        "a2_plus": EITHER, "a2_minus": EITHER, "a3_plus": EITHER, "a3_minus": EITHER,
    }  # fmt: skip

    def __post_init__(self) -> None:
        amplitudes = ("a2_plus", "a2_minus", "a3_plus", "a3_minus")
        times = ("tau_plus", "tau_minus", "tau_x", "tau_y")
        check(self, positive=times, signed=amplitudes, weights=amplitudes)

    def init(self, synapses: Synapses) -> TripletTraces:
        """Return the traces of neurons that have not spiked yet."""
        return TripletTraces(*zeros(*(synapses.n_pre,) * 2, *(synapses.n_post,) * 2))

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
        return step_triplets(self, synapses, weight, state, pre_spike, post_spike, dt, after, backend)


def step_triplets(
    rule: TripletSTDP, synapses: Synapses, weight: WithUnit, state: TripletTraces, pre_spike: Plain, post_spike: Plain,
    dt: WithUnit, after: Any, backend: str | None, stronger: Factors = Factors(),  # noqa: B008 (it is immutable)
) -> tuple[Any, TripletTraces]:  # fmt: skip
    """The step of the rule; depression is so many times stronger than the rule's."""
    unit, dtype = check_step(weight, state, TripletTraces)
    sides: tuple[tuple[str, Side], ...] = (
        ("tau_plus", "pre"), ("tau_x", "pre"), ("tau_minus", "post"), ("tau_y", "post"),
    )  # fmt: skip
    decays = TripletTraces(*(decay(rule, tau, dt, synapses, side, dtype) for tau, side in sides))
    r1, r2, o1, o2 = (x.of(trace) for x, trace in zip(decays, state, strict=True))

    def terms(pair: str, triplet: str, event: Side, trace: Any) -> list[Factors]:
        """What the pair trace of the other side is multiplied by: one product, where their sum is one, or two."""
        a2, a3 = (factors(rule, name, synapses, unit, dtype) for name in (pair, triplet))
        a3 = a3.times(Factors.along(event, trace))
        if getattr(a2, OTHER[event]) is None and getattr(a3, OTHER[event]) is None:
            return [Factors.along(event, a2.gain(event) + a3.gain(event))]
        return [a2, a3]

    bounds: Any = dict(w_min=rule.w_min, w_max=rule.w_max, weight_in_bounds=True)
    depression = [x.times(decays.o1.factors).times(stronger) for x in terms("a2_minus", "a3_minus", "pre", r2)]
    for k, x in enumerate(depression):
        options: Any = dict(after=None if k else after, backend=backend)
        trace = u.Quantity(x.scaled(state.o1, "post"), unit=unit)
        options |= bounds if x is depression[-1] else {}  # both terms are clipped as their sum
        weight = synapses.update_on_pre(weight, pre_spike, trace, gain=-x.gain("pre"), **options)
    potentiation = [x.times(decays.r1.factors) for x in terms("a2_plus", "a3_plus", "post", o2)]
    for x in potentiation:
        trace = u.Quantity(x.scaled(state.r1, "pre"), unit=unit)
        options = dict(backend=backend) | (bounds if x is potentiation[-1] else {})
        weight = synapses.update_on_post(weight, trace, post_spike, gain=x.gain("post"), **options)
    spikes = (pre_spike, pre_spike, post_spike, post_spike)
    return weight, TripletTraces(
        *(add_spikes(x, spike, rule.pairing) for x, spike in zip((r1, r2, o1, o2), spikes, strict=True))
    )
