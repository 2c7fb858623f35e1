"""weight[slot(k)] = clip(weight[slot(k)] + gain[j] * trace[indices[k]]) for every element k of every spiking row j.

What must move per element: its index, its slot, its trace (in cache) and the cache line of its weight, there and back.
So the loop waits for scattered weights; prefetching them hides that, and the checks of the indices cost nothing.
"""

from libc.math cimport INFINITY, isnan
from libc.stdint cimport int32_t, int64_t, uint64_t

from hebbax._cpu.buffers cimport (
    BFLOAT16, FLOAT16, FLOAT32, INT32, Buffer, arith_t, bfloat16, float16, hot_void, load, prefetch, store, weight_t,
)
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, OK, Piece, Rows, Status, Walk, index_t, next_batch, next_piece, start_walk,
)
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    PIECES_AHEAD = 4         # pieces between a prefetch and the use
    GRAIN = 16384            # elements that are worth another thread
    CLIP_GRAIN = 1 << 18     # the same for the full clip pass, which streams
    CLIP_BLOCK = 256         # elements that the full clip pass looks at before it writes any


cdef struct Job:
    Update* call
    Rows* rows
    Status status


cdef inline arith_t clip(arith_t x, arith_t low, arith_t high) noexcept nogil:
    """`jnp.clip`: NaN in any argument gives NaN, and `high` wins."""
    x = low if x < low or isnan(low) else x
    return high if x > high or isnan(high) else x


cdef inline int64_t read_bound(const Buffer* bound, weight_t* weight, arith_t* scalar, weight_t** values) noexcept nogil:
    """Set `scalar` or `values` and return the stride (0 or 1) that reads a bound given as none, one or many."""
    values[0] = <weight_t*> bound.data
    if bound.size == 1:
        load(values[0], scalar)
    return bound.size > 1


cdef hot_void update_span(
    Job* job, weight_t* weight, const index_t* indices, const arith_t* trace, int64_t start, int64_t stop
) noexcept nogil:
    """Update elements `start` to `stop` of the batch."""
    cdef const Update* call = job.call
    cdef const index_t* slots = <const index_t*> call.network.slots.data
    cdef const arith_t* gain = <const arith_t*> call.gain.data
    cdef bint permuted = call.network.permuted, gained = call.gain.size > 0, bad = False
    cdef uint64_t nse = call.network.indices.size, n_other = call.network.n_other, slot, partner
    cdef weight_t *w_min = NULL
    cdef weight_t *w_max = NULL
    cdef arith_t low = -INFINITY, high = INFINITY, factor, x
    cdef int64_t min_stride = read_bound(&call.w_min, weight, &low, &w_min)
    cdef int64_t max_stride = read_bound(&call.w_max, weight, &high, &w_max)
    cdef int64_t k, fetch
    cdef Walk ahead, here
    cdef Piece piece, coming
    start_walk(&here, job.rows, start, stop)
    ahead = here
    for k in range(PIECES_AHEAD):
        coming = next_piece(&ahead)
        for fetch in range(coming.begin, coming.end):
            prefetch(&weight[slots[fetch] if permuted else fetch], 1)
    piece = next_piece(&here)
    while piece.end > 0:
        coming = next_piece(&ahead)
        fetch = coming.begin
        factor = gain[piece.event] if gained else 1
        for k in range(piece.begin, piece.end):
            if fetch < coming.end:
                prefetch(&weight[slots[fetch] if permuted else fetch], 1)
                fetch += 1
            partner = indices[k]
            slot = slots[k] if permuted else k
            if slot < nse and partner < n_other:
                load(&weight[slot], &x)
                if min_stride:
                    load(&w_min[slot], &low)
                if max_stride:
                    load(&w_max[slot], &high)
                store(&weight[slot], clip(x + factor * trace[partner], low, high))
            else:
                bad = True
        while fetch < coming.end:
            prefetch(&weight[slots[fetch] if permuted else fetch], 1)
            fetch += 1
        piece = next_piece(&here)
    if bad:
        job.status = BAD_ELEMENT


cdef hot_void clip_span(const Update* call, weight_t* weight, arith_t low, int64_t start, int64_t stop) noexcept nogil:
    """Clip all of `weight[start:stop]`; it is read whole, but only what moves is written."""
    cdef weight_t *w_min = NULL
    cdef weight_t *w_max = NULL
    cdef arith_t high = INFINITY, x
    cdef int64_t min_stride = read_bound(&call.w_min, weight, &low, &w_min)
    cdef int64_t max_stride = read_bound(&call.w_max, weight, &high, &w_max)
    cdef bint always = min_stride or max_stride or isnan(low) or isnan(high), moves
    cdef int64_t k, end
    while start < stop:
        end = min(start + CLIP_BLOCK, stop)
        moves = always
        if not always:
            for k in range(start, end):
                load(&weight[k], &x)
                moves |= (x < low) | (x > high)
        if moves:
            for k in range(start, end):
                load(&weight[k], &x)
                if min_stride:
                    load(&w_min[k], &low)
                if max_stride:
                    load(&w_max[k], &high)
                if x < low or x > high or isnan(low) or isnan(high):
                    store(&weight[k], clip(x, low, high))
        start = end


cdef inline void update_typed(Job* job, weight_t* weight, arith_t* trace, int64_t start, int64_t stop) noexcept nogil:
    if job.call.network.indices.dtype == INT32:
        update_span(job, weight, <const int32_t*> job.call.network.indices.data, trace, start, stop)
    else:
        update_span(job, weight, <const int64_t*> job.call.network.indices.data, trace, start, stop)


cdef void update_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    cdef Job* job = <Job*> state
    cdef Buffer* weight = &job.call.network.weight
    cdef void* trace = job.call.trace.data
    if weight.dtype == FLOAT32:
        update_typed(job, <float*> weight.data, <float*> trace, start, stop)
    elif weight.dtype == FLOAT16:
        update_typed(job, <float16*> weight.data, <float*> trace, start, stop)
    elif weight.dtype == BFLOAT16:
        update_typed(job, <bfloat16*> weight.data, <float*> trace, start, stop)
    else:
        update_typed(job, <double*> weight.data, <double*> trace, start, stop)


cdef void clip_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    cdef Job* job = <Job*> state
    cdef Buffer* weight = &job.call.network.weight
    if weight.dtype == FLOAT32:
        clip_span(job.call, <float*> weight.data, <float> -INFINITY, start, stop)
    elif weight.dtype == FLOAT16:
        clip_span(job.call, <float16*> weight.data, <float> -INFINITY, start, stop)
    elif weight.dtype == BFLOAT16:
        clip_span(job.call, <bfloat16*> weight.data, <float> -INFINITY, start, stop)
    else:
        clip_span(job.call, <double*> weight.data, <double> -INFINITY, start, stop)


cdef Status update(Update* call) noexcept nogil:
    """Update the weight in place; what it holds after a status other than OK is unspecified."""
    cdef Rows rows
    cdef Job job
    cdef int64_t chunks
    rows.next_event = 0
    job.call = call
    job.rows = &rows
    job.status = next_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        chunks = chunks_for(&call.network.pool, rows.elements, GRAIN)
        run_chunks(&call.network.pool, update_task, &job, rows.elements, chunks)
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    if job.status == OK and call.clip_all:
        chunks = chunks_for(&call.network.pool, call.network.weight.size, CLIP_GRAIN)
        run_chunks(&call.network.pool, clip_task, &job, call.network.weight.size, chunks)
    return job.status
