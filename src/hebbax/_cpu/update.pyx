"""weight[slot(k)] = clip(weight[slot(k)] + gain[j] * trace[indices[k]]) for every element k of every spiking row j.

With a soft bound the change is scaled by a power of the distance to it, in units of the range between the bounds.

What must move per element: its index, its slot, its trace (in cache) and the cache line of its weight, there and back.
So the loop waits for scattered weights; prefetching them hides that, and the checks of the indices cost nothing.
"""

from libc.math cimport INFINITY, isnan
from libc.stdint cimport int64_t, uint64_t

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER, Soft, clip, distance, slope_of
from hebbax._cpu.buffers cimport (
    arith_t, hot_void, inline_int, inline_void, load, prefetch_at, prefetch_lines, store, weight_t,
)
from hebbax._cpu.powers cimport raise_all
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, CACHED, OK, PIECE, STOPPED, Piece, Rows, Status, Walk, first_batch, forget, index_t, next_batch,
    next_piece, set_status, walk_places, walk_rows,
)
from hebbax._cpu.threads cimport LOOK, chunks_for, is_stopped, run_chunks

cpdef enum:
    PIECES_AHEAD = 2         # pieces between a prefetch and the use
    POWERS = 16              # elements whose powers are taken at once
    RUN = 16                 # elements of a chunk's part of an average row, at least, if threads share out rows' places
    PLACES = 1 << 20         # of a row
    NEAR = 1 << 17           # traces that a core's own cache holds
    GRAIN = 16384            # elements that are worth another thread
    CLIP_GRAIN = 1 << 18     # the same for the full clip pass, which streams
    CLIP_BLOCK = 1024        # elements that the full clip pass looks at before it writes any (256: 1.15 times as long)
    CLIP_AHEAD = 4096        # and how far ahead it fetches what no cache holds: 1.1-2.1 times faster (cached: 0.8)


cdef Piece NOTHING = Piece(0, 0, 0)


cdef struct Job:
    Update* call
    Rows* rows
    void* values   # the trace
    bint clips     # whether this is the full clip pass
    bint by_place  # whether threads share out the places in every row, and not the rows
    Status status


cdef inline bint read_bounds(
    const Update* call, arith_t* low, arith_t* high, const weight_t** w_min, const weight_t** w_max
) noexcept nogil:
    """Set `low` and `high` to bounds that are one for all elements, `w_min` and `w_max` to those that are one for each.

    Return whether they take more than two comparisons: one for each, or NaN.
    """
    if call.w_min.size == 1:
        load(<const weight_t*> call.w_min.data, low)
    if call.w_min.size > 1:
        w_min[0] = <const weight_t*> call.w_min.data
    if call.w_max.size == 1:
        load(<const weight_t*> call.w_max.data, high)
    if call.w_max.size > 1:
        w_max[0] = <const weight_t*> call.w_max.data
    return w_min[0] != NULL or w_max[0] != NULL or isnan(low[0]) or isnan(high[0])


cdef inline void fetch_weight(
    const weight_t* weight, const weight_t* w_min, const weight_t* w_max, int64_t slot, bint general
) noexcept nogil:
    """Prefetch a weight, and its bounds if they are its own (without, these took 4 to 7 times as long)."""
    prefetch_at(weight, slot, 1)
    if general and w_min != NULL:
        prefetch_at(w_min, slot, 0)
    if general and w_max != NULL:
        prefetch_at(w_max, slot, 0)


cdef inline void read_own_bounds(
    const weight_t* w_min, const weight_t* w_max, int64_t slot, arith_t* low, arith_t* high
) noexcept nogil:
    """Those bounds of an element that are not one for all."""
    if w_min != NULL:
        load(&w_min[slot], low)
    if w_max != NULL:
        load(&w_max[slot], high)


