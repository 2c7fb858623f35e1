"""Where neurons are in arrays that are split over devices, and how such arrays get there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hebbax._core import connectivity, unitless
from hebbax._core.building import with_unit
from hebbax._core.forks import check_jax
from hebbax.errors import ShapeError


@dataclass(frozen=True)
class Layout:
    """Which shard holds which neurons of a population: contiguous ranges of them, padded to equal size.

    Parameters
    ----------
    starts : tuple of int, shape (shards + 1,)
        First neuron of every shard; the last entry is the number of neurons.
    size : int
        Places of a shard, at least 1 and at least its number of neurons.

    Raises
    ------
    ValueError
        `starts` does not ascend from 0, or `size` is too small.

    Examples
    --------
    >>> import hebbax
    >>> layout = hebbax.sharding.Layout.balanced([9, 1, 1, 1, 1, 1], shards=2)
    >>> layout
    Layout(starts=(0, 1, 6), size=5)
    >>> layout.places
    array([0, 5, 6, 7, 8, 9])
    """

    starts: tuple[int, ...]
    size: int

    def __post_init__(self) -> None:
        starts = self.starts
        integers = all(isinstance(x, (int, np.integer)) for x in (*starts, self.size))
        if len(starts) < 2 or not integers or starts[0] != 0 or any(a > b for a, b in pairwise(starts)):
            raise ValueError(f"starts: got {starts}, expected ascending integers from 0, one more than shards")
        least = max(1, *(b - a for a, b in pairwise(starts)))
        if self.size < least:
            raise ValueError(f"size: got {self.size}, expected at least {least} for starts {starts}")

    @classmethod
    def even(cls, n: int, shards: int) -> Layout:
        """Give `n` neurons in equal numbers to all shards but the last ones."""
        _check_shards(shards)
        size = max(1, -(-n // shards))
        return cls(tuple(min(k * size, n) for k in range(shards + 1)), size)

    @classmethod
    def balanced(cls, counts: Any, shards: int) -> Layout:
        """Share neurons with these numbers of synapses out, so that the fullest shard is as empty as can be.

        A neuron counts as one synapse more than it has, so that those without any are shared out, too.
        """
        _check_shards(shards)
        end = np.cumsum(np.asarray(counts, np.int64) + 1)  # cost of all neurons up to and with this one
        n, total = end.size, int(end[-1]) if end.size else 0

        def starts(most: int) -> tuple[int, ...]:
            """Fill one shard after the other with at most this."""
            found = [0]
            for _ in range(shards):
                before = int(end[found[-1] - 1]) if found[-1] else 0
                found.append(int(np.searchsorted(end, before + most, side="right")))
            return tuple(found)

        low, high = total // shards, total  # the smallest `most` with which all neurons find a place
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if starts(middle)[-1] == n else (middle + 1, high)
        found = starts(high)
        return cls(found, max(1, int(np.diff(found).max())))

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.starts[-1]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.starts) - 1

    @property
    def length(self) -> int:
        """Places of all shards: the length of an array that is split, padding included."""
        return self.shards * self.size

    @property
    def places(self) -> np.ndarray:
        """Place of every neuron in an array that is split, shape (n,), ascending."""
        starts = np.array(self.starts)
        return np.arange(self.n) + np.repeat(np.arange(self.shards) * self.size - starts[:-1], np.diff(starts))


def place(
    mesh: Mesh, axis: str, part: Callable[[int], np.ndarray], leading: tuple[int, ...], size: int, dtype: Any
) -> jax.Array:
    """An array whose last axis is that of all shards, from a function of the shard; a process calls it for its own."""
    check_jax()
    sharding = NamedSharding(mesh, P(*(None for _ in leading), axis))
    shape = (*leading, size * mesh.shape[axis])

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        return part((index[-1].start or 0) // size if index else 0)

    return jax.make_array_from_callback(shape, sharding, shard, dtype=dtype)


def everywhere(mesh: Mesh, x: Any) -> jax.Array:
    """`x` whole on every device of a mesh; a process gives it to its own."""
    numbers = np.asarray(x)
    return jax.make_array_from_callback(numbers.shape, NamedSharding(mesh, P()), lambda index: numbers[index])


def padded(x: np.ndarray, size: int, fill: int = 0) -> np.ndarray:
    """`x` with its last axis filled up to `size`."""
    out = np.full((*x.shape[:-1], size), fill, x.dtype)
    out[..., : x.shape[-1]] = x
    return out


def _check_shards(shards: int) -> None:
    if not isinstance(shards, (int, np.integer)) or shards < 1:
        raise ValueError(f"shards: got {shards!r}, expected an integer of at least 1")


def host_numbers(name: str, x: Any, n: int) -> tuple[np.ndarray, u.Unit | None]:
    """The numbers of all shards, whose last axis must be of length `n`, and their unit, if `x` is a Quantity."""
    check_jax()
    numbers, unit = (x.mantissa, x.unit) if isinstance(x, u.Quantity) else (x, None)
    if isinstance(numbers, jax.core.Tracer):
        raise TypeError(f"{name}: got a traced array, expected a concrete one: split and join arrays outside jit")
    if not isinstance(numbers, jax.Array):
        numbers = np.asarray(unitless.check_host_array(name, numbers))
        numbers = numbers.astype(jax.dtypes.canonicalize_dtype(numbers.dtype), copy=False)
    if not numbers.ndim or numbers.shape[-1] != n:
        raise ShapeError(f"{name}: got shape {numbers.shape}, expected (..., {n})")
    return to_host(numbers), unit


def to_host(x: Any) -> np.ndarray:
    """All of an array, whichever processes hold it."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    return np.asarray(
        x.addressable_data(0) if x.is_fully_replicated else multihost_utils.process_allgather(x, tiled=True)
    )


