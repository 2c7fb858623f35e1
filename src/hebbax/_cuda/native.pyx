"""Launches of the CUDA kernels without Python: by XLA, through its FFI, and by whoever has the addresses.

CuPy compiles and loads kernels (`launch.functions`); CUDA's driver launches them.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy, strlen

from hebbax._core.xla_ffi cimport (
    ARRAY, CAPTURABLE, INTERNAL, S64, SCALAR, STRING, XLA_FFI_Array, XLA_FFI_Attrs, XLA_FFI_Buffer, XLA_FFI_ByteSpan,
    XLA_FFI_CallFrame, XLA_FFI_Error, XLA_FFI_Scalar, answer_metadata, get_device, get_stream, new_error,
)
from hebbax._cuda.driver cimport MESSAGE, driver, failed, open_driver

import threading

cdef extern from *:
    """
    #define HEBBAX_SEEN(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define HEBBAX_PUBLISH(p, x) __atomic_store_n(p, x, __ATOMIC_RELEASE)
    """
    Loaded* seen "HEBBAX_SEEN"(Loaded**) noexcept nogil
    void publish "HEBBAX_PUBLISH"(Loaded**, Loaded*) noexcept nogil

cdef enum:
    WORDS = 512      # of a kernel's parameters: 4 KB, the most that every CUDA takes
    OPERANDS = 32    # of a call, at most; far more than any has
    ATTRIBUTES = 7

cdef const char* OTHER_VERSION = b"this call was compiled by another version of hebbax"


# Kernels that are loaded: a list that only grows, so that it is read without a lock.

cdef struct Loaded:
    int64_t key        # of the source and the names of the kernels
    int device
    void* context      # the device's
    int64_t count
    void** functions
    Loaded* next

cdef Loaded* all_loaded = NULL
_loading = threading.Lock()


cdef Loaded* find(int64_t key, int device) noexcept nogil:
    cdef Loaded* loaded = seen(&all_loaded)
    while loaded != NULL and (loaded.key != key or loaded.device != device):
        loaded = loaded.next
    return loaded


cdef int load(const Call* call, int device) except -1:
    """Compile and load the kernels of a call, unless some thread has done so."""
    from hebbax._cuda.launch import functions

    cdef Loaded* loaded
    cdef void* context = NULL
    cdef char message[MESSAGE]
    kind, kernels = call.kind[:call.kind_size].decode(), call.kernels[:call.kernels_size].decode()
    with _loading:
        if find(call.key, device) != NULL:
            return 0
        open_driver()
        addresses = functions(call.key, kind, tuple(kernels.split("\n")), device)
        if failed(driver.retain_context(&context, device), b"cuDevicePrimaryCtxRetain", message):
            raise RuntimeError(message.decode())
        loaded = <Loaded*> malloc(sizeof(Loaded) + sizeof(void*) * len(addresses))
        if loaded == NULL:
            raise MemoryError("no memory for the addresses of the CUDA kernels")
        loaded.key, loaded.device, loaded.context, loaded.count = call.key, device, context, len(addresses)
        loaded.functions = <void**> (loaded + 1)
        for i, address in enumerate(addresses):
            loaded.functions[i] = <void*> <size_t> address
        loaded.next = all_loaded
        publish(&all_loaded, loaded)
    return 0


def forget():
    """For tests: as if no kernel had been loaded."""
    global all_loaded
    all_loaded = NULL


# A call: everything about it but for its device, its stream, and the addresses of its operands.

cdef struct Call:
    int64_t key            # see `Loaded`
    const char* kind       # of operator
    size_t kind_size
    const char* kernels    # their names, one a line
    size_t kernels_size
    const int64_t* words   # the struct that they are all given, and
    int64_t n_words
    const int64_t* places  # the words of it that are the addresses of operands, result and scratch memory
    int64_t n_places
    const int64_t* launches  # three numbers for each: which kernel, and the grid, x and y
    int64_t n_launches
    const int64_t* sizes   # threads of a block, bytes of the first operand that the result is to begin as


cdef bint is_sound(const Call* call) noexcept nogil:
    cdef int64_t i
    if not (0 < call.n_words <= WORDS and 3 <= call.n_places <= OPERANDS and call.n_launches > 0):
        return False
    for i in range(call.n_places):
        if not 0 <= call.places[i] < call.n_words:
            return False
    for i in range(call.n_launches):
        if call.launches[3 * i] < 0:
            return False
    return True


cdef int launch_all(
    const Call* call, const Loaded* loaded, void* stream, const size_t* addresses, char* message
) noexcept nogil:
    """Launch the kernels of a call on a stream of the current context; return whether that fails."""
    cdef int64_t words[WORDS]
    cdef void* parameters[1]
    cdef const int64_t* launch
    cdef int status
    cdef size_t result = addresses[call.n_places - 2]
    cdef unsigned threads = <unsigned> call.sizes[0]
    cdef int64_t i
    memcpy(words, call.words, call.n_words * sizeof(int64_t))
    for i in range(call.n_places):
        words[call.places[i]] = <int64_t> addresses[i]
    parameters[0] = words
    # XLA gives the result the memory of the old weight, as it is asked to, except where it has made the call part of a
    # fusion that cuts the weight out of a larger array: then the weight has to be copied here. (It makes any typed call
    # part of a DynamicSliceFusion whose operands are slices, or whose results are written to slices, of scanned arrays,
    # of a multiple of 128 bytes each. Read in XLA's sources: its AliasInfo looks into such a fusion, so that a weight
    # that is no slice is still updated in place; spikes are read and sums written where they lie in the larger arrays;
    # and an optimization barrier would not keep a call out of it, for it looks through these.)
    if call.sizes[1] and result != addresses[0]:
        if failed(driver.copy(result, addresses[0], call.sizes[1], stream), b"cuMemcpyDtoDAsync", message):
            return True
    for i in range(call.n_launches):
        launch = &call.launches[3 * i]
        if launch[0] >= loaded.count:
            snprintf(message, MESSAGE, b"%s", OTHER_VERSION)
            return True
        status = driver.launch(
            loaded.functions[launch[0]], <unsigned> launch[1], <unsigned> launch[2], 1, threads, 1, 1, 0, stream,
            parameters, NULL)
        if failed(status, b"cuLaunchKernel", message):
            return True
    return False


cdef int run(
    const Call* call, const Loaded* loaded, void* stream, const size_t* addresses, char* message
) noexcept nogil:
    """As `launch_all`, in the context of the device, which need not be that of this thread."""
    cdef void* current = NULL
    cdef int is_failed
    if failed(driver.current_context(&current), b"cuCtxGetCurrent", message):
        return True
    if current == loaded.context:
        return launch_all(call, loaded, stream, addresses, message)
    if failed(driver.push_context(loaded.context), b"cuCtxPushCurrent", message):
        return True
    is_failed = launch_all(call, loaded, stream, addresses, message)
    driver.pop_context(&current)
    return is_failed


# XLA's door. Its attributes are content and no addresses: a compiled program may run in another process.

cdef void* attribute(const XLA_FFI_Attrs* attrs, int i, const char* name, int type) noexcept nogil:
    """The attribute, given its place in the order of names; NULL if that is another one."""
    cdef size_t size = strlen(name)
    if attrs.names[i].len != size or memcmp(attrs.names[i].ptr, name, size) != 0 or attrs.types[i] != type:
        return NULL
    return attrs.attrs[i]


cdef bint read_array(
    const XLA_FFI_Attrs* attrs, int i, const char* name, const int64_t** data, int64_t* size
) noexcept nogil:
    cdef XLA_FFI_Array* array = <XLA_FFI_Array*> attribute(attrs, i, name, ARRAY)
    if array == NULL or array.dtype != S64:
        return False
    data[0] = <const int64_t*> array.data
    size[0] = array.size
    return True


cdef bint read_string(
    const XLA_FFI_Attrs* attrs, int i, const char* name, const char** text, size_t* size
) noexcept nogil:
    cdef XLA_FFI_ByteSpan* span = <XLA_FFI_ByteSpan*> attribute(attrs, i, name, STRING)
    if span == NULL:
        return False
    text[0] = span.ptr
    size[0] = span.len
    return True


cdef bint read_call(const XLA_FFI_CallFrame* frame, Call* call) noexcept nogil:
    """Whether the attributes are those of a call; they are `launch.encode`'s, in the order of their names."""
    cdef const XLA_FFI_Attrs* attrs = &frame.attrs
    cdef XLA_FFI_Scalar* key
    cdef int64_t n_sizes, numbers
    if attrs.size != ATTRIBUTES:
        return False
    key = <XLA_FFI_Scalar*> attribute(attrs, 1, b"key", SCALAR)
    if key == NULL or key.dtype != S64:
        return False
    if not (
        read_string(attrs, 0, b"kernels", &call.kernels, &call.kernels_size)
        and read_string(attrs, 2, b"kind", &call.kind, &call.kind_size)
        and read_array(attrs, 3, b"launches", &call.launches, &numbers)
        and read_array(attrs, 4, b"places", &call.places, &call.n_places)
        and read_array(attrs, 5, b"sizes", &call.sizes, &n_sizes)
        and read_array(attrs, 6, b"words", &call.words, &call.n_words)
    ):
        return False
    call.key, call.n_launches = (<int64_t*> key.value)[0], numbers // 3
    return n_sizes == 2 and numbers % 3 == 0 and is_sound(call)


