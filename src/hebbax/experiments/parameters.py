"""How the experiments state their constants and their results, in the source and in what is written of them."""

import dataclasses
import json
from typing import Any, NamedTuple

import brainunit as u
import numpy as np

import hebbax

Numbers = dict[str, tuple[Any, str]]  # values and their units, by name; NaN: there is none


def parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    """A field of a model's dataclass of constants, with its default, its meaning and its source as metadata."""
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


def as_text(value: Any) -> Any:
    """A constant as files state it, with all its digits, in what JSON and TOML have."""
    if isinstance(value, (tuple, list)):
        return [as_text(x) for x in value]
    if isinstance(value, u.Quantity):
        return f"{float(value.mantissa)!r} {value.unit}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def stated_constants(parameters: Any) -> dict[str, Any]:
    """The constants of a model or a rule as files state them, by name."""
    return {f.name: as_text(getattr(parameters, f.name)) for f in dataclasses.fields(parameters)}


class Array(NamedTuple):
    """A result, and what its numbers are."""

    value: Any
    unit: str = ""
    meaning: str = ""
    dims: tuple[str, ...] = ()  # names of its axes; an array of the name of its only axis numbers that


class Data(NamedTuple):
    """The results of a run."""

    arrays: dict[str, Array]
    parameters: Any
    about: dict[str, Any]  # what else is known of the run

    def for_numpy(self) -> dict[str, np.ndarray]:
        """Arrays for `numpy.savez`; `metadata` is JSON of their units, of the constants and of the rest."""
        metadata = {
            "hebbax": hebbax.__version__,
            **self.about,
            "arrays": {name: ", ".join(filter(None, (x.unit, x.meaning))) for name, x in self.arrays.items()},
            "parameters": {
                field.name: {"value": str(getattr(self.parameters, field.name)), **field.metadata}
                for field in dataclasses.fields(self.parameters)
            },
        }
        return {name: np.asarray(x.value) for name, x in self.arrays.items()} | {
            "metadata": np.array(json.dumps(metadata))
        }
