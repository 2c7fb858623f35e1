"""What a run of `digits` comes down to: its summary, and its arrays."""

from __future__ import annotations

import brainunit as u
import numpy as np

from hebbax.experiments.digits import CLASSES, Result, classify
from hebbax.experiments.parameters import Array, Data


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name."""
    r, tested = result, len(result.held_out.label)
    seconds = r.wall_time / u.second
    rows = {
        "images": f"{len(r.learning.label)} shown to learn, {len(r.known.label)} to assign classes, {tested} held out",
        "neurons": f"{r.assignment.size}, {int((r.assignment >= 0).sum())} of them assigned",
        "spikes per image": f"{_spikes(r.learning.spikes)} while learning, {_spikes(r.held_out.spikes)} held out",
    }
    if tested:
        counts = r.confusion.sum(1)
        by_class = np.where(counts, np.diag(r.confusion) / np.maximum(counts, 1), 1.0)
        worst = int(by_class.argmin())
        rows |= {
            "accuracy, held out": f"{r.accuracy:.1%}, {int(np.trace(r.confusion))} of {tested}",
            "accuracy, learned from": f"{(classify(r.assignment, r.known.spikes) == r.known.label).mean():.1%}",
            "worst class": f"{worst}, {by_class[worst]:.1%}",
        }
    return rows | {
        "biological time": f"{r.steps * (r.parameters.time_step / u.second):.6g} s in {r.steps} steps",
        "wall-clock time": f"{seconds:.1f} s, compilation included",
    }


def _spikes(spikes: np.ndarray) -> str:
    return f"{spikes.sum(1).mean():.1f}" if len(spikes) else "none"


def data(result: Result) -> Data:
    """Return the run's arrays, with their units and axes, and what it was."""
    seen, course = result.course()
    of_held_out = f"held-out images, by class and by given class, {CLASSES} each"
    of_course = "of the images before each of these, by the classes of those before them"
    named = {
        "weight": Array(result.weight, "leak conductances", "by pixel and neuron", ("pixel", "neuron")),
        "theta_mv": Array(result.theta / u.mV, "mV", "by neuron", ("neuron",)),
        "assignment": Array(result.assignment, meaning="class of every neuron, -1: none", dims=("neuron",)),
        "confusion": Array(result.confusion, meaning=of_held_out, dims=("class", "given_class")),
        "course_images": Array(seen, meaning="images seen while learning", dims=("course_images",)),
        "course_accuracy": Array(course, meaning=of_course, dims=("course_images",)),
    }
    for name in ("learning", "known", "held_out"):
        answers, image = getattr(result, name), f"{name}_image"
        named[f"{name}_label"] = Array(answers.label, meaning="class of every image shown", dims=(image,))
        named[f"{name}_spikes"] = Array(answers.spikes, meaning="by image and neuron", dims=(image, "neuron"))
    about = dict(
        experiment="Diehl & Cook (2015), doi:10.3389/fncom.2015.00099", seed=result.seed, steps=result.steps,
        accuracy=result.accuracy, wall_time_s=result.wall_time / u.second,
    )  # fmt: skip
    return Data(named, result.parameters, about)


def arrays(result: Result) -> dict[str, np.ndarray]:
    """Return the run as plain arrays, for `numpy.savez`; `metadata`, JSON, has parameters and the arrays' units."""
    return data(result).for_numpy()
