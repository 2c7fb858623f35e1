"""Values to sweep over, as text: "0.001:0.01:10", "log:1e-4:1e-2:9", "10 ms, 20 ms" or, of integers, "0:9"."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import brainunit as u
import numpy as np

from hebbax.runs.config import Schema, literal

MOST = 100_000  # members: each is a row of the table, and is checked before any memory is looked at


def over(texts: Sequence[str], schema: Schema, fixed: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return the values of constants, and of `seed`, that `NAME=VALUES` texts name; a ValueError if one is wrong.

    A seed may be among them unless it is one of the `fixed` names, which say what the program is, or what is drawn.
    """
    found: dict[str, list[Any]] = {}
    can = [name for name, x in schema.constants.items() if name not in fixed and not isinstance(x, tuple)]
    can += ["seed"] if "seed" not in fixed else []
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not equals:
            raise ValueError(f"got {text!r}, expected NAME=VALUES")
        if name in found:
            raise ValueError(f"{name}: given twice")
        if name not in can and (name in fixed or name in schema.constants):
            reason = "is a pair" if name not in fixed else "shapes the program, or what is drawn"
            raise ValueError(f"{name} {reason}: a sweep of {schema.command} can be over {', '.join(can)}")
        try:
            found[name] = _values(name, values, schema)
        except ValueError as error:
            raise ValueError(f"{text}: {error}") from None
    members = math.prod(map(len, found.values()))
    if members > MOST:
        raise ValueError(f"got {members} members, expected at most {MOST}")
    return found


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last name's values fastest."""
    return [dict(zip(values, x, strict=True)) for x in itertools.product(*values.values())]


def number_of(value: Any) -> tuple[float, str]:
    """The number of a value and its unit, "" if it has none."""
    if isinstance(value, u.Quantity):
        return float(value.mantissa), str(value.unit)
    return value, ""


def _values(name: str, text: str, schema: Schema) -> list[Any]:
    logarithmic, parts = text.startswith("log:"), text.removeprefix("log:").split(":")
    if len(parts) == 1 and not logarithmic:
        return [_one(name, x, schema) for x in text.split(",")]
    if len(parts) == 2 and not logarithmic:
        first, last = (_one(name, x, schema) for x in parts)
        if isinstance(first, int) and isinstance(last, int) and first <= last:
            _check_count(last - first + 1)
            return list(range(first, last + 1))
        raise ValueError("expected FIRST:LAST:COUNT, or FIRST:LAST of ascending integers")
    if len(parts) != 3:
        raise ValueError("expected FIRST:LAST:COUNT, log:FIRST:LAST:COUNT, or values with commas between them")
    first, last, count = _one(name, parts[0], schema), _one(name, parts[1], schema), literal(parts[2].strip())
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"got {parts[2].strip()!r} values, expected a number of at least 1")
    _check_count(count)
    (low, _), (high, _) = number_of(first), number_of(last)
    if logarithmic and not (low * high > 0):
        raise ValueError("expected two numbers of one sign, neither of them 0, for steps of one ratio")
    between = (np.geomspace if logarithmic else np.linspace)(low, high, count).tolist()
    if isinstance(first, int):
        if any(x != round(x) for x in between):
            raise ValueError(f"expected integers, got {between}")
        return [round(x) for x in between]
    return [x * u.get_unit(first) if isinstance(first, u.Quantity) else x for x in between]


def _check_count(count: int) -> None:
    if count > MOST:
        raise ValueError(f"got {count} values, expected at most {MOST}")


def _one(name: str, text: str, schema: Schema) -> Any:
    value = literal(text.strip())
    if name == "seed":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
            raise ValueError(f"got {text.strip()!r}, expected an integer from 0 to {2**32 - 1}")
        return value
    return schema.check_constants({name: value})[name]
