"""Synapses that do not learn, in the rows of those that do.

At a presynaptic spike its row is found in every projection, a cache line or more each time. Where a network is shared
out among so many devices that a row is a few synapses, that is most of a step. So synapses of the same weight that
come from the same population are visited together: those that do not learn lie onto neurons whose spikes and traces
the rule is not told of, and change by nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import numpy as np

import hebbax
from hebbax._core.building import CSC, CSR
from hebbax._core.pytree import assemble
from hebbax.experiments.learning import Late, Learning
from hebbax.experiments.network import Network, Projection

# Synapses of a row, on average, up to which one visit is to find both. (A step of `hebbax.experiments.hpc` then took
# 0.92 of the time where these are 11, 0.91 and 1.01 where they are 44, 1.01 of 176, and 1.04 of 11 000.)
SHORT = 64


def joined(network: Network, learning: dict[int, Learning], shards: int) -> Network:
    """The same network, with fewer projections if rows are short on so many shards; `learning` is that of its own."""
    left = dict(enumerate(network.projections))
    for k, how in learning.items():
        for other, static in list(left.items()):
            if isinstance(how, Late) and _go_together(left[k], static, how, SHORT * shards * network.excitatory.size):
                left[k] = _together(left[k], static, network.shape)
                del left[other]
    return dataclasses.replace(network, projections=list(left.values()))


def _go_together(learns: Projection, static: Projection, how: Late, most: int) -> bool:
    if learns.onto is None or static.onto is None or (learns.onto & static.onto).any():
        return False
    if static.rule is not None or (static.inhibitory, static.weight) != (learns.inhibitory, learns.weight):
        return False
    if isinstance(learns.drawn, hebbax.Synapses) or isinstance(static.drawn, hebbax.Synapses):
        return False
    # (out of bounds, they would not stay as they are)
    return learns.expected + static.expected <= most and how.numbers.low <= static.weight <= how.numbers.high


def _together(learns: Projection, static: Projection, shape: tuple[int, int]) -> Projection:
    assert learns.onto is not None and static.onto is not None
    return dataclasses.replace(
        learns,
        drawn=functools.partial(_draw, learns, static, shape),
        expected=learns.expected + static.expected,
        onto=learns.onto | static.onto,
        learns=learns.onto,
    )


def _draw(
    learns: Projection, static: Projection, shape: tuple[int, int], first: int = 0, stop: int | None = None
) -> hebbax.Synapses:
    """The synapses of both, of which only the columns are there: all that a shard is built from."""
    stop = shape[1] if stop is None else stop
    parts = [_columns(x, first, stop) for x in (learns, static)]
    (starts, rows), (others, other_rows) = parts
    is_first = np.repeat(np.diff(starts) > 0, np.diff(starts) + np.diff(others))
    both = np.empty(is_first.size, rows.dtype)
    both[is_first], both[~is_first] = rows, other_rows
    fields = dict.fromkeys((*CSR, *CSC)) | dict(csc_indptr=starts + others, csc_indices=both)
    return assemble(hebbax.Synapses, {**fields, "shape": shape})


def _columns(projection: Projection, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    drawn, onto = cast(Callable, projection.drawn), cast(np.ndarray, projection.onto)
    synapses = drawn(first, stop)
    starts = np.asarray(synapses.csc_indptr)
    if (wrong := np.flatnonzero((np.diff(starts) > 0) & ~onto)).size:
        raise ValueError(f"projections: got a synapse onto neuron {wrong[0]}, expected none, by their `onto`")
    return starts, np.asarray(synapses.csc_indices)[: starts[-1]]
