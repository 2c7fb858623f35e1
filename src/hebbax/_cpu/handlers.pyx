"""The kernels' two doors: XLA's FFI, which holds no GIL, and Python, for anything that speaks DLPack."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t

from hebbax._cpu.buffers cimport (
    BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, Buffer,
)
from hebbax._cpu.calls cimport (
    COLLECT_OPERANDS, DELIVER_OPERANDS, FADE_OPERANDS, MESSAGE, PERMUTED, PROPAGATE_OPERANDS, RECORD_OPERANDS,
    UPDATE_OPERANDS, Attributes, Run, fit, run_batch, run_collect, run_deliver, run_fade, run_propagate, run_record,
    run_update,
)
from hebbax._cpu.frames cimport attribute, from_xla
from hebbax._cpu.logs cimport (
    APPEND_OPERANDS, SAMPLE_OPERANDS, TALLY_OPERANDS, run_append, run_sample, run_tally,
)
from hebbax._cpu.threads cimport Pool, Watch
from hebbax._cpu.tiles cimport TILE_OPERANDS, run_tile
from hebbax._core.xla_ffi cimport (
    OUT_OF_RANGE, XLA_FFI_CallFrame, XLA_FFI_Error, answer_metadata, new_error, schedule,
)
from hebbax._core.dlpack cimport BFLOAT, BOOLEAN, FLOAT, INTEGER, Borrowed, DLTensor

import threading

cdef extern from *:
    """
    static int hebbax_raise_pending(void) { return PyErr_Occurred() ? -1 : 0; }
    """
    int raise_pending "hebbax_raise_pending"() except -1

HOST = (1, 3, 11)  # DLPack's device types whose memory the CPU reaches: its own, and what it shares with CUDA and ROCm


# XLA's door.

cdef XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame, Run run, int count, int attributes_count) noexcept nogil:
    cdef Buffer operands[UPDATE_OPERANDS]
    cdef Attributes attributes
    cdef Buffer result
    cdef char message[MESSAGE]
    cdef int i
    if answer_metadata(frame, 0):
        return NULL
    if frame.args.size < count or frame.attrs.size != attributes_count:
        return new_error(frame.api, b"this call was compiled by another version of hebbax", OUT_OF_RANGE)
    for i in range(count):
        operands[i] = from_xla(frame.args.args[i])
    result = from_xla(frame.rets.rets[0])
    attributes.flags = (<int32_t*> attribute(frame, 0))[0]
    attributes.mu = (<double*> attribute(frame, 1))[0] if attributes_count > 1 else 1.0
    cdef Pool pool = Pool(schedule, frame, False, NULL)
    if not fit(operands, count, &result):
        return new_error(frame.api, b"an operand does not have the batch that the result has", OUT_OF_RANGE)
    if run_batch(run, &pool, &result, operands, count, &attributes, message):
        return NULL
    return new_error(frame.api, message, OUT_OF_RANGE)


cdef XLA_FFI_Error* handle_update(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_update, UPDATE_OPERANDS, 2)


cdef XLA_FFI_Error* handle_propagate(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_propagate, PROPAGATE_OPERANDS, 1)


cdef XLA_FFI_Error* handle_deliver(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_deliver, DELIVER_OPERANDS, 1)


cdef XLA_FFI_Error* handle_record(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_record, RECORD_OPERANDS, 1)


cdef XLA_FFI_Error* handle_fade(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_fade, FADE_OPERANDS, 1)


cdef XLA_FFI_Error* handle_tile(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_tile, TILE_OPERANDS, 1)


cdef XLA_FFI_Error* handle_append(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_append, APPEND_OPERANDS, 1)


cdef XLA_FFI_Error* handle_tally(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_tally, TALLY_OPERANDS, 1)


cdef XLA_FFI_Error* handle_sample(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_sample, SAMPLE_OPERANDS, 1)


cdef XLA_FFI_Error* handle_collect(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_collect, COLLECT_OPERANDS, 1)


cdef XLA_FFI_Error* handle_fence(XLA_FFI_CallFrame* frame) noexcept nogil:
    answer_metadata(frame, 0)
    return NULL


def capsules():
    """One PyCapsule per kind of call, by its name: what `jax.ffi.register_ffi_target` takes."""
    return {
        "fence": PyCapsule_New(<void*> handle_fence, NULL, NULL),
        "update": PyCapsule_New(<void*> handle_update, NULL, NULL),
        "propagate": PyCapsule_New(<void*> handle_propagate, NULL, NULL),
        "collect": PyCapsule_New(<void*> handle_collect, NULL, NULL),
        "record": PyCapsule_New(<void*> handle_record, NULL, NULL),
        "fade": PyCapsule_New(<void*> handle_fade, NULL, NULL),
        "deliver": PyCapsule_New(<void*> handle_deliver, NULL, NULL),
        "tile": PyCapsule_New(<void*> handle_tile, NULL, NULL),
        "append": PyCapsule_New(<void*> handle_append, NULL, NULL),
        "tally": PyCapsule_New(<void*> handle_tally, NULL, NULL),
        "sample": PyCapsule_New(<void*> handle_sample, NULL, NULL),
    }


# Python's door.

cdef Buffer from_dlpack(const DLTensor* tensor) except *:
    cdef int bits = tensor.dtype.bits, dtype = 0, d
    cdef int64_t stride = 1
    cdef bint contiguous = True
    if tensor.dtype.code == INTEGER:
        dtype = {32: INT32, 64: INT64}.get(bits, 0)
    elif tensor.dtype.code == FLOAT:
        dtype = {16: FLOAT16, 32: FLOAT32, 64: FLOAT64}.get(bits, 0)
    elif tensor.dtype.code == BFLOAT:
        dtype = BFLOAT16 if bits == 16 else 0
    elif tensor.dtype.code == BOOLEAN:
        dtype = BOOL if bits == 8 else 0
    if not dtype or tensor.dtype.lanes != 1:
        raise TypeError(f"a buffer of DLPack type {tensor.dtype} is not one that the kernels take")
    if tensor.device.device_type not in HOST:
        raise ValueError(f"a buffer on a device of DLPack type {tensor.device.device_type} is not in the host's memory")
    if tensor.ndim < 1:
        raise ValueError("a buffer without dimensions is not one that the kernels take")
    for d in range(tensor.ndim - 1, -1, -1):
        if tensor.strides != NULL and tensor.shape[d] > 1 and tensor.strides[d] != stride:
            contiguous = False
        stride *= tensor.shape[d]
    if stride and not contiguous:
        raise ValueError("a buffer is not contiguous")
    if stride and (<size_t> tensor.data + tensor.byte_offset) % (bits // 8):
        raise ValueError("a buffer is not aligned to its elements")
    return Buffer(
        <char*> tensor.data + tensor.byte_offset, tensor.shape[tensor.ndim - 1], dtype, tensor.ndim, tensor.shape)


cdef inline bint is_optional(const Buffer* operand, int dtype, int64_t size) noexcept nogil:
    """Whether this is absent, one for all, or one for each of `size`."""
    return operand.size == 0 or (operand.dtype == dtype and (operand.size == 1 or operand.size == size))


cdef const char* wrong_network(const Buffer* operands, int flags) noexcept nogil:
    """The first operand with a dtype or size by which a kernel would leave a buffer; NULL if there is none."""
    cdef const Buffer *weight = &operands[0]
    cdef const Buffer *indices = &operands[1]
    cdef const Buffer *indptr = &operands[2]
    cdef const Buffer *slots = &operands[3]
    cdef const Buffer *spike = &operands[4]
    if weight.dtype not in (FLOAT16, BFLOAT16, FLOAT32, FLOAT64) or (weight.size != 1 and weight.size != indices.size):
        return b"weight"
    if indices.dtype != INT32 and indices.dtype != INT64:
        return b"indices"
    if (indptr.dtype != INT32 and indptr.dtype != INT64) or indptr.size != spike.size + 1:
        return b"indptr"
    if flags & PERMUTED and (slots.dtype != indices.dtype or slots.size != indices.size):
        return b"weight_indices"
    if spike.dtype != BOOL:
        return b"spike"
    return NULL


cdef const char* wrong_update(const Buffer* result, const Buffer* operands, int flags) noexcept nogil:
    cdef const Buffer *weight = &operands[0]
    cdef int arithmetic = FLOAT64 if weight.dtype == FLOAT64 else FLOAT32
    cdef const char* wrong = wrong_network(operands, flags)
    if wrong != NULL:
        return wrong
    if weight.size != operands[1].size:
        return b"weight"
    if result.dtype != weight.dtype or result.size != weight.size:
        return b"result"
    if operands[5].dtype != arithmetic:
        return b"trace"
    if not is_optional(&operands[6], arithmetic, operands[4].size):
        return b"gain"
    if not is_optional(&operands[7], weight.dtype, weight.size):
        return b"w_min"
    if not is_optional(&operands[8], weight.dtype, weight.size):
        return b"w_max"
    return NULL


cdef const char* wrong_propagate(const Buffer* result, const Buffer* operands, int flags) noexcept nogil:
    cdef int arithmetic = FLOAT64 if operands[0].dtype == FLOAT64 else FLOAT32
    cdef const char* wrong = wrong_network(operands, flags)
    if wrong != NULL:
        return wrong
    if result.dtype != arithmetic:
        return b"result"
    if not is_optional(&operands[5], arithmetic, operands[4].size):
        return b"gain"
    return NULL


cdef const char* wrong_collect(const Buffer* result, const Buffer* operands, int flags) noexcept nogil:
    cdef int arithmetic = FLOAT64 if operands[0].dtype == FLOAT64 else FLOAT32
    cdef const char* wrong = wrong_network(operands, flags)
    if wrong != NULL:
        return wrong
    if result.dtype != arithmetic or result.size != operands[4].size:
        return b"result"
    if operands[5].dtype != arithmetic:
        return b"trace"
    return NULL


ctypedef const char* (*Wrong)(const Buffer* result, const Buffer* operands, int flags) noexcept nogil


cdef int call_kernel(
    Run run, Wrong wrong, int count, result, tuple operands, Attributes attributes
) except -1:
    cdef Buffer buffers[UPDATE_OPERANDS + 1]
    cdef char message[MESSAGE]
    cdef Watch watch = Watch(threading.get_ident(), 0, 0)
    cdef Pool openmp = Pool(NULL, NULL, False, NULL)
    cdef Borrowed borrowed
    cdef const char* name
    cdef bint done
    if len(operands) < count:
        raise TypeError(f"{len(operands)} operands, expected {count}")
    kept = []  # what keeps the buffers alive
    for i, array in enumerate(operands[:count] + (result,)):  # (CPython 3.11 leaks `*operands` where memory ends)
        if array is None:
            buffers[i] = Buffer(NULL, 0, 0, 1, NULL)
            continue
        borrowed = Borrowed(array)
        kept.append(borrowed)
        buffers[i] = from_dlpack(&borrowed.tensor)
    if not borrowed.writable:
        raise ValueError("the result is read-only")
    name = wrong(&buffers[count], buffers, attributes.flags)
    if name != NULL:
        raise ValueError(f"{name.decode()} does not have the dtype or the size that goes with the other operands")
    if not fit(buffers, count, &buffers[count]):
        raise ValueError("an operand does not have the batch that the result has, in its leading dimensions")
    if watch.thread == threading.main_thread().ident:
        openmp.watch = &watch
    with nogil:
        done = run_batch(run, &openmp, &buffers[count], buffers, count, &attributes, message)
    if watch.stopped:
        raise_pending()
    if not done:
        raise IndexError(message.decode())


def call_update(result not None, *operands, int flags, double mu):
    """Update `result` in place; operands as in `_core.specs.UPDATE_OPERANDS`, contiguous, None if absent.

    What is not so is refused here, whoever calls. Only that `result` overlaps no operand, is for the caller to see to.
    """
    call_kernel(run_update, wrong_update, UPDATE_OPERANDS, result, operands, Attributes(flags, mu))


def call_propagate(result not None, *operands, int flags):
    """Fill `result`; operands as in `_core.specs.PROPAGATE_OPERANDS`, and for the rest as in `call_update`."""
    call_kernel(run_propagate, wrong_propagate, PROPAGATE_OPERANDS, result, operands, Attributes(flags, 1.0))


def call_collect(result not None, *operands, int flags):
    """Fill `result`; operands as in `_core.specs.COLLECT_OPERANDS`, and for the rest as in `call_update`."""
    call_kernel(run_collect, wrong_collect, COLLECT_OPERANDS, result, operands, Attributes(flags, 1.0))
