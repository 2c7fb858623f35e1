"""`Synapses`: against dense matrices."""

import re
import warnings

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import hebbax
from problems import DTYPES, enable_x64

ARRAYS = ("indptr", "indices", "csc_indptr", "csc_indices", "weight_indices")
FORMATS = ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")


def random_pattern(rng, shape, p=0.4):
    return rng.random(shape) < p


def random_matrix(rng, shape, dtype=np.float32):
    """A dense matrix of multiples of 1/4, exact in every dtype, with zeros."""
    return np.where(random_pattern(rng, shape), rng.integers(1, 8, shape) / 4, 0).astype(dtype)


def check(synapses, pattern):
    """All arrays, from the dense pattern."""
    pre, post = np.nonzero(pattern)
    order = np.lexsort((pre, post))
    expected = {
        "indptr": np.concatenate([[0], np.cumsum(pattern.sum(axis=1))]),
        "indices": post,
        "csc_indptr": np.concatenate([[0], np.cumsum(pattern.sum(axis=0))]),
        "csc_indices": pre[order],
        "weight_indices": order,
    }
    for name, x in expected.items():
        np.testing.assert_array_equal(getattr(synapses, name), x, err_msg=name)
        assert isinstance(getattr(synapses, name), jax.Array)
    assert {getattr(synapses, name).dtype for name in ARRAYS} == {np.dtype(np.int32)}
    assert synapses.shape == pattern.shape == (synapses.n_pre, synapses.n_post)
    assert all(type(n) is int for n in (*synapses.shape, synapses.nse)) and synapses.nse == pre.size


def same(a, b):
    return a.shape == b.shape and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)


networks = st.tuples(st.integers(0, 12), st.integers(0, 12), st.floats(0, 1), st.integers(0, 2**32 - 1))


# The constructors


@given(networks)
def test_constructor_builds_both_views(network):
    *shape, p, seed = network
    pattern = np.random.default_rng(seed).random(shape) < p
    indptr = np.concatenate([[0], np.cumsum(pattern.sum(axis=1))])
    check(hebbax.Synapses(indptr, np.nonzero(pattern)[1], shape=tuple(shape)), pattern)


@given(networks)
def test_from_coo_in_any_order_is_the_dense_matrix(network):
    *shape, p, seed = network
    rng = np.random.default_rng(seed)
    pattern = rng.random(shape) < p
    W = np.where(pattern, rng.random(shape), 0).astype(np.float32)
    pre, post = rng.permutation(np.argwhere(pattern)).T
    synapses, weight = hebbax.Synapses.from_coo(pre, post, W[pre, post], shape=tuple(shape))
    check(synapses, pattern)
    np.testing.assert_array_equal(weight, W[pattern])
    np.testing.assert_array_equal(synapses.to_scipy(weight).toarray(), W)


@given(networks)
def test_from_coo_sums_duplicates_on_request(network):
    n_pre, n_post, p, seed = network
    rng = np.random.default_rng(seed)
    nse = int(100 * p) if n_pre and n_post else 0
    pre, post = (rng.integers(0, max(n, 1), nse) for n in (n_pre, n_post))
    weight = (rng.integers(-4, 5, nse) / 4).astype(np.float32)  # some sums are zero: these too are synapses
    W, pattern = np.zeros((n_pre, n_post), np.float32), np.zeros((n_pre, n_post), bool)
    np.add.at(W, (pre, post), weight)
    pattern[pre, post] = True
    synapses, out = hebbax.Synapses.from_coo(pre, post, weight, shape=(n_pre, n_post), sum_duplicates=True)
    check(synapses, pattern)
    np.testing.assert_array_equal(out, W[pattern])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bit_weights_are_rounded_once(dtype):
    weight = np.array([1, *[1 / 2048] * 8], DTYPES[dtype])  # added one by one to 1, each of the small ones is lost
    _, out = hebbax.Synapses.from_coo([0] * 9, [0] * 9, weight, shape=(1, 1), sum_duplicates=True)
    assert out.dtype == weight.dtype and out[0] == np.float32(1 + 8 / 2048).astype(weight.dtype)


def test_rows_are_sorted_with_a_warning():
    with pytest.warns(UserWarning, match=r"^indices\[4\]: got 2 after 3 in row 2; .*weights must follow.*from_scipy"):
        synapses = hebbax.Synapses([0, 2, 2, 6], [0, 3, 1, 3, 2, 0], shape=(3, 4))
    pattern = np.zeros((3, 4), bool)
    pattern[[0, 0, 2, 2, 2, 2], [0, 3, 1, 3, 2, 0]] = True
    check(synapses, pattern)


