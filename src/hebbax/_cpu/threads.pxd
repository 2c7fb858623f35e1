"""How many threads a kernel uses, whose they are, and the one loop that runs on them."""

from libc.stdint cimport int64_t


cdef extern from *:
    """
    #define HEBBAX_ADD(p, n) __atomic_add_fetch((p), (n), __ATOMIC_ACQ_REL)
    #define HEBBAX_GET(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define HEBBAX_PUT(p, x) __atomic_store_n((p), (x), __ATOMIC_RELEASE)
    #if defined(__x86_64__) || defined(__i386__)
    #define HEBBAX_PAUSE() __builtin_ia32_pause()
    #else
    #define HEBBAX_PAUSE() ((void)0)
    #endif
    #include <sched.h>
    #include <time.h>
    static inline double hebbax_seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + 1e-9 * now.tv_nsec;
    }
    """
    int64_t add_and_get "HEBBAX_ADD"(int64_t*, int64_t) noexcept nogil
    int64_t get "HEBBAX_GET"(int64_t*) noexcept nogil
    void put "HEBBAX_PUT"(int64_t*, int64_t) noexcept nogil
    void pause "HEBBAX_PAUSE"() noexcept nogil  # between two looks at what another thread is to change
    int sched_yield() noexcept nogil
    double seconds "hebbax_seconds"() noexcept nogil


ctypedef void (*Task)(void* state, int64_t start, int64_t stop) noexcept nogil


# What a call by Python's main thread looks at, so that Ctrl-C ends it: that thread alone can answer a signal.
cdef struct Watch:
    unsigned long thread
    double next      # when it is to look again whether there was one
    int64_t stopped  # whether the answer is an exception, which Python then has pending: the call is to end


# Threads to borrow: `schedule` runs `work(shared)` on one of the lender's, some time, and returns whether it will.
# Without a lender (`schedule` is NULL) they are OpenMP's.
cdef struct Pool:
    bint (*schedule)(void* lender, void (*work)(void*) noexcept nogil, void* shared) noexcept nogil
    void* lender
    bint alone  # no others: this thread is one of several that are at work already
    Watch* watch  # NULL: nobody waits for the call who could end it


cdef bint look(Watch* watch) noexcept nogil


cdef inline bint is_stopped(const Pool* pool) noexcept nogil:
    """Whether the call is to end, for spans to ask every `LOOK` elements or so."""
    return pool.watch != NULL and look(pool.watch)


cdef enum:
    LOOK = 1 << 16


cdef int64_t most_threads() noexcept nogil
cdef int64_t chunks_for(const Pool* pool, int64_t work, int64_t grain, int64_t per_thread) noexcept nogil
cdef void run_chunks(const Pool* pool, Task task, void* state, int64_t size, int64_t chunks) noexcept nogil
