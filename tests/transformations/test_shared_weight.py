"""`propagate` with one weight that all synapses share: never an array of `nse`, whatever JAX makes of it."""

import brainunit as u
import derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import hebbax
import hlo
from hebbax import _cpu
from hebbax._core.primitives import bind, collect_p
from hebbax._cuda.plan import plan_call
from problems import BACKENDS, DTYPES, INDEX_ERRORS, PLATFORM, UPDATES, call, enable_x64, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE, NSE = (60, 70), 1777  # a size that nothing else here has
WEIGHT = 0.375


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(0), SHAPE, NSE)


@pytest.fixture
def given(propagate, network, rng):
    """All operands but the weight, as JAX arrays."""
    given = operands(propagate, rng, network)
    return {name: jnp.asarray(x) for name, x in given.items() if name != "weight"}


def full(weight):
    return jnp.broadcast_to(jnp.asarray(weight), (NSE,))


# -- values


@pytest.mark.together(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_the_sums_of_an_array_full_of_it(propagate, given, backend, dtype, shape):
    with enable_x64(dtype == "float64"):
        weight = jnp.full(shape, WEIGHT, DTYPES[dtype])
        out = call(propagate, given | {"weight": weight}, shape=SHAPE, backend=backend)
        expected = call(propagate, given | {"weight": full(weight)}, shape=SHAPE, backend=backend)
    np.testing.assert_array_equal(out, expected, strict=True)
    assert str(out.dtype) == dtype and np.unique(out).size > 5


def test_many_roundings_are_those_of_an_array(propagate, cpu_kernel, threads):
    """By any number of threads, in rows that are split between these."""
    rng = np.random.default_rng(0)
    network = random_network(rng, (300, 400), 1_200_000, sorted_rows=True)
    given = operands(propagate, rng, network, p_spike=1.0) | {"weight": np.float32(0.1)}
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(np.asarray(call(propagate, given, shape=network.shape, backend=cpu_kernel)))
    given["weight"] = np.full(network.nse, np.float32(0.1))
    results.append(np.asarray(call(propagate, given, shape=network.shape, backend=cpu_kernel)))
    assert len({result.tobytes() for result in results}) == 1 and results[0].max() > 10


@pytest.mark.parametrize("weight", [0.1, np.float64(0.1), np.float32(0.1), np.array([0.1])], ids=repr)
@pytest.mark.parametrize("unit", [None, u.mV])
def test_numbers_of_python_and_numpy(propagate, given, weight, unit):
    """As they are and with a unit, in `jit` and out of it."""
    expected = call(propagate, given | {"weight": full(np.float32(0.1))}, shape=SHAPE)
    weight = weight if unit is None else weight * unit
    function = jax.jit(lambda weight: call(propagate, given | {"weight": weight}, shape=SHAPE))
    for out in (call(propagate, given | {"weight": weight}, shape=SHAPE), function(weight)):
        assert u.get_unit(out) == (u.UNITLESS if unit is None else unit)
        np.testing.assert_array_equal(u.get_mantissa(out), expected, strict=True)
        assert not u.get_mantissa(out).weak_type
    with jax.disable_jit():
        out = call(propagate, given | {"weight": weight}, shape=SHAPE)
    np.testing.assert_array_equal(u.get_mantissa(out), expected, strict=True)


def test_synapses_take_it(rng):
    synapses, weight = hebbax.Synapses.from_dense(jnp.asarray(0.5 * (rng.random(SHAPE) < 0.3), jnp.float32))
    for propagate_on, n in ((synapses.propagate_on_pre, SHAPE[0]), (synapses.propagate_on_post, SHAPE[1])):
        spike = rng.random(n) < 0.5
        np.testing.assert_array_equal(propagate_on(0.5, spike), propagate_on(weight, spike))
        assert propagate_on(0.5 * u.nS, spike).unit == u.nS


@pytest.mark.parametrize("nse", [0, 1])
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_networks_of_no_synapse_and_of_one(propagate, backend, nse, shape):
    """Where there is one, its weight is its own."""
    indices, n_out = np.full(nse, 1, np.int32), propagate.sizes((2, 2))[1]
    given = {"indices": indices, "indptr": np.array([0, 0, nse]), "spike": np.array([False, True])}
    given |= {"weight_indices": np.zeros(nse, np.int32)} if propagate.permuted else {}

    def function(weight):
        return call(propagate, given | {"weight": weight}, shape=(2, 2), backend=backend)

    weight = jnp.full(shape, 0.5)
    np.testing.assert_array_equal(function(weight), np.array([0, 0.5 * nse], np.float32), strict=True)
    derivative = jax.grad(lambda weight: function(weight)[n_out - 1])(weight)
    np.testing.assert_array_equal(derivative, np.full(shape, nse, np.float32), strict=True)


# -- what is wrong


@pytest.mark.parametrize("weight", [1, 1 * u.mV, np.ones(1, np.int32) * u.mV], ids=repr)
def test_an_integer_is_refused(propagate, given, weight):
    with pytest.raises(TypeError, match=r"^weight: got dtype int32, expected one of float16"):
        call(propagate, given | {"weight": weight}, shape=SHAPE)


def test_a_bad_index_is_reported_and_weight_indices_are_not_read(propagate, given, cpu_kernel):
    given = {name: np.array(x) for name, x in given.items()} | {"weight": WEIGHT}
    given["spike"][:] = True
    expected = call(propagate, given, shape=SHAPE, backend=cpu_kernel)
    if propagate.permuted:
        given["weight_indices"][3] = NSE
        np.testing.assert_array_equal(call(propagate, given, shape=SHAPE, backend=cpu_kernel), expected)
    given["indices"][5] = max(SHAPE)
    with pytest.raises(INDEX_ERRORS, match=rf"{propagate.name}: indices\[5\] = {max(SHAPE)}"):
        jax.block_until_ready(call(propagate, given, shape=SHAPE, backend=cpu_kernel))


def test_others_skip_a_bad_index(propagate, given):
    indices = given["indices"].at[5].set(max(SHAPE))
    keep = jnp.where(jnp.arange(NSE) == 5, 0, WEIGHT)  # in the order of the rows
    weight = jnp.zeros(NSE).at[given["weight_indices"]].set(keep) if propagate.permuted else keep
    expected = call(propagate, given | {"weight": weight}, shape=SHAPE, backend="jax")
    for backend in set(BACKENDS) & {"cupy", "jax"}:
        out = call(propagate, given | {"indices": indices, "weight": WEIGHT}, shape=SHAPE, backend=backend)
        np.testing.assert_array_equal(out, expected)


def test_kernels_refuse_it_for_an_update(network, rng):
    """Whoever calls them; the public functions have said so before (see error_cases.py)."""
    given = operands(UPDATES[0], rng, network) | {"gain": None, "w_min": None, "w_max": None}
    one = np.ones(1, np.float32)
    arguments = [one, *(given[name] for name in UPDATES[0].operands[1:])]
    with pytest.raises(ValueError, match="weight"):
        _cpu.kernels()["update"](one, *arguments, flags=1, mu=1.0)


# -- derivatives


@pytest.mark.together(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("floating", [False, True])
def test_derivatives(propagate, network, rng, backend, dtype, floating):
    """In both modes and of second order, in the weight and in floating spikes: one number for the weight."""
    with enable_x64(dtype == "float64"):
        given = operands(propagate, rng, network, DTYPES[dtype])
        primals = {"weight": jnp.asarray(WEIGHT, DTYPES[dtype])}
        if floating:
            primals["spike"] = given["spike"].astype(np.float64 if dtype == "float64" else np.float32)

        def actual(x):
            out = call(propagate, given | x, shape=SHAPE, backend=backend)
            return out * out / 64

        def expected(x):
            weight = jnp.broadcast_to(x["weight"], (NSE,))
            out = derivatives.propagate(propagate, network, weight, x.get("spike", given["spike"]))
            return out * out / 64

        derivatives.assert_same_derivatives(
            derivatives.all_derivatives(actual, primals), derivatives.all_derivatives(expected, primals)
        )


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_gradient_and_hessian_have_the_shape_of_the_weight(propagate, given, backend, shape):
    def loss(weight):
        return (call(propagate, given | {"weight": weight}, shape=SHAPE, backend=backend) ** 2).sum()

    weight = jnp.full(shape, WEIGHT)
    total = (call(propagate, given | {"weight": full(1.0)}, shape=SHAPE, backend="jax") ** 2).sum()
    np.testing.assert_array_equal(jax.grad(loss)(weight), np.full(shape, 2 * WEIGHT * total), strict=True)
    np.testing.assert_array_equal(jax.hessian(loss)(weight), np.full(2 * shape, 2 * total), strict=True)
    assert jax.grad(loss)(WEIGHT) == 2 * WEIGHT * total  # of a number of Python


def test_a_gradient_with_a_unit(propagate, given):
    def loss(weight):
        return (call(propagate, given | {"weight": weight}, shape=SHAPE).to(u.mV).mantissa ** 2).sum()

    actual = jax.grad(loss)(0.1 * u.mV)
    expected = jax.grad(lambda x: loss(x * u.mV))(0.1)
    assert actual.mantissa == expected and actual.shape == ()


@pytest.mark.slow
def test_derivatives_of_collect_and_of_its_weight(propagate, given, rng, backend):
    """What `propagate` is transposed by, with a gain for each neuron: a derivative in the weight, and that in turn."""
    trace = jnp.asarray(rng.integers(-2, 3, propagate.sizes(SHAPE)[1]), jnp.float32)
    structure = given["indices"], given["indptr"], given.get("weight_indices", jnp.zeros(0, jnp.int32))
    factor = jnp.asarray(rng.integers(-2, 3, given["spike"].size), jnp.float32)

    def function(weight, trace, spike):
        spec = propagate.like("collect")
        return (bind(collect_p, weight, *structure, spike, trace, spec=spec, backend=backend) ** 2 * factor).sum()

    def of_an_array(weight, *others):
        return function(jnp.broadcast_to(weight, (NSE,)), *others)

    x = jnp.full(1, WEIGHT), trace, given["spike"].astype(jnp.float32)
    for derivative in (jax.grad, jax.hessian):
        actual, expected = (jax.jit(derivative(f, argnums=(0, 1, 2)))(*x) for f in (function, of_an_array))
        assert all(np.any(y != 0) for y in jax.tree.leaves(expected)[:4])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), actual, expected)


