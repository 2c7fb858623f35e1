"""What the operators' docstrings share, written once."""

import inspect
from collections.abc import Callable

_WEIGHT = """\
weight : Array or Quantity, shape (nse,)
    Weights in {order} order, float16, bfloat16, float32 or float64."""
_WEIGHT_OR_ONE = """\
weight : number, Array or Quantity, shape (nse,), or a scalar or shape (1,)
    Weights in CSR order, float16, bfloat16, float32 or float64; or one that all synapses share: no array of `nse` is
    made of it or read{slots}, and the sums are those of an array full of it."""
_COLUMNS = """\
indices : Array, shape (nse,), integer
    Presynaptic neuron of every element{order}.
indptr : Array, shape (n_post + 1,), integer
    Where each postsynaptic neuron's elements start; the last entry is where they end."""
_EVENT = """\
{event}_spike : Array, shape (n_{event},), bool or real
    Whether each {event}synaptic neuron spikes; any nonzero number is a spike. Events with such an array in `value`, as
    brainevent's `BinaryArray`, stand for it."""
_GAIN = """\
gain : number or Array, scalar or shape (n_{event},), real, optional
    Factor of the trace, one for all or one per {event}synaptic neuron (1 by default)."""
_FACTOR = """\
gain : number, Array or Quantity, scalar or shape (n_{event},), real, optional
    Factor of the weights, one for all or one per {event}synaptic neuron (1 by default), with a unit of its own."""
_TRACE = """\
{other}_trace : Array or Quantity, shape (n_{other},), real
    Eligibility trace of every {other}synaptic neuron, with the dimension of `weight`{sign}."""
_EQUATION = """\
For every spiking `{row}` and every synapse `i -> j` (where a bound is soft, the product is scaled as said there):

.. math:: w_{{ij}} \\leftarrow \\min(\\max(w_{{ij}} + g_{row} {trace}, w_\\min), w_\\max)"""
_BATCH = """\
Under `vmap` there is one call for all members of a batch, unless they differ in structure. A batch that is split over
devices wants `jax.shard_map` around `vmap`, or every device runs all its members.

Outside `jit`, JAX may use the memory of a NumPy array as it is, and not a copy: leave it unchanged until the result is
ready (`jax.block_until_ready`)."""
_PROPAGATE = f"""\
Its derivative with respect to floating spikes is that of `{{product}}`, of silent neurons too, although every nonzero
spike counts as 1: what surrogate gradients are for. With respect to a weight that all synapses share, or a gain of all
neurons, it is one number.

{_BATCH}"""

_BACKEND = """
backend : str, optional
    Name of a backend (see `hebbax.backends`); by default the best one of the platform the call is compiled for."""

_SHARED = {
    "structure_pre": f"""\
{_WEIGHT.format(order="CSR")}
indices : Array, shape (nse,), integer
    Postsynaptic neuron of every element.
indptr : Array, shape (n_pre + 1,), integer
    Where each presynaptic neuron's elements start; the last entry is where they end.""",
    "structure_post": f"""\
{_WEIGHT.format(order="CSR")}
{_COLUMNS.format(order=", in CSC order")}
weight_indices : Array, shape (nse,), integer
    Position in `weight` of every element in CSC order, a permutation.""",
    "structure_csc": f"""\
{_WEIGHT.format(order="CSC")}
{_COLUMNS.format(order="")}""",
    "pre_spike": _EVENT.format(event="pre"),
    "post_spike": _EVENT.format(event="post"),
    "pre_trace": _TRACE.format(other="pre", sign=""),
    "post_trace": _TRACE.format(other="post", sign=" (negative for depression)"),
    "gain_pre": _GAIN.format(event="pre"),
    "gain_post": _GAIN.format(event="post"),
    "factor_pre": _FACTOR.format(event="pre"),
    "factor_post": _FACTOR.format(event="post"),
    "equation_pre": _EQUATION.format(row="i", trace="y_j"),
    "equation_post": _EQUATION.format(row="j", trace="x_i"),
    "bounds": f"""\
w_min, w_max : number, Array or Quantity, scalar or shape (nse,), optional
    Bounds of the weight, with its dimension. Where `w_min > w_max`, `w_max` wins.
shape : tuple of int
    `(n_pre, n_post)`.{_BACKEND}
weight_in_bounds : bool, default False
    Your promise that every weight already lies in the bounds. Then only the touched elements are clipped, and the
    cost is that of the events. Without it every element is clipped.
soft_bound : 'upper' or 'lower', optional
    Scale the change of each weight by a power of its distance to this bound, in units of the range: by `d ** mu` with
    `d = (w_max - w) / (w_max - w_min)` or `(w - w_min) / (w_max - w_min)`. Takes this bound, a finite one; without the
    other one, `d` is the distance in numbers, `w_max - w` or `w - w_min` in the weight's unit. `d` is held at 0 from
    below, and is 0 where `w_min >= w_max`; its derivative is 0 where it is 0. It is not held at 1: that is for weights
    beyond the other bound.
mu : float, default 1.0
    That power, at least 0, compiled in. Powers 0 and 1 take no time to work out; on a CPU others take a few nanoseconds
    for each weight of 32 or 16 bits, within 0.501 units in the last place of a float32, and as long as C's `pow` for
    one of 64.""",
    "shape_backend": f"""\
shape : tuple of int
    `(n_pre, n_post)`.{_BACKEND}""",
    "after": """\
after : pytree of arrays, optional
    What this update must wait for: any arrays, Quantities, numbers and None, whose values are not used. Pass all that
    you computed from `weight` in the same step, as `after=(current, recorded)`: XLA then need not copy the weight
    before it is updated in place. So weights are recorded for free, before an update as after it, where what is
    computed from the new weight needs no mention.""",
    "update_transformed": f"""\
Its derivatives with respect to the weight, the trace, `gain` and the bounds, in forward and reverse mode and to any
order, are those of `jnp.clip(weight + change, w_min, w_max)`: half of each where a weight equals a bound. With
`weight_in_bounds=True` they are so where a spike touches; elsewhere a weight's derivative is 1 and a bound's 0. Spikes
have none here.

{_BATCH}""",
    "propagate_pre_transformed": _PROPAGATE.format(product="(gain * spike) @ W"),
    "propagate_post_transformed": _PROPAGATE.format(product="W @ (gain * spike)"),
    "several_in_a_place": """\
sum_duplicates : bool, default False
    Add elements that are stored in the same place.
multapses : bool, default False
    Keep all of them, each a synapse. Without either, such elements raise.
return_permutation : bool, default False
    Also return the order of the synapses, for other arrays that go with `matrix` (not with `sum_duplicates`).""",
    "matrix_returns": """\
synapses : Synapses
weight : Array or Quantity, shape (nse,)
    The stored values in CSR order, with their dtype (as JAX keeps it), unit and device.
permutation : Array, shape (nse,), integer
    Position in `matrix.data` of every synapse in CSR order, for `Synapses.reorder`.""",
    "matrix_raises": """\
hebbax.errors.ShapeError, TypeError, ValueError, OverflowError
    As the class; a TypeError also where `matrix` is another object, or its dtype does not fit.""",
    "update_returns": """\
Array or Quantity, shape (nse,)
    The new weight, with the dtype and unit of `weight`, which is left as it was (under `jit` with donation, and in
    `scan`, the update happens in place).""",
    "raises": """\
hebbax.errors.ShapeError
    An argument's rank or size does not fit (a ValueError and an AssertionError).
TypeError
    An argument's dtype does not fit.
brainunit.UnitMismatchError
    An argument's dimension does not go with that of `weight`.
OverflowError
    A 64-bit NumPy integer does not fit 32 bits, and JAX's x64 flag is off; or an index array of int32 cannot name as
    many synapses or neurons as there are.
ValueError
    An unknown backend, or one that cannot run here; scalar bounds in the wrong order; wrong options of a soft bound.
ValueError or jax.errors.JaxRuntimeError
    On a CPU, an index out of range, with the array's name and the position (which of the two depends on JAX's version).
    Other backends skip such an element, and a call whose result is empty does not look at the indices.""",
}

