"""Rules and currents with delays against the closed form with shifted spike times."""

import dataclasses
import functools

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stdp_reference
from test_agreement import DT, NEST_PAIR, TRIPLET, W_START, all_to_all, double_precision, quantities, random_trains  # noqa: F401

import hebbax
from hebbax.delays import DelayedSynapses, Ring
from hlo import at_least

SPLITS = [(15, 0), (0, 15), (11, 4), (1, 1)]  # axonal and dendritic, in steps


@pytest.mark.parametrize("axonal, dendritic", SPLITS)
@pytest.mark.parametrize("mu", [0.0, 0.4])
def test_one_delay_shifts_the_spikes_of_the_closed_form(rng, axonal, dendritic, mu):
    pre, post = random_trains(rng, 10, (20.0, 30.0), (40.0, 20.0))
    parameters = NEST_PAIR | dict(mu_plus=mu, mu_minus=mu)
    rule, synapses, dt = hebbax.PairSTDP(**quantities(parameters)), all_to_all(2, 2), DT * u.ms
    axon = Ring.of(jnp.zeros(2, bool), axonal * dt, dt)
    back = Ring.of(jnp.zeros(2, bool), dendritic * dt, dt)
    dendrite = Ring.of(jnp.zeros(2), dendritic * dt, dt)

    @jax.jit
    def simulate(weight, spikes):
        def step(state, spikes):
            weight, traces, axon, back, dendrite = state
            axon, pre_spike = axon.push(spikes[0])
            back, post_spike = back.push(spikes[1])
            at_synapse = synapses.propagate_on_pre(weight, pre_spike)
            weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, dt, after=at_synapse)
            dendrite, current = dendrite.push(at_synapse)
            return (weight, traces, axon, back, dendrite), (weight, current)

        return jax.lax.scan(step, (weight, rule.init(synapses), axon, back, dendrite), spikes)[1]

    weights, currents = map(np.asarray, simulate(jnp.full(4, W_START), (pre, post)))
    steps, before = np.arange(len(pre)), np.concatenate([np.full((1, 4), W_START), weights[:-1]])
    for k in range(4):
        pre_at, post_at = np.flatnonzero(pre[:, k // 2]) + axonal, np.flatnonzero(post[:, k % 2]) + dendritic
        at, expected = stdp_reference.pair(pre_at, post_at, W_START, dt=DT, **parameters)
        inside = at < len(pre)
        assert len(np.unique(expected.round(6))) > 100
        np.testing.assert_allclose(weights[at[inside], k], expected[inside], rtol=1e-9, atol=1e-9)
    arrived = np.zeros((len(pre), 2))  # a spike's current: the weight when it is at the synapse, at the soma later
    for i in range(2):
        at = np.flatnonzero(pre[:, i]) + axonal
        at = at[at + dendritic < len(pre)]
        arrived[at + dendritic] += before[at, 2 * i : 2 * i + 2]
    assert np.count_nonzero(arrived) > 100 and steps.size == len(currents)
    np.testing.assert_allclose(currents, arrived, rtol=1e-12)


PAIR = NEST_PAIR | dict(mu_plus=0.4, mu_minus=1.0)
INHIBITORY = dict(tau=20.0, eta=0.01, w_min=0.0, w_max=1.0)
DIEHL_COOK = dict(tau=20.0, eta=0.05, target=1.0, w_min=0.0, w_max=1.0, mu=0.2, pairing="all")
RULES = {
    "pair": (hebbax.PairSTDP(**quantities(PAIR)), functools.partial(stdp_reference.pair, **PAIR)),
    "nearest": (
        hebbax.PairSTDP(**quantities(NEST_PAIR), pairing="nearest"),
        functools.partial(stdp_reference.pair, **NEST_PAIR, pairing="nearest"),
    ),
    "triplet": (
        hebbax.TripletSTDP(**quantities(triplet := TRIPLET["all, full"] | dict(w_min=0.0, w_max=1.0))),
        functools.partial(stdp_reference.triplet, **triplet),
    ),
    "inhibitory": (
        hebbax.InhibitorySTDP(**quantities(INHIBITORY), target_rate=25.0 * u.Hz),
        functools.partial(stdp_reference.inhibitory, **INHIBITORY, target_rate=0.025),
    ),
    "diehl cook": (
        hebbax.DiehlCookSTDP(**quantities(DIEHL_COOK)),
        functools.partial(stdp_reference.diehl_cook, **DIEHL_COOK),
    ),
}
WAYS = ["cython", "jax"]  # with lists, and without: as all other backends, which are slower here
DELAYS = {  # in steps, of nine synapses
    "axonal": ([0, 5, 3, 17, 3, 1, 0, 8, 8], 0),
    "dendritic": (0, [0, 5, 3, 17, 3, 1, 0, 8, 8]),
    "one of each": (4, 11),
    "splits": ([0, 5, 3, 17, 3, 1, 0, 8, 8], [3, 0, 3, 0, 9, 1, 2, 2, 7]),
}


def learn(delayed, rule, weight, spikes, backend=None):
    """The weights after every step, in the order of `delayed`."""

    def step(state, spikes):
        weight, traces, state = state
        state = delayed.push(state, *spikes)
        current, state = delayed.propagate(weight, state, backend)
        state = delayed.step(rule, weight, traces, state, *spikes, after=current, backend=backend)
        return state, state[0]

    return jax.lax.scan(step, (weight, rule.init(delayed), delayed.init(weight, rule)), spikes)[1]


@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("way", WAYS)
def test_a_delay_per_synapse_shifts_the_spikes_of_the_closed_form(rng, rule, delays, way):
    seconds = 4 if way == "cython" else 1
    pre, post = random_trains(rng, seconds, (20.0, 30.0, 40.0), (40.0, 20.0, 30.0))
    axonal, dendritic = (np.broadcast_to(x, 9) for x in DELAYS[delays])
    (rule, reference), synapses = RULES[rule], all_to_all(3, 3)
    delayed = DelayedSynapses(synapses, DT * u.ms, axonal=axonal * DT * u.ms, dendritic=dendritic * DT * u.ms)
    weights = jax.jit(functools.partial(learn, backend=way))(delayed, rule, jnp.full(9, W_START), (pre, post))
    weights = np.asarray(synapses.restore(weights, delayed.permutation))
    for k in range(9):
        pre_at, post_at = np.flatnonzero(pre[:, k // 3]) + axonal[k], np.flatnonzero(post[:, k % 3]) + dendritic[k]
        at, expected = reference(pre_at, post_at, W_START, dt=DT)
        inside = at < len(pre)
        assert len(np.unique(expected.round(6))) > 12 * seconds, "the weight rests at a bound"
        np.testing.assert_allclose(weights[at[inside], k], expected[inside], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("delays", ["axonal", "splits"])
@pytest.mark.parametrize("way", WAYS)
def test_parameters_per_neuron(rng, delays, way):
    """Each synapse as if its own parameters were those of all."""
    pre, post = random_trains(rng, 1, (20.0, 30.0, 40.0), (40.0, 20.0, 30.0))
    axonal, dendritic = (np.broadcast_to(x, 9) for x in DELAYS[delays])
    own = dict(
        tau_plus=rng.uniform(10, 30, (3, 1)), tau_minus=rng.uniform(10, 30, (1, 3)),
        a_plus=rng.uniform(0.1, 0.2, (1, 3)), a_minus=rng.uniform(0.1, 0.2, (3, 1)),
    )  # fmt: skip
    bounds, synapses = dict(w_min=0.0, w_max=15.0), all_to_all(3, 3)
    rule = hebbax.PairSTDP(**quantities(own), **bounds)
    delayed = DelayedSynapses(synapses, DT * u.ms, axonal=axonal * DT * u.ms, dendritic=dendritic * DT * u.ms)
    weights = jax.jit(functools.partial(learn, backend=way))(delayed, rule, jnp.full(9, 5.0), (pre, post))
    weights = np.asarray(synapses.restore(weights, delayed.permutation))
    for k in range(9):
        i, j = k // 3, k % 3
        parameters = {name: x[i % x.shape[0], j % x.shape[1]] for name, x in own.items()}
        pre_at, post_at = np.flatnonzero(pre[:, i]) + axonal[k], np.flatnonzero(post[:, j]) + dendritic[k]
        at, expected = stdp_reference.pair(pre_at, post_at, 5.0, dt=DT, **parameters, **bounds)
        inside = at < len(pre)
        np.testing.assert_allclose(weights[at[inside], k], expected[inside], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["pair", "triplet"])
@pytest.mark.parametrize("delays", ["axonal", "splits"])
@pytest.mark.parametrize("way", WAYS)
def test_derivatives_are_those_of_finite_differences(rng, name, delays, way):
    pre, post = (rng.random((60, 3)) < 0.15 for _ in range(2))
    axonal, dendritic = (np.broadcast_to(x, 9) for x in DELAYS[delays])
    rule = RULES[name][0]
    delayed = DelayedSynapses(
        all_to_all(3, 3), DT * u.ms, axonal=axonal * DT * u.ms, dendritic=dendritic * DT * u.ms
    )  # fmt: skip
    amplitudes = {x: getattr(rule, x) for x in ("a_plus", "a_minus", "a2_minus", "a3_plus") if hasattr(rule, x)}
    factor, weight = rng.standard_normal((60, 9)), jnp.asarray(rng.uniform(0.4, 0.6, 9))

    @jax.jit
    def loss(weight, amplitudes):
        changed = dataclasses.replace(rule, **amplitudes)
        return (factor * learn(delayed, changed, weight, (pre, post), way)).sum()

    along = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(np.shape(x))) * 0.1, (weight, amplitudes))
    gradient = jax.jit(jax.grad(loss, (0, 1)))(weight, amplitudes)
    by_gradient = sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), gradient, along)))
    by_tangent = jax.jvp(loss, (weight, jax.tree.map(jnp.asarray, amplitudes)), along)[1]
    given = weight, amplitudes
    moved = [loss(*jax.tree.map(lambda x, d, h=h: x + h * d, given, along)) for h in (-1e-4, 1e-4)]
    assert abs(by_gradient) > 1e-3
    np.testing.assert_allclose([by_gradient, by_tangent], (moved[1] - moved[0]) / 2e-4, rtol=1e-5)


