"""Rows of synapses that learn, visited once a spike: see `_core.visit`."""

from hebbax._cpu.pieces cimport Visit
from hebbax._cpu.rows cimport Status


cdef Status visit(Visit* call) noexcept nogil
