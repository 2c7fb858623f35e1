"""SONATA's HDF5 files of edges and of spikes: github.com/AllenInstitute/sonata, docs/SONATA_DEVELOPER_GUIDE.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hebbax.replay.rows import ROWS, Malformed, Rows, as_kind, library, listed

UNITS = {"milliseconds": "ms", "ms": "ms", "seconds": "s", "s": "s"}


def opened(path: Path) -> Any:
    """The file, for reading."""
    h5py = library("h5py", path)
    with path.open("rb"):  # raises better than h5py, where it cannot be read at all
        pass
    try:
        return h5py.File(path, "r")
    except OSError:
        raise Malformed(f"{path}: is not an HDF5 file, or only a part of one") from None


def populations(file: Any, kind: str) -> list[str]:
    """The names of those in `/edges` or `/spikes`."""
    group = file.get(kind)
    return [] if not hasattr(group, "keys") else [name for name, x in group.items() if hasattr(x, "keys")]


def population(file: Any, path: Path, kind: str, wanted: str | None) -> Any:
    """The group of a population: the wanted one, or the only one."""
    names = populations(file, kind)
    if not names:
        raise Malformed(f"{path}: has no group /{kind}/<population>, expected a SONATA file of {kind}")
    if wanted is None and len(names) > 1:
        raise Malformed(f"{path}: has several populations, {listed(names)}: name one of them")
    if wanted is not None and wanted not in names:
        raise Malformed(f"{path}: has no population {wanted!r} in /{kind}, only {listed(names)}")
    return file[kind][wanted or names[0]]


def column(group: Any, path: Path, name: str, kinds: str, length: int | None = None) -> Any:
    """A dataset of one dimension, of one of NumPy's kinds of dtypes."""
    data = group.get(name)
    where = f"{path}, {group.name}/{name}"
    if data is None:
        raise Malformed(f"{where}: is missing; the group has {listed(group)}")
    if getattr(data, "ndim", None) != 1 or data.dtype.kind not in kinds:
        expected = {"f": "floating-point numbers", "iu": "integers"}.get(kinds, "numbers")
        raise Malformed(f"{where}: expected a dataset of one dimension, of {expected}")
    if length is not None and data.shape != (length,):
        raise Malformed(f"{where}: has {data.shape[0]} entries, expected {length}, as the datasets beside it have")
    return data


def unit_of(path: Path, wanted: str | None) -> str:
    """The unit of the timestamps, "s" or "ms": milliseconds, unless the file says otherwise."""
    with opened(path) as file:
        data = column(population(file, path, "spikes", wanted), path, "timestamps", "fiu")
        unit = data.attrs.get("units", "milliseconds")
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
        if unit not in UNITS:
            raise Malformed(f"{path}, {data.name}: has the unit {unit!r}, expected one of {listed(UNITS)}")
        return UNITS[unit]


def spike_rows(path: Path, wanted: str | None) -> Iterator[Rows]:
    """Read the spikes of a population: time and neuron, as they stand."""
    with opened(path) as file:
        group = population(file, path, "spikes", wanted)
        time = column(group, path, "timestamps", "fiu")
        neuron = column(group, path, "node_ids", "iu", time.shape[0])
        for first in range(0, time.shape[0], ROWS):

            def place(k: int, first: int = first) -> str:
                return f"{path}, {group.name}, position {first + k}"

            part = slice(first, first + ROWS)
            try:
                columns = time[part].astype(np.float64), as_kind(neuron[part], "node_ids", "id", place)
            except OSError as error:
                raise Malformed(f"{place(0)}: cannot be read from here on: {error}") from None
            yield Rows(columns, place, min(1.0, part.stop / time.shape[0]))


class Edges(NamedTuple):
    """Synapses of a population, and where their weights are."""

    name: str
    populations: tuple[str, str]  # of the presynaptic and of the postsynaptic neurons
    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    groups: list[tuple[str, np.ndarray, np.ndarray]]  # dataset, which synapses of all, and where in it they are


def edges(path: Path, wanted: str | None) -> Edges:
    """Read a file of edges."""
    try:
        return _edges(path, wanted)
    except OSError as error:
        if error.filename:
            raise
        raise Malformed(f"{path}: cannot be read: {error}") from None


def _edges(path: Path, wanted: str | None) -> Edges:
    with opened(path) as file:
        group = population(file, path, "edges", wanted)
        sources = column(group, path, "source_node_id", "iu")
        nse = sources.shape[0]
        targets = column(group, path, "target_node_id", "iu", nse)

        def place(k: int) -> str:
            return f"{path}, {group.name}, position {k}"

        pre, post = (as_kind(x[:], x.name.rpartition("/")[2], "id", place) for x in (sources, targets))
        names = tuple(str(_text(x.attrs.get("node_population", ""))) for x in (sources, targets))
        ids = np.zeros(nse, np.int64)
        index = np.arange(nse)
        if "edge_group_id" in group:
            ids = column(group, path, "edge_group_id", "iu", nse)[:].astype(np.int64)
            index = column(group, path, "edge_group_index", "iu", nse)[:].astype(np.int64)
        parts, dtypes = [], []
        for number in np.unique(ids):
            own = np.flatnonzero(ids == number)
            if not hasattr(group.get(str(number)), "keys"):
                raise Malformed(f"{place(own[0])}: edge_group_id: got {number}, but {group.name}/{number} is missing")
            if "syn_weight" not in group[str(number)]:
                raise Malformed(
                    f"{path}, {group.name}/{number}: has no syn_weight, expected one weight for each edge "
                    f"(those of an edge type, in a CSV file beside it, are not read)"
                )
            data = column(group[str(number)], path, "syn_weight", "f")
            outside = (index[own] < 0) | (index[own] >= data.shape[0])
            if outside.any():
                k = own[np.argmax(outside)]
                raise Malformed(
                    f"{place(k)}: edge_group_index: got {index[k]}, expected below {data.shape[0]}, its size"
                )
            if np.unique(index[own]).size < own.size:
                raise Malformed(f"{path}, {group.name}: several edges have the same edge_group_index in group {number}")
            parts.append((data.name, own, index[own], data[:]))
            dtypes.append(data.dtype)
        weight = np.zeros(nse, np.result_type(np.float32, *dtypes))
        for _, own, at, values in parts:
            weight[own] = values[at]
        return Edges(group.name, (names[0], names[1]), pre, post, weight, [x[:3] for x in parts])


def _text(x: Any) -> str:
    return x.decode() if isinstance(x, bytes) else x


def replace_weights(path: Path, found: Edges, weight: np.ndarray) -> None:
    """Write weights into a file, a copy of the one that `found` is from."""
    h5py = library("h5py", path)
    with h5py.File(path, "r+") as file:
        for name, own, at in found.groups:
            values = file[name][:]
            values[at] = weight[own]
            file[name][...] = values
