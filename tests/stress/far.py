"""A small network, and a large one in which its rows lie far from the beginning, where all else is silent."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from pretended import repeated, zeros

TAIL = 3  # silent neurons and elements behind it
NEAR = 4096  # elements on either side that must not change


@dataclass(frozen=True)
class Place:
    """Where parts of the small network begin in the large one; `rows`: its elements, `slots`: its weights."""

    rows: int = 0
    slots: int = 0
    partners: int = 0
    events: int = 1


@dataclass(frozen=True)
class Problem:
    """One operator's operands, all of them real."""

    spec: Any
    given: dict[str, np.ndarray]
    shape: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Elements, event neurons, and neurons at the other end."""
        return self.given["indices"].size, *self.spec.sizes(self.shape)


@functools.cache
def _structure(rows: int, length: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Neurons at the other end, where rows start, their sorted targets, and a permutation."""
    rng, n_other = np.random.default_rng(rows), max(2 * length, 50)
    sizes = np.minimum(rng.poisson(length, rows), n_other)
    ranks = rng.random((rows, n_other)).argsort(axis=1).argsort(axis=1)
    indices = np.nonzero(ranks < sizes[:, None])[1]
    return n_other, np.concatenate([[0], np.cumsum(sizes)]), indices, rng.permutation(indices.size)


def small(
    rng: np.random.Generator, spec: Any, rows: int, length: int, dtype: Any, index: Any, indptr: Any, extras: Any = ()
) -> Problem:
    """Rows of `length` elements on average, sorted; weights in eighths, so that sums are exact in any order."""
    n_other, starts, indices, order = _structure(rows, length)
    nse = indices.size
    arithmetic = np.float64 if dtype == np.float64 else np.float32
    given = {
        "weight": (rng.integers(-16, 17, nse) / 8).astype(dtype),
        "indices": indices.astype(index),
        "indptr": starts.astype(indptr),
        "spike": rng.random(rows) < 0.6,
    }
    if spec.permuted:
        given["weight_indices"] = order.astype(index)
    if spec.kind != "propagate":
        given["trace"] = (rng.integers(-8, 9, n_other) / 8).astype(arithmetic)
    if "gain" in extras:
        given["gain"] = (rng.integers(-4, 5, rows) / 4).astype(arithmetic)
    if "bounds" in extras:
        given["w_min"], given["w_max"] = np.full(nse, -1.5, dtype), (rng.integers(8, 17, nse) / 8).astype(dtype)
    if "bound" in extras:
        given["w_min"], given["w_max"] = np.asarray(-1.5, dtype), np.asarray(1.25, dtype)
    return Problem(spec, given, (rows, n_other) if spec.event == "pre" else (n_other, rows))


def fits(problem: Problem, place: Place) -> bool:
    """Whether the dtypes of the indices can name it all."""
    nse, _, n_other = large_sizes(problem, place)
    limit = {name: np.iinfo(problem.given[name].dtype).max for name in ("indices", "indptr")}
    named = [n_other, *([nse] if problem.spec.permuted else [])]
    return max(named) <= limit["indices"] and nse <= limit["indptr"]


def large_sizes(problem: Problem, place: Place) -> tuple[int, int, int]:
    nse, n_event, n_other = problem.sizes
    slots = place.slots if problem.spec.permuted else place.rows
    return max(place.rows, slots) + nse + TAIL, place.events + n_event + TAIL, place.partners + n_other + TAIL


def large(problem: Problem, place: Place, with_weight: bool = True) -> Problem:
    """The network whose last rows are those of the small one; a silent neuron has all elements before these.

    All arrays are pretended. What the silent elements say, nobody may read.
    """
    nse, n_event, n_other = large_sizes(problem, place)
    given, out = problem.given, {}
    starts = place.rows + given["indptr"].astype(np.int64)
    parts = {
        "indices": (nse, place.rows, place.partners),
        "weight_indices": (nse, place.rows, place.slots),
        "indptr": (n_event + 1, place.events, 0),
        "spike": (n_event, place.events, 0),
        "gain": (n_event, place.events, 0),
        "trace": (n_other, place.partners, 0),
        **dict.fromkeys(("weight", "w_min", "w_max"), (nse, weights_at(problem, place), 0)),
    }
    for name, (size, at, more) in parts.items():
        if name not in given or (name == "weight" and not with_weight):
            continue
        x = given[name]
        if not x.ndim:
            out[name] = x
            continue
        out[name] = zeros(size, x.dtype)
        if name == "indptr":
            out[name][at : at + starts.size] = starts
            out[name][at + starts.size :] = nse
        else:
            out[name][at : at + x.size] = x.astype(np.int64) + more if more else x
    return Problem(problem.spec, out, (n_event, n_other) if problem.spec.event == "pre" else (n_other, n_event))


def weights_at(problem: Problem, place: Place) -> int:
    return place.slots if problem.spec.permuted else place.rows


def sums(size: int, dtype: Any, at: int, count: int) -> np.ndarray:
    """Memory for sums, all of which a kernel writes."""
    return repeated(size, dtype, at, at + count)


def changed_around(x: Any, take: Any, at: int, size: int, total: int) -> bool:
    """Whether anything beside `x[at : at + size]` is not 0, nearby."""
    before, after = min(NEAR, at), min(NEAR, total - at - size)
    return bool(take(x, at - before, before).any() or take(x, at + size, after).any())
