"""What a kernel is given: untyped buffers, and the 16-bit floats that C does not have."""

from libc.stdint cimport int32_t, int64_t, uintptr_t


cdef extern from *:
    """
    #ifndef HEBBAX_BUFFERS_H
    #define HEBBAX_BUFFERS_H
    #include <stdint.h>
    #include <string.h>

    typedef struct { uint16_t bits; } hebbax_float16;
    typedef struct { uint16_t bits; } hebbax_bfloat16;

    static inline uint32_t hebbax_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
    static inline float hebbax_float(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

    /* Plain integer code, not _Float16: compilers before GCC 12 and Clang 15 lack it on x86. A float16 subnormal counts
       units of 2^-24, which is the unit in the last place of floats in [0.5, 1): adding 0.5 rounds to it. */
    static inline float hebbax_from_float16(hebbax_float16 h) {
        uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, u = h.bits & 0x7fff;
        uint32_t normal = (u << 13) + (u >= 0x7c00 ? 0x70000000u : 0x38000000u);
        uint32_t subnormal = hebbax_bits(hebbax_float(u | 0x3f000000) - 0.5f);
        return hebbax_float(sign | (u < 0x0400 ? subnormal : normal));
    }
    static inline hebbax_float16 hebbax_to_float16(float x) {
        uint32_t u = hebbax_bits(x) & 0x7fffffff, sign = (hebbax_bits(x) >> 16) & 0x8000;
        uint32_t normal = (u - 0x38000000 + 0xfff + ((u >> 13) & 1)) >> 13;
        uint32_t subnormal = hebbax_bits(hebbax_float(u) + 0.5f) - 0x3f000000;
        uint32_t h = u < 0x38800000 ? subnormal : normal;
        h = u >= 0x477ff000 ? 0x7c00 : h;            /* 65520 and more round to infinity */
        h = u > 0x7f800000 ? 0x7e00 : h;
        hebbax_float16 out = { (uint16_t)(sign | h) };
        return out;
    }
    static inline float hebbax_from_bfloat16(hebbax_bfloat16 h) { return hebbax_float((uint32_t)h.bits << 16); }
    static inline hebbax_bfloat16 hebbax_to_bfloat16(float x) {
        uint32_t u = hebbax_bits(x), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
        uint32_t nan = (u >> 16) | 0x40;
        hebbax_bfloat16 out = { (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded) };
        return out;
    }

    /* `write` has to be constant, for Clang in the source, for GCC by the time that a function has been inlined. (GCC
       inlines less of the hot loops, and makes other code of them, if it is given the second form too.) */
    #if defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(__clang__)
    #define HEBBAX_PREFETCH(address, write) __builtin_prefetch((address), (write), 3)
    #elif defined(__GNUC__)
    #define HEBBAX_PREFETCH(at, write) ((write) ? __builtin_prefetch((at), 1, 3) : __builtin_prefetch((at), 0, 3))
    #else
    #define HEBBAX_PREFETCH(address, write) ((void)(address))
    #endif
    /* To read, into the second-level cache and not the first. */
    #if defined(__GNUC__)
    #define HEBBAX_PREFETCH_FAR(address) __builtin_prefetch((address), 0, 2)
    #else
    #define HEBBAX_PREFETCH_FAR(address) ((void)(address))
    #endif

    /* Hot functions are also built for x86-64-v3 (AVX2); the loader picks. */
    #if defined(__x86_64__) && defined(__gnu_linux__) && (__GNUC__ >= 12 || __clang_major__ >= 17)
    #define HEBBAX_HOT __attribute__((target_clones("arch=x86-64-v3", "default"))) void
    #else
    #define HEBBAX_HOT void
    #endif
    /* Inlined whatever its size: a caller's constants then choose among its branches at compile time. Cython also
       declares a variable of the type that a function returns; Clang then refuses `inline`, and needs none. */
    #if defined(__clang__)
    #define HEBBAX_INLINE __attribute__((always_inline))
    #elif defined(__GNUC__)
    #define HEBBAX_INLINE inline __attribute__((always_inline))
    #else
    #define HEBBAX_INLINE inline
    #endif
    #define HEBBAX_INLINE_INT HEBBAX_INLINE int
    #define HEBBAX_INLINE_VOID HEBBAX_INLINE void
    #endif
    """
    ctypedef int inline_int "HEBBAX_INLINE_INT"
    ctypedef void inline_void "HEBBAX_INLINE_VOID"
    ctypedef void hot_void "HEBBAX_HOT"
    void prefetch "HEBBAX_PREFETCH"(const void*, int) noexcept nogil
    void prefetch_far "HEBBAX_PREFETCH_FAR"(const void*) noexcept nogil
    ctypedef struct float16 "hebbax_float16":
        pass
    ctypedef struct bfloat16 "hebbax_bfloat16":
        pass
    float from_float16 "hebbax_from_float16"(float16) noexcept nogil
    float from_bfloat16 "hebbax_from_bfloat16"(bfloat16) noexcept nogil
    float16 to_float16 "hebbax_to_float16"(float) noexcept nogil
    bfloat16 to_bfloat16 "hebbax_to_bfloat16"(float) noexcept nogil


