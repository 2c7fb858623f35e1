"""Synaptic scaling and triplets with homeostasis: closed forms, relaxation to the target, and where the drift ends."""

import dataclasses
import functools
import pickle
import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stdp_reference
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from test_agreement import TRIPLET, all_to_all, compare, quantities

import hebbax
from problems import enable_x64

SCALING = hebbax.SynapticScaling(100.0 * u.ms, 20.0 * u.Hz, 0.05)
MS = 1.0 * u.ms


# -- scaling


@jax.jit
def simulate(rule, state, spikes, dts):
    step = lambda state, now: (rule.step(state, now[0], now[1] * u.ms), None)  # noqa: E731
    return jax.lax.scan(step, state, (spikes, dts))[0]


def scale(rule, spikes, dts):
    """The state after all steps, whose lengths are in ms."""
    state = rule.init(all_to_all(1, spikes.shape[1]))
    return simulate(rule, state, jnp.asarray(spikes), jnp.asarray(dts, float))


@given(seed=st.integers(0, 999), dt=st.sampled_from((0.1, 7.0, 300.0)))
def test_the_factor_is_the_closed_form(seed, dt):
    """By the number of spikes and the average, which is a sum over all of them; each neuron with its own parameters."""
    rng, n = np.random.default_rng(seed), 3
    tau, rate, beta = rng.uniform(20, 900, n), rng.uniform(1, 40, n), rng.uniform(0, 0.1, n)
    rule = hebbax.SynapticScaling(*(x[None] * unit for x, unit in ((tau, u.ms), (rate, u.Hz), (beta, u.UNITLESS))))
    spikes, dts = rng.random((200, n)) < 0.2, rng.integers(1, 4, 200) * dt
    with enable_x64(True):
        state = scale(rule, spikes, dts)
        got = rule.factor(state)
    end, goal = dts.sum(), rate / 1000
    for k in range(n):
        lags = (end - np.cumsum(dts))[spikes[:, k]]
        left = np.exp(-lags / tau[k]).sum() + goal[k] * tau[k] * np.exp(-end / tau[k])
        expected = beta[k] * (goal[k] * end - spikes[:, k].sum() + left - goal[k] * tau[k])
        np.testing.assert_allclose(np.log(got[k]), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.rate[k], left, rtol=1e-9)


def test_tiny_changes_add_up_in_single_precision():
    """With the paper's parameters in steps of 1 ms, by 2e-7 each of a silent neuron: half a grain of 8 is 5e-7."""
    rule = hebbax.SynapticScaling(100.0 * u.second, 5.0 * u.Hz, 4e-5)
    silent = jnp.zeros(1)
    state = hebbax.rules.ScalingState(silent, silent + 8, silent)
    step = lambda state, _: (rule.step(state, silent, MS), None)  # noqa: E731
    state = jax.jit(lambda state: jax.lax.scan(step, state, length=100_000)[0])(state)
    assert state.log_factor[0] - 8 == pytest.approx(4e-5 * 5 * 100, rel=1e-3)


def test_a_neuron_is_brought_to_its_target():
    """At a constant input, a neuron whose rate is `c` times its factor: the factor follows the logistic equation."""
    c, goal, beta, dt = 40.0, 10.0, 0.02, 1.0  # Hz, Hz, _, ms
    rule = hebbax.SynapticScaling(50.0 * u.ms, goal * u.Hz, beta)
    synapses = hebbax.Synapses([0, 1], [0], shape=(1, 1))

    @jax.jit
    def simulate(state):
        def step(carry, _):
            charge, state = carry
            charge = charge + c * rule.factor(state) * dt / 1000
            spike = charge >= 1
            return (charge - spike, rule.step(state, spike, dt * u.ms)), rule.factor(state)[0]

        return jax.lax.scan(step, (jnp.zeros(1), state), length=40_000)[1]

    with enable_x64(True):
        factor = np.asarray(simulate(rule.init(synapses)))
    t = np.arange(factor.size) * dt / 1000
    expected = (goal / c) / (1 + (goal / c - 1) * np.exp(-beta * goal * t))
    np.testing.assert_allclose(factor, expected, rtol=0.06)  # spikes are single, and the average lags by 50 ms
    assert factor[-1] == pytest.approx(goal / c, rel=0.02) and factor[0] == 1


