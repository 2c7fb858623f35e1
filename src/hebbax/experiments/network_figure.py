"""The figure of the experiments on networks, in a module of its own because matplotlib is optional."""

import brainunit as u
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hebbax.experiments.network import Run
from hebbax.experiments.song2000_figure import BLUE, ORANGE, panels

ROWS, WINDOW = 200, 0.25  # of the raster: neurons, and the last seconds
BINS = 100  # of the course of the rate
TAIL = 1e-4  # of the weights, at either end, that are not drawn


def figure(run: Run) -> Figure:
    """Draw a raster of the last spikes, the course of the rates, and, if any learn, the weights at start and end."""
    always = {_raster: 1.4, _rates: 1.0}
    return panels(run, always | {_weights: 1.0}) if run.weight_end.size else panels(run, always, width=7.5)


def _groups(run: Run) -> tuple[tuple[str, str, np.ndarray], ...]:
    excitatory = run.network.excitatory
    return ("excitatory", BLUE, excitatory), ("inhibitory", ORANGE, ~excitatory)


def _raster(axes: Axes, run: Run) -> None:
    dt, end = run.network.neurons.time_step / u.second, run.time / u.second
    start, bottom = max(0.0, end - WINDOW), 0
    for _, color, group in reversed(_groups(run)):
        shown = np.flatnonzero(group)[: max(1, round(ROWS * group.mean()))]
        row = np.full(run.n, -1)
        row[shown] = bottom + np.arange(shown.size)
        kept = (run.spike_step * dt >= start) & (row[run.spike_neuron] >= 0)
        time = 1000 * run.spike_step[kept] * dt
        axes.plot(time, row[run.spike_neuron[kept]], ".", color=color, markersize=1.6, rasterized=True)
        bottom += shown.size
    axes.set(xlabel="time (ms)", ylabel="neuron", xlim=(1000 * start, 1000 * end), ylim=(-1, bottom))


def _rates(axes: Axes, run: Run) -> None:
    end, dt = run.time / u.second, run.network.neurons.time_step / u.second
    edges = np.unique(np.linspace(0, run.steps, min(BINS, max(2, run.steps // 10)) + 1).astype(int))
    for name, color, group in _groups(run):
        counts, _ = np.histogram(run.spike_step[group[run.spike_neuron]], edges)
        rate = counts / (np.diff(edges) * dt) / max(1, group.sum())
        axes.step(edges[1:] * dt, rate, color=color, linewidth=1.0, label=name)
    axes.set(xlabel="time (s)", ylabel="firing rate (Hz)", xlim=(0, end), ylim=(0, 1.25 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right", ncols=2)


def _weights(axes: Axes, run: Run) -> None:
    start, end = run.weight_start, run.weight_end
    low, high = np.quantile(end, [TAIL, 1 - TAIL])
    low, high = float(min(low, start.min())), float(max(high, start.max()))  # in float32, edges might be the same
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, 51).tolist()
    percent = np.full(end.size, 100.0 / end.size)
    after = f"after {run.time / u.second:.4g} s"
    axes.hist(end, bins=edges, weights=percent, color=BLUE, label=after)
    if np.ptp(start) > 0:
        axes.hist(start, bins=edges, weights=percent, histtype="step", color="black", linestyle="--", label="at first")
    else:
        axes.axvline(start[0], color="black", linestyle="--", label="at first, all")
    axes.set(xlabel=f"weight ({run.network.weight_unit})", ylabel="synapses (%)", ylim=(0, 1.35 * axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(frameon=False, loc="upper right")
