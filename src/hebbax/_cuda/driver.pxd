"""CUDA's driver: what is used of it, and what it says of errors. All functions return a CUresult, 0 for success."""

cdef enum:
    MESSAGE = 1024  # bytes of one, at most


cdef struct Driver:
    int (*launch)(
        void* function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y, unsigned threads_z,
        unsigned shared, void* stream, void** parameters, void** extra) noexcept nogil
    int (*copy)(size_t target, size_t source, size_t bytes, void* stream) noexcept nogil
    int (*retain_context)(void** context, int device) noexcept nogil
    int (*current_context)(void** context) noexcept nogil
    int (*push_context)(void* context) noexcept nogil
    int (*pop_context)(void** context) noexcept nogil
    int (*name_error)(int result, const char** name) noexcept nogil
    int (*describe_error)(int result, const char** text) noexcept nogil
    # What XLA says, unless a stand-in for the driver plays XLA's part too.
    int (*xla_device)() noexcept nogil
    void* (*xla_stream)() noexcept nogil


cdef Driver driver

cdef int open_driver() except -1
cdef int failed(int result, const char* what, char* message) noexcept nogil
