"""Files that say what to run: TOML, whose schema follows from a command's options and from a model's constants.

The keys of a file are the options of a command, and its table `[parameters]` has constants of the experiment, with
their units. Every mistake is reported at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import brainunit as u
import pydantic
import tomlkit
import typer

from hebbax.experiments.parameters import as_text
from hebbax.runs.quantities import Number, in_unit, quantity

Model = type[pydantic.BaseModel]
# In place of what pydantic says of these kinds of errors.
EXPECTED = {
    "path_type": "expected the name of a file or a folder",
    "list_type": "expected a list, in square brackets",
    "missing": "expected one more value",
    "model_type": "expected a table",
    "bool_type": "expected true or false",
    "string_type": "expected text",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a command, as files state it."""

    name: str
    type: Any
    info: Any  # typer's
    default: Any


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a file for a command may say.

    Attributes
    ----------
    command : str
        Its name, as in `experiment = "cuba"`.
    options : dict
        By name.
    parameters : type, optional
        The dataclass of the experiment's constants.
    by_option : dict
        The constants that options set, and not the table: the name of each, and of its option.
    """

    command: str
    options: Mapping[str, Option]
    parameters: type | None = None
    by_option: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def constants(self) -> dict[str, Any]:
        """Defaults of the constants that the table may have, by name."""
        if self.parameters is None:
            return {}
        defaults = self.parameters()
        return {f.name: getattr(defaults, f.name) for f in dataclasses.fields(defaults) if f.name not in self.by_option}

    def check(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constants in a file's content, or raise a ValueError with a line for every mistake in it."""
        fields: dict[str, Any] = {name: (_of_option(option), None) for name, option in self.options.items()}
        fields["experiment"] = (Annotated[Any, pydantic.AfterValidator(self._experiment)], None)
        if self.parameters is not None:
            fields["parameters"] = (_model("Constants", _of_constants(self.constants)), None)
        table = self._validated(_model("File", fields), content)
        return {name: table["parameters"][name] for name in content.get("parameters", {})}

    def check_constants(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of constants, or raise a ValueError with a line for every mistake in them."""
        found = self._validated(_model("Constants", _of_constants(self.constants)), content, "parameters")
        return {name: found[name] for name in content}

    def _experiment(self, name: Any) -> Any:
        if name != self.command:
            raise ValueError(f"expected {self.command!r}, the command that reads the file")
        return name

    def _validated(self, model: Model, content: Mapping[str, Any], *inside: str) -> dict[str, Any]:
        try:
            return dict(_plain(model.model_validate(dict(content))))
        except pydantic.ValidationError as error:
            lines = [self._mistake((*inside, *e["loc"]), e) for e in error.errors()]
            raise ValueError("\n".join(lines)) from None

    def _mistake(self, where: tuple, error: Any) -> str:
        key, got = ".".join(map(str, where)), error["input"]
        if error["type"] == "extra_forbidden":
            return f"{key}: {self._unknown(str(where[-1]), in_table=len(where) > 1)}"
        message = error["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")
        message = EXPECTED.get(error["type"], message)
        return f"{key}: {message}" if message.startswith("got ") else f"{key}: got {got!r}, {message}"

    def _unknown(self, name: str, in_table: bool) -> str:
        if in_table and name in self.by_option:
            return f"not in [parameters]: the option {self.by_option[name]} sets it, above the table"
        if in_table and name in self.options:
            return "not in [parameters]: it is an option, and stands above the table"
        if not in_table and name in self.constants:
            return "expected in the table [parameters]"
        known = list(self.constants) if in_table else [*self.options, "experiment"]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        return "unknown" + (f", did you mean {near[0]}?" if near else f", expected one of {', '.join(known)}")


def read(path: Path, schema: Schema) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the constants that a file states; a ValueError that says everything wrong with it."""
    content = _content(path)
    try:
        constants = schema.check(content)
    except ValueError as error:
        raise ValueError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return {name: x for name, x in content.items() if name not in ("experiment", "parameters")}, constants


def experiment_of(path: Path) -> Any:
    """What a file says to be for."""
    return _content(path).get("experiment")


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text (UTF-8)") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None


def stated(texts: Iterable[str], schema: Schema) -> dict[str, Any]:
    """Return the constants of texts such as "trace_time=16.8 ms"; a ValueError that says everything wrong with them."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"got {text!r}, expected NAME=VALUE")
        if name.strip() in values:
            raise ValueError(f"{name.strip()}: given twice, expected once")
        values[name.strip()] = literal(value.strip())
    return schema.check_constants(values)


def literal(text: str) -> Any:
    """What a text is as a value of TOML, or else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def written(schema: Schema, options: Mapping[str, Any], parameters: Any) -> str:
    """A file that states these values of options and constants, with comments."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Read by: hebbax {_command_line(schema)} --config FILE"))
    if schema.parameters is not None:
        document.add("experiment", tomlkit.item(schema.command))
    for name, option in schema.options.items():
        value, about = options.get(name), " ".join(str(option.info.help or "").split())
        if value is None:
            shown = option.info.show_default
            shown = f" If it is not stated: {shown}." if isinstance(shown, str) else ""
            document.add(tomlkit.comment(f"{name} =  # {about}{shown}"))
        else:
            item = _item(value, option.info.parser)
            document.add(name, item.comment(about) if about else item)
    if schema.parameters is not None:
        table = tomlkit.table()
        metadata = {f.name: f.metadata for f in dataclasses.fields(parameters)}
        for name in schema.constants:
            about = "{meaning} ({source})".format(**metadata[name])
            table.add(name, _item(getattr(parameters, name)).comment(about))
        document.add(tomlkit.nl())
        document.add("parameters", table)
    return tomlkit.dumps(document)


def _command_line(schema: Schema) -> str:
    return schema.command if schema.parameters is None else f"simulate {schema.command}"


def _item(value: Any, parser: Any = None) -> tomlkit.items.Item:
    if isinstance(parser, Number):
        value = f"{value!r} {parser.unit}"
    if isinstance(value, (Path, Enum)):
        value = str(value)
    return tomlkit.item(as_text(value))


def _plain(model: pydantic.BaseModel) -> dict[str, Any]:
    return {
        name: _plain(x) if isinstance(x, pydantic.BaseModel) else x
        for name, x in ((name, getattr(model, name)) for name in type(model).model_fields)
    }


def _model(name: str, fields: dict[str, Any]) -> Model:
    config = pydantic.ConfigDict(extra="forbid", protected_namespaces=())
    return pydantic.create_model(name, __config__=config, **fields)


def _of_option(option: Option) -> Any:
    """The type of an option in a file, with the checks that the command line makes."""
    if option.info.parser is not None:
        kind: Any = Annotated[Any, pydantic.AfterValidator(_raising_values(option.info.parser))]
    elif option.type in (int, float, bool):
        kind = Annotated[option.type, pydantic.Strict()]
    elif typing.get_origin(option.type) is tuple:
        kind = tuple[tuple(Annotated[x, pydantic.Strict()] for x in typing.get_args(option.type))]  # type: ignore[misc]
    else:
        kind = option.type
    if option.info.callback is None:
        return kind
    return Annotated[kind, pydantic.AfterValidator(_raising_values(option.info.callback))]


def _raising_values(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A check of the command line, with the error that pydantic collects."""

    def checked(value: Any) -> Any:
        try:
            return check(value)
        except typer.BadParameter as error:
            raise ValueError(error.message) from None

    return checked


def _of_constants(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (Annotated[Any, pydantic.AfterValidator(_constant(name, default))], None)
        for name, default in defaults.items()
    }


def _constant(name: str, default: Any) -> Callable[[Any], Any]:
    """The check of a constant: it is of the kind of its default, finite, and a time is not negative."""

    def number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("expected a number")
        if not math.isfinite(value):
            raise ValueError("expected a finite number")
        return float(value)

    def of_kind(value: Any, like: Any) -> Any:
        if isinstance(like, tuple):
            if not isinstance(value, (list, tuple)) or len(value) != len(like):
                raise ValueError(f"expected {len(like)} values, such as {as_text(like)}")
            return tuple(of_kind(x, y) for x, y in zip(value, like, strict=True))
        if isinstance(like, u.Quantity):
            example = f'expected a quantity, such as "{as_text(like)}"'
            if not isinstance(value, str):
                raise ValueError(example)
            found = number(in_unit(quantity(value), like.unit))
            if like.unit.has_same_dim(u.second):
                least = 0.0 if not name.endswith("_time") or name == "refractory_time" else math.ulp(0.0)
                if found < least:
                    raise ValueError("expected a time of " + ("more than 0" if least else "at least 0"))
            return found * like.unit
        if isinstance(like, int):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError("expected an integer of at least 0")
            return value
        return number(value)

    return lambda value: of_kind(value, default)
