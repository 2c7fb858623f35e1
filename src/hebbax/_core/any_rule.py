"""What `Synapses.apply_on_pre` and `apply_on_post` are given, made ready for `_core.applying`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Literal

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from hebbax._core.applying import Arguments, View, apply
from hebbax._core.building import csc_view, with_unit, without_unit
from hebbax._core.compat import vary_alike
from hebbax._core.fence import fence
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax._core.unitless import arrays_of, check_host_array, spikes_of
from hebbax.errors import ShapeError

CAPACITY = 2048  # at 10^6 synapses 1 000 to 4 000 were equally fast, 500 a fifth slower


def apply_on(
    side: Literal["pre", "post"], synapses: Any, function: Callable, per_synapse: Any, spike: Any, pre: Any, post: Any,
    capacity: int, after: Any,
) -> Any:  # fmt: skip
    """What a function makes of the synapses of the neurons that spike."""
    check_jax()
    if not callable(function):
        raise TypeError(f"function: got {type(function).__name__}, expected a function of one synapse and its neurons")
    capacity = min(checked_capacity(capacity), max(synapses.nse, 1))
    sizes = {"per_synapse": synapses.nse, "pre": synapses.n_pre, "post": synapses.n_post}
    trees = {"per_synapse": per_synapse, "pre": pre, "post": post}
    given = {name: checked(name, tree, sizes[name]) for name, tree in trees.items()}
    if not jax.tree.leaves(per_synapse):
        raise TypeError(f"per_synapse: got {per_synapse!r}, expected at least one array")
    spike = spikes_of(f"{side}_spike", spike, sizes[side])
    if spike.size > np.iinfo(np.int32).max:
        raise OverflowError(f"{side}_spike: got {spike.size} neurons, expected at most {np.iinfo(np.int32).max}")
    spike = fence([spike, *map(jax.lax.stop_gradient, arrays_of("after", after))])[0]  # known only once `after` is
    if side == "pre":
        view, ends = View(synapses.indptr, synapses.indices, None), ("pre", "post")
    else:
        indices, indptr, weight_indices = csc_view(synapses, "apply_on_post")
        view, ends = View(indptr, indices, weight_indices), ("post", "pre")
    view, spike, given, program, shared = traced(function, view, spike, given)
    leaves, tree = jax.tree.flatten(given["per_synapse"])
    changes = [new is not old for new, old in zip(program.outvars, program.invars, strict=False)]
    values, fixed = split(leaves, changes)
    groups = [values, fixed, *(jax.tree.leaves(given[name]) for name in ends), shared]
    flags = [[jnp.issubdtype(x.dtype, jnp.inexact) for x in group] for group in groups]  # what has derivatives
    pairs = [split(group, flag) for group, flag in zip(groups, flags, strict=True)]
    smooth, rest = (Arguments(*parts) for parts in zip(*pairs, strict=True))

    def of_one(smooth: Arguments, rest: Arguments) -> tuple[list, list]:
        values, fixed, *of_ends, shared = (merged(*parts) for parts in zip(smooth, rest, flags, strict=True))
        named = dict(zip(ends, of_ends, strict=True))
        run = jaxpr_as_fun(ClosedJaxpr(program, shared))
        out = run(*merged(values, fixed, changes), *named["pre"], *named["post"])
        return split(split(out, changes)[0], flags[0])

    new = merged(*apply(of_one, view, spike, smooth, rest, sizes[ends[1]], capacity), flags[0])
    return jax.tree.unflatten(tree, merged(new, fixed, changes))


def checked_capacity(capacity: Any) -> int:
    try:
        number = operator.index(capacity)
    except TypeError:
        raise TypeError(f"capacity: got {capacity!r}, expected an integer") from None
    if number < 1:
        raise ValueError(f"capacity: got {capacity}, expected at least 1")
    return number


def checked(name: str, tree: Any, size: int) -> Any:
    """The pytree with arrays of JAX as leaves, each of which must have one entry per synapse, or per neuron."""

    def one(path: Any, x: Any) -> Any:
        where = f"{name}{jax.tree_util.keystr(path)}"
        numbers, unit = without_unit(array_of(where, x))
        if not isinstance(numbers, jax.Array):
            numbers = jnp.asarray(check_host_array(where, numbers))
        if numbers.shape[:1] != (size,):
            raise ShapeError(f"{where}: got shape {numbers.shape}, expected {size} in the first dimension")
        return with_unit(numbers, unit)

    return jax.tree_util.tree_map_with_path(one, tree, is_leaf=is_quantity)


def split(xs: list, flags: list[bool]) -> tuple[list, list]:
    """Those with a flag, and the others."""
    first, second = ([x for x, flag in zip(xs, flags, strict=True) if flag is want] for want in (True, False))
    return first, second


def merged(first: list, second: list, flags: list[bool]) -> list:
    """What `split` was given."""
    left, right = iter(first), iter(second)
    return [next(left if flag else right) for flag in flags]


def traced(function: Callable, view: View, spike: jax.Array, given: dict[str, Any]) -> tuple:
    """The function as a program of one synapse's values, the arrays that it closes over, and all that was given.

    What varies over axes of a `shard_map` does so alike.
    """

    def alike(*shared: Any) -> tuple:
        new_view, new_spike, new_given, *rest = all_alike([view, spike, list(given.values()), *shared])
        return new_view, new_spike, dict(zip(given, new_given, strict=True)), rest

    view, spike, given, _ = alike()
    program, shared = trace(function, given)
    view, spike, varied, now = alike(*shared)
    if any(new is not old for new, old in zip(now, shared, strict=True)):
        raise ValueError(
            "function: closes over an array that is the same on all devices of a shard_map, where others are not: "
            "hand it jax.lax.pcast(array, axes, to='varying'), or call jax.shard_map with check_vma=False"
        )
    if jax.tree.leaves(varied) and jax.tree.leaves(varied)[0] is not jax.tree.leaves(given)[0]:
        program, shared = trace(function, varied)  # by which the arrays it closes over are no others
    return view, spike, varied, program, shared


def trace(function: Callable, given: dict[str, Any]) -> tuple[Any, list]:
    """The function as a program of one synapse's values, and the arrays that it closes over."""
    leaves = jax.tree.leaves(given["per_synapse"])

    def flat(*arguments: Any) -> list:
        out = function(*arguments)
        trees: list[Any] = [jax.tree.structure(x, is_leaf=is_quantity) for x in (out, arguments[0])]
        got, expected = trees
        if got != expected:
            raise TypeError(f"function: returned {shown(got)}, expected {shown(expected)}, as its first argument")
        out = jax.tree_util.tree_map_with_path(in_unit, arguments[0], out, is_leaf=is_quantity)
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(arguments[0], is_leaf=is_quantity)]
        return [fitted(*x) for x in zip(paths, jax.tree.leaves(out), leaves, strict=True)]

    def first(x: jax.Array) -> jax.Array:
        return jax.lax.index_in_dim(x, 0, keepdims=False) if len(x) else jnp.zeros(x.shape[1:], x.dtype)

    of_one = jax.eval_shape(lambda *xs: jax.tree.map(first, xs), *given.values())
    closed = jax.make_jaxpr(flat)(*of_one)
    return closed.jaxpr, [jnp.asarray(x) for x in closed.consts]


