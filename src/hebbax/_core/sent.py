"""Spikes that devices send each other, as lists: a message says which of some neurons spiked in some steps.

It is an array of int32:

    step             which of the steps is meant
    n, steps         neurons and steps
    capacity         spikes that there is room for,
    lost             and how many there was none for, on the fullest device
    start ...        where each step's spikes begin in what follows, and where the last ones end
    neuron ...       which spiked: step by step, ascending; `capacity` of them, if none are lost

A device packs its own neurons' spikes, and merges what it gets from all into one message, which operators take as their
operand `spike`: every projection, and every trace, then goes through one list and not through one of each device.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching, mlir

from hebbax import _cpu
from hebbax._core import lowering, members, reference
from hebbax._core.compat import Primitive
from hebbax._core.fence import fence
from hebbax._core.primitives import bind, run_compiled
from hebbax._core.pytree import assemble, pytree
from hebbax._core.reference import LOST, SENT_HEADER, STEP
from hebbax._core.specs import Sent


@pytree("sent")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class SpikeLists:
    """Spikes of some steps of a network, as lists: what `hebbax.sharding.exchange` returns, a frozen pytree.

    `propagate_on_pre` and `update_on_pre` of `Synapses`, and rules, take `lists.at(k)` as presynaptic spikes: those of
    step `k`, at a cost of these spikes and not of all neurons.
    """

    message: jax.Array
    sent: Sent

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.sent.steps

    @property
    def n(self) -> int:
        """Neurons of all devices, padding included."""
        return self.sent.n

    @property
    def overflow(self) -> jax.Array:
        """Spikes for which there was no room on the fullest device, int32: if not 0, operators do not take these lists.

        On CPUs they raise then, elsewhere their results are NaN.
        """
        return self.message[..., LOST]

    @property
    def count(self) -> jax.Array:
        """Spikes of every step, int32, shape (steps,)."""
        return jnp.diff(reference.starts_of(self.message, self.sent), axis=-1)

    def at(self, step: Any) -> SpikeLists:
        """Return the same lists, of which operators and rules see this step, 0 to `steps - 1`; an IndexError if not."""
        if isinstance(step, (int, np.integer)) and not 0 <= step < self.steps:
            raise IndexError(f"step: got {step}, expected 0 to {self.steps - 1}")
        named = jnp.broadcast_to(jnp.asarray(step, self.message.dtype), (*self.message.shape[:-1], 1))
        message = jax.lax.dynamic_update_slice_in_dim(self.message, named, STEP, -1)
        return assemble(SpikeLists, dict(message=message, sent=self.sent))

    def todense(self) -> jax.Array:
        """Return whether each neuron spikes in the step that operators see, bool, shape (n,); see `overflow`."""
        dense = jnp.vectorize(lambda message: reference.sent(message, self.sent), signature="(m)->(n)")
        return dense(self.message)

    def __repr__(self) -> str:
        return f"SpikeLists(n={self.n}, steps={self.steps}, room for {self.sent.capacity} spikes)"


def pack(spikes: jax.Array, capacity: int) -> SpikeLists:
    """The lists of the spikes of one device, shape (steps, own), bool."""
    steps, own = spikes.shape
    message = bind(pack_p, spikes, capacity=capacity)
    return assemble(SpikeLists, dict(message=message, sent=Sent(own, steps, capacity)))


def merge(messages: jax.Array, devices: int, sent: Sent) -> SpikeLists:
    """The lists of all devices' neurons, whose messages, each as `sent` says, lie one after the other."""
    merged = Sent(devices * sent.n, sent.steps, devices * sent.capacity)
    message = messages if devices == 1 else bind(merge_p, messages.reshape(devices, -1), sent=merged)
    return assemble(SpikeLists, dict(message=message, sent=merged))


def nobody(sent: Sent) -> SpikeLists:
    """Lists without a spike, as an array of NumPy."""
    message = np.zeros(_size(sent), np.int32)
    message[:LOST] = 0, sent.n, sent.steps, sent.capacity
    return assemble(SpikeLists, dict(message=message, sent=sent))


def second_half(lists: SpikeLists) -> SpikeLists:
    """The same lists, of which operators see the step that is half of all steps after the named one.

    Two populations that share a message, one step by step after the other, are so told apart without a copy of it.
    """
    return assemble(SpikeLists, dict(message=lists.message, sent=dataclasses.replace(lists.sent, second=True)))


def _size(sent: Sent) -> int:
    return SENT_HEADER + sent.steps + 1 + sent.capacity


def fade(trace: jax.Array, keep: Any, amount: Any, lists: SpikeLists, *, sets: bool) -> jax.Array:
    """`keep * trace`, `amount` added to it, or set, where neurons spike; in place, and no pass if `keep` is 1."""
    numbers = jnp.stack([jnp.asarray(x, trace.dtype) for x in (keep, amount, sets)])
    return bind(fade_p, trace, lists.message, numbers, sent=lists.sent)


def fade_dense(trace: jax.Array, keep: Any, amount: Any, spike: jax.Array, *, sets: bool) -> jax.Array:
    """The same of spikes that are an array of bool."""
    trace = fence(trace * keep)  # (so that no fused multiply-add rounds otherwise)
    return jnp.where(spike, amount if sets else trace + amount, trace)


