"""out[j] = the sum of weight[slot(k)] * trace[indices[k]] over every element k of the spiking row j; 0 for other rows.

It is what `update` and `propagate` are transposed by with respect to their gain. Every row is summed in the order of
its elements, whatever the number of threads, which share out whole rows.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from hebbax._cpu.buffers cimport (
    FLOAT64, arith_t, hot_void, inline_int, load, prefetch_at, prefetch_lines, weight_t,
)
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, OK, PIECE, STOPPED, Piece, Rows, Status, Walk, first_batch, forget, index_t, next_batch, next_piece,
    set_status, walk_rows,
)
from hebbax._cpu.threads cimport LOOK, chunks_for, is_stopped, run_chunks

cdef enum:
    AHEAD = 64     # elements between a prefetch and the use
    GRAIN = 32768  # elements that are worth another thread


cdef struct Job:
    Collect* call
    Rows* rows
    void* values  # the sums
    Status status


cdef inline_int collect_piece(
    Piece piece, const weight_t* weight, const index_t* indices, const index_t* slots, const arith_t* trace,
    arith_t* total, uint64_t nse, uint64_t n_other, bint permuted, bint shared
) noexcept nogil:
    """Add a piece to its row's total; return whether an index is out of range."""
    cdef int64_t k
    cdef uint64_t slot, partner
    cdef arith_t x, sum = total[0]
    cdef int bad = False
    if shared:
        load(weight, &x)
    for k in range(piece.begin, piece.end):
        if permuted:
            prefetch_at(weight, slots[k + AHEAD if k + AHEAD < <int64_t> nse else k], 0)
        partner = indices[k]
        slot = slots[k] if permuted else k
        if slot >= nse or partner >= n_other:
            bad = True
            continue
        if not shared:
            load(&weight[slot], &x)
        sum = sum + x * trace[partner]
    total[0] = sum
    return bad


cdef hot_void span(
    Job* job, const weight_t* weight, const index_t* indices, arith_t* out, int64_t start, int64_t stop
) noexcept nogil:
    """Sum the batch's rows `start` to `stop`."""
    cdef const Collect* call = job.call
    cdef const index_t* slots = <const index_t*> call.network.slots.data
    cdef const arith_t* trace = <const arith_t*> call.trace.data
    cdef uint64_t nse = call.network.indices.size, n_other = call.trace.size
    cdef int bad = False
    cdef int64_t tick = 0
    cdef Walk far, here
    cdef Piece piece
    walk_rows(&here, job.rows, job.rows.row[start].before, job.rows.row[stop].before)
    far = here
    piece = next_piece(&far)
    while here.step < here.steps:
        if tick % (LOOK // PIECE) == 0 and is_stopped(&call.network.pool):
            return
        tick += 1
        piece = next_piece(&far)
        prefetch_lines(indices, piece.begin, piece.end, 0)
        if call.network.permuted:
            prefetch_lines(slots, piece.begin, piece.end, 0)
        piece = next_piece(&here)
        if call.network.permuted:
            bad |= collect_piece(piece, weight, indices, slots, trace, &out[piece.event], nse, n_other, True,
                                 False)
        elif call.network.shared:
            bad |= collect_piece(piece, weight, indices, slots, trace, &out[piece.event], nse, n_other, False,
                                 True)
        else:
            bad |= collect_piece(piece, weight, indices, slots, trace, &out[piece.event], nse, n_other, False,
                                 False)
    if bad:
        set_status(&job.status, BAD_ELEMENT)


include "variants.pxi"  # defines `task`


cdef Status collect(Collect* call) noexcept nogil:
    cdef Rows rows
    cdef Job job
    cdef int64_t chunks
    memset(call.out, 0, (call.network.indptr.size - 1) * (8 if call.network.weight.dtype == FLOAT64 else 4))
    job.call = call
    job.rows = &rows
    job.values = call.out
    job.status = first_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        chunks = min(chunks_for(&call.network.pool, rows.elements, GRAIN, 4), rows.count)
        run_chunks(&call.network.pool, task, &job, rows.count, chunks)
        if is_stopped(&call.network.pool):
            job.status = STOPPED
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    forget(&rows)
    return job.status
