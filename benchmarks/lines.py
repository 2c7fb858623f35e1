"""The cache lines that a step of a node visits, and how long it takes to touch them and do nothing else.

That is what memory allows a plastic network on arrays like hebbax's, whose synapses are visited at presynaptic spikes
only, however it is programmed: every line counts once a step, in the order of the first visit, as if one pass served
all projections, and all are known beforehand.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import hebbax

LINE = 64
# Lines between prefetch and use. `python benchmarks/lines.py` tries others: from 8 to 64 they differ less than two runs
# of one (45 MB: 4.4 to 5.4 ns a line on one thread, 500 MB: 8.8 to 10.5, 2 GB: 13 to 16; on two, half of that).
AHEAD = 24


@functools.cache
def _compiled(ahead: int = AHEAD) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library, source = Path(folder) / "lines.so", Path(__file__).with_suffix(".c")
        # (not -ffast-math, with which GCC 12 would have this process flush subnormals from then on)
        options = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", f"-DAHEAD={ahead}"]
        subprocess.run(["cc", *options, "-o", library, source], check=True, capture_output=True, text=True)
        compiled = ctypes.CDLL(str(library))
    compiled.reserve.argtypes, compiled.reserve.restype = [ctypes.c_size_t], ctypes.c_void_p
    compiled.release.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    numbers = np.ctypeslib.ndpointer(np.uint32, flags="C")
    compiled.touch.argtypes = [ctypes.c_void_p, numbers, ctypes.c_int64, ctypes.c_int]
    compiled.touch.restype = ctypes.c_float
    return compiled


class Lines:
    """Lines that a step visits, of arrays that lie one behind the other in a memory of their own."""

    def __init__(self) -> None:
        self.size = 0
        self._starts: dict[int, int] = {}  # by the array's identity, its first line
        self._kept: list = []  # so that no other array takes one's identity
        self._visits: list[np.ndarray] = []

    def visit(self, array: jax.Array, begin: np.ndarray, end: np.ndarray | None = None, writes: bool = False) -> None:
        """Elements `begin` to `end` (each one alone, without) of an array."""
        if id(array) not in self._starts:
            self._starts[id(array)] = self.size
            self._kept.append(array)
            self.size += -(-array.nbytes // LINE)
        end = begin + 1 if end is None else end
        full = begin < end
        first = begin[full].astype(np.int64) * array.dtype.itemsize // LINE
        last = (end[full].astype(np.int64) * array.dtype.itemsize - 1) // LINE
        lines = ranges(first, last + 1) + self._starts[id(array)]
        self._visits.append(2 * lines + writes)

    def step(self) -> np.ndarray:
        """Those visited since the last step, each once, in order; written if any visit wrote."""
        visits, self._visits = np.concatenate(self._visits), []
        lines, first, place = np.unique(visits >> 1, return_index=True, return_inverse=True)
        written = np.zeros(lines.size, np.int64)
        np.maximum.at(written, place, visits & 1)
        return (2 * lines + written)[np.argsort(first)]


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All integers from each `begin` to its `end`, one behind the other."""
    sizes = end - begin
    return np.repeat(begin - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())


def rows(lines: Lines, synapses: hebbax.Synapses, weight: jax.Array | None, spiking: np.ndarray) -> None:
    """What a presynaptic spike visits: its row, and the weights, or, where all are one, where the row is."""
    begin, end = (np.asarray(synapses.indptr)[spiking + k] for k in (0, 1))
    lines.visit(synapses.indices, begin, end)
    if weight is None:
        lines.visit(synapses.indptr, spiking)
    else:  # (synapses that learn begin where their neuron says, which also has a trace)
        lines.visit(weight, begin, end, writes=True)


def seconds(steps: Sequence[np.ndarray], size: int, threads: int, rounds: int, ahead: int = AHEAD) -> float:
    """Seconds that touching the lines of a step takes, of the quickest round, in which all steps' are."""
    compiled, count = _compiled(ahead), sum(x.size for x in steps)
    if 2 * size >= 2**32:
        raise ValueError(f"size: got {size} lines, expected less than 2**31")
    lines = np.concatenate([*steps, np.zeros(ahead)]).astype(np.uint32)
    memory = compiled.reserve(size * LINE)
    if memory is None:
        raise MemoryError(f"size: got {size} lines, for which there is no memory")
    try:
        times = []
        for _ in range(rounds + 1):
            started = time.perf_counter()
            compiled.touch(memory, lines, count, threads)
            times.append(time.perf_counter() - started)
    finally:
        compiled.release(memory, size * LINE)
    return min(times[1:]) / len(steps)


def main() -> None:
    """How long a line takes, of one memory, by how far ahead it is fetched: random lines, none twice."""
    rng = np.random.default_rng(0)
    for megabytes in (45, 500, 2000):
        size = megabytes * 10**6 // LINE
        lines = [2 * rng.permutation(size)[:500_000].astype(np.int64)]
        for ahead in (8, 16, 24, 32, 64):
            for threads in (1, 2):
                each = seconds(lines, size, threads, 7, ahead) / lines[0].size * 1e9
                print(f"{megabytes:5} MB, {ahead:3} ahead, {threads} threads: {each:5.1f} ns a line")


if __name__ == "__main__":
    main()
