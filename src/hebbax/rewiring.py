"""Structure that changes: synapses are taken away and others come, and what there is of each is carried along."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import building, connectivity, merging
from hebbax._core.any_rule import is_quantity, shown
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.numbers import concrete
from hebbax._core.pytree import assemble
from hebbax._core.unitless import check_host_array
from hebbax.errors import ShapeError
from hebbax.operators import Plain, in_unit
from hebbax.synapses import Integers, Synapses

VIEWS = (*building.CSR, *building.CSC)
AGAIN = (
    "add_pre[{k}], add_post[{k}]: got {pre}, {post}, where a synapse is kept or added already "
    "(multapses=True would keep both)"
)


def rewire(
    synapses: Synapses, keep: Plain, add_pre: Integers, add_post: Integers, *, values: Any = (), new: Any = (),
    multapses: bool = False, room: int = 0,
) -> tuple[Synapses, Any]:  # fmt: skip
    r"""Take synapses away and add others: a new structure, and what there is of each synapse in its order.

    Parameters
    ----------
    synapses : Synapses
        The structure, which stays as it is.
    keep : array of bool, shape (nse,)
        Which of its synapses are kept, in CSR order.
    add_pre, add_post : array of int, shape (m,)
        Presynaptic and postsynaptic neurons of the synapses that are added.
    values : pytree of arrays or Quantities, shape (nse, ...), optional
        What there is of each synapse, in CSR order: weights, eligibilities, bounds, ages.
    new : pytree of numbers, arrays or Quantities, scalars or shape (m, ...), optional
        As `values`: what the synapses have that are added, one for all, or one for each in the order of `add_pre`.
    multapses : bool, default False
        Allow several synapses between the same two neurons, as `Synapses.from_coo` does: those that are kept come
        before those that are added, and these stay in their order. Without it, they raise.
    room : int, default 0
        Free places behind the last row, for `rewire_within`.

    Returns
    -------
    synapses : Synapses
        Those that are kept and those that are added: bit for bit what `Synapses.from_coo` makes of their list.
    values : pytree of Array or Quantity, shape (nse, ...)
        With the dtypes and units of `values`; 0 in free places.

    Raises
    ------
    hebbax.errors.ShapeError, TypeError, ValueError, OverflowError, brainunit.UnitMismatchError
        A shape, dtype or unit does not fit, a neuron does not exist, or a synapse is added where one is; the message
        names the argument. A TypeError also where the structure is traced: inside `jit` there is `rewire_within`.

    Notes
    -----
    Time and memory are linear in `nse + m`. It runs on the host, but for values that are traced.

    See Also
    --------
    rewire_within : The same inside `jit`, at a fixed size.

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    >>> weight, age = jnp.array([0.5, 0.01, 1.0, 0.125]), jnp.array([7, 9, 3, 5])
    >>> synapses, (weight, age) = hebbax.rewire(
    ...     synapses, weight > 0.1, add_pre=[0], add_post=[2], values=(weight, age), new=(0.25, 0)
    ... )
    >>> synapses.indptr, synapses.indices
    (Array([0, 2, 4], dtype=int32), Array([0, 2, 0, 2], dtype=int32))
    >>> weight, age
    (Array([0.5  , 0.25 , 1.   , 0.125], dtype=float32), Array([7, 0, 3, 5], dtype=int32))
    """
    check_jax()
    given = {"synapses": synapses, "keep": keep, "add_pre": add_pre, "add_post": add_post}
    for name, x in given.items():
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)):
            raise TypeError(
                f"{name}: got a traced array, expected a concrete one: rewire outside jit, or by hebbax.rewire_within"
            )
    _check_structure(synapses, multapses)
    shape, room = synapses.shape, _checked_room(room)
    new_pre = connectivity.checked_ids("add_pre", add_pre, shape[0], shape)
    new_post = connectivity.checked_ids("add_post", add_post, shape[1], shape)
    _check_same_shape(new_pre, new_post)
    m = new_pre.size
    values = _Values.checked(values, new, synapses.nse, m)
    _check_size(synapses, m + room)

    indptr = np.asarray(synapses.indptr)
    kept = np.flatnonzero(np.asarray(_checked_keep(keep, synapses.nse))[: indptr[-1]])
    pre, post = np.repeat(np.arange(shape[0]), np.diff(indptr))[kept], np.asarray(synapses.indices)[kept]
    if not multapses and connectivity.repeats(pre, post).any():
        raise ValueError("multapses: got False, expected True where several synapses that are kept are of one pair")
    pre, post = np.concatenate([pre, new_pre]), np.concatenate([post, new_post])
    places = np.concatenate([m + kept, np.arange(m)])  # as `merging` numbers them
    listed = building.Listed(pre, post, None, shape, AGAIN, places)
    views, _, order = building.from_list(listed, sum_duplicates=False, multapses=multapses, return_permutation=True)
    source = np.concatenate([np.asarray(order), np.full(room, m + synapses.nse)])
    return assemble(Synapses, views | _with_room(views, room)), values.at(source)


class Rewired(NamedTuple):
    """What `rewire_within` returns."""

    synapses: Synapses
    values: Any  # pytree of arrays or Quantities, (nse, ...)
    added: jax.Array  # (m,), bool: which of those offered were added
    dropped: jax.Array  # int32: how many of the others would have been, had there been room


def rewire_within(
    synapses: Synapses, keep: Plain, add_pre: Plain, add_post: Plain, *, values: Any = (), new: Any = (),
    multapses: bool = False,
) -> Rewired:  # fmt: skip
    """Take synapses away and add others within the places that there are: all sizes stay, so that it can be compiled.

    Parameters
    ----------
    synapses : Synapses
        The structure. Its last places may be free: behind `indptr[-1]`, where no row refers to them.
    keep : Array, shape (nse,), bool
        Which of its synapses are kept, in CSR order; what it says of free places does not matter.
    add_pre, add_post : Array, shape (m,), integer
        Presynaptic and postsynaptic neurons of the synapses that are offered. Where either is out of range, -1 say,
        there is none.
    values, new : pytree, optional
        As in `rewire`.
    multapses : bool, default False
        Whether to add a synapse also where one is kept, or was offered before.

    Returns
    -------
    synapses : Synapses
        Those that are kept, and of those that are offered the first for which there is room; the free places are the
        last ones. The number of synapses is `synapses.indptr[-1]`, while `nse` counts free places, too.
    values : pytree of Array or Quantity, shape (nse, ...)
        With the dtypes and units of `values`; 0 in free places.
    added : Array, shape (m,), bool
        Which of the offered synapses were added.
    dropped : Array, scalar, int32
        How many of them were not, for want of room alone.

    Raises
    ------
    hebbax.errors.ShapeError, TypeError, brainunit.UnitMismatchError
        A shape, dtype or unit does not fit; the message names the argument.

    Notes
    -----
    Time is linear in `nse`, but for what is offered, which is sorted. It is plain JAX, for any device, `scan`, `vmap`
    and `shard_map` (on `ShardedSynapses.local()`); the derivative of the new values is that of what they are.
    All that takes `Synapses` leaves free places alone, but for `hebbax.delays.DelayedSynapses`, which refuses them,
    bounds, to which their values are clipped like others, and what passes over all weights, `SynapticScaling.fold` and
    `RewardSTDP.settle`. `rewire` with nothing to add does without them.

    See Also
    --------
    rewire : The same outside `jit`, checked, at whatever size it takes.

    Examples
    --------
    The weakest synapses give their places to others. Of these, one is there already, and one more is offered than
    there is room for:

    >>> import hebbax, jax, jax.numpy as jnp
    >>> synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    >>> weight = jnp.array([0.5, 0.01, 1.0, 0.125])
    >>> @jax.jit
    ... def renew(synapses, weight, pre, post):
    ...     return hebbax.rewire_within(synapses, weight > 0.1, pre, post, values=weight, new=0.25)
    >>> out = renew(synapses, weight, jnp.array([0, 0, 1]), jnp.array([0, 2, 1]))
    >>> out.synapses.indices, out.values
    (Array([0, 2, 0, 2], dtype=int32), Array([0.5  , 0.25 , 1.   , 0.125], dtype=float32))
    >>> out.added, int(out.dropped)
    (Array([False,  True, False], dtype=bool), 1)
    """
    check_jax()
    _check_structure(synapses, multapses)
    pre, post = (_checked_offer(name, x) for name, x in (("add_pre", add_pre), ("add_post", add_post)))
    _check_same_shape(pre, post)
    values = _Values.checked(values, new, synapses.nse, pre.size)
    keep = jnp.asarray(_checked_keep(keep, synapses.nse))
    _check_size(synapses, pre.size)
    building.csc_view(synapses, "rewire_within")
    views = tuple(getattr(synapses, name) for name in VIEWS)
    views, source, added, dropped = _compiled(views, synapses.shape, keep, pre, post, bool(multapses))
    fields = {**dict(zip(VIEWS, views, strict=True)), "shape": synapses.shape}
    return Rewired(assemble(Synapses, fields), values.at(source), added, dropped)


_compiled = functools.partial(jax.jit, static_argnums=(1, 5), inline=True)(merging.rewired)


def _with_room(views: dict[str, Any], room: int) -> dict[str, jax.Array]:
    """The arrays with an entry for each synapse, and for free places."""
    nse, dtype = views["indices"].size, views["indices"].dtype
    zeros, places = np.zeros(room, dtype), np.arange(nse, nse + room, dtype=dtype)
    free = {"indices": zeros, "csc_indices": zeros, "weight_indices": places}
    with jax.ensure_compile_time_eval():  # by NumPy, which compiles nothing
        return {name: jnp.array(np.concatenate([views[name], x])) for name, x in free.items()}


class _Values(NamedTuple):
    """A pytree of values of each synapse, and what new synapses have, as arrays without units."""

    old: list[Any]  # (nse, ...)
    new: list[Any]  # scalars or (m, ...)
    units: list[u.Unit | None]
    tree: Any
    m: int

    @classmethod
    def checked(cls, values: Any, new: Any, nse: int, m: int) -> _Values:
        """Raise unless the two fit each other, and the numbers of synapses."""
        tree: Any
        leaves, tree = jax.tree_util.tree_flatten_with_path(values, is_leaf=is_quantity)
        others, got = jax.tree.flatten(new, is_leaf=is_quantity)
        if isinstance(new, tuple) and not new and m == 0:  # nothing to give values to
            others = [None] * len(leaves)
        elif tree != got:
            raise TypeError(f"new: got {shown(got)}, expected {shown(tree)}, as values")
        out = cls([], [], [], tree, m)
        for (path, x), y in zip(leaves, others, strict=True):
            name, other = (f"{of}{jax.tree_util.keystr(path)}" for of in ("values", "new"))
            numbers, unit = building.without_unit(array_of(name, x))
            old = _array(name, numbers)
            if old.shape[:1] != (nse,):
                raise ShapeError(f"{name}: got shape {old.shape}, expected ({nse}, ...), one entry per synapse")
            if isinstance(old, np.ndarray):
                old = old.astype(jax.dtypes.canonicalize_dtype(old.dtype), copy=False)
            if y is None:
                y = np.zeros((), old.dtype)
            elif unit is not None or is_quantity(y):
                y = in_unit(other, y, u.UNITLESS if unit is None else unit)
            added = _array(other, array_of(other, y))
            expected = m, *old.shape[1:]
            if added.shape not in ((), expected):
                raise ShapeError(f"{other}: got shape {added.shape}, expected a scalar or {expected}, as add_pre")
            if _rank(added.dtype) > _rank(old.dtype):
                raise TypeError(f"{other}: got dtype {added.dtype}, expected one that {old.dtype} can hold, as {name}")
            _check_fits(other, added, old.dtype, name)
            out.old.append(old)
            out.new.append(added.astype(old.dtype))
            out.units.append(unit)
        return out

    def at(self, source: jax.Array) -> Any:
        """Those of the synapses that come to each place."""
        values = []
        for old, new, unit in zip(self.old, self.new, self.units, strict=True):
            # Where all is known, NumPy takes them: JAX would compile that anew for every size.
            traced = any(isinstance(x, jax.core.Tracer) for x in (old, new))
            xp = np if isinstance(source, np.ndarray) and not traced else jnp
            numbers = merging.carried(xp.broadcast_to(new, (self.m, *old.shape[1:])), old, source, xp)
            values.append(building.with_unit(jnp.asarray(numbers), unit))
        return jax.tree.unflatten(self.tree, values)


def _array(name: str, x: Any) -> Any:
    """An array of JAX, or one of NumPy whose integers JAX can take."""
    if not isinstance(x, jax.Array):
        x = np.asarray(check_host_array(name, x))
    if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected numbers or bool")
    return x


def _check_fits(name: str, new: Any, dtype: Any, like: str) -> None:
    """Raise where integers that can be seen are none of this dtype, which would wrap them."""
    if not jnp.issubdtype(dtype, jnp.integer) or not new.size or (seen := concrete(new)) is None:
        return
    limits, low, high = jnp.iinfo(dtype), int(seen.min()), int(seen.max())
    if not limits.min <= low <= high <= limits.max:
        raise OverflowError(
            f"{name}: got {low if low < limits.min else high}, expected what {dtype} can hold, as {like}"
        )


def _rank(dtype: Any) -> int:
    """Of a kind of numbers among those that hold it."""
    kinds: tuple[Any, ...] = jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating
    return next(rank for rank, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def _check_structure(synapses: Any, multapses: Any) -> None:
    if not isinstance(synapses, Synapses):
        raise TypeError(f"synapses: got {type(synapses).__name__}, expected a hebbax.Synapses")
    connectivity.check_flag("multapses", multapses)


def _check_size(synapses: Synapses, more: int) -> None:
    dtype = synapses.indices.dtype
    if synapses.nse + more > np.iinfo(dtype).max:
        raise OverflowError(f"synapses: got {synapses.nse} places and {more} more, which do not fit {dtype}")


def _checked_room(room: Any) -> int:
    if isinstance(room, bool) or not isinstance(room, (int, np.integer)):
        raise TypeError(f"room: got {room!r}, expected an integer")
    if room < 0:
        raise ValueError(f"room: got {room}, expected at least 0")
    return int(room)


def _checked_keep(keep: Any, nse: int) -> Any:
    keep = array_of("keep", keep)
    keep = keep if isinstance(keep, jax.Array) else np.asarray(keep)
    if keep.dtype != bool:
        raise TypeError(f"keep: got dtype {keep.dtype}, expected bool")
    if keep.shape != (nse,):
        raise ShapeError(f"keep: got shape {keep.shape}, expected {(nse,)}, one entry per synapse")
    return keep


def _checked_offer(name: str, x: Any) -> jax.Array:
    ids = x if isinstance(x, jax.Array) else jnp.asarray(_array(name, connectivity.checked_integers(name, x)))
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"{name}: got dtype {ids.dtype}, expected integers")
    if ids.ndim != 1:
        raise ShapeError(f"{name}: got shape {ids.shape}, expected one dimension")
    return ids


def _check_same_shape(pre: Any, post: Any) -> None:
    if pre.shape != post.shape:
        raise ShapeError(f"add_post: got shape {post.shape}, expected {pre.shape}, as add_pre has")