@pytest.mark.parametrize("dtype", [pytest.param(np.float16, marks=pytest.mark.slow), np.float32])
def test_folding_changes_no_current(dtype):
    rng = np.random.default_rng(1)
    synapses = hebbax.Synapses.random((8, 5), prob=0.6, seed=3)
    weight = rng.uniform(-1, 1, synapses.nse).astype(dtype) * u.nS
    state = scale(SCALING, rng.random((50, 5)) < [0, 0, 0.1, 0.3, 0.5], np.full(50, 5.0))
    spike = rng.random(8) < 0.6
    before = synapses.propagate_on_pre(weight, spike) * SCALING.factor(state).astype(dtype)
    folded, after_state = SCALING.fold(synapses, weight, state)
    assert folded.unit == u.nS and folded.dtype == dtype and np.ptp(SCALING.factor(state)) > 0.1
    np.testing.assert_array_equal(SCALING.factor(after_state), 1)
    np.testing.assert_array_equal(after_state.rate, state.rate)
    after = synapses.propagate_on_pre(folded, spike)
    np.testing.assert_allclose(after.mantissa, before.mantissa, rtol=1e-5 if dtype == np.float32 else 1e-2, atol=1e-3)
    dense = np.asarray(synapses.todense(weight.mantissa.astype(np.float32)), np.float32)
    scaled = dense * np.asarray(SCALING.factor(state))
    np.testing.assert_allclose(synapses.todense(folded.mantissa), scaled, rtol=1e-6 if dtype == np.float32 else 1e-2)


def test_scaling_under_jax():
    assert len(jax.tree.leaves(SCALING)) == 3 and pickle.loads(pickle.dumps(SCALING)) == SCALING
    spikes = np.random.default_rng(2).random((2, 30, 3)) < 0.3
    together = jax.vmap(lambda x: scale(SCALING, x, np.ones(30)))(jnp.asarray(spikes))
    for k in range(2):
        one = scale(SCALING, spikes[k], np.ones(30))
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=1e-5, atol=1e-7), together, one)
    wide = hebbax.SynapticScaling(*(np.full((1, 3), x, np.float16) for x in (100.0, 0.5, 0.1)))
    with jax.numpy_dtype_promotion("strict"):
        for rule in (wide, jax.tree.map(jnp.asarray, wide)):
            out = jax.eval_shape(lambda rule, x: rule.step(rule.init(all_to_all(1, 3)), x, 1.0), rule, spikes[0, 0])
            assert {x.dtype for x in jax.tree.leaves(out)} == {np.dtype(np.float32)}


@pytest.mark.slow
def test_derivatives_of_scaling():
    spikes = np.random.default_rng(2).random((8, 3)) < 0.3

    def end(tau, rate, beta):
        rule = hebbax.SynapticScaling(tau, rate, beta)
        step = lambda state, now: (rule.step(state, now, 2.0), None)  # noqa: E731
        state = jax.lax.scan(step, rule.init(all_to_all(1, 3)), jnp.asarray(spikes))[0]
        return (rule.factor(state) ** 2).sum()

    with enable_x64(True):
        check_grads(jax.jit(end), (20.0, 0.1, 0.05), order=1)


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (dict(tau=0.0 * u.ms), ValueError, "tau: got 0.0 ms, expected a finite value of more than 0"),
        (dict(tau=np.ones((3, 1)) * u.ms), hebbax.ShapeError, "tau: got shape (3, 1)"),
        (dict(target_rate=-1.0 * u.Hz), ValueError, "target_rate: got -1.0"),
        (dict(target_rate=1.0 * u.ms), u.UnitMismatchError, "target_rate: got a value of unit ms"),
        (dict(beta=-0.1), ValueError, "beta: got -0.1"),
        (dict(beta=0.1 * u.Hz), u.UnitMismatchError, "beta: got a value of unit"),
    ],
)
def test_wrong_parameters_of_scaling(changed, error, words):
    with pytest.raises(error, match=f"^{re.escape(words)}"):
        dataclasses.replace(SCALING, **changed)


def test_wrong_arguments_of_scaling():
    state = SCALING.init(all_to_all(1, 3))
    with pytest.raises(hebbax.ShapeError, match=r"^post_spike: got shape \(2,\), expected \(3,\)"):
        SCALING.step(state, np.zeros(2, bool), MS)
    for call in (lambda x: SCALING.step(x, np.zeros(3, bool), MS), SCALING.factor):
        with pytest.raises(TypeError, match=r"^state: got tuple, expected ScalingState"):
            call(tuple(state))


# -- triplets with homeostasis


