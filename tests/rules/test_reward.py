"""Reward-modulated STDP: against the same rule with everything done at every step, and in closed form."""

import copy
import dataclasses
import pickle
import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import hebbax
from hebbax.rules.reward import LEAST
from hlo import at_least
from problems import DTYPES, enable_x64

PLAIN = dict(tau_plus=5.0, tau_minus=7.0, tau_c=20.0, a_plus=0.11, a_minus=0.13, w_min=0.1, w_max=0.9)
WIDE = PLAIN | dict(w_min=-50.0, w_max=50.0)
SHAPE = N_PRE, N_POST = 6, 5
SYNAPSES = hebbax.Synapses.random(SHAPE, prob=0.7, seed=7)
ROWS, COLUMNS = np.repeat(np.arange(N_PRE), np.diff(SYNAPSES.indptr)), np.asarray(SYNAPSES.indices)
WEIGHT = np.random.default_rng(4).uniform(0.15, 0.85, SYNAPSES.nse).astype(np.float32)


STEPS = 120  # 6 time constants of eligibility, so that silent neurons are renewed


def spikes(p=0.1, seed=5, steps=STEPS):
    rng = np.random.default_rng(seed)
    return tuple(rng.random((steps, n)) < p for n in SHAPE)


def rewards(shape=(), seed=6, steps=STEPS):
    """Nothing in most steps."""
    rng = np.random.default_rng(seed)
    return ((rng.random((steps, *shape)) < 0.3) * rng.uniform(0, 1, (steps, *shape))).astype(np.float32)


@jax.jit
def go_on(rule, weight, state, pre, post, reward):
    """Weight and state after these steps, not settled."""
    return jax.lax.scan(lambda carry, now: (rule.step(SYNAPSES, *carry, *now, 1.0), None), (weight, state),
                        (pre, post, reward))[0]  # fmt: skip


@jax.jit
def step(rule, *given):
    return rule.step(SYNAPSES, *given)


@jax.jit
def settle(rule, weight, state):
    return rule.settle(SYNAPSES, weight, state)


def run(rule, weight, *given):
    return go_on(rule, weight, rule.init(SYNAPSES), *given)


def end(rule, weight, *given):
    return settle(rule, *run(rule, weight, *given))


def every_step(p, weight, pre, post, reward, dt=1.0, pairing="all"):
    """Weight and eligibility by the rule on a dense matrix, in double precision: all of it changes in every step."""
    w = np.zeros(SHAPE)
    w[ROWS, COLUMNS] = weight
    c, x, y = np.zeros(SHAPE), np.zeros((N_PRE, 1)), np.zeros((1, N_POST))
    for i, j, d in zip(pre[:, :, None], post[:, None, :], reward, strict=True):
        w = np.clip(w + c * d * p["tau_c"] * -np.expm1(-dt / p["tau_c"]), p["w_min"], p["w_max"])
        c, x, y = (z * np.exp(-dt / p[tau]) for z, tau in ((c, "tau_c"), (x, "tau_plus"), (y, "tau_minus")))
        c = c - p["a_minus"] * y * i + p["a_plus"] * x * j
        x, y = (np.where(spike, 1 if pairing == "nearest" else z + 1, z) for z, spike in ((x, i), (y, j)))
    return w[ROWS, COLUMNS], c[ROWS, COLUMNS]


def check(rule, parameters, weight, *given, pairing="all"):
    found, state = end(rule, weight, *given)
    expected, eligibility = every_step(parameters, weight, *given, pairing=pairing)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(state.eligibility, eligibility, rtol=2e-5, atol=2e-6)
    return np.asarray(found)


# -- the rule


