from cython.parallel cimport parallel, prange
from libc.stdint cimport int64_t


cdef extern from *:
    """
    #if defined(__SSE2__) || defined(_M_X64)
    #include <xmmintrin.h>
    typedef unsigned int hebbax_fp_mode;
    static inline hebbax_fp_mode hebbax_get_fp_mode(void) { return _mm_getcsr(); }
    static inline void hebbax_set_fp_mode(hebbax_fp_mode mode) { _mm_setcsr(mode); }
    #elif defined(__aarch64__) && defined(__GNUC__)
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

cdef int limit = 1


def set_num_threads(int n):
    global limit
    limit = n


def get_num_threads():
    return limit


def openmp_version():
    """The date of the OpenMP standard that this was built with, 0 if built without."""
    return OPENMP


cdef int64_t chunks_for(int64_t work, int64_t grain) noexcept nogil:
    """Into how many chunks to split `work`, of which `grain` is worth a thread: four for every thread, to even out."""
    return max(1, min(4 * limit, work // grain)) if limit > 1 else 1


cdef void run_chunks(Task task, void* state, int64_t size, int64_t chunks) noexcept nogil:
    """Run `task` on `range(size)` in equal chunks, on all threads, all in the caller's floating-point mode.

    XLA's threads flush subnormals and a pool's do not: without this, which thread ran a chunk would show in the result.
    """
    cdef fp_mode callers, own
    cdef int64_t chunk
    if chunks == 1:
        task(state, 0, size)
        return
    callers = get_fp_mode()
    with nogil, parallel(num_threads=limit):
        own = get_fp_mode()
        set_fp_mode(callers)
        for chunk in prange(chunks, schedule="dynamic"):
            task(state, size * chunk // chunks, size * (chunk + 1) // chunks)
        set_fp_mode(own)
