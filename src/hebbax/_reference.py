"""The operators in plain JAX: the backend of every platform without kernels, and the standard the kernels are held to.

A spiking row's element whose index is out of range is skipped, as on a GPU: plain JAX cannot raise.
"""

from collections.abc import Callable

import jax.numpy as jnp

from hebbax._specs import Spec


def _elements(spec: Spec, nse, indices, indptr, weight_indices, spike, n_other):
    """Return each element's row, slot, partner neuron, and whether its row spikes (and its indices are in range)."""
    element = jnp.arange(nse, dtype=indptr.dtype)
    row = jnp.searchsorted(indptr, element, side="right") - 1
    active = (row >= 0) & (row < spike.size) & (indices >= 0) & (indices < n_other)
    slot = element
    if spec.permuted:
        slot = weight_indices
        active &= (slot >= 0) & (slot < nse)
    row, slot, partner = (jnp.where(active, x, 0) for x in (row, slot, indices))
    return row, slot, partner, active & spike[row]


def _clip(x, w_min, w_max):
    """`jnp.clip` for bounds that may be absent (size 0), scalar (size 1) or one per element of `x`."""
    if w_min.size:
        x = jnp.maximum(x, w_min.astype(x.dtype))
    if w_max.size:
        x = jnp.minimum(x, w_max.astype(x.dtype))
    return x


def _soften(x, bounds, soft_bound, mu):
    """What scales the change of a weight `x` with a soft bound: a power of the distance to it, in units of the range.

    Where the weight is at the bound or beyond, or there is no range, both this and its derivative are 0.
    """
    w_min, w_max = (bound.astype(x.dtype) for bound in bounds)
    per_range = jnp.where(w_max > w_min, 1 / jnp.where(w_max > w_min, w_max - w_min, 1), 0)
    base = (w_max - x if soft_bound == "upper" else x - w_min) * per_range
    inside = jnp.where(base > 0, base, 1)  # so that no derivative sees a power of 0
    return jnp.where(base > 0, inside if mu == 1 else inside**mu, 0)


def update(
    weight, indices, indptr, weight_indices, spike, trace, gain, w_min, w_max, after,
    *, spec: Spec, clip_all: bool, soft_bound: str | None, mu: float,
):  # fmt: skip
    """The updated weight; operands as in `_specs.UPDATE_OPERANDS`."""
    del after
    nse = weight.size
    if nse and trace.size and spike.size:
        row, slot, partner, touched = _elements(spec, nse, indices, indptr, weight_indices, spike, trace.size)
        delta = trace[partner]
        if gain.size:
            delta *= gain[row] if gain.size > 1 else gain
        bounds = tuple(bound[slot] if bound.size == nse else bound for bound in (w_min, w_max))
        old = weight[slot].astype(trace.dtype)
        if soft_bound:
            delta *= _soften(old, bounds, soft_bound, mu)
        new = _clip(old + delta, *bounds).astype(weight.dtype)
        weight = weight.at[jnp.where(touched, slot, nse)].set(new, mode="drop")
    return _clip(weight, w_min, w_max) if clip_all else weight


def propagate(weight, indices, indptr, weight_indices, spike, *, spec: Spec, n_out: int, dtype):
    """The sum of the spiking rows in the arithmetic `dtype`, by partner neuron, shape `(n_out,)`."""
    out = jnp.zeros(n_out, dtype)
    if not (weight.size and n_out and spike.size):
        return out
    _, slot, partner, touched = _elements(spec, weight.size, indices, indptr, weight_indices, spike, n_out)
    return out.at[jnp.where(touched, partner, n_out)].add(weight[slot].astype(dtype), mode="drop")


IMPLEMENTATIONS: dict[str, Callable] = {"update": update, "propagate": propagate}