@given(
    seed=st.integers(0, 999), p=st.sampled_from((0.01, 0.1, 0.5)), per_neuron=st.booleans(), negative=st.booleans(),
    pairing=st.sampled_from(("all", "nearest")),
)  # fmt: skip
def test_it_is_what_the_rule_at_every_step_gives(seed, p, per_neuron, negative, pairing):
    """Clipped too, under rewards of one sign."""
    reward = rewards((N_POST,) * per_neuron, seed) * (-1) ** negative
    check(hebbax.RewardSTDP(**PLAIN, pairing=pairing), PLAIN, WEIGHT, *spikes(p, seed), reward, pairing=pairing)


def test_both_bounds_are_met_in_the_property_test():
    weight = check(hebbax.RewardSTDP(**PLAIN), PLAIN, WEIGHT, *spikes(0.1, 1), rewards((), 1))
    at_bound = [(weight == np.float32(bound)).mean() for bound in (0.1, 0.9)]
    assert all(0 < share < 1 for share in at_bound) and sum(at_bound) < 0.9


def test_without_a_bound_in_reach_rewards_may_change_their_sign():
    weight = check(hebbax.RewardSTDP(**WIDE), WIDE, WEIGHT, *spikes(), rewards() - rewards(seed=7))
    assert (abs(weight - WEIGHT) > 0.1).any()


@pytest.mark.parametrize("lag", [-3, 4])
def test_one_pair_and_one_pulse(lag):
    """The formula of the docstring."""
    rule = dataclasses.replace(hebbax.RewardSTDP(**WIDE), tau_c=1000.0)
    synapses, weight = hebbax.Synapses.from_dense(jnp.full((1, 1), 0.5))
    step, state = jax.jit(rule.step), rule.init(synapses)
    first, second = np.eye(2, dtype=bool)[:: np.sign(lag)]
    for who, reward, dt in (
        (first, 0.0, 1.0), ((False, False), 0.0, abs(lag) - 1.0), (second, 0.0, 1.0), ((False, False), 0.0, 1500.0),
        ((False, False), 3.0 / 0.01, 0.01),
    ):  # fmt: skip
        weight, state = step(synapses, weight, state, *(jnp.array([x]) for x in who), reward, dt)
    assert weight == 0.5  # as none of its neurons has spiked since
    amplitude, tau = (0.11, 5.0) if lag > 0 else (-0.13, 7.0)
    change = amplitude * np.exp(-abs(lag) / tau) * 3.0 * np.exp(-1.5)
    settled = float(rule.settle(synapses, weight, state)[0][0])
    assert settled == pytest.approx(0.5 + change, rel=1e-5)
    for side in (0, 1):
        who = [jnp.array([k == side]) for k in (0, 1)]
        assert step(synapses, weight, state, *who, 0.0, 0.0)[0][0] == pytest.approx(settled, rel=1e-6)


def test_spikes_that_coincide_do_not_see_each_other():
    synapses, weight = hebbax.Synapses.from_dense(jnp.full((1, 1), 0.5))
    rule = hebbax.RewardSTDP(**PLAIN)
    yes = jnp.ones(1, bool)
    step = jax.jit(rule.step)
    _, state = step(synapses, weight, rule.init(synapses), yes, yes, 1.0, 1.0)
    assert rule.settle(synapses, weight, state)[1].eligibility == 0
    _, state = step(synapses, weight, state, yes, yes, 1.0, 1.0)  # but the spikes of the step before
    change = 0.11 * np.exp(-1 / 5) - 0.13 * np.exp(-1 / 7)
    assert rule.settle(synapses, weight, state)[1].eligibility[0] == pytest.approx(change, rel=1e-5)


def test_after_a_step_the_weights_of_its_spikes_are_current():
    """And no other one has changed."""
    rule, given = hebbax.RewardSTDP(**PLAIN), (*spikes(), rewards())
    before, state = run(rule, WEIGHT, *given)
    last = np.arange(N_PRE) == 1, np.arange(N_POST) == 2
    after, state = step(rule, before, state, *last, 0.5, 1.0)
    settled = settle(rule, after, state)[0]
    current = last[0][ROWS] | last[1][COLUMNS]
    np.testing.assert_array_equal(np.asarray(after)[current], np.asarray(settled)[current])
    np.testing.assert_array_equal(np.asarray(after)[~current], np.asarray(before)[~current])
    assert (settled != after)[~current].any() and (after != before)[current].any()
    given = [np.concatenate([x, np.asarray(y)[None]]) for x, y in zip(given, (*last, 0.5), strict=True)]
    np.testing.assert_allclose(settled, every_step(PLAIN, WEIGHT, *given)[0], rtol=2e-5)


