"""The command line: what is installed and usable here, and published experiments to run.

An experiment is a module of `hebbax.experiments` and a command of `simulate` here, which hands it to `_run`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import brainunit as u
import jax
import numpy as np
import typer
from jax.sharding import Mesh
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import hebbax
from hebbax import _cpu
from hebbax._cpu import cpus
from hebbax._terminal import INTERRUPTED, table, within, write
from hebbax.experiments import (
    brunel10k,
    cuba,
    digits,
    digits_report,
    hpc,
    network_loop,
    network_report,
    reward,
    song2000,
)
from hebbax.replay import command

FIGURE = "hebbax.experiments.network_figure"  # imported if a figure is drawn, since it takes matplotlib

app = typer.Typer(
    help="Event-driven synaptic plasticity for JAX.", no_args_is_help=True, pretty_exceptions_enable=False
)
simulate = typer.Typer(help="Run a published plasticity experiment.", no_args_is_help=True)
app.add_typer(simulate, name="simulate")
app.command("replay")(command.replay_command)


# Options that several experiments have.
Neurons = Annotated[int, typer.Option(callback=within(1), help="Neurons, each with inputs of its own.")]
Inputs = Annotated[int, typer.Option(callback=within(1), help="Excitatory inputs of each neuron.")]
Seconds = Annotated[float, typer.Option(callback=within(1e-3, 1e6), help="Biological time in seconds.")]
Seed = Annotated[int, typer.Option(callback=within(0, 2**32 - 1), help="Seed of all random numbers.")]
TimeStep = Annotated[float, typer.Option(callback=within(1e-3, 1.0), help="Time step in milliseconds.")]
BackendName = Annotated[
    str | None, typer.Option(help="Backend of the operators (see `hebbax info`).", show_default="the best here")
]
Threads = Annotated[
    int | None,
    typer.Option(callback=within(1), help="Threads of the CPU kernels.", show_default="as in `hebbax info`"),
]
Devices = Annotated[
    int,
    typer.Option(
        callback=within(1), help="Devices of a process that share neurons and synapses, not the drawing of inputs."
    ),
]
DevicesThatPay = Annotated[
    int | None,
    typer.Option(
        callback=within(1),
        help="Devices of a process that share the network.",
        show_default="the CPUs, if it is large enough; with --distributed 1",
    ),
]
Static = Annotated[bool, typer.Option("--static", help="Without plasticity.")]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed", help="Share the neurons among all processes that SLURM or MPI started (srun, mpirun)."
    ),
]
Output = Annotated[Path, typer.Option(help="Folder for the data (NPZ) and the figure (PNG).")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def info() -> None:
    """Show versions, backends and why one is missing, OpenMP, threads and NUMA domains, and devices."""
    console = Console()
    versions = {name: _version(name) for name in ("hebbax", "jax", "jaxlib", "numpy", "scipy", "brainunit")}
    versions["cupy"] = _version("cupy-cuda13x", "cupy-cuda12x", "cupy")
    versions["python"] = f"{platform.python_version()} on {platform.platform()}"
    console.print(table("Versions", versions))

    backends = Table("backend", "platforms", "how it runs", title="Backends, best first", title_justify="left")
    backends.add_column("usable here", overflow="fold")
    for backend in hebbax.backends():
        usable = f"no: {backend.missing}" if backend.missing else "yes"
        backends.add_row(backend.name, ", ".join(backend.platforms), backend.description, escape(usable))
    console.print(backends)

    openmp = _cpu.openmp_version()
    kernels = {
        "OpenMP": f"standard of {openmp // 100}-{openmp % 100:02}" if openmp else "not built in",
        "threads": str(hebbax.get_num_threads()),
        "usable CPUs": str(len(cpus.usable_cpus())),
    }
    for domain, own in cpus.numa_domains().items():
        kernels[f"NUMA domain {domain}"] = f"{len(own & cpus.usable_cpus())} of its {len(own)} CPUs usable"
    console.print(table("CPU kernels", kernels))
    console.print(table("Devices", {f"{d.platform}:{d.id}": d.device_kind for d in jax.devices()}))


@simulate.command("song2000")
def run_song2000(
    neurons: Neurons = 4,
    inputs: Inputs = 1000,
    seconds: Seconds = 600.0,
    seed: Seed = 0,
    dt: TimeStep = 0.1,
    backend: BackendName = None,
    threads: Threads = None,
    devices: Devices = 1,
    distributed: Distributed = False,
    output: Output = Path("song2000"),
) -> None:
    """Competitive plasticity: Song, Miller & Abbott (2000), Nature Neuroscience 3:919.

    Poisson inputs with additive spike-timing-dependent plasticity compete for the spikes of integrate-and-fire neurons
    until the weights are near either bound and the firing rate has settled, which takes 300 s or more.
    """
    parameters = song2000.Parameters(time_step=dt * u.ms)
    try:
        steps = song2000.check(parameters, neurons, inputs, seconds)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _run(
        song2000, output, seconds, steps, backend, threads, report=song2000,
        figure="hebbax.experiments.song2000_figure", parameters=parameters, neurons=neurons, inputs=inputs,
        seconds=seconds, seed=seed, mesh=_mesh(devices, distributed),
    )  # fmt: skip


@simulate.command("cuba")
def run_cuba(
    neurons: Annotated[int, typer.Option(callback=within(5), help="Neurons, a fifth of them inhibitory.")] = 4000,
    connectivity: Annotated[float, typer.Option(callback=within(0, 1), help="Probability of a synapse.")] = 0.02,
    static: Static = False,
    seconds: Seconds = 1.0,
    seed: Seed = 0,
    dt: TimeStep = 0.1,
    backend: BackendName = None,
    threads: Threads = None,
    devices: DevicesThatPay = None,
    distributed: Distributed = False,
    output: Output = Path("cuba"),
) -> None:
    """A network that keeps itself going: Vogels & Abbott (2005), Journal of Neuroscience 25:10786, with plasticity.

    Neurons with exponential currents; synapses between excitatory ones learn by pairs of spikes.
    """
    parameters = cuba.Parameters(time_step=dt * u.ms, connectivity=connectivity)
    where = devices, distributed
    _run_network(cuba, parameters, static, seconds, backend, threads, where, output, neurons=neurons, seed=seed)


@simulate.command("brunel10k")
def run_brunel10k(
    neurons: Annotated[int, typer.Option(callback=within(5), help="Neurons, a fifth of them inhibitory.")] = 10_000,
    static: Static = False,
    seconds: Seconds = 1.0,
    seed: Seed = 0,
    dt: TimeStep = 0.1,
    backend: BackendName = None,
    threads: Threads = None,
    devices: DevicesThatPay = None,
    distributed: Distributed = False,
    output: Output = Path("brunel10k"),
) -> None:
    """The plastic network on which simulators are compared: Ahmad, Isbister, Smithe & Stringer (2018), after Brunel.

    10 000 neurons, 10 million synapses, 35 spikes a second of each neuron.
    """
    parameters = brunel10k.Parameters(time_step=dt * u.ms)
    where = devices, distributed
    _run_network(brunel10k, parameters, static, seconds, backend, threads, where, output, neurons=neurons, seed=seed)


@simulate.command("hpc")
def run_hpc(
    scale: Annotated[float, typer.Option(callback=within(1e-3), help="Neurons, in 11 250.")] = 0.5,
    inputs: Annotated[
        float,
        typer.Option(
            callback=within(1e-3, 1), help="Part of a neuron's 11 250 synapses; each then weighs as much more."
        ),
    ] = 0.2,
    static: Static = False,
    seconds: Seconds = 0.3,
    seed: Seed = 0,
    dt: TimeStep = 0.1,
    backend: BackendName = None,
    threads: Threads = None,
    devices: DevicesThatPay = None,
    distributed: Distributed = False,
    output: Output = Path("hpc"),
) -> None:
    """NEST's benchmark for supercomputers: Morrison, Aertsen & Diesmann (2007), Neural Computation 19:1437.

    Currents that are alpha functions, 11 250 synapses onto every neuron (--inputs 1), and plasticity by a power of the
    weight. The published network is --scale 1 --inputs 1, and 127 million synapses.
    """
    parameters, where = hpc.Parameters(time_step=dt * u.ms), (devices, distributed)
    options: Any = dict(scale=scale, inputs=inputs, seed=seed)
    _run_network(hpc, parameters, static, seconds, backend, threads, where, output, **options)


@simulate.command("reward")
def run_reward(
    seconds: Seconds = 3600.0,
    seed: Seed = 0,
    backend: BackendName = None,
    threads: Threads = None,
    output: Output = Path("reward"),
) -> None:
    """A reward that comes late finds its synapse: Izhikevich (2007), Cerebral Cortex 17:2443.

    1 000 neurons with 100 synapses each fire at random. Whenever a chosen one is followed by another one, dopamine is
    released 1 to 3 s later, and turns what pairs of spikes have left at the synapses into weight.
    """
    steps = reward.check(reward.Parameters(), seconds)
    figure = "hebbax.experiments.reward_figure"
    _run(reward, output, seconds, steps, backend, threads, report=reward, figure=figure, seconds=seconds, seed=seed)


@simulate.command("digits")
def run_digits(
    neurons: Annotated[int, typer.Option(callback=within(1), help="Excitatory neurons.")] = 400,
    epochs: Annotated[int, typer.Option(callback=within(1), help="How often each image is learned from.")] = 2,
    images: Annotated[
        int, typer.Option(callback=within(1, digits.IMAGES - digits.HELD_OUT), help="Images that are learned from.")
    ] = digits.IMAGES - digits.HELD_OUT,
    seed: Seed = 0,
    dt: TimeStep = 0.5,
    backend: BackendName = None,
    threads: Threads = None,
    output: Output = Path("digits"),
) -> None:
    """Handwritten digits, learned from spikes without labels: Diehl & Cook (2015), Front. Comput. Neurosci. 9:99.

    The images are the 1 797 that scikit-learn ships, 360 of which are held out and then classified.
    """
    parameters = digits.Parameters(time_step=dt * u.ms)
    try:
        digits.load()
    except ModuleNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    shown = digits.check(parameters, neurons, epochs, images, digits.HELD_OUT)
    _run(
        digits, output, shown * (parameters.image_time / u.second), shown * parameters.steps, backend, threads,
        report=digits_report, figure="hebbax.experiments.digits_figure", parameters=parameters, neurons=neurons,
        epochs=epochs, images=images, seed=seed,
    )  # fmt: skip


def _run_network(
    experiment: ModuleType, parameters: Any, static: bool, seconds: float, backend: str | None, threads: int | None,
    where: tuple[int | None, bool], output: Path, **options: Any,
) -> None:  # fmt: skip
    try:
        parameters.delay_steps  # noqa: B018
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--dt'") from error
    try:
        steps = network_loop.steps_in(seconds, parameters.time_step)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--seconds'") from error
    devices, distributed = where
    if devices is None and not distributed:  # there are to be as many as may pay
        with suppress(RuntimeError):
            most = threads or hebbax.get_num_threads()
            jax.config.update("jax_num_cpu_devices", min(most, _cpu.most_devices()))
    mesh = _mesh(devices or 1, distributed) if devices or distributed else None
    _run(
        experiment, output, seconds, steps, backend, threads, report=network_report, figure=FIGURE,
        parameters=parameters, plastic=not static, seconds=seconds, mesh=mesh, **options,
    )  # fmt: skip


def _run(
    experiment: ModuleType, output: Path, duration: float, steps: int, backend: str | None, threads: int | None, *,
    report: ModuleType, figure: str, **options: Any,
) -> None:  # fmt: skip
    """Simulate an experiment; the first process prints what `report` says, and writes its arrays and its figure.

    `duration` is the biological time in seconds, and `steps` the number of time steps, that it is to come to.
    """
    _check_backend(backend)
    if threads is not None:
        try:
            hebbax.set_num_threads(threads)
        except (RuntimeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="'--threads'") from error
    first = jax.process_index() == 0
    console, name = Console(quiet=not first), experiment.__name__.rpartition(".")[2]
    try:
        output.mkdir(parents=True, exist_ok=True)  # in every process: if one ended alone, the others would wait for it
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        message = f"got {str(output)!r}, expected a folder that can be written to ({error.strerror})"
        raise typer.BadParameter(message, param_hint="'--output'") from error

    with _progress(console, duration) as on_progress:
        result = experiment.simulate(backend=backend, on_progress=on_progress, **options)
    if first:
        _report(console, report, figure, result, output / name)
    if result.steps < steps:  # perhaps because of a Ctrl-C in another process
        console.print("interrupted: this is what was computed until then")
        raise typer.Exit(INTERRUPTED)


def _report(console: Console, report: ModuleType, figure: str, result: Any, stem: Path) -> None:
    """Print the summary of a result, and write its arrays and its figure."""
    console.print(table(stem.name, report.summary(result)))
    write(console, stem.with_name(f"{stem.name}.npz"), lambda file: np.savez_compressed(file, **report.arrays(result)))
    try:
        draw = importlib.import_module(figure).figure
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        console.print('no figure: it takes matplotlib, pip install "hebbax[plot]"', soft_wrap=True, markup=False)
    else:
        write(console, stem.with_name(f"{stem.name}.png"), lambda file: draw(result).savefig(file, format="png"))


@contextmanager
def _progress(console: Console, seconds: float) -> Iterator[Callable[[float], bool]]:
    """Show a progress bar; yield what `simulate` calls as `on_progress`, which says whether Ctrl-C was pressed.

    The first Ctrl-C lets the running block end; a second one ends the program.
    """
    interrupted = threading.Event()

    def interrupt(*_: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.6g} of {task.total:g} s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=seconds)

            def on_progress(done: float) -> bool:
                bar.update(task, completed=done, description="simulating")
                return interrupted.is_set()

            yield on_progress
    finally:
        signal.signal(signal.SIGINT, before)


def _mesh(devices: int, distributed: bool) -> Mesh:
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


def _check_backend(backend: str | None) -> None:
    usable = hebbax.propagate_csr_on_binary_pre_p.available_backends(jax.default_backend())
    if backend is not None and backend not in usable:
        message = f"got {backend!r}, expected one of {', '.join(usable)}; `hebbax info` says why"
        raise typer.BadParameter(message, param_hint="'--backend'")


def _version(*distributions: str) -> str:
    """The version of the first of these that is installed."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
