"""What the commands of `hebbax simulate` share: a run with its progress, its summary and its files."""

from __future__ import annotations

import functools
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import typer
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import hebbax
from hebbax._terminal import INTERRUPTED, Failed, answer, table, write, write_figure, wrote
from hebbax.experiments.keeping import Refused
from hebbax.experiments.parameters import as_text, stated_constants
from hebbax.runs import results
from hebbax.runs.checkpoints import Checkpoints
from hebbax.runs.options import FileOptions, Format, RunOptions
from hebbax.runs.store import Damaged


def run(
    experiment: ModuleType, output: Path, duration: float, steps: int, options: RunOptions, *, report: ModuleType,
    figure: str, **arguments: Any,
) -> None:  # fmt: skip
    """Simulate an experiment; the first process prints what `report` says, and writes its arrays and its figure.

    `duration` is the biological time in seconds, and `steps` the number of time steps, that it is to come to;
    `arguments` are those of the experiment's `simulate`.
    """
    check_backend(options.backend)
    set_threads(options.threads)
    first = jax.process_index() == 0
    console, name = Console(quiet=not first, stderr=options.json), experiment.__name__.rpartition(".")[2]
    answer.muted = not first
    answer.add(command=f"simulate {name}", hebbax=hebbax.__version__, jax=version("jax"))
    answer.add(parameters=stated_constants(arguments["parameters"]))
    answer.add(**{key: value for key, value in arguments.items() if key not in ("parameters", "mesh")})
    writable(output)

    with keeping(options, name, console) as keeper:
        with progress(console, duration) as on_progress, constants_may_be_wrong(options):
            result = experiment.simulate(backend=options.backend, on_progress=on_progress, keeper=keeper, **arguments)
        if first:
            try:
                formats = options.format or [Format.hdf5]
                _report(console, report, figure, result, output / name, formats, about(options, keeper))
            except OSError as error:
                raise Failed(f"{error.filename}: {error.strerror or error}{_how_to_go_on(keeper)}") from error
        if result.steps < steps:  # perhaps because of a Ctrl-C in another process
            console.print(f"interrupted: this is what was computed until then{_how_to_go_on(keeper)}")
            raise typer.Exit(INTERRUPTED)


@contextmanager
def keeping(options: FileOptions, name: str, console: Console) -> Iterator[Checkpoints | None]:
    """Yield what keeps a run, if it is to be kept, and say at the end whether it was."""
    keeper, stopped = None, None
    if options.resume and options.checkpoint is None:
        raise typer.BadParameter(
            "expected --checkpoint FOLDER too, which has what to go on from", param_hint="'--resume'"
        )
    try:
        if options.checkpoint is not None:
            told = functools.partial(warn, console)
            keeper = Checkpoints(options.checkpoint, name, every=options.every, resume=options.resume, warn=told)
        yield keeper
    except typer.Exit as error:
        stopped = error
    except Refused as error:
        raise typer.BadParameter(str(error), param_hint="'--checkpoint'") from error
    except Damaged as error:
        raise Failed(str(error)) from error
    finally:
        if keeper:
            keeper.close()
    if keeper and keeper.failed:
        raise Failed(keeper.failed) from stopped
    if stopped:
        raise stopped


def warn(console: Console, message: str) -> None:
    """Print a warning, which is in the answer of `--json` too."""
    answer.add(warnings=[*answer.content.get("warnings", ()), message])
    console.print("warning:", message, soft_wrap=True, highlight=False, markup=False)


def about(options: FileOptions, keeper: Checkpoints | None) -> dict[str, Any]:
    """What ran, by which configuration, and in which sessions, if it went on from a checkpoint."""
    sessions = {"sessions": keeper.sessions} if keeper and len(keeper.sessions) > 1 else {}
    return results.provenance() | {"configuration": options.configuration} | sessions


