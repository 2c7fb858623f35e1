"""The figure of a sweep, in a module of its own because matplotlib is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hebbax.experiments.song2000_figure import BLUE, ORANGE

Columns = Mapping[str, tuple[np.ndarray, str]]


def figure(swept: Sequence[str], columns: Columns) -> Figure:
    """Draw rates and weights: over one constant as lines, over two as maps, and over more along the members."""
    if len(swept) == 2:
        return _maps(swept, columns)
    name = swept[0] if len(swept) == 1 else "member"
    x, unit = columns[name] if len(swept) == 1 else (np.arange(1, len(columns[swept[0]][0]) + 1), "")
    groups = [[key for key in columns if key.startswith(start) and not key.endswith("_sd")]
              for start in ("rate", "weight_mean", "fraction")]  # fmt: skip
    groups = [group for group in groups if group]
    drawn = Figure(figsize=(3.4 * len(groups), 2.9), dpi=150, layout="constrained")
    titles = {"rate": "firing rate", "weight_mean": "weight", "fraction_low": "fraction near a bound"}
    for axes, group in zip(np.atleast_1d(drawn.subplots(1, len(groups))), groups, strict=True):
        for key, color in zip(group, (BLUE, ORANGE), strict=False):
            _line(axes, x, columns, key, color, len(group) > 1)
        title = next(text for start, text in titles.items() if group[0].startswith(start))
        axes.set(xlabel=_label(name, unit), ylabel=_label(title, columns[group[0]][1]))
        if _logarithmic(x):
            axes.set_xscale("log")
        if not group[0].startswith("weight"):
            axes.set_ylim(0, 1.08 * axes.dataLim.ymax or 1)
        axes.spines[["top", "right"]].set_visible(False)
        if len(group) > 1:
            axes.legend(frameon=False, fontsize="small")
    return drawn


def _line(axes: Axes, x: np.ndarray, columns: Columns, key: str, color: str, named: bool) -> None:
    """A line of means; of weights, with what is a standard deviation from them as a band."""
    y = columns[key][0]
    spread = columns.get(f"{key.removesuffix('_mean')}_sd") if key.endswith("_mean") else None
    short = key.removeprefix("rate_").removeprefix("fraction_")
    order = np.argsort(x)
    label = short if named else None
    axes.plot(x[order], y[order], "o-", color=color, markersize=3.5, linewidth=1.3, label=label, clip_on=False)
    if spread is not None:
        low, high = (y - spread[0])[order], (y + spread[0])[order]
        axes.fill_between(x[order], low, high, color=color, alpha=0.18, linewidth=0)


def _maps(swept: Sequence[str], columns: Columns) -> Figure:
    keys = [key for key in columns if key not in swept and not (key.endswith("_sd") and key.startswith("rate"))]
    across, rows = min(3, len(keys)), -(-len(keys) // 3)
    drawn = Figure(figsize=(3.5 * across, 2.8 * rows), dpi=150, layout="constrained")
    y, x = (list(dict.fromkeys(columns[name][0].tolist())) for name in swept)
    y_label, x_label = (_label(name, columns[name][1]) for name in swept)
    places = drawn.subplots(rows, across, squeeze=False).ravel()
    for axes, key in zip(places, keys, strict=False):
        values, unit = columns[key]
        limits = dict(vmin=0, vmax=values.max() or 1) if key.startswith("fraction") else {}
        image = axes.imshow(values.reshape(len(y), len(x)), origin="lower", aspect="auto", cmap="viridis", **limits)
        for axis, own in ((axes.xaxis, x), (axes.yaxis, y)):  # where values are, whatever is between them
            at = range(0, len(own), -(-len(own) // 6))
            axis.set_ticks(list(at), [f"{own[k]:.3g}" for k in at])
        axes.set(xlabel=x_label, ylabel=y_label, title=_label(_meaning(key), unit))
        axes.title.set_fontsize("medium")
        drawn.colorbar(image, ax=axes)
    for axes in places[len(keys) :]:
        axes.set_axis_off()
    return drawn


def _meaning(key: str) -> str:
    """What a column is, in words."""
    if key.startswith("rate_"):
        return f"firing rate, {key.removeprefix('rate_')}"
    words = {"rate": "firing rate", "weight_mean": "weight, mean", "weight_sd": "weight, standard deviation"}
    words |= {"fraction_low": "fraction near the lower bound", "fraction_high": "fraction near the upper bound"}
    return words.get(key, key)


def _label(name: str, unit: str) -> str:
    text = name.replace("_", " ").replace(" sd", ", standard deviation")
    return f"{text} ({unit})" if unit not in ("", "1") else text


def _logarithmic(x: np.ndarray) -> bool:
    """Whether values were chosen by their ratio: more than two, and evenly spaced by their logarithms."""
    values = np.unique(x)
    if values.size < 3 or values[0] <= 0:
        return False
    return bool(np.allclose(np.diff(np.log(values)), np.log(values[1] / values[0]), rtol=1e-6))
