"""A user's own connectivity: read from a file, and written back with other weights."""

from __future__ import annotations

import csv
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from hebbax.replay import rows, sonata
from hebbax.replay.rows import Kind, Malformed, Rows
from hebbax.replay.spikes import format_of

COLUMNS: dict[str, Kind] = {"pre": "id", "post": "id", "weight": "number"}
FLOATS = {"float": np.float32, "double": np.float64}  # of weights, as Arrow names them
MOST_NEURONS = 2**31 - 2  # on a side: what int32 can index
PLAUSIBLE = 10**6  # neurons, whatever number of synapses there is
FORMATS = ("npz", "csv", "parquet", "hdf5")


class Connectivity(NamedTuple):
    """Synapses in the order of their file."""

    path: Path
    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray  # float32 or float64
    shape: tuple[int, int]
    populations: tuple[str, str]  # of neurons, in a SONATA file; else empty
    place: Callable[[int], str]  # where a synapse stands
    write: Callable[[Path, np.ndarray], None]  # a file like this one with these weights


def read(path: Path, shape: tuple[int, int] | None, is_one_population: bool, population: str | None) -> Connectivity:
    """Read connectivity; raises `Malformed` for what is wrong with it.

    Where neither `shape` nor the file says how many neurons there are, it is as many as the largest number in it says.
    """
    kind = format_of(path, FORMATS)
    if population is not None and kind != "hdf5":
        raise Malformed(f"{path}: has no populations, of which {population!r} could be one: that is for SONATA files")
    if kind == "hdf5":
        found = _of_sonata(path, population)
    else:
        found = {"npz": _of_scipy, "csv": _of_csv, "parquet": _of_parquet}[kind](path)
    for name, ids in (("pre", found.pre), ("post", found.post)):
        _reject(found, ids < 0, name, ids, "a neuron's number, at least 0")
        _reject(found, ids >= MOST_NEURONS, name, ids, f"a neuron's number, below {MOST_NEURONS}")
    _reject(found, ~np.isfinite(found.weight), "weight", found.weight, "a finite number")
    own = found.shape if kind == "npz" else None
    if own and shape and own != shape:
        raise Malformed(f"{path}: is of shape {own}, but --shape says {shape}")
    if not (own or shape):
        counts = [int(ids.max(initial=-1)) + 1 for ids in (found.pre, found.post)]
        most = max(PLAUSIBLE, 100 * found.weight.size)  # a mistyped number would ask for gigabytes
        for name, ids in (("pre", found.pre), ("post", found.post)):
            expected = f"below {most}, for {found.weight.size} synapses, unless --shape says how many neurons there are"
            _reject(found, ids >= most, name, ids, expected)
        is_one_population = is_one_population and found.populations[0] == found.populations[1]
        shape = (max(counts), max(counts)) if is_one_population else (counts[0], counts[1])
    found = found._replace(shape=own or shape or (0, 0))
    if max(found.shape) > MOST_NEURONS:
        raise Malformed(f"{path}: got the shape {found.shape}, expected at most {MOST_NEURONS} neurons on either side")
    for name, ids, n in zip(("pre", "post"), (found.pre, found.post), found.shape, strict=True):
        _reject(found, ids >= n, name, ids, f"below {n}, the number of such neurons by --shape")
    return found


def check_bounds(found: Connectivity, low: float, high: float) -> None:
    """Raise for the first weight outside the bounds of the rule."""
    of = found.weight.dtype.type
    outside = (found.weight < of(low)) | (found.weight > of(high))
    _reject(found, outside, "weight", found.weight, f"one within the bounds of the rule, {low:g} and {high:g}")


def _reject(found: Connectivity, wrong: np.ndarray, name: str, values: np.ndarray, expected: str) -> None:
    if wrong.any():
        k = int(np.argmax(wrong))
        raise Malformed(f"{found.place(k)}: {name}: got {values[k]}, expected {expected}")


