"""Connectivity in NumPy, on the host: checked, sorted, transposed, drawn at random."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
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


# Elements drawn at a time, so that temporary arrays stay in the tens of megabytes.
_BLOCK = 2**22
# Pairs looked at in a time: with about `_BLOCK` gaps, none much above this, no sum of them leaves int64.
_CELLS = 2**40


def random(
    shape: tuple[int, int],
    prob: float | None,
    indegree: int | None,
    outdegree: int | None,
    autapses: bool,
    seed: int | np.random.Generator,
    multapses: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return `indptr` and `indices` of a random structure, which `Synapses.random` describes."""
    rules = {"prob": prob, "indegree": indegree, "outdegree": outdegree}
    given = [name for name, value in rules.items() if value is not None]
    if len(given) != 1:
        raise TypeError(f"got {' and '.join(given) or 'none'} of {', '.join(rules)}, expected exactly one")
    check_flag("autapses", autapses)
    check_flag("multapses", multapses)
    rng = _generator(seed)
    if prob is not None:
        if isinstance(prob, bool) or not isinstance(prob, numbers.Real):
            raise TypeError(f"prob: got {prob!r}, expected a number from 0 to 1")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob: got {prob}, expected 0 to 1")
        if multapses:
            raise ValueError("multapses: got True with prob, expected indegree or outdegree: prob connects a pair once")
        return _bernoulli(rng, shape, float(prob), autapses)
    draw = _with_replacement if multapses else _distinct
    if outdegree is not None:
        degree = _checked_degree("outdegree", outdegree, shape, autapses, multapses)
        return _fixed_outdegree(rng, shape, degree, autapses, draw)
    columns = shape[::-1]
    degree = _checked_degree("indegree", indegree, columns, autapses, multapses)
    return transposed(*_fixed_outdegree(rng, columns, degree, autapses, draw), columns)[:2]


def random_among(
    shape: tuple[int, int], pre: Any, post: Any, prob: float | None, indegree: int | None, outdegree: int | None,
    autapses: bool, *options: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """As `random`, but between those neurons only."""
    sources, targets = _checked_subset("pre", pre, shape[0]), _checked_subset("post", post, shape[1])
    same = np.array_equal(sources, targets)
    apart = same or not np.intersect1d(sources, targets).size
    if not (autapses or apart or prob is not None):
        raise ValueError(
            "autapses: got False with a degree, expected pre and post to be the same neurons, or to share none"
        )
    sizes = sources.size, targets.size
    starts, chosen = random(sizes, prob, indegree, outdegree, autapses or not same, *options)
    degree, indices = np.diff(starts), targets[chosen]
    if not (autapses or apart):  # each pair was drawn independently of the others: these are left out
        rows = np.repeat(np.arange(sizes[0]), degree)
        others = indices != sources[rows]
        indices, degree = indices[others], np.bincount(rows[others], minlength=sizes[0])
    degrees = np.zeros(shape[0] + 1, np.int64)
    degrees[1 + sources] = degree
    return np.cumsum(degrees), indices


def _checked_subset(name: str, ids: Any, n: int) -> np.ndarray:
    if ids is None:
        return np.arange(n)
    ids = checked_ids(name, ids, n, (n, n))
    if np.any(np.diff(ids.astype(np.int64)) <= 0):
        raise ValueError(f"{name}: got neurons that do not ascend, expected each once, in ascending order")
    return ids.astype(np.int64)


def _generator(seed: Any) -> np.random.Generator:
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed: got {seed!r}, expected an int or a numpy.random.Generator")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected an int >= 0")
    return np.random.default_rng(int(seed))


def _checked_degree(name: str, degree: Any, shape: tuple[int, int], autapses: bool, multapses: bool) -> int:
    if isinstance(degree, bool) or not isinstance(degree, numbers.Integral):
        raise TypeError(f"{name}: got {degree!r}, expected an integer")
    candidates = shape[1] if autapses or 0 in shape else shape[1] - 1
    degree, any_number = int(degree), multapses and candidates > 0
    if degree < 0 or (degree > candidates and not any_number):
        without = "" if autapses else " without autapses"
        expected = f"0 to {candidates}, the fewest candidates of any neuron{without}"
        raise ValueError(f"{name}: got {degree}, expected {'an int >= 0' if any_number else expected}")
    return degree


def _bernoulli(
    rng: np.random.Generator, shape: tuple[int, int], prob: float, autapses: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Connect every pair with probability `prob`, at a cost that grows with the number of synapses, not of pairs."""
    n_pre, n_post = shape
    if not (prob and n_pre and n_post):
        return np.zeros(n_pre + 1, np.int64), np.zeros(0, np.int32)
    rows = max(1, min(int(_BLOCK / max(prob * n_post, 1.0)), _CELLS // n_post))
    degrees, indices = [np.zeros(1, np.int64)], []
    for start in range(0, n_pre, rows):
        block = min(rows, n_pre - start)
        cells = _bernoulli_cells(rng, block * n_post, prob)
        if not autapses:
            cells = cells[cells // n_post + start != cells % n_post]
        # Rows by binary search, columns by subtraction: each takes a fraction of a division's time.
        starts = np.arange(block + 1) * n_post
        degrees.append(np.diff(np.searchsorted(cells, starts)))
        indices.append((cells - np.repeat(starts[:-1], degrees[-1])).astype(_id_dtype(n_post)))
    return np.cumsum(np.concatenate(degrees)), np.concatenate(indices)


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


def _fixed_outdegree(
    rng: np.random.Generator, shape: tuple[int, int], degree: int, autapses: bool, draw: Callable[..., np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Connect every presynaptic neuron to `degree` postsynaptic ones, which `draw` draws."""
    n_pre, n_post = shape
    with_autapse = 0 if autapses else min(shape)  # rows that have to leave their own neuron out
    own = draw(rng, with_autapse, degree, n_post - 1)
    own += own >= np.arange(with_autapse)[:, None]  # skips the own neuron, and leaves the row sorted
    rest = draw(rng, n_pre - with_autapse, degree, n_post)
    indices = np.concatenate([own.ravel(), rest.ravel()])
    return np.arange(n_pre + 1) * degree, indices


def _distinct(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """`rows` subsets of `k` of the numbers below `n`, each sorted, uniformly among all subsets."""
    out = np.empty((rows, k), _id_dtype(n))
    few = 2 * k <= n
    block = max(1, _BLOCK // max(k if few else n, 1))
    for start in range(0, rows if k else 0, block):
        part = out[start : start + block]
        if few:
            part[:] = _few_distinct(rng, len(part), k, n)
        else:  # draw those that are left out: drawing the others would meet ever more duplicates
            kept = np.ones((len(part), n), bool)
            np.put_along_axis(kept, _few_distinct(rng, len(part), n - k, n), False, axis=1)
            part[:] = np.nonzero(kept)[1].reshape(part.shape)
    return out


def _with_replacement(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """`rows` times `k` of the numbers below `n`, each drawn independently of all others, sorted."""
    out = rng.integers(max(n, 1), size=(rows, k), dtype=_id_dtype(n))  # (where n is 0, k or rows is too)
    out.sort(axis=1)
    return out


def _few_distinct(rng: np.random.Generator, rows: int, k: int, n: int) -> np.ndarray:
    """Draw with duplicates, then draw these anew until none is left, which favours no subset of the numbers."""
    drawn = np.sort(rng.integers(n, size=(rows, k), dtype=_id_dtype(n)), axis=1)
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
