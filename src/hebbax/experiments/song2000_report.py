"""What a run of `song2000` comes down to: its summary, and its arrays."""

from __future__ import annotations

import brainunit as u
import numpy as np

from hebbax.experiments.parameters import described
from hebbax.experiments.song2000 import HIGH, LOW, Result


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name; mean and standard deviation are over neurons."""
    r, last = result, result.records[-1]
    seconds = r.wall_time / u.second
    tenth = r.records[-1 - max(1, len(r.records) // 10)]
    settled = (last.spikes - tenth.spikes) / ((last.time - tenth.time) / u.second)

    def over_neurons(x: np.ndarray, form: str) -> str:
        return f"{x.mean():{form}} ± {x.std():{form}}"

    return {
        "biological time": f"{last.time / u.second:.6g} s in {r.steps} steps",
        "firing rate, at first": over_neurons(r.rate[0] / u.Hz, ".1f") + " Hz",
        "firing rate, last tenth": over_neurons(settled, ".1f") + " Hz",
        "weight, mean": f"{r.weight_end.mean() / r.parameters.largest_weight:.3f} of the largest",
        "weight, standard deviation": f"{r.weight_end.std() / r.parameters.largest_weight:.3f} of the largest",
        f"weights below {LOW} of the largest": over_neurons(last.fraction_low, ".1%"),
        f"weights above {HIGH} of the largest": over_neurons(last.fraction_high, ".1%"),
        "wall-clock time": f"{seconds:.1f} s",
        "time per step": f"{seconds / r.steps * 1e6:.2f} µs",
        "synaptic updates": f"{r.updates:.3g}, {r.updates / seconds:.3g} per second",
    }


def arrays(result: Result) -> dict[str, np.ndarray]:
    """Return the run as plain arrays, for `numpy.savez`; `metadata`, JSON, has parameters and the arrays' units."""
    leak = "leak conductances"
    named = {
        "time_s": (result.time / u.second, "s"),
        "rate_hz": (result.rate / u.Hz, "Hz, from one time to the next"),
        "weight_mean": (result.course("weight_mean"), leak),
        "weight_sd": (result.course("weight_sd"), leak),
        "fraction_low": (result.course("fraction_low"), f"of weights below {LOW} of the largest"),
        "fraction_high": (result.course("fraction_high"), f"of weights above {HIGH} of the largest"),
        "weight_sample": (result.course("weight_sample"), leak),
        "weight_start": (result.weight_start, leak),
        "weight_end": (result.weight_end, leak),
    }
    return described(
        named, result.parameters, experiment="Song, Miller & Abbott (2000), doi:10.1038/78829", seed=result.seed,
        steps=result.steps, synaptic_updates=result.updates, wall_time_s=result.wall_time / u.second,
    )  # fmt: skip
