"""Synapses that learn from pairs of spikes, each visited when its presynaptic neuron spikes, and not in between.

A postsynaptic spike has synapses in as many rows, whose weights and traces lie apart: two cache lines for each synapse.
Until its own row is visited nobody reads a weight, so that the spikes it has missed can wait until then. They are few,
and all of one thread's rows lead to the same neurons: their steps stay in a core's cache, and a row comes line by line.
In the same visit the presynaptic spike depresses the synapse, and is sent.

What must move per presynaptic spike: where its row is, its last step and trace, and the row's indices and weights.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER
from hebbax._cpu.buffers cimport hot_void, inline_void, prefetch_at
from hebbax._cpu.pieces cimport (
    PARTS, PIECE, RECENT, TOGETHER, Ahead, Job, Piece, Row, Sent, Visit, add_synapses, fetch, finish, row_of,
    trace_after,
)
from hebbax._cpu.powers cimport exp2_of
from hebbax._cpu.rows cimport (
    BAD_INDPTR, BAD_LISTS, OK, STOPPED, Status, list_of, rows_of, set_status, skip_silent,
)
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    GRAIN = 8192         # synapses that are worth another thread
    SPIKES = 1024        # presynaptic ones whose rows are worth another thread to find,
    SPIKES_AHEAD = 24    # and between a prefetch and the use
    LATEST = 65000       # a step that 16 bits hold


cdef inline int64_t row_with(const Job* job, int64_t element) noexcept nogil:
    """The row that has this one of all synapses."""
    cdef int64_t low = 0, high = job.count - 1, middle
    while low < high:
        middle = (low + high + 1) // 2
        if job.rows[middle].at <= element:
            low = middle
        else:
            high = middle - 1
    return low


cdef inline inline_void arrive(Job* job, int64_t start, int64_t stop, int up) noexcept nogil:
    cdef int64_t k = row_with(job, start), chunk = (start * job.chunks + job.elements - 1) // job.elements
    cdef const Row* row = &job.rows[k]
    cdef const Row* last = &job.rows[job.count]
    cdef int part, down = job.call.down.kind
    cdef Sent* sent[PARTS]
    cdef Ahead ahead = Ahead(row, start - row.at, start, min(start + PIECE, stop), stop)
    cdef Piece piece
    piece.count = piece.rows = 0
    for part in range(PARTS):
        sent[part] = job.sent + part * job.elements + start if job.sent != NULL else NULL
    fetch(job.call, &ahead, PIECE)
    ahead.limit = min(start + 2 * PIECE, stop)
    while row != last and row.at < stop:
        add_synapses(job, &piece, row[0], row.begin + max(start - row.at, <int64_t> 0),
                     row.begin + min(stop, row[1].at) - row.at, &ahead, sent, up, down)
        row += 1
    finish(job, &piece, &ahead, sent, up, down)
    if job.sent != NULL:
        for part in range(PARTS):
            job.counts[part * job.chunks + chunk] = sent[part] - (job.sent + part * job.elements + start)


cdef hot_void arrive_span(Job* job, int64_t start, int64_t stop) noexcept nogil:
    """Visit the batch's synapses `start` to `stop`."""
    if job.call.up.kind == POWER:  # (what is constant in a call is constant in the code of its branch)
        arrive(job, start, stop, POWER)
    elif job.call.up.kind == LINEAR:
        arrive(job, start, stop, LINEAR)
    else:
        arrive(job, start, stop, HARD)


cdef void arrive_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    arrive_span(<Job*> state, start, stop)


cdef inline inline_void settle_rows(Job* job, int64_t start, int64_t stop, int up) noexcept nogil:
    cdef const int32_t* indptr = <const int32_t*> job.call.network.indptr.data
    cdef int64_t j, nse = job.call.network.indices.size
    cdef Ahead ahead = Ahead(NULL, 0, 0, 0, 0)  # (memory sees what is coming by itself)
    cdef Piece piece
    piece.count = piece.rows = 0
    for j in range(start, stop):
        if indptr[j] < 0 or indptr[j + 1] < indptr[j] or indptr[j + 1] > nse:
            set_status(&job.status, BAD_INDPTR)
        elif indptr[j] < indptr[j + 1]:
            add_synapses(job, &piece, row_of(job.call, j), indptr[j], indptr[j + 1], &ahead, NULL, up, HARD)
    finish(job, &piece, &ahead, NULL, up, HARD)


