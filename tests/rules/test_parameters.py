"""Parameters of rules that differ between neurons or synapses, their signs, and traces that decay slowly."""

import dataclasses
import warnings

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
from problems import enable_x64

N, STEPS = 5, 9  # a square network, in which an array of one axis would be ambiguous
PAIR = dict(tau_plus=5.0, tau_minus=7.0, a_plus=0.11, a_minus=0.13, w_min=0.1, w_max=0.9)
TRIPLET = dict(
    tau_plus=5.0, tau_minus=7.0, tau_x=9.0, tau_y=11.0, a2_plus=0.05, a2_minus=0.07, a3_plus=0.06, a3_minus=0.08,
    w_min=0.1, w_max=0.9,
)  # fmt: skip
INHIBITORY = dict(tau=5.0, eta=0.2, target_rate=0.15, w_min=0.1, w_max=0.9)
DIEHL_COOK = dict(tau=5.0, eta=0.3, target=0.8, w_min=0.1, w_max=0.9)
POWER_LAW = dict(tau_plus=5.0, tau_minus=7.0, learning_rate=0.2, alpha=0.9, w_0=0.7)
RULES = [
    (hebbax.PairSTDP, PAIR), (hebbax.TripletSTDP, TRIPLET), (hebbax.InhibitorySTDP, INHIBITORY),
    (hebbax.DiehlCookSTDP, DIEHL_COOK), (hebbax.PowerLawSTDP, POWER_LAW),
]  # fmt: skip
SHAPES = {"pre": (N, 1), "post": (1, N)}
TAKEN = [(cls, given, name, side) for cls, given in RULES for name, sides in cls.sides.items() for side in sides]
RULE_IDS = [cls.__name__ for cls, _ in RULES]
IDS = [f"{cls.__name__}: {name} per {side}" for cls, _, name, side in TAKEN]


def random_spikes():
    rng = np.random.default_rng(5)
    return rng.random((STEPS, N)) < 0.4, rng.random((STEPS, N)) < 0.4


SYNAPSES = hebbax.Synapses.random((N, N), prob=0.8, seed=2)
WEIGHT = np.random.default_rng(4).uniform(0.15, 0.85, SYNAPSES.nse).astype(np.float32)
SPIKES = random_spikes()


@jax.jit
def simulate(rule, weight, spikes):
    def step(carry, now):
        return rule.step(SYNAPSES, *carry, *now, 1.0), None

    return jax.lax.scan(step, (weight, rule.init(SYNAPSES)), spikes)[0]


def simulate_dense(cls, p, weight, spikes):
    """The rules' equations on a dense matrix, in NumPy; parameters broadcast against it."""
    w, (pre_spikes, post_spikes) = np.asarray(SYNAPSES.todense(weight), float), spikes
    low, high = p.get("w_min", 0.0), p.get("w_max", np.inf)
    x = np.zeros((2, N, 1))
    y = np.zeros((2, 1, N))
    for pre, post in zip(pre_spikes[:, :, None], post_spikes[:, None, :], strict=True):
        times = ("tau", "tau", "tau", "tau") if "tau" in p else ("tau_plus", "tau_x", "tau_minus", "tau_y")
        x = [trace * np.exp(-1 / p.get(tau, 1.0)) for trace, tau in zip(x, times[:2], strict=True)]
        y = [trace * np.exp(-1 / p.get(tau, 1.0)) for trace, tau in zip(y, times[2:], strict=True)]
        if cls is hebbax.PairSTDP:
            down, up = -p["a_minus"] * y[0], p["a_plus"] * x[0]
        elif cls is hebbax.TripletSTDP:
            down = -y[0] * (p["a2_minus"] + p["a3_minus"] * x[1])
            up = x[0] * (p["a2_plus"] + p["a3_plus"] * y[1])
        elif cls is hebbax.PowerLawSTDP:
            down = -p["learning_rate"] * p["alpha"] * w * y[0]
            depressed = np.where(pre, np.maximum(w + down, 0), w)
            up = p["learning_rate"] * p["w_0"] ** 0.6 * depressed**0.4 * x[0]
        elif cls is hebbax.DiehlCookSTDP:
            down, up = 0.0, p["eta"] * (x[0] - p["target"]) * ((high - w) / (high - low)) ** 0.2
        else:
            down, up = p["eta"] * (y[0] - 2 * p["target_rate"] * p["tau"]), p["eta"] * x[0]
        w = np.where(pre, np.clip(w + down, low, high), w)
        w = np.where(post, np.clip(w + up, low, high), w)
        x, y = [trace + pre for trace in x], [trace + post for trace in y]
    return w


