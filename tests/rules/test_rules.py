"""STDP rules: the order within a step, traces, units, and JAX around them. test_agreement.py has their values."""

import copy
import dataclasses
import inspect
import pickle
import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
from problems import DTYPES, enable_x64

pytestmark = [pytest.mark.together(1), pytest.mark.optimised]
MS = 1.0 * u.ms
TIMES = {"tau_plus": 20.0 * u.ms, "tau_minus": 30.0 * u.ms}
PAIR = hebbax.PairSTDP(**TIMES, a_plus=0.1, a_minus=0.12, w_min=0.0, w_max=1.0)
TRIPLET = hebbax.TripletSTDP(
    **TIMES, tau_x=100.0 * u.ms, tau_y=110.0 * u.ms, a2_plus=0.05, a2_minus=0.07, a3_plus=0.06, a3_minus=0.02,
    w_min=0.0, w_max=1.0,
)  # fmt: skip
POWER_LAW = hebbax.PowerLawSTDP(**TIMES, learning_rate=0.2, alpha=0.6, w_0=0.8)
INHIBITORY = hebbax.InhibitorySTDP(tau=20.0 * u.ms, eta=0.1, target_rate=5.0 * u.Hz, w_min=0.0, w_max=1.0)
DIEHL_COOK = hebbax.DiehlCookSTDP(tau=20.0 * u.ms, eta=0.2, target=0.4, w_min=0.0, w_max=1.0)
RULES = {
    "pair": PAIR,
    "pair, nearest": dataclasses.replace(PAIR, pairing="nearest"),
    "pair, powers": dataclasses.replace(PAIR, mu_plus=0.4, mu_minus=1.0),
    "power law": POWER_LAW,
    "triplet": TRIPLET,
    "triplet, nearest": dataclasses.replace(TRIPLET, pairing="nearest"),
    "inhibitory": INHIBITORY,
    "diehl cook": DIEHL_COOK,
}
BOUNDED = [name for name, rule in RULES.items() if hasattr(rule, "w_max")]
CLASSES = [
    hebbax.PairSTDP, hebbax.PowerLawSTDP, hebbax.TripletSTDP, hebbax.InhibitorySTDP, hebbax.RewardSTDP,
    hebbax.DiehlCookSTDP,
]  # fmt: skip
AMPLITUDES = ("a_plus", "a_minus", "a2_plus", "a2_minus", "a3_plus", "a3_minus", "eta", "w_min", "w_max", "w_0")
NUMBERS = ("learning_rate", "alpha", "target")
ONE, NONE = np.array([True]), np.array([False])


@pytest.fixture(params=RULES)
def rule(request):
    return RULES[request.param]


@pytest.fixture
def network(rng):
    """Synapses, weights, and ten steps of spikes of either side."""
    synapses = hebbax.Synapses.random((13, 11), prob=0.4, seed=1)
    weight = rng.uniform(0, 1, synapses.nse).astype(np.float32)
    return synapses, weight, rng.random((10, 13)) < 0.3, rng.random((10, 11)) < 0.3


def with_unit(rule, unit):
    """The rule with all that has the dimension of weights in `unit`."""
    return dataclasses.replace(rule, **{name: getattr(rule, name) * unit for name in AMPLITUDES if hasattr(rule, name)})


def run(rule, synapses, weight, pre, post, dt=MS, **options):
    def step(carry, spikes):
        return rule.step(synapses, *carry, *spikes, dt, **options), None

    weight, pre, post = jax.tree.map(jnp.asarray, (weight, pre, post))
    return jax.lax.scan(step, (weight, rule.init(synapses)), (pre, post))[0]


def one_synapse(rule, spikes, weight=0.5):
    """Weight and traces of one synapse after steps of 1 ms in which 'pre', 'post', 'both' or nobody ('') spikes."""
    synapses, weight = hebbax.Synapses.from_dense(np.float32([[weight]]))
    state = rule.init(synapses)
    for who in spikes:
        pre, post = (ONE if who in (side, "both") else NONE for side in ("pre", "post"))
        weight, state = rule.step(synapses, weight, state, pre, post, MS)
    return float(weight[0]), state


