"""Files in, weights and a result out: what the command does, for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hebbax.replay import connectivity, sonata, spikes
from hebbax.replay.connectivity import Connectivity
from hebbax.replay.engine import BOTH, POST, PRE, Replay
from hebbax.replay.plans import Rule, plan_of
from hebbax.replay.rows import Malformed
from hebbax.replay.spikes import Batch, Spikes

BINS = 128  # of the course of the spikes, and at most twice as many
PIECE = 1 << 14  # spikes after which `on_progress` is called


@dataclass
class Course:
    """How many spikes there were over time: bins from the first spike on, which widen as it goes on."""

    start: float | None = None
    width: float = 1e-3
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, 2 * BINS), np.int64))  # by side
    end: float = 0.0

    def add(self, time: np.ndarray, side: np.ndarray) -> None:
        if not time.size:
            return
        if self.start is None:
            self.start = float(time[0])
        self.end = float(time[-1])
        while self.end - self.start >= 2 * BINS * self.width:
            self.counts = np.pad(self.counts.reshape(2, BINS, 2).sum(2), ((0, 0), (0, BINS)))
            self.width *= 2
        bins = np.minimum((time - self.start) / self.width, 2 * BINS - 1).astype(np.int64)
        for k, one in enumerate((PRE, POST)):
            self.counts[k] += np.bincount(bins[(side & one) > 0], minlength=2 * BINS)

    @property
    def duration(self) -> float:
        """From the first to the last spike, in seconds."""
        return self.end - (self.start or 0.0) if self.start is not None else 0.0


@dataclass
class Result:
    """What became of the weights."""

    connectivity: Connectivity
    rule: Rule
    weight: np.ndarray
    course: Course
    is_one_population: bool
    spikes: tuple[int, int]  # presynaptic and postsynaptic
    updates: int
    wall_time: tuple[float, float]  # of reading and arranging the connectivity, and of replaying, in seconds


def replay(
    found: Connectivity,
    rule: Rule,
    pre: Spikes,
    post: Spikes | None = None,
    on_progress: Callable[[int, float], None] = lambda *_: None,
) -> Result:
    """Apply a rule to connectivity that was read, and recorded spikes.

    Parameters
    ----------
    found : Connectivity
        From `connectivity.read`.
    rule : hebbax.PairSTDP, hebbax.TripletSTDP or hebbax.PowerLawSTDP
        As `Replay` takes it.
    pre : Spikes
        The file of the presynaptic spikes, or that of the one population's.
    post : Spikes, optional
        That of the postsynaptic ones.
    on_progress : callable, optional
        Is told, now and then, how many spikes there were, and the time of the last one in seconds.

    Raises
    ------
    Malformed
        A file is not what it should be; the message names the place in it.
    """
    began = time.perf_counter()
    plan = plan_of(rule)
    connectivity.check_bounds(found, plan.low, plan.high)
    engine = Replay(rule, found.pre, found.post, found.weight, shape=found.shape)
    ready = time.perf_counter()
    course, counts = Course(), np.zeros(2, np.int64)
    for batch in _batches(found, pre, post):
        for part in _parts(batch):
            engine.advance(*part)
            course.add(part.time, part.side)
            counts += [int(((part.side & one) > 0).sum()) for one in (PRE, POST)]
            on_progress(int(counts[0] if post is None else counts.sum()), course.end)
    done = time.perf_counter()
    return Result(
        found, rule, engine.weight, course, post is None, (int(counts[0]), int(counts[1])), engine.updates,
        (ready - began, done - ready),
    )  # fmt: skip


def _batches(found: Connectivity, pre: Spikes, post: Spikes | None) -> Iterator[Batch]:
    whose = "the {}neurons of " + str(found.path)
    if post is None:
        if found.shape[0] != found.shape[1]:
            raise Malformed(
                f"{found.path}: is of shape {found.shape}, not of one population: give --pre and --post in place of "
                f"SPIKES"
            )
        return spikes.read(pre, found.shape[0], BOTH, whose.format(""))
    sides = zip((pre, post), found.shape, (PRE, POST), ("presynaptic ", "postsynaptic "), strict=True)
    return spikes.merged(*(spikes.read(file, n, side, whose.format(name)) for file, n, side, name in sides))


def _parts(batch: Batch) -> Iterator[Batch]:
    """Pieces of a batch, which end between events."""
    first = 0
    while first < batch.time.size:
        stop = min(first + PIECE, batch.time.size)
        stop = int(np.searchsorted(batch.time, batch.time[stop - 1], "right"))
        yield Batch(*(x[first:stop] for x in batch))
        first = stop


def source(path: Path, population: str, unit: str | None, must: bool = False) -> Spikes:
    """A file of spikes; of a SONATA file, those of a population that the edges name, if it has that.

    `must`: it has to, because the file is that of two populations.
    """
    if spikes.format_of(path, spikes.FORMATS) != "hdf5":
        if must:
            raise Malformed(f"{path}: the neurons are of two populations: give --pre and --post in place of SPIKES")
        return Spikes(path, None, unit)
    with sonata.opened(path) as file:
        names = sonata.populations(file, "spikes")
    return Spikes(path, population if must or population in names else None, unit)
