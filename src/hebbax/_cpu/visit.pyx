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

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER, distance
from hebbax._cpu.buffers cimport hot_void, inline_void, prefetch_at, prefetch_lines
from hebbax._cpu.powers cimport exp2_of, raise_and_fade
from hebbax._cpu.rows cimport (
    BAD_ELEMENT, BAD_INDPTR, BAD_LISTS, OK, STOPPED, List, Status, list_of, rows_of, set_status, skip_silent,
)
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    PIECE = 128      # synapses that are visited together: a multiple of
    LANES = 16       # numbers of the largest vectors
    BLOCK = 8        # synapses that are copied together
    GRAIN = 8192     # synapses that are worth another thread
    LINE = 16        # indices, or weights, in a cache line
    SOME = 3         # lines that are fetched at a time
    SPIKES_AHEAD = 24  # between a prefetch and the use
    SPIKES = 1024    # whose rows are worth another thread to find
    PARTS = 4        # of the neurons, for each of which one thread adds up what is sent
    NEVER = -(1 << 30)   # a step
    LATEST = 65000       # a step that 16 bits hold


cdef struct Piece:
    int64_t count
    int32_t post[PIECE + BLOCK]
    float weight[PIECE + BLOCK]
    uint16_t row[PIECE + BLOCK]  # which of these:
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


# A presynaptic neuron that spikes, and has synapses.
cdef struct Row:
    int64_t begin    # first synapse
    int64_t at       # synapses of those before it; behind the last one, of all
    int32_t before   # step of its spike before, counted from `since`, that being 1
    float trace      # before that one; -1: there was none


# How far what is coming has been fetched.
cdef struct Ahead:
    const Row* row
    int64_t place    # in the row
    int64_t element  # synapse of all rows,
    int64_t limit    # up to which it is to be,
    int64_t end      # and up to which there is any


# What a synapse sends.
cdef struct Sent:
    int32_t post
    float weight


cdef struct Job:
    Visit* call
    List spikes
    Row* rows
    int64_t count     # of them,
    int64_t elements  # and of their synapses
    bint arrives      # whether spikes do
    int64_t chunks    # into which the synapses are divided
    int shift         # of a neuron's number, by which chunks divide what they send into parts
    Sent* sent        # by parts, and within each as synapses are; NULL: there is one chunk, which adds it up itself
    int64_t* counts   # how many each chunk has sent to each part
    Status status


cdef inline Row row_of(const Visit* call, int64_t j) noexcept nogil:
    """What is known of a neuron's last spike."""
    cdef Row row = Row(0, 0, <int32_t> max(<int64_t> call.rows[2 * j] - call.since[0] + 1, <int64_t> NEVER), 0)
    memcpy(&row.trace, &call.rows[2 * j + 1], sizeof(float))
    return row


cdef inline float trace_after(const Visit* call, float before) noexcept nogil:
    return 0 if before < 0 else 1 if call.sets else before + 1


cdef inline inline_void fetch(const Visit* call, Ahead* ahead, int64_t lines) noexcept nogil:
    """Fetch so many of the coming lines of indices, and of weights: a few at a time, or memory rests in between."""
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef int64_t begin, size, step
    while lines > 0 and ahead.element < ahead.limit:
        begin, size = ahead.row.begin + ahead.place, ahead.row[1].at - ahead.row.at
        prefetch_at(indices, begin, 0)
        prefetch_at(weight, begin, 1)
        step = min(LINE - begin % LINE, size - ahead.place)
        ahead.place += step
        ahead.element += step
        if ahead.place == size:
            ahead.row += 1
            ahead.place = 0
        lines -= 1


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


cdef inline inline_void take_missed(const Visit* call, Piece* piece, Ahead* ahead, int kind) noexcept nogil:
    """Let all synapses of the piece take what they have missed."""
    cdef int64_t starts[RECENT + 2]
    cdef const uint16_t* recent = call.recent
    cdef int64_t k, count = 0, last, n_post = call.network.n_other
    cdef int level = 0
    cdef uint16_t step
    for k in range(piece.count):
        step = recent[TOGETHER * piece.post[k]]
        piece.missed[count], piece.step[count] = <uint16_t> k, step
        count += <int32_t> step >= piece.first[piece.row[k]]
    starts[0], starts[1] = 0, count
    fetch(call, ahead, SOME)
    while starts[level] < count and level + 1 < RECENT:
        last = count
        level += 1
        recent += 1 if level % TOGETHER else TOGETHER * n_post - TOGETHER + 1
        for k in range(starts[level - 1], last):
            step = recent[TOGETHER * piece.post[piece.missed[k]]]
            piece.missed[count], piece.step[count] = piece.missed[k], step
            count += <int32_t> step >= piece.first[piece.row[piece.missed[k]]]
        starts[level + 1] = count
        fetch(call, ahead, SOME)
    while level >= 0:
        fetch(call, ahead, SOME)
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


