"""What a run of `reward` comes down to: its summary, and its arrays."""

from __future__ import annotations

import math

import brainunit as u
import numpy as np

from hebbax.experiments.parameters import Array, Data, Numbers
from hebbax.experiments.reward import HIGH, Result


def numbers(result: Result) -> Numbers:
    """Return the numbers that sum a run up, with their units; mean and standard deviation (sd) are over synapses."""
    r, p = result, result.parameters
    seconds, biological = r.wall_time / u.second, r.records[-1].time / u.second
    largest, chosen, others = p.largest_weight / u.mV, r.records[-1].chosen, r.others
    excitatory, inhibitory = r.records[-1].spikes / biological / (p.excitatory, p.inhibitory)
    grown = np.flatnonzero(r.course("chosen") > HIGH * largest)
    return {
        "biological_time": (biological, "s"),
        "steps": (r.steps, "1"),
        "rate_excitatory": (excitatory, "Hz"),
        "rate_inhibitory": (inhibitory, "Hz"),
        "rewards": (r.reward_step.size, "1"),
        "rewards_second_half": (int((r.reward_step >= r.steps // 2).sum()), "1"),
        "weight_chosen": (chosen, "mV"),
        "chosen_grown_after": (r.time[grown[0]] / u.second if grown.size else math.nan, "s"),
        "weight_others_mean": (others.mean(), "mV"),
        "weight_others_sd": (others.std(dtype=np.float64), "mV"),
        "fraction_high": ((others > HIGH * largest).mean(), "1"),
        "fraction_as_chosen": ((others >= chosen).mean(), "1"),
        "wall_time": (seconds, "s"),
        "time_per_step": (seconds / r.steps * 1e6, "us"),
    }


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name."""
    n = {name: value for name, (value, _) in numbers(result).items()}
    grown = n["chosen_grown_after"]
    return {
        "biological time": f"{n['biological_time']:.6g} s in {n['steps']} steps",
        "firing rate": f"excitatory {n['rate_excitatory']:.2f} Hz, inhibitory {n['rate_inhibitory']:.2f} Hz",
        "rewards": f"{n['rewards']}, {n['rewards_second_half']} of them in the second half",
        "weight of the chosen synapse": (
            f"{n['weight_chosen']:.3f} mV (at first 0, at most {result.parameters.largest_weight / u.mV:g})"
        ),
        f"first above {HIGH} of the largest": "never" if math.isnan(grown) else f"after {grown:.0f} s",
        "weights of the others": f"{n['weight_others_mean']:.3f} ± {n['weight_others_sd']:.3f} mV",
        f"others above {HIGH} of the largest": f"{n['fraction_high']:.2%}",
        "others that weigh as much as the chosen": f"{n['fraction_as_chosen']:.2%}",
        "wall-clock time": f"{n['wall_time']:.1f} s",
        "time per step": f"{n['time_per_step']:.2f} µs",
    }


def data(result: Result) -> Data:
    """Return the run's arrays, with their units and axes, and what it was."""
    r, dt, course = result, result.parameters.time_step / u.second, ("time_s",)
    named = {
        "time_s": Array(r.time / u.second, "s", dims=course),
        "spikes": Array(
            r.course("spikes"), meaning="until then, of excitatory and of inhibitory neurons", dims=("time_s", "kind")
        ),
        "weight_chosen": Array(r.course("chosen"), "mV", dims=course),
        "weight_mean": Array(r.course("mean"), "mV", "of the others", course),
        "weight_low": Array(r.course("low"), "mV", "which 5% of the others are below", course),
        "weight_high": Array(r.course("high"), "mV", "which 5% of the others are above", course),
        "weight_end": Array(r.weight_end, "mV", "by presynaptic and postsynaptic neuron", ("synapse",)),
        "reward_time_s": Array(r.reward_step * dt, "s", dims=("reward_time_s",)),
        "pre_spike_time_s": Array(r.pre_step * dt, "s", "of the chosen presynaptic neuron", ("pre_spike_time_s",)),
        "post_spike_time_s": Array(r.post_step * dt, "s", "of the chosen postsynaptic neuron", ("post_spike_time_s",)),
    }
    about = dict(
        experiment="Izhikevich (2007), doi:10.1093/cercor/bhl152", seed=r.seed, steps=r.steps, pair=r.pair,
        chosen=r.chosen, wall_time_s=r.wall_time / u.second,
    )  # fmt: skip
    return Data(named, r.parameters, about)


def arrays(result: Result) -> dict[str, np.ndarray]:
    """Return the run as plain arrays, for `numpy.savez`; `metadata`, JSON, has parameters and the arrays' units."""
    return data(result).for_numpy()
