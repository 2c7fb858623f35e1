"""DLPack, the protocol that array libraries share memory by: https://dmlc.github.io/dlpack/latest/c_api.html"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct DLDevice:
    int32_t device_type
    int32_t device_id


cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes


cdef enum TypeCode:
    INTEGER = 0
    UNSIGNED = 1
    FLOAT = 2
    BFLOAT = 4
    COMPLEX = 5
    BOOLEAN = 6


cdef struct DLTensor:
    void* data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t* shape
    int64_t* strides  # in elements; NULL: contiguous
    uint64_t byte_offset


cdef struct DLManagedTensor:
    DLTensor tensor
    void* manager
    void (*deleter)(DLManagedTensor*)


# Since DLPack 1.0.
cdef struct DLManagedTensorVersioned:
    uint32_t major
    uint32_t minor
    void* manager
    void (*deleter)(DLManagedTensorVersioned*)
    uint64_t flags
    DLTensor tensor


cdef class Borrowed:
    cdef DLTensor tensor  # valid as long as this object lives
    cdef readonly bint writable
    cdef object capsule   # owns the memory until it is dropped, or
    cdef Py_buffer view   # this does until it is released
    cdef bint has_view
    cdef void take_buffer(self, array) except *
    cdef void take_capsule(self, array) except *