def test_vmap_over_weights_spikes_and_state(rng):
    trains = rng.random((2, 2, 50, 3)) < 0.2
    axonal, dendritic = (np.broadcast_to(x, 9) for x in DELAYS["splits"])
    delayed = DelayedSynapses(
        all_to_all(3, 3), DT * u.ms, axonal=axonal * DT * u.ms, dendritic=dendritic * DT * u.ms
    )  # fmt: skip
    weight, rule = jnp.asarray(rng.uniform(0.3, 0.7, (2, 9))), RULES["triplet"][0]
    got = jax.vmap(lambda *x: learn(delayed, rule, *x))(weight, tuple(trains))
    for k in range(2):
        np.testing.assert_allclose(got[k], learn(delayed, rule, weight[k], tuple(trains[:, k])), rtol=1e-13)


def test_a_plastic_step_copies_no_weights_and_no_past(rng):
    synapses = hebbax.Synapses.random((211, 103), prob=0.3)
    axonal, dendritic = (rng.integers(1, x, synapses.nse) for x in (9, 5))
    delayed = DelayedSynapses(synapses, DT * u.ms, axonal=axonal * DT * u.ms, dendritic=dendritic * DT * u.ms)
    rule, weight = RULES["pair"][0], jnp.full(synapses.nse, 0.5)
    state = weight, rule.init(synapses), delayed.init(weight, rule)

    def step(state, noise):
        weight, traces, state = state
        current, state = delayed.propagate_due(weight, state)
        spikes = noise, current > 1.0
        state = delayed.push(state, *spikes)
        return delayed.step(rule, weight, traces, state, *spikes, after=current), None

    loop = jax.jit(lambda state, noise: jax.lax.scan(step, state, noise)[0], donate_argnums=0)
    text = loop.lower(state, rng.random((9, 211)) < 0.1).compile().as_text()
    sizes = [weight.size, state[2].pre.size, state[2].post.size, *(x.size for x in state[2].past.values())]
    found = at_least(text, min(sizes), "copy", "copy-start")
    assert not [x for x in found if x[1] in sizes], found
    assert {x[1] for x in at_least(text, min(sizes))} >= set(sizes)  # or else the sizes are not seen
