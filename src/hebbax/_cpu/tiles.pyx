from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from hebbax._cpu.buffers cimport INT32, Buffer
from hebbax._cpu.calls cimport MESSAGE
from hebbax._cpu.rows cimport Network, describe, index_t

cdef struct Cursor:
    int64_t place  # in the list of spiking neurons
    int64_t start  # in its row


cdef bint fill(
    const index_t* indptr, const index_t* partners, const index_t* slots, const int32_t* spiking, index_t* slot,
    int64_t lanes, int64_t n, int64_t nse, int64_t n_other, Cursor* cursor
) noexcept nogil:
    """Write the next elements' slots, neurons and partners, out of range where there is none; False if an index is."""
    cdef index_t *event = slot + lanes
    cdef index_t *other = event + lanes
    cdef int64_t k, count = 0, begin, end, size
    cdef int wrong = 0
    while count < lanes and cursor.place < spiking[0]:
        if not 0 <= spiking[cursor.place + 1] < n:
            return False
        begin, end = indptr[spiking[cursor.place + 1]], indptr[spiking[cursor.place + 1] + 1]
        if begin < 0 or end < begin or end > nse or not 0 <= cursor.start <= end - begin:
            return False
        begin += cursor.start
        size = min(end - begin, lanes - count)
        memcpy(other + count, partners + begin, size * sizeof(index_t))
        if slots != NULL:
            memcpy(slot + count, slots + begin, size * sizeof(index_t))
        for k in range(size):
            if slots == NULL:
                slot[count + k] = <index_t> (begin + k)
            event[count + k] = spiking[cursor.place + 1]
            wrong |= (<uint64_t> other[count + k] >= <uint64_t> n_other) | (
                <uint64_t> slot[count + k] >= <uint64_t> nse)
        count += size
        if begin + size == end:
            cursor.place, cursor.start = cursor.place + 1, 0
        else:
            cursor.start += size
    for k in range(count, lanes):
        slot[k], event[k], other[k] = <index_t> nse, <index_t> n, <index_t> n_other
    return not wrong


cdef bint fill_result(
    const index_t* like, const Buffer* result, const Buffer* operands, int64_t lanes, int64_t n
) noexcept nogil:
    cdef const index_t* slots = <const index_t*> operands[2].data if operands[2].size else NULL
    cdef const index_t* given = <const index_t*> operands[4].data
    cdef index_t* out = <index_t*> result.data
    cdef const int32_t* spiking = <const int32_t*> operands[3].data
    cdef Cursor cursor = Cursor(given[0], given[1])
    cdef bint done = cursor.place >= 0 and spiking[0] < operands[3].size and fill(
        <const index_t*> operands[0].data, <const index_t*> operands[1].data, slots, spiking, out, lanes, n,
        operands[1].size, given[2], &cursor)
    out[3 * lanes], out[3 * lanes + 1] = <index_t> cursor.place, <index_t> cursor.start
    return done


cdef bint run_tile(
    const Pool* pool, const Buffer* result, const Buffer* operands, const Attributes* attributes, char* message
) noexcept nogil:
    """Fill `result` as `_core.applying.tile_p` says; where an index is out of range, return False and say which."""
    cdef int64_t lanes = (result.size - 2) // 3, n = operands[0].size - 1
    cdef bint narrow = result.dtype == INT32
    cdef Network network
    if narrow and fill_result[int32_t](NULL, result, operands, lanes, n):
        return True
    if not narrow and fill_result[int64_t](NULL, result, operands, lanes, n):
        return True
    network.indptr, network.indices, network.slots = operands[0], operands[1], operands[2]
    network.permuted, network.listed = operands[2].size > 0, True
    network.n_other = (<int32_t*> operands[4].data)[2] if narrow else (<int64_t*> operands[4].data)[2]
    describe(&network, b"apply_on_post" if network.permuted else b"apply_on_pre", message, MESSAGE)
    return False
