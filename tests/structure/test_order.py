"""Arrays with one entry per synapse: into the order of `Synapses`, and back."""

import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import hebbax

PRE, POST, WEIGHT = [2, 0, 2, 1, 0], [1, 3, 1, 2, 0], np.float32([0.5, 0.25, 1.0, 2.0, 4.0])
OPTIONS = {"shape": (3, 4), "multapses": True, "return_permutation": True}
IN_ORDER = [4, 1, 3, 0, 2]  # not its own inverse; the two of the pair (2, 1) as they come


@pytest.fixture
def built():
    return hebbax.Synapses.from_coo(PRE, POST, WEIGHT, **OPTIONS)


# -- the permutation


@given(st.integers(0, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_permutation_is_that_of_the_weights_and_of_the_list(nse, in_order, seed):
    rng = np.random.default_rng(seed)
    pre, post = rng.integers(7, size=(2, nse))
    if in_order:
        order = np.lexsort((post, pre))
        pre, post = pre[order], post[order]
    weight = np.arange(nse, dtype=np.float32)
    options = {"shape": (7, 7), "multapses": True, "return_permutation": True}
    synapses, out, permutation = hebbax.Synapses.from_coo(pre, post, weight, **options)
    assert isinstance(permutation, jax.Array) and permutation.dtype == synapses.indices.dtype == np.int32
    np.testing.assert_array_equal(permutation, np.lexsort((post, pre)))
    np.testing.assert_array_equal(out, weight[permutation])
    np.testing.assert_array_equal(synapses.indices, post[permutation])


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "lil"])
def test_of_a_matrix_it_is_that_of_its_data(format):
    W = np.float32([[0, 1, 2], [3, 0, 4]])
    make = {
        "csr": lambda: scipy.sparse.csr_array((np.float32([2, 1, 4, 3]), [2, 1, 2, 0], [0, 2, 4]), shape=(2, 3)),
        "csc": lambda: scipy.sparse.csc_array((np.float32([3, 1, 4, 2]), [1, 0, 1, 0], [0, 1, 2, 4]), shape=(2, 3)),
        "coo": lambda: scipy.sparse.coo_array((np.float32([4, 2, 3, 1]), ([1, 0, 1, 0], [2, 2, 0, 1])), shape=(2, 3)),
        "lil": lambda: scipy.sparse.lil_array(W),
    }[format]
    matrix = make()
    np.testing.assert_array_equal(matrix.toarray(), W)
    _, weight, permutation = hebbax.Synapses.from_scipy(matrix, return_permutation=True)
    data = matrix.tocoo().data if format == "lil" else matrix.data
    np.testing.assert_array_equal(weight, [1, 2, 3, 4])
    np.testing.assert_array_equal(data[permutation], weight)
    assert (permutation.tolist() == [0, 1, 2, 3]) == (format == "lil")


def test_what_the_warning_of_unsorted_rows_proposes():
    indptr, indices = [0, 3, 5], [2, 0, 1, 1, 0]
    with pytest.warns(UserWarning, match="from_scipy reorder weights along, and return the order with return_permut"):
        synapses = hebbax.Synapses(indptr, indices, shape=(2, 3))
    matrix = scipy.sparse.csr_array((np.float32([10, 11, 12, 13, 14]), indices, indptr), shape=(2, 3))
    same, weight, permutation = hebbax.Synapses.from_scipy(matrix, return_permutation=True)
    np.testing.assert_array_equal(same.indices, synapses.indices)
    np.testing.assert_array_equal(weight, [11, 12, 10, 14, 13])
    np.testing.assert_array_equal(synapses.reorder(np.array(list("abcde")), permutation), list("bcaed"))


def test_it_is_concrete_where_the_weight_is_traced():
    def build(weight):
        _, weight, permutation = hebbax.Synapses.from_coo(PRE, POST, weight, **OPTIONS)
        assert not isinstance(permutation, jax.core.Tracer)
        return weight

    np.testing.assert_array_equal(jax.jit(build)(WEIGHT), WEIGHT[IN_ORDER])


def test_a_sum_has_no_place_in_the_list():
    for build in (
        lambda **options: hebbax.Synapses.from_coo(PRE, POST, WEIGHT, shape=(3, 4), **options),
        lambda **options: hebbax.Synapses.from_scipy(scipy.sparse.eye_array(2, dtype=np.float32), **options),
    ):
        with pytest.raises(ValueError, match=r"^return_permutation: got True with sum_duplicates=True, expected one"):
            build(sum_duplicates=True, return_permutation=True)
        assert len(build(sum_duplicates=True)) == 2


# -- arrays


