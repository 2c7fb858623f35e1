"""Control flow: cond, switch, while_loop, fori_loop and scan, with derivatives through those that have them."""

import derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import update_problem

from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (21, 31)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, 160)


@pytest.mark.parametrize("yes", [True, False])
def test_cond(spec, network, rng, backend, yes):
    given = operands(spec, rng, network)
    out_of_call = call(spec, given, shape=SHAPE, backend=backend)

    @jax.jit
    def function(yes, x):
        return jax.lax.cond(yes, lambda x: call(spec, x, shape=SHAPE, backend=backend), lambda x: 0 * out_of_call, x)

    np.testing.assert_array_equal(function(yes, given), out_of_call if yes else 0 * out_of_call)


def test_loops(update, network, rng, backend):
    given = operands(update, rng, network)
    weight = jnp.array(given.pop("weight"))

    def step(weight):
        return call(update, given | {"weight": weight}, shape=SHAPE, backend=backend, w_min=-1.0, w_max=1.0)

    expected = step(step(step(weight)))
    while_loop = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(c[1])), (0, weight))[1]
    fori_loop = jax.jit(lambda w: jax.lax.fori_loop(0, 3, lambda _, w: step(w), w))(weight)
    scan = jax.lax.scan(lambda w, _: (step(w), None), weight, length=3)[0]
    for out in (while_loop, fori_loop, scan):
        np.testing.assert_array_equal(out, expected)


def test_switch(spec, network, rng, backend):
    given = operands(spec, rng, network)

    def branch(scale):
        return lambda w: scale * call(spec, given | {"weight": w}, shape=SHAPE, backend=backend)

    function = jax.jit(lambda which, w: jax.lax.switch(which, [branch(scale) for scale in (1.0, 2.0, -1.0)], w))
    expected = call(spec, given, shape=SHAPE, backend=backend)
    for which, scale in enumerate((1.0, 2.0, -1.0)):
        np.testing.assert_array_equal(function(which, given["weight"]), scale * expected)


# -- derivatives


STEPS = 3


@pytest.fixture
def simulation(network, rng):
    """`simulation(spec)`: a step by the operator and by the reference, and what they are given."""

    def make(spec, backend=None):
        given, options = update_problem(spec, network, rng, "gain, in bounds of each")
        spikes = rng.random((STEPS, given.pop("spike").size)) < 0.5
        structure = network.structure(spec)

        def operator(x, spike):
            return call(spec, structure | x | {"spike": spike}, shape=SHAPE, backend=backend, **options)

        def reference(x, spike):
            return derivatives.evaluate(spec, network, x | {"spike": spike}, **options)

        return operator, reference, {name: jnp.asarray(x) for name, x in given.items()}, jnp.asarray(spikes)

    return make


def of_scan(step, x, spikes):
    weight = jax.lax.scan(lambda w, s: (step(x | {"weight": w}, s), None), x["weight"], spikes)[0]
    return (weight**2).sum()


