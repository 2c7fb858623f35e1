"""DLPack, the protocol that array libraries share buffers by: https://dmlc.github.io/dlpack/latest/c_api.html"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t


cdef struct DLDevice:
    int32_t device_type
    int32_t device_id


cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes


cdef struct DLTensor:
    void* data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset


cdef struct DLManagedTensor:
    DLTensor tensor
    void* manager
    void (*deleter)(DLManagedTensor*)
