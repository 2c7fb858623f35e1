"""The command `hebbax sweep`: an experiment with many values of its constants, as one program."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import brainunit as u
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import hebbax
from hebbax._terminal import INTERRUPTED, Failed, answer, write, write_figure, wrote
from hebbax.experiments import brunel10k, cuba, hpc, network_sweep, song2000_sweep
from hebbax.experiments.parameters import Array, Data, as_text
from hebbax.experiments.sweeping import Outcome
from hebbax.runs import config, results
from hebbax.runs.options import Json, Threads
from hebbax.runs.ranges import grid, number_of, over
from hebbax.runs.running import check_backend, progress, set_threads, warn, writable
from hebbax.runs.simulate import simulate

NETWORKS: dict[str, ModuleType] = {"cuba": cuba, "brunel10k": brunel10k, "hpc": hpc}
# What says which steps, neurons and synapses there are, or which random numbers are drawn.
FIXED: dict[str, tuple[str, ...]] = {
    "song2000": song2000_sweep.FIXED,
    "cuba": ("seed",),
    "brunel10k": ("seed", "connectivity", "delay"),
    "hpc": (
        "seed", "delay", "exponent", "excitatory_neurons", "inhibitory_neurons", "excitatory_inputs",
        "inhibitory_inputs",
    ),
}  # fmt: skip
LOW, HIGH = 0.1, 0.9  # of the distance between the bounds, beyond which a weight is near one

Values = dict[str, list[Any]]
Columns = dict[str, tuple[np.ndarray, str]]  # of the table: values of all members, and their unit


def sweep_command(
    file: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="What to run, as `hebbax simulate ... --write-config` prints it.")
    ],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            metavar="NAME=VALUES",
            help="FIRST:LAST:COUNT, log:FIRST:LAST:COUNT, or values with commas; several make a grid.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for table (CSV), data (HDF5) and figure (PNG).", show_default="sweep-EXPERIMENT"),
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Run an experiment (song2000, cuba, brunel10k or hpc) with many values of its constants at once.

    All members are one program, of one device, in which they share neurons, synapses and, where they can, inputs.
    """
    name, schema, options, constants = _read(file)
    try:
        fixed = {*FIXED[name], *schema.by_option, *schema.options} - ({"seed"} - {*FIXED[name]})
        swept = over(values or (), schema, fixed=fixed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--over'") from None
    if not swept:
        raise typer.BadParameter("expected at least one NAME=VALUES", param_hint="'--over'")
    members = grid(swept)
    output = output or Path(f"sweep-{name}")
    set_threads(threads or options.pop("threads", None))
    check_backend(options["backend"])
    writable(output)
    console = Console(stderr=json)
    answer.add(
        command="sweep", experiment=name, hebbax=hebbax.__version__, jax=version("jax"), members=len(members),
        over={key: [as_text(x) for x in own] for key, own in swept.items()},
    )  # fmt: skip
    try:
        with progress(console, options["seconds"]) as on_progress:
            outcome = _run(name, schema, options, constants, members, on_progress)
    except MemoryError as error:
        raise Failed(f"memory: {error}") from None
    except (ArithmeticError, ValueError) as error:
        raise Failed(f"a member of the sweep cannot be run: {error}") from error
    columns = _columns(swept, members, outcome)
    shared = _of(schema, options, constants)
    about = dict(
        experiment=name, configuration=config.written(schema, options, shared), over=answer.content["over"],
        steps=outcome.steps, wall_time_s=outcome.wall_time,
    )  # fmt: skip
    if "seed" not in swept:
        about["seed"] = options["seed"]
    try:
        _report(console, output / f"sweep-{name}", swept, columns, outcome, _data(columns, outcome, shared, about))
    except OSError as error:
        raise Failed(f"{error.filename or output}: {error.strerror or error}") from error
    if outcome.is_stopped:
        console.print("interrupted: this is what was computed until then")
        raise typer.Exit(INTERRUPTED)


def schemas() -> dict[str, config.Schema]:
    """Of the experiments that can be swept, by name."""
    commands: Any = {command.name: command.callback for command in simulate.registered_commands}
    return {name: commands[name].schema for name in FIXED}


def _read(file: Path) -> tuple[str, config.Schema, dict[str, Any], dict[str, Any]]:
    """The experiment that a file names, and the values of its options and of the constants that are stated."""
    known = schemas()
    try:
        name = config.experiment_of(file)
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"{file}: experiment: got {name!r}, expected one of {', '.join(known)}")
        stated, constants = config.read(file, known[name])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'CONFIG'") from None
    options = {key: option.default for key, option in known[name].options.items()}
    for key, value in stated.items():
        parser = known[name].options[key].info.parser
        options[key] = parser(value) if parser else value
    if options.get("distributed") or options.get("devices") not in (None, 1):
        raise typer.BadParameter(f"{file}: expected devices = 1, and not distributed", param_hint="'CONFIG'")
    return name, known[name], options, constants


