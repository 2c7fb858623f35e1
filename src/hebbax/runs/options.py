"""Options that every run has, stated once: a command gets them by a decorator.

They come from the command line or from a file of `--config`, whose values are defaults of the options then.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_type_hints

import typer

from hebbax._terminal import answer, within
from hebbax.runs import config
from hebbax.runs.checkpoints import EVERY
from hebbax.runs.quantities import Number

CONSTANTS = "hebbax.constants"  # of a file, in a context
NOT_IN_FILES = {"config", "write_config", "json", "constants", "resume"}  # what concerns one call and no other

BackendName = Annotated[
    str | None, typer.Option(help="Backend of the operators (see `hebbax info`).", show_default="the best here")
]
Threads = Annotated[
    int | None,
    typer.Option(callback=within(1), help="Threads of the CPU kernels.", show_default="as in `hebbax info`"),
]


class Format(StrEnum):
    hdf5, npz = "hdf5", "npz"


Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder for checkpoints, from which --resume goes on.")
]
Every = Annotated[
    float, typer.Option(parser=Number("s"), callback=within(0), help="Seconds from one checkpoint to the next.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder that is whole.")]
Formats = Annotated[
    list[Format] | None, typer.Option("--format", help="Of the data: one, or both.", show_default="hdf5")
]
File = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Options and constants from a file (TOML).")
]
WriteConfig = Annotated[
    bool, typer.Option("--write-config", help="Print the file that says what would be run, and run nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and all else on stderr.")]
Constants = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help='A constant of the model, such as "membrane_time=16.8 ms".'),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What every command that runs something may be asked for; the annotations are options of the command line."""

    threads: Threads = None
    config: File = None
    write_config: WriteConfig = False
    json: Json = False
    checkpoint: Checkpoint = None
    every: Every = EVERY
    resume: Resume = False
    configuration: str = ""  # no option: the text of a file that states the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(FileOptions):
    """The same of an experiment."""

    backend: BackendName = None
    constants: Constants = None  # to the command: by name
    format: Formats = None

    def parameters(self, kind: Callable[..., Any], **by_option: Any) -> Any:
        """The experiment's constants, of which these are set by options of the command."""
        return kind(**self.changed, **by_option)

    @property
    def changed(self) -> dict[str, Any]:
        """The constants that are stated, by name."""
        constants: Any = self.constants
        return constants


def every_run(command: str, experiment: ModuleType | None = None, **by_option: str) -> Callable:
    """Give a command, which takes a keyword `options`, the options of its class, and it these as one object.

    `by_option` names constants of the experiment that are set by an option of the command.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        kind = hints.pop("options")
        own = [
            p.replace(annotation=hints[p.name])
            for p in inspect.signature(function).parameters.values()
            if p.name in hints
        ]
        shared_hints = get_type_hints(kind, include_extras=True)
        shared = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=shared_hints[f.name]
            )
            for f in dataclasses.fields(kind)
            if f.name != "configuration"
        ]
        options = {p.name: _option(p) for p in [*own, *shared] if p.name not in NOT_IN_FILES}
        known = {name: option for name, option in options.items() if option is not None}
        schema = config.Schema(command, known, getattr(experiment, "Parameters", None), by_option)
        shared = [_with_callback(p, _reader(schema)) if p.name == "config" else p for p in shared]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        @functools.wraps(function)
        def with_options(*, context: typer.Context, **values: Any) -> None:
            chosen = {p.name: values.pop(p.name) for p in shared}
            if "constants" in chosen:
                chosen["constants"] = context.meta.get(CONSTANTS, {}) | _set(chosen["constants"], schema)
            parameters = schema.parameters(**chosen["constants"]) if schema.parameters is not None else None
            text = config.written(schema, values | chosen, parameters)
            if chosen["write_config"]:
                answer.add(config=text)
                if not chosen["json"]:
                    typer.echo(text, nl=False)
            else:
                function(**values, options=kind(**chosen, configuration=text))

        signature = inspect.Signature([*own, *shared, context])
        with_options.schema = schema  # type: ignore[attr-defined]
        with_options.__signature__ = signature  # type: ignore[attr-defined]  # which typer reads
        with_options.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return with_options

    return decorate


def _option(parameter: inspect.Parameter) -> config.Option | None:
    """What files are told of a parameter of a command, unless it is an argument."""
    kind, info = typing.get_args(parameter.annotation)[:2]
    if not isinstance(info, type(typer.Option())):
        return None
    if isinstance(kind, types.UnionType):
        (kind,) = (x for x in typing.get_args(kind) if x is not type(None))
    return config.Option(parameter.name, kind, info, parameter.default)


def _with_callback(parameter: inspect.Parameter, callback: Callable) -> inspect.Parameter:
    kind, info = typing.get_args(parameter.annotation)
    info = copy.copy(info)
    info.callback, info.is_eager = callback, parameter.name == "config"  # before the options whose defaults it has
    return parameter.replace(annotation=Annotated[kind, info])


def _reader(schema: config.Schema) -> Callable:
    def read(context: typer.Context, value: Path | None) -> Path | None:
        """Take the options that the file states as defaults, and note the constants."""
        if value is not None:
            try:
                context.default_map, context.meta[CONSTANTS] = config.read(value, schema)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="'--config'") from None
        return value

    return read


def _set(texts: list[str] | None, schema: config.Schema) -> dict[str, Any]:
    try:
        return config.stated(texts or (), schema)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--set'") from None
