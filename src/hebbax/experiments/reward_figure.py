"""The figure of `reward`, in a module of its own because matplotlib is optional."""

import brainunit as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hebbax.experiments.reward import Result
from hebbax.experiments.song2000_figure import BLUE, GREY, ORANGE, panels

PART = 0.25  # of the run, at its start and at its end, whose pairs of spikes are shown
BIN = 4  # ms, in which they are counted


def figure(result: Result) -> Figure:
    """Draw the course of the weights with the rewards, the weights at the end, and the chosen pair's correlation."""
    return panels(result, {_courses: 1.4, _weights: 1.0, _correlation: 1.0})


def _courses(axes: Axes, result: Result) -> None:
    time, largest = result.time / u.second, result.parameters.largest_weight / u.mV
    rewards = result.reward_step * (result.parameters.time_step / u.second)
    axes.fill_between(
        time, result.course("low"), result.course("high"), color=GREY, alpha=0.3, linewidth=0, label="others, 5–95%"
    )
    axes.plot(time, result.course("mean"), color=GREY, linewidth=1.5, label="others, mean")
    axes.plot(time, result.course("chosen"), color=BLUE, linewidth=1.5, label="chosen synapse")
    axes.plot(rewards, np.full(rewards.size, 1.06 * largest), "|", color=ORANGE, markersize=6, label="rewards")
    axes.set(xlabel="time (s)", ylabel="weight (mV)", xlim=(0, time[-1]), ylim=(0, 1.5 * largest))
    axes.set_yticks(np.linspace(0, largest, 5))
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _weights(axes: Axes, result: Result) -> None:
    largest = result.parameters.largest_weight / u.mV
    axes.hist(result.others, bins=40, range=(0, largest), color=GREY, alpha=0.6, log=True, label="others")
    axes.axvline(result.weight_end[result.chosen], color=BLUE, linewidth=2, clip_on=False, label="chosen synapse")
    axes.set(xlabel=f"weight after {result.time[-1] / u.second:.4g} s (mV)", ylabel="synapses", xlim=(0, largest))
    axes.set_ylim(0.7, 10 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper center")


def _correlation(axes: Axes, result: Result) -> None:
    dt, window = result.parameters.time_step / u.ms, result.parameters.reward_window / u.ms
    axes.axvspan(0, window, color=ORANGE, alpha=0.15, linewidth=0, label="rewarded")
    for first, last, color, label in ((0, PART, GREY, "first"), (1 - PART, 1, BLUE, "last")):
        lags, counts = result.lags(first, last)
        edges = np.arange(-48, 48 + BIN, BIN)
        binned, _ = np.histogram(lags * dt, edges - 0.5 * dt, weights=counts)
        seconds = PART * result.time[-1] / u.second
        axes.stairs(binned, edges, color=color, linewidth=1.5, baseline=None, label=f"{label} {seconds:.4g} s")
    axes.set(xlabel="lag of the second neuron (ms)", ylabel=f"pairs of spikes in {BIN} ms", xlim=(edges[0], edges[-1]))
    axes.set_ylim(0, max(1.0, 1.5 * axes.get_ylim()[1]))
    axes.legend(frameon=False, loc="upper left")
