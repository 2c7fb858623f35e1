"""What a run of a network comes down to: its summary, and its arrays."""

from __future__ import annotations

import math

import brainunit as u
import numpy as np

from hebbax.experiments.network import Run
from hebbax.experiments.parameters import Array, Data, Numbers

SETTLED = 0.2  # of the time, from where on rates and irregularity are taken


def numbers(run: Run) -> Numbers:
    """Return the numbers that sum a run up, with their units; mean and standard deviation (sd) are over neurons."""
    first, seconds = int(SETTLED * run.steps), run.wall_time / u.second
    excitatory, unit = run.network.excitatory, run.network.weight_unit
    rates, variation = run.rates(first) / u.Hz, irregularity(run, first)
    found: Numbers = {
        "neurons": (run.n, "1"),
        "excitatory_neurons": (int(excitatory.sum()), "1"),
        "synapses": (run.synapses, "1"),
        "learning_synapses": (run.weight_end.size, "1"),
        "biological_time": (run.time / u.second, "s"),
        "steps": (run.steps, "1"),
        "irregularity": (variation.mean() if variation.size else math.nan, "1"),
        "devices": (run.devices, "1"),
        "build_time": (run.build_time / u.second, "s"),
        "compile_time": (run.compile_time / u.second, "s"),
        "wall_time": (seconds, "s"),
        "time_per_step": (seconds / run.steps * 1e6, "us"),
    }
    for kind, of in (("excitatory", excitatory), ("inhibitory", ~excitatory)):
        found |= {f"rate_{kind}": (rates[of].mean(), "Hz"), f"rate_{kind}_sd": (rates[of].std(), "Hz")}
    if run.weight_end.size:
        for when, weight in (("start", run.weight_start), ("end", run.weight_end)):
            found[f"weight_{when}_mean"] = weight.mean(), unit
            found[f"weight_{when}_sd"] = weight.std(dtype=np.float64), unit
    return found


def summary(run: Run) -> dict[str, str]:
    """Return the figures that sum a run up, by name; mean and standard deviation are over neurons or synapses."""
    n = {name: value for name, (value, _) in numbers(run).items()}
    rows = {
        "neurons": f"{n['neurons']}, {n['excitatory_neurons']} of them excitatory",
        "synapses": f"{n['synapses']}, of which {n['learning_synapses']} learn",
        "biological time": f"{n['biological_time']:.6g} s in {n['steps']} steps",
        "firing rate, excitatory": f"{n['rate_excitatory']:.2f} ± {n['rate_excitatory_sd']:.2f} Hz",
        "firing rate, inhibitory": f"{n['rate_inhibitory']:.2f} ± {n['rate_inhibitory_sd']:.2f} Hz",
        "irregularity (CV of intervals)": "too few spikes"
        if math.isnan(n["irregularity"])
        else f"{n['irregularity']:.2f}",
    }
    if run.weight_end.size:
        for when in ("start", "end"):
            mean, sd = n[f"weight_{when}_mean"], n[f"weight_{when}_sd"]
            rows[f"weight, at the {when}"] = f"{mean:.5g} ± {sd:.3g} {run.network.weight_unit}"
    per_second = n["wall_time"] / n["biological_time"]
    return rows | {
        "devices": str(n["devices"]),
        "build and compilation": f"{n['build_time']:.2f} s and {n['compile_time']:.2f} s",
        "wall-clock time": f"{n['wall_time']:.2f} s, {per_second:.3g} s per biological second",
        "time per step": f"{n['time_per_step']:.2f} µs",
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
