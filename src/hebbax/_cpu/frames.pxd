"""What XLA hands a handler."""

from hebbax._cpu.buffers cimport Buffer
from hebbax._core.xla_ffi cimport XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Scalar


cdef inline Buffer from_xla(void* pointer) noexcept nogil:
    cdef XLA_FFI_Buffer* source = <XLA_FFI_Buffer*> pointer
    return Buffer(source.data, source.dims[source.rank - 1], source.dtype, source.rank, source.dims)


cdef inline void* attribute(const XLA_FFI_CallFrame* frame, int i) noexcept nogil:
    """The value of the `i`-th scalar attribute, in the order of their names."""
    return (<XLA_FFI_Scalar*> frame.attrs.attrs[i]).value