def test_sorted_rows_raise_no_warning(synapses):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hebbax.Synapses(synapses.indptr, synapses.indices, shape=synapses.shape)


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format", FORMATS)
def test_from_scipy_takes_every_format(rng, format, kind):
    W = random_matrix(rng, (6, 9))
    matrix = getattr(scipy.sparse, f"{format}_{kind}")(W)
    synapses, weight = hebbax.Synapses.from_scipy(matrix)
    check(synapses, W != 0)
    np.testing.assert_array_equal(weight, W[W != 0])
    back = synapses.to_scipy(weight)
    assert isinstance(back, scipy.sparse.csr_array) and back.has_canonical_format
    np.testing.assert_array_equal(back.toarray(), W)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_from_scipy_keeps_zeros_and_sorts_unsorted_rows(format):
    ids = np.array([2, 0, 1]), np.array([0, 2, 3, 3])
    arrays = {
        "csr": (scipy.sparse.csr_array, (np.float32([5, 0, 7]), *ids)),
        "csc": (scipy.sparse.csc_array, (np.float32([5, 0, 7]), *ids)),
        "coo": (scipy.sparse.coo_array, (np.float32([5, 0, 7]), (np.array([0, 0, 1]), ids[0]))),
    }
    make, arguments = arrays[format]
    matrix = make(arguments, shape=(3, 3))
    before = [x.copy() for x in (matrix.tocoo().row, matrix.tocoo().col, matrix.data)]
    synapses, weight = hebbax.Synapses.from_scipy(matrix)
    assert synapses.nse == 3 and 0 in weight
    np.testing.assert_array_equal(synapses.todense(weight), matrix.toarray())
    for x, y in zip(before, (matrix.tocoo().row, matrix.tocoo().col, matrix.data), strict=True):
        np.testing.assert_array_equal(x, y)  # the user's matrix is as it was


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_from_scipy_sees_duplicates(format):
    matrix = {
        "coo": scipy.sparse.coo_array((np.float32([1, 2, 4]), ([0, 1, 1], [0, 2, 2])), shape=(3, 3)),
        "csr": scipy.sparse.csr_array((np.float32([1, 2, 4]), [0, 2, 2], [0, 1, 3, 3]), shape=(3, 3)),
        "csc": scipy.sparse.csc_array((np.float32([1, 2, 4]), [0, 1, 1], [0, 1, 1, 3]), shape=(3, 3)),
    }[format]
    with pytest.raises(
        ValueError, match=r"^matrix: got \(1, 2\) again as stored element 2, a duplicate synapse \(multapses=True"
    ):
        hebbax.Synapses.from_scipy(matrix)
    synapses, weight = hebbax.Synapses.from_scipy(matrix, sum_duplicates=True)
    np.testing.assert_array_equal(weight, [1, 6])
    np.testing.assert_array_equal(synapses.todense(weight), matrix.toarray())


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_from_dense_takes_the_nonzero_elements(rng, make):
    W = random_matrix(rng, (7, 5))
    W[0, 0], W[1, 1], W[2, 2] = np.nan, -0.0, np.inf
    synapses, weight = hebbax.Synapses.from_dense(make(W))
    check(synapses, W != 0)
    np.testing.assert_array_equal(synapses.todense(weight), W)
    assert np.isnan(weight[0])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_networks_without_synapses(shape):
    empty = np.zeros(0, np.float32)
    results = [
        (hebbax.Synapses([0] * (shape[0] + 1), [], shape=shape), jnp.array(empty)),
        hebbax.Synapses.from_coo([], [], empty, shape=shape),
        hebbax.Synapses.from_coo([], [], empty, shape=shape, sum_duplicates=True),
        hebbax.Synapses.from_dense(np.zeros(shape, np.float32)),
        hebbax.Synapses.from_scipy(scipy.sparse.csr_array(shape, dtype=np.float32)),
        *[(hebbax.Synapses.random(shape, **{rule: 0}), empty) for rule in ("prob", "indegree", "outdegree")],
    ]
    for synapses, weight in results:
        check(synapses, np.zeros(shape, bool))
        np.testing.assert_array_equal(synapses.todense(weight), np.zeros(shape))
        assert synapses.to_scipy(weight).shape == shape
        assert synapses.propagate_on_pre(weight, np.ones(shape[0], bool)).shape == (shape[1],)
        assert repr(synapses).startswith(f"Synapses(shape={shape}, nse=0")


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32", "uint64", ">i4"])
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, np.ndarray.tolist])
def test_integers_of_any_kind(synapses, dtype, make):
    if make is jnp.asarray and dtype == ">i4":
        pytest.skip("JAX has no such arrays")
    arrays = [make(np.asarray(x).astype(dtype)) for x in (synapses.indptr, synapses.indices)]
    assert same(synapses, hebbax.Synapses(*arrays, shape=np.array([3, 4])))


