"""The operators in plain JAX: the backend of every platform without kernels, and the standard the kernels are held to.

A spiking row's element whose index is out of range is skipped, as on a GPU: plain JAX cannot raise.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hebbax._core.specs import STRUCTURE, Arrivals, Sent, Spec


def _elements(permuted: bool, nse, indices, indptr, weight_indices, spike, n_other):
    """Return each element's row, slot, partner neuron, and whether its row spikes (and its indices are in range)."""
    element = jnp.arange(nse, dtype=indptr.dtype)
    row = jnp.searchsorted(indptr, element, side="right") - 1
    active = (row >= 0) & (row < spike.size) & (indices >= 0) & (indices < n_other)
    slot = element
    if permuted:
        slot = weight_indices
        active &= (slot >= 0) & (slot < nse)
    row, slot, partner = (jnp.where(active, x, 0) for x in (row, slot, indices))
    return row, slot, partner, active & spike[row]


def is_shared(weight, indices) -> bool:
    """Whether there is one weight, which all synapses share, and not one for each."""
    return weight.shape[-1] == 1 != indices.shape[-1]


def clip(x, w_min, w_max):
    """`jnp.clip` for bounds that may be absent (size 0), scalar (size 1) or one per element of `x`."""
    if w_min.shape[-1]:
        x = jnp.maximum(x, w_min.astype(x.dtype))
    if w_max.shape[-1]:
        x = jnp.minimum(x, w_max.astype(x.dtype))
    return x


def soften(x, bounds, soft_bound, mu):
    """What scales the change of a weight `x` with a soft bound: a power of the distance to it, in units of the range.

    Where the weight is at the bound or beyond, or there is no range, both this and its derivative are 0. Without
    another bound the distance is not scaled.
    """
    w_min, w_max = (bound.astype(x.dtype) for bound in bounds)
    base = w_max - x if soft_bound == "upper" else x - w_min
    if w_min.shape[-1] and w_max.shape[-1]:
        base *= jnp.where(w_max > w_min, 1 / jnp.where(w_max > w_min, w_max - w_min, 1), 0)
    inside = jnp.where(base > 0, base, 1)  # so that no derivative sees a power of 0
    return jnp.where(base > 0, inside if mu == 1 else inside**mu, 0)


def update(
    weight, indices, indptr, weight_indices, spike, trace, gain, w_min, w_max,
    *, spec: Spec, clip_all: bool, soft_bound: str | None, mu: float,
):  # fmt: skip
    """The updated weight; operands as in `_core.specs.UPDATE_OPERANDS`."""
    nse = weight.size
    if nse and trace.size and spike.size:
        row, slot, partner, touched = _elements(spec.permuted, nse, indices, indptr, weight_indices, spike, trace.size)
        delta = trace[partner]
        if gain.size:
            delta *= gain[row] if gain.size > 1 else gain
        bounds = tuple(bound[slot] if bound.size == nse else bound for bound in (w_min, w_max))
        old = weight[slot].astype(trace.dtype)
        if soft_bound:
            delta *= soften(old, bounds, soft_bound, mu)
        new = clip(old + delta, *bounds).astype(weight.dtype)
        weight = weight.at[jnp.where(touched, slot, nse)].set(new, mode="drop")
    return clip(weight, w_min, w_max) if clip_all else weight


def propagate(weight, indices, indptr, weight_indices, spike, gain, *, spec: Spec, n_out: int):
    """The sum of the spiking rows by partner neuron, in the dtype of `gain`, shape `(n_out,)`."""
    out = jnp.zeros(n_out, gain.dtype)
    if not (indices.size and n_out and spike.size):
        return out
    shared = is_shared(weight, indices)
    permuted = spec.permuted and not shared
    row, slot, partner, touched = _elements(permuted, indices.size, indices, indptr, weight_indices, spike, n_out)
    x = (weight if shared else weight[slot]).astype(gain.dtype)
    if gain.size:
        x = x * (gain[row] if gain.size > 1 else gain)
    return out.at[jnp.where(touched, partner, n_out)].add(x, mode="drop")


def collect(weight, indices, indptr, weight_indices, spike, trace, *, spec: Spec):
    """The sum of weight times trace over each spiking row, 0 for others, in the trace's dtype, shape `(n_event,)`."""
    out = jnp.zeros(spike.size, trace.dtype)
    if not (indices.size and trace.size and spike.size):
        return out
    shared = is_shared(weight, indices)
    permuted = spec.permuted and not shared
    row, slot, partner, touched = _elements(permuted, indices.size, indices, indptr, weight_indices, spike, trace.size)
    x = (weight if shared else weight[slot]).astype(trace.dtype) * trace[partner]
    return out.at[jnp.where(touched, row, spike.size)].add(x, mode="drop")


