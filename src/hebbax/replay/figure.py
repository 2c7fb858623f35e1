"""The figure of a replay, in a module of its own because matplotlib is optional."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hebbax.experiments.song2000_figure import BLUE, ORANGE, panels
from hebbax.replay import report
from hebbax.replay.files import Result

SIDES = {"all": ("all neurons", BLUE), "pre": ("presynaptic", BLUE), "post": ("postsynaptic", ORANGE)}


def figure(result: Result) -> Figure:
    """Draw the weights before and after, and the spikes over time."""
    return panels(result, {_weights: 1.0, _spikes: 1.2}, width=8.5)


def _weights(axes: Axes, result: Result) -> None:
    weight = result.connectivity.weight
    axes.set(xlabel="weight", ylabel="synapses (%)")
    if not weight.size:
        return
    edges, before, after = report.histograms(result)
    axes.stairs(100 * after / weight.size, edges, color=BLUE, fill=True, label="after")
    if np.ptp(weight) > 0:
        axes.stairs(100 * before / weight.size, edges, color="black", linestyle="--", label="before")
    else:
        axes.axvline(float(weight[0]), color="black", linestyle="--", label="before, all")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right")


def _spikes(axes: Axes, result: Result) -> None:
    axes.set(xlabel="time (s)", ylabel="firing rate (Hz)")
    edges, rates = report.rates(result)
    if edges.size < 2:
        return
    for side, rate in rates.items():
        label, color = SIDES[side]
        axes.stairs(rate, edges, color=color, linewidth=1.0, label=label, baseline=None)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.3 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right", ncols=2)
