"""NumPy's 64-bit integers without JAX's x64 flag: used where they fit, refused where JAX would truncate them."""

import jax
import numpy as np
import pytest

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
