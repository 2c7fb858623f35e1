"""The operators of every library under one interface, so that all run in the same loops.

`update` and `propagate` take (network, spec, weight, ...); bounds and traces may have units.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import Network

import hebbax
from hebbax._core.specs import Spec

LOW, HIGH = 0.0, 1.0


class Library(NamedTuple):
    update: Callable[..., Any]  # (network, spec, weight, trace, spike, bounds=(LOW, HIGH), after=None) -> weight
    propagate: Callable[..., Any]  # (network, spec, weight, spike) -> out


def _arguments(network: Network, spec: Spec, spike, trace=None) -> dict[str, Any]:
    """Everything but `weight`, by the names that hebbax and brainevent share."""
    half = network.half(spec)
    arguments = {"indices": half.indices, "indptr": half.indptr, spec.public_name("spike"): spike}
    if spec.permuted:
        arguments["weight_indices"] = half.weight_indices
    if trace is not None:
        arguments[spec.public_name("trace")] = trace
    return arguments | {"shape": (network.n, network.n)}


def hebbax_library(backend: str | None, weight_in_bounds: bool, **options: Any) -> Library:
    def update(network, spec, weight, trace, spike, bounds=(LOW, HIGH), after=None):
        return getattr(hebbax, spec.name)(
            weight,
            **_arguments(network, spec, spike, trace),
            w_min=bounds[0],
            w_max=bounds[1],
            backend=backend,
            weight_in_bounds=weight_in_bounds,
            after=after,
            **options,
        )

    def propagate(network, spec, weight, spike):
        return getattr(hebbax, spec.name)(weight, **_arguments(network, spec, spike), backend=backend)

    return Library(update, propagate)


def _wait(weight, after):
    """`weight`, but not before `after` is there: what hebbax's option `after` does, so that XLA need not copy it."""
    return weight if after is None else jax.lax.optimization_barrier((weight, after))[0]


def peer_backends(primitive: str, platform: str) -> tuple[str, ...]:
    """The backends of one of brainevent's operators, which is imported when it is first needed."""
    return getattr(importlib.import_module("brainevent"), primitive).available_backends(platform)


def peer_library(backend: str, network: Network, sides: Iterable[str] = ("pre", "post")) -> Library:
    """brainevent, with the fastest of its functions for each operator: event-driven, from the weights in CSR order.

    `sides` are those whose spikes `propagate` will be given.
    """
    import brainevent

    def update(network, spec, weight, trace, spike, bounds=(LOW, HIGH), after=None):
        arguments = _arguments(network, spec, spike, trace)
        weight = _wait(weight, after)
        return getattr(brainevent, spec.name)(weight, **arguments, w_min=bounds[0], w_max=bounds[1], backend=backend)

    # Its products want a workspace, which a matrix makes at its first product.
    workspace = {}
    for side in sides:
        half = getattr(network, side)
        data = jnp.zeros(half.indices.size), half.indices, half.indptr
        matrix = brainevent.CSR(data, shape=(network.n,) * 2, backend=backend)
        _ = brainevent.BinaryArray(jnp.zeros(network.n, bool)) @ matrix
        workspace[side] = matrix.buffers["binary_workspace"]["csr"]

    def propagate(network, spec, weight, spike):
        half = network.half(spec)
        options = dict(shape=(network.n,) * 2, workspace=workspace[spec.event], transpose=True, backend=backend)
        if spec.permuted:
            return brainevent.binary_csrmv_indexed(
                weight, half.indices, half.indptr, half.weight_indices, spike, **options
            )
        return brainevent.binary_csrmv(weight, half.indices, half.indptr, spike, **options)

    return Library(update, propagate)


@functools.partial(jax.jit, static_argnames="spec", inline=True)
def _jax_update(network, spec, weight, trace, spike, bounds=(LOW, HIGH), after=None):
    half = network.half(spec)
    weight = _wait(weight, after)
    change = jnp.where(spike[half.owner], trace[half.indices], 0)
    slots = half.weight_indices
    new = weight + change if slots is None else weight.at[slots].add(change, unique_indices=True)
    return jnp.clip(new, *bounds)


@functools.partial(jax.jit, static_argnames="spec", inline=True)
def _jax_propagate(network, spec, weight, spike):
    half = network.half(spec)
    values = weight if half.weight_indices is None else weight[half.weight_indices]
    return jnp.zeros(network.n, weight.dtype).at[half.indices].add(jnp.where(spike[half.owner], values, 0))


PLAIN_JAX = Library(_jax_update, _jax_propagate)


def _rows(half, spike):
    """For every spiking neuron, its elements' slots and the neurons they connect to."""
    for j in np.flatnonzero(spike):
        row = slice(half.indptr[j], half.indptr[j + 1])
        yield (row if half.weight_indices is None else half.weight_indices[row]), half.indices[row]


def _numpy_update(network, spec, weight, trace, spike, bounds=(LOW, HIGH), after=None, mu=0.0):
    for slots, others in _rows(network.half(spec), spike):
        change = trace[others] * ((bounds[1] - weight[slots]) / (bounds[1] - bounds[0])) ** mu if mu else trace[others]
        weight[slots] = np.clip(weight[slots] + change, *bounds)
    return weight


def _numpy_propagate(network, spec, weight, spike):
    rows = list(_rows(network.half(spec), spike))
    if not rows:
        return np.zeros(network.n, weight.dtype)
    values = np.concatenate([weight[slots] for slots, _ in rows])
    others = np.concatenate([others for _, others in rows])
    return np.bincount(others, values.astype(np.float64), network.n).astype(weight.dtype)


def numpy_library(mu: float) -> Library:
    """With an upper bound that is soft where `mu` is not 0."""
    return Library(functools.partial(_numpy_update, mu=mu), _numpy_propagate)


NUMPY = numpy_library(0.0)  # updates in place; also what the others' results are compared with
