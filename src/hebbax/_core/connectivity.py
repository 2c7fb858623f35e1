"""Connectivity in NumPy, on the host: checked, sorted, transposed."""

from __future__ import annotations

from typing import Any

import brainunit as u
import jax
import numpy as np
import scipy.sparse

from hebbax._core.foreign import array_of
from hebbax.errors import ShapeError

_INT32_MAX = np.iinfo(np.int32).max

# How a constructor names a pair of neurons that comes again at position `k`.
_KEEP_OR_SUM = "a duplicate synapse (multapses=True would keep both, sum_duplicates=True sum them)"
AGAIN_IN_INDICES = (
    "indices[{k}]: got {post} again in row {pre}, a duplicate synapse "
    "(multapses=True would keep both, Synapses.from_coo can sum them)"
)
AGAIN_IN_COO = "pre[{k}], post[{k}]: got {pre}, {post} again, " + _KEEP_OR_SUM
AGAIN_IN_MATRIX = "matrix: got ({pre}, {post}) again as stored element {k}, " + _KEEP_OR_SUM


def index_dtype(nse: int, shape: tuple[int, int]) -> np.dtype:
    """The one dtype of all index arrays; raises where JAX would truncate it."""
    if max(nse, *shape) <= _INT32_MAX:
        return np.dtype(np.int32)
    if jax.dtypes.canonicalize_dtype(np.int64) != np.int64:
        raise OverflowError(
            f"shape: got {shape} with {nse} synapses, which do not fit int32; "
            f"set the jax_enable_x64 flag to have 64-bit indices"
        )
    return np.dtype(np.int64)


def checked_ids(name: str, x: Any, n: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the neuron ids `x`, which must be 0 to `n - 1`, in the index dtype."""
    ids = checked_integers(name, x)
    if ids.size and not 0 <= ids.min() <= ids.max() < n:
        k = int(np.argmax((ids < 0) | (ids >= n)))
        raise ValueError(f"{name}[{k}]: got {ids[k]}, expected {f'0 to {n - 1}' if n else 'none'} (shape {shape})")
    return ids.astype(index_dtype(ids.size, shape), copy=False)


def checked_indptr(name: str, x: Any, n_rows: int, nse: int, why: str = "") -> np.ndarray:
    """Return `x`, which must lead without descent from 0 to `nse` in `n_rows` steps, as int64."""
    indptr = checked_integers(name, x)
    if indptr.size != n_rows + 1:
        raise ShapeError(f"{name}: got shape {indptr.shape}, expected {(n_rows + 1,)}{why}")
    if indptr[0] != 0:
        raise ValueError(f"{name}[0]: got {indptr[0]}, expected 0")
    descends = indptr[1:] < indptr[:-1]
    if descends.any():
        k = int(np.argmax(descends)) + 1
        raise ValueError(f"{name}[{k}]: got {indptr[k]}, expected at least {name}[{k - 1}] = {indptr[k - 1]}")
    if indptr[-1] != nse:
        raise ValueError(f"{name}[{n_rows}]: got {indptr[-1]}, expected {nse}, the size of indices")
    return indptr.astype(np.int64, copy=False)


def check_flag(name: str, x: Any) -> None:
    if not isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{name}: got {x!r}, expected True or False")


def checked_integers(name: str, x: Any) -> np.ndarray:
    """Return `x`, which must be concrete and have one dimension, as an array of NumPy."""
    x = array_of(name, x)
    if isinstance(x, jax.core.Tracer):
        raise TypeError(
            f"{name}: got a traced array, expected a concrete one: build Synapses outside jit, and pass them to it"
        )
    if x is None or isinstance(x, u.Quantity):
        what = "None" if x is None else f"a Quantity of unit {x.unit}"
        raise TypeError(f"{name}: got {what}, expected integers")
    try:
        array = np.asarray(x)
    except ValueError:  # lists of different lengths
        raise TypeError(f"{name}: got {type(x).__name__}, expected a one-dimensional array of integers") from None
    if not array.size and not hasattr(x, "dtype"):
        array = array.astype(np.int32)  # `[]`
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: got dtype {array.dtype}, expected integers")
    if array.ndim != 1:
        raise ShapeError(f"{name}: got shape {array.shape}, expected one dimension")
    return array


def transposed(
    indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The other view of a structure: `indptr`, `indices` sorted in rows, and each element's position in this view.

    Elements of the same row and column keep their order. SciPy's conversion is a counting sort: 10^7 elements take
    0.1 s, NumPy's stable `argsort` 1.2 s.
    """
    dtype = index_dtype(indices.size, shape)
    positions = np.arange(indices.size, dtype=dtype)
    view = (positions, indices.astype(dtype, copy=False), indptr.astype(dtype, copy=False))
    # It adds no duplicates up, which would be another method's work.
    other = scipy.sparse.csr_array(view, shape=shape, copy=False).tocsc()
    return tuple(x.astype(dtype, copy=False) for x in (other.indptr, other.indices, other.data))


def views_of_rows(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Both views of a structure in CSR form: `indptr` and `indices` of rows, of columns, and `weight_indices`."""
    return indptr, indices, *transposed(indptr, indices, shape)


def views_of_columns(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """As `views_of_rows`, from CSC form."""
    *rows, in_columns = transposed(indptr, indices, shape[::-1])
    weight_indices = np.empty_like(in_columns)
    weight_indices[in_columns] = np.arange(in_columns.size, dtype=in_columns.dtype)
    return *rows, indptr, indices, weight_indices


def csr_order(pre: np.ndarray, post: np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
    """The stable order that sorts pairs by row, then by column, or None where they are in that order."""
    if np.all((pre[1:] > pre[:-1]) | (pre[1:] == pre[:-1]) & (post[1:] >= post[:-1])):
        return None
    by_post = _counting_argsort(post, shape[1])
    return by_post[_counting_argsort(pre[by_post], shape[0])]


def _counting_argsort(keys: np.ndarray, n: int) -> np.ndarray:
    return transposed(np.array([0, keys.size]), keys, (1, n))[2]  # all of them in one row


def repeats(pre: np.ndarray, post: np.ndarray) -> np.ndarray:
    """Which of the pairs, in CSR order, are the same as the one before."""
    out = np.zeros(pre.size, bool)
    np.equal(pre[1:], pre[:-1], out=out[1:])
    out[1:] &= post[1:] == post[:-1]
    return out


def reject_duplicates(pre: np.ndarray, post: np.ndarray, order: np.ndarray | None, again: str) -> None:
    """Raise, naming the user's first position, where a pair in CSR order is the same as the one before."""
    again_at = np.flatnonzero(repeats(pre, post))
    if again_at.size:
        positions = again_at if order is None else order[again_at]
        k = positions.argmin()
        raise ValueError(again.format(k=positions[k], pre=pre[again_at[k]], post=post[again_at[k]]))


def row_starts(pre: np.ndarray, n_pre: int) -> np.ndarray:
    """`indptr` from the row of every element, in ascending order."""
    return np.searchsorted(pre, np.arange(n_pre + 1, dtype=pre.dtype))