IMPLEMENTATIONS: dict[str, Callable] = {"update": update, "propagate": propagate, "collect": collect}


def run(spec: Spec, operands: tuple, **params: Any) -> jax.Array:
    """Run an operator on operands that may have leading dimensions, a batch, in which a size of 1 means shared."""
    if operands[0].ndim == 1:
        return IMPLEMENTATIONS[spec.kind](*operands, spec=spec, **params)
    axes: list[int | None] = [None] * len(operands)
    given = list(operands)
    for k, name in enumerate(spec.operands):
        if name in STRUCTURE:
            continue
        if given[k].shape[0] == 1:
            given[k] = given[k][0]
        else:
            axes[k] = 0
    if axes == [None] * len(axes):
        return run(spec, tuple(given), **params)[None]
    return jax.vmap(lambda *given: run(spec, given, **params), in_axes=tuple(axes))(*given)


# Where the lists of `_core.events` begin, behind these and the delays.
POSITION, SHIFT, LENGTH, NEURONS, DELAYS, HEADER = range(6)
# And where the starts of a message of `_core.sent`, behind these.
STEP, SENT_NEURONS, STEPS, CAPACITY, LOST, SENT_HEADER = range(6)


def record(events, spike, places, arrivals: Arrivals):
    """`_core.events.record`, of one member of a batch."""
    n, start = arrivals.n, HEADER + len(arrivals.delays)
    (ids,) = jnp.nonzero(spike, size=n, fill_value=0)
    spikes = jnp.concatenate([jnp.sum(spike, dtype=events.dtype)[None], ids.astype(events.dtype)])
    events = jax.lax.dynamic_update_slice(events, places, (POSITION,))
    return jax.lax.dynamic_update_slice(events, spikes, (start + places[0] * (n + 1),))


def arriving(events, arrivals: Arrivals):
    """Which rows have a spike that arrives: what the lists of one member of a batch say, as an array of bool."""
    n, length, count = arrivals.n, arrivals.length, len(arrivals.delays)
    lists = events[HEADER + count :].reshape(length, n + 1)
    delays = jnp.asarray(arrivals.delays, events.dtype)
    lists = lists[(events[POSITION] + arrivals.due - delays) % length]
    spikes = (jnp.arange(n) < lists[:, :1]) & (lists[:, 1:] >= 0) & (lists[:, 1:] < n)
    rows = jnp.where(spikes, (length - 1 - delays[:, None]) * n + lists[:, 1:], length * n)
    return jnp.zeros(length * n, bool).at[rows].set(True, mode="drop")


def starts_of(message, sent: Sent):
    """Where each step's spikes begin in a message, and where the last ones end."""
    return message[..., SENT_HEADER : SENT_HEADER + sent.steps + 1]


def sent(message, sent: Sent):
    """Which neurons spike in the step that the message of one member of a batch names, as an array of bool."""
    ids, place = message[SENT_HEADER + sent.steps + 1 :], jnp.arange(sent.capacity)
    step = message[STEP] + (sent.steps // 2 if sent.second else 0)
    begin, end = jax.lax.dynamic_slice_in_dim(starts_of(message, sent), step, 2)
    spikes = (place >= begin) & (place < end) & (ids >= 0) & (ids < sent.n)
    return jnp.zeros(sent.n, bool).at[jnp.where(spikes, ids, sent.n)].set(True, mode="drop")


def nan_unless_all_fit(x, message):
    """`x`, or NaN where spikes had no room: plain JAX cannot raise, and none are lost without a word."""
    return jnp.where(message[..., LOST, None] == 0, x, jnp.asarray(jnp.nan, x.dtype))


def dense(events, arrivals: Arrivals | Sent):
    """What lists of either kind say, as an array of bool."""
    return sent(events, arrivals) if isinstance(arrivals, Sent) else arriving(events, arrivals)


def without_lists(run: Callable, *operands: jax.Array, spec: Spec, **params: Any) -> jax.Array:
    """Run an operator of arriving spikes as one without lists and offsets."""
    arrivals, given = spec.arrivals, list(operands)
    assert arrivals is not None
    lists, at = given[4], spec.operands.index("trace") if "trace" in spec.operands else None
    given[4] = jnp.vectorize(lambda events: dense(events, arrivals), signature="(e)->(n)")(lists)
    roll = jnp.vectorize(lambda x, events, sign: jnp.roll(x, sign * events[SHIFT]), signature="(n),(e),()->(n)")
    if arrivals.shifted and at is not None:
        given[at] = roll(given[at], lists, -1)
    out = run(*given, spec=dataclasses.replace(spec, arrivals=None), **params)
    if isinstance(arrivals, Sent):
        return nan_unless_all_fit(out, lists)
    return roll(out, lists, 1) if arrivals.shifted and spec.kind == "propagate" else out
