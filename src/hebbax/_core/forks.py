"""What a process that was forked has lost: the threads of the process that it is a copy of.

Without them JAX waits for ever, and so does OpenMP. JAX then is refused at once, OpenMP is not used (see
`_cpu/threads.pyx`), and CUDA, which does not survive a fork either, says so when it is asked for.
"""

import os

from hebbax._core.compat import backends_are_initialized

HOW = "start the process with multiprocessing's method 'spawn' or 'forkserver'"

_jax_is_lost = False


def check_jax() -> None:
    """Raise where JAX would never answer."""
    if _jax_is_lost:
        raise RuntimeError(
            f"this process was forked from one in which JAX was running, so that JAX would wait for ever: {HOW}, or "
            f"use hebbax.inplace, which works without JAX"
        )


def _in_child() -> None:
    global _jax_is_lost
    _jax_is_lost = _jax_is_lost or backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