cdef inline_int update_piece(
    Piece piece, Piece coming, weight_t* weight, const index_t* indices, const index_t* slots, const arith_t* trace,
    const arith_t* powers, uint64_t nse, uint64_t n_other, arith_t factor, arith_t low, arith_t high,
    const weight_t* w_min, const weight_t* w_max, Soft soft, bint permuted, bint general, int kind
) noexcept nogil:
    """Update a piece, prefetch the weights of the coming one, and return whether an index is out of range."""
    cdef bint far = n_other > NEAR
    cdef int64_t k, fetch = coming.begin
    cdef uint64_t slot, partner
    cdef arith_t x, change, bound = <arith_t> soft.bound, slope = <arith_t> soft.slope
    cdef int bad = False
    for k in range(piece.begin, piece.end):
        if permuted and fetch < coming.end:
            if kind != POWER:
                fetch_weight(weight, w_min, w_max, slots[fetch], general)
            if far:
                prefetch_at(trace, indices[fetch], 0)
            fetch += 1
        partner = indices[k]
        slot = slots[k] if permuted else k
        if slot >= nse or partner >= n_other:
            bad = True
            continue
        load(&weight[slot], &x)
        change = factor * trace[partner]
        if general:
            read_own_bounds(w_min, w_max, slot, &low, &high)
        if general and kind == LINEAR:
            bound, slope = high if soft.upper else low, <arith_t> slope_of(low, high, soft.upper, soft.ranged)
        if kind == LINEAR:
            change = change * distance(x, bound, slope, general)
        elif kind == POWER:
            change = change * powers[k - piece.begin]
        x = x + change
        if general and (isnan(low) or isnan(high)):
            x = clip(x, low, high)
        else:  # (in this form no branch)
            x = low if x < low else x
            x = high if x > high else x
        store(&weight[slot], x)
    for k in range(fetch, coming.end):
        if kind != POWER:
            fetch_weight(weight, w_min, w_max, slots[k], general)
        if far:
            prefetch_at(trace, indices[k], 0)
    return bad


cdef inline_void find_distances(
    arith_t* base, Piece piece, Piece coming, const weight_t* weight, const index_t* slots, uint64_t nse, arith_t low,
    arith_t high, const weight_t* w_min, const weight_t* w_max, Soft soft, bint permuted, bint general
) noexcept nogil:
    """The distance of each of a piece's weights to its soft bound, 0 where there is no such weight.

    Prefetches the coming one's weights, so that `update_piece` has but the traces left: evenly, memory is busier.
    """
    cdef int64_t k, fetch = coming.begin
    cdef uint64_t slot
    cdef arith_t x, bound = <arith_t> soft.bound, slope = <arith_t> soft.slope
    for k in range(piece.begin, piece.end):
        if permuted and fetch < coming.end:
            fetch_weight(weight, w_min, w_max, slots[fetch], general)
            fetch += 1
        slot = slots[k] if permuted else k
        base[k - piece.begin] = 0
        if slot >= nse:
            continue
        load(&weight[slot], &x)
        if general:
            read_own_bounds(w_min, w_max, slot, &low, &high)
            bound, slope = high if soft.upper else low, <arith_t> slope_of(low, high, soft.upper, soft.ranged)
        base[k - piece.begin] = distance(x, bound, slope, general)
    for k in range(fetch, coming.end):
        fetch_weight(weight, w_min, w_max, slots[k], general)


cdef inline_int update_by_powers(
    Piece piece, Piece coming, weight_t* weight, const index_t* indices, const index_t* slots, const arith_t* trace,
    uint64_t nse, uint64_t n_other, arith_t factor, arith_t low, arith_t high, const weight_t* w_min,
    const weight_t* w_max, Soft soft, bint permuted, bint general
) noexcept nogil:
    """As `update_piece`, but the powers of many distances are taken at once, by vectors.

    Of not too many: what is coming is fetched in between, or memory would rest while powers are taken.
    """
    cdef arith_t powers[POWERS]
    cdef Piece part = piece, fetched = coming
    cdef int bad = False
    while True:
        part.end = min(part.begin + POWERS, piece.end)
        fetched.end = min(fetched.begin + POWERS, coming.end) if part.end < piece.end else coming.end
        find_distances(powers, part, fetched, weight, slots, nse, low, high, w_min, w_max, soft, permuted, general)
        raise_all(powers, part.end - part.begin, <arith_t> soft.mu)
        bad |= update_piece(part, fetched, weight, indices, slots, trace, powers, nse, n_other, factor, low, high,
                            w_min, w_max, soft, permuted, general, POWER)
        if part.end == piece.end:
            return bad
        part.begin, fetched.begin = part.end, fetched.end


