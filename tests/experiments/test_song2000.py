"""The experiment of Song, Miller & Abbott (2000): its conventions, its randomness, and the published picture."""

import dataclasses

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbax.experiments import song2000
from hebbax.experiments.poisson import bernoulli_cells
from hebbax.experiments.song2000 import Parameters

P = Parameters()
C = song2000.constants(P)
STEP_UP = P.potentiation * P.largest_weight


def decay(time_constant):
    return np.exp(-(P.time_step / time_constant))


class Cell:
    """One neuron, stepped by hand."""

    def __init__(self, inputs=3):
        synapses = song2000.connect(1, inputs)
        state = song2000.initial_state(
            C, synapses, song2000.initial_weight(C, jnp.arange(1), inputs, jax.random.key(0))
        )
        self.state = state._replace(weight=jnp.full(inputs, P.largest_weight / 2))
        self.step = jax.jit(song2000.make_step(C, P.time_step, synapses, None))

    def run(self, pre_spike=(False, False, False), inhibitory_spikes=0, voltage=None):
        """Make one step, from `voltage` if given; return whether the neuron spiked."""
        if voltage is not None:
            self.state = self.state._replace(voltage=jnp.full(1, voltage) * u.mV)
        self.state, spike = self.step(self.state, (jnp.array(pre_spike), jnp.full(1, float(inhibitory_spikes))))
        return bool(spike[0])

    @property
    def voltage(self):
        return float(self.state.voltage[0] / u.mV)

    @property
    def change(self):
        return np.asarray(self.state.weight) - np.float32(P.largest_weight / 2)


def test_without_input_a_neuron_stays_at_rest():
    cell = Cell()
    for _ in range(20):
        assert not cell.run()
    assert cell.voltage == pytest.approx(-70.0)
    assert not cell.change.any()


def test_input_acts_on_the_voltage_from_the_next_step_on():
    cell = Cell()
    cell.run(pre_spike=(True, False, True))
    assert cell.voltage == pytest.approx(-70.0)
    assert float(cell.state.excitation[0]) == pytest.approx(P.largest_weight)
    cell.run()
    assert cell.voltage > -70.0


def test_a_neuron_resets_when_it_spikes():
    cell = Cell()
    assert cell.run(voltage=-50.0)
    assert cell.voltage == -60.0


def test_spikes_that_coincide_change_nothing():
    cell = Cell()
    assert cell.run(pre_spike=(True, False, True), voltage=-50.0)
    assert not cell.change.any()


def test_input_before_output_strengthens_and_after_it_weakens():
    cell = Cell()
    cell.run(pre_spike=(True, False, False))
    cell.run()
    assert cell.run(voltage=-50.0)
    up = STEP_UP * decay(P.potentiation_time) ** 2
    np.testing.assert_allclose(cell.change, [up, 0, 0], rtol=1e-3, atol=1e-9)
    cell.run(pre_spike=(False, True, False))
    down = P.depression_ratio * STEP_UP * decay(P.depression_time)
    np.testing.assert_allclose(cell.change, [up, -down, 0], rtol=1e-3, atol=1e-9)


