"""What `Synapses.apply_on_pre` and `apply_on_post` are given, made ready for `_core.applying`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Literal

import brainunit as u
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from hebbax._core.applying import Arguments, View, apply
from hebbax._core.compat import vary_alike
from hebbax._core.foreign import array_of
from hebbax._core.forks import check_jax
from hebbax.errors import ShapeError

CAPACITY = 2048  # at 10^6 synapses 1 000 to 4 000 were equally fast, 500 a fifth slower


def apply_on(
    side: Literal["pre", "post"], synapses: Any, function: Callable, per_synapse: Any, spike: Any, pre: Any, post: Any,
    capacity: int,
) -> Any:  # fmt: skip
    """What a function makes of the synapses of the neurons that spike."""
    check_jax()
    capacity = checked_capacity(capacity)
    sizes = {"per_synapse": synapses.nse, "pre": synapses.n_pre, "post": synapses.n_post}
    trees = {"per_synapse": per_synapse, "pre": pre, "post": post}
    given = {name: checked(name, tree, sizes[name]) for name, tree in trees.items()}
    spike = checked(f"{side}_spike", array_of(f"{side}_spike", spike), sizes[side])
    if side == "pre":
        view, ends = View(synapses.indptr, synapses.indices, None), ("pre", "post")
    else:
        view, ends = View(synapses.csc_indptr, synapses.csc_indices, synapses.weight_indices), ("post", "pre")
    view, spike, *alike = all_alike([view, spike, *given.values()])
    given = dict(zip(given, alike, strict=True))
    program, shared = trace(function, given)
    shared, _ = all_alike((shared, spike))
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

    spike = spike if spike.dtype == bool else spike != 0
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
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.shape(x)[:1] != (size,):
            where = f"{name}{jax.tree_util.keystr(path)}"
            raise ShapeError(f"{where}: got shape {jnp.shape(x)}, expected {size} in the first dimension")
    return jax.tree.map(jnp.asarray, tree)


def split(xs: list, flags: list[bool]) -> tuple[list, list]:
    """Those with a flag, and the others."""
    first, second = ([x for x, flag in zip(xs, flags, strict=True) if flag is want] for want in (True, False))
    return first, second


def merged(first: list, second: list, flags: list[bool]) -> list:
    """What `split` was given."""
    left, right = iter(first), iter(second)
    return [next(left if flag else right) for flag in flags]


def trace(function: Callable, given: dict[str, Any]) -> tuple[Any, list]:
    """The function as a program of one synapse's values, and the arrays that it closes over."""
    leaves = jax.tree.leaves(given["per_synapse"])

    def flat(*arguments: Any) -> list:
        out = function(*arguments)
        got, expected = (shown(jax.tree.structure(x, is_leaf=is_quantity)) for x in (out, arguments[0]))
        if got != expected:
            raise TypeError(f"function: returned {got}, expected {expected}, as its first argument")
        out = jax.tree.map(in_unit, arguments[0], out, is_leaf=is_quantity)
        return [fitted(x, like) for x, like in zip(jax.tree.leaves(out), leaves, strict=True)]

    of_one = jax.eval_shape(lambda *xs: jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), xs), *given.values())
    closed = jax.make_jaxpr(flat)(*of_one)
    return closed.jaxpr, [jnp.asarray(x) for x in closed.consts]


def all_alike(tree: Any) -> Any:
    """The same, all of which varies over the axes of a `shard_map` that any of it varies over."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, vary_alike(leaves))


def fitted(x: Any, like: jax.Array) -> jax.Array:
    """A returned value in the dtype of the array that it goes to."""
    x = jnp.asarray(x)
    if x.shape != like.shape[1:]:
        raise ShapeError(f"function: returned shape {x.shape}, expected {like.shape[1:]}, as it got")
    for kind in (jnp.complexfloating, jnp.inexact, jnp.number):
        if jnp.issubdtype(x.dtype, kind) and not jnp.issubdtype(like.dtype, kind):
            raise TypeError(f"function: returned {x.dtype}, expected {like.dtype}, as it got, or what that can hold")
    return x.astype(like.dtype)


def shown(tree: Any) -> str:
    return str(tree).removeprefix("PyTreeDef(").removesuffix(")").replace("*", "a value")


def is_quantity(x: Any) -> bool:
    return isinstance(x, u.Quantity)


def in_unit(like: Any, x: Any) -> Any:
    """A value of a synapse in the unit of the old one."""
    if is_quantity(like) != is_quantity(x):
        kinds = [f"a Quantity of unit {y.unit}" if is_quantity(y) else "a plain number" for y in (x, like)]
        raise TypeError(f"function: returned {kinds[0]}, expected {kinds[1]}, as it got")
    return x.to(like.unit) if is_quantity(x) else x
