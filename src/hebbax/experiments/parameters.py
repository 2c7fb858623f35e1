"""How the experiments state their constants."""

import dataclasses
from typing import Any


def parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    """A field of a model's dataclass of constants, with its default, its meaning and its source as metadata."""
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})
