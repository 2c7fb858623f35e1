"""The CUDA backend without a GPU, on JAX's CPU platform: only CuPy, and XLA's stream, are played by stand-ins.

Everything of hebbax is driven as on a GPU, the sources in cuda/ included, which the host's compiler compiles. JAX calls
back through `buffer_callback` on its CPU buffers, which are then the "device's" memory.
"""

from types import SimpleNamespace

import emulated
from hebbax._core import lowering
from hebbax._core.compat import buffer_callback
from hebbax._cuda import launch

DEVICE_NUMBERS = lowering._device_numbers
XLA_STREAM = 0x5EED  # CuPy's stand-in only remembers it
xla = SimpleNamespace(device=0)  # where its buffers are said to be


def install():
    """Make `backend='cupy'` run on the CPU; return why it cannot, or None."""
    if reason := emulated.install():
        return reason
    lowering.ENTRIES = tuple(
        entry._replace(platforms=("cuda", "cpu")) if entry.name == "cupy" else entry for entry in lowering.ENTRIES
    )
    lowering.buffer_callback = _with_a_stream
    lowering._device_numbers = lambda: [0]
    lowering.cuda_plugin_missing = lambda: None
    launch.missing.cache_clear()
    lowering.best_backend.cache_clear()
    return launch.missing()


class _OnDevice:
    """A buffer of the host that says it is on a CUDA device."""

    def __init__(self, buffer):
        self.__dlpack__ = buffer.__dlpack__

    def __dlpack_device__(self):
        return 2, xla.device


def _with_a_stream(callback, *arguments, **options):
    """XLA has no stream on a CPU, where asking for it raises."""

    def with_a_stream(ctx, results, *buffers):
        if isinstance(results, tuple):  # of the CUDA backend
            results = tuple(map(_OnDevice, results))
        callback(SimpleNamespace(stream=XLA_STREAM, stage=ctx.stage), results, *buffers)

    return buffer_callback(with_a_stream, *arguments, **options)
