"""Called by XLA, a kernel borrows threads of XLA's own pool; called from Python, it uses OpenMP's.

Measured with a prototype of the update, in a scan step that also does an elementwise operation, on 2 cores: OpenMP's
team and XLA's workers compete, and two threads of OpenMP mostly lost to one below 10^5 elements (down to 0.1 times its
speed), while XLA's pool gained from 8 000 elements on and, on a quiet machine, 1.6-1.9 times from 16 000.
"""

from cython.parallel cimport parallel, prange
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

cdef extern from "Python.h" nogil:
    int check_signals "PyErr_CheckSignals"() noexcept
    unsigned long current_thread "PyThread_get_thread_ident"() noexcept


cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <xmmintrin.h>
    typedef unsigned int hebbax_fp_mode;
    static inline hebbax_fp_mode hebbax_get_fp_mode(void) { return _mm_getcsr(); }
    static inline void hebbax_set_fp_mode(hebbax_fp_mode mode) { _mm_setcsr(mode); }
    #elif defined(__aarch64__)
    typedef unsigned long long hebbax_fp_mode;
    static inline hebbax_fp_mode hebbax_get_fp_mode(void) {
        hebbax_fp_mode mode; __asm__ volatile("mrs %0, fpcr" : "=r"(mode)); return mode;
    }
    static inline void hebbax_set_fp_mode(hebbax_fp_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
    #else
    typedef int hebbax_fp_mode;
    static inline hebbax_fp_mode hebbax_get_fp_mode(void) { return 0; }
    static inline void hebbax_set_fp_mode(hebbax_fp_mode mode) { (void)mode; }
    #endif

    #ifdef _OPENMP
    #define HEBBAX_OPENMP _OPENMP
    #else
    #define HEBBAX_OPENMP 0
    #endif
    """
    ctypedef unsigned long long fp_mode "hebbax_fp_mode"
    fp_mode get_fp_mode "hebbax_get_fp_mode"() noexcept nogil
    void set_fp_mode "hebbax_set_fp_mode"(fp_mode) noexcept nogil
    int OPENMP "HEBBAX_OPENMP"

cdef enum:
    MOST = 1 << 24  # elements of a chunk: a thread that is told to stop may have to wait until others have ended theirs

cdef double interval = 0.1  # seconds between two looks for signals
cdef int64_t limit = 1  # which a kernel may read while it is set
cdef bint forked = False


def without_openmp():
    """Never use it again: this process was forked, and OpenMP would wait for threads that it does not have."""
    global forked
    forked = True


def set_num_threads(int64_t n):
    put(&limit, n)


def get_num_threads():
    return get(&limit)


cdef int64_t most_threads() noexcept nogil:
    return get(&limit)


def look_every(double seconds):
    """For tests: how often a call by Python's main thread looks for signals."""
    global interval
    interval = seconds


def openmp_version():
    """The date of the OpenMP standard that this was built with, 0 if built without."""
    return OPENMP


def chunks(work, grain, per_thread):
    """`chunks_for` a call by XLA."""
    cdef Pool pool = Pool(nothing, NULL, False, NULL)
    return chunks_for(&pool, work, grain, per_thread)


cdef bint nothing(void* lender, void (*work)(void*) noexcept nogil, void* shared) noexcept nogil:
    return False


# A borrowed thread may come late, even after the work is done: so this outlives the call, until the last one lets go.
cdef struct Shared:
    Task task
    void* state
    int64_t size
    int64_t chunks
    int64_t claimed
    int64_t done
    int64_t holders
    fp_mode mode


cdef int64_t chunks_for(const Pool* pool, int64_t work, int64_t grain, int64_t per_thread) noexcept nogil:
    """Into how many chunks to split `work`, which is worth more threads from `grain` on (OpenMP's: 8 times that)."""
    cdef int64_t threads = get(&limit)
    if threads == 1 or pool.alone or work < (grain if pool.schedule != NULL else 8 * grain):
        return 1
    if forked and pool.schedule == NULL:
        return 1
    return max(min(per_thread * threads, 4 * work // grain), work // MOST)


cdef bint look(Watch* watch) noexcept nogil:
    """Let Python answer signals, if it is time for that and this is the thread that can; return whether to stop."""
    cdef double now
    if get(&watch.stopped):
        return True
    if current_thread() != watch.thread:
        return False
    now = seconds()
    if now < watch.next:
        return False
    if watch.next > 0:
        with gil:
            if check_signals() != 0:
                add_and_get(&watch.stopped, 1)
    watch.next = seconds() + interval
    return get(&watch.stopped) != 0


cdef void run_chunks(const Pool* pool, Task task, void* state, int64_t size, int64_t chunks) noexcept nogil:
    """Run `task` on `range(size)` in equal chunks, all in the caller's floating-point mode.

    XLA's threads flush subnormals and others do not: without this, which thread ran a chunk would show in the result.
    """
    if chunks == 1:
        task(state, 0, size)
    elif pool.schedule != NULL:
        run_borrowed(pool, task, state, size, chunks)
    else:
        run_openmp(task, state, size, chunks)


cdef void run_openmp(Task task, void* state, int64_t size, int64_t chunks) noexcept nogil:
    cdef fp_mode callers = get_fp_mode(), own
    cdef int64_t chunk
    cdef int threads = <int> get(&limit)
    with nogil, parallel(num_threads=threads):
        own = get_fp_mode()
        set_fp_mode(callers)
        for chunk in prange(chunks, schedule="dynamic"):
            task(state, size * chunk // chunks, size * (chunk + 1) // chunks)
        set_fp_mode(own)


cdef void run_borrowed(const Pool* pool, Task task, void* state, int64_t size, int64_t chunks) noexcept nogil:
    """The caller works too, and waits only for chunks that another thread has begun: no busy pool can block it."""
    cdef Shared* shared = <Shared*> malloc(sizeof(Shared))
    cdef int64_t spins = 0
    cdef int _
    if shared == NULL:
        task(state, 0, size)
        return
    shared[0] = Shared(task, state, size, chunks, 0, 0, 1, get_fp_mode())
    for _ in range(1, <int> min(get(&limit), chunks)):
        add_and_get(&shared.holders, 1)
        if not pool.schedule(pool.lender, borrowed, shared):
            add_and_get(&shared.holders, -1)
            break
    work(shared)
    while get(&shared.done) < chunks:
        spins += 1
        if spins % 1024:
            pause()
        else:
            sched_yield()
    let_go(shared)


cdef void borrowed(void* shared) noexcept nogil:
    cdef fp_mode own = get_fp_mode()
    get(&(<Shared*> shared).holders)  # sees what was written before this thread was counted, whatever the lender does
    set_fp_mode((<Shared*> shared).mode)
    work(<Shared*> shared)
    set_fp_mode(own)
    let_go(<Shared*> shared)


cdef void work(Shared* shared) noexcept nogil:
    """Claim chunks and run them until none is left."""
    cdef int64_t size = shared.size, chunks = shared.chunks, chunk = add_and_get(&shared.claimed, 1)
    while chunk <= chunks:
        shared.task(shared.state, size * (chunk - 1) // chunks, size * chunk // chunks)
        add_and_get(&shared.done, 1)
        chunk = add_and_get(&shared.claimed, 1)


cdef void let_go(Shared* shared) noexcept nogil:
    if add_and_get(&shared.holders, -1) == 0:
        free(shared)
