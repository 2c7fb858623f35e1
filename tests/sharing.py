"""An array that speaks DLPack and nothing else, every field of whose capsules a test may choose."""

import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

import numpy as np

KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
READ_ONLY = 1
NAMES = (b"dltensor", b"dltensor_versioned")


KEPT: list = []  # for good: what C points to must outlive every consumer, and JAX frees when it likes


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32), ("code", c_uint8),
        ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]  # fmt: skip


class Plain(Structure):
    _fields_ = [("tensor", Tensor), ("manager", c_void_p), ("deleter", c_void_p)]


class Versioned(Structure):
    _fields_ = [
        ("major", c_uint32), ("minor", c_uint32), ("manager", c_void_p), ("deleter", c_void_p), ("flags", c_uint64),
        ("tensor", Tensor),
    ]  # fmt: skip


Deleter = CFUNCTYPE(None, c_void_p)
Destructor = CFUNCTYPE(None, c_void_p)
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, c_void_p, ctypes.c_char_p, Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# (Not of PYFUNCTYPE, which takes an error that is on its way already for its own.)
is_valid = CFUNCTYPE(ctypes.c_int, c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))


class Shared:
    """`array`, shared; `fields` are those of the tensor that are to be other than they should.

    A `versioned` one makes capsules as of DLPack 1.0 if asked to, others raise where asked to. `exported` and `freed`
    count capsules.
    """

    def __init__(self, array, *, versioned=True, flags=0, version=(1, 0), device_type=1, **fields):
        self.array, self.versioned, self.flags, self.version = array, versioned, flags, version
        self.device_type, self.fields = device_type, fields
        self.exported = self.freed = 0
        self._pointed_to = []
        KEPT.append(self)
        self._deleter, self._destructor = Deleter(self._free), Destructor(self._drop)

    def __dlpack_device__(self):
        return self.device_type, 0

    def __dlpack__(self, **options):
        if "max_version" in options and not self.versioned:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        versioned = options.get("max_version") is not None
        x = self.array
        bfloat16 = x.dtype.name == "bfloat16"
        sizes = (c_int64 * max(x.ndim, 1))(*x.shape)
        strides = (c_int64 * max(x.ndim, 1))(*(stride // x.itemsize for stride in x.strides))
        fields = {
            "data": x.ctypes.data, "device_type": self.device_type, "ndim": x.ndim, "bits": 8 * x.itemsize, "lanes": 1,
            "code": 4 if bfloat16 else KINDS[x.dtype.kind], "shape": sizes, "strides": strides,
        }  # fmt: skip
        tensor, deleter = Tensor(**fields | self.fields), ctypes.cast(self._deleter, c_void_p)
        if versioned:
            managed = Versioned(*self.version, None, deleter, self.flags, tensor)
        else:
            managed = Plain(tensor, None, deleter)
        self._pointed_to.append((managed, sizes, strides))
        self.exported += 1
        return new_capsule(ctypes.addressof(managed), NAMES[versioned], self._destructor)

    def _free(self, _):
        self.freed += 1

    def _drop(self, capsule):
        """The capsule is gone: unless somebody consumed it, and so renamed it, what it held is freed."""
        if any(is_valid(capsule, name) for name in NAMES):
            self._free(None)


def aligned(array):
    """A copy that starts at a multiple of 64 bytes, which JAX needs to use it as it is."""
    array = np.asarray(array)
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    out = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out
