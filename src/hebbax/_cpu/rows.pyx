from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from hebbax._cpu.buffers cimport INT32, itemsize, prefetch
from hebbax._cpu.threads cimport chunks_for, run_chunks

cdef enum:
    HEADER = 5   # of `_core.events`, before the delays
    BLOCK = 64   # neurons whose spikes are looked at at once
    STARTS_AHEAD = 24  # events whose rows' places are fetched while those of earlier ones are read
    LOOKED_UP = 1024  # of them that are worth another thread


cdef extern from *:
    """
    #define HEBBAX_LOWEST_BIT(word) ((int64_t)__builtin_ctzll(word))
    """
    int64_t lowest_bit "HEBBAX_LOWEST_BIT"(uint64_t) noexcept nogil


cdef inline int64_t at(const Buffer* integers, int64_t k) noexcept nogil:
    return (<int32_t*> integers.data)[k] if integers.dtype == INT32 else (<int64_t*> integers.data)[k]


cdef int64_t skip_silent(const uint8_t* spike, int64_t j, int64_t n) noexcept nogil:
    """The first neuron from `j` on that may spike: 32, then 8 neurons at a time."""
    cdef uint64_t word[4]
    while j + 32 <= n:
        memcpy(word, spike + j, 32)
        if word[0] | word[1] | word[2] | word[3]:
            break
        j += 32
    while j + 8 <= n:
        memcpy(word, spike + j, 8)
        if word[0]:
            break
        j += 8
    return j


cdef bint open_lists(Lists* lists, const Buffer* events, bint due) noexcept nogil:
    """Find the parts of the array; return whether its size is that of what its header says, and all is in range."""
    cdef int32_t* header = <int32_t*> events.data
    cdef int64_t d
    if events.dtype != INT32 or events.size < HEADER:
        return False
    lists.header, lists.delays = header, header + HEADER
    lists.position, lists.shift, lists.length, lists.n, lists.count = (
        header[0], header[1], header[2], header[3], header[4])
    if lists.length < 1 or lists.n < 0 or not 0 <= lists.position < lists.length or lists.shift < 0:
        return False
    if not 0 <= lists.count <= lists.length or events.size != HEADER + lists.count + lists.length * (lists.n + 1):
        return False
    for d in range(lists.count):
        if not 0 <= lists.delays[d] < lists.length:
            return False
    lists.lists = lists.delays + lists.count
    lists.sent = False
    if due:
        lists.position = (lists.position + 1) % lists.length
    return True


cdef bint open_sent(Lists* lists, const Buffer* message, bint second) noexcept nogil:
    """The same of a message, in which there is the one list of a step."""
    cdef int32_t* header = <int32_t*> message.data
    cdef int64_t begin, end
    if message.dtype != INT32 or message.size < SENT_HEADER:
        return False
    lists.position, lists.n, lists.length, lists.count, lists.shift = (
        header[STEP], header[NEURONS], header[STEPS], 1, 0)
    if second:
        if not 0 <= lists.position < lists.length // 2:
            return False
        lists.position += lists.length // 2
    if lists.n < 0 or header[CAPACITY] < 0 or header[LOST] or not 0 <= lists.position < lists.length:
        return False
    if message.size != SENT_HEADER + lists.length + 1 + header[CAPACITY]:
        return False
    begin, end = header[SENT_HEADER + lists.position], header[SENT_HEADER + lists.position + 1]
    if not 0 <= begin <= end <= header[CAPACITY]:
        return False
    lists.named = List(header + SENT_HEADER + lists.length + 1 + begin, end - begin, 0)
    lists.sent = True
    return True


cdef void record(Lists* lists, const uint8_t* spike, int64_t position, int64_t shift) noexcept nogil:
    """Write the list of a step at a position in range, and where that is, and the shift."""
    cdef int64_t j = 0, last
    cdef int32_t* spikes = lists.lists + position * (lists.n + 1)
    cdef int32_t count = 0
    while True:
        j = skip_silent(spike, j, lists.n)
        if j >= lists.n:
            break
        last = min(j + 8, lists.n)
        while j < last:
            if spike[j]:
                count += 1
                spikes[count] = <int32_t> j
            j += 1
    spikes[0] = count
    lists.header[0], lists.header[1] = <int32_t> position, <int32_t> shift


