from hebbax._cpu.buffers cimport Buffer
from hebbax._cpu.rows cimport Network, Status


cdef struct Collect:
    Network network
    Buffer trace
    void* out  # one sum for each neuron that may spike, in the arithmetic dtype of the weights


cdef Status collect(Collect* call) noexcept nogil
