"""The kernels' two doors: XLA's FFI, which holds no GIL, and Python, for anything that speaks DLPack."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from hebbax._cpu.buffers cimport (
    BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, Buffer, itemsize,
)
from hebbax._cpu.collect cimport Collect, collect
from hebbax._cpu.pages cimport use_huge_pages
from hebbax._cpu.propagate cimport Propagate, propagate
from hebbax._cpu.rows cimport BAD_LISTS, OK, Lists, Network, Status, describe, open_lists, record
from hebbax._cpu.threads cimport Pool, add_and_get, chunks_for, run_chunks
from hebbax._cpu.update cimport Update, update
from hebbax._core.xla_ffi cimport (
    OUT_OF_RANGE, XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Error, XLA_FFI_Scalar, answer_metadata, new_error,
    schedule,
)
from hebbax._core.dlpack cimport BFLOAT, BOOLEAN, FLOAT, INTEGER, Borrowed, DLTensor

cpdef enum Flag:
    PERMUTED = 1     # rows cross the order in which weights are stored
    CSC = 2          # which is CSC order
    CLIP_ALL = 4
    SOFT_UPPER = 8
    SOFT_LOWER = 16
    LISTED = 32      # the spikes are the lists of `_core.events`:
    DUE = 64         # those that arrive in the next step
    SHIFTED = 128    # and the partners' values begin at their shift

cdef enum:
    COLLECT_OPERANDS = 6
    PROPAGATE_OPERANDS = 6
    RECORD_OPERANDS = 3
    DELIVER_OPERANDS = 8
    UPDATE_OPERANDS = 9     # without `after`, which no kernel reads
    MESSAGE = 256
    GRAIN = 16384           # elements of a batch that are worth another thread
    LARGE = 131072          # elements of a member for which threads share it out, and not the members
    CLIPPED = 16            # weights that are clipped in the time that one element takes
    LISTED_SHARE = 256      # of the elements of a member, one that lists are taken to name

HOST = (1, 3, 11)  # DLPack's device types whose memory the CPU reaches: its own, and what it shares with CUDA and ROCm


cdef struct Attributes:
    int flags
    double mu  # of an update


cdef Status set_network(Network* network, const Pool* pool, const Buffer* operands, int flags) noexcept nogil:
    network.pool = pool[0]
    network.weight, network.indices, network.indptr, network.slots, network.spike = (
        operands[0], operands[1], operands[2], operands[3], operands[4])
    network.shared = network.weight.size == 1 and network.indices.size != 1
    network.permuted, network.listed = flags & PERMUTED and not network.shared, flags & LISTED
    network.lists.shift = 0
    if network.listed and not open_lists(&network.lists, &network.spike, flags & DUE):
        return BAD_LISTS
    if not flags & SHIFTED:
        network.lists.shift = 0
    return OK


cdef inline Status shift(Buffer* values, int64_t by) noexcept nogil:
    """Let a trace begin where that of a window of time does."""
    if by > values.size:
        return BAD_LISTS
    values.data = <char*> values.data + by * itemsize(values.dtype)
    values.size -= by
    return OK


cdef bint succeeded(Status status, const Network* network, const char* kind, int flags, char* message) noexcept nogil:
    """Whether it did; if not, say why in `message`."""
    cdef char name[64]
    if status == OK:
        return True
    if status == BAD_LISTS:
        snprintf(message, MESSAGE, b"the lists of arriving spikes are not as they were recorded")
        return False
    snprintf(name, sizeof(name), b"%s_%s_on_binary_%s", kind, b"csc" if flags & CSC else b"csr",
             b"pre" if ((flags & CSC) != 0) == ((flags & PERMUTED) != 0) else b"post")
    describe(network, name, message, MESSAGE)
    return False


cdef bint run_update(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Update `result`, which holds the old weight; where that fails, return False and say why in `message`."""
    cdef Update call
    cdef int flags = attributes.flags
    cdef Status status = set_network(&call.network, pool, operands, flags)
    call.network.weight.data = result.data
    if call.network.permuted:
        use_huge_pages(result.data, result.size * itemsize(result.dtype))
    call.trace, call.gain, call.w_min, call.w_max = operands[5], operands[6], operands[7], operands[8]
    if status == OK:
        status = shift(&call.trace, call.network.lists.shift)
    call.network.n_other = call.trace.size
    call.clip_all = flags & CLIP_ALL
    call.soft, call.upper, call.mu = flags & (SOFT_UPPER | SOFT_LOWER), flags & SOFT_UPPER, attributes.mu
    if status == OK:
        status = update(&call)
    return succeeded(status, &call.network, b"update", flags, message)


