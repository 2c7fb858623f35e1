"""Synapses that learn from pairs of spikes, each visited when its presynaptic neuron spikes, and not in between.

A postsynaptic spike has synapses in as many rows, whose weights and traces lie apart: two cache lines for each synapse.
Until its own row is visited nobody reads a weight, so that the spikes it has missed can wait until then. They are few,
and all of one thread's rows lead to the same neurons: their steps stay in a core's cache, and a row comes line by line.
In the same visit the presynaptic spike depresses the synapse, and is sent.

So many postsynaptic spikes are kept, and no more. Before one is lost that a synapse has yet to take, rows that have not
been visited for long take theirs: a share of the rows at every step. (To stop for all of them at once took a second at
10^8 synapses, for which, on a cluster, all other nodes would wait, at every node's own time.)

What must move per presynaptic spike: what is known of its neuron, a cache line, and its row's indices and weights.
"""

from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER
from hebbax._cpu.buffers cimport hot_void, inline_void, prefetch_far_at
from hebbax._cpu.pieces cimport (
    NEAR, PARTS, PIECE, RECENT, TOGETHER, Ahead, Handed, Job, Neuron, Pass, Piece, Row, Sent, Visit, add_synapses,
    counted, fetch, fetch_again, finish, is_row, row_of, trace_after,
)
from hebbax._cpu.powers cimport exp2_of
from hebbax._cpu.rows cimport (
    BAD_INDPTR, BAD_LISTS, OK, STOPPED, Status, list_of, rows_of, set_status, skip_silent,
)
from hebbax._cpu.threads cimport Pool, add_and_get, chunks_for, most_threads, run_chunks

cdef enum:
    GRAIN = 8192         # synapses that are worth another thread
    CHUNKS = 8           # of synapses, for each thread
    FEW = 4              # threads, for which one at a time is enough to add up what is sent
    SPIKES = 1024        # presynaptic ones whose rows are worth another thread to find,
    SPIKES_AHEAD = 48    # and between a prefetch and the use
    LATEST = 65000       # a step that 16 bits hold
    # A pass of the rows begins when a neuron's spikes take more than
    HALF = RECENT // 2   # of their room, or
    AGE = 16384          # steps lie behind those of which all synapses have taken the spikes. It takes
    LONGEST = 8192       # steps at most, so that it ends before steps are more than 16 bits hold
    LAST = 8             # spikes by which the rate of a neuron is known
    ROWS = 4096          # that are found before they take what they have missed
    EVER = 1 << 30       # steps: more than any


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


cdef void hand_on(Job* job, int64_t chunk, int64_t part) noexcept nogil:
    """One of the two things is done that a chunk awaits; after both, what it has sent is added up, and so on.

    So all is added in the order of the synapses, whoever has visited them, and no thread waits for another.
    """
    cdef Handed* handed = &job.handed[chunk * job.parts + part]
    cdef float* out = job.call.out
    cdef int64_t k
    while chunk < job.chunks and add_and_get(&handed.awaited, -1) == 0:
        for k in range(handed.count):
            out[handed.sent[k].post] += handed.sent[k].weight
        chunk += 1
        handed += job.parts


cdef inline inline_void work_on(Job* job, int64_t start, int64_t stop, int up, bint arrives) noexcept nogil:
    cdef int64_t k = row_with(job, start), chunk = (start * job.chunks + job.elements - 1) // job.elements
    cdef Handed* handed = &job.handed[chunk * job.parts]
    cdef const Row* row = &job.rows[k]
    cdef const Row* last = &job.rows[job.count]
    cdef int part, down = job.call.down.kind
    cdef Sent* sent[PARTS]
    cdef Ahead ahead = Ahead(row, start - row.at, start, min(start + PIECE, stop), stop)
    cdef Piece piece
    piece.count = piece.rows = 0
    for part in range(job.parts):
        handed[part].sent = sent[part] = job.sent + job.parts * start + part * (stop - start)
    fetch(job.call, &ahead, PIECE)
    ahead.limit = min(start + 2 * PIECE, stop)
    while row != last and row.at < stop:
        if last - row > NEAR:
            fetch_again(job.call, &row[NEAR])
        add_synapses(job, &piece, row[0], row.begin + max(start - row.at, <int64_t> 0),
                     row.begin + min(stop, row[1].at) - row.at, &ahead, sent, up, down, arrives)
        row += 1
    finish(job, &piece, &ahead, sent, up, down, arrives)
    for part in range(job.parts):
        handed[part].count = sent[part] - handed[part].sent
        hand_on(job, chunk, part)


