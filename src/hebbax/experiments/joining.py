"""Synapses that do not learn, in the rows of those that do.

At a presynaptic spike its row is found in every projection, a cache line or more each time. Where a network is shared
out among so many devices that a row is a few synapses, that is most of a step. So two projections of the same
population and weight are visited together: synapses that do not learn lie onto neurons of whose spikes the rule is not
told, and without a trace they change by nothing.
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
# 0.92 of the time where these are 11, 0.91 and 1.01 of 44, 0.93 and 0.94 of 176, 1.02 of 700, and 1.05 of 11 000; of
# 225 in a small network 0.96. By runs in turn that are not kept as a benchmark: noise is a twentieth.)
SHORT = 256
MOST = 1 << 30  # synapses of a device, which 32 bits have to number


def joined(network: Network, learning: dict[int, Learning], shards: int) -> tuple[Network, dict[int, np.ndarray]]:
    """The same network, with fewer projections if rows are short on so many shards; `learning` is that of its own.

    Also returned is, by the place of a projection that is made of two, onto which neurons its synapses learn.
    """
    left, learns = dict(enumerate(network.projections)), {}
    for k, how in learning.items():
        given = left[k]
        same = [i for i, p in left.items() if p.inhibitory == given.inhibitory]
        # (If there are others of their sign, a neuron would receive what arrives in another order.)
        if len(same) == 2 and isinstance(how, Late):
            (other,) = set(same) - {k}
            if _go_together(network, given, left[other], how, shards):
                left[k], learns[k] = _together(network, given, left.pop(other)), cast(np.ndarray, given.onto)
    places = list(left)
    found = dataclasses.replace(network, projections=list(left.values()))
    return found, {places.index(k): onto for k, onto in learns.items()}


def _go_together(network: Network, learns: Projection, static: Projection, how: Late, shards: int) -> bool:
    pair, n = (learns, static), network.excitatory.size
    for p in pair:
        if p.onto is not None and (np.shape(p.onto) != (n,) or np.asarray(p.onto).dtype != bool):
            got = f"{np.asarray(p.onto).dtype} of shape {np.shape(p.onto)}"
            raise ValueError(f"onto: got {got}, expected bool of shape {(n,)}")
    if any(p.onto is None or isinstance(p.drawn, hebbax.Synapses) or not p.expected for p in pair):
        return False
    if static.rule is not None or static.weight != learns.weight or _overlap(*pair):
        return False
    rows, synapses = np.sum(network.excitatory != learns.inhibitory), learns.expected + static.expected
    # (Out of bounds, they would not stay as they are.)
    return synapses <= shards * min(SHORT * rows, MOST) and how.numbers.low <= static.weight <= how.numbers.high


def _overlap(*pair: Projection) -> bool:
    return bool(np.all([cast(np.ndarray, p.onto) for p in pair], axis=0).any())


def _together(network: Network, learns: Projection, static: Projection) -> Projection:
    drawn = functools.partial(_draw, learns, static, network.shape)
    return dataclasses.replace(learns, drawn=drawn, onto=None, expected=learns.expected + static.expected)


def _draw(
    learns: Projection, static: Projection, shape: tuple[int, int], first: int = 0, stop: int | None = None
) -> hebbax.Synapses:
    """The synapses of both, of which only the columns are there: all that a shard is built from."""
    stop = shape[1] if stop is None else stop
    (starts, rows), (others, other_rows) = (_columns(p, shape, first, stop) for p in (learns, static))
    is_first = np.repeat(np.diff(starts) > 0, np.diff(starts) + np.diff(others))
    both = np.empty(is_first.size, rows.dtype)
    both[is_first], both[~is_first] = rows, other_rows
    fields = dict.fromkeys((*CSR, *CSC)) | dict(csc_indptr=starts + others, csc_indices=both)
    return assemble(hebbax.Synapses, {**fields, "shape": shape})


def _columns(projection: Projection, shape: tuple[int, int], first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    synapses = cast(Callable, projection.drawn)(first, stop)
    if not isinstance(synapses, hebbax.Synapses) or synapses.shape != shape:
        expected = f"a hebbax.Synapses of shape {shape}"
        raise TypeError(f"drawn: got {synapses!r} from drawn({first}, {stop}), expected {expected}")
    starts = np.asarray(synapses.csc_indptr, np.int64)
    if (wrong := np.flatnonzero((np.diff(starts) > 0) & ~cast(np.ndarray, projection.onto))).size:
        raise ValueError(f"onto: got a projection with a synapse onto neuron {wrong[0]}, for which it is False")
    return starts, np.asarray(synapses.csc_indices)[: starts[-1]]
