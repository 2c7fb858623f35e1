from libc.stdint cimport int64_t

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.rows cimport Network, Status


cdef struct Update:
    Network network  # `weight` is updated in place
    Buffer trace
    Buffer gain      # size 0: no gain
    Buffer w_min     # size 0: no bound, 1: one for all, else one per element
    Buffer w_max
    bint clip_all


cdef Status update(Update* call) noexcept nogil
