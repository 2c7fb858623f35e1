"""Replayed spikes, compared with a double loop over spikes and synapses, and with `PairSTDP` in time steps."""

from itertools import pairwise

import brainunit as u
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hebbax
from hebbax.errors import ShapeError
from hebbax.replay import Replay

BOUNDS = 0.0, 1.0


def make_rule(tau_plus=0.02, tau_minus=0.03, a_plus=0.1, a_minus=0.12, bounds=BOUNDS, **options):
    return hebbax.PairSTDP(tau_plus * u.second, tau_minus * u.second, a_plus, a_minus, *bounds, **options)


def make_triplet(scale, **options):
    times = (x * u.second for x in (0.02, 0.03, 0.1, 0.05))
    return hebbax.TripletSTDP(*times, *(scale * x for x in (0.3, 0.4, 0.5, 0.2)), *BOUNDS, **options)


def make_power_law(scale, mu=0.4):
    return hebbax.PowerLawSTDP(0.02 * u.second, 0.03 * u.second, learning_rate=scale, alpha=0.9, w_0=0.7, mu=mu)


def change(rule, side, w, trace):
    """What a spike of a side does to a weight; `trace` is that of 'pre' or 'post' with a time constant."""
    if isinstance(rule, hebbax.TripletSTDP):
        r1, r2 = trace("pre", rule.tau_plus), trace("pre", rule.tau_x)
        o1, o2 = trace("post", rule.tau_minus), trace("post", rule.tau_y)
        return -o1 * (rule.a2_minus + rule.a3_minus * r2) if side == 1 else r1 * (rule.a2_plus + rule.a3_plus * o2)
    x, y = trace("pre", rule.tau_plus), trace("post", rule.tau_minus)
    if isinstance(rule, hebbax.PowerLawSTDP):
        rate = rule.learning_rate
        return -rate * rule.alpha * w * y if side == 1 else rate * rule.w_0 ** (1 - rule.mu) * w**rule.mu * x
    place = (w - rule.w_min) / (rule.w_max - rule.w_min)
    return -rule.a_minus * place**rule.mu_minus * y if side == 1 else rule.a_plus * (1 - place) ** rule.mu_plus * x


def oracle(rule, pre, post, weight, spikes):
    """The weights after spikes `(time, side, neuron)`, by sums over all earlier ones."""
    weight = np.array(weight, np.float64)
    low, high = getattr(rule, "w_min", 0.0), getattr(rule, "w_max", np.inf)
    pairing = getattr(rule, "pairing", "all")

    def traces(k, now):
        def trace(of, tau):
            side, neuron = (1, pre[k]) if of == "pre" else (2, post[k])
            before = [now - t for t, its_side, n in spikes if its_side & side and n == neuron and t < now]
            before = before if pairing == "all" else before[-1:]
            return sum(np.exp(-age / (tau / u.second)) for age in before)

        return trace

    for now in sorted({t for t, _, _ in spikes}):
        at_once = [(side, n) for t, side, n in spikes if t == now]
        for side in (1, 2):
            for k in range(weight.size):
                if any(own & side and n == (pre, post)[side - 1][k] for own, n in at_once):
                    weight[k] += change(rule, side, weight[k], traces(k, now))
                    weight[k] = min(max(weight[k], low), high)
    return weight


def spikes_of(rng, n_pre, n_post, count, is_one, span):
    """Of which some are at the same time, and some wait for long."""
    times = np.round(rng.random(count) * span, 3) + rng.choice([0.0, 7.5], count)
    sides = np.full(count, 3) if is_one else rng.integers(1, 3, count)
    neurons = np.where(sides == 2, rng.integers(0, n_post, count), rng.integers(0, n_pre, count))
    return sorted({(float(t), int(s), int(n)) for t, s, n in zip(times, sides, neurons, strict=True)})


@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), nse=st.integers(0, 30), is_one=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]), pairing=st.sampled_from(["all", "nearest"]),
    kind=st.sampled_from([(0.0, 0.0), (1.0, 1.0), (0.5, 0.0), "triplet", "power law", "linear"]),
    scale=st.sampled_from([0.01, 1.0]),
    span=st.sampled_from([0.02, 2.0]), cuts=st.integers(0, 3),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_it_is_the_double_loop(seed, count, nse, is_one, dtype, pairing, kind, scale, span, cuts):
    rng = np.random.default_rng(seed)
    n_pre, n_post = (5, 5) if is_one else (4, 6)
    pre, post = rng.integers(0, n_pre, nse), rng.integers(0, n_post, nse)
    weight = rng.random(nse).astype(dtype)
    if kind == "triplet":
        rule = make_triplet(scale, pairing=pairing)
    elif kind in ("power law", "linear"):
        rule = make_power_law(0.3 * scale, mu=0.4 if kind == "power law" else 0.0)
    else:
        mu_plus, mu_minus = kind
        rule = make_rule(a_plus=0.5 * scale, a_minus=0.6 * scale, mu_plus=mu_plus, mu_minus=mu_minus, pairing=pairing)
    spikes = spikes_of(rng, n_pre, n_post, count, is_one, span)
    replay = Replay(rule, pre, post, weight, shape=(n_pre, n_post))
    times = sorted({t for t, _, _ in spikes})
    edges = [-np.inf, *sorted(rng.choice(times, min(cuts, len(times)), replace=False)), np.inf] if times else []
    for low, high in pairwise(edges):  # in any pieces that keep what is at once together
        piece = [x for x in spikes if low <= x[0] < high]
        replay.advance(*(np.array([x[k] for x in piece], d) for k, d in ((0, float), (2, int), (1, int))))
    expected = oracle(rule, pre, post, weight, spikes)
    # A distance to a bound to the power of 0.5 makes a rounding that leaves it 1e-8 of that one of 1e-4.
    tolerance = (1e-12 if dtype == np.float64 else 1e-5) if kind not in ((0.5, 0.0), "power law") else 1e-3
    np.testing.assert_allclose(replay.weight, expected, rtol=0, atol=tolerance)
    assert replay.weight.dtype == dtype
    assert replay.updates == sum(
        sum(bool(side & 1) for k in range(nse) if pre[k] == n) + sum(bool(side & 2) for k in range(nse) if post[k] == n)
        for _, side, n in spikes
    )


