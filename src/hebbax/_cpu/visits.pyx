"""XLA's door to `visit.pyx`.

Operands: weight, rows, recent and settling (see `_core.visit.Archive`), which are updated in place; indices, indptr,
message, postsynaptic spikes, their traces, and the steps of the pre- and of the postsynaptic spikes. Results: those
four, and what arrives at the neurons. Attributes: bounds, decay, flags, and factor and exponent of either change.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.stdio cimport snprintf

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER, Soft, slope_of
from hebbax._cpu.buffers cimport BOOL, FLOAT32, INT32, Buffer
from hebbax._cpu.calls cimport (
    ALL, DOWN_LOWER, DOWN_UPPER, LISTED, MESSAGE, NEAREST, RETURNED, SENT, SOFT_LOWER, SOFT_UPPER, set_network,
    succeeded,
)
from hebbax._cpu.frames cimport attribute, from_xla
from hebbax._cpu.pages cimport use_huge_pages
from hebbax._cpu.pieces cimport RECENT, Change, Neuron, Pass, Visit
from hebbax._cpu.rows cimport BAD_ELEMENT, BAD_INDPTR, BAD_LISTS, OK, STOPPED, Status
from hebbax._cpu.threads cimport Pool
from hebbax._cpu.visit cimport next_spike, visit
from hebbax._core.xla_ffi cimport (
    OUT_OF_RANGE, XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Error, answer_metadata, new_error, schedule,
)

cdef enum:
    UINT16 = 7  # as XLA numbers it

cdef enum:
    WEIGHT
    ROWS
    RECENT_STEPS
    SETTLING
    INDICES
    INDPTR
    SPIKES
    POST_SPIKE
    TRACE
    STEPS
    OPERANDS

cdef enum:  # integers
    OF_PASS = sizeof(Pass) // sizeof(int32_t)
    OF_NEURON = sizeof(Neuron) // sizeof(int32_t)

cdef enum:
    OUT = INDICES  # the last result, behind those that are updated
    RESULTS

cdef enum:  # attributes, in the order of their names
    DECAY
    DOWN_FACTOR
    DOWN_MU
    FLAGS
    HIGH
    LOW
    UP_FACTOR
    UP_MU
    ATTRIBUTES


cdef inline bint fits(const void* operand, int dtype, int64_t first, int64_t second) noexcept nogil:
    """Whether an operand has this dtype and these dimensions; of the first, -1: any, of the second: there is none."""
    cdef const XLA_FFI_Buffer* x = <const XLA_FFI_Buffer*> operand
    if x.dtype != dtype or x.rank != (1 if second < 0 else 2) or (first >= 0 and x.dims[0] != first):
        return False
    return second < 0 or x.dims[1] == second


cdef bint fit(const XLA_FFI_CallFrame* frame) noexcept nogil:
    """Whether operands and results are such as `_core.visit` hands over."""
    cdef void** given = frame.args.args
    cdef int64_t n_pre, n_post, nse
    if frame.args.size != OPERANDS or frame.rets.size != RESULTS or frame.attrs.size != ATTRIBUTES:
        return False
    if not (fits(given[INDICES], INT32, -1, -1) and fits(given[INDPTR], INT32, -1, -1)
            and fits(given[POST_SPIKE], BOOL, -1, -1)):
        return False
    nse, n_pre, n_post = (
        from_xla(given[INDICES]).size, from_xla(given[INDPTR]).size - 1, from_xla(given[POST_SPIKE]).size)
    return (n_pre >= 0 and fits(given[WEIGHT], FLOAT32, nse, -1) and fits(given[ROWS], INT32, n_pre, OF_NEURON)
            and fits(given[RECENT_STEPS], UINT16, RECENT, n_post) and fits(given[SETTLING], INT32, OF_PASS, -1)
            and fits(given[SPIKES], INT32, -1, -1) and fits(given[TRACE], FLOAT32, n_post, -1)
            and fits(given[STEPS], INT32, 2, -1) and fits(frame.rets.rets[OUT], FLOAT32, n_post, -1))


cdef inline bint can_be(const Pass* settling, int64_t n_pre) noexcept nogil:
    """Whether a pass is one that can be: an array may hold anything."""
    return (settling.base <= settling.settled <= settling.began and settling.share >= 0
            and 0 <= settling.next <= n_pre)


cdef bint disagree(const Visit* call, char* message) noexcept nogil:
    """Whether rows are not where `indptr` says, and which."""
    cdef const int32_t* indptr = <const int32_t*> call.network.indptr.data
    cdef int64_t j
    for j in range(call.n_pre):
        if call.neurons[j].begin != indptr[j] or call.neurons[j].end != indptr[j + 1]:
            snprintf(message, MESSAGE, b"visit: rows[%lld, :2] = [%d, %d], expected what indptr says, [%d, %d]",
                     <long long> j, call.neurons[j].begin, call.neurons[j].end, indptr[j], indptr[j + 1])
            return True
    return False


cdef inline float number(const XLA_FFI_CallFrame* frame, int i) noexcept nogil:
    return <float> (<double*> attribute(frame, i))[0]


cdef Change change_of(float factor, float mu, float low, float high, bint lower, bint upper) noexcept nogil:
    cdef bint ranged = isfinite(low) and isfinite(high)
    cdef Soft soft = Soft(upper, ranged, high if upper else low, slope_of(low, high, upper, ranged), mu)
    return Change(factor, soft, HARD if not (lower or upper) else LINEAR if mu == 1 else POWER)


cdef XLA_FFI_Error* handle_visit(XLA_FFI_CallFrame* frame) noexcept nogil:
    cdef Visit call
    cdef Buffer operands[5]
    cdef Buffer steps
    cdef char message[MESSAGE]
    cdef Status status
    cdef int flags
    cdef int32_t earliest
    if answer_metadata(frame, 0):
        return NULL
    if not fit(frame):
        return new_error(frame.api, b"this call was compiled by another version of hebbax", OUT_OF_RANGE)
    flags = (<int32_t*> attribute(frame, FLAGS))[0] | LISTED | SENT
    cdef Pool pool = Pool(schedule, frame, False, NULL)
    operands[0], operands[1], operands[2], operands[3], operands[4] = (
        from_xla(frame.rets.rets[WEIGHT]), from_xla(frame.args.args[INDICES]), from_xla(frame.args.args[INDPTR]),
        from_xla(frame.args.args[INDICES]), from_xla(frame.args.args[SPIKES]))  # (the fourth is read by nobody)
    status = set_network(&call.network, &pool, operands, flags)
    call.network.shared = False
    call.network.n_other = from_xla(frame.args.args[POST_SPIKE]).size
    call.neurons = <Neuron*> from_xla(frame.rets.rets[ROWS]).data
    call.n_pre = operands[2].size - 1
    call.recent = <uint16_t*> from_xla(frame.rets.rets[RECENT_STEPS]).data
    call.settling = <Pass*> from_xla(frame.rets.rets[SETTLING]).data
    if not can_be(call.settling, call.n_pre):
        return new_error(frame.api, b"visit: settling: got what no pass can be at, expected what the last call left",
                         OUT_OF_RANGE)
    call.spike = <const uint8_t*> from_xla(frame.args.args[POST_SPIKE]).data
    call.trace = <const float*> from_xla(frame.args.args[TRACE]).data
    call.out = <float*> from_xla(frame.rets.rets[OUT]).data
    steps = from_xla(frame.args.args[STEPS])
    call.step, call.spike_step = (<int32_t*> steps.data)[0], (<int32_t*> steps.data)[1]
    call.low, call.high, call.decay = (
        number(frame, LOW), number(frame, HIGH), (<double*> attribute(frame, DECAY))[0])
    call.up = change_of(number(frame, UP_FACTOR), number(frame, UP_MU), call.low, call.high, flags & SOFT_LOWER,
                        flags & SOFT_UPPER)
    call.down = change_of(number(frame, DOWN_FACTOR), number(frame, DOWN_MU), call.low, call.high, flags & DOWN_LOWER,
                          flags & DOWN_UPPER)
    call.returned, call.sets, call.all = (flags & RETURNED) != 0, (flags & NEAREST) != 0, (flags & ALL) != 0
    use_huge_pages(operands[0].data, operands[0].size * sizeof(float))
    use_huge_pages(operands[1].data, operands[1].size * sizeof(int32_t))
    use_huge_pages(call.neurons, call.n_pre * sizeof(Neuron))
    earliest = call.settling.began
    if status == OK:
        status = visit(&call)
    if (status == BAD_INDPTR or status == BAD_ELEMENT) and disagree(&call, message):
        return new_error(frame.api, message, OUT_OF_RANGE)
    if succeeded(status, &call.network, b"visit", flags, message):
        return NULL
    if status == STOPPED:
        snprintf(message, MESSAGE, b"visit: no memory")
    elif status == BAD_LISTS and call.spike_step < earliest and next_spike(&call, 0) < call.network.n_other:
        snprintf(message, MESSAGE, b"visit: post_spike: got spikes of step %lld, expected none before step %lld",
                 <long long> call.spike_step, <long long> earliest)
    return new_error(frame.api, message, OUT_OF_RANGE)


def capsules():
    """The handler by its name, as `jax.ffi.register_ffi_target` takes it."""
    return {"visit": PyCapsule_New(<void*> handle_visit, NULL, NULL)}
