"""Synapses that are kept and synapses that are added, in one structure of the same size: in JAX, in linear time.

What is kept lies in order already, in either view. So its new place is counted: as many are before it as are kept and
as are added before it. Only what is added is sorted, and searched for in its row.

Synapses that are added are numbered 0 to m - 1, and the old ones from m on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Offer(NamedTuple):
    """Synapses to be added, as one of the views has them."""

    rows: jax.Array  # (m,), as many as there are where out of range
    columns: jax.Array
    order: jax.Array  # which sorts them; equal ones stay as they are
    end: jax.Array  # (m,), where each would be put into the old elements, behind those of the same pair


class Merged(NamedTuple):
    """One of the views, merged."""

    indptr: jax.Array
    indices: jax.Array  # 0 in free places
    place: jax.Array  # (m + nse,), where each goes, nse: nowhere
    source: jax.Array  # (nse,), which of them comes to a place, m + nse: none


def rewired(
    views: tuple[Any, ...], shape: tuple[int, int], keep: jax.Array, pre: jax.Array, post: jax.Array, multapses: bool
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array, jax.Array]:
    """New views, what comes to each of their places, which synapses are added, and for how many there was no room."""
    indptr, indices, csc_indptr, csc_indices, weight_indices = views
    nse, dtype, m = indices.size, indices.dtype, pre.size
    pre, post = (x.astype(dtype) if x.dtype.itemsize < dtype.itemsize else x for x in (pre, post))  # which hold `shape`
    inside = (pre >= 0) & (pre < shape[0]) & (post >= 0) & (post < shape[1])
    pre, post = (jnp.where(inside, x, n).astype(dtype) for x, n in zip((pre, post), shape, strict=True))
    places = jnp.arange(nse, dtype=dtype)
    keep &= places < indptr[-1]

    before = counted(keep, dtype)
    order = jnp.lexsort((post, pre))
    by_row = Offer(pre, post, order, search(indptr, indices, pre, post, behind=True))
    fresh = inside
    if not multapses:
        begin = search(indptr, indices, pre, post, behind=False)
        fresh &= (before[by_row.end] == before[begin]) & ~repeated(by_row)
    added = fresh & (jnp.cumsum(fresh, dtype=dtype) <= nse - before[-1])

    rows = merged((indptr, indices), keep, before, by_row, added)
    in_column = keep[weight_indices]
    order = order[jnp.argsort(post[order], stable=True)]
    by_column = Offer(post, pre, order, search(csc_indptr, csc_indices, post, pre, behind=True))
    columns = merged((csc_indptr, csc_indices), in_column, counted(in_column, dtype), by_column, added)
    to_row = jnp.concatenate([rows.place[:m], rows.place[m:][weight_indices]])
    slots = jnp.take(to_row, columns.source, mode="clip")
    slots = jnp.where(places < rows.indptr[-1], slots, places)  # a permutation with the free places, too
    views = rows.indptr, rows.indices, columns.indptr, columns.indices, slots
    return views, rows.source, added, jnp.sum(fresh & ~added, dtype=jnp.int32)


def counted(flags: jax.Array, dtype: Any) -> jax.Array:
    """How many are set before each place, and at the end in all."""
    return jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(flags, dtype=dtype)])


def search(indptr: jax.Array, indices: jax.Array, rows: jax.Array, columns: jax.Array, behind: bool) -> jax.Array:
    """Where columns would be put into the sorted rows, before or behind those that are equal."""

    def halve(ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = low + (high - low) // 2
        there = indices[middle]
        passes = (there <= columns) if behind else (there < columns)
        return jnp.where(passes & (low < high), middle + 1, low), jnp.where(passes, high, middle)

    ends = indptr[rows], indptr[rows + 1]
    if not indices.size:  # of which nothing could be read
        return ends[0]
    return jax.lax.while_loop(lambda ends: jnp.any(ends[0] < ends[1]), halve, ends)[0]


def repeated(offer: Offer) -> jax.Array:
    """Which synapses are offered that were before."""
    rows, columns = offer.rows[offer.order], offer.columns[offer.order]
    again = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    return jnp.zeros(rows.size, bool).at[offer.order[1:]].set(again)


def merged(
    view: tuple[jax.Array, jax.Array], keep: jax.Array, before: jax.Array, offer: Offer, added: jax.Array
) -> Merged:
    """What is kept of one of the views, of which `before` counts the elements, and what is added of an offer."""
    indptr, indices = view
    nse, dtype, m = indices.size, indices.dtype, added.size
    ranks = counted(added[offer.order], dtype)[:-1]
    rank = jnp.zeros(m, dtype).at[offer.order].set(ranks)
    passed = jnp.cumsum(jnp.zeros(nse + 1, dtype).at[offer.end].add(added.astype(dtype)), dtype=dtype)
    place = jnp.concatenate([
        jnp.where(added, before[offer.end] + rank, nse),
        jnp.where(keep, before[:-1] + passed[:-1], nse),
    ])  # fmt: skip
    source = jnp.full(nse, m + nse, dtype).at[place].set(jnp.arange(m + nse, dtype=dtype), mode="drop")
    in_row = jnp.zeros(indptr.size - 1, dtype).at[offer.rows].add(added.astype(dtype), mode="drop")
    starts = before[indptr] + counted(in_row, dtype)
    return Merged(starts.astype(indptr.dtype), carried(offer.columns, indices, source), place, source)


def carried(new: Any, old: Any, source: Any, xp: Any = jnp) -> Any:
    """Values by place, those of the synapses that come there; 0 in free places."""
    nothing = xp.zeros((1, *old.shape[1:]), old.dtype)
    return xp.take(xp.concatenate([new, old, nothing]), source, axis=0, mode="clip")
