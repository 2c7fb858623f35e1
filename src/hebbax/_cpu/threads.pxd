"""How many threads a kernel uses, and the one loop that runs on them."""

from libc.stdint cimport int64_t

ctypedef void (*Task)(void* state, int64_t start, int64_t stop) noexcept nogil

cdef int64_t chunks_for(int64_t work, int64_t grain) noexcept nogil
cdef void run_chunks(Task task, void* state, int64_t size, int64_t chunks) noexcept nogil
