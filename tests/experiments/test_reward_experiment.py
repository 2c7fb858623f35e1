"""The experiment of Izhikevich (2007): its equations, its rewards, and the published picture."""

import dataclasses

import brainunit as u
import jax
import numpy as np
import pytest

from hebbax.experiments import reward
from hebbax.experiments.reward import HIGH, Parameters

P = Parameters()
SMALL = dataclasses.replace(
    P, excitatory=40, inhibitory=10, targets=8, input_range=25.0, reward_delay=(20.0 * u.ms, 50.0 * u.ms)
)


def by_hand(p, excitation, inhibition, chosen, drive, delays):
    """The model in NumPy, in double precision, all synapses at every step: spikes, rewards, weights."""
    n, e = p.neurons, p.excitatory
    w, static = (np.zeros(x.shape) for x in (excitation, inhibition))
    there = np.asarray(excitation.todense(np.ones(excitation.nse))) > 0
    w[there], static[np.asarray(inhibition.todense(np.ones(inhibition.nse))) > 0] = 1.0, -1.0
    target = int(excitation.indices[chosen])
    w[0, target] = 0.0
    c, x, y = np.zeros(w.shape), np.zeros((e, 1)), np.zeros((1, n))
    a, d = np.repeat([0.02, 0.1], [e, n - e]), np.repeat([8.0, 2.0], [e, n - e])
    v, r = np.full(n, -65.0), np.full(n, -13.0)
    dopamine, due, last = 0.0, [], -1000
    spikes, rewards = np.zeros((len(drive), n), bool), np.zeros(len(drive))
    for t in range(len(drive)):
        spike = spikes[t] = v >= 30
        v, r = np.where(spike, -65, v), r + d * spike
        dopamine *= np.exp(-1 / 200)
        w = np.clip(w + c * (0.2 + dopamine) * -np.expm1(-1 / 1000), 0, 4)  # tau_c is 1 s
        c, x, y = c * np.exp(-1 / 1000), x * np.exp(-1 / 20), y * np.exp(-1 / 20)
        c += there * (0.1 * x * spike - 0.15 * y * spike[:e, None])
        x[spike[:e]], y[0, spike] = 1, 1
        current = drive[t] + spike[:e] @ w
        current[:e] += spike[e:] @ static
        for _ in range(2):
            v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - r + current)
        r = r + a * (0.2 * v - r)
        last = t if spike[0] else last
        if spike[target] and 0 < t - last < 20:
            due.append(t + delays[t])
        rewards[t] = due.count(t)
        dopamine += 50 * rewards[t]
    return spikes, rewards, w[there]


def test_a_run_agrees_with_the_equations():
    steps = 400
    excitation, inhibition = reward.connect(SMALL, 123)
    chosen = reward.chosen_synapse(excitation)
    drive, delays = (x[:steps] for x in reward.draw(SMALL, jax.random.key(0)))
    expected = by_hand(SMALL, excitation, inhibition, chosen, np.asarray(drive, float), np.asarray(delays))
    step = reward.make_step(SMALL, excitation, inhibition, chosen, None)
    state = reward.initial_state(SMALL, excitation, chosen)
    state, seen = jax.jit(lambda *x: jax.lax.scan(step, *x))(state, (np.arange(steps, dtype=np.int32), drive, delays))
    spikes, rewards, weight = expected
    assert rewards.sum() >= 3
    target = int(excitation.indices[chosen])
    counts = spikes[:, :40].sum(1), spikes[:, 40:].sum(1)
    for got, x in zip(seen, (*counts, spikes[:, 0], spikes[:, target], rewards), strict=True):
        np.testing.assert_array_equal(got, x)
    settled = reward.plasticity(SMALL).settle(excitation, state.weight, state.traces)[0]
    np.testing.assert_allclose(settled, weight, rtol=1e-4, atol=1e-5)
    assert abs(weight - 1).max() > 0.5


def test_the_chosen_synapse_starts_at_0_and_connects_two_neurons():
    for seed in range(20):
        excitation, inhibition = reward.connect(SMALL, seed)
        chosen = reward.chosen_synapse(excitation)
        assert chosen < excitation.indptr[1] and excitation.indices[chosen] != 0
        weight = reward.initial_state(SMALL, excitation, chosen).weight
        assert weight[chosen] == 0 and (np.delete(weight, chosen) == 1).all()
        assert (np.diff(excitation.indptr) == 8).all() and inhibition.shape == (10, 40)