# -- batches


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("names", [("weight",), ("spike",), ("weight", "spike")], ids=str)
def test_batches(propagate, given, backend, shape, names):
    batch = {
        "weight": jnp.arange(1.0, 6).reshape(5, *shape) / 8,
        "spike": jnp.stack([jnp.roll(given["spike"], k) for k in range(5)]),
    }
    fixed = given | {"weight": jnp.full(shape, WEIGHT)}
    axes = ({name: 0 if name in names else None for name in batch},)

    def function(x):
        return call(propagate, given | x, shape=SHAPE, backend=backend)

    x = {name: batch[name] if name in names else fixed[name] for name in batch}
    members = [{name: x[name][k] if name in names else x[name] for name in x} for k in range(5)]
    out = jax.vmap(function, axes)(x)
    np.testing.assert_array_equal(out, [function(member) for member in members])
    assert np.unique(np.asarray(out), axis=0).shape[0] == 5

    def gradient(x):
        return jax.grad(lambda weight: (function(x | {"weight": weight}) ** 2).sum())(x["weight"])

    np.testing.assert_array_equal(jax.vmap(gradient, axes)(x), [gradient(member) for member in members])

    def of_all(weight):  # where members share the weight, its derivative is the sum of theirs
        return (jax.vmap(lambda spike: function({"weight": weight, "spike": spike}))(batch["spike"]) ** 2).sum()

    expected = sum(gradient({"weight": fixed["weight"], "spike": spike}) for spike in batch["spike"])
    np.testing.assert_array_equal(jax.grad(of_all)(fixed["weight"]), expected, strict=True)


