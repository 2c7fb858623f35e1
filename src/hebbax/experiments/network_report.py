"""What a run of a network comes down to: its summary, and its arrays."""

from __future__ import annotations

import brainunit as u
import numpy as np

from hebbax.experiments.network import Run
from hebbax.experiments.parameters import Array, Data

SETTLED = 0.2  # of the time, from where on rates and irregularity are taken


def summary(run: Run) -> dict[str, str]:
    """Return the figures that sum a run up, by name; mean and standard deviation are over neurons or synapses."""
    steps, seconds = run.steps, run.wall_time / u.second
    first, biological = int(SETTLED * steps), run.time / u.second
    rates = run.rates(first) / u.Hz
    excitatory = run.network.excitatory
    variation = irregularity(run, first)
    rows = {
        "neurons": f"{run.n}, {int(excitatory.sum())} of them excitatory",
        "synapses": f"{run.synapses}, of which {run.weight_end.size} learn",
        "biological time": f"{biological:.6g} s in {steps} steps",
        "firing rate, excitatory": f"{rates[excitatory].mean():.2f} ± {rates[excitatory].std():.2f} Hz",
        "firing rate, inhibitory": f"{rates[~excitatory].mean():.2f} ± {rates[~excitatory].std():.2f} Hz",
        "irregularity (CV of intervals)": f"{variation.mean():.2f}" if variation.size else "too few spikes",
    }
    if run.weight_end.size:
        for name, weight in (("at the start", run.weight_start), ("at the end", run.weight_end)):
            rows[f"weight, {name}"] = (
                f"{weight.mean():.5g} ± {weight.std(dtype=np.float64):.3g} {run.network.weight_unit}"
            )
    return rows | {
        "devices": str(run.devices),
        "build and compilation": f"{run.build_time / u.second:.2f} s and {run.compile_time / u.second:.2f} s",
        "wall-clock time": f"{seconds:.2f} s, {seconds / biological:.3g} s per biological second",
        "time per step": f"{seconds / steps * 1e6:.2f} µs",
    }


def irregularity(run: Run, first: int = 0, spikes: int = 4) -> np.ndarray:
    """The coefficient of variation of the intervals of every excitatory neuron with at least so many spikes."""
    kept = (run.spike_step >= first) & run.network.excitatory[run.spike_neuron]
    neuron, step = run.spike_neuron[kept], run.spike_step[kept]
    order = np.lexsort((step, neuron))
    neuron, step = neuron[order], step[order]
    same = np.diff(neuron) == 0
    of, interval = neuron[1:][same], np.diff(step)[same].astype(float)
    count, total, squares = (np.bincount(of, x, run.n) for x in (np.ones_like(interval), interval, interval**2))
    enough = count >= spikes - 1
    mean = total[enough] / count[enough]
    return np.sqrt(np.maximum(squares[enough] / count[enough] - mean**2, 0)) / mean


def data(run: Run) -> Data:
    """Return the run's arrays, with their units and axes, and what it was."""
    unit = run.network.weight_unit
    named = {
        "spike_time_s": Array(run.spike_step * (run.network.neurons.time_step / u.second), "s", dims=("spike",)),
        "spike_neuron": Array(run.spike_neuron, meaning="number of the neuron", dims=("spike",)),
        "excitatory": Array(run.network.excitatory, meaning="by neuron", dims=("neuron",)),
        "weight_start": Array(run.weight_start, unit, dims=("synapse",)),
        "weight_end": Array(run.weight_end, unit, dims=("synapse",)),
    }
    about = dict(seed=run.seed, steps=run.steps, devices=run.devices, wall_time_s=run.wall_time / u.second)
    return Data(named, run.network.neurons.parameters, about)


def arrays(run: Run) -> dict[str, np.ndarray]:
    """Return the run as plain arrays, for `numpy.savez`; `metadata`, JSON, has parameters and the arrays' units."""
    return data(run).for_numpy()
