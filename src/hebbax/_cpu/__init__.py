"""The CPU kernels: Cython with OpenMP, called by XLA (FFI handlers) or through Python (any DLPack buffer)."""

from __future__ import annotations

import os

import numpy as np

from hebbax._cpu.cpus import check_num_threads, default_num_threads

try:
    import hebbax._core.dlpack as _dlpack
    import hebbax._cpu.calls as _calls
    import hebbax._cpu.exchange as _exchange
    import hebbax._cpu.handlers as _handlers
    import hebbax._cpu.threads as _threads
    import hebbax._cpu.visit as _visit
    import hebbax._cpu.visits as _visits
except ImportError as error:  # not built here, or built for another platform
    missing: str | None = f"its compiled module does not load: {error}"
else:
    missing = None
    _threads.set_num_threads(default_num_threads())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_threads.without_openmp)


def ffi_handlers() -> dict:
    """One PyCapsule per kind of operator, and those of the fence, the exchange and visits, to register with XLA."""
    return _handlers.capsules() | _exchange.capsules() | _visits.capsules()


def most_devices() -> int:
    """Between how many devices of this process an exchange can be: as many as can wait for each other at once."""
    return 1 if missing else min(_exchange.MOST_DEVICES, default_num_threads())


def most_recent() -> int:
    """How many spikes of a postsynaptic neuron are kept between visits."""
    return int(_visit.most_recent())


def kernels() -> dict:
    """One function per kind of operator: `kernel(result, *operands, **attributes)`.

    On NumPy arrays (bfloat16 ones as views of uint16) and anything that speaks DLPack.
    """
    return {
        "update": _handlers.call_update, "propagate": _handlers.call_propagate, "collect": _handlers.call_collect,
    }  # fmt: skip


def flag(name: str) -> int:
    """A bit of the attribute `flags` of the handlers and `kernels()`, by its name in `calls.pxd`."""
    return int(getattr(_calls.Flag, name))


def can_view(array) -> bool:
    """Whether `view` takes this, which speaks DLPack."""
    return missing is None and int(array.__dlpack_device__()[0]) in _handlers.HOST


def view(array) -> np.ndarray:
    """A NumPy view of anything that speaks DLPack and lies in the host's memory, read-only if that is."""
    memory = _dlpack.Borrowed(array)
    dtype = memory.dtype
    return np.asarray(memory).view(dtype)  # (JAX makes bfloat16 known to NumPy)


def set_num_threads(n: int) -> None:
    """Set how many threads the CPU kernels may use, in the whole process and from the next call on.

    In a process that was forked, calls outside JAX use one: OpenMP's threads do not survive a fork.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> import hebbax
    >>> before = hebbax.get_num_threads()
    >>> hebbax.set_num_threads(2)
    >>> hebbax.get_num_threads()
    2
    >>> hebbax.set_num_threads(before)
    """
    n = check_num_threads("n", n)
    if missing:
        raise RuntimeError(f"the CPU kernels cannot be used: {missing}")
    _threads.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads the CPU kernels may use.

    That is what `set_num_threads` was last given, else the environment variable `HEBBAX_NUM_THREADS`, else
    `OMP_NUM_THREADS`, else the number of CPUs this process may use (by its affinity and its cgroup's quota).

    Examples
    --------
    >>> import hebbax
    >>> hebbax.get_num_threads() >= 1
    True
    """
    return 1 if missing else _threads.get_num_threads()


def openmp_version() -> int:
    """The date of the OpenMP standard that the kernels were built with, as yyyymm; 0 if without, or not built."""
    return 0 if missing else _threads.openmp_version()
