"""Synapses that learn from pairs of spikes, each visited when its presynaptic neuron spikes, and not in between.

A postsynaptic spike has synapses in as many rows, whose weights and traces lie apart: two cache lines for each synapse.
Until its own row is visited nobody reads a weight, so that the spikes it has missed can wait until then. They are few,
and all of one thread's rows lead to the same neurons: their steps stay in a core's cache, and a row comes line by line.
In the same visit the presynaptic spike depresses the synapse, and is sent.

What must move per presynaptic spike: where its row is, its last step and trace, and the row's indices and weights.

Of a piece of up to 128 synapses, those that have missed a spike are listed, among these those that have missed another
one before that, and so on. Then lists are worked off from the last one to the first, each by vectors: so every synapse
takes its spikes in their order. It takes the same ones whoever visits it, and in whatever piece.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER, distance
from hebbax._cpu.buffers cimport hot_void, inline_void, prefetch_at, prefetch_lines
from hebbax._cpu.powers cimport exp2_of, raise_and_fade
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, BAD_INDPTR, BAD_LISTS, OK, STOPPED, List, Row, Rows, Status, first_batch, forget, list_of, next_batch,
    set_status, skip_silent,
)
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    PIECE = 256      # synapses that are visited together: a multiple of
    LANES = 16       # numbers of the largest vectors
    GRAIN = 8192     # synapses that are worth another thread
    ROWS_AHEAD = 12  # between a prefetch and the use
    AHEAD = 256      # synapses of them, at most
    SPIKES = 2048    # whose traces are worth another thread
    PARTS = 4        # of the neurons, for each of which one thread adds up what is sent
    NEVER = -(1 << 30)   # a step
    LATEST = 65000       # a step that 16 bits hold


cdef struct Piece:
    int64_t count
    int32_t post[PIECE]
    float weight[PIECE]
    uint16_t row[PIECE]       # which of these:
    int64_t rows
    int64_t begin[PIECE]      # first synapse,
    int64_t size[PIECE]       # and how many there are,
    int32_t before[PIECE]     # step of the presynaptic spike before,
    int32_t first[PIECE]      # and of the first postsynaptic one that can have been missed
    float trace[PIECE]        # presynaptic trace before the former,
    float more[PIECE]         # and after it
    uint16_t missed[(RECENT + 1) * PIECE]  # synapses that have missed a spike, then those that missed another one
    uint16_t step[(RECENT + 1) * PIECE]    # when that was


# What a synapse sends.
cdef struct Sent:
    int32_t post
    float weight


cdef struct Job:
    Visit* call
    Rows* rows
    List spikes
    bint arrives      # whether spikes do
    int64_t chunks    # into which the batch's synapses are divided
    int shift         # of a neuron's number, by which chunks divide what they send into parts
    Sent* sent        # by parts, and within each as synapses are; NULL: there is one chunk, which adds it up itself
    int64_t* counts   # how many each chunk has sent to each part
    Status status


cdef inline float trace_before(const Visit* call, int64_t j) noexcept nogil:
    cdef float trace
    memcpy(&trace, &call.rows[2 * j + 1], sizeof(float))
    return trace


cdef inline float trace_after(const Visit* call, float before) noexcept nogil:
    return 0 if before < 0 else 1 if call.sets else before + 1


cdef inline inline_void potentiate(
    const Visit* call, Piece* piece, int64_t first, int64_t count, int kind
) noexcept nogil:
    """Let listed synapses take the spikes that are listed with them."""
    cdef float base[PIECE]
    cdef float amount[PIECE]
    cdef float age[PIECE]
    cdef float factor = call.up.factor, decay = <float> call.decay, low = call.low, high = call.high, x
    cdef float bound = <float> call.up.soft.bound, slope = <float> call.up.soft.slope
    cdef const uint16_t* missed = piece.missed + first
    cdef const uint16_t* step = piece.step + first
    cdef int64_t k, whole
    cdef int32_t row, steps
    for k in range(count):
        row = piece.row[missed[k]]
        steps = <int32_t> step[k] - piece.before[row]
        age[k] = decay * steps
        amount[k] = factor * (piece.more[row] if steps else piece.trace[row])
        base[k] = 1 if kind == HARD else distance(piece.weight[missed[k]], bound, slope, False)
    whole = (count + LANES - 1) // LANES * LANES
    for k in range(count, whole):  # (so that vectors do it all)
        base[k], age[k] = 1, 0
    raise_and_fade(base, age, whole, <float> call.up.soft.mu, kind == POWER)
    for k in range(count):
        x = piece.weight[missed[k]] + amount[k] * base[k]
        x = low if x < low else x
        piece.weight[missed[k]] = high if x > high else x


cdef inline inline_void take_missed(const Visit* call, Piece* piece, int kind) noexcept nogil:
    """Let all synapses of the piece take what they have missed."""
    cdef int64_t starts[RECENT + 2]
    cdef const uint16_t* recent = call.recent
    cdef int64_t k, count = 0, last, n_post = call.network.n_other
    cdef int level = 0
    cdef uint16_t step
    for k in range(piece.count):
        step = recent[piece.post[k]]
        piece.missed[count], piece.step[count] = <uint16_t> k, step
        count += <int32_t> step >= piece.first[piece.row[k]]
    starts[0], starts[1] = 0, count
    while starts[level] < count and level + 1 < RECENT:
        last = count
        level += 1
        recent += n_post
        for k in range(starts[level - 1], last):
            step = recent[piece.post[piece.missed[k]]]
            piece.missed[count], piece.step[count] = piece.missed[k], step
            count += <int32_t> step >= piece.first[piece.row[piece.missed[k]]]
        starts[level + 1] = count
    while level >= 0:
        potentiate(call, piece, starts[level], starts[level + 1] - starts[level], kind)
        level -= 1


cdef inline inline_void depress(const Visit* call, Piece* piece, int kind) noexcept nogil:
    """Let all synapses of the piece take the spike that arrives."""
    cdef float base[PIECE]
    cdef float age[PIECE]
    cdef float factor = call.down.factor, low = call.low, high = call.high, x
    cdef float bound = <float> call.down.soft.bound, slope = <float> call.down.soft.slope
    cdef int64_t k, count = piece.count
    if kind == POWER:
        for k in range(count):
            base[k], age[k] = distance(piece.weight[k], bound, slope, False), 0
        raise_and_fade(base, age, count, <float> call.down.soft.mu, True)
    for k in range(count):
        x = factor * call.trace[piece.post[k]]
        if kind == LINEAR:
            x *= distance(piece.weight[k], bound, slope, False)
        elif kind == POWER:
            x *= base[k]
        x += piece.weight[k]
        x = low if x < low else x
        piece.weight[k] = high if x > high else x


cdef inline inline_void send(Job* job, const Piece* piece, Sent** sent) noexcept nogil:
    """Let neurons receive what the piece's synapses are: add it, or hand it on, the neighbours' to one part."""
    cdef int64_t k
    cdef int32_t post
    cdef float* out = job.call.out
    cdef Sent* place
    if job.sent == NULL:
        for k in range(piece.count):
            out[piece.post[k]] += piece.weight[k]
        return
    for k in range(piece.count):
        post = piece.post[k]
        place = sent[post >> job.shift]
        place.post, place.weight = post, piece.weight[k]
        sent[post >> job.shift] = place + 1


cdef inline inline_void finish(Job* job, Piece* piece, Sent** sent, int up, int down) noexcept nogil:
    """Do with a piece of synapses all that is to be done, and empty it."""
    cdef const Visit* call = job.call
    cdef float* weight = <float*> call.network.weight.data
    cdef int64_t row, at = 0
    take_missed(call, piece, up)
    if job.arrives:
        if not call.returned:
            send(job, piece, sent)
        if down == POWER:
            depress(call, piece, POWER)
        elif down == LINEAR:
            depress(call, piece, LINEAR)
        else:
            depress(call, piece, HARD)
        if call.returned:
            send(job, piece, sent)
    for row in range(piece.rows):
        memcpy(weight + piece.begin[row], piece.weight + at, piece.size[row] * sizeof(float))
        at += piece.size[row]
    piece.count = piece.rows = 0


cdef inline inline_void add_synapses(
    Job* job, Piece* piece, int64_t j, int64_t begin, int64_t end, Sent** sent, int up, int down
) noexcept nogil:
    """Add synapses `begin` to `end`, of neuron `j`, to the piece, which is worked on whenever it is full."""
    cdef const Visit* call = job.call
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef uint64_t n_post = call.network.n_other
    cdef int64_t k, size, row
    cdef int32_t before = <int32_t> max(
        <int64_t> call.rows[2 * j] - call.since[0] + 1, <int64_t> NEVER)  # (`since` is 1)
    cdef float trace = trace_before(call, j)
    cdef int wrong = 0
    while begin < end:
        size, row = min(end - begin, PIECE - piece.count), piece.rows
        piece.begin[row], piece.size[row] = begin, size
        piece.before[row], piece.first[row] = before, max(before + call.returned, 1)
        piece.trace[row], piece.more[row] = trace, trace_after(call, trace)
        for k in range(size):
            wrong |= <uint64_t> indices[begin + k] >= n_post
            piece.post[piece.count + k] = indices[begin + k]
            piece.weight[piece.count + k] = weight[begin + k]
            piece.row[piece.count + k] = <uint16_t> row
        if wrong:
            set_status(&job.status, BAD_ELEMENT)
            return
        piece.count += size
        piece.rows += 1
        begin += size
        if piece.count == PIECE:
            finish(job, piece, sent, up, down)


cdef inline inline_void fetch_row(const Visit* call, const Row* row) noexcept nogil:
    cdef int64_t end = row.begin + min(row[1].before - row.before, <int64_t> AHEAD)
    prefetch_at(call.rows, 2 * row.event, 0)
    prefetch_lines(<const int32_t*> call.network.indices.data, row.begin, end, 0)
    prefetch_lines(<const float*> call.network.weight.data, row.begin, end, 1)


cdef inline int64_t row_with(const Rows* rows, int64_t element) noexcept nogil:
    """The row of the batch that has this element."""
    cdef int64_t low = 0, high = rows.count - 1, middle
    while low < high:
        middle = (low + high + 1) // 2
        if rows.row[middle].before <= element:
            low = middle
        else:
            high = middle - 1
    return low


cdef inline inline_void arrive(Job* job, int64_t start, int64_t stop, int up) noexcept nogil:
    cdef const Row* row = job.rows.row
    cdef int64_t k, begin, end, count = job.rows.count, first = row_with(job.rows, start)
    cdef int64_t chunk = (start * job.chunks + job.rows.elements - 1) // job.rows.elements
    cdef int part, down = job.call.down.kind
    cdef Sent* sent[PARTS]
    cdef Piece piece
    piece.count = piece.rows = 0
    for part in range(PARTS):
        sent[part] = job.sent + part * job.rows.elements + start
    for k in range(first, min(first + ROWS_AHEAD, count)):
        fetch_row(job.call, &row[k])
    k = first
    while k < count and row[k].before < stop:
        if k + ROWS_AHEAD < count:
            fetch_row(job.call, &row[k + ROWS_AHEAD])
        begin = row[k].begin + max(start - row[k].before, <int64_t> 0)
        end = row[k].begin + min(stop, row[k + 1].before) - row[k].before
        add_synapses(job, &piece, row[k].event, begin, end, sent, up, down)
        k += 1
    finish(job, &piece, sent, up, down)
    if job.sent != NULL:
        for part in range(PARTS):
            job.counts[part * job.chunks + chunk] = sent[part] - (job.sent + part * job.rows.elements + start)


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
    cdef Piece piece
    piece.count = piece.rows = 0
    for j in range(start, stop):
        if indptr[j] < 0 or indptr[j + 1] < indptr[j] or indptr[j + 1] > nse:
            set_status(&job.status, BAD_INDPTR)
        elif indptr[j] < indptr[j + 1]:
            add_synapses(job, &piece, j, indptr[j], indptr[j + 1], NULL, up, HARD)
    finish(job, &piece, NULL, up, HARD)


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


cdef void spike_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Write the step and the trace of neurons that spike."""
    cdef Visit* call = (<Job*> state).call
    cdef const int32_t* ids = (<Job*> state).spikes.ids
    cdef int64_t k, j
    cdef double age
    cdef float trace
    for k in range(start, stop):
        if k + ROWS_AHEAD < stop:
            prefetch_at(call.rows, 2 * <int64_t> ids[k + ROWS_AHEAD], 1)
        j = ids[k]
        age = call.decay * max(call.step - call.rows[2 * j], <int64_t> 0)
        trace = <float> (trace_after(call, trace_before(call, j)) * exp2_of(-age if age < 300.0 else -300.0))
        call.rows[2 * j] = <int32_t> call.step
        memcpy(&call.rows[2 * j + 1], &trace, sizeof(float))


