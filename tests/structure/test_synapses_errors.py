"""`Synapses`: every error, which names the array, the first bad position and its value."""

import re
import warnings

import brainunit as u
import jax
import numpy as np
import pytest
import scipy.sparse
from test_synapses import ARRAYS

import hebbax
from hebbax._core import connectivity
from problems import enable_x64

CONSTRUCTOR_ERRORS = [
    # indptr, indices, shape, error, message
    ([0, 1], [0], (2, 2), hebbax.ShapeError, "indptr: got shape (2,), expected (3,) for shape (2, 2)"),
    ([[0, 1]], [0], (1, 2), hebbax.ShapeError, "indptr: got shape (1, 2), expected one dimension"),
    ([0, 1], [[0]], (1, 2), hebbax.ShapeError, "indices: got shape (1, 1), expected one dimension"),
    (0, [0], (1, 2), hebbax.ShapeError, "indptr: got shape (), expected one dimension"),
    ([0, 1], [0], (1,), hebbax.ShapeError, "shape: got (1,), expected (n_pre, n_post), two integers >= 0"),
    ([0, 1], [0], (1, -2), hebbax.ShapeError, "shape: got (1, -2), expected (n_pre, n_post), two integers >= 0"),
    ([0, 1], [0], None, hebbax.ShapeError, "shape: got None, expected (n_pre, n_post), two integers >= 0"),
    ([0, 1], [0], (1, 2**62), hebbax.ShapeError,
     "shape: got (1, 4611686018427387904), expected at most 2**48 neurons on either side"),
    ([1, 1], [0], (1, 2), ValueError, "indptr[0]: got 1, expected 0"),
    ([0, 3, 7, 5, 9], range(9), (4, 9), ValueError, "indptr[3]: got 5, expected at least indptr[2] = 7"),
    (np.uint8([0, 3, 7, 5, 9]), range(9), (4, 9), ValueError, "indptr[3]: got 5, expected at least indptr[2] = 7"),
    ([0, 1, 3], [0, 1], (2, 2), ValueError, "indptr[2]: got 3, expected 2, the size of indices"),
    ([0, 1, 1], [0, 1], (2, 2), ValueError, "indptr[2]: got 1, expected 2, the size of indices"),
    ([0, 3], [1, 5, 7], (1, 5), ValueError, "indices[1]: got 5, expected 0 to 4 (shape (1, 5))"),
    ([0, 3], [1, 2, -1], (1, 5), ValueError, "indices[2]: got -1, expected 0 to 4 (shape (1, 5))"),
    ([0, 1], [0], (1, 0), ValueError, "indices[0]: got 0, expected none (shape (1, 0))"),
    ([0, 1], [2**63], (1, 5), ValueError, "indices[0]: got 9223372036854775808, expected 0 to 4 (shape (1, 5))"),
    ([0, 1], [2**32], (1, 5), ValueError, "indices[0]: got 4294967296, expected 0 to 4 (shape (1, 5))"),
    ([0, 1, 4], [4, 1, 4, 4], (2, 5), ValueError,
     "indices[3]: got 4 again in row 1, a duplicate synapse "
     "(multapses=True would keep both, Synapses.from_coo can sum them)"),
    ([0, 5], [4, 1, 2, 1, 4], (1, 5), ValueError,
     "indices[3]: got 1 again in row 0, a duplicate synapse "
     "(multapses=True would keep both, Synapses.from_coo can sum them)"),
    ([0.0, 1.0], [0], (1, 2), TypeError, "indptr: got dtype float64, expected integers"),
    ([0, 1], [True], (1, 2), TypeError, "indices: got dtype bool, expected integers"),
    ([0, 1], [2**70], (1, 2), TypeError, "indices: got dtype object, expected integers"),
    ([0, 1], [[0], [1, 2]], (1, 2), TypeError, "indices: got list, expected a one-dimensional array of integers"),
    ([0, 1], None, (1, 2), TypeError, "indices: got None, expected integers"),
    ([0, 1], np.zeros(1, np.float32), (1, 2), TypeError, "indices: got dtype float32, expected integers"),
    ([0, 1], np.zeros(0, np.float32), (1, 2), TypeError, "indices: got dtype float32, expected integers"),
    ([0, 1], np.array([0]) * u.nS, (1, 2), TypeError, "indices: got a Quantity of unit nS, expected integers"),
]  # fmt: skip


@pytest.mark.parametrize("indptr, indices, shape, error, message", CONSTRUCTOR_ERRORS, ids=lambda x: str(x)[:40])
def test_constructor_errors(indptr, indices, shape, error, message):
    indices = list(indices) if isinstance(indices, range) else indices
    with pytest.raises(error, match=f"^{re.escape(message)}$") as info, warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning about the order before the error
        hebbax.Synapses(indptr, indices, shape=shape)
    assert isinstance(info.value, AssertionError) == (error is hebbax.ShapeError)


