"""Currents on their way: `propagate` into sums that are there already, so that a step writes only what arrives.

The sums of the next steps lie in one array, twice as long as the columns of the unrolled structure: a step's columns
begin at a `place`, which moves down by a row of neurons from step to step and starts again, so that a row is summed in
two parts, half of the array apart. What was the row of the last step is cleared, and is that of the longest delay now.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from hebbax._core import lowering, members
from hebbax._core.compat import Primitive
from hebbax._core.primitives import Network, bind, propagate_p, run_compiled, sum_to
from hebbax._core.specs import Spec


def deliver(weight, structure, events, gain, sums, place, n: int, *, spec: Spec, backend: str | None) -> jax.Array:
    """The sums of all steps that come, shape `(2 * columns,)`, after what arrives at the synapses in a step.

    `structure` is `indices`, `indptr`, `weight_indices`; `place` is where the step's columns begin, and the first `n`
    from there on, and those half of the array later, are cleared before.
    """
    places = jnp.stack([place, jnp.int32(n)])
    gain = jnp.zeros(0, sums.dtype) if gain is None else gain.astype(sums.dtype)
    operands = weight, *structure, events, gain, sums, places
    return bind(deliver_p, *operands, n=n, spec=spec, backend=backend)


def add_columns(sums, place, n: int, columns) -> jax.Array:
    """The same in plain JAX, without a batch, where `columns` are what arrives."""
    part = jax.lax.dynamic_slice(sums := _clear(sums, place, n), (place,), columns.shape) + columns
    return jax.lax.dynamic_update_slice(sums, part, (place,))


def _cleared(sums, places, n):
    return _vectorized(lambda sums, places: _clear(sums, places[0], n), sums, places)


def _clear(sums, place, n):
    for start in (place, place + sums.size // 2):
        sums = jax.lax.dynamic_update_slice(sums, jnp.zeros(n, sums.dtype), (start,))
    return sums


def _columns(sums, places):
    """A step's part of the sums."""
    size = sums.shape[-1] // 2
    return _vectorized(lambda sums, places: jax.lax.dynamic_slice(sums, (places[0],), (size,)), sums, places)


def _vectorized(function, *arrays):
    return jnp.vectorize(function, signature=f"{','.join(f'({k})' for k in 'ab'[: len(arrays)])}->(c)")(*arrays)


def _deliver_natively(sums, *operands, spec: Spec, **_):
    call = jax.ffi.ffi_call("hebbax_deliver", jax.ShapeDtypeStruct(sums.shape, sums.dtype), input_output_aliases={6: 0})
    return call(*operands, **lowering.attributes(spec))


def _deliver_in_jax(*operands, n: int, spec: Spec, backend: str | None):
    *network, sums, places = operands
    out = bind(propagate_p, *network, spec=spec, backend=backend, n_out=sums.shape[-1] // 2)
    add = jnp.vectorize(
        lambda sums, places, out: add_columns(sums, places[0], n, out), signature="(a),(b),(c)->(a)"
    )  # fmt: skip
    return add(sums, places, out)


def _lowering(platform: str):
    def lower(ctx, *operands, backend: str | None, **params):
        backend = lowering.chosen_backend(ctx, platform, params["spec"], backend)
        if backend == "cython":
            return members.lower(ctx, functools.partial(_deliver_natively, **params), *operands)
        run = functools.partial(_deliver_in_jax, backend=backend, **params)
        return mlir.lower_fun(run, multiple_results=False)(ctx, *operands)

    return lower


def _jvp(primals, tangents, *, n, **params):
    out = bind(deliver_p, *primals, n=n, **params)
    weight, *network, gain, sums, places = primals
    d_weight, d_gain, d_sums = tangents[0], tangents[5], tangents[6]
    tangent = ad.instantiate_zeros(d_sums)
    if type(d_weight) is not ad.Zero:
        tangent = bind(deliver_p, d_weight, *network, gain, tangent, places, n=n, **params)
    else:
        tangent = _cleared(tangent, places, n)
    if type(d_gain) is not ad.Zero:  # (in sums of its own, or it would clear those)
        tangent += bind(deliver_p, weight, *network, d_gain, jnp.zeros_like(sums), places, n=n, **params)
    return out, tangent


def _transpose(cotangent, weight, *operands, n, spec, backend):
    *structure, lists, gain, sums, places = operands
    out = [None] * 8
    if type(cotangent) is not ad.Zero:
        net, columns = Network(spec, backend, tuple(structure), lists), _columns(cotangent, places)
        if ad.is_undefined_primal(weight):
            out[0] = net.total(weight.aval, columns, gain)
        if ad.is_undefined_primal(gain):
            out[5] = sum_to(net.collect(weight, columns), gain.aval.shape)
        if ad.is_undefined_primal(sums):
            out[6] = _cleared(cotangent, places, n)
    return out


def _batch(operands, axes, **params):
    weight, *structure, lists, gain, sums, places = operands
    if any(axis is not None for axis in axes[1:4]):
        raise NotImplementedError("a batch of structures with delays: call one after the other, by jax.lax.map")
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    weight, lists, gain, places = (
        x[None] if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip((weight, lists, gain, places), (axes[0], axes[4], axes[5], axes[7]), strict=True)
    )
    sums = batching.bdim_at_front(sums, axes[6], size)
    return bind(deliver_p, weight, *structure, lists, gain, sums, places, **params), 0


deliver_p = Primitive("hebbax_deliver")
run_compiled(deliver_p)
deliver_p.def_abstract_eval(lambda *operands, **_: operands[6].update(weak_type=False))
ad.primitive_jvps[deliver_p] = _jvp
ad.primitive_transposes[deliver_p] = _transpose
batching.primitive_batchers[deliver_p] = _batch
for _platform in lowering.PLATFORMS:
    mlir.register_lowering(deliver_p, _lowering(_platform), platform=_platform)
