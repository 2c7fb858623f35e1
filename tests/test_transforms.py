"""JAX around the operators: caching, control flow, batches; what is not differentiable yet says so (test_errors.py)."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from problems import INDEX_ERRORS, call, operands, random_network

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


# -- vmap


def batched(x, n, axis=0):
    """`n` arrays like `x`, no two alike where that may be: it rolled by one, two, ..."""
    return np.stack([np.roll(x, k) for k in range(n)], axis)


def same(kernel, out, expected):
    """Bit for bit, but where XLA may compile the reference another way inside a loop."""
    if kernel == "jax":
        oracle.assert_close(out, expected)
    else:
        np.testing.assert_array_equal(out, expected, strict=True)


@pytest.fixture
def plastic(rng):
    """`plastic(spec)`: operands with everything that there is, and the options."""
    network = random_network(rng, (6, 7), 30)

    def make(spec):
        given = operands(spec, rng, network)
        if spec.kind == "propagate":
            return given, {"shape": network.shape}
        given |= {"w_min": rng.uniform(-2, -1, 30).astype(np.float32), "w_max": np.float32(1.5)}
        given |= {"gain": rng.uniform(-2, 2, given["spike"].size).astype(np.float32)}
        return given, {"shape": network.shape, "soft_bound": "upper", "mu": 0.5}

    return make


def subsets(spec):
    """Which operands have a batch: some alone, and several; `indptr`, which cannot be rolled, has a test of its own."""
    structure = ("indices", "weight_indices") if spec.permuted else ("indices",)
    if spec.kind == "propagate":
        return [("weight",), ("spike",), structure, ("weight", *structure, "spike")]
    every = ("weight", *structure, "spike", "trace", "w_min", "w_max", "gain")
    return [("weight",), structure, ("trace", "gain"), ("w_min",), ("w_max",), ("weight", "trace", "spike"), every]


def test_vmap_over_any_operands_is_a_loop(spec, plastic, backend):
    given, options = plastic(spec)
    results = []
    for names in subsets(spec):
        batch = {name: np.float32([1.5, 0.5, 1]) if name == "w_max" else batched(given[name], 3) for name in names}
        out = jax.vmap(lambda x: call(spec, given | x, backend=backend, **options))(batch)
        for k in range(3):
            one = given | {name: x[k] for name, x in batch.items()}
            same(backend, out[k], call(spec, one, backend=backend, **options))
        results.append(np.asarray(out))
    for result in results[-2:]:  # the elements of the batch differ, or the test would say little
        assert not np.array_equal(result[0], result[1]) and not np.array_equal(result[0], result[2])


def test_vmap_over_indptr(spec, plastic, backend):
    given, options = plastic(spec)
    batch = np.stack([given["indptr"], np.minimum(given["indptr"], 20), np.zeros_like(given["indptr"])])
    out = jax.vmap(lambda x: call(spec, given | {"indptr": x}, backend=backend, **options))(batch)
    for k in range(3):
        same(backend, out[k], call(spec, given | {"indptr": batch[k]}, backend=backend, **options))
    assert not np.array_equal(out[0], out[1]) and not np.array_equal(out[1], out[2])


@pytest.mark.parametrize("axes", [(1, 0, 0), (0, 1, -1), (-1, 1, 0), (1, None, 1)], ids=str)
def test_vmap_over_any_axis(spec, plastic, backend, axes):
    given, options = plastic(spec)
    names = ("weight", "spike", "weight_indices" if spec.permuted else "indices")
    mapped = [
        given[name] if axis is None else batched(given[name], 2, axis) for name, axis in zip(names, axes, strict=True)
    ]

    def function(*x):
        return call(spec, given | dict(zip(names, x, strict=True)), backend=backend, **options)

    out = jax.jit(jax.vmap(function, in_axes=axes, out_axes=1))(*mapped)
    for k in range(2):
        one = [x if axis is None else np.take(x, k, axis) for x, axis in zip(mapped, axes, strict=True)]
        same(backend, out[:, k], function(*one))
    assert not np.array_equal(out[:, 0], out[:, 1])


def test_nested_vmap(spec, plastic, backend):
    """Weights by spikes: a table of results."""
    given, options = plastic(spec)
    weights, spikes = batched(given["weight"], 3), batched(given["spike"], 2)

    def function(weight, spike):
        return call(spec, given | {"weight": weight, "spike": spike}, backend=backend, **options)

    table = jax.vmap(jax.vmap(function, in_axes=(None, 0)), in_axes=(0, None))
    out = table(weights, spikes)
    np.testing.assert_array_equal(jax.jit(table)(weights, spikes), out)
    assert out.shape[:2] == (3, 2)
    for i in range(3):
        for j in range(2):
            same(backend, out[i, j], function(weights[i], spikes[j]))


def test_vmap_inside_a_loop_with_units_and_an_empty_batch(update, plastic, backend):
    given, options = plastic(update)
    given |= {name: given[name] * u.mS for name in ("weight", "trace", "w_min", "w_max")}
    weights = batched(given["weight"].mantissa, 3) * u.mS

    def function(weight):
        return call(update, given | {"weight": weight}, backend=backend, **options)

    out = jax.lax.fori_loop(0, 2, lambda _, w: jax.vmap(function)(w), weights)
    assert out.unit == u.mS
    for k in range(3):
        same(backend, out.mantissa[k], function(function(weights[k])).mantissa)
    assert jax.vmap(function)(weights[:0]).shape == (0, 30)


def test_vmap_reports_an_index_out_of_range(spec, plastic, kernel):
    given, options = plastic(spec)
    indices = batched(given["indices"], 2)
    indices[1] -= 100
    given["spike"] = np.ones_like(given["spike"])
    with pytest.raises(INDEX_ERRORS, match=rf"{spec.name}: indices\[\d+\] = -\d+"):
        jax.block_until_ready(
            jax.vmap(lambda x: call(spec, given | {"indices": x}, backend=kernel, **options))(indices)
        )
