"""What a run of `song2000` comes down to: its summary, and its arrays."""

from __future__ import annotations

import brainunit as u
import numpy as np

from hebbax.experiments.parameters import Array, Data, Numbers
from hebbax.experiments.song2000 import HIGH, LOW, Result


def numbers(result: Result) -> Numbers:
    """Return the numbers that sum a run up, with their units; mean and standard deviation (sd) are over neurons."""
    r, last = result, result.records[-1]
    seconds = r.wall_time / u.second
    tenth = r.records[-1 - max(1, len(r.records) // 10)]
    settled = (last.spikes - tenth.spikes) / ((last.time - tenth.time) / u.second)
    over_neurons = {
        "rate_at_first": (r.rate[0] / u.Hz, "Hz"),
        "rate": (settled, "Hz"),  # in the last tenth
        "fraction_low": (last.fraction_low, "1"),
        "fraction_high": (last.fraction_high, "1"),
    }
    return {
        "biological_time": (last.time / u.second, "s"),
        "steps": (r.steps, "1"),
        **{name: (x.mean(), unit) for name, (x, unit) in over_neurons.items()},
        **{f"{name}_sd": (x.std(), unit) for name, (x, unit) in over_neurons.items()},
        "weight_mean": (r.weight_end.mean() / r.parameters.largest_weight, "largest weights"),
        "weight_sd": (r.weight_end.std() / r.parameters.largest_weight, "largest weights"),
        "wall_time": (seconds, "s"),
        "time_per_step": (seconds / r.steps * 1e6, "us"),
        "updates": (r.updates, "1"),
    }


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name; mean and standard deviation are over neurons."""
    n = {name: value for name, (value, _) in numbers(result).items()}

    def over_neurons(name: str, form: str) -> str:
        return f"{n[name]:{form}} ± {n[f'{name}_sd']:{form}}"

    return {
        "biological time": f"{n['biological_time']:.6g} s in {n['steps']} steps",
        "firing rate, at first": over_neurons("rate_at_first", ".1f") + " Hz",
        "firing rate, last tenth": over_neurons("rate", ".1f") + " Hz",
        "weight, mean": f"{n['weight_mean']:.3f} of the largest",
        "weight, standard deviation": f"{n['weight_sd']:.3f} of the largest",
        f"weights below {LOW} of the largest": over_neurons("fraction_low", ".1%"),
        f"weights above {HIGH} of the largest": over_neurons("fraction_high", ".1%"),
        "wall-clock time": f"{n['wall_time']:.1f} s",
        "time per step": f"{n['time_per_step']:.2f} µs",
        "synaptic updates": f"{n['updates']:.3g}, {n['updates'] / n['wall_time']:.3g} per second",
    }


def data(result: Result) -> Data:
    """Return the run's arrays, with their units and axes, and what it was."""
    leak, by_neuron = "leak conductances", ("time_s", "neuron")
    named = {
        "time_s": Array(result.time / u.second, "s", dims=("time_s",)),
        "rate_hz": Array(result.rate / u.Hz, "Hz", "from one time to the next", ("interval", "neuron")),
        "weight_mean": Array(result.course("weight_mean"), leak, dims=by_neuron),
        "weight_sd": Array(result.course("weight_sd"), leak, dims=by_neuron),
        "fraction_low": Array(
            result.course("fraction_low"), meaning=f"of weights below {LOW} of the largest", dims=by_neuron
        ),
        "fraction_high": Array(
            result.course("fraction_high"), meaning=f"of weights above {HIGH} of the largest", dims=by_neuron
        ),
        "weight_sample": Array(result.course("weight_sample"), leak, dims=("time_s", "sample")),
        "weight_start": Array(result.weight_start, leak, dims=("neuron", "input")),
        "weight_end": Array(result.weight_end, leak, dims=("neuron", "input")),
    }
    about = dict(
        experiment="Song, Miller & Abbott (2000), doi:10.1038/78829", seed=result.seed, steps=result.steps,
        synaptic_updates=result.updates, wall_time_s=result.wall_time / u.second,
    )  # fmt: skip
    return Data(named, result.parameters, about)


def arrays(result: Result) -> dict[str, np.ndarray]:
    """Return the run as plain arrays, for `numpy.savez`; `metadata`, JSON, has parameters and the arrays' units."""
    return data(result).for_numpy()
