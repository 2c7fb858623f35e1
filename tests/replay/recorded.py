"""Synapses and spikes that the tests of replays have in common, and files of them."""

import brainunit as u
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse

import hebbax

N = 7
RNG = np.random.default_rng(0)
PRE, POST = RNG.integers(0, N, 30), RNG.integers(0, N, 30)  # some twice, in no order
WEIGHT = RNG.random(30)
TIME = np.cumsum(RNG.choice([0.0, 0.003, 0.01, 5.0], 300, p=[0.2, 0.4, 0.3, 0.1])).round(9)
NEURON = RNG.integers(0, N, 300)
KEPT = np.unique(np.rec.fromarrays((TIME, NEURON)), return_index=True)[1]
TIME, NEURON = TIME[KEPT], NEURON[KEPT]
RULE = hebbax.PairSTDP(20 * u.ms, 30 * u.ms, 0.1, 0.11, 0.0, 1.0)


def write_synapses(path, pre=PRE, post=POST, weight=WEIGHT, **extra):
    if path.suffix == ".npz":
        scipy.sparse.save_npz(path, scipy.sparse.coo_array((weight, (pre, post)), shape=(N, N)))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            group = file.create_group("edges/net")
            group["source_node_id"], group["target_node_id"] = np.uint64(pre), np.uint64(post)
            for name, ids in (("source_node_id", "a"), ("target_node_id", "a")):
                group[name].attrs["node_population"] = extra.get(name, ids)
            even = np.arange(len(pre)) % 2 == 0  # two groups of edges, one of them backwards
            group["edge_group_id"] = np.where(even, 0, 1)
            index = np.zeros(len(pre), int)
            index[even], index[~even] = np.arange(even.sum()), np.arange((~even).sum())[::-1]
            group["edge_group_index"] = index
            group["0/syn_weight"], group["1/syn_weight"] = weight[even], weight[~even][::-1]
            group["0/delay"] = np.ones(even.sum())
    else:
        table = pa.table({"note": [f"n, {k}" for k in range(len(pre))], "weight": weight, "post": post, "pre": pre})
        table = table.replace_schema_metadata({"by": "a user"})
        if path.suffix == ".csv":
            pa.csv.write_csv(table, path)
        else:
            pa.parquet.write_table(table, path, row_group_size=8)
    return path


def write_spikes(path, time=TIME, neuron=NEURON, population="a"):
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            group = file.create_group(f"spikes/{population}")
            group["timestamps"], group["node_ids"] = 1000 * time, np.uint64(neuron)
    elif path.suffix == ".csv":
        text = "".join(f"{n},{t!r}\n" for t, n in zip(time.tolist(), neuron.tolist(), strict=True))
        path.write_text("neuron,time\n" + text)
    else:
        pa.parquet.write_table(pa.table({"time": time, "neuron": neuron}), path, row_group_size=50)
    return path