cdef XLA_FFI_Error* find_or_load(
    const XLA_FFI_CallFrame* frame, const Call* call, Loaded** loaded
) noexcept nogil:
    cdef int32_t device = 0
    cdef XLA_FFI_Error* error = NULL
    if driver.xla_device != NULL:
        device = driver.xla_device()
    else:
        error = get_device(frame, &device)
    if error != NULL:
        return error
    loaded[0] = find(call.key, device)
    if loaded[0] == NULL:
        with gil:
            try:
                load(call, device)
            except BaseException as problem:
                words = f"{type(problem).__name__}: {problem}".encode()
                return new_error(frame.api, words, INTERNAL)
        loaded[0] = find(call.key, device)
    return NULL


cdef XLA_FFI_Error* initialize(XLA_FFI_CallFrame* frame) noexcept nogil:
    """Before a program runs on a device: load what it needs, which must not happen while a CUDA graph is captured."""
    cdef Call call
    cdef Loaded* loaded
    if answer_metadata(frame, CAPTURABLE):
        return NULL
    if not read_call(frame, &call):
        return new_error(frame.api, OTHER_VERSION, INTERNAL)
    return find_or_load(frame, &call, &loaded)


cdef XLA_FFI_Error* execute(XLA_FFI_CallFrame* frame) noexcept nogil:
    cdef Call call
    cdef Loaded* loaded
    cdef XLA_FFI_Error* error
    cdef void* stream = NULL
    cdef size_t addresses[OPERANDS]
    cdef char message[MESSAGE]
    cdef int64_t i, n
    if answer_metadata(frame, CAPTURABLE):
        return NULL
    if not read_call(frame, &call) or frame.rets.size != 2 or frame.args.size < call.n_places - 2:
        return new_error(frame.api, OTHER_VERSION, INTERNAL)
    error = find_or_load(frame, &call, &loaded)
    if error != NULL:
        return error
    if driver.xla_stream != NULL:
        stream = driver.xla_stream()
    else:
        error = get_stream(frame, &stream)
    if error != NULL:
        return error
    n = call.n_places - 2
    for i in range(n):
        addresses[i] = <size_t> (<XLA_FFI_Buffer*> frame.args.args[i]).data
    for i in range(2):
        addresses[n + i] = <size_t> (<XLA_FFI_Buffer*> frame.rets.rets[i]).data
    if run(&call, loaded, stream, addresses, message):
        return new_error(frame.api, message, INTERNAL)
    return NULL


