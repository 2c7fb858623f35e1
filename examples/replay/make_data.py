"""Make the data beside this file: the excitatory part of Brunel's network, and its spikes.

    python examples/replay/make_data.py

N. Brunel (2000), Dynamics of sparsely connected networks of excitatory and inhibitory spiking neurons, Journal of
Computational Neuroscience 8:183-208, doi:10.1023/A:1008925309027, with the constants of `hebbax simulate brunel10k` but
125 neurons and a weaker drive. All weights are the same and stay so: what would STDP have made of them?
"""

import argparse
import csv
from pathlib import Path

import brainunit as u
import h5py
import numpy as np

from hebbax.experiments import brunel10k

HERE = Path(__file__).parent


def simulate(seconds):
    """Synapses between excitatory neurons, and their spikes in steps of 0.1 ms."""
    parameters = brunel10k.Parameters(drive_rate=10.0 * u.kHz)
    network = brunel10k.build(parameters, neurons=125, plastic=True, seed=1)
    synapses = next(projection.synapses for projection in network.projections if projection.rule is not None)
    run = brunel10k.simulate(parameters, neurons=125, plastic=False, seconds=seconds, seed=1)
    kept = network.excitatory[run.spike_neuron]
    number = np.cumsum(network.excitatory) - 1  # among the excitatory ones
    pre, post = np.repeat(np.arange(125), np.diff(synapses.indptr)), np.asarray(synapses.indices)
    spikes = run.spike_step[kept], number[run.spike_neuron[kept]]
    return number[pre], number[post], parameters.excitatory_weight / u.mV, *spikes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="biological time")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the files")
    options = parser.parse_args()
    pre, post, weight, step, neuron = simulate(options.seconds)

    with (options.output / "synapses.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["pre", "post", "weight"])
        table.writerows((i, j, weight) for i, j in zip(pre.tolist(), post.tolist(), strict=True))
    with (options.output / "spikes.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["time", "neuron"])
        table.writerows((f"{k / 10_000:.4f}", i) for k, i in zip(step.tolist(), neuron.tolist(), strict=True))

    compressed = dict(compression="gzip", shuffle=True)
    with h5py.File(options.output / "edges.h5", "w") as file:
        file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), [np.uint32(0), np.uint32(1)]
        edges = file.create_group("edges/excitatory_to_excitatory")
        for name, ids in (("source_node_id", pre), ("target_node_id", post)):
            edges.create_dataset(name, data=ids.astype(np.uint64), **compressed)
            edges[name].attrs["node_population"] = "excitatory"
        for name, ids in (("type_id", np.zeros), ("group_id", np.zeros), ("group_index", np.arange)):
            edges.create_dataset(f"edge_{name}", data=ids(pre.size, dtype=np.uint64), **compressed)
        edges.create_dataset("0/syn_weight", data=np.full(pre.size, weight), **compressed)
    with h5py.File(options.output / "spikes.h5", "w") as file:
        file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), [np.uint32(0), np.uint32(1)]
        spikes = file.create_group("spikes/excitatory")
        spikes.attrs["sorting"] = "by_time"
        spikes.create_dataset("timestamps", data=step / 10, **compressed)
        spikes["timestamps"].attrs["units"] = "milliseconds"
        spikes.create_dataset("node_ids", data=neuron.astype(np.uint64), **compressed)


if __name__ == "__main__":
    main()
