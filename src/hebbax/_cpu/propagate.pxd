from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.rows cimport Network, Status


cdef struct Propagate:
    Network network
    Buffer gain  # size 0: none, 1: one for all, else one per spiking neuron
    void* out  # `n_other` sums in the arithmetic dtype of the weights
    bint adds  # to what is there already


cdef Status propagate(Propagate* call) noexcept nogil
