"""JAX around the operators: caching, control flow, and what is not differentiable yet says so (see test_errors.py)."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from problems import call, operands, random_network

SHAPE = (21, 31)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, 160)


@pytest.fixture(scope="module")
def compiler_events():
    events = []

    def listen(name, *_, **__):
        if name.startswith("/jax/core/compile"):
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


@pytest.fixture
def compilations(compiler_events):
    """What JAX traced, lowered or compiled since the test began, or since it cleared this list."""
    compiler_events.clear()
    return compiler_events


@pytest.mark.parametrize("unit", [None, u.mV])
def test_new_values_do_not_trace_again(spec, network, backend, compilations, unit):
    """Also the eager call's promise: only a dispatch."""
    for seed in range(3):
        given = operands(spec, np.random.default_rng(seed), network)
        if spec.kind == "update":
            given |= {"w_min": -1.0 - seed, "w_max": 1.0 + seed}
        if unit is not None:
            given |= {name: given[name] * unit for name in ("weight", "trace", "w_min", "w_max") if name in given}
        jax.block_until_ready(call(spec, given, shape=SHAPE, backend=backend))
        if seed == 0:
            assert compilations, "the first call was expected to compile"
            compilations.clear()
    assert compilations == []


def test_a_new_shape_traces_again(spec, rng, backend, compilations):
    for nse in (150, 151):
        given = operands(spec, rng, random_network(rng, (11, 13), nse))
        compilations.clear()
        call(spec, given, shape=(11, 13), backend=backend)
        assert compilations


def test_callers_own_jit(spec, network, rng, backend):
    given = operands(spec, rng, network)
    out = jax.jit(lambda x: call(spec, x, shape=SHAPE, backend=backend))(given)
    np.testing.assert_array_equal(out, call(spec, given, shape=SHAPE, backend=backend))


def test_disable_jit(spec, network, rng, backend):
    given = operands(spec, rng, network)
    expected = call(spec, given, shape=SHAPE, backend=backend)
    with jax.disable_jit():
        out = call(spec, given, shape=SHAPE, backend=backend)
        again = jax.jit(lambda x: call(spec, x, shape=SHAPE, backend=backend))(given)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(again, expected)


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


def test_checkpoint(spec, network, rng, backend):
    given = operands(spec, rng, network)
    function = jax.checkpoint(lambda x: call(spec, x, shape=SHAPE, backend=backend))
    np.testing.assert_array_equal(function(given), call(spec, given, shape=SHAPE, backend=backend))


def test_eval_shape(spec, network, rng, backend):
    given = operands(spec, rng, network)
    out = jax.eval_shape(lambda x: call(spec, x, shape=SHAPE, backend=backend), given)
    actual = call(spec, given, shape=SHAPE, backend=backend)
    assert (out.shape, out.dtype) == (actual.shape, actual.dtype)


def test_what_does_not_depend_on_the_operator_can_be_differentiated(update, network, rng, backend):
    given = operands(update, rng, network)

    def loss(x):
        weight = call(update, given, shape=SHAPE, backend=backend)
        return (jax.lax.stop_gradient(weight) * x).sum()

    np.testing.assert_allclose(jax.grad(loss)(2.0), np.asarray(call(update, given, shape=SHAPE)).sum(), rtol=1e-5)


def test_vmap_over_something_else(spec, network, rng, backend):
    given = operands(spec, rng, network)
    out = jax.vmap(lambda x: x * call(spec, given, shape=SHAPE, backend=backend))(jnp.arange(3.0))
    expected = call(spec, given, shape=SHAPE, backend=backend)
    np.testing.assert_array_equal(out, jnp.arange(3.0)[:, None] * expected)