def capsules():
    """The handler of all operators, one PyCapsule a stage, as `jax.ffi.register_ffi_target` takes them."""
    return {
        "initialize": PyCapsule_New(<void*> initialize, NULL, NULL),
        "execute": PyCapsule_New(<void*> execute, NULL, NULL),
    }


# Python's door.

cdef class Launcher:
    """A call for Python to make, given what `launch.encode` returns."""

    cdef Call call
    cdef object kept  # what `call` points into

    def __init__(
        self, *, int64_t key, str kind, str kernels, const int64_t[::1] launches, const int64_t[::1] places,
        const int64_t[::1] sizes, const int64_t[::1] words
    ):
        cdef bytes kind_text = kind.encode(), kernels_text = kernels.encode()
        self.kept = (kind_text, kernels_text, launches, places, sizes, words)
        self.call = Call(
            key, kind_text, len(kind_text), kernels_text, len(kernels_text), &words[0], words.size,
            &places[0], places.size, &launches[0], launches.size // 3, &sizes[0])
        if not is_sound(&self.call):
            raise ValueError(OTHER_VERSION.decode())

    def is_loaded(self, int device):
        """Whether the kernels are loaded on a device."""
        return find(self.call.key, device) != NULL

    def load(self, int device):
        """Compile and load the kernels on a device, which must not happen while a CUDA graph is captured."""
        load(&self.call, device)

    def __call__(self, int device, size_t stream, addresses):
        """Launch the kernels on a stream, given the addresses of operands, result and scratch memory, in this order."""
        cdef size_t given[OPERANDS]
        cdef char message[MESSAGE]
        cdef int64_t i, n = len(addresses)
        cdef int is_failed
        if n != self.call.n_places:
            raise TypeError(f"{n} addresses, expected {self.call.n_places}")
        for i in range(n):
            given[i] = addresses[i]
        if find(self.call.key, device) == NULL:
            load(&self.call, device)
        with nogil:
            is_failed = run(&self.call, find(self.call.key, device), <void*> stream, given, message)
        if is_failed:
            raise RuntimeError(message.decode())
