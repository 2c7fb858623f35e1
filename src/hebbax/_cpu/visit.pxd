"""Rows of synapses that learn, visited once a spike: see `_core.visit`."""

from libc.stdint cimport int64_t

from hebbax._cpu.pieces cimport Visit
from hebbax._cpu.rows cimport Status


cdef int64_t next_spike(const Visit* call, int64_t j) noexcept nogil
cdef Status visit(Visit* call) noexcept nogil