# -- the order within a step


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("inhibitory", "diehl cook")])
def test_spikes_that_coincide_do_not_see_each_other(name):
    assert one_synapse(RULES[name], ["both"])[0] == 0.5
    assert one_synapse(RULES[name], ["both", "both"])[0] != 0.5  # but those of the step before


def test_inhibitory_spikes_that_coincide_do_not_see_each_other():
    depressed = 0.5 - 0.1 * 2 * 0.005 * 20
    assert one_synapse(INHIBITORY, ["both"])[0] == one_synapse(INHIBITORY, ["pre"])[0] == pytest.approx(depressed)


def test_a_spike_changes_a_weight_by_the_trace_of_before():
    """One of the neuron that coincides with the first of its input finds it silent."""
    silent = 0.5 - 0.2 * 0.4 * 0.5**0.2
    assert one_synapse(DIEHL_COOK, ["both"])[0] == one_synapse(DIEHL_COOK, ["post"])[0] == pytest.approx(silent)
    assert one_synapse(DIEHL_COOK, ["pre", "pre"])[0] == 0.5
    again = silent + 0.2 * (np.exp(-1 / 20) - 0.4) * (1 - silent) ** 0.2
    assert one_synapse(DIEHL_COOK, ["both", "both"])[0] == pytest.approx(again, rel=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.2, 1.0])
def test_a_constant_trace_takes_the_weight_along_a_closed_form(mu):
    """With `d`, the distance to the upper bound over the range, each spike takes a multiple of `d ** mu` from `d`."""
    for trace, count in ((0.9, 8), (0.1, 3)):
        synapses, weight = hebbax.Synapses.from_dense(np.float32([[1.4]]))
        rule = dataclasses.replace(DIEHL_COOK, eta=0.04, mu=mu, w_min=1.0, w_max=2.0)
        state = rule.init(synapses)._replace(pre=jnp.full(1, trace))
        for _ in range(count):
            weight, state = rule.step(synapses, weight, state, NONE, ONE, 0 * MS)
        change = 0.04 * (trace - 0.4)
        if mu == 0:
            distance = 0.6 - count * change
        elif mu == 1:
            distance = 0.6 * (1 - change) ** count
        else:  # of many small changes
            distance = (0.6 ** (1 - mu) - (1 - mu) * count * change) ** (1 / (1 - mu))
        assert weight[0] == pytest.approx(2 - distance, rel=1e-6 if mu in (0, 1) else 1e-3)
        assert (weight[0] > 1.4) == (trace > 0.4)


def test_inputs_below_the_target_lose_their_synapses(rng):
    """Whatever the weights were: what a neuron's spikes find is what its weights become."""
    rates = np.array([5.0, 10.0, 60.0, 80.0])  # Hz; a trace has the mean rate * tau: 0.1, 0.2, 1.2 and 1.6
    pre = rng.random((4000, 4)) < rates * 1e-3
    post = rng.random((4000, 3)) < 0.1
    synapses, weight = hebbax.Synapses.from_dense(rng.uniform(0.2, 0.8, (4, 3)).astype(np.float32))
    rule = dataclasses.replace(DIEHL_COOK, eta=0.01, target=0.7)
    weight = synapses.todense(run(rule, synapses, weight, pre, post)[0])
    assert (weight[:2] < 0.05).all() and (weight[2:] > 0.95).all()


def test_depression_comes_before_potentiation():
    """Which shows where the first of them runs into a bound."""
    rule = dataclasses.replace(PAIR, a_plus=0.4, a_minus=0.6)
    after = one_synapse(rule, ["both", "both"])[0]
    down, up = 0.6 * np.exp(-1 / 30), 0.4 * np.exp(-1 / 20)
    assert after == pytest.approx(max(0.5 - down, 0) + up, rel=1e-6)
    assert after != pytest.approx(min(0.5 + up, 1) - down, rel=1e-2)


def test_traces_decay_before_they_are_read_and_spikes_are_added_last():
    weight, state = one_synapse(PAIR, ["pre", "", "post"])
    assert weight == pytest.approx(0.5 + 0.1 * np.exp(-2 / 20), rel=1e-6)
    assert state.pre[0] == pytest.approx(np.exp(-2 / 20), rel=1e-6)
    assert state.post[0] == 1


