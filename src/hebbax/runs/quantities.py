"""Quantities as text: "16.8 ms" in files and on the command line."""

from __future__ import annotations

import difflib
import re
from typing import Any

import brainunit as u
import typer

NAMED = {
    "s": u.second,
    "V": u.volt,
    "A": u.amp,
    "F": u.farad,
    "S": u.siemens,
    "min": u.minute,
}  # else brainunit's names
COMMON = ("s", "ms", "us", "V", "mV", "uV", "Hz", "kHz", "A", "nA", "pA", "F", "nF", "pF", "S", "nS")


def quantity(text: str) -> u.Quantity:
    """The quantity that a text such as "16.8 ms" is; a ValueError that says what was expected in its place."""
    found = re.fullmatch(r"\s*([^\s]*?[\d.])\s*([^\W\d]+)\s*", text)
    if found is None:
        raise ValueError('expected a number and a unit, such as "16.8 ms"')
    try:
        number = _number(found[1])
    except ValueError:
        raise ValueError(f'expected a number before the unit, such as "16.8 {found[2]}"') from None
    return number * unit(found[2])


def _number(text: Any) -> float:
    """The number that this is, but not one that Python alone would take for one."""
    if isinstance(text, bool) or (isinstance(text, str) and "_" in text):
        raise ValueError(text)
    return float(text)


def unit(name: str) -> u.Unit:
    """The unit of this name; a ValueError where there is none."""
    name = name.replace("µ", "u").replace("μ", "u")
    found = NAMED.get(name, getattr(u, name, None))
    if isinstance(found, u.Unit):
        return found
    near = difflib.get_close_matches(name, COMMON, 1, 0.5)
    raise ValueError(f"expected a unit in place of {name}" + (f": did you mean {near[0]}?" if near else ""))


def in_unit(value: u.Quantity, wanted: u.Unit) -> float:
    """The number that a quantity is in a unit; a ValueError where it is of another dimension."""
    if not value.unit.has_same_dim(wanted):
        raise ValueError(f"expected a quantity in {wanted} or the like")
    return float(value / wanted)


class Number:
    """The parser of an option that is a number of this unit, with which the unit may be written, or another one."""

    def __init__(self, unit_name: str):
        self.unit, self.__name__ = unit_name, unit_name

    def __call__(self, text: Any) -> float:
        try:
            return _number(text)
        except (TypeError, ValueError):
            pass
        try:
            if isinstance(text, str):
                return in_unit(quantity(text), unit(self.unit))
            raise ValueError(f"expected a number, in {self.unit}")
        except ValueError as error:
            raise typer.BadParameter(f"got {text!r}, {error}") from None
