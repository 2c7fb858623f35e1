"""A plastic network split over MPI ranks, in NumPy: each owns some postsynaptic neurons and all synapses onto them.

A step sums the input of a rank's own neurons, lets them spike, tells all ranks who spiked (`Allgatherv`), and changes
the rank's own weights by pair-based STDP (Morrison, Diesmann & Gerstner 2008, doi:10.1007/s00422-008-0233-1). Nothing
else is exchanged. The weights do not depend on the number of ranks, to the last bit: what is random is drawn for a
neuron or a step, not for a rank, and every neuron adds up its input in the order of the presynaptic neurons.

    mpiexec -n 4 python simulate.py --output weights.npz
"""

import argparse

import numpy as np
from mpi4py import MPI

import hebbax

STEP, TAU_MEMBRANE, TAU_TRACE = 1.0, 20.0, 20.0  # ms
W_MAX = 0.1  # of the distance from rest to threshold, as all voltages and weights are
A_PLUS, A_MINUS = 0.05 * W_MAX, 0.0525 * W_MAX  # change of a weight by a pair of spikes
DRIVE, RATE = 0.4, 0.06  # voltage of an external spike, and how probable one is in a step
INHIBITION = 0.6  # of every neuron by the whole network, in units of the largest excitation


class Share:
    """The neurons `first` to `stop` (exclusive) of a network of `n`, and the synapses onto them."""

    def __init__(self, n, first, stop, inputs, seed):
        self.shape, self.inputs = (n, stop - first), inputs  # all presynaptic neurons, own postsynaptic ones
        pre, weight = [], []
        for neuron in range(first, stop):
            rng = np.random.default_rng([seed, neuron])
            pre.append(np.sort(rng.choice(n, inputs, replace=False)))
            weight.append(rng.uniform(0, W_MAX, inputs))
        # In CSC order, by postsynaptic neuron; then in CSR order, by presynaptic neuron.
        pre = np.concatenate(pre) if pre else np.zeros(0, np.int64)
        post = np.repeat(np.arange(stop - first), inputs)
        order = np.argsort(pre, kind="stable")
        self.csr = post[order].astype(np.int32), np.searchsorted(pre[order], np.arange(n + 1)).astype(np.int32)
        columns = np.arange(stop - first + 1) * inputs
        self.csr_position = np.argsort(order).astype(np.int32)  # of every element in CSC order
        self.csc = pre.astype(np.int32), columns.astype(np.int32), self.csr_position
        self.weight = (np.concatenate(weight) if weight else np.zeros(0))[order].astype(np.float32)
        self.voltage = np.zeros(stop - first, np.float32)
        self.current = np.zeros(stop - first, np.float32)
        self.pre_trace, self.post_trace = np.zeros(n, np.float32), np.zeros(stop - first, np.float32)

    def spikes(self, spike, drive):
        """Whether each own neuron spikes, where `spike` says who did in the step before."""
        hebbax.inplace.propagate_csr_on_binary_pre(self.weight, *self.csr, spike, shape=self.shape, out=self.current)
        self.voltage *= np.float32(np.exp(-STEP / TAU_MEMBRANE))
        inhibition = np.float32(INHIBITION * W_MAX * self.inputs * spike.mean())
        self.voltage += self.current + np.float32(DRIVE) * drive - inhibition
        own = self.voltage >= 1
        self.voltage[own] = 0
        return own

    def learn(self, spike, own):
        """Change the weights by the spikes of all neurons and those of the own ones."""
        decay = np.float32(np.exp(-STEP / TAU_TRACE))
        self.pre_trace *= decay
        self.post_trace *= decay
        options = dict(w_min=0.0, w_max=W_MAX, weight_in_bounds=True, shape=self.shape)
        hebbax.inplace.update_csr_on_binary_pre(
            self.weight, *self.csr, spike, self.post_trace, gain=-A_MINUS, **options
        )
        hebbax.inplace.update_csr_on_binary_post(self.weight, *self.csc, self.pre_trace, own, gain=A_PLUS, **options)
        self.pre_trace += spike
        self.post_trace += own


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default, meaning in (
        ("neurons", 2000, "in the whole network"), ("inputs", 100, "synapses onto each neuron"),
        ("steps", 500, "of 1 ms"), ("seed", 0, "of everything random"), ("threads", 1, "of each rank"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: {default})")
    parser.add_argument("--output", help="write the first and the final weights to this .npz file")
    args = parser.parse_args()

    comm = MPI.COMM_WORLD
    hebbax.set_num_threads(args.threads)  # the default, all CPUs, would be that of every rank on this machine
    starts = np.linspace(0, args.neurons, comm.size + 1).astype(int)
    counts, offsets = np.diff(starts), starts[:-1]
    first, stop = starts[comm.rank : comm.rank + 2]
    share = Share(args.neurons, first, stop, args.inputs, args.seed)
    weights = [gathered(comm, share, counts * args.inputs)]
    spike, spikes, begin = np.zeros(args.neurons, bool), 0, MPI.Wtime()
    for step in range(args.steps):
        drive = np.random.default_rng([args.seed, args.neurons, step]).random(args.neurons) < RATE
        own = share.spikes(spike, drive[first:stop])
        comm.Allgatherv([own, MPI.BYTE], [spike, counts, offsets, MPI.BYTE])
        share.learn(spike, own)
        spikes += spike.sum()
    seconds = MPI.Wtime() - begin
    weights.append(gathered(comm, share, counts * args.inputs))
    if comm.rank == 0:
        before, after = weights
        print(f"ranks: {comm.size}, neurons: {args.neurons}, synapses: {after.size}, steps: {args.steps}")
        print(f"spikes: {spikes}, seconds: {seconds:.2f}")
        print(
            f"mean weight: {before.mean() / W_MAX:.4f} of the largest at first, {after.mean() / W_MAX:.4f} at the end"
        )
        if args.output:
            np.savez(args.output, start=before, weight=after, spikes=spikes)


def gathered(comm, share, counts):
    """On rank 0 all weights, by postsynaptic and then by presynaptic neuron."""
    own = share.weight[share.csr_position]
    weight = np.empty(counts.sum(), np.float32) if comm.rank == 0 else None
    comm.Gatherv(own, [weight, counts] if comm.rank == 0 else None)
    return weight


if __name__ == "__main__":
    main()
