"""How the experiments state their constants and their results, in the source and in what is written of them."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np

import hebbax

Numbers = dict[str, tuple[Any, str]]  # values and their units, by name; NaN: there is none


def parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    """A field of a model's dataclass of constants, with its default, its meaning and its source as metadata."""
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


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
