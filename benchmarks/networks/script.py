"""What the scripts of all simulators share: their arguments and what they report.

    python brian2_networks.py NETWORK --seconds S --threads T [--scale X] [--static] [--json FILE]

Each runs in a process of its own, so that its memory and the time from its start can be told.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from constants import NETWORKS, Brunel, Cuba, Hpc

Network = Cuba | Brunel | Hpc


@dataclasses.dataclass
class Outcome:
    """What one run took and did; times are in seconds."""

    wall: float  # of the steps
    cpu: float | None  # the same, of all threads: less than `wall` on one thread where the machine was busy
    build: float  # of neurons and synapses
    compilation: float  # of the model, 0 where there is none to compile
    before_first_step: float  # since the process started
    memory: int  # bytes, the most at once
    memory_before: int  # bytes, the most at once before the network was built
    rate: float  # Hz, of all neurons
    plastic_synapses: int
    weight_mean: float | None  # of the plastic synapses at the end, if there are any
    weight_sd: float | None


def weights(weight: np.ndarray | None, synapses: int | None = None) -> dict[str, int | float | None]:
    """What an `Outcome` says of the plastic weights, of which `weight` may be a sample."""
    if weight is None:
        return {"plastic_synapses": 0, "weight_mean": None, "weight_sd": None}
    return {
        "plastic_synapses": synapses or len(weight),
        "weight_mean": float(weight.mean(dtype=np.float64)),
        "weight_sd": float(weight.std(dtype=np.float64)),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--seconds", type=float, required=True, help="biological time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, help="of hpc: neurons over 11 250")
    parser.add_argument("--static", action="store_true", help="without plasticity")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=int, default=16, help="GiB that may be taken, so that nothing else is ended")
    parser.add_argument("--json", type=Path, help="where to write what was found; by default it is printed")
    return parser.parse_args()


def main(run: Callable[[argparse.Namespace, Network], Outcome]) -> None:
    options = arguments()
    resource.setrlimit(resource.RLIMIT_DATA, (options.memory * 2**30,) * 2)
    network = NETWORKS[options.network]
    if options.scale is not None:
        network = dataclasses.replace(network, scale=options.scale)
    outcome = dataclasses.asdict(run(options, network))
    outcome["wall_per_second"] = outcome["wall"] / options.seconds
    found = json.dumps(outcome, indent=1)
    if options.json:
        options.json.write_text(found + "\n")
    else:
        print(found)


def since_start() -> float:
    """Seconds since this process started."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> int:
    """The most bytes that this process had in memory at once.

    Linux's `ru_maxrss` is no less than what the process that started this one had.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def keep_to(threads: int) -> None:
    """Let this process use only so many CPUs: the number of XLA's threads is that of the CPUs it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
