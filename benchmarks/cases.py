"""What is measured: networks, the cases made of them, and the figures that each case must reach."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
import scipy.sparse

from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, SPECS, UPDATE_POST, UPDATE_PRE, Spec

# Names of contenders that targets refer to.
ONE, TWO = "hebbax 1t", "hebbax 2t"  # with weight_in_bounds=True, on 1 and 2 threads
CLIP_ONE, CLIP_TWO = "hebbax clip 1t", "hebbax clip 2t"  # default: every weight is clipped
BOUND_ONE, BOUND_TWO = "bound 1t", "bound 2t"
PEER = "brainevent numba"  # its default on CPUs
SOFT = {mu: f"hebbax mu={mu:g} 1t" for mu in (1.0, 0.4)}  # a soft upper bound; otherwise as ONE
MEMBERS, HOW = 8, ("vmap", "calls", "loops")  # networks of an ensemble, and how they are run
ENSEMBLES = {  # by the promise that weights are in the bounds, and how the members are run
    (promise, how): f"hebbax{'' if promise else ' clip'} {how} {MEMBERS}" for promise in (True, False) for how in HOW
}
PEER_ENSEMBLE = f"{PEER} vmap {MEMBERS}"
CSC_VIEW, SYNAPSES, RANDOM, ARGSORT = "hebbax CSC view", "hebbax Synapses", "hebbax random", "NumPy argsort"

PATTERNS = 8  # different spike vectors, which take turns


class Target(NamedTuple):
    """`time of numerator / time of denominator` must be at least, or at most, `limit`."""

    numerator: str
    denominator: str
    sign: str
    limit: float

    def reached(self, ratio: float) -> bool:
        return ratio >= self.limit if self.sign == "≥" else ratio <= self.limit


def faster(promise: float, default: float | None = None) -> tuple[Target, ...]:
    """How many times faster than the peer an operator must be, with `weight_in_bounds=True` and by default."""
    targets = (Target(PEER, TWO, "≥", promise),)
    return targets if default is None else (*targets, Target(PEER, CLIP_TWO, "≥", default))


@dataclass(frozen=True)
class Case:
    """One measurement of all contenders.

    `spec` is the operator; None stands for the whole plastic step (propagate pre, update pre, update post, traces).
    `mode` is 'scan' (in `lax.scan`, weight donated), 'eager' (one call at a time, weight kept, result awaited),
    'threads' (as 'scan', beside an elementwise operation on n neurons, 1 thread against 2), 'soft' (as 'scan', with and
    without a soft bound), 'ensemble' (as 'scan', several networks of one structure at once, by `vmap` or one after the
    other), or 'structure' (building the network, a step each).
    """

    spec: Spec | None
    n: int
    synapses: int
    rate: float
    mode: str = "scan"
    dtype: str = "float32"
    units: bool = False
    targets: tuple[Target, ...] = ()

    @property
    def task(self) -> str:
        if self.mode == "structure":
            return "building the structure"
        return f"{self.spec.kind} {self.spec.event}" if self.spec else "whole step"

    @property
    def group(self) -> str:
        """What the case is listed under."""
        if self.mode == "threads":
            return f"{self.task}, scan, elementwise operation beside it"
        if self.mode == "structure":
            return self.task
        if self.mode == "soft":
            return f"{self.task}, scan, soft bound"
        if self.mode == "ensemble":
            return f"{self.task}, scan, ensemble of {MEMBERS}"
        return f"{self.task}, {self.mode}"

    @property
    def size(self) -> str:
        extras = [self.dtype] * (self.dtype != "float32") + ["units"] * self.units
        n, synapses = (f"{x:,}".replace(",", " ") for x in (self.n, self.synapses))
        rate = [f"{100 * self.rate:g}%"] * (self.mode != "structure")
        return ", ".join([n, synapses, *rate, *extras])

    @property
    def label(self) -> str:
        return f"{self.group}: {self.size}"


ROWS = (
    (100, 10, 0.01),
    (1_000, 100, 0.01),
    (10_000, 100, 0.01),
    (10_000, 1_000, 0.001),
    (10_000, 1_000, 0.01),
    (10_000, 1_000, 0.1),
)
SPARSE_ROW = (10_000, 100, 0.002)
THREAD_ROWS = (
    (1_000, 100, 0.01),
    (1_000, 100, 0.1),
    *ROWS[2:],
    (10_000, 100, 0.1),
    (100_000, 10, 0.01),
    (100_000, 100, 0.01),
    (1_000_000, 10, 0.001),
    (1_000_000, 10, 0.01),
)
NEAR_BOUND = (Target(BOUND_ONE, ONE, "≥", 0.7), Target(BOUND_TWO, TWO, "≥", 0.5))
SCAN_TARGETS = {
    (UPDATE_POST, ROWS[0]): faster(100, 40),
    (UPDATE_POST, ROWS[1]): faster(25, 6),
    (UPDATE_POST, ROWS[2]): faster(5, 2),
    (UPDATE_POST, ROWS[3]): faster(10, 1.5),
    (UPDATE_POST, ROWS[4]): NEAR_BOUND,
    (UPDATE_PRE, SPARSE_ROW): faster(20),
    (PROPAGATE_PRE, SPARSE_ROW): faster(6),
}


def _scan_cases():
    for spec in SPECS:
        for row in sorted((*ROWS, SPARSE_ROW), key=lambda row: (row[0], row[1], row[2])):
            yield Case(spec, *row, targets=SCAN_TARGETS.get((spec, row), ()))
    silent = Target(TWO, PEER, "≤", 0.02)
    yield Case(UPDATE_POST, 1_000, 100, 0.0, targets=(silent,))
    for n in (1_000, 10_000):
        yield Case(None, n, 100, 0.002, targets=faster(15))
    for dtype in ("float64", "bfloat16"):
        for spec, row in ((UPDATE_POST, ROWS[1]), (UPDATE_POST, ROWS[4]), (PROPAGATE_PRE, SPARSE_ROW)):
            yield Case(spec, *row, dtype=dtype)


def _eager_cases():
    for spec in (UPDATE_POST, UPDATE_PRE, PROPAGATE_PRE):
        for row in (ROWS[0], ROWS[1], ROWS[2], ROWS[4]):
            judged = row == ROWS[1] and spec.kind == "update"
            for units in (False, True) if row == ROWS[1] else (False,):
                yield Case(spec, *row, mode="eager", units=units, targets=faster(5, 4) if judged else ())


def _thread_cases():
    for spec in (UPDATE_POST, UPDATE_PRE, PROPAGATE_PRE, PROPAGATE_POST):
        pairs = ((ONE, TWO), (CLIP_ONE, CLIP_TWO)) if spec.kind == "update" else ((ONE, TWO),)
        for row in THREAD_ROWS:
            targets = [Target(two, one, "≤", 1.1) for one, two in pairs]
            if row in ROWS[-2:]:
                targets += [Target(one, two, "≥", 1.6) for one, two in pairs]
            yield Case(spec, *row, mode="threads", targets=tuple(targets))


def _soft_cases():
    for spec in (UPDATE_POST, UPDATE_PRE):
        for row in (*ROWS[:3], ROWS[4]):
            yield Case(spec, *row, mode="soft", targets=(Target(SOFT[1.0], ONE, "≤", 1.1),))


def _ensemble_cases():
    for row in ROWS[:3]:
        targets = [
            Target(ENSEMBLES[promise, "vmap"], ENSEMBLES[promise, "calls"], "≤", 1.15) for promise in (True, False)
        ]
        if row == ROWS[1]:
            targets += [Target(PEER_ENSEMBLE, ENSEMBLES[promise, "vmap"], "≥", 20) for promise in (True, False)]
        yield Case(UPDATE_POST, *row, mode="ensemble", targets=tuple(targets))


def _structure_cases():
    for n, synapses in ((10_000, 1_000), (1_000_000, 10)):
        yield Case(None, n, synapses, 0.0, mode="structure", targets=(Target(ARGSORT, CSC_VIEW, "≥", 3),))


def cases(quick: bool) -> list[Case]:
    """All cases; the quick ones are those with a target, threads at a few sizes only."""
    listed = [
        *_scan_cases(), *_soft_cases(), *_ensemble_cases(), *_eager_cases(), *_thread_cases(), *_structure_cases()
    ]  # fmt: skip
    if quick:
        judged = (case for case in listed if case.targets)
        listed = [case for case in judged if case.mode != "threads" or (case.spec is UPDATE_POST and case.n <= 10_000)]
    return listed


class Half(NamedTuple):
    """The synapses seen from one side: element `k` belongs to event neuron `owner[k]` and to neuron `indices[k]`."""

    indices: np.ndarray
    indptr: np.ndarray
    weight_indices: np.ndarray | None
    owner: np.ndarray


class Network(NamedTuple):
    pre: Half
    post: Half

    @property
    def n(self) -> int:
        return self.pre.indptr.size - 1

    def half(self, spec: Spec) -> Half:
        return self.pre if spec.event == "pre" else self.post


@functools.lru_cache(maxsize=1)
def network(n: int, synapses: int) -> Network:
    """Random connections: every neuron has the same number of targets, drawn uniformly."""
    rng = np.random.default_rng(0)
    indices = np.sort(rng.integers(n, size=(n, synapses), dtype=np.int32), axis=1).ravel()
    indptr = np.arange(0, indices.size + 1, synapses, dtype=np.int32)
    position = np.arange(indices.size, dtype=np.int32)
    csc = scipy.sparse.csr_array((position, indices, indptr), shape=(n, n)).tocsc()
    neurons = np.arange(n, dtype=np.int32)
    return Network(
        pre=Half(indices, indptr, None, np.repeat(neurons, synapses)),
        post=Half(csc.indices, csc.indptr, csc.data, np.repeat(neurons, np.diff(csc.indptr))),
    )


def spikes(case: Case) -> dict[str, np.ndarray]:
    """Which neurons spike in step i: row `i % PATTERNS`, of shape `(PATTERNS, n)`, for either side."""
    rng = np.random.default_rng(1)
    return {side: rng.random((PATTERNS, case.n)) < case.rate for side in ("pre", "post")}


def initial_state(case: Case) -> dict[str, np.ndarray]:
    """Weights within the bounds 0 and 1, traces of either sign, so that both bounds are met within a few steps.

    Where a bound is soft, the traces are small: at the bounds there would be no power to take.
    """
    rng = np.random.default_rng(2)
    dtype = jax.numpy.dtype(case.dtype)
    largest = 5e-5 if case.mode == "soft" else 0.05
    traces = (rng.uniform(-largest, largest, case.n) if case.spec else np.zeros(case.n) for _ in range(2))
    return {
        "weight": rng.random(case.n * case.synapses, dtype=np.float32).astype(dtype),
        "out": np.zeros(case.n, dtype),
        **{name: trace.astype(dtype) for name, trace in zip(("pre_trace", "post_trace"), traces, strict=True)},
    }