def test_to_settle_changes_nothing_that_comes_later():
    rule, given = hebbax.RewardSTDP(**PLAIN), (*spikes(), rewards())
    carry = run(rule, WEIGHT, *given)
    settled = settle(rule, *carry)
    jax.tree.map(np.testing.assert_array_equal, settle(rule, *settled), settled)
    later = (settle(rule, *go_on(rule, *x, *spikes(seed=9), given[2])) for x in (carry, settled))
    for x, y in zip(*map(jax.tree.leaves, later), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_a_long_step_is_as_many_short_ones():
    """Under a reward that stays."""
    rule = hebbax.RewardSTDP(**WIDE)
    carry = run(rule, WEIGHT, *spikes(0.3), rewards())
    silence = spikes(0.0)
    short = settle(rule, *go_on(rule, *carry, *silence, np.full(STEPS, 0.5, np.float32)))
    long = settle(rule, *step(rule, *carry, *(x[0] for x in silence), 0.5, float(STEPS)))
    np.testing.assert_allclose(short[0], long[0], rtol=1e-5)
    np.testing.assert_allclose(short[1].eligibility, long[1].eligibility, rtol=1e-4, atol=1e-9)
    assert (abs(long[0] - carry[0]) > 0.1).any()


def test_a_silent_neuron_is_renewed_before_digits_are_lost():
    """At 48 time constants, exp would be 7e20: the sum of rewards since the start could show nothing of a new one."""
    rule, steps = hebbax.RewardSTDP(**WIDE), 8 * STEPS
    pre, post, reward = *spikes(0.3, steps=steps), np.full(steps, 0.5, np.float32)
    pre[12 : 7 * STEPS] = post[12 : 7 * STEPS] = False
    carry = WEIGHT, rule.init(SYNAPSES)
    for k in range(8):
        if k == 7:
            assert 0 < np.abs(carry[1].eligibility).max() < 1e-15
        carry = go_on(rule, *carry, *(x[k * STEPS : (k + 1) * STEPS] for x in (pre, post, reward)))
        assert (np.asarray(carry[1].left) >= LEAST).all()
    expected = every_step(WIDE, WEIGHT, pre, post, reward)
    for got, x in zip(settle(rule, *carry), expected, strict=True):
        np.testing.assert_allclose(getattr(got, "eligibility", got), x, rtol=2e-5, atol=2e-6)


def test_a_reward_of_one_neuron_changes_its_synapses_only():
    reward = np.zeros((STEPS, N_POST), np.float32)
    reward[:, 3] = 0.5
    weight = check(hebbax.RewardSTDP(**PLAIN), PLAIN, WEIGHT, *spikes(0.3), reward)
    np.testing.assert_array_equal(weight[COLUMNS != 3], WEIGHT[COLUMNS != 3])
    assert (weight[COLUMNS == 3] != WEIGHT[COLUMNS == 3]).any()


@pytest.mark.parametrize("last", [False, True])
def test_parameters_per_neuron(last):
    changed = dict(PLAIN)
    for k, (name, sides) in enumerate(hebbax.RewardSTDP.sides.items()):
        side = sides[-1 if last else 0]
        shape = {"pre": (N_PRE, 1), "post": (1, N_POST)}[side]
        changed[name] = PLAIN[name] * np.linspace(0.6, 1.5, max(shape), dtype=np.float32).reshape(shape) ** (-1) ** k
    check(hebbax.RewardSTDP(**changed), changed, WEIGHT, *spikes(), rewards())
    one_each = [jnp.ones(n, bool) for n in SHAPE]
    rule = hebbax.RewardSTDP(**changed)  # of NumPy, and not traced
    given = WEIGHT, rule.init(SYNAPSES), *one_each, 0.5, 1.0
    eager, traced = rule.step(SYNAPSES, *given), step(rule, *given)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), eager, traced)


