"""A step's spikes written where earlier ones are, in place, as a list of who spiked when, or added to counts.

Some weights, too, after those of earlier steps.
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from hebbax._cpu.buffers cimport BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, Buffer, hot_void, itemsize
from hebbax._cpu.calls cimport MESSAGE, Attributes
from hebbax._cpu.threads cimport Pool

# As `_core.logs` numbers them.
cdef enum:
    COUNT = 0
    STEPS = 1
    SPIKES_HEADER = 2

cdef enum:
    COUNTED_STEPS = 0
    EVERY = 1
    GROUPS = 2
    COUNTS_HEADER = 3

cdef enum:
    SAMPLED_STEPS = 0
    SAMPLED_EVERY = 1
    SAMPLES_HEADER = 2

cdef enum:
    WORDS = 16  # of 8 neurons that are looked at together


cdef bint refused(const char* kind, char* message) noexcept nogil:
    snprintf(message, MESSAGE, b"%s: the array is not as it was made", kind)
    return False


cdef inline int32_t next_step(int32_t step) noexcept nogil:
    return step + (step < INT32_MAX)


cdef hot_void skip(const uint8_t* spike, int64_t* j, int64_t n) noexcept nogil:
    """Go on to the first neuron from `j` on that may spike: many, then 8 at a time."""
    cdef uint64_t word, found
    cdef int64_t at = j[0]
    cdef int k
    while at + 8 * WORDS <= n:
        found = 0
        for k in range(WORDS):
            memcpy(&word, spike + at + 8 * k, 8)
            found |= word
        if found:
            break
        at += 8 * WORDS
    while at + 8 <= n:
        memcpy(&word, spike + at, 8)
        if word:
            break
        at += 8
    j[0] = at


cdef bint run_append(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """List who spikes in `result`; those for whom there is no room are counted only."""
    cdef int32_t* log = <int32_t*> result.data
    cdef int32_t* pairs = log + SPIKES_HEADER
    cdef const uint8_t* spike = <const uint8_t*> operands[1].data
    cdef int64_t n = operands[1].size, capacity = (result.size - SPIKES_HEADER) // 2, j = 0, last, count
    if result.dtype != INT32 or operands[1].dtype != BOOL or result.size < SPIKES_HEADER or log[COUNT] < 0:
        return refused(b"append", message)
    count = log[COUNT]
    skip(spike, &j, n)
    while j < n:
        last = min(j + 8, n)
        while j < last:
            if spike[j]:
                if count < capacity:
                    pairs[2 * count], pairs[2 * count + 1] = log[STEPS], <int32_t> j
                count += 1
            j += 1
        skip(spike, &j, n)
    log[COUNT], log[STEPS] = <int32_t> min(count, <int64_t> INT32_MAX), next_step(log[STEPS])
    return True


cdef bint run_tally(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Add those who spike to the counts of the step's bin in `result`; behind the last bin, only steps are counted."""
    cdef int32_t* log = <int32_t*> result.data
    cdef uint32_t* counts  # which wrap where they are more than int32 counts, as XLA's own
    cdef const uint8_t* spike = <const uint8_t*> operands[1].data
    cdef const int32_t* group = <const int32_t*> operands[2].data
    cdef int64_t n = operands[1].size, bin, j = 0, last, g
    cdef bint grouped = operands[2].size > 0
    if (
        result.dtype != INT32 or operands[1].dtype != BOOL or operands[2].dtype != INT32 or result.size < COUNTS_HEADER
        or log[COUNTED_STEPS] < 0 or log[EVERY] < 1 or log[GROUPS] < 1 or (grouped and operands[2].size != n)
    ):
        return refused(b"tally", message)
    bin = log[COUNTED_STEPS] // log[EVERY]
    if bin < (result.size - COUNTS_HEADER) // log[GROUPS]:
        counts = <uint32_t*> log + COUNTS_HEADER + bin * log[GROUPS]
        skip(spike, &j, n)
        while j < n:
            last = min(j + 8, n)
            while j < last:
                if spike[j]:
                    g = group[j] if grouped else j
                    if 0 <= g < log[GROUPS]:
                        counts[g] += 1
                j += 1
            skip(spike, &j, n)
    log[COUNTED_STEPS] = next_step(log[COUNTED_STEPS])
    return True


ctypedef fused bits_t:  # a weight's, whatever they mean
    uint16_t
    int32_t
    uint64_t


cdef void gather(bits_t* out, const bits_t* weight, const int32_t* positions, int64_t k, int64_t nse) noexcept nogil:
    cdef int64_t i
    for i in range(k):
        if 0 <= positions[i] < nse:
            out[i] = weight[positions[i]]


cdef bint run_sample(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Write some weights after the samples in `result`, if the step is one of which there is a sample, and room."""
    cdef const int32_t* plan = <const int32_t*> operands[2].data
    cdef const int32_t* positions = plan + SAMPLES_HEADER
    cdef const Buffer* weight = &operands[1]
    cdef int64_t k = operands[2].size - SAMPLES_HEADER, sample
    if (
        weight.dtype not in (FLOAT16, BFLOAT16, FLOAT32, FLOAT64) or weight.dtype != result.dtype
        or operands[2].dtype != INT32 or k < 0 or plan[SAMPLED_STEPS] < 0 or plan[SAMPLED_EVERY] < 1
    ):
        return refused(b"sample", message)
    if plan[SAMPLED_STEPS] % plan[SAMPLED_EVERY]:
        return True
    sample = plan[SAMPLED_STEPS] // plan[SAMPLED_EVERY]
    if (sample + 1) * k > result.size:
        return True
    if itemsize(result.dtype) == 2:
        gather(<uint16_t*> result.data + sample * k, <const uint16_t*> weight.data, positions, k, weight.size)
    elif itemsize(result.dtype) == 4:
        gather(<int32_t*> result.data + sample * k, <const int32_t*> weight.data, positions, k, weight.size)
    else:
        gather(<uint64_t*> result.data + sample * k, <const uint64_t*> weight.data, positions, k, weight.size)
    return True