cdef enum DType:  # numbered as in XLA
    BOOL = 1
    INT32 = 4
    INT64 = 5
    FLOAT16 = 10
    FLOAT32 = 11
    FLOAT64 = 12
    BFLOAT16 = 16


# The last dimension is the operator's own; those before it, if any, are a batch.
cdef struct Buffer:
    void* data
    int64_t size  # of the last dimension
    int dtype
    int64_t rank
    const int64_t* dims


cdef inline int itemsize(int dtype) noexcept nogil:
    if dtype == BOOL:
        return 1
    if dtype == FLOAT16 or dtype == BFLOAT16:
        return 2
    return 8 if dtype == INT64 or dtype == FLOAT64 else 4


ctypedef fused weight_t:
    float
    double
    float16
    bfloat16

# The type that weights are added in: double for double, else float. Fused functions exist for the other pairs too,
# but nothing calls those and the C compiler drops them.
ctypedef fused arith_t:
    float
    double


cdef inline void load(const weight_t* source, arith_t* x) noexcept nogil:
    if weight_t is float16:
        x[0] = <arith_t> from_float16(source[0])
    elif weight_t is bfloat16:
        x[0] = <arith_t> from_bfloat16(source[0])
    else:
        x[0] = <arith_t> source[0]


cdef inline void store(weight_t* target, arith_t x) noexcept nogil:
    if weight_t is float16:
        target[0] = to_float16(<float> x)
    elif weight_t is bfloat16:
        target[0] = to_bfloat16(<float> x)
    else:
        target[0] = <weight_t> x


ctypedef fused any_t:
    int32_t
    int64_t
    float
    double
    float16
    bfloat16


cdef inline void prefetch_at(const any_t* array, int64_t k, int write) noexcept nogil:
    """Prefetch `array[k]`, which need not exist: its address is worked out in integers, where any `k` is defined."""
    prefetch(<const void*> (<uintptr_t> array + <uintptr_t> k * sizeof(any_t)), write)


cdef inline void prefetch_far_at(const any_t* array, int64_t k) noexcept nogil:
    """The same into the second-level cache, to read."""
    prefetch_far(<const void*> (<uintptr_t> array + <uintptr_t> k * sizeof(any_t)))


cdef inline void prefetch_lines(const any_t* array, int64_t begin, int64_t end, int write) noexcept nogil:
    """Prefetch the cache lines of `array[begin:end]`."""
    cdef int64_t k = begin
    while k < end:
        prefetch_at(array, k, write)
        k += 64 // sizeof(any_t)
    if k > begin:
        prefetch_at(array, end - 1, write)  # in the last line, which may be another one
