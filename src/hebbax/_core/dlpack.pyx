"""Memory that belongs to an array of any library, borrowed without a copy."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid

from numpy import ndarray

cdef enum:
    MAJOR = 1      # the version of DLPack that this was written for
    READ_ONLY = 1  # a bit of `flags`

# The buffer protocol's formats; it does not know bfloat16, whose arrays come as views of uint16.
FORMATS = {
    "?": (BOOLEAN, 8), "i": (INTEGER, 32), "l": (INTEGER, 8 * sizeof(long)), "q": (INTEGER, 64),
    "e": (FLOAT, 16), "f": (FLOAT, 32), "d": (FLOAT, 64), "H": (BFLOAT, 16),
}
KINDS = {INTEGER: "i", UNSIGNED: "u", FLOAT: "f", BFLOAT: "u", COMPLEX: "c", BOOLEAN: "b"}


cdef class Borrowed:
    """The memory of a contiguous NumPy array, or of anything that speaks DLPack.

    A capsule that nobody has consumed gives its memory back when it is dropped, so nothing else needs to be freed.
    """

    def __cinit__(self, array):
        if isinstance(array, ndarray):
            self.take_buffer(array)
        else:
            self.take_capsule(array)

    def __dealloc__(self):
        self.capsule = None  # here, where an error that is on its way is safe from what the capsule's owner does
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef void take_buffer(self, array) except *:
        PyObject_GetBuffer(array, &self.view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        self.has_view = True
        format = self.view.format.decode()
        if format not in FORMATS:
            raise TypeError(f"a buffer of format {format!r} is not one that the kernels take")
        code, bits = FORMATS[format]
        self.tensor = DLTensor(
            self.view.buf, DLDevice(1, 0), self.view.ndim, DLDataType(code, bits, 1),
            <int64_t*> self.view.shape, NULL, 0)
        self.writable = not self.view.readonly

    cdef void take_capsule(self, array) except *:
        cdef DLManagedTensorVersioned* versioned
        try:
            self.capsule = array.__dlpack__(max_version=(MAJOR, 0))
        except TypeError:  # older than DLPack 1.0
            self.capsule = array.__dlpack__()
        if PyCapsule_IsValid(self.capsule, "dltensor_versioned"):
            versioned = <DLManagedTensorVersioned*> PyCapsule_GetPointer(self.capsule, "dltensor_versioned")
            if versioned.major != MAJOR:
                raise BufferError(f"it speaks version {versioned.major} of DLPack, expected version {MAJOR}")
            self.tensor = versioned.tensor
            self.writable = not versioned.flags & READ_ONLY
        else:
            self.tensor = (<DLManagedTensor*> PyCapsule_GetPointer(self.capsule, "dltensor")).tensor
            self.writable = True

    @property
    def pointer(self):
        """The address of the first element, on whatever device it is."""
        return <size_t> self.tensor.data + self.tensor.byte_offset

    @property
    def dtype(self):
        """The name of the dtype, as in NumPy."""
        cdef DLDataType dtype = self.tensor.dtype
        if dtype.lanes != 1 or dtype.code not in KINDS or dtype.bits % 8:
            raise TypeError(f"type {dtype.code} of {dtype.bits} bits is not one that NumPy knows")
        if dtype.code == BFLOAT:
            return "bfloat16"
        return {
            INTEGER: f"int{dtype.bits}", UNSIGNED: f"uint{dtype.bits}", FLOAT: f"float{dtype.bits}",
            COMPLEX: f"complex{dtype.bits}", BOOLEAN: "bool",
        }[dtype.code]

    @property
    def __array_interface__(self):
        """What NumPy makes a view of; bfloat16 is shown as uint16."""
        cdef DLTensor* tensor = &self.tensor
        cdef int itemsize = tensor.dtype.bits // 8
        shape = tuple([tensor.shape[d] for d in range(tensor.ndim)])
        strides = None
        if tensor.strides != NULL:
            strides = tuple([tensor.strides[d] * itemsize for d in range(tensor.ndim)])
        return {
            "version": 3, "shape": shape, "strides": strides, "typestr": f"={KINDS[tensor.dtype.code]}{itemsize}",
            "data": (<size_t> tensor.data + tensor.byte_offset, not self.writable),
        }


def pointers(arrays):
    """The addresses of the first elements of what speaks DLPack, on whatever device it is."""
    return [(<Borrowed> Borrowed(x)).pointer for x in arrays]