def _pack_natively(spikes, *, capacity: int):
    sent = Sent(spikes.shape[1], spikes.shape[0], capacity)
    return jax.ffi.ffi_call("hebbax_pack", jax.ShapeDtypeStruct((_size(sent),), jnp.int32))(spikes)


def _pack_in_jax(spikes, *, capacity: int):
    steps, own = spikes.shape
    starts = jnp.cumsum(jnp.sum(spikes, axis=1, dtype=jnp.int32), dtype=jnp.int32)
    (cells,) = jnp.nonzero(spikes.reshape(-1), size=capacity, fill_value=0)
    lost = jnp.maximum(jnp.sum(spikes, dtype=jnp.int32) - capacity, 0)
    header = [jnp.array([0, own, steps, capacity], jnp.int32), lost[None], jnp.zeros(1, jnp.int32)]
    return jnp.concatenate([*header, starts, (cells % max(own, 1)).astype(jnp.int32)])


def _merge_natively(messages, *, sent: Sent):
    call = jax.ffi.ffi_call("hebbax_merge", jax.ShapeDtypeStruct((_size(sent),), jnp.int32))
    return call(messages, n=np.int32(sent.n // messages.shape[0]))


def _merge_in_jax(parts, *, sent: Sent):
    devices = parts.shape[0]
    starts, ids = parts[:, SENT_HEADER : SENT_HEADER + sent.steps + 1], parts[:, SENT_HEADER + sent.steps + 1 :]
    count = jnp.diff(starts)  # (devices, steps)
    total = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(count.sum(0), dtype=jnp.int32)])
    begin = total[:-1] + jnp.cumsum(count, axis=0, dtype=jnp.int32) - count  # of a device's spikes of a step
    place = jnp.arange(ids.shape[1], dtype=jnp.int32)
    step = jnp.clip(jax.vmap(lambda x: jnp.searchsorted(x, place, side="right"))(starts) - 1, 0, sent.steps - 1)
    at = place + jnp.take_along_axis(begin - starts[:, :-1], step, axis=1)
    at = jnp.where(place < starts[:, -1:], at, sent.capacity)
    neurons = ids + (sent.n // devices) * jnp.arange(devices, dtype=jnp.int32)[:, None]
    merged = jnp.zeros(sent.capacity, jnp.int32).at[at].set(neurons, mode="drop")
    header = jnp.array([0, sent.n, sent.steps, sent.capacity], jnp.int32)
    return jnp.concatenate([header, parts[:, LOST].max()[None], total, merged])


def _fade_natively(out, *operands, flags: np.int32):
    call = jax.ffi.ffi_call("hebbax_fade", jax.ShapeDtypeStruct(out.shape, out.dtype), input_output_aliases={0: 0})
    return call(*operands, flags=flags)


def _lower_fade(ctx, *operands, sent: Sent):
    flags = np.int32(_cpu.flag("SECOND") if sent.second else 0)
    return members.lower(ctx, functools.partial(_fade_natively, flags=flags), *operands)


def _fade_in_jax(trace, message, numbers, *, sent: Sent):
    def one(trace, message, numbers):
        keep, amount, sets = numbers
        kept = jax.lax.optimization_barrier(trace * keep)  # as in `fade_dense`
        return jnp.where(reference.sent(message, sent), jnp.where(sets != 0, amount, kept + amount), kept)

    out = jnp.vectorize(one, signature="(n),(m),(k)->(n)")(trace, message, numbers)
    return reference.nan_unless_all_fit(out, message)


def _batch_one_by_one(primitive, operands, axes, **params):
    (x,), (axis,) = operands, axes
    return jax.lax.map(lambda x: bind(primitive, x, **params), jnp.moveaxis(x, axis, 0)), 0


def _batch_fade(operands, axes, **params):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return bind(
        fade_p, *(batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)), **params
    ), 0


pack_p, merge_p, fade_p = (Primitive(f"hebbax_{name}") for name in ("pack", "merge", "fade"))
pack_p.def_abstract_eval(
    lambda spikes, *, capacity: spikes.update(
        shape=(_size(Sent(spikes.shape[1], spikes.shape[0], capacity)),), dtype=jnp.dtype(jnp.int32), weak_type=False
    )
)
merge_p.def_abstract_eval(lambda messages, *, sent: messages.update(shape=(_size(sent),)))
fade_p.def_abstract_eval(lambda trace, *_, **__: trace.update(weak_type=False))
for _primitive in (pack_p, merge_p):
    batching.primitive_batchers[_primitive] = functools.partial(_batch_one_by_one, _primitive)
batching.primitive_batchers[fade_p] = _batch_fade
for _primitive in (pack_p, merge_p, fade_p):
    run_compiled(_primitive)
lowering.register(pack_p, mlir.lower_fun(_pack_natively, multiple_results=False), _pack_in_jax)
lowering.register(merge_p, mlir.lower_fun(_merge_natively, multiple_results=False), _merge_in_jax)
lowering.register(fade_p, _lower_fade, _fade_in_jax)