def assert_close(actual, expected):
    for name, x in expected.items():
        np.testing.assert_allclose(actual[name], x, rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.any(x != 0), name


@pytest.mark.slow
def test_gradients_through_scan(update, simulation, backend):
    operator, reference, x, spikes = simulation(update, backend)
    expected = jax.jit(jax.grad(lambda x: of_scan(reference, x, spikes)))(x)
    assert_close(jax.jit(jax.grad(lambda x: of_scan(operator, x, spikes)))(x), expected)
    tangent = {name: jnp.ones_like(value) for name, value in x.items()}
    slope = jax.jvp(lambda x: of_scan(operator, x, spikes), (x,), (tangent,))[1]
    np.testing.assert_allclose(slope, sum(x.sum() for x in expected.values()), rtol=1e-4)


@pytest.mark.slow
def test_gradients_of_unrolled_and_checkpointed_scans(update, simulation):
    operator, _, x, spikes = simulation(update)
    plain = jax.grad(lambda x: of_scan(operator, x, spikes))(x)
    assert_close(jax.grad(lambda x: of_scan(jax.checkpoint(operator), x, spikes))(x), plain)

    def unrolled(x):
        weight = x["weight"]
        step = lambda w, s: (operator(x | {"weight": w}, s), None)  # noqa: E731
        return (jax.lax.scan(step, weight, spikes, unroll=2)[0] ** 2).sum()

    assert_close(jax.grad(unrolled)(x), plain)


@pytest.mark.parametrize("yes", [True, False])
def test_gradients_through_cond(update, simulation, yes):
    operator, reference, x, spikes = simulation(update)

    def function(step, x, yes):
        out = jax.lax.cond(yes, lambda x: step(x, spikes[0]), lambda x: 3 * step(x, spikes[1]), x)
        return (out**2).sum()

    actual = jax.jit(jax.grad(lambda x, yes: function(operator, x, yes)))(x, yes)
    assert_close(actual, jax.grad(lambda x: function(reference, x, yes))(x))


@pytest.mark.slow
def test_gradients_through_cond_in_scan(update, simulation):
    """A step that learns only every other time."""
    operator, reference, x, spikes = simulation(update)

    def function(step, x):
        def maybe(weight, inputs):
            learns, spike = inputs
            return jax.lax.cond(learns, lambda w: step(x | {"weight": w}, spike), lambda w: 1.0 * w, weight), None

        learns = jnp.arange(STEPS) % 2 == 0
        return (jax.lax.scan(maybe, x["weight"], (learns, spikes))[0] ** 2).sum()

    assert_close(*(jax.jit(jax.grad(lambda x, f=f: function(f, x)))(x) for f in (operator, reference)))


@pytest.mark.slow
def test_a_loop_of_unknown_length_forward(update, simulation, backend):
    """`while_loop` has a JVP and no VJP."""
    operator, reference, x, spikes = simulation(update, backend)

    def function(step, x, n):
        def body(carry):
            k, weight = carry
            return k + 1, step(x | {"weight": weight}, spikes[k])

        return jax.lax.while_loop(lambda carry: carry[0] < n, body, (0, x["weight"]))[1]

    tangent = {name: jnp.ones_like(value) for name, value in x.items()}
    actual, expected = (
        jax.jit(lambda x, t, n, f=f: jax.jvp(lambda x: function(f, x, n), (x,), (t,)))(x, tangent, 2)
        for f in (operator, reference)
    )
    for y, z in zip(actual, expected, strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)
        assert np.any(z != 0)
    with pytest.raises(ValueError, match=r"Reverse-mode differentiation does not work for lax\.while_loop"):
        jax.grad(lambda x: function(operator, x, 2).sum())(x)


def test_gradients_of_propagate_through_scan(propagate, network, rng, backend):
    """Currents that decay, one weight for all steps."""
    weight = rng.uniform(-1, 1, network.nse).astype(np.float32)
    spikes = jnp.asarray(rng.random((STEPS, propagate.sizes(SHAPE)[0])) < 0.5, jnp.float32)
    structure = network.structure(propagate)

    def operator(weight, spike):
        return call(propagate, structure | {"weight": weight, "spike": spike}, shape=SHAPE, backend=backend)

    def reference(weight, spike):
        return derivatives.evaluate(propagate, network, {"weight": weight, "spike": spike})

    def function(step, weight, spikes):
        def body(total, spike):
            total = 0.5 * total + step(weight, spike)
            return total, None

        return (jax.lax.scan(body, jnp.zeros(propagate.sizes(SHAPE)[1]), spikes)[0] ** 2).sum()

    actual, expected = (
        jax.jit(jax.grad(lambda w, s, f=f: function(f, w, s), (0, 1)))(weight, spikes) for f in (operator, reference)
    )
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
        assert np.any(y != 0)