def test_bounds_per_synapse_also_of_some_that_stay_as_they_are():
    plastic = np.arange(WEIGHT.size) % 3 > 0
    bounds = {name: np.where(plastic, PLAIN[name], WEIGHT).astype(np.float32) for name in ("w_min", "w_max")}
    given = *spikes(0.3), rewards()
    weight = end(hebbax.RewardSTDP(**PLAIN | bounds), WEIGHT, *given)[0]
    np.testing.assert_array_equal(weight[~plastic], WEIGHT[~plastic])
    np.testing.assert_array_equal(weight[plastic], end(hebbax.RewardSTDP(**PLAIN), WEIGHT, *given)[0][plastic])
    assert (weight[plastic] != WEIGHT[plastic]).all()


# -- units and dtypes


def test_units():
    """Weights, rule, reward and times in units of their own change nothing."""
    given = *spikes(0.3), rewards()
    expected = end(hebbax.RewardSTDP(**PLAIN), WEIGHT, *given)[0]

    for unit in (u.nS, 1e-3 * u.uS):
        rule = hebbax.RewardSTDP(**{name: x * (u.ms if name.startswith("tau") else unit) for name, x in PLAIN.items()})

        @jax.jit
        def simulate(weight, pre, post, reward, rule=rule):
            def step(carry, now):
                *spikes, reward = now
                return rule.step(SYNAPSES, *carry, *spikes, reward * u.kHz, 0.001 * u.second), None

            return rule.settle(SYNAPSES, *jax.lax.scan(step, (weight, rule.init(SYNAPSES)), (pre, post, reward))[0])[0]

        out = simulate(WEIGHT * u.nS, *given)
        assert out.unit == u.nS
        np.testing.assert_allclose(out.mantissa, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_every_dtype_without_implicit_promotion(dtype):
    given = *spikes(0.3), rewards()
    expected = end(hebbax.RewardSTDP(**PLAIN), WEIGHT, *given)[0]
    with enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        out, state = end(hebbax.RewardSTDP(**PLAIN), WEIGHT.astype(DTYPES[dtype]), *given)
        assert out.dtype == DTYPES[dtype]
        assert {x.dtype for x in state} == {np.dtype("float64" if dtype == "float64" else "float32")}
        out = np.asarray(out, np.float64)
    tolerance = {"float64": 1e-5, "float32": 0, "float16": 1e-2, "bfloat16": 0.1}[dtype]  # each step is rounded
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance / 5)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_any_nonzero_number_is_a_spike(dtype):
    (pre, post), reward, rule = spikes(0.3), rewards(), hebbax.RewardSTDP(**PLAIN)
    out = end(rule, WEIGHT, -2 * pre.astype(dtype), 3 * post.astype(dtype), reward)
    jax.tree.map(np.testing.assert_array_equal, out, end(rule, WEIGHT, pre, post, reward))


# -- JAX


def test_a_rule_is_a_pytree():
    rule = hebbax.RewardSTDP(**PLAIN)
    assert len(jax.tree.leaves(rule)) == 7
    for same in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule), jax.tree.map(lambda x: x, rule)):
        assert type(same) is type(rule) and same == rule


def test_vmap_over_networks_and_over_rules():
    given, weights = (*spikes(0.3), rewards()), jnp.stack([WEIGHT, 1 - WEIGHT])
    rules = [hebbax.RewardSTDP(**PLAIN | {"a_plus": x, "tau_c": tau}) for x, tau in ((0.05, 10.0), (0.2, 30.0))]
    both = jax.tree.map(lambda *x: jnp.stack([jnp.float32(y) for y in x]), *rules)
    out = jax.vmap(lambda rule, weight: end(rule, weight, *given)[0])(both, weights)
    for k, rule in enumerate(rules):
        np.testing.assert_allclose(out[k], end(rule, weights[k], *given)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["rev", pytest.param("fwd", marks=pytest.mark.slow)])
