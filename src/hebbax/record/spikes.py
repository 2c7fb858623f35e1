"""Who spiked when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hebbax._core import logs
from hebbax._core.forks import check_jax
from hebbax._core.pytree import assemble, pytree
from hebbax._core.unitless import spikes_of
from hebbax.operators import Plain, WithUnit
from hebbax.record._reading import check_kept, check_size, check_steps, checked_count, on_host, timed, times


@pytree("n")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Spikes:
    """Spikes as a list of steps and neurons, with room for a fixed number of them.

    It is a frozen pytree of one array, made by `Spikes.of`. What there is no room for is counted, and written nowhere;
    reading then raises.

    Attributes
    ----------
    log : Array of int32, shape (2 + 2 * capacity,)
        Number of spikes that were recorded, number of steps, then step and neuron of each spike.
    n : int
        Number of neurons.

    Notes
    -----
    8 bytes a spike. A step costs a look at every neuron's byte, 8 to 128 at a time, and what its spikes take; on other
    platforms than CPUs it is plain JAX. In `vmap`, make it inside, or index what comes out.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax, jax.numpy as jnp
    >>> spikes = hebbax.record.Spikes.of(3, capacity=4)
    >>> raster = jnp.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], bool)
    >>> spikes, _ = jax.lax.scan(lambda spikes, spike: (spikes.record(spike), None), spikes, raster)
    >>> spikes.table(0.5 * u.ms)
    {'time': Quantity([0. 0. 1.], "ms"), 'neuron': array([0, 2, 1], dtype=int32)}
    >>> spikes.trains(0.5)
    [array([0.]), array([1.]), array([0.])]
    >>> spikes = spikes.record(jnp.array([True, True, False]))
    >>> spikes.table()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    hebbax.errors.RecordOverflow: 1 of 5 spikes were lost: capacity was 4, and 5 would have been enough; ...
    >>> spikes.table(partial=True)["neuron"]
    array([0, 2, 1, 0], dtype=int32)
    """

    log: jax.Array
    n: int

    @classmethod
    def of(cls, n: int, capacity: int) -> Spikes:
        """Return a recorder in which nothing was recorded yet.

        Parameters
        ----------
        n : int
            Number of neurons.
        capacity : int
            For how many spikes there is room, of all neurons and steps together: at most 2^30 - 2.

        Raises
        ------
        TypeError, ValueError
            One of them is no integer, or out of range.
        """
        check_jax()
        n, capacity = checked_count("n", n, 0), checked_count("capacity", capacity, 0)
        check_size("capacity", str(capacity), logs.SPIKES_HEADER + 2 * capacity)
        return assemble(cls, dict(log=logs.spikes_log(capacity), n=n))

    def record(self, spike: Plain) -> Spikes:
        """Return the recorder with the spikes of the next step, in place where XLA may.

        Parameters
        ----------
        spike : Array, shape (n,), bool or real
            Whether each neuron spikes; `SpikeLists` are taken too.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError
            `spike` has another shape, or is not real.
        """
        check_jax()
        return assemble(Spikes, dict(log=logs.append(self.log, spikes_of("spike", spike, self.n)), n=self.n))

    def emptied(self) -> Spikes:
        """Return the recorder without its spikes, which goes on counting steps: for runs that are read in chunks."""
        return assemble(Spikes, dict(log=self.log.at[..., logs.COUNT].set(0), n=self.n))

    @property
    def capacity(self) -> int:
        """For how many spikes there is room."""
        return (self.log.shape[-1] - logs.SPIKES_HEADER) // 2

    @property
    def count(self) -> jax.Array:
        """How many spikes were recorded since it was made or emptied, those that were lost too: int32."""
        return self.log[..., logs.COUNT]

    @property
    def lost(self) -> jax.Array:
        """For how many of them there was no room: int32."""
        return jax.numpy.maximum(self.count - self.capacity, 0)

    @property
    def steps(self) -> jax.Array:
        """How many steps were recorded: int32, which stops at 2^31 - 1."""
        return self.log[..., logs.STEPS]

    def table(self, dt: WithUnit | None = None, *, partial: bool = False) -> dict[str, Any]:
        """Return when each spike was, and of which neuron, in the order of time.

        Parameters
        ----------
        dt : number or Quantity, scalar, optional
            Length of a step. The first one begins at 0.
        partial : bool, default False
            Give what was kept, also where spikes were lost: the first ones.

        Returns
        -------
        dict
            `"time"`, NumPy array of float64, with the unit of `dt` if that has one, or `"step"`, of int32, if it is not
            given; and `"neuron"`, of int32. All have shape (spikes,).

        Raises
        ------
        hebbax.errors.RecordOverflow
            Spikes were lost: it says how many, and which capacity would have been enough.
        TypeError, ValueError, hebbax.errors.ShapeError, brainunit.UnitMismatchError
            `dt` is no length of time, the recorder is traced, or a batch of them.
        """
        step, neuron = self._read(partial)
        return timed(step, dt) | {"neuron": neuron}

    def trains(self, dt: WithUnit | None = None, *, partial: bool = False) -> list[Any]:
        """Return the times of each neuron's spikes, ascending; without `dt` their steps.

        Takes and raises what `table` does, and returns a list of `n` arrays.
        """
        step, neuron = self._read(partial)
        ends = np.cumsum(np.bincount(neuron, minlength=self.n))
        trains = np.split(step[np.argsort(neuron, kind="stable")], ends[:-1]) if self.n else []
        return trains if dt is None else [times(train, dt) for train in trains]

    def _read(self, partial: bool) -> tuple[np.ndarray, np.ndarray]:
        log = on_host("log", self.log, 1)
        count, capacity = int(log[logs.COUNT]), self.capacity
        check_steps(int(log[logs.STEPS]))
        check_kept("spikes", max(count - capacity, 0), capacity, "capacity", partial)
        pairs = log[logs.SPIKES_HEADER :].reshape(-1, 2)[: min(count, capacity)]
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def __repr__(self) -> str:
        return f"Spikes(n={self.n}, capacity={self.capacity})"