cdef hot_void arrive_span(Job* job, int64_t start, int64_t stop) noexcept nogil:
    """Visit the batch's synapses `start` to `stop`."""
    if job.call.up.kind == POWER:  # (what is constant in a call is constant in the code of its branch)
        work_on(job, start, stop, POWER, True)
    elif job.call.up.kind == LINEAR:
        work_on(job, start, stop, LINEAR, True)
    else:
        work_on(job, start, stop, HARD, True)


cdef void arrive_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    arrive_span(<Job*> state, start, stop)


cdef hot_void settle_span(Job* job, int64_t start, int64_t stop) noexcept nogil:
    """Let the batch's synapses `start` to `stop` take what they have missed."""
    if job.call.up.kind == POWER:
        work_on(job, start, stop, POWER, False)
    elif job.call.up.kind == LINEAR:
        work_on(job, start, stop, LINEAR, False)
    else:
        work_on(job, start, stop, HARD, False)


cdef void settle_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    settle_span(<Job*> state, start, stop)


cdef void look_up(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Find rows of neurons that spike, which may not overlap; their sizes stand in `at` for now.

    Step and trace of the neurons are then those after the spike.
    """
    cdef Job* job = <Job*> state
    cdef Visit* call = job.call
    cdef const int32_t* ids = job.spikes.ids
    cdef Neuron* neuron
    cdef int64_t k, steps
    cdef double age
    for k in range(start, min(start + SPIKES_AHEAD, stop)):
        prefetch_far_at(<int32_t*> call.neurons, 4 * <int64_t> ids[k])
    for k in range(start, stop):
        if k + SPIKES_AHEAD < stop:
            prefetch_far_at(<int32_t*> call.neurons, 4 * <int64_t> ids[k + SPIKES_AHEAD])
        if not 0 <= ids[k] < call.n_pre or (k and ids[k] <= ids[k - 1]):
            set_status(&job.status, BAD_LISTS)
            continue
        neuron = &call.neurons[ids[k]]
        if not is_row(call, ids[k]) or (k and ids[k - 1] >= 0 and neuron.begin < call.neurons[ids[k - 1]].end):
            set_status(&job.status, BAD_INDPTR)
            continue
        job.rows[k] = row_of(call, ids[k])
        job.rows[k].at = neuron.end - neuron.begin
        steps = max(call.step - neuron.step, <int64_t> 0)
        age = call.decay * steps
        neuron.trace = <float> (trace_after(call, neuron.trace) * exp2_of(-age if age < 300.0 else -300.0))
        neuron.step = <int32_t> call.step


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
        if job.count < k:
            job.rows[job.count] = job.rows[k]
        job.rows[job.count].at = job.elements
        job.elements += size
        job.count += size > 0
    job.rows[job.count].at = job.elements
    return OK


cdef Status find_late(Job* job, int64_t first, int64_t last) noexcept nogil:
    """Find those of rows `first` to `last` that have synapses, and of which a spike can have been missed."""
    cdef int64_t j, size, end = 0
    job.count = job.elements = 0
    for j in range(first, last):
        if not is_row(job.call, j) or job.call.neurons[j].begin < end:
            return BAD_INDPTR
        end = job.call.neurons[j].end
        size = end - job.call.neurons[j].begin
        job.rows[job.count] = row_of(job.call, j)
        job.rows[job.count].at = job.elements
        if size and job.rows[job.count].first < job.until:
            job.elements += size
            job.count += 1
    job.rows[job.count].at = job.elements
    return OK


cdef Status take_up(Visit* call, int64_t first, int64_t last, int32_t until) noexcept nogil:
    """Let synapses of rows `first` to `last` take what they have missed before a step, as the archive counts."""
    cdef Job job
    job.call, job.status, job.until, job.parts, job.sent, job.handed = call, OK, until, 0, NULL, NULL
    job.rows = <Row*> malloc((min(<int64_t> ROWS, last - first) + 1) * sizeof(Row))
    if job.rows == NULL:
        return STOPPED
    while first < last and job.status == OK:
        job.status = find_late(&job, first, min(first + ROWS, last))
        job.chunks = chunks_for(&call.network.pool, job.elements, GRAIN, 8)
        if job.status == OK and job.elements:
            run_chunks(&call.network.pool, settle_task, &job, job.elements, job.chunks)
        first += ROWS
    free(job.rows)
    return job.status


cdef Status settle(Visit* call, int64_t since) noexcept nogil:
    """Let all synapses take what they have missed, keep no spike, and count steps from another one."""
    cdef Status status = take_up(call, 0, call.n_pre, EVER)
    if call.network.n_other:
        memset(call.recent, 0, RECENT * call.network.n_other * sizeof(uint16_t))
    call.settling[0] = Pass(<int32_t> since, <int32_t> since, <int32_t> since, 0, 0)
    return status


cdef Status proceed(Visit* call) noexcept nogil:
    """Let the next share of the rows take what they have missed, if a pass is under way."""
    cdef Pass* settling = call.settling
    cdef int64_t last = min(<int64_t> settling.next + settling.share, call.n_pre)
    cdef Status status = OK
    if settling.share:
        status = take_up(call, settling.next, last, counted(call, settling.began))
        settling.next = <int32_t> last
        if last == call.n_pre:
            settling.settled, settling.share = settling.began, 0
    return status


cdef void hurry(Visit* call, int64_t time) noexcept nogil:
    """Begin a pass if there is need for one, or have larger shares in it, so that it ends within this time.

    Rows take what was before half of that time ago: of those that were visited since, nothing is to be done.
    """
    cdef Pass* settling = call.settling
    cdef int64_t settled = settling.settled
    if settling.share == 0 and time == EVER and call.spike_step - settled < AGE:
        return
    time = min(max(time, <int64_t> 1), <int64_t> LONGEST)
    if settling.share == 0:
        settling.began = <int32_t> min(max(call.spike_step + 1 - time // 2, settled), <int64_t> INT32_MAX)
        settling.next = 0
    settling.share = max(settling.share, <int32_t> ((call.n_pre - settling.next + time - 1) // time))


cdef int64_t next_spike(const Visit* call, int64_t j) noexcept nogil:
    """The next postsynaptic neuron from `j` on that spikes."""
    cdef int64_t n = call.network.n_other
    while True:
        j = skip_silent(call.spike, j, n)
        if j >= n or call.spike[j]:
            return j
        j += 1


cdef inline uint16_t* kept(const Visit* call, int64_t j, int64_t k) noexcept nogil:
    """Where the step of a neuron's `k`-th last spike stands."""
    return call.recent + k // TOGETHER * TOGETHER * call.network.n_other + TOGETHER * j + k % TOGETHER


cdef int64_t time_left(const Visit* call, int64_t j) noexcept nogil:
    """Half of the steps until a neuron, which spikes now, will have no room, at its present rate; 0: it has none.

    EVER, if not more than half of its room is taken.
    """
    cdef int32_t settled = counted(call, call.settling.settled)
    cdef int64_t k = HALF
    if kept(call, j, HALF - 1)[0] < settled:
        return EVER
    while k < RECENT and kept(call, j, k)[0] >= settled:
        k += 1
    if k == RECENT:
        return 0
    return max((RECENT - k) * (counted(call, call.spike_step) - kept(call, j, LAST - 1)[0]) // (2 * LAST), <int64_t> 1)


cdef void count_anew(Visit* call) noexcept nogil:
    """Let the archive count from where all synapses have taken what was before."""
    cdef int64_t k, steps = <int64_t> call.settling.settled - call.settling.base
    for k in range(RECENT * call.network.n_other):
        call.recent[k] = <uint16_t> (call.recent[k] - min(<int64_t> call.recent[k], steps))
    call.settling.base = call.settling.settled


cdef Status keep(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes; where there is no room for one, all synapses take theirs first."""
    cdef Pass* settling = call.settling
    cdef int64_t n = call.network.n_other, first = next_spike(call, 0), j = first, time = EVER, k
    cdef uint16_t step, older
    cdef uint16_t* recent
    cdef Status status = OK
    if first < n and call.spike_step < settling.began:
        return BAD_LISTS
    if call.spike_step - settling.base >= LATEST:
        count_anew(call)
    while j < n and time:
        time = min(time, time_left(call, j))
        j = next_spike(call, j + 1)
    if time == 0 or call.spike_step - settling.base >= LATEST:
        status = settle(call, call.spike_step)
        time = EVER
    step = <uint16_t> (call.spike_step - settling.base + 1)
    j = first
    while j < n:
        recent, older = call.recent + TOGETHER * j, step
        while older and recent < call.recent + RECENT * n:
            for k in range(TOGETHER):
                recent[k], older = older, recent[k]
            recent += TOGETHER * n
        j = next_spike(call, j + 1)
    hurry(call, time)
    return status


cdef void visit_rows(Job* job) noexcept nogil:
    """Visit the rows; what they send is added up."""
    cdef Visit* call = job.call
    cdef const Pool* pool = &call.network.pool
    cdef int64_t k
    cdef Sent* sent = NULL
    job.chunks = chunks_for(pool, job.elements, GRAIN, CHUNKS)
    job.parts = job.shift = 0
    if job.chunks > 1:
        job.parts = PARTS if most_threads() > FEW else 1
        sent = <Sent*> malloc(job.parts * (job.elements * sizeof(Sent) + job.chunks * sizeof(Handed)))
    if sent == NULL:  # one thread then needs no memory
        job.chunks, job.parts = 1, 0
    job.sent, job.handed = sent, <Handed*> (sent + job.parts * job.elements)
    for k in range(job.chunks * job.parts):
        job.handed[k] = Handed(NULL, 0, 1 if k < job.parts else 2)
    while job.parts and call.network.n_other - 1 >> job.shift >= job.parts:
        job.shift += 1
    run_chunks(pool, arrive_task, job, job.elements, job.chunks)
    free(sent)


cdef Status visit(Visit* call) noexcept nogil:
    """Keep the postsynaptic spikes, then visit the synapses of the presynaptic ones, or all."""
    cdef Job job
    cdef Status status = keep(call)
    if call.network.n_other:
        memset(call.out, 0, call.network.n_other * sizeof(float))
    if status != OK or call.all:
        return settle(call, call.step) if status == OK else status
    if call.n_pre != rows_of(&call.network.lists):
        return BAD_LISTS
    job.call, job.status = call, OK
    job.spikes = list_of(&call.network.lists, 0)
    job.rows = <Row*> malloc((job.spikes.count + 1) * sizeof(Row))
    if job.rows == NULL:
        return STOPPED
    job.status = find_rows(&job)
    if job.status == OK and job.elements:
        visit_rows(&job)
    free(job.rows)
    return proceed(call) if job.status == OK else job.status


def most_recent():
    """How many spikes of a postsynaptic neuron are kept."""
    return RECENT
