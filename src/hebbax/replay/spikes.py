"""Recorded spikes, read piece by piece, checked, and merged where each side has its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hebbax.replay import rows, sonata
from hebbax.replay.engine import repeated
from hebbax.replay.rows import Kind, Malformed, Rows

COLUMNS: dict[str, Kind] = {"time": "number", "neuron": "id"}
FORMATS = ("csv", "parquet", "hdf5")
LATEST = 1e15  # seconds from 0, 30 million years: float64 knows no tenths of seconds there
UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3}  # in nanoseconds, in which times are rounded: so that equal ones are equal
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".h5": "hdf5", ".hdf5": "hdf5", ".npz": "npz"}


class Spikes(NamedTuple):
    """A file of spikes."""

    path: Path
    population: str | None = None  # of a SONATA file that has several
    unit: str | None = None  # of time; None: what the format has


class Batch(NamedTuple):
    """Spikes in order; whatever happens at the time of the last one is among them."""

    time: np.ndarray  # in seconds
    neuron: np.ndarray
    side: np.ndarray


def format_of(path: Path, among: tuple[str, ...]) -> str:
    """The format that the name of a file says."""
    found = SUFFIXES.get(path.suffix.lower())
    if found not in among:
        known = rows.listed(suffix for suffix, name in SUFFIXES.items() if name in among)
        raise Malformed(f"{path}: got a name that ends in {path.suffix!r}, expected one of {known}")
    return found


def read(
    spikes: Spikes, n: int, side: int, whose: str, on_read: Callable[[float], object] = lambda _: None
) -> Iterator[Batch]:
    """Read the spikes of `n` neurons, which `whose` describes in a message; tell what part of the file was read."""
    path, kind = spikes.path, format_of(spikes.path, FORMATS)
    if kind == "hdf5":
        unit = UNITS[spikes.unit or sonata.unit_of(path, spikes.population)]
        pieces = sonata.spike_rows(path, spikes.population)
    else:
        unit = UNITS[spikes.unit or "s"]
        pieces = (rows.csv_rows if kind == "csv" else rows.parquet_rows)(path, COLUMNS)
    return _checked(pieces, unit, n, side, whose, on_read)


def _checked(
    pieces: Iterator[Rows], unit: float, n: int, side: int, whose: str, on_read: Callable[[float], object]
) -> Iterator[Batch]:
    time, neuron = np.empty(0), np.empty(0, np.int64)
    for piece in pieces:
        on_read(piece.through)
        held = time.size  # spikes at the same time, which the piece before ended with
        with np.errstate(over="ignore"):  # what is infinite then is refused below
            time = np.concatenate((time, np.rint(piece.columns[0] * unit) / 1e9))
        neuron = np.concatenate((neuron, piece.columns[1]))
        _check(time, neuron, held, n, whose, piece, unit)
        cut = int(np.searchsorted(time, time[-1])) if time.size else 0
        if cut:
            yield _batch(time[:cut], neuron[:cut], side)
        time, neuron = time[cut:], neuron[cut:]
    if time.size:
        yield _batch(time, neuron, side)


def _batch(time: np.ndarray, neuron: np.ndarray, side: int) -> Batch:
    return Batch(time, neuron, np.full(time.size, side, np.int8))


def _check(time: np.ndarray, neuron: np.ndarray, held: int, n: int, whose: str, piece: Rows, unit: float) -> None:
    """Raise for the first row that is wrong; the `held` ones have been looked at."""
    infinite, outside = ~(np.abs(time) <= LATEST), (neuron < 0) | (neuron >= n)
    back = np.zeros(time.size, bool)
    back[1:] = time[1:] < time[:-1]
    again = repeated(time, neuron) if not (infinite | back).any() else np.zeros(time.size, bool)
    wrong = infinite | outside | back | again
    if not wrong.any():
        return
    k = int(np.argmax(wrong))
    where, at = piece.place(k - held), piece.columns[0][k - held]
    if infinite[k]:
        raise Malformed(f"{where}: time: got {at}, expected a finite number, within {LATEST:g} s of 0")
    if outside[k]:
        raise Malformed(f"{where}: neuron: got {neuron[k]}, expected 0 to {n - 1}, {whose}")
    if back[k]:
        raise Malformed(
            f"{where}: time: got {at} after {time[k - 1] * 1e9 / unit:.12g}, expected spikes in the order of time"
        )
    raise Malformed(f"{where}: neuron {neuron[k]} spikes twice at time {at}, expected every spike once")


def merged(pre: Iterator[Batch], post: Iterator[Batch]) -> Iterator[Batch]:
    """The spikes of both sides in the order of time."""
    a, b = next(pre, None), next(post, None)
    while a is not None and b is not None:
        horizon = min(a.time[-1], b.time[-1])
        cuts = [int(np.searchsorted(x.time, horizon, "right")) for x in (a, b)]
        joined = [np.concatenate((x[: cuts[0]], y[: cuts[1]])) for x, y in zip(a, b, strict=True)]
        order = np.argsort(joined[0], kind="stable")
        yield Batch(*(x[order] for x in joined))
        a = Batch(*(x[cuts[0] :] for x in a)) if cuts[0] < a.time.size else next(pre, None)
        b = Batch(*(x[cuts[1] :] for x in b)) if cuts[1] < b.time.size else next(post, None)
    for first, others in ((a, pre), (b, post)):
        if first is not None:
            yield first
            yield from others