def test_a_batch_of_structures(propagate, given, kernel):
    several = jnp.stack([given["indices"], given["indices"][::-1]])
    out = jax.vmap(
        lambda weight, indices: call(
            propagate, given | {"indices": indices, "weight": weight}, shape=SHAPE, backend=kernel
        )
    )(jnp.array([0.5, 0.25]), several)
    for k, weight in enumerate((0.5, 0.25)):
        one = call(propagate, given | {"indices": several[k], "weight": weight}, shape=SHAPE, backend=kernel)
        np.testing.assert_array_equal(out[k], one)


# -- nothing of size nse


def simulation(propagate, given, backend, weights):
    """The sum of a few steps' squared currents, as a function of a weight that `weights` makes those of a call."""

    def simulate(weight, given, spikes):
        def step(total, spike):
            out = call(propagate, given | {"weight": weights(weight), "spike": spike}, shape=SHAPE, backend=backend)
            return total + (out * out).sum(), None

        return jax.lax.scan(step, 0.0, spikes)[0]

    spikes = jnp.stack([jnp.roll(given["spike"], k) for k in range(4)])
    return simulate, (jnp.float32(WEIGHT), given, spikes)


def derivatives_of(simulate):
    """The function, and what is made of it: everything that has no array of `nse` in it."""
    gradient = jax.value_and_grad(simulate)
    batched = jax.vmap(gradient, in_axes=(0, None, None))
    return {
        "value": simulate,
        "gradient": gradient,
        "hessian": jax.hessian(simulate),
        "batch of gradients": lambda weight, *others: batched(weight * jnp.arange(3, dtype=weight.dtype), *others),
    }


