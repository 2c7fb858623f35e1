"""The traces that the rules share, and how a step decays them."""

from __future__ import annotations

import functools
import math
import sys
import warnings
from typing import Any, Literal, NamedTuple, TypeAlias

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.numbers import check_number
from hebbax._core.sent import SpikeLists, fade, fade_dense
from hebbax._core.sides import Side
from hebbax._core.unitless import spikes_of
from hebbax.errors import ShapeError
from hebbax.operators import in_unit
from hebbax.rules._parameters import Factors, Shaped, factors, number_of, per_neuron

Pairing: TypeAlias = Literal["all", "nearest"]


class EventTrace(NamedTuple):
    """A trace that is written where its neurons spike, and not at every step: it is `value * exp(-age)`."""

    value: Any  # (n,)
    age: Any  # scalar, in time constants
    lost: Any  # scalar, by how much rounding has made the age too small

    @classmethod
    def zeros(cls, n: int) -> EventTrace:
        """The trace of neurons that have not spiked yet."""
        return cls(*zeros(n), *(jnp.zeros(()) for _ in range(2)))

    @property
    def left(self) -> Any:
        """What is left of the value."""
        return jnp.exp(-self.age)

    def older(self, ratio: Any) -> EventTrace:
        """The trace after a step of so many time constants (added up as Kahan does, or small ones would be lost)."""
        step = jnp.asarray(ratio, self.age.dtype) + self.lost
        age = self.age + step
        return self._replace(age=age, lost=jnp.where(jnp.isfinite(age), step - (age - self.age), 0))

    def with_spikes(self, spike: Any, pairing: str) -> EventTrace:
        """The trace after this step's spikes; once in many steps, what is left becomes the value."""
        renewed = self.age > _RENEWED
        keep, amount = jnp.where(renewed, self.left, 1), jnp.where(renewed, 1, jnp.exp(self.age))
        sets = pairing == "nearest"
        if isinstance(spike, SpikeLists):
            value = fade(self.value, keep, amount, spike, sets=sets)
        else:
            value = fade_dense(self.value, keep, amount, spikes_of("spike", spike), sets=sets)
        return EventTrace(value, *(jnp.where(renewed, 0, x) for x in (self.age, self.lost)))


class PairTraces(NamedTuple):
    """Dimensionless traces of the neurons on either side."""

    pre: Any  # (n_pre,), or an EventTrace
    post: Any  # (n_post,)


def pair_traces(rule: Any, synapses: Shaped, at_events: bool) -> PairTraces:
    """Those of neurons that have not spiked yet, for a rule of pairs."""
    n_pre, n_post = synapses.shape
    if not at_events:
        return PairTraces(*zeros(n_pre, n_post))
    if np.ndim(u.get_mantissa(rule.tau_plus)):
        raise ValueError("at_events: got True with a tau_plus that differs between neurons, expected one for all")
    return PairTraces(EventTrace.zeros(n_pre), *zeros(n_post))


_RENEWED = 16.0  # time constants, after which exp(age) becomes the unit of an EventTrace anew


# Below this dt / tau, what a step takes away is computed, and not what it leaves, which is so close to 1 that its
# rounding to float32 would show: at 1e-6, as a time constant that is 1.5% off instead of 0.01%.
_SLOW = 2.0**-10
_WRONG = 0.02  # of a time constant, from where on a step warns


class Decay(NamedTuple):
    """What a step does to the traces of one side: `exp(-ratio)` of each is left."""

    side: Side
    ratio: Any  # dt / tau: a float, or an array, scalar or of one axis
    dtype: Any  # of the traces

    @property
    def factors(self) -> Factors:
        """What is left, as a factor of an update: then `step` need not write the decayed trace out before it."""
        return self._factors(self._compute("exp"))

    @property
    def lost(self) -> Factors:
        """What the step takes away, as a factor: that times the time constant is the trace's integral over the step."""
        return self._factors(-self._compute("expm1"))

    def of(self, trace: Any) -> Any:
        """The decayed trace."""
        if not isinstance(self.ratio, float):
            slow, fast = trace + trace * self._compute("expm1"), trace * self._compute("exp")
            return jnp.where(self.ratio < _SLOW, slow, fast)
        return trace + trace * self._compute("expm1") if self.ratio < _SLOW else trace * self._compute("exp")

    @property
    def elapsed(self) -> Factors:
        """The length of the step in time constants."""
        return self._factors(self.ratio if isinstance(self.ratio, float) else jnp.asarray(self.ratio, self.dtype))

    def toward(self, goal: Any, average: Any) -> Any:
        """The average, which relaxes to what it is of, held for the step, as a trace does to 0."""
        return average - (goal - average) * self._compute("expm1")

    def _factors(self, x: Any) -> Factors:
        return Factors(x) if np.ndim(x) == 0 else Factors.along(self.side, x)

    def _compute(self, function: str) -> Any:
        if isinstance(self.ratio, float):
            return getattr(math, function)(-self.ratio)
        library = np if isinstance(self.ratio, np.ndarray) else jnp
        return jnp.asarray(getattr(library, function)(-self.ratio), self.dtype)