def stored(dense):
    """Elements of a dense matrix in CSR order."""
    pre = np.repeat(np.arange(N), np.diff(SYNAPSES.indptr))
    return np.asarray(dense)[pre, np.asarray(SYNAPSES.indices)]


# -- one value per neuron


@pytest.mark.slow
@pytest.mark.parametrize("cls, given, name, side", TAKEN, ids=IDS)
def test_a_parameter_per_neuron(cls, given, name, side):
    values = given[name] * np.linspace(0.5, 2, N, dtype=np.float32).reshape(SHAPES[side])
    changed = given | {name: jnp.asarray(values)}
    weight = simulate(cls(**changed), WEIGHT, SPIKES)[0]
    expected = stored(simulate_dense(cls, given | {name: values}, WEIGHT, SPIKES))
    np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(weight, simulate(cls(**given), WEIGHT, SPIKES)[0], atol=1e-3)
    eager = cls(**given | {name: values})  # of NumPy, and not traced
    first = [x[0] for x in SPIKES]
    same = jax.jit(lambda rule: rule.step(SYNAPSES, WEIGHT, rule.init(SYNAPSES), *first, 1.0))(cls(**changed))
    out = eager.step(SYNAPSES, WEIGHT, eager.init(SYNAPSES), *first, 1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, same)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("cls, given", RULES, ids=RULE_IDS)
