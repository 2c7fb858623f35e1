"""Rows of synapses that learn, visited once a spike: see `_core.visit`."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

from hebbax._cpu.bounds cimport Soft
from hebbax._cpu.rows cimport Network, Status

cpdef enum:
    RECENT = 64   # spikes of a postsynaptic neuron that are kept,
    TOGETHER = 4  # of which so many lie together


# What spikes of one side do: `factor` times a trace, by the distance to a soft bound, if there is one.
cdef struct Change:
    float factor
    Soft soft
    int kind     # as in `bounds.pxd`


cdef struct Visit:
    Network network   # `weight` is updated in place
    int32_t* rows     # (n_pre, 2): step of the neuron's last spike, and bits of its trace before that; -1: of none
    uint16_t* recent  # (RECENT / TOGETHER, n_post, TOGETHER): steps of the last spikes, the last one first; 0: none
    int32_t* since    # from here on they count, this being 1; all synapses have what was before
    int64_t step      # in which the presynaptic spikes arrive
    const uint8_t* spike  # postsynaptic ones, to be kept,
    int64_t spike_step    # of this step
    const float* trace    # of the postsynaptic neurons, before the spikes of this step
    float* out            # what they receive
    Change up             # by postsynaptic spikes
    Change down           # by presynaptic ones
    double decay          # of a presynaptic trace in a step: it is divided by 2 to this power
    float low             # bounds
    float high
    bint returned         # whether postsynaptic spikes come first, and synapses send what they then are
    bint sets             # whether a spike sets its trace to 1, and does not add that
    bint all              # whether all synapses take what they have missed, and no spike arrives


cdef Status visit(Visit* call) noexcept nogil
