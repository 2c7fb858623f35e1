"""Batches that `jit` splits over devices: each device calls a kernel for its own members.

XLA cannot look into a call: every device would gather the whole batch and work on all of it. So XLA is told, by
`jax.experimental.custom_partitioning`, which dimensions are the batch, and given the same call of a part of it. (What
it has for calls by themselves, `jax.ffi.register_ffi_target_as_batch_partitionable`, would split the structure too,
whose first dimension is no batch, and operands of one for all members, and would copy what is updated in place.)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import mlir
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def lower(ctx: Any, call: Callable, *operands: Any, read: int | None = None) -> Any:
    """Lower `call(out, *operands)`, where `out` has the shape and the dtype of its result.

    The result has a batch in full in its leading dimensions, all but the last. So have operands, but that where a size
    is 1, all members share the operand, and that one of a single dimension is none's. Operands behind the first `read`
    stay where they are, whatever their shape.
    """
    (out,) = ctx.avals_out
    devices = _devices(ctx) if out.ndim > 1 else []
    if not devices:
        return mlir.lower_fun(lambda *xs: call(out, *xs), multiple_results=False)(ctx, *operands)
    split = _partitioned(call, out, ctx.avals_in, len(operands) if read is None else read, devices)
    # JAX itself would say which devices there are if it knew that these primitives ask, but then take no mesh without
    # devices, nor two of different shapes.
    context = ctx.module_context
    told = dataclasses.replace(context.axis_context, device_assignment=tuple(devices))
    ctx = ctx.replace(module_context=context.replace(axis_context=told))
    return mlir.lower_fun(split, multiple_results=False)(ctx, *operands)


def _devices(ctx: Any) -> list[jax.Device]:
    """As many as `jit` compiles for, if several: XLA goes by their numbers in a program, not by which they are.

    None in `shard_map`, where nothing is left to split, nor for `jax.export`, which cannot take along what XLA asks.
    """
    context = ctx.module_context
    count = getattr(context.axis_context, "num_devices", 1)
    if count == 1 or context.lowering_parameters.for_export:
        return []
    devices = jax.devices(context.platforms[0])[:count]
    return devices if len(devices) == count else []


def _partitioned(call: Callable, out: Any, operands: Sequence[Any], read: int, devices: list[jax.Device]) -> Callable:
    def run(*parts: Any) -> Any:
        batch = np.broadcast_shapes(*(x.shape[:-1] for x in parts[:read]))
        return call(jax.ShapeDtypeStruct((*batch, out.shape[-1]), out.dtype), *parts)

    def shared_out(*arrays: Any) -> tuple[Mesh, Callable]:
        """How the first array that is split by members is, as a mesh, and how so is any other."""
        layouts = (_layout(x, devices) for x in arrays if x.ndim == out.ndim and x.sharding is not None)
        mesh, axes = next((x for x in layouts if x), (Mesh(np.array(devices), ("devices",)), (None,) * (out.ndim - 1)))

        def sharding(x: Any) -> NamedSharding:
            own = zip(_has_members(x, out), axes, strict=True)
            return NamedSharding(mesh, PartitionSpec(*(axis if has else None for has, axis in own)))

        return mesh, sharding

    def partition(_: Mesh, operands: tuple, result: Any) -> tuple:
        mesh, sharding = shared_out(result, *operands[:read])
        kept = (x.sharding for x in operands[read:])
        return mesh, run, sharding(result), (*map(sharding, operands[:read]), *kept)

    def infer(_: Mesh, operands: tuple, result: Any) -> NamedSharding:
        return shared_out(*operands[:read])[1](result)

    split = custom_partitioning(run)
    split.def_partition(
        partition, infer_sharding_from_operands=infer, decode_shardings=False, sharding_rule=_rule(out, operands, read)
    )
    return split


def _rule(out: Any, operands: Sequence[Any], read: int) -> str:
    """The same for Shardy: a name for every dimension, of which only those of the batch are in several arrays."""
    other = (f"other{k}" for k in itertools.count())

    def names(x: Any, is_read: bool) -> str:
        has = dict(enumerate(_has_members(x, out) if is_read else []))
        return " ".join(f"member{k}" if has.get(k) else next(other) for k in range(x.ndim))

    return f"{', '.join(names(x, k < read) for k, x in enumerate(operands))} -> {names(out, True)}"


def _has_members(x: Any, out: Any) -> list[bool]:
    """Whether an array has members of its own in each of the dimensions that are the batch."""
    return [x.ndim == out.ndim and x.shape[k] == out.shape[k] > 1 for k in range(out.ndim - 1)]


def _layout(x: Any, devices: list[jax.Device]) -> tuple[Mesh, tuple] | None:
    """How devices share out the leading dimensions of an array: axes of a mesh for each; None if they do not.

    Of the mesh that the user has, XLA knows nothing any more: only which part of the array every device has.
    """
    part = _parts(x.sharding, x.shape, devices)
    if part is None or not part.any() or (axes := _mesh_axes(part)) is None:
        return None
    names = [f"axis{k}" for k in range(len(axes))]
    mesh = Mesh(np.array(devices).reshape([size for size, _ in axes]), names)
    split: list[tuple | None] = []
    for k in range(part.shape[1]):
        along = sorted((-step[k], name) for name, (_, step) in zip(names, axes, strict=True) if step[k])
        split.append(tuple(name for _, name in along) or None)
    found = _parts(NamedSharding(mesh, PartitionSpec(*split)), x.shape, devices)
    return (mesh, tuple(split)) if found is not None and (found == part).all() else None


def _parts(sharding: Any, shape: tuple, devices: list[jax.Device]) -> np.ndarray | None:
    """Which part of the leading dimensions every device has, shape (devices, dimensions); None if they are uneven."""
    try:
        places, own = sharding.devices_indices_map(shape), sharding.shard_shape(shape)
    except ValueError:
        return None
    starts = [[index.start or 0 for index in places[device][:-1]] for device in devices]
    return np.array(starts) // np.maximum(own[:-1], 1)


def _mesh_axes(part: np.ndarray) -> list[tuple[int, np.ndarray]] | None:
    """Axes of a mesh along each of which the part that devices have goes up by equal steps: sizes and steps."""
    axes: list[tuple[int, np.ndarray]] = []
    inner, n = 1, len(part)
    while inner < n:
        for size in (k for k in range(2, n // inner + 1) if n // inner % k == 0):
            blocks = part.reshape(-1, size, inner, part.shape[1])
            step = blocks[0, 1, 0] - blocks[0, 0, 0]
            along = np.arange(size)[:, None, None] * step
            if np.count_nonzero(step) <= 1 and (blocks - blocks[:, :1] == along).all():
                break
        else:
            return None
        axes.insert(0, (size, step))
        inner *= size
    return axes
