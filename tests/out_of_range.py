"""Indices out of range of every kind. As a script it tries them all in one process and then dies of one.

Usage: python out_of_range.py BACKEND THREADS, where `inplace` is a backend too: the functions of hebbax.inplace
"""

import functools
import re
import sys

import jax
import numpy as np

import hebbax
from problems import INDEX_ERRORS, SPECS, call, enable_x64, operands, random_network

# Shape, synapses, whether rows are sorted, how uneven they are; with the large one every kernel goes parallel.
SMALL, UNEVEN, LARGE = ((6, 7), 30, False), ((5, 4), 2000, False, "hub"), ((300, 400), 1_200_000, True)
# What an update does beside adding must not matter.
BOUNDS = {"w_min": np.float32(-1), "w_max": np.float32(1)}
EXTRAS = (
    {}, BOUNDS, {"gain": 2.0, "w_max": np.float32(1)}, BOUNDS | {"soft_bound": "upper", "mu": 0.5},
    BOUNDS | {"soft_bound": "lower", "weight_in_bounds": True},
)  # fmt: skip


def wrong_elements(limit, dtype):
    """Values that no element may have, some of which are in range once truncated to 32 bits."""
    info = np.iinfo(dtype)
    yield from (-1, limit, limit + 1, -limit, info.min, info.max)
    if dtype == np.int64:
        yield from (2**32, 2**32 + 1, -(2**32), -(2**32) + 1, 2**31, 2**62)


def wrong_indptr(indptr, nse):
    """Copies of `indptr` in which a row ends before it begins, or leaves [0, nse]."""
    info, middle = np.iinfo(indptr.dtype), indptr.size // 2
    for position, value in (
        (0, -1), (0, info.min), (0, nse + 1), (middle, -1), (middle, nse + 1), (middle, info.max), (middle, info.min),
        (-1, nse + 1), (-1, 0), (-1, -1), (-1, info.max), (-1, info.min),
    ):  # fmt: skip
        wrong = indptr.copy()
        wrong[position] = value
        yield f"indptr[{position}] = {value}", wrong
    yield "decreasing", indptr[::-1].copy()
    yield "lengths that overflow when summed", np.where(np.arange(indptr.size) % 2, info.max, 0).astype(indptr.dtype)


@functools.cache
def network_of(size):
    return random_network(np.random.default_rng(0), *size)


def cases(spec, size, index_dtype):
    """Yield (what, the array's name, operands, shape); every neuron spikes, so that every element is looked at."""
    shape, nse, *_ = size
    given = operands(spec, np.random.default_rng(1), network_of(size), p_spike=1.0, index_dtype=index_dtype)
    for name in ("indices", "weight_indices") if spec.permuted else ("indices",):
        limit = nse if name == "weight_indices" else spec.sizes(shape)[1]
        values, positions = list(wrong_elements(limit, index_dtype)), (0, nse // 2, nse - 1)
        if size != SMALL:
            values, positions = (-1, limit, np.iinfo(index_dtype).max), (0, nse - 1)
        for value in values:
            for position in positions:
                wrong = given[name].copy()
                wrong[position] = value
                yield f"{name}[{position}] = {value}", name, given | {name: wrong}, shape
            yield f"{name} all {value}", name, given | {name: np.full(nse, value, index_dtype)}, shape
    for what, wrong in wrong_indptr(given["indptr"], nse):
        yield what, "indptr", given | {"indptr": wrong}, shape


def cases_without_neurons_or_synapses(spec, xla):
    """No element may be read where there is nothing to read; `xla` drops a call whose result is empty (name: None)."""
    update = spec.kind == "update"
    shape = (3, 0) if spec.event == "pre" else (0, 3)
    nothing, zeros = np.zeros(0, np.int32), np.zeros(4, np.int32)
    given = {"weight": np.ones(4, np.float32), "indices": zeros, "indptr": np.array([0, 2, 4, 4], np.int32)}
    given |= {"spike": np.ones(3, bool)} | ({"weight_indices": zeros} if spec.permuted else {})
    given |= {"trace": np.ones(0, np.float32)} if update else {}
    yield "no other neurons", None if xla and not update else "indices", given, shape
    empty = dict.fromkeys(("weight", "indices") + (("weight_indices",) if spec.permuted else ()), nothing)
    empty["weight"] = np.ones(0, np.float32)
    given |= {"trace": np.ones(2, np.float32)} if update else {}
    yield "no synapses", None if xla and update else "indptr", given | empty, (3, 2) if spec.event == "pre" else (2, 3)


def all_cases(threads, xla=True):
    """Yield (what, spec, the array's name, operands and options, shape)."""
    for spec in SPECS:
        for size in (SMALL, UNEVEN, LARGE)[: 2 if threads == 1 else 3]:
            for index_dtype in (np.int32, np.int64):
                for number, (what, name, given, shape) in enumerate(cases(spec, size, index_dtype)):
                    if spec.kind == "update":
                        extra = EXTRAS[number % len(EXTRAS)]
                        n = given["spike"].size
                        given = given | {k: np.full(n, x, np.float32) if k == "gain" else x for k, x in extra.items()}
                    yield f"{spec.name}, {size[1]} synapses, {index_dtype.__name__}, {what}", spec, name, given, shape
        for what, name, given, shape in cases_without_neurons_or_synapses(spec, xla):
            yield f"{spec.name}, {what}", spec, name, given, shape


def run(spec, given, shape, backend):
    if backend != "inplace":
        return jax.block_until_ready(call(spec, given, shape=shape, backend=backend))
    arguments = {spec.public_name(name): x for name, x in given.items()}
    return getattr(hebbax.inplace, spec.name)(**arguments | {"weight": given["weight"].copy()}, shape=shape)


def main(backend, threads):
    errors = IndexError if backend == "inplace" else INDEX_ERRORS
    hebbax.set_num_threads(threads)
    for what, spec, name, given, shape in all_cases(threads, xla=backend != "inplace"):
        print(what, end=": ", flush=True)  # before the call, so that a crash says where
        try:
            run(spec, given, shape, backend)
        except errors as error:
            named = name and re.search(rf"\b{spec.name}: {name}\[", str(error))
            print("reported" if named else f"reported wrongly: {error}")
        else:
            print("not reported" if name else "nothing to report")
        quiet = given | {"spike": np.zeros_like(given["spike"])}  # then nobody looks, and nothing may break
        run(spec, quiet, shape, backend)
    print("now uncaught", flush=True)
    _, spec, _, given, shape = next(all_cases(1))
    run(spec, given, shape, backend)


if __name__ == "__main__":
    with enable_x64(True):
        main(sys.argv[1], int(sys.argv[2]))
