"""The examples run, learn, and follow the derivative that they claim to follow."""

import importlib.util
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the repository's examples beside tests")


def load(name):
    pytest.importorskip("optax")
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.fixture(scope="module")
def stdp():
    return load("learn_stdp")


@pytest.fixture(scope="module")
def surrogate():
    return load("surrogate_gradient")


@pytest.fixture(scope="module")
def rewiring():
    return load("rewiring")


def numbers(pattern, text):
    return [float(x) for x in re.findall(pattern, text)]


@pytest.mark.slow
def test_learn_stdp_comes_closer_to_the_target_and_draws_it(stdp, tmp_path, capsys):
    stdp.main(iterations=20, seconds=0.5, seed=0, output=tmp_path / "new" / "folder")
    out = capsys.readouterr().out
    distances = numbers(r"iteration +\d+: distance +([\d.]+) pS", out)
    assert len(distances) == 3
    assert distances[2] < 0.8 * distances[0]
    for name in (*stdp.TRUE, "a_plus / a_minus"):
        assert name in out
    assert (tmp_path / "new" / "folder" / "learn_stdp.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_learn_stdp_follows_the_derivative_of_its_loss(stdp):
    """In each parameter, so of both sides of the window."""
    synapses = stdp.hebbax.Synapses.from_dense(np.kron(np.eye(stdp.GROUPS), np.ones((stdp.INPUTS, stdp.NEURONS))))[0]
    spikes = stdp.draw_spikes(jax.random.key(0), 5)
    target = jnp.sort(stdp.final_weight(stdp.logs(stdp.TRUE), synapses, stdp.draw_spikes(jax.random.key(1), 5)))
    loss = jax.jit(lambda p: 1e3 * stdp.loss(p, synapses, spikes, target))
    at = stdp.logs(stdp.GUESS)
    gradient = jax.jit(jax.grad(loss))(at)
    scale = max(abs(float(x)) for x in gradient.values())
    for name, slope in gradient.items():
        high, low = (float(loss(at | {name: at[name] + h})) for h in (0.02, -0.02))
        assert abs(float(slope) - (high - low) / 0.04) < 0.01 * scale, name
        assert abs(float(slope)) > 0.05 * scale, name


@pytest.mark.slow
def test_surrogate_gradients_train_the_network(surrogate, capsys):
    surrogate.main(iterations=61, batch=32, seed=0)
    out = capsys.readouterr().out
    losses = numbers(r"loss ([\d.]+)", out)
    accuracies = numbers(r"accuracy +([\d.]+)%", out)
    assert losses[-1] < 0.8 * losses[0]
    assert accuracies[-1] > 60  # by chance: 25


@pytest.mark.slow
def test_surrogate_gradients_are_those_of_the_dense_network(surrogate, monkeypatch):
    class Dense:
        def __init__(self, synapses):
            self.synapses = synapses

        def propagate_on_pre(self, weight, spike):
            return jnp.dot(spike, self.synapses.todense(weight), precision="highest")

    keys = jax.random.split(jax.random.key(0), 4)
    times = jax.random.uniform(keys[0], (surrogate.CLASSES, surrogate.INPUTS), maxval=surrogate.STEPS)
    weights = [0.3 * jax.random.normal(key, s.nse) for key, s in zip(keys[1:3], surrogate.SYNAPSES, strict=True)]
    batch = surrogate.draw(keys[3], times, 3)

    def gradient():
        return jax.jit(jax.grad(lambda weights: surrogate.loss(weights, *batch)[0]))(weights)

    sparse = gradient()
    monkeypatch.setattr(surrogate, "SYNAPSES", tuple(Dense(s) for s in surrogate.SYNAPSES))
    for got, expected in zip(sparse, gradient(), strict=True):
        assert float(jnp.abs(expected).max()) > 0
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.slow
def test_rewiring_finds_the_group_and_draws_it(rewiring, tmp_path, capsys):
    """With as many synapses at any time, which `main` checks."""
    rewiring.main(seconds=16, seeds=1, output=tmp_path)
    out = capsys.readouterr().out
    share = {name: numbers(rf"{name} .*?(\d+)% \(", out)[0] for name in rewiring.REPLACED}
    assert share["weakest"] > share["none"] + 2 and share["weakest"] > share["any"] + 2
    assert (tmp_path / "rewiring.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rewiring_is_what_rebuilding_from_coo_makes(rewiring):
    """Every second, on the host, from the list of what is kept and of the first that are new."""
    hebbax, seconds = rewiring.hebbax, 4
    synapses = hebbax.Synapses.random((rewiring.INPUTS, rewiring.NEURONS), indegree=40, seed=3)
    end, seen = rewiring.simulate(jax.random.key(3), synapses, jnp.array(2), seconds)
    learn, state = jax.jit(rewiring.learn), rewiring.start(synapses)
    for second, key in enumerate(jax.random.split(jax.random.key(3), seconds)):
        keys = jax.random.split(key, 4)
        synapses, *rest = state
        spikes = rewiring.draw_spikes(keys[0], rewiring.group_of(second, seconds))
        (weight, *rest), _ = learn(synapses, tuple(rest), spikes)
        keep, *offer = (np.asarray(x) for x in rewiring.choose(keys[1:], weight, 2, synapses.shape))
        rows = np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr))
        pairs = list(zip(rows[keep], np.asarray(synapses.indices)[keep], strict=True))
        for pair in zip(*offer, strict=True):
            if len(pairs) < rewiring.SYNAPSES and pair not in pairs:
                pairs.append(pair)
        values = np.append(np.asarray(weight)[keep], np.full(rewiring.SYNAPSES - keep.sum(), np.float32(rewiring.NEW)))
        built = hebbax.Synapses.from_coo(*zip(*pairs, strict=True), values, shape=synapses.shape)
        state = rewiring.State(*built, *rest)
    assert seen["replaced"].sum() > 0
    for got, expected in zip(jax.tree.leaves(end), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(got, expected)
