"""What all recorders check when they are made, and when they are read."""

from __future__ import annotations

import math
from typing import Any

import brainunit as u
import jax
import numpy as np

from hebbax._core.logs import MOST
from hebbax._core.numbers import check_number, concrete
from hebbax.errors import RecordOverflow, ShapeError


def checked_count(name: str, x: Any, least: int = 1) -> int:
    """An integer that says how many there are of something."""
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name}: got {x!r}, expected an integer")
    if not least <= x <= MOST:
        raise ValueError(f"{name}: got {x}, expected {least} to {MOST}")
    return int(x)


def check_size(name: str, what: str, size: int) -> None:
    """Raise where an array is larger than int32 counts."""
    if size > MOST:
        raise ValueError(f"{name}: got {what}, an array of {size} numbers, expected at most {MOST}")


def on_host(name: str, x: Any, ndim: int) -> np.ndarray:
    """The array of a recorder, which must be that of one and not of a batch, and not traced."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"{name}: got a traced array, expected a concrete one: return the recorder, and read it outside"
        )
    if x.ndim != ndim:
        members = x.shape[: x.ndim - ndim]
        raise ShapeError(
            f"{name}: got a batch of {members} recorders, expected one: jax.tree.map(lambda x: x[0], recorder), say"
        )
    return np.asarray(x)


def check_kept(what: str, lost: int, capacity: int, argument: str, partial: Any) -> None:
    """Raise where something was lost, unless what is left is asked for."""
    if not isinstance(partial, (bool, np.bool_)):
        raise TypeError(f"partial: got {partial!r}, expected True or False")
    if lost and not partial:
        message = (
            f"{lost} of {capacity + lost} {what} were lost: {argument} was {capacity}, and {capacity + lost} would "
            "have been enough; partial=True gives what was kept"
        )
        raise RecordOverflow(message, lost, capacity)


def check_steps(steps: int) -> None:
    """Raise where more steps were recorded than are counted."""
    if steps >= MOST:
        raise RecordOverflow(f"{MOST} steps were recorded, or more: no more are counted", 1, MOST - 1)


def timed(steps: np.ndarray, dt: Any) -> dict[str, Any]:
    """The column of a table that says when: steps, or times where the length of a step is known."""
    return {"step": steps} if dt is None else {"time": times(steps, dt)}


def times(steps: np.ndarray, dt: Any) -> Any:
    """When steps begin: NumPy array of float64, with the unit of `dt` if that has one."""
    number, unit = checked_dt(dt)
    numbers = steps.astype(np.float64) * number
    return numbers if unit is None else u.Quantity(numbers, unit=unit)


def checked_dt(dt: Any) -> tuple[float, u.Unit | None]:
    """The number of a time step, and its unit."""
    check_number("dt", dt)
    number = concrete(dt)
    if number is None:
        raise TypeError("dt: got a traced value, expected a concrete one")
    if number.ndim:
        raise ShapeError(f"dt: got shape {number.shape}, expected a scalar")
    if not 0 < number < math.inf:
        raise ValueError(f"dt: got {dt}, expected a finite value of more than 0")
    unit = dt.unit if isinstance(dt, u.Quantity) else None
    if unit is not None and not unit.has_same_dim(u.second):
        raise u.UnitMismatchError(f"dt: got a value of unit {unit}, expected one convertible to s", unit, u.second)
    return float(number), unit
