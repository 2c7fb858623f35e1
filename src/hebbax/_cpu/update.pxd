from libc.stdint cimport int64_t

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.rows cimport Network, Status


cdef struct Update:
    Network network  # `weight` is updated in place
    Buffer trace
    Buffer gain      # size 0: none, 1: one for all, else one per spiking neuron
    Buffer w_min     # likewise, else one per element
    Buffer w_max
    bint clip_all
    bint soft        # whether a bound is soft, which is there then: a change is scaled by a power of
    bint upper       # the distance to it, and whether that is the upper one (else the lower)
    double mu        # with this exponent


cdef Status update(Update* call) noexcept nogil
