"""Soft bounds: changes that fade with the distance to a bound, their values, limits, cost and derivative."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_donation import NSE, copies, on_device
from test_donation import SHAPE as DONATION_SHAPE

import hebbax
import oracle
from problems import DTYPES, KERNELS, call, enable_x64, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (20, 30)
SOFT = ("upper", "lower")
# Powers that the kernels treat apart: none, 1, and others below and above 1.
POWERS = (0, 0.3, 1, 2.5)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, 150)


def array_bounds(rng, nse, dtype):
    return {"w_min": rng.uniform(-1.5, 0, nse).astype(dtype), "w_max": rng.uniform(0.25, 1.5, nse).astype(dtype)}


# What an update may do beside; weights are in [-2, 2), so that in each of them some lie outside the bounds.
BESIDE = {
    "scalars": lambda rng, n, nse, dtype: {"w_min": -1.0, "w_max": 1.25},
    "arrays and gain": lambda rng, n, nse, dtype: (
        array_bounds(rng, nse, dtype) | {"gain": rng.uniform(-2, 2, n).astype(np.float32)}
    ),
    "scalars, promise and gain": lambda rng, n, nse, dtype: {
        "w_min": -1.0, "w_max": 1.25, "weight_in_bounds": True, "gain": rng.uniform(-2, 2, n).astype(np.float32),
    },
    "arrays, promise and scalar gain": lambda rng, n, nse, dtype: (
        array_bounds(rng, nse, dtype) | {"weight_in_bounds": True, "gain": -1.75}
    ),
    "array and scalar": lambda rng, n, nse, dtype: array_bounds(rng, nse, dtype) | {"w_max": 0.5},
}  # fmt: skip


def soft_problem(update, rng, network, dtype=np.float32, beside="scalars", p_spike=0.7):
    given = operands(update, rng, network, dtype, p_spike)
    return given | BESIDE[beside](rng, given["spike"].size, network.nse, dtype)


def evaluate_in_float64(update, given, **options):
    """The oracle's result for the same numbers, all of which float64 holds, before the last rounding."""
    wide = {name: x.astype(np.float64) if getattr(x, "dtype", 0) in DTYPES.values() else x for name, x in given.items()}
    promise = wide.pop("weight_in_bounds", False)
    return oracle.evaluate(update, SHAPE, wide, weight_in_bounds=promise, **options)


def assert_within_roundings(actual, exact):
    """The base takes four roundings, its power of at most 2.5 ten, `pow` two, and the factors another two.

    These 14 half units are relative to the change, and one of more than 4 ends on a bound: 28 units. float64 takes as
    many for `exact` itself. A 16-bit result is rounded once more, to the nearest.
    """
    wide = np.float64 if actual.dtype == np.float64 else np.float32
    tolerance = (2 if wide == np.float64 else 1) * 30 * np.finfo(wide).eps
    to_nearest = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(str(actual.dtype), 0)
    np.testing.assert_allclose(np.asarray(actual).astype(np.float64), exact, rtol=to_nearest, atol=tolerance)


# -- values


