"""jax.checkpoint: values, gradients, and that the backward pass computes again what it may not keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (21, 31)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, 160)


def test_checkpoint(spec, network, rng, backend):
    given = operands(spec, rng, network)
    function = jax.checkpoint(lambda x: call(spec, x, shape=SHAPE, backend=backend))
    np.testing.assert_array_equal(function(given), call(spec, given, shape=SHAPE, backend=backend))


def two_steps(spec, given, backend):
    """A loss of two updates one after the other, or of one propagate, that is not linear in what is differentiated."""

    def function(x):
        x = given | x
        if spec.kind == "update":
            x = x | {"weight": jnp.tanh(call(spec, x, shape=SHAPE, backend=backend))}
        return (jnp.tanh(call(spec, x, shape=SHAPE, backend=backend)) ** 2).sum()

    return function


def check_gradients(spec, given, backend=None, policy=None):
    if spec.kind == "update":
        given = given | {"w_min": np.float32(-0.8), "w_max": np.float32(0.7)}
    function = two_steps(spec, given, backend)
    x = {name: given[name] for name in ("weight", "trace") if name in given}
    actual = jax.jit(jax.grad(jax.checkpoint(function, policy=policy)))(x)
    expected = jax.jit(jax.grad(function))(x)
    for name in x:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6)
        assert np.any(expected[name] != 0)


def test_gradients(spec, network, rng, backend):
    check_gradients(spec, operands(spec, rng, network), backend)


@pytest.mark.parametrize("policy", ["everything_saveable", "dots_saveable"])
def test_policies(spec, network, rng, policy):
    check_gradients(spec, operands(spec, rng, network), policy=getattr(jax.checkpoint_policies, policy))


def test_the_backward_pass_updates_again(update, network, rng):
    """Or there would be nothing to test: with `checkpoint` it holds as many updates as the forward pass, and more."""
    given = operands(update, rng, network)
    function = two_steps(update, given, "cython")
    counts = []
    for f in (function, jax.checkpoint(function)):
        text = jax.jit(jax.value_and_grad(lambda w, f=f: f({"weight": w}))).lower(given["weight"]).as_text()
        counts.append(text.count("@hebbax_update"))
    assert counts[1] > counts[0] >= 2
