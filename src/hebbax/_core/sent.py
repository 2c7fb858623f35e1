"""Spikes that devices send each other, as lists: a device's message says who of its neurons spiked in some steps.

The messages of all devices lie one after the other, and each is an array of int32:

    step             which of the steps is meant; that of the first message counts
    own, steps       neurons of a device, and steps
    capacity         spikes that there is room for
    start ...        where each step's spikes begin in what follows, and where the last ones end
    neuron ...       which spiked, of the device's own: step by step, ascending; `capacity` of them

Starts go on where the room ends: so it shows how much there should be. Operators take the messages as their operand
`spike`; their rows are the neurons of all devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching, mlir

from hebbax._core import lowering, members, reference
from hebbax._core.compat import Primitive
from hebbax._core.fence import fence
from hebbax._core.primitives import bind, run_compiled
from hebbax._core.pytree import assemble, pytree
from hebbax._core.reference import SENT_HEADER, STEP
from hebbax._core.specs import Sent


@pytree("sent")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class SpikeLists:
    """Spikes of some steps of a network, as lists: what `hebbax.sharding.exchange` returns, a frozen pytree.

    `propagate_on_pre` and `update_on_pre` of `Synapses`, and rules, take `lists.at(k)` as presynaptic spikes: those of
    step `k`, at a cost of these spikes and not of all neurons.
    """

    messages: jax.Array
    sent: Sent

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.sent.steps

    @property
    def n(self) -> int:
        """Neurons of all devices, padding included."""
        return self.sent.rows

    @property
    def overflow(self) -> jax.Array:
        """Spikes for which there was no room on the fullest device, int32: if not 0, operators do not take these lists.

        On CPUs they raise then, elsewhere their results are NaN.
        """
        spikes = reference.starts_of(self.messages, self.sent)[..., -1]
        return jnp.maximum(spikes.max(-1) - self.sent.capacity, 0)

    @property
    def count(self) -> jax.Array:
        """Spikes of every step, int32, shape (steps,)."""
        return jnp.diff(reference.starts_of(self.messages, self.sent), axis=-1).sum(-2)

    def at(self, step: Any) -> SpikeLists:
        """Return the same lists, of which operators and rules see this step, 0 to `steps - 1`; an IndexError if not."""
        if isinstance(step, (int, np.integer)) and not 0 <= step < self.steps:
            raise IndexError(f"step: got {step}, expected 0 to {self.steps - 1}")
        named = jnp.broadcast_to(jnp.asarray(step, self.messages.dtype), (*self.messages.shape[:-1], 1))
        messages = jax.lax.dynamic_update_slice_in_dim(self.messages, named, STEP, -1)
        return assemble(SpikeLists, dict(messages=messages, sent=self.sent))

    def todense(self) -> jax.Array:
        """Return whether each neuron spikes in the step that operators see, bool, shape (n,); see `overflow`."""
        dense = jnp.vectorize(lambda messages: reference.sent(messages, self.sent), signature="(m)->(n)")
        return dense(self.messages)

    def __repr__(self) -> str:
        return f"SpikeLists(n={self.n}, steps={self.steps}, room for {self.sent.capacity} of each {self.sent.own})"


def pack(spikes: jax.Array, capacity: int) -> SpikeLists:
    """The lists of the spikes of one device, shape (steps, own), bool."""
    steps, own = spikes.shape
    message = bind(pack_p, spikes, capacity=capacity)
    return assemble(SpikeLists, dict(messages=message, sent=Sent(1, own, steps, capacity)))


def nobody(sent: Sent) -> SpikeLists:
    """Lists without a spike, as an array of NumPy."""
    messages = np.zeros((sent.shards, SENT_HEADER + sent.steps + 1 + sent.capacity), np.int32)
    messages[:, :SENT_HEADER] = 0, sent.own, sent.steps, sent.capacity
    return assemble(SpikeLists, dict(messages=messages.reshape(-1), sent=sent))


def fade(trace: jax.Array, keep: Any, amount: Any, lists: SpikeLists, *, sets: bool) -> jax.Array:
    """`keep * trace`, `amount` added to it, or set, where neurons spike; in place, and no pass if `keep` is 1."""
    numbers = jnp.stack([jnp.asarray(x, trace.dtype) for x in (keep, amount, sets)])
    return bind(fade_p, trace, lists.messages, numbers, sent=lists.sent)


def fade_dense(trace: jax.Array, keep: Any, amount: Any, spike: jax.Array, *, sets: bool) -> jax.Array:
    """The same of spikes that are an array of bool."""
    trace = fence(trace * keep)  # (so that no fused multiply-add rounds otherwise)
    return jnp.where(spike, amount if sets else trace + amount, trace)


def _pack_natively(spikes, *, capacity: int):
    size = SENT_HEADER + spikes.shape[0] + 1 + capacity
    return jax.ffi.ffi_call("hebbax_pack", jax.ShapeDtypeStruct((size,), jnp.int32))(spikes)


def _pack_in_jax(spikes, *, capacity: int):
    steps, own = spikes.shape
    starts = jnp.cumsum(jnp.sum(spikes, axis=1, dtype=jnp.int32), dtype=jnp.int32)
    (cells,) = jnp.nonzero(spikes.reshape(-1), size=capacity, fill_value=0)
    header = jnp.array([0, own, steps, capacity, 0], jnp.int32)
    return jnp.concatenate([header, starts, (cells % max(own, 1)).astype(jnp.int32)])


def _fade_natively(out, *operands):
    call = jax.ffi.ffi_call("hebbax_fade", jax.ShapeDtypeStruct(out.shape, out.dtype), input_output_aliases={0: 0})
    return call(*operands, flags=np.int32(0))


def _lower_fade(ctx, *operands, sent: Sent):
    del sent  # which the messages say
    return members.lower(ctx, _fade_natively, *operands)


def _fade_in_jax(trace, messages, numbers, *, sent: Sent):
    def one(trace, messages, numbers):
        keep, amount, sets = numbers
        kept = jax.lax.optimization_barrier(trace * keep)  # as in `fade_dense`
        return jnp.where(reference.sent(messages, sent), jnp.where(sets != 0, amount, kept + amount), kept)

    out = jnp.vectorize(one, signature="(n),(m),(k)->(n)")(trace, messages, numbers)
    return reference.nan_unless_all_fit(out, messages, sent)


def _batch_pack(operands, axes, *, capacity: int):
    (spikes,), (axis,) = operands, axes
    return jax.lax.map(lambda x: bind(pack_p, x, capacity=capacity), jnp.moveaxis(spikes, axis, 0)), 0


def _batch_fade(operands, axes, **params):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return bind(
        fade_p, *(batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)), **params
    ), 0


pack_p, fade_p = Primitive("hebbax_pack"), Primitive("hebbax_fade")
pack_p.def_abstract_eval(
    lambda spikes, *, capacity: spikes.update(
        shape=(SENT_HEADER + spikes.shape[0] + 1 + capacity,), dtype=jnp.dtype(jnp.int32), weak_type=False
    )
)
fade_p.def_abstract_eval(lambda trace, *_, **__: trace.update(weak_type=False))
batching.primitive_batchers[pack_p], batching.primitive_batchers[fade_p] = _batch_pack, _batch_fade
for _primitive in (pack_p, fade_p):
    run_compiled(_primitive)
lowering.register(pack_p, mlir.lower_fun(_pack_natively, multiple_results=False), _pack_in_jax)
lowering.register(fade_p, _lower_fade, _fade_in_jax)
