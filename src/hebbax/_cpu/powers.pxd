"""Powers of many numbers at once, x ** mu = 2 ** (mu * log2(x)), in a loop that compilers make one of vectors.

For float this is worked out in double, and rounded once: within 0.501 units in the last place, by AVX2 in 4 ns, where
`powf` took 11. For double it is `pow`.
"""

from libc.float cimport FLT_MAX
from libc.math cimport pow
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from hebbax._cpu.buffers cimport arith_t, inline_void


cdef extern from *:
    """
    #ifndef HEBBAX_POWERS_H
    #define HEBBAX_POWERS_H
    #include <stdint.h>
    #include <string.h>

    static inline uint64_t hebbax_bits_of(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
    static inline double hebbax_double_of(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }
    #endif
    """

    uint64_t bits_of "hebbax_bits_of"(double) noexcept nogil
    uint32_t float_bits_of "hebbax_bits"(float) noexcept nogil  # (from `buffers.pxd`)
    float float_of "hebbax_float"(uint32_t) noexcept nogil
    double double_of "hebbax_double_of"(uint64_t) noexcept nogil


cdef enum:
    FRACTION = 52  # bits of a double after those of its exponent


cdef inline double log2_of(double x) noexcept nogil:
    """Of a finite x > 0: e + log2(m) with x = 2 ** e * m and m in [sqrt(1/2), sqrt(2)), within 2 ** -45 of itself."""
    cdef uint64_t root = bits_of(0.7071067811865476), one = bits_of(1.0), mask = (<uint64_t> 1 << FRACTION) - 1
    cdef uint64_t shifted = bits_of(x) - root + one
    # Before AVX-512 there is nothing to turn a vector of 64-bit integers into doubles, but these bits are those of
    # 2 ** 52 + e + 1023.
    cdef double e = double_of(shifted >> FRACTION | bits_of(4503599627370496.0)) - (4503599627370496.0 + 1023)
    cdef double m = double_of((shifted & mask) + root)
    cdef double s = (m - 1) / (m + 1), z = s * s
    # log2(m) / s through Chebyshev nodes
    return e + s * (2.885390081777851 + z * (0.9617966941122666 + z * (0.5770779426598798 + z * (
        0.4122092240950954 + z * (0.3199068026828621 + z * 0.28288503656650404)))))


cdef inline double exp2_of(double y) noexcept nogil:
    """2 ** y for |y| < 1022, within 2 ** -34 of itself: 2 ** k * 2 ** f, where k is the integer next to y."""
    cdef double to_integer = 1.5 * 4503599627370496.0, shifted = y + to_integer  # whose last bits are those of k
    cdef double f = y - (shifted - to_integer)
    # 2 ** f through Chebyshev nodes
    cdef double power_of_f = 0.9999999999595618 + f * (0.6931471805568324 + f * (0.24022651213498092 + f * (
        0.05550410906325866 + f * (0.009618025613318041 + f * (0.0013333478473686068 + f * (
            0.000154697292141169 + f * 1.5303700711232526e-05))))))
    return double_of((bits_of(shifted) << FRACTION) + bits_of(1.0)) * power_of_f


cdef inline inline_void raise_all(arith_t* x, int64_t n, arith_t mu) noexcept nogil:
    """Raise `n` numbers, of which none is negative, to the power `mu` > 0."""
    cdef int64_t k
    cdef double y
    if arith_t is double:
        for k in range(n):
            x[k] = pow(x[k], mu)
    else:
        for k in range(n):
            y = <double> mu * log2_of(x[k])
            # Results beyond these are infinite or 0. (In this form no branches, nor below, where what is left is 0,
            # infinity and NaN, each its own power.)
            y = 300.0 if y > 300.0 else y
            y = -300.0 if y < -300.0 else y
            x[k] = <float> exp2_of(y) if (x[k] > 0) & (x[k] <= FLT_MAX) else x[k]


cdef inline inline_void raise_and_fade(float* x, const float* age, int64_t n, float mu, bint raises) noexcept nogil:
    """Raise `n` numbers, of which none is negative, to the power `mu` > 0, if so told; divide each by 2 ** its age.

    In float, by vectors twice as wide as those of double: within 2 ** -19 of itself where both exponents are below 16.
    (What it is for is a small part of what it is added to, whose own rounding is the larger.) In C a number is double.
    """
    cdef uint32_t root = float_bits_of(0.70710678), unit = float_bits_of(1.0), shifted
    cdef float to_integer = 1.5 * 8388608.0, one = 1.0, least = -126.0, most = 126.0, y, f, m, s, z, power_of_f
    cdef float l0 = 2.88539008, l1 = 0.96179885, l2 = 0.57671451, l3 = 0.43173302
    cdef float e1 = 0.693147188, e2 = 0.240226509, e3 = 0.055503571, e4 = 0.0096180567, e5 = 0.0013390867
    cdef float e6 = 0.000154614475
    cdef int64_t k
    for k in range(n):
        y = -age[k]
        if raises:  # as `log2_of`
            shifted = float_bits_of(x[k]) - root + unit
            m = float_of((shifted & 0x7fffff) + root)
            s = (m - one) / (m + one)
            z = s * s
            y += mu * (<float> (<int32_t> (shifted >> 23) - 127) + s * (l0 + z * (l1 + z * (l2 + z * l3))))
        y = most if y > most else y
        f = y if y > least else least
        z = f + to_integer
        f = f - (z - to_integer)
        power_of_f = one + f * (e1 + f * (e2 + f * (e3 + f * (e4 + f * (e5 + f * e6)))))
        power_of_f = float_of((float_bits_of(z) << 23) + float_bits_of(power_of_f))
        power_of_f = power_of_f if y > least else 0
        if raises:
            x[k] = power_of_f if (x[k] > 0) & (x[k] <= FLT_MAX) else x[k]
        else:
            x[k] = x[k] * power_of_f
