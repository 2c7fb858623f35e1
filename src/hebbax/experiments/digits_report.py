"""What a run of `digits` comes down to: its summary, and its arrays."""

from __future__ import annotations

import math

import brainunit as u
import numpy as np

from hebbax.experiments.digits import CLASSES, Result, classify
from hebbax.experiments.parameters import Array, Data, Numbers


def numbers(result: Result) -> Numbers:
    """Return the numbers that sum a run up, with their units."""
    r, tested = result, len(result.held_out.label)
    found: Numbers = {
        "learning_images": (len(r.learning.label), "1"),
        "known_images": (len(r.known.label), "1"),
        "held_out_images": (tested, "1"),
        "neurons": (r.assignment.size, "1"),
        "assigned_neurons": (int((r.assignment >= 0).sum()), "1"),
        "spikes_learning": (_spikes(r.learning.spikes), "1"),  # by an image
        "spikes_held_out": (_spikes(r.held_out.spikes), "1"),
    }
    if tested:
        counts = r.confusion.sum(1)
        by_class = np.where(counts, np.diag(r.confusion) / np.maximum(counts, 1), 1.0)
        found |= {
            "accuracy": (r.accuracy, "1"),
            "correct": (int(np.trace(r.confusion)), "1"),
            "accuracy_known": ((classify(r.assignment, r.known.spikes) == r.known.label).mean(), "1"),
            "worst_class": (int(by_class.argmin()), "1"),
            "accuracy_worst_class": (by_class.min(), "1"),
        }
    return found | {
        "biological_time": (r.steps * (r.parameters.time_step / u.second), "s"),
        "steps": (r.steps, "1"),
        "wall_time": (r.wall_time / u.second, "s"),
    }


def summary(result: Result) -> dict[str, str]:
    """Return the figures that sum a run up, by name."""
    n = {name: value for name, (value, _) in numbers(result).items()}
    learned, known, tested = n["learning_images"], n["known_images"], n["held_out_images"]
    spikes = ["none" if math.isnan(n[x]) else f"{n[x]:.1f}" for x in ("spikes_learning", "spikes_held_out")]
    rows = {
        "images": f"{learned} shown to learn, {known} to assign classes, {tested} held out",
        "neurons": f"{n['neurons']}, {n['assigned_neurons']} of them assigned",
        "spikes per image": f"{spikes[0]} while learning, {spikes[1]} held out",
    }
    if tested:
        rows |= {
            "accuracy, held out": f"{n['accuracy']:.1%}, {n['correct']} of {tested}",
            "accuracy, learned from": f"{n['accuracy_known']:.1%}",
            "worst class": f"{n['worst_class']}, {n['accuracy_worst_class']:.1%}",
        }
    return rows | {
        "biological time": f"{n['biological_time']:.6g} s in {n['steps']} steps",
        "wall-clock time": f"{n['wall_time']:.1f} s, compilation included",
    }


def _spikes(spikes: np.ndarray) -> float:
    return spikes.sum(1).mean() if len(spikes) else math.nan


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