def test_a_step_agrees_with_the_equations():
    """A run with given input against the model written out in NumPy, in double precision, one synapse at a time."""
    neurons, inputs, steps = 2, 40, 400
    parameters = dataclasses.replace(P, excitatory_rate=600.0 * u.Hz, potentiation=0.05)
    synapses = song2000.connect(neurons, inputs)
    ids, key = jnp.arange(neurons), jax.random.key(2)
    constants = song2000.constants(parameters)
    weight = song2000.initial_weight(constants, ids, inputs, jax.random.key(1))
    start = song2000.initial_state(constants, synapses, weight)
    pre_spikes, inhibitory_spikes, _ = song2000.draw_inputs(parameters, ids, inputs, steps, key)
    step = song2000.make_step(constants, parameters.time_step, synapses, None)
    end, spikes = jax.lax.scan(step, start, (pre_spikes, inhibitory_spikes))

    g_max, a_plus = 0.015, 0.05 * 0.015
    w = np.asarray(start.weight, float).reshape(neurons, inputs)
    v, g_ex, g_in, m = np.full(neurons, -70.0), np.zeros(neurons), np.zeros(neurons), np.zeros(neurons)
    x = np.zeros((neurons, inputs))
    expected = np.zeros((steps, neurons), bool)
    for t in range(steps):
        for j in range(neurons):
            pre = np.asarray(pre_spikes[t]).reshape(neurons, inputs)[j]
            g = 1 + g_ex[j] + g_in[j]
            target = (-70 + g_ex[j] * 0 + g_in[j] * -70) / g
            v[j] = target + (v[j] - target) * np.exp(-0.1 / 20 * g)
            expected[t, j] = v[j] >= -54
            g_ex[j] = g_ex[j] * np.exp(-0.1 / 5) + w[j][pre].sum()
            g_in[j] = g_in[j] * np.exp(-0.1 / 5) + 0.05 * inhibitory_spikes[t, j]
            for i in range(inputs):
                if pre[i]:
                    w[j, i] = max(w[j, i] + m[j], 0)
                if expected[t, j]:
                    w[j, i] = min(w[j, i] + x[j, i], g_max)
            if expected[t, j]:
                v[j] = -60
            x[j] = (x[j] + a_plus * pre) * np.exp(-0.1 / 20)
            m[j] = (m[j] - 1.05 * a_plus * expected[t, j]) * np.exp(-0.1 / 20)
    assert expected.sum() > 3
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(end.weight.reshape(neurons, inputs), w, rtol=1e-4, atol=1e-7)


def test_every_neuron_has_inputs_of_its_own():
    synapses = song2000.connect(3, 4)
    np.testing.assert_array_equal(synapses.todense(np.ones(12)), np.kron(np.eye(3), np.ones((4, 1))))


def test_what_a_neuron_gets_does_not_depend_on_who_draws_it():
    """By itself, and with others in another order; weights and numbers of inhibitory spikes too."""
    key, inputs, steps, ids = jax.random.key(5), 30, 200, np.arange(7)
    often = dataclasses.replace(P, excitatory_rate=900.0 * u.Hz)
    weight = song2000.initial_weight(song2000.constants(often), ids, inputs, key).reshape(7, inputs)
    spikes, counts, event_steps = song2000.draw_inputs(often, ids, inputs, steps, key)
    spikes = spikes.reshape(steps, 7, inputs)
    for some in ([4], [6, 0, 3]):
        some = np.array(some)
        own = song2000.draw_inputs(often, some, inputs, steps, key)
        np.testing.assert_array_equal(own[0].reshape(steps, -1, inputs), spikes[:, some])
        np.testing.assert_array_equal(own[1], counts[:, some])
        np.testing.assert_array_equal(own[2], event_steps[some])
        np.testing.assert_array_equal(
            song2000.initial_weight(song2000.constants(often), some, inputs, key).reshape(-1, inputs), weight[some]
        )
    assert np.unique(spikes.sum((0, 2))).size > 3 and np.unique(weight).size > 200  # neurons differ
    np.testing.assert_array_equal(spikes.sum((0, 2)), (event_steps < steps).sum(1))


