from hebbax._cpu.rows cimport Network, Status


cdef struct Propagate:
    Network network
    void* out  # `n_other` sums in the arithmetic dtype of the weights


cdef Status propagate(Propagate* call) noexcept nogil
