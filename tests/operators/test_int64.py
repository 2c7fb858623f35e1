"""NumPy's 64-bit integers without JAX's x64 flag: used where they fit, refused where JAX would truncate them."""

import jax
import numpy as np
import pytest

import hebbax
import oracle
from problems import SPECS, call, enable_x64, operands, random_network

INDEX_NAMES = ("indices", "indptr", "weight_indices")


TOO_LARGE = [(value, "int64") for value in (2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**31) - 1, -(2**32))]
TOO_LARGE += [(value, "uint64") for value, _ in TOO_LARGE if value > 0]


def make_problem(spec, rng):
    network = random_network(rng, (20, 30), 150)
    return operands(spec, rng, network, p_spike=1.0), network.shape


@pytest.fixture
def problem(spec, rng):
    return make_problem(spec, rng)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_values_that_fit_are_used(spec, problem, backend, dtype):
    given, shape = problem
    wide = given | {name: given[name].astype(dtype) for name in INDEX_NAMES if name in given}
    out = call(spec, wide, shape=shape, backend=backend)
    np.testing.assert_array_equal(out, call(spec, given, shape=shape, backend=backend))


@pytest.mark.parametrize("value, dtype", TOO_LARGE)
@pytest.mark.parametrize(
    "operator, name",
    [(spec, name) for spec in SPECS for name in INDEX_NAMES if name in spec.arguments],
    ids=lambda x: getattr(x, "name", x),
)
def test_indices_that_do_not_fit_are_refused_and_the_flag_named(operator, name, value, dtype, rng):
    given, shape = make_problem(operator, rng)
    wrong = given[name].astype(dtype)
    wrong[-1] = value
    with pytest.raises(OverflowError, match=rf"^{name}: .*{value}.*jax_enable_x64"):
        call(operator, given | {name: wrong}, shape=shape)


def test_a_spike_that_truncation_would_lose_is_refused(spec, problem):
    given, shape = problem
    with pytest.raises(OverflowError, match=rf"^{spec.public_name('spike')}: .*jax_enable_x64"):
        call(spec, given | {"spike": given["spike"] * 2**32}, shape=shape)


def test_the_extremes_of_int32_are_not_refused_as_such(spec, problem):
    """They are out of range, which the reference skips."""
    given, shape = problem
    given["indices"] = given["indices"].astype(np.int64)
    given["indices"][:2] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    out = call(spec, given, shape=shape, backend="jax")
    oracle.assert_close(out, oracle.evaluate(spec, shape, given))


def test_with_the_flag_no_value_is_too_large(spec, problem, backend):
    given, shape = problem
    given = given | {name: given[name].astype(np.int64) for name in INDEX_NAMES if name in given}
    with enable_x64(True):
        out = np.asarray(call(spec, given | {"spike": given["spike"] * 2**32}, shape=shape, backend=backend))
        expected = np.asarray(call(spec, given, shape=shape, backend=backend))
        np.testing.assert_array_equal(out, expected)
        given["indices"][0] = 2**32
        wrong = call(spec, given, shape=shape, backend="jax")
    oracle.assert_close(wrong, oracle.evaluate(spec, shape, given))


def test_under_the_callers_own_jit_values_that_fit_are_used(spec, problem, backend):
    given, shape = problem
    wide = given | {"indices": given["indices"].astype(np.int64)}
    out = jax.jit(lambda x: call(spec, x, shape=shape, backend=backend))(wide)
    np.testing.assert_array_equal(out, call(spec, given, shape=shape, backend=backend))


def shapes(spec, nse, shape, wide=()):
    """Arrays of these shapes, without memory; index arrays are of int32, but for those named."""
    n_event, n_other = spec.sizes(shape)
    sizes = {"indices": nse, "indptr": n_event + 1, "weight_indices": nse, "weight": nse, "spike": n_event}
    sizes["trace"] = n_other
    return {
        name: jax.ShapeDtypeStruct(
            (sizes[name],),
            np.int64 if name in wide else np.int32 if name in INDEX_NAMES else bool if name == "spike" else np.float32,
        )
        for name in spec.arguments
    }


def too_large(spec):
    """What int32 cannot name, by the array that would have to, and what can."""
    many = 2**31 + 1
    yield "indptr", many, (4, 5), ("indices", "weight_indices")
    yield "indices", 20, (4, many) if spec.event == "pre" else (many, 4), ("indptr",)
    if spec.permuted:
        yield "weight_indices", many, (4, 5), ("indices", "indptr")


def test_int32_arrays_that_cannot_name_all_there_is_are_refused_by_name(spec):
    for name, nse, shape, wide in too_large(spec):
        for also in (False, True):
            with enable_x64(True):
                operands = shapes(spec, nse, shape, (*wide, name) if also else wide)
                run = lambda x, shape=shape: call(spec, x, shape=shape)  # noqa: E731
                if also:
                    assert jax.eval_shape(run, operands).shape
                    continue
                with pytest.raises(OverflowError, match=rf"^{name}: got dtype int32 for .*{2**31 + 1} .* int64"):
                    jax.eval_shape(run, operands)


def test_the_largest_that_int32_names_is_not_refused(spec):
    most = np.iinfo(np.int32).max
    assert jax.eval_shape(lambda x: call(spec, x, shape=(4, 5)), shapes(spec, most, (4, 5))).shape
    shape = (4, most + 1) if spec.event == "pre" else (most + 1, 4)
    assert jax.eval_shape(lambda x: call(spec, x, shape=shape), shapes(spec, 20, shape)).shape


def test_by_column_they_are_refused_by_name_where_the_structure_is_traced():
    run = jax.ShapeDtypeStruct
    for name, nse, n_pre in (("indptr", 2**31, 4), ("indices", 20, 2**31 + 1)):
        given = run((nse,), np.float32), run((nse,), np.int32), run((6,), np.int32), run((n_pre,), bool)
        with pytest.raises(OverflowError, match=f"^{name}: got dtype int32"):
            jax.eval_shape(lambda *x, n=n_pre: hebbax.update_csc_on_binary_pre(*x, shape=(n, 5)), *given, given[2])