def all_alike(tree: Any) -> Any:
    """The same, all of which varies over the axes of a `shard_map` that any of it varies over."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, vary_alike(leaves))


def fitted(path: Any, x: Any, like: jax.Array) -> jax.Array:
    """A returned value in the dtype of the array that it goes to."""
    where, x = f"function(...){jax.tree_util.keystr(path)}", jnp.asarray(x)
    if x.shape != like.shape[1:]:
        raise ShapeError(f"{where}: got shape {x.shape}, expected {like.shape[1:]}, that of its first argument")
    for kind in (jnp.complexfloating, jnp.inexact, jnp.number):
        if jnp.issubdtype(x.dtype, kind) and not jnp.issubdtype(like.dtype, kind):
            raise TypeError(f"{where}: got dtype {x.dtype}, expected {like.dtype}, that of its first argument")
    return x.astype(like.dtype) if x.dtype != like.dtype else x


def shown(tree: Any) -> str:
    return str(tree).removeprefix("PyTreeDef(").removesuffix(")").replace("*", "a value")


def is_quantity(x: Any) -> bool:
    return isinstance(x, u.Quantity)


def in_unit(path: Any, like: Any, x: Any) -> Any:
    """A value of a synapse in the unit of the old one."""
    where = f"function(...){jax.tree_util.keystr(path)}"
    if not is_quantity(like) and not is_quantity(x):
        return x
    units = [y.unit if is_quantity(y) else u.UNITLESS for y in (x, like)]
    if not units[0].has_same_dim(units[1]):
        got, expected = ("a plain number" if y == u.UNITLESS else f"a Quantity of unit {y}" for y in units)
        raise u.UnitMismatchError(f"{where}: got {got}, expected {expected}", *units)
    number = (x if is_quantity(x) else u.Quantity(x)).to(units[1]).mantissa
    return u.Quantity(number, unit=units[1]) if is_quantity(like) else number
