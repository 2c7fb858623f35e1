"""What XLA does not look through: a point where arrays are worked out, once, before anything is made of them."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from jax.interpreters import ad, batching, mlir

from hebbax import _cpu
from hebbax._core.compat import Primitive
from hebbax._core.forks import check_jax

T = TypeVar("T")


def fence(arrays: T) -> T:
    """Have arrays computed once, here, and not anew by everything that is computed from them.

    XLA's CPU compiler merges elementwise work into whatever uses its result, once for each use. So a neuron's new
    voltage, say, is computed anew for its spikes, its refractory time, the reset voltage and all that is made of these:
    put a fence around it, before the threshold. `jax.lax.optimization_barrier` is meant to prevent that, but is taken
    out before XLA merges what is left. This is a call of a function that does nothing, which XLA cannot know.

    Parameters
    ----------
    arrays : pytree of Array
        Of any dtypes and shapes; a `Quantity` keeps its unit.

    Returns
    -------
    pytree of Array
        The same, without a copy. Derivatives pass through, fenced too; `vmap` and `shard_map` change nothing. On other
        platforms than the CPU, and where `jit` itself splits arrays over devices, it is `optimization_barrier`.

    Examples
    --------
    >>> import hebbax, jax, jax.numpy as jnp
    >>> @jax.jit
    ... def step(voltage, current):
    ...     voltage = hebbax.fence(0.99 * voltage + current)
    ...     spike = voltage > 1.0
    ...     return jnp.where(spike, 0.0, voltage), spike
    >>> step(jnp.array([0.5, 1.0]), 0.1)
    (Array([0.595, 0.   ], dtype=float32), Array([False,  True], dtype=bool))
    """
    check_jax()
    leaves, tree = jax.tree.flatten(arrays)
    held = [k for k, x in enumerate(leaves) if isinstance(x, jax.Array) and _is_plain(x)]
    for k, x in zip(held, fence_p.bind(*(leaves[k] for k in held)), strict=True):
        leaves[k] = x
    return jax.tree.unflatten(tree, leaves)


def _is_plain(x: jax.Array) -> bool:
    return not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)  # as keys of random numbers are not


def _of_those_given(xs: Any) -> list[Any]:
    """The fence of those that are not symbolic zeros."""
    fenced = iter(fence_p.bind(*(x for x in xs if type(x) is not ad.Zero)))
    return [x if type(x) is ad.Zero else next(fenced) for x in xs]


def _lower_on_cpu(ctx: Any, *operands: Any) -> Any:
    # Where `jit` splits arrays, XLA would gather all of an array to hand it to a call.
    if _cpu.missing or not operands or getattr(ctx.module_context.axis_context, "num_devices", 1) != 1:
        return _lower(ctx, *operands)
    call = jax.ffi.ffi_call(
        "hebbax_fence",
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in ctx.avals_out),
        input_output_aliases={k: k for k in range(len(operands))},
    )
    return mlir.lower_fun(lambda *xs: call(*xs), multiple_results=True)(ctx, *operands)


_lower = mlir.lower_fun(lambda *xs: jax.lax.optimization_barrier(xs), multiple_results=True)

fence_p = Primitive("hebbax_fence")
fence_p.multiple_results = True
fence_p.def_impl(lambda *xs: list(xs))  # there is nothing to merge
fence_p.def_abstract_eval(lambda *avals: list(avals))
ad.primitive_jvps[fence_p] = lambda primals, tangents: (fence_p.bind(*primals), _of_those_given(tangents))
ad.primitive_transposes[fence_p] = lambda cotangents, *_: _of_those_given(cotangents)
batching.primitive_batchers[fence_p] = lambda operands, axes: (fence_p.bind(*operands), axes)
mlir.register_lowering(fence_p, _lower)
mlir.register_lowering(fence_p, _lower_on_cpu, platform="cpu")