def test_all_spikes_pair_or_only_the_nearest():
    spikes = ["pre", "pre", "post"]
    near, far = np.exp(-1 / 20), np.exp(-2 / 20)
    assert one_synapse(PAIR, spikes)[0] == pytest.approx(0.5 + 0.1 * (near + far), rel=1e-6)
    assert one_synapse(RULES["pair, nearest"], spikes)[0] == pytest.approx(0.5 + 0.1 * near, rel=1e-6)


def test_the_exponents_belong_to_the_bounds_that_they_are_named_after():
    up = one_synapse(dataclasses.replace(PAIR, mu_plus=1.0), ["pre", "post"], weight=0.9)[0]
    assert up == pytest.approx(0.9 + 0.1 * (1 - 0.9) * np.exp(-1 / 20), rel=1e-6)
    down = one_synapse(dataclasses.replace(PAIR, mu_minus=2.0), ["post", "pre"], weight=0.9)[0]
    assert down == pytest.approx(0.9 - 0.12 * 0.9**2 * np.exp(-1 / 30), rel=1e-6)


def test_the_power_law_is_that_of_the_paper():
    """Potentiation grows with a power of the weight, depression with the weight; neither has an upper bound."""
    for weight in (1e-3, 0.5, 20.0):
        up = one_synapse(POWER_LAW, ["pre", "post"], weight)[0]
        assert up == pytest.approx(weight + 0.2 * 0.8**0.6 * weight**0.4 * np.exp(-1 / 20), rel=1e-6)
        down = one_synapse(POWER_LAW, ["post", "pre"], weight)[0]
        assert down == pytest.approx(weight - 0.2 * 0.6 * weight * np.exp(-1 / 30), rel=1e-6)
    depressed_away = dataclasses.replace(POWER_LAW, alpha=6.0)
    assert one_synapse(depressed_away, ["post", "pre", "post"])[0] == 0
    additive = dataclasses.replace(depressed_away, mu=0.0)
    up = one_synapse(additive, ["post", "pre", "post"])[0]
    assert up == pytest.approx(0.2 * 0.8 * np.exp(-1 / 20), rel=1e-6)


def test_the_reference_weight_is_a_weight(network):
    """What `w_0` is in matters, and not the unit of the weights: 0.8 nS are 0.0008 uS."""
    synapses, weight, pre, post = network
    rule = with_unit(POWER_LAW, u.nS)
    expected = run(rule, synapses, weight * u.nS, pre, post)[0]
    out = run(rule, synapses, np.float32(1e-3) * weight * u.uS, pre, post)[0]
    assert out.unit == u.uS
    np.testing.assert_allclose(out.to(u.nS).mantissa, expected.mantissa, rtol=1e-5)
    with pytest.raises(u.UnitMismatchError, match=r"^w_0: got a value of unit nS"):
        run(rule, synapses, weight, pre, post)


