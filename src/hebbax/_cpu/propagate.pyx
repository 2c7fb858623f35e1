"""out[indices[k]] += weight[slot(k)] for every element k of every spiking row.

Every target is summed in the order of the rows, whatever the number of threads: a thread owns a range of targets. Where
the indices of every row ascend, its elements of a row are a run, found by bisection; where a thread meets an index that
is not its own, the rows are not sorted (or the index is bad), and one thread starts all over.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from hebbax._cpu.buffers cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT32, Buffer, arith_t, bfloat16, float16, hot_void, load, prefetch, weight_t,
)
from hebbax._cpu.rows cimport BAD_ELEMENT, OK, Rows, Status, index_t, next_batch
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    AHEAD = 16          # elements between a prefetch and the use
    GRAIN = 32768       # elements that are worth another thread
    BISECTION = 64      # elements that splitting a row costs about as much as


cdef struct Job:
    Propagate* call
    Rows* rows
    Status status


cdef inline int64_t bisect(const index_t* indices, int64_t low, int64_t high, int64_t target) noexcept nogil:
    """Where `target` would go in `indices[low:high]`. If that is not sorted, a position that grows with `target`."""
    cdef int64_t middle
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low


cdef hot_void propagate_span(
    Job* job, const weight_t* weight, const index_t* indices, arith_t* out, int64_t start, int64_t stop
) noexcept nogil:
    """Add up the batch's elements whose targets lie in `start` to `stop`."""
    cdef const Network* network = &job.call.network
    cdef const Rows* rows = job.rows
    cdef const index_t* slots = <const index_t*> network.slots.data
    cdef bint permuted = network.permuted, bad = False
    cdef uint64_t nse = network.indices.size, slot, target
    cdef int64_t row, k, end, following
    cdef arith_t x
    for row in range(rows.count):
        k = rows.row[row].begin
        end = k + rows.row[row + 1].before - rows.row[row].before
        if start > 0:
            k = bisect(indices, k, end, start)
        if stop < network.n_other:
            end = bisect(indices, k, end, stop)
        while k < end:
            target = indices[k]
            slot = slots[k] if permuted else k
            if permuted and k + AHEAD < <int64_t> nse:
                prefetch(&weight[slots[k + AHEAD]], 0)
            if target - start < <uint64_t> (stop - start) and slot < nse:
                load(&weight[slot], &x)
                out[target] += x
            else:
                bad = True
            k += 1
    if bad:
        job.status = BAD_ELEMENT


cdef inline void propagate_typed(
    Job* job, const weight_t* weight, arith_t* out, int64_t start, int64_t stop
) noexcept nogil:
    if job.call.network.indices.dtype == INT32:
        propagate_span(job, weight, <const int32_t*> job.call.network.indices.data, out, start, stop)
    else:
        propagate_span(job, weight, <const int64_t*> job.call.network.indices.data, out, start, stop)


cdef void propagate_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    cdef Job* job = <Job*> state
    cdef const Buffer* weight = &job.call.network.weight
    if weight.dtype == FLOAT32:
        propagate_typed(job, <const float*> weight.data, <float*> job.call.out, start, stop)
    elif weight.dtype == FLOAT16:
        propagate_typed(job, <const float16*> weight.data, <float*> job.call.out, start, stop)
    elif weight.dtype == BFLOAT16:
        propagate_typed(job, <const bfloat16*> weight.data, <float*> job.call.out, start, stop)
    else:
        propagate_typed(job, <const double*> weight.data, <double*> job.call.out, start, stop)


cdef Status propagate_in(Propagate* call, bint parallel) noexcept nogil:
    cdef Rows rows
    cdef Job job
    cdef int64_t n_out = call.network.n_other, chunks
    memset(call.out, 0, n_out * (8 if call.network.weight.dtype == FLOAT64 else 4))
    rows.next_event = 0
    job.call = call
    job.rows = &rows
    job.status = next_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        chunks = chunks_for(&call.network.pool, rows.elements - BISECTION * rows.count, GRAIN) if parallel else 1
        run_chunks(&call.network.pool, propagate_task, &job, n_out, min(chunks, max(n_out, 1)))
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    return job.status


cdef Status propagate(Propagate* call) noexcept nogil:
    cdef Status status = propagate_in(call, True)
    return propagate_in(call, False) if status == BAD_ELEMENT else status
