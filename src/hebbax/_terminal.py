"""What commands share: checks of options, tables, and files that are never half written."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

DONE, FAILED, INTERRUPTED = 0, 1, 130  # exit statuses, beside typer's own: 2 for wrong usage


class Failed(Exception):
    """A run or a file that failed, said in a line: what, and where."""


class Answer:
    """What a command comes to, for machines: `--json` prints it, once, when the command has ended."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin."""
        self.content: dict[str, Any] = {}
        self.muted = False  # in all processes of a run but the first

    def add(self, **content: Any) -> None:
        """Say more."""
        self.content |= content

    def add_numbers(self, numbers: Mapping[str, tuple[Any, str]]) -> None:
        """Say the numbers that sum a run up, with their units."""
        self.add(results={name: {"value": value, "unit": unit} for name, (value, unit) in numbers.items()})


answer = Answer()  # of this process's command


class Program(TyperGroup):
    """The commands of a program: how they end, and with `--json` the one object that they print on stdout."""

    def main(  # type: ignore[override]
        self, args: Any = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run a command; with `standalone_mode`, as a program does, exit with its status."""
        args = sys.argv[1:] if args is None else list(args)
        answer.clear()
        if not standalone_mode or "--json" not in args or "--help" in args:
            try:
                return super().main(args, standalone_mode=standalone_mode, **extra)
            except Failed as error:
                _say(error)
                sys.exit(FAILED)
        try:
            status = super().main(args, standalone_mode=False, **extra) or DONE
        except Failed as error:
            status = FAILED
            _refuse(error, str(error))
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            if isinstance(error, USAGE):
                status = error.exit_code
                _refuse(error, error.format_message())
            else:  # a fault of ours: with its traceback
                answer.add(error=f"{type(error).__name__}: {error}")
                _print(FAILED)
                raise
        _print(status)
        sys.exit(status)


USAGE: Any = typer.BadParameter.__mro__[2]  # click's ClickException, which typer has a copy of or not


def _refuse(error: Exception, message: str) -> None:
    answer.add(error=message)
    _say(message)


def _say(message: object) -> None:
    Console(stderr=True).print(f"error: {message}", soft_wrap=True, highlight=False, markup=False)


def _print(status: int) -> None:
    if not answer.muted:
        word = {DONE: "done", INTERRUPTED: "interrupted"}.get(status, "failed")
        print(json.dumps(plain({"status": word, "exit_status": status} | answer.content), allow_nan=False), flush=True)


def plain(value: Any) -> Any:
    """The same in what JSON has: None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def within(low: float, high: float = math.inf) -> Callable[[float | None], float | None]:
    """The check of an option's value, which says more than typer's own."""

    def check(value: float | None) -> float | None:
        if value is None or low <= value <= high:
            return value
        ends = [f"{x}" if isinstance(x, int) else f"{x:g}" for x in (low, high)]
        expected = f"from {ends[0]} to {ends[1]}" if high < math.inf else f"at least {ends[0]}"
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
    wrote(console, path)


def write_figure(console: Console, path: Path, module: str, *drawn: Any) -> None:
    """Write what the function `figure` of a module draws of these, as PNG; without matplotlib, say so."""
    try:
        draw = importlib.import_module(module).figure
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        console.print('no figure: it takes matplotlib, pip install "hebbax[plot]"', soft_wrap=True, markup=False)
    else:
        write(console, path, lambda file: draw(*drawn).savefig(file, format="png"))


def wrote(console: Console, path: Path) -> None:
    """Say that a file was written."""
    answer.add(files=[*answer.content.get("files", ()), path])
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
