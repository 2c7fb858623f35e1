"""The experiment of Diehl & Cook (2015) on scikit-learn's digits: its conventions, and that it learns them."""

import dataclasses
import sys

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbax.experiments import digits, digits_report
from hebbax.experiments.digits import Answers, Parameters

P = Parameters()
SMALL = dict(neurons=12, epochs=2, images=40, held_out=10, seed=4)


@pytest.fixture(scope="module")
def small():
    return digits.simulate(**SMALL)


def start(neurons=5, seed=0):
    """Synapses, and what a network of so many neurons begins with."""
    synapses = digits.connect(neurons)
    learned = digits.at_first(P, synapses, jax.random.key(seed))
    return synapses, learned._replace(weight=digits.normalised(P, synapses, learned.weight))


def test_all_inputs_connect_to_all_neurons():
    synapses, learned = start()
    np.testing.assert_array_equal(synapses.todense(learned.weight), learned.weight.reshape(64, 5))


@pytest.mark.parametrize("learns", [True, False])
def test_a_step_agrees_with_the_equations(rng, learns):
    """A run with given input against the model written out in NumPy, in double precision."""
    n, steps = 5, 400
    synapses, learned = start(n)
    pre_spikes = rng.random((steps, 64)) < np.where(np.arange(64) % 3, 0.02, 0.3)
    step, spikes = digits.make_step(P, synapses, learns), np.zeros((steps, n), bool)

    def keep_spikes(state, pre_spike):
        after, _ = step(state, pre_spike)
        return after, after[1].spikes - state[1].spikes

    scan = jax.jit(lambda state: jax.lax.scan(keep_spikes, state, jnp.asarray(pre_spikes)))
    (end, activity), counts = scan((learned, digits.at_rest(P, synapses)))

    w, theta = np.asarray(learned.weight, float).reshape(64, n), np.full(n, 20.0)
    v, g_e, g_i, rest, x = np.full(n, -65.0), np.zeros(n), np.zeros(n), np.zeros(n, int), np.zeros(64)
    for t, pre in enumerate(pre_spikes):
        for j in range(n):
            g = 1 + g_e[j] + g_i[j]
            target = (-65 + g_e[j] * 0 + g_i[j] * -100) / g
            v[j] = -65 if rest[j] else target + (v[j] - target) * np.exp(-0.5 / 100 * g)
            spikes[t, j] = v[j] > -72 + theta[j]
        g_e = g_e * np.exp(-0.5 / 1) + w[pre].sum(0)
        g_i = g_i * np.exp(-0.5 / 2) + P.inhibitory_weight * (spikes[t].sum() - spikes[t])
        x = x * np.exp(-0.5 / P.trace_time.to(u.ms).mantissa)
        rest = np.where(spikes[t], 10, np.maximum(rest - 1, 0))
        v = np.where(spikes[t], -65, v)
        if learns:
            change = P.learning_rate * (x - P.target)[:, None] * (1 - w) ** P.exponent
            w = np.where(spikes[t], np.clip(w + change, 0, 1), w)
            theta = theta + P.theta_step.to(u.mV).mantissa * spikes[t]
        x = np.where(pre, 1, x)
    assert spikes.sum() > 5 and (spikes.sum(1) > 0).sum() > 3
    np.testing.assert_array_equal(counts, spikes)
    np.testing.assert_array_equal(activity.spikes, spikes.sum(0))
    np.testing.assert_allclose(end.weight.reshape(64, n), w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(end.theta / u.mV, theta, rtol=1e-5)
    if not learns:
        np.testing.assert_array_equal(end.weight, learned.weight)


def test_a_spike_inhibits_all_others():
    synapses, learned = start()
    rest = digits.at_rest(P, synapses)
    given = rest._replace(voltage=jnp.array([-40.0, -60.0, -60.0, -60.0, -60.0]) * u.mV)
    (_, after), _ = digits.make_step(P, synapses, False)((learned, given), jnp.zeros(64, bool))
    np.testing.assert_array_equal(after.spikes, [1, 0, 0, 0, 0])
    np.testing.assert_allclose(after.inhibition, P.inhibitory_weight * np.array([0, 1, 1, 1, 1]))


def test_weights_have_one_sum_and_stay_within_their_bounds():
    synapses, learned = start()
    np.testing.assert_allclose(learned.weight.reshape(64, 5).sum(0), P.total_weight, rtol=1e-5)
    few = jnp.where(jnp.arange(64)[:, None] < 3, 0.5, 0.0) * jnp.ones(5)  # the sum would take more than the largest
    few = digits.normalised(P, synapses, few.reshape(-1))
    assert few.max() == P.largest_weight and (few == 0).sum() == 61 * 5


def test_learning_changes_weights_and_thresholds_and_looking_does_not(rng):
    synapses, learned = start()
    once = dataclasses.replace(P, fewest_spikes=0)
    pixels, key = jnp.asarray(rng.random(64), jnp.float32), jax.random.key(1)
    after, spikes = jax.jit(digits.make_show(once, synapses, True))(learned, pixels, key)
    assert spikes.min() == 0 < spikes.max()
    moved = abs(after.weight - learned.weight).reshape(64, 5).max(0)
    np.testing.assert_array_equal(moved > 1e-4, spikes > 0)
    risen = 20 * np.exp(-(P.image_time / P.theta_time)) + P.theta_step / u.mV * np.asarray(spikes)
    np.testing.assert_allclose(after.theta / u.mV, risen, rtol=1e-5)
    same, seen = jax.jit(digits.make_show(once, synapses, False))(learned, pixels, key)
    jax.tree.map(np.testing.assert_array_equal, same, learned)
    assert seen.sum() > 0


def test_an_image_is_shown_again_at_a_higher_rate_until_enough_have_spiked():
    synapses, learned = start()
    pixels, key = jnp.ones(64), jax.random.key(2)
    for rate_step, enough in ((400.0 * u.Hz, True), (0.0 * u.Hz, False)):
        dark = dataclasses.replace(P, largest_rate=0.0 * u.Hz, rate_step=rate_step)
        _, spikes = jax.jit(digits.make_show(dark, synapses, False))(learned, pixels, key)
        assert (spikes.sum() >= P.fewest_spikes) == enough


def test_neurons_get_the_class_that_they_spiked_to_most_on_average():
    label = np.array([3, 3, 3, 7])
    spikes = np.array([[2, 0, 0], [2, 0, 1], [2, 0, 0], [5, 4, 0]])
    assigned = digits.assign(Answers(label, np.c_[spikes, np.zeros(4, int)]))
    np.testing.assert_array_equal(assigned, [7, 7, 3, -1])  # the first: 6 spikes to three 3s, 5 to one 7


def test_images_get_the_class_whose_neurons_spiked_most_on_average():
    assignment = np.array([1, 1, 1, 4, -1])
    spikes = np.array([[2, 2, 1, 2, 9], [3, 3, 3, 2, 9]])
    np.testing.assert_array_equal(digits.classify(assignment, spikes), [4, 1])


def test_images_are_held_out_at_random():
    images = digits.load()
    assert images.pixels.shape == (digits.IMAGES, digits.PIXELS) and images.pixels.max() == 1
    assert set(images.label) == set(range(digits.CLASSES))
    numbered = digits.Images(np.arange(digits.IMAGES), np.arange(digits.IMAGES))
    known, held_out = (x.pixels for x in digits.split(numbered, 1000, 300, seed=1))
    assert len(set(known)) == 1000 and len(set(held_out)) == 300 and not set(known) & set(held_out)
    for seed, same in ((1, True), (2, False)):
        again = digits.split(numbered, 900, 300, seed)
        assert np.array_equal(again[1].pixels, held_out) == same
        assert np.array_equal(again[0].pixels, known[:900]) == same


def test_a_run_shows_all_images(small):
    assert small.steps == 700 * digits.check(P, 12, 2, 40, 10) == 700 * 130
    assert small.learning.spikes.shape == (80, 12) and small.known.spikes.shape == (40, 12)
    assert small.confusion.sum() == 10 and 0 <= small.accuracy <= 1
    np.testing.assert_array_equal(small.confusion.sum(1), np.bincount(small.held_out.label, minlength=10))
    for part in (small.learning.label[:40], small.learning.label[40:]):
        np.testing.assert_array_equal(np.sort(part), np.sort(small.known.label))
    assert (small.learning.label[:40] != small.learning.label[40:]).any()
    assert small.learning.spikes.sum(1).min() >= P.fewest_spikes


def test_the_labels_are_not_learned_from(small, monkeypatch):
    images = digits.load()
    monkeypatch.setattr(digits, "load", lambda: images._replace(label=(images.label + 1) % 10))
    other = digits.simulate(**SMALL)
    np.testing.assert_array_equal(other.weight, small.weight)
    np.testing.assert_array_equal(other.held_out.spikes, small.held_out.spikes)
    assert (other.assignment != small.assignment).any()


@pytest.mark.slow
def test_a_shorter_or_stopped_run_is_the_beginning_of_a_longer_one(small, monkeypatch):
    monkeypatch.setattr(digits, "BLOCK", 30)
    shorter = digits.simulate(**SMALL | {"epochs": 1})
    np.testing.assert_array_equal(shorter.learning.spikes, small.learning.spikes[:40])
    stopped = digits.simulate(**SMALL, on_progress=lambda done: done / 0.35 > 100)
    assert [len(x.label) for x in (stopped.learning, stopped.known, stopped.held_out)] == [80, 30, 0]
    np.testing.assert_array_equal(stopped.weight, small.weight)
    np.testing.assert_array_equal(stopped.known.spikes, small.known.spikes[:30])
    assert stopped.steps == 700 * 110 and np.isnan(stopped.accuracy) and (stopped.assignment >= 0).any()
    assert "accuracy, held out" in digits_report.summary(small).keys() - digits_report.summary(stopped).keys()


def test_the_course_is_of_images_that_had_no_say_in_the_classes(rng):
    """Neurons that spike to a class each, which changes half-way: wrong in the window after that alone."""
    label = rng.integers(0, 10, 600)
    tuned = np.where(np.arange(600) < 300, label, 9 - label)
    spikes = np.eye(10, dtype=int)[tuned]
    nothing = Answers(label[:0], spikes[:0])
    result = digits.Result(P, 0, Answers(label, spikes), nothing, nothing, np.ones((64, 10)), 1 * u.mV, 1 * u.second)
    seen, right = result.course(window=100)
    np.testing.assert_array_equal(seen, [200, 300, 400, 500, 600])
    np.testing.assert_array_equal(right, [1, 1, 0, 1, 1])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(neurons=0), "neurons: got 0"),
        (dict(epochs=0), "epochs: got 0"),
        (dict(images=-1), "images: got -1"),
        (dict(held_out=0), "held_out: got 0"),
        (dict(images=1500, held_out=500), "images: got 1500 and 500 held out"),
        (dict(parameters=dataclasses.replace(P, time_step=2.0 * u.ms)), "time_step: got"),
        (dict(backend="abacus"), "backend: got 'abacus'"),
    ],
)
def test_what_is_out_of_range_is_named(options, message):
    with pytest.raises(ValueError) as error:
        digits.simulate(**{"neurons": 2, "epochs": 1, "images": 3, "held_out": 2, **options})
    assert message in str(error.value)
    assert "expected" in str(error.value)


def test_without_scikit_learn_it_says_how_to_get_it(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "hebbax\[digits\]"'):
        digits.simulate(**SMALL)


def test_every_parameter_says_what_it_is_and_whence():
    for field in dataclasses.fields(Parameters):
        assert field.metadata["meaning"] and field.metadata["source"], field.name


@pytest.mark.optimised
@pytest.mark.slow
def test_digits_are_learned():
    """As `hebbax simulate digits` does."""
    result = digits.simulate()
    print(f"{result.accuracy:.1%} of held-out images")
    assert result.accuracy >= 0.85
    assert len(set(result.assignment)) >= 10
