"""Derivatives against a differentiable reference, forward, reverse and both: their values, bounds, dtypes and units."""

import brainunit as u
import derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import all_derivatives, assert_same_derivatives, update_problem
from jax.test_util import check_grads

import hebbax
from hebbax._core.specs import PROPAGATE_PRE
from problems import BACKENDS, CSC_SPECS, DTYPES, call, enable_x64, operands, random_network

pytestmark = [pytest.mark.together(1), pytest.mark.optimised]
SHAPE, NSE = (9, 10), 80


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(5), SHAPE, NSE)


def both(spec, network, given, differentiated, backend=None, **options):
    """All derivatives of the operator and of the reference, with respect to the operands that are `differentiated`."""
    structure = network.structure(spec)
    primals = {name: given[name] for name in differentiated}

    def operator(x):
        return call(spec, structure | given | x, shape=network.shape, backend=backend, **options)

    def reference(x):
        return derivatives.evaluate(spec, network, given | x, **options)

    return all_derivatives(operator, primals), all_derivatives(reference, primals)


def assert_something_moves(found):
    """No derivative is 0 everywhere: a test of zeros would say little."""
    for kind in ("jvp", "vjp"):
        for x in jax.tree.leaves(found[kind]):
            assert np.any(x != 0)


# -- update


@pytest.mark.parametrize("case", derivatives.CASES)
def test_update(update, case, network, rng):
    given, options = update_problem(update, network, rng, case)
    actual, expected = both(update, network, given, given.keys() - {"spike"}, **options)
    assert_same_derivatives(actual, expected)
    assert_something_moves(expected)


