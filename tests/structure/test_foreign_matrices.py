"""`Synapses` from sparse matrices of JAX and of brainevent: against dense ones."""

import importlib.util
import re
from types import SimpleNamespace

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO, BCSR
from test_synapses import check, random_matrix

import hebbax
from hebbax._core import building, connectivity
from problems import DTYPES, enable_x64

pytestmark = pytest.mark.together(1)
from_bcoo, from_bcsr, from_brainevent = (getattr(hebbax.Synapses, f"from_{x}") for x in ("bcoo", "bcsr", "brainevent"))


class Compressed:
    """What brainevent's matrices have, but for what we do not need."""

    def __init__(self, args, *, shape):
        self.data, self.indices, self.indptr = args
        self.shape = shape


class CSR(Compressed):
    pass


class CSC(Compressed):
    pass


MATRICES = {"stand-in": (CSR, CSC), "brainunit": (u.sparse.CSR, u.sparse.CSC)}
if importlib.util.find_spec("brainevent"):
    brainevent = importlib.import_module("brainevent")
    MATRICES["brainevent"] = brainevent.CSR, brainevent.CSC


@pytest.fixture(params=[(name, k) for name in MATRICES for k in (0, 1)], ids=lambda x: f"{x[0]} {('CSR', 'CSC')[x[1]]}")
def compressed(request):
    """`compressed(W, data)`: the elements of a dense matrix that are not 0, with these values, and those in order."""
    name, by_column = request.param

    def make(W, data=None):
        rows, columns = np.nonzero(W.T if by_column else W)
        indptr = np.searchsorted(rows, np.arange(W.shape[by_column] + 1))
        values = (W.T if by_column else W)[rows, columns] if data is None else data
        structure = jnp.asarray(columns, jnp.int32), jnp.asarray(indptr, jnp.int32)
        return MATRICES[name][by_column]((values, *structure), shape=W.shape)

    return make


def jax_matrix(cls, W, **options):
    return cls.fromdense(jnp.asarray(W), **options)


# -- values


