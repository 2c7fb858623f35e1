"""How many spiked, per bin of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import connectivity, logs
from hebbax._core.forks import check_jax
from hebbax._core.pytree import assemble, pytree
from hebbax._core.unitless import spikes_of
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit
from hebbax.record._reading import check_kept, check_size, check_steps, checked_count, checked_dt, on_host, timed


@pytree("n", "groups", "every", "bins")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Rates:
    """Counts of the spikes of every neuron, or of groups of them, in bins of time.

    It is a frozen pytree of two arrays, made by `Rates.of`. Steps behind the last bin are counted, their spikes are
    not; reading then raises.

    Attributes
    ----------
    log : Array of int32, shape (3 + bins * groups,)
        Number of steps that were recorded, `every`, `groups`, then the counts, bin by bin.
    group : Array of int32, shape (n,), or (0,) where each neuron is one of its own
        Which group a neuron belongs to.
    n, groups, every, bins : int
        Numbers of neurons, of groups, of steps in a bin, and of bins.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax, jax.numpy as jnp
    >>> rates = hebbax.record.Rates.of(3, every=2, bins=2, group=[0, 0, 1])
    >>> raster = jnp.array([[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    >>> rates, _ = jax.lax.scan(lambda rates, spike: (rates.record(spike), None), rates, raster)
    >>> rates.counts()
    array([[2, 1],
           [1, 0]], dtype=int32)
    >>> rates.rates(1.0 * u.ms)
    Quantity([[500. 500.]
              [250.   0.]], "Hz")
    >>> rates.table(1.0)
    {'time': array([0., 0., 2., 2.]), 'group': array([0, 1, 0, 1]), 'rate': array([0.5 , 0.5 , 0.25, 0.  ])}
    """

    log: jax.Array
    group: jax.Array
    n: int
    groups: int
    every: int
    bins: int

    @classmethod
    def of(cls, n: int, every: int, bins: int, group: Plain | None = None) -> Rates:
        """Return a recorder in which nothing was counted yet.

        Parameters
        ----------
        n : int
            Number of neurons, at least 1.
        every : int
            Steps of a bin.
        bins : int
            For how many bins there is room.
        group : array of int, shape (n,), optional
            The group of each neuron, from 0; -1: it is not counted. By default each neuron is a group of its own.

        Raises
        ------
        TypeError, ValueError, hebbax.errors.ShapeError
            One of them is no integer, out of range, or has another shape; or a count could be more than int32 holds.
        """
        check_jax()
        n, every, bins = (checked_count(name, x) for name, x in (("n", n), ("every", every), ("bins", bins)))
        ids, groups, largest = np.zeros(0, np.int32), n, 1
        if group is not None:
            ids = connectivity.checked_integers("group", group)
            if ids.shape != (n,):
                raise ShapeError(f"group: got shape {ids.shape}, expected {(n,)}, one for each neuron")
            if (wrong := (ids < -1) | (ids >= n)).any():
                k = int(np.argmax(wrong))
                raise ValueError(f"group[{k}]: got {ids[k]}, expected -1 to {n - 1}")
            sizes = np.bincount(ids[ids >= 0], minlength=1)
            groups, largest = sizes.size, int(sizes.max())
        if every * largest > logs.MOST:
            raise ValueError(f"every: got {every}, expected at most {logs.MOST // largest}: counts are int32")
        check_size("bins", f"{bins} for {groups} groups", logs.COUNTS_HEADER + bins * groups)
        arrays = dict(log=logs.counts_log(every, groups, bins), group=jnp.asarray(ids, jnp.int32))
        return assemble(cls, dict(**arrays, n=n, groups=groups, every=every, bins=bins))

    def record(self, spike: Plain) -> Rates:
        """Return the recorder with the spikes of the next step; it takes and raises what `Spikes.record` does."""
        check_jax()
        log = logs.tally(self.log, spikes_of("spike", spike, self.n), self.group)
        return assemble(Rates, {**vars(self), "log": log})

    @property
    def steps(self) -> jax.Array:
        """How many steps were recorded: int32, which stops at 2^31 - 1."""
        return self.log[..., logs.COUNTED_STEPS]

    def counts(self, *, partial: bool = False) -> np.ndarray:
        """Return the counts of the bins that are complete, NumPy array of int32, shape (complete bins, groups).

        Parameters
        ----------
        partial : bool, default False
            Give them also where there were steps behind the last bin.

        Raises
        ------
        hebbax.errors.RecordOverflow
            There were: it says how many steps were lost, and for how many there was room.
        TypeError, hebbax.errors.ShapeError
            The recorder is traced, or a batch of them.
        """
        log = on_host("log", self.log, 1)
        steps, room = int(log[logs.COUNTED_STEPS]), self.every * self.bins
        check_steps(steps)
        check_kept("steps", max(steps - room, 0), room, "every * bins", partial)
        return log[logs.COUNTS_HEADER :].reshape(self.bins, self.groups)[: steps // self.every].copy()

    def rates(self, dt: WithUnit, *, partial: bool = False) -> Any:
        """Return spikes per neuron and time, shape (complete bins, groups): NumPy float64, or in Hz if `dt` has a unit.

        Parameters
        ----------
        dt : number or Quantity, scalar
            Length of a step.
        partial : bool, default False
            As in `counts`.

        Raises
        ------
        hebbax.errors.RecordOverflow
            As `counts`.
        TypeError, ValueError, hebbax.errors.ShapeError, brainunit.UnitMismatchError
            `dt` is no length of time, the recorder is traced, or a batch of them.
        """
        number, unit = checked_dt(dt)
        number = number if unit is None else float(u.Quantity(number, unit=unit) / u.second)
        group = on_host("group", self.group, 1)
        sizes = np.bincount(group[group >= 0], minlength=self.groups) if group.size else np.ones(self.groups)
        found = self.counts(partial=partial) / (np.maximum(sizes, 1) * (self.every * number))
        return found if unit is None else u.Quantity(found, unit=u.Hz)

    def table(self, dt: WithUnit, *, partial: bool = False) -> dict[str, Any]:
        """Return the rates as a table: `"time"`, at which a bin begins, `"group"` and `"rate"`; see `rates`."""
        rates = self.rates(dt, partial=partial)
        bins = np.arange(rates.shape[0]) * self.every
        when = timed(np.repeat(bins, self.groups), dt)
        return when | {"group": np.tile(np.arange(self.groups), bins.size), "rate": rates.reshape(-1)}

    def __repr__(self) -> str:
        return f"Rates(n={self.n}, every={self.every}, bins={self.bins}, groups={self.groups})"
