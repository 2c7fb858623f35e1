"""A piece of the rows that `visit.pyx` visits: synapses that are worked on together, by vectors.

Of up to 512 synapses, those that have missed a spike are listed, among these those that have missed another one before
that, and so on. Then lists are worked off from the last one to the first: so every synapse takes its spikes in their
order. It takes the same ones whoever visits it, and in whatever piece.

A piece lies on the stack, 151 KiB. (With pieces of 128, and vectors of 16, a step of `hebbax.experiments.hpc` took 1.15
to 1.3 times as long: where rows are short, one that has missed many spikes makes as many lists, most nearly empty.)
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from hebbax._cpu.bounds cimport HARD, LINEAR, POWER, Soft, distance
from hebbax._cpu.buffers cimport inline_void, prefetch_at, prefetch_far_at
from hebbax._cpu.powers cimport raise_and_fade
from hebbax._cpu.rows cimport BAD_ELEMENT, List, Network, Status, set_status

cdef enum:
    RECENT = 64   # spikes of a postsynaptic neuron that are kept,
    TOGETHER = 4  # of which so many lie together


# What spikes of one side do: `factor` times a trace, by the distance to a soft bound, if there is one.
cdef struct Change:
    float factor
    Soft soft
    int kind     # as in `bounds.pxd`


# A pass lets all rows take what they have missed before a step, a share of them in every call: then no spike of before
# has to be kept.
cdef struct Pass:
    int32_t base     # the step that the archive counts as 1
    int32_t settled  # all rows have taken what was before this step;
    int32_t began    # in the pass, what was before this one is taken,
    int32_t next     # which rows before this one have done
    int32_t share    # rows a call; 0: no pass is under way


# What is known of a presynaptic neuron, in one cache line.
cdef struct Neuron:
    int32_t begin  # its first synapse, and
    int32_t end    # the one behind its last,
    int32_t step   # of its last spike,
    float trace    # and its trace before that; -1: it has not spiked


cdef struct Visit:
    Network network   # `weight` is updated in place
    Neuron* neurons   # presynaptic ones
    int64_t n_pre
    uint16_t* recent  # (RECENT / TOGETHER, n_post, TOGETHER): steps of the last spikes, the last one first; 0: none
    Pass* settling
    int64_t step      # in which the presynaptic spikes arrive
    const uint8_t* spike  # postsynaptic ones, to be kept,
    int64_t spike_step    # of this step
    const float* trace    # of the postsynaptic neurons, before the spikes of this step
    float* out            # what they receive
    Change up             # by postsynaptic spikes
    Change down           # by presynaptic ones
    double decay          # of a presynaptic trace in a step: it is divided by 2 to this power
    float low             # bounds
    float high
    bint returned         # whether postsynaptic spikes come first, and synapses send what they then are
    bint sets             # whether a spike sets its trace to 1, and does not add that
    bint all              # whether all synapses take what they have missed, and no spike arrives


cdef enum:
    PIECE = 512      # synapses that are visited together: a multiple of
    LANES = 8        # numbers of the largest vectors
    BLOCK = 8        # synapses that are copied together
    NEAR = 6         # rows between one that is copied and one that is fetched once more
    LINE = 16        # indices, or weights, in a cache line
    SOME = 12        # lines that are fetched at a time (by 3, most come at the end: 1 024 nodes took 3 to 9% longer)
    PARTS = 4        # of the neurons, at most: threads add up at once what is sent to different ones
    NEVER = -(1 << 30)   # a step


cdef struct Piece:
    int64_t count
    int32_t post[PIECE + BLOCK]
    float weight[PIECE]
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


# A row that is visited, and has synapses.
cdef struct Row:
    int64_t begin    # first synapse
    int64_t at       # synapses of those before it; behind the last one, of all
    int32_t before   # step of its neuron's spike before, as the archive counts,
    float trace      # and the trace before that one; -1: there was none
    int32_t first    # step of the first postsynaptic spike that its synapses can have missed


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


# What a chunk has sent to one part.
cdef struct Handed:
    Sent* sent
    int64_t count
    int64_t awaited  # of two things: that the chunk is done, and that what the chunk before it has sent is added up


cdef struct Job:
    Visit* call
    List spikes
    Row* rows
    int64_t count     # of them,
    int64_t elements  # and of their synapses
    int32_t until     # step of the first postsynaptic spike that synapses are not to take, as the archive counts
    int64_t chunks    # into which the synapses are divided
    int shift         # of a neuron's number, by which chunks divide what they send into parts
    int64_t parts     # of the neurons, to each of which things are sent apart; 0: one chunk adds them up itself
    Sent* sent        # by chunks, in each by parts, and in each of these as synapses are
    Handed* handed    # by chunks, and in each by parts
    Status status


cdef inline int32_t counted(const Visit* call, int64_t step) noexcept nogil:
    """A step as the archive counts; one of more than 2^30 steps earlier or later counts as of then."""
    return <int32_t> min(max(step - call.settling.base + 1, <int64_t> NEVER), -<int64_t> NEVER)


cdef inline Row row_of(const Visit* call, int64_t j) noexcept nogil:
    """A neuron's row, of which `at` is yet to be known."""
    cdef Neuron* neuron = &call.neurons[j]
    cdef Row row = Row(neuron.begin, 0, counted(call, neuron.step), neuron.trace, 0)
    row.first = counted(call, call.settling.began if j < call.settling.next else call.settling.settled)
    row.first = max(row.before + call.returned, row.first)
    return row


