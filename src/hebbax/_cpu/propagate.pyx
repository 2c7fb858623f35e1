"""out[indices[k]] += gain[j] * weight[slot(k)] for every element k of every spiking row j.

Every target is summed in the order of the rows, whatever the number of threads: a thread owns a range of targets. In a
sorted row its elements are a run, whose ends are searched for. Should a thread then meet a target that is not its own,
or should an element be left to nobody, the rows are not sorted (or an index is bad), and one thread starts all over.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from hebbax._cpu.buffers cimport (
    FLOAT64, arith_t, hot_void, inline_int, load, prefetch, prefetch_lines, weight_t,
)
from hebbax._cpu.rows cimport BAD_ELEMENT, OK, Rows, Status, index_t, next_batch
from hebbax._cpu.threads cimport add_and_get, chunks_for, run_chunks

cdef enum:
    AHEAD = 128         # elements between a prefetch and the use, at most
    GRAIN = 131072      # elements that are worth another thread
    NEXT_ROW = 96       # elements of the next row that are fetched while this one is summed
    SEARCH = 1024       # and splitting a row costs: with rows of 1000, two threads were no faster than one


cdef struct Job:
    Propagate* call
    Rows* rows
    void* values   # the sums
    Status status
    int64_t added  # elements


cdef inline int64_t search(
    const index_t* indices, int64_t begin, int64_t end, int64_t target, int64_t n_other
) noexcept nogil:
    """Where `target` would go in the sorted `indices[begin:end]`.

    It is sought from where it would be in an even row, in strides that double: that touches few cache lines.
    """
    cdef int64_t low = begin, high = end, stride = 8
    cdef int64_t middle = begin + <int64_t> (<double> (end - begin) * target / n_other)
    while low < high:
        if indices[middle] < target:
            low = middle + 1
            middle = min(low + stride, (low + high) // 2)
        else:
            high = middle
            middle = max(high - stride, (low + high) // 2)
        stride *= 2
    return low


cdef inline_int propagate_row(
    const weight_t* weight, const index_t* indices, const index_t* slots, arith_t* out, int64_t begin, int64_t end,
    int64_t start, uint64_t size, uint64_t nse, int64_t ahead, arith_t factor, bint permuted,
    bint shared
) noexcept nogil:
    """Add up a run of elements whose targets are `start` and the `size` next; return whether an index is not so."""
    cdef int64_t k
    cdef uint64_t slot
    cdef arith_t x
    cdef int bad = False
    if shared:
        load(weight, &x)
    for k in range(begin, end):
        slot = slots[k] if permuted else k
        if permuted:
            prefetch(&weight[slots[k + ahead if k + ahead < <int64_t> nse else k]], 0)
        if <uint64_t> (indices[k] - start) >= size or slot >= nse:
            bad = True
            continue
        if not shared:
            load(&weight[slot], &x)
        out[indices[k]] += factor * x
    return bad


cdef hot_void span(
    Job* job, const weight_t* weight, const index_t* indices, arith_t* out, int64_t start, int64_t stop
) noexcept nogil:
    """Add up the batch's elements whose targets lie in `start` to `stop`."""
    cdef const Network* network = &job.call.network
    cdef const Rows* rows = job.rows
    cdef const index_t* slots = <const index_t*> network.slots.data
    cdef const arith_t* gain = <const arith_t*> job.call.gain.data
    cdef arith_t factor = gain[0] if job.call.gain.size == 1 else 1
    cdef int64_t ahead = min(AHEAD, rows.elements // (4 * rows.count))
    cdef int64_t nse = network.indices.size, n_other = network.n_other, added = 0, row, begin, end, following
    cdef int bad = False
    for row in range(rows.count):
        begin = rows.row[row].begin
        end = begin + rows.row[row + 1].before - rows.row[row].before
        if row + 1 < rows.count:
            following = rows.row[row + 1].begin  # about where this thread's elements begin in the next row
            following += (rows.row[row + 2].before - rows.row[row + 1].before) * start // max(n_other, 1)
            prefetch_lines(indices, following, following + NEXT_ROW, 0)
            if network.permuted:
                prefetch_lines(slots, following, following + NEXT_ROW, 0)
            elif not network.shared:
                prefetch_lines(weight, following, following + NEXT_ROW, 0)
        if stop < n_other:
            end = search(indices, begin, end, stop, n_other)
        if start > 0:
            begin = search(indices, begin, end, start, n_other)
        added += end - begin
        if job.call.gain.size > 1:
            factor = gain[rows.row[row].event]
        if network.permuted:
            bad |= propagate_row(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                 True, False)
        elif network.shared:
            bad |= propagate_row(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                 False, True)
        else:
            bad |= propagate_row(weight, indices, slots, out, begin, end, start, stop - start, nse, ahead, factor,
                                 False, False)
    add_and_get(&job.added, added)
    if bad:
        job.status = BAD_ELEMENT


include "variants.pxi"  # defines `task`


cdef Status propagate_in(Propagate* call, bint parallel) noexcept nogil:
    cdef Rows rows
    cdef Job job
    cdef int64_t n_out = call.network.n_other, chunks
    if not call.adds:
        memset(call.out, 0, n_out * (8 if call.network.weight.dtype == FLOAT64 else 4))
    rows.next_event = rows.next_list = 0
    job.call = call
    job.rows = &rows
    job.values = call.out
    job.status = next_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        job.added = 0
        chunks = chunks_for(&call.network.pool, rows.elements - SEARCH * rows.count, GRAIN, 1) if parallel else 1
        run_chunks(&call.network.pool, task, &job, n_out, max(1, min(chunks, n_out)))
        if job.added < rows.elements:
            job.status = BAD_ELEMENT
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    return job.status


cdef Status propagate(Propagate* call) noexcept nogil:
    if call.adds:  # which could not start all over
        return propagate_in(call, False)
    cdef Status status = propagate_in(call, True)
    return propagate_in(call, False) if status == BAD_ELEMENT else status
