"""Structures that are wrong in every way, given to the emulated kernels in memory between pages that nobody may touch.

Usage: python hostile.py CASES [FIRST [TEXT OTHER]]. A case that goes wrong is named, or ends the process after its
hundred was. With TEXT, which the sources must have, they are compiled with OTHER instead of it.
"""

import sys

import numpy as np

import emulated.compiler as compiler
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from hebbax._cuda import launch, plan
from hostile_arrays import Guarded, extremes
from problems import DTYPES

# Small blocks and few tiles: what takes a large network otherwise happens in a small one.
SMALL = {"THREADS": 64, "SPIKES": 4, "TILES": 2}
LARGEST = 2**18  # bytes, at least, of the largest array of a problem
# What C++ leaves undefined, such as an index beyond an array in shared memory, ends the process.
SANITIZED = ("-fsanitize=undefined", "-fno-sanitize=vptr", "-fsanitize-undefined-trap-on-error")
KINDS = ("update", "propagate", "collect")


class Kernels:
    """The variants that are tried, compiled for the host."""

    def __init__(self, text="", other=""):
        plan.CONSTANTS |= SMALL
        plan.THREADS = SMALL["THREADS"]
        plan._GRID_Y = 2  # so that a block works on one member of the batch after another
        compiler.FLAGS += SANITIZED
        self._modules, self._edit = {}, (text, other)

    def run(self, planned, addresses, multiprocessors, seed):
        key = (planned.kind, planned.names)
        if key not in self._modules:
            source = launch.source(planned.kind)
            assert self._edit[0] in source
            edited = source.replace(*self._edit) if self._edit[0] else source
            self._modules[key] = compiler.Module(edited, planned.names)
        call = planned.template.copy()
        for name, address in addresses.items():
            call[name]["data"] = address
        for number, one in enumerate(planned.launches):
            grid = one.grid(multiprocessors)
            self._modules[key].launch(one.name, grid, (SMALL["THREADS"],), call, seed + number)


def numbers(rng, size, limit, dtype):
    """Numbers of which few, or all, or none lie in [0, limit]."""
    way = rng.integers(6)
    x = rng.integers(0, max(limit, 1), size)
    odd = extremes(limit, dtype)
    if way == 1:
        x = rng.integers(-3, limit + 4, size)
    elif way == 2:
        x = np.full(size, rng.choice(odd))
    elif way > 2:
        x = np.where(rng.random(size) < rng.choice([0.02, 0.2, 0.9]), rng.choice(odd, size), x)
    return x.astype(dtype)


def wrong_indptr(rng, n, nse, dtype):
    way = rng.integers(6)
    if way < 2:
        x = np.sort(rng.integers(0, nse + 1, n + 1))
        x[0], x[-1] = 0, nse
        return x[:: rng.choice([1, -1])].astype(dtype)
    if way == 2:  # every row is everything: their sum is n times what it may be
        return np.where(np.arange(n + 1) % 2, nse, 0).astype(dtype)
    if way == 3:
        return np.where(np.arange(n + 1) % 2, np.iinfo(dtype).max, np.iinfo(dtype).min).astype(dtype)
    return numbers(rng, n + 1, nse, dtype)


def elements(given, nse, n_other):
    """Which slot, partner and neuron the elements have that are to be worked on, in their order."""
    at, events = [], np.flatnonzero(given["spike"])
    begin = np.clip(given["indptr"][events].astype(object), 0, nse).astype(int)
    stop = np.clip(given["indptr"][events + 1].astype(object), 0, nse).astype(int)
    at = [np.arange(a, b) for a, b in zip(begin, stop, strict=True)]
    event = np.repeat(events, [x.size for x in at])[:nse]
    k = np.concatenate([np.zeros(0, int), *at])[:nse]
    is_shared = given["weight"].size == 1 != nse
    slot = given["weight_indices"][k] if given["weight_indices"].size and not is_shared else k
    partner = given["indices"][k]
    ok = (slot >= 0) & (slot < nse) & (partner >= 0) & (partner < n_other)
    return slot[ok].astype(int), partner[ok].astype(int), event[ok]


