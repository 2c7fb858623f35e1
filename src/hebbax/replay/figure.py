"""The figure of a replay, in a module of its own because matplotlib is optional."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hebbax.experiments.song2000_figure import BLUE, ORANGE, panels
from hebbax.replay.files import Result

BARS = 50


def figure(result: Result) -> Figure:
    """Draw the weights before and after, and the spikes over time."""
    return panels(result, {_weights: 1.0, _spikes: 1.2}, width=8.5)


def _weights(axes: Axes, result: Result) -> None:
    before, after = result.connectivity.weight, result.weight
    axes.set(xlabel="weight", ylabel="synapses (%)")
    if not before.size:
        return
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, BARS + 1).tolist()
    percent = np.full(after.size, 100.0 / after.size)
    axes.hist(after, bins=edges, weights=percent, color=BLUE, label="after")
    if np.ptp(before) > 0:
        axes.hist(before, bins=edges, weights=percent, histtype="step", color="black", linestyle="--", label="before")
    else:
        axes.axvline(float(before[0]), color="black", linestyle="--", label="before, all")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right")


def _spikes(axes: Axes, result: Result) -> None:
    course, shape = result.course, result.connectivity.shape
    axes.set(xlabel="time (s)", ylabel="firing rate (Hz)")
    if course.start is None or not course.duration:
        return
    used = max(1, int(np.ceil(course.duration / course.width)))
    edges = course.start + course.width * np.arange(used + 1)
    edges[-1] = course.end
    sides = ((0, BLUE, "all neurons"),) if result.is_one_population else (
        (0, BLUE, "presynaptic"), (1, ORANGE, "postsynaptic"),
    )  # fmt: skip
    for side, color, label in sides:
        counts = course.counts[side, :used].copy()
        counts[-1] += course.counts[side, used:].sum()
        axes.stairs(
            counts / np.diff(edges) / max(1, shape[side]), edges, color=color, linewidth=1.0, label=label, baseline=None
        )
    axes.set(xlim=(course.start, course.end), ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right", ncols=2)
