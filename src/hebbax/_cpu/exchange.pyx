"""Spikes exchanged between devices of one process, which wait for each other awake.

XLA's own gathering puts a device that comes first to sleep, and to wake it took longer than the half of a step that a
second device saves (benchmarks/network_traps.py measures both).

Every device puts its part where all can read it, says so, and waits until all have. There are two such places, in turn:
a device that is ahead by one exchange cannot be ahead by two, because that takes all others.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from hebbax._core.xla_ffi cimport (
    INTERNAL, XLA_FFI_Buffer, XLA_FFI_CallFrame, XLA_FFI_Error, answer_metadata, get_run, new_error,
)
from hebbax._cpu.threads cimport add_and_get, get, pause, sched_yield

cdef extern from *:
    """
    #include <time.h>
    #define HEBBAX_TAKE(p) (__atomic_exchange_n((p), 1, __ATOMIC_ACQUIRE) == 0)
    #define HEBBAX_GIVE(p) __atomic_store_n((p), 0, __ATOMIC_RELEASE)
    static inline double hebbax_seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + 1e-9 * now.tv_nsec;
    }
    """
    bint take "HEBBAX_TAKE"(int*) noexcept nogil
    void give "HEBBAX_GIVE"(int*) noexcept nogil
    double seconds "hebbax_seconds"() noexcept nogil

cpdef enum:
    MOST_DEVICES = 128

cdef enum:
    LINE = 8            # numbers in a cache line
    MEETINGS = 4        # that are remembered; programs with an exchange run one at a time
    AWAKE = 2000        # looks before a device lets others have its core
    PATIENCE = 60       # seconds


cdef struct Meeting:
    int64_t run
    int64_t size                               # of one place, in bytes
    uint8_t* places                            # two
    int64_t exchanges[MOST_DEVICES * LINE]     # of every device

cdef Meeting meetings[MEETINGS]
cdef int64_t opened = 0
cdef int lock = 0


cdef Meeting* meeting_of(int64_t run, int64_t size) noexcept nogil:
    """Where the devices of a run meet; NULL if there is no memory, or it is one for another size."""
    global opened
    cdef Meeting* meeting = NULL
    cdef int k
    while not take(&lock):
        pause()
    for k in range(MEETINGS):
        if meetings[k].places != NULL and meetings[k].run == run:
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
            if waited > PATIENCE:
                return False
    return True


cdef XLA_FFI_Error* handle_exchange(XLA_FFI_CallFrame* frame) noexcept nogil:
    """Operands: a device's part, shape (rows, n) of bytes, and its number; result: (rows, devices * n)."""
    cdef XLA_FFI_Buffer *part
    cdef XLA_FFI_Buffer *whole
    cdef XLA_FFI_Error* error
    cdef Meeting* meeting
    cdef uint8_t* place
    cdef int64_t run, rows, n, devices, own, count, k, row
    if answer_metadata(frame, 0):
        return NULL
    error = get_run(frame, &run)
    if error != NULL:
        return error
    part, whole = <XLA_FFI_Buffer*> frame.args.args[0], <XLA_FFI_Buffer*> frame.rets.rets[0]
    own = (<int32_t*> (<XLA_FFI_Buffer*> frame.args.args[1]).data)[0]
    rows, n = part.dims[0], part.dims[1]
    devices = whole.dims[1] // n if n else 0
    if rows == 0 or n == 0:
        return NULL
    meeting = meeting_of(run, devices * rows * n)
    if meeting == NULL or not 0 <= own < devices <= MOST_DEVICES:
        return new_error(frame.api, b"exchange: no memory, or a second exchange in a program", INTERNAL)
    count = get(&meeting.exchanges[own * LINE]) + 1
    place = meeting.places + (count & 1) * meeting.size
    memcpy(place + own * rows * n, part.data, rows * n)
    add_and_get(&meeting.exchanges[own * LINE], 1)
    for k in range(devices):
        if not came(&meeting.exchanges[k * LINE], count):
            return new_error(frame.api, b"exchange: a device did not come within a minute", INTERNAL)
        for row in range(rows):
            memcpy(<uint8_t*> whole.data + (row * devices + k) * n, place + (k * rows + row) * n, n)
    return NULL


def capsule():
    """The handler, as `jax.ffi.register_ffi_target` takes it."""
    return PyCapsule_New(<void*> handle_exchange, NULL, NULL)
