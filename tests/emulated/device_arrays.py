"""Arrays of CuPy's stand-in: host memory that is hidden from NumPy, on a device with a number."""

import operator
from types import SimpleNamespace

import numpy as np

from emulated.machine import machine
from hebbax._core.dlpack import Borrowed
from sharing import Shared

__all__ = [
    "array", "asarray", "asnumpy", "empty", "from_dlpack", "full", "may_share_memory", "ndarray", "ones", "zeros",
]  # fmt: skip

_FACTS = ("dtype", "itemsize", "nbytes", "ndim", "shape", "size", "strides")
_VIEWS = ("ravel", "reshape", "squeeze", "transpose", "view")
_COMPUTED = ("all", "any", "astype", "copy", "fill", "item", "max", "min", "sum", "tolist")
_OPERATORS = (
    "add", "and_", "eq", "floordiv", "ge", "gt", "invert", "le", "lt", "mod", "mul", "ne", "neg", "or_", "sub",
    "truediv",
)  # fmt: skip


class ndarray:
    """Not one of NumPy's, as CuPy's is not; made by the functions below."""

    __array_ufunc__ = None

    def __init__(self, host, device, base=None):
        self._host, self._device, self.base = host, device, base

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __getattr__(self, name):
        if name in _FACTS:
            return getattr(self._host, name)
        if name in _VIEWS:
            return lambda *args, **options: ndarray(getattr(self._host, name)(*args, **options), self._device, self)
        if name in _COMPUTED:
            return lambda *args, **options: _computed(getattr(np.ndarray, name), self, *args, **options)
        raise AttributeError(f"'ndarray' object has no attribute '{name}'")

    @property
    def flags(self):
        """Fewer than NumPy's: no `writeable`, no `aligned`."""
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=self.base is None
        )

    @property
    def device(self):
        from emulated.cupy_stand_in import Device

        return Device(self._device)

    @property
    def data(self):
        return SimpleNamespace(ptr=self._host.ctypes.data, device_id=self._device)

    @property
    def T(self):
        return self.transpose()

    def get(self, stream=None, order="C", out=None, blocking=True):
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def __getitem__(self, key):
        if isinstance(key, ndarray):
            return _computed(operator.getitem, self, key)
        return ndarray(np.asarray(self._host[key]), self._device, self)

    def __setitem__(self, key, value):
        _computed(operator.setitem, self, key, value)

    def __len__(self):
        return len(self._host)

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def __repr__(self):
        return repr(self._host)

    def __format__(self, spec):
        return format(self._host, spec)

    __hash__ = None

    def __dlpack_device__(self):
        return 2, self._device

    def __dlpack__(self, **options):
        return Shared(self._host, device_type=2, device_id=self._device).__dlpack__(**options)


def _computed(function, *operands, **options):
    """What `function` gives for the host's memory, without warnings, as on a device: there scalars stay, too."""
    devices = {x._device for x in operands if isinstance(x, ndarray)}
    if devices - {machine.device}:
        raise ValueError(f"arrays on devices {sorted(devices)} are used while device {machine.device} is current")
    for x in operands:
        if isinstance(x, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    with np.errstate(all="ignore"):
        out = function(*(x._host if isinstance(x, ndarray) else x for x in operands), **options)
    return ndarray(np.asarray(out), machine.device) if isinstance(out, (np.ndarray, np.generic)) else out


def _of_operator(name):
    return lambda *operands: _computed(getattr(operator, name), *operands)


for _name in _OPERATORS:
    setattr(ndarray, f"__{_name.rstrip('_')}__", _of_operator(_name))


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """A copy on the current device; where `copy` is None, only where one is needed."""
    host = obj._host if isinstance(obj, ndarray) else np.asarray(obj)
    elsewhere = not isinstance(obj, ndarray) or obj._device != machine.device
    with np.errstate(all="ignore"):
        made = np.array(host, dtype, copy=True if elsewhere or copy else None, order=order, ndmin=ndmin)
    if made is host:
        return obj
    if copy is False:
        raise ValueError("Unable to avoid copy while creating an array as requested.")
    return ndarray(made.astype(made.dtype.newbyteorder("="), copy=False), machine.device)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy, order or "K", blocking=blocking)


def empty(shape, dtype=float, order="C"):
    """Filled with something, for what is in a device's memory is anything."""
    made = np.empty(shape, dtype, order)
    made.reshape(-1, order="A").view(np.uint8)[...] = 0xA5
    return ndarray(made, machine.device)


def full(shape, fill_value, dtype=None, order="C"):
    return ndarray(np.full(shape, fill_value, dtype, order), machine.device)


def zeros(shape, dtype=float, order="C"):
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    return full(shape, 1, dtype, order)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def from_dlpack(array, *, device=None, copy=None):
    """An array on the memory of what speaks DLPack, which it keeps."""
    kind, number = map(int, array.__dlpack_device__())
    if kind == 1:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
        )
    if kind not in (2, 13):
        raise TypeError(f"Unsupported array type: {kind}")
    if isinstance(array, ndarray):
        return ndarray(array._host, number, array)
    borrowed = Borrowed(array)
    host = np.asarray(borrowed)
    return ndarray(host.view("bfloat16") if borrowed.dtype == "bfloat16" else host, number, array)


def may_share_memory(a, b, max_work=None):
    for x in (a, b):
        if not isinstance(x, ndarray):
            raise TypeError(f"Argument has incorrect type (expected cupy.ndarray, got {type(x).__name__})")
    return a._device == b._device and np.may_share_memory(a._host, b._host)
