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
    """
    int64_t add_and_get "HEBBAX_ADD"(int64_t*, int64_t) noexcept nogil
    int64_t get "HEBBAX_GET"(int64_t*) noexcept nogil
    void put "HEBBAX_PUT"(int64_t*, int64_t) noexcept nogil
    void pause "HEBBAX_PAUSE"() noexcept nogil  # between two looks at what another thread is to change
    int sched_yield() noexcept nogil


ctypedef void (*Task)(void* state, int64_t start, int64_t stop) noexcept nogil


# Threads to borrow: `schedule` runs `work(shared)` on one of the lender's, some time, and returns whether it will.
# Without a lender (`schedule` is NULL) they are OpenMP's.
cdef struct Pool:
    bint (*schedule)(void* lender, void (*work)(void*) noexcept nogil, void* shared) noexcept nogil
    void* lender
    bint alone  # no others: this thread is one of several that are at work already


cdef int64_t chunks_for(const Pool* pool, int64_t work, int64_t grain, int64_t per_thread) noexcept nogil
cdef void run_chunks(const Pool* pool, Task task, void* state, int64_t size, int64_t chunks) noexcept nogil
