"""Files in, weights and a result out: what the command does, for programs."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hebbax.experiments.keeping import Journal, Keeper, described
from hebbax.replay import connectivity, sonata, spikes
from hebbax.replay.connectivity import Connectivity
from hebbax.replay.engine import BOTH, POST, PRE, Replay
from hebbax.replay.plans import Rule, plan_of
from hebbax.replay.rows import Malformed
from hebbax.replay.spikes import Batch, Spikes

BINS = 128  # of the course of the spikes, and at most twice as many
PIECE = 1 << 14  # spikes after which `on_progress` is called
ENDS = 1 << 20  # bytes of either end and of the middle of a file, by which it is told from others


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

    def state(self) -> dict[str, Any]:
        """All of it, for `restored`."""
        start = np.nan if self.start is None else self.start
        return {"course_start": start, "width": self.width, "course": self.counts, "end": self.end}

    @classmethod
    def restored(cls, state: Mapping[str, np.ndarray]) -> Course:
        """As it was when it had this state."""
        start, width, end = (float(state[name]) for name in ("course_start", "width", "end"))
        return cls(None if np.isnan(start) else start, width, state["course"], end)

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
    is_whole: bool = True  # not stopped before the last spike


def replay(
    found: Connectivity,
    rule: Rule,
    pre: Spikes,
    post: Spikes | None = None,
    on_progress: Callable[[int, float, float], object] = lambda *_: None,
    keeper: Keeper | None = None,
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
        Is told, now and then, how many spikes there were, the time of the last one in seconds, and the part of the
        files that was read. If what it returns is true, the replay ends there.
    keeper : Keeper, optional
        What keeps the replay, and has what there was of it (see `hebbax.experiments.keeping`).

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

    def kept() -> dict[str, Any]:
        return engine.state() | course.state() | {"counts": counts}

    journal = Journal(keeper, _about(found, rule, pre, post) if keeper else {})
    if journal.kept:
        state = journal.kept.state
        engine.restore(state)
        course, counts = Course.restored(state), state["counts"]
    journal.begin()
    done, stop, through = journal.steps, False, [0.0] * (1 if post is None else 2)
    for part in _after(done, _batches(found, pre, post, through)):
        if not done:
            journal.save(0, kept)  # where no file was malformed from the beginning
        engine.advance(*part)
        course.add(part.time, part.side)
        counts += [int(((part.side & one) > 0).sum()) for one in (PRE, POST)]
        done += part.time.size
        stop = bool(on_progress(done, course.end, min(through)))
        if stop or journal.due():
            journal.save(done, kept)
        if stop:
            break
    else:
        journal.save(done, kept)
    return Result(
        found, rule, engine.weight, course, post is None, (int(counts[0]), int(counts[1])), engine.updates,
        (ready - began, journal.wall_time), not stop,
    )  # fmt: skip


def _about(found: Connectivity, rule: Rule, pre: Spikes, post: Spikes | None) -> dict[str, Any]:
    """What makes a replay what it is."""
    digest = hashlib.sha256()
    for x in (found.pre, found.post, found.weight):
        digest.update(np.ascontiguousarray(x).data)
    synapses = f"{found.weight.size} in {found.path.name}, SHA-256 {digest.hexdigest()}"
    sources = {"spikes": pre} if post is None else {"pre": pre, "post": post}
    return described("replay", rule, rule=type(rule).__name__, synapses=synapses, shape=found.shape) | {
        name: f"{x.path.name}, {_content_of(x.path)}, population {x.population}, in {x.unit}"
        for name, x in sources.items()
    }


def _content_of(path: Path) -> str:
    """What tells a file from others, without reading all of a large one."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256()
        for place in sorted({0, max(0, size // 2), max(0, size - ENDS)}):
            file.seek(place)
            digest.update(file.read(ENDS))
    return f"{size} bytes, SHA-256 of its ends and middle {digest.hexdigest()}"


def _after(done: int, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The parts of the batches after so many spikes, which a part ended with."""
    for batch in batches:
        before = min(done, batch.time.size)
        done -= before
        yield from _parts(Batch(*(x[before:] for x in batch)))


def _batches(found: Connectivity, pre: Spikes, post: Spikes | None, through: list[float]) -> Iterator[Batch]:
    """All spikes in order; `through` is what was read of each file."""
    told = [functools.partial(through.__setitem__, k) for k in range(len(through))]
    whose = "the {}neurons of " + str(found.path)
    if post is None:
        if found.shape[0] != found.shape[1]:
            raise Malformed(
                f"{found.path}: is of shape {found.shape}, not of one population: give --pre and --post in place of "
                f"SPIKES"
            )
        return spikes.read(pre, found.shape[0], BOTH, whose.format(""), told[0])
    sides = zip((pre, post), found.shape, (PRE, POST), ("presynaptic ", "postsynaptic "), told, strict=True)
    return spikes.merged(*(spikes.read(file, n, side, whose.format(name), tell) for file, n, side, name, tell in sides))


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
