"""The kernels' two doors: XLA's FFI, which holds no GIL, and Python, for anything that speaks DLPack."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int32_t

from hebbax._cpu.buffers cimport BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, Buffer
from hebbax._cpu.dlpack cimport DLManagedTensor, DLTensor
from hebbax._cpu.propagate cimport Propagate, propagate
from hebbax._cpu.rows cimport OK, Network, describe
from hebbax._cpu.threads cimport Pool
from hebbax._cpu.update cimport Update, update
from hebbax._cpu.xla_ffi cimport (
    XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Error, XLA_FFI_Scalar, answer_metadata, out_of_range, schedule,
)

cpdef enum Flag:
    PERMUTED = 1     # rows cross the order in which weights are stored
    CSC = 2          # which is CSC order
    CLIP_ALL = 4
    SOFT_UPPER = 8
    SOFT_LOWER = 16

cdef enum:
    UPDATE_OPERANDS = 9  # without `after`, which no kernel reads
    PROPAGATE_OPERANDS = 5
    MESSAGE = 256


cdef struct Attributes:
    int flags
    double mu  # of an update


cdef void set_network(Network* network, const Pool* pool, const Buffer* operands, int flags) noexcept nogil:
    network.pool = pool[0]
    network.weight, network.indices, network.indptr, network.slots, network.spike = (
        operands[0], operands[1], operands[2], operands[3], operands[4])
    network.permuted = flags & PERMUTED


cdef bint run_update(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Update `result`, which holds the old weight; where that fails, return False and say why in `message`."""
    cdef Update call
    cdef int flags = attributes.flags
    cdef const char* name
    set_network(&call.network, pool, operands, flags)
    call.network.weight.data = result.data
    call.trace, call.gain, call.w_min, call.w_max = operands[5], operands[6], operands[7], operands[8]
    call.network.n_other = call.trace.size
    call.clip_all = flags & CLIP_ALL
    call.soft, call.upper, call.mu = flags & (SOFT_UPPER | SOFT_LOWER), flags & SOFT_UPPER, attributes.mu
    if update(&call) == OK:
        return True
    if flags & CSC:
        name = b"update_csc_on_binary_pre" if call.network.permuted else b"update_csc_on_binary_post"
    else:
        name = b"update_csr_on_binary_post" if call.network.permuted else b"update_csr_on_binary_pre"
    describe(&call.network, name, message, MESSAGE)
    return False


cdef bint run_propagate(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Fill `result`; where that fails, return False and say why in `message`."""
    cdef Propagate call
    set_network(&call.network, pool, operands, attributes.flags)
    call.network.n_other = result.size
    call.out = result.data
    if propagate(&call) == OK:
        return True
    describe(&call.network,
             b"propagate_csr_on_binary_post" if call.network.permuted else b"propagate_csr_on_binary_pre",
             message, MESSAGE)
    return False


ctypedef bint (*Run)(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil


# XLA's door.

cdef Buffer from_xla(void* pointer) noexcept nogil:
    cdef XLA_FFI_Buffer* source = <XLA_FFI_Buffer*> pointer
    return Buffer(source.data, source.dims[0], source.dtype)


cdef inline void* attribute(const XLA_FFI_CallFrame* frame, int i) noexcept nogil:
    """The value of the `i`-th scalar attribute, in the order of their names."""
    return (<XLA_FFI_Scalar*> frame.attrs.attrs[i]).value


cdef XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame, Run run, int count, int attributes_count) noexcept nogil:
    cdef Buffer operands[UPDATE_OPERANDS]
    cdef Attributes attributes
    cdef Buffer result
    cdef char message[MESSAGE]
    cdef int i
    if answer_metadata(frame):
        return NULL
    if frame.args.size < count or frame.attrs.size != attributes_count:
        return out_of_range(frame.api, b"this call was compiled by another version of hebbax")
    for i in range(count):
        operands[i] = from_xla(frame.args.args[i])
    result = from_xla(frame.rets.rets[0])
    attributes.flags = (<int32_t*> attribute(frame, 0))[0]
    attributes.mu = (<double*> attribute(frame, 1))[0] if attributes_count > 1 else 1.0
    cdef Pool pool = Pool(schedule, frame)
    if run(&pool, &result, operands, &attributes, message):
        return NULL
    return out_of_range(frame.api, message)


cdef XLA_FFI_Error* handle_update(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_update, UPDATE_OPERANDS, 2)


cdef XLA_FFI_Error* handle_propagate(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_propagate, PROPAGATE_OPERANDS, 1)


def capsules():
    """One PyCapsule per kind of operator, as `jax.ffi.register_ffi_target` takes them."""
    return {
        "update": PyCapsule_New(<void*> handle_update, NULL, NULL),
        "propagate": PyCapsule_New(<void*> handle_propagate, NULL, NULL),
    }


# Python's door.

cdef Buffer from_dlpack(const DLTensor* tensor) except *:
    cdef int bits = tensor.dtype.bits, dtype = 0
    if tensor.dtype.code == 0:    # kDLInt
        dtype = {32: INT32, 64: INT64}.get(bits, 0)
    elif tensor.dtype.code == 2:  # kDLFloat
        dtype = {16: FLOAT16, 32: FLOAT32, 64: FLOAT64}.get(bits, 0)
    elif tensor.dtype.code == 4:  # kDLBfloat
        dtype = BFLOAT16 if bits == 16 else 0
    elif tensor.dtype.code == 6:  # kDLBool
        dtype = BOOL
    if not dtype or tensor.dtype.lanes != 1:
        raise TypeError(f"a buffer of DLPack type {tensor.dtype} is not one that the kernels take")
    return Buffer(<char*> tensor.data + tensor.byte_offset, tensor.shape[0], dtype)


cdef int call_kernel(Run run, int count, result, tuple operands, Attributes attributes) except -1:
    cdef Buffer buffers[UPDATE_OPERANDS + 1]
    cdef char message[MESSAGE]
    cdef Pool openmp = Pool(NULL, NULL)
    cdef bint done
    # A capsule owns its buffer until it is consumed or dropped: these live as long as this list.
    capsules = [array.__dlpack__() for array in (*operands[:count], result)]
    for i, capsule in enumerate(capsules):
        buffers[i] = from_dlpack(&(<DLManagedTensor*> PyCapsule_GetPointer(capsule, "dltensor")).tensor)
    with nogil:
        done = run(&openmp, &buffers[count], buffers, &attributes, message)
    if not done:
        raise IndexError(message.decode())


def call_update(result, *operands, int flags, double mu):
    """Update `result` in place; operands as in `_specs.UPDATE_OPERANDS`, all of one dimension and contiguous."""
    call_kernel(run_update, UPDATE_OPERANDS, result, operands, Attributes(flags, mu))


def call_propagate(result, *operands, int flags):
    """Fill `result`; operands as in `_specs.PROPAGATE_OPERANDS`, all of one dimension and contiguous."""
    call_kernel(run_propagate, PROPAGATE_OPERANDS, result, operands, Attributes(flags, 1.0))
