"""What a call of the CUDA kernels costs on the host, in microseconds, without a GPU: a driver that does nothing.

    python benchmarks/host_cost.py

The ways of a call, each with three launches: the FFI handler in a loop that XLA runs (backend `cupy`), what a Python
callback does on 9 operands (backend `callback`; what JAX itself takes to enter Python comes on top), and
`hebbax.inplace`'s way from plan to launch on arrays that know their addresses.
"""

import ctypes
import time
from types import SimpleNamespace

import jax
import numpy as np

from hebbax._core import memory
from hebbax._core.compat import buffer_callback
from hebbax._core.dlpack import pointers
from hebbax._core.specs import UPDATE_POST
from hebbax._cuda import driver, launch, native
from hebbax._cuda.plan import plan_call


def microseconds(function, calls=20_000):
    """Of one call: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / calls


def do_nothing():
    """Let every function of the driver, and the compiler, do nothing."""
    nothing = ctypes.cast(ctypes.CDLL(None).pthread_equal, ctypes.c_void_p).value  # returns 0 for two that differ
    driver.use_driver(**dict.fromkeys((*driver.NAMES, *driver.HOOKS), nothing))
    launch.functions = lambda key, kind, names, device: range(1000, 1000 + len(names))
    launch.multiprocessors = lambda device: 132


class Array:
    """As CuPy's: it knows its address."""

    def __init__(self, host):
        self.host, self.shape, self.dtype = host, host.shape, host.dtype
        self.data = SimpleNamespace(ptr=host.ctypes.data)


def main():
    do_nothing()
    n, nse = 100, 1000
    sizes = (nse, nse, n + 1, nse, n, n, 0, 1, 1)
    dtypes = "f4 i4 i4 i4 ? f4 f4 f4 f4".split()
    host = [np.zeros(size, dtype) for size, dtype in zip(sizes, dtypes, strict=True)]
    given = dict(zip(UPDATE_POST.operands, host, strict=True))
    plan = plan_call(UPDATE_POST, given["weight"], given, clip_all=True)
    encoded = launch.encode(plan, UPDATE_POST, given["weight"], [0])
    scratch = np.zeros(plan.scratch, np.uint8)

    jax.ffi.register_ffi_target("nothing", native.capsules()["execute"], platform="cpu")
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (host[0], scratch)]
    call = jax.ffi.ffi_call("nothing", shapes, input_output_aliases={0: 0})
    loop = jax.jit(lambda *x: jax.lax.scan(lambda w, _: (call(w, *x[1:], **encoded)[0], None), x[0], length=1000)[0])
    cost = microseconds(lambda: jax.block_until_ready(loop(*host)), calls=20) / 1000
    print(f"FFI handler       {cost:6.2f}")

    launcher = native.Launcher(**encoded)

    def callback(ctx, result, *buffers):
        everything = (*buffers, result, result)
        cost = microseconds(lambda: launcher(result.__dlpack_device__()[1], 7, pointers(everything)))
        print(f"Python callback   {cost:6.2f}")

    result = jax.ShapeDtypeStruct(host[0].shape, host[0].dtype)
    jax.block_until_ready(jax.jit(buffer_callback(callback, result))(*host))

    arrays = {name: Array(x) for name, x in given.items()}
    stream = SimpleNamespace(ptr=7, is_capturing=lambda: False)
    cuda = memory.Cuda.__new__(memory.Cuda)
    cuda.device, room = 0, Array(scratch)
    cuda.xp = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: stream), empty=lambda *_: room)
    print(
        f"inplace           {microseconds(lambda: cuda.run(UPDATE_POST, arrays['weight'], arrays, clip_all=True)):6.2f}"
    )


if __name__ == "__main__":
    main()