@pytest.mark.parametrize(
    "rule",
    [
        make_rule(pairing="all", mu_plus=0.5, mu_minus=0.5),
        make_rule(pairing="nearest", mu_plus=0.5, mu_minus=0.5),
        make_triplet(0.2),
        make_triplet(0.2, pairing="nearest"),
        make_power_law(0.1),
    ],
)
def test_on_a_grid_it_is_the_rule_in_time_steps(rule):
    rng = np.random.default_rng(0)
    n, steps = 20, 400
    synapses = hebbax.Synapses.random((n, n), prob=0.3, seed=1)
    pre = np.repeat(np.arange(n), np.diff(synapses.indptr))
    weight = rng.uniform(0.2, 0.8, synapses.nse).astype(np.float32)
    spiking = rng.random((steps, n)) < 0.03
    stepped, state = jnp.asarray(weight), rule.init(synapses)
    for spike in spiking:
        stepped, state = rule.step(synapses, stepped, state, jnp.asarray(spike), jnp.asarray(spike), 1.0 * u.ms)
    replay = Replay(rule, pre, np.asarray(synapses.indices), weight, shape=(n, n))
    step, neuron = np.nonzero(spiking)
    replay.advance(step * 1e-3, neuron)
    assert np.abs(replay.weight - weight).max() > 0.05
    np.testing.assert_allclose(replay.weight, stepped, atol=2e-5)


def test_many_years_between_spikes_are_exact():
    rule = make_rule(bounds=(0.0, 10.0))
    replay = Replay(rule, [0], [1], [0.5], shape=(2, 2))
    for start in (0.0, 1e3, 1e9):
        replay.advance([start], [0])
        replay.advance([start + 2**-7], [1])
    np.testing.assert_allclose(replay.weight, 0.5 + 3 * 0.1 * np.exp(-(2**-7) / 0.02), rtol=1e-12)


def test_what_is_wrong_is_said_and_changes_nothing():
    rule = make_rule()
    with pytest.raises(TypeError, match=r"weight: got dtype int64, expected float32 or float64"):
        Replay(rule, [0], [1], [1], shape=(2, 2))
    with pytest.raises(ValueError, match=r"weight\[1\]: got nan, expected within the bounds 0.0 and 1.0"):
        Replay(rule, [0, 1], [1, 0], [0.5, np.nan], shape=(2, 2))
    with pytest.raises(TypeError, match="rule: got BCMSTDP, expected PairSTDP, TripletSTDP or PowerLawSTDP"):
        Replay(type("BCMSTDP", (), {})(), [0], [1], [0.5], shape=(2, 2))
    with pytest.raises(TypeError, match=r"(?s)a_plus: got .*, expected a plain number"):
        Replay(make_rule(a_plus=np.ones((2, 1))), [0], [1], [0.5], shape=(2, 2))
    replay = Replay(rule, [0], [1], [0.5], shape=(2, 2))
    replay.advance([0.0, 0.001], [0, 1])
    before = replay.weight
    for spikes, error, message in (
        (([0.001], [0]), ValueError, r"time\[0\]: got 0.001 after 0.001, expected finite times that ascend"),
        (([0.3, 0.2], [0, 1]), ValueError, r"time\[1\]: got 0.2 after 0.3"),
        (([np.nan], [0]), ValueError, r"time\[0\]: got nan after 0.001"),
        (([0.2, 0.3, 0.3, 0.3], [0, 1, 0, 1]), ValueError, r"neuron\[3\]: got 1 twice at time 0.3"),
        (([0.3, 0.3], [1, 1], [3, 2]), ValueError, r"neuron\[1\]: got 1 twice at time 0.3"),
        (([0.3], [2]), ValueError, "neuron: got 2 to 2, expected 0 to 1"),
        (([0.3, 0.4], [0, 1], [0, 4]), ValueError, "side: got 0 to 4, expected 1, 2, or 3"),
        (([0.3], [0], [1.0]), TypeError, "side: got dtype float64, expected integers"),
        (([0.3], [-1]), ValueError, "neuron: got -1 to -1"),
        (([0.3], [0.5]), TypeError, "neuron: got dtype float64, expected integers"),
        (([0.3], [0, 1]), ShapeError, r"neuron: got shape \(2,\), expected \(1,\), one for each time"),
        (([0.3], [0], [1, 2]), ShapeError, r"side: got shape \(2,\), expected \(1,\)"),
        ((0.3, 0), ShapeError, r"time: got shape \(\), expected \(k,\)"),
    ):
        with pytest.raises(error, match=message):
            replay.advance(*spikes)
    np.testing.assert_array_equal(replay.weight, before)
    replay.advance([], np.empty(0, int))
    assert replay.updates == 2
