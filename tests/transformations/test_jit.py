"""jit: what is traced once is not traced again for new values, by whatever transformation it was reached."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (23, 29)  # which no other test has: what that compiled would not be compiled again


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
def test_new_values_do_not_trace_again(spec, rng, backend, compilations, unit):
    """Also the eager call's promise: only a dispatch."""
    network = random_network(rng, SHAPE, 161)  # nor has another one this number
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


def test_only_a_new_power_traces_again(update, network, backend, compilations):
    """Values, of bounds too, are arguments; `mu` is compiled in."""

    def step(seed, mu):
        given = operands(update, np.random.default_rng(seed), network) | {"w_min": -1.0 - seed, "w_max": 1.0 + seed}
        compilations.clear()
        jax.block_until_ready(call(update, given, shape=SHAPE, backend=backend, soft_bound="upper", mu=mu))
        return len(compilations)

    assert step(0, 0.625) > 0
    assert step(1, 0.625) == step(2, 0.625) == 0
    assert step(3, 0.75) > 0
    assert step(4, 0.625) == step(5, 0.75) == 0


def test_a_new_shape_traces_again(spec, rng, backend, compilations):
    for nse in (150, 151):
        given = operands(spec, rng, random_network(rng, (11, 13), nse))
        compilations.clear()
        call(spec, given, shape=(11, 13), backend=backend)
        assert compilations


def transformations(function):
    """What is made of a function of a dict of operands, and how it is called with two of them."""
    gradient = jax.grad(lambda x, fixed: (function(x | fixed) ** 2).sum())
    yield "grad", lambda x, fixed: gradient(x, fixed)
    yield "jvp", lambda x, fixed: jax.jvp(lambda x: function(x | fixed), (x,), (x,))
    yield "vjp", lambda x, fixed: jax.vjp(lambda x: function(x | fixed), x)[0]
    batched = jax.vmap(lambda x, fixed: function(x | fixed), (0, None))
    yield "vmap", lambda x, fixed: batched(jax.tree.map(lambda x: jnp.stack([x, 2 * x]), x), fixed)
    yield (
        "vmap of grad",
        lambda x, fixed: jax.vmap(gradient, (0, None))(jax.tree.map(lambda x: jnp.stack([x, 2 * x]), x), fixed),
    )


NAMES = [name for name, _ in transformations(None)]


@pytest.mark.parametrize(
    "name, own_jit",
    [
        pytest.param(
            name, own_jit, marks=() if (name, own_jit) in {("grad", False), ("vmap", True)} else pytest.mark.slow
        )
        for name, own_jit in [*((name, False) for name in NAMES), ("grad", True), ("vmap", True)]
    ],
)
def test_transformed_again_with_new_values(spec, network, compilations, name, own_jit):
    """The transformation of a function under `jit`, the caller's or ours, is not traced again."""

    def function(x):
        return call(spec, x, shape=SHAPE)

    jax.clear_caches()  # the other tests share what they compiled
    transformed = dict(transformations(jax.jit(function) if own_jit else function))[name]
    results = []
    for seed in range(4):
        given = {n: jnp.array(x) for n, x in operands(spec, np.random.default_rng(seed), network).items()}
        x = {name: given.pop(name) for name in ("weight", "trace") if name in given}
        if spec.kind == "update":
            given |= {"w_min": jnp.float32(-1.0 - seed), "w_max": jnp.float32(1.0 + seed)}
        jax.block_until_ready(given)
        if seed == 1:
            assert compilations, "the first call was expected to compile"
        if seed > 1:  # the second may compile what the first call made
            compilations.clear()
        results.append(jax.block_until_ready(transformed(x, given)))
        if seed > 1:
            assert compilations == []
    leaves = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(result)]) for result in results]
    assert not np.array_equal(leaves[2], leaves[3])


def test_callers_own_jit(spec, network, rng, backend):
    given = operands(spec, rng, network)
    out = jax.jit(lambda x: call(spec, x, shape=SHAPE, backend=backend))(given)
    np.testing.assert_array_equal(out, call(spec, given, shape=SHAPE, backend=backend))


def test_eval_shape(spec, network, rng, backend):
    given = operands(spec, rng, network)
    out = jax.eval_shape(lambda x: call(spec, x, shape=SHAPE, backend=backend), given)
    actual = call(spec, given, shape=SHAPE, backend=backend)
    assert (out.shape, out.dtype) == (actual.shape, actual.dtype)