cdef inline bint is_row(const Visit* call, int64_t j) noexcept nogil:
    """Whether a neuron's row can be one: an array may hold anything."""
    return 0 <= call.neurons[j].begin <= call.neurons[j].end <= call.network.indices.size


cdef inline float trace_after(const Visit* call, float before) noexcept nogil:
    return 0 if before < 0 else 1 if call.sets else before + 1


cdef inline inline_void fetch(const Visit* call, Ahead* ahead, int64_t lines) noexcept nogil:
    """Fetch so many of the coming lines of indices, and of weights: a few at a time, or memory rests in between.

    (Into the second cache: on an Intel Xeon a step at 1 024 nodes took 4 to 7% less, by runs that are not kept.)
    """
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef int64_t begin, size, step
    while lines > 0 and ahead.element < ahead.limit:
        begin, size = ahead.row.begin + ahead.place, ahead.row[1].at - ahead.row.at
        prefetch_far_at(indices, begin)
        prefetch_far_at(weight, begin)
        step = min(LINE - begin % LINE, size - ahead.place)
        ahead.place += step
        ahead.element += step
        if ahead.place == size:
            ahead.row += 1
            ahead.place = 0
        lines -= 1


cdef inline inline_void fetch_again(const Visit* call, const Row* row) noexcept nogil:
    """Fetch the ends of a row, all of a short one, that is soon to be copied: out of the second cache."""
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef int64_t last = row.begin + row[1].at - row.at - 1
    prefetch_at(indices, row.begin, 0)
    prefetch_at(weight, row.begin, 1)
    prefetch_at(indices, last, 0)
    prefetch_at(weight, last, 1)


cdef inline inline_void potentiate(
    const Visit* call, Piece* piece, int64_t first, int64_t count, int32_t until, int kind, bint arrives
) noexcept nogil:
    """Let listed synapses take the spikes that are listed with them, if these are not too late."""
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
        x = high if x > high else x
        if arrives or <int32_t> step[k] < until:  # (where spikes arrive, none is too late)
            piece.weight[missed[k]] = x


cdef inline inline_void take_missed(Job* job, Piece* piece, Ahead* ahead, int kind, bint arrives) noexcept nogil:
    """Let all synapses of the piece take what they have missed."""
    cdef const Visit* call = job.call
    cdef int64_t starts[RECENT + 2]
    cdef const uint16_t* recent = call.recent
    cdef int64_t k, count = 0, last, n_post = call.network.n_other
    cdef int level = 0
    cdef uint16_t step
    for k in range(piece.count):
        step = recent[TOGETHER * <int64_t> piece.post[k]]
        piece.missed[count], piece.step[count] = <uint16_t> k, step
        count += <int32_t> step >= piece.first[piece.row[k]]
    starts[0], starts[1] = 0, count
    fetch(call, ahead, SOME)
    while starts[level] < count and level + 1 < RECENT:
        last = count
        level += 1
        recent += 1 if level % TOGETHER else TOGETHER * n_post - TOGETHER + 1
        for k in range(starts[level - 1], last):
            step = recent[TOGETHER * <int64_t> piece.post[piece.missed[k]]]
            piece.missed[count], piece.step[count] = piece.missed[k], step
            count += <int32_t> step >= piece.first[piece.row[piece.missed[k]]]
        starts[level + 1] = count
        fetch(call, ahead, SOME)
    while level >= 0:
        fetch(call, ahead, SOME)
        potentiate(call, piece, starts[level], starts[level + 1] - starts[level], job.until, kind, arrives)
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
    if job.parts == 0:
        for k in range(piece.count):
            out[piece.post[k]] += piece.weight[k]
        return
    if job.parts == 1:
        for k in range(piece.count):
            sent[0][k].post, sent[0][k].weight = piece.post[k], piece.weight[k]
        sent[0] += piece.count
        return
    for k in range(piece.count):
        post = piece.post[k]
        place = sent[post >> job.shift]
        place.post, place.weight = post, piece.weight[k]
        sent[post >> job.shift] = place + 1