cdef hot_void settle_span(Job* job, int64_t start, int64_t stop) noexcept nogil:
    """Let all synapses of neurons `start` to `stop` take what they have missed."""
    if job.call.up.kind == POWER:
        settle_rows(job, start, stop, POWER)
    elif job.call.up.kind == LINEAR:
        settle_rows(job, start, stop, LINEAR)
    else:
        settle_rows(job, start, stop, HARD)


cdef void settle_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    settle_span(<Job*> state, start, stop)


cdef void look_up(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Find rows of neurons that spike, whose sizes stand in `at` for now; write step and trace of the neurons."""
    cdef Job* job = <Job*> state
    cdef Visit* call = job.call
    cdef const int32_t* ids = job.spikes.ids
    cdef const int32_t* indptr = <const int32_t*> call.network.indptr.data
    cdef int64_t k, j, n_pre = call.network.indptr.size - 1, nse = call.network.indices.size, steps
    cdef double age
    cdef float trace
    for k in range(start, stop):
        if k + SPIKES_AHEAD < stop:
            prefetch_at(indptr, ids[k + SPIKES_AHEAD], 0)
            prefetch_at(call.rows, 2 * <int64_t> ids[k + SPIKES_AHEAD], 1)
        j = ids[k]
        if not 0 <= j < n_pre:
            set_status(&job.status, BAD_LISTS)
            continue
        if indptr[j] < 0 or indptr[j + 1] < indptr[j] or indptr[j + 1] > nse:
            set_status(&job.status, BAD_INDPTR)
            continue
        job.rows[k] = row_of(call, j)
        job.rows[k].begin, job.rows[k].at = indptr[j], indptr[j + 1] - indptr[j]
        steps = max(call.step - call.rows[2 * j], <int64_t> 0)
        age = call.decay * steps
        trace = <float> (trace_after(call, job.rows[k].trace) * exp2_of(-age if age < 300.0 else -300.0))
        call.rows[2 * j] = <int32_t> call.step
        memcpy(&call.rows[2 * j + 1], &trace, sizeof(float))


cdef Status find_rows(Job* job) noexcept nogil:
    """Find the rows of all neurons that spike, which may not overlap; leave out those without synapses."""
    cdef int64_t k, size, end = 0
    for k in range(1, job.spikes.count):
        if job.spikes.ids[k] <= job.spikes.ids[k - 1]:
            return BAD_LISTS
    run_chunks(&job.call.network.pool, look_up, job, job.spikes.count,
               chunks_for(&job.call.network.pool, job.spikes.count, SPIKES, 1))
    if job.status != OK:
        return job.status
    job.count = job.elements = 0
    for k in range(job.spikes.count):
        size = job.rows[k].at
        if job.rows[k].begin < end:
            return BAD_INDPTR
        end = job.rows[k].begin + size
        job.rows[job.count] = job.rows[k]
        job.rows[job.count].at = job.elements
        job.elements += size
        job.count += size > 0
    job.rows[job.count].at = job.elements
    return OK


cdef void add_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Add up what was sent to the neurons of some parts, in the order of the synapses, whoever has visited them."""
    cdef Job* job = <Job*> state
    cdef const Sent* sent
    cdef float* out = job.call.out
    cdef int64_t part, chunk, k
    for part in range(start, stop):
        for chunk in range(job.chunks):
            sent = job.sent + part * job.elements + job.elements * chunk // job.chunks
            for k in range(job.counts[part * job.chunks + chunk]):
                out[sent[k].post] += sent[k].weight


cdef Status settle(Visit* call, int64_t since) noexcept nogil:
    """Let all synapses take what they have missed, keep no spike, and count steps from another one."""
    cdef Job job
    cdef int64_t n_pre = call.network.indptr.size - 1
    cdef int64_t chunks = chunks_for(&call.network.pool, call.network.indices.size, GRAIN, 8)
    job.call, job.arrives, job.status = call, False, OK
    run_chunks(&call.network.pool, settle_task, &job, n_pre, min(chunks, max(n_pre, <int64_t> 1)))
    if call.network.n_other:
        memset(call.recent, 0, RECENT * call.network.n_other * sizeof(uint16_t))
    call.since[0] = <int32_t> since
    return job.status


cdef int64_t next_spike(const Visit* call, int64_t j) noexcept nogil:
    """The next postsynaptic neuron from `j` on that spikes."""
    cdef int64_t n = call.network.n_other
    while True:
        j = skip_silent(call.spike, j, n)
        if j >= n or call.spike[j]:
            return j
        j += 1


cdef Status keep(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes; where there is no room for one, all synapses take theirs first."""
    cdef int64_t n = call.network.n_other, first = next_spike(call, 0), j = first, k
    cdef int64_t late = call.spike_step - call.since[0]
    cdef bint full = late >= LATEST
    cdef uint16_t step, older
    cdef uint16_t* recent
    cdef Status status = OK
    if first >= n and late < LATEST:
        return OK
    if late < 0:
        return BAD_LISTS
    while j < n and not full:
        full = call.recent[(RECENT - TOGETHER) * n + TOGETHER * j + TOGETHER - 1] != 0
        j = next_spike(call, j + 1)
    if full:
        status = settle(call, call.spike_step)
    step = <uint16_t> (call.spike_step - call.since[0] + 1)
    j = first
    while j < n:
        recent, older = call.recent + TOGETHER * j, step
        while older:
            for k in range(TOGETHER):
                recent[k], older = older, recent[k]
            recent += TOGETHER * n
        j = next_spike(call, j + 1)
    return status


cdef void visit_rows(Job* job) noexcept nogil:
    """Visit the rows, and add up what they send."""
    cdef Visit* call = job.call
    cdef int64_t n_post = call.network.n_other
    job.chunks = chunks_for(&call.network.pool, job.elements, GRAIN, 2)
    if job.chunks > 1:
        job.sent = <Sent*> malloc(PARTS * (job.elements * sizeof(Sent) + job.chunks * sizeof(int64_t)))
    if job.sent == NULL:  # one thread then needs no memory
        job.chunks = 1
    else:
        job.counts = <int64_t*> (job.sent + PARTS * job.elements)
        memset(job.counts, 0, PARTS * job.chunks * sizeof(int64_t))  # (a chunk may be all, where memory ends)
        while n_post - 1 >> job.shift >= PARTS:
            job.shift += 1
    run_chunks(&call.network.pool, arrive_task, job, job.elements, job.chunks)
    if job.sent != NULL and job.status == OK:
        run_chunks(&call.network.pool, add_task, job, PARTS, PARTS)
    free(job.sent)


cdef Status visit(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes, then visit the synapses of the presynaptic ones, or all."""
    cdef Job job
    cdef Status status = keep(call)
    if call.network.n_other:
        memset(call.out, 0, call.network.n_other * sizeof(float))
    if status != OK or call.all:
        return settle(call, call.step) if status == OK else status
    if call.network.indptr.size != rows_of(&call.network.lists) + 1:
        return BAD_LISTS
    job.call, job.arrives, job.status, job.sent, job.shift = call, True, OK, NULL, 0
    job.spikes = list_of(&call.network.lists, 0)
    job.rows = <Row*> malloc((job.spikes.count + 1) * sizeof(Row))
    if job.rows == NULL:
        return STOPPED
    job.status = find_rows(&job)
    if job.status == OK and job.elements:
        visit_rows(&job)
    free(job.rows)
    return job.status


def most_recent():
    """How many spikes of a postsynaptic neuron are kept."""
    return RECENT
