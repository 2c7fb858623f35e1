"""Short-term plasticity: every gain against the map from one spike to the next, and in closed form."""

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

import hebbax
from problems import enable_x64

MS = 1.0 * u.ms
DEPRESSING = dict(U=0.5, tau_rec=800.0, tau_facil=0.0)
FACILITATING = dict(U=0.04, tau_rec=130.0, tau_facil=530.0)
BOTH = dict(U=0.3, tau_rec=200.0, tau_facil=150.0)
ALL = {"depressing": DEPRESSING, "facilitating": FACILITATING, "both": BOTH}


def rule_of(U, tau_rec, tau_facil):
    return hebbax.ShortTermPlasticity(U, tau_rec * u.ms, tau_facil * u.ms)


def synapses_of(n):
    return hebbax.Synapses(np.arange(n + 1), np.zeros(n, int), shape=(n, 1))


@jax.jit
def simulate(rule, state, spikes, dts):
    def step(state, now):
        gain, state = rule.step(state, now[0], now[1] * u.ms)
        return state, gain

    return jax.lax.scan(step, state, (spikes, dts))[1]


def run(rule, spikes, dts):
    """The gain of every neuron in every step."""
    state = rule.init(synapses_of(spikes.shape[1]))
    return np.asarray(simulate(rule, state, jnp.asarray(spikes), jnp.asarray(dts, float)))