COO_ERRORS = [
    ([0, 500], [0, 0], ValueError, "pre[1]: got 500, expected 0 to 499 (shape (500, 1000))"),
    ([0, 1], [-1, 0], ValueError, "post[0]: got -1, expected 0 to 999 (shape (500, 1000))"),
    ([0, 1, 2], [0, 1], hebbax.ShapeError, "post: got shape (2,), expected (3,), as pre has"),
    ([0.5, 1], [0, 1], TypeError, "pre: got dtype float64, expected integers"),
    ([0, 1], np.ones((2, 1), int), hebbax.ShapeError, "post: got shape (2, 1), expected one dimension"),
    ([3, 1, 2, 3, 1], [9, 4, 4, 9, 4], ValueError,
     "pre[3], post[3]: got 3, 9 again, a duplicate synapse "
     "(multapses=True would keep both, sum_duplicates=True sum them)"),
]  # fmt: skip


@pytest.mark.parametrize("pre, post, error, message", COO_ERRORS, ids=lambda x: str(x)[:40])
def test_from_coo_errors(pre, post, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        hebbax.Synapses.from_coo(pre, post, np.ones(len(pre)), shape=(500, 1000))


def test_from_scipy_errors():
    with pytest.raises(TypeError, match=r"^matrix: got ndarray, expected a scipy.sparse array or matrix"):
        hebbax.Synapses.from_scipy(np.eye(2))
    with pytest.raises(hebbax.ShapeError, match=r"^matrix: got shape \(3,\), expected two dimensions"):
        hebbax.Synapses.from_scipy(scipy.sparse.coo_array(np.ones(3)))
    matrix = scipy.sparse.csr_array(np.eye(3))
    matrix.indices[1] = 7
    with pytest.raises(ValueError, match=r"^matrix.indices\[1\]: got 7, expected 0 to 2 \(shape \(3, 3\)\)"):
        hebbax.Synapses.from_scipy(matrix)
    coo = scipy.sparse.coo_array(np.eye(3))
    coo.row[2] = -4
    with pytest.raises(ValueError, match=r"^matrix.row\[2\]: got -4, expected 0 to 2 \(shape \(3, 3\)\)"):
        hebbax.Synapses.from_scipy(coo)
    matrix.indptr[1] = 3  # which SciPy would follow out of its arrays
    with pytest.raises(ValueError, match=r"^matrix.indptr\[2\]: got 2, expected at least matrix.indptr\[1\] = 3"):
        hebbax.Synapses.from_scipy(matrix)


@pytest.mark.parametrize("W", [np.ones(3), np.ones((1, 1, 1)), 1.0, np.ones(3) * u.mV])
def test_from_dense_wants_a_matrix(W):
    with pytest.raises(hebbax.ShapeError, match=r"^W: got shape .*, expected two dimensions"):
        hebbax.Synapses.from_dense(W)


def test_traced_arrays_raise(synapses):
    for name, build in {
        "indices": lambda x: hebbax.Synapses(synapses.indptr, x, shape=(3, 4)),
        "indptr": lambda x: hebbax.Synapses(x, synapses.indices, shape=(3, 4)),
        "pre": lambda x: hebbax.Synapses.from_coo(x, synapses.indices, np.ones(5), shape=(3, 4)),
        "W": lambda x: hebbax.Synapses.from_dense(1.0 * x[None]),
    }.items():
        with pytest.raises(TypeError, match=f"^{name}: got a traced array.*outside jit"):
            jax.jit(build)(synapses.indices)


# 64-bit indices


@pytest.fixture
def small_int32(monkeypatch):
    monkeypatch.setattr(connectivity, "_INT32_MAX", 10)


@pytest.mark.parametrize("shape, nse", [((11, 3), 2), ((3, 11), 2), ((4, 4), 12)])
def test_int64_where_anything_does_not_fit_int32(small_int32, rng, shape, nse):
    flat = rng.choice(shape[0] * shape[1], nse, replace=False)
    pre, post = np.unravel_index(flat, shape)
    W = np.zeros(shape)
    W[pre, post] = 1
    builders = [
        lambda: hebbax.Synapses.from_coo(pre, post, np.ones(nse), shape=shape)[0],
        lambda: hebbax.Synapses.from_dense(W)[0],
        lambda: hebbax.Synapses(np.r_[0, np.cumsum(W.sum(1))].astype(int), np.nonzero(W)[1], shape=shape),
    ]
    for build in builders:
        with pytest.raises(OverflowError, match=r"^shape: got .* synapses, which do not fit int32; .*jax_enable_x64"):
            build()
        with enable_x64(True):
            synapses = build()
            assert {getattr(synapses, name).dtype for name in ARRAYS} == {np.dtype(np.int64)}
            np.testing.assert_array_equal(jax.jit(synapses.todense)(np.ones(nse)), W)
            spike = np.ones(shape[1], bool)
            np.testing.assert_array_equal(synapses.propagate_on_post(np.ones(nse), spike), W.sum(axis=1))


def test_int32_at_the_limit(small_int32):
    with enable_x64(True):
        assert hebbax.Synapses.random((10, 10), prob=0.0).indices.dtype == np.int32
        assert hebbax.Synapses.random((10, 10), outdegree=2).indices.dtype == np.int64