def decay(rule: Any, name: str, dt: Any, synapses: Shaped, side: Side, dtype: Any) -> Decay:
    """The decay of traces of this dtype with the rule's time constant of that name; with one of 0, nothing is left."""
    check_number("dt", dt)
    unit = u.get_unit(getattr(rule, name))
    scale = in_unit("dt", u.Quantity(1.0, unit=u.get_unit(dt)), unit)
    if shape := np.shape(u.get_mantissa(dt)):
        raise ShapeError(f"dt: got shape {shape}, expected a scalar")
    time = number_of(dt, dtype) * scale
    if isinstance(time, float) and not time >= 0:
        raise ValueError(f"dt: got {dt}, expected at least 0")
    ratio = _ratio(time, per_neuron(rule, name, synapses, dtype))
    if not isinstance(ratio, jax.Array):
        _warn_if_too_slow(name, time, float(np.min(ratio, initial=math.inf)), unit, jnp.dtype(dtype))
    return Decay(side, ratio, dtype)


def _ratio(time: Any, tau: Any) -> Any:
    if isinstance(tau, float):
        return time / tau if tau else math.inf
    library = jnp if isinstance(time, jax.Array) or isinstance(tau, jax.Array) else np
    none = tau == 0
    return library.where(none, math.inf, time / library.where(none, 1.0, tau))


def at_target(rule: Any, synapses: Shaped, dtype: Any) -> Any:
    """The trace, decaying with the rule's `tau`, of a postsynaptic neuron that fires at its `target_rate`."""
    unit = u.get_unit(rule.tau)
    rate, tau = (factors(rule, name, synapses, x, dtype) for name, x in (("target_rate", unit**-1), ("tau", unit)))
    return rate.times(tau).gain("post")


def _warn_if_too_slow(name: str, time: float, ratio: float, unit: u.Unit, dtype: np.dtype) -> None:
    """Say where rounding changes the time constant. (In numbers: Quantities are traced under `jit`.)"""
    stretch = _stretch(ratio, dtype) if 0 < ratio < _SLOW else 1.0
    if abs(stretch - 1) > _WRONG:
        of = "" if unit == u.UNITLESS else f" {unit}"
        does = f"decays about as with {time / ratio * stretch:.3g}{of}" if math.isfinite(stretch) else "never decays"
        warnings.warn(
            f"{name}: got {time / ratio:.6g}{of}, but in steps of {time:g}{of} a trace of {dtype} {does}, by "
            f"rounding; take longer steps, or traces of float64 (with JAX's x64 flag)",
            RuntimeWarning,
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """The `stacklevel` with which the function that calls this one warns of the first line outside hebbax."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("hebbax."):
        frame, level = frame.f_back, level + 1
    return level


@functools.lru_cache
def _stretch(ratio: float, dtype: np.dtype) -> float:
    """By how much rounding stretches the time in which a trace of this dtype halves.

    From 1 to 1/2, floating-point numbers are a `grain` apart, and a step takes away a whole number of them, the nearest
    one to `trace * ratio`. So that time is a sum over these numbers.
    """
    grain = float(jnp.finfo(dtype).epsneg)
    if ratio > 1e4 * grain:
        return 1.0
    taken = np.arange(round(ratio / 2 / grain), round(ratio / grain) + 1)
    first = np.clip((taken - 0.5) * grain / ratio, 0.5, 1)  # the traces of which a step takes so many
    last = np.clip((taken + 0.5) * grain / ratio, 0.5, 1)
    with np.errstate(divide="ignore"):
        steps = np.where(last > first, (last - first) / (taken * grain), 0).sum()
    return float(steps * ratio / math.log(2))


def add_spikes(trace: Any, spike: Any, pairing: str = "all") -> Any:
    """The trace after this step's spikes, each of which raises it by 1 or, for 'nearest', sets it to 1."""
    return jnp.where(spikes_of("spike", spike), 1.0 if pairing == "nearest" else trace + 1.0, trace)


def zeros(*sizes: int) -> tuple[jax.Array, ...]:
    """Traces of neurons that have not spiked yet; not one array twice, which JAX would not let be donated."""
    check_jax()
    return tuple(jnp.zeros(n) for n in sizes)


def check_step(weight: Any, state: Any, expected: type) -> tuple[u.Unit, Any]:
    """The unit of the weight and the dtype of the traces; raise unless `init` or a step has returned such a state."""
    array_of("weight", weight)
    return u.get_unit(weight), check_state(state, expected)


def check_state(state: Any, expected: type) -> Any:
    """The dtype of the traces, for a step; raise unless `init` or a step has returned such a state."""
    check_jax()
    if not isinstance(state, expected):
        raise TypeError(f"state: got {type(state).__name__}, expected {expected.__name__}, as `init` returns it")
    for name, trace in state._asdict().items():  # type: ignore[attr-defined]
        for x in trace if isinstance(trace, EventTrace) else (trace,):
            array_of(f"state.{name}", x)
    dtypes = sorted({jnp.result_type(x).name for x in jax.tree.leaves(state)})
    if dtypes not in (["float32"], ["float64"]):
        raise TypeError(f"state: got traces of {' and '.join(dtypes)}, expected all of float32, or all of float64")
    return jnp.dtype(dtypes[0])
