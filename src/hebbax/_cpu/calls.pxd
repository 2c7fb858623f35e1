"""A call of a kernel: from the operands that either door has taken, for all members of a batch."""

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.rows cimport Network, Status
from hebbax._cpu.threads cimport Pool

cpdef enum Flag:
    PERMUTED = 1     # rows cross the order in which weights are stored
    CSC = 2          # which is CSC order
    CLIP_ALL = 4
    SOFT_UPPER = 8
    SOFT_LOWER = 16
    LISTED = 32      # the spikes are the lists of `_core.events`:
    DUE = 64         # those that arrive in the next step
    SHIFTED = 128    # and the partners' values begin at their shift
    SENT = 256       # the lists are the messages of `_core.sent`
    SECOND = 512     # of whose second half of steps one is meant
    RETURNED = 1024  # of `_core.visit`: in one step, postsynaptic spikes come before presynaptic ones
    NEAREST = 2048   # a spike sets its trace to 1
    ALL = 4096       # all synapses take what they have missed
    DOWN_UPPER = 8192    # the soft bound of what presynaptic spikes do (the other one is of what postsynaptic ones do)
    DOWN_LOWER = 16384

cdef enum:
    COLLECT_OPERANDS = 6
    PROPAGATE_OPERANDS = 6
    RECORD_OPERANDS = 3
    FADE_OPERANDS = 3
    DELIVER_OPERANDS = 8
    UPDATE_OPERANDS = 9     # without `after`, which no kernel reads
    MESSAGE = 256


cdef struct Attributes:
    int flags
    double mu  # of an update


ctypedef bint (*Run)(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil


cdef bint run_update(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_propagate(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_collect(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_deliver(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_record(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef bint run_fade(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil
cdef Status set_network(Network* network, const Pool* pool, const Buffer* operands, int flags) noexcept nogil
cdef bint succeeded(Status status, const Network* network, const char* kind, int flags, char* message) noexcept nogil
cdef bint fit(const Buffer* operands, int count, const Buffer* result) noexcept nogil
cdef bint run_batch(
    Run run, const Pool* pool, const Buffer* result, const Buffer* operands, int count, const Attributes* attributes,
    char* message
) noexcept nogil
