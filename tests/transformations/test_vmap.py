"""vmap: over any subset of operands, on any axis, nested, in loops: what a loop over the batch gives."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
from problems import INDEX_ERRORS, call, operands, random_network


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
        if spec.kind == "propagate":  # (in eighths, whose sums are the same in any order)
            given["gain"] = (rng.integers(1, 16, given["spike"].size) / 8).astype(np.float32)
            return given, {"shape": network.shape}
        given |= {"w_min": rng.uniform(-2, -1, 30).astype(np.float32), "w_max": np.float32(1.5)}
        given |= {"gain": rng.uniform(-2, 2, given["spike"].size).astype(np.float32)}
        return given, {"shape": network.shape, "soft_bound": "upper", "mu": 0.5}

    return make


def subsets(spec):
    """Which operands have a batch: some alone, and several; `indptr`, which cannot be rolled, has a test of its own."""
    structure = ("indices", "weight_indices") if spec.permuted else ("indices",)
    if spec.kind == "propagate":
        return [("weight",), ("spike",), ("gain",), structure, ("weight", *structure, "spike", "gain")]
    every = ("weight", *structure, "spike", "trace", "w_min", "w_max", "gain")
    return [("weight",), structure, ("trace", "gain"), ("w_min",), ("w_max",), ("weight", "trace", "spike"), every]


@pytest.mark.together(1)
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


@pytest.mark.together(1)
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


@pytest.mark.together(1)
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


@pytest.mark.together(1)
def test_vmap_over_something_else(spec, rng, backend):
    network = random_network(rng, (21, 31), 160)
    given = operands(spec, rng, network)
    out = jax.vmap(lambda x: x * call(spec, given, shape=network.shape, backend=backend))(jnp.arange(3.0))
    expected = call(spec, given, shape=network.shape, backend=backend)
    np.testing.assert_array_equal(out, jnp.arange(3.0)[:, None] * expected)


@pytest.mark.together(1)
def test_three_levels(spec, plastic, backend):
    given, options = plastic(spec)
    names = ("weight", "spike", "trace" if spec.kind == "update" else "weight")
    batches = [batched(given[name], 2) for name in names]

    def function(*x):
        return call(spec, given | dict(zip(names, x, strict=True)), backend=backend, **options)

    if spec.kind == "propagate":  # weights of two levels
        batches[2] = np.stack([batches[0], -batches[0]], 1)
        axes = (0, None, 0), (None, 0, None), (None, None, 0)
    else:
        axes = (0, None, None), (None, 0, None), (None, None, 0)
    every = function
    for a in axes[::-1]:
        every = jax.vmap(every, in_axes=a)
    out = np.asarray(jax.jit(every)(*batches))
    assert out.shape[:3] == (2, 2, 2)
    for i, j, k in np.ndindex(2, 2, 2):
        last = batches[2][i, k] if spec.kind == "propagate" else batches[2][k]
        same(backend, out[i, j, k], function(batches[0][i], batches[1][j], last))
    assert len(np.unique(out.reshape(8, -1), axis=0)) > 4


@pytest.mark.together(1)
@pytest.mark.parametrize("names", [("gain",), ("w_min", "w_max"), ("trace", "w_max")], ids=str)
def test_scalars_in_a_batch(update, plastic, backend, names):
    """One gain or bound per element of the batch, for all synapses."""
    given, options = plastic(update)
    numbers = {
        "gain": [2, -1, 0.5],
        "w_min": [-1.5, -1, -2],
        "w_max": [1.5, 0.5, 1],
        "trace": batched(given["trace"], 3),
    }
    batch = {name: np.float32(numbers[name]) for name in names}
    out = jax.vmap(lambda x: call(update, given | x, backend=backend, **options))(batch)
    for k in range(3):
        one = given | {name: x[k] for name, x in batch.items()}
        same(backend, out[k], call(update, one, backend=backend, **options))
    assert not np.array_equal(out[0], out[1]) and not np.array_equal(out[1], out[2])


@pytest.mark.together(1)
def test_one_gain_for_each_element_of_a_batch(propagate, plastic, backend):
    given, options = plastic(propagate)
    gains = np.float32([2, -1, 0.5])
    out = jax.vmap(lambda gain: call(propagate, given | {"gain": gain}, backend=backend, **options))(gains)
    once = call(propagate, given | {"gain": None}, backend=backend, **options)
    same(backend, out, gains[:, None] * once)
    assert np.any(once != 0)


@pytest.mark.together(1)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtypes(spec, plastic, kernel, dtype):
    given, options = plastic(spec)
    weights = batched(given["weight"], 3).astype(jnp.dtype(dtype))
    out = jax.vmap(lambda w: call(spec, given | {"weight": w}, backend=kernel, **options))(weights)
    assert out.dtype == dtype
    for k in range(3):
        same(kernel, out[k], call(spec, given | {"weight": weights[k]}, backend=kernel, **options))
    assert not np.array_equal(out[0], out[1])


@pytest.mark.together(1)
@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_batched_spikes_that_are_numbers(spec, plastic, kernel, dtype):
    given, options = plastic(spec)
    spikes = batched(given["spike"], 3)
    numbers = (spikes * np.array([[1], [-3], [2]])).astype(dtype)
    function = jax.vmap(lambda spike: call(spec, given | {"spike": spike}, backend=kernel, **options))
    out = function(numbers)
    same(kernel, out, function(spikes))
    assert not np.array_equal(out[0], out[1])


@pytest.mark.together(1)
def test_empty_batch_and_empty_networks(spec, plastic, backend, rng):
    given, options = plastic(spec)
    function = jax.vmap(lambda w: call(spec, given | {"weight": w}, backend=backend, **options))
    one = function(given["weight"][None])
    assert function(np.zeros((0, 30), np.float32)).shape == (0, *one.shape[1:])
    for shape in ((0, 0), (0, 3), (3, 0), (3, 4)):
        empty = operands(spec, rng, random_network(rng, shape, 0))
        weights, spikes = np.zeros((2, 0), np.float32), np.stack([empty["spike"]] * 2)
        out = jax.vmap(
            lambda w, s, empty=empty, shape=shape: call(
                spec, empty | {"weight": w, "spike": s}, shape=shape, backend=backend
            )
        )(weights, spikes)
        np.testing.assert_array_equal(out, np.zeros((2, 0 if spec.kind == "update" else spec.sizes(shape)[1])))


def test_vmap_in_scan(update, plastic, backend):
    """An ensemble: every member has its own spikes in every step."""
    given, options = plastic(update)
    weights = batched(given["weight"], 3)
    spikes = np.random.default_rng(1).random((4, 3, given["spike"].size)) < 0.5

    def step(weight, spike):
        return call(update, given | {"weight": weight, "spike": spike}, backend=backend, **options)

    out = jax.jit(lambda w, s: jax.lax.scan(lambda w, s: (jax.vmap(step)(w, s), None), w, s)[0])(weights, spikes)
    for k in range(3):
        expected = weights[k]
        for spike in spikes[:, k]:
            expected = step(expected, spike)
        same(backend, out[k], expected)
    assert not np.array_equal(out[0], out[1])


# -- with derivatives


def loss(spec, given, options, backend):
    def function(x):
        return (call(spec, given | x, backend=backend, **options) ** 2).sum()

    return function


def floating(spec):
    return ("weight", "trace", "gain", "w_max") if spec.kind == "update" else ("weight", "spike", "gain")


@pytest.fixture
def smooth(plastic):
    def make(spec):
        given, options = plastic(spec)
        if spec.kind == "propagate":
            given["spike"] = given["spike"].astype(np.float32)
        else:
            given["w_max"] = given["w_min"] + np.float32(2)
        return given, options

    return make


@pytest.mark.together(1)
def test_vmap_of_grad(spec, smooth, backend):
    given, options = smooth(spec)
    check_vmap_of_grad(spec, given, options, backend)


@pytest.mark.together(1)
def test_vmap_of_grad_in_bounds(update, smooth, backend):
    given, options = smooth(update)
    given["weight"] = np.clip(given["weight"], given["w_min"], given["w_max"])
    check_vmap_of_grad(update, given, options | {"weight_in_bounds": True}, backend)


def check_vmap_of_grad(spec, given, options, backend):
    gradient = jax.jit(jax.grad(loss(spec, given, options, backend)))
    batch = {name: batched(given[name], 3) for name in floating(spec)}
    out = jax.vmap(gradient)(batch)
    for k in range(3):
        expected = gradient({name: x[k] for name, x in batch.items()})
        for name, x in expected.items():
            np.testing.assert_allclose(out[name][k], x, rtol=1e-5, atol=1e-5, err_msg=name)
            assert np.any(x != 0), name
    for x in out.values():
        assert not np.array_equal(x[0], x[1])


@pytest.mark.together(1)
@pytest.mark.parametrize("own", [[], ["weight"]], ids=["all shared", "own weights"])
def test_grad_of_vmap_with_shared_operands(spec, smooth, backend, own):
    """One weight, trace, gain and bound for a batch of spikes: their gradients are sums over the batch."""
    given, options = smooth(spec)
    spikes = batched(given["spike"], 3)
    names = [name for name in floating(spec) if name != "spike"]
    shared = {name: given[name] for name in names if name not in own}
    members = {name: jnp.stack([given[name] * (1 - k / 8) for k in range(3)]) for name in own}

    def one(x, member, spike):
        return loss(spec, given | {"spike": spike}, options, backend)(x | member)

    total = jax.jit(jax.grad(lambda *x: jax.vmap(one, (None, 0, 0))(*x, spikes).sum(), (0, 1)))(shared, members)
    parts = [
        jax.grad(lambda x, k=k: one(x, {}, spikes[k]))(shared | {name: x[k] for name, x in members.items()})
        for k in range(3)
    ]
    for name in names:
        each = [np.float64(part[name]) for part in parts]
        expected, out = (np.stack(each), total[1][name]) if name in own else (sum(each), total[0][name])
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert not np.allclose(each[0], each[1]), name


@pytest.mark.slow
def test_jacobians_are_those_of_a_loop(spec, smooth):
    """jacfwd and jacrev are vmaps of derivatives: by columns and by rows they are one matrix."""
    given, options = smooth(spec)

    def function(x):
        return call(spec, given | {floating(spec)[1]: x}, **options)

    x = jnp.asarray(given[floating(spec)[1]])
    forward, reverse = jax.jit(jax.jacfwd(function))(x), jax.jit(jax.jacrev(function))(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-6)
    columns = np.stack([jax.jvp(function, (x,), (e,))[1] for e in jnp.eye(x.size)], 1)
    np.testing.assert_allclose(forward, columns, rtol=1e-5, atol=1e-6)
    assert np.any(columns != 0)


# -- errors


def test_vmap_reports_an_index_out_of_range(spec, plastic, cpu_kernel):
    given, options = plastic(spec)
    indices = batched(given["indices"], 2)
    indices[1] -= 100
    given["spike"] = np.ones_like(given["spike"])
    with pytest.raises(INDEX_ERRORS, match=rf"{spec.name}: indices\[\d+\] = -\d+"):
        jax.block_until_ready(
            jax.vmap(lambda x: call(spec, given | {"indices": x}, backend=cpu_kernel, **options))(indices)
        )


def test_vmap_of_weights_reports_an_index_out_of_range(spec, plastic, cpu_kernel):
    """The one call of a batch names what it finds as a call without a batch does."""
    given, options = plastic(spec)
    given["spike"] = np.ones_like(given["spike"])
    given["indices"] = given["indices"] + 100
    with pytest.raises(INDEX_ERRORS, match=rf"{spec.name}: indices\[\d+\] = 1\d\d"):
        function = jax.vmap(lambda w: call(spec, given | {"weight": w}, backend=cpu_kernel, **options))
        jax.block_until_ready(function(batched(given["weight"], 2)))