@pytest.mark.parametrize("csc_update", CSC_SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("case", ["gain, bounds of each", "one gain, in w_min", "upper, root, in bounds"])
def test_update_of_weights_in_csc_order(csc_update, case, network, rng):
    given, options = update_problem(csc_update, network, rng, case)
    actual, expected = both(csc_update, network, given, given.keys() - {"spike"}, **options)
    assert_same_derivatives(actual, expected)
    assert_something_moves(expected)


@pytest.mark.parametrize("case", [case for case, (kinds, _) in derivatives.HARD.items() if "w_max" in kinds])
def test_update_at_the_bounds(update, case, network, rng):
    """Derivatives are halved where `jnp.clip` halves them, and only there."""
    given, options = update_problem(update, network, rng, case, ties=True)
    actual, expected = both(update, network, given, given.keys() - {"spike"}, **options)
    assert_same_derivatives(actual, expected)
    touched = given["spike"][network.ends(update)[0]]
    at_w_max = expected["value"] == given["w_max"]
    assert (at_w_max & touched).any() and (at_w_max & ~touched).any()


@pytest.mark.slow
@pytest.mark.parametrize("other", [backend for backend in BACKENDS if backend != "cython"])
@pytest.mark.parametrize("case", ["gain, bounds of each", "upper, root, in bounds"])
def test_update_on_other_backends(update, case, other, network, rng):
    given, options = update_problem(update, network, rng, case)
    actual, expected = both(update, network, given, given.keys() - {"spike"}, other, **options)
    assert_same_derivatives(actual, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", ["gain, bounds of each", "upper, root, in bounds"])
def test_update_of_other_dtypes(update, case, dtype, network, rng):
    with enable_x64(dtype == "float64"):
        given, options = update_problem(update, network, rng, case, DTYPES[dtype])
        actual, expected = both(update, network, given, given.keys() - {"spike"}, **options)
    assert actual["vjp"]["weight"].dtype == DTYPES[dtype]
    assert_same_derivatives(actual, expected)
    assert_something_moves(expected)


@pytest.mark.parametrize("operand", ["trace", "gain", "w_min", "w_max"])
def test_gradients_have_the_dtypes_of_their_operands(update, operand, network, rng):
    """Also where the kernel computes in another."""
    given, options = update_problem(update, network, rng, "gain, bounds of each")
    given[operand] = given[operand].astype(np.float16)
    actual, expected = both(update, network, given, [operand], **options)
    assert actual["vjp"][operand].dtype == np.float16
    assert_same_derivatives(actual, expected)
    assert_something_moves(expected)


@pytest.mark.slow
def test_one_operand_alone(update, network, rng):
    """What is not differentiated is a constant."""
    given, options = update_problem(update, network, rng, "gain, bounds of each")
    together, _ = both(update, network, given, given.keys() - {"spike"}, **options)
    for name in ("weight", "gain", "w_max"):
        alone, expected = both(update, network, given, [name], **options)
        assert_same_derivatives(alone, expected)
        np.testing.assert_array_equal(alone["vjp"][name], together["vjp"][name])


# Two synapses onto neuron 0, which spikes, and two onto neuron 1, which does not.
FOUR = {"indices": [0, 1, 0, 1], "indptr": [0, 2, 4], "weight_indices": [0, 1, 2, 3]}


def slopes(weight, trace, w_min, w_max, **options):
    """d(new weight) / d(weight, w_min, w_max) of the four synapses above, each by itself."""
    pre_trace = np.broadcast_to(np.float32(trace), 2)

    def function(weight, w_min, w_max):
        return hebbax.update_csr_on_binary_post(
            weight,
            *map(np.array, FOUR.values()),
            pre_trace,
            np.array([True, False]),
            w_min,
            w_max,
            shape=(2, 2),
            **options,
        )

    given = [jnp.broadcast_to(jnp.float32(x), 4) for x in (weight, w_min, w_max)]
    return [np.diag(x).tolist() for x in jax.jacrev(function, (0, 1, 2))(*given)]


def test_ties_by_hand():
    half, quarter = [0.5] * 4, [0.25] * 4
    # At w_max: the touched get there by their change, or rest there; the others rest there.
    at_max = [0.75, 1, 1, 1], [0.25, 0], 0, 1
    assert slopes(*at_max) == [half, [0] * 4, half]
    assert slopes(*at_max, weight_in_bounds=True) == [[0.5, 0.5, 1, 1], [0] * 4, [0.5, 0.5, 0, 0]]
    at_min = [0.25, 0, 0, 0], [-0.25, 0], 0, 1
    assert slopes(*at_min) == [half, half, [0] * 4]
    assert slopes(*at_min, weight_in_bounds=True) == [[0.5, 0.5, 1, 1], [0.5, 0.5, 0, 0], [0] * 4]
    # w_min == w_max: half goes to w_max, and the rest is halved again.
    assert slopes([0.75, 1, 1, 1], [0.25, 0], 1, 1) == [quarter, quarter, half]
    assert slopes([0.75, 1, 1, 1], [0.25, 0], 1, 1, weight_in_bounds=True) == [
        [0.25, 0.25, 1, 1], [0.25, 0.25, 0, 0], [0.5, 0.5, 0, 0],
    ]  # fmt: skip
    # w_min > w_max: w_max is the result.
    assert slopes(0.5, 0.25, 1, 0) == [[0] * 4, [0] * 4, [1] * 4]
    # Inside, and outside by the change or from the start.
    assert slopes([0.5, 0.5, 0.5, 2], [0.25, 1], 0, 1) == [[1, 0, 1, 0], [0] * 4, [0, 1, 0, 1]]
    # In bounds is a promise: an untouched weight is not looked at, whatever it is.
    assert slopes([0.5, 0.5, -1, 2], [0.25, 1], 0, 1, weight_in_bounds=True) == [[1, 0, 1, 1], [0] * 4, [0, 1, 0, 0]]


@pytest.mark.parametrize("soft_bound", ["upper", "lower"])
@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_no_soft_bound_has_an_infinite_slope(soft_bound, mu):
    """At it the change is 0, and its derivative too, whatever the power."""
    weight = 1.0 if soft_bound == "upper" else 0.0
    for in_bounds in (False, True):
        slope = slopes(weight, [0.5, -0.5], 0, 1, soft_bound=soft_bound, mu=mu, weight_in_bounds=in_bounds)
        untouched = 1 if in_bounds else 0.5
        assert slope[0] == [0.5, 0.5, untouched, untouched]


@pytest.mark.parametrize("in_bounds", [False, True])
def test_spikes_and_structure_have_no_derivative(update, network, rng, in_bounds):
    """Neither has `after`, which is not read."""
    given, options = update_problem(update, network, rng, "gain, bounds of each")
    given |= {"spike": rng.uniform(-1, 1, given["spike"].size).astype(np.float32) * given["spike"]}
    given |= {"after": np.ones(3, np.float32), **network.structure(update)}
    given = {name: jnp.asarray(x) for name, x in given.items()}
    options = options | {"weight_in_bounds": in_bounds, "shape": SHAPE}
    gradients = jax.grad(lambda x: call(update, x, **options).sum(), allow_int=True)(given)
    for name, x in gradients.items():
        if jnp.issubdtype(given[name].dtype, jnp.integer):
            assert x.dtype == jax.dtypes.float0
        else:
            assert np.any(x != 0) != (name in ("spike", "after")), name
    spike = given["spike"] != 0
    (zero,) = jax.vjp(lambda spike: call(update, given | {"spike": spike}, **options), spike)[1](jnp.ones(NSE))
    assert zero.dtype == jax.dtypes.float0
    _, tangent = jax.jvp(lambda x: call(update, given | {"spike": x}, **options), (given["spike"],), (given["spike"],))
    np.testing.assert_array_equal(tangent, np.zeros(NSE))


# -- propagate


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spike_dtype", [None, "float32", "float16"])
@pytest.mark.parametrize("gain", [None, "one", "each"])
def test_propagate(propagate, dtype, spike_dtype, gain, network, rng):
    with enable_x64(dtype == "float64"):
        weight = derivatives.on_grid(rng, -1, 1, 1 / 32, NSE).astype(DTYPES[dtype])
        spike = rng.choice([0, 0, 1, -0.5, 0.25], propagate.sizes(SHAPE)[0])
        spike = spike != 0 if spike_dtype is None else spike.astype(spike_dtype)
        given = {"weight": weight, "spike": spike}
        if gain:
            given["gain"] = rng.choice(np.float32([-1, -0.5, 0.5, 2]), spike.size if gain == "each" else ())
        names = given.keys() - ({"spike"} if spike_dtype is None else set())
        actual, expected = both(propagate, network, given, names)
    assert_same_derivatives(actual, expected)
    assert_something_moves(expected)
    if spike_dtype:
        assert actual["vjp"]["spike"].dtype == spike_dtype
        silent = spike == 0
        assert (actual["vjp"]["spike"][silent] != 0).any() and (actual["vjp"]["spike"][~silent] != 0).any()


@pytest.mark.parametrize("other", [backend for backend in BACKENDS if backend != "cython"])
def test_propagate_on_other_backends(propagate, other, network, rng):
    spike, gain = (rng.choice(np.float32(x), propagate.sizes(SHAPE)[0]) for x in ([0, 1], [-1, 0.5, 2]))
    given = {"weight": operands(propagate, rng, network)["weight"], "spike": spike, "gain": gain}
    assert_same_derivatives(*both(propagate, network, given, given, other))


def test_a_surrogate_gradient(network, rng):
    """What floating spikes have a derivative for: here it equals that of a dense product."""

    @jax.custom_jvp
    def spikes(voltage):
        return (voltage > 0).astype(voltage.dtype)

    spikes.defjvp(lambda x, t: (spikes(*x), t[0] / (1 + jnp.abs(x[0])) ** 2))
    structure = network.structure(PROPAGATE_PRE)
    weight = rng.uniform(-1, 1, NSE).astype(np.float32)
    voltage = rng.uniform(-1, 1, SHAPE[0]).astype(np.float32)

    def sparse(weight, voltage):
        given = structure | {"weight": weight, "spike": spikes(voltage)}
        return (call(PROPAGATE_PRE, given, shape=SHAPE) ** 2).sum()

    def dense(weight, voltage):
        matrix = jnp.zeros(SHAPE).at[network.pre, network.post].add(weight)
        return ((spikes(voltage) @ matrix) ** 2).sum()

    actual, expected = (jax.jit(jax.grad(f, (0, 1)))(weight, voltage) for f in (sparse, dense))
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
        assert np.any(y != 0)


# -- numbers


def smooth_problem(spec, network, rng, soft):
    """In float64, nowhere near a bound but where a bound is far exceeded."""
    given = {name: np.float64(x) if x.dtype.kind == "f" else x for name, x in operands(spec, rng, network).items()}
    options = {"shape": SHAPE}
    if spec.kind == "update":
        given["weight"] = rng.uniform(-0.5, 0.5, NSE)
        given["trace"] = rng.choice([-9, -0.25, 0.2, 9], given["trace"].size) + rng.uniform(0, 0.01)
        given |= {"gain": rng.uniform(0.9, 1.1, given["spike"].size), "w_min": -1.0, "w_max": rng.uniform(1, 2, NSE)}
        options |= {"soft_bound": "upper", "mu": 1.5} if soft else {}
    else:
        given["gain"] = rng.uniform(0.9, 1.1, given["spike"].size)
    return given, options


@pytest.mark.slow
@pytest.mark.parametrize("soft, in_bounds", [(False, False), (True, False), (True, True)])
def test_finite_differences_of_update(update, network, rng, soft, in_bounds):
    with enable_x64(True):
        given, options = smooth_problem(update, network, rng, soft)
        names = ("weight", "trace", "gain", "w_min", "w_max")

        def function(*x):
            every = given | dict(zip(names, x, strict=True))
            return call(update, every, weight_in_bounds=in_bounds, **options)

        check_grads(jax.jit(function), [jnp.asarray(given[name]) for name in names], order=2, eps=1e-5)


def test_finite_differences_of_propagate(propagate, network, rng):
    with enable_x64(True):
        given, options = smooth_problem(propagate, network, rng, soft=False)
        function = jax.jit(lambda w, g: jnp.sin(call(propagate, given | {"weight": w, "gain": g}, **options)))
        check_grads(function, [given["weight"], given["gain"]], order=2, eps=1e-5)


@pytest.mark.slow
def test_hessian(update, network, rng):
    """Forward over reverse, and reverse over forward, of a loss that is not linear in the weights."""
    given, options = update_problem(update, network, rng, "upper, root, in bounds")

    def loss(evaluate, trace, gain):
        return (evaluate(given | {"trace": trace, "gain": gain}) ** 2).sum()

    def operator(x):
        return call(update, x | network.structure(update), shape=SHAPE, **options)

    def reference(x):
        return derivatives.evaluate(update, network, x, **options)

    for how in (jax.hessian, lambda f, n: jax.jacrev(jax.jacfwd(f, n), n)):
        actual, expected = (
            jax.jit(how(lambda *x, f=f: loss(f, *x), (0, 1)))(given["trace"], given["gain"])
            for f in (operator, reference)
        )
        for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
            assert np.any(y != 0)


# -- units, and nothing at all


def test_units_inside_the_function(update, network, rng):
    """A loss of plain numbers that makes Quantities; the trace in another unit than the weight."""
    given, options = update_problem(update, network, rng, "gain, bounds of each")
    structure = network.structure(update)

    def with_units(x):
        units = {"weight": u.mS, "trace": u.uS, "w_min": u.mS, "w_max": u.mS}
        scale = {"trace": 1000}
        x = {name: x[name] * scale.get(name, 1) * units.get(name, 1) for name in x}
        out = call(update, given | structure | x, shape=SHAPE, **options)
        return u.get_mantissa(out / u.mS) ** 2

    def plain(x):
        return derivatives.evaluate(update, network, given | x, **options) ** 2

    primals = {name: given[name] for name in given.keys() - {"spike"}}
    actual, expected = all_derivatives(with_units, primals), all_derivatives(plain, primals)
    assert_same_derivatives(actual, expected)


def test_quantities_in_and_out(spec, network, rng):
    """JAX differentiates the numbers of a Quantity, each in its own unit."""
    if spec.kind == "update":
        given, options = update_problem(spec, network, rng, "gain, bounds of each")
    else:
        given, options = {name: operands(spec, rng, network)[name] for name in ("weight", "spike")}, {}
    units = {name: u.mV for name in ("weight", "trace", "w_min", "w_max") if name in given}
    structure = network.structure(spec)

    def operator(x):
        return call(spec, structure | given | x, shape=SHAPE, **options)

    quantities = {name: given[name] * unit for name, unit in units.items()}
    out, pull_back = jax.vjp(operator, quantities)
    assert out.unit == u.mV
    cotangent = np.arange(out.size, dtype=np.float32) - 3
    (gradient,) = pull_back(u.Quantity(jnp.asarray(cotangent), unit=u.mV))
    numbers = {name: given[name] for name in units}

    @jax.jit
    def reference(x, cotangent):
        function = lambda x: derivatives.evaluate(spec, network, given | x, **options)  # noqa: E731
        return jax.vjp(function, x)[1](cotangent)[0], jax.jvp(function, (x,), (x,))[1]

    expected, expected_tangent = reference(numbers, cotangent)
    for name, x in expected.items():
        assert gradient[name].unit == u.mV
        np.testing.assert_allclose(gradient[name].mantissa, x, rtol=1e-5, atol=1e-5)
        assert np.any(x != 0)
    _, tangent = jax.jvp(operator, (quantities,), (quantities,))
    assert tangent.unit == u.mV
    np.testing.assert_allclose(tangent.mantissa, expected_tangent, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 4)], ids=str)
