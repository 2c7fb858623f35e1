"""What the processes of a run tell each other beside its spikes."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils


def any_process(stop: bool) -> bool:
    """Whether any process wants to stop: none may leave the others waiting for it."""
    return stop if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(stop)).any())


def agreed(number: int, what: str) -> int:
    """A number that has to be the same in all processes."""
    if jax.process_count() > 1:
        numbers = multihost_utils.process_allgather(np.array(number, np.int32))
        if (numbers != number).any():
            raise RuntimeError(f"{what}: got {numbers.tolist()} in the processes, expected the same in all")
    return number


def concatenated(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, of one axis and of any length each, one after the other, in every process."""
    if jax.process_count() == 1:
        return own
    sizes = multihost_utils.process_allgather(np.array(own.size))
    filled = np.zeros(sizes.max(), own.dtype)
    filled[: own.size] = own
    all_of_them = np.asarray(multihost_utils.process_allgather(filled)).reshape(sizes.size, -1)
    return np.concatenate([x[:size] for x, size in zip(all_of_them, sizes, strict=True)])
