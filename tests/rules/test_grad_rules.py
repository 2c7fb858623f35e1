"""Gradients through simulated rules, against the same rules on dense matrices in plain JAX."""

import dataclasses

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import hebbax
from problems import enable_x64

SHAPE, STEPS, DT = (7, 6), 12, 1.0
PAIR = dict(tau_plus=5.0, tau_minus=7.0, a_plus=0.11, a_minus=0.13, w_min=0.1, w_max=0.9)
TRIPLET = dict(
    tau_plus=5.0, tau_minus=7.0, tau_x=9.0, tau_y=11.0, a2_plus=0.05, a2_minus=0.07, a3_plus=0.06, a3_minus=0.02,
    w_min=0.1, w_max=0.9,
)  # fmt: skip
POWER_LAW = dict(tau_plus=5.0, tau_minus=7.0, learning_rate=0.2, alpha=0.9, w_0=0.7)
INHIBITORY = dict(tau=5.0, eta=0.2, target_rate=0.15, w_min=0.1, w_max=0.9)
DIEHL_COOK = dict(tau=5.0, eta=0.2, target=0.8, w_min=0.1, w_max=0.9)
# Class, its parameters that are differentiated, its options.
RULES = {
    "pair": (hebbax.PairSTDP, PAIR, {}),
    "pair, nearest": (hebbax.PairSTDP, PAIR, {"pairing": "nearest"}),
    "pair, powers": (hebbax.PairSTDP, PAIR, {"mu_plus": 1.0, "mu_minus": 0.5}),
    "power law": (hebbax.PowerLawSTDP, POWER_LAW, {}),
    "triplet": (hebbax.TripletSTDP, TRIPLET, {}),
    "inhibitory": (hebbax.InhibitorySTDP, INHIBITORY, {}),
    "diehl cook": (hebbax.DiehlCookSTDP, DIEHL_COOK, {"mu": 0.5}),
}


@pytest.fixture(params=RULES)
def rule(request):
    return RULES[request.param]


@pytest.fixture(scope="module")
def network():
    """Synapses, weights, some of which rest on a bound, and spikes of either side."""
    rng = np.random.default_rng(3)
    synapses = hebbax.Synapses.random(SHAPE, prob=0.6, seed=9)
    weight = rng.uniform(0.15, 0.85, synapses.nse).astype(np.float32)
    return synapses, weight, rng.random((STEPS, SHAPE[0])) < 0.3, rng.random((STEPS, SHAPE[1])) < 0.3


# -- the rules on dense matrices: traces decay, presynaptic spikes depress, postsynaptic ones potentiate, traces grow


def pair(p, pairing="all", mu_plus=0.0, mu_minus=0.0):
    def step(w, state, pre, post):
        x, y = state[0] * jnp.exp(-DT / p["tau_plus"]), state[1] * jnp.exp(-DT / p["tau_minus"])
        span = p["w_max"] - p["w_min"]
        w = changed(w, -p["a_minus"] * power((w - p["w_min"]) / span, mu_minus) * y[None, :], pre[:, None], p)
        w = changed(w, p["a_plus"] * power((p["w_max"] - w) / span, mu_plus) * x[:, None], post[None, :], p)
        return w, (spiked(x, pre, pairing), spiked(y, post, pairing))

    return step, (SHAPE[0], SHAPE[1])


def power_law(p, mu=0.4):
    def step(w, state, pre, post):
        x, y = state[0] * jnp.exp(-DT / p["tau_plus"]), state[1] * jnp.exp(-DT / p["tau_minus"])
        bounds = {"w_min": 0.0, "w_max": jnp.inf}
        w = changed(w, -p["learning_rate"] * p["alpha"] * w * y[None, :], pre[:, None], bounds)
        amplitude = p["learning_rate"] * p["w_0"] ** (1 - mu)
        w = changed(w, amplitude * power(w, mu) * x[:, None], post[None, :], bounds)
        return w, (spiked(x, pre), spiked(y, post))

    return step, (SHAPE[0], SHAPE[1])


def triplet(p):
    def step(w, state, pre, post):
        taus = (p["tau_plus"], p["tau_x"], p["tau_minus"], p["tau_y"])
        r1, r2, o1, o2 = (x * jnp.exp(-DT / tau) for x, tau in zip(state, taus, strict=True))
        w = changed(w, -o1[None, :] * (p["a2_minus"] + p["a3_minus"] * r2[:, None]), pre[:, None], p)
        w = changed(w, r1[:, None] * (p["a2_plus"] + p["a3_plus"] * o2[None, :]), post[None, :], p)
        return w, (spiked(r1, pre), spiked(r2, pre), spiked(o1, post), spiked(o2, post))

    return step, (SHAPE[0], SHAPE[0], SHAPE[1], SHAPE[1])


