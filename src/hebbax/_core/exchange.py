"""The exchange of spikes between the devices of one process."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hebbax import _cpu


def exchange(spike: jax.Array, axis: str) -> jax.Array:
    """Gather the spikes of all devices of an axis, the only one of the mesh, on each of them, in `jax.shard_map`.

    On the CPUs of one process, which then wait for each other awake (see `_cpu/exchange.pyx`), a program may have one
    exchange, whose result the next one needs, as in a loop, and such programs have to run one at a time: devices that
    wait keep XLA's threads. Elsewhere this is `jax.lax.all_gather`.

    Parameters
    ----------
    spike : Array, shape (steps, own), bool
        Those of this device's neurons.
    axis : str
        Name of the axis.

    Returns
    -------
    Array, shape (steps, devices * own), bool
    """
    devices = jax.lax.axis_size(axis) if hasattr(jax.lax, "axis_size") else int(jax.lax.psum(1, axis))
    if jax.default_backend() != "cpu" or jax.process_count() > 1 or devices > _cpu.most_devices():
        return jax.lax.all_gather(spike, axis, axis=1, tiled=True)
    steps, own = spike.shape
    call = jax.ffi.ffi_call("hebbax_exchange", jax.ShapeDtypeStruct((steps, devices * own), spike.dtype))
    return call(spike, jax.lax.axis_index(axis).astype(jnp.int32))