cdef List list_of(const Lists* lists, int64_t d) noexcept nogil:
    """The spikes that arrive with the `d`-th delay, or those of a message."""
    cdef int64_t place
    cdef const int32_t* found
    if lists.sent:
        return lists.named
    place = lists.position - lists.delays[d]
    found = lists.lists + (place if place >= 0 else place + lists.length) * (lists.n + 1)
    return List(found + 1, found[0] if 0 <= found[0] <= lists.n else -1, (lists.length - 1 - lists.delays[d]) * lists.n)


cdef int64_t rows_of(const Lists* lists) noexcept nogil:
    """How many rows they may name."""
    return lists.n if lists.sent else lists.length * lists.n


cdef struct Search:
    const Network* network
    Rows* rows
    Status status


cdef void look_up(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Find where some of the events' rows begin, and their elements, which stand in `before` until all are known."""
    cdef Search* search = <Search*> state
    cdef const Buffer* indptr = &search.network.indptr
    cdef int64_t nse = search.network.indices.size, k, begin, end
    cdef int size = itemsize(indptr.dtype)
    cdef Row* row = search.rows.row
    for k in range(start, min(start + STARTS_AHEAD, stop)):
        prefetch(<char*> indptr.data + row[k].event * size, 0)
    for k in range(start, stop):
        if k + STARTS_AHEAD < stop:
            prefetch(<char*> indptr.data + row[k + STARTS_AHEAD].event * size, 0)
        begin, end = at(indptr, row[k].event), at(indptr, row[k].event + 1)
        if begin < 0 or end < begin or end > nse:
            set_status(&search.status, BAD_INDPTR)
            continue
        row[k].begin, row[k].before = begin, end - begin


cdef inline uint64_t spikes_in_block(const uint8_t* spike, int64_t size) noexcept nogil:
    """A bit for each of up to 64 neurons, by multiplying 8 bytes at a time, each of which is made 0 or 1 before."""
    cdef uint64_t word, found = 0
    cdef int64_t k
    for k in range(0, size - 7, 8):
        memcpy(&word, spike + k, 8)
        word |= word >> 4 & <uint64_t> 0x0F0F0F0F0F0F0F0F
        word |= word >> 2 & <uint64_t> 0x0303030303030303
        word = (word | word >> 1) & <uint64_t> 0x0101010101010101
        found |= (word * <uint64_t> 0x0102040810204080 >> 56) << k
    for k in range(size // 8 * 8, size):
        found |= <uint64_t> (spike[k] != 0) << k
    return found


cdef void find_events(const Network* network, Rows* rows) noexcept nogil:
    """Of 64 neurons at once: a branch for each neuron is mispredicted at each spike, 3 times, and rows wait for it."""
    cdef const uint8_t* spike = <const uint8_t*> network.spike.data
    cdef int64_t n = network.spike.size, j = rows.next_event
    cdef uint64_t found
    while rows.count <= rows.room - BLOCK:
        j = skip_silent(spike, j, n)
        if j >= n:
            break
        found = spikes_in_block(spike + j, min(<int64_t> BLOCK, n - j))
        while found:
            rows.row[rows.count].event = j + lowest_bit(found)
            rows.count += 1
            found &= found - 1
        j += BLOCK
    rows.next_event = min(j, n)


cdef Status read_events(const Network* network, Rows* rows) noexcept nogil:
    """The same of lists."""
    cdef const Lists* lists = &network.lists
    cdef int64_t d = rows.next_list, k = rows.next_event
    cdef List spikes
    if network.indptr.size != rows_of(lists) + 1:
        return BAD_LISTS
    while d < lists.count and rows.count < rows.room:
        spikes = list_of(lists, d)
        if spikes.count < 0:
            return BAD_LISTS
        if k == 0 and d + 1 < lists.count:
            prefetch(list_of(lists, d + 1).ids, 0)
        while k < spikes.count and rows.count < rows.room:
            if not 0 <= spikes.ids[k] < lists.n:
                return BAD_LISTS
            rows.row[rows.count].event = spikes.first + spikes.ids[k]
            rows.count += 1
            k += 1
        if k >= spikes.count:
            d, k = d + 1, 0
    rows.next_list, rows.next_event = d, k
    return OK


cdef void close_up(Rows* rows) noexcept nogil:
    """Leave out the empty rows, and number the elements."""
    cdef int64_t k, size, count = rows.count
    rows.count = rows.elements = 0
    for k in range(count):
        size = rows.row[k].before
        rows.row[rows.count] = Row(rows.row[k].begin, rows.elements, rows.row[k].event)
        rows.elements += size
        rows.count += size > 0
    rows.row[rows.count].before = rows.elements


cdef Status first_batch(const Network* network, Rows* rows) noexcept nogil:
    """As `next_batch`, of rows that are to be forgotten after the last one."""
    cdef int64_t events = list_of(&network.lists, 0).count if network.listed and network.lists.sent else 0
    rows.row, rows.room = rows.own, BATCH
    rows.next_event = rows.next_list = 0
    if events > BATCH:
        events = min(events, <int64_t> LONGEST)
        rows.row = <Row*> malloc((events + 1) * sizeof(Row))
        if rows.row == NULL:
            rows.row, events = rows.own, BATCH
        rows.room = events
    return next_batch(network, rows)


cdef void forget(Rows* rows) noexcept nogil:
    if rows.row != rows.own:
        free(rows.row)


cdef Status next_batch(const Network* network, Rows* rows) noexcept nogil:
    """Fill `rows` with the next spiking neurons' non-empty rows; none are left when `rows.count` is 0."""
    cdef Search search = Search(network, rows, OK)
    rows.count = rows.elements = 0
    while rows.count == 0:
        if network.listed:
            search.status = read_events(network, rows)
        else:
            find_events(network, rows)
        if search.status != OK or rows.count == 0:
            return search.status
        run_chunks(&network.pool, look_up, &search, rows.count, chunks_for(&network.pool, rows.count, LOOKED_UP, 1))
        if search.status != OK:
            return search.status
        close_up(rows)
    return OK


cdef inline int64_t row_at(const Rows* rows, int64_t element) noexcept nogil:
    """Which row of the batch holds its `element`-th element."""
    cdef int64_t low = 0, high = rows.count - 1, middle
    while low < high:
        middle = (low + high + 1) // 2
        if rows.row[middle].before <= element:
            low = middle
        else:
            high = middle - 1
    return low


cdef void walk_rows(Walk* walk, const Rows* rows, int64_t start, int64_t stop) noexcept nogil:
    """Set out on the batch's elements `start` to `stop`, of which there is at least one: some rows, whole."""
    walk.rows, walk.start, walk.stop = rows, start, stop
    walk.first, walk.last = row_at(rows, start), row_at(rows, stop - 1)
    walk.low, walk.high = 0.0, 1.0
    set_out(walk, stop - start)


cdef void walk_places(Walk* walk, const Rows* rows, double low, double high) noexcept nogil:
    """Set out on all the batch's rows, but only on each one's elements from `low` to `high`, in [0, 1]."""
    walk.rows, walk.start, walk.stop = rows, 0, rows.elements
    walk.first, walk.last = 0, rows.count - 1
    walk.low, walk.high = low, high
    set_out(walk, <int64_t> (rows.elements * (high - low)))


cdef void set_out(Walk* walk, int64_t elements) noexcept nogil:
    walk.row, walk.step = walk.first, 0
    walk.steps = elements // ((walk.last - walk.first + 1) * PIECE) + 1
    walk.begin, walk.end = walk.low, end_of_step(walk)


cdef bint describe_row(const Network* network, int64_t j, const char* name, char* message, size_t size) noexcept nogil:
    """Write what is wrong with the first bad index of a row into `message`; return whether there is one."""
    cdef int64_t nse = network.indices.size, k, begin = at(&network.indptr, j), end = at(&network.indptr, j + 1)
    if begin < 0 or end < begin or end > nse:
        snprintf(message, size, b"%s: indptr[%lld : %lld] = [%lld, %lld], expected ascending values in [0, %lld]",
                 name, <long long> j, <long long> j + 2, <long long> begin, <long long> end, <long long> nse)
        return True
    for k in range(begin, end):
        if not 0 <= at(&network.indices, k) < network.n_other:
            snprintf(message, size, b"%s: indices[%lld] = %lld, expected a neuron in [0, %lld)",
                     name, <long long> k, <long long> at(&network.indices, k), <long long> network.n_other)
            return True
        if network.permuted and not 0 <= at(&network.slots, k) < nse:
            snprintf(message, size, b"%s: weight_indices[%lld] = %lld, expected a position in [0, %lld)",
                     name, <long long> k, <long long> at(&network.slots, k), <long long> nse)
            return True
    return False


cdef void describe(const Network* network, const char* name, char* message, size_t size) noexcept nogil:
    """Write what is wrong with the first bad index of a spiking row into `message`."""
    cdef const uint8_t* spike = <const uint8_t*> network.spike.data
    cdef int64_t j
    for j in range(network.indptr.size - 1):
        if network.listed or spike[j]:
            if describe_row(network, j, name, message, size):
                return
    snprintf(message, size, b"%s: an index changed while the kernel ran", name)
