"""The figure of `song2000`, in a module of its own because matplotlib is optional."""

from collections.abc import Mapping
from typing import Any

import brainunit as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hebbax.experiments.song2000 import HIGH, LOW, Result

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"  # told apart by every kind of colour vision
POINTS = 150  # of the rate's curve: enough to see it settle, few enough to average the noise out


def figure(result: Result) -> Figure:
    """Draw the weights at start and end, the firing rate, and the course of single weights."""
    return panels(result, {_weights: 1, _rate: 1, _courses: 1.25})


def panels(result: Any, draws: Mapping[Any, float], width: float = 11) -> Figure:
    """A figure of panels side by side with letters: functions of axes and result that draw them, and their widths."""
    fig = Figure(figsize=(width, 3.4), layout="constrained", dpi=200)
    row = fig.subplots(1, len(draws), width_ratios=list(draws.values()))
    for letter, axes, draw in zip("abc", row, draws, strict=False):
        draw(axes, result)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(letter, loc="left", fontweight="bold")
    return fig


def _weights(axes: Axes, result: Result) -> None:
    end: dict[str, Any] = dict(color=BLUE, label=f"after {result.time[-1] / u.second:.4g} s")
    start: dict[str, Any] = dict(histtype="step", color="black", linestyle="--", label="at the start")
    for weight, style in ((result.weight_end, end), (result.weight_start, start)):
        percent = np.full(weight.size, 100.0 / weight.size)
        axes.hist(weight.ravel() / result.parameters.largest_weight, bins=20, range=(0, 1), weights=percent, **style)
    axes.set(xlabel=r"weight $w / g_{\max}$", ylabel="synapses (%)", xlim=(0, 1))
    axes.legend(frameon=False, loc="upper center")


def _rate(axes: Axes, result: Result) -> None:
    time = result.time / u.second
    edges = np.arange(0, len(time), max(1, len(time) // POINTS))
    rate = np.diff(result.course("spikes")[edges], axis=0) / np.diff(time[edges])[:, None]
    middle = (time[edges][1:] + time[edges][:-1]) / 2
    axes.fill_between(middle, rate.min(1), rate.max(1), color=BLUE, alpha=0.25, linewidth=0, label="range over neurons")
    axes.plot(middle, rate.mean(1), color=BLUE, linewidth=1.5, label="mean")
    axes.set(xlabel="time (s)", ylabel="firing rate (Hz)", xlim=(0, time[-1]), ylim=(0, None))
    axes.legend(frameon=False)


def _courses(axes: Axes, result: Result) -> None:
    time = result.time / u.second
    for course in (result.course("weight_sample") / result.parameters.largest_weight).T:
        color = ORANGE if course[-1] < LOW else BLUE if course[-1] > HIGH else GREY
        axes.plot(time, course, color=color, linewidth=0.9)
    for color, label in ((BLUE, f"above {HIGH}"), (GREY, "between"), (ORANGE, f"below {LOW}")):
        axes.plot([], [], color=color, label=label)
    axes.set(xlabel="time (s)", ylabel=r"weight $w / g_{\max}$", xlim=(0, time[-1]), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, title="at the end", loc="center left", bbox_to_anchor=(1.0, 0.5))
