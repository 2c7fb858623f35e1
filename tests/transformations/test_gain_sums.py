"""The derivative in the gain sums up each spiking neuron's row, which kernels do in another way for long rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from problems import DTYPES, call, enable_x64

# Elements of each; together more than a block of the CUDA kernels takes in one go.
ROWS = [3, 0, 700, 1, 1, 40, 0, 1300, 2, 257, 31, 33, 5, 0, 128, 64, 64, 2000, *range(32)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_length(propagate, kernel, dtype, rng):
    """Numbers are such that their sums are exact, in any order."""
    counts = np.array(ROWS)
    nse, n_event, n_other = counts.sum(), counts.size, 9
    indices, spike = rng.integers(0, n_other, nse), rng.random(n_event) < 0.8
    spike[counts > 500] = True
    weight, cotangent = rng.integers(-2, 3, nse), rng.integers(-2, 3, n_other)
    order = rng.permutation(nse) if propagate.permuted else np.arange(nse)
    event = np.repeat(np.arange(n_event), counts)
    expected = np.zeros(n_event)
    np.add.at(expected, event, spike[event] * weight[order] * cotangent[indices])
    with enable_x64(dtype == "float64"):
        dtype = DTYPES[dtype]
        given = {"weight": jnp.asarray(weight, dtype), "indices": indices.astype("i4"), "spike": spike}
        given["indptr"] = np.concatenate([[0], np.cumsum(counts)]).astype("i4")
        if propagate.permuted:
            given["weight_indices"] = order.astype("i4")
        shape = (n_event, n_other) if propagate.event == "pre" else (n_other, n_event)

        def weighted_sum(gain):
            out = call(propagate, given | {"gain": gain}, shape=shape, backend=kernel)
            return (out * cotangent.astype(dtype)).sum()

        found = jax.grad(weighted_sum)(jnp.ones(n_event, dtype))
    np.testing.assert_array_equal(np.asarray(found, float), expected)
