"""One delay for all: rings of what was pushed in the last steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.building import with_unit
from hebbax._core.compat import vary_alike
from hebbax._core.fence import fence
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.numbers import check_number, concrete
from hebbax._core.pytree import assemble, pytree
from hebbax.errors import ShapeError
from hebbax.operators import WithUnit, in_unit

__all__ = ["Ring", "steps"]

_ROUNDING = 1e-3  # of a step, by which a delay may miss a multiple of it


def steps(delay: WithUnit, dt: WithUnit, name: str = "delay") -> Any:
    """How many steps a delay takes.

    Parameters
    ----------
    delay : number, array or Quantity, any shape
        Times, each a multiple of `dt` up to a thousandth of it: not negative, finite, not traced.
    dt : number or Quantity, scalar
        Length of a step, more than 0.
    name : str, default 'delay'
        What messages call `delay`.

    Returns
    -------
    int, or NumPy array of int64 with the shape of `delay`

    Raises
    ------
    ValueError, TypeError
        A value is out of range, no multiple, traced or no number; with its position.
    hebbax.errors.ShapeError
        `dt` is no scalar.
    brainunit.UnitMismatchError
        The units do not go together.

    Examples
    --------
    >>> import brainunit as u, hebbax
    >>> hebbax.delays.steps(1.5 * u.ms, 0.1 * u.ms)
    15
    """
    numbers = []
    for what, value in ((name, delay), ("dt", dt)):
        check_number(what, value)
        number = concrete(value)
        if number is None:
            raise TypeError(f"{what}: got a traced value, expected a concrete one: the length of a ring is compiled in")
        numbers.append(number.astype(np.float64))
    times, step = numbers
    if step.ndim:
        raise ShapeError(f"dt: got shape {step.shape}, expected a scalar")
    if not 0 < step < math.inf:
        raise ValueError(f"dt: got {dt}, expected a finite value of more than 0")
    unit = u.get_unit(delay)
    ratio = times / (step * in_unit("dt", u.Quantity(1.0, unit=u.get_unit(dt)), unit))
    whole = np.round(ratio)
    with np.errstate(invalid="ignore"):
        wrong = ~((whole >= 0) & (whole < 2**31) & (abs(ratio - whole) <= _ROUNDING))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        got = f"{times[at]:g}" if unit == u.UNITLESS else f"{times[at]:g} {unit}"
        expected = f"a multiple of dt = {dt}" if ratio[at] < 2**31 else f"fewer than 2**31 steps of dt = {dt}"
        expected = expected if 0 <= times[at] < math.inf else "a finite value of at least 0"
        raise ValueError(f"{name}{list(at) if at else ''}: got {got}, expected {expected}")
    return whole.astype(np.int64) if whole.ndim else int(whole)


@pytree("length")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Ring:
    """What was pushed in the last steps: one delay for a whole projection, of spikes or of anything else.

    It is a frozen pytree of two arrays, made by `Ring.of`: carry it through a loop, donate it, save it. A push writes
    one entry, in place where XLA may; a read reads one. In `vmap` and `shard_map`, make it inside.

    Attributes
    ----------
    values : Array or Quantity, shape (length + 1, ...)
        The entries, the last one at `position`, those before it before that, around the end.
    position : Array of int32, scalar
        Where the last push wrote.
    length : int
        Steps of the longest delay.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> ring = hebbax.delays.Ring.of(jnp.zeros(2, bool), 0.2 * u.ms, dt=0.1 * u.ms)
    >>> for spike in ([True, False], [False, True], [False, False]):
    ...     ring, arriving = ring.push(jnp.array(spike))
    >>> arriving
    Array([ True, False], dtype=bool)
    >>> ring.read(0.1 * u.ms, dt=0.1 * u.ms), ring.due()
    (Array([False,  True], dtype=bool), Array([False,  True], dtype=bool))
    """

    values: Any
    position: jax.Array
    length: int

    @classmethod
    def of(cls, x: Any, delay: WithUnit, dt: WithUnit) -> Ring:
        """Return a ring for arrays like `x` in which nothing was pushed yet: it holds zeros.

        Parameters
        ----------
        x : Array or Quantity, shape (...)
            An example of what will be pushed, of any dtype: spikes, say, or currents.
        delay : number or Quantity, scalar
            The longest delay: a multiple of `dt` up to a thousandth of it; 0 is one.
        dt : number or Quantity, scalar
            Length of a step.

        Raises
        ------
        ValueError, TypeError, hebbax.errors.ShapeError, brainunit.UnitMismatchError
            As `hebbax.delays.steps`.
        """
        check_jax()
        length = _scalar_steps(delay, dt)
        numbers, unit = _numbers(array_of("x", x))
        values, _ = vary_alike([jnp.zeros((length + 1, *numbers.shape), numbers.dtype), numbers])
        fields = dict(values=with_unit(values, unit), position=jnp.int32(length), length=length)
        return assemble(cls, fields)

    def push(self, x: Any) -> tuple[Ring, Any]:
        """Write `x`, of this step, and return the ring, and what was pushed its whole length ago (0: `x` itself).

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, brainunit.UnitMismatchError
            `x` has another shape, dtype or dimension than what the ring was made for.
        """
        values, unit = _numbers(self.values)
        numbers = jnp.asarray(in_unit("x", array_of("x", x), u.UNITLESS if unit is None else unit))
        if numbers.shape != values.shape[1:]:
            raise ShapeError(f"x: got shape {numbers.shape}, expected {values.shape[1:]}, for which the ring was made")
        if numbers.dtype != values.dtype:
            raise TypeError(f"x: got dtype {numbers.dtype}, expected {values.dtype}, for which the ring was made")
        position = jnp.where(self.position == self.length, 0, self.position + 1)
        values = jax.lax.dynamic_update_index_in_dim(values, numbers, position, 0)
        fields = dict(values=with_unit(values, unit), position=position, length=self.length)
        ring = assemble(Ring, fields)
        return ring, ring._ago(self.length)

    def read(self, delay: WithUnit, dt: WithUnit) -> Any:
        """Return what was pushed `delay` before the last push.

        Raises
        ------
        ValueError, TypeError, hebbax.errors.ShapeError, brainunit.UnitMismatchError
            As `hebbax.delays.steps`, and a ValueError where the ring is shorter.
        """
        ago = _scalar_steps(delay, dt)
        if ago > self.length:
            raise ValueError(f"delay: got {delay}, {ago} steps, expected at most the ring's {self.length}")
        return self._ago(ago)

    def due(self) -> Any:
        """Return what the next push will return, before it is known what that pushes.

        That is what a recurrent network needs: the spikes that arrive in a step act on the neurons whose spikes it
        pushes.

        Raises
        ------
        ValueError
            The ring has no delay.
        """
        if self.length == 0:
            raise ValueError("delay: got 0 steps, expected at least 1, or what is due is not pushed yet")
        # Fenced: XLA would read it anew wherever it is used, after the push too, and keep a copy of the ring for that.
        return fence(self._ago(self.length - 1))

    def _ago(self, steps: int) -> Any:
        values, unit = _numbers(self.values)
        place = self.position - steps
        place = jnp.where(place < 0, place + self.length + 1, place)
        return with_unit(jax.lax.dynamic_index_in_dim(values, place, 0, keepdims=False), unit)

    def __repr__(self) -> str:
        return f"Ring(length={self.length}, values={self.values!r}, position={self.position!r})"


def _scalar_steps(delay: WithUnit, dt: WithUnit) -> int:
    count = steps(delay, dt)
    if not isinstance(count, int):
        raise ShapeError(f"delay: got shape {count.shape}, expected a scalar, one delay for all")
    return count


def _numbers(x: Any) -> tuple[jax.Array, u.Unit | None]:
    unit = x.unit if isinstance(x, u.Quantity) else None
    return jnp.asarray(x.mantissa if unit is not None else x), unit
