"""How the experiments state their constants, and how these are written beside the results."""

import dataclasses
import json
from typing import Any

import numpy as np

import hebbax


def parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    """A field of a model's dataclass of constants, with its default, its meaning and its source as metadata."""
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


def with_metadata(described: dict[str, tuple[Any, str]], parameters: Any, **more: Any) -> dict[str, np.ndarray]:
    """Arrays, each of which comes with its unit, and `metadata`, JSON: units, parameters, more. For `numpy.savez`."""
    metadata = {
        "hebbax": hebbax.__version__,
        **more,
        "arrays": {name: unit for name, (_, unit) in described.items()},
        "parameters": {
            field.name: {"value": str(getattr(parameters, field.name)), **field.metadata}
            for field in dataclasses.fields(parameters)
        },
    }
    return {name: np.asarray(x) for name, (x, _) in described.items()} | {"metadata": np.array(json.dumps(metadata))}
