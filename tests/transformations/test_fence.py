"""`hebbax.fence`: what XLA merges without it, and that nothing else changes."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax

pytestmark = pytest.mark.optimised


def neuron(hold):
    """A step of a neuron, after which `hold` is to keep XLA from computing it for every array that it returns.

    In integers, since XLA rounds a product and a sum once or twice, as it likes.
    """

    def step(state, current):
        voltage, refractory = state
        voltage = hold(jnp.where(refractory > 0, 0, (voltage * 7 >> 3) + current))
        spike = voltage > 1000
        refractory = jnp.where(spike, 5, jnp.maximum(refractory - 1, 0))
        return (jnp.where(spike, 0, voltage), refractory), (spike, voltage)

    return lambda state, currents: jax.lax.scan(step, state, currents)


START = jnp.zeros(64, jnp.int32), jnp.zeros(64, jnp.int32)
CURRENTS = jnp.asarray(np.random.default_rng(0).integers(0, 500, (40, 64)), jnp.int32)


def test_it_changes_no_bit():
    plain, fenced = (jax.jit(neuron(hold))(START, CURRENTS) for hold in (lambda x: x, hebbax.fence))
    assert plain[1][0].any()
    jax.tree.map(np.testing.assert_array_equal, plain, fenced)


def test_a_neuron_is_computed_once():
    """By the products in the compiled program; without a fence there are more, or this would say nothing."""

    def products(hold):
        return jax.jit(neuron(hold)).lower(START, CURRENTS).compile().as_text().count(" multiply(")

    assert products(hebbax.fence) == 1 < products(lambda x: x)


def test_pytrees_and_units():
    arrays = {"v": jnp.ones(3) * u.mV, "key": jax.random.key(0), "n": 3, "none": None, "empty": ()}
    out = jax.jit(hebbax.fence)(arrays)
    assert out["v"].unit == u.mV and out["none"] is None and out["empty"] == ()
    np.testing.assert_array_equal(jax.random.key_data(out["key"]), jax.random.key_data(arrays["key"]))
    assert hebbax.fence(arrays)["n"] == 3
    assert hebbax.fence(()) == ()


def test_derivatives_and_batches():
    def f(x, n):
        y, m, _ = hebbax.fence((jnp.sin(x), n, x))
        return y * m.astype(y.dtype)

    x, n = jnp.arange(6.0).reshape(2, 3), jnp.array([2, 3, 4])
    np.testing.assert_array_equal(jax.jit(jax.vmap(f, (0, None)))(x, n), jnp.sin(x) * n.astype(x.dtype))
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda x: f(x, n).sum()))(x[1]), jnp.cos(x[1]) * n.astype(x.dtype), rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.jvp(lambda x: f(x, n), (x[1],), (jnp.ones(3),))[1], jnp.cos(x[1]) * n.astype(x.dtype), rtol=1e-6
    )
    hessian = jax.jit(jax.hessian(lambda x: f(x, n).sum()))(x[1])
    np.testing.assert_allclose(hessian, jnp.diag(-jnp.sin(x[1]) * n.astype(x.dtype)), rtol=1e-6)