for _event, _slots in (("pre", ""), ("post", ", nor is `weight_indices`")):
    _SHARED[f"propagate_structure_{_event}"] = _SHARED[f"structure_{_event}"].replace(
        _WEIGHT.format(order="CSR"), _WEIGHT_OR_ONE.format(slots=_slots)
    )

# The same for the functions of `hebbax.inplace`, where there are no units and no backends to choose from.
_PLAIN = (
    "structure_pre", "structure_post", "pre_spike", "post_spike", "pre_trace", "post_trace", "gain_pre", "gain_post",
    "factor_pre", "factor_post", "bounds", "shape_backend", "propagate_structure_pre", "propagate_structure_post",
)  # fmt: skip
_SHARED |= {
    f"plain_{name}": _SHARED[name].replace("Array or Quantity", "Array").replace(", with the dimension of `weight`", "")
    .replace("number, Array,", "number or Array,").replace(", with its dimension", "").replace(_BACKEND, "")
    .replace(", with a unit of its own", "")
    for name in _PLAIN
}  # fmt: skip
_SHARED |= {
    "inplace_returns": """\
Array, shape (nse,)
    `weight` itself, which holds the new values.""",
    "inplace_out": """\
out : Array, optional
    Where to put the sums: writable and contiguous, with the dtype of `weight` (by default a new array of NumPy, or
    of CuPy where `weight` is on a CUDA device).""",
    "inplace_raises": """\
hebbax.errors.ShapeError
    An argument's rank or size does not fit (a ValueError and an AssertionError).
TypeError
    An argument's dtype does not fit, it is a quantity, it does not share its memory (as a tensor of PyTorch that
    requires a gradient: pass `tensor.detach()`), or what is to be changed is a JAX array.
ValueError
    What is to be changed is read-only, not contiguous, or overlaps another argument; scalar bounds in the wrong order;
    wrong options of a soft bound.
    What is on another device than `weight`.
OverflowError
    An index array of int32 cannot name as many synapses or neurons as there are.
IndexError
    On a CPU, an index out of range, with the array's name and the position; what the changed array then holds is
    unspecified. On a CUDA device such an element is skipped.
KeyboardInterrupt
    By Ctrl-C in a long call of Python's main thread (or whatever else its handler of a signal raises); the array is
    then changed in part.
RuntimeError
    `weight` is on a CUDA device whose kernels cannot be used: `hebbax.backends()` says why.
NotImplementedError
    `weight` is on a device that is neither the host nor a CUDA device.""",
}


def documented(function: Callable) -> Callable:
    """Fill the shared parts of the docstring in."""
    doc = inspect.cleandoc(function.__doc__ or "")
    for name, text in _SHARED.items():
        doc = doc.replace("{" + name + "}", text)
    function.__doc__ = doc
    return function