def _how_to_go_on(keeper: Checkpoints | None) -> str:
    return f"; --resume goes on from {keeper.folder}" if keeper and not keeper.failed else ""


@contextmanager
def constants_may_be_wrong(options: RunOptions) -> Iterator[None]:
    """Where constants were changed, what the model says of them is an error of the user's, and not one of ours."""
    try:
        yield
    except (Refused, Damaged):
        raise
    except (ArithmeticError, ValueError) as error:
        if not options.changed:
            raise
        stated = ", ".join(f"{name} = {as_text(value)}" for name, value in options.changed.items())
        raise Failed(f"the model refuses its constants ({stated}): {error}") from error


def _report(
    console: Console, report: ModuleType, figure: str, result: Any, stem: Path, formats: Sequence[Format],
    said: Mapping[str, Any],
) -> None:  # fmt: skip
    """Print the summary of a result, and write its arrays and its figure."""
    console.print(table(stem.name, report.summary(result)))
    answer.add_numbers(report.numbers(result))
    if Format.hdf5 in formats:
        path = stem.with_name(f"{stem.name}.h5")
        results.write(path, report.data(result), said)
        wrote(console, path)
    if Format.npz in formats:
        arrays = report.arrays(result)
        write(console, stem.with_name(f"{stem.name}.npz"), lambda file: np.savez_compressed(file, **arrays))
    write_figure(console, stem.with_name(f"{stem.name}.png"), figure, result)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C was pressed. The first one is only noted; a second one ends the program."""
    interrupted = threading.Event()

    def interrupt(*_: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress(console: Console, seconds: float) -> Iterator[Callable[[float], bool]]:
    """Show a progress bar; yield what `simulate` calls as `on_progress`, which says whether Ctrl-C was pressed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.6g} of {task.total:g} s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with interruptible() as interrupted, Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=seconds)

        def on_progress(done: float) -> bool:
            bar.update(task, completed=done, description="simulating")
            return interrupted()

        yield on_progress


def mesh_of(devices: int, distributed: bool) -> Mesh:
    """So many devices of each process. JAX must not have been used before: only then can it be told what to start."""
    if devices > 1:
        with suppress(RuntimeError):  # it has been: what there is is counted below
            jax.config.update("jax_num_cpu_devices", devices)
    if distributed:
        try:
            jax.distributed.initialize()
        except (KeyError, RuntimeError, ValueError) as error:
            message = f"got no processes to join ({error}), expected to be started by srun, mpirun or the like"
            raise typer.BadParameter(message, param_hint="'--distributed'") from error
    by_process = [jax.local_devices(process_index=k) for k in range(jax.process_count())]
    fewest = min(map(len, by_process))
    if devices > fewest:
        message = f"got {devices}, expected at most {fewest}, the devices of a process (see `hebbax info`)"
        raise typer.BadParameter(message, param_hint="'--devices'")
    return Mesh(np.array([own[:devices] for own in by_process]).ravel(), ("neurons",))


def writable(output: Path) -> None:
    """Make a folder, or say why nothing can be written there."""
    try:
        output.mkdir(parents=True, exist_ok=True)  # in every process: if one ended alone, the others would wait for it
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        message = f"got {str(output)!r}, expected a folder that can be written to ({error.strerror})"
        raise typer.BadParameter(message, param_hint="'--output'") from error


def set_threads(threads: int | None) -> None:
    """Set the number of threads of the kernels, if one is asked for."""
    if threads is not None:
        try:
            hebbax.set_num_threads(threads)
        except (RuntimeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="'--threads'") from error


def check_backend(backend: str | None) -> None:
    """Say which backends there are, if not this one."""
    usable = hebbax.propagate_csr_on_binary_pre_p.available_backends(jax.default_backend())
    if backend is not None and backend not in usable:
        message = f"got {backend!r}, expected one of {', '.join(usable)}; `hebbax info` says why"
        raise typer.BadParameter(message, param_hint="'--backend'")