def test_all_parameters_per_neuron_at_once(cls, given, last):
    """Each on the first or the last side that it may: other halves of a triplet rule are two products then."""
    changed = dict(given)
    for k, (name, sides) in enumerate(cls.sides.items()):
        if sides:
            factor = np.linspace(0.6, 1.5, N, dtype=np.float32) ** (-1) ** k
            changed[name] = given[name] * factor.reshape(SHAPES[sides[-1 if last else 0]])
    weight = simulate(cls(**changed), WEIGHT, SPIKES)[0]
    np.testing.assert_allclose(weight, stored(simulate_dense(cls, changed, WEIGHT, SPIKES)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls, given, name, side", TAKEN, ids=IDS)
def test_no_other_shape_traced_or_not(cls, given, name, side):
    both = cls.sides[name] == ("pre", "post")
    wrong = [(N,), (N, N), (2, N, 1), *([] if both else [SHAPES["post" if side == "pre" else "pre"]])]
    for shape in wrong:
        for make in (lambda x: cls(**given | {name: x}), jax.jit(lambda x: cls(**given | {name: x}))):
            with pytest.raises(hebbax.ShapeError, match=rf"^{name}: got shape .*, expected a scalar, or \((n_|1)"):
                make(jnp.full(shape, given[name]))
    # what only the network can tell
    sizes = {"pre": (N + 1, 1), "post": (1, N + 1)}[side]
    rule = cls(**given | {name: jnp.full(sizes, given[name])})
    for run in (simulate.__wrapped__, simulate):
        with pytest.raises(hebbax.ShapeError, match=rf"^{name}: got shape .*, or \(({N}|1), ({N}|1)\)"):
            run(rule, WEIGHT, SPIKES)


def test_one_time_constant_for_the_two_sides_of_inhibition():
    for shape in ((N,), (N, 1), (1, N)):
        with pytest.raises(hebbax.ShapeError, match=r"^tau: got shape .*, expected a scalar$"):
            hebbax.InhibitorySTDP(**INHIBITORY | {"tau": np.full(shape, 5.0)})


def test_every_value_of_an_array_is_checked():
    for name, value, error in (
        ("tau_plus", 0.0, "a finite value of more than 0"),
        ("a_plus", np.nan, "a finite value"),
    ):
        values = np.full((N, 1), 5.0)
        values[3] = value
        with pytest.raises(ValueError, match=rf"^{name}\[3, 0\]: got .*, expected {error}"):
            hebbax.PairSTDP(**PAIR | {name: values})


def test_units_of_arrays():
    with_unit = {name: x * (u.ms if name.startswith("tau") else u.nS) for name, x in PAIR.items()}
    factor = np.linspace(0.5, 2, N, dtype=np.float32)[:, None]
    names = ("tau_plus", "a_minus")
    expected = simulate(hebbax.PairSTDP(**PAIR | {name: PAIR[name] * factor for name in names}), WEIGHT, SPIKES)[0]
    rule = hebbax.PairSTDP(**with_unit | {name: factor * with_unit[name].to(with_unit[name].unit) for name in names})
    state = rule.init(SYNAPSES)
    weight = WEIGHT * u.nS
    for pre, post in zip(*SPIKES, strict=True):
        weight, state = rule.step(SYNAPSES, weight, state, pre, post, 1.0 * u.ms)
    np.testing.assert_allclose(weight.mantissa, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cls, given", RULES, ids=RULE_IDS)
def test_derivatives_with_respect_to_arrays(cls, given):
    names = [name for name, sides in cls.sides.items() if sides]
    wide = {name: x for name, x in dict(w_min=0.0, w_max=9.0).items() if name in given}  # no bound is reached

    @jax.jit
    def end(values):
        return simulate(cls(**given | wide | values), jnp.asarray(WEIGHT, jnp.float64), SPIKES)[0]

    with enable_x64(True):
        rng = np.random.default_rng(6)
        values = {name: jnp.full(SHAPES[cls.sides[name][0]], given[name], jnp.float64) for name in names}
        direction = {name: jnp.asarray(rng.normal(size=x.shape)) for name, x in values.items()}
        ahead, behind = (end({name: x + h * direction[name] for name, x in values.items()}) for h in (1e-5, -1e-5))
        _, forward = jax.jvp(end, (values,), (direction,))
        np.testing.assert_allclose(forward, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-6)
        assert np.abs(forward).max() > 1e-2
        gradient = jax.grad(lambda values: jnp.vdot(end(values), forward))(values)
        along = sum(jnp.vdot(gradient[name], direction[name]) for name in names)
        np.testing.assert_allclose(along, jnp.vdot(forward, forward), rtol=1e-9)


# -- synapses that stay as they are


@pytest.mark.parametrize("cls, given", RULES[:4], ids=RULE_IDS[:4])
def test_synapses_with_equal_bounds_stay_as_they_are(cls, given):
    plastic = np.arange(SYNAPSES.nse) % 3 > 0
    low, high = (np.where(plastic, given[name], WEIGHT).astype(np.float32) for name in ("w_min", "w_max"))
    weight = simulate(cls(**given | {"w_min": low, "w_max": high}), WEIGHT, SPIKES)[0]
    np.testing.assert_array_equal(weight[~plastic], WEIGHT[~plastic])
    np.testing.assert_array_equal(weight[plastic], simulate(cls(**given), WEIGHT, SPIKES)[0][plastic])
    assert (weight[plastic] != WEIGHT[plastic]).any()


# -- signs


@pytest.mark.parametrize("cls, given", RULES[:2], ids=["pair", "triplet"])
def test_amplitudes_of_either_sign(cls, given):
    amplitudes = [name for name in given if name.startswith("a")]
    for flipped in (amplitudes, amplitudes[:1], amplitudes[1:2]):
        changed = given | {name: -given[name] for name in flipped}
        weight = simulate(cls(**changed), WEIGHT, SPIKES)[0]
        np.testing.assert_allclose(weight, stored(simulate_dense(cls, changed, WEIGHT, SPIKES)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half, bound", [("plus", "upper"), ("minus", "lower")])
def test_a_negative_amplitude_takes_no_exponent(half, bound):
    value = np.array([[0.1], [-0.1]])
    for wrong in (-0.1, value):
        with pytest.raises(ValueError, match=rf"^a_{half}.*: got -0.1, expected at least 0 where mu_{half} is not 0"):
            hebbax.PairSTDP(**PAIR | {f"a_{half}": wrong}, **{f"mu_{half}": 0.5})
    other = {"plus": "minus", "minus": "plus"}[half]
    hebbax.PairSTDP(**PAIR | {f"a_{half}": -0.1}, **{f"mu_{other}": 0.5})


def test_inhibition_by_negative_weights_mirrors_that_by_positive_ones():
    positive = hebbax.InhibitorySTDP(**INHIBITORY)
    negative = dataclasses.replace(positive, w_min=-positive.w_max, w_max=-positive.w_min)
    expected = simulate(positive, WEIGHT, SPIKES)[0]
    assert (expected > WEIGHT).any() and (expected < WEIGHT).any()
    np.testing.assert_array_equal(-simulate(negative, -WEIGHT, SPIKES)[0], expected)  # bounds are traced there
    step = negative.step(SYNAPSES, -WEIGHT, negative.init(SYNAPSES), SPIKES[0][0], SPIKES[1][0], 1.0)[0]
    mirrored = positive.step(SYNAPSES, WEIGHT, positive.init(SYNAPSES), SPIKES[0][0], SPIKES[1][0], 1.0)[0]
    np.testing.assert_array_equal(-step, mirrored)


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (-np.inf, 0.5), (-1.0, np.array([0.0, 0.5]))])
def test_inhibition_takes_bounds_of_one_sign(low, high):
    with pytest.raises(ValueError, match=r"^w_min: got .*, expected bounds of one sign"):
        hebbax.InhibitorySTDP(**INHIBITORY | {"w_min": low, "w_max": high})


# -- traces that decay slowly


def decayed(tau, dt, steps):
    """What is left of a trace of 1 after some steps without spikes."""
    rule = hebbax.PairSTDP(**PAIR | {"tau_plus": tau, "tau_minus": 1.0})
    synapses, weight = hebbax.Synapses.from_dense(jnp.full((1, 1), 0.5))
    no = jnp.array([False])

    def step(state, _):
        return rule.step(synapses, weight, state, no, no, dt)[1], None

    state = rule.init(synapses)
    return float(jax.lax.scan(step, state._replace(pre=jnp.ones_like(state.pre)), length=steps)[0].pre[0])


@pytest.mark.parametrize("tau, dt", [(20.0, 0.1), (1000.0, 0.01), (1000.0, 1.5e-3)])
def test_slow_traces_decay_as_they_should(tau, dt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = round(tau / dt)
        assert decayed(tau, dt, steps) == pytest.approx(np.exp(-1), rel=1e-3)


def test_traced_and_per_neuron_time_constants_decay_alike():
    """Down to where only what a step takes away is a float32 number with some digits."""
    no = jnp.zeros(N, bool)
    taus = np.float32([1.0, 100.0, 1e4, 1e5, 1e6])[:, None]
    given = jnp.ones(N)

    def step(tau):
        rule = hebbax.PairSTDP(**PAIR | {"tau_plus": tau})
        return rule.step(SYNAPSES, WEIGHT, rule.init(SYNAPSES)._replace(pre=given), no, no, 1.0)[1].pre

    for out in (step(taus), jax.jit(step)(jnp.asarray(taus))):
        np.testing.assert_allclose(1 - np.asarray(out), -np.expm1(-1 / taus[:, 0]), rtol=0.05)
        np.testing.assert_allclose(out, np.exp(-1 / taus[:, 0]), rtol=1e-6)


@pytest.mark.parametrize("ratio, words", [(1e-7, "about as with"), (1e-8, "never decays")])
def test_a_warning_where_rounding_is_stronger_than_the_decay(ratio, words):
    with pytest.warns(RuntimeWarning, match=rf"^tau_plus: got 20 ms, but in steps of .*e-0\d ms .*{words}.*x64"):
        rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.1, 0.1, 0.0, 1.0)
        slower = dataclasses.replace(rule, tau_minus=1e-6 * u.ms)
        no = np.zeros(N, bool)
        slower.step(SYNAPSES, WEIGHT, rule.init(SYNAPSES), no, no, 20 * ratio * u.ms)


@pytest.mark.parametrize("cls, given", RULES, ids=RULE_IDS)
def test_the_warning_is_about_the_line_that_called(cls, given):
    slow = cls(**given | {name: 1e8 for name in given if name.startswith("tau")})
    no = np.zeros(N, bool)
    with pytest.warns(RuntimeWarning, match="never decays") as raised:
        slow.step(SYNAPSES, WEIGHT, slow.init(SYNAPSES), no, no, 1.0)
    assert {warning.filename for warning in raised} == {__file__}


@pytest.mark.parametrize("dtype", [np.float16, np.int32, jnp.bfloat16])
def test_parameters_of_any_dtype_are_taken_as_the_numbers_that_they_are(dtype):
    """A trace is of float32, whatever a time constant is; also where nothing or only the step's length is traced."""
    taus = np.array([3, 7, 200, 504, 820])[:, None].astype(dtype)
    rule = hebbax.PairSTDP(**PAIR | {"tau_plus": taus, "a_plus": taus})
    traces = rule.init(SYNAPSES)._replace(pre=jnp.ones(N))
    no = jnp.zeros(N, bool)

    def step(rule, dt):
        return rule.step(SYNAPSES, WEIGHT, traces, no, no, dt)[1].pre

    with jax.numpy_dtype_promotion("strict"):
        outs = step(rule, 1.0), jax.jit(step)(jax.tree.map(jnp.asarray, rule), 1.0), jax.jit(step)(rule, dtype(1))
        outs += (jax.jit(lambda dt: step(rule, dt))(jnp.asarray(1, dtype)),)
    for out in outs:
        np.testing.assert_allclose(out, np.exp(-1 / taus[:, 0].astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda x: x._replace(pre=x.pre.astype(jnp.bfloat16)), "got traces of bfloat16 and float32, expected all of"),
        (lambda x: jax.tree.map(lambda y: y.astype(jnp.float16), x), "got traces of float16, expected all of float32"),
    ],
)
def test_traces_are_of_one_dtype_that_can_hold_them(wrong, words):
    rule, no = hebbax.PairSTDP(**PAIR), np.zeros(N, bool)
    with pytest.raises(TypeError, match=f"^state: {words}"):
        rule.step(SYNAPSES, WEIGHT, wrong(rule.init(SYNAPSES)), no, no, 1.0)


@pytest.mark.parametrize("value", [[1.0], [[1.0], [2.0]], [[1.0], [2.0, 3.0]], (1.0 * u.ms,)])
def test_lists_are_no_arrays(value):
    for name in ("tau_plus", "a_minus", "w_max"):
        with pytest.raises(TypeError, match=rf"^{name}: got [\[(].*, expected a number, an array or a Quantity"):
            hebbax.PairSTDP(**PAIR | {name: value})


@pytest.mark.slow
def test_the_time_constant_that_the_warning_names_is_the_one_that_comes_out():
    with pytest.warns(RuntimeWarning, match=r"decays about as with 10\.8,"):
        left = decayed(10.0, 1e-6, round(10.8 * np.log(2) / 1e-6))
    assert left == pytest.approx(0.5, rel=2e-3)
    with enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decayed(10.0, 1e-6, 1000) == pytest.approx(np.exp(-1e-4), rel=1e-12)


# -- dtypes


@pytest.mark.parametrize("cls, given", RULES, ids=RULE_IDS)
def test_strict_promotion_of_dtypes(cls, given):
    arrays = given | {name: jnp.full(SHAPES[sides[0]], given[name]) for name, sides in cls.sides.items() if sides}
    scalars = {name: jnp.float32(x) for name, x in given.items()}
    with jax.numpy_dtype_promotion("strict"):
        for parameters, dtype in ((given, bool), (arrays, np.float32), (scalars, np.int8)):
            rule = cls(**parameters)
            spikes = (x[0].astype(dtype) for x in SPIKES)
            out = jax.eval_shape(
                lambda *x, rule=rule: rule.step(SYNAPSES, *x, 1.0), WEIGHT, rule.init(SYNAPSES), *spikes
            )
            assert {x.dtype for x in jax.tree.leaves(out)} == {np.dtype(np.float32)}
