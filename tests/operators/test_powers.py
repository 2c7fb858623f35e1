"""The powers of soft bounds, as the CPU kernels take them: alone, where a weight of 0 gains `1 * base ** mu`."""

import numpy as np
import pytest

import hebbax

MU = (0.4, 1e-3, 0.1, 0.5, 0.99, 1.7, 2, 10, 1e30)
INF = np.float32(np.inf)
LARGEST, SUBNORMAL = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal


def powers(base, mu, row=None):
    """`base ** mu`, one weight for each, in rows of this many."""
    row = row or base.size
    weight, n_pre = np.zeros(base.size, base.dtype), -(-base.size // row)
    indptr = np.minimum(np.arange(n_pre + 1) * row, base.size)
    return hebbax.inplace.update_csr_on_binary_pre(
        weight, np.zeros(base.size, np.int32), indptr, np.ones(n_pre, bool), np.ones(1, base.dtype), w_min=-base,
        shape=(n_pre, 1), weight_in_bounds=True, soft_bound="lower", mu=mu,
    )  # fmt: skip


def in_float64(base, mu):
    """Both are those of float32 before."""
    with np.errstate(over="ignore", under="ignore"):
        return base.astype(np.float64) ** np.float64(np.float32(mu))


@pytest.mark.parametrize("mu", MU)
def test_the_error_is_at_most_501_thousandths_of_a_unit_in_the_last_place(rng, mu):
    """Over all positive float32 numbers, subnormals too, of which every 4 999th is taken."""
    base = np.arange(rng.integers(1, 4999), 0x7F800000, 4999, dtype=np.uint32).view(np.float32)
    got, exact = powers(base, mu), in_float64(base, mu)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], INF)
    error = np.abs(got[finite] - exact[finite]) / np.spacing(rounded[finite]).astype(np.float64)
    assert error.max() <= 0.501
    assert (got != rounded).mean() < 1e-3
    assert finite.any() and (base < np.finfo(np.float32).smallest_normal).any()


@pytest.mark.parametrize("mu", MU)
def test_special_values(mu):
    base = np.float32([0, 1, INF, np.nan, SUBNORMAL, LARGEST])
    got = powers(base, mu)
    np.testing.assert_array_equal(got[:4], [0, 1, INF, np.nan])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got[4:], in_float64(base[4:], mu).astype(np.float32))
    assert powers(np.float32([-1, -INF]), mu).tolist() == [1, INF]  # beyond its bound a weight is only clipped


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_bit_depends_on_where_in_a_row_an_element_is(rng, dtype):
    """Vectors of elements and the rest of a row, and rows of more elements than are taken at once."""
    base = rng.lognormal(0, 5, 1000).astype(dtype)
    whole = powers(base, 0.4)
    for row in (1, 2, 3, 7, 8, 127, 128, 129, 300):
        assert powers(base, 0.4, row).tobytes() == whole.tobytes()


def test_float64_takes_the_power_of_the_c_library(rng):
    base = rng.lognormal(0, 5, 1000)
    np.testing.assert_allclose(powers(base, 0.4), base**0.4, rtol=1e-15)