ARRAYS = {
    "bool": np.array([True, False, False, True, True]),
    "int8": np.arange(5, dtype=np.int8),
    "float16": np.float16([0.5, -0.0, np.nan, np.inf, 2]),
    "int64 that JAX would truncate": 2**40 + np.arange(5),
    "float64": 1 + 1e-12 * np.arange(5),
    "names": np.array(["a", "bc", "d", "e", "f"]),
    "leading axes": np.arange(30, dtype=np.uint8).reshape(2, 3, 5),
    "of JAX": jnp.arange(5.0),
    "of JAX, bool": jnp.array([True, False, False, True, True]),
    "of JAX, leading axes": jnp.arange(10, dtype=jnp.bfloat16).reshape(2, 5),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_there_and_back_is_exact(built, name):
    synapses, _, permutation = built
    x = ARRAYS[name]
    for order in (permutation, np.asarray(permutation), permutation.tolist()):
        there = synapses.reorder(x, order)
        back = synapses.restore(there, order)
        assert isinstance(there, jax.Array) == isinstance(back, jax.Array) == isinstance(x, jax.Array)
        assert there.dtype == back.dtype == x.dtype
        np.testing.assert_array_equal(there, np.asarray(x)[..., IN_ORDER])
        assert np.asarray(back).tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_quantities_keep_their_unit(built, make):
    synapses, _, permutation = built
    delay = u.Quantity(make([3, 1, 2, 5, 4]), unit=u.ms)
    there = synapses.reorder(delay, permutation)
    assert there.unit == u.ms and type(there.mantissa) is type(delay.mantissa)
    np.testing.assert_array_equal(there.mantissa, [4, 1, 5, 3, 2])
    back = synapses.restore(there, permutation)
    assert back.unit == u.ms
    np.testing.assert_array_equal(back.mantissa, delay.mantissa)


def test_lists_are_taken_and_nothing_is_shared(built):
    synapses, _, permutation = built
    np.testing.assert_array_equal(synapses.reorder([10, 11, 12, 13, 14], permutation), [14, 11, 13, 10, 12])
    x = np.arange(5)
    there = synapses.reorder(x, permutation)
    back = synapses.restore(there, permutation)
    there[:], back[:] = 7, 8
    np.testing.assert_array_equal(x, np.arange(5))


def test_inside_jit(built):
    """Whichever is traced, and through `vmap` and `grad`."""
    synapses, _, permutation = built
    x = jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0]] * 2)

    @jax.jit
    def both(synapses, x, permutation):
        there = synapses.reorder(x, permutation)
        return there, synapses.restore(there, permutation), synapses.reorder(np.arange(5), permutation)

    there, back, host = both(synapses, x, permutation)
    np.testing.assert_array_equal(there, x[:, IN_ORDER])
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(host, IN_ORDER)
    np.testing.assert_array_equal(jax.jit(lambda x: synapses.restore(x, IN_ORDER))(there[0]), x[0])
    for method, expected in ((synapses.reorder, synapses.restore), (synapses.restore, synapses.reorder)):
        _, pull = jax.vjp(lambda x, method=method: method(x, permutation), x[0])
        np.testing.assert_array_equal(pull(there[0])[0], expected(there[0], permutation))


def test_into_csc_order_and_back(built):
    synapses, weight, _ = built
    columns = synapses.reorder(weight, synapses.weight_indices)
    spike = jnp.array([True, True, False, False])
    csc = synapses.csc_indices, synapses.csc_indptr
    out = hebbax.update_csc_on_binary_post(columns, *csc, jnp.ones(3), spike, shape=synapses.shape)
    expected = synapses.update_on_post(weight, jnp.ones(3), spike)
    np.testing.assert_array_equal(synapses.restore(out, synapses.weight_indices), expected)
    assert np.any(columns != weight) and np.any(expected != weight)


@pytest.mark.parametrize("x, permutation, error, message", [
    (np.ones(4), IN_ORDER, hebbax.ShapeError, "x: got shape (4,), expected (..., 5), one entry per synapse"),
    (1.0, IN_ORDER, hebbax.ShapeError, "x: got shape (), expected (..., 5), one entry per synapse"),
    (np.ones((5, 1)) * u.ms, IN_ORDER, hebbax.ShapeError, "x: got shape (5, 1), expected (..., 5)"),
    (np.ones(5), IN_ORDER[:4], hebbax.ShapeError, "permutation: got shape (4,), expected (5,), one entry per synapse"),
    (np.ones(5), [IN_ORDER], hebbax.ShapeError, "permutation: got shape (1, 5), expected one dimension"),
    (np.ones(5), np.ones(5), TypeError, "permutation: got dtype float64, expected integers"),
    (np.ones(5), np.ones(5, bool), TypeError, "permutation: got dtype bool, expected integers"),
    (np.ones(5), None, TypeError, "permutation: got None, expected integers"),
    (np.ones(5), PRE, ValueError, "permutation: got no 3, expected each of 0 to 4 once"),
    (np.ones(5), [0, 1, 2, 3, -1], ValueError, "permutation: got no 4, expected each of 0 to 4 once"),
    (jnp.ones(5), jnp.array([1, 2, 3, 4, 5]), ValueError, "permutation: got no 0, expected each of 0 to 4 once"),
], ids=str)  # fmt: skip
def test_what_is_wrong_is_named(built, x, permutation, error, message):
    for method in (built[0].reorder, built[0].restore):
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            method(x, permutation)


def test_a_traced_permutation_is_checked_as_far_as_it_is_known(built):
    with pytest.raises(hebbax.ShapeError, match=r"^permutation: got shape \(4,\), expected \(5,\)"):
        jax.jit(lambda p: built[0].reorder(jnp.ones(5), p))(jnp.arange(4))
    with pytest.raises(TypeError, match=r"^permutation: got dtype bool, expected integers"):
        jax.jit(lambda p: built[0].restore(jnp.ones(5), p))(jnp.ones(5, bool))


def test_a_network_without_synapses():
    none = np.zeros(0, np.float32)
    synapses, _, permutation = hebbax.Synapses.from_coo([], [], none, shape=(2, 3), return_permutation=True)
    assert permutation.shape == (0,) and permutation.dtype == np.int32
    assert synapses.reorder(np.ones((2, 0), bool), permutation).shape == (2, 0)
    assert synapses.restore([], []).shape == (0,)
