"""The semantics, line by line: each test is one promise of the documentation."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
import oracle
from problems import DTYPES, Network, call, enable_x64, operands, random_network

pytestmark = pytest.mark.together(1)
INDEX_DTYPES = [  # of indices, weight_indices, indptr
    ("int32", "int32", "int64"),
    ("int64", "int64", "int32"),
    ("int64", "int32", "uint64"),
    ("uint32", "int64", "uint8"),
    ("uint8", "uint64", "int16"),
]


@pytest.fixture
def network(rng):
    return random_network(rng, (20, 30), 150)


def chain(dtype=np.float32, **more):
    """Arguments of `update_csr_on_binary_pre`: two neurons with weights 0.5, -0.0, 2.0, of which the first spikes."""
    return {
        "weight": np.array([0.5, -0.0, 2.0] * 2, dtype),
        "indices": np.array([0, 1, 2] * 2),
        "indptr": np.array([0, 3, 6]),
        "pre_spike": np.array([True, False]),
        "post_trace": np.array([0.25, -0.5, 1.0], np.float32),
        "shape": (2, 3),
    } | more


def update_chain(backend, **more):
    return hebbax.update_csr_on_binary_pre(**chain(**more), backend=backend)


# -- the example of the documentation


def test_worked_example(backend):
    out = hebbax.update_csr_on_binary_post(
        np.array([0.5, 0.3, 0.8, 0.2], np.float32), np.array([0, 1, 0, 1]), np.array([0, 2, 4]), np.array([0, 2, 1, 3]),
        np.array([0.1, -0.05]), np.array([True, False]), shape=(2, 2), backend=backend,
    )  # fmt: skip
    np.testing.assert_allclose(out, [0.6, 0.3, 0.75, 0.2], rtol=1e-6)


def test_arguments_may_be_positional_up_to_the_bounds(backend):
    x = chain()
    shape = x.pop("shape")
    out = hebbax.update_csr_on_binary_pre(*x.values(), -0.25, 1.0, shape=shape, backend=backend)
    np.testing.assert_array_equal(out, [0.75, -0.25, 1.0, 0.5, 0.0, 1.0])


@pytest.mark.together(2)
def test_propagate_is_a_matrix_product(propagate, network, rng, backend):
    given = operands(propagate, rng, network)
    weight = given["weight"] = rng.integers(-8, 8, network.nse).astype(np.float32)  # so that every sum is exact
    matrix = network.matrix(weight)
    out = call(propagate, given, shape=network.shape, backend=backend)
    product = matrix @ given["spike"] if propagate.event == "post" else given["spike"] @ matrix
    np.testing.assert_array_equal(out, product)


@pytest.mark.together(2)
def test_update_adds_the_outer_product_where_there_are_synapses(update, network, rng, backend):
    given = operands(update, rng, network)
    x, spike = given["trace"], given["spike"]
    outer = np.outer(x, spike) if update.event == "post" else np.outer(spike, x)
    out = call(update, given, shape=network.shape, backend=backend)
    np.testing.assert_array_equal(out, given["weight"] + outer.astype(np.float32)[network.pre, network.post])


# -- result


@pytest.mark.together(2)
@pytest.mark.parametrize("dtype", DTYPES)
def test_result_has_the_shape_and_dtype_of_the_weight_which_stays_as_it_was(spec, network, rng, backend, dtype):
    given = operands(spec, rng, network, DTYPES[dtype], p_spike=1.0)
    with enable_x64(True):
        given = {name: jnp.array(x) for name, x in given.items()}
        before = np.array(given["weight"])
        out = call(spec, given, shape=network.shape, backend=backend)
        after = np.array(given["weight"])
    n_other = spec.sizes(network.shape)[1]
    assert out.dtype == DTYPES[dtype]
    assert out.shape == ((network.nse,) if spec.kind == "update" else (n_other,))
    assert before.tobytes() == after.tobytes()
    assert spec.kind == "propagate" or not np.array_equal(np.array(out), after)


def test_numpy_weight_stays_as_it_was(update, network, rng, backend):
    given = operands(update, rng, network, p_spike=1.0)
    before = given["weight"].copy()
    jax.block_until_ready(call(update, given, shape=network.shape, backend=backend, weight_in_bounds=True))
    np.testing.assert_array_equal(given["weight"], before)


# -- clipping


@pytest.mark.parametrize(
    "bounds, expected",
    [
        ({}, [0.75, -0.5, 3.0, 0.5, -0.0, 2.0]),
        ({"w_min": 0.0}, [0.75, 0.0, 3.0, 0.5, 0.0, 2.0]),
        ({"w_max": 0.25}, [0.25, -0.5, 0.25, 0.25, -0.0, 0.25]),
        ({"w_min": -0.25, "w_max": 1}, [0.75, -0.25, 1.0, 0.5, 0.0, 1.0]),
        ({"w_min": np.float32([1, -9, -9, 9, -9, -9])}, [1.0, -0.5, 3.0, 9.0, 0.0, 2.0]),
        ({"w_min": 0.0, "w_max": np.float32([9, 9, 1, 0.25, 9, 9])}, [0.75, 0.0, 1.0, 0.25, 0.0, 2.0]),
        ({"w_min": np.full(6, 1.0, np.float32), "w_max": np.full(6, -1.0, np.float32)}, [-1.0] * 6),
        ({"w_min": jnp.float32(1), "w_max": jnp.float32(-1)}, [-1.0] * 6),
        ({"w_min": 1.0, "w_max": jnp.float32(-1)}, [-1.0] * 6),
        ({"w_min": float("nan")}, [np.nan] * 6),
        ({"w_max": float("nan")}, [np.nan] * 6),
        ({"w_min": np.float32([0, 0, np.nan, 0, 0, np.nan])}, [0.75, 0.0, np.nan, 0.5, 0.0, np.nan]),
    ],
    ids=str,
)
def test_every_element_is_clipped_touched_or_not(backend, bounds, expected):
    np.testing.assert_array_equal(update_chain(backend, **bounds), np.float32(expected))


@pytest.mark.parametrize("bounds", [{"w_min": 0.0}, {"w_max": 2.0}, {"w_min": -0.25, "w_max": 2.5}])
def test_weights_in_bounds_need_no_full_clip(backend, bounds):
    out = update_chain(backend, weight_in_bounds=True, **bounds)
    np.testing.assert_array_equal(out, update_chain(backend, weight_in_bounds=False, **bounds))


def test_weight_in_bounds_leaves_what_no_spike_touches(update, network, rng, backend):
    given = operands(update, rng, network) | {"w_min": -0.5, "w_max": 0.5}
    out = np.array(call(update, given, shape=network.shape, backend=backend, weight_in_bounds=True))
    touched = given["spike"][network.post if update.event == "post" else network.pre]
    np.testing.assert_array_equal(out[~touched], given["weight"][~touched])
    assert np.all(np.abs(out[touched]) <= 0.5)
    assert np.any(np.abs(out[~touched]) > 0.5)


BOUND_SEQUENCE = (0.1, 0.5, 0.25, 0.1, 1.0, True, 0.0, -0.0, 0.5)


def bounded(weight, w_max, unit, backend):
    """`weight`, of which no spike touches anything, clipped to [-w_max, w_max] by an eager call."""
    given = chain(weight=weight, pre_spike=np.zeros(2, bool))
    if unit is not None:
        given |= {"weight": weight * unit, "post_trace": given["post_trace"] * unit}
    low, high = (x if unit is None else x * unit for x in (-w_max, w_max))
    out = hebbax.update_csr_on_binary_pre(**given, w_min=low, w_max=high, backend=backend)
    assert unit is None or out.unit == unit
    return out if unit is None else out.mantissa


def check_bounded(out, weight, w_max):
    bound = weight.dtype.type(w_max)
    assert out.dtype == weight.dtype
    np.testing.assert_array_equal(out, np.clip(weight, -bound, bound))


@pytest.mark.parametrize("unit", [None, u.mV, u.volt], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scalar_bound_does_not_stick_to_the_next_call(backend, dtype, unit):
    """Scalars that were sent to the device are kept; each call must still get its own, in its dtype."""
    for x64 in (False, True, False):
        numbers = np.array([0.3, -0.2, 2.0, -2.0, 0.05, 0.7], DTYPES[dtype if x64 or dtype != "float64" else "float32"])
        with enable_x64(x64):
            weight = jnp.asarray(numbers)
            for w_max in BOUND_SEQUENCE:
                check_bounded(bounded(weight, w_max, unit, backend), numbers, w_max)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("unit", [None, u.mV], ids=str)
def test_scalar_bounds_inside_jit_and_outside_do_not_disturb_each_other(backend, unit, x64):
    numbers = np.array([0.3, -0.2, 2.0, -2.0, 0.05, 0.7], np.float64 if x64 else np.float32)
    with enable_x64(x64):
        weight = jnp.asarray(numbers)
        bounds = (0.1, 0.5, 0.25, 0.375, 0.625)
        for w_max in bounds[:3]:
            check_bounded(bounded(weight, w_max, unit, backend), numbers, w_max)
        for w_max in bounds:  # the last two are new, and first seen while tracing, with a weight that is an argument
            check_bounded(jax.jit(lambda x, w_max=w_max: bounded(x, w_max, unit, backend))(weight), numbers, w_max)
        for w_max in (*bounds, 0.4375):  # or that is a constant
            check_bounded(jax.jit(lambda w_max=w_max: bounded(weight, w_max, unit, backend))(), numbers, w_max)
        for w_max in (*bounds, 0.4375):
            check_bounded(bounded(weight, w_max, unit, backend), numbers, w_max)


def test_a_bound_is_converted_from_its_own_unit_at_every_call(backend):
    weight = jnp.asarray(chain()["weight"]) * u.mV
    for unit, high in ((u.mV, 0.5), (u.uvolt, 0.0005), (u.volt, 2.0), (u.mV, 0.5)):
        out = update_chain(backend, weight=weight, post_trace=np.zeros(3, np.float32) * u.mV, w_max=0.5 * unit)
        np.testing.assert_allclose(out.mantissa, np.minimum(chain()["weight"], high), rtol=1e-6)


# -- dtypes


@pytest.mark.parametrize("dtype, small", [("float16", 2.0**-11 + 2.0**-22), ("bfloat16", 2.0**-8 + 2.0**-20)])
def test_16_bit_weights_are_rounded_once(backend, dtype, small):
    """1 + small rounds up; if `small` were rounded to 16 bits first, the sum would be a tie and round down to 1."""
    given = chain(DTYPES[dtype], post_trace=np.full(3, small, np.float32)) | {"weight": np.ones(6, DTYPES[dtype])}
    out = hebbax.update_csr_on_binary_pre(**given, backend=backend)
    up = float(np.finfo(np.float32).eps) * 2 ** (13 if dtype == "float16" else 16) + 1
    np.testing.assert_array_equal(np.float32(out), np.float32([up, up, up, 1, 1, 1]))


def test_16_bit_sums_are_rounded_once(backend):
    """4096 ones reach 4096 only if the sum is not float16 or bfloat16 on the way."""
    for dtype in (DTYPES["float16"], DTYPES["bfloat16"]):
        weight, indices, indptr, spike = np.ones(4096, dtype), np.zeros(4096, int), np.arange(4097), np.ones(4096)
        out = hebbax.propagate_csr_on_binary_pre(weight, indices, indptr, spike, shape=(4096, 1), backend=backend)
        assert out.dtype == dtype and float(out[0]) == 4096


def test_float64_without_the_x64_flag_becomes_float32(spec, network, rng, backend):
    given = operands(spec, rng, network, np.float64)
    out = call(spec, given, shape=network.shape, backend=backend)
    narrow = given | {"weight": given["weight"].astype(np.float32)}
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, call(spec, narrow, shape=network.shape, backend=backend))


@pytest.mark.parametrize("weight, trace", [
    ("float16", "float64"), ("bfloat16", "float16"), ("float32", "bfloat16"), ("float32", "bool"), ("float32", "int64"),
    ("float64", "float32"), ("float64", "uint16"),
])  # fmt: skip
def test_trace_of_any_real_dtype(update, network, rng, backend, weight, trace):
    given = operands(update, rng, network, DTYPES[weight])
    given["trace"] = np.where(rng.random(given["trace"].size) < 0.5, 1, 0).astype(DTYPES.get(trace, trace))
    with enable_x64(True):
        out = call(update, given, shape=network.shape, backend=backend)
    oracle.assert_same(out, oracle.evaluate(update, network.shape, given))


@pytest.mark.parametrize("spike", ["int8", "uint8", "float16", "bfloat16", "float32"])
def test_any_nonzero_number_is_a_spike(spec, network, rng, backend, spike):
    given = operands(spec, rng, network)
    dtype = np.dtype(DTYPES.get(spike, spike))
    signs = [1, 3] if dtype.kind == "u" else [1, -2] if dtype.kind == "i" else [1, -0.5, np.nan, -np.inf, 1e-3]
    numbers = np.where(given["spike"], rng.choice(signs, given["spike"].size), 0).astype(dtype)
    out = call(spec, given | {"spike": numbers}, shape=network.shape, backend=backend)
    np.testing.assert_array_equal(out, call(spec, given, shape=network.shape, backend=backend))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtypes", INDEX_DTYPES, ids=str)
def test_index_dtypes(spec, network, rng, backend, dtypes, x64):
    given = operands(spec, rng, network)
    names = zip(("indices", "weight_indices", "indptr"), dtypes, strict=True)
    converted = given | {name: given[name].astype(dtype) for name, dtype in names if name in given}
    with enable_x64(x64):
        out = call(spec, converted, shape=network.shape, backend=backend)
        np.testing.assert_array_equal(out, call(spec, given, shape=network.shape, backend=backend))


# -- units


def test_units_are_converted_to_the_unit_of_the_weight(backend):
    trace, low, high = np.float32([0.25e-3, -0.5e-3, 1e-3]), -0.25e3, 0.0025
    weight = chain()["weight"] * u.mV
    out = update_chain(backend, weight=weight, post_trace=trace * u.volt, w_min=low * u.uvolt, w_max=high * u.volt)
    assert out.unit == u.mV
    np.testing.assert_allclose(out.mantissa, [0.75, -0.25, 2.5, 0.5, 0.0, 2.0], rtol=1e-6)


def test_propagate_keeps_the_unit(propagate, network, rng, backend):
    given = operands(propagate, rng, network)
    plain = call(propagate, given, shape=network.shape, backend=backend)
    out = call(propagate, given | {"weight": given["weight"] * u.nS}, shape=network.shape, backend=backend)
    assert out.unit == u.nS and isinstance(plain, jax.Array)
    np.testing.assert_array_equal(out.mantissa, plain)


@pytest.mark.parametrize("weight_unit, gain_unit, expected", [
    (u.nS, u.mV, u.pA), (u.nS, None, u.nS), (None, u.mV, u.mV), (u.nS, u.UNITLESS, u.nS), (u.mV**-1, u.volt, None),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_unit_of_a_sum_is_that_of_gain_times_weight(
    propagate, network, rng, weight_unit, gain_unit, expected, dtype
):
    """A conductance times a driving force is a current; plain where the two cancel, as brainunit has it."""
    given = operands(propagate, rng, network, DTYPES[dtype])
    given["gain"] = (rng.integers(1, 8, given["spike"].size) / 8).astype(np.float32)
    plain = call(propagate, given, shape=network.shape)
    for name, unit in (("weight", weight_unit), ("gain", gain_unit)):
        given[name] = given[name] if unit is None else u.Quantity(given[name], unit=unit)
    for function in (call, jax.jit(call, static_argnames=("spec", "shape"))):
        out = function(propagate, given, shape=network.shape)
        if expected is None:  # 1 / mV * V
            assert isinstance(out, jax.Array)
            np.testing.assert_allclose(out, 1000 * plain, rtol=1e-3)
        else:
            assert out.unit.has_same_dim(expected) and out.unit == expected
            np.testing.assert_array_equal(out.mantissa, plain, strict=True)
    assert np.any(plain != 0)


def test_plain_arrays_in_plain_array_out(backend):
    assert isinstance(update_chain(backend, w_min=0.0), jax.Array)


def test_units_pass_through_jit(backend):
    given = chain() | {"weight": chain()["weight"] * u.mV, "post_trace": np.float32([0.25, -0.5, 1]) * u.mV}
    shape = given.pop("shape")
    out = jax.jit(lambda x: hebbax.update_csr_on_binary_pre(**x, shape=shape, backend=backend))(given)
    assert out.unit == u.mV
    np.testing.assert_array_equal(out.mantissa, [0.75, -0.5, 3.0, 0.5, 0.0, 2.0])


# -- gain, after


def test_gain_multiplies_the_trace(backend):
    out = update_chain(backend, gain=np.float32([-2.0, 7.0]))
    np.testing.assert_array_equal(out, np.float32([0.0, 1.0, 0.0, 0.5, 0.0, 2.0]))


@pytest.mark.parametrize("gain", [-2, -2.0, np.float64(-2), np.array(-2, np.int8), jnp.float32(-2)], ids=repr)
def test_gain_may_be_one_for_all(update, network, rng, backend, gain):
    """Whatever makes it one; the same as an array of it (with products that are exact, on every backend)."""
    given = operands(update, rng, network) | {"w_max": 1.5}
    array = np.full(given["spike"].size, -2, np.float32)
    options = {"shape": network.shape, "backend": backend}
    out = call(update, given | {"gain": gain}, **options)
    np.testing.assert_array_equal(out, call(update, given | {"gain": array}, **options))
    assert not np.array_equal(out, call(update, given, **options))
    units = {name: given[name] * u.mV for name in ("weight", "trace", "w_max")}
    for unitless in (gain, u.Quantity(gain)):
        with_units = call(update, given | units | {"gain": unitless}, **options)
        np.testing.assert_array_equal(with_units.mantissa, out)
    traced = jax.jit(lambda gain: call(update, given | {"gain": gain}, **options))(gain)
    np.testing.assert_array_equal(traced, out)


@pytest.mark.parametrize("gain", [-2, -2.0, np.float64(-2), np.array(-2, np.int8), jnp.float32(-2)], ids=repr)
def test_gain_of_a_sum_may_be_one_for_all(propagate, network, rng, backend, gain):
    given = operands(propagate, rng, network)
    options = {"shape": network.shape, "backend": backend}
    out = call(propagate, given | {"gain": gain}, **options)
    np.testing.assert_array_equal(out, -2 * call(propagate, given, **options), strict=True)
    assert np.any(out != 0)
    traced = jax.jit(lambda gain: call(propagate, given | {"gain": gain}, **options))(gain)
    np.testing.assert_array_equal(traced, out)


def test_gain_of_a_single_neuron(rng, backend):
    """A scalar and an array of one are the same there."""
    for gain in (-2.0, np.float32([-2])):
        out = update_chain(
            backend, indptr=np.array([0, 6]), pre_spike=np.array([True]), gain=gain, shape=(1, 3),
        )  # fmt: skip
        np.testing.assert_array_equal(out, np.float32([0, 1, 0] * 2))


def test_gain_with_a_dimension_is_refused_also_as_a_scalar(update, network, rng, backend):
    given = operands(update, rng, network) | {"gain": 2.0 * u.mV}
    with pytest.raises(u.UnitMismatchError, match="gain"):
        call(update, given, shape=network.shape, backend=backend)


AFTER = {
    "an array": np.full((2, 5), np.nan),
    "nothing": {"a": (), "b": [None]},
    "a tree": {
        "numbers": (True, 1, 1.5, np.float32(1), 2 * u.mV, None),
        "arrays": [np.ones(7, bool), np.ones(0), np.ones((2, 0, 3)), jnp.ones(3, jnp.bfloat16), np.arange(3) * u.ms],
        "of JAX alone": (jnp.complex64(1j), jnp.ones(3, jnp.int4), jax.random.key(0)),
    },
}


@pytest.mark.parametrize("after", AFTER)
def test_after_is_any_tree_of_arrays_and_changes_nothing(update, network, rng, backend, after):
    given, options = operands(update, rng, network), {"shape": network.shape, "backend": backend}
    expected = call(update, given, **options)
    np.testing.assert_array_equal(call(update, given | {"after": AFTER[after]}, **options), expected)
    required = [given[name] for name in update.arguments]
    out = getattr(hebbax, f"{update.name}_p")(*required, after=AFTER[after], **options)
    np.testing.assert_array_equal(out, expected)


def test_after_is_transformed_along(update, network, rng):
    """Batched with the rest or alone, computed from a weight that has a tangent or is transposed."""
    given, options = operands(update, rng, network), {"shape": network.shape}
    weight = jnp.asarray(given.pop("weight"))

    def plain(weight):
        return call(update, given | {"weight": weight}, **options)

    def waits(weight, more=0.0):
        return call(update, given | {"weight": weight, "after": (weight[3:5], {"more": more, "not": None})}, **options)

    expected, batch = plain(weight), jnp.stack([weight, 2 * weight])
    with jax.debug_nans(True):
        np.testing.assert_array_equal(call(update, given | {"weight": weight, "after": jnp.nan}, **options), expected)
    alone = jax.vmap(waits, in_axes=(None, 0))(weight, jnp.ones((2, 3)))
    np.testing.assert_array_equal(alone, [expected, expected])
    np.testing.assert_array_equal(jax.vmap(waits)(batch, jnp.ones((2, 3))), jax.vmap(plain)(batch))
    indptr = jnp.stack([given["indptr"]] * 2)  # one call after the other
    by_structure = jax.vmap(lambda indptr, after: call(
        update, given | {"weight": weight, "indptr": indptr, "after": after}, **options
    ))(indptr, jnp.ones((2, 3)))  # fmt: skip
    np.testing.assert_array_equal(by_structure, [expected, expected])
    ones = jnp.ones_like(weight)
    np.testing.assert_array_equal(jax.jvp(waits, (weight,), (ones,))[1], ones)
    given["trace"] = np.zeros_like(given["trace"])  # or the update is not linear in the weight alone
    np.testing.assert_array_equal(jax.linear_transpose(waits, weight)(expected)[0], expected)


# -- numbers that are special


def test_untouched_elements_keep_their_bits(update, network, rng, backend):
    given = operands(update, rng, network, p_spike=0.3)
    given["weight"] = rng.choice(np.float32([-0.0, 0.0, np.inf, 1e-3, -7]), network.nse)
    touched = given["spike"][network.post if update.event == "post" else network.pre]
    for bounds in ({}, {"w_min": -np.inf, "w_max": np.inf}):
        out = np.array(call(update, given | bounds, shape=network.shape, backend=backend))
        assert out[~touched].tobytes() == given["weight"][~touched].tobytes()
    assert np.any(np.signbit(given["weight"][~touched]) & (given["weight"][~touched] == 0))


def test_nan_and_inf_propagate_as_in_jnp_clip(backend):
    weight = np.float32([np.inf, np.nan, 1.0, -np.inf, 0.0, np.nan])
    trace = np.float32([-np.inf, 1.0, np.inf])
    for bounds in ({}, {"w_min": -1.0}, {"w_min": -1.0, "w_max": 1.0}):
        out = update_chain(backend, weight=weight, post_trace=trace, **bounds)
        change = np.where([True] * 3 + [False] * 3, np.tile(trace, 2), np.float32(0))
        expected = jnp.clip(jnp.asarray(weight) + change, bounds.get("w_min"), bounds.get("w_max"))
        np.testing.assert_array_equal(out, expected)


# -- networks that are special


@pytest.mark.parametrize("shape, nse", [((0, 3), 0), ((3, 0), 0), ((0, 0), 0), ((3, 4), 0), ((1, 1), 1)])
@pytest.mark.parametrize("bounds", [{}, {"w_min": 0.0, "w_max": 1.0}, {"gain": 2.0}, {"scalar gain": 2.0}], ids=str)
def test_empty_networks(spec, rng, backend, shape, nse, bounds):
    given = operands(spec, rng, random_network(rng, shape, nse), p_spike=1.0)
    if spec.kind == "update":
        given |= {name: np.full(given["spike"].size, x) if name == "gain" else x for name, x in bounds.items()}
        given |= {"gain": given.pop("scalar gain")} if "scalar gain" in given else {}
    oracle.assert_close(call(spec, given, shape=shape, backend=backend), oracle.evaluate(spec, shape, given))


def test_no_spike_no_change(spec, network, rng, backend):
    given = operands(spec, rng, network, p_spike=0.0)
    out = call(spec, given, shape=network.shape, backend=backend)
    expected = given["weight"] if spec.kind == "update" else np.zeros(spec.sizes(network.shape)[1])
    np.testing.assert_array_equal(out, expected)


def test_duplicate_weight_indices_leave_other_weights_alone(rng, backend):
    network = Network((2, 2), *np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 2, 0, 3]]))
    out = hebbax.update_csr_on_binary_post(
        np.arange(4, dtype=np.float32), np.array([0, 1, 0, 1]), np.array([0, 2, 4]), network.csc_order,
        np.ones(2), np.ones(2), shape=(2, 2), backend=backend,
    )  # fmt: skip
    np.testing.assert_array_equal(np.array(out)[1:], [1, 3, 4])


def test_a_row_may_be_longer_than_the_number_of_neurons(backend):
    out = hebbax.propagate_csr_on_binary_pre(
        np.ones(500, np.float32), np.arange(500) % 3, np.array([0, 500]), np.ones(1), shape=(1, 3), backend=backend
    )
    np.testing.assert_array_equal(out, [167, 167, 166])
