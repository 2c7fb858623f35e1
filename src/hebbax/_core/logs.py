"""What is recorded in arrays of a fixed size, in place.

Of who spiked when, an array of int32:

    count            spikes that were recorded; where that is more than there is room for, the rest was lost
    steps            that were recorded, which is the number of the next one
    step, neuron ... of each spike that there was room for

Of how many spiked:

    steps            that were recorded
    every, groups    steps of a bin, and counts of one
    count ...        bin by bin

Of weights, the samples, one after the other, and an array of int32:

    steps            that were recorded
    every            steps from one sample to the next
    position ...     of what is sampled

None counts beyond 2^31 - 1.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from hebbax._core import lowering, members
from hebbax._core.compat import Primitive
from hebbax._core.primitives import bind, run_compiled

COUNT, STEPS, SPIKES_HEADER = 0, 1, 2
COUNTED_STEPS, COUNTS_HEADER = 0, 3
SAMPLED_STEPS, SAMPLES_HEADER = 0, 2
MOST = 2**31 - 1


def spikes_log(capacity: int) -> jax.Array:
    """An array for so many spikes."""
    return jnp.zeros(SPIKES_HEADER + 2 * capacity, jnp.int32)


def counts_log(every: int, groups: int, bins: int) -> jax.Array:
    """An array for the counts of so many bins."""
    return jnp.zeros(COUNTS_HEADER + bins * groups, jnp.int32).at[1].set(every).at[2].set(groups)


def append(log: jax.Array, spike: jax.Array) -> jax.Array:
    """The log of spikes with those of a step, bool."""
    return bind(append_p, log, spike)


def tally(log: jax.Array, spike: jax.Array, group: jax.Array) -> jax.Array:
    """The log of counts with the spikes of a step, bool, added to those of each one's group; of size 0: its number."""
    return bind(tally_p, log, spike, group)


def sample(values: jax.Array, weight: jax.Array, plan: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The samples, shape (samples * k,), with that of a step if one is due, and what is to be sampled next."""
    return bind(sample_p, values, weight, plan), plan.at[SAMPLED_STEPS].set(next_step(plan[SAMPLED_STEPS]))


def next_step(step: Any) -> Any:
    return jnp.minimum(step, MOST - 1) + 1


def _append_in_jax(log, spike):
    def one(log, spike):
        number = jnp.cumsum(spike, dtype=jnp.int32)  # of each spike in its step, from 1
        capacity = (log.size - SPIKES_HEADER) // 2
        count, step = log[COUNT], log[STEPS]
        at = jnp.where(spike & (number <= capacity - count), SPIKES_HEADER + 2 * (count + number - 1), log.size)
        written = log.at[at].set(step, mode="drop").at[at + 1].set(jnp.arange(spike.size, dtype=jnp.int32), mode="drop")
        more = number[-1] if spike.size else 0
        return written.at[:SPIKES_HEADER].set(jnp.stack([count + jnp.minimum(more, MOST - count), next_step(step)]))

    return jnp.vectorize(one, signature="(m),(n)->(m)")(log, spike)


def _tally_in_jax(log, spike, group):
    def one(log, spike, group):
        step, every, groups = log[0], log[1], log[2]
        own = group if group.size else jnp.arange(spike.size, dtype=jnp.int32)
        bins = (log.size - COUNTS_HEADER) // groups
        is_counted = spike & (own >= 0) & (own < groups) & (step // every < bins)
        at = jnp.where(is_counted, COUNTS_HEADER + jnp.minimum(step // every, bins) * groups + own, log.size)
        return log.at[at].add(1, mode="drop").at[COUNTED_STEPS].set(next_step(step))

    return jnp.vectorize(one, signature="(m),(n),(g)->(m)")(log, spike, group)


def _sample_in_jax(values, weight, plan):
    def one(values, weight, plan):
        step, every, positions = plan[0], plan[1], plan[SAMPLES_HEADER:]
        room = values.size // max(positions.size, 1)
        number = jnp.minimum(step // every, room)  # behind the last one, products would be more than int32 holds
        has_room = number < room
        first = number * positions.size
        at = first + jnp.arange(positions.size, dtype=jnp.int32)
        at = jnp.where((step % every == 0) & has_room, at, values.size)
        return values.at[at].set(weight.at[positions].get(mode="clip"), mode="drop")

    return jnp.vectorize(one, signature="(m),(n),(p)->(m)")(values, weight, plan)


def _natively(name: str, out: Any, *operands: Any) -> Any:
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(out.shape, out.dtype), input_output_aliases={0: 0})
    return call(*operands, flags=np.int32(0))


def _lower(name: str, ctx: Any, *operands: Any) -> Any:
    return members.lower(ctx, functools.partial(_natively, name), *operands)


def _batch(primitive: Primitive, operands: Any, axes: Any) -> tuple:
    """One call with a leading dimension, in which what is not the log may be of size 1."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    log, *others = (
        x[None] if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)
    )
    return bind(primitive, jnp.broadcast_to(log, (size, *log.shape[1:])), *others), 0


append_p, tally_p, sample_p = (Primitive(f"hebbax_{name}") for name in ("append", "tally", "sample"))
for _primitive, _in_jax in ((append_p, _append_in_jax), (tally_p, _tally_in_jax), (sample_p, _sample_in_jax)):
    _primitive.def_abstract_eval(lambda log, *_: log.update(weak_type=False))
    batching.primitive_batchers[_primitive] = functools.partial(_batch, _primitive)
    run_compiled(_primitive)
    lowering.register(_primitive, functools.partial(_lower, _primitive.name), _in_jax)