@pytest.mark.optimised
@pytest.mark.parametrize("of", ["value", "gradient", "hessian", "batch of gradients"])
def test_a_compiled_scan_makes_no_array_of_the_size_of_weights(propagate, given, kernel, of):
    simulate, arguments = simulation(propagate, given, kernel, lambda weight: weight)
    compiled = hlo.compiled(derivatives_of(simulate)[of], *arguments)
    text = compiled.as_text()
    assert text.count("custom-call(") > 0
    assert f"s32[{NSE}]" in text and hlo.at_least(text, NSE, kind="f32") == []
    assert hlo.written(text, NSE) == []
    lists = 4 * 24 * max(SHAPE) if PLATFORM == "cuda" else 0  # of rows, three numbers each, for as many as four calls
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * NSE + lists


@pytest.mark.optimised
def test_the_search_finds_an_array_full_of_the_weight(propagate, given):
    """Which XLA makes anew at every step."""
    simulate, arguments = simulation(propagate, given, "cython", full)
    text = hlo.compiled(simulate, *arguments).as_text()
    assert hlo.at_least(text, NSE, kind="f32") and hlo.written(text, NSE)


@pytest.mark.optimised
def test_batches_are_one_call(propagate, given):
    def function(weight, spike):
        return call(propagate, given | {"weight": weight, "spike": spike}, shape=SHAPE, backend="cython")

    spikes = jnp.stack([given["spike"]] * 3)
    for axes, weight in (((None, 0), jnp.float32(WEIGHT)), ((0, 0), jnp.arange(3.0)), ((0, 0), jnp.ones((3, 1)))):
        text = hlo.compiled(jax.vmap(function, axes), weight, spikes).as_text()
        assert hlo.custom_calls(text) == ["propagate"] and " while(" not in text
        assert hlo.at_least(text, NSE, kind="f32") == []


# -- what is left


@pytest.mark.parametrize("backend_in_file", [None, "cython", "jax"])
def test_round_trip_of_export(propagate, given, backend_in_file):
    checks = [export.DisabledSafetyCheck.custom_call(f"hebbax_{name}") for name in ("propagate", "collect")]

    def loss(weight, given):
        return (call(propagate, given | {"weight": weight}, shape=SHAPE, backend=backend_in_file) ** 2).sum()

    function = jax.jit(jax.value_and_grad(loss))
    exported = export.export(function, platforms=["cpu"], disabled_checks=checks)(jnp.float32(WEIGHT), given)
    again = export.deserialize(exported.serialize())
    for weight in jnp.array([WEIGHT, -1.5]):
        np.testing.assert_array_equal(again.call(weight, given), function(weight, given))
    assert function(jnp.float32(WEIGHT), given)[1] > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(propagate, network, rng, dtype):
    """The functions outside JAX, which keep float64."""
    given = operands(propagate, rng, network)
    given = {propagate.public_name(name): x for name, x in given.items() if name != "weight"}
    function = getattr(hebbax.inplace, propagate.name)
    expected = function(np.full(NSE, WEIGHT, DTYPES[dtype]), **given, shape=SHAPE)
    for weight in (np.full(1, WEIGHT, DTYPES[dtype]), np.array(WEIGHT, DTYPES[dtype])):
        out = function(weight, **given, shape=SHAPE)
        np.testing.assert_array_equal(out, expected, strict=True)
    np.testing.assert_array_equal(function(WEIGHT, **given, shape=SHAPE), expected.astype(np.float64), strict=True)
    with pytest.raises(hebbax.ShapeError, match=r"weight: got shape \(2,\).*a scalar"):
        function(np.ones(2), **given, shape=SHAPE)


@pytest.mark.parametrize("name", ["propagate", "collect"])
def test_cuda_kernels_are_those_that_read_one_weight(propagate, name):
    """And no `weight_indices`; where there is one synapse, they are those of a weight for each."""
    spec = propagate.like(name)
    for nse, variant in ((NSE, "float, int, false, true, FLAT"), (1, "float, int, %s, false, FLAT")):
        given = {"weight": jnp.zeros(1), "indices": jnp.zeros(nse, jnp.int32), "indptr": jnp.zeros(6, jnp.int32)}
        given |= {"spike": jnp.zeros(5, bool), "trace": jnp.zeros(7), "gain": jnp.zeros(0)}
        given |= {"weight_indices": jnp.zeros(nse, jnp.int32)}
        plan = plan_call(spec, jnp.zeros(7 if name == "propagate" else 5), given)
        variant = variant % str(propagate.permuted).lower() if nse == 1 else variant
        assert f"{name}<{variant}>" in plan.names