def test_arrays_are_copies(synapses):
    indptr, indices = np.array(synapses.indptr), np.array(synapses.indices)
    mine = hebbax.Synapses(indptr, indices, shape=synapses.shape)
    indptr[:], indices[:] = 0, 0
    assert same(synapses, mine)
    pre, post, weight = np.arange(3), np.arange(3), np.ones(3, np.float32)
    mine, out = hebbax.Synapses.from_coo(pre, post, weight, shape=(3, 3))
    pre[:], post[:], weight[:] = 0, 0, 0
    check(mine, np.eye(3, dtype=bool))
    np.testing.assert_array_equal(out, 1)


# Weights


def from_each(W, numbers):
    """Every constructor that takes weights; `numbers` makes the argument from NumPy values."""
    pre, post = (x[::-1] for x in np.nonzero(W))
    yield hebbax.Synapses.from_coo(pre, post, numbers(W[pre, post]), shape=W.shape)
    yield hebbax.Synapses.from_coo(pre, post, numbers(W[pre, post]), shape=W.shape, sum_duplicates=True)
    yield hebbax.Synapses.from_dense(numbers(W))


@pytest.mark.together(1)
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("unit", [None, u.nS])
def test_dtype_and_unit_are_kept(rng, dtype, make, unit, x64):
    W = random_matrix(rng, (5, 4), DTYPES[dtype])
    with enable_x64(x64):
        expected = jnp.asarray(W).dtype  # float64 becomes float32 without the flag
        for synapses, weight in from_each(W, lambda x: make(x) if unit is None else make(x) * unit):
            dense = jax.jit(synapses.todense)(weight)
            if unit is not None:
                assert weight.unit == dense.unit == unit
                weight, dense = weight.mantissa, dense.mantissa
            assert isinstance(weight, jax.Array) and isinstance(dense, jax.Array)
            assert weight.dtype == dense.dtype == expected
            np.testing.assert_array_equal(weight, W[W != 0])
            np.testing.assert_array_equal(dense, W)


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_scipy_keeps_the_dtypes_that_scipy_has(synapses, dtype):
    matrix = synapses.to_scipy(np.arange(1, 6).astype(DTYPES[dtype]))
    assert matrix.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(matrix.toarray(), [[0, 1, 0, 2], [0, 0, 0, 0], [3, 4, 5, 0]])
    matrix.indices[0] = 0  # the user's own arrays, which may be changed
    matrix.sort_indices()
    assert synapses.indices[0] == 1


def test_weights_of_another_byte_order(synapses):
    weight = np.arange(1, 6, dtype=">f4")
    _, out = hebbax.Synapses.from_coo([0, 0, 2, 2, 2], [1, 3, 0, 1, 2], weight, shape=(3, 4))
    np.testing.assert_array_equal(out, weight)
    np.testing.assert_array_equal(synapses.to_scipy(weight).data, weight)


def test_a_traced_weight_is_reordered_inside_jit():
    def build(weight):
        return hebbax.Synapses.from_coo([1, 0], [0, 1], weight, shape=(2, 2))[1]

    np.testing.assert_array_equal(jax.jit(build)(jnp.array([1.0, 2.0])), [2, 1])


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64", "float128", "object", "<U1"])
def test_weights_of_other_dtypes_raise(synapses, dtype):
    if dtype == "float128" and not hasattr(np, "float128"):
        pytest.skip("this platform lacks it")
    W = np.eye(2).astype(dtype)
    message = rf": got dtype {re.escape(str(W.dtype))}, expected one of float16, bfloat16, float32, float64"
    message += r" \(convert it, with astype say\)$" if W.dtype.kind in "biu" else "$"
    for name, call in {
        "weight": lambda: hebbax.Synapses.from_coo([0, 1], [0, 1], W[0], shape=(2, 2)),
        "W": lambda: hebbax.Synapses.from_dense(W),
    }.items():
        with pytest.raises(TypeError, match=f"^{name}{message}"):
            call()
    for call in (synapses.todense, synapses.to_scipy):
        with pytest.raises(TypeError, match=f"^weight{message}"):
            call(np.zeros(5, dtype))
    if W.dtype.kind in "biuc":
        with pytest.raises(TypeError, match=f"^matrix{message}"):
            hebbax.Synapses.from_scipy(scipy.sparse.csr_array(W))


