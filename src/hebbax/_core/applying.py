"""A function of one synapse and its two neurons, applied to all synapses of the neurons that spike.

Synapses are visited in tiles, some spiking neurons by some of their synapses: gather, apply, scatter in place, in a
loop that ends when all were visited. So the cost is that of the events (and of finding the spikes), and none is lost
however many there are. A synapse is visited once at most, and what becomes of it depends on its old values alone: the
derivative is a loop over the same tiles, forwards and backwards.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.interpreters import ad, batching, mlir

from hebbax import _cpu
from hebbax._core.compat import Primitive
from hebbax._core.events import none_yet, record
from hebbax._core.fence import fence
from hebbax._core.primitives import put_in, run_compiled
from hebbax._core.reference import HEADER
from hebbax._core.specs import Arrivals


class View(NamedTuple):
    """A structure, by rows of the neurons that may spike."""

    indptr: jax.Array
    partners: jax.Array  # (nse,), the other neuron of every element
    slots: jax.Array | None  # (nse,), where an element's values lie; None: in this order


class Arguments(NamedTuple):
    """Lists of arrays, which the function takes of every synapse."""

    values: Any  # (nse, ...), which it changes
    fixed: Any  # (nse, ...), which it does not
    event: Any  # (n_event, ...)
    other: Any  # (n_other, ...)
    shared: Any  # any shape, the same for all


class Member(NamedTuple):
    """One array of a batch of them, which is not taken out of it."""

    batch: jax.Array
    number: jax.Array

    def at(self, ids: jax.Array) -> jax.Array:
        return self.batch.at[self.number, ids].get(mode="clip")


class Tile(NamedTuple):
    """The places of some synapses. Where there is none, the slot is out of range, and the rest is another synapse's."""

    slot: jax.Array
    event: jax.Array
    other: jax.Array
    real: jax.Array  # the slots, or another synapse's

    def of(self, *arguments: Arguments) -> list[Arguments]:
        """What is there."""

        def take(x: Any, ids: jax.Array) -> jax.Array:
            return x.at(ids) if isinstance(x, Member) else jnp.take(x, ids, axis=0, mode="clip")

        places = self.real, self.real, self.event, self.other
        found = [[[take(x, ids) for x in part] for part, ids in zip(x, places, strict=False)] for x in arguments]
        return [Arguments._make([*parts, x.shared]) for parts, x in zip(found, arguments, strict=True)]


