"""What a replay comes down to, in words and in numbers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import brainunit as u
import numpy as np

from hebbax.experiments.parameters import Array, Data
from hebbax.replay.files import Result
from hebbax.replay.plans import Rule, plan_of

BARS = 50  # of the histograms of weights


def numbers(result: Result) -> dict[str, tuple[Any, str]]:
    """Return the numbers that sum a replay up, with their units ("weight": that of the weights)."""
    rule, (pre, post), course = result.rule, result.spikes, result.course
    found: dict[str, tuple[Any, str]] = {
        **{name: _number(name, x) for name, x in _parameters(rule) if not isinstance(x, str)},
        "pre_neurons": (result.connectivity.shape[0], "1"),
        "post_neurons": (result.connectivity.shape[1], "1"),
        "synapses": (result.weight.size, "1"),
        "pre_spikes": (pre, "1"),
        "post_spikes": (post, "1"),
        "biological_time": (course.duration, "s"),
        "updates": (result.updates, "1"),
        "read_time": (result.wall_time[0], "s"),
        "wall_time": (result.wall_time[1], "s"),
    }
    for when, weight in (("start", result.connectivity.weight), ("end", result.weight)):
        if weight.size:
            found[f"weight_{when}_mean"] = weight.mean(dtype=np.float64), "weight"
            found[f"weight_{when}_sd"] = weight.std(dtype=np.float64), "weight"
    return found


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a replay up, by name; mean and standard deviation are over synapses."""
    found, rule, (n_pre, n_post) = result.connectivity, result.rule, result.connectivity.shape
    read, replayed = result.wall_time
    course, (pre, post) = result.course, result.spikes
    seconds = course.duration
    if result.is_one_population:
        neurons, spikes = f"{n_pre}", f"{pre}"
        rates = f"{_rate(pre, n_pre, seconds)}"
    else:
        neurons, spikes = f"{n_pre} presynaptic, {n_post} postsynaptic", f"{pre} presynaptic, {post} postsynaptic"
        rates = f"{_rate(pre, n_pre, seconds)} presynaptic, {_rate(post, n_post, seconds)} postsynaptic"
    before, after = found.weight, result.weight
    rows = {
        "rule": f"{type(rule).__name__}, {', '.join(_said(name, x) for name, x in _parameters(rule))}",
        "neurons": neurons,
        "synapses": f"{before.size} of {before.dtype}",
        "spikes": spikes,
        "biological time": f"{seconds:.6g} s from the first to the last spike",
        "firing rate": rates,
        "synaptic updates": f"{result.updates}",
    }
    for name, weight in (("before", before), ("after", after)):
        if weight.size:
            rows[f"weight, {name}"] = (
                f"{weight.mean(dtype=np.float64):.5g} ± {weight.std(dtype=np.float64):.3g}, "
                f"from {weight.min():.5g} to {weight.max():.5g}"
            )
    if before.size:
        plan = plan_of(rule)
        at = [100 * float(np.mean(after == after.dtype.type(bound))) for bound in (plan.low, plan.high)]
        rows["changed"] = f"{100 * float(np.mean(before != after)):.3g}% of the synapses"
        rows["at the bounds"] = f"{at[0]:.3g}% at the lower, {at[1]:.3g}% at the upper one"
    return rows | {
        "arranging synapses": f"{read:.2f} s",
        "replaying": f"{replayed:.2f} s, {result.updates / replayed:.3g} updates/s with reading the spikes",
    }


def data(result: Result) -> Data:
    """Return all that is known of a replay but its weights: numbers, and the histograms and rates of the figure."""
    known = [name for name, _ in _parameters(result.rule)]
    arrays = {
        name: Array(x, "" if unit == "1" else unit) for name, (x, unit) in numbers(result).items() if name not in known
    }
    edges, *counts = histograms(result)
    arrays["weight_bin"] = Array(edges[:-1], "weight", "lower end of a bin", ("weight_bin",))
    for when, count in zip(("start", "end"), counts, strict=True):
        arrays[f"weight_{when}_synapses"] = Array(count, "", "synapses with a weight in the bin", ("weight_bin",))
    edges, sides = rates(result)
    arrays["time"] = Array(edges[:-1], "s", "when an interval begins", ("time",))
    for side, rate in sides.items():
        arrays[f"{side}_rate"] = Array(rate, "Hz", "mean firing rate of its neurons in the interval", ("time",))
    return Data(arrays, result.rule, {"rule": type(result.rule).__name__})


def histograms(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the edges of bins of weights, and how many were in each before and after."""
    before, after = result.connectivity.weight, result.weight
    if not before.size:
        return np.zeros(1), np.zeros(0, np.int64), np.zeros(0, np.int64)
    finite = np.isfinite(after)  # (without an upper bound, weights may have grown beyond their dtype)
    low = float(min(before.min(), after.min(where=finite, initial=np.inf)))
    high = float(max(before.max(), after.max(where=finite, initial=-np.inf)))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, BARS + 1)
    return edges, np.histogram(before, edges)[0], np.histogram(after, edges)[0]


def rates(result: Result) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the edges of intervals, in seconds, and the mean rate in each, in Hz, of either side or of all neurons."""
    course, shape = result.course, result.connectivity.shape
    sides = ["all"] if result.is_one_population else ["pre", "post"]
    if course.start is None or not course.duration:
        return np.zeros(1), {side: np.zeros(0) for side in sides}
    used = max(1, int(np.ceil(course.duration / course.width)))
    edges = course.start + course.width * np.arange(used + 1)
    edges[-1] = course.end
    counts = course.counts[:, :used].copy()
    counts[:, -1] += course.counts[:, used:].sum(axis=1)
    return edges, {side: counts[k] / np.diff(edges) / max(1, shape[k]) for k, side in enumerate(sides)}


def _parameters(rule: Rule) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(rule, field.name)) for field in dataclasses.fields(rule))


def _number(name: str, value: Any) -> tuple[float, str]:
    if isinstance(value, u.Quantity):
        return float(value / u.ms), "ms"
    return float(value), "weight" if re.match("(a[23]?|w)_", name) else "1"


def _said(name: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{name} {value}"
    number, unit = _number(name, value)
    return f"{name} {number:.6g}" + (" ms" if unit == "ms" else "")


def _rate(spikes: int, n: int, seconds: float) -> str:
    return f"{spikes / n / seconds:.3g} Hz" if n and seconds else "unknown"
