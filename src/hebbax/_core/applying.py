"""A function of one synapse and its two neurons, applied to all synapses of the neurons that spike.

Synapses are visited in tiles, some spiking neurons by some of their synapses: gather, apply, scatter in place, in a
loop that ends when all were visited. So the cost is that of the events (and of finding the spikes), and none is lost
however many there are. A synapse is visited once at most, and what becomes of it depends on its old values alone: the
derivative is a loop over the same tiles, forwards and backwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap
from jax.interpreters import ad, batching, mlir

from hebbax._core.compat import Primitive
from hebbax._core.events import none_yet, record
from hebbax._core.primitives import run_compiled
from hebbax._core.reference import HEADER
from hebbax._core.specs import Arrivals


class View(NamedTuple):
    """A structure, by rows of the neurons that may spike."""

    indptr: jax.Array
    partners: jax.Array  # (nse,), the other neuron of every element
    slots: jax.Array | None  # (nse,), where an element's values lie; None: in this order


class Arguments(NamedTuple):
    """Lists of arrays, which the function takes of every synapse."""

    values: list  # (nse,)
    event: list  # (n_event,)
    other: list  # (n_other,)
    shared: list  # any shape, the same for all


class Tile(NamedTuple):
    """The places of some synapses; where there is none, they are out of range."""

    slot: jax.Array
    event: jax.Array
    other: jax.Array

    def of(self, arguments: Arguments) -> Arguments:
        """What is there."""
        take = functools.partial(jnp.take, axis=0, mode="clip")
        values, event, other = ([take(x, ids) for x in part] for part, ids in zip(arguments[:3], self, strict=True))
        return Arguments(values, event, other, arguments.shared)


def visit(
    body: Callable[[Any, Tile], Any], carry: Any, view: View, spike: jax.Array, n_other: int, capacity: int
) -> Any:
    """What `carry = body(carry, tile)` leaves after all tiles."""
    nse, n = view.partners.size, spike.size
    if not (nse and n):
        return carry
    width = min(max(8, 1 << (-(-nse // n) - 1).bit_length()), 1024, capacity)  # a row of average length, if it fits
    rows = max(1, capacity // width)
    arrivals = Arrivals(n, (0,))
    lists = record(jnp.asarray(none_yet(arrivals)), spike, *3 * (jnp.int32(0),), arrivals)[HEADER + 1 :]
    count, spiking = lists[0], lists[1:]

    def step(state: tuple) -> tuple:
        first, start, carry = state
        place = first + jnp.arange(rows, dtype=jnp.int32)
        event = jnp.take(spiking, place, mode="clip")
        begin, end = view.indptr[event], view.indptr[event + 1]
        size = jnp.where(place < count, end - begin, 0)
        column = start + jnp.arange(width, dtype=begin.dtype)
        inside = column < size[:, None]
        element = jnp.where(inside, begin[:, None] + column, 0)
        slot = element if view.slots is None else view.slots[element]
        tile = Tile(
            jnp.where(inside, slot, nse).reshape(-1),
            jnp.where(inside, event[:, None], n).reshape(-1),
            jnp.where(inside, view.partners[element], n_other).reshape(-1),
        )
        carry = body(carry, tile)
        more = start + width < jnp.max(size)
        return jnp.where(more, first, first + rows), jnp.where(more, start + width, 0), carry

    start = jnp.zeros((), view.indptr.dtype)
    return jax.lax.while_loop(lambda state: state[0] < count, step, (jnp.int32(0), start, carry))[2]


def apply(
    function: Callable[[Arguments, Arguments], tuple[list, list]], view: View, spike: jax.Array, smooth: Arguments,
    rest: Arguments, n_other: int, capacity: int,
) -> tuple[list, list]:  # fmt: skip
    """New values of the synapses, of `smooth` and of `rest`, which has no derivatives.

    `function(smooth, rest)` takes and returns those of one synapse.
    """
    over_tiles = functools.partial(visit, n_other=n_other, capacity=capacity)
    split = len(smooth.values)

    def of_tile(smooth: Arguments, rest: Arguments) -> tuple[list, list]:
        axes = tuple(x._replace(shared=None)._replace(**dict.fromkeys(x._fields[:3], 0)) for x in (smooth, rest))
        return jax.vmap(function, in_axes=axes)(smooth, rest)

    # Under `vmap` each member has a loop of its own: in one for all, none could end before the last, or be changed in
    # place.
    @sequential_vmap
    def run(structure: tuple, smooth: Arguments) -> list:
        view, spike, rest = structure

        def body(values: list, tile: Tile) -> list:
            own, others = smooth._replace(values=values[:split]), rest._replace(values=values[split:])
            first, second = of_tile(tile.of(own), tile.of(others))
            return put(values, tile, [*first, *second])

        return over_tiles(body, [*smooth.values, *rest.values], view, spike)

    def push(residuals: tuple, tangents: Arguments) -> list:
        (view, spike, rest), smooth = residuals

        def body(values: list, tile: Tile) -> list:
            moved, others = tile.of(tangents._replace(values=values)), tile.of(rest)
            return put(values, tile, jax.jvp(lambda x: of_tile(x, others)[0], (tile.of(smooth),), (moved,))[1])

        return over_tiles(body, tangents.values, view, spike)

    def pull(residuals: tuple, cotangents: list) -> Arguments:
        (view, spike, rest), smooth = residuals

        def body(carry: Arguments, tile: Tile) -> Arguments:
            others = tile.of(rest)
            _, back = jax.vjp(lambda x: of_tile(x, others)[0], tile.of(smooth))
            there = tile.slot < view.partners.size
            (found,) = back([jnp.where(jnp.expand_dims(there, range(1, x.ndim)), x, 0) for x in tile.of(carry).values])
            return Arguments(
                put(carry.values, tile, found.values),
                add(carry.event, tile.event, found.event),
                add(carry.other, tile.other, found.other),
                [y + x for y, x in zip(carry.shared, found.shared, strict=True)],
            )

        return over_tiles(body, Arguments(cotangents, *jax.tree.map(jnp.zeros_like, smooth[1:])), view, spike)

    @jax.custom_jvp
    def differentiable(structure: tuple, smooth: Arguments) -> list:
        return run(structure, smooth)

    @differentiable.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[list, list]:
        out = differentiable(*primals)
        moved = linear(push, pull, primals, tangents[1]) if split else []
        return out, [*moved, *(np.zeros(x.shape, jax.dtypes.float0) for x in out[split:])]

    out = differentiable((view, spike, rest), smooth)
    return out[:split], out[split:]


def linear(function: Callable, transposed: Callable, residuals: Any, xs: Any) -> Any:
    """`function(residuals, xs)`, linear in `xs`; its transpose is `transposed(residuals, ys)`."""
    trees: list[Any] = [jax.tree.structure(x) for x in (residuals, xs)]

    def flat(function: Callable, trees: list, *leaves: Any) -> list:
        count = trees[0].num_leaves
        given = jax.tree.unflatten(trees[0], leaves[:count]), jax.tree.unflatten(trees[1], leaves[count:])
        return jax.tree.leaves(function(*given))

    out = jax.eval_shape(function, residuals, xs)
    back = [trees[0], jax.tree.structure(out)]
    leaves = linear_p.bind(
        *jax.tree.leaves(residuals), *jax.tree.leaves(xs), count=trees[0].num_leaves,
        function=functools.partial(flat, function, trees), transposed=functools.partial(flat, transposed, back),
    )  # fmt: skip
    return jax.tree.unflatten(back[1], leaves)


def _linear_abstract(*operands: Any, function: Callable, **_: Any) -> list:
    return [jax.core.ShapedArray(x.shape, x.dtype) for x in jax.eval_shape(function, *operands)]


def _linear_jvp(primals: tuple, tangents: tuple, *, count: int, **functions: Any) -> tuple[list, list]:
    if any(type(x) is not ad.Zero for x in tangents[:count]):
        raise NotImplementedError("a second derivative of apply_on_pre or apply_on_post: it has only the first")
    moved = [ad.instantiate_zeros(x) for x in tangents[count:]]
    bind = functools.partial(linear_p.bind, count=count, **functions)
    return bind(*primals), bind(*primals[:count], *moved)


def _linear_transpose(cotangents: list, *operands: Any, count: int, function: Callable, transposed: Callable) -> list:
    ys = [ad.instantiate_zeros(x) for x in cotangents]
    xs = linear_p.bind(*operands[:count], *ys, count=count, function=transposed, transposed=function)
    return [None] * count + list(xs)


def _linear_batch(operands: tuple, axes: tuple, **params: Any) -> tuple[list, list]:
    """One member after the other."""
    batch = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)]
    own = [k for k, axis in enumerate(axes) if axis is not None]

    def one(members: list) -> list:
        given = dict(zip(own, members, strict=True))
        return linear_p.bind(*(given.get(k, x) for k, x in enumerate(batch)), **params)

    out = jax.lax.map(one, [batch[k] for k in own])
    return out, [0] * len(out)


linear_p = Primitive("hebbax_apply_linear")
linear_p.multiple_results = True
run_compiled(linear_p)
linear_p.def_abstract_eval(_linear_abstract)
ad.primitive_jvps[linear_p] = _linear_jvp
ad.primitive_transposes[linear_p] = _linear_transpose
batching.primitive_batchers[linear_p] = _linear_batch
mlir.register_lowering(linear_p, mlir.lower_fun(lambda *xs, function, **_: function(*xs), multiple_results=True))


def put(arrays: list, tile: Tile, xs: list) -> list:
    return [y.at[tile.slot].set(x, mode="drop", unique_indices=True) for y, x in zip(arrays, xs, strict=True)]


def add(arrays: list, ids: jax.Array, xs: list) -> list:
    return [y.at[ids].add(x, mode="drop") for y, x in zip(arrays, xs, strict=True)]