@pytest.mark.slow
def test_a_shorter_or_stopped_run_is_the_beginning_of_a_longer_one(monkeypatch):
    monkeypatch.setattr(reward, "BLOCK_STEPS", 100)
    monkeypatch.setattr(reward, "RECORD_STEPS", 200)
    long = reward.simulate(SMALL, seconds=0.6, seed=3)
    stopped = reward.simulate(SMALL, seconds=0.6, seed=3, on_progress=lambda done: done > 0.25)
    uneven = reward.simulate(SMALL, seconds=0.43, seed=3)
    np.testing.assert_allclose(long.time / u.second, [0, 0.2, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(stopped.time / u.second, [0, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(uneven.time / u.second, [0, 0.2, 0.4, 0.43], rtol=1e-6)
    assert stopped.steps == 300 and uneven.steps == 430
    for name in ("spikes", "chosen", "mean", "low", "high"):
        np.testing.assert_array_equal(uneven.course(name)[:3], long.course(name)[:3])
        np.testing.assert_array_equal(stopped.course(name)[:2], long.course(name)[:2])
    for name in ("pre_step", "post_step", "reward_step"):
        whole = getattr(long, name)
        np.testing.assert_array_equal(getattr(uneven, name), whole[whole < 430])
    assert long.records[-1].chosen == long.weight_end[long.chosen]
    assert long.records[-1].mean == pytest.approx(long.others.mean(), rel=1e-6)


def test_lags_are_those_of_all_pairs_of_spikes():
    pre, post, none = np.array([10, 50, 90]), np.array([7, 13, 53, 95]), np.zeros(0, int)
    result = reward.Result(P, 0, (), (0, 1), 0, pre, post, none, np.zeros(1), 100, 1.0 * u.second)
    lags, counts = result.lags(0, 0.9, window=5)
    assert lags.tolist() == list(range(-5, 6))
    assert dict(zip(lags, counts, strict=True)) == dict.fromkeys(lags, 0) | {-3: 1, 3: 2}
    assert result.lags(0.9, 1, window=5)[1].tolist() == [0] * 10 + [1]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(seconds=0.0), "seconds: got 0.0"),
        (dict(seconds=float("nan")), "seconds: got nan"),
        (dict(seconds=1e7), "seconds: got 10000000.0, 10000000000 steps of 1. ms"),
        (dict(parameters=dataclasses.replace(P, targets=1)), "targets: got 1"),
        (dict(parameters=dataclasses.replace(P, inhibitory=0)), "inhibitory: got 0"),
        (dict(parameters=dataclasses.replace(P, time_step=2.0 * u.ms)), "time_step: got"),
    ],
)
def test_what_is_out_of_range_is_named(options, message):
    with pytest.raises(ValueError) as error:
        reward.simulate(**{"seconds": 0.1, **options})
    assert message in str(error.value) and "expected" in str(error.value)


def test_every_parameter_says_what_it_is_and_whence():
    for field in dataclasses.fields(Parameters):
        assert field.metadata["meaning"] and field.metadata["source"], field.name


@pytest.mark.optimised
@pytest.mark.slow
def test_rates_are_low_and_weights_fall_from_the_start():
    """Five minutes, whatever the seed; by when the chosen synapse has grown, differs more than that."""
    result = reward.simulate(seed=1, seconds=300)
    rate = result.records[-1].spikes / 300 / (P.excitatory, P.inhibitory)
    assert ((rate > 0.5) & (rate < 2)).all() and result.reward_step.size > 0
    assert result.records[0].mean == 1 and result.records[-1].mean < 0.9
    assert (result.others > HIGH * P.largest_weight / u.mV).mean() < 0.05


@pytest.mark.long
@pytest.mark.optimised
@pytest.mark.slow
def test_the_synapse_that_is_rewarded_grows_and_the_others_do_not():
    """The published picture; it differs between seeds, of which docs/experiments/plot_reward.py has five."""
    result = reward.simulate(seed=1)
    largest = P.largest_weight / u.mV
    assert (result.course("chosen")[-90:] > HIGH * largest).mean() > 0.8  # of the last quarter
    assert result.records[0].mean == 1 and result.records[-1].mean < 0.8
    assert (result.others > HIGH * largest).mean() < 0.05
    rate = result.records[-1].spikes / 3600 / (P.excitatory, P.inhibitory)
    assert ((rate > 0.5) & (rate < 2)).all()
    lags, pairs = result.lags(0.75, 1)
    assert pairs[(lags > 0) & (lags <= 10)].sum() > 1.5 * pairs[(lags < 0) & (lags >= -10)].sum()