def _of_scipy(path: Path) -> Connectivity:
    try:
        matrix = scipy.sparse.load_npz(path)
    except TypeError:  # an array of numpy.save by another name is no context manager
        raise Malformed(f"{path}: is not what scipy.sparse.save_npz writes") from None
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Malformed(f"{path}: is not what scipy.sparse.save_npz writes: {error}") from None
    if matrix.format not in ("csr", "csc", "coo"):
        raise Malformed(f"{path}: is a matrix in format {matrix.format}, expected csr, csc or coo")
    if matrix.dtype not in (np.float32, np.float64):
        raise Malformed(f"{path}: has weights of dtype {matrix.dtype}, expected float32 or float64")
    try:
        if matrix.format != "coo":
            matrix.check_format()
        listed = matrix.tocoo(copy=False)
        pre, post = np.asarray(listed.row, np.int64), np.asarray(listed.col, np.int64)
    except ValueError as error:
        raise Malformed(f"{path}: {error}") from None
    for name, ids, n in (("row", pre, matrix.shape[0]), ("column", post, matrix.shape[1])):
        wrong = (ids < 0) | (ids >= n)
        if wrong.any():
            k = int(np.argmax(wrong))
            raise Malformed(f"{path}, element {k}: {name}: got {ids[k]}, expected 0 to {n - 1}")

    def write(target: Path, weight: np.ndarray) -> None:
        changed = matrix.copy()
        changed.data = weight.astype(matrix.dtype)
        with target.open("wb") as file:
            scipy.sparse.save_npz(file, changed)

    def place(k: int) -> str:
        return f"{path}, element {k} (row {pre[k]}, column {post[k]})"

    return Connectivity(path, pre, post, np.asarray(matrix.data), matrix.shape, ("", ""), place, write)


def _joined(pieces: Iterable[Rows]) -> tuple[list[np.ndarray], Callable[[int], str]]:
    """All rows of a table, and where each stands."""
    kept = list(pieces)
    columns = [
        np.concatenate([piece.columns[k] for piece in kept]) if kept else np.empty(0, rows.DTYPES[kind])
        for k, kind in enumerate(COLUMNS.values())
    ]
    ends = np.cumsum([piece.columns[0].size for piece in kept])

    def place(k: int) -> str:
        piece = int(np.searchsorted(ends, k, "right"))
        return kept[piece].place(k - int(ends[piece - 1] if piece else 0))

    return columns, place


def _of_csv(path: Path) -> Connectivity:
    (pre, post, weight), place = _joined(rows.csv_rows(path, COLUMNS))

    def write(target: Path, weight: np.ndarray) -> None:
        """Line by line, so that columns of the user's own stay as they are, whatever bytes are in them."""
        raw: Any = dict(newline="", errors="surrogateescape")
        with (
            path.open(encoding="utf-8-sig", **raw) as source,
            target.open("w", encoding="utf-8", **raw) as file,
            rows.any_field_size(),
        ):
            table, to = csv.reader(source), csv.writer(file, lineterminator="\n")
            header = next(table)
            to.writerow(header)
            at, values = [name.strip() for name in header].index("weight"), iter(weight.tolist())
            for row in table:
                if any(map(str.strip, row)):
                    row[at] = repr(next(values))
                    to.writerow(row)

    return Connectivity(path, pre, post, weight, (0, 0), ("", ""), place, write)


def _of_parquet(path: Path) -> Connectivity:
    with rows.parquet_file(path, COLUMNS) as file:
        arrow_type = str(file.schema_arrow.field("weight").type)
    if arrow_type not in FLOATS:
        raise Malformed(f"{path}: column 'weight' is of {arrow_type}, expected float32 or float64")
    dtype = FLOATS[arrow_type]
    (pre, post, weight), place = _joined(rows.parquet_rows(path, COLUMNS))

    def write(target: Path, weight: np.ndarray) -> None:
        arrow, parquet = rows.library("pyarrow", path), rows.library("pyarrow.parquet", path)
        first = 0
        with rows.parquet_file(path, COLUMNS) as source, parquet.ParquetWriter(target, source.schema_arrow) as to:
            at = source.schema_arrow.get_field_index("weight")
            for group in range(source.num_row_groups):
                table = source.read_row_group(group, use_threads=False)
                values = arrow.array(weight[first : first + table.num_rows].astype(dtype))
                to.write_table(table.set_column(at, source.schema_arrow.field(at), values))
                first += table.num_rows

    return Connectivity(path, pre, post, weight.astype(dtype), (0, 0), ("", ""), place, write)


def _of_sonata(path: Path, population: str | None) -> Connectivity:
    found = sonata.edges(path, population)

    def write(target: Path, weight: np.ndarray) -> None:
        shutil.copyfile(path, target)
        sonata.replace_weights(target, found, weight)

    def place(k: int) -> str:
        return f"{path}, {found.name}, position {k}"

    return Connectivity(path, found.pre, found.post, found.weight, (0, 0), found.populations, place, write)