cdef void add_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Add up what was sent to the neurons of some parts, in the order of the synapses, whoever has visited them."""
    cdef Job* job = <Job*> state
    cdef const Sent* sent
    cdef float* out = job.call.out
    cdef int64_t part, chunk, k
    for part in range(start, stop):
        for chunk in range(job.chunks):
            sent = job.sent + part * job.rows.elements + job.rows.elements * chunk // job.chunks
            for k in range(job.counts[part * job.chunks + chunk]):
                out[sent[k].post] += sent[k].weight


cdef Status settle(Visit* call, int64_t since) noexcept nogil:
    """Let all synapses take what they have missed, keep no spike, and count steps from another one."""
    cdef Job job
    cdef int64_t n_pre = call.network.indptr.size - 1
    cdef int64_t chunks = chunks_for(&call.network.pool, call.network.indices.size, GRAIN, 8)
    job.call, job.arrives, job.status = call, False, OK
    run_chunks(&call.network.pool, settle_task, &job, n_pre, min(chunks, max(n_pre, <int64_t> 1)))
    memset(call.recent, 0, RECENT * call.network.n_other * sizeof(uint16_t))
    call.since[0] = <int32_t> since
    return job.status


cdef inline int64_t next_spike(const Visit* call, int64_t j) noexcept nogil:
    """The next postsynaptic neuron from `j` on that spikes."""
    cdef int64_t n = call.network.n_other
    while True:
        j = skip_silent(call.spike, j, n)
        if j >= n or call.spike[j]:
            return j
        j += 1


cdef Status keep(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes; where there is no room for one, all synapses take theirs first."""
    cdef int64_t n = call.network.n_other, first = next_spike(call, 0), j = first
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
        full = call.recent[(RECENT - 1) * n + j] != 0
        j = next_spike(call, j + 1)
    if full:
        status = settle(call, call.spike_step)
    step = <uint16_t> (call.spike_step - call.since[0] + 1)
    j = first
    while j < n:
        recent, older = call.recent + j, step
        while older:
            recent[0], older = older, recent[0]
            recent += n
        j = next_spike(call, j + 1)
    return status