def inhibitory(p):
    def step(w, state, pre, post):
        x, y = (trace * jnp.exp(-DT / p["tau"]) for trace in state)
        w = changed(w, p["eta"] * (y - 2 * p["target_rate"] * p["tau"])[None, :], pre[:, None], p)
        w = changed(w, p["eta"] * x[:, None], post[None, :], p)
        return w, (spiked(x, pre), spiked(y, post))

    return step, (SHAPE[0], SHAPE[1])


def diehl_cook(p, mu):
    def step(w, state, pre, post):
        (x,) = (trace * jnp.exp(-DT / p["tau"]) for trace in state)
        softness = power((p["w_max"] - w) / (p["w_max"] - p["w_min"]), mu)
        w = changed(w, p["eta"] * (x - p["target"])[:, None] * softness, post[None, :], p)
        return w, (spiked(x, pre),)

    return step, (SHAPE[0],)


DENSE = {
    hebbax.PairSTDP: pair, hebbax.PowerLawSTDP: power_law, hebbax.TripletSTDP: triplet,
    hebbax.InhibitorySTDP: inhibitory, hebbax.DiehlCookSTDP: diehl_cook,
}  # fmt: skip


def power(base, mu):
    return 1.0 if mu == 0 else jnp.where(base > 0, jnp.where(base > 0, base, 1) ** mu, 0)


def changed(w, change, touched, p):
    return jnp.where(touched, jnp.clip(w + change, p["w_min"], p["w_max"]), w)


def spiked(trace, spike, pairing="all"):
    return jnp.where(spike, 1.0 if pairing == "nearest" else trace + 1, trace)


# -- both as functions of (parameters, weight)


def sparse_simulation(cls, options, network, backend=None, units=False):
    synapses, _, *spikes = network

    def simulate(parameters, weight):
        given, dt = dict(parameters), DT
        if units:  # as a user writes it, from plain numbers
            scales = {"target_rate": 1 / u.ms} | dict.fromkeys(("learning_rate", "alpha", "target"), u.UNITLESS)
            given = {n: x * scales.get(n, u.ms if n.startswith("tau") else u.nS) for n, x in given.items()}
            weight, dt = weight * u.nS, DT * u.ms
        rule = cls(**given, **options)

        def step(carry, spikes):
            return rule.step(synapses, *carry, *spikes, dt, backend=backend), None

        weight = jax.lax.scan(step, (weight, rule.init(synapses)), tuple(map(jnp.asarray, spikes)))[0][0]
        return u.get_mantissa(weight)

    return simulate


def dense_simulation(cls, options, network):
    synapses, _, *spikes = network
    rows = np.repeat(np.arange(SHAPE[0]), np.diff(synapses.indptr))
    columns = np.asarray(synapses.indices)

    def simulate(parameters, weight):
        step, sizes = DENSE[cls](parameters, **options)
        w = jnp.full(SHAPE, 0.5, weight.dtype).at[rows, columns].set(weight)
        state = tuple(jnp.zeros(n, weight.dtype) for n in sizes)
        w = jax.lax.scan(lambda x, spikes: (step(*x, *spikes), None), (w, state), tuple(map(jnp.asarray, spikes)))[0][0]
        return w[rows, columns]

    return simulate


def derivatives_of(simulate, parameters, weight):
    """Value, gradient of a sum of squares, and a JVP."""

    @jax.jit
    def every(parameters, weight):
        gradient = jax.grad(lambda *x: (simulate(*x) ** 2).sum(), (0, 1))(parameters, weight)
        ones = jax.tree.map(jnp.ones_like, (parameters, weight))
        return jax.jvp(simulate, (parameters, weight), ones), gradient

    return every(jax.tree.map(jnp.asarray, parameters), weight)


def assert_same(actual, expected):
    def check(path, x, y):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(check, actual, expected)


@pytest.mark.parametrize(
    "name, units", [*((name, True) for name in RULES), pytest.param("pair", False, marks=pytest.mark.slow)]
)
def test_gradients_are_those_of_a_dense_simulation(network, name, units):
    cls, parameters, options = RULES[name]
    parameters = jax.tree.map(np.float32, parameters)
    actual = derivatives_of(sparse_simulation(cls, options, network, units=units), parameters, network[1])
    expected = derivatives_of(dense_simulation(cls, options, network), parameters, network[1])
    assert_same(actual, expected)
    (value, _), (slopes, by_weight) = expected
    at_bound = (value == np.float32(0.9)) | (value == np.float32(0.1))
    assert at_bound.any() == ("w_max" in parameters) and not at_bound.all() and (value != network[1]).any()
    assert all(slope != 0 for slope in [*slopes.values(), bool(by_weight.any())]), slopes


