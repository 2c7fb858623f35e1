"""XLA's side of its FFI, as in `xla/ffi/api/c_api.h`: frames in which a test calls a handler as XLA does."""

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p

import numpy as np

ARRAY, SCALAR, STRING = 1, 3, 4  # types of attributes
S64 = 5
# Of the API; "": not used.
ENTRIES = ("Error_Create", *[""] * 3, "Stream_Get", *[""] * 11, "RunId_Get", "DeviceOrdinal_Get")


class Span(Structure):
    _fields_ = (("ptr", c_void_p), ("len", c_size_t))


class Array(Structure):
    _fields_ = (("dtype", c_int), ("size", c_size_t), ("data", c_void_p))


class Scalar(Structure):
    _fields_ = (("dtype", c_int), ("value", c_void_p))


class Buffer(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("extension", c_void_p), ("dtype", c_int), ("data", c_void_p), ("rank", c_int64),
        ("dims", c_void_p),
    )  # fmt: skip


class Buffers(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", c_void_p),
        ("buffers", POINTER(c_void_p)),
    )  # fmt: skip


class Attributes(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("extension", c_void_p), ("size", c_int64), ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(Span))), ("values", POINTER(c_void_p)),
    )  # fmt: skip


class Version(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int))


class Metadata(Structure):
    _fields_ = (("struct_size", c_size_t), ("version", Version), ("traits", ctypes.c_uint32), ("state", c_int64))


class Extension(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", POINTER(Metadata)),
    )  # fmt: skip


class Api(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("extension", c_void_p), ("version", Version), ("internal", c_void_p),
        ("entries", c_void_p * len(ENTRIES)),
    )  # fmt: skip


class Frame(Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("extension", POINTER(Extension)), ("api", POINTER(Api)), ("context", c_void_p),
        ("stage", c_int), ("args", Buffers), ("rets", Buffers), ("attrs", Attributes), ("future", c_void_p),
    )  # fmt: skip


class ErrorArgs(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int))


class StreamArgs(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("context", c_void_p), ("stream", c_void_p))


class RunArgs(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("context", c_void_p), ("run", c_int64))


class DeviceArgs(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p), ("context", c_void_p), ("device", c_int32))


def pointer_of(capsule):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, (ctypes.py_object, c_char_p)
    return get(capsule, None)


def ask_metadata(capsule):
    """What a handler says of itself before its first call."""
    metadata = Metadata(traits=0)
    extension = Extension(type=1, metadata=ctypes.pointer(metadata))
    frame = Frame(extension=ctypes.pointer(extension))
    assert not ctypes.CFUNCTYPE(c_void_p, POINTER(Frame))(pointer_of(capsule))(frame)
    return (metadata.version.major, metadata.version.minor), metadata.traits


class Xla:
    """An XLA that calls on a device, on a stream, in an execution `run`; `entries` of its API are known."""

    def __init__(self, device=0, stream=0x51, run=1, entries=ENTRIES):
        self.device, self.stream, self.run, self.error = device, stream, run, None
        self._made = {
            "Error_Create": ctypes.CFUNCTYPE(c_void_p, POINTER(ErrorArgs))(self._new_error),
            "Stream_Get": ctypes.CFUNCTYPE(c_void_p, POINTER(StreamArgs))(self._get_stream),
            "RunId_Get": ctypes.CFUNCTYPE(c_void_p, POINTER(RunArgs))(self._get_run),
            "DeviceOrdinal_Get": ctypes.CFUNCTYPE(c_void_p, POINTER(DeviceArgs))(self._get_device),
        }
        self._api = Api(struct_size=Api.entries.offset + len(entries) * ctypes.sizeof(c_void_p))
        for i, name in enumerate(entries):
            self._api.entries[i] = ctypes.cast(self._made[name], c_void_p) if name else None

    def _new_error(self, args):
        self.error = args[0].message.decode()
        return 0xE

    def _get_stream(self, args):
        args[0].stream = self.stream

    def _get_run(self, args):
        args[0].run = self.run

    def _get_device(self, args):
        args[0].device = self.device

    def call(self, capsule, attributes=None, operands=(), results=()):
        """Call a handler on NumPy arrays; return the words of the error that it gives back, or None."""
        kept, attributes = [], attributes or {}

        def keep(x):
            kept.append(x)
            return ctypes.cast(ctypes.pointer(x), c_void_p)

        def span(text):
            data = ctypes.create_string_buffer(text.encode(), len(text))
            kept.append(data)
            return Span(ctypes.addressof(data), len(text))

        def value(x):
            if isinstance(x, str):
                return STRING, keep(span(x))
            x = np.asarray(x)
            kept.append(x)
            dtype = S64 if x.dtype == np.int64 else 0
            return (
                (ARRAY, keep(Array(dtype, x.size, x.ctypes.data)))
                if x.ndim
                else (SCALAR, keep(Scalar(dtype, x.ctypes.data)))
            )

        def buffer(x):
            dims = keep((c_int64 * x.ndim)(*x.shape))
            return keep(Buffer(data=x.ctypes.data, rank=x.ndim, dims=dims))

        def buffers(arrays):
            pointers = [buffer(x) for x in arrays]
            return Buffers(size=len(arrays), buffers=(c_void_p * max(len(pointers), 1))(*pointers))

        names = sorted(attributes)
        types, values = zip(*(value(attributes[name]) for name in names), strict=True) if names else ((), ())
        spans = [ctypes.pointer(span(name)) for name in names]
        n = len(names)
        attrs = Attributes(
            size=n, types=(c_int * n)(*types), names=(POINTER(Span) * n)(*spans), values=(c_void_p * n)(*values)
        )
        frame = Frame(api=ctypes.pointer(self._api), args=buffers(operands), rets=buffers(results), attrs=attrs)
        self.error = None
        failed = ctypes.CFUNCTYPE(c_void_p, POINTER(Frame))(pointer_of(capsule))(frame)
        assert bool(failed) == (self.error is not None)
        return self.error