def test_nothing_to_differentiate(spec, backend, rng, shape):
    """No synapses, or no neurons on a side: zeros of the right shapes, and bounds of no weight have no slope."""
    network = random_network(rng, shape, 0)
    if spec.kind == "update":
        given, options = update_problem(spec, network, rng, "one gain, bounds")
        names = given.keys() - {"spike"}
    else:
        given = {"weight": np.zeros(0, np.float32), "spike": np.ones(spec.sizes(shape)[0], np.float32)}
        names, options = given.keys(), {}
    actual, expected = both(spec, network, given, names, backend, **options)
    assert_same_derivatives(actual, expected)
    assert all((x == 0).all() for x in jax.tree.leaves(actual))


def test_nobody_spikes(spec, network, rng):
    given = {"weight": rng.uniform(-1, 1, NSE).astype(np.float32)}
    options, names = {}, ["weight"]
    if spec.kind == "update":
        given, options = update_problem(spec, network, rng, "upper, root, in bounds")
        names = given.keys() - {"spike"}
    given["spike"] = np.zeros(spec.sizes(SHAPE)[0], bool)
    actual, expected = both(spec, network, given, names, **options)
    assert_same_derivatives(actual, expected)
    assert (actual["vjp"]["weight"] != 0).any() == (spec.kind == "update")
