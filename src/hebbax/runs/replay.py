"""The command `hebbax replay`."""

from __future__ import annotations

import dataclasses
import os
from contextlib import nullcontext
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import hebbax
from hebbax._terminal import INTERRUPTED, Failed, answer, table, write_figure, write_whole, wrote
from hebbax.replay import connectivity, files, report
from hebbax.replay.connectivity import Connectivity
from hebbax.replay.plans import Rule
from hebbax.replay.rows import Malformed, Missing
from hebbax.replay.spikes import Spikes
from hebbax.runs import results, running
from hebbax.runs.checkpoints import Checkpoints
from hebbax.runs.options import FileOptions, every_run
from hebbax.runs.replay_rules import RuleOptions, rule_of
from hebbax.runs.running import interruptible, keeping, set_threads


class Unit(StrEnum):
    s, ms, us = "s", "ms", "us"


OfSide = Annotated[Path | None, typer.Option(metavar="SPIKES", help="Spikes of that side, in place of SPIKES.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayOptions(FileOptions, RuleOptions):
    """Options of a replay that are not of its files."""


@every_run("replay")
def replay_command(
    connections: Annotated[
        Path,
        typer.Argument(
            metavar="CONNECTIVITY",
            help="SciPy sparse matrix (.npz; a row is a presynaptic neuron), table of pre, post and weight (.csv, "
            ".parquet), or SONATA edges (.h5).",
        ),
    ],
    spikes: Annotated[
        Path | None,
        typer.Argument(
            metavar="SPIKES", help="Table of time and neuron (.csv, .parquet) or SONATA spikes (.h5), by time."
        ),
    ] = None,
    pre: OfSide = None,
    post: OfSide = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="New weights, in the format of CONNECTIVITY.", show_default="beside it, with -replayed in its name"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    time_unit: Annotated[
        Unit | None, typer.Option(help="Of the spikes' times.", show_default="s; in SONATA files what they say, or ms")
    ] = None,
    shape: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="Presynaptic and postsynaptic neurons.", show_default="what the largest numbers of neurons say"
        ),
    ] = None,
    population: Annotated[str | None, typer.Option(help="Which edges, of a SONATA file that has several.")] = None,
    *,
    options: ReplayOptions,
) -> None:
    """Apply a rule of plasticity to your own connectivity and recorded spikes.

    Writes the new weights, in the format and order of the old ones, what was done and to what effect (HDF5), and a
    figure (PNG). Spikes are read piece by piece: their file may be larger than memory. Those of one population are
    SPIKES; of two, --pre and --post.
    """
    if (spikes is None) == (pre is None) or (pre is None) != (post is None):
        raise typer.BadParameter("expected either SPIKES, of one population, or both --pre and --post")
    if shape is not None and min(shape) < 1:
        raise typer.BadParameter(
            f"got {shape[0]} {shape[1]}, expected two numbers of at least 1", param_hint="'--shape'"
        )
    target = output or connections.with_name(f"{connections.stem}-replayed{connections.suffix}")
    picture, about = target.with_suffix(".png"), target.with_name(f"{target.stem}-results.h5")
    _check_target(target, connections, force, picture, about)
    for path in (spikes, pre, post):
        if path is not None and path.exists() and target.exists() and path.samefile(target):
            raise typer.BadParameter(f"{target} has the spikes: expected another name", param_hint="'--output'")
    set_threads(options.threads)
    console = Console(stderr=options.json)
    answer.add(command="replay", hebbax=hebbax.__version__, jax=version("jax"))
    try:
        found = connectivity.read(connections, shape, spikes is not None, population)
        rule = rule_of(options, found)
        sources = _sources(found, spikes, pre, post, time_unit.value if time_unit else None)
        with keeping(options, target.stem, console) as keeper:
            result = _replay(console, found, rule, sources, keeper)
        if not result.is_whole:
            console.print(f"interrupted: --resume goes on from {options.checkpoint}", soft_wrap=True, markup=False)
            raise typer.Exit(INTERRUPTED)
        console.print(table("replay", report.summary(result)))
        answer.add_numbers(report.numbers(result))
        lost = np.count_nonzero(~np.isfinite(result.weight))
        if lost:
            running.warn(console, f"{lost} weights have become infinite or no numbers")
        write_whole(target, lambda partial: found.write(partial, result.weight))
        wrote(console, target)
        read = {"connectivity": str(connections), "spikes": [str(x.path) for x in sources if x]}
        results.write(about, report.data(result), running.about(options, keeper) | read)
        wrote(console, about)
        write_figure(console, picture, "hebbax.replay.figure", result)
    except KeyboardInterrupt:
        console.print("interrupted: nothing was left half written")
        raise typer.Exit(INTERRUPTED) from None
    except (Malformed, Missing) as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{error.filename or target}: {error.strerror or error}") from error
    except MemoryError:
        raise Failed(f"{connections}: the synapses do not fit into memory") from None


def _check_target(target: Path, connections: Path, force: bool, *others: Path) -> None:
    if target.suffix.lower() != connections.suffix.lower():
        raise typer.BadParameter(
            f"got {str(target)!r}, expected a name that ends in {connections.suffix}, as that of CONNECTIVITY",
            param_hint="'--output'",
        )
    if not target.parent.is_dir():
        raise typer.BadParameter(
            f"got {str(target)!r}, but there is no folder {str(target.parent)!r}", param_hint="'--output'"
        )
    if not os.access(target.parent, os.W_OK):
        raise typer.BadParameter(
            f"got {str(target)!r}, but the folder {str(target.parent)!r} cannot be written to", param_hint="'--output'"
        )
    for path in (target, *others):
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder, expected the name of a file", param_hint="'--output'")
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} is there already: --force overwrites it", param_hint="'--output'")


def _sources(
    found: Connectivity, spikes: Path | None, pre: Path | None, post: Path | None, unit: str | None
) -> tuple[Spikes, Spikes | None]:
    """The files of spikes, with the population of each."""
    one, other = found.populations
    if spikes is None:
        assert pre is not None and post is not None
        return files.source(pre, one, unit), files.source(post, other, unit)
    if one == other:
        return files.source(spikes, one, unit), None
    return files.source(spikes, one, unit, must=True), files.source(spikes, other, unit, must=True)


def _replay(
    console: Console, found: Connectivity, rule: Rule, sources: tuple[Spikes, Spikes | None],
    keeper: Checkpoints | None,
) -> files.Result:  # fmt: skip
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    # A replay that is not kept has nothing to leave behind: Ctrl-C ends it at once.
    with (
        interruptible() if keeper else nullcontext(lambda: False) as interrupted,
        Progress(*columns, console=console, transient=True) as bar,
    ):
        task = bar.add_task("replaying", total=1.0, done="")

        def on_progress(spikes: int, time: float, part: float) -> bool:
            bar.update(task, completed=part, done=f"{spikes} spikes, until {time:.6g} s")
            return interrupted()

        return files.replay(found, rule, *sources, on_progress, keeper)
