"""The derivative in the gain sums up each spiking neuron's row, which kernels do in another way for long rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from problems import DTYPES, INDEX_ERRORS, call, enable_x64

# Elements of each; together more than a block of the CUDA kernels takes in one go.
ROWS = np.array([3, 0, 700, 1, 1, 40, 0, 1300, 2, 257, 31, 33, 5, 0, 128, 64, 64, 2000, *range(32)])
NSE, N_EVENT, N_OTHER = ROWS.sum(), ROWS.size, 9


@pytest.fixture
def given(propagate, rng):
    """Numbers whose sums are exact, in any order."""
    spike = rng.random(N_EVENT) < 0.8
    spike[ROWS > 500] = True
    structure = {"indices": rng.integers(0, N_OTHER, NSE).astype("i4"), "indptr": np.append(0, ROWS.cumsum())}
    if propagate.permuted:
        structure["weight_indices"] = rng.permutation(NSE).astype("i4")
    return structure | {"weight": rng.integers(-2, 3, NSE), "spike": spike}


def sums(propagate, given, cotangent, dtype, backend):
    """The derivative of a weighted sum of all results; the operator itself does not run, as nobody asks for them."""
    shape = (N_EVENT, N_OTHER) if propagate.event == "pre" else (N_OTHER, N_EVENT)
    given = given | {"weight": jnp.asarray(given["weight"], dtype), "indptr": given["indptr"].astype("i4")}

    def weighted_sum(gain):
        out = call(propagate, given | {"gain": gain}, shape=shape, backend=backend)
        return (out * cotangent.astype(dtype)).sum()

    return jax.jit(jax.grad(weighted_sum))(jnp.ones(N_EVENT, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_length(propagate, kernel, given, dtype, rng):
    cotangent = rng.integers(-2, 3, N_OTHER)
    weight = given["weight"][given.get("weight_indices", slice(None))]
    terms = weight * cotangent[given["indices"]]
    expected = [
        x.sum() * spikes for x, spikes in zip(np.split(terms, given["indptr"][1:-1]), given["spike"], strict=True)
    ]
    with enable_x64(dtype == "float64"):
        found = sums(propagate, given, cotangent, DTYPES[dtype], kernel)
    np.testing.assert_array_equal(np.asarray(found, float), expected)


def test_an_index_out_of_range_is_reported(propagate, cpu_kernel, given):
    for name, wrong in [("indices", N_OTHER)] + [("weight_indices", NSE)] * propagate.permuted:
        changed = given[name].copy()
        changed[20] = wrong
        with pytest.raises(
            INDEX_ERRORS, match=rf"a derivative's {propagate.like('collect').name}: {name}\[20\] = {wrong}, "
        ):
            sums(propagate, given | {name: changed}, np.ones(N_OTHER), np.float32, cpu_kernel).block_until_ready()
