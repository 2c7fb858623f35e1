"""The lists of rows that operators work on: found by many blocks, and yet always the same."""

import numpy as np
import pytest

import emulated
from emulated.compiler import Module
from hebbax._core.specs import UPDATE_PRE
from hebbax._cuda import launch
from hebbax._cuda.plan import THREADS, plan_call

pytestmark = pytest.mark.skipif(emulated.find_compiler() is None, reason="no C++ compiler was found")


@pytest.mark.parametrize("multiprocessors", [1, 2, 132])
@pytest.mark.parametrize("n", [1, 1000, 5000])
@pytest.mark.parametrize("index_dtype", ["i4", "i8"])
def test_rows_are_listed_in_the_order_of_their_neurons(rng, n, index_dtype, multiprocessors):
    size = rng.integers(0, 4, n) * rng.integers(0, 2, n)
    indptr = np.concatenate([[0], np.cumsum(size)]).astype(index_dtype)
    spike = rng.random((3, n)) < np.array([[0.01], [0.5], [1]])
    given = {
        "weight": np.zeros((3, max(indptr[-1], 1)), "f4"), "indices": np.zeros(max(indptr[-1], 1), "i4"),
        "indptr": indptr, "spike": spike, "trace": np.zeros((1, 1), "f4"),
    }  # fmt: skip
    plan = plan_call(UPDATE_PRE, given["weight"], given)
    scratch = np.full(plan.scratch // 8, -1)
    call = plan.template.copy()
    for name, x in (given | {"rows": scratch}).items():
        call[name]["data"] = x.ctypes.data
    Module(launch.source("update"), ("find_rows",)).launch(
        "find_rows", plan.launches[0].grid(multiprocessors), (THREADS,), call
    )
    tiles, per_tile = int(call["tiles"][0]), int(call["per_tile"][0])
    for one, found in zip(spike, scratch.reshape(3, -1), strict=True):
        elements, rows, *lists = np.split(found, np.cumsum([tiles, tiles, n, n]))
        for tile in range(tiles):
            begin, end = per_tile * tile, per_tile * (tile + 1)
            neurons = begin + np.flatnonzero(one[begin:end] & (size[begin:end] > 0))
            earlier = np.cumsum(size[neurons]) - size[neurons]
            assert (elements[tile], rows[tile]) == (size[neurons].sum(), neurons.size)
            listed = [x[begin : begin + neurons.size] for x in lists]
            np.testing.assert_array_equal(listed, [earlier, indptr[neurons] - earlier, neurons])
