"""The figure of `digits`, in a module of its own because matplotlib is optional."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hebbax.experiments.digits import CLASSES, PIXELS, Result
from hebbax.experiments.song2000_figure import BLUE, GREY, panels

SIDE = math.isqrt(PIXELS)  # of an image
COLUMNS = 20  # of neurons


def figure(result: Result) -> Figure:
    """Draw the neurons' weights by their class, the confusion of classes, and the accuracy while learning."""
    return panels(result, {_fields: 2, _confusion: 1, _course: 1}, width=12)


def _fields(axes: Axes, result: Result) -> None:
    """The weights as images, a row for each class, of the neurons that spiked most to the images learned from."""
    spikes = (result.known if len(result.known.label) else result.learning).spikes.sum(0)
    mosaic = np.full((CLASSES, SIDE + 1, COLUMNS, SIDE + 1), np.nan)
    for label in range(CLASSES):
        own = np.flatnonzero(result.assignment == label)
        own = own[np.argsort(-spikes[own], kind="stable")][:COLUMNS]
        mosaic[label, :SIDE, : own.size, :SIDE] = result.weight[:, own].reshape(SIDE, SIDE, -1).transpose(0, 2, 1)
    image = mosaic.reshape(CLASSES * (SIDE + 1), -1)[:-1, :-1]
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=np.quantile(result.weight, 0.99), interpolation="nearest")
    axes.set_facecolor("0.85")  # which shows between the images
    axes.set_yticks(np.arange(CLASSES) * (SIDE + 1) + (SIDE - 1) / 2, [str(label) for label in range(CLASSES)])
    axes.set(xticks=[], ylabel="class", xlabel=f"weights of up to {COLUMNS} neurons of each class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _confusion(axes: Axes, result: Result) -> None:
    counts = result.confusion
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize="x-small", color=color)
    digits = range(CLASSES)
    title = f"held out: {result.accuracy:.1%} right" if counts.any() else "held out: not reached"
    axes.set(xticks=digits, yticks=digits, xlabel="class given", ylabel="class")
    axes.set_title(title, fontsize="medium")
    axes.tick_params(length=0)


def _course(axes: Axes, result: Result) -> None:
    seen, right = result.course()
    axes.plot(seen, 100 * right, ".-", color=BLUE, linewidth=1.2, label="while learning")
    if result.confusion.any():
        axes.axhline(100 * result.accuracy, color="black", linestyle="--", linewidth=1, label="held out, in the end")
    axes.axhline(100 / CLASSES, color=GREY, linestyle=":", linewidth=1, label="by chance")
    axes.set(xlabel="images seen", ylabel="right (%)", xlim=(0, max(1, len(result.learning.label))), ylim=(0, 100))
    axes.legend(frameon=False, loc="center right")
