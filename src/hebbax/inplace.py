"""The operators without JAX: they change the memory of the arrays that they are given, whatever library those are of.

The same functions as `hebbax.update_csr_on_binary_post` and so on, with the same checks and the same kernels, for
writable arrays: NumPy's, CuPy's, or those of any library that speaks DLPack, such as PyTorch. Where the weight lies
decides: in the host's memory the CPU's kernels run, on a CUDA device those of the GPU, on CuPy's current stream
(whoever works on another one, of PyTorch say, makes that CuPy's or synchronises). Units, `jit` and derivatives are
JAX's; float64 stays float64 whatever JAX's flags say.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import brainunit as u
import jax
import numpy as np

from hebbax._core import unitless
from hebbax._core.docs import documented
from hebbax._core.foreign import array_of
from hebbax._core.memory import Cuda, Host, memory_of
from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, STRUCTURE, UPDATE_POST, UPDATE_PRE, Spec
from hebbax.errors import ShapeError

# An array: of NumPy, or anything that has `__dlpack__` and `__dlpack_device__`.
Plain: TypeAlias = Any
Target = TypeVar("Target")

__all__ = [
    "propagate_csr_on_binary_post",
    "propagate_csr_on_binary_pre",
    "update_csr_on_binary_post",
    "update_csr_on_binary_pre",
]


def _update(spec: Spec, shape: tuple[int, int], values: tuple, options: tuple) -> Any:
    """Update the weight, the first of `values`, and return it."""
    shape = unitless.check_shape(shape)
    _check_writable_type("weight", values[0], spec.name)
    _plain("weight", values[0])
    memory = memory_of("weight", values[0])
    with memory.here():
        given = _arrays(memory, spec, values, shape)
        settled = unitless.check_update_options(given.keys(), *options)
        _check_scalar_bounds(given, finite=settled["soft_bound"] is not None)
        _check_target(memory, spec, "weight", given["weight"], given)
        _run(memory, spec, given["weight"], given, **settled)
    return values[0]


def _propagate(spec: Spec, shape: tuple[int, int], values: tuple, out: Any) -> Any:
    """Fill `out`, a new array of NumPy or CuPy where it is None, and return it."""
    shape = unitless.check_shape(shape)
    if out is not None:
        _check_writable_type("out", out, spec.name)
    _plain("weight", values[0])
    memory = memory_of("weight", values[0])
    with memory.here():
        given = _arrays(memory, spec, values, shape)
        dtype, n_out = given["weight"].dtype, spec.sizes(shape)[1]
        if out is None:
            out = memory.xp.empty(n_out, dtype)
        target = _array(memory, "out", out)
        if target.dtype != dtype:
            raise TypeError(f"out: got dtype {target.dtype}, expected that of weight, {dtype}")
        if target.shape != (n_out,):
            raise ShapeError(f"out: got shape {target.shape}, expected {(n_out,)} for shape {shape}")
        _check_target(memory, spec, "out", target, given)
        arithmetic = unitless.arithmetic_dtype(dtype)
        if dtype != arithmetic:
            memory.check_copy("out", target, arithmetic)
        sums = target if dtype == arithmetic else memory.xp.empty(n_out, arithmetic)
        _run(memory, spec, sums, given)
        if sums is not target:
            target[...] = sums
    return out


def _arrays(memory: Host | Cuda, spec: Spec, values: tuple, shape: tuple[int, int]) -> dict[str, Any]:
    """The memory of every operand that is given, by name, checked as the JAX functions check it.

    `values` are those of `spec.parameters`, but for `after`, which is JAX's.
    """
    given = {
        name: _array(memory, spec.public_name(name), x)
        for name, x in zip(spec.parameters, values, strict=False)
        if x is not None or name in spec.arguments
    }
    for name, x in given.items():
        if not x.dtype.isnative and not (name == "weight" and spec.kind == "update"):
            given[name] = x.astype(x.dtype.newbyteorder("="))
    unitless.check_dtypes(spec, given)
    unitless.check_shapes(spec, given, shape, vmaps=False)
    return given


def _array(memory: Host | Cuda, name: str, x: Any) -> Any:
    x = _plain(name, x)
    return np.asarray(float(x)) if isinstance(x, (bool, int, float)) else memory.view(name, x)


def _plain(name: str, x: Any) -> Any:
    """`x`, or the spikes of events; a quantity is refused."""
    x = array_of(name, x)
    if isinstance(x, u.Quantity):
        raise TypeError(
            f"{name}: got a quantity of unit {x.unit}, expected a plain array or number: pass what "
            f"`numpy.array({name}.to(unit).mantissa)` gives, with one unit for weight, trace and bounds"
        )
    return x


def _check_writable_type(name: str, x: Any, function: str) -> None:
    if isinstance(x, jax.Array):
        raise TypeError(
            f"{name}: got a JAX array, which must not change, expected a writable array: pass `numpy.array({name})`, "
            f"or use hebbax.{function}, which returns a new array"
        )
    if isinstance(x, (bool, int, float, np.generic)):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a writable array")


def _check_scalar_bounds(given: dict[str, Any], finite: bool) -> None:
    """What the JAX functions can check of Python's and NumPy's scalars."""
    bounds = {name: given[name] for name in ("w_min", "w_max") if name in given}
    scalars = {name: x for name, x in bounds.items() if isinstance(x, np.ndarray) and x.ndim == 0}
    if len(scalars) == 2 and scalars["w_min"] > scalars["w_max"]:
        raise ValueError(f"w_min: got {scalars['w_min']}, expected at most w_max, {scalars['w_max']}")
    for name, bound in scalars.items():
        if finite and np.isinf(bound):
            raise ValueError(f"{name}: got {bound}, expected a finite bound where soft_bound is given")


def _check_target(memory: Host | Cuda, spec: Spec, name: str, target: Any, given: dict[str, Any]) -> None:
    """Raise unless the kernel may write to `target` while it reads the others."""
    if memory.is_read_only(target):
        raise ValueError(f"{name}: got a read-only array, expected a writable one: it is changed in place")
    if not memory.is_laid_out(target):
        raise ValueError(
            f"{name}: got an array that is not contiguous (strides {target.strides} bytes) or not aligned, "
            f"expected a contiguous one: it is changed in place"
        )
    for operand, x in given.items():
        if operand != name and type(x) is type(target) and memory.xp.may_share_memory(target, x):
            raise ValueError(
                f"{name}: got memory whose range overlaps that of {spec.public_name(operand)}, "
                f"expected memory of its own"
            )


def _run(memory: Host | Cuda, spec: Spec, result: Any, given: dict[str, Any], **options: Any) -> None:
    """Run the kernel on operands of the dtypes that it takes: copies, where they do not have them."""
    dtypes = unitless.kernel_dtypes(given)

    def settle(operand: str) -> Any:
        x, dtype = given.get(operand), dtypes[operand]
        if x is None:
            return None
        is_fit = x.dtype == dtype and isinstance(x, memory.xp.ndarray) and memory.is_laid_out(x)
        if not is_fit:
            memory.check_copy(spec.public_name(operand), x, dtype)
        if operand == "spike" and x.dtype != bool:
            x = x != 0
        if operand in STRUCTURE:
            _check_index_range(operand, x, dtype)
        if not is_fit:
            x = memory.xp.array(x, dtype, order="C")
        return x.reshape(-1)

    memory.run(spec, result, {operand: settle(operand) for operand in spec.operands}, **options)


def _check_index_range(name: str, x: Any, dtype: np.dtype) -> None:
    """Raise where an unsigned index would come out negative."""
    if x.dtype == np.uint64 and dtype == np.int64 and x.size and x.max() > np.iinfo(dtype).max:
        raise OverflowError(f"{name}: got {x.max()}, which does not fit {dtype}")


@documented
def update_csr_on_binary_post(
    weight: Target,
    indices: Plain,
    indptr: Plain,
    weight_indices: Plain,
    pre_trace: Plain,
    post_spike: Plain,
    w_min: Plain | None = None,
    w_max: Plain | None = None,
    *,
    shape: tuple[int, int],
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: Plain | None = None,
) -> Target:
    r"""Add, in place, the presynaptic traces to the weights of every synapse onto a spiking neuron, and clip.

    Parameters
    ----------
    {plain_structure_post}
    {plain_pre_trace}
    {plain_post_spike}
    {plain_bounds}
    {plain_gain_post}

    Returns
    -------
    {inplace_returns}

    Raises
    ------
    {inplace_raises}

    Notes
    -----
    {equation_post}

    as `hebbax.update_csr_on_binary_post` does without changing its argument.

    Examples
    --------
    >>> import hebbax, numpy as np
    >>> weight = np.array([0.5, 0.3, 0.8, 0.2])
    >>> hebbax.inplace.update_csr_on_binary_post(
    ...     weight, np.array([0, 1, 0, 1]), np.array([0, 2, 4]), np.array([0, 2, 1, 3]),
    ...     np.array([0.1, -0.05]), np.array([True, False]), shape=(2, 2),
    ... )
    array([0.6 , 0.3 , 0.75, 0.2 ])
    >>> weight
    array([0.6 , 0.3 , 0.75, 0.2 ])
    """
    values = weight, indices, indptr, weight_indices, pre_trace, post_spike, w_min, w_max, gain
    return _update(UPDATE_POST, shape, values, (weight_in_bounds, soft_bound, mu))


@documented
def update_csr_on_binary_pre(
    weight: Target,
    indices: Plain,
    indptr: Plain,
    pre_spike: Plain,
    post_trace: Plain,
    w_min: Plain | None = None,
    w_max: Plain | None = None,
    *,
    shape: tuple[int, int],
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: Plain | None = None,
) -> Target:
    r"""Add, in place, the postsynaptic traces to the weights of every synapse from a spiking neuron, and clip.

    Parameters
    ----------
    {plain_structure_pre}
    {plain_pre_spike}
    {plain_post_trace}
    {plain_bounds}
    {plain_gain_pre}

    Returns
    -------
    {inplace_returns}

    Raises
    ------
    {inplace_raises}

    Notes
    -----
    {equation_pre}

    as `hebbax.update_csr_on_binary_pre` does without changing its argument.

    Examples
    --------
    >>> import hebbax, numpy as np
    >>> hebbax.inplace.update_csr_on_binary_pre(
    ...     np.array([0.5, 0.3, 0.8, 0.2]), np.array([0, 1, 0, 1]), np.array([0, 2, 4]),
    ...     np.array([True, False]), np.array([-0.1, -0.4]), w_min=0.0, shape=(2, 2),
    ... )
    array([0.4, 0. , 0.8, 0.2])
    """
    values = weight, indices, indptr, pre_spike, post_trace, w_min, w_max, gain
    return _update(UPDATE_PRE, shape, values, (weight_in_bounds, soft_bound, mu))


@documented
def propagate_csr_on_binary_pre(
    weight: Plain,
    indices: Plain,
    indptr: Plain,
    pre_spike: Plain,
    *,
    shape: tuple[int, int],
    gain: Plain | None = None,
    out: Any = None,
) -> Any:
    r"""Sum, for every postsynaptic neuron, the weights of its synapses from spiking neurons: `spike @ W`.

    Parameters
    ----------
    {plain_propagate_structure_pre}
    {plain_pre_spike}
    {plain_shape_backend}
    {plain_factor_pre}
    {inplace_out}

    Returns
    -------
    Array, shape (n_post,)
        `out`, with the input of every postsynaptic neuron; 16-bit weights are summed in float32 and rounded once.

    Raises
    ------
    {inplace_raises}

    Notes
    -----
    .. math:: I_j = \sum_{i\,\text{spikes}} g_i w_{ij}

    summed as in `hebbax.propagate_csr_on_binary_pre`. What `out` held before is lost, not added to.

    Examples
    --------
    >>> import hebbax, numpy as np
    >>> hebbax.inplace.propagate_csr_on_binary_pre(
    ...     np.array([0.5, 0.3, 0.8, 0.2]), np.array([0, 1, 0, 1]), np.array([0, 2, 4]),
    ...     np.array([True, True]), shape=(2, 2),
    ... )
    array([1.3, 0.5])
    """
    return _propagate(PROPAGATE_PRE, shape, (weight, indices, indptr, pre_spike, gain), out)


@documented
def propagate_csr_on_binary_post(
    weight: Plain,
    indices: Plain,
    indptr: Plain,
    weight_indices: Plain,
    post_spike: Plain,
    *,
    shape: tuple[int, int],
    gain: Plain | None = None,
    out: Any = None,
) -> Any:
    r"""Sum, for every presynaptic neuron, the weights of its synapses onto spiking neurons: `W @ spike`.

    Parameters
    ----------
    {plain_propagate_structure_post}
    {plain_post_spike}
    {plain_shape_backend}
    {plain_factor_post}
    {inplace_out}

    Returns
    -------
    Array, shape (n_pre,)
        `out`, with the sum for every presynaptic neuron; 16-bit weights are summed in float32 and rounded once.

    Raises
    ------
    {inplace_raises}

    Notes
    -----
    .. math:: B_i = \sum_{j\,\text{spikes}} g_j w_{ij}

    summed as in `hebbax.propagate_csr_on_binary_post`. What `out` held before is lost, not added to.

    Examples
    --------
    >>> import hebbax, numpy as np
    >>> hebbax.inplace.propagate_csr_on_binary_post(
    ...     np.array([0.5, 0.3, 0.8, 0.2]), np.array([0, 1, 0, 1]), np.array([0, 2, 4]), np.array([0, 2, 1, 3]),
    ...     np.array([True, False]), shape=(2, 2),
    ... )
    array([0.5, 0.8])
    """
    values = weight, indices, indptr, weight_indices, post_spike, gain
    return _propagate(PROPAGATE_POST, shape, values, out)
