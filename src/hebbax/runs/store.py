"""HDF5 files that are whole or not there, and say so.

Before the HDF5 data, which any reader of HDF5 finds by itself, there are 512 bytes of text: what the file is, the
version of its format, how many bytes follow, and their SHA-256. So a file that was cut short or changed by a single bit
is known to be so before anything in it is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from hebbax._terminal import write_whole

HEADER = 512  # bytes: the smallest user block of HDF5
MAGIC = b"hebbax "


class Damaged(ValueError):
    """A file is not what it should be; the message names it, and what is wrong."""


def write(path: Path, kind: str, version: int, fill: Callable[[Any], object]) -> str:
    """Let `fill` write an `h5py.File`, and put that on the disk under this name, whole; return its SHA-256.

    It is made in memory, because HDF5 does not get over a disk that is full. Raises an OSError that names `path`; what
    was there under that name is still there then.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=HEADER) as file:
        fill(file)
    content = memoryview(image.getvalue())[HEADER:]
    digest = hashlib.sha256(content).hexdigest()

    def put(partial: Path) -> None:
        with partial.open("wb") as target:
            target.write(_header(kind, version, len(content), digest))
            target.write(content)
            target.flush()
            os.fsync(target.fileno())

    write_whole(path, put)
    _sync(path.parent)
    return digest


def read(path: Path, kind: str, version: int) -> tuple[bytes, str]:
    """The HDF5 data of a file, and their SHA-256; raises `Damaged` if it is not whole, or something else."""
    with path.open("rb") as file:
        size, digest = _expected(path, file, kind, version)
        content = file.read()
    if len(content) != size:
        raise Damaged(f"{path}: has {HEADER + len(content)} bytes, expected {HEADER + size}: it is not whole")
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(f"{path}: its content has changed since it was written (another SHA-256 than it says)")
    return content, digest


def contents(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the attributes that `fill_with` wrote."""
    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = {json.loads(x.attrs["name"]): x[()] for x in file.values()}
        return {name: np.asarray(x) for name, x in arrays.items()}, json.loads(file.attrs["about"])


def fill_with(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Callable[[Any], None]:
    """What writes arrays of numbers, by any names, and what JSON can hold."""

    def fill(file: Any) -> None:
        file.attrs["about"] = json.dumps(about)
        for k, (name, x) in enumerate(arrays.items()):
            file.create_dataset(f"{k:03}", data=x).attrs["name"] = json.dumps(name)

    return fill


def _header(kind: str, version: int, size: int, digest: str) -> bytes:
    text = MAGIC + f"{kind}, format {version}\n{size} bytes\nSHA-256 {digest}\n".encode()
    return text.ljust(HEADER, b" ")


def _expected(path: Path, file: BinaryIO, kind: str, version: int) -> tuple[int, str]:
    """Size and SHA-256 of what follows the header."""
    header = file.read(HEADER)
    if len(header) < HEADER:
        raise Damaged(f"{path}: has {len(header)} bytes, expected more than {HEADER}: it is not whole")
    lines = header.decode("latin-1").split("\n")
    found, _, format_of = lines[0].removeprefix(MAGIC.decode()).partition(", format ")
    if not lines[0].startswith(MAGIC.decode()) or found != kind or not format_of.isdecimal():
        raise Damaged(f"{path}: is not a {kind} of hebbax")
    try:
        size, digest = int(lines[1].removesuffix(" bytes")), lines[2].removeprefix("SHA-256 ")
        is_whole = header == _header(kind, int(format_of), size, digest)
    except (ValueError, IndexError):
        is_whole = False
    if not is_whole:
        raise Damaged(f"{path}: its first {HEADER} bytes have changed since it was written")
    if int(format_of) != version:
        raise Damaged(f"{path}: is of version {format_of} of the format, and this hebbax reads version {version}")
    return size, digest


def _sync(folder: Path) -> None:
    """Let the disk know the folder's new entry, without which a whole file could be lost with the power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
