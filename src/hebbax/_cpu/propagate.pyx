"""out[indices[k]] += gain[j] * weight[slot(k)] for every element k of every spiking row j.

Every target is summed in the order of the rows, whatever the number of threads: a thread owns a range of targets. In a
sorted row its elements are a run, whose beginning is searched for, and which ends at the first target of another one.
Each thread adds only what is its own, so if all threads together have added as many elements as there are, each was
added once, in order. If fewer, the rows are not sorted (or an index is bad), and one thread starts all over.

A run of few elements takes less time than its first cache line takes to come, and the branches of a search are
mispredicted: so runs are fetched some rows ahead, and found some rows ahead, while earlier ones are summed. In a
prototype of this loop in C, half of the targets then took 0.6 of the time of all for rows of 100, and 0.5 with huge
pages (a run is two misses in the table of pages); with a search right before each run and one row fetched ahead, 0.7.
In steps of a simulation less of that is left: `benchmarks/results/threads.md`.

Rows too short for runs, of which there are many where a large network is split among processes, are nothing but misses.
Those the threads share: each copies some rows' targets and products, and one thread adds up what they have copied.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from hebbax._cpu.buffers cimport (
    FLOAT64, INT32, arith_t, hot_void, inline_void, itemsize, load, prefetch_at, prefetch_lines, weight_t,
)
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, CACHED, OK, STOPPED, Network, Row, Rows, Status, first_batch, forget, index_t, next_batch,
)
from hebbax._cpu.threads cimport LOOK, add_and_get, chunks_for, is_stopped, run_chunks

cpdef enum:
    AHEAD = 128      # elements between a prefetch and the use, at most
    ROWS_AHEAD = 16  # and rows
    GRAIN = 32768    # elements that are worth another thread
    COPIED = 1 << 20  # elements of a batch, at most, that threads copy
    RUN = 16         # elements of a thread's part of an average row, at least: a cache line of indices
    LINE = 16        # sums that threads do not share, a cache line or two of them
    WINDOW = 16      # elements that a search looks at at once
    SAMPLE = 256     # elements by which rows are taken to be sorted
    SHORT = 2 * RUN  # elements of a row, on average, up to which threads copy rows
    FETCH = 16       # elements as which a row counts that threads copy


cdef struct Job:
    Propagate* call
    Rows* rows
    void* values     # the sums
    bint clears      # the sums first: each thread its own
    int64_t added    # elements
    bint copies      # whether the task is to copy rows, and to add nothing
    char* memory     # for what is copied,
    void* targets    # indices, in their dtype (NULL if nothing is),
    void* products   # and weights times gains, in the arithmetic dtype


cdef inline int64_t first_of(
    const index_t* indices, int64_t begin, int64_t end, int64_t target, double place
) noexcept nogil:
    """Where in the sorted `indices[begin:end]` targets from `target` on begin, if in an even row at `place` in [0, 1].

    What is smaller is counted, many elements at once, and not compared one by one: mostly that takes no branch.
    """
    cdef int64_t k = max(begin, begin + <int64_t> (place * (end - begin)) - WINDOW // 2), stride = WINDOW, i
    cdef int smaller
    while k > begin and indices[k - 1] >= target:
        k = max(begin, k - stride)
        stride *= 2
    while k + WINDOW <= end:
        smaller = 0
        for i in range(WINDOW):
            smaller += indices[k + i] < target
        k += smaller
        if smaller < WINDOW:
            return k
    while k < end and indices[k] < target:
        k += 1
    return k


cdef inline int64_t propagate_run(
    const weight_t* weight, const index_t* indices, const index_t* slots, arith_t* out, int64_t begin, int64_t end,
    int64_t start, uint64_t size, uint64_t nse, int64_t ahead, arith_t factor, bint permuted,
    bint shared
) noexcept nogil:
    """Add up elements from `begin` on while their targets are `start` and the `size` next; return how many are."""
    cdef int64_t k
    cdef uint64_t slot
    cdef arith_t x
    if shared:
        load(weight, &x)
    for k in range(begin, end):
        slot = slots[k] if permuted else k
        if permuted:
            prefetch_at(weight, slots[k + ahead if k + ahead < <int64_t> nse else k], 0)
        if <uint64_t> (indices[k] - start) >= size or slot >= nse:
            return k - begin
        if not shared:
            load(&weight[slot], &x)
        out[indices[k]] += factor * x
    return end - begin


cdef inline_void copy_rows(
    Job* job, const weight_t* weight, const index_t* indices, const arith_t* gain, int64_t start, int64_t stop
) noexcept nogil:
    """Copy the targets and products of the batch's rows `start` to `stop`; count those that are in range as added."""
    cdef const Network* network = &job.call.network
    cdef const index_t* slots = <const index_t*> network.slots.data
    cdef const Row* row = job.rows.row
    cdef index_t* targets = <index_t*> job.targets
    cdef arith_t* products = <arith_t*> job.products
    cdef arith_t factor = gain[0] if job.call.gain.size == 1 else 1, x
    cdef uint64_t nse = network.indices.size, n_other = network.n_other, slot
    cdef bint permuted = network.permuted, shared = network.shared
    cdef int64_t tick, k, begin, size, bad = 0
    for tick in range(start, stop + ROWS_AHEAD):
        if tick < stop:
            begin, size = row[tick].begin, row[tick + 1].before - row[tick].before
            prefetch_lines(indices, begin, begin + size, 0)
            if permuted:
                prefetch_lines(slots, begin, begin + size, 0)
            elif not shared:
                prefetch_lines(weight, begin, begin + size, 0)
        if tick < start + ROWS_AHEAD:
            continue
        begin, size = row[tick - ROWS_AHEAD].begin, row[tick - ROWS_AHEAD + 1].before - row[tick - ROWS_AHEAD].before
        if job.call.gain.size > 1:
            factor = gain[row[tick - ROWS_AHEAD].event]
        for k in range(size):
            slot = 0 if shared else slots[begin + k] if permuted else begin + k
            if <uint64_t> indices[begin + k] >= n_other or slot >= nse:
                bad += 1
                continue
            load(&weight[slot], &x)
            targets[row[tick - ROWS_AHEAD].before + k] = indices[begin + k]
            products[row[tick - ROWS_AHEAD].before + k] = factor * x
    add_and_get(&job.added, row[stop].before - row[start].before - bad)


