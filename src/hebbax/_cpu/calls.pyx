from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from hebbax._cpu.buffers cimport FLOAT64, arith_t, itemsize, prefetch_at
from hebbax._cpu.collect cimport Collect, collect
from hebbax._cpu.pages cimport use_huge_pages
from hebbax._cpu.propagate cimport Propagate, propagate
from hebbax._cpu.rows cimport (
    BAD_LISTS, OK, STOPPED, List, Lists, Network, Status, describe, list_of, open_lists, open_sent, record, rows_of,
)
from hebbax._cpu.threads cimport add_and_get, chunks_for, run_chunks
from hebbax._cpu.update cimport Update, update

cdef enum:
    GRAIN = 16384           # elements of a batch that are worth another thread
    LARGE = 131072          # elements of a member for which threads share it out, and not the members
    CLIPPED = 16            # weights that are clipped in the time that one element takes
    FADED_AHEAD = 32        # spikes between a prefetch of a trace and its use
    LISTED_SHARE = 256      # of the elements of a member, one that lists are taken to name


cdef inline bint opened(Lists* lists, const Buffer* events, int flags) noexcept nogil:
    return open_sent(lists, events, flags & SECOND) if flags & SENT else open_lists(lists, events, flags & DUE)


cdef Status set_network(Network* network, const Pool* pool, const Buffer* operands, int flags) noexcept nogil:
    network.pool = pool[0]
    network.weight, network.indices, network.indptr, network.slots, network.spike = (
        operands[0], operands[1], operands[2], operands[3], operands[4])
    network.shared = network.weight.size == 1 and network.indices.size != 1
    network.permuted, network.listed = flags & PERMUTED and not network.shared, flags & LISTED
    if network.listed and not opened(&network.lists, &network.spike, flags):
        return BAD_LISTS
    if network.listed:
        use_huge_pages(network.indptr.data, network.indptr.size * itemsize(network.indptr.dtype))
    if not (network.listed and flags & SHIFTED):
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
    message[0] = 0
    if status == STOPPED:
        return False
    if status == BAD_LISTS and flags & SENT:
        snprintf(message, MESSAGE, b"more spikes than the lists have room for, which their `overflow` says too, or "
                 b"a step that they do not have, or other lists than hebbax.sharding.exchange makes")
        return False
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
        use_huge_pages(operands[5].data, operands[5].size * itemsize(operands[5].dtype))
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
    use_huge_pages(operands[0].data, operands[0].size * itemsize(operands[0].dtype))
    use_huge_pages(operands[1].data, operands[1].size * itemsize(operands[1].dtype))
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


cdef bint fade(arith_t* trace, int64_t n, const Lists* lists, const arith_t* numbers) noexcept nogil:
    """Scale all of a trace, unless by 1, then add to, or set, those of the neurons that spike; False if there are none.

    `numbers` are the factor, what is added, and whether that is set.
    """
    cdef List spikes
    cdef int64_t d, k
    if rows_of(lists) != n:
        return False
    if numbers[0] != 1:
        for k in range(n):
            trace[k] *= numbers[0]
    for d in range(lists.count):
        spikes = list_of(lists, d)
        if spikes.count < 0:
            return False
        for k in range(spikes.count):
            if k + FADED_AHEAD < spikes.count:
                prefetch_at(trace, spikes.first + spikes.ids[k + FADED_AHEAD], 1)
            if not 0 <= spikes.ids[k] < lists.n:
                return False
            trace[spikes.first + spikes.ids[k]] = (
                numbers[1] if numbers[2] else trace[spikes.first + spikes.ids[k]] + numbers[1])
    return True


cdef bint run_fade(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Bring a trace, `result`, up to date, as `_core.sent` says; where that fails, return False and say why."""
    cdef Lists lists
    cdef bint done = open_sent(&lists, &operands[1], attributes.flags & SECOND)
    if done and result.dtype == FLOAT64:
        done = fade(<double*> result.data, result.size, &lists, <const double*> operands[2].data)
    elif done:
        done = fade(<float*> result.data, result.size, &lists, <const float*> operands[2].data)
    return done or succeeded(BAD_LISTS, NULL, b"", SENT, message)


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
    cdef double share = <double> spikes / max(size, 1)  # (the product of two counts need not fit 64 bits)
    return <int64_t> (operands[1].size * share) + (operands[1].size // CLIPPED if flags & CLIP_ALL else 0)


cdef bint run_batch(
    Run run, const Pool* pool, const Buffer* result, const Buffer* operands, int count, const Attributes* attributes,
    char* message
) noexcept nogil:
    """Run a kernel for every member of a batch; where one fails, return False and say why in `message`."""
    cdef Batch batch = Batch(run, pool, result, operands, count, attributes, message, 0)
    cdef Pool alone = Pool(NULL, NULL, True, pool.watch)
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
