"""CUDA's driver, opened when it is first needed, so that this module loads on any machine."""

from libc.stdio cimport snprintf

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int RTLD_NOW

# Of the functions of `Driver`, in its order.
NAMES = (
    "cuLaunchKernel", "cuMemcpyDtoDAsync_v2", "cuDevicePrimaryCtxRetain", "cuCtxGetCurrent", "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2", "cuGetErrorName", "cuGetErrorString",
)
HOOKS = ("xla_device", "xla_stream")

cdef bint has_driver = False


cdef int open_driver() except -1:
    global has_driver
    if has_driver:
        return 0
    cdef void* library = dlopen(b"libcuda.so.1", RTLD_NOW)
    if library == NULL:
        raise RuntimeError("CUDA's driver, libcuda.so.1, cannot be opened")
    cdef void** entry = <void**> &driver
    for i, name in enumerate(NAMES):
        entry[i] = dlsym(library, name.encode())
        if entry[i] == NULL:
            raise RuntimeError(f"CUDA's driver, libcuda.so.1, has no {name}: it is too old")
    has_driver = True
    return 0


def use_driver(**addresses):
    """For tests: take functions at these addresses for CUDA's driver; those of `HOOKS` say what XLA would."""
    global has_driver
    cdef void** entry = <void**> &driver
    for i, name in enumerate((*NAMES, *HOOKS)):
        entry[i] = <void*> <size_t> addresses.get(name, 0)
    has_driver = bool(addresses)


cdef int failed(int result, const char* what, char* message) noexcept nogil:
    """Say in `message` what CUDA's driver says of a result that is not success; return whether it is none."""
    cdef const char* name = b"an error"
    cdef const char* text = b"without a description"
    if result == 0:
        return False
    driver.name_error(result, &name)
    driver.describe_error(result, &text)
    if name == NULL or text == NULL:  # the driver does not know it
        name = b"an unknown error"
        text = name
    snprintf(message, MESSAGE, b"%s: %s (%d): %s", what, name, result, text)
    return True
