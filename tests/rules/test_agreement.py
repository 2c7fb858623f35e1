"""The rules against what others published: closed forms over random spike trains, the pair window, and experiments.

What the tests print, `pytest -rP` shows; `docs/agreement.md` has it in tables.
"""

import functools

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stdp_reference

import hebbax
from problems import enable_x64

pytestmark = [pytest.mark.together(1), pytest.mark.optimised]
DT, SECONDS = 0.1, 30  # ms, s

# The parameters of NEST's own test of its stdp_synapse: learning rate, asymmetry, time constants in ms, largest weight.
LAMBDA, ALPHA, TAU_PLUS, TAU_MINUS, W_MAX, W_START = 0.01, 0.85, 16.8, 33.7, 15.0, 0.5
NEST_PAIR = dict(
    tau_plus=TAU_PLUS, tau_minus=TAU_MINUS, a_plus=LAMBDA * W_MAX, a_minus=ALPHA * LAMBDA * W_MAX,
    w_min=0.0, w_max=W_MAX,
)  # fmt: skip
# Those of NEST's hpc_benchmark, with weights in pA.
POWER_LAW = dict(tau_plus=15.0, tau_minus=30.0, learning_rate=0.1, alpha=0.0513, w_0=1.0)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
# mu_plus, mu_minus
EXPONENTS = [(0.0, 0.0), slow(0.4, 0.4), slow(1.0, 1.0), (0.4, 1.0), slow(1.0, 0.0)]

# Pfister & Gerstner (2006), table 3 (visual cortex); times in ms. Where A3- is 0, tau_x has no effect.
TRIPLET = {
    "all, full": dict(a2_plus=5e-10, a3_plus=6.2e-3, a2_minus=7e-3, a3_minus=2.3e-4, tau_x=101.0, tau_y=125.0),
    "all, minimal": dict(a2_plus=0.0, a3_plus=6.5e-3, a2_minus=7.1e-3, a3_minus=0.0, tau_x=101.0, tau_y=114.0),
    "nearest, full": dict(a2_plus=8.8e-11, a3_plus=5.3e-2, a2_minus=6.6e-3, a3_minus=3.1e-3, tau_x=714.0, tau_y=40.0),
    "nearest, minimal": dict(a2_plus=0.0, a3_plus=5e-2, a2_minus=8e-3, a3_minus=0.0, tau_x=101.0, tau_y=40.0),
}
TRIPLET = {
    name: dict(fit, tau_plus=TAU_PLUS, tau_minus=TAU_MINUS, w_min=-9.0, w_max=9.0, pairing=name.split(",")[0])
    for name, fit in TRIPLET.items()
}

# Sjöström, Turrigiano & Nelson (2001), as tabulated by Pfister & Gerstner: the relative change of the weight and its
# standard error, by the pairs' frequency in Hz, where post follows pre by +10 ms and by -10 ms. 60 pairs each.
FREQUENCIES, LAG, PAIRS = np.array([0.1, 10.0, 20.0, 40.0, 50.0]), 10.0, 60
MEASURED = {
    +LAG: np.array([-0.04, 0.14, 0.29, 0.53, 0.56]),
    -LAG: np.array([-0.29, -0.41, -0.34, 0.56, 0.75]),
}
ERROR = {+LAG: np.array([0.05, 0.10, 0.14, 0.11, 0.26]), -LAG: np.array([0.08, 0.11, 0.10, 0.32, 0.19])}


@pytest.fixture(autouse=True)
def double_precision():
    with enable_x64(True):
        yield


def quantities(parameters):
    """The parameters of the reference as those of the rule: times in ms become Quantities."""
    return {name: x * u.ms if name.startswith("tau") else x for name, x in parameters.items()}


def all_to_all(n_pre, n_post):
    """Synapse `i * n_post + j` connects `i` to `j`."""
    return hebbax.Synapses(
        np.arange(n_pre + 1) * n_post, np.tile(np.arange(n_post), n_pre), shape=(n_pre, n_post)
    )  # fmt: skip


