"""The parameters of rules: one number for all, or one per neuron of a side; and the checks of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import brainunit as u
import jax.numpy as jnp
import numpy as np

from hebbax._core.forks import check_jax
from hebbax._core.numbers import check_number, concrete
from hebbax._core.sides import Side, side_of
from hebbax._core.unitless import check_mu
from hebbax.errors import ShapeError
from hebbax.operators import check_bound_order, in_unit

# A rule's class attribute `sides` says of which neurons each of its parameters may have one value each.
NONE: tuple[Side, ...] = ()
PRE: tuple[Side, ...] = ("pre",)
POST: tuple[Side, ...] = ("post",)
EITHER: tuple[Side, ...] = ("pre", "post")


class Shaped(Protocol):
    """Synapses, or what parameters of one side's neurons can be checked against in their place."""

    @property
    def shape(self) -> Any:  # (n_pre, n_post)
        ...


class Factors(NamedTuple):
    """A parameter, or a product of some: of the synapse from `i` to `j` it is `one * pre[i] * post[j]`.

    So one side's part can be the gain of an update, and the other's be multiplied into its trace.
    """

    one: Any = 1.0
    pre: Any = None  # None: 1 for all
    post: Any = None

    @classmethod
    def along(cls, side: Side, numbers: Any) -> Factors:
        """One number per neuron of this side."""
        return cls(**{side: numbers})

    def times(self, other: Factors) -> Factors:
        """The product."""
        pairs = zip(self[1:], other[1:], strict=True)
        return Factors(self.one * other.one, *(b if a is None else a if b is None else a * b for a, b in pairs))

    def gain(self, side: Side) -> Any:
        """The part that is one for all, and that of this side: a scalar, or one number per neuron."""
        own = getattr(self, side)
        return self.one if own is None else self.one * own

    def scaled(self, trace: Any, side: Side) -> Any:
        """A trace of this side's neurons times their part."""
        own = getattr(self, side)
        return trace if own is None else trace * own.astype(trace.dtype)


def factors(rule: Any, name: str, synapses: Shaped, unit: u.Unit, dtype: Any) -> Factors:
    """A rule's parameter in a unit, checked against the structure; arrays get this dtype, which is that of traces."""
    side = _side(rule, name, synapses)
    number = in_unit(name, getattr(rule, name), unit)
    if isinstance(number, (int, float, np.generic)):
        return Factors(float(number))
    number = jnp.asarray(number, dtype)
    return Factors(number) if side is None else Factors.along(side, number.reshape(-1))


def per_neuron(rule: Any, name: str, synapses: Shaped, dtype: Any) -> Any:
    """The numbers of a rule's parameter, checked against the structure: `number_of`, with one axis or none."""
    _side(rule, name, synapses)
    number = number_of(getattr(rule, name), dtype)
    return number if isinstance(number, float) or number.ndim == 0 else number.reshape(-1)


def number_of(value: Any, dtype: Any) -> Any:
    """The numbers of a value: a float, or an array of float64 and NumPy, or, where it is traced, of JAX and `dtype`."""
    number = concrete(value)
    if number is None:
        return u.get_mantissa(value).astype(dtype)
    return number.astype(np.float64) if number.ndim else float(number)


def _side(rule: Any, name: str, synapses: Shaped | None = None) -> Side | None:
    shape = np.shape(u.get_mantissa(getattr(rule, name)))
    if synapses is None:
        return side_of(name, shape, rule.sides[name])
    hint = ", as split_rule of these synapses makes it" if hasattr(synapses, "split_rule") else ""
    return side_of(name, shape, rule.sides[name], synapses.shape, hint)


def check(
    rule: Any,
    *,
    positive: tuple[str, ...],
    not_negative: tuple[str, ...] = (),
    signed: tuple[str, ...] = (),
    weights: tuple[str, ...],
    absent: tuple[str, ...] = (),
) -> None:
    """Raise where a parameter has not the shape or the unit that it should, or, unless it is traced, is out of range.

    `positive` are time constants, or all plain numbers; `weights` and the bounds, if there are any, have one unit.
    `absent` are parameters that are None, as they may be.
    """
    bounds = tuple(name for name in ("w_min", "w_max") if hasattr(rule, name))
    check_jax()
    for name in (x for x in rule.sides if x not in absent):
        check_number(name, getattr(rule, name))
        _side(rule, name)
    for name in bounds:
        check_number(name, getattr(rule, name))
        shape = np.shape(u.get_mantissa(getattr(rule, name)))
        if len(shape) > 1:
            raise ShapeError(f"{name}: got shape {shape}, expected a scalar or (nse,)")
    exponents = [name for name in ("mu", "mu_plus", "mu_minus") if hasattr(rule, name)]
    for name in exponents:
        check_mu(name, getattr(rule, name))
    check_range(rule, positive, lambda x: (x > 0) & (x < math.inf), "a finite value of more than 0")
    check_range(rule, not_negative, lambda x: (x >= 0) & (x < math.inf), "a finite value of at least 0")
    check_range(rule, signed, np.isfinite, "a finite value")
    if any(getattr(rule, name) for name in exponents):
        check_range(rule, bounds, np.isfinite, "finite bounds")
    check_range(rule, bounds, lambda x: ~np.isnan(x), "a number")
    _check_units(rule, positive, time=True)
    _check_units(rule, (*weights, *bounds))
    check_bound_order(*(getattr(rule, name, None) for name in ("w_min", "w_max")))
    pairing = getattr(rule, "pairing", "all")
    if pairing not in ("all", "nearest"):
        raise ValueError(f"pairing: got {pairing!r}, expected 'all' or 'nearest'")


def check_range(rule: Any, names: tuple[str, ...], fits: Callable[[np.ndarray], Any], expected: str) -> None:
    """Raise where a value of a parameter does not fit, and name the first of them."""
    for name in names:
        number = concrete(getattr(rule, name))
        if number is None or np.all(fits(number)):
            continue
        at = tuple(map(int, np.argwhere(~fits(number))[0]))
        unit = u.get_unit(getattr(rule, name))
        got = f"{number[at]}" if unit == u.UNITLESS else f"{number[at]} {unit}"
        raise ValueError(f"{name}{list(at) if at else ''}: got {got}, expected {expected}")


def _check_units(rule: Any, names: tuple[str, ...], time: bool = False) -> None:
    """Raise for the first parameter that has not the dimension that most of them have."""
    units = {name: u.get_unit(getattr(rule, name)) for name in names}

    def rank(unit: u.Unit) -> tuple:  # where as many have one as have another, a time or a unit is meant
        return sum(unit.has_same_dim(x) for x in units.values()), unit.has_same_dim(u.ms), unit != u.UNITLESS

    usual = max(units.values(), key=rank)
    for name in names:
        in_unit(name, getattr(rule, name), u.ms if time and usual != u.UNITLESS else usual)
