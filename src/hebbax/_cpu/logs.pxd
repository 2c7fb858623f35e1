"""What `_core.logs` writes of a step: who spiked, how many, or some weights."""

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.calls cimport Attributes
from hebbax._cpu.threads cimport Pool

cdef enum:
    APPEND_OPERANDS = 2
    TALLY_OPERANDS = 3
    SAMPLE_OPERANDS = 3


cdef bint run_append(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_tally(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_sample(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
