"""The exchange of spikes between devices, once for several steps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hebbax import _cpu
from hebbax._core.forks import check_jax
from hebbax._core.sent import SpikeLists, merge, pack
from hebbax._core.unitless import check_host_array
from hebbax.errors import ShapeError

_MOST = 2**31 - 1  # which fit int32


def exchange(spikes: Any, axis: str, *, capacity: int | None = None, awake: bool = False) -> SpikeLists:
    """Gather the spikes of some steps of all devices of a mesh's axis on each of them, as lists, in `jax.shard_map`.

    Where spikes act a delay later than they leave, devices need not meet at every step, but once in the smallest
    delay of the network: run as many steps, exchange their spikes, and run the next ones with what arrived.

    Parameters
    ----------
    spikes : Array, shape (steps, own), bool or real
        Whether each of this device's neurons spikes in each step.
    axis : str
        Name of the axis.
    capacity : int, optional
        Spikes of a device, in all steps together, that are sent at most: 4 bytes each, sent whether they are used or
        not. By default `steps * own`, which none exceeds. Where there are more on any device, `overflow` is not 0 on
        all, and `exchange_all` sends them in bits, `steps * own / 8` bytes.
    awake : bool, default False
        Devices of one process's CPUs that wait for others keep their cores, and do not have to be woken. A program may
        then have one such exchange, whose result the next one needs, as in a loop, and such programs have to run one at
        a time: devices that wait keep XLA's threads. Elsewhere it changes nothing.

    Returns
    -------
    SpikeLists
        Of all devices' neurons, in the order of `jax.lax.all_gather(..., tiled=True)`.

    Raises
    ------
    hebbax.errors.ShapeError, TypeError, ValueError
        `spikes` has not two axes, or is not real; `capacity` is negative; or there may be more spikes on a device, or
        more neurons or room for spikes on all of them, than int32 counts.

    Notes
    -----
    That spikes are exchanged once in the smallest delay, as lists of who spiked, is the scheme of Morrison, Mehring,
    Geisel, Aertsen & Diesmann (2005), Neural Computation 17:1776, doi:10.1162/0899766054026648. Lists are shorter than
    bits where fewer than 1 in 32 neurons spike in a step.

    Examples
    --------
    >>> import hebbax, jax, jax.numpy as jnp
    >>> from jax.sharding import Mesh, PartitionSpec as P
    >>> mesh = Mesh(jax.devices()[:1], ("devices",))
    >>> synapses = hebbax.Synapses.random((100, 100), prob=0.1)
    >>> def deliver(spikes):
    ...     lists = hebbax.sharding.exchange(spikes, "devices")
    ...     return jnp.stack([synapses.propagate_on_pre(1.0, lists.at(k)) for k in range(lists.steps)]), lists.count
    >>> spikes = jnp.arange(300).reshape(3, 100) % 7 == 0
    >>> deliver = jax.shard_map(deliver, mesh=mesh, in_specs=P(None, "devices"), out_specs=P(), check_vma=False)
    >>> currents, count = jax.jit(deliver)(spikes)
    >>> count
    Array([15, 14, 14], dtype=int32)
    """
    check_jax()
    spikes = _counted(_checked(spikes))
    if capacity is None:
        capacity = spikes.size
    elif isinstance(capacity, bool) or not isinstance(capacity, (int, np.integer)) or capacity < 0:
        raise ValueError(f"capacity: got {capacity!r}, expected an integer of at least 0")
    devices, capacity = _devices_of(axis), int(capacity)
    if devices * max(capacity, spikes.shape[1]) > _MOST:
        got = f"{capacity} for {spikes.shape[1]} neurons on each of {devices} devices"
        raise ValueError(f"capacity: got {got}, expected at most {_MOST} spikes and neurons in all")
    own = pack(spikes, capacity)
    message = own.message
    if devices == 1:
        messages = message
    elif awake and jax.default_backend() == "cpu" and jax.process_count() == 1 and devices <= _cpu.most_devices():
        call = jax.ffi.ffi_call("hebbax_exchange", jax.ShapeDtypeStruct((devices * message.size,), message.dtype))
        messages = call(message, jax.lax.axis_index(axis).astype(jnp.int32))
    else:
        messages = jax.lax.all_gather(message, axis, tiled=True)
    return merge(messages, devices, own.sent)


def exchange_all(spikes: Any, axis: str) -> SpikeLists:
    """As `exchange`, in bits: for more spikes than a capacity, and for rates at which bits are fewer than lists."""
    check_jax()
    everyone = everyone_by_bits(_counted(_checked(spikes), _devices_of(axis)), axis)
    return pack(everyone, everyone.size)


def everyone_by_bits(own: jax.Array, axis: str) -> jax.Array:
    """What devices have of their own neurons, `(steps, own)` bool, of all of them."""
    bits = jax.lax.all_gather(jnp.packbits(own, axis=1), axis)  # (devices, steps, bytes)
    return jnp.unpackbits(bits, axis=2, count=own.shape[1]).astype(bool).swapaxes(0, 1).reshape(own.shape[0], -1)


def _devices_of(axis: str) -> int:
    return jax.lax.axis_size(axis) if hasattr(jax.lax, "axis_size") else int(jax.lax.psum(1, axis))


def _counted(spikes: jax.Array, devices: int = 1) -> jax.Array:
    """Raise where the lists, whose numbers are int32, could not say how many spikes there are."""
    steps, own = spikes.shape
    if max(steps * own * devices, steps) > _MOST:
        of = "" if devices == 1 else f" on each of {devices} devices"
        raise ValueError(f"spikes: got shape {spikes.shape}{of}, expected at most {_MOST} entries in all")
    return spikes


def _checked(spikes: Any) -> jax.Array:
    spikes = jnp.asarray(spikes if isinstance(spikes, jax.Array) else check_host_array("spikes", spikes))
    if spikes.ndim != 2:
        raise ShapeError(f"spikes: got shape {spikes.shape}, expected (steps, neurons)")
    if jnp.issubdtype(spikes.dtype, jnp.complexfloating):
        raise TypeError(f"spikes: got dtype {spikes.dtype}, expected a real dtype")
    return spikes if spikes.dtype == bool else spikes != 0
