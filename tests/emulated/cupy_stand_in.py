"""What hebbax uses of CuPy, with its names and signatures, where the host's memory plays that of the devices.

Strict where CuPy is, and in some places more: an array is used on its own device only, and memory of the host is never
taken for a device's. Everything that is asked for is done at once, whatever the stream, and logged in `machine`.
"""

import ctypes
import functools
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np

from emulated import compiler, device_arrays, driver
from emulated.machine import CUDADriverError, CUDARuntimeError, GraphMemory, Load, Memset, machine


class CompileException(Exception):
    def __init__(self, msg, source, name, options, backend="nvrtc"):
        super().__init__(msg)
        self.source, self.name, self.options, self.backend = source, name, options, backend


class RawModule:
    def __init__(self, *, code=None, path=None, options=(), backend="nvrtc", name_expressions=None):
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        if path is not None or backend != "nvrtc" or name_expressions is None:
            raise NotImplementedError("the stand-in compiles name expressions of a source, as by NVRTC")
        self.code, self.options, self.name_expressions = code, options, tuple(name_expressions)

    def get_function(self, name):
        _load(self)
        return RawKernel(self, name)


def _load(raw):
    """The host's module, loaded once on each device, as CuPy does."""
    key = (machine.device, raw.code, raw.options, raw.name_expressions)
    if key not in machine.loaded:
        machine.check_load()
        macros = tuple(option.removeprefix("-D") for option in raw.options if option.startswith("-D"))
        try:
            module = compiler.Module(raw.code, raw.name_expressions, macros)
        except compiler.CompileError as error:
            raise CompileException(str(error), raw.code, "kernels.cu", raw.options) from error
        machine.log.append(Load(raw.name_expressions, machine.device, raw.options))
        machine.loaded[key] = module
    return machine.loaded[key]


class RawKernel:
    """Made by `RawModule.get_function`; loads its module where it is asked for on a device that has not got it yet."""

    def __init__(self, raw, name):
        if name not in raw.name_expressions:
            raise CUDADriverError(500)
        self._raw, self.name = raw, name

    @property
    def kernel(self):
        return driver.function(_load(self._raw), self.name, machine.device)

    def __call__(self, grid, block, args, *, shared_mem=0):
        if not (isinstance(grid, tuple) and isinstance(block, tuple)):
            raise TypeError("grid and block must be tuples")
        if len(args) != 1 or not isinstance(args[0], (np.ndarray, np.void)) or args[0].dtype.names is None:
            raise NotImplementedError(f"the stand-in takes one struct of NumPy as argument, got {args!r}")
        if args[0].size != 1:
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {args[0].shape} as a kernel parameter. Only "
                f"numpy.ndarrays of size one can be passed by value."
            )
        if shared_mem:
            raise NotImplementedError("the stand-in has no dynamic shared memory")
        grid, block = ((*(max(1, int(size)) for size in sizes), 1, 1)[:3] for sizes in (grid, block))
        driver.launch(self.kernel, grid, block, args[0].copy(), get_current_stream().ptr)


@functools.total_ordering
class Device:
    def __init__(self, device=None):
        self.id = machine.device if device is None else int(device)
        self._entered = []

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __lt__(self, other):
        return self.id < other.id

    __hash__ = None

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __enter__(self):
        self._entered.append(machine.on(self.id))
        self._entered[-1].__enter__()
        return self

    def __exit__(self, *error):
        return self._entered.pop().__exit__(*error)

    def use(self):
        machine.device = self.id

    @property
    def attributes(self):
        return {"MultiProcessorCount": machine.multiprocessors}

    compute_capability = "90"


class Stream:
    """One that somebody has made: all that is known of it is its address and, unless -1, its device."""

    def __init__(self, ptr, device_id=-1):
        self.ptr, self.device_id = ptr, device_id
        self._before = []

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self):
        return hash(self.ptr)

    def __enter__(self):
        if self.device_id not in (-1, machine.device):
            raise RuntimeError(f"a stream of device {self.device_id} cannot be used on device {machine.device}")
        self._before.append((machine.device, get_current_stream()))
        machine.streams[machine.device] = self
        return self

    def __exit__(self, *_):
        device, before = self._before.pop()
        machine.streams[device] = before

    def synchronize(self):
        pass

    def is_capturing(self):
        return machine.capturing is not None and machine.capturing == self.ptr


_DEFAULT = Stream(0)


class ExternalStream(Stream):
    def __init__(self, ptr, device_id=-1):
        warnings.warn("cupy.cuda.ExternalStream is deprecated", DeprecationWarning, stacklevel=2)
        super().__init__(ptr, device_id)


def _from_external(obj):
    version, ptr = obj.__cuda_stream__()
    if version != 0:
        raise ValueError(f"unsupported version {version} of the CUDA stream protocol")
    return Stream(ptr)


def get_current_stream(device_id=-1):
    return machine.streams.get(machine.device if device_id == -1 else device_id, _DEFAULT)


def _memset(ptr, value, size, stream):
    machine.check_work_on(stream, CUDARuntimeError)
    if not ptr and size:
        raise CUDARuntimeError(1)
    machine.log.append(Memset(ptr, value, size, machine.device, stream))
    ctypes.memset(ptr, value, size)


def _malloc_async(size, stream):
    """In a stream that is captured, memory of the graph's: see `GraphMemory`."""
    machine.check_work_on(stream, CUDARuntimeError)
    memory = np.full(max(size, 1), 0xA5, np.uint8)
    machine.log.append(GraphMemory(memory.ctypes.data, size, machine.device, stream, memory))
    return memory.ctypes.data


def _free_async(ptr, stream):
    machine.check_work_on(stream, CUDARuntimeError)
    machine.log.append(GraphMemory(ptr, 0, machine.device, stream, None))


@functools.cache
def modules():
    """The stand-in's modules, by the names they are imported by."""
    cupy, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")
    vars(cuda).update(
        Device=Device, ExternalStream=ExternalStream,
        Stream=SimpleNamespace(null=_DEFAULT, from_external=_from_external),
        get_current_stream=get_current_stream, compiler=SimpleNamespace(CompileException=CompileException),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)), driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError, driverGetVersion=lambda: 13000, memsetAsync=_memset,
            mallocAsync=_malloc_async, freeAsync=_free_async,
            getDeviceCount=lambda: machine.devices, getDevice=lambda: machine.device,
            setDevice=lambda device: Device(device).use(),
        ),
    )  # fmt: skip
    vars(cupy).update(
        {name: getattr(device_arrays, name) for name in device_arrays.__all__},
        __version__="14.2.0", cuda=cuda, RawModule=RawModule, is_available=lambda: machine.devices > 0,
        **{name: getattr(np, name) for name in ("bool_", "uint8", "int32", "int64", "float16", "float32", "float64")},
    )  # fmt: skip
    pathfinder = ModuleType("cuda.pathfinder")
    pathfinder.find_nvidia_header_directory = {"cudart": "/cuda/include"}.get
    return {"cupy": cupy, "cupy.cuda": cuda, "cuda.pathfinder": pathfinder}
