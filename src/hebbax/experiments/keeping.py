"""How a run is kept, to go on from: what it asks of a keeper, such as `hebbax.runs.checkpoints` has.

A state is kept as arrays of neurons and synapses in the order of the network, whichever devices have them: so a run
goes on on another number of devices. What it has seen is kept piece by piece, each once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from hebbax.experiments.parameters import stated_constants
from hebbax.experiments.processes import agreed, any_process, concatenated


class Refused(ValueError):
    """A run cannot be kept, or cannot go on from what was kept; the message says why."""


class Kept(NamedTuple):
    """What there was of a run."""

    steps: int  # that were done
    state: dict[str, np.ndarray]
    seen: dict[str, np.ndarray]  # until then


class Keeper(Protocol):
    """What keeps a run; every process has one, and the first one's writes."""

    def start(self, about: Mapping[str, Any]) -> Kept | None:
        """What to go on from, of a run of which this is said; None at the beginning."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(self, steps: int, state: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> None:
        """Keep the state after so many steps, and what was seen since the last time."""


class Journal:
    """What a run has seen, piece by piece, and its keeper, if it has one.

    `by_process`: each process has seen something else.
    """

    def __init__(self, keeper: Keeper | None, about: Mapping[str, Any], by_process: bool = False) -> None:
        self._keeper, self._by_process = keeper, by_process
        self.kept = keeper.start(about) if keeper else None
        if keeper:
            agreed(self.steps, "steps of the checkpoint")
        seen = self.kept.seen if self.kept else {}
        if by_process and jax.process_index():  # what all processes have seen is the first one's now
            seen = {name: x[:0] for name, x in seen.items()}
        self._pieces = {name: [x] for name, x in seen.items()}
        self._saved = dict.fromkeys(seen, 1)
        self._began = 0.0

    @property
    def steps(self) -> int:
        """How many steps were done before this run."""
        return self.kept.steps if self.kept else 0

    @property
    def wall_time(self) -> float:
        """Seconds that the steps took, those before this run too, without saving."""
        return time.perf_counter() - self._began

    def begin(self) -> None:
        """From now on it is steps that take time."""
        self._began = time.perf_counter() - (float(self.kept.state["wall_time_s"]) if self.kept else 0.0)

    def add(self, **pieces: Any) -> None:
        """Arrays, or what becomes one: what was seen since the last call."""
        for name, x in pieces.items():
            self._pieces.setdefault(name, []).append(np.asarray(x))

    def read(self, name: str) -> np.ndarray:
        """All that was seen; all processes call this together."""
        return self._joined(self._pieces[name])

    def due(self) -> bool:
        """Whether it is time to save, in all processes."""
        return self._keeper is not None and any_process(self._keeper.due())

    def save(self, steps: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save what `state` returns, if there is a keeper; all processes call this together."""
        if self._keeper is None:
            return
        began, taken = time.perf_counter(), self.wall_time if self._began else 0.0
        new = {}
        for name, pieces in self._pieces.items():
            new[name] = self._joined([pieces[0][:0], *pieces[self._saved.get(name, 0) :]])
            self._saved[name] = len(pieces)
        arrays = {name: np.asarray(x) for name, x in {**state(), "wall_time_s": taken}.items()}
        self._keeper.save(steps, arrays, new)
        self._began += time.perf_counter() - began if self._began else 0.0

    def _joined(self, pieces: list[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(pieces)
        return concatenated(whole) if self._by_process else whole


def described(experiment: str, parameters: Any, **options: Any) -> dict[str, Any]:
    """What makes a run what it is, as JSON has it: a run goes on from one of which the same is said."""
    constants = stated_constants(parameters) if dataclasses.is_dataclass(parameters) else {}
    return {"experiment": experiment} | options | constants


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a pytree, by their places in it."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def like(tree: Any, arrays: Mapping[str, np.ndarray], put: Callable[[Any, np.ndarray], Any]) -> Any:
    """A pytree of the arrays that `put` makes of those of `tree` and of the kept ones of the same names."""
    missing = [name for name in named(tree) if name not in arrays]
    if missing:
        raise Refused(f"checkpoint: got a state without {', '.join(missing)}, expected one of this experiment")
    return jax.tree_util.tree_map_with_path(lambda path, x: put(x, arrays[jax.tree_util.keystr(path)]), tree)


def on_devices(x: jax.Array, numbers: np.ndarray) -> jax.Array:
    """These numbers, where `x`, of the same shape and dtype, is."""
    if numbers.shape != x.shape or numbers.dtype != x.dtype:
        got, expected = (f"{y.dtype} of shape {y.shape}" for y in (numbers, x))
        raise Refused(f"checkpoint: got {got}, expected {expected}, as this network has it")
    return jax.make_array_from_callback(x.shape, x.sharding, lambda index: numbers[index])


def check_not_over(kept: int, steps: int, what: str) -> None:
    """Raise where a checkpoint is beyond the end of the run that is to go on from it."""
    if kept > steps:
        raise Refused(f"{what}: got {steps} steps, expected at least {kept}, where the checkpoint is")
