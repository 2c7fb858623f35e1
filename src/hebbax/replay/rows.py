"""Tables of numbers, read piece by piece, in which every row knows where it stands: CSV and Parquet."""

from __future__ import annotations

import contextlib
import csv
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

Kind = Literal["number", "id"]
DTYPES: dict[Kind, type] = {"number": np.float64, "id": np.int64}
BLOCK = 1 << 22  # bytes of a CSV file, and so memory, at a time
LINE = 1 << 20  # bytes, at most
ROWS = 1 << 18  # of a Parquet or HDF5 file at a time
MOST = 2**53  # up to which float64 has every integer


class Malformed(ValueError):
    """A file is not what it should be; the message names it, and the place in it."""


class Missing(ImportError):
    """A library is not installed; the message says what to install."""


class Rows(NamedTuple):
    """Some rows of a table, one after the other."""

    columns: tuple[np.ndarray, ...]
    place: Callable[[int], str]  # where the row of this position among these stands
    through: float = 1.0  # the part of the table that ends here


def library(name: str, path: Path) -> ModuleType:
    """Import what reads `path`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        is_absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package
        why = 'is not installed: pip install "hebbax[replay]"' if is_absent else f"cannot be imported: {error}"
        raise Missing(f"{path}: reading it takes {package}, which {why}") from error


def listed(names: Any) -> str:
    """For a message."""
    return ", ".join(map(str, names)) or "none"


def check_columns(where: str, names: list[str], wanted: Mapping[str, Kind]) -> None:
    for name in wanted:
        if names.count(name) != 1:
            got = f"column {name!r} twice" if name in names else f"columns {', '.join(names)!r}"
            raise Malformed(f"{where}: got {got}, expected a header with {listed(wanted)}, each once")


@contextlib.contextmanager
def any_field_size() -> Iterator[None]:
    """Let `csv` take fields as long as Arrow does."""
    before = csv.field_size_limit(BLOCK + LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def csv_header(file: BinaryIO, path: Path, wanted: Mapping[str, Kind]) -> list[str]:
    """The names of the columns, which the first line has."""
    line = file.readline(LINE).removeprefix(b"\xef\xbb\xbf")
    try:
        names = [name.strip() for name in next(csv.reader([line.decode()]), [])]
    except (UnicodeDecodeError, csv.Error):
        raise Malformed(f"{path}, line 1: expected UTF-8 text, a header with the columns {listed(wanted)}") from None
    check_columns(f"{path}, line 1", names, wanted)
    return names


def csv_rows(path: Path, wanted: Mapping[str, Kind]) -> Iterator[Rows]:
    """Read a CSV file with a header; columns that are not wanted are passed over."""
    arrow, arrow_csv = library("pyarrow", path), library("pyarrow.csv", path)
    size = path.stat().st_size
    with path.open("rb") as file:
        names = csv_header(file, path, wanted)
        types = {name: arrow.float64() if kind == "number" else arrow.int64() for name, kind in wanted.items()}
        convert = arrow_csv.ConvertOptions(
            column_types=types, include_columns=list(wanted), null_values=[], strings_can_be_null=False
        )
        line = 2
        while block := file.read(BLOCK):
            block += file.readline(LINE)
            lines, through = block.count(b"\n") + (not block.endswith(b"\n")), file.tell() / size
            read = arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1)
            try:
                table = arrow_csv.read_csv(arrow.BufferReader(block), read_options=read, convert_options=convert)
                is_plain = table.num_rows == lines
            except (arrow.ArrowInvalid, arrow.ArrowKeyError):
                is_plain = False
            if is_plain:
                columns = tuple(column.to_numpy() for column in table.columns)
                yield Rows(columns, lambda k, first=line: f"{path}, line {first + k}", through)  # type: ignore[misc]
            else:  # empty lines, whole numbers with a point, or a mistake: what it is takes a closer look
                with any_field_size():
                    told = _line_by_line(block, path, line, names, wanted)
                yield told._replace(through=through)
            line += lines


def _line_by_line(block: bytes, path: Path, first: int, names: list[str], wanted: Mapping[str, Kind]) -> Rows:
    places = [names.index(name) for name in wanted]
    columns: list[list] = [[] for _ in wanted]
    lines = []
    for number, raw in enumerate(block.split(b"\n"), first):
        if not raw.strip():
            continue
        where = f"{path}, line {number}"
        try:
            (fields,) = csv.reader([raw.decode().rstrip("\r")], strict=True)
        except (UnicodeDecodeError, ValueError, csv.Error):
            raise Malformed(f"{where}: expected a row of UTF-8 text, with no line break in it") from None
        if len(fields) != len(names):
            raise Malformed(f"{where}: got {len(fields)} columns, expected {len(names)} as in the header")
        for (name, kind), column, place in zip(wanted.items(), columns, places, strict=True):
            column.append(_number(where, name, kind, fields[place]))
        lines.append(number)
    arrays: tuple[np.ndarray, ...] = tuple(
        np.array(x, DTYPES[kind]) for x, kind in zip(columns, wanted.values(), strict=True)
    )
    return Rows(arrays, lambda k: f"{path}, line {lines[k]}")


def _number(where: str, name: str, kind: Kind, text: str) -> float | int:
    try:
        if "_" in text:  # which Python takes
            raise ValueError
        if kind == "number":
            return float(text)
        try:
            value = int(text)
        except ValueError:
            value = int(float(text))
            if value != float(text):
                raise
        if not -(2**63) <= value < 2**63:
            raise OverflowError
        return value
    except (ValueError, OverflowError):
        expected = "a number" if kind == "number" else "a whole number below 2^63"
        raise Malformed(f"{where}: {name}: got {text.strip()!r}, expected {expected}") from None


def parquet_file(path: Path, wanted: Mapping[str, Kind]) -> Any:
    """Open a Parquet file that has these columns."""
    arrow, parquet = library("pyarrow", path), library("pyarrow.parquet", path)
    with path.open("rb"):  # raises better than Arrow, where it cannot be read at all
        pass
    try:
        file = parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError):
        raise Malformed(f"{path}: is not a Parquet file, or only a part of one") from None
    check_columns(str(path), file.schema_arrow.names, wanted)
    for name, kind in wanted.items():
        of = file.schema_arrow.field(name).type
        if not (arrow.types.is_integer(of) or arrow.types.is_floating(of)):
            expected = "numbers" if kind == "number" else "integers"
            raise Malformed(f"{path}: column {name!r} has the type {of}, expected {expected}")
    return file


def parquet_rows(path: Path, wanted: Mapping[str, Kind]) -> Iterator[Rows]:
    """Read a Parquet file; columns that are not wanted are passed over."""
    arrow = library("pyarrow", path)
    with parquet_file(path, wanted) as file:
        groups = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
        ends, first = np.cumsum(groups), 0

        def place(k: int) -> str:
            group = int(np.searchsorted(ends, k, "right"))
            return f"{path}, row {k} of all (row group {group}, both counted from 0)"

        batches = file.iter_batches(batch_size=ROWS, columns=list(wanted), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (arrow.ArrowException, OSError) as error:
                raise Malformed(f"{place(first)}: cannot be read from here on: {error}") from None
            if batch is None:
                return
            rows = Rows((), lambda k, first=first: place(first + k))  # type: ignore[misc]
            columns = []
            for name, kind in wanted.items():
                column = batch.column(name)
                if column.null_count:
                    k = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                    raise Malformed(f"{rows.place(k)}: {name}: is missing, expected a number")
                columns.append(as_kind(column.to_numpy(zero_copy_only=False), name, kind, rows.place))
            yield rows._replace(columns=tuple(columns), through=(first + batch.num_rows) / max(1, sum(groups)))
            first += batch.num_rows


def as_kind(values: np.ndarray, name: str, kind: Kind, place: Callable[[int], str]) -> np.ndarray:
    """Numbers of any dtype, as `DTYPES` has it; raises for those that are none of this kind."""
    if kind == "id" and values.dtype.kind == "f":
        wrong = ~((np.abs(values) <= MOST) & (values == np.trunc(values)))
    elif kind == "id" and values.dtype == np.uint64:
        wrong = values > np.uint64(np.iinfo(np.int64).max)
    else:
        return values.astype(DTYPES[kind], copy=False)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise Malformed(f"{place(k)}: {name}: got {values[k]}, expected a whole number below 2^63")
    return values.astype(DTYPES[kind])