def split_neurons(x: Any, layout: Layout, mesh: Mesh, axis: str | None, fill: int = 0, name: str = "x") -> Any:
    """An array over neurons, padded; its last axis is split over one of the mesh, if that is given."""
    numbers, unit = host_numbers(name, x, layout.n)
    leading, starts = numbers.shape[:-1], layout.starts

    def part(k: int) -> np.ndarray:
        return padded(numbers[..., starts[k] : starts[k + 1]], layout.size, fill)

    if axis is not None:
        return with_unit(place(mesh, axis, part, leading, layout.size, numbers.dtype), unit)
    whole = np.concatenate([part(k) for k in range(layout.shards)], axis=-1)
    out = jax.make_array_from_callback(whole.shape, NamedSharding(mesh, P()), lambda index: whole[index])
    return with_unit(out, unit)


def join_neurons(x: Any, layout: Layout) -> Any:
    """The inverse of `split_neurons`."""
    numbers, unit = host_numbers("x", x, layout.length)
    return with_unit(jnp.asarray(numbers[..., layout.places]), unit)


def part_of_columns(
    indptr: np.ndarray, indices: np.ndarray, places: np.ndarray, size: int, shape: tuple[int, int], csc: bool = True
) -> tuple[np.ndarray, ...]:
    """CSR and, with `csc`, CSC view, of the columns that begin and end at `indptr`, as a network of `shape`.

    `places` are the rows' new numbers, in the same order; `size` is the number of elements with padding.
    """
    nse = int(indptr[-1] - indptr[0])
    starts = np.full(shape[1] + 1, nse)
    starts[: indptr.size] = indptr - indptr[0]
    pre = places[indices[indptr[0] : indptr[-1]]]
    rows, post, order = connectivity.transposed(starts, pre, shape[::-1])
    if not csc:
        return rows, padded(post, size)
    weight_indices = np.arange(size, dtype=connectivity.index_dtype(size, shape))  # a permutation with the padding, too
    weight_indices[order] = weight_indices[:nse].copy()
    return rows, padded(post, size), starts, padded(pre, size), weight_indices


def slots(indptr: np.ndarray) -> list[np.ndarray]:
    """Position in CSR order of the synapses of every part of the columns, from the parts' CSR `indptr`.

    A row is its parts, one after the other.
    """
    starts = indptr.astype(np.int64)
    parts = np.diff(starts).T.ravel()  # row by row, and in each part by part
    first = (np.cumsum(parts) - parts).reshape(-1, len(starts)).T
    return [
        np.arange(own[-1]) + np.repeat(where - own[:-1], np.diff(own)) for own, where in zip(starts, first, strict=True)
    ]