FULL = TRIPLET["all, full"] | dict(w_min=0.0, w_max=1.0)
MINIMAL = TRIPLET["all, minimal"] | dict(w_min=-1e6, w_max=1e6)


def homeostatic(parameters, tau, target_rate):
    return hebbax.HomeostaticTripletSTDP(hebbax.TripletSTDP(**quantities(parameters)), tau * u.ms, target_rate * u.Hz)


def test_homeostatic_triplets_agree_with_the_closed_form(rng):
    reference = functools.partial(stdp_reference.homeostatic_triplet, **FULL, tau=2000.0, target_rate=0.025)
    with enable_x64(True):
        compare(rng, Bounded(homeostatic(FULL, 2000.0, 25.0)), reference)


@dataclasses.dataclass(frozen=True)
class Bounded:
    """The rule with the bounds that `compare` asks for."""

    rule: hebbax.HomeostaticTripletSTDP
    w_max: float = 1.0

    def __getattr__(self, name):
        return getattr(self.rule, name)


def test_it_is_the_rule_itself_where_the_average_stays_at_the_target():
    """With an average over a very long time; and `step` takes units, any backend, and parameters per neuron."""
    rng = np.random.default_rng(3)
    pre, post = rng.random((80, 3)) < 0.2, rng.random((80, 2)) < 0.2
    synapses, triplet = all_to_all(3, 2), hebbax.TripletSTDP(**quantities(FULL))
    rule = hebbax.HomeostaticTripletSTDP(triplet, 1e9 * u.ms, 30.0 * u.Hz)
    rate = np.array([[30.0, 60.0]])
    doubled = dataclasses.replace(rule, target_rate=rate * u.Hz)
    with enable_x64(True):
        weight = jnp.full(6, 0.5)
        ends = []
        quarter = dataclasses.replace(triplet, **{x: getattr(triplet, x) / 4 for x in ("a2_minus", "a3_minus")})
        states = *(triplet.init(synapses),) * 2, *(rule.init(synapses),) * 2
        for one, state in zip((triplet, quarter, rule, doubled), states, strict=True):
            w = weight
            for now in zip(pre, post, strict=True):
                w, state = one.step(synapses, w, state, *now, MS)
            ends.append(np.asarray(w))
    np.testing.assert_allclose(ends[2], ends[0], rtol=1e-6)
    expected = np.where(np.arange(6) % 2, ends[1], ends[0])  # onto the second neuron
    np.testing.assert_allclose(ends[3], expected, rtol=1e-6)
    assert abs(ends[1] - ends[0]).max() > 0.01


@pytest.mark.parametrize("pair", [0.0, 1e-3])
def test_the_drift_ends_at_the_threshold(pair):
    """Independent Poisson spikes: the mean drift is the paper's, of which kappa is the fixed point, by the sliding
    threshold; at half of kappa it grows, at twice kappa it shrinks."""
    kappa, rho, dt, steps, n_pre, same = 10.0, 20.0, 1.0, 30_000, 200, 12
    rates = np.repeat(np.array([0.5, 1.0, 2.0]) * kappa, same)
    tau_plus, tau_minus, tau_y = (MINIMAL[name] / 1000 for name in ("tau_plus", "tau_minus", "tau_y"))
    a3 = MINIMAL["a3_plus"]
    a2 = (pair + a3 * tau_y * kappa) * tau_plus / tau_minus
    rule = homeostatic(MINIMAL | dict(a2_minus=a2, a2_plus=pair), 1e6, kappa)
    rng = np.random.default_rng(4)
    pre, post = (rng.random((steps, len(x))) < x * dt / 1000 for x in (np.full(n_pre, rho), rates))
    synapses = all_to_all(n_pre, rates.size)

    @jax.jit
    def learn(weight, state, spikes):
        step = lambda carry, now: (rule.step(synapses, *carry, *now, dt * u.ms), None)  # noqa: E731
        return jax.lax.scan(step, (weight, state), spikes)[0][0]

    state = rule.init(synapses)._replace(rate=jnp.asarray(rates * 1000, jnp.float32))  # long at their rates
    weight = learn(jnp.zeros(synapses.nse), state, (jnp.asarray(pre), jnp.asarray(post)))
    drift = np.asarray(weight).reshape(n_pre, 3, same).mean(0) / (steps * dt / 1000)
    ratio = rates[::same] / kappa
    expected = rho * rates[::same] * tau_plus * (
        pair + a3 * tau_y * rates[::same] - (pair + a3 * tau_y * kappa) * ratio**2
    )  # fmt: skip
    error = drift.std(1) / np.sqrt(same)
    assert (abs(drift.mean(1) - expected) < 4 * error).all()
    assert expected[0] > 4 * error[0] and abs(expected[1]) < 1e-12 and expected[2] < -4 * error[2]


