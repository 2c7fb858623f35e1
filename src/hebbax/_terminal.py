"""What commands share: checks of options, tables, and files that are never half written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


def within(low: float, high: float = math.inf) -> Callable[[float | None], float | None]:
    """The check of an option's value, which says more than typer's own."""

    def check(value: float | None) -> float | None:
        if value is None or low <= value <= high:
            return value
        expected = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
        raise typer.BadParameter(f"got {value}, expected {expected}")

    return check


def table(title: str, rows: dict[str, str]) -> Table:
    """A table of names and what they are."""
    made = Table(title=title, title_justify="left", show_header=False)
    for row in rows.items():
        made.add_row(*map(escape, row))
    return made


def write(console: Console, path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name first, so that `path` is never half a file, and say where it is."""

    def into(partial: Path) -> None:
        with partial.open("wb") as file:
            write(file)

    write_whole(path, into)
    console.print(f"wrote {path}", soft_wrap=True, highlight=False, markup=False)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, which then takes its place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
