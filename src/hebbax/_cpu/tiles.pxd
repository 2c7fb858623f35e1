"""The elements of spiking rows, some at a time: where `_core.applying` gathers and scatters."""

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.calls cimport Attributes
from hebbax._cpu.threads cimport Pool

cdef enum:
    TILE_OPERANDS = 5


cdef bint run_tile(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