@pytest.mark.parametrize("probability", [1e-7, 0.0015, 0.3, 0.99])
def test_events_are_independent_with_the_given_probability(probability):
    cells, draws = 10_000, 200
    events = jax.vmap(lambda key: bernoulli_cells(key, cells, probability))(jax.random.split(jax.random.key(3), draws))
    happened = np.zeros((draws, cells + 1), bool)
    np.put_along_axis(happened, np.asarray(events), True, axis=1)
    happened = happened[:, :cells]  # the last cell stands for those beyond the end
    assert (np.asarray(events) == cells).any(1).all()  # so many events were drawn that they reach the end
    inside = np.where(np.asarray(events) < cells, events, np.nan)
    assert not (np.diff(inside, axis=1) <= 0).any()

    for part in (slice(None), slice(cells // 10), slice(-cells // 10, None)):  # as many at the start as at the end
        counts = happened[:, part].sum(1)
        mean = happened[:, part].shape[1] * probability
        assert abs(counts.mean() - mean) <= 5 * np.sqrt(mean / draws) + 1 / draws
        assert counts.var() == pytest.approx(mean * (1 - probability), rel=0.5, abs=0.01)


def test_the_same_seed_gives_the_same_run():
    first, again, other = (song2000.simulate(neurons=2, inputs=50, seconds=0.3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.weight_end, again.weight_end)
    assert (first.weight_start != other.weight_start).all()


def test_a_shorter_or_stopped_run_is_the_beginning_of_a_longer_one(monkeypatch):
    monkeypatch.setattr(song2000, "RECORD", 0.1 * u.second)
    options = dict(neurons=2, seed=4)
    long = song2000.simulate(seconds=0.5, **options)
    stopped = song2000.simulate(seconds=0.5, on_progress=lambda done: done > 0.25, **options)
    uneven = song2000.simulate(seconds=0.234, **options)  # ends inside a block
    np.testing.assert_allclose(long.time / u.second, np.arange(6) / 10, rtol=1e-6)
    np.testing.assert_allclose(stopped.time / u.second, np.arange(4) / 10, rtol=1e-6)
    np.testing.assert_allclose(uneven.time / u.second, [0, 0.1, 0.2, 0.234], rtol=1e-6)
    assert (long.weight_end != long.weight_start).any()
    for name in ("spikes", "weight_mean", "weight_sample"):
        np.testing.assert_array_equal(stopped.course(name), long.course(name)[:4])
        np.testing.assert_array_equal(uneven.course(name)[:3], long.course(name)[:3])
    assert stopped.updates < long.updates
    assert stopped.steps == 3000


def test_updates_are_counted():
    result = song2000.simulate(neurons=1, inputs=800, seconds=1.0)
    output = int(result.records[-1].spikes.sum())
    inputs = result.updates - 800 * output
    assert output > 10
    assert inputs == pytest.approx(800 * 15, abs=5 * np.sqrt(800 * 15))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(neurons=0), "neurons: got 0"),
        (dict(inputs=-1), "inputs: got -1"),
        (dict(neurons=1 << 20, inputs=1 << 20), "neurons * inputs: got"),
        (dict(seconds=0.0), "seconds: got 0.0"),
        (dict(seconds=float("nan")), "seconds: got nan"),
        (dict(parameters=dataclasses.replace(P, time_step=2.0 * u.ms)), "time_step: got"),
        (dict(parameters=dataclasses.replace(P, excitatory_rate=20.0 * u.kHz)), "excitatory_rate: got"),
        (dict(parameters=dataclasses.replace(P, inhibitory_rate=0.0 * u.Hz)), "inhibitory_rate: got"),
        (dict(backend="abacus"), "backend: got 'abacus'"),
    ],
)
def test_what_is_out_of_range_is_named(options, message):
    with pytest.raises(ValueError) as error:
        song2000.simulate(**{"neurons": 1, "inputs": 10, "seconds": 0.1, **options})
    assert message in str(error.value)
    assert "expected" in str(error.value)


def test_every_parameter_says_what_it_is_and_whence():
    for field in dataclasses.fields(Parameters):
        assert field.metadata["meaning"] and field.metadata["source"], field.name


@pytest.mark.optimised
@pytest.mark.slow
def test_the_weights_end_near_either_bound():
    """The published picture, at the size of `make demo`."""
    result = song2000.simulate()
    weight = result.weight_end / P.largest_weight
    assert ((weight >= 0) & (weight <= 1)).all()
    end = result.records[-1]
    assert (end.fraction_low >= 0.3).all()  # of each neuron: each of them repeats the experiment
    assert (end.fraction_high >= 0.1).all()
    rate = result.rate / u.Hz
    assert 9 < rate[-100:].mean() < 16
    assert rate[:5].mean() > 3 * rate[-100:].mean()