@pytest.mark.slow
def test_gradients_on_other_backends(network, backend):
    cls, parameters, options = RULES["pair, powers"]
    parameters = jax.tree.map(np.float32, parameters)
    actual = derivatives_of(sparse_simulation(cls, options, network, backend), parameters, network[1])
    assert_same(actual, derivatives_of(dense_simulation(cls, options, network), parameters, network[1]))


@pytest.mark.slow
def test_finite_differences(rule, network):
    """In float64, where the trajectory meets no bound, whose derivatives have steps."""
    cls, parameters, options = rule
    with enable_x64(True):
        wide = {"w_min": -3.0, "w_max": 4.0} if "w_max" in parameters else {}
        parameters = jax.tree.map(np.float64, parameters | wide)
        weight = np.float64(network[1])
        simulate = jax.jit(sparse_simulation(cls, options, network))
        names = sorted(parameters)
        check_grads(
            lambda weight, *x: simulate(dict(zip(names, x, strict=True)), weight),
            (weight, *(parameters[name] for name in names)), order=1, eps=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if "powers" in name else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)
def test_nobody_spikes(name, network):
    """Nothing is NaN, and every weight is itself, also where it rests on a bound."""
    cls, parameters, options = RULES[name]
    synapses, weight, pre, post = network
    weight = np.where(np.arange(weight.size) % 3, np.where(np.arange(weight.size) % 2, weight, 0.9), 0.1)
    weight = weight.astype(np.float32)
    silent = synapses, weight, np.zeros_like(pre), np.zeros_like(post)
    simulate = sparse_simulation(cls, options, silent)
    (value, _), (slopes, by_weight) = derivatives_of(simulate, jax.tree.map(np.float32, parameters), weight)
    np.testing.assert_array_equal(value, weight)
    np.testing.assert_array_equal(by_weight, 2 * weight)
    assert all(slope == 0 for slope in slopes.values())


@pytest.mark.slow
def test_spikes_at_the_bounds_make_no_nan(network):
    """A power of 0 with a spike there: soft bounds of every rule that has one."""
    cls, parameters, _ = RULES["pair"]
    synapses, weight, pre, post = network
    for mu, bound in ((0.5, 0.1), (0.5, 0.9), (1.0, 0.9)):
        at_bound = synapses, np.full_like(weight, bound), pre, post
        simulate = sparse_simulation(cls, {"mu_plus": mu, "mu_minus": mu}, at_bound)
        found = derivatives_of(simulate, jax.tree.map(np.float32, parameters), at_bound[1])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
        assert any(slope != 0 for slope in found[1][0].values())


def test_a_rule_is_a_pytree_that_is_differentiated(network):
    """The gradient of a rule is a rule-shaped tree, with units."""
    synapses, weight, pre, post = network
    rule = hebbax.PairSTDP(
        5.0 * u.ms, 7.0 * u.ms, *(jnp.float32(x) * u.nS for x in (0.11, 0.13, 0.1, 0.9)), mu_plus=0.5
    )
    rule = dataclasses.replace(rule, tau_plus=jnp.float32(5) * u.ms, tau_minus=jnp.float32(7) * u.ms)

    def loss(rule, weight):
        state = rule.init(synapses)
        for k in range(4):
            weight, state = rule.step(synapses, weight, state, pre[k], post[k], DT * u.ms)
        return (weight.mantissa**2).sum()

    leaves, treedef = jax.tree.flatten(rule)
    weight = jnp.asarray(weight) * u.nS

    def of_leaves(leaves):
        return loss(jax.tree.unflatten(treedef, leaves), weight)

    gradient = jax.tree.unflatten(treedef, jax.jit(jax.grad(of_leaves))(leaves))
    tangent = [jnp.float32(x) for x in (0.5, 0.25, 1, 2, 3, 4)][: len(leaves)]
    _, slope = jax.jvp(jax.jit(of_leaves), (leaves,), (tangent,))
    np.testing.assert_allclose(
        slope, sum(x * y for x, y in zip(jax.tree.leaves(gradient), tangent, strict=True)), rtol=1e-4
    )
    assert len(leaves) == 6 and all(x != 0 for x in jax.tree.leaves(gradient))