@given(seed=st.integers(0, 999), rate=st.sampled_from((0.01, 0.2, 0.8)), dt=st.sampled_from((0.1, 3.0, 200.0)))
def test_every_gain_is_that_of_the_map_between_spikes(seed, rate, dt):
    """For each neuron with parameters of its own, and steps that differ in length."""
    rng, n = np.random.default_rng(seed), 4
    given = dict(
        U=rng.uniform(0, 1, (n, 1)), tau_rec=rng.uniform(5, 900, (n, 1)),
        tau_facil=rng.uniform(5, 900, (n, 1)) * [[1], [1], [0], [1]],
    )  # fmt: skip
    lengths = rng.integers(1, 5, 150)
    spikes = rng.random((150, n)) < rate
    with enable_x64(True):
        gains = run(rule_of(**given), spikes, lengths * dt)
    for k in range(n):
        at = np.cumsum(lengths)[spikes[:, k]]
        expected = stdp_reference.short_term(at, **{name: float(x[k, 0]) for name, x in given.items()}, dt=dt)
        np.testing.assert_allclose(gains[spikes[:, k], k], expected, rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_at_a_steady_rate_the_gain_is_the_closed_form(name):
    p, rates = ALL[name], np.array([1.0, 5.0, 20.0, 50.0, 200.0])
    left, back = (np.exp(-1000 / rates / tau) if tau else 0 * rates for tau in (p["tau_facil"], p["tau_rec"]))
    u_end = p["U"] / (1 - (1 - p["U"]) * left)
    x_end = (1 - back) / (1 - (1 - u_end) * back)
    spike = np.ones((2000, 1), bool)
    with enable_x64(True):
        ends = [run(rule_of(**p), spike, np.full(2000, 1000 / rate))[-1, 0] for rate in rates]
    np.testing.assert_allclose(ends, u_end * x_end, rtol=1e-12)


def test_the_classical_trains():
    """At 20 Hz one synapse depresses and the other facilitates; what depression lets through saturates at high rates.

    Tsodyks & Markram (1997): the response falls as 1 / rate, so that rate times gain, the average current, tends to
    1 / tau_rec.
    """
    spike = np.ones((10, 1), bool)
    down, up = (run(rule_of(**p), spike, np.full(10, 50.0))[:, 0] for p in (DEPRESSING, FACILITATING))
    assert (np.diff(down) < 0).all() and down[-1] < 0.2 * down[0] and down[0] == 0.5
    assert (np.diff(up[:6]) > 0).all() and up[5] > 2 * up[0] and up[0] == np.float32(0.04)
    for rate in (100.0, 200.0, 400.0):
        end = run(rule_of(**DEPRESSING), np.ones((500, 1), bool), np.full(500, 1000 / rate))[-1, 0]
        assert end * rate == pytest.approx(1000 / 800, rel=0.02)


def test_a_long_step_is_many_short_ones():
    rule, yes, no = rule_of(**BOTH), np.array([True]), np.array([False])
    _, state = rule.step(rule.init(synapses_of(1)), yes, MS)
    short = state
    for _ in range(40):
        _, short = rule.step(short, no, 0.25 * u.ms)
    _, long = rule.step(state, no, 0.01 * u.second)
    np.testing.assert_allclose(short, long, rtol=1e-5)
    np.testing.assert_allclose(*(rule.step(x, yes, 0.0 * u.ms)[0] for x in (short, long)), rtol=1e-5)


def test_in_short_steps_of_single_precision_resources_recover_to_the_end():
    """Where x itself, close to 1, would stop changing."""
    rule = rule_of(U=0.9, tau_rec=800.0, tau_facil=800.0)
    _, state = rule.step(rule.init(synapses_of(1)), np.array([True]), MS)
    no = jnp.array([False])
    step = lambda state, _: (rule.step(state, no, 0.05 * u.ms)[1], None)  # noqa: E731
    state = jax.lax.scan(step, state, length=160_000)[0]
    np.testing.assert_allclose(state, 0.9 * np.exp(-10) * np.ones((2, 1)), rtol=1e-2)


def test_the_gain_of_what_is_passed_on():
    rng = np.random.default_rng(1)
    dense = rng.uniform(0.5, 1, (6, 3)).astype(np.float32)
    synapses, weight = hebbax.Synapses.from_dense(dense * u.nS)
    rule = rule_of(**BOTH)
    state = rule.init(synapses)
    for _ in range(5):
        spike = rng.random(6) < 0.5
        gain, state = rule.step(state, spike, 10 * MS)
        current = synapses.propagate_on_pre(weight, spike, gain=gain)
        np.testing.assert_allclose(current.to(u.nS).mantissa, (spike * np.asarray(gain)) @ dense, rtol=1e-6)
    assert np.ptp(gain) > 0.1


def test_a_pytree_vmap_and_numbers_as_spikes():
    rule = rule_of(**BOTH)
    assert len(jax.tree.leaves(rule)) == 3 and pickle.loads(pickle.dumps(rule)) == rule
    spikes = np.random.default_rng(2).random((3, 20, 5)) < 0.4
    state = rule.init(synapses_of(5))
    together = jax.vmap(lambda x: simulate(rule, state, x, jnp.ones(20)))(jnp.asarray(spikes))
    for k in range(3):
        one = run(rule, spikes[k], np.ones(20))
        np.testing.assert_allclose(together[k], one, rtol=1e-5)
        np.testing.assert_array_equal(run(rule, -3 * spikes[k].astype(int), np.ones(20)), one)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_strict_promotion_of_dtypes(dtype):
    arrays = {name: np.full((2, 1), x, dtype) for name, x in BOTH.items()}
    with jax.numpy_dtype_promotion("strict"):
        for p in (BOTH, arrays, jax.tree.map(jnp.asarray, arrays), jax.tree.map(jnp.float32, BOTH)):
            out = jax.eval_shape(
                lambda rule, x: rule.step(rule.init(synapses_of(2)), x, MS), rule_of(**p), np.zeros(2, bool)
            )
            assert {x.dtype for x in jax.tree.leaves(out)} == {np.dtype(np.float32)}


@pytest.mark.slow
def test_derivatives():
    spikes = jnp.asarray(np.random.default_rng(3).random((12, 2)) < 0.5)

    def total(U, tau_rec, tau_facil):
        rule = hebbax.ShortTermPlasticity(U, tau_rec, tau_facil)
        step = lambda state, spike: rule.step(state, spike, 3.0)[::-1]  # noqa: E731
        gains = jax.lax.scan(step, rule.init(synapses_of(2)), spikes)[1]
        return jnp.where(spikes, gains, 0).sum()

    with enable_x64(True):
        check_grads(jax.jit(total), (0.3, 20.0, 15.0), order=1)
        assert np.isfinite(jax.jit(jax.grad(total, 1))(0.3, 20.0, 0.0))


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (dict(U=1.5), ValueError, "U: got 1.5, expected a value from 0 to 1"),
        (dict(U=np.array([[0.5], [-0.1]])), ValueError, "U[1, 0]: got -0.1, expected a value from 0 to 1"),
        (dict(U=np.nan), ValueError, "U: got nan"),
        (dict(U=0.5 * u.mV), u.UnitMismatchError, "U: got a value of unit mV, expected a plain number"),
        (dict(U=None), TypeError, "U: got None"),
        (dict(tau_rec=0.0 * u.ms), ValueError, "tau_rec: got 0.0 ms, expected a finite value of more than 0"),
        (dict(tau_rec=1.0 * u.nS), u.UnitMismatchError, "tau_rec: got a value of unit nS"),
        (dict(tau_facil=-1.0 * u.ms), ValueError, "tau_facil: got -1.0 ms, expected a finite value of at least 0"),
        (dict(tau_facil=0.0), u.UnitMismatchError, "tau_facil: got a value without a unit"),
        (dict(tau_facil=np.ones((1, 3)) * u.ms), hebbax.ShapeError, "tau_facil: got shape (1, 3)"),
    ],
)
def test_wrong_parameters(changed, error, words):
    given = dict(U=0.5, tau_rec=100.0 * u.ms, tau_facil=50.0 * u.ms)
    with pytest.raises(error, match=f"^{re.escape(words)}"):
        hebbax.ShortTermPlasticity(**given | changed)


def test_wrong_arguments_of_a_step():
    rule, synapses, spike = rule_of(**BOTH), synapses_of(3), np.zeros(3, bool)
    state = rule.init(synapses)
    with pytest.raises(hebbax.ShapeError, match=r"^pre_spike: got shape \(2,\), expected \(3,\)"):
        rule.step(state, spike[:2], MS)
    with pytest.raises(TypeError, match=r"^state: got tuple, expected ShortTermState"):
        rule.step(tuple(state), spike, MS)
    with pytest.raises(ValueError, match=r"^dt: got -1"):
        rule.step(state, spike, -1.0 * u.ms)
    other = hebbax.ShortTermPlasticity(np.full((2, 1), 0.5), 100.0 * u.ms, 50.0 * u.ms)
    with pytest.raises(hebbax.ShapeError, match=r"^U: got shape \(2, 1\), expected a scalar, or \(3, 1\)"):
        other.step(state, spike, MS)
