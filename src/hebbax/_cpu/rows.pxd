"""The rows of the spiking neurons, found a batch at a time: the part that `update` and `propagate` share."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from hebbax._cpu.buffers cimport Buffer

cdef enum:
    BATCH = 4096

ctypedef fused index_t:
    int32_t
    int64_t


cdef struct Row:
    int64_t begin   # first element
    int64_t before  # elements of the batch's earlier rows
    int64_t event   # the spiking neuron


cdef struct Rows:
    Row row[BATCH + 1]  # the one after the last holds the total in `before`
    int64_t count
    int64_t elements
    int64_t next_event  # where the search for the next batch starts


# Operands that every operator has, as the kernels take them.
cdef struct Network:
    Buffer weight
    Buffer indices
    Buffer indptr
    Buffer slots  # weight_indices; unused unless `permuted`
    Buffer spike
    bint permuted
    int64_t n_other  # neurons that `indices` may name


cdef enum Status:
    OK
    BAD_INDPTR
    BAD_ELEMENT


cdef Status next_batch(const Network* network, Rows* rows) noexcept nogil
cdef int64_t row_at(const Rows* rows, int64_t element) noexcept nogil
cdef void describe(const Network* network, const char* name, char* message, size_t size) noexcept nogil