def one_to_one(n):
    return hebbax.Synapses(np.arange(n + 1), np.arange(n), shape=(n, n))


def run(rule, synapses, weight, pre, post, dt=DT):
    """The weights after every step, shape `(steps, nse)`; `pre` and `post` have shape `(steps, neurons)`."""

    @jax.jit
    def scan(weight, spikes):
        def step(carry, spikes):
            weight, state = rule.step(synapses, *carry, *spikes, dt * u.ms)
            return (weight, state), weight

        return jax.lax.scan(step, (weight, rule.init(synapses)), spikes)[1]

    weights = scan(jnp.asarray(weight, float), (jnp.asarray(pre), jnp.asarray(post)))
    assert weights.dtype == np.float64  # else the tolerances below would hide what they are to show
    return np.asarray(weights)


def random_trains(rng, seconds, pre_rates, post_rates):
    """Poisson trains; every pair of neurons spikes in the same step at least five times."""
    steps = round(seconds * 1000 / DT)
    pre, post = (rng.random((steps, len(r))) < np.array(r) * DT / 1000 for r in (pre_rates, post_rates))
    for i in range(pre.shape[1]):  # by chance alone, spikes would rarely coincide
        for j in range(post.shape[1]):
            shared = rng.choice(steps, 5 + steps // 20_000, replace=False)
            pre[shared, i] = post[shared, j] = True
            assert (pre[:, i] & post[:, j]).sum() >= 5
    return pre, post


def compare(rng, rule, reference):
    """The rule on a network of 3 times 2 neurons against the closed form of each synapse, after every spike."""
    pre, post = random_trains(rng, SECONDS, (20.0, 30.0, 40.0), (40.0, 20.0))
    weights = run(rule, all_to_all(3, 2), np.full(6, W_START), pre, post)
    smallest = 1e-3 * getattr(rule, "w_max", 1.0)  # weights below that are compared absolutely
    compared, worst = 0, 0.0
    for k in range(6):
        steps, expected = reference(np.flatnonzero(pre[:, k // 2]), np.flatnonzero(post[:, k % 2]), W_START, dt=DT)
        assert len(np.unique(expected.round(6))) > 100, "the weight rests at a bound, so that nothing is compared"
        np.testing.assert_allclose(weights[steps, k], expected, rtol=1e-9, atol=1e-9 * smallest)
        compared += steps.size
        worst = max(worst, (abs(weights[steps, k] - expected) / np.maximum(abs(expected), smallest)).max())
    print(f"{compared} weights compared, largest relative difference {worst:.1e}")


@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("mu_plus, mu_minus", EXPONENTS)
def test_the_pair_rule_agrees_with_the_closed_form(rng, mu_plus, mu_minus, pairing):
    parameters = dict(NEST_PAIR, mu_plus=mu_plus, mu_minus=mu_minus, pairing=pairing)
    compare(rng, hebbax.PairSTDP(**quantities(parameters)), functools.partial(stdp_reference.pair, **parameters))


@pytest.mark.parametrize("mu", [0.4, slow(0.0), slow(1.0)])
def test_the_power_law_agrees_with_the_closed_form(rng, mu):
    parameters = dict(POWER_LAW, alpha=1.0, mu=mu)
    rule = hebbax.PowerLawSTDP(**quantities(parameters))
    compare(rng, rule, functools.partial(stdp_reference.power_law, **parameters))


@pytest.mark.parametrize("model", [name if "full" in name else slow(name) for name in TRIPLET])
def test_the_triplet_rule_agrees_with_the_closed_form(rng, model):
    parameters = TRIPLET[model] | dict(w_min=0.0, w_max=1.0)
    compare(rng, hebbax.TripletSTDP(**quantities(parameters)), functools.partial(stdp_reference.triplet, **parameters))


def test_the_inhibitory_rule_agrees_with_the_closed_form(rng):
    parameters = dict(tau=20.0, eta=0.01, w_min=0.0, w_max=1.0)
    rule = hebbax.InhibitorySTDP(**quantities(parameters), target_rate=25.0 * u.Hz)
    compare(rng, rule, functools.partial(stdp_reference.inhibitory, **parameters, target_rate=0.025))  # a millisecond


@pytest.mark.parametrize("pairing", ["all", slow("nearest")])
@pytest.mark.parametrize("mu", [slow(0.0), 0.2, slow(1.0)])
def test_the_rule_of_diehl_and_cook_agrees_with_the_closed_form(rng, mu, pairing):
    target = {"all": 1.0, "nearest": 0.5}[pairing]  # high enough for weights not to be held at the upper bound
    parameters = dict(tau=20.0, eta=0.05, target=target, w_min=0.0, w_max=1.0, mu=mu, pairing=pairing)
    rule = hebbax.DiehlCookSTDP(**quantities(parameters))
    compare(rng, rule, functools.partial(stdp_reference.diehl_cook, **parameters))


def test_the_pair_window_is_a_pair_of_exponentials():
    """One pair of spikes for each lag, from -100 to 100 ms; at lag 0 nothing changes."""
    lags = np.arange(-1000, 1001, 8)
    assert 0 in lags
    steps = np.arange(2002)[:, None]
    pre, post = steps == np.maximum(-lags, 0), steps == np.maximum(lags, 0)
    parameters = NEST_PAIR | dict(tau_minus=20.0)
    weights = run(hebbax.PairSTDP(**quantities(parameters)), one_to_one(lags.size), np.full(lags.size, 7.5), pre, post)
    up = parameters["a_plus"] * np.exp(-lags * DT / parameters["tau_plus"])
    down = parameters["a_minus"] * np.exp(lags * DT / parameters["tau_minus"])
    window = np.select([lags > 0, lags < 0], [up, -down], 0.0)
    np.testing.assert_allclose(weights[-1] - 7.5, window, rtol=1e-9, atol=1e-13)
    print(f"largest difference {abs(weights[-1] - 7.5 - window).max() / abs(window).max():.1e} of the largest change")


def pairing_experiment(rule, dt=5.0):
    """The change of a weight by 60 pairs at each frequency, for post 10 ms after pre and 10 ms before it."""
    changes = {}
    for lag in (+LAG, -LAG):
        offsets = np.array([max(-lag, 0.0), max(lag, 0.0)])  # of pre and post
        times = np.arange(PAIRS)[:, None] * 1000 / FREQUENCIES  # of the pairs, in ms
        pre, post = (np.round((times + x) / dt).astype(int) for x in offsets)
        np.testing.assert_allclose(pre * dt, times + offsets[0])  # decay is exact, so the step may be as large as that
        spikes = np.zeros((2, max(pre.max(), post.max()) + 1, FREQUENCIES.size), bool)
        for train, at in zip(spikes, (pre, post), strict=True):
            np.put_along_axis(train, at, True, axis=0)
        changes[lag] = run(rule, one_to_one(FREQUENCIES.size), np.zeros(FREQUENCIES.size), *spikes, dt)[-1]
    return changes


def mean_square_error(changes):
    """In squared standard errors of the measurement, as the paper's fits have minimised it."""
    return np.mean([((changes[lag] - MEASURED[lag]) / ERROR[lag]) ** 2 for lag in changes])


@pytest.mark.parametrize("model", [name if name == "all, minimal" else slow(name) for name in TRIPLET])
def test_the_triplet_rule_has_the_measured_frequency_dependence(model):
    """Pfister & Gerstner (2006), the figure that shows the weight change over the pairs' frequency."""
    changes = pairing_experiment(hebbax.TripletSTDP(**quantities(TRIPLET[model])))
    for lag, change in changes.items():
        for frequency, got in zip(FREQUENCIES, change, strict=True):
            pre = np.arange(PAIRS) * round(1000 / frequency) + 10
            _, expected = stdp_reference.triplet(pre, pre + int(lag), 0.0, dt=1.0, **TRIPLET[model])
            np.testing.assert_allclose(got, expected[-1], rtol=1e-9)
        print(f"lag {lag:+.0f} ms:", *(f"{x:+.2f}" for x in change))
        assert (abs(change - MEASURED[lag]) < 1.5 * ERROR[lag]).all()
    assert (np.diff(changes[+LAG]) > 0).all()  # potentiation grows with frequency
    assert (changes[-LAG][:3] < 0).all() and (changes[-LAG][3:] > 0).all()  # and at 40 Hz wins over depression
    print(f"mean square error {mean_square_error(changes):.2f}")
    assert mean_square_error(changes) < 0.4


def best_pair_rule(pairing):
    """The changes by the pair rule, and its two amplitudes, that come closest to the measurement.

    The change is linear in the amplitudes, a_plus * up + a_minus * down; so they solve a least-squares problem.
    """
    rule = dict(tau_plus=TAU_PLUS * u.ms, tau_minus=TAU_MINUS * u.ms, w_min=-1e6, w_max=1e6, pairing=pairing)
    up = pairing_experiment(hebbax.PairSTDP(a_plus=1.0, a_minus=0.0, **rule))
    down = pairing_experiment(hebbax.PairSTDP(a_plus=0.0, a_minus=1.0, **rule))
    scale = np.concatenate([ERROR[lag] for lag in up])
    design = np.stack([np.concatenate([x[lag] for lag in up]) / scale for x in (up, down)], axis=1)
    measured = np.concatenate([MEASURED[lag] for lag in up]) / scale
    best = np.linalg.lstsq(design, measured, rcond=None)[0]
    return {lag: best[0] * up[lag] + best[1] * down[lag] for lag in up}, best


@pytest.mark.slow
@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_no_pair_rule_has_it(pairing):
    """What the triplet rule is for: the best pair rule misses most of the measurement."""
    changes, best = best_pair_rule(pairing)
    error = mean_square_error(changes)
    print(f"mean square error {error:.2f}, by a_plus {best[0]:.2g} and a_minus {best[1]:.2g}")
    assert error > 5.0  # whatever their signs


@pytest.mark.parametrize("target", [slow(5.0), 12.0, slow(25.0)])
def test_the_inhibitory_rule_reaches_its_target_rate(rng, target):
    """Noisy integrate-and-fire neurons that would fire at about 40 Hz, with plastic inhibition, as in Vogels et al.

    Many weak inputs: a strong one would keep the neuron from firing just after it, and so get less than its share of
    pairs, which the rule makes up for by a higher rate (12.7 Hz instead of 12 with 100 inputs).
    """
    neurons, inputs, steps, dt, tau = 4, 400, 60_000, 0.5, 20.0
    pre = rng.random((steps, inputs), np.float32) < 10.0 * dt / 1000
    noise = 0.15 * np.sqrt(2 * dt / tau) * rng.standard_normal((steps, neurons))
    rule = hebbax.InhibitorySTDP(tau=20.0 * u.ms, eta=3e-4, target_rate=target * u.Hz, w_min=0.0, w_max=1.0)
    synapses = all_to_all(inputs, neurons)

    @jax.jit
    def simulate(pre, noise):
        def step(carry, given):
            voltage, weight, state = carry
            pre, noise = given
            inhibition = pre.astype(weight.dtype) @ weight.reshape(inputs, neurons)
            voltage = voltage + (1.5 - voltage) * dt / tau + noise - inhibition
            post = voltage >= 1.0
            weight, state = rule.step(synapses, weight, state, pre, post, dt * u.ms)
            return (jnp.where(post, 0.0, voltage), weight, state), post

        start = jnp.zeros(neurons), jnp.zeros(inputs * neurons), rule.init(synapses)
        return jax.lax.scan(step, start, (pre, noise))[1]

    spikes = np.asarray(simulate(jnp.asarray(pre), jnp.asarray(noise)))
    first, second = (x.mean(0) / dt * 1000 for x in (spikes[: steps // 60], spikes[steps // 2 :]))
    print(
        f"{first.mean():.1f} Hz at first, {second.mean():.2f} Hz in the end ({second.min():.2f} to {second.max():.2f})"
    )
    assert (first > 1.3 * target).all()  # the rule had something to do
    np.testing.assert_allclose(second, target, rtol=0.1)
