"""Checkpoints of a run: `NAME-<steps>.h5`, of which the last two are kept, and what was seen in between.

What a run has seen grows, so each checkpoint writes what is new to a file of its own, `NAME-<from>-<to>.seen.h5`, and
names those before it with their SHA-256.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import hebbax
from hebbax.experiments.keeping import Kept, Refused
from hebbax.runs import store
from hebbax.runs.store import Damaged

KIND, FORMAT = "checkpoint", 2
EVERY = 600.0  # seconds
KEPT = 2  # of these; and what was seen since the beginning


class Checkpoints:
    """A keeper, as `hebbax.experiments.keeping` has it, that writes files.

    Parameters
    ----------
    folder : Path
        It is made if it is not there.
    name : str
        With which its files' names begin.
    every : float
        Seconds of wall-clock time between checkpoints; there is one at the beginning, one at the end and one where a
        run is stopped besides.
    resume : bool
        Go on from the newest checkpoint that is whole.
    warn : callable
        Is told what went wrong without ending the run: a checkpoint that could not be written, or read.

    Attributes
    ----------
    failed : str or None
        Why the last checkpoint could not be written.
    sessions : list
        After how many steps the run began or went on, and under which versions.

    Raises
    ------
    Refused
        The folder cannot be written to, has checkpoints that are not to be gone on from, or none that are, or another
        run writes its checkpoints there.

    Notes
    -----
    The first process locks `.NAME.lock` until `close` is called, or the keeper is gone, or its process, however that
    ends.
    """

    def __init__(
        self, folder: Path, name: str, *, every: float = EVERY, resume: bool = False,
        warn: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        self.folder, self.name, self._every, self._resume, self._warn = folder, name, every, resume, warn
        self.failed: str | None = None
        self.sessions: list[list[Any]] = [[0, versions()]]
        self._writes = jax.process_index() == 0
        self._about: dict[str, Any] = {}
        self._segments: list[list[str]] = []  # names and SHA-256 of the files with what was seen
        self._pending: list[dict[str, np.ndarray]] = []  # what was seen and is in none of them
        self._saved: list[tuple[int, list[list[str]]]] = []  # of the checkpoints kept: steps, and the segments
        self._last = 0  # steps, of the last segment's end
        self._next = time.monotonic() + every
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            self._locked = self._lock() if self._writes else None
        except OSError as error:
            raise Refused(f"{folder}: expected a folder that can be written to ({error.strerror})") from error
        found = self._found()
        if resume and not found:
            raise Refused(f"{folder}: has no checkpoint {name}-<steps>.h5 to go on from")
        if found and not resume:
            raise Refused(f"{folder}: has a checkpoint of {name}, {found[-1][1].name}: go on from it, or remove it")

    def close(self) -> None:
        """Let other runs write their checkpoints here."""
        if self._locked:
            self._locked()

    def _lock(self) -> Callable[[], object]:
        """Keep other runs from writing here; what is returned lets them.

        A file that is there would outlive a process that is killed; the system frees a lock on it.
        """
        path = self.folder / f".{self.name}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        free = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free()
            raise Refused(f"{self.folder}: another run writes its checkpoints of {self.name} there now") from None
        except OSError as error:  # a file system without locks
            self._warn(f"{path}: cannot be locked ({error.strerror}); expected no other run that writes there")
        return free

    def start(self, about: Mapping[str, Any]) -> Kept | None:
        """Read the newest checkpoint that is whole, if the run is to go on.

        Raises `Damaged` if none is, and `Refused` if it is one of another run: the message says in what they differ.
        """
        self._about = json.loads(json.dumps(about))
        if not self._resume:
            return None
        problems = []
        for steps, path in reversed(self._found()):
            try:
                kept = self._read(steps, path)
            except (Damaged, OSError) as error:
                problem = _said(error, path)
                problems.append(problem if problem.startswith(f"{path}:") else f"{path}: needs {problem}")
            else:
                for problem in problems:
                    self._warn(f"{problem}; going on from {path.name}")
                self._next = time.monotonic() + self._every
                return kept
        raise Damaged("no checkpoint is whole: " + "; ".join(problems))

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self._writes and time.monotonic() >= self._next

    def save(self, steps: int, state: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint; where that fails, warn, and write what was seen with the next one."""
        if not self._writes:
            return
        is_first = not (self._segments or self._pending)
        if new and (is_first or any(x.shape[0] for x in new.values())):
            self._pending.append(dict(new))
        try:
            self._write(steps, state)
        except OSError as error:
            self.failed = f"no checkpoint after {steps} steps: {_said(error, self.folder)}"
            self._warn(self.failed)
        else:
            self.failed = None
        self._next = time.monotonic() + self._every

    def _write(self, steps: int, state: Mapping[str, np.ndarray]) -> None:
        if self._pending:
            path = self.folder / f"{self.name}-{self._last}-{steps}.seen.h5"
            digest = store.write(path, KIND, FORMAT, store.fill_with(_joined(self._pending), {}))
            self._segments, self._last, self._pending = [*self._segments, [path.name, digest]], steps, []
        about = {"run": self._about, "steps": steps, "seen": self._segments, "sessions": self.sessions}
        store.write(self.folder / f"{self.name}-{steps}.h5", KIND, FORMAT, store.fill_with(state, about))
        self._saved = [*(x for x in self._saved if x[0] != steps), (steps, self._segments)][-KEPT:]
        try:
            self._remove_others()
        except OSError as error:
            self._warn(f"older checkpoints stay: {_said(error, self.folder)}")

    def _remove_others(self) -> None:
        """Older checkpoints, and what a run that was killed, or from which this one went another way, has left."""
        kept = {f"{self.name}-{steps}.h5" for steps, _ in self._saved}
        kept |= {name for _, segments in self._saved for name, _ in segments}
        own = re.compile(rf"\.?{re.escape(self.name)}-\d+(-\d+\.seen)?\.h5(\.\d+)?")
        for path in self.folder.iterdir():
            if own.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def _found(self) -> list[tuple[int, Path]]:
        """The checkpoints that are there, by steps."""
        own = re.compile(rf"{re.escape(self.name)}-(\d+)\.h5")
        matches = ((own.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _read(self, steps: int, path: Path) -> Kept:
        state, about = store.contents(store.read(path, KIND, FORMAT)[0])
        self._check_run(path, about["run"])
        pieces = []
        for name, expected in about["seen"]:
            data, digest = store.read(self.folder / name, KIND, FORMAT)
            if digest != expected:
                raise Damaged(f"{self.folder / name}: is not the one that {path.name} was written with")
            pieces.append(store.contents(data)[0])
        last = about["sessions"][-1][1]
        if last != versions():
            then, now = (", ".join(f"{name} {x}" for name, x in v.items()) for v in (last, versions()))
            self._warn(f"{path} was written by {then}; this is {now}: from here on, bits may differ")
        self.sessions = [*about["sessions"], [steps, versions()]]
        self._segments, self._saved = about["seen"], [(steps, about["seen"])]
        self._last = int(about["seen"][-1][0].removesuffix(".seen.h5").rpartition("-")[2]) if about["seen"] else 0
        return Kept(steps, state, _joined(pieces))

    def _check_run(self, path: Path, run: Mapping[str, Any]) -> None:
        names = sorted({*run, *self._about}, key=[*self._about, *run].index)
        differ = [name for name in names if run.get(name) != self._about.get(name)]
        if differ:
            of = ", ".join(f"{name} {run.get(name)}, and not {self._about.get(name)}" for name in differ)
            raise Refused(f"{path}: is of another run, with {of}")


def versions() -> dict[str, str]:
    """Of what bits may depend on."""
    return {"hebbax": hebbax.__version__, "jax": version("jax"), "numpy": np.__version__}


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    names = {name: None for piece in pieces for name in piece}
    return {name: np.concatenate([x[name] for x in pieces if name in x]) for name in names}


def _said(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}"
    return str(error)
