from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from hebbax._cpu.buffers cimport INT32


cdef inline int64_t at(const Buffer* integers, int64_t k) noexcept nogil:
    return (<int32_t*> integers.data)[k] if integers.dtype == INT32 else (<int64_t*> integers.data)[k]


cdef inline int64_t skip_silent(const uint8_t* spike, int64_t j, int64_t n) noexcept nogil:
    """The first neuron from `j` on that may spike: 32, then 8 neurons at a time."""
    cdef uint64_t word[4]
    while j + 32 <= n:
        memcpy(word, spike + j, 32)
        if word[0] | word[1] | word[2] | word[3]:
            break
        j += 32
    while j + 8 <= n:
        memcpy(word, spike + j, 8)
        if word[0]:
            break
        j += 8
    return j


cdef Status next_batch(const Network* network, Rows* rows) noexcept nogil:
    """Fill `rows` with the next spiking neurons' non-empty rows; none are left when `rows.count` is 0."""
    cdef const uint8_t* spike = <const uint8_t*> network.spike.data
    cdef int64_t n = network.spike.size, nse = network.indices.size
    cdef int64_t j = rows.next_event, last, begin, end
    rows.count = rows.elements = 0
    while rows.count < BATCH:
        j = skip_silent(spike, j, n)
        if j >= n:
            break
        last = min(j + 8, n)
        while j < last and rows.count < BATCH:
            if spike[j]:
                begin, end = at(&network.indptr, j), at(&network.indptr, j + 1)
                if begin < 0 or end < begin or end > nse:
                    return BAD_INDPTR
                if end > begin:
                    rows.row[rows.count] = Row(begin, rows.elements, j)
                    rows.elements += end - begin
                    rows.count += 1
            j += 1
    rows.row[rows.count].before = rows.elements
    rows.next_event = j
    return OK


cdef inline int64_t row_at(const Rows* rows, int64_t element) noexcept nogil:
    """Which row of the batch holds its `element`-th element."""
    cdef int64_t low = 0, high = rows.count - 1, middle
    while low < high:
        middle = (low + high + 1) // 2
        if rows.row[middle].before <= element:
            low = middle
        else:
            high = middle - 1
    return low


cdef void walk_rows(Walk* walk, const Rows* rows, int64_t start, int64_t stop) noexcept nogil:
    """Set out on the batch's elements `start` to `stop`, of which there is at least one: some rows, whole."""
    walk.rows, walk.start, walk.stop = rows, start, stop
    walk.first, walk.last = row_at(rows, start), row_at(rows, stop - 1)
    walk.low, walk.high = 0.0, 1.0
    set_out(walk, stop - start)


cdef void walk_places(Walk* walk, const Rows* rows, double low, double high) noexcept nogil:
    """Set out on all the batch's rows, but only on each one's elements from `low` to `high`, in [0, 1]."""
    walk.rows, walk.start, walk.stop = rows, 0, rows.elements
    walk.first, walk.last = 0, rows.count - 1
    walk.low, walk.high = low, high
    set_out(walk, <int64_t> (rows.elements * (high - low)))


cdef void set_out(Walk* walk, int64_t elements) noexcept nogil:
    walk.row, walk.step = walk.first, 0
    walk.steps = elements // ((walk.last - walk.first + 1) * PIECE) + 1
    walk.begin, walk.end = walk.low, end_of_step(walk)


cdef void describe(const Network* network, const char* name, char* message, size_t size) noexcept nogil:
    """Write what is wrong with the first bad index of a spiking row into `message`."""
    cdef const uint8_t* spike = <const uint8_t*> network.spike.data
    cdef int64_t nse = network.indices.size, j, k, begin, end
    for j in range(network.spike.size):
        if not spike[j]:
            continue
        begin, end = at(&network.indptr, j), at(&network.indptr, j + 1)
        if begin < 0 or end < begin or end > nse:
            snprintf(message, size, b"%s: indptr[%lld : %lld] = [%lld, %lld], expected ascending values in [0, %lld]",
                     name, <long long> j, <long long> j + 2, <long long> begin, <long long> end, <long long> nse)
            return
        for k in range(begin, end):
            if not 0 <= at(&network.indices, k) < network.n_other:
                snprintf(message, size, b"%s: indices[%lld] = %lld, expected a neuron in [0, %lld)",
                         name, <long long> k, <long long> at(&network.indices, k), <long long> network.n_other)
                return
            if network.permuted and not 0 <= at(&network.slots, k) < nse:
                snprintf(message, size, b"%s: weight_indices[%lld] = %lld, expected a position in [0, %lld)",
                         name, <long long> k, <long long> at(&network.slots, k), <long long> nse)
                return
    snprintf(message, size, b"%s: an index changed while the kernel ran", name)
