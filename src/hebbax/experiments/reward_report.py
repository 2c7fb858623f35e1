"""What a run of `reward` comes down to: its summary, and its arrays."""

from __future__ import annotations

import brainunit as u
import numpy as np

from hebbax.experiments.parameters import Array, Data
from hebbax.experiments.reward import HIGH, Result


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name."""
    r, p = result, result.parameters
    seconds, biological = r.wall_time / u.second, r.records[-1].time / u.second
    largest, chosen, others = p.largest_weight / u.mV, r.records[-1].chosen, r.others
    rate = r.records[-1].spikes / biological / (p.excitatory, p.inhibitory)
    grown = np.flatnonzero(r.course("chosen") > HIGH * largest)
    return {
        "biological time": f"{biological:.6g} s in {r.steps} steps",
        "firing rate": f"excitatory {rate[0]:.2f} Hz, inhibitory {rate[1]:.2f} Hz",
        "rewards": f"{r.reward_step.size}, {(r.reward_step >= r.steps // 2).sum()} of them in the second half",
        "weight of the chosen synapse": f"{chosen:.3f} mV (at first 0, at most {largest:g})",
        f"first above {HIGH} of the largest": f"after {r.time[grown[0]] / u.second:.0f} s" if grown.size else "never",
        "weights of the others": f"{others.mean():.3f} ± {others.std(dtype=np.float64):.3f} mV",
        f"others above {HIGH} of the largest": f"{(others > HIGH * largest).mean():.2%}",
        "others that weigh as much as the chosen": f"{(others >= chosen).mean():.2%}",
        "wall-clock time": f"{seconds:.1f} s",
        "time per step": f"{seconds / r.steps * 1e6:.2f} µs",
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