def expected(kind, given, result, n_other):
    """What the result is to be, and where this says so. Whole numbers: sums do not depend on their order."""
    slot, partner, event = elements(given, given["indices"].size, n_other)
    gain = given.get("gain", np.ones(1))
    gain = gain if gain.size > 1 else np.broadcast_to(gain if gain.size else 1, given["spike"].size)
    weight = np.broadcast_to(given["weight"], given["indices"].size)
    out, known = result.astype(float), np.ones(result.shape, bool)
    if kind == "update":
        known[slot] = np.bincount(slot, minlength=result.size)[slot] == 1  # others are written more than once
        out[slot] += gain[event] * given["trace"][partner]
        low, high = given["w_min"], given["w_max"]
        clipped = np.maximum(out, low) if low.size else out
        clipped = np.minimum(clipped, high) if high.size else clipped
        out[slot] = clipped[slot]
    elif kind == "propagate":
        out[:] = 0
        np.add.at(out, partner, gain[event] * weight[slot])
    else:
        out[:] = 0
        np.add.at(out, event, weight[slot].astype(float) * given["trace"][partner])
    return out, known


def problem(rng):
    """(spec, batch, operands, result): each operand with the batch in front, where sizes of 1 mean shared."""
    kind = KINDS[rng.choice(3, p=[0.6, 0.2, 0.2])]
    spec = (UPDATE_POST, UPDATE_PRE)[rng.integers(2)].like(kind)
    batch = (2, 3)[: rng.choice(3, p=[0.7, 0.2, 0.1])]
    scale = rng.choice([3, 30, 130, 1200], p=[0.3, 0.5, 0.15, 0.05])
    n_event, n_other, nse = (int(x) for x in rng.integers(1, scale + 1, 3))
    if rng.random() < 0.3:
        nse *= 4
    dtype, index = DTYPES[("float32", "float64")[rng.integers(2)]], np.dtype(rng.choice(["i4", "i8"]))

    def spread(size, low=-8, high=9, dtype=dtype):
        shape = [n if rng.random() < 0.5 else 1 for n in batch]
        return rng.integers(low, high, (*shape, size)).astype(dtype)

    def maybe(*sizes):
        return spread(int(rng.choice([0, *sizes])))

    given = {
        "weight": rng.integers(-8, 9, (*batch, nse)).astype(dtype),
        "indices": numbers(rng, nse, n_other, index),
        "indptr": wrong_indptr(rng, n_event, nse, np.dtype(rng.choice(["i4", "i8"]))),
        "weight_indices": numbers(rng, nse, nse, index) if spec.permuted else np.zeros(0, index),
        "spike": spread(n_event, 0, 2, bool) | (rng.random() < 0.3),
    }
    if spec.permuted and rng.random() < 0.5:
        given["weight_indices"] = rng.permutation(nse).astype(index)
    if kind != "update" and rng.random() < 0.3:  # one that all elements share
        given["weight"] = given["weight"][..., :1]
    if kind != "propagate":
        given["trace"] = spread(n_other)
    if kind != "collect":
        given["gain"] = maybe(1, n_event)
    if kind == "update":
        given |= {"w_min": maybe(1, nse), "w_max": maybe(1, nse)}
        return spec, batch, given, given["weight"].copy()
    size = n_other if kind == "propagate" else n_event
    return spec, batch, given, np.full((*batch, size), np.nan, dtype)


def check(kernels, memory, seed):
    rng = np.random.default_rng(seed)
    spec, batch, given, result = problem(rng)
    n_other = result.shape[-1] if spec.kind == "propagate" else given["trace"].shape[-1]
    planned = plan.plan_call(spec, result, given)
    buffers = given | {"result": result, "rows": np.full(planned.scratch, 0xFF, np.uint8)}
    if spec.kind == "update":
        del buffers["weight"]
    there = {name: memory[name].put(x, rng.random() < 0.5) for name, x in buffers.items()}
    kernels.run(planned, {name: address for name, (_, address) in there.items()}, int(rng.integers(1, 4)), seed)
    out = there["result"][0]
    for member in np.ndindex(*batch):
        own = {
            name: x if x.ndim == 1 else x[tuple(i % n for i, n in zip(member, x.shape, strict=False))]
            for name, x in given.items()
        }
        want, known = expected(spec.kind, own, result[member], n_other)
        if not np.array_equal(out[member][known], want[known]):
            raise AssertionError(f"case {seed}: {spec.name}, {planned.names}: wrong result")
    wrong = [name for name, x in buffers.items() if name not in ("result", "rows") and (there[name][0] != x).any()]
    dirty = [name for name in buffers if not memory[name].is_clean()]
    if wrong or dirty:
        raise AssertionError(f"case {seed}: {spec.name}, {planned.names}: {wrong} changed, written outside {dirty}")


def guarded_memory():
    """Memory for each array of a call."""
    return {name: Guarded(LARGEST) for name in plan.FIELDS}


def main(cases, first=0, *edit):
    kernels, memory = Kernels(*edit), guarded_memory()
    for seed in range(first, first + cases):
        if seed % 100 == 0:
            print(f"cases from {seed}", flush=True)
        check(kernels, memory, seed)
    print(f"{cases} cases are right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