cdef hot_void update_span(
    Job* job, weight_t* weight, const index_t* indices, const arith_t* trace, int64_t start, int64_t stop
) noexcept nogil:
    """Update a part of the batch: elements `start` to `stop`, or these places out of `PLACES` in every row."""
    cdef const Update* call = job.call
    cdef const index_t* slots = <const index_t*> call.network.slots.data
    cdef const arith_t* gain = <const arith_t*> call.gain.data
    cdef bint permuted = call.network.permuted
    cdef uint64_t nse = call.network.indices.size, n_other = call.network.n_other
    cdef const weight_t *w_min = NULL
    cdef const weight_t *w_max = NULL
    cdef arith_t low = -INFINITY, high = INFINITY, factor = 1
    cdef bint general = read_bounds(call, &low, &high, &w_min, &w_max)
    cdef bint ranged = call.w_min.size and call.w_max.size
    cdef double slope = slope_of(low, high, call.upper, ranged)
    cdef Soft soft = Soft(call.upper, ranged, high if call.upper else low, slope, call.mu)
    cdef int kind = HARD
    cdef int bad = False
    cdef int64_t tick = 0
    if call.gain.size == 1:
        factor = gain[0]
    if call.soft:
        kind = LINEAR if call.mu == 1 else POWER
        general = general or soft.slope == 0
    cdef Walk far, near, here
    cdef Piece piece, coming
    # Three walks, a few pieces apart: the first fetches indices, the second the weights they name, the third updates.
    if job.by_place:
        walk_places(&here, job.rows, <double> start / PLACES, <double> stop / PLACES)
    else:
        walk_rows(&here, job.rows, start, stop)
    far = near = here
    while True:
        piece = next_piece(&far)
        prefetch_lines(indices, piece.begin, piece.end, 0)
        if permuted:
            prefetch_lines(slots, piece.begin, piece.end, 0)
        else:
            prefetch_lines(weight, piece.begin, piece.end, 1)
            if w_min != NULL:
                prefetch_lines(w_min, piece.begin, piece.end, 0)
            if w_max != NULL:
                prefetch_lines(w_max, piece.begin, piece.end, 0)
        coming = next_piece(&near) if permuted and tick >= PIECES_AHEAD else NOTHING
        if here.step == here.steps or (tick % (LOOK // PIECE) == 0 and is_stopped(&call.network.pool)):
            break
        piece = next_piece(&here) if tick >= 2 * PIECES_AHEAD else NOTHING
        tick += 1
        if call.gain.size > 1:
            factor = gain[piece.event]
        # What is constant in a call is constant in the code of its branch.
        if kind == POWER:
            if general:
                bad |= update_by_powers(piece, coming, weight, indices, slots, trace, nse, n_other, factor, low, high,
                                        w_min, w_max, soft, permuted, True)
            elif permuted:
                bad |= update_by_powers(piece, coming, weight, indices, slots, trace, nse, n_other, factor, low, high,
                                        w_min, w_max, soft, True, False)
            else:
                bad |= update_by_powers(piece, coming, weight, indices, slots, trace, nse, n_other, factor, low, high,
                                        w_min, w_max, soft, False, False)
        elif general and kind == LINEAR:
            bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                w_min, w_max, soft, permuted, True, LINEAR)
        elif kind == LINEAR:
            if permuted:
                bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                    w_min, w_max, soft, True, False, LINEAR)
            else:
                bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                    w_min, w_max, soft, False, False, LINEAR)
        elif general:
            if permuted:
                bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                    w_min, w_max, soft, True, True, HARD)
            else:
                bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                    w_min, w_max, soft, False, True, HARD)
        elif permuted:
            bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                w_min, w_max, soft, True, False, HARD)
        else:
            bad |= update_piece(piece, coming, weight, indices, slots, trace, NULL, nse, n_other, factor, low, high,
                                w_min, w_max, soft, False, False, HARD)
    if bad:
        set_status(&job.status, BAD_ELEMENT)


