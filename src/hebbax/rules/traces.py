"""What the rules share: their traces, and the checks of what they are given."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.unitless import check_mu
from hebbax.errors import ShapeError
from hebbax.operators import check_bound_order, in_unit

Pairing: TypeAlias = Literal["all", "nearest"]


class PairTraces(NamedTuple):
    """Dimensionless traces of the neurons on either side."""

    pre: Any  # (n_pre,)
    post: Any  # (n_post,)


def decay_factor(dt: Any, tau: Any) -> Any:
    """What is left of a trace after a step.

    As the gain of an update it decays the trace at the events alone: `step` need not write the decayed trace out.
    """
    if dt is None:
        raise TypeError("dt: got None, expected a number or a Quantity")
    ratio: Any = in_unit("dt", dt, u.get_unit(tau)) / u.get_mantissa(tau)
    if not isinstance(ratio, jax.core.Tracer) and not np.all(ratio >= 0):
        raise ValueError(f"dt: got {dt}, expected at least 0")
    return math.exp(-ratio) if isinstance(ratio, (int, float)) else jnp.exp(-ratio)


def add_spikes(trace: Any, spike: Any, pairing: str = "all") -> Any:
    """The trace after this step's spikes, each of which raises it by 1 or, for 'nearest', sets it to 1."""
    return jnp.where(jnp.asarray(spike) != 0, 1.0 if pairing == "nearest" else trace + 1.0, trace)


def check_state(state: Any, expected: type) -> None:
    if not isinstance(state, expected):
        raise TypeError(f"state: got {type(state).__name__}, expected {expected.__name__}, as `init` returns it")


def check(rule: Any, positive: tuple[str, ...], not_negative: tuple[str, ...], weights: tuple[str, ...]) -> None:
    """Raise where a parameter is out of range (a traced one is not looked at) or has not the unit of its like.

    `positive` are time constants, or all plain numbers; `weights` and the bounds have one unit.
    """
    exponents = [name for name in ("mu_plus", "mu_minus") if hasattr(rule, name)]
    for name in exponents:
        check_mu(name, getattr(rule, name))
    soft = any(getattr(rule, name) for name in exponents)
    for name in (*positive, *not_negative, "w_min", "w_max"):
        value = getattr(rule, name)
        number = u.get_mantissa(value)
        if isinstance(number, jax.core.Tracer):
            continue
        if number is None or np.asarray(number).dtype.kind not in "iuf":
            raise TypeError(f"{name}: got {number!r}, expected a number or a Quantity")
        if name not in ("w_min", "w_max") and np.ndim(number):
            raise ShapeError(f"{name}: got shape {np.shape(number)}, expected a scalar")
        if name in positive and not 0 < number < math.inf:
            raise ValueError(f"{name}: got {value}, expected a finite value of more than 0")
        if name in not_negative and not 0 <= number < math.inf:
            raise ValueError(f"{name}: got {value}, expected a finite value of at least 0")
        if np.isnan(number).any() or (soft and np.isinf(number).any()):
            raise ValueError(f"{name}: got {value}, expected {'finite bounds' if soft else 'a number'}")
    _check_units(rule, positive, time=True)
    _check_units(rule, (*weights, "w_min", "w_max"))
    check_bound_order(rule.w_min, rule.w_max)
    pairing = getattr(rule, "pairing", "all")
    if pairing not in ("all", "nearest"):
        raise ValueError(f"pairing: got {pairing!r}, expected 'all' or 'nearest'")


def _check_units(rule: Any, names: tuple[str, ...], time: bool = False) -> None:
    """Raise for the first parameter that has not the dimension that most of them have."""
    units = {name: u.get_unit(getattr(rule, name)) for name in names}

    def rank(unit: u.Unit) -> tuple:  # where as many have one as have another, a time or a unit is meant
        return sum(unit.has_same_dim(x) for x in units.values()), unit.has_same_dim(u.ms), unit != u.UNITLESS

    usual = max(units.values(), key=rank)
    for name in names:
        in_unit(name, getattr(rule, name), u.ms if time and usual != u.UNITLESS else usual)