def test_derivatives_are_those_of_finite_differences(mode):
    """In float64, where no bound is met, whose derivatives have steps; silent neurons are renewed on the way."""
    names = [name for name in WIDE if not name.startswith("w_")]
    with enable_x64(True):
        given, reward = spikes(), np.float64(rewards((N_POST,)))

        def weights(values, weight, reward):
            return end(hebbax.RewardSTDP(**WIDE | values), weight, *given, reward)[0]

        values = {name: jnp.float64(WIDE[name]) for name in names}
        check_grads(jax.jit(weights), (values, np.float64(WEIGHT), reward), order=1, modes=(mode,), eps=1e-5)


def test_a_step_costs_its_events():
    """Two equations make arrays of all synapses, those that visit synapses of spikes, and XLA copies none of these."""
    synapses = hebbax.Synapses.random((300, 400), prob=0.2, seed=2)
    rule, nse = hebbax.RewardSTDP(**PLAIN), synapses.nse

    def one_step(carry, now):
        *spikes, reward = now
        weight, traces = rule.step(synapses, *carry, *spikes, reward, 1.0)
        return (weight, traces), synapses.propagate_on_pre(weight, spikes[0])

    state = jnp.full(nse, 0.5, jnp.float32), rule.init(synapses)
    given = jnp.zeros((9, 300), bool), jnp.zeros((9, 400), bool), jnp.ones(9)
    equations = jax.make_jaxpr(one_step)(state, [x[0] for x in given]).eqns
    assert sum(any(x.aval.size >= nse for x in equation.outvars) for equation in equations) == 2
    loop = jax.jit(lambda state, given: jax.lax.scan(one_step, state, given), donate_argnums=0)
    text = loop.lower(state, given).compile().as_text()
    assert at_least(text, nse, kind="f32")
    assert at_least(text, nse, "copy", "copy-start", kind="f32") == []


# -- errors


@pytest.mark.parametrize("name", ["tau_plus", "tau_minus", "tau_c"])
@pytest.mark.parametrize(
    "value, error", [(0.0, ValueError), (np.inf, ValueError), (None, TypeError), (np.ones(2), hebbax.ShapeError),
                     (1.0 * u.nS, u.UnitMismatchError)],
)  # fmt: skip
def test_wrong_time_constants(name, value, error):
    with pytest.raises(error, match=rf"^{name}: got .*, expected "):
        hebbax.RewardSTDP(**PLAIN | {name: value})


@pytest.mark.parametrize(
    "changed, error, message",
    [
        (dict(tau_c=np.ones((6, 1))), hebbax.ShapeError, "tau_c: got shape (6, 1), expected a scalar, or (1, n_post)"),
        (dict(a_plus=np.nan), ValueError, "a_plus: got nan, expected a finite value"),
        (dict(a_minus=1.0 * u.nS), u.UnitMismatchError, "a_minus: got a value of unit nS"),
        (dict(w_min=2.0), ValueError, "w_min: got 2.0, expected at most w_max"),
        (dict(w_max=np.ones((2, 2))), hebbax.ShapeError, "w_max: got shape (2, 2), expected a scalar or (nse,)"),
        (dict(pairing="some"), ValueError, "pairing: got 'some', expected 'all' or 'nearest'"),
    ],
)  # fmt: skip
def test_wrong_parameters(changed, error, message):
    with pytest.raises(error, match=re.escape(message)):
        hebbax.RewardSTDP(**PLAIN | changed)


