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
    titles = {"rate": "firing rate", "weight_mean": "weight", "fraction_low": "weights near a bound"}
    for axes, group in zip(np.atleast_1d(drawn.subplots(1, len(groups))), groups, strict=True):
        for key, color in zip(group, (BLUE, ORANGE), strict=False):
            _line(axes, x, columns, key, color, len(group) > 1)
        title = next(text for start, text in titles.items() if group[0].startswith(start))
        axes.set(xlabel=_label(name, unit), ylabel=_label(title, columns[group[0]][1]))
        if _logarithmic(x):
            axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        if len(group) > 1:
            axes.legend(frameon=False, fontsize="small")
    return drawn


def _line(axes: Axes, x: np.ndarray, columns: Columns, key: str, color: str, named: bool) -> None:
    """A line of means, with what is a standard deviation from them as a band."""
    y, spread = columns[key][0], columns.get(f"{key.removesuffix('_mean')}_sd")
    short = key.removeprefix("rate_").removeprefix("fraction_")
    order = np.argsort(x)
    axes.plot(x[order], y[order], "o-", color=color, markersize=3.5, linewidth=1.3, label=short if named else None)
    if spread is not None:
        low, high = (y - spread[0])[order], (y + spread[0])[order]
        axes.fill_between(x[order], low, high, color=color, alpha=0.18, linewidth=0)


def _maps(swept: Sequence[str], columns: Columns) -> Figure:
    keys = [key for key in columns if key not in swept and not (key.endswith("_sd") and key.startswith("rate"))]
    rows = -(-len(keys) // 3)
    across = min(3, len(keys))
    drawn = Figure(figsize=(3.5 * across, 2.8 * rows), dpi=150, layout="constrained")
    (y, y_unit), (x, x_unit) = (columns[name] for name in swept)
    shape = len(np.unique(y)), len(np.unique(x))
    for axes, key in zip(drawn.subplots(rows, across, squeeze=False).ravel(), keys, strict=False):
        values, unit = columns[key]
        grids = [z.reshape(shape) for z in (x, y, values)]
        mesh = axes.pcolormesh(*grids, shading="nearest", cmap="viridis")
        axes.set(xlabel=_label(swept[1], x_unit), ylabel=_label(swept[0], y_unit))
        axes.set_xscale("log" if _logarithmic(x) else "linear")
        axes.set_yscale("log" if _logarithmic(y) else "linear")
        drawn.colorbar(mesh, ax=axes, label=_label(key, unit))
    for axes in drawn.axes[len(keys) : rows * across]:
        axes.set_axis_off()
    return drawn


def _label(name: str, unit: str) -> str:
    text = name.replace("_", " ").replace(" sd", ", standard deviation")
    return f"{text} ({unit})" if unit not in ("", "1") else text


def _logarithmic(x: np.ndarray) -> bool:
    """Whether values were chosen by their ratio: more than two, and evenly spaced by their logarithms."""
    values = np.unique(x)
    if values.size < 3 or values[0] <= 0:
        return False
    return bool(np.allclose(np.diff(np.log(values)), np.log(values[1] / values[0]), rtol=1e-6))
