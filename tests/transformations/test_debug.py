"""jax.debug_nans, jax.disable_jit and leak checks: values and gradients as without."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (21, 31)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, 160)


def test_disable_jit(spec, network, rng, backend):
    given = operands(spec, rng, network)
    expected = call(spec, given, shape=SHAPE, backend=backend)
    with jax.disable_jit():
        out = call(spec, given, shape=SHAPE, backend=backend)
        again = jax.jit(lambda x: call(spec, x, shape=SHAPE, backend=backend))(given)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(again, expected)


def problem(spec, rng, network, backend):
    """A loss of a weight, with all that an update can have, where some weights and no trace rest on a bound."""
    given = operands(spec, rng, network)
    options = {"shape": SHAPE, "backend": backend}
    if spec.kind == "update":
        given["weight"] = np.clip(given["weight"], -1, 1)
        given |= {"w_min": np.float32(-1), "w_max": np.float32(1), "gain": np.float32(0.5)}
        options |= {"soft_bound": "upper", "mu": 0.5}
    weight = jnp.asarray(given.pop("weight"))
    return lambda w: (call(spec, given | {"weight": w}, **options) ** 2).sum(), weight


@pytest.mark.slow
@pytest.mark.parametrize(
    "switched_on", [lambda: jax.debug_nans(True), jax.disable_jit, jax.checking_leaks], ids=["nans", "jit", "leaks"]
)
def test_values_and_gradients(spec, network, rng, backend, switched_on):
    """Also where the derivative of a power of 0, which a soft bound must not take, would be infinite."""
    function, weight = problem(spec, rng, network, backend)
    expected, slope = jax.value_and_grad(function)(weight)
    with switched_on():
        actual = [function(weight), *jax.value_and_grad(function)(weight), jax.jvp(function, (weight,), (slope,))[1]]
        batch = jax.vmap(function)(jnp.stack([weight, weight]))
    np.testing.assert_allclose(actual[0], expected, rtol=1e-6)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-6)
    np.testing.assert_allclose(actual[2], slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual[3], (slope**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(batch, [expected] * 2, rtol=1e-6)
    assert np.isfinite(slope).all() and np.any(slope != 0)


def test_a_call_outside_jit_is_compiled_under_its_own_name(caplog):
    """By which it is found in JAX's logs and in profiles."""
    spikes = hebbax.record.Spikes.of(77, capacity=5)
    with jax.log_compiles():
        spikes.record(jnp.ones(77, bool))
    assert re.search(r"Compiling (jit\()?hebbax_append", caplog.text), caplog.text


def test_nan_is_found(spec, network, rng, backend):
    function, weight = problem(spec, rng, network, backend)
    weight = jnp.full_like(weight, jnp.nan)
    assert np.isnan(function(weight))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        function(weight)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        jax.grad(function)(weight)


@pytest.mark.parametrize("jitted", [False, True])
def test_disable_jit_around_transformations(update, network, rng, jitted):
    given = operands(update, rng, network)
    weight, spikes = jnp.asarray(given.pop("weight")), jnp.asarray(rng.random((3, given.pop("spike").size)) < 0.5)

    def simulate(weight):
        def step(w, spike):
            return call(update, given | {"weight": w, "spike": spike}, shape=SHAPE, w_min=-1.0, w_max=1.0), None

        return (jax.lax.scan(step, weight, spikes)[0] ** 2).sum()

    simulate = jax.jit(simulate) if jitted else simulate
    expected = jax.grad(simulate)(weight)
    with jax.disable_jit():
        np.testing.assert_allclose(jax.grad(simulate)(weight), expected, rtol=1e-6)
    assert np.any(expected != 0)
