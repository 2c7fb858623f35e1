"""The command `hebbax simulate`: an experiment is a module of `hebbax.experiments` and a command here."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import brainunit as u
import jax
import typer

import hebbax
from hebbax import _cpu
from hebbax._terminal import within
from hebbax.experiments import (
    brunel10k,
    cuba,
    digits,
    digits_report,
    hpc,
    network_loop,
    network_report,
    reward,
    reward_report,
    song2000,
    song2000_report,
)
from hebbax.runs.options import RunOptions, every_run
from hebbax.runs.quantities import Number
from hebbax.runs.running import mesh_of, run

simulate = typer.Typer(help="Run a published plasticity experiment.", no_args_is_help=True)

# Options that several experiments have.
Neurons = Annotated[int, typer.Option(callback=within(1), help="Neurons, each with inputs of its own.")]
Inputs = Annotated[int, typer.Option(callback=within(1), help="Excitatory inputs of each neuron.")]
Seconds = Annotated[
    float, typer.Option(parser=Number("s"), callback=within(1e-3, 1e6), help="Biological time in seconds.")
]
Seed = Annotated[int, typer.Option(callback=within(0, 2**32 - 1), help="Seed of all random numbers.")]
TimeStep = Annotated[
    float, typer.Option(parser=Number("ms"), callback=within(1e-3, 1.0), help="Time step in milliseconds.")
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
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed", help="Share the neurons among all processes that SLURM or MPI started (srun, mpirun)."
    ),
]
Output = Annotated[Path, typer.Option(help="Folder for the data and the figure (PNG).")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions(RunOptions):
    """Options of the experiments on networks."""

    static: Annotated[bool, typer.Option("--static", help="Without plasticity.")] = False
    seed: Seed = 0
    dt: TimeStep = 0.1
    devices: DevicesThatPay = None
    distributed: Distributed = False


@simulate.command("song2000")
@every_run("song2000", song2000, time_step="dt")
def run_song2000(
    neurons: Neurons = 4,
    inputs: Inputs = 1000,
    seconds: Seconds = 600.0,
    seed: Seed = 0,
    dt: TimeStep = 0.1,
    devices: Devices = 1,
    distributed: Distributed = False,
    output: Output = Path("song2000"),
    *,
    options: RunOptions,
) -> None:
    """Competitive plasticity: Song, Miller & Abbott (2000), Nature Neuroscience 3:919.

    Poisson inputs with additive spike-timing-dependent plasticity compete for the spikes of integrate-and-fire neurons
    until the weights are near either bound and the firing rate has settled, which takes 300 s or more.
    """
    parameters = options.parameters(song2000.Parameters, time_step=dt * u.ms)
    try:
        steps = song2000.check(parameters, neurons, inputs, seconds)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    run(
        song2000, output, seconds, steps, options, report=song2000_report,
        figure="hebbax.experiments.song2000_figure", parameters=parameters, neurons=neurons, inputs=inputs,
        seconds=seconds, seed=seed, mesh=mesh_of(devices, distributed),
    )  # fmt: skip


@simulate.command("cuba")
@every_run("cuba", cuba, time_step="dt", connectivity="connectivity")
def run_cuba(
    neurons: Annotated[int, typer.Option(callback=within(5), help="Neurons, a fifth of them inhibitory.")] = 4000,
    connectivity: Annotated[float, typer.Option(callback=within(0, 1), help="Probability of a synapse.")] = 0.02,
    seconds: Seconds = 1.0,
    output: Output = Path("cuba"),
    *,
    options: NetworkOptions,
) -> None:
    """A network that keeps itself going: Vogels & Abbott (2005), Journal of Neuroscience 25:10786, with plasticity.

    Neurons with exponential currents; synapses between excitatory ones learn by pairs of spikes.
    """
    parameters = options.parameters(cuba.Parameters, time_step=options.dt * u.ms, connectivity=connectivity)
    run_network(cuba, parameters, seconds, output, options, neurons=neurons)


@simulate.command("brunel10k")
@every_run("brunel10k", brunel10k, time_step="dt")
def run_brunel10k(
    neurons: Annotated[int, typer.Option(callback=within(5), help="Neurons, a fifth of them inhibitory.")] = 10_000,
    seconds: Seconds = 1.0,
    output: Output = Path("brunel10k"),
    *,
    options: NetworkOptions,
) -> None:
    """The plastic network on which simulators are compared: Ahmad, Isbister, Smithe & Stringer (2018), after Brunel.

    10 000 neurons, 10 million synapses, 35 spikes a second of each neuron.
    """
    parameters = options.parameters(brunel10k.Parameters, time_step=options.dt * u.ms)
    run_network(brunel10k, parameters, seconds, output, options, neurons=neurons)


@simulate.command("hpc")
@every_run("hpc", hpc, time_step="dt")
def run_hpc(
    scale: Annotated[float, typer.Option(callback=within(1e-3), help="Neurons, in 11 250.")] = 0.5,
    inputs: Annotated[
        float,
        typer.Option(
            callback=within(1e-3, 1), help="Part of a neuron's 11 250 synapses; each then weighs as much more."
        ),
    ] = 0.2,
    seconds: Seconds = 0.3,
    output: Output = Path("hpc"),
    *,
    options: NetworkOptions,
) -> None:
    """NEST's benchmark for supercomputers: Morrison, Aertsen & Diesmann (2007), Neural Computation 19:1437.

    Currents that are alpha functions, 11 250 synapses onto every neuron (--inputs 1), and plasticity by a power of the
    weight. The published network is --scale 1 --inputs 1, and 127 million synapses.
    """
    parameters = options.parameters(hpc.Parameters, time_step=options.dt * u.ms)
    run_network(hpc, parameters, seconds, output, options, scale=scale, inputs=inputs)


@simulate.command("reward")
@every_run("reward", reward)
def run_reward(
    seconds: Seconds = 3600.0,
    seed: Seed = 0,
    output: Output = Path("reward"),
    *,
    options: RunOptions,
) -> None:
    """A reward that comes late finds its synapse: Izhikevich (2007), Cerebral Cortex 17:2443.

    1 000 neurons with 100 synapses each fire at random. Whenever a chosen one is followed by another one, dopamine is
    released 1 to 3 s later, and turns what pairs of spikes have left at the synapses into weight.
    """
    parameters = options.parameters(reward.Parameters)
    steps = reward.check(parameters, seconds)
    figure = "hebbax.experiments.reward_figure"
    run(
        reward,
        output,
        seconds,
        steps,
        options,
        report=reward_report,
        figure=figure,
        parameters=parameters,
        seconds=seconds,
        seed=seed,
    )


@simulate.command("digits")
@every_run("digits", digits, time_step="dt")
def run_digits(
    neurons: Annotated[int, typer.Option(callback=within(1), help="Excitatory neurons.")] = 400,
    epochs: Annotated[int, typer.Option(callback=within(1), help="How often each image is learned from.")] = 2,
    images: Annotated[
        int, typer.Option(callback=within(1, digits.IMAGES - digits.HELD_OUT), help="Images that are learned from.")
    ] = digits.IMAGES - digits.HELD_OUT,
    seed: Seed = 0,
    dt: TimeStep = 0.5,
    output: Output = Path("digits"),
    *,
    options: RunOptions,
) -> None:
    """Handwritten digits, learned from spikes without labels: Diehl & Cook (2015), Front. Comput. Neurosci. 9:99.

    The images are the 1 797 that scikit-learn ships, 360 of which are held out and then classified.
    """
    parameters = options.parameters(digits.Parameters, time_step=dt * u.ms)
    try:
        digits.load()
    except ModuleNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    shown = digits.check(parameters, neurons, epochs, images, digits.HELD_OUT)
    run(
        digits, output, shown * (parameters.image_time / u.second), shown * parameters.steps, options,
        report=digits_report, figure="hebbax.experiments.digits_figure", parameters=parameters, neurons=neurons,
        epochs=epochs, images=images, seed=seed,
    )  # fmt: skip


def run_network(
    experiment: ModuleType, parameters: Any, seconds: float, output: Path, options: NetworkOptions, **arguments: Any
) -> None:
    """`run` for an experiment on a network."""
    try:
        parameters.delay_steps  # noqa: B018
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--dt'") from error
    try:
        steps = network_loop.steps_in(seconds, parameters.time_step)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--seconds'") from error
    devices, distributed = options.devices, options.distributed
    if devices is None and not distributed:  # there are to be as many as may pay
        with suppress(RuntimeError):
            most = options.threads or hebbax.get_num_threads()
            jax.config.update("jax_num_cpu_devices", min(most, _cpu.most_devices()))
    mesh = mesh_of(devices or 1, distributed) if devices or distributed else None
    run(
        experiment, output, seconds, steps, options, report=network_report,
        figure="hebbax.experiments.network_figure", parameters=parameters, plastic=not options.static, seconds=seconds,
        seed=options.seed, mesh=mesh, **arguments,
    )  # fmt: skip