cdef inline_int moves_any(
    const weight_t* weight, const weight_t* w_min, const weight_t* w_max, arith_t low, arith_t high, int64_t start,
    int64_t stop, bint own_low, bint own_high
) noexcept nogil:
    """Whether a bound moves any of `weight[start:stop]`, or is NaN.

    Without a branch, so that vectors do it: with bounds of each weight, branches took 10 times as long at 1.6 million
    weights and 27 times at 10^5. As measured on one thread, XLA's clip, which also writes all, then takes 1.0 and 3.4
    times as long as this, and with bounds of all weights 1.0 and 0.9 times (1.3 at 10^7).
    """
    cdef int64_t k
    cdef arith_t x
    cdef int moves = False
    for k in range(start, stop):
        load(&weight[k], &x)
        if own_low:
            load(&w_min[k], &low)
        if own_high:
            load(&w_max[k], &high)
        moves |= (x < low) | (x > high) | (low != low) | (high != high)
    return moves


cdef hot_void clip_span(const Update* call, weight_t* weight, arith_t low, int64_t start, int64_t stop) noexcept nogil:
    """Clip all of `weight[start:stop]`; it is read whole, but only what moves is written."""
    cdef const weight_t *w_min = NULL
    cdef const weight_t *w_max = NULL
    cdef arith_t high = INFINITY, x
    cdef bint moves
    cdef int64_t k, end
    read_bounds(call, &low, &high, &w_min, &w_max)
    while start < stop:
        end = min(start + CLIP_BLOCK, stop)
        if end // LOOK != start // LOOK and is_stopped(&call.network.pool):
            return
        if call.network.weight.size > CACHED:
            prefetch_lines(weight, end + CLIP_AHEAD, end + CLIP_AHEAD + CLIP_BLOCK, 0)
        # What is constant in a call is constant in the code of its branch.
        if w_min != NULL and w_max != NULL:
            moves = moves_any(weight, w_min, w_max, low, high, start, end, True, True)
        elif w_min != NULL:
            moves = moves_any(weight, w_min, w_max, low, high, start, end, True, False)
        elif w_max != NULL:
            moves = moves_any(weight, w_min, w_max, low, high, start, end, False, True)
        else:
            moves = moves_any(weight, w_min, w_max, low, high, start, end, False, False)
        if moves:
            for k in range(start, end):
                load(&weight[k], &x)
                if w_min != NULL:
                    load(&w_min[k], &low)
                if w_max != NULL:
                    load(&w_max[k], &high)
                if x < low or x > high or isnan(low) or isnan(high):
                    store(&weight[k], clip(x, low, high))
        start = end


cdef inline void span(
    Job* job, weight_t* weight, const index_t* indices, const arith_t* trace, int64_t start, int64_t stop
) noexcept nogil:
    if job.clips:
        clip_span(job.call, weight, <arith_t> -INFINITY, start, stop)
    else:
        update_span(job, weight, indices, trace, start, stop)


include "variants.pxi"  # defines `task`


cpdef bint by_places(int64_t chunks, bint permuted, int64_t nse, int64_t rows, int64_t elements) noexcept nogil:
    """Whether threads should each take a part of every row, which lie in distant parts of `weight`, and not some rows.

    Then threads seldom write to the same cache lines (2 threads on 10^5 of 10^6 weights: 1.5 instead of 1.06 times as
    fast as one). But where most lines of a large `weight` are touched, what one thread has fetched the other finds in
    the cache if they share out the rows (on 10^6 of 10^7 weights: 1.7 instead of 1.3). Contiguous rows share no lines.
    """
    if chunks == 1 or not permuted or elements < rows * chunks * RUN:
        return False
    return nse < CACHED or elements < nse // 16


cdef Status update(Update* call) noexcept nogil:
    """Update the weight in place; what it holds after a status other than OK is unspecified."""
    cdef Rows rows
    cdef Job job
    cdef int64_t chunks
    job.call = call
    job.rows = &rows
    job.values = call.trace.data
    job.clips = False
    job.status = first_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        chunks = chunks_for(&call.network.pool, rows.elements, GRAIN, 2)
        job.by_place = by_places(
            chunks, call.network.permuted, call.network.weight.size, rows.count, rows.elements)
        run_chunks(&call.network.pool, task, &job, PLACES if job.by_place else rows.elements, chunks)
        if is_stopped(&call.network.pool):
            job.status = STOPPED
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    forget(&rows)
    if job.status == OK and call.clip_all:
        chunks = chunks_for(&call.network.pool, call.network.weight.size, CLIP_GRAIN, 8)
        job.clips = True
        run_chunks(&call.network.pool, task, &job, call.network.weight.size, chunks)
        if is_stopped(&call.network.pool):
            job.status = STOPPED
    return job.status