@pytest.mark.parametrize("cls, build", [(BCOO, from_bcoo), (BCSR, from_bcsr)], ids=["BCOO", "BCSR"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 9), (0, 3), (3, 0), (1, 1)], ids=str)
def test_matrices_of_jax(rng, cls, build, dtype, shape):
    with enable_x64(dtype == "float64"):
        W = random_matrix(rng, shape, DTYPES[dtype])
        synapses, weight = build(jax_matrix(cls, W))
        check(synapses, W != 0)
        np.testing.assert_array_equal(weight, W[W != 0], strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrices_of_brainevent(rng, compressed, dtype):
    with enable_x64(dtype == "float64"):
        W = random_matrix(rng, (6, 9), DTYPES[dtype])
        synapses, weight = from_brainevent(compressed(W))
        check(synapses, W != 0)
        np.testing.assert_array_equal(weight, W[W != 0], strict=True)


def test_values_in_any_order(rng):
    """Unsorted, with zeros that are stored, in NumPy's arrays and with a unit; and the order, for other arrays."""
    pre, post = np.array([2, 0, 1, 0, 2]), np.array([0, 3, 2, 1, 3])
    data = np.float32([0.5, 0, 1, 0.25, 2])
    W = np.zeros((3, 4), np.float32)
    W[pre, post] = data
    stored = np.zeros(W.shape, bool)
    stored[pre, post] = True
    matrix = BCOO((jnp.asarray(data), jnp.stack([pre, post], 1)), shape=W.shape)
    delay = np.arange(5) * u.ms
    for unit in (None, u.nS):
        if unit is not None:
            matrix.data = matrix.data * unit
        synapses, weight, permutation = from_bcoo(matrix, return_permutation=True)
        check(synapses, stored)
        assert u.get_unit(weight) == (u.UNITLESS if unit is None else unit)
        np.testing.assert_array_equal(u.get_mantissa(weight), W[stored])
        np.testing.assert_array_equal(permutation, [3, 1, 2, 0, 4])
        np.testing.assert_array_equal(synapses.reorder(delay, permutation).mantissa, [3, 1, 2, 0, 4])
    rows = BCSR((jnp.asarray(data), jnp.array([3, 1, 0, 2, 1]), jnp.array([0, 2, 3, 5])), shape=W.shape)
    synapses, weight, permutation = from_bcsr(rows, return_permutation=True)
    np.testing.assert_array_equal(synapses.todense(weight), rows.todense())
    np.testing.assert_array_equal(permutation, [1, 0, 2, 4, 3])


def test_units_and_the_order_of_matrices_of_brainevent(rng, compressed):
    W = random_matrix(rng, (6, 9))
    matrix = compressed(W)
    data = np.asarray(matrix.data)
    _, weight, permutation = from_brainevent(
        compressed(W, u.Quantity(jnp.asarray(data), unit=u.nS)), return_permutation=True
    )
    assert weight.unit == u.nS
    np.testing.assert_array_equal(weight.mantissa, W[W != 0])
    np.testing.assert_array_equal(data[permutation], W[W != 0])


@pytest.mark.parametrize("weight", [np.float32([0.5]), jnp.float32(0.5), jnp.full(1, 0.5) * u.nS], ids=repr)
def test_one_value_is_a_weight_that_all_synapses_share(rng, compressed, weight):
    W = random_matrix(rng, (6, 9))
    matrix = compressed(W, weight)
    synapses, shared, permutation = from_brainevent(matrix, return_permutation=True)
    check(synapses, W != 0)
    assert shared is matrix.data
    rows = np.asarray(permutation) if isinstance(matrix, CSR) else None
    assert rows is None or np.array_equal(rows, np.arange(synapses.nse))
    spike = jnp.arange(6) % 2 == 0
    out = synapses.propagate_on_pre(shared, spike)
    assert u.get_unit(out) == u.get_unit(weight)
    np.testing.assert_array_equal(u.get_mantissa(out), 0.5 * (W[::2] != 0).sum(0))
    with pytest.raises(ValueError, match=r"^sum_duplicates: got True with one weight that all synapses share"):
        from_brainevent(matrix, sum_duplicates=True)


def test_what_is_stored_twice():
    """As `from_coo` has it: an error, a sum, or a synapse each."""
    data, places = jnp.array([0.5, 1.0, 0.25]), jnp.array([[0, 1], [1, 0], [0, 1]])
    bcoo = BCOO((data, places), shape=(2, 2))
    bcsr = BCSR((data, jnp.array([1, 1, 0]), jnp.array([0, 2, 3])), shape=(2, 2))
    columns = CSC((data, jnp.array([1, 0, 0]), jnp.array([0, 1, 3])), shape=(2, 2))
    for build, matrix, k in ((from_bcoo, bcoo, 2), (from_bcsr, bcsr, 1), (from_brainevent, columns, 2)):
        with pytest.raises(ValueError, match=rf"^matrix: got \(0, 1\) again as stored element {k}, a duplicate"):
            build(matrix)
        synapses, weight = build(matrix, multapses=True)
        sums, sum_weight = build(matrix, sum_duplicates=True)
        assert (synapses.nse, sums.nse) == (3, 2)
        np.testing.assert_array_equal(synapses.todense(weight), sums.todense(sum_weight))
        if matrix is not columns:
            np.testing.assert_array_equal(sums.todense(sum_weight), matrix.todense())


def test_padding_is_left_out_with_its_values():
    """In the order and the messages, positions are those of the matrix."""
    W = np.float32([[0, 0.5, 0], [1, 0, 0.25]])
    for cls, build in ((BCOO, from_bcoo), (BCSR, from_bcsr)):
        matrix = jax_matrix(cls, W, nse=6)
        matrix.data = matrix.data.at[3:].set(7)
        synapses, weight = build(matrix)
        check(synapses, W != 0)
        np.testing.assert_array_equal(weight, W[W != 0])
    places = jnp.array([[2, 3], [1, 2], [1, 3], [2, 0], [0, 1], [1, 2]])  # beyond the shape on one side too
    matrix = BCOO((jnp.arange(6.0), places), shape=W.shape)
    synapses, weight, permutation = from_bcoo(matrix, multapses=True, return_permutation=True)
    np.testing.assert_array_equal(synapses.todense(weight), matrix.todense())
    np.testing.assert_array_equal(permutation, [4, 1, 5])
    with pytest.raises(ValueError, match=r"^matrix: got \(1, 2\) again as stored element 5"):
        from_bcoo(matrix)
    rows = BCSR((jnp.arange(4.0), jnp.array([3, 0, 1, 0]), jnp.array([0, 2, 3])), shape=W.shape)
    synapses, weight, permutation = from_bcsr(rows, return_permutation=True)
    np.testing.assert_array_equal(synapses.todense(weight), rows.todense())
    np.testing.assert_array_equal(permutation, [1, 2])


def test_weights_may_be_traced(compressed, rng):
    """The structure may not: it is built outside `jit`, or of constants."""
    W = random_matrix(rng, (6, 9))
    places = jnp.argwhere(W != 0)

    @jax.jit
    def current(data, spike):
        synapses, weight = from_bcoo(BCOO((data, places), shape=W.shape))
        return synapses.propagate_on_pre(weight, spike)

    spike = np.arange(6) % 2 == 0
    np.testing.assert_array_equal(current(W[W != 0], spike), W[::2].sum(0))
    for build, matrix in ((from_bcoo, jax_matrix(BCOO, W)), (from_bcsr, jax_matrix(BCSR, W))):
        with pytest.raises(TypeError, match=r"^matrix\.indices: got a traced array.*outside jit"):
            jax.jit(lambda x, build=build: build(x)[1])(matrix)


# -- errors


def of_ones(cls, *, batch=False, dense=False, dtype=np.float32):
    """A 2 x 3 matrix put together by hand: `fromdense` would compile, in every process that collects the tests."""
    data, indices = np.ones(6, dtype), np.argwhere(np.ones((2, 3)))
    arrays = [data, indices] if cls is BCOO else [data, indices[:, 1], np.array([0, 3, 6])]
    if batch:
        arrays = [x[None] for x in arrays]
    if dense:
        arrays[0] = arrays[0][:, None]
    return cls(arrays, shape=(1,) * batch + (2, 3) + (1,) * dense)


def wrong_matrices():
    W = np.ones((2, 3), np.float32)
    bcoo, bcsr = of_ones(BCOO), of_ones(BCSR)
    yield from_bcoo, W, TypeError, "matrix: got ndarray, expected jax.experimental.sparse.BCOO"
    yield from_bcoo, bcsr, TypeError, "matrix: got BCSR, expected jax.experimental.sparse.BCOO"
    yield from_bcsr, bcoo, TypeError, "matrix: got BCOO, expected jax.experimental.sparse.BCSR"
    yield from_brainevent, bcoo, TypeError, "matrix: got BCOO, expected a CSR or CSC of brainevent"
    yield from_brainevent, SimpleNamespace(shape=(2, 3)), TypeError, "matrix: got SimpleNamespace, expected a CSR"
    for build, cls in ((from_bcoo, BCOO), (from_bcsr, BCSR)):
        batch, dense, integers = of_ones(cls, batch=True), of_ones(cls, dense=True), of_ones(cls, dtype=int)
        assert batch.n_batch == dense.n_dense == 1
        yield build, batch, hebbax.ShapeError, "matrix: got n_batch=1, expected 0 (see its `update_layout`)"
        yield build, dense, hebbax.ShapeError, "matrix: got n_dense=1, expected 0 (see its `update_layout`)"
        yield build, integers, TypeError, f"matrix.data: got dtype {integers.data.dtype}, expected one of float16"
    vector = BCOO((W[0], np.arange(3)[:, None]), shape=(3,))
    yield from_bcoo, vector, hebbax.ShapeError, "matrix: got shape (3,), expected two dimensions"
    bcoo.indices = np.array(bcoo.indices)
    bcoo.indices[4, 1] = -1
    yield from_bcoo, bcoo, ValueError, "matrix.indices[4]: got (1, -1), expected no negative number"
    bcsr.indptr = np.array([0, 4, 3])
    yield from_bcsr, bcsr, ValueError, "matrix.indptr[2]: got 3, expected at least matrix.indptr[1] = 4"
    bcsr = of_ones(BCSR)
    bcsr.indptr = np.array([0, 4, 9])
    yield from_bcsr, bcsr, ValueError, "matrix.indptr[2]: got 9, expected 6, the size of indices"
    for cls, message in (
        (CSR, "matrix.indptr: got shape (3,), expected (5,) for shape (4, 5)"),
        (CSC, "matrix.indptr: got shape (3,), expected (6,) for shape (4, 5)"),
    ):
        yield from_brainevent, cls((W[0], [0, 1, 2], [0, 1, 3]), shape=(4, 5)), hebbax.ShapeError, message
    for data, indices, shape, error, message in (
        (W[0], [0, 1, 5], (2, 5), ValueError, "matrix.indices[2]: got 5, expected 0 to 4 (shape (2, 5))"),
        (W[0, :2], [0, 1, 2], (2, 5), hebbax.ShapeError,
         "matrix.data: got shape (2,), expected (3,), or a scalar or (1,) that all synapses share"),
        (W[0].astype(int), [0, 1, 2], (2, 5), TypeError, "matrix.data: got dtype int64, expected one of float16"),
        (W[0], [0, 1, 2], (2, 5, 1), hebbax.ShapeError, "matrix: got shape (2, 5, 1), expected two dimensions"),
    ):  # fmt: skip
        yield from_brainevent, CSR((data, indices, [0, 1, 3]), shape=shape), error, message


@pytest.mark.parametrize(
    "build, matrix, error, message", list(wrong_matrices()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_errors(build, matrix, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        build(matrix)


def test_flags_are_checked():
    for build, matrix in (
        (from_bcoo, jax_matrix(BCOO, np.eye(2, dtype=np.float32))),
        (from_brainevent, CSR((np.ones(1), [0, 1], [0, 1, 2]), shape=(2, 2))),
    ):
        for name in ("sum_duplicates", "multapses", "return_permutation"):
            with pytest.raises(TypeError, match=f"^{name}: got 1, expected True or False"):
                build(matrix, **{name: 1})


def test_positions_in_more_elements_than_int32_counts():
    """Few synapses of a long list, the rest of which is padding, or was taken away."""
    pre, post = np.array([1, 0]), np.array([0, 1])
    listed = building.Listed(pre, post, None, (2, 2), connectivity.AGAIN_IN_MATRIX, np.array([5, 2**31 + 7]))
    options = dict(sum_duplicates=False, multapses=False, return_permutation=True)
    with enable_x64(True):
        views, _, permutation = building.from_list(listed, **options)
        assert views["indices"].dtype == np.int32
        np.testing.assert_array_equal(permutation, [2**31 + 7, 5])
    with pytest.raises(OverflowError, match="jax_enable_x64"):
        building.from_list(listed, **options)
