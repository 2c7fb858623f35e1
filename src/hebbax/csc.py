"""The updates for weights that are kept in CSC order: column by column of the matrix."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import connectivity
from hebbax._core.docs import documented
from hebbax._core.specs import UPDATE_CSC_POST, UPDATE_CSC_PRE
from hebbax._core.unitless import check_can_name, check_host_array, check_options, index_dtype
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, call


@documented
def update_csc_on_binary_post(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    pre_trace: WithUnit,
    post_spike: Plain,
    w_min: WithUnit | None = None,
    w_max: WithUnit | None = None,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: WithUnit | None = None,
    after: Any = None,
) -> Any:
    r"""`update_csr_on_binary_post` for weights in CSC order, where a spiking neuron's synapses lie side by side.

    Parameters
    ----------
    {structure_csc}
    {pre_trace}
    {post_spike}
    {bounds}
    {gain_post}
    {after}

    Returns
    -------
    {update_returns}

    Raises
    ------
    {raises}

    Notes
    -----
    {equation_post}

    the potentiation of pair-based STDP, as in Morrison, Diesmann & Gerstner (2008), Biological Cybernetics 98:459,
    doi:10.1007/s00422-008-0233-1.

    {update_transformed}

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> hebbax.update_csc_on_binary_post(
    ...     jnp.array([0.5, 0.8, 0.3, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4]),
    ...     jnp.array([0.1, -0.05]), jnp.array([True, False]), shape=(2, 2),
    ... )
    Array([0.6 , 0.75, 0.3 , 0.2 ], dtype=float32)
    """
    values = weight, indices, indptr, pre_trace, post_spike, w_min, w_max, gain, after
    return call(UPDATE_CSC_POST, shape, backend, values, (weight_in_bounds, soft_bound, mu))


@documented
def update_csc_on_binary_pre(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    pre_spike: Plain,
    post_trace: WithUnit,
    w_min: WithUnit | None = None,
    w_max: WithUnit | None = None,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: WithUnit | None = None,
    after: Any = None,
) -> Any:
    r"""`update_csr_on_binary_pre` for weights in CSC order, where a spiking neuron's synapses are scattered.

    Parameters
    ----------
    {structure_csc}
    {pre_spike}
    {post_trace}
    {bounds}
    {gain_pre}
    {after}

    Returns
    -------
    {update_returns}

    Raises
    ------
    {raises}

    Notes
    -----
    {equation_pre}

    the depression of pair-based STDP, as in Morrison, Diesmann & Gerstner (2008), Biological Cybernetics 98:459,
    doi:10.1007/s00422-008-0233-1.

    {update_transformed}

    The synapses of a row are found by sorting the structure: under `jit` once, if the structure is a constant there,
    else at every call. Where it is traced, that is slow, and what is wrong with its values is not seen (ids out of
    range are skipped). In a loop, let `Synapses` do this once, and keep weights in CSR order.

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> hebbax.update_csc_on_binary_pre(
    ...     jnp.array([0.5, 0.8, 0.3, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4]),
    ...     jnp.array([True, False]), jnp.array([-0.1, -0.4]), w_min=0.0, shape=(2, 2),
    ... )
    Array([0.4, 0.8, 0. , 0.2], dtype=float32)
    """
    shape = check_options(shape, backend)
    values = weight, *_by_row(indices, indptr, shape), pre_spike, post_trace, w_min, w_max, gain, after
    return call(UPDATE_CSC_PRE, shape, backend, values, (weight_in_bounds, soft_bound, mu))


def _by_row(indices: Any, indptr: Any, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """The columns of each row's elements, where rows start, and each element's position in CSC order."""
    n_pre, n_post = shape
    slots: Any
    indices, indptr = (
        x if isinstance(x, jax.Array) else check_host_array(name, x)
        for name, x in (("indices", indices), ("indptr", indptr))
    )
    if isinstance(indices, jax.core.Tracer) or isinstance(indptr, jax.core.Tracer):
        for name, x in (("indices", indices), ("indptr", indptr)):
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise TypeError(f"{name}: got dtype {x.dtype}, expected integers")
            expected = indices.size if name == "indices" else n_post + 1
            if x.shape != (expected,):
                raise ShapeError(f"{name}: got shape {x.shape}, expected {(expected,)} for shape {shape}")
        check_can_name("indptr", indptr.dtype, indices.size, f"{indices.size} synapses")
        check_can_name("indices", indices.dtype, n_pre - 1, f"{n_pre} presynaptic neurons")
        dtype = index_dtype(np.promote_types(indices.dtype, indptr.dtype))
        indices, indptr = jnp.asarray(indices, dtype), jnp.asarray(indptr, dtype)
        column = jnp.searchsorted(indptr, jnp.arange(indices.size, dtype=dtype), side="right") - 1
        row = jnp.where((column >= 0) & (column < n_post), indices, n_pre)  # what no column holds goes to the end
        slots = jnp.argsort(row, stable=True)
        return column[slots], jnp.searchsorted(row[slots], jnp.arange(n_pre + 1, dtype=dtype)), slots
    pre = connectivity.checked_ids("indices", indices, n_pre, shape)
    column_starts = connectivity.checked_indptr("indptr", indptr, n_post, pre.size, f" for shape {shape}")
    row_starts, post, slots = connectivity.transposed(column_starts, pre, shape[::-1])
    return post, row_starts, slots