@pytest.mark.parametrize(
    "changed, error, message",
    [
        (dict(reward=1.0 * u.Hz), u.UnitMismatchError, "reward: got a value of unit Hz, expected a plain number"),
        (dict(reward=np.ones(N_PRE)), hebbax.ShapeError, "reward: got shape (6,), expected a scalar or (5,)"),
        (dict(reward=None), TypeError, "reward: got None, expected a number"),
        (dict(dt=-1.0), ValueError, "dt: got -1.0, expected at least 0"),
        (dict(dt=1.0 * u.ms), u.UnitMismatchError, "dt: got a value of unit ms"),
        (dict(state=None), TypeError, "state: got NoneType, expected RewardTraces"),
        (dict(weight=np.ones(3, np.float32)), hebbax.ShapeError, "weight: got shape (3,)"),
        (dict(weight=WEIGHT * u.nS), u.UnitMismatchError, "a_plus: got a value without a unit, expected one"),
        (dict(pre_spike=np.ones(3, bool)), hebbax.ShapeError, "pre_spike: got shape (3,), expected (6,)"),
        (dict(post_spike=np.ones(3, bool)), hebbax.ShapeError, "post_spike: got shape (3,), expected (5,)"),
        (dict(capacity=0), ValueError, "capacity: got 0, expected at least 1"),
        (dict(rule=hebbax.RewardSTDP(**PLAIN | {"w_max": np.ones(3)})), hebbax.ShapeError, "w_max: got shape (3,)"),
        (dict(rule=hebbax.RewardSTDP(**PLAIN | {"a_plus": np.ones((1, 9))})), hebbax.ShapeError, "a_plus: got shape"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_step(changed, error, message):
    rule = changed.get("rule", hebbax.RewardSTDP(**PLAIN))
    given = dict(weight=WEIGHT, state=rule.init(SYNAPSES), pre_spike=np.ones(N_PRE, bool),
                 post_spike=np.ones(N_POST, bool), reward=1.0, dt=1.0)  # fmt: skip
    with pytest.raises(error, match=re.escape(message)):
        rule.step(SYNAPSES, **given | {name: x for name, x in changed.items() if name != "rule"})


@pytest.mark.slow
def test_a_step_of_a_hundred_time_constants_is_finite_and_forgets():
    synapses, weight = hebbax.Synapses.from_dense(jnp.full((2, 2), 0.5))
    all_spike = jnp.ones(2, bool)

    def end(tau_c):
        rule = hebbax.RewardSTDP(20.0, 20.0, tau_c, 0.1, 0.15, 0.0, 4.0)
        carry = weight, rule.init(synapses)
        for reward, dt in ((0.0, 1.0), (0.01, 1.0), (0.0, 2e5), (1.0, 1.0)):
            carry = rule.step(synapses, *carry, all_spike, all_spike, reward, dt)
        return rule.settle(synapses, *carry)[0]

    value, derivative = (jax.jit(f)(1000.0) for f in (end, jax.jacfwd(end)))
    assert np.isfinite(value).all() and np.isfinite(derivative).all()
    rule = hebbax.RewardSTDP(20.0, 20.0, 1000.0, 0.1, 0.15, 0.0, 4.0)
    state = rule.init(synapses)
    first, state = rule.step(synapses, weight, state, all_spike, all_spike, 0.0, 1.0)
    second, state = rule.step(synapses, first, state, all_spike, all_spike, 0.01, 1.0)
    np.testing.assert_allclose(value, rule.settle(synapses, second, state)[0], rtol=1e-6)


def test_a_state_of_other_synapses_is_refused():
    few, many = (hebbax.Synapses.random(shape, indegree=2, seed=1) for shape in ((4, 3), (3, 3)))
    rule = hebbax.RewardSTDP(20.0, 20.0, 1000.0, 0.1, 0.15, 0.0, 4.0)
    for call in (rule.settle, lambda *given: rule.step(*given, jnp.ones(3), jnp.ones(3), 0.0, 1.0)):
        with pytest.raises(hebbax.ShapeError, match=r"^state.pre: got shape \(4,\), expected \(3,\), as init of these"):
            call(many, jnp.ones(6), rule.init(few))