cdef bint all_known(const List* spikes, int64_t n) noexcept nogil:
    cdef int64_t k
    for k in range(spikes.count):
        if not 0 <= spikes.ids[k] < n:
            return False
    return True


cdef bint visit_batch(Job* job) noexcept nogil:
    """Visit the rows of a batch, and add up what they send; False if there is no memory for that."""
    cdef Visit* call = job.call
    cdef int64_t elements = job.rows.elements, n_post = call.network.n_other
    job.chunks = chunks_for(&call.network.pool, elements, GRAIN, 2)
    job.sent = NULL
    if job.chunks > 1:
        job.sent = <Sent*> malloc(PARTS * (elements * sizeof(Sent) + job.chunks * sizeof(int64_t)))
        if job.sent == NULL:
            return False
        job.counts = <int64_t*> (job.sent + PARTS * elements)
        job.shift = 0
        while n_post - 1 >> job.shift >= PARTS:
            job.shift += 1
    run_chunks(&call.network.pool, arrive_task, job, elements, job.chunks)
    if job.sent != NULL and job.status == OK:
        run_chunks(&call.network.pool, add_task, job, PARTS, PARTS)
    free(job.sent)
    return True


cdef Status visit(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes, then visit the synapses of the presynaptic ones, or all."""
    cdef Rows rows
    cdef Job job
    cdef Status status = keep(call)
    memset(call.out, 0, call.network.n_other * sizeof(float))
    if status != OK or call.all:
        return settle(call, call.step) if status == OK else status
    job.call, job.rows, job.arrives, job.spikes = call, &rows, True, list_of(&call.network.lists, 0)
    if not all_known(&job.spikes, call.network.lists.n):
        return BAD_LISTS
    job.status = first_batch(&call.network, &rows)
    while job.status == OK and rows.count:
        if not visit_batch(&job):
            job.status = STOPPED
        if job.status == OK:
            job.status = next_batch(&call.network, &rows)
    forget(&rows)
    if job.status == OK:
        run_chunks(&call.network.pool, spike_task, &job, job.spikes.count,
                   chunks_for(&call.network.pool, job.spikes.count, SPIKES, 1))
    return job.status
