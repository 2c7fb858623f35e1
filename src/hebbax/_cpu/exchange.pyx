"""Spikes exchanged between devices of one process, which wait for each other awake.

XLA's own gathering puts a device that comes first to sleep, and to wake it took longer than the half of a step that a
second device saves (benchmarks/network_traps.py measures both).

Every device puts its part where all can read it, says so, and waits until all have. There are two such places, in turn:
a device that is ahead by one exchange cannot be ahead by two, because that takes all others.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from hebbax._core.xla_ffi cimport (
    INTERNAL, OUT_OF_RANGE, XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Error, XLA_FFI_Scalar, answer_metadata, get_run,
    new_error, schedule,
)
from hebbax._cpu.buffers cimport prefetch_lines
from hebbax._cpu.rows cimport (
    BAD_LISTS, CAPACITY, LOST, NEURONS, OK, SENT_HEADER, STEP, STEPS, Status, set_status, skip_silent,
)
from hebbax._cpu.threads cimport Pool, add_and_get, chunks_for, get, pause, run_chunks, sched_yield, seconds

cdef extern from *:
    """
    #define HEBBAX_TAKE(p) (__atomic_exchange_n((p), 1, __ATOMIC_ACQUIRE) == 0)
    #define HEBBAX_GIVE(p) __atomic_store_n((p), 0, __ATOMIC_RELEASE)
    """
    bint take "HEBBAX_TAKE"(int*) noexcept nogil
    void give "HEBBAX_GIVE"(int*) noexcept nogil

cpdef enum:
    MOST_DEVICES = 128

cdef enum:
    LINE = 8            # numbers in a cache line
    MEETINGS = 4        # that are remembered; programs with an exchange run one at a time
    AWAKE = 2000        # looks before a device lets others have its core
    AHEAD = 8           # messages of which the beginning is fetched
    GRAIN = 4096        # steps of messages that are worth another thread


cdef struct Meeting:
    int64_t run
    int64_t size                               # of one place, in bytes
    uint8_t* places                            # two
    int64_t exchanges[MOST_DEVICES * LINE]     # of every device

cdef struct Merge:
    const int32_t* messages
    int64_t devices
    int64_t size      # of a message, in integers
    int64_t steps
    int64_t n         # neurons of a device
    int32_t* ids      # of the result
    int64_t chunks    # into which the messages are divided
    int32_t* counts   # by chunks: spikes of each step, then where they go; and the most that one has lost
    Status status


cdef Meeting meetings[MEETINGS]
cdef int64_t opened = 0
cdef int lock = 0
cdef double patience = 60  # seconds


cdef Meeting* meeting_of(int64_t run, int64_t size) noexcept nogil:
    """Where the devices of a run meet; NULL if there is no memory, or it is one for another size."""
    global opened
    cdef Meeting* meeting = NULL
    cdef int k
    while not take(&lock):
        pause()
    for k in range(MEETINGS):
        if meetings[k].size and meetings[k].run == run:  # also where there was no memory: all devices are to hear it
            meeting = &meetings[k]
    if meeting == NULL:
        meeting = &meetings[opened % MEETINGS]
        opened += 1
        free(meeting.places)
        meeting.run, meeting.size, meeting.places = run, size, <uint8_t*> malloc(2 * size + 1)
        memset(meeting.exchanges, 0, sizeof(meeting.exchanges))
    give(&lock)
    return meeting if meeting.places != NULL and meeting.size == size else NULL


cdef bint came(int64_t* exchanges, int64_t count) noexcept nogil:
    """Wait until a device has done so many exchanges; False if it does not."""
    cdef int64_t looks = 0
    cdef double waited = 0, now, last = 0
    while get(exchanges) < count:
        looks += 1
        if looks < AWAKE:
            pause()
            continue
        sched_yield()
        if looks % AWAKE == 0:
            now = seconds()
            if last > 0:
                waited += min(now - last, 1.0)  # not all of the time for which the process was stopped
            last = now
            if waited > patience:
                return False
    return True


cdef XLA_FFI_Error* handle_exchange(XLA_FFI_CallFrame* frame) noexcept nogil:
    """Operands: a device's message (see `_core.sent`), and its number; result: the messages of all devices.

    Of a message, only what is used is copied.
    """
    cdef XLA_FFI_Buffer *part
    cdef XLA_FFI_Buffer *whole
    cdef XLA_FFI_Error* error
    cdef Meeting* meeting
    cdef uint8_t* place
    cdef int64_t run, size, devices, own, count, k
    cdef char said[80]
    if answer_metadata(frame, 0):
        return NULL
    error = get_run(frame, &run)
    if error != NULL:
        return error
    part, whole = <XLA_FFI_Buffer*> frame.args.args[0], <XLA_FFI_Buffer*> frame.rets.rets[0]
    own = (<int32_t*> (<XLA_FFI_Buffer*> frame.args.args[1]).data)[0]
    size, devices = part.dims[0] * sizeof(int32_t), whole.dims[0] // part.dims[0]
    meeting = meeting_of(run, devices * size)
    if meeting == NULL or not 0 <= own < devices <= MOST_DEVICES:
        return new_error(frame.api, b"exchange: no memory, or a second exchange in a program", INTERNAL)
    count = get(&meeting.exchanges[own * LINE]) + 1
    place = meeting.places + (count & 1) * meeting.size
    memcpy(place + own * size, part.data, used(<int32_t*> part.data, part.dims[0]))
    add_and_get(&meeting.exchanges[own * LINE], 1)
    for k in range(devices):
        if not came(&meeting.exchanges[k * LINE], count):
            snprintf(said, sizeof(said), b"exchange: device %lld did not come within %g s", <long long> k, patience)
            return new_error(frame.api, said, INTERNAL)
        memcpy(<uint8_t*> whole.data + k * size, place + k * size, used(<int32_t*> (place + k * size), part.dims[0]))
    return NULL


cdef int64_t used(const int32_t* message, int64_t size) noexcept nogil:
    """Bytes of a message of so many integers that say something."""
    cdef int64_t starts = SENT_HEADER + <int64_t> message[STEPS] + 1
    return sizeof(int32_t) * max(SENT_HEADER, min(size, starts + message[starts - 1] if 0 < starts <= size else size))


cdef XLA_FFI_Error* handle_pack(XLA_FFI_CallFrame* frame) noexcept nogil:
    """Operand: spikes, shape (steps, own) of bytes; result: the message that lists them (see `_core.sent`)."""
    cdef XLA_FFI_Buffer *spikes
    cdef XLA_FFI_Buffer *message
    cdef int32_t* header
    cdef int32_t* ids
    cdef uint8_t* spike
    cdef int64_t steps, own, capacity, step, j, last, count = 0
    if answer_metadata(frame, 0):
        return NULL
    spikes, message = <XLA_FFI_Buffer*> frame.args.args[0], <XLA_FFI_Buffer*> frame.rets.rets[0]
    header, spike = <int32_t*> message.data, <uint8_t*> spikes.data
    steps, own = spikes.dims[0], spikes.dims[1]
    ids, capacity = header + SENT_HEADER + steps + 1, message.dims[0] - SENT_HEADER - steps - 1
    begin_message(header, own, steps, capacity)
    for step in range(steps):
        header[SENT_HEADER + step] = <int32_t> count
        j = skip_silent(spike, 0, own)
        while j < own:
            last = min(j + 8, own)
            while j < last:
                if spike[j]:
                    if count < capacity:
                        ids[count] = <int32_t> j
                    count += 1
                j += 1
            j = skip_silent(spike, j, own)
        spike += own
    header[SENT_HEADER + steps] = <int32_t> count
    header[LOST] = <int32_t> max(count - capacity, 0)
    return NULL


cdef inline void begin_message(int32_t* header, int64_t n, int64_t steps, int64_t capacity) noexcept nogil:
    header[STEP], header[NEURONS], header[STEPS], header[CAPACITY] = 0, <int32_t> n, <int32_t> steps, <int32_t> capacity


cdef inline bint is_sized(const int32_t* message, int64_t size) noexcept nogil:
    """Whether a message is of as many integers as it says: an array may hold anything."""
    if size < SENT_HEADER or message[STEPS] < 0 or message[CAPACITY] < 0:
        return False
    return size == SENT_HEADER + <int64_t> message[STEPS] + 1 + message[CAPACITY]


cdef inline bint is_packed(const int32_t* message, const int32_t* first) noexcept nogil:
    """Whether a message is like the first one, and its steps begin one after the other and within its capacity."""
    cdef const int32_t* starts = message + SENT_HEADER
    cdef int64_t step, last = 0
    cdef bint ascends = True
    if message[NEURONS] != first[NEURONS] or message[STEPS] != first[STEPS] or message[CAPACITY] != first[CAPACITY]:
        return False
    for step in range(message[STEPS] + 1):
        ascends &= last <= starts[step]
        last = starts[step]
    return ascends and message[LOST] == max(last - message[CAPACITY], 0)


cdef inline int32_t* counts_of(const Merge* merge, int64_t chunk) noexcept nogil:
    return merge.counts + chunk * (merge.steps + 1)


cdef inline XLA_FFI_Error* not_packed(XLA_FFI_CallFrame* frame) noexcept nogil:
    return new_error(frame.api, b"merge: the messages are not as they were packed", OUT_OF_RANGE)


cdef void count_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Check messages, and count their spikes of each step."""
    cdef Merge* merge = <Merge*> state
    cdef int64_t d, step, size = merge.size
    cdef const int32_t* part
    cdef int32_t* counts = counts_of(merge, (start * merge.chunks + merge.devices - 1) // merge.devices)
    for d in range(start, stop):
        part = merge.messages + d * size
        prefetch_lines(part, AHEAD * size, AHEAD * size + SENT_HEADER + merge.steps, 0)
        if not is_packed(part, merge.messages):
            set_status(&merge.status, BAD_LISTS)
            return
        counts[merge.steps] = max(counts[merge.steps], part[LOST])
        for step in range(merge.steps):
            counts[step] += part[SENT_HEADER + step + 1] - part[SENT_HEADER + step]


cdef void copy_task(void* state, int64_t start, int64_t stop) noexcept nogil:
    """Copy the spikes of messages to where those of each step go."""
    cdef Merge* merge = <Merge*> state
    cdef int64_t d, step, k, size = merge.size, steps = merge.steps
    cdef const int32_t* starts
    cdef const int32_t* ids
    cdef int32_t* places = counts_of(merge, (start * merge.chunks + merge.devices - 1) // merge.devices)
    cdef int32_t first
    for d in range(start, stop):
        starts = merge.messages + d * size + SENT_HEADER
        ids, first = starts + steps + 1, <int32_t> (d * merge.n)
        if d + 1 < stop:
            prefetch_lines(starts, size, size + steps + starts[size + steps], 0)
        for step in range(steps):
            for k in range(starts[step], starts[step + 1]):
                merge.ids[places[step]] = ids[k] + first
                places[step] += 1


cdef XLA_FFI_Error* handle_merge(XLA_FFI_CallFrame* frame) noexcept nogil:
    """Operand: the messages of all devices, shape (devices, size); result: the message that says all.

    How many neurons a device has is an attribute: no size says so, and that messages agree may be one mistake in all.
    """
    cdef XLA_FFI_Buffer *messages
    cdef XLA_FFI_Buffer *merged
    cdef Merge merge
    cdef int32_t *header
    cdef int64_t capacity, step, chunk
    cdef int32_t count, place = 0
    cdef Pool pool = Pool(schedule, frame, False, NULL)
    if answer_metadata(frame, 0):
        return NULL
    messages, merged = <XLA_FFI_Buffer*> frame.args.args[0], <XLA_FFI_Buffer*> frame.rets.rets[0]
    if messages.rank != 2 or frame.attrs.size != 1:
        return new_error(frame.api, b"this call was compiled by another version of hebbax", OUT_OF_RANGE)
    merge.messages, header = <const int32_t*> messages.data, <int32_t*> merged.data
    merge.devices, merge.size = messages.dims[0], messages.dims[1]
    merge.n = (<int32_t*> (<XLA_FFI_Scalar*> frame.attrs.attrs[0]).value)[0]
    if merge.devices < 1 or not is_sized(merge.messages, merge.size) or merge.messages[NEURONS] != merge.n:
        return not_packed(frame)
    merge.steps, merge.status = merge.messages[STEPS], OK
    capacity = merge.devices * merge.messages[CAPACITY]
    if merged.dims[0] != SENT_HEADER + merge.steps + 1 + capacity:
        return not_packed(frame)
    merge.ids = header + SENT_HEADER + merge.steps + 1
    merge.chunks = min(merge.devices, chunks_for(&pool, messages.dims[0] * merge.steps, GRAIN, 2))
    merge.counts = <int32_t*> calloc(merge.chunks * (merge.steps + 1), sizeof(int32_t))
    if merge.counts == NULL:
        return new_error(frame.api, b"merge: no memory", INTERNAL)
    begin_message(header, merge.devices * merge.n, merge.steps, capacity)
    header[LOST] = 0
    run_chunks(&pool, count_task, &merge, merge.devices, merge.chunks)
    for chunk in range(merge.chunks):
        header[LOST] = max(header[LOST], counts_of(&merge, chunk)[merge.steps])
    for step in range(merge.steps):  # what was counted becomes where it goes
        header[SENT_HEADER + step] = place
        for chunk in range(merge.chunks):
            count = counts_of(&merge, chunk)[step]
            counts_of(&merge, chunk)[step] = place
            place += count
    header[SENT_HEADER + merge.steps] = place
    if merge.status == OK and header[LOST] == 0:
        run_chunks(&pool, copy_task, &merge, merge.devices, merge.chunks)
    free(merge.counts)
    return NULL if merge.status == OK else not_packed(frame)


def set_patience(double longest):
    """For tests: for how many seconds a device waits for another one; return what was set before."""
    global patience
    before, patience = patience, longest
    return before


def capsules():
    """The handlers by name, as `jax.ffi.register_ffi_target` takes them."""
    return {
        "exchange": PyCapsule_New(<void*> handle_exchange, NULL, NULL),
        "pack": PyCapsule_New(<void*> handle_pack, NULL, NULL),
        "merge": PyCapsule_New(<void*> handle_merge, NULL, NULL),
    }