cdef inline void add_copies(
    const index_t* targets, const arith_t* products, arith_t* out, int64_t count
) noexcept nogil:
    cdef int64_t k
    for k in range(count):
        out[targets[k]] += products[k]


cdef hot_void span(
    Job* job, const weight_t* weight, const index_t* indices, arith_t* out, int64_t start, int64_t stop
) noexcept nogil:
    """Add up the batch's elements whose targets lie in the lines `start` to `stop` of the sums.

    Where rows are copied first: copy these; when that is done, add them all.
    """
    cdef const Network* network = &job.call.network
    cdef const Row* row = job.rows.row
    cdef const index_t* slots = <const index_t*> network.slots.data
    cdef const arith_t* gain = <const arith_t*> job.call.gain.data
    cdef arith_t factor = gain[0] if job.call.gain.size == 1 else 1
    cdef int64_t nse = network.indices.size, n_other = network.n_other, count = job.rows.count, added = 0
    cdef int64_t begins[ROWS_AHEAD]  # of this thread's part of the coming rows
    cdef int64_t tick, coming, begin, end, part, fetched, looks = LOOK
    if job.copies:
        copy_rows(job, weight, indices, gain, start, stop)
        return
    start, stop = start * LINE, min(stop * LINE, n_other)
    cdef double place = <double> start / max(n_other, 1), share = <double> (stop - start) / max(n_other, 1)
    part = <int64_t> (share * (job.rows.elements // count)) + 1  # of an average row
    cdef int64_t ahead = min(AHEAD, part // 4), far = max(2, min(AHEAD // part, ROWS_AHEAD)), near = far // 2
    if job.clears:
        memset(&out[start], 0, (stop - start) * sizeof(arith_t))
    if job.targets != NULL:
        add_copies(<const index_t*> job.targets, <const arith_t*> job.products, out, job.rows.elements)
        return
    # Three walks: the first fetches, the second finds where a part begins (and fetches its weights), the third adds.
    for tick in range(count + far):
        if tick < count:
            begin = row[tick].begin + <int64_t> (place * (row[tick + 1].before - row[tick].before))
            fetched = begin + min(AHEAD, <int64_t> (share * (row[tick + 1].before - row[tick].before)))
            begin = max(row[tick].begin, begin - WINDOW // 2 if start else begin)
            prefetch_lines(indices, begin, fetched, 0)
            if network.permuted:
                prefetch_lines(slots, begin, fetched, 0)
            elif not network.shared:
                prefetch_lines(weight, begin, fetched, 0)
        coming = tick + near - far
        if 0 <= coming < count:
            begin, end = row[coming].begin, row[coming].begin + row[coming + 1].before - row[coming].before
            if start > 0:
                begin = first_of(indices, begin, end, start, place)
            begins[coming % ROWS_AHEAD] = begin
            if network.permuted:
                for fetched in range(begin, min(begin + ahead, end)):
                    prefetch_at(weight, slots[fetched], 0)
        coming = tick - far
        if coming < 0:
            continue
        begin, end = begins[coming % ROWS_AHEAD], row[coming].begin + row[coming + 1].before - row[coming].before
        if job.call.gain.size > 1:
            factor = gain[row[coming].event]
        if network.permuted:
            added += propagate_run(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                   True, False)
        elif network.shared:
            added += propagate_run(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                   False, True)
        else:
            added += propagate_run(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                   False, False)
        if added >= looks:
            looks = added + LOOK
            if is_stopped(&network.pool):
                return
    add_and_get(&job.added, added)


include "variants.pxi"  # defines `task`


cdef inline bint looks_sorted(const index_t* indices, int64_t size) noexcept nogil:
    cdef int64_t k, falls = 0
    for k in range(1, size):
        falls += indices[k] < indices[k - 1]
    return falls == 0


cdef int64_t parts_for(const Network* network, const Rows* rows) noexcept nogil:
    """Into how many ranges of targets to divide a batch: no more than its rows' parts are worth, and 1 if unsorted."""
    cdef int64_t size = min(rows.row[1].before, SAMPLE), begin = rows.row[0].begin
    cdef int64_t lines = (network.n_other + LINE - 1) // LINE
    cdef int64_t parts = min(chunks_for(&network.pool, rows.elements, GRAIN, 1), rows.elements // (RUN * rows.count))
    if parts > 1 and network.indices.dtype == INT32 and not looks_sorted(
            <const int32_t*> network.indices.data + begin, size):
        return 1
    if parts > 1 and network.indices.dtype != INT32 and not looks_sorted(
            <const int64_t*> network.indices.data + begin, size):
        return 1
    return max(1, min(parts, lines))


cdef int64_t copiers_for(Job* job) noexcept nogil:
    """Into how many parts to divide a batch's rows to copy them, with memory for that; 1 if it would not pay.

    It does for short rows of what no cache holds. (The copying of rows that a cache holds, or long ones, took two cores
    twice the processor time of one that adds what it reads.)
    """
    cdef const Rows* rows = job.rows
    cdef const Network* network = &job.call.network
    cdef int arithmetic = 8 if network.weight.dtype == FLOAT64 else 4
    cdef int64_t chunks, room = (rows.elements + 1) // 2 * 2 * arithmetic  # the indices behind it are aligned
    if rows.elements > COPIED or rows.elements > SHORT * rows.count or network.indices.size < CACHED:
        return 1
    chunks = min(chunks_for(&network.pool, rows.elements + FETCH * rows.count, GRAIN, 2), rows.count)
    if chunks == 1:
        return 1
    free(job.memory)
    job.memory = <char*> malloc(rows.elements * itemsize(network.indices.dtype) + room)
    if job.memory == NULL:
        return 1
    job.products, job.targets = job.memory, job.memory + room
    return chunks


cdef Status propagate_in(Propagate* call, bint parallel) noexcept nogil:
    cdef Rows rows
    cdef Job job
    cdef Status status
    cdef int64_t n_out = call.network.n_other, parts, copiers
    job.call = call
    job.rows = &rows
    job.values = call.out
    job.clears = not call.adds
    job.memory = NULL
    status = first_batch(&call.network, &rows)
    while status == OK and rows.count:
        job.added, job.targets = 0, NULL
        parts = parts_for(&call.network, &rows) if parallel else 1
        copiers = copiers_for(&job) if parallel and parts == 1 else 1
        if copiers > 1:
            job.copies = True
            run_chunks(&call.network.pool, task, &job, rows.count, copiers)
            if job.added < rows.elements:
                status = BAD_ELEMENT
                break
        job.copies = False
        run_chunks(&call.network.pool, task, &job, (n_out + LINE - 1) // LINE, parts)
        job.clears = False
        if is_stopped(&call.network.pool):
            status = STOPPED
        else:
            status = next_batch(&call.network, &rows) if job.added == rows.elements else BAD_ELEMENT
    free(job.memory)
    forget(&rows)
    if job.clears:  # no row was found
        memset(call.out, 0, n_out * (8 if call.network.weight.dtype == FLOAT64 else 4))
    return status


cdef Status propagate(Propagate* call) noexcept nogil:
    if call.adds:  # which could not start all over
        return propagate_in(call, False)
    cdef Status status = propagate_in(call, True)
    return propagate_in(call, False) if status == BAD_ELEMENT else status
