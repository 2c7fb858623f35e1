"""What the rules share: their traces, and the check of their parameters."""

from __future__ import annotations

import math
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax.operators import check_bound_order, in_unit


def left(dt: Any, tau: Any) -> Any:
    """What is left of a trace after a step.

    As the gain of an update it decays the trace at the events alone: `step` need not write the decayed trace out.
    """
    ratio: Any = in_unit("dt", dt, u.get_unit(tau)) / u.get_mantissa(tau)
    if not isinstance(ratio, (int, float)):
        return jnp.exp(-ratio)
    if not ratio >= 0:
        raise ValueError(f"dt: got {dt}, expected at least 0")
    return math.exp(-ratio)


def count(trace: Any, spike: Any, amount: Any, pairing: str) -> Any:
    """The trace after this step's spikes."""
    return u.math.where(jnp.asarray(spike) != 0, amount if pairing == "nearest" else trace + amount, trace)


def zeros(n: int, like: Any) -> Any:
    """The traces of neurons that have not spiked, in the unit of `like`."""
    trace = jnp.zeros(n)
    return u.Quantity(trace, unit=like.unit) if isinstance(like, u.Quantity) else trace


def check(rule: Any, positive: tuple[str, ...], not_negative: tuple[str, ...], weights: tuple[str, ...]) -> None:
    """Raise where a parameter is out of range (a traced one is not looked at) or has not the unit of its like.

    `positive` are time constants, or all plain numbers; the first of `weights` tells the unit of the others and of the
    bounds.
    """
    for name in (*positive, *not_negative, "w_min", "w_max"):
        number = u.get_mantissa(getattr(rule, name))
        if isinstance(number, jax.core.Tracer):
            continue
        if number is None or np.asarray(number).dtype.kind not in "iuf":
            raise TypeError(f"{name}: got {number!r}, expected a number or a Quantity")
        if name in positive and not np.all(number > 0):
            raise ValueError(f"{name}: got {getattr(rule, name)}, expected more than 0")
        if name in not_negative and not np.all(number >= 0):
            raise ValueError(f"{name}: got {getattr(rule, name)}, expected at least 0")
    time, weight = (u.get_unit(getattr(rule, names[0])) for names in (positive, weights))
    for name in positive:
        in_unit(name, getattr(rule, name), u.UNITLESS if time == u.UNITLESS else u.ms)
    for name in (*weights, "w_min", "w_max"):
        in_unit(name, getattr(rule, name), weight)
    check_bound_order(rule.w_min, rule.w_max)
    for name in ("mu_plus", "mu_minus"):
        mu = getattr(rule, name, 0.0)
        if not (isinstance(mu, (int, float, np.integer, np.floating)) and 0 <= mu < math.inf):
            raise ValueError(f"{name}: got {mu!r}, expected a finite number of at least 0")
    pairing = getattr(rule, "pairing", "all")
    if pairing not in ("all", "nearest"):
        raise ValueError(f"pairing: got {pairing!r}, expected 'all' or 'nearest'")