def visit(
    body: Callable[[Any, Tile], Any], carry: Any, view: View, spike: jax.Array, n_other: int, capacity: int
) -> Any:
    """What `carry = body(carry, tile)` leaves after all tiles."""
    nse, n = view.partners.size, spike.size
    if not (nse and n):
        return carry
    width = min(max(8, 1 << (-(-nse // n) - 1).bit_length()), 1024, capacity)  # a row of average length, if it fits
    arrivals = Arrivals(n, (0,))
    spiking = record(jnp.asarray(none_yet(arrivals)), spike, *3 * (jnp.int32(0),), arrivals)[HEADER + 1 :]
    slots = jnp.zeros(0, view.partners.dtype) if view.slots is None else view.slots
    # What a lane that has no synapse computes of, since the function may be for real ones only: the first there is.
    first = [jnp.int32(0) if view.slots is None else slots[0], jnp.argmax(view.indptr[1:] > 0), view.partners[0]]
    count = jnp.where(view.indptr[-1] > 0, spiking[0], 0)

    def step(state: tuple) -> tuple:
        place, start, carry = state
        operands = view.indptr, view.partners, slots, spiking, jnp.stack([place, start])
        *tile, (place, start) = tile_p.bind(*operands, rows=max(1, capacity // width), width=width, n_other=n_other)
        there = tile[0] < nse
        slot, event, other = (jnp.where(there, x, y.astype(x.dtype)) for x, y in zip(tile, first, strict=True))
        return place, start, body(carry, Tile(tile[0], event, other, slot))

    nothing = jnp.zeros_like(view.indptr[0])
    return jax.lax.while_loop(lambda state: state[0] < count, step, (nothing, nothing, carry))[2]


def _tile_abstract(indptr: Any, *_: Any, rows: int, width: int, n_other: int) -> list:
    return [indptr.update(shape=(size,), weak_type=False) for size in (*3 * (rows * width,), 2)]


def _tile_in_jax(indptr, partners, slots, spiking, cursor, *, rows: int, width: int, n_other: int) -> list:
    """Some rows by some of their elements. A row that is longer takes more than one tile, and so do those beside it."""
    nse, n = partners.size, indptr.size - 1
    (first, start), count, spiking = cursor, spiking[0], spiking[1:]
    place = first + jnp.arange(rows, dtype=first.dtype)
    event = jnp.take(spiking, place, mode="clip")
    begin, end = indptr[event], indptr[event + 1]
    size = jnp.where(place < count, end - begin, 0)
    column = start + jnp.arange(width, dtype=begin.dtype)
    inside = column < size[:, None]
    element = jnp.where(inside, begin[:, None] + column, 0)
    partner, slot = partners[element], slots[element] if slots.size else element
    inside &= (partner >= 0) & (partner < n_other) & (slot >= 0) & (slot < nse)
    more = start + width < jnp.max(size)
    cursor = jnp.where(more, first, first + rows), jnp.where(more, start + width, 0)
    parts = (slot, nse), (event[:, None], n), (partner, n_other)
    tile = [jnp.where(inside, x, outside).reshape(-1).astype(indptr.dtype) for x, outside in parts]
    return [*tile, jnp.stack(cursor)]


def _tile_natively(indptr, partners, slots, spiking, cursor, *, rows: int, width: int, n_other: int) -> list:
    """Elements one after the other, of however many rows they are."""
    lanes = rows * width
    cursor = jnp.append(cursor, jnp.asarray(n_other, cursor.dtype))
    call = jax.ffi.ffi_call("hebbax_tile", jax.ShapeDtypeStruct((3 * lanes + 2,), indptr.dtype))
    return jnp.split(call(indptr, partners, slots, spiking, cursor, flags=np.int32(0)), [lanes, 2 * lanes, 3 * lanes])


def _tile_batch(operands: tuple, axes: tuple, **params: Any) -> tuple[list, list]:
    """One after the other, for a batch of batches."""
    in_batch = [axis is not None for axis in axes]
    moved = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)]

    def one(member: list) -> list:
        return tile_p.bind(*put_in(moved, in_batch, member), **params)

    out = jax.lax.map(one, list(itertools.compress(moved, in_batch)))
    return out, [0] * len(out)


def _lower_tile_on_cpu(ctx: Any, *operands: Any, **params: Any) -> Any:
    native = _cpu.missing is None and len({x.dtype for x in ctx.avals_in[:3]}) == 1
    return mlir.lower_fun(_tile_natively if native else _tile_in_jax, multiple_results=True)(ctx, *operands, **params)


# The next elements of the neurons in a list, from a cursor on: their slots, neurons and partners, and the next cursor.
tile_p = Primitive("hebbax_tile")
tile_p.multiple_results = True
run_compiled(tile_p)
tile_p.def_abstract_eval(_tile_abstract)
batching.primitive_batchers[tile_p] = _tile_batch
mlir.register_lowering(tile_p, mlir.lower_fun(_tile_in_jax, multiple_results=True))
mlir.register_lowering(tile_p, _lower_tile_on_cpu, platform="cpu")


def apply(
    function: Callable[[Arguments, Arguments], tuple[list, list]], view: View, spike: jax.Array, smooth: Arguments,
    rest: Arguments, n_other: int, capacity: int,
) -> tuple[list, list]:  # fmt: skip
    """New values of the synapses, of `smooth` and of `rest`, which has no derivatives.

    `function(smooth, rest)` takes and returns those of one synapse.
    """
    over_tiles = functools.partial(visit, n_other=n_other, capacity=capacity)
    # What a tile becomes is fenced: XLA might gather some of it after a scatter, and keep a copy of an array for that.
    split = len(smooth.values)

    def of_tile(smooth: Arguments, rest: Arguments) -> tuple[list, list]:
        return jax.vmap(function, in_axes=2 * (Arguments(0, 0, 0, 0, None),))(smooth, rest)

    def changed(
        values: list, view: View, spike: jax.Array, smooth: Arguments, rest: Arguments, member: Any = None
    ) -> list:
        """The values after all tiles; those of one member, if they are a batch."""

        def body(values: list, tile: Tile) -> list:
            held = values if member is None else [Member(x, member) for x in values]
            own, others = smooth._replace(values=held[:split]), rest._replace(values=held[split:])
            first, second = of_tile(*tile.of(own, others))
            return put(values, tile, fence([*first, *second]), member)

        return over_tiles(body, values, view, spike)

    def run_one(structure: tuple, smooth: Arguments) -> list:
        view, spike, rest = structure
        return changed([*smooth.values, *rest.values], view, spike, smooth, rest)

    run = custom_vmap(run_one)

    @run.def_vmap
    def _(size: int, in_batch: Any, structure: tuple, smooth: Arguments) -> tuple[list, list]:
        """One member after the other, each in place: in one loop for all, none could end before the last."""
        flags: Any = in_batch
        axes = jax.tree.map(lambda x: 0 if x else None, flags)
        if any(jax.tree.leaves(flags[0][0])):  # a batch of structures
            out = jax.vmap(sequential_vmap(run_one), in_axes=tuple(axes), axis_size=size)(structure, smooth)
            return out, [True] * len(out)
        (view, spike, rest), smooth = jax.tree.map(jnp.asarray, (structure, smooth))
        batched = [*flags[1].values, *flags[0][2].values]
        values = [*smooth.values, *rest.values]
        values = [x if mine else jnp.broadcast_to(x, (size, *x.shape)) for x, mine in zip(values, batched, strict=True)]

        def of_member(arguments: Arguments, flags: Arguments, k: jax.Array) -> Arguments:
            def one(x: Any, mine: bool) -> Any:
                return Member(x, k) if mine else x

            *parts, shared = ([*map(one, *pair)] for pair in zip(arguments, flags, strict=True))
            return Arguments._make([*parts, [x.batch[k] if isinstance(x, Member) else x for x in shared]])

        def one(k: jax.Array, values: list) -> list:
            own, others = of_member(smooth, flags[1], k), of_member(rest, flags[0][2], k)
            return changed(values, view, spike[k] if flags[0][1] else spike, own, others, k)

        return jax.lax.fori_loop(0, size, one, values), [True] * len(values)

    def push(residuals: tuple, tangents: Arguments) -> list:
        (view, spike, rest), smooth = residuals

        def body(values: list, tile: Tile) -> list:
            own, moved, others = tile.of(smooth, tangents._replace(values=values), rest)
            return put(values, tile, fence(jax.jvp(lambda x: of_tile(x, others)[0], (own,), (moved,))[1]))

        return over_tiles(body, tangents.values, view, spike)

    def pull(residuals: tuple, cotangents: list) -> Arguments:
        (view, spike, rest), smooth = residuals

        def body(carry: Arguments, tile: Tile) -> Arguments:
            own, others, back = tile.of(smooth, rest, carry)
            there = tile.slot < view.partners.size
            ys = [jnp.where(jnp.expand_dims(there, range(1, x.ndim)), x, 0) for x in back.values]
            (found,) = fence(jax.vjp(lambda x: of_tile(x, others)[0], own)[1](ys))
            return Arguments(
                put(carry.values, tile, found.values),
                put(carry.fixed, tile, found.fixed),
                add(carry.event, tile.event, found.event),  # of lanes without a synapse 0, since their `ys` are
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


def _linear_abstract(*operands: Any, count: int, function: Callable, **_: Any) -> list:
    like = operands[count]  # which varies, in `shard_map`, as the others do
    return [like.update(shape=x.shape, dtype=x.dtype, weak_type=False) for x in jax.eval_shape(function, *operands)]


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


def _linear_batch(operands: tuple, axes: tuple, *, count: int, function: Callable, transposed: Callable) -> tuple:
    """One member after the other, and so in the transpose: JAX's own of such a loop would not know what is linear."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    in_batch = [axis is not None for axis in axes[:count]]
    given = zip(operands[:count], axes[:count], strict=True)
    residuals = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in given]
    xs = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands[count:], axes[count:], strict=True)]
    each = functools.partial(functools.partial, _of_each, in_batch)
    out = linear_p.bind(*residuals, *xs, count=count, function=each(function), transposed=each(transposed))
    return out, [0] * len(out)


def _of_each(in_batch: list[bool], function: Callable, *operands: Any) -> list:
    residuals, xs = operands[: len(in_batch)], operands[len(in_batch) :]

    def one(member: tuple[list, list]) -> list:
        return function(*put_in(residuals, in_batch, member[0]), *member[1])

    return jax.lax.map(one, (list(itertools.compress(residuals, in_batch)), list(xs)))


linear_p = Primitive("hebbax_apply_linear")
linear_p.multiple_results = True
run_compiled(linear_p)
linear_p.def_abstract_eval(_linear_abstract)
ad.primitive_jvps[linear_p] = _linear_jvp
ad.primitive_transposes[linear_p] = _linear_transpose
batching.primitive_batchers[linear_p] = _linear_batch
mlir.register_lowering(linear_p, mlir.lower_fun(lambda *xs, function, **_: function(*xs), multiple_results=True))


def put(arrays: list, tile: Tile, xs: list, member: Any = None) -> list:
    places = tile.slot if member is None else (member, tile.slot)
    return [y.at[places].set(x, mode="drop", unique_indices=True) for y, x in zip(arrays, xs, strict=True)]


def add(arrays: list, ids: jax.Array, xs: list) -> list:
    return [y.at[ids].add(x, mode="drop") for y, x in zip(arrays, xs, strict=True)]
