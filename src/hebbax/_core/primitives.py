"""The three JAX primitives, and how they are differentiated and batched.

All three are parts of one form, a sum over the elements k of every spiking row j:

    T(weight, gain, trace) = sum of spike[j] * gain[j] * weight[slot(k)] * trace[indices[k]]

`propagate` is its derivative in the trace, `collect` that in the gain, and `update` adds that in the weight to a weight
(and keeps bounds, if there are any). So each is linear in what it takes of the three, and is transposed by the others.
A spike that is floating counts as 1, if it is not 0, but it is differentiated as the factor that it is here. (An
operator that updates is given bool spikes, which have none; derivatives of `propagate` bring floating ones to all.)

Each primitive takes all the operands of its row in `_core.specs` (one that is not given has size 0), so that its rules
never ask which are there. Behind these, an update takes any arrays that it is to wait for, and hands them to the
backend as they are: to wait for several, nothing is computed or copied.

`propagate` and `collect` also take one weight, of size 1, for all synapses: no array of one for each is made of it.

A batch is in leading dimensions, which all operands have but the structure and what is waited for; where one of these
is 1, all members of the batch share the operand. The weight of an update has them in full: it becomes the result.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching, mlir

from hebbax._core import lowering, reference
from hebbax._core.compat import Primitive, vary_alike
from hebbax._core.specs import STRUCTURE, Spec


def bind(primitive: Primitive, *operands, **params):
    return primitive.bind(*vary_alike(operands), **params)


def _make_primitive(name: str, abstract_eval: Callable, jvp: Callable, transpose: Callable) -> Primitive:
    primitive = Primitive(name)
    primitive.def_abstract_eval(abstract_eval)
    run_compiled(primitive)
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    for platform in lowering.PLATFORMS:
        mlir.register_lowering(primitive, lowering.lowering_rule(platform), platform=platform)
    return primitive


def run_compiled(primitive: Primitive) -> None:
    """Let a primitive run by a cached `jit` where it is called outside of any."""

    def run(*operands, params):
        return primitive.bind(*operands, **dict(params)), work_beside(max(operands, key=np.size))

    run._apply_primitive = True  # type: ignore[attr-defined]  # under `debug_nans`, JAX does not run it again without `jit`, which would never end
    run.__name__ = primitive.name  # in JAX's logs, and in profiles
    compiled = jax.jit(run, static_argnames=("params",))

    @primitive.def_impl
    def _impl(*operands, **params):
        with jax.disable_jit(False):  # under `disable_jit`, `compiled` would come straight back here
            return compiled(*operands, params=tuple(params.items()))[0]


_LONG = 1 << 24  # elements on which a call may take a tenth of a second


def work_beside(x):
    """Work that XLA can count, beside a call on many elements, to be returned with its result.

    XLA takes the call of a function that it does not know to cost nothing, and has the thread that asks for what costs
    less than 1000 operations wait for it, where nothing answers Ctrl-C. Of other results Python waits in
    `block_until_ready`, which does.
    """
    return jnp.sin(jnp.arange(4096, dtype=jnp.float32) + jnp.ravel(x)[0]) if np.size(x) >= _LONG else ()


def _batch(primitive: Primitive, operands, axes, **params):
    """One call with a leading dimension; where the structure has the batch, one call after the other."""
    names = params["spec"].operands
    operands, after = list(operands[: len(names)]), operands[len(names) :]
    in_batch = [axis is not None for axis in axes[: len(names)]]
    operands = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=False)]
    batch = list(itertools.compress(operands, in_batch))
    if not batch:  # but in what it waits for
        return bind(primitive, *operands, *after, **params), None
    if set(STRUCTURE) & set(itertools.compress(names, in_batch)):
        return jax.lax.map(
            lambda member: bind(primitive, *put_in(operands, in_batch, member), *after, **params), batch
        ), 0
    for k, name in enumerate(names):
        if not in_batch[k] and name not in STRUCTURE:
            operands[k] = operands[k][None]
    if params["spec"].kind == "update":
        operands[0] = jnp.broadcast_to(operands[0], (batch[0].shape[0], *operands[0].shape[1:]))
    return bind(primitive, *operands, *after, **params), 0


def put_in(operands, where: list[bool], members) -> list:
    """`operands` with the next one of `members` wherever `where` says so."""
    members = iter(members)
    return [next(members) if is_member else x for x, is_member in zip(operands, where, strict=True)]


class Network(NamedTuple):
    """The structure and the spikes that a call has, on which its derivatives run too."""

    spec: Spec
    backend: str | None
    structure: tuple[Any, Any, Any]  # indices, indptr, weight_indices
    spike: Any

    @property
    def everyone(self) -> Network:
        """The same, all neurons spiking: where derivatives with respect to spikes come from."""
        return self._replace(spike=jnp.ones((1,) * (self.spike.ndim - 1) + self.spike.shape[-1:], bool))

    def add(self, weight, trace, gain):
        """The weight plus the derivative of T in the weight: an update without bounds."""
        batch = _batch_shape(weight, self.spike, trace, gain)
        weight = jnp.broadcast_to(weight, batch + weight.shape[-1:])
        operands = weight, *self.structure, self.spike, trace, gain, _none(weight), _none(weight)
        return self._bind("update", *operands, clip_all=False, soft_bound=None, mu=1.0)

    def total(self, weight, trace, gain):
        """The derivative of T in a weight, of which only shape and dtype are given.

        If the members of a batch share it, it is the sum of theirs, added up one after the other: to do that
        afterwards would take an array of the weight's size for every member. That of a weight that all synapses share
        is a sum over the rows of what they collect.
        """
        if reference.is_shared(weight, self.structure[0]):
            sums = self.collect(jnp.ones((1,) * weight.ndim, trace.dtype), trace)
            return sum_to(sums * gain if gain.shape[-1] else sums, weight.shape).astype(weight.dtype)
        zeros = ad.instantiate_zeros(ad.Zero(weight.update(dtype=trace.dtype, weak_type=False)))  # as it is sharded
        operands = vary_alike([zeros, self.spike, trace, gain])
        return self._add_all(*operands).astype(weight.dtype)

    def _add_all(self, weight, *varying):
        for axis, size in enumerate(_batch_shape(*varying)):
            if weight.shape[axis] == size or size == 1:
                continue
            in_batch = [x.shape[axis] == size for x in varying]

            def step(weight, member, axis=axis, in_batch=in_batch):
                member = (jnp.expand_dims(x, axis) for x in member)
                return self._add_all(weight, *put_in(varying, in_batch, member)), None

            batch = [jnp.moveaxis(x, axis, 0) for x in itertools.compress(varying, in_batch)]
            return jax.lax.scan(step, weight, batch)[0]
        spike, trace, gain = varying
        return self._replace(spike=spike).add(weight, trace, gain)

    def propagate(self, weight, gain, n_out: int):
        """The derivative of T in the trace, shape `(..., n_out)`."""
        return self._bind("propagate", weight, *self.structure, self.spike, gain, n_out=n_out)

    def collect(self, weight, trace):
        """The derivative of T in the gain, shape `(..., n_event)`."""
        return self._bind("collect", weight, *self.structure, self.spike, trace)

    def _bind(self, kind, *operands, **params):
        return bind(_PRIMITIVES[kind], *operands, spec=self.spec.like(kind), backend=self.backend, **params)


def _is_zero(x) -> bool:
    return type(x) is ad.Zero


def _batch_shape(*operands) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape[:-1] for x in operands))


def sum_to(x, shape: tuple[int, ...]):
    """The sum of `x` over the dimensions in which `shape` is 1: the transpose of broadcasting."""
    axes = tuple(axis for axis, (have, want) in enumerate(zip(x.shape, shape, strict=True)) if have != want)
    return jnp.sum(x, axes, keepdims=True) if axes else x


def _update_jvp(primals, tangents, *, spec, backend, **params):
    out = bind(update_p, *primals, spec=spec, backend=backend, **params)
    given = dict(zip(spec.operands, primals, strict=False))
    changes = {
        name: change
        for name, change in zip(spec.operands, tangents, strict=False)
        if name in ("weight", "spike", "trace", "gain", "w_min", "w_max") and not _is_zero(change)
    }
    net = Network(spec, backend, tuple(primals[1:4]), given["spike"])
    if not changes:  # but for `after`
        return out, jnp.zeros_like(out)
    if given["w_min"].shape[-1] or given["w_max"].shape[-1]:
        return out, _bounded_tangent(net, given, changes, **params)
    tangent = changes.get("weight")
    if tangent is None:
        tangent = jnp.zeros_like(out)
    if "trace" in changes:
        tangent = net.add(tangent, changes["trace"], given["gain"])
    if "gain" in changes:
        tangent = net.add(tangent, given["trace"], changes["gain"])
    if "spike" in changes:
        tangent = net.everyone.add(tangent, given["trace"], _factor(changes["spike"], given["gain"]))
    return out, tangent


def _bounded_tangent(net, given, changes, *, clip_all, soft_bound, mu):
    """The tangent of an update with bounds: its derivative is that of `jnp.clip`, 1/2 where a weight equals a bound."""
    w_min, w_max = given["w_min"], given["w_max"]
    x, tangent = jax.jvp(
        lambda varied: _unclipped(net, **(given | varied), soft_bound=soft_bound, mu=mu),
        ({name: given[name] for name in changes},),
        (changes,),
    )
    code = _clip_code(x, w_min, w_max)
    if not clip_all:
        # What no spike touches is not clipped: its derivative is 1, also if it rests on a bound.
        zeros = jnp.zeros(x.shape, x.dtype if x.dtype == np.float64 else jnp.bfloat16)
        touched = net.add(zeros, jnp.ones_like(given["trace"]), _none(given["gain"])) != 0
        code = jnp.where(touched, code, WEIGHT_BELOW_MAX | WEIGHT_ABOVE_MIN)
    for bound, own, other in (("w_min", WEIGHT_ABOVE_MIN, MIN), ("w_max", WEIGHT_BELOW_MAX, MAX)):
        tangent = _share(tangent, code, own, other)
        if bound in changes:
            tangent = tangent + _share(changes[bound], code, other, own)
    return tangent


def _unclipped(net, *, weight, trace, gain, w_min, w_max, soft_bound, mu, **_):
    if soft_bound is None:
        return net.add(weight, trace, gain)
    x = weight.astype(trace.dtype)
    change = net.add(jnp.zeros_like(x), trace, gain)
    return (x + change * reference.soften(x, (w_min, w_max), soft_bound, mu)).astype(weight.dtype)


# Which arguments of the comparisons in `minimum(maximum(x, w_min), w_max)` are their results: bits of one byte for each
# weight, which is all of the clipping that has to be kept for a backward pass.
WEIGHT_ABOVE_MIN, MIN, WEIGHT_BELOW_MAX, MAX = 1, 2, 4, 8


def _clip_code(x, w_min, w_max):
    code = jnp.int8(0)
    if w_min.shape[-1]:
        low = jnp.maximum(x, w_min)
        code |= jnp.where(x == low, jnp.int8(WEIGHT_ABOVE_MIN), 0) | jnp.where(w_min == low, jnp.int8(MIN), 0)
    else:
        low, code = x, jnp.int8(WEIGHT_ABOVE_MIN)
    if w_max.shape[-1]:
        high = jnp.minimum(low, w_max)
        return code | jnp.where(low == high, jnp.int8(WEIGHT_BELOW_MAX), 0) | jnp.where(w_max == high, jnp.int8(MAX), 0)
    return code | jnp.int8(WEIGHT_BELOW_MAX)


def _share(x, code, own: int, other: int):
    """`x` times the derivative of `maximum` or `minimum` in the argument with bit `own`: shared, if both are equal."""
    return bind(share_p, jnp.broadcast_to(x, code.shape), code, own=own, other=other)


def _share_in_jax(x, code, *, own, other):
    return jnp.where(code & own != 0, jnp.where(code & other != 0, x / 2, x), jnp.zeros((), x.dtype))


def _share_batch(operands, axes, **params):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    x, code = (batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True))
    return bind(share_p, x, code, **params), 0


# A primitive only for what it keeps: of the same in plain JAX, a backward pass would keep arrays of floats.
share_p = Primitive("hebbax_share")
share_p.def_impl(jax.jit(_share_in_jax, static_argnames=("own", "other")))
share_p.def_abstract_eval(lambda x, _, **__: x.update(weak_type=False))
ad.primitive_jvps[share_p] = lambda primals, tangents, **params: (
    bind(share_p, *primals, **params),
    bind(share_p, tangents[0], primals[1], **params),
)
ad.primitive_transposes[share_p] = lambda cotangent, _, code, **params: (
    [cotangent if _is_zero(cotangent) else bind(share_p, cotangent, code, **params), None]
)
batching.primitive_batchers[share_p] = _share_batch
mlir.register_lowering(share_p, mlir.lower_fun(_share_in_jax, multiple_results=False))


def _none(like):
    """An operand that is not given."""
    return jnp.zeros((1,) * (like.ndim - 1) + (0,), like.dtype)


def _update_transpose(cotangent, weight, *operands, spec, backend, **_):
    """Of an update without bounds, linear in the weight and the trace, or in the weight and the gain."""
    indices, indptr, weight_indices, spike, trace, gain, _w_min, _w_max, *after = operands
    net = Network(spec, backend, (indices, indptr, weight_indices), spike)
    out = dict.fromkeys(spec.operands)
    if not _is_zero(cotangent):
        if ad.is_undefined_primal(weight):
            out["weight"] = cotangent
        if ad.is_undefined_primal(trace):
            out["trace"] = sum_to(net.propagate(cotangent, gain, trace.aval.shape[-1]), trace.aval.shape)
        if ad.is_undefined_primal(gain):
            out["gain"] = sum_to(net.collect(cotangent, trace), gain.aval.shape)
    return [*out.values(), *(None for _ in after)]


def _propagate_jvp(primals, tangents, *, spec, backend, n_out):
    out = bind(propagate_p, *primals, spec=spec, backend=backend, n_out=n_out)
    weight, *structure, spike, gain = primals
    d_weight, *_, d_spike, d_gain = tangents
    net, terms = Network(spec, backend, tuple(structure), spike), []
    if not _is_zero(d_weight):
        terms.append(net.propagate(d_weight, gain, n_out))
    if not _is_zero(d_gain):
        terms.append(net.propagate(weight, d_gain, n_out))
    if not _is_zero(d_spike):
        terms.append(net.everyone.propagate(weight, _factor(d_spike, gain), n_out))
    return out, functools.reduce(jnp.add, terms)


def _propagate_transpose(cotangent, weight, *operands, spec, backend, n_out):
    *structure, spike, gain = operands
    net, out = Network(spec, backend, tuple(structure), spike), dict.fromkeys(spec.operands)
    if not _is_zero(cotangent):
        if ad.is_undefined_primal(weight):
            out["weight"] = net.total(weight.aval, cotangent, gain)
        if ad.is_undefined_primal(gain):
            out["gain"] = sum_to(net.collect(weight, cotangent), gain.aval.shape)
    return list(out.values())


def _collect_jvp(primals, tangents, *, spec, backend):
    out = bind(collect_p, *primals, spec=spec, backend=backend)
    weight, *structure, spike, trace = primals
    d_weight, *_, d_spike, d_trace = tangents
    net, terms = Network(spec, backend, tuple(structure), spike), []
    if not _is_zero(d_weight):
        terms.append(net.collect(d_weight, trace))
    if not _is_zero(d_trace):
        terms.append(net.collect(weight, d_trace))
    if not _is_zero(d_spike):
        terms.append(d_spike.astype(out.dtype) * net.everyone.collect(weight, trace))
    return out, functools.reduce(jnp.add, terms)


def _collect_transpose(cotangent, weight, *operands, spec, backend):
    *structure, spike, trace = operands
    net, out = Network(spec, backend, tuple(structure), spike), dict.fromkeys(spec.operands)
    if not _is_zero(cotangent):
        if ad.is_undefined_primal(weight):
            out["weight"] = net.total(weight.aval, trace, cotangent)
        if ad.is_undefined_primal(trace):
            shape = trace.aval.shape
            out["trace"] = sum_to(net.propagate(weight, cotangent, shape[-1]), shape)
    return list(out.values())


def _factor(d_spike, gain):
    """A spike's derivative as the gain of a call for everyone."""
    d_spike = d_spike.astype(gain.dtype)
    return d_spike * gain if gain.shape[-1] else d_spike


def _update_abstract(weight, *_, **__):
    return weight.update(weak_type=False)


def _propagate_abstract(weight, indices, indptr, weight_indices, spike, gain, *, n_out, **_):
    return gain.update(shape=(*_batch_shape(weight, spike, gain), n_out), weak_type=False)


def _collect_abstract(weight, indices, indptr, weight_indices, spike, trace, **_):
    return trace.update(shape=(*_batch_shape(weight, spike, trace), indptr.shape[-1] - 1), weak_type=False)


update_p = _make_primitive("hebbax_update", _update_abstract, _update_jvp, _update_transpose)
propagate_p = _make_primitive("hebbax_propagate", _propagate_abstract, _propagate_jvp, _propagate_transpose)
collect_p = _make_primitive("hebbax_collect", _collect_abstract, _collect_jvp, _collect_transpose)
_PRIMITIVES = {"update": update_p, "propagate": propagate_p, "collect": collect_p}
