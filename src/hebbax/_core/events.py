"""Spikes on their way: for each of the last steps a list of the neurons that spiked, so that no step looks at more.

One array of int32 holds it all, the operand `spike` of operators whose spec has `arrivals`:

    position      the list of the last recorded step
    shift         where the partners' trace begins, if it is `shifted`
    length, n     steps that are kept, and neurons
    count         of the delays,
    delay ...     which follow, the longest first
    list ...      one for each step that is kept, of 1 + n entries: how many neurons spiked, and which, ascending

Recording writes one list. An operator visits, for every delay, the neurons of one list: in the order of the unrolled
rows. A neuron without synapses of that delay has an empty row.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from hebbax._core import lowering, members, reference
from hebbax._core.compat import Primitive
from hebbax._core.primitives import bind, run_compiled
from hebbax._core.reference import HEADER
from hebbax._core.specs import Arrivals


def none_yet(arrivals: Arrivals) -> np.ndarray:
    """The array before anything was recorded."""
    count, length, n = len(arrivals.delays), arrivals.length, arrivals.n
    events = np.zeros(HEADER + count + length * (n + 1), np.int32)
    events[: HEADER + count] = length - 1, 0, length, n, count, *arrivals.delays
    return events


def record(
    events: jax.Array, spike: jax.Array, position: jax.Array, shift: jax.Array, after: jax.Array, arrivals: Arrivals
) -> jax.Array:
    """The array after a step in which these neurons spike, shape (n,), bool; in place, if donated.

    Where the array is read before, XLA copies it, unless `after` depends on what was read (it is not read itself).
    """
    places = jnp.stack([position, shift]).astype(events.dtype)
    return bind(record_p, events, spike, places, jax.lax.stop_gradient(after), arrivals=arrivals)


def _record_natively(out, *operands):
    call = jax.ffi.ffi_call("hebbax_record", jax.ShapeDtypeStruct(out.shape, out.dtype), input_output_aliases={0: 0})
    return call(*operands, flags=np.int32(0))


def _lower_natively(ctx, *operands, arrivals: Arrivals):
    del arrivals  # which the array says
    return members.lower(ctx, _record_natively, *operands, read=3)


def _record_in_jax(events, spike, places, after, *, arrivals: Arrivals):
    del after
    one = functools.partial(reference.record, arrivals=arrivals)
    return jnp.vectorize(one, signature="(e),(n),(p)->(e)")(events, spike, places)


def _batch(operands, axes, *, arrivals: Arrivals):
    *operands, after = operands
    *axes, _ = axes
    batch = [x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None]
    if not batch:  # but in what it waits for
        return bind(record_p, *operands, after, arrivals=arrivals), None
    operands = [batching.bdim_at_front(x, axis, batch[0]) for x, axis in zip(operands, axes, strict=True)]
    return bind(record_p, *operands, after, arrivals=arrivals), 0


record_p = Primitive("hebbax_record")
run_compiled(record_p)
record_p.def_abstract_eval(lambda events, *_, **__: events.update(weak_type=False))
batching.primitive_batchers[record_p] = _batch
lowering.register(record_p, _lower_natively, _record_in_jax)
