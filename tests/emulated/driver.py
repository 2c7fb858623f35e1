"""What hebbax uses of CUDA's driver, as functions with addresses, for kernels that the stand-in for CuPy has loaded."""

import ctypes
from ctypes import c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_void_p
from typing import NamedTuple

import numpy as np

from emulated.compiler import LaunchError, Module
from emulated.machine import XLA_STREAM, CUDADriverError, Launch, Memset, context_of, machine
from hebbax._cuda.plan import CALL

_LARGEST = ((2**31 - 1, 65535, 65535), (1024, 1024, 64))
_NAMES = {
    1: b"CUDA_ERROR_INVALID_VALUE", 400: b"CUDA_ERROR_INVALID_HANDLE", 719: b"CUDA_ERROR_LAUNCH_FAILED",
    905: b"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
}  # fmt: skip


class Function(NamedTuple):
    """A kernel that is loaded on a device."""

    ptr: int
    module: Module
    name: str
    device: int


_functions: dict[int, Function] = {}
_what_failed: dict[int, bytes] = {}  # by result: CUDA's texts are fixed, the stand-in's are those of the last error


def function(module, name, device):
    """The kernel of a module, with an address that no other will have."""
    for known in _functions.values():
        if (known.module, known.name, known.device) == (module, name, device):
            return known
    made = Function(0xF000 + len(_functions), module, name, device)
    _functions[made.ptr] = made
    return made


def launch(kernel, grid, block, argument, stream):
    machine.check_work_on(stream, CUDADriverError)
    if np.prod(block) > 1024 or any(np.any(np.greater(*sizes)) for sizes in zip((grid, block), _LARGEST, strict=True)):
        raise CUDADriverError(1)
    machine.log.append(Launch(kernel.name, grid, block, argument, kernel.device, stream))
    kernel.module.launch(kernel.name, grid, block, argument)


def _result_of(work):
    """What a function of the driver returns that does this work."""
    try:
        work()
    except (CUDADriverError, LaunchError) as error:
        result = getattr(error, "status", 719)
        _what_failed[result] = str(error).encode()
        return result
    return 0


def _check_context(device=None):
    if not machine.context or (device is not None and machine.context != context_of(device)):
        raise CUDADriverError(400)


@ctypes.CFUNCTYPE(c_int, c_void_p, *[c_uint] * 7, c_void_p, ctypes.POINTER(c_void_p), c_void_p)
def _launch(address, x, y, z, threads_x, threads_y, threads_z, shared, stream, parameters, extra):
    def work():
        kernel = _functions[address]
        _check_context(kernel.device)
        argument = np.frombuffer(ctypes.string_at(parameters[0], CALL.itemsize), CALL)
        launch(kernel, (x, y, z), (threads_x, threads_y, threads_z), argument, stream or 0)

    return _result_of(work)


@ctypes.CFUNCTYPE(c_int, c_size_t, c_ubyte, c_size_t, c_void_p)
def _fill(address, value, size, stream):
    def work():
        _check_context()
        machine.check_work_on(stream or 0, CUDADriverError)
        machine.log.append(Memset(address, value, size, machine.context - context_of(0), stream or 0))
        ctypes.memset(address, value, size)

    return _result_of(work)


@ctypes.CFUNCTYPE(c_int, c_size_t, c_size_t, c_size_t, c_void_p)
def _copy(target, source, size, stream):
    def work():
        _check_context()
        machine.check_work_on(stream or 0, CUDADriverError)
        ctypes.memmove(target, source, size)

    return _result_of(work)


@ctypes.CFUNCTYPE(c_int, ctypes.POINTER(c_void_p), c_int)
def _retain_context(context, device):
    if not 0 <= device < machine.devices:
        return 101
    context[0] = context_of(device)
    return 0


@ctypes.CFUNCTYPE(c_int, ctypes.POINTER(c_void_p))
def _current_context(context):
    context[0] = machine.context
    return 0


@ctypes.CFUNCTYPE(c_int, c_void_p)
def _push_context(context):
    machine.contexts.append(context)
    return 0


@ctypes.CFUNCTYPE(c_int, ctypes.POINTER(c_void_p))
def _pop_context(context):
    context[0] = machine.contexts.pop()
    return 0


@ctypes.CFUNCTYPE(c_int, c_int, ctypes.POINTER(c_char_p))
def _name_error(result, name):
    name[0] = _NAMES.get(result)
    return 0


@ctypes.CFUNCTYPE(c_int, c_int, ctypes.POINTER(c_char_p))
def _describe_error(result, text):
    text[0] = _what_failed.get(result)
    return 0


@ctypes.CFUNCTYPE(c_int)
def _xla_device():
    return machine.xla_device


@ctypes.CFUNCTYPE(c_void_p)
def _xla_stream():
    return XLA_STREAM


FUNCTIONS = {
    "cuLaunchKernel": _launch, "cuMemsetD8Async": _fill, "cuMemcpyDtoDAsync_v2": _copy,
    "cuDevicePrimaryCtxRetain": _retain_context, "cuCtxGetCurrent": _current_context,
    "cuCtxPushCurrent_v2": _push_context, "cuCtxPopCurrent_v2": _pop_context, "cuGetErrorName": _name_error,
    "cuGetErrorString": _describe_error,
}  # fmt: skip
XLA = {"xla_device": _xla_device, "xla_stream": _xla_stream}


def addresses(functions):
    return {name: ctypes.cast(function, c_void_p).value for name, function in functions.items()}
