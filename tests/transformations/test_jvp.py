"""Forward mode: Jacobians against the reference, linearity, symbolic zeros, and in units. test_grad.py has the rest."""

import re

import brainunit as u
import derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import update_problem

from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE, NSE = (9, 10), 80


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(5), SHAPE, NSE)


@pytest.fixture
def functions(network, rng):
    """`functions(spec, backend)`: the operator and the reference as functions of a dict, and that dict."""

    def make(spec, backend=None):
        if spec.kind == "update":
            given, options = update_problem(spec, network, rng, "upper, root, in bounds")
            fixed = {"spike": given.pop("spike")}
        else:
            weight = operands(spec, rng, network)["weight"]
            spike, gain = (rng.choice(x, spec.sizes(SHAPE)[0]).astype(np.float32) for x in ([0, 0.5, 1], [-1, 0.5, 2]))
            given, fixed, options = {"weight": weight, "spike": spike, "gain": gain}, {}, {}
        structure = network.structure(spec)

        def operator(x):
            return call(spec, structure | fixed | x, shape=SHAPE, backend=backend, **options)

        def reference(x):
            return derivatives.evaluate(spec, network, fixed | x, **options)

        return operator, reference, {name: jnp.asarray(x) for name, x in given.items()}

    return make


def test_jacobians(spec, functions, backend):
    """Column by column and row by row: vmap of forward and of reverse mode."""
    operator, reference, x = functions(spec, backend)
    expected = jax.jit(jax.jacfwd(reference))(x)
    for jacobian in (jax.jacfwd, jax.jacrev):
        actual = jax.jit(jacobian(operator))(x)
        for name, matrix in expected.items():
            np.testing.assert_allclose(actual[name], matrix, rtol=1e-4, atol=1e-5, err_msg=name)
            assert np.any(matrix != 0), name


def test_linearize(spec, functions):
    """The tangent map alone, which runs the function no more."""
    operator, reference, x = functions(spec)
    out, tangent_map = jax.linearize(operator, x)
    np.testing.assert_array_equal(out, operator(x))
    slope = jax.jit(lambda tangent: jax.jvp(reference, (x,), (tangent,))[1])
    for scale in (1.0, -2.0):
        tangent = {name: np.full_like(value, scale) for name, value in x.items()}
        expected = slope(tangent)
        np.testing.assert_allclose(tangent_map(tangent), expected, rtol=1e-5, atol=1e-5)
        assert np.any(expected != 0)


def test_linear_transpose(propagate, network, rng):
    """`propagate` is linear in its weight, and says so."""
    given = operands(propagate, rng, network)
    weight, n_out = given.pop("weight"), propagate.sizes(SHAPE)[1]
    transpose = jax.linear_transpose(lambda w: call(propagate, given | {"weight": w}, shape=SHAPE), weight)
    cotangent = rng.uniform(-1, 1, n_out).astype(np.float32)
    (out,) = transpose(cotangent)
    event, partner = network.ends(propagate)
    np.testing.assert_array_equal(out, np.where(given["spike"][event], cotangent[partner], 0))
    assert np.any(out != 0)


def test_the_value_is_that_without_a_derivative(spec, functions, backend):
    """Bit for bit: the kernel runs as it does alone."""
    operator, _, x = functions(spec, backend)
    ones = jax.tree.map(jnp.ones_like, x)
    same = np.testing.assert_array_equal if backend != "jax" else np.testing.assert_allclose
    same(jax.jvp(operator, (x,), (ones,))[0], operator(x))
    same(jax.jit(lambda x: jax.vjp(operator, x)[0])(x), operator(x))


@pytest.mark.slow
def test_a_chain_of_derivatives(update, functions):
    """Each of one operand, of all orders up to three, forward over forward over reverse."""
    operator, reference, x = functions(update)
    ones = jax.tree.map(jnp.ones_like, x)

    def third(function):
        def slope(x):
            return jax.jvp(jax.grad(lambda x: (function(x) ** 3).sum()), (x,), (ones,))[1]

        return jax.jit(lambda x: jax.jvp(slope, (x,), (ones,))[1])(x)

    actual, expected = third(operator), third(reference)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=2e-3, atol=2e-3 * np.abs(value).max(), err_msg=name)
        assert np.any(value != 0)


def test_constants_have_no_tangent(update, functions):
    """What does not depend on the argument costs no kernel but its value's: JAX knows that the tangent is 0."""
    operator, _, x = functions(update)
    jaxpr = jax.make_jaxpr(lambda t: jax.jvp(lambda y: operator(x) + y, (1.0,), (t,))[1])(1.0)
    assert len(re.findall(r"= hebbax_\w+\[", str(jaxpr))) == 1
    gradient = jax.grad(lambda y: (jax.lax.stop_gradient(operator(x)) * y).sum())(2.0)
    np.testing.assert_allclose(gradient, operator(x).sum(), rtol=1e-5)


def test_units(update, network, rng):
    """The tangent of a Quantity is one of the same unit; a trace in another unit is converted, and its slope too."""
    given, options = update_problem(update, network, rng, "no bounds")
    structure = network.structure(update)

    def function(trace):
        x = structure | given | {"weight": given["weight"] * u.mV, "trace": trace}
        return call(update, x, shape=SHAPE, **options)

    traces = [given["trace"] * u.mV, given["trace"] * 1000 * u.uvolt]
    (_, one), (_, other) = (jax.jvp(function, (x,), (x,)) for x in traces)
    assert one.unit == other.unit == u.mV
    np.testing.assert_allclose(other.mantissa, one.mantissa, rtol=1e-5)
    assert np.any(one.mantissa != 0)
