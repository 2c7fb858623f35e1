"""Arrays that are larger than memory: their pages are there when somebody writes to them, and only then."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.11 does not name it
CHUNK = 1 << 26  # bytes of memory that are shown again and again
GUARD = 1 << 20  # elements that may be real at either end


def zeros(size: int, dtype: Any) -> np.ndarray:
    """Zeros; who reads them sees one page of the system's, everywhere."""
    dtype = np.dtype(dtype)
    memory = mmap.mmap(
        -1, max(size * dtype.itemsize, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    )  # fmt: skip
    return np.frombuffer(memory, np.uint8, size * dtype.itemsize).view(dtype)


def repeated(size: int, dtype: Any, start: int, stop: int, byte: int = 0) -> np.ndarray:
    """As `zeros`, for who writes all of it: but for the part around `start` to `stop`, it is a few pages, repeated."""
    out = zeros(size, dtype)
    first, last = out.ctypes.data, out.ctypes.data + out.nbytes
    own = range((start - GUARD) * out.itemsize // CHUNK, (stop + GUARD) * out.itemsize // CHUNK + 1)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_int64]
    file = os.memfd_create("hebbax-overflow")
    try:
        os.ftruncate(file, CHUNK)
        if byte:
            os.pwrite(file, bytes([byte]) * CHUNK, 0)
        for k in range(out.nbytes // CHUNK):
            at = first + k * CHUNK
            if k in own or at + CHUNK > last:
                continue
            got = libc.mmap(at, CHUNK, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | 0x10, file, 0)  # MAP_FIXED
            if got != at:
                raise OSError(ctypes.get_errno(), "mmap")
    finally:
        os.close(file)
    return out


def shown_to_jax(x: np.ndarray) -> jax.Array:
    """The same memory as an array of JAX, which JAX does not write to."""
    with enable_x64(True):
        if x.dtype.name == "bfloat16":
            raise TypeError("NumPy's bfloat16 does not speak DLPack")
        out = jax.dlpack.from_dlpack(x)
    assert x.nbytes < CHUNK or out.unsafe_buffer_pointer() == x.ctypes.data, "JAX has copied it"
    return out


@functools.cache
def _allocator(size: int, dtype: Any) -> Any:
    """A program that hands out memory and writes nothing to it: hebbax's fence, with nothing to fence."""
    return jax.jit(lambda: jax.ffi.ffi_call("hebbax_fence", jax.ShapeDtypeStruct((size,), dtype))())


def owned_by_jax(size: int, dtype: Any) -> jax.Array:
    """As `zeros`, of JAX's own: it may be donated, and then is written to in place."""
    with enable_x64(True):
        if size * np.dtype(dtype).itemsize < CHUNK:  # which the C library may have had before
            return jnp.zeros(size, dtype)
        return _allocator(size, np.dtype(dtype))()


def may_own(size: int, dtype: Any) -> bool:
    """Whether Linux lends a process so much: not more than the machine has in all."""
    total = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    return size * np.dtype(dtype).itemsize < 0.9 * total


@functools.partial(jax.jit, donate_argnums=0)
def _put(x: jax.Array, part: jax.Array, at: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, part, (at,))


@functools.partial(jax.jit, static_argnums=2)
def _take(x: jax.Array, at: Any, size: int) -> jax.Array:
    return jax.lax.dynamic_slice(x, (at,), (size,))


def put(x: jax.Array, part: np.ndarray, at: int) -> jax.Array:
    """Write a part in place."""
    with enable_x64(True):
        return _put(x, part, np.int64(at))


def take(x: Any, at: int, size: int) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x[at : at + size].copy()
    with enable_x64(True):
        return np.asarray(_take(x, np.int64(at), size))