@pytest.mark.together(2)
@pytest.mark.parametrize("mu", POWERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_values(update, backend, network, rng, dtype, mu):
    """Not every option beside with every power and dtype; test_values.py draws from all combinations."""
    for number, soft_bound in enumerate(SOFT, POWERS.index(mu) + list(DTYPES).index(dtype)):
        given = soft_problem(update, rng, network, DTYPES[dtype], list(BESIDE)[number % len(BESIDE)])
        with enable_x64(True):
            out = call(update, given, shape=SHAPE, backend=backend, soft_bound=soft_bound, mu=mu)
        assert out.dtype == DTYPES[dtype]
        assert_within_roundings(out, evaluate_in_float64(update, given, soft_bound=soft_bound, mu=mu))


def soft_chain(backend, **more):
    """Two neurons with weights 1, 2, -0.5 in [-1, 3], of which the first spikes: exact in every dtype."""
    given = {
        "weight": np.array([1, 2, -0.5] * 2, np.float32),
        "indices": np.array([0, 1, 2] * 2),
        "indptr": np.array([0, 3, 6]),
        "pre_spike": np.array([True, False]),
        "post_trace": np.array([1, -0.5, 0.5], np.float32),
        "w_min": -1.0,
        "w_max": 3.0,
        "shape": (2, 3),
    }
    return hebbax.update_csr_on_binary_pre(**given | more, backend=backend)


@pytest.mark.parametrize(
    "soft_bound, mu, expected",
    [
        ("upper", 1, [1 + 0.5, 2 - 0.5 * 0.25, -0.5 + 0.5 * 0.875]),
        ("lower", 1, [1 + 0.5, 2 - 0.5 * 0.75, -0.5 + 0.5 * 0.125]),
        ("upper", 2, [1 + 0.25, 2 - 0.5 * 0.0625, -0.5 + 0.5 * 0.765625]),
        ("lower", 2, [1 + 0.25, 2 - 0.5 * 0.5625, -0.5 + 0.5 * 0.015625]),
        ("upper", 0.5, [1 + 0.5**0.5, 2 - 0.5 * 0.5, -0.5 + 0.5 * 0.875**0.5]),
        ("lower", 0, [2, 1.5, 0]),
    ],
)
def test_worked_example(backend, soft_bound, mu, expected):
    out = soft_chain(backend, soft_bound=soft_bound, mu=mu)
    np.testing.assert_allclose(out[:3], expected, rtol=1e-6)
    np.testing.assert_array_equal(out[3:], [1, 2, -0.5])


@pytest.mark.parametrize("mu", [1, 1.0, np.float32(1), np.int64(1), True])
def test_the_power_is_1_by_default(backend, mu):
    out = soft_chain(backend, soft_bound="lower")
    np.testing.assert_array_equal(out, [1.5, 1.625, -0.4375, 1, 2, -0.5])
    np.testing.assert_array_equal(soft_chain(backend, soft_bound="lower", mu=mu), out)


@pytest.mark.parametrize("mu", [0.5, 1])
@pytest.mark.parametrize("soft_bound", SOFT)
def test_no_weight_becomes_nan_where_the_range_is_subnormal(backend, soft_bound, mu):
    """Its inverse overflows: times the distance of a weight at the bound that was NaN."""
    low, high = np.float32(0), np.float32(1e-39)
    weight = np.array([low, high] * 3, np.float32)
    out = soft_chain(backend, weight=weight, w_min=low, w_max=high, soft_bound=soft_bound, mu=mu)
    assert np.all((out >= low) & (out <= high))


def test_16_bit_weights_are_rounded_once(backend):
    """The bases, 1/3 and 3/4, would differ in their fourth digit; the sums are those of float32, to the nearest."""
    for name in ("float16", "bfloat16"):
        weight, trace = np.array([1, 0.75] * 3, DTYPES[name]), np.array([2.0**-4, -(2.0**-4), 0.3], np.float32)
        for soft_bound in SOFT:
            options = {"w_min": 0.0, "w_max": 3.0, "soft_bound": soft_bound}
            out = soft_chain(backend, weight=weight, post_trace=trace, **options)
            wide = weight[:3].astype(np.float64)
            change = trace.astype(np.float64) * (3 - wide if soft_bound == "upper" else wide) / 3
            np.testing.assert_array_equal(np.asarray(out)[:3], (wide + change).astype(DTYPES[name]))


@pytest.mark.parametrize("mu", [0.3, 1, 2.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_agree_bit_for_bit(update, cpu_kernel, network, dtype, mu):
    """With one another, and where the same bounds are given as scalars or as arrays."""
    for soft_bound in SOFT:
        given = soft_problem(update, np.random.default_rng(0), network, DTYPES[dtype])
        arrays = {name: np.full(network.nse, given[name], DTYPES[dtype]) for name in ("w_min", "w_max")}
        options = {"shape": SHAPE, "soft_bound": soft_bound, "mu": mu}
        with enable_x64(True):
            first = call(update, given, backend=KERNELS[0], **options)
            results = [call(update, given | bounds, backend=cpu_kernel, **options) for bounds in ({}, arrays)]
        for out in results:
            assert np.asarray(out).tobytes() == np.asarray(first).tobytes()


@pytest.mark.parametrize(
    "beside, soft_bound",
    [("scalars", "upper"), ("arrays and gain", "lower"), ("arrays, promise and scalar gain", "upper")],
)
def test_power_0_is_the_additive_form(update, backend, network, rng, beside, soft_bound):
    """Bit for bit, and as a program: it costs nothing."""
    given = soft_problem(update, rng, network, beside=beside)
    options = {"shape": SHAPE, "backend": backend}
    promise = {"weight_in_bounds": given.pop("weight_in_bounds", False)}

    def additive(given):
        return call(update, given, **options, **promise)

    def soft(given, mu=0):
        return call(update, given, **options, **promise, soft_bound=soft_bound, mu=mu)

    additive.__name__ = soft.__name__ = "step"
    assert np.asarray(soft(given)).tobytes() == np.asarray(additive(given)).tobytes()
    text = jax.jit(additive).lower(given).as_text()
    assert jax.jit(soft).lower(given).as_text() == text
    assert jax.jit(lambda given: soft(given, 1)).lower(given).as_text().replace("<lambda>", "step") != text


@pytest.mark.parametrize("soft_bound", SOFT)
def test_powers_0_and_1_call_no_pow(update, network, rng, soft_bound):
    given = soft_problem(update, rng, network)

    def calls_pow(mu):
        options = {"shape": SHAPE, "backend": "jax", "soft_bound": soft_bound, "mu": mu}
        return "pow" in jax.jit(lambda given: call(update, given, **options)).lower(given).as_text()

    assert [calls_pow(mu) for mu in (0, 1, 1.0, 0.5, 2.5)] == [False, False, False, True, True]


@pytest.mark.parametrize("mu", [0.4, 1, 2.5])
@pytest.mark.parametrize("soft_bound, name", [("upper", "w_max"), ("lower", "w_min")])
def test_without_another_bound_the_distance_is_not_scaled(update, backend, network, rng, soft_bound, name, mu):
    """Bounds for all weights and for each; beyond the side that has none, nothing is clipped."""
    own = array_bounds(rng, network.nse, np.float32)[name]
    for bound in (own, float(own[0])):
        given = operands(update, rng, network, p_spike=0.7) | {name: bound}
        given["trace"] *= np.float32(0.25)
        out = np.asarray(call(update, given, shape=SHAPE, backend=backend, soft_bound=soft_bound, mu=mu))
        exact = evaluate_in_float64(update, given, soft_bound=soft_bound, mu=mu)
        np.testing.assert_allclose(out, exact, rtol=2e-5, atol=2e-5)
        assert (np.abs(out - bound) > 2).any()
        zero = {name: np.zeros_like(bound) if np.ndim(bound) else 0.0, "trace": np.zeros_like(given["trace"])}
        kept = call(update, given | zero, shape=SHAPE, backend=backend, soft_bound=soft_bound, mu=mu)
        clip = np.minimum if soft_bound == "upper" else np.maximum
        np.testing.assert_array_equal(kept, clip(given["weight"], 0))


def test_without_another_bound_the_distance_is_one_in_the_unit_of_the_weight(backend):
    """1, 2 and -0.5, all by 0.5 times the square of what they are above -1."""
    given = {"w_max": None, "post_trace": np.full(3, 0.5, np.float32), "soft_bound": "lower", "mu": 2}
    out = soft_chain(backend, **given)
    np.testing.assert_array_equal(out, [1 + 0.5 * 4, 2 + 0.5 * 9, -0.5 + 0.5 * 0.25, 1, 2, -0.5])
    weight = np.float32([1000, 2000, -500] * 2) * u.uS
    given |= {"weight": weight.to(u.mS), "post_trace": np.full(3, 500, np.float32) * u.uS, "w_min": -1.0 * u.mS}
    with_unit = soft_chain(backend, **given)
    assert with_unit.unit == u.mS
    np.testing.assert_array_equal(with_unit.mantissa, out)


# -- limits


@pytest.mark.parametrize("promise", [False, True])
@pytest.mark.parametrize("mu", [0.3, 1, 2.5])
def test_at_the_bound_and_beyond_nothing_changes(backend, mu, promise):
    """But for the clip; however large the trace, and whatever its sign."""
    at_and_beyond = np.array([3, 3.5, 7, 3, 3.5, 2], np.float32)
    for trace in (-1.0, -1e30, 1.0, 0.0):
        options = {"post_trace": np.full(3, trace, np.float32), "mu": mu, "weight_in_bounds": promise}
        upper = soft_chain(backend, weight=at_and_beyond, soft_bound="upper", **options)
        np.testing.assert_array_equal(upper, [3, 3, 3, *(at_and_beyond[3:] if promise else [3, 3, 2])])
        # The same, reflected in the middle of the range.
        lower = soft_chain(backend, weight=2 - at_and_beyond, soft_bound="lower", **options)
        np.testing.assert_array_equal(lower, 2 - np.asarray(upper))


def test_at_the_other_bound_the_change_is_whole(backend):
    for mu in (0.3, 1, 2.5):
        upper = soft_chain(backend, weight=np.full(6, -1, np.float32), soft_bound="upper", mu=mu)
        np.testing.assert_array_equal(upper, [0, -1, -0.5, -1, -1, -1])
        lower = soft_chain(backend, weight=np.full(6, 3, np.float32), soft_bound="lower", mu=mu)
        np.testing.assert_array_equal(lower, [3, 2.5, 3, 3, 3, 3])


def test_power_0_changes_weights_at_the_bound_too(backend):
    out = soft_chain(backend, weight=np.full(6, 3, np.float32), soft_bound="upper", mu=0)
    np.testing.assert_array_equal(out, [3, 2.5, 3, 3, 3, 3])


@pytest.mark.parametrize("soft_bound, mu", [("upper", 1), ("lower", 0.3)])
def test_without_a_range_nothing_changes_but_for_the_clip(backend, soft_bound, mu):
    """Where `w_min` is not below `w_max`, which wins; beside elements that have a range, and in all of them."""
    w_min, w_max = np.float32([1, 2, -1, 5, 2, -9]), np.float32([1, 1.5, 3, 5, -2, 9])
    out = soft_chain(backend, w_min=w_min, w_max=w_max, soft_bound=soft_bound, mu=mu)
    alone = soft_chain(backend, soft_bound=soft_bound, mu=mu)
    np.testing.assert_allclose(out, [1, 1.5, alone[2], 5, -2, -0.5], rtol=1e-6)
    for low, high in ((1.5, 1.5), (jnp.float32(2), jnp.float32(-0.25))):
        out = soft_chain(backend, w_min=low, w_max=high, soft_bound=soft_bound, mu=mu)
        np.testing.assert_array_equal(out, np.full(6, high, np.float32))


def test_scalar_bounds_are_finite(update, rng):
    network = random_network(rng, (6, 7), 20)
    given = operands(update, rng, network)
    for low, high, name in ((-np.inf, 1.0, "w_min"), (0.0, np.float32(np.inf), "w_max")):
        with pytest.raises(ValueError, match=f"^{name}: got -?inf, expected a finite bound"):
            call(update, given, shape=(6, 7), w_min=low, w_max=high, soft_bound="upper")


@pytest.mark.parametrize("soft_bound, mu", [("upper", 0.3), ("lower", 1)])
def test_nan_propagates(backend, soft_bound, mu):
    nan, options = np.nan, {"soft_bound": soft_bound, "mu": mu}
    expected = np.array(soft_chain(backend, **options))

    def is_nan(**more):
        out = np.array(soft_chain(backend, **options | more))
        number = ~np.isnan(out)
        np.testing.assert_allclose(out[number], expected[number], rtol=1e-6)
        return (~number).tolist()

    assert is_nan() == [False] * 6
    assert is_nan(weight=np.float32([nan, 2, -0.5, 1, nan, -0.5])) == [True, False, False, False, True, False]
    assert is_nan(post_trace=np.float32([1, nan, 0.5])) == [False, True, False, False, False, False]
    assert is_nan(gain=np.float32([nan, 1])) == [True, True, True, False, False, False]
    assert is_nan(gain=np.float32([1, nan])) == [False] * 6
    for bound, value in (("w_min", -1), ("w_max", 3)):
        some = np.float32([value, value, nan, value, nan, value])
        assert is_nan(**{bound: some}) == [False, False, True, False, True, False]
        assert is_nan(**{bound: some}, weight_in_bounds=True) == [False, False, True, False, False, False]
        assert is_nan(**{bound: nan}) == [True] * 6
    # At the bound too, where a trace counts nothing.
    at_both = np.float32([3, -1, 3, 1, 2, -0.5])
    out = soft_chain(backend, weight=at_both, post_trace=np.full(3, nan, np.float32), **options)
    assert np.isnan(out).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("soft_bound, mu", [("upper", 1), ("lower", 0.3)])
def test_untouched_elements_keep_their_bits(update, network, rng, backend, soft_bound, mu):
    given = soft_problem(update, rng, network, p_spike=0.3)
    given["weight"] = rng.choice(np.float32([-0.0, 0.0, np.inf, np.nan, 1e-3, -7]), network.nse)
    touched = given["spike"][network.post if update.event == "post" else network.pre]
    options = {"shape": SHAPE, "backend": backend, "soft_bound": soft_bound, "mu": mu}
    out = np.array(call(update, given, **options, weight_in_bounds=True))
    assert out[~touched].tobytes() == given["weight"][~touched].tobytes()
    negative_zero = (given["weight"] == 0) & np.signbit(given["weight"])
    assert np.any(negative_zero & ~touched)
    given["weight"] = np.where(np.abs(given["weight"]) < 1, given["weight"], np.float32(0.5))  # then none is clipped
    out = np.array(call(update, given, **options))
    assert out[~touched].tobytes() == given["weight"][~touched].tobytes()
    assert not np.array_equal(out[touched], given["weight"][touched])


def test_a_negative_zero_that_gains_nothing_stays_one(backend):
    """At the soft bound a change is zero with the sign of the trace, and -0.0 + -0.0 is -0.0."""
    weight, trace = np.full(6, -0.0, np.float32), np.array([-1, 1, -0.5], np.float32)
    options = {"weight": weight, "post_trace": trace, "w_min": -1.0, "w_max": 0.0, "soft_bound": "upper"}
    for promise in (False, True):
        out = soft_chain(backend, **options, weight_in_bounds=promise)
        np.testing.assert_array_equal(out, np.zeros(6))
        assert np.signbit(out)[[3, 4, 5]].all() or not promise  # (a clip may change the sign of a zero at a bound)


@pytest.mark.parametrize("shape, nse", [((0, 3), 0), ((3, 0), 0), ((3, 4), 0), ((1, 1), 1)])
def test_empty_networks(update, rng, backend, shape, nse):
    given = operands(update, rng, random_network(rng, shape, nse), p_spike=1.0) | {"w_min": -1.0}
    for w_max in (1.0, np.full(nse, 1, np.float32)):
        for mu in (0.5, 1):
            out = call(update, given | {"w_max": w_max}, shape=shape, backend=backend, soft_bound="upper", mu=mu)
            expected = oracle.evaluate(update, shape, given | {"w_max": w_max}, soft_bound="upper", mu=mu)
            oracle.assert_close(out, expected)


# -- units


@pytest.mark.parametrize("soft_bound, mu", [("upper", 2.5), ("lower", 1)])
def test_units_of_the_bounds_are_converted(update, network, rng, backend, soft_bound, mu):
    given = soft_problem(update, rng, network, beside="array and scalar")
    options = {"shape": SHAPE, "backend": backend, "soft_bound": soft_bound, "mu": mu}
    plain = call(update, given, **options)
    units = {"weight": u.mS, "trace": u.mS, "w_min": u.mS, "w_max": u.mS}
    out = call(update, given | {name: given[name] * unit for name, unit in units.items()}, **options)
    assert out.unit == u.mS
    np.testing.assert_array_equal(out.mantissa, plain)
    other = {"w_min": given["w_min"] * np.float32(1000) * u.uS, "w_max": given["w_max"] * 1e-3 * u.siemens}
    given = given | {"weight": given["weight"] * u.mS, "trace": given["trace"] * np.float32(1e-3) * u.siemens} | other
    out = call(update, given, **options)
    assert out.unit == u.mS
    # Two roundings of each bound and of the trace; a bound's weigh as those of the base in `assert_within_roundings`,
    # but for weights just beyond a range that is small, whose steepest base is 14.
    oracle.assert_close(np.asarray(out.mantissa), np.asarray(plain), roundings=64)


# -- the derivative that is documented


def differentiable(update, rng, bounds, mu, soft_bound):
    """A differentiable function of weight, trace, gain and bounds, and these, with all weights inside."""
    network = random_network(rng, (5, 4), 12)
    given = operands(update, rng, network, np.float64, p_spike=0.7)
    nse, scalars = network.nse, bounds == "scalars"
    low, high = np.array([[-1.0], [1.5]]) if scalars else (rng.uniform(-2, -1, nse), rng.uniform(1, 2, nse))
    arguments = {
        "weight": rng.uniform(-0.8, 0.8, nse), "trace": 0.1 * given["trace"],
        "gain": rng.uniform(0.5, 1, given["spike"].size), "w_min": low, "w_max": high,
    }  # fmt: skip
    if bounds == "the soft one":
        del arguments["w_min" if soft_bound == "upper" else "w_max"]

    def function(*values):
        varied = dict(zip(arguments, values, strict=True))
        varied |= {name: varied[name][0] for name in ("w_min", "w_max") if scalars}
        return call(update, given | varied, shape=network.shape, soft_bound=soft_bound, mu=mu)

    return function, tuple(arguments.values())


@pytest.mark.parametrize("soft_bound, mu", [("upper", 0.3), ("lower", 1), ("lower", 2.5)])
@pytest.mark.parametrize("bounds", ["scalars", "arrays", "the soft one"])
def test_derivative_inside_the_bounds(update, rng, bounds, soft_bound, mu):
    with enable_x64(True):
        function, arguments = differentiable(update, rng, bounds, mu, soft_bound)
        cotangent = rng.uniform(-1, 1, arguments[0].size)
        loss = jax.jit(lambda *arguments: function(*arguments) @ cotangent)
        for number, gradient in enumerate(jax.grad(loss, range(len(arguments)))(*arguments)):
            step, direction = 1e-6, rng.uniform(-1, 1, gradient.size)
            plus, minus = list(arguments), list(arguments)
            plus[number], minus[number] = (arguments[number] + x * direction for x in (step, -step))
            difference = (loss(*plus) - loss(*minus)) / (2 * step)
            # Central differences: an error of step^2 = 1e-12 times a third derivative, and of 1e-16 / step.
            np.testing.assert_allclose(gradient @ direction, difference, atol=1e-8)
            assert abs(difference) > 1e-4


@pytest.mark.parametrize("mu", [0.3, 1])
@pytest.mark.parametrize("soft_bound", SOFT)
def test_derivative_at_the_bound_and_beyond_is_that_of_no_change(update, rng, soft_bound, mu):
    """Softness and its derivative are 0 there, and where there is no range: what is left is that of the clip."""
    with enable_x64(True):
        function, arguments = differentiable(update, rng, "arrays", mu, soft_bound)
        _, trace, gain, w_min, w_max = arguments
        beyond = np.tile([0, 0.25], 6)
        derivatives = jax.jit(jax.jacrev(function, range(5)))
        for weight, high in (
            (w_max + beyond if soft_bound == "upper" else w_min - beyond, w_max),
            (rng.uniform(-3, 3, w_min.size), w_min - beyond),
        ):
            of_soft, of_none = (derivatives(weight, x, gain, w_min, high) for x in (trace, 0 * trace))
            assert all(np.isfinite(x).all() for x in of_soft)
            for number in (0, 3, 4):
                np.testing.assert_array_equal(of_soft[number], of_none[number])
            assert not np.any(of_soft[1]) and not np.any(of_soft[2])
            assert np.any(of_soft[3]) or np.any(of_soft[4])


# -- in place, as in test_donation.py


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mu", [0.5, 1])
def test_donated_weight_is_updated_in_place(update, rng, kernel, mu, dtype):
    network = random_network(rng, DONATION_SHAPE, NSE)
    given = on_device(operands(update, rng, network, jnp.dtype(dtype)))
    weight = given.pop("weight")
    options = {"shape": DONATION_SHAPE, "backend": kernel, "w_min": -1.0, "w_max": 1.0, "soft_bound": "upper", "mu": mu}

    def function(weight, given):
        return call(update, given | {"weight": weight}, **options)

    expected = np.array(jax.jit(function)(weight, given))
    before = weight.unsafe_buffer_pointer()
    step = jax.jit(function, donate_argnums=0)
    out = step(weight, given)
    assert weight.is_deleted() and out.unsafe_buffer_pointer() == before
    np.testing.assert_array_equal(np.array(out), expected)
    assert copies(step.lower(out, given).compile().as_text(), dtype) == []


@pytest.mark.parametrize("bounds", ["scalars", "arrays"])
def test_scan_updates_in_place(update, rng, kernel, bounds):
    network = random_network(rng, DONATION_SHAPE, NSE)
    given = on_device(operands(update, rng, network))
    weight = given.pop("weight")
    spikes = jnp.array(rng.random((5, given.pop("spike").size)) < 0.3)
    # Bounds that are arguments: constants of the weight's size would be copied into the loop.
    low, high = jnp.float32(-1), jnp.float32(1)
    if bounds == "arrays":
        low, high = jnp.full(NSE, low), jnp.full(NSE, high)
    options = {"shape": DONATION_SHAPE, "backend": kernel, "soft_bound": "lower", "mu": 0.5}

    def step(weight, spike, w_min, w_max):
        now = {"weight": weight, "spike": spike, "w_min": w_min, "w_max": w_max}
        return call(update, given | now, **options)

    def function(weight, spikes, *bounds):
        return jax.lax.scan(lambda w, spike: (step(w, spike, *bounds), None), weight, spikes)[0]

    expected = weight
    for spike in spikes:
        expected = step(expected, spike, low, high)
    run = jax.jit(function, donate_argnums=0)
    assert copies(run.lower(weight, spikes, low, high).compile().as_text()) == []
    before = weight.unsafe_buffer_pointer()
    out = run(weight, spikes, low, high)
    assert out.unsafe_buffer_pointer() == before
    np.testing.assert_array_equal(out, expected)
