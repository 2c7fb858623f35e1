"""What plays CuPy for hebbax: as much of it as hebbax calls, with its names, signatures and errors.

Device memory is the host's, launches run at once, and `log` keeps what was asked for. Three things can be set: how many
devices there are, how many multiprocessors each has, and on which stream a CUDA graph is being captured.
"""

import contextlib
import ctypes
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np

from emulated import compiler

machine = SimpleNamespace(devices=1, multiprocessors=1, captured=None)
log: list = []
_current = SimpleNamespace(device=0, streams={})


class Load(NamedTuple):
    names: tuple
    options: tuple
    device: int


class Memset(NamedTuple):
    address: int
    value: int
    size: int
    stream: int
    device: int


class Launch(NamedTuple):
    name: str
    grid: tuple
    block: tuple
    argument: np.ndarray  # a copy
    stream: int
    device: int


class CUDARuntimeError(RuntimeError):
    """As of `cupy.cuda.runtime`."""


class Device:
    def __init__(self, device=None):
        self.id = _current.device if device is None else int(device)
        if not 0 <= self.id < machine.devices:
            raise CUDARuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {self.id}")
        self._before = []

    def __enter__(self):
        self._before.append(_current.device)
        _current.device = self.id
        return self

    def __exit__(self, *_):
        _current.device = self._before.pop()

    @property
    def attributes(self):
        return {"MultiProcessorCount": machine.multiprocessors}


class ExternalStream:
    def __init__(self, ptr, device_id=-1):
        self.ptr, self.device_id = ptr, device_id
        self._before = []

    def __enter__(self):
        if self.device_id not in (-1, _current.device):
            raise RuntimeError(f"This stream is bound to device {self.device_id}, the current one is {_current.device}")
        self._before.append(get_current_stream())
        _current.streams[_current.device] = self
        return self

    def __exit__(self, *_):
        _current.streams[_current.device] = self._before.pop()


def get_current_stream(device_id=None):
    return _current.streams.get(_current.device if device_id is None else device_id, ExternalStream(0))


def _check_capture(stream):
    if machine.captured is not None and stream != machine.captured:
        raise CUDARuntimeError("cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on a capture")


class RawModule:
    def __init__(self, *, code=None, path=None, options=(), backend="nvrtc", name_expressions=None):
        assert isinstance(code, str) and path is None and isinstance(options, tuple) and backend == "nvrtc"
        self.code, self.options, self.name_expressions = code, options, tuple(name_expressions)
        self._loaded = {}

    def get_function(self, name):
        device = _current.device
        if device not in self._loaded:
            if machine.captured is not None:
                raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")
            log.append(Load(self.name_expressions, self.options, device))
            self._loaded[device] = compiler.Module(self.code, self.name_expressions)
        return RawKernel(self, name)


class RawKernel:
    def __init__(self, module, name):
        self._module, self.name = module, name

    def __call__(self, grid, block, args, *, shared_mem=0):
        (argument,) = args
        if not isinstance(argument, np.ndarray) or argument.size != 1:
            raise TypeError(f"You are trying to pass a {type(argument)} by value, expected an array of NumPy of size 1")
        stream = get_current_stream().ptr
        _check_capture(stream)
        log.append(Launch(self.name, grid, block, argument.copy(), stream, _current.device))
        self._module._loaded[_current.device].launch(self.name, grid, block, argument)


def memset_async(ptr, value, size, stream):
    _check_capture(stream)
    log.append(Memset(ptr, value, size, stream, _current.device))
    ctypes.memset(ptr, value, size)


class ndarray:  # noqa: N801
    """Memory of a device, which only CuPy's own functions reach."""

    def __init__(self, host, device=None):
        self._host, self._device = host, _current.device if device is None else device

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    device = property(lambda self: Device(self._device))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))

    @property
    def flags(self):
        flags = self._host.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __dlpack_device__(self):
        return 2, self._device

    def __dlpack__(self, **_):
        raise NotImplementedError("nothing here takes memory of a device")

    def get(self):
        return self._host.copy()

    def __ne__(self, other):
        return ndarray(self._host != other)

    __hash__ = None

    def __setitem__(self, key, value):
        assert key is ...
        with np.errstate(all="ignore"):
            self._host[key] = value._host

    def __getitem__(self, key):
        return ndarray(self._host[key], self._device)

    def reshape(self, *shape):
        return ndarray(self._host.reshape(*shape), self._device)

    def max(self):
        return self._host.max()


def _host_of(x):
    return x._host if isinstance(x, ndarray) else x


def array(x, dtype=None, copy=True, order="K"):
    with np.errstate(all="ignore"):
        return ndarray(np.array(_host_of(x), dtype, copy=copy or None, order=order))


def from_dlpack(x):
    """Of anything but CuPy's own: in the tests, `sharing.Shared`, whose memory is really the host's."""
    return ndarray(x.array, x.__dlpack_device__()[1])


def _module(name, **members):
    module = ModuleType(name)
    vars(module).update(members)
    return module


cupy = _module(
    "cupy",
    RawModule=RawModule,
    ndarray=ndarray,
    array=array,
    asarray=lambda x, dtype=None: array(x, dtype, copy=False),
    empty=lambda shape, dtype=float: ndarray(np.full(shape, 0x7F, np.uint8) if dtype == np.uint8 else np.empty(shape, dtype)),
    from_dlpack=from_dlpack,
    may_share_memory=lambda a, b: np.may_share_memory(_host_of(a), _host_of(b)),
    cuda=SimpleNamespace(
        Device=Device,
        ExternalStream=ExternalStream,
        get_current_stream=get_current_stream,
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, memsetAsync=memset_async, getDeviceCount=lambda: machine.devices
        ),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
    ),
)


@contextlib.contextmanager
def playing(**changes):
    """Another machine for a while, and an empty log."""
    before = dict(vars(machine))
    vars(machine).update(changes)
    log.clear()
    try:
        yield log
    finally:
        vars(machine).update(before)