def _of(schema: config.Schema, options: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """The model's constants, those among them that options set."""
    by_option = {constant: options[option] for constant, option in schema.by_option.items()}
    if "time_step" in by_option:
        by_option["time_step"] = by_option["time_step"] * u.ms
    assert schema.parameters is not None
    return schema.parameters(**by_option, **constants)


def _run(
    name: str, schema: config.Schema, options: Mapping[str, Any], constants: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]], on_progress: Callable[[float], bool],
) -> Outcome:  # fmt: skip
    shared: Any = dict(seconds=options["seconds"], backend=options["backend"], on_progress=on_progress)
    parameters, seeds = [], []
    for member in members:
        changed = dict(member)
        seeds.append(changed.pop("seed", options["seed"]))
        parameters.append(_of(schema, options, {**constants, **changed}))
    if name == "song2000":
        size = {key: options[key] for key in ("neurons", "inputs")}
        return song2000_sweep.simulate(parameters, seeds=seeds, **size, **shared)
    build = NETWORKS[name].build
    size = {key: options[key] for key in inspect.signature(build).parameters if key in options}
    size |= dict(plastic=not options["static"])
    networks = []
    for member, own in zip(members, parameters, strict=True):
        try:
            networks.append(build(own, **size))
        except ValueError as error:
            raise ValueError(f"{', '.join(f'{key} = {as_text(x)}' for key, x in member.items())}: {error}") from error
    return network_sweep.simulate(networks, **shared)


def _columns(swept: Values, members: Sequence[Mapping[str, Any]], outcome: Outcome) -> Columns:
    """The table: what differs between the members, and what they come to."""
    found: Columns = {}
    for name in swept:
        found[name] = np.array([number_of(x[name])[0] for x in members]), number_of(members[0][name])[1]
    for population, rates in outcome.rates.items():
        title = f"rate_{population}".rstrip("_")
        found |= {title: (rates.mean(1), "Hz"), f"{title}_sd": (rates.std(1), "Hz")}
    if outcome.weight.size:
        low, span = outcome.low, outcome.high - outcome.low
        bounds = zip(low + LOW * span, low + HIGH * span, strict=True)
        # Member by member: in float64 all weights would take more memory than the run did.
        each = [_of_weights(x.astype(np.float64), *own) for x, own in zip(outcome.weight, bounds, strict=True)]
        mean, sd, below, above = np.transpose(each)
        found |= {"weight_mean": (mean, outcome.unit), "weight_sd": (sd, outcome.unit)}
        if np.isfinite(span).all():
            found |= {"fraction_low": (below, "1"), "fraction_high": (above, "1")}
    return found


def _of_weights(weight: np.ndarray, low: float, high: float) -> tuple[float, ...]:
    """Mean, standard deviation, and the parts below and above two values."""
    return weight.mean(), weight.std(), (weight < low).mean(), (weight > high).mean()


def _data(columns: Columns, outcome: Outcome, parameters: Any, about: dict[str, Any]) -> Data:
    """The table, one array for a column, and all rates and weights of all members."""
    meanings = {f.name: f.metadata["meaning"] for f in dataclasses.fields(parameters)}
    arrays = {name: Array(x, unit, meanings.get(name, ""), ("member",)) for name, (x, unit) in columns.items()}
    for population, rates in outcome.rates.items():
        axis = f"{population}_neuron".lstrip("_")
        arrays[f"rates_{population}".rstrip("_")] = Array(rates, "Hz", "of every neuron", ("member", axis))
    arrays["weight"] = Array(outcome.weight, outcome.unit, "at the end", ("member", "synapse"))
    return Data(arrays, parameters, about)


def _report(console: Console, stem: Path, swept: Values, columns: Columns, outcome: Outcome, data: Data) -> None:
    titles = [f"{name} ({unit})" if unit not in ("", "1") else name for name, (_, unit) in columns.items()]
    rows = list(zip(*(x.tolist() for x, _ in columns.values()), strict=True))
    # What a narrow terminal has room for: without standard deviations, and words that it breaks into lines.
    printed = [k for k, name in enumerate(columns) if not name.endswith("_sd")]
    shown = Table(
        *(titles[k].replace("_", " ") for k in printed),
        title=f"{stem.name}: {len(rows)} members, {outcome.steps} steps",
        title_justify="left",
    )
    for row in rows:
        shown.add_row(*(f"{row[k]:.4g}" for k in printed))
    console.print(shown)
    console.print(f"{outcome.wall_time:.2f} s, {outcome.wall_time / len(rows):.3g} s for a member", highlight=False)
    lost = np.count_nonzero(~np.isfinite(outcome.weight).all(1))
    if lost:
        warn(console, f"of {lost} members, weights have become infinite or no numbers")
    answer.add(
        steps=outcome.steps, wall_time={"value": outcome.wall_time, "unit": "s"},
        results={name: {"values": x.tolist(), "unit": unit or "1"} for name, (x, unit) in columns.items()},
    )  # fmt: skip

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([titles, *rows])
    write(console, stem.with_name(f"{stem.name}.csv"), lambda file: file.write(text.getvalue().encode()))
    path = stem.with_name(f"{stem.name}.h5")
    results.write(path, data, results.provenance())
    wrote(console, path)
    write_figure(console, stem.with_name(f"{stem.name}.png"), "hebbax.runs.sweep_figure", list(swept), columns)
