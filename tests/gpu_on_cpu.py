"""The CUDA backend without a GPU, on JAX's CPU platform: CuPy, CUDA's driver and XLA's stream are played by stand-ins.

Everything of hebbax is driven as on a GPU, the sources in cuda/ included, which the host's compiler compiles, and the
handler that XLA calls. XLA's CPU buffers are then the "device's" memory.
"""

from types import SimpleNamespace

import jax

import emulated
from emulated import driver, machine
from emulated.machine import XLA_STREAM
from hebbax._core import lowering
from hebbax._core.compat import buffer_callback
from hebbax._core.specs import OPERANDS
from hebbax._cuda import launch, native
from hebbax._cuda.driver import use_driver

DEVICE_NUMBERS = lowering._device_numbers


def install():
    """Make `backend='cupy'` run on the CPU; return why it cannot, or None."""
    if reason := emulated.install():
        return reason
    use_driver(**driver.addresses(driver.FUNCTIONS | driver.XLA))
    for kind in OPERANDS:  # a CPU has no other stages
        jax.ffi.register_ffi_target(f"hebbax_cuda_{kind}", native.capsules()["execute"], platform="cpu")
    lowering.ENTRIES = tuple(
        entry._replace(missing={**entry.missing, "cpu": lowering._missing_on_cuda}) if entry.name == "cupy" else entry
        for entry in lowering.ENTRIES
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
        return 2, machine.xla_device


def _with_a_stream(callback, *arguments, **options):
    """XLA has no stream on a CPU, where asking for it raises."""

    def with_a_stream(ctx, results, *buffers):
        if isinstance(results, tuple):  # of the CUDA backend
            results = tuple(map(_OnDevice, results))
        callback(SimpleNamespace(stream=XLA_STREAM, stage=ctx.stage), results, *buffers)

    return buffer_callback(with_a_stream, *arguments, **options)
