"""Some weights, every so many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import connectivity, logs
from hebbax._core.building import weight_numbers, with_unit, without_unit
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.pytree import assemble, pytree
from hebbax.errors import ShapeError
from hebbax.operators import WithUnit, in_unit
from hebbax.record._reading import check_kept, check_size, check_steps, checked_count, on_host, timed


@pytree("nse", "every", "samples")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Weights:
    """Samples of the weights of chosen synapses, with room for a fixed number of samples.

    It is a frozen pytree, made by `Weights.of`. Samples that there is no room for are counted; reading then raises.

    Attributes
    ----------
    values : Array or Quantity, shape (samples * k,)
        The samples, one after the other, with the dtype and unit of the weights.
    plan : Array of int32, shape (2 + k,)
        Number of steps that were recorded, `every`, then the synapses' positions, in the order of the weights.
    nse, every, samples : int
        Numbers of weights, of steps from one sample to the next, and of samples for which there is room.

    Notes
    -----
    Weights are looked at where a sample is due; on other platforms than CPUs it is plain JAX. Record the weights that a
    step returns. Those before the step have to be recorded before they are changed, and the change has to wait for it
    (`after=(current, weights)`), or XLA copies all of them.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax, jax.numpy as jnp
    >>> weight = jnp.arange(5.0) * u.nS
    >>> weights = hebbax.record.Weights.of(weight, [0, 4], every=2, samples=3)
    >>> def step(state, _):
    ...     weight, weights = state
    ...     weights = weights.record(weight)
    ...     return (weight + 1.0 * u.nS, weights), None
    >>> (weight, weights), _ = jax.lax.scan(step, (weight, weights), length=4)
    >>> weights.course()
    Quantity([[0. 4.]
              [2. 6.]], "nS")
    >>> table = weights.table(0.5)
    >>> table["time"], table["synapse"], table["weight"]
    (array([0., 0., 1., 1.]), array([0, 4, 0, 4], dtype=int32), array([0., 4., 2., 6.], dtype=float32))
    """

    values: Any
    plan: jax.Array
    nse: int
    every: int
    samples: int

    @classmethod
    def of(cls, weight: WithUnit, positions: Any, every: int, samples: int) -> Weights:
        """Return a recorder in which nothing was recorded yet.

        Parameters
        ----------
        weight : Array or Quantity, shape (nse,)
            An example of what will be recorded.
        positions : array of int, shape (k,)
            Which of them.
        every : int
            Steps from one sample to the next; the first step is one.
        samples : int
            For how many samples there is room.

        Raises
        ------
        TypeError, ValueError, hebbax.errors.ShapeError
            One of them is of another type, out of range, or has another shape.
        """
        check_jax()
        numbers, unit = weight_numbers("weight", weight, None)
        if numbers.ndim != 1:
            raise ShapeError(f"weight: got shape {numbers.shape}, expected (nse,), one entry per synapse")
        every, samples = checked_count("every", every), checked_count("samples", samples)
        if every * samples > logs.MOST:
            raise ValueError(f"samples: got {samples} every {every} steps, expected at most {logs.MOST} steps in all")
        nse = numbers.size
        ids = connectivity.checked_integers("positions", positions)
        if (wrong := (ids < 0) | (ids >= nse)).any():
            k = int(np.argmax(wrong))
            raise ValueError(f"positions[{k}]: got {ids[k]}, expected {f'0 to {nse - 1}' if nse else 'none'}")
        check_size("samples", f"{samples} of {ids.size} weights", samples * ids.size)
        fields = dict(
            values=with_unit(jnp.zeros(samples * ids.size, numbers.dtype), unit),
            plan=jnp.concatenate([jnp.array([0, every], jnp.int32), jnp.asarray(ids, jnp.int32)]),
            nse=nse,
            every=every,
            samples=samples,
        )
        return assemble(cls, fields)

    def record(self, weight: WithUnit) -> Weights:
        """Return the recorder with the next step's weights, if a sample is due, in place where XLA may.

        Parameters
        ----------
        weight : Array or Quantity, shape (nse,)
            With the dtype and dimension of those that it was made for.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, brainunit.UnitMismatchError
            `weight` has another shape, dtype or dimension.
        """
        check_jax()
        values, unit = without_unit(self.values)
        numbers = in_unit("weight", array_of("weight", weight), u.UNITLESS if unit is None else unit)
        given = jnp.asarray(weight_numbers("weight", numbers, (self.nse,))[0])
        if given.dtype != values.dtype:
            raise TypeError(f"weight: got dtype {given.dtype}, expected {values.dtype}, for which it was made")
        values, plan = logs.sample(values, given, self.plan)
        new = {"values": with_unit(values, unit), "plan": plan}
        return assemble(Weights, {**vars(self), **new})

    @property
    def steps(self) -> jax.Array:
        """How many steps were recorded: int32, which stops at 2^31 - 1."""
        return self.plan[..., logs.SAMPLED_STEPS]

    def course(self, *, partial: bool = False) -> Any:
        """Return the samples, NumPy array, with the unit of the weights if they have one, shape (samples taken, k).

        Parameters
        ----------
        partial : bool, default False
            Give the first ones also where there was no room for others.

        Raises
        ------
        hebbax.errors.RecordOverflow
            There was not: it says how many samples were lost, and for how many there was room.
        TypeError, hebbax.errors.ShapeError
            The recorder is traced, or a batch of them.
        """
        values, unit = without_unit(self.values)
        values, plan = on_host("values", values, 1), on_host("plan", self.plan, 1)
        steps = int(plan[logs.SAMPLED_STEPS])
        check_steps(steps)
        taken = -(-steps // self.every)
        check_kept("samples", max(taken - self.samples, 0), self.samples, "samples", partial)
        return with_unit(values.reshape(self.samples, plan.size - logs.SAMPLES_HEADER)[:taken].copy(), unit)

    def table(self, dt: WithUnit | None = None, *, partial: bool = False) -> dict[str, Any]:
        """Return the samples as a table: `"time"`, or `"step"` without `dt`, `"synapse"` and `"weight"`.

        Takes and raises what `Spikes.table` does; `partial` is as in `course`. Arrays have shape (samples taken * k,).
        If `dt` has a unit, times have it, and weights have theirs; else all are plain numbers.
        """
        course, synapses = self.course(partial=partial), on_host("plan", self.plan, 1)[logs.SAMPLES_HEADER :]
        steps = np.arange(course.shape[0], dtype=np.int32) * self.every
        when = timed(np.repeat(steps, synapses.size), dt)
        weight = course if isinstance(dt, u.Quantity) else u.get_mantissa(course)
        return when | {"synapse": np.tile(synapses, steps.size), "weight": weight.reshape(-1)}

    def __repr__(self) -> str:
        return f"Weights(samples={self.samples}, every={self.every}, k={self.plan.shape[-1] - logs.SAMPLES_HEADER})"
