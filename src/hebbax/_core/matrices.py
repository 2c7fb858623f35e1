"""Sparse matrices of other packages as lists of synapses, checked, on the host."""

from __future__ import annotations

from typing import Any

import brainunit as u
import jax
import numpy as np
import scipy.sparse

from hebbax._core import connectivity
from hebbax._core.building import Listed, weight_numbers
from hebbax._core.unitless import check_options
from hebbax.errors import ShapeError


def of_scipy(matrix: Any) -> tuple[Listed, None]:
    """The elements that are stored in a matrix or array of SciPy, of any format."""
    if not scipy.sparse.issparse(matrix):
        raise TypeError(f"matrix: got {type(matrix).__name__}, expected a scipy.sparse array or matrix")
    shape = _checked_shape(matrix)
    if hasattr(matrix, "indptr"):  # SciPy follows it unchecked
        connectivity.checked_indptr("matrix.indptr", matrix.indptr, len(matrix.indptr) - 1, len(matrix.indices))
        n_columns = shape[0] if matrix.format == "csc" else shape[1] // getattr(matrix, "blocksize", (1, 1))[1]
        connectivity.checked_ids("matrix.indices", matrix.indices, n_columns, shape)
    coo = matrix.tocoo()
    pre = connectivity.checked_ids("matrix.row", coo.row, shape[0], shape)
    post = connectivity.checked_ids("matrix.col", coo.col, shape[1], shape)
    numbers, _ = weight_numbers("matrix", coo.data, pre.shape)
    return Listed(pre, post, numbers, shape, connectivity.AGAIN_IN_MATRIX), None


def of_bcoo(matrix: Any) -> tuple[Listed, u.Unit | None]:
    """The elements of a matrix of JAX in COO format that are not padding, and the unit of their values."""
    from jax.experimental.sparse import BCOO  # which takes 0.1 s to import

    shape = _checked_layout(matrix, BCOO)
    indices = matrix.indices if isinstance(matrix.indices, jax.core.Tracer) else np.asarray(matrix.indices)
    pre, post = (connectivity.checked_integers("matrix.indices", indices[:, k]) for k in (0, 1))
    return _without_padding(matrix.data, pre, post, shape)


def of_bcsr(matrix: Any) -> tuple[Listed, u.Unit | None]:
    """The elements of a matrix of JAX in CSR format that are not padding, and the unit of their values."""
    from jax.experimental.sparse import BCSR

    shape = _checked_layout(matrix, BCSR)
    post = connectivity.checked_integers("matrix.indices", matrix.indices)
    indptr = connectivity.checked_integers("matrix.indptr", matrix.indptr)
    used = min(int(indptr[-1]), post.size) if indptr.size else 0  # what is behind the last row is padding
    starts = connectivity.checked_indptr("matrix.indptr", indptr, shape[0], used)
    pre = np.repeat(np.arange(shape[0] + 1), np.append(np.diff(starts), post.size - used))
    return _without_padding(matrix.data, pre, post, shape)


def _without_padding(
    data: Any, pre: np.ndarray, post: np.ndarray, shape: tuple[int, int]
) -> tuple[Listed, u.Unit | None]:
    """As JAX has it, what lies beyond the shape on either side is padding."""
    numbers, unit = weight_numbers("matrix.data", data, pre.shape)
    is_inside = (pre < shape[0]) & (post < shape[1])
    negative = is_inside & ((pre < 0) | (post < 0))
    if negative.any():
        k = int(negative.argmax())
        raise ValueError(f"matrix.indices[{k}]: got ({pre[k]}, {post[k]}), expected no negative number")
    positions = None
    if not is_inside.all():
        positions = np.flatnonzero(is_inside)
        pre, post, numbers = pre[positions], post[positions], numbers[positions]
    pre, post = (x.astype(connectivity.index_dtype(x.size, shape), copy=False) for x in (pre, post))
    return Listed(pre, post, numbers, shape, connectivity.AGAIN_IN_MATRIX, positions), unit


def of_compressed(matrix: Any) -> tuple[Listed, u.Unit | None]:
    """The elements of an object that is called CSR or CSC, as brainevent's are, and has what such a matrix has."""
    formats = {base.__name__ for base in type(matrix).__mro__} & {"CSR", "CSC"}
    if len(formats) != 1 or not all(hasattr(matrix, name) for name in ("data", "indices", "indptr")):
        raise TypeError(f"matrix: got {type(matrix).__name__}, expected a CSR or CSC of brainevent")
    shape = _checked_shape(matrix)
    n_rows, n_columns = shape if formats == {"CSR"} else shape[::-1]
    columns = connectivity.checked_ids("matrix.indices", matrix.indices, n_columns, shape)
    starts = connectivity.checked_indptr("matrix.indptr", matrix.indptr, n_rows, columns.size, f" for shape {shape}")
    rows = np.repeat(np.arange(n_rows, dtype=columns.dtype), np.diff(starts))
    numbers, unit = weight_numbers("matrix.data", matrix.data, None)
    is_shared = numbers.shape == () or numbers.shape == (1,) != columns.shape
    if not is_shared and numbers.shape != columns.shape:
        expected = f"{columns.shape}, or a scalar or (1,) that all synapses share"
        raise ShapeError(f"matrix.data: got shape {numbers.shape}, expected {expected}")
    pre, post = (rows, columns) if formats == {"CSR"} else (columns, rows)
    return Listed(pre, post, None if is_shared else numbers, shape, connectivity.AGAIN_IN_MATRIX), unit


def _checked_shape(matrix: Any) -> tuple[int, int]:
    if len(matrix.shape) != 2:
        raise ShapeError(f"matrix: got shape {matrix.shape}, expected two dimensions")
    return check_options(matrix.shape, None)


def _checked_layout(matrix: Any, expected: type) -> tuple[int, int]:
    """The shape of a matrix of JAX all of whose dimensions are sparse."""
    if not isinstance(matrix, expected):
        raise TypeError(f"matrix: got {type(matrix).__name__}, expected jax.experimental.sparse.{expected.__name__}")
    for name in ("n_batch", "n_dense"):
        if getattr(matrix, name):
            raise ShapeError(f"matrix: got {name}={getattr(matrix, name)}, expected 0 (see its `update_layout`)")
    return _checked_shape(matrix)
