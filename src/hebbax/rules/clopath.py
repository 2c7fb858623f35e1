"""STDP by the postsynaptic voltage."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp

from hebbax._core.foreign import array_of
from hebbax._core.numbers import check_number
from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import EITHER, POST, PRE, Factors, check, check_range, factors
from hebbax.rules._traces import add_spikes, check_step, decay, zeros
from hebbax.synapses import Synapses


class ClopathTraces(NamedTuple):
    """What is known of the past; voltages are numbers in the unit of `theta_minus`, and relative to it."""

    x_bar: Any  # (n_pre,), decays with tau_x, raised by 1 by every spike
    u_bar_minus: Any  # (n_post,), voltage averaged over tau_minus
    u_bar_plus: Any  # (n_post,), over tau_plus
    u_bar_bar: Any  # (n_post,), its square over tau_bar_bar; 0 without homeostasis


@pytree()
@dataclasses.dataclass(frozen=True)
class ClopathSTDP:
    r"""Voltage-based STDP with homeostasis: Clopath, Buesing, Vasilaki & Gerstner (2010).

    Parameters
    ----------
    tau_x : Quantity, scalar or shape (n_pre, 1)
        Time constant of the presynaptic trace, one for all or one per presynaptic neuron.
    tau_minus, tau_plus : Quantity, scalar or shape (1, n_post)
        Time constants of the averages of the voltage, for depression and for potentiation.
    theta_minus, theta_plus : number, Array or Quantity, scalar or shape (1, n_post)
        Thresholds of the averages and of the voltage itself.
    a_ltd : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitude of depression, at least 0, in weights per voltage.
    a_ltp : number, Array or Quantity, scalar or shape (n_pre, 1) or (1, n_post)
        Amplitude of potentiation, at least 0, in weights per square of a voltage.
    w_min, w_max : number, Array or Quantity, scalar or shape (nse,)
        Bounds of the weight. A synapse with two equal bounds stays as it is.
    tau_bar_bar : Quantity, scalar or shape (1, n_post), optional
        Time constant of the average that homeostasis reads; without both of these two there is no homeostasis.
    u_ref : number, Array or Quantity, scalar or shape (1, n_post), optional
        Depolarisation at which depression has the amplitude `a_ltd`.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range, or one of the last two is there without the other; the message names it.
    hebbax.errors.ShapeError
        A parameter has another shape, then or in `step` (a ValueError and an AssertionError).
    brainunit.UnitMismatchError
        A parameter's dimension is not the one that it should have.

    Notes
    -----
    With the postsynaptic voltage :math:`u`, its averages :math:`\bar u_\mp`, :math:`\tau_\mp \, d\bar u_\mp/dt = u -
    \bar u_\mp`, a trace that every presynaptic spike raises, :math:`\tau_x \, d\bar x/dt = -\bar x + \sum_k \delta(t -
    t_k)`, and :math:`[\cdot]_+ = \max(\cdot, 0)`:

    .. math::

        \text{pre spike: } & w \leftarrow w - A_{LTD} \, \frac{\bar{\bar u}^2}{u_{ref}^2} \,
        [\bar u_- - \theta_-]_+ \\
        \text{always: } & \frac{dw}{dt} = A_{LTP} \, \bar x \, [u - \theta_+]_+ \, [\bar u_+ - \theta_-]_+

    clipped to the bounds; the fraction is 1 without homeostasis. A step takes the voltage to be what it is at the
    step's end, :math:`\bar u_\mp` to be what they were at its beginning, and integrates :math:`\bar x` exactly. So it
    costs what its presynaptic spikes do and, of the postsynaptic neurons, those above :math:`\theta_+`: the second line
    is one update with their brackets as gain. Under voltage clamp each presynaptic spike changes a weight by exactly
    :math:`-A_{LTD} [u - \theta_-]_+ + A_{LTP} [u - \theta_+]_+ [u - \theta_-]_+` in the end, in steps of any length.
    The averages start at :math:`\theta_-`.

    As in the authors' code, :math:`\bar{\bar u}^2` is the average of :math:`(u - \theta_-)^2`: a mean square, in which
    :math:`\theta_-` stands for the resting potential, which it is in their parameters for visual cortex.

    A spike lasts: its second millisecond would find its first one in :math:`\bar u_+`, and potentiate alone. Their code
    therefore reads the averages 3 ms late, which the paper does not mention, and without which its pairing experiment
    does not come out: see `delayed_voltage` in `step`.

    `DelayedSynapses` hands rules spikes, and so does not take this one.

    References
    ----------
    C. Clopath, L. Buesing, E. Vasilaki & W. Gerstner (2010), Connectivity reflects coding: a model of voltage-based
    STDP with homeostasis, Nature Neuroscience 13:344, doi:10.1038/nn.2479. The example has their parameters for visual
    cortex. Their code: ModelDB, accession 144566.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> rule = hebbax.ClopathSTDP(
    ...     tau_x=15.0 * u.ms, tau_minus=10.0 * u.ms, tau_plus=7.0 * u.ms, theta_minus=-70.6 * u.mV,
    ...     theta_plus=-45.3 * u.mV, a_ltd=14e-5 / u.mV, a_ltp=8e-5 / u.mV**2, w_min=0.0, w_max=3.0,
    ... )
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[1.0]]))
    >>> state, clamped = rule.init(synapses), jnp.array([-20.0]) * u.mV
    >>> for step in range(200):
    ...     spike = jnp.array([step == 100])
    ...     weight, state = rule.step(synapses, weight, state, spike, clamped, 1.0 * u.ms)
    >>> print(f"{weight[0]:.4f}")  # 1 - 14e-5 * 50.6 + 8e-5 * 25.3 * 50.6
    1.0952
    """

    tau_x: Any
    tau_minus: Any
    tau_plus: Any
    theta_minus: Any
    theta_plus: Any
    a_ltd: Any
    a_ltp: Any
    w_min: Any
    w_max: Any
    tau_bar_bar: Any = None
    u_ref: Any = None

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {
        "tau_x": PRE, "tau_minus": POST, "tau_plus": POST, "theta_minus": POST, "theta_plus": POST,
        "a_ltd": EITHER, "a_ltp": EITHER, "tau_bar_bar": POST, "u_ref": POST,
    }  # fmt: skip

    def __post_init__(self) -> None:
        absent = tuple(name for name in ("tau_bar_bar", "u_ref") if getattr(self, name) is None)
        if len(absent) == 1:
            raise TypeError(f"{absent[0]}: got None, expected a value, or None for both of tau_bar_bar and u_ref")
        times = ("tau_x", "tau_minus", "tau_plus") + (() if absent else ("tau_bar_bar",))
        voltages = ("theta_minus", "theta_plus") + (() if absent else ("u_ref",))
        amplitudes = ("a_ltd", "a_ltp")
        check(self, positive=times, not_negative=amplitudes, signed=voltages, weights=(), absent=absent)
        check_range(self, voltages[2:], lambda x: x > 0, "more than 0")
        voltage, weight = u.get_unit(self.theta_minus), u.get_unit(self.w_max)
        for name in voltages:
            in_unit(name, getattr(self, name), voltage)
        for power, name in enumerate(amplitudes, 1):
            per = voltage**-power
            in_unit(name, getattr(self, name), per if weight == u.UNITLESS else weight * per)

    def init(self, synapses: Synapses) -> ClopathTraces:
        """Return the traces of neurons that have long been at `theta_minus`, without spikes."""
        return ClopathTraces(*zeros(synapses.n_pre, *(synapses.n_post,) * 3))

    def step(
        self,
        synapses: Synapses,
        weight: WithUnit,
        state: ClopathTraces,
        pre_spike: Plain,
        voltage: WithUnit,
        dt: WithUnit,
        after: Any = None,
        backend: str | None = None,
        *,
        delayed_voltage: WithUnit | None = None,
    ) -> tuple[Any, ClopathTraces]:
        """Return the weight and the traces after a step of length `dt`, with the spikes at its end.

        Parameters
        ----------
        synapses, weight, state, pre_spike, dt, after, backend
            As in `PairSTDP.step`.
        voltage : Array or Quantity, shape (n_post,)
            Voltage of each postsynaptic neuron at the end of the step, spikes included: they are what is above
            `theta_plus`.
        delayed_voltage : Array or Quantity, shape (n_post,), optional
            What the averages are of, if it is not `voltage`: the voltage of some milliseconds ago, say from a
            `hebbax.delays.Ring`.
        """
        unit, dtype = check_step(weight, state, ClopathTraces)
        volt = u.get_unit(self.theta_minus)
        low, high = (factors(self, name, synapses, volt, dtype).gain("post") for name in ("theta_minus", "theta_plus"))
        now = past = _numbers("voltage", voltage, volt, state)
        if delayed_voltage is not None:
            past = _numbers("delayed_voltage", delayed_voltage, volt, state)
        past = past - low

        down = factors(self, "a_ltd", synapses, unit / volt, dtype)
        down = down.times(Factors.along("post", jnp.maximum(state.u_bar_minus, 0.0)))
        square = state.u_bar_bar
        if self.u_ref is not None:
            reference = factors(self, "u_ref", synapses, volt, dtype).gain("post")
            down = down.times(Factors.along("post", square / reference**2))
            square = decay(self, "tau_bar_bar", dt, synapses, "post", dtype).toward(past**2, square)
        x = decay(self, "tau_x", dt, synapses, "pre", dtype)
        brackets = jnp.maximum(now - high, 0.0) * jnp.maximum(state.u_bar_plus, 0.0)
        up = factors(self, "a_ltp", synapses, unit / volt**2, dtype).times(x.lost)
        up = up.times(Factors.along("post", brackets))

        options: Any = dict(w_min=self.w_min, w_max=self.w_max, weight_in_bounds=True, backend=backend)
        trace = u.Quantity(down.post, unit=unit)
        weight = synapses.update_on_pre(weight, pre_spike, trace, gain=-down.gain("pre"), after=after, **options)
        trace = u.Quantity(up.scaled(state.x_bar, "pre"), unit=unit)
        weight = synapses.update_on_post(weight, trace, brackets > 0, gain=up.gain("post"), **options)
        minus, plus = (
            decay(self, name, dt, synapses, "post", dtype).toward(past, average)
            for name, average in (("tau_minus", state.u_bar_minus), ("tau_plus", state.u_bar_plus))
        )
        return weight, ClopathTraces(add_spikes(x.of(state.x_bar), pre_spike), minus, plus, square)


def _numbers(name: str, voltage: Any, unit: u.Unit, state: ClopathTraces) -> jax.Array:
    check_number(name, voltage)
    numbers = jnp.asarray(in_unit(name, array_of(name, voltage), unit), state.u_bar_minus.dtype)
    if numbers.shape != state.u_bar_minus.shape:
        raise ShapeError(f"{name}: got shape {numbers.shape}, expected {state.u_bar_minus.shape}")
    return numbers
