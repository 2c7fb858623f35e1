"""What sweeps share: the numbers of many members of a run side by side, and what the members come to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

MOST_OF_MEMORY = 0.8  # of what is free: a sweep that would take more is refused


class Outcome(NamedTuple):
    """What the members of a sweep come to; the first axis of all arrays is theirs."""

    steps: int
    is_stopped: bool  # before its end
    rates: dict[str, np.ndarray]  # (members, neurons), in Hz, after the first part of the run, by population
    weight: np.ndarray  # (members, nse) at the end; empty if nothing learns
    low: np.ndarray  # (members,): bounds of the weights
    high: np.ndarray  # (members,), infinite if there is none
    unit: str  # of weights
    wall_time: float  # in seconds, without compilation


def side_by_side(members: Sequence[Any]) -> tuple[Any, Any]:
    """Pytrees of numbers as one of arrays, and for `jax.vmap` its axes: where all are equal, the number itself.

    Numbers become float32, as a run by itself has them; arrays (of one axis) of different lengths are padded. A
    ValueError if the pytrees differ in structure: what is static in them shapes the program.
    """
    flat, kinds = zip(*map(jax.tree.flatten, members), strict=True)
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError("expected members that differ in numbers only")
    leaves, axes = [], []
    for own in zip(*flat, strict=True):
        same = all(np.array_equal(x, own[0]) for x in own)
        leaves.append(own[0] if same else _stacked(own))
        axes.append(None if same else 0)
    return jax.tree.unflatten(kinds[0], leaves), jax.tree.unflatten(kinds[0], axes)


def _stacked(values: Sequence[Any]) -> np.ndarray:
    arrays = [np.asarray(x, np.float32) if isinstance(x, float) else np.asarray(x) for x in values]
    longest = max(x.size for x in arrays)
    return np.stack([np.pad(x, (0, longest - x.size)) if x.ndim else x for x in arrays])


def check_memory(members: int, each: int, shared: int) -> None:
    """A MemoryError unless so many bytes of each member, and of all together, are free."""
    needed, free = members * each + shared, int(MOST_OF_MEMORY * _free())
    if needed > free:
        fit = max(0, (free - shared) // each)
        raise MemoryError(
            f"{members} members of {each / 1e6:.3g} MB and {shared / 1e6:.3g} MB for all take {needed / 1e9:.3g} GB, "
            f"expected at most {free / 1e9:.3g} GB, which is {MOST_OF_MEMORY:.0%} of the free memory: {fit} members fit"
        )


def _free() -> int:
    """Bytes of memory that are free, of the first device if that has its own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
