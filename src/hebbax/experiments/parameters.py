"""How the experiments state their constants, in the source and in what they write."""

import dataclasses
import json
from typing import Any

import numpy as np

import hebbax

Numbers = dict[str, tuple[Any, str]]  # values and their units, by name; NaN: there is none


def parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    """A field of a model's dataclass of constants, with its default, its meaning and its source as metadata."""
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


def described(arrays: dict[str, tuple[Any, str]], parameters: Any, **about: Any) -> dict[str, np.ndarray]:
    """Arrays, given with their units, for `numpy.savez`; `metadata` is JSON of these, of the constants and the rest."""
    metadata = {
        "hebbax": hebbax.__version__,
        **about,
        "arrays": {name: unit for name, (_, unit) in arrays.items()},
        "parameters": {
            field.name: {"value": str(getattr(parameters, field.name)), **field.metadata}
            for field in dataclasses.fields(parameters)
        },
    }
    return {name: np.asarray(x) for name, (x, _) in arrays.items()} | {"metadata": np.array(json.dumps(metadata))}
