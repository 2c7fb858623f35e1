"""NumPy's 64-bit integers without JAX's x64 flag: used where they fit, refused where JAX would truncate them."""

import jax
import numpy as np
import pytest

import oracle
from problems import call, enable_x64, operands, random_network

INDEX_NAMES = ("indices", "indptr", "weight_indices")


@pytest.fixture
def problem(spec, rng):
    network = random_network(rng, (20, 30), 150)
    return operands(spec, rng, network, p_spike=1.0), network.shape


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_values_that_fit_are_used(spec, problem, backend, dtype):
    given, shape = problem
    wide = given | {name: given[name].astype(dtype) for name in INDEX_NAMES if name in given}
    out = call(spec, wide, shape=shape, backend=backend)
    np.testing.assert_array_equal(out, call(spec, given, shape=shape, backend=backend))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("value", [2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**31) - 1, -(2**32)])
@pytest.mark.parametrize("name", INDEX_NAMES)
def test_indices_that_do_not_fit_are_refused_and_the_flag_named(spec, problem, name, value, dtype):
    given, shape = problem
    if name not in given or (value < 0 and dtype == "uint64"):
        return
    wrong = given[name].astype(dtype)
    wrong[-1] = value
    with pytest.raises(OverflowError, match=rf"^{name}: .*{value}.*jax_enable_x64"):
        call(spec, given | {name: wrong}, shape=shape)


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
