"""Bounds of weights, hard and soft, as all updates keep them."""

from libc.math cimport INFINITY, isnan

from hebbax._cpu.buffers cimport arith_t

cdef enum:
    HARD = 0    # no bound is soft
    LINEAR = 1  # `mu` is 1: no power is taken
    POWER = 2


cdef struct Soft:
    bint upper     # which bound is soft
    bint ranged    # whether the other one is there too
    double bound   # the soft one, and
    double slope   # `slope_of` both, where they are one for all elements
    double mu


cdef inline arith_t clip(arith_t x, arith_t low, arith_t high) noexcept nogil:
    """`jnp.clip`: NaN in any argument gives NaN, and `high` wins."""
    x = low if x < low or isnan(low) else x
    return high if x > high or isnan(high) else x


cdef inline double slope_of(arith_t low, arith_t high, bint upper, bint ranged) noexcept nogil:
    """What scales the distance to the soft bound so that it is 1 at the other one; 0 if there is no range between.

    Without another bound the distance is not scaled. A range so small that its inverse overflows is none either: XLA
    flushes it, and a weight at the bound would become NaN.
    """
    cdef arith_t per_range = 1
    if ranged:
        per_range = 1 / (high - low) if low < high else 0
        per_range = per_range if per_range < INFINITY else 0
    return -per_range if upper else per_range


cdef inline arith_t distance(arith_t x, arith_t bound, arith_t slope, bint general) noexcept nogil:
    """Of a weight `x` to its soft bound; 0 beyond."""
    cdef arith_t base = (x - bound) * slope, zero = 0
    base = zero if base < zero else base  # (in this form one instruction)
    if general and isnan(base):  # an infinite weight or range; a weight that is NaN stays it
        base = zero
    return base