@pytest.mark.parametrize("weight", [np.ones(4), np.ones(()), np.ones((1, 5)), 1.0, np.ones(1) * u.mV])
def test_weights_of_another_shape_raise(synapses, weight):
    shape = re.escape(str(np.shape(getattr(weight, "mantissa", weight))))
    for call in (
        synapses.todense,
        synapses.to_scipy,
        lambda weight: hebbax.Synapses.from_coo([0] * 5, range(5), weight, shape=(1, 5)),
    ):
        with pytest.raises(hebbax.ShapeError, match=rf"^weight: got shape {shape}, expected \(5,\)"):
            call(weight)


def test_scipy_has_no_units(synapses):
    with pytest.raises(TypeError, match=r"^weight: got a Quantity of unit nS.*SciPy has no units.*\.mantissa"):
        synapses.to_scipy(np.ones(5) * u.nS)


# The operators


@pytest.mark.parametrize("unit", [None, u.nS])
def test_methods_are_the_operators(rng, unit):
    synapses = hebbax.Synapses.random((30, 20), prob=0.3, seed=rng)
    numbers = [rng.uniform(0, 1, n).astype(np.float32) for n in (synapses.nse, 30, 20)]
    weight, pre_trace, post_trace = numbers if unit is None else [x * unit for x in numbers]
    bounds = [0.25, 0.75] if unit is None else [0.25 * unit, 0.75 * unit]
    pre_spike, post_spike = rng.random(30) < 0.5, rng.random(20) < 0.5
    csr = synapses.indices, synapses.indptr
    csc = synapses.csc_indices, synapses.csc_indptr, synapses.weight_indices
    shape = {"shape": synapses.shape}
    gain = np.float32(2) * np.ones(30, np.float32)
    pairs = [
        (synapses.update_on_pre(weight, pre_spike, post_trace, *bounds, gain=gain),
         hebbax.update_csr_on_binary_pre(weight, *csr, pre_spike, post_trace, *bounds, gain=gain, **shape)),
        (synapses.update_on_post(weight, pre_trace, post_spike, *bounds, backend="jax"),
         hebbax.update_csr_on_binary_post(weight, *csc, pre_trace, post_spike, *bounds, backend="jax", **shape)),
        (synapses.update_on_post(weight, pre_trace, post_spike),
         hebbax.update_csr_on_binary_post(weight, *csc, pre_trace, post_spike, **shape)),
        (synapses.propagate_on_pre(weight, pre_spike, backend="jax"),
         hebbax.propagate_csr_on_binary_pre(weight, *csr, pre_spike, backend="jax", **shape)),
        (synapses.propagate_on_post(weight, post_spike),
         hebbax.propagate_csr_on_binary_post(weight, *csc, post_spike, **shape)),
    ]  # fmt: skip
    for out, expected in pairs:
        if unit is not None:
            assert out.unit == expected.unit == unit
            out, expected = out.mantissa, expected.mantissa
        np.testing.assert_array_equal(out, expected)


def test_methods_are_the_dense_matrix(rng):
    W = random_matrix(rng, (30, 20))
    synapses, weight = hebbax.Synapses.from_dense(W)
    pre, post = (rng.integers(-4, 4, n).astype(np.float32) / 4 for n in (30, 20))
    np.testing.assert_array_equal(synapses.propagate_on_pre(weight, pre > 0), (pre > 0) @ W)
    np.testing.assert_array_equal(synapses.propagate_on_post(weight, post > 0), W @ (post > 0))
    on_pre = synapses.todense(synapses.update_on_pre(weight, pre > 0, post))
    np.testing.assert_array_equal(on_pre, np.where(W != 0, W + (pre > 0)[:, None] * post, 0))
    on_post = synapses.todense(synapses.update_on_post(weight, pre, post > 0, w_max=1.0))
    np.testing.assert_array_equal(on_post, np.where(W != 0, np.minimum(W + pre[:, None] * (post > 0), 1), 0))


def test_todense_has_a_derivative(synapses):
    cotangent = jnp.arange(12.0).reshape(3, 4)
    _, pull = jax.vjp(synapses.todense, jnp.ones(5))
    np.testing.assert_array_equal(pull(cotangent)[0], [1, 3, 8, 9, 10])