cdef inline inline_void finish(
    Job* job, Piece* piece, Ahead* ahead, Sent** sent, int up, int down, bint arrives
) noexcept nogil:
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
    take_missed(job, piece, ahead, up, arrives)
    if arrives:
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


cdef inline inline_void copy_blocks(void* to, const void* source, int64_t size) noexcept nogil:
    """Copy one to two blocks of numbers, without a loop, by blocks that may overlap."""
    cdef int32_t first[BLOCK]
    cdef int32_t last[BLOCK]
    memcpy(first, source, BLOCK * sizeof(int32_t))
    memcpy(last, <const int32_t*> source + size - BLOCK, BLOCK * sizeof(int32_t))
    memcpy(to, first, BLOCK * sizeof(int32_t))
    memcpy(<int32_t*> to + size - BLOCK, last, BLOCK * sizeof(int32_t))


cdef inline inline_void copy_synapses(
    Piece* piece, const int32_t* indices, const float* weight, int64_t size, int64_t rest
) noexcept nogil:
    """Copy synapses behind those of the piece.

    A loop of as many as there are takes longer to leave than to run, if rows are short. So the numbers of the row, and
    its indices, are copied by blocks, the last of which goes on into what follows, where there is as much. (Weights
    that follow may be another thread's. Two blocks of numbers end one behind the piece at most, as 8 fit into it.)
    """
    cdef int32_t* post = piece.post + piece.count
    cdef uint16_t* row = piece.row + piece.count
    cdef uint16_t number[2 * BLOCK]
    cdef int64_t k
    for k in range(2 * BLOCK):
        number[k] = <uint16_t> piece.rows
    if BLOCK <= size <= 2 * BLOCK:
        copy_blocks(post, indices, size)
        copy_blocks(piece.weight + piece.count, weight, size)
        memcpy(row, number, 2 * BLOCK * sizeof(uint16_t))
        return
    memcpy(piece.weight + piece.count, weight, size * sizeof(float))
    if size + BLOCK > rest:
        for k in range(size):
            post[k], row[k] = indices[k], <uint16_t> piece.rows
        return
    k = 0
    while k < size:
        memcpy(post + k, indices + k, BLOCK * sizeof(int32_t))
        memcpy(row + k, number, BLOCK * sizeof(uint16_t))
        k += BLOCK


cdef inline inline_void add_synapses(
    Job* job, Piece* piece, Row source, int64_t begin, int64_t end, Ahead* ahead, Sent** sent, int up, int down,
    bint arrives
) noexcept nogil:
    """Add synapses `begin` to `end`, of a row, to the piece, which is worked on whenever it is full."""
    cdef const Visit* call = job.call
    cdef const int32_t* indices = <const int32_t*> call.network.indices.data
    cdef const float* weight = <const float*> call.network.weight.data
    cdef int64_t size, row, nse = call.network.indices.size
    while begin < end:
        size, row = min(end - begin, PIECE - piece.count), piece.rows
        piece.begin[row], piece.size[row] = begin, size
        piece.before[row], piece.first[row] = source.before, source.first
        piece.trace[row], piece.more[row] = source.trace, trace_after(call, source.trace)
        copy_synapses(piece, indices + begin, weight + begin, size, nse - begin)
        piece.count += size
        piece.rows += 1
        begin += size
        if piece.count == PIECE:
            finish(job, piece, ahead, sent, up, down, arrives)
