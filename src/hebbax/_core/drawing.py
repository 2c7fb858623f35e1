"""Random connectivity: what a part of a network has is the same whichever parts are drawn, by whom, in which order.

Rows, neurons with their synapses, are drawn in groups of about `GROUP` elements. Each group has a stream of NumPy's
Philox-4x64 for itself, a generator that counts (Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as
1, 2, 3, doi:10.1145/2063384.2063405): its key is the seed's, and the group's number the highest word of its counter. So
whoever wants a few rows draws the groups in which they are. Not every row has a stream: NumPy takes as long to start
one, and for the calls that draw from it, as for thousands of synapses.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from hebbax._core.connectivity import check_flag, checked_ids, index_dtype

# Elements of a group: what many calls of NumPy's cost does not count, and temporary arrays fit a cache.
GROUP = 2**18
# Pairs looked at in a group: with about `GROUP` gaps, none much above this, no sum of them leaves int64.
CELLS = 2**40


def random(
    shape: tuple[int, int],
    prob: float | None,
    indegree: int | None,
    outdegree: int | None,
    autapses: bool,
    seed: int | np.random.Generator,
    multapses: bool = False,
    pre: Any = None,
    post: Any = None,
    part: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return `indptr` and `indices` of a random structure, which `Synapses.random` describes, and whether by column."""
    rules = {"prob": prob, "indegree": indegree, "outdegree": outdegree}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        raise TypeError(f"got {' and '.join(given) or 'none'} of {', '.join(rules)}, expected exactly one")
    check_flag("autapses", autapses)
    check_flag("multapses", multapses)
    key = _generator(seed).integers(2**64, size=2, dtype=np.uint64)
    index_dtype(0, shape)  # raises before there are arrays as long as that
    sources, targets = _checked_subset("pre", pre, shape[0]), _checked_subset("post", post, shape[1])
    own = np.searchsorted(targets, _checked_part(part, shape[1]))
    by_column = outdegree is None
    rows, columns, n_rows = (targets, sources, shape[1]) if by_column else (sources, targets, shape[0])
    n = columns.size
    draw: Callable[..., tuple[np.ndarray, np.ndarray]]
    if prob is not None:
        prob = _checked_probability(prob, multapses)
        group = min(int(GROUP / max(prob * n, 1.0)), CELLS // max(n, 1))

        def draw(rng: np.random.Generator, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return _bernoulli(rng, own, n, prob)
    else:
        shared = not autapses and np.intersect1d(rows, columns, assume_unique=True).size > 0
        degree = _checked_degree(given[0], rules[given[0]], n, n - shared, multapses)
        if by_column or own[1] - own[0] == targets.size:
            index_dtype(degree * int(own[1] - own[0] if by_column else rows.size), shape)
        group = GROUP // max(degree if multapses or 2 * degree <= n else n, 1)

        def draw(rng: np.random.Generator, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return _of_degree(rng, own, n, degree, multapses)

    group = max(group, 1)
    degrees, chosen = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    wanted = rows[slice(*own)] if by_column else rows
    for k in np.unique(wanted // group):
        ids = np.arange(k * group, min((k + 1) * group, n_rows))
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(k)]))
        itself = np.full(ids.size, -1) if autapses else _positions(ids, columns)
        drawn = draw(rng, itself)
        here = wanted[slice(*np.searchsorted(wanted, [ids[0], ids[-1] + 1]))]
        if here.size < ids.size:
            drawn = _only(*drawn, np.repeat(np.isin(ids, here, assume_unique=True), drawn[0]))
            drawn = drawn[0][here - ids[0]], drawn[1]
        if not by_column and own[1] - own[0] < n:
            drawn = _only(*drawn, (own[0] <= drawn[1]) & (drawn[1] < own[1]))
        degrees.append(drawn[0])
        chosen.append(drawn[1])
    starts = np.zeros(n_rows + 1, np.int64)
    starts[1 + wanted] = np.concatenate(degrees)
    indices = np.concatenate(chosen)
    everyone = n == shape[0 if by_column else 1]
    return np.cumsum(starts), indices if everyone else columns.astype(_id_dtype(max(shape)))[indices], by_column


def _positions(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each of these is among others, both ascending, or -1."""
    at = np.searchsorted(among, ids)
    there = at < among.size
    there[there] = among[at[there]] == ids[there]
    return np.where(there, at, -1)


def _only(degrees: np.ndarray, columns: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows without what is not to be kept."""
    before = np.concatenate([[0], np.cumsum(keep)])
    ends = np.concatenate([[0], np.cumsum(degrees)])
    return np.diff(before[ends]), columns[keep]


def _checked_subset(name: str, ids: Any, n: int) -> np.ndarray:
    if ids is None:
        return np.arange(n)
    ids = checked_ids(name, ids, n, (n, n))
    if np.any(np.diff(ids.astype(np.int64)) <= 0):
        raise ValueError(f"{name}: got neurons that do not ascend, expected each once, in ascending order")
    return ids.astype(np.int64)


def _checked_part(part: Any, n: int) -> tuple[int, int]:
    if part is None:
        return 0, n
    ends = part if isinstance(part, (tuple, list)) else ()
    if len(ends) != 2 or not all(isinstance(x, numbers.Integral) and not isinstance(x, bool) for x in ends):
        raise TypeError(f"part: got {part!r}, expected (first, stop), two integers")
    if not 0 <= ends[0] <= ends[1] <= n:
        raise ValueError(f"part: got {part!r}, expected (first, stop) with 0 <= first <= stop <= {n}")
    return int(ends[0]), int(ends[1])


def _generator(seed: Any) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed: got {seed!r}, expected an int or a numpy.random.Generator")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected an int >= 0")
    return np.random.default_rng(int(seed))


def _checked_probability(prob: Any, multapses: bool) -> float:
    if isinstance(prob, bool) or not isinstance(prob, numbers.Real):
        raise TypeError(f"prob: got {prob!r}, expected a number from 0 to 1")
    if not 0 <= float(prob) <= 1:
        raise ValueError(f"prob: got {prob}, expected 0 to 1")
    if multapses:
        raise ValueError("multapses: got True with prob, expected indegree or outdegree: prob connects a pair once")
    return float(prob)


def _checked_degree(name: str, degree: Any, n: int, fewest: int, multapses: bool) -> int:
    """`degree`, where a neuron has `n` candidates, or `fewest`, if it is one of them itself."""
    if isinstance(degree, bool) or not isinstance(degree, numbers.Integral):
        raise TypeError(f"{name}: got {degree!r}, expected an integer")
    degree, any_number = int(degree), multapses and fewest > 0
    if degree < 0 or (degree > fewest and not any_number):
        without = " without autapses" if fewest < n else ""
        expected = f"0 to {fewest}, the fewest candidates of any neuron{without}"
        raise ValueError(f"{name}: got {degree}, expected {'an int >= 0' if any_number else expected}")
    return degree


def _bernoulli(rng: np.random.Generator, own: np.ndarray, n: int, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Choose each of `n` with probability `prob`, but a row's `own`, at a cost that grows with the number of these."""
    if not (prob and n):
        return np.zeros(own.size, np.int64), np.zeros(0, np.int32)
    cells = _bernoulli_cells(rng, own.size * n, prob)
    # Rows by binary search, columns by subtraction: each takes a fraction of a division's time.
    starts = np.arange(own.size + 1) * n
    degrees = np.diff(np.searchsorted(cells, starts))
    columns = (cells - np.repeat(starts[:-1], degrees)).astype(_id_dtype(n))
    return _only(degrees, columns, columns != np.repeat(own, degrees)) if own.max() >= 0 else (degrees, columns)


def _bernoulli_cells(rng: np.random.Generator, cells: int, prob: float) -> np.ndarray:
    """The cells, in ascending order, in which independent events of this probability happen: gaps are geometric."""
    blocks, last = [], -1
    while last < cells - 1:
        mean = (cells - 1 - last) * prob
        most = int(mean + 8 * math.sqrt(mean) + 16)  # not enough with a probability below 1e-14; then draw on
        gaps = np.minimum(
            rng.geometric(prob, most), cells + 1
        )  # a sum of longer ones, of 1 / prob = 10^18, would overflow
        blocks.append(last + np.cumsum(gaps))
        last = int(blocks[-1][-1])
    drawn = np.concatenate(blocks)
    return drawn[: np.searchsorted(drawn, cells)]


def _of_degree(
    rng: np.random.Generator, own: np.ndarray, n: int, degree: int, multapses: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Choose `degree` of `n`, without a row's `own`, for every row."""
    draw = _with_replacement if multapses else _distinct
    if not multapses and degree == n:  # and nobody wants rows that would have to leave their own neuron out
        own = np.full(own.size, -1)
    without = np.flatnonzero(own >= 0)
    out = draw(rng, without.size, degree, n - 1)
    out += out >= own[without, None]  # skips the own neuron, and leaves the row sorted
    if without.size < own.size:
        some, out = out, np.empty((own.size, degree), _id_dtype(n))
        out[own < 0] = draw(rng, own.size - without.size, degree, n)
        out[without] = some
    return np.full(own.size, degree), out.ravel()


def _distinct(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """`rows` subsets of `k` of the numbers below `n`, each sorted, uniformly among all subsets."""
    if 2 * k <= n or not rows:
        return _few_distinct(rng, rows, k, n)
    # Draw those that are left out: drawing the others would meet ever more duplicates.
    kept = np.ones((rows, n), bool)
    np.put_along_axis(kept, _few_distinct(rng, rows, n - k, n), False, axis=1)
    return np.nonzero(kept)[1].reshape(rows, k).astype(_id_dtype(n))


def _with_replacement(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """`rows` times `k` of the numbers below `n`, each drawn independently of all others, sorted."""
    out = rng.integers(max(n, 1), size=(rows, k), dtype=_id_dtype(n))  # (where n is 0, k or rows is too)
    out.sort(axis=1)
    return out


def _few_distinct(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """Draw with duplicates, then draw these anew until none is left, which favours no subset of the numbers."""
    drawn = _with_replacement(rng, rows, k, n)
    todo = np.arange(rows)
    while todo.size and k > 1:
        some = drawn[todo]
        again = np.zeros(some.shape, bool)
        np.equal(some[:, 1:], some[:, :-1], out=again[:, 1:])
        unfinished = again.any(axis=1)
        todo, some, again = todo[unfinished], some[unfinished], again[unfinished]
        some[again] = rng.integers(n, size=np.count_nonzero(again), dtype=some.dtype)
        drawn[todo] = np.sort(some, axis=1)
    return drawn


def _id_dtype(n: int) -> type[np.signedinteger]:
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64