def test_a_step_copies_no_weight(kernel):
    synapses = hebbax.Synapses.random((60, 70), prob=0.42, seed=0)
    rule = homeostatic(FULL, 1000.0, 5.0)

    def function(weight, state, pre, post):
        def step(carry, now):
            received = synapses.propagate_on_pre(carry[0], now[0], backend=kernel)
            return rule.step(synapses, *carry, *now, MS, received, kernel), received

        return jax.lax.scan(step, (weight, state), (pre, post))

    given = jnp.full(synapses.nse, 0.5), rule.init(synapses), jnp.ones((5, 60), bool), jnp.ones((5, 70), bool)
    text = jax.jit(function, donate_argnums=(0, 1)).lower(*given).compile().as_text()
    assert not re.search(rf"= f32\[{synapses.nse}\]\S* copy(?:-start)?\(", text)


def test_units_of_the_target_and_a_pytree():
    triplet = hebbax.TripletSTDP(**quantities(FULL))
    rule = hebbax.HomeostaticTripletSTDP(triplet, 2.0 * u.second, 25.0 * u.Hz)
    state = rule.init(all_to_all(3, 2))
    np.testing.assert_allclose(state.rate, 50.0, rtol=1e-6)
    other = hebbax.HomeostaticTripletSTDP(triplet, 2000.0 * u.ms, 25.0 * u.Hz).init(all_to_all(3, 2))
    np.testing.assert_allclose(other.rate, 50.0, rtol=1e-6)
    assert len(jax.tree.leaves(rule)) == 12 and pickle.loads(pickle.dumps(rule)) == rule
    assert jax.tree.map(lambda x: 2 * x, rule).rule.tau_x == 2 * triplet.tau_x


def test_the_rule_is_split_with_the_rule_in_it():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
    sharded = hebbax.sharding.split(all_to_all(3, 2), mesh)
    triplet = hebbax.TripletSTDP(**quantities(FULL | dict(a2_minus=np.full((1, 2), 0.1), a3_plus=np.full((3, 1), 0.2))))
    rule = hebbax.HomeostaticTripletSTDP(triplet, np.full((1, 2), 100.0) * u.ms, 25.0 * u.Hz)
    split = sharded.split_rule(rule)
    assert isinstance(split, hebbax.HomeostaticTripletSTDP)
    for x in (split.tau.mantissa, split.rule.a2_minus, split.rule.a3_plus):
        assert isinstance(x, jax.Array) and isinstance(x.sharding, jax.sharding.NamedSharding)


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (dict(rule=SCALING), TypeError, "rule: got SynapticScaling"),
        (dict(tau=-1.0 * u.ms), ValueError, "tau: got -1.0 ms"),
        (dict(target_rate=0.0 * u.Hz), ValueError, "target_rate: got 0.0"),
        (dict(target_rate=1.0), u.UnitMismatchError, "target_rate: got a value without a unit"),
        (dict(target_rate=np.ones((2, 1)) * u.Hz), hebbax.ShapeError, "target_rate: got shape (2, 1)"),
    ],
)
def test_wrong_parameters_of_homeostatic_triplets(changed, error, words):
    rule = homeostatic(FULL, 1000.0, 5.0)
    with pytest.raises(error, match=f"^{re.escape(words)}"):
        dataclasses.replace(rule, **changed)


def test_a_factor_that_16_bits_cannot_hold_is_folded_into_weights_that_they_can():
    synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    scaling = SCALING
    state = scaling.init(synapses)._replace(log_factor=jnp.full(3, 12.0))
    folded, _ = scaling.fold(synapses, jnp.full(4, 1e-3, jnp.float16), state)
    assert folded.dtype == jnp.float16
    np.testing.assert_array_equal(folded, np.float16(np.float32(np.float16(1e-3)) * np.exp(np.float32(12))))
    with pytest.raises(hebbax.ShapeError, match=r"^state: got shape \(2,\), expected \(3,\), one factor per neuron"):
        scaling.fold(synapses, jnp.ones(4), state._replace(log_factor=jnp.ones(2), rest=jnp.ones(2)))