cdef bint run_propagate(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Fill `result`; where that fails, return False and say why in `message`."""
    cdef Propagate call
    cdef Buffer out = result[0]
    cdef Status status = set_network(&call.network, pool, operands, attributes.flags)
    if status == OK:
        status = shift(&out, call.network.lists.shift)
    call.network.n_other = out.size
    call.gain, call.out, call.adds = operands[5], out.data, False
    if status == OK:
        memset(result.data, 0, <char*> out.data - <char*> result.data)
        status = propagate(&call)
    return succeeded(status, &call.network, b"propagate", attributes.flags, message)


cdef bint run_collect(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Fill `result`; where that fails, return False and say why in `message`."""
    cdef Collect call
    cdef Status status = set_network(&call.network, pool, operands, attributes.flags)
    call.trace, call.out = operands[5], result.data
    if status == OK:
        status = shift(&call.trace, call.network.lists.shift)
    call.network.n_other = call.trace.size
    if status == OK:
        status = collect(&call)
    return succeeded(status, &call.network, b"a derivative's collect", attributes.flags, message)


cdef bint run_deliver(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Add to `result`, the sums of the steps that come, as `_core.delivery` says; where that fails, return False."""
    cdef Propagate call
    cdef Buffer out = result[0]
    cdef const int32_t* places = <const int32_t*> operands[7].data
    cdef int64_t place = places[0], n = places[1], half = result.size // 2, size = itemsize(result.dtype)
    cdef Status status = set_network(&call.network, pool, operands, attributes.flags)
    if place < 0 or n < 0 or place + n > half:
        status = BAD_LISTS
    if status == OK:
        memset(<char*> result.data + place * size, 0, n * size)
        memset(<char*> result.data + (place + half) * size, 0, n * size)
        status = shift(&out, place)
    call.network.n_other = half
    call.gain, call.out, call.adds = operands[5], out.data, True
    if status == OK:
        status = propagate(&call)
    return succeeded(status, &call.network, b"propagate", attributes.flags, message)


cdef bint run_record(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Record a step's spikes in `result`, the lists of those before; where that fails, return False and say why."""
    cdef Lists lists
    cdef const Buffer *spike = &operands[1]
    cdef const int32_t* places = <const int32_t*> operands[2].data
    if not open_lists(&lists, result, False) or spike.size != lists.n or not 0 <= places[0] < lists.length:
        return succeeded(BAD_LISTS, NULL, b"", 0, message)
    record(&lists, <const uint8_t*> spike.data, places[0], places[1])
    return True


ctypedef bint (*Run)(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil


# Batches: leading dimensions of the result, which operands have too; where an operand's is 1, all members share it.

cdef struct Batch:
    Run run
    const Pool* pool
    const Buffer* result
    const Buffer* operands
    int count
    const Attributes* attributes
    char* message
    int64_t failed


cdef bint fit(const Buffer* operands, int count, const Buffer* result) noexcept nogil:
    """Whether every operand has one dimension, or the batch of `result` in its leading ones."""
    cdef int64_t d
    cdef int k
    for k in range(count):
        if operands[k].rank == 1:
            continue
        if operands[k].rank != result.rank:
            return False
        for d in range(result.rank - 1):
            if operands[k].dims[d] != 1 and operands[k].dims[d] != result.dims[d]:
                return False
    return True


cdef Buffer member(const Buffer* buffer, const Buffer* result, int64_t i) noexcept nogil:
    """What the `i`-th member of the batch takes of an operand."""
    cdef int64_t d, offset = 0, stride = buffer.size
    for d in range(buffer.rank - 2, -1, -1):
        if buffer.dims[d] > 1:
            offset += i % result.dims[d] * stride
            stride *= buffer.dims[d]
        i //= result.dims[d]
    return Buffer(<char*> buffer.data + offset * itemsize(buffer.dtype), buffer.size, buffer.dtype, 1, NULL)


cdef void run_members(void* state, int64_t start, int64_t stop) noexcept nogil:
    cdef Batch* batch = <Batch*> state
    cdef Buffer operands[UPDATE_OPERANDS]
    cdef Buffer result
    cdef char message[MESSAGE]
    cdef int64_t i
    cdef int k
    for i in range(start, stop):
        result = member(batch.result, batch.result, i)
        for k in range(batch.count):
            operands[k] = member(&batch.operands[k], batch.result, i)
        if not batch.run(batch.pool, &result, operands, batch.attributes, message):
            if add_and_get(&batch.failed, 1) == 1:
                snprintf(batch.message, MESSAGE, b"%s", message)
            return


cdef int64_t elements_of_member(const Buffer* operands, int flags) noexcept nogil:
    """About how many a member of a batch works on."""
    cdef const Buffer* spike = &operands[4]
    cdef const uint8_t* is_spike = <const uint8_t*> spike.data
    cdef int64_t k, d, spikes = 0, size = spike.size
    cdef uint64_t word
    if flags & LISTED:
        return operands[1].size // LISTED_SHARE
    for d in range(spike.rank - 1):
        size *= spike.dims[d]
    for k in range(0, size - 7, 8):
        memcpy(&word, is_spike + k, 8)
        spikes += word * <uint64_t> 0x0101010101010101 >> 56  # the sum of its bytes
    return operands[1].size * spikes // max(size, 1) + (operands[1].size // CLIPPED if flags & CLIP_ALL else 0)


cdef bint run_batch(
    Run run, const Pool* pool, const Buffer* result, const Buffer* operands, int count, const Attributes* attributes,
    char* message
) noexcept nogil:
    """Run a kernel for every member of a batch; where one fails, return False and say why in `message`."""
    cdef Batch batch = Batch(run, pool, result, operands, count, attributes, message, 0)
    cdef Pool alone = Pool(NULL, NULL, True)
    cdef int64_t members = 1, chunks = 1, d, elements
    if result.rank == 1:
        return run(pool, result, operands, attributes, message)
    for d in range(result.rank - 1):
        members *= result.dims[d]
    if members > 1 and count > RECORD_OPERANDS and chunks_for(pool, 8 * GRAIN, GRAIN, 1) > 1:
        # (not if there is one thread; 8: OpenMP's grain)
        elements = elements_of_member(operands, attributes.flags)
        if elements < LARGE:
            chunks = min(chunks_for(pool, members * elements, GRAIN, 4), members)
    if chunks > 1:
        batch.pool = &alone
    run_chunks(pool, run_members, &batch, members, chunks)
    return batch.failed == 0


# XLA's door.

cdef Buffer from_xla(void* pointer) noexcept nogil:
    cdef XLA_FFI_Buffer* source = <XLA_FFI_Buffer*> pointer
    return Buffer(source.data, source.dims[source.rank - 1], source.dtype, source.rank, source.dims)


cdef inline void* attribute(const XLA_FFI_CallFrame* frame, int i) noexcept nogil:
    """The value of the `i`-th scalar attribute, in the order of their names."""
    return (<XLA_FFI_Scalar*> frame.attrs.attrs[i]).value


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
    cdef Pool pool = Pool(schedule, frame, False)
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


cdef XLA_FFI_Error* handle_collect(XLA_FFI_CallFrame* frame) noexcept nogil:
    return handle(frame, run_collect, COLLECT_OPERANDS, 1)


cdef XLA_FFI_Error* handle_fence(XLA_FFI_CallFrame* frame) noexcept nogil:
    answer_metadata(frame, 0)
    return NULL


def capsules():
    """One PyCapsule per kind of operator, for the fence and for delays, as `jax.ffi.register_ffi_target` takes them."""
    return {
        "fence": PyCapsule_New(<void*> handle_fence, NULL, NULL),
        "update": PyCapsule_New(<void*> handle_update, NULL, NULL),
        "propagate": PyCapsule_New(<void*> handle_propagate, NULL, NULL),
        "collect": PyCapsule_New(<void*> handle_collect, NULL, NULL),
        "record": PyCapsule_New(<void*> handle_record, NULL, NULL),
        "deliver": PyCapsule_New(<void*> handle_deliver, NULL, NULL),
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
    cdef Pool openmp = Pool(NULL, NULL, False)
    cdef Borrowed borrowed
    cdef const char* name
    cdef bint done
    if len(operands) < count:
        raise TypeError(f"{len(operands)} operands, expected {count}")
    kept = []  # what keeps the buffers alive
    for i, array in enumerate((*operands[:count], result)):
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
    with nogil:
        done = run_batch(run, &openmp, &buffers[count], buffers, count, &attributes, message)
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
