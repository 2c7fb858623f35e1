"""Synaptic updates a second of `hebbax replay`, end to end: from starting the command to the new weights in a file.

    python benchmarks/replay.py

10 000 neurons with 100 synapses each, and Poisson spikes at 5 Hz. Writes benchmarks/results/replay.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import scipy.sparse
from machine import commit, machine

NEURONS, SYNAPSES, RATE = 10_000, 100, 5.0
RESULTS = Path(__file__).parent / "results" / "replay.md"


def make_synapses(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """The same synapses in every format."""
    pre = np.repeat(np.arange(NEURONS), SYNAPSES)
    post = np.concatenate([rng.choice(NEURONS, SYNAPSES, replace=False) for _ in range(NEURONS)])
    weight = rng.uniform(0.0, 1.0, pre.size)
    paths = {name: folder / f"synapses.{name}" for name in ("npz", "csv", "parquet", "h5")}
    scipy.sparse.save_npz(paths["npz"], scipy.sparse.coo_array((weight, (pre, post)), shape=(NEURONS, NEURONS)))
    table = pa.table({"pre": pre, "post": post, "weight": weight})
    pa.csv.write_csv(table, paths["csv"])
    pa.parquet.write_table(table, paths["parquet"])
    with h5py.File(paths["h5"], "w") as file:
        group = file.create_group("edges/net")
        for name, ids in (("source_node_id", pre), ("target_node_id", post)):
            group[name] = ids.astype(np.uint64)
            group[name].attrs["node_population"] = "net"
        group["edge_group_id"] = np.zeros(pre.size, np.uint64)
        group["edge_group_index"] = np.arange(pre.size, dtype=np.uint64)
        group["0/syn_weight"] = weight
    return paths


def make_spikes(folder: Path, seconds: float, rng: np.random.Generator) -> tuple[dict[str, Path], int]:
    """The same spikes in every format, written second by second, and how many they are."""
    paths = {name: folder / f"spikes-{seconds:g}.{name}" for name in ("csv", "parquet", "h5")}
    count, schema = 0, pa.schema({"time": pa.float64(), "neuron": pa.int64()})
    with (
        pa.csv.CSVWriter(paths["csv"], schema) as csv, pa.parquet.ParquetWriter(paths["parquet"], schema) as parquet,
        h5py.File(paths["h5"], "w") as file,
    ):  # fmt: skip
        group = file.create_group("spikes/net")
        times = group.create_dataset("timestamps", (0,), np.float64, maxshape=(None,), chunks=True)
        neurons = group.create_dataset("node_ids", (0,), np.uint64, maxshape=(None,), chunks=True)
        times.attrs["units"] = "milliseconds"
        for second in range(int(seconds)):
            size = rng.poisson(NEURONS * RATE)
            time_s, neuron = second + np.sort(rng.random(size)), rng.integers(0, NEURONS, size)
            table = pa.table({"time": time_s, "neuron": neuron}, schema)
            csv.write_table(table)
            parquet.write_table(table)
            for data, values in ((times, 1000 * time_s), (neurons, neuron)):
                data.resize((count + size,))
                data[count:] = values
            count += size
    return paths, count


def run(synapses: Path, spikes: Path, output: Path) -> tuple[float, float, float]:
    """The seconds that the command takes, those of processors, and the most memory that it has, in MB."""
    command = [sys.executable, "-c", "import hebbax.cli; hebbax.cli.main()", "replay", str(synapses), str(spikes)]
    began = time.perf_counter()
    child = subprocess.Popen([*command, "--output", str(output), "--force"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="biological time")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rng, lines = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synapses = make_synapses(folder, rng)
        long = 4 * options.seconds
        files = {seconds: make_spikes(folder, seconds, rng) for seconds in (options.seconds, long)}
        cases = [
            (options.seconds, one, other)
            for one, other in (("npz", "csv"), ("csv", "csv"), ("parquet", "parquet"), ("h5", "h5"))
        ]
        for seconds, one, other in [*cases, (long, "npz", "csv")]:
            paths, count = files[seconds]
            measured = [run(synapses[one], paths[other], folder / f"new.{one}") for _ in range(options.rounds)]
            took, processor = np.median([x[:2] for x in measured], axis=0)
            memory = max(x[2] for x in measured)
            updates = 2 * SYNAPSES * count
            size = paths[other].stat().st_size / 1e6
            lines.append(
                f"| {one} | {other}, {size:.0f} MB | {count:,} | {updates / 1e6:,.0f} million "
                f"| {took:.1f} s ({processor:.1f}) | {updates / took / 1e6:.1f} million | {memory:.0f} MB |"
            )
            print(lines[-1], flush=True)
    here, command = machine(), shlex.join(["python", "benchmarks/replay.py", *sys.argv[1:]])
    head = (
        "| synapses | spikes | number of spikes | updates | the whole command (of processors) | updates a second "
        "| memory, at most |"
    )
    rule = "|---|---|---:|---:|---:|---:|---:|"
    notes = (
        f"{NEURONS:,} neurons with {SYNAPSES} synapses each, Poisson spikes at {RATE:g} Hz for {options.seconds:g} and "
        f"{long:g} s; every spike updates its neuron's synapses to others and from others. From starting Python to the "
        f"new weights and the figure; medians of {options.rounds}, memory the most of all. {here['cpu']}, load average "
        f"{os.getloadavg()[0]:.1f} at the end. From `{command}` at {commit()}."
    )
    RESULTS.write_text("\n".join(["# Replaying recorded spikes", "", head, rule, *lines, "", notes, ""]))


if __name__ == "__main__":
    main()
