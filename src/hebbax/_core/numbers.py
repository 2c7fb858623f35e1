"""Numbers that a user gives, with a unit or without: that they are some, and their values where these can be seen."""

from __future__ import annotations

from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.foreign import array_of


def check_number(name: str, value: Any) -> None:
    """Raise unless this is a real number, an array of them, or a Quantity."""
    value = array_of(name, value)
    number = None if isinstance(value, (list, tuple)) else u.get_mantissa(value)
    dtype = None if number is None else number.dtype if hasattr(number, "dtype") else np.asarray(number).dtype
    if dtype is None or not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"{name}: got {value!r}, expected a number, an array or a Quantity")


def concrete(value: Any) -> np.ndarray | None:
    """The numbers of a parameter; None where they cannot be seen, since it is traced, or also in other processes."""
    number = u.get_mantissa(value)
    if isinstance(number, jax.core.Tracer) or (isinstance(number, jax.Array) and not number.is_fully_addressable):
        return None
    return np.asarray(number)