cdef inline inline_void finish(Job* job, Piece* piece, Ahead* ahead, Sent** sent, int up, int down) noexcept nogil:
    """Do with a piece of synapses all that is to be done, and empty it."""
    cdef const Visit* call = job.call
    cdef float* weight = <float*> call.network.weight.data
    cdef int64_t k, row, at = 0
    cdef uint32_t largest = 0
    for k in range(piece.count):
        largest = <uint32_t> piece.post[k] if <uint32_t> piece.post[k] > largest else largest
    if largest >= <uint64_t> call.network.n_other and piece.count:
        set_status(&job.status, BAD_ELEMENT)
        piece.count = piece.rows = 0
        return
    take_missed(call, piece, ahead, up)
    if job.arrives:
        if not call.returned:
            send(job, piece, sent)
        if down == POWER:
            depress(call, piece, POWER)
        elif down == LINEAR:
            depress(call, piece, LINEAR)
        else:
            depress(call, piece, HARD)
        fetch(call, ahead, SOME)
        if call.returned:
            send(job, piece, sent)
    for row in range(piece.rows):
        memcpy(weight + piece.begin[row], piece.weight + at, piece.size[row] * sizeof(float))
        at += piece.size[row]
    piece.count = piece.rows = 0
    fetch(call, ahead, PIECE)
    ahead.limit = min(ahead.limit + PIECE, ahead.end)


cdef inline inline_void copy_synapses(
    Piece* piece, const int32_t* indices, const float* weight, int64_t size, int64_t rest
) noexcept nogil:
    """Copy synapses behind those of the piece.

    By blocks, the last of which goes on into what follows, where there are so many: a loop of as many as there are takes
    longer to leave than to run, if rows are short.
    """
    cdef int32_t* post = piece.post + piece.count
    cdef float* copy = piece.weight + piece.count
    cdef uint16_t* row = piece.row + piece.count
    cdef uint16_t number[BLOCK]
    cdef int64_t k
    if size + BLOCK > rest:
        for k in range(size):
            post[k], copy[k], row[k] = indices[k], weight[k], <uint16_t> piece.rows
        return
    for k in range(BLOCK):
        number[k] = <uint16_t> piece.rows
    k = 0
    while k < size:
        memcpy(post + k, indices + k, BLOCK * sizeof(int32_t))
        memcpy(copy + k, weight + k, BLOCK * sizeof(float))
        memcpy(row + k, number, BLOCK * sizeof(uint16_t))
        k += BLOCK


cdef inline inline_void add_synapses(
    Job* job, Piece* piece, Row source, int64_t begin, int64_t end, Ahead* ahead, Sent** sent, int up, int down
) noexcept nogil:
    """Add synapses `begin` to `end`, of a row, to the piece, which is worked on whenever it is full."""
    cdef const Visit* call = job.call
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef int64_t size, row, nse = call.network.indices.size
    while begin < end:
        size, row = min(end - begin, PIECE - piece.count), piece.rows
        piece.begin[row], piece.size[row] = begin, size
        piece.before[row], piece.first[row] = source.before, max(source.before + call.returned, 1)
        piece.trace[row], piece.more[row] = source.trace, trace_after(call, source.trace)
        copy_synapses(piece, indices + begin, weight + begin, size, nse - begin)
        piece.count += size
        piece.rows += 1
        begin += size
        if piece.count == PIECE:
            finish(job, piece, ahead, sent, up, down)


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
        sent[part] = job.sent + part * job.elements + start
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
    """Find the rows of all neurons that spike; leave out those without synapses."""
    cdef int64_t k, size
    run_chunks(&job.call.network.pool, look_up, job, job.spikes.count,
               chunks_for(&job.call.network.pool, job.spikes.count, SPIKES, 1))
    if job.status != OK:
        return job.status
    job.count = job.elements = 0
    for k in range(job.spikes.count):
        size = job.rows[k].at
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


cdef bint visit_rows(Job* job) noexcept nogil:
    """Visit the rows, and add up what they send; False if there is no memory for that."""
    cdef Visit* call = job.call
    cdef int64_t n_post = call.network.n_other
    job.chunks = chunks_for(&call.network.pool, job.elements, GRAIN, 2)
    if job.chunks > 1:
        job.sent = <Sent*> malloc(PARTS * (job.elements * sizeof(Sent) + job.chunks * sizeof(int64_t)))
        if job.sent == NULL:
            return False
        job.counts = <int64_t*> (job.sent + PARTS * job.elements)
        while n_post - 1 >> job.shift >= PARTS:
            job.shift += 1
    run_chunks(&call.network.pool, arrive_task, job, job.elements, job.chunks)
    if job.sent != NULL and job.status == OK:
        run_chunks(&call.network.pool, add_task, job, PARTS, PARTS)
    free(job.sent)
    return True


cdef Status visit(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes, then visit the synapses of the presynaptic ones, or all."""
    cdef Job job
    cdef Status status = keep(call)
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
    if job.status == OK and job.elements and not visit_rows(&job):
        job.status = STOPPED
    free(job.rows)
    return job.status
