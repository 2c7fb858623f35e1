"""The rows of the spiking neurons, found a batch at a time: the part that `update` and `propagate` share."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.threads cimport Pool

cpdef enum:
    BATCH = 2048  # rows that are found before they are worked on; they lie on the stack, 48 KiB,
    LONGEST = 1 << 16  # but as many as this, elsewhere, of a list that has them: threads then share them out once
    PIECE = 128   # elements of a row that are worked on in one go
    CACHED = 1 << 21  # weights that a last-level cache holds
    # Integers of a message (`_core.sent`) before the starts of its steps:
    STEP = 0
    NEURONS = 1
    STEPS = 2
    CAPACITY = 3
    LOST = 4
    SENT_HEADER = 5

ctypedef fused index_t:
    int32_t
    int64_t


cdef struct Row:
    int64_t begin   # first element
    int64_t before  # elements of the batch's earlier rows
    int64_t event   # the spiking neuron


cdef struct Rows:
    Row* row            # the one after the last holds the total in `before`
    int64_t room
    Row own[BATCH + 1]
    int64_t count
    int64_t elements
    int64_t next_event  # where the search for the next batch starts
    int64_t next_list   # and in which of the lists, if there are lists


cdef struct List:
    const int32_t* ids
    int64_t count     # -1: it is not as it was written
    int64_t first     # row of its neuron 0


# The lists of arriving spikes (`_core.events` says how they lie), or the one of those that were sent (`_core.sent`).
cdef struct Lists:
    int32_t* header
    int32_t* delays
    int32_t* lists
    int64_t position  # whose list is that of delay 0; or which step's spikes
    int64_t shift
    int64_t length    # steps that are there
    int64_t n         # neurons of a list
    int64_t count     # of the lists
    bint sent
    List named        # the one that was sent


cdef bint open_lists(Lists* lists, const Buffer* events, bint due) noexcept nogil
cdef bint open_sent(Lists* lists, const Buffer* message, bint second) noexcept nogil
cdef List list_of(const Lists* lists, int64_t d) noexcept nogil
cdef int64_t rows_of(const Lists* lists) noexcept nogil
cdef int64_t skip_silent(const uint8_t* spike, int64_t j, int64_t n) noexcept nogil
cdef void record(Lists* lists, const uint8_t* spike, int64_t position, int64_t shift) noexcept nogil


# Operands that every operator has, as the kernels take them.
cdef struct Network:
    Buffer weight  # for sums also a single one, which all elements share
    Buffer indices
    Buffer indptr
    Buffer slots  # weight_indices; unused unless `permuted`
    Buffer spike
    bint permuted  # whether weights are found through `slots`
    bint shared    # whether there is one weight for all elements
    bint listed    # `spike` is the lists of `_core.events`, opened as
    Lists lists
    int64_t n_other  # neurons that `indices` may name
    Pool pool


cdef enum Status:
    OK
    BAD_INDPTR
    BAD_ELEMENT
    BAD_LISTS
    STOPPED  # by a signal


cdef extern from *:
    """
    #define HEBBAX_SET(place, value) __atomic_store_n((place), (value), __ATOMIC_RELAXED)
    """
    void set_status "HEBBAX_SET"(Status*, Status) noexcept nogil  # by one thread or another: they agree


# A walk over part of a batch, a piece of a row at a time: through all rows' first pieces, then through all their second
# pieces, and so on. What lies at the same place in two rows lies close together in `weight` (where both views of the
# network are sorted), so each page of memory is visited once for all rows and not once for each. At 10^7 synapses that
# was measured 3-4 times faster than going row by row.
cdef struct Walk:
    const Rows* rows
    int64_t start   # the part of the batch, in elements
    int64_t stop
    int64_t first   # its rows
    int64_t last
    double low      # and its part of each row, in [0, 1]
    double high
    int64_t row     # the next piece
    int64_t step
    int64_t steps
    double begin    # its place in the row, in [low, high]
    double end


cdef struct Piece:
    int64_t begin
    int64_t end
    int64_t event


cdef void walk_rows(Walk* walk, const Rows* rows, int64_t start, int64_t stop) noexcept nogil
cdef void walk_places(Walk* walk, const Rows* rows, double low, double high) noexcept nogil


cdef inline double end_of_step(const Walk* walk) noexcept nogil:
    if walk.step + 1 >= walk.steps:
        return walk.high
    return walk.low + (walk.high - walk.low) * (walk.step + 1) / walk.steps


cdef inline Piece next_piece(Walk* walk) noexcept nogil:
    """The next piece, which may be empty; after the last one (`walk.step == walk.steps`) all are."""
    cdef const Row* row = &walk.rows.row[walk.row]
    cdef int64_t begin, size
    if walk.step == walk.steps:
        return Piece(0, 0, 0)
    begin = max(walk.start, row.before)
    size = min(walk.stop, row[1].before) - begin
    begin += row.begin - row.before
    walk.row += 1
    cdef Piece piece = Piece(begin + <int64_t> (size * walk.begin), begin + <int64_t> (size * walk.end), row.event)
    if walk.row > walk.last:
        walk.row = walk.first
        walk.step += 1
        walk.begin = walk.end
        walk.end = end_of_step(walk)
    return piece


cdef Status first_batch(const Network* network, Rows* rows) noexcept nogil
cdef Status next_batch(const Network* network, Rows* rows) noexcept nogil
cdef void forget(Rows* rows) noexcept nogil
cdef void describe(const Network* network, const char* name, char* message, size_t size) noexcept nogil
