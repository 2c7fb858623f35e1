"""What `Synapses` are built of: both views of a structure, and arrays with one entry per synapse in their order."""

from __future__ import annotations

from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import connectivity
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.unitless import WEIGHT_DTYPES, arithmetic_dtype
from hebbax.errors import ShapeError

CSR = ("indptr", "indices")  # fields of `Synapses`, which are rows,
CSC = ("csc_indptr", "csc_indices", "weight_indices")  # and columns


def both_views(
    indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int], by_column: bool = False
) -> dict[str, Any]:
    """The fields of `Synapses`, from a structure that is known to be in order, in CSR form or, `by_column`, in CSC."""
    check_jax()
    dtype = connectivity.index_dtype(indices.size, shape)
    views = connectivity.views_of_columns if by_column else connectivity.views_of_rows
    with jax.ensure_compile_time_eval():  # concrete arrays also where somebody's `jit` is tracing
        fields = {n: jnp.array(x, dtype) for n, x in zip((*CSR, *CSC), views(indptr, indices, shape), strict=True)}
    return {**fields, "shape": shape}


def csc_view(synapses: Any, reader: str) -> tuple[Any, Any, Any]:
    """The CSC view, as operators take it; a TypeError that names its `reader` where there is none."""
    if synapses.csc_indptr is None:
        raise TypeError(f"{reader}: got synapses split with csc=False, expected csc=True: it reads their CSC view")
    return synapses.csc_indices, synapses.csc_indptr, synapses.weight_indices


def without_csc_view(synapses: Any) -> str:
    """What their `repr` says where they have none."""
    return ", without CSC view" if synapses.csc_indptr is None else ""


class Listed(NamedTuple):
    """Synapses in any order, known to lie in `shape`."""

    pre: np.ndarray
    post: np.ndarray
    numbers: Any  # the weight of each, or None: one that all share, which has no order
    shape: tuple[int, int]
    again: str  # how a pair that comes again is named
    positions: np.ndarray | None = None  # of each in what was given, where some of that is no synapse


def from_list(
    listed: Listed, *, sum_duplicates: bool, multapses: bool, return_permutation: bool
) -> tuple[dict[str, Any], Any, jax.Array | None]:
    """The fields of `Synapses`, the weight in CSR order, and the position in what was given of each synapse."""
    pre, post, numbers, shape, again, positions = listed
    flags = {"sum_duplicates": sum_duplicates, "multapses": multapses, "return_permutation": return_permutation}
    for name, flag in flags.items():
        connectivity.check_flag(name, flag)
    for name, given in (("multapses", multapses), ("return_permutation", return_permutation)):
        if sum_duplicates and given:
            raise ValueError(
                f"{name}: got True with sum_duplicates=True, expected one of the two: a sum is no synapse of the list"
            )
    if sum_duplicates and numbers is None:
        raise ValueError("sum_duplicates: got True with one weight that all synapses share, expected one for each")
    order = connectivity.csr_order(pre, post, shape)
    if order is not None:
        pre, post, numbers = pre[order], post[order], None if numbers is None else numbers[order]
        order = order if positions is None else positions[order]
    else:
        order = positions
    numbers = jnp.array(numbers) if isinstance(numbers, np.ndarray) else numbers
    if sum_duplicates:
        first = ~connectivity.repeats(pre, post)
        pre, post = pre[first], post[first]
        if pre.size < numbers.size:
            pair = np.cumsum(first) - 1
            wide = numbers.astype(arithmetic_dtype(numbers.dtype))
            total = jax.ops.segment_sum(wide, pair, num_segments=pre.size, indices_are_sorted=True)
            numbers = total.astype(numbers.dtype)
    elif not multapses:
        connectivity.reject_duplicates(pre, post, order, again)
    views, permutation = both_views(connectivity.row_starts(pre, shape[0]), post, shape), None
    if return_permutation:
        order = np.arange(pre.size) if order is None else order
        # What was given may have been longer: with padding, or with synapses that were taken away.
        dtype = connectivity.index_dtype(max(pre.size, int(order.max(initial=-1)) + 1), shape)
        with jax.ensure_compile_time_eval():
            permutation = jnp.array(order, dtype)
    return views, numbers, permutation


def weight_numbers(name: str, weight: Any, shape: tuple[int, ...] | None) -> tuple[Any, u.Unit | None]:
    """The weight's numbers, a NumPy or JAX array of a dtype and shape that fit, and its unit, if it is a Quantity."""
    numbers, unit = without_unit(array_of(name, weight))
    if numbers.dtype.name not in WEIGHT_DTYPES:
        hint = " (convert it, with astype say)" if numbers.dtype.kind in "biu" else ""
        raise TypeError(f"{name}: got dtype {numbers.dtype}, expected one of {', '.join(WEIGHT_DTYPES)}{hint}")
    if shape is not None and numbers.shape != shape:
        raise ShapeError(f"{name}: got shape {numbers.shape}, expected {shape}, one weight per synapse")
    if isinstance(numbers, np.ndarray):
        numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)  # JAX knows no other
    return numbers, unit


def reordered(x: Any, permutation: Any, nse: int, back: bool) -> Any:
    """`x[..., permutation]`, or `back` from there; of NumPy, whatever its dtype, unless it is JAX's or traced."""
    numbers, unit = without_unit(array_of("x", x))
    if numbers.shape[-1:] != (nse,):
        raise ShapeError(f"x: got shape {numbers.shape}, expected (..., {nse}), one entry per synapse")
    permutation = _checked_permutation(permutation, nse)
    if isinstance(numbers, np.ndarray) and not isinstance(permutation, jax.core.Tracer):
        permutation = np.asarray(permutation)
        if not back:
            return with_unit(numbers[..., permutation], unit)
        in_list = np.empty_like(numbers)
        in_list[..., permutation] = numbers
        return with_unit(in_list, unit)
    check_jax()
    numbers = jnp.asarray(numbers)
    out = numbers.at[..., permutation].set(numbers, unique_indices=True) if back else numbers[..., permutation]
    return with_unit(out, unit)


def _checked_permutation(permutation: Any, nse: int) -> Any:
    traced = isinstance(permutation, jax.core.Tracer)
    ids = permutation if traced else connectivity.checked_integers("permutation", permutation)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"permutation: got dtype {ids.dtype}, expected integers")
    if ids.shape != (nse,):
        raise ShapeError(f"permutation: got shape {ids.shape}, expected {(nse,)}, one entry per synapse")
    if not traced:
        is_there = np.zeros(nse, bool)
        is_there[ids[(ids >= 0) & (ids < nse)]] = True
        if not is_there.all():
            raise ValueError(f"permutation: got no {is_there.argmin()}, expected each of 0 to {nse - 1} once")
    return permutation if isinstance(permutation, jax.Array) else ids


def without_unit(x: Any) -> tuple[Any, u.Unit | None]:
    """The numbers of `x`, an array of NumPy or JAX, and its unit, if it is a Quantity."""
    numbers, unit = (x.mantissa, x.unit) if isinstance(x, u.Quantity) else (x, None)
    return numbers if isinstance(numbers, jax.Array) else np.asarray(numbers), unit


def with_unit(numbers: Any, unit: u.Unit | None) -> Any:
    return numbers if unit is None else u.Quantity(numbers, unit=unit)
