"""The operators as a user calls them: units, defaults, documentation.

Everything that can be is done inside one cached `jit`, so that an eager call costs a dispatch.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, TypeAlias

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from hebbax._core import unitless
from hebbax._core.docs import documented
from hebbax._core.primitives import work_beside
from hebbax._core.sent import SpikeLists
from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE, Spec

Plain: TypeAlias = jax.Array | np.ndarray | float
WithUnit: TypeAlias = Plain | u.Quantity

# Types that need no look before `jit` takes them. JAX's own array type joins them once it is met: `isinstance` of
# `jax.Array` is slow, and an eager call at n = 1 000 spends a fifth of its time on checks otherwise.
_PASSED: set[type] = {type(None), float}
_config: Any = jax.config  # (whose flags have no types)

# Where an update's parameters are `w_min` and `w_max`: counted from the end, since their number before differs.
_BOUNDS = slice(-len(UPDATE_POST.optional), 2 - len(UPDATE_POST.optional))


def call(spec: Spec, shape: tuple[int, int], backend: str | None, values: tuple, options: tuple = ()) -> Any:
    """Do what only Python can see (options, NumPy integers, order of scalar bounds), then dispatch.

    `values` are those of `spec.parameters`, and `options`, of an update, those of `unitless.UPDATE_OPTIONS`.
    """
    shape = unitless.check_options(shape, backend)
    operands = list(values)
    if spec.kind == "update":
        w_min, w_max = operands[_BOUNDS]
        check_bound_order(w_min, w_max)
        weight_in_bounds, soft_bound, mu = options
        if soft_bound is not None or type(mu) is not float or mu != 1.0:
            bounds = {name: x for name, x in (("w_min", w_min), ("w_max", w_max)) if x is not None}
            unitless.check_update_options(bounds, *options)  # before `jit` says that it cannot hash them
            options = weight_in_bounds, soft_bound, float(mu)
            for name, x in bounds.items() if mu else ():
                bound = getattr(x, "mantissa", x)
                if _is_host_scalar(bound) and np.isinf(bound):
                    raise ValueError(f"{name}: got {x}, expected a finite bound where soft_bound is given")
        weight = getattr(operands[0], "mantissa", operands[0])
        if isinstance(weight, jax.Array) and not isinstance(weight, jax.core.Tracer):
            operands[_BOUNDS] = _keep_on_device(w_min, weight), _keep_on_device(w_max, weight)
    for k, x in enumerate(operands):
        if type(x) in _PASSED:
            continue
        if isinstance(x, jax.Array):
            _PASSED.add(type(x))
        elif isinstance(x, SpikeLists) and spec.parameters[k] == "spike":
            spec, operands[k] = dataclasses.replace(spec, arrivals=x.sent), x.message
        elif spec.parameters[k] == "after":
            operands[k] = unitless.arrays_of("after", x)
        elif not isinstance(x, u.Quantity):
            operands[k] = unitless.check_host_array(spec.public_name(spec.parameters[k]), x)
        elif not isinstance(x.mantissa, jax.Array):
            number = unitless.check_host_array(spec.public_name(spec.parameters[k]), x.mantissa)
            operands[k] = u.Quantity(number, unit=x.unit)
    return _compiled(operands, (spec, shape, backend, options))[0]


@functools.partial(jax.jit, static_argnums=1, inline=True)  # (one static argument: each costs an eager call time)
def _compiled(operands: list, static: tuple) -> Any:
    spec, shape, backend, options = static
    given = dict(zip(spec.parameters, operands, strict=True))
    weight, gain = given["weight"], given["gain"] if spec.kind == "propagate" else None
    unit, gain_unit = (x.unit if isinstance(x, u.Quantity) else u.UNITLESS for x in (weight, gain))
    units = {"weight": unit, "trace": unit, "w_min": unit, "w_max": unit, "gain": gain_unit}
    plain = {name: in_unit(spec.public_name(name), x, units[name]) if name in units else x for name, x in given.items()}
    required = [plain.pop(name) for name in spec.arguments]
    plain |= zip(unitless.UPDATE_OPTIONS, options, strict=False)  # no options, unless it is an update
    out = unitless.operator_of(spec)(*required, shape=shape, backend=backend, **plain)
    out = out.astype(jnp.result_type(getattr(weight, "mantissa", weight)))  # (a float has no dtype without `jit`)
    return in_unit_of_product(out, weight, gain), work_beside(given["indices"])


def in_unit_of_product(sums: Any, weight: Any, gain: Any) -> Any:
    """Sums of the numbers of `gain * weight`, in the unit of that product; plain numbers where the two units cancel."""
    units = [x.unit for x in (weight, gain) if isinstance(x, u.Quantity)]
    if len(units) == 2:
        return u.maybe_decimal(u.Quantity(sums, unit=units[0] * units[1]))
    return u.Quantity(sums, unit=units[0]) if units else sums


def in_unit(name: str, x: Any, unit: u.Unit) -> Any:
    """The numbers of `x` in `unit`; a plain number is dimensionless."""
    if x is None:
        return None
    x_unit = x.unit if isinstance(x, u.Quantity) else u.UNITLESS
    if not x_unit.has_same_dim(unit):
        got = "without a unit" if x_unit == u.UNITLESS else f"of unit {x_unit}"
        expected = "a plain number" if unit == u.UNITLESS else f"one convertible to {unit}"
        message = f"{name}: got a value {got}, expected {expected}"
        raise u.UnitMismatchError(message, x_unit, unit)
    if not isinstance(x, u.Quantity):
        x = u.Quantity(x)
    return x.mantissa if x_unit == unit else x.to(unit).mantissa


def check_bound_order(w_min: Any, w_max: Any) -> None:
    """Raise where two host scalars are in the wrong order: surely a mistake, and free to see."""
    if w_min is None or w_max is None:
        return
    low, high = getattr(w_min, "mantissa", w_min), getattr(w_max, "mantissa", w_max)
    if not (_is_host_scalar(low) and _is_host_scalar(high)):
        return
    low_unit, high_unit = getattr(w_min, "unit", u.UNITLESS), getattr(w_max, "unit", u.UNITLESS)
    if low_unit is not high_unit and low_unit != high_unit:
        if not low_unit.has_same_dim(high_unit):
            return  # a mismatch, which is reported with the weight's unit
        low = w_min.to(high_unit).mantissa
    # As Python's numbers: NumPy warns where one of bfloat16 is NaN.
    low, high = (x if isinstance(x, (float, int)) else x.item() for x in (low, high))
    if low > high:
        raise ValueError(f"w_min: got {w_min}, expected at most w_max, {w_max}")


def _is_host_scalar(x: Any) -> bool:
    if isinstance(x, (np.ndarray, np.generic)):
        return x.ndim == 0 and unitless.expected_instead("w_min", x.dtype) is None
    return isinstance(x, (float, int))


def _keep_on_device(bound: Any, weight: jax.Array) -> Any:
    """A Python float as the array that it would become anyway: sending two of them takes a tenth of an eager call.

    Not where a mesh is set, to which that array would belong; and what else decides about it is part of the key.
    """
    number = getattr(bound, "mantissa", bound)
    sharding = weight.sharding
    if type(number) is not float or type(sharding) is not SingleDeviceSharding:
        return bound
    if not jax.sharding.get_abstract_mesh().empty:
        return bound
    unit, dtype = getattr(bound, "unit", None), unitless.arithmetic_dtype(weight.dtype)
    where = sharding, _config.jax_default_device, _config.jax_enable_x64
    return _device_scalar(number.hex(), unit, dtype, where)


@functools.lru_cache(maxsize=256)
def _device_scalar(number: str, unit: u.Unit | None, dtype: np.dtype, where: tuple) -> Any:
    del where  # (only what it must not be mistaken for)
    with jax.ensure_compile_time_eval():  # or, inside somebody's `jit`, a tracer would be kept
        x = jnp.asarray(float.fromhex(number), jax.dtypes.canonicalize_dtype(dtype))
    return x if unit is None else u.Quantity(x, unit=unit)


@documented
def update_csr_on_binary_post(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    weight_indices: Plain,
    pre_trace: WithUnit,
    post_spike: Plain,
    w_min: WithUnit | None = None,
    w_max: WithUnit | None = None,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: WithUnit | None = None,
    after: Any = None,
) -> Any:
    r"""Add the presynaptic traces to the weights of every synapse onto a spiking postsynaptic neuron, and clip.

    Parameters
    ----------
    {structure_post}
    {pre_trace}
    {post_spike}
    {bounds}
    {gain_post}
    {after}

    Returns
    -------
    {update_returns}

    Raises
    ------
    {raises}

    Notes
    -----
    {equation_post}

    which is the potentiation of pair-based STDP, with traces as in Morrison, Diesmann & Gerstner (2008),
    Biological Cybernetics 98:459, doi:10.1007/s00422-008-0233-1.

    {update_transformed}

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> hebbax.update_csr_on_binary_post(
    ...     jnp.array([0.5, 0.3, 0.8, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4]), jnp.array([0, 2, 1, 3]),
    ...     jnp.array([0.1, -0.05]), jnp.array([True, False]), shape=(2, 2),
    ... )
    Array([0.6 , 0.3 , 0.75, 0.2 ], dtype=float32)
    """
    values = weight, indices, indptr, weight_indices, pre_trace, post_spike, w_min, w_max, gain, after
    return call(UPDATE_POST, shape, backend, values, (weight_in_bounds, soft_bound, mu))


@documented
def update_csr_on_binary_pre(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    pre_spike: Plain,
    post_trace: WithUnit,
    w_min: WithUnit | None = None,
    w_max: WithUnit | None = None,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    weight_in_bounds: bool = False,
    soft_bound: Literal["upper", "lower"] | None = None,
    mu: float = 1.0,
    gain: WithUnit | None = None,
    after: Any = None,
) -> Any:
    r"""Add the postsynaptic traces to the weights of every synapse from a spiking presynaptic neuron, and clip.

    Parameters
    ----------
    {structure_pre}
    {pre_spike}
    {post_trace}
    {bounds}
    {gain_pre}
    {after}

    Returns
    -------
    {update_returns}

    Raises
    ------
    {raises}

    Notes
    -----
    {equation_pre}

    which with a negative trace is the depression of pair-based STDP, with traces as in Morrison, Diesmann & Gerstner
    (2008), Biological Cybernetics 98:459, doi:10.1007/s00422-008-0233-1.

    {update_transformed}

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> hebbax.update_csr_on_binary_pre(
    ...     jnp.array([0.5, 0.3, 0.8, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4]),
    ...     jnp.array([True, False]), jnp.array([-0.1, -0.4]), w_min=0.0, shape=(2, 2),
    ... )
    Array([0.4, 0. , 0.8, 0.2], dtype=float32)
    """
    values = weight, indices, indptr, pre_spike, post_trace, w_min, w_max, gain, after
    return call(UPDATE_PRE, shape, backend, values, (weight_in_bounds, soft_bound, mu))


@documented
def propagate_csr_on_binary_pre(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    pre_spike: Plain,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    gain: WithUnit | None = None,
) -> Any:
    r"""Sum, for every postsynaptic neuron, the weights of its synapses from spiking neurons: `spike @ W`.

    Parameters
    ----------
    {propagate_structure_pre}
    {pre_spike}
    {shape_backend}
    {factor_pre}

    Returns
    -------
    Array or Quantity, shape (n_post,)
        The input of every postsynaptic neuron, with the dtype of `weight` and the unit of `gain * weight`; 16-bit
        weights are summed in float32 and rounded once.

    Raises
    ------
    {raises}

    Notes
    -----
    .. math:: I_j = \sum_{i\,\text{spikes}} g_i w_{ij}

    summed in ascending order of `i`, whatever the number of threads: the spike delivery of event-driven simulation,
    as in Brette et al. (2007), Journal of Computational Neuroscience 23:349, doi:10.1007/s10827-007-0038-6. With
    :math:`g_i = u_i x_i`, the resources that a spike releases, it is that of synapses with short-term plasticity
    (Tsodyks, Pawelzik & Markram 1998, Neural Computation 10:821, doi:10.1162/089976698300017502).

    {propagate_pre_transformed}

    Examples
    --------
    >>> import hebbax, jax, jax.numpy as jnp
    >>> weight, indices, indptr = jnp.array([0.5, 0.3, 0.8, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4])
    >>> def function(pre_spike):
    ...     return hebbax.propagate_csr_on_binary_pre(weight, indices, indptr, pre_spike, shape=(2, 2))
    >>> function(jnp.array([True, True]))
    Array([1.3, 0.5], dtype=float32)
    >>> hebbax.propagate_csr_on_binary_pre(0.25, indices, indptr, jnp.array([True, True]), shape=(2, 2))
    Array([0.5, 0.5], dtype=float32)
    >>> released = jnp.array([0.5, 0.25])
    >>> hebbax.propagate_csr_on_binary_pre(
    ...     weight, indices, indptr, jnp.array([True, True]), shape=(2, 2), gain=released
    ... )
    Array([0.45, 0.2 ], dtype=float32)
    >>> jax.grad(lambda pre_spike: function(pre_spike)[0])(jnp.array([1.0, 0.0]))  # the first column of W
    Array([0.5, 0.8], dtype=float32)
    """
    return call(PROPAGATE_PRE, shape, backend, (weight, indices, indptr, pre_spike, gain))


@documented
def propagate_csr_on_binary_post(
    weight: WithUnit,
    indices: Plain,
    indptr: Plain,
    weight_indices: Plain,
    post_spike: Plain,
    *,
    shape: tuple[int, int],
    backend: str | None = None,
    gain: WithUnit | None = None,
) -> Any:
    r"""Sum, for every presynaptic neuron, the weights of its synapses onto spiking neurons: `W @ spike`.

    Parameters
    ----------
    {propagate_structure_post}
    {post_spike}
    {shape_backend}
    {factor_post}

    Returns
    -------
    Array or Quantity, shape (n_pre,)
        The sum for every presynaptic neuron, with the dtype of `weight` and the unit of `gain * weight`; 16-bit
        weights are summed in float32 and rounded once.

    Raises
    ------
    {raises}

    Notes
    -----
    .. math:: B_i = \sum_{j\,\text{spikes}} g_j w_{ij}

    summed in ascending order of `j`, whatever the number of threads: the transpose of the spike delivery in Brette et
    al. (2007), doi:10.1007/s10827-007-0038-6, and the adjoint of `update_csr_on_binary_post` in the trace.

    {propagate_post_transformed}

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> hebbax.propagate_csr_on_binary_post(
    ...     jnp.array([0.5, 0.3, 0.8, 0.2]), jnp.array([0, 1, 0, 1]), jnp.array([0, 2, 4]), jnp.array([0, 2, 1, 3]),
    ...     jnp.array([True, False]), shape=(2, 2),
    ... )
    Array([0.5, 0.8], dtype=float32)
    """
    return call(PROPAGATE_POST, shape, backend, (weight, indices, indptr, weight_indices, post_spike, gain))