def test_steps_may_differ_in_length(network):
    """A long step without spikes is as many short ones."""
    synapses, weight, pre, post = network
    silent = np.zeros_like(pre[0]), np.zeros_like(post[0])
    for rule in RULES.values():
        first = rule.step(synapses, weight, rule.init(synapses), pre[0], post[0], MS)
        short = long = first
        for _ in range(4):
            short = rule.step(synapses, *short, *silent, MS)
        long = rule.step(synapses, *long, *silent, 4 * MS)
        last = (rule.step(synapses, *x, pre[1], post[1], MS) for x in (short, long))
        for a, b in zip(*map(jax.tree.leaves, last), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_amplitudes_belong_to_the_changes_and_not_to_the_traces(rule):
    """So learning may be switched off, or slowed down, in the middle of a run."""
    synapses, weight = hebbax.Synapses.from_dense(np.float32([[0.5]]))
    state = rule.init(synapses)
    for pre, post in ((ONE, NONE), (NONE, ONE)):
        weight, state = rule.step(synapses, weight, state, pre, post, MS)
    off = {name: 0.0 for name in (*AMPLITUDES, *NUMBERS) if hasattr(rule, name) and not name.startswith("w_")}
    after = dataclasses.replace(rule, **off).step(synapses, weight, state, ONE, ONE, MS)[0]
    assert after == weight
    assert rule.step(synapses, weight, state, ONE, ONE, MS)[0] != weight


# -- weights


def test_weights_stay_in_their_bounds_and_untouched_ones_as_they_were(rule, network):
    synapses, weight, pre, post = network
    pre[:, :6] = post[:, :6] = False
    out = np.asarray(run(rule, synapses, weight, *(np.tile(x, (30, 1)) for x in (pre, post)))[0])
    assert out.min() >= 0 and out.max() <= getattr(rule, "w_max", np.inf)
    source, target = np.repeat(np.arange(13), np.diff(synapses.indptr)), np.asarray(synapses.indices)
    untouched, between_active = (source < 6) & (target < 6), (source >= 6) & (target >= 6)
    assert min(untouched.sum(), between_active.sum()) > 5
    np.testing.assert_array_equal(out[untouched], weight[untouched])
    assert (out[between_active] != weight[between_active]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_every_dtype(rule, network, dtype):
    synapses, weight, pre, post = network
    with enable_x64(dtype == "float64"):
        out, state = run(rule, synapses, weight.astype(DTYPES[dtype]), pre, post)
        assert out.dtype == DTYPES[dtype]
        trace = jax.tree.leaves(state)[0]
        assert trace.dtype == (np.float64 if dtype == "float64" else np.float32)
    expected = run(rule, synapses, weight, pre, post)[0]
    # ten steps, each rounded to the weight's dtype
    rtol = {"float64": 1e-5, "float32": 0, "float16": 1e-2, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=rtol, atol=rtol / 5)


def test_units(rule, network):
    """Weights, rule, and times in units of their own change nothing."""
    synapses, weight, pre, post = network
    expected = run(rule, synapses, weight, pre, post)
    out, _ = run(with_unit(rule, u.nS), synapses, weight * u.nS, pre, post, dt=0.001 * u.second)
    assert out.unit == u.nS
    np.testing.assert_allclose(out.mantissa, expected[0], rtol=1e-6, atol=1e-7)
    prefixed = run(with_unit(rule, 1e-3 * u.uS), synapses, weight * u.nS, pre, post)
    np.testing.assert_allclose(prefixed[0].to(u.nS).mantissa, expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_any_nonzero_number_is_a_spike(rule, network, dtype):
    synapses, weight, pre, post = network
    expected = run(rule, synapses, weight, pre, post)
    out = run(rule, synapses, weight, -2 * pre.astype(dtype), 3 * post.astype(dtype))
    jax.tree.map(np.testing.assert_array_equal, out, expected)


def test_every_backend(rule, network, backend):
    out = run(rule, *network, backend=backend)[0]
    np.testing.assert_allclose(out, run(rule, *network)[0], rtol=1e-5, atol=1e-6)
    assert f"backend={backend}" in str(
        jax.make_jaxpr(lambda: rule.step(network[0], network[1], rule.init(network[0]), *(x[0] for x in network[2:]),
                                         MS, backend=backend))()
    )  # fmt: skip


# -- JAX


def test_a_rule_is_a_pytree(rule):
    leaves = jax.tree.leaves(rule)
    static = {"mu", "mu_plus", "mu_minus", "pairing"}
    assert len(leaves) == sum(field.name not in static for field in dataclasses.fields(rule))
    doubled = jax.tree.map(lambda x: 2 * x, rule)
    assert type(doubled) is type(rule) and jax.tree.leaves(doubled) == [2 * x for x in leaves]
    jax.tree.map(lambda _: None, rule)  # no check
    for same in (pickle.loads(pickle.dumps(rule)), copy.copy(rule), copy.deepcopy(rule), dataclasses.replace(rule)):
        assert type(same) is type(rule) and same == rule
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule, dataclasses.fields(rule)[0].name, 2.0)


def test_a_rule_is_an_argument_of_jit(rule, network):
    traced = []

    @jax.jit
    def function(rule, *network):
        traced.append(rule)
        return run(rule, *network)

    out = function(rule, *network)
    np.testing.assert_allclose(out[0], run(rule, *network)[0], rtol=1e-5, atol=1e-6)
    # (twice the bounds, so that the result says whether the new values are used)
    other = jax.tree.map(lambda x: 2 * x, rule)
    np.testing.assert_allclose(function(other, *network)[0], run(other, *network)[0], rtol=1e-5, atol=1e-6)
    assert len(traced) == 1


def test_vmap_over_networks_and_over_rules(rule, network):
    synapses, weight, pre, post = network
    weights = jnp.stack([weight, 1 - weight])
    out = jax.vmap(lambda w: run(rule, synapses, w, pre, post))(weights)
    for k, one in enumerate(weights):
        expected = run(rule, synapses, one, pre, post)
        jax.tree.map(lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=1e-6, atol=1e-7), out, expected)
    name = next(name for name in AMPLITUDES if hasattr(rule, name))

    def with_amplitude(x):
        return run(dataclasses.replace(rule, **{name: x}), synapses, weight, pre, post)[0]

    amplitudes = jnp.array([0.05, 0.2])
    expected = [with_amplitude(float(x)) for x in amplitudes]
    np.testing.assert_allclose(jax.vmap(with_amplitude)(amplitudes), expected, rtol=1e-5, atol=1e-6)


def test_the_whole_state_may_be_donated(rule, network):
    synapses, weight, pre, post = network
    expected = rule.step(synapses, weight, rule.init(synapses), pre[0], post[0], MS)
    step = jax.jit(lambda state, *spikes: rule.step(synapses, *state, *spikes, MS), donate_argnums=0)
    out = step((jnp.array(weight), rule.init(synapses)), pre[0], post[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, expected)


def test_a_step_copies_no_weight(rule, kernel):
    """Also not when the weight was read before in the step: `after` is passed on."""
    synapses = hebbax.Synapses.random((60, 70), prob=0.42, seed=0)
    weight = jnp.full(synapses.nse, 0.5)
    pre, post = jnp.ones((5, 60), bool), jnp.ones((5, 70), bool)

    def function(weight, state, pre, post, ordered):
        def step(carry, spikes):
            received = synapses.propagate_on_pre(carry[0], spikes[0], backend=kernel)
            after = received if ordered else None
            return rule.step(synapses, *carry, *spikes, MS, after=after, backend=kernel), received

        return jax.lax.scan(step, (weight, state), (pre, post))

    def copies(ordered):
        run = jax.jit(function, static_argnums=4, donate_argnums=0)
        text = run.lower(weight, rule.init(synapses), pre, post, ordered).compile().as_text()
        return re.findall(rf"= f32\[{synapses.nse}\]\S* copy(?:-start)?\(", text)

    assert copies(ordered=True) == []
    assert copies(ordered=False), "without `after` XLA was expected to copy"


# -- errors and documentation


def wrong_parameters():
    for name in ("pair", "power law", "triplet", "inhibitory", "diehl cook"):
        rule = RULES[name]
        for field in dataclasses.fields(rule):
            what = field.name
            if what.startswith("tau"):
                values = [(0.0 * u.ms, ValueError), (-1.0 * u.ms, ValueError), (np.nan * u.ms, ValueError),
                          (np.inf * u.ms, ValueError), (np.ones(2) * u.ms, hebbax.ShapeError),
                          (1.0 * u.nS, u.UnitMismatchError), (20.0, u.UnitMismatchError)]  # fmt: skip
                if name in ("inhibitory", "diehl cook"):  # then the rate is held against it, or nothing
                    values = values[:-1]
            elif what == "target_rate":
                values = [(-1.0 * u.Hz, ValueError), (1.0 * u.ms, u.UnitMismatchError)]
            elif what in AMPLITUDES + NUMBERS:
                values = [(np.nan, ValueError), (None, TypeError), ("1", TypeError), (1j, TypeError)]
                if what != "w_0":  # which is held against the weight
                    values += [(1.0 * u.nS, u.UnitMismatchError)]
                if what not in ("w_min", "w_max"):
                    values += [(np.inf, ValueError), (np.ones(3), hebbax.ShapeError)]
                values += [(-0.1, ValueError)] if what in ("eta", "w_0", *NUMBERS) else []
                values += [(0.0, ValueError), (np.ones((1, 11)), hebbax.ShapeError)] if what == "w_0" else []
            elif what.startswith("mu"):
                values = [(-0.5, ValueError), (np.inf, ValueError), (np.nan, ValueError), (None, TypeError),
                          ("1", TypeError), (jnp.float32(0.5), TypeError)]  # fmt: skip
            else:
                values = [("some", ValueError), (None, ValueError)]
            for value, error in values:
                yield pytest.param(rule, what, value, error, id=f"{name}: {what} = {value}")


@pytest.mark.parametrize("rule, name, value, error", list(wrong_parameters()))
def test_wrong_parameters(rule, name, value, error):
    with pytest.raises(error) as raised:
        dataclasses.replace(rule, **{name: value})
    assert re.search(rf"^{name}: got .*, expected ", str(raised.value))


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_in_the_wrong_order(name):
    with pytest.raises(ValueError, match=r"w_min: got 2\.0, expected at most w_max, 1\.0"):
        dataclasses.replace(RULES[name], w_min=2.0)


def test_soft_bounds_are_finite():
    with pytest.raises(ValueError, match=r"^w_max: got inf, expected finite bounds"):
        dataclasses.replace(PAIR, mu_plus=1.0, w_max=np.inf)
    hard = dataclasses.replace(PAIR, w_max=np.inf)
    assert one_synapse(hard, ["pre", "post"])[0] == one_synapse(PAIR, ["pre", "post"])[0]


def test_the_odd_unit_is_the_one_that_is_named():
    with pytest.raises(
        u.UnitMismatchError, match=r"^a_plus: got a value without a unit, expected one convertible to nS"
    ):
        dataclasses.replace(with_unit(PAIR, u.nS), a_plus=0.1)
    with pytest.raises(u.UnitMismatchError, match=r"^w_max: got a value of unit nS, expected a plain number"):
        dataclasses.replace(PAIR, w_max=1.0 * u.nS)


def test_bounds_may_differ_between_synapses(network):
    synapses, weight, pre, post = network
    top = np.linspace(0.3, 1, weight.size, dtype=np.float32)
    out = run(dataclasses.replace(PAIR, w_max=top), synapses, np.minimum(weight, top), pre, post)[0]
    assert (out <= top).all() and (out == top).any()


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (dict(dt=1.0), u.UnitMismatchError, "dt: got"),
        (dict(dt=-1.0 * u.ms), ValueError, "dt: got -1. ms, expected at least 0"),
        (dict(dt=jnp.float32(-1) * u.ms), ValueError, "expected at least 0"),
        (dict(dt=None), TypeError, "dt: got None"),
        (dict(dt="1"), TypeError, "dt: got '1', expected a number"),
        (dict(dt=1j), TypeError, "dt: got 1j, expected a number"),
        (dict(dt=np.ones(2) * u.ms), hebbax.ShapeError, "dt: got shape (2,), expected a scalar"),
        (dict(state=None), TypeError, "state: got NoneType, expected "),
        (dict(state=(1, 2)), TypeError, "state: got tuple, expected "),
        (dict(weight=np.ones(3, np.float32)), hebbax.ShapeError, "weight: got shape (3,)"),
        (dict(weight=np.ones(1, np.float32) * u.nS), (u.UnitMismatchError, hebbax.ShapeError), "got"),
        (dict(pre_spike=np.ones(3, bool)), hebbax.ShapeError, "pre_spike: got shape (3,)"),
        (dict(post_spike=np.ones(3, bool)), hebbax.ShapeError, "post_spike: got shape (3,)"),
        (dict(backend="abacus"), ValueError, "backend: got 'abacus'"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else None,
)
def test_wrong_arguments_of_a_step(rule, network, changed, error, words):
    synapses, weight, pre, post = network
    given = dict(weight=weight, state=rule.init(synapses), pre_spike=pre[0], post_spike=post[0], dt=MS)
    with pytest.raises(error, match=re.escape(words)):
        rule.step(synapses, **{**given, **changed})


OTHERS = [hebbax.ClopathSTDP, hebbax.HomeostaticTripletSTDP, hebbax.ShortTermPlasticity, hebbax.SynapticScaling]


@pytest.mark.parametrize("cls", CLASSES + OTHERS, ids=lambda cls: cls.__name__)
def test_every_parameter_is_documented_with_its_source(cls):
    doc = inspect.getdoc(cls)
    for field in dataclasses.fields(cls):
        assert re.search(rf"^.*\b{field.name}\b.* : ", doc, re.MULTILINE), field.name
    assert re.findall(r"^([A-Z]\w+)\n-+$", doc, re.MULTILINE) == [
        "Parameters",
        "Raises",
        "Notes",
        "References",
        "Examples",
    ]
    assert "doi:10." in doc
