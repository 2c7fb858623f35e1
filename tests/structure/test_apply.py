"""Functions of single synapses, applied to those of the neurons that spike: against a loop, and the built-in rules."""

import functools

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import hebbax
from hebbax import _cpu
from hebbax._core.pytree import assemble
from hlo import at_least
from problems import enable_x64

SIDES = ("pre", "post")


def apply_on(synapses, side, function, values, spike, **options):
    return getattr(synapses, f"apply_on_{side}")(function, values, spike, **options)


def network(seed=0, shape=(12, 9), prob=0.4):
    rng = np.random.default_rng(seed)
    synapses = hebbax.Synapses.random(shape, prob=prob, seed=seed)
    weight, age = rng.uniform(-1, 1, synapses.nse).astype(np.float32), rng.integers(0, 9, synapses.nse).astype(np.int32)
    pre, post = (rng.uniform(-1, 1, n).astype(np.float32) for n in shape)
    return rng, synapses, (weight, age), pre, post


def rule(synapse, pre, post):
    """Something of everything: a state that is no float, and both neurons."""
    weight, age = synapse
    return weight * post + pre - 0.125 * age, age + 1


def by_hand(synapses, side, values, spike, pre, post):
    weight, age = (x.copy() for x in values)
    rows = np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr))
    ends = {"pre": rows, "post": np.asarray(synapses.indices)}
    for k in range(synapses.nse):
        if spike[ends[side][k]]:
            weight[k], age[k] = rule((weight[k], age[k]), pre[rows[k]], post[ends["post"][k]])
    return weight, age


@pytest.fixture(params=["cython", "jax"])
def tiles(request, monkeypatch):
    """By which of the two the elements of spiking rows are listed."""
    if request.param == "jax":
        monkeypatch.setattr(_cpu, "missing", "a test")
    elif _cpu.missing:
        pytest.skip(_cpu.missing)
    return request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    side=st.sampled_from(SIDES), seed=st.integers(0, 99), p=st.sampled_from((0.0, 0.1, 0.5, 1.0)),
    capacity=st.sampled_from((1, 3, 16, 2048)), shape=st.sampled_from(((12, 9), (1, 40), (40, 1), (64, 64))),
)  # fmt: skip
def test_every_event_counts_once_whatever_the_capacity(tiles, side, seed, p, capacity, shape):
    rng, synapses, values, pre, post = network(seed, shape)
    spike = rng.random(shape[SIDES.index(side)]) < p
    out = apply_on(synapses, side, rule, values, spike, pre=pre, post=post, capacity=capacity)
    for got, expected in zip(out, by_hand(synapses, side, values, spike, pre, post), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
        assert got.dtype == expected.dtype


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5, 5)])
@pytest.mark.parametrize("side", SIDES)
def test_without_synapses_or_neurons_nothing_happens(side, shape):
    synapses = hebbax.Synapses.random(shape, prob=0.0)
    out = apply_on(synapses, side, lambda w, pre, post: w, jnp.zeros(0), jnp.ones(shape[SIDES.index(side)], bool))
    assert out.shape == (0,)


@pytest.mark.parametrize("side", SIDES)
def test_a_built_in_update_written_as_a_function_gives_its_bits(side):
    rng, synapses, (weight, _), pre, post = network(3, (40, 30))
    n_event = synapses.shape[SIDES.index(side)]
    spike, weight = rng.random(n_event) < 0.3, np.clip(weight, -0.5, 0.5)
    low, high = np.float32(-0.5), np.float32(0.5)

    def function(w, pre, post):
        return jnp.clip(w + 0.25 * (post if side == "pre" else pre), low, high)

    ours = apply_on(synapses, side, function, weight, spike, pre=pre, post=post)
    options = dict(gain=0.25, weight_in_bounds=True, w_min=low, w_max=high)
    if side == "pre":
        expected = synapses.update_on_pre(weight, spike, post, **options)
    else:
        expected = synapses.update_on_post(weight, pre, spike, **options)
    np.testing.assert_array_equal(ours, expected)


def test_a_synapse_may_have_several_values_in_one_array():
    rng, synapses, _, _, _ = network(4)
    history, spike = rng.uniform(0, 1, (synapses.nse, 3)).astype(np.float32), rng.random(12) < 0.5

    def shift(history, pre, post):
        assert history.shape == (3,) and pre is None and post.shape == (2,)
        return jnp.roll(history, 1).at[0].set(post[0] + post[1])

    post = rng.uniform(0, 1, (9, 2)).astype(np.float32)
    out = synapses.apply_on_pre(shift, history, spike, post=post, capacity=16)
    expected = np.roll(history, 1, axis=1)
    expected[:, 0] = post.sum(1)[np.asarray(synapses.indices)]
    touched = np.repeat(spike, np.diff(synapses.indptr))
    np.testing.assert_array_equal(out, np.where(touched[:, None], expected, history))

    def total(history, post):
        return (synapses.apply_on_pre(shift, history, spike, post=post) * factor).sum()

    factor = rng.uniform(0, 1, history.shape).astype(np.float32)
    check_grads(jax.jit(total), (history, post), order=1, modes=("fwd", "rev"), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_weights_of_16_bits_stay_so(dtype):
    synapses = hebbax.Synapses([0, 2], [0, 1], shape=(1, 2))
    out = synapses.apply_on_pre(lambda w, x, y: w + np.float32(0.5), jnp.ones(2, dtype), jnp.ones(1, bool))
    assert out.dtype == dtype and (out == 1.5).all()


def test_pair_stdp_in_units_written_as_two_functions():
    synapses = hebbax.Synapses.random((30, 20), prob=0.5, seed=1)
    stdp = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.05 * u.nS, 0.06 * u.nS, 0 * u.nS, 1 * u.nS)
    decay = np.float32(np.exp(-1 / 20))
    rng = np.random.default_rng(0)
    weight = ours = jnp.full(synapses.nse, 0.5) * u.nS
    traces, state = [jnp.zeros(30), jnp.zeros(20)], stdp.init(synapses)

    def bounded(w):
        return u.math.clip(w, 0 * u.nS, 1 * u.nS)

    @jax.jit
    def step(ours, traces, pre_spike, post_spike):
        x, y = (decay * trace for trace in traces)
        ours = synapses.apply_on_pre(lambda w, x, y: bounded(w - 0.06 * u.nS * y), ours, pre_spike, pre=x, post=y)
        ours = synapses.apply_on_post(lambda w, x, y: bounded(w + 0.05 * u.nS * x), ours, post_spike, pre=x, post=y)
        return ours, [x + pre_spike, y + post_spike]

    for _ in range(20):
        spikes = rng.random(30) < 0.2, rng.random(20) < 0.2
        weight, state = stdp.step(synapses, weight, state, *spikes, 1 * u.ms)
        ours, traces = step(ours, traces, *spikes)
    assert ours.unit == u.nS
    np.testing.assert_allclose(ours.mantissa, weight.mantissa, rtol=1e-5)


BOUNDS = dict(w_min=0.0, w_max=1.0)
# Arguments, time constants of the traces of either side, and what spikes of either side do, by all traces.
WRITTEN_OUT = {
    "InhibitorySTDP": (
        dict(tau=20.0, eta=0.05, target_rate=0.01, **BOUNDS),
        (20.0,),
        lambda w, x, y: w + 0.05 * (y[0] - 2 * 0.01 * 20.0),
        lambda w, x, y: w + 0.05 * x[0],
    ),
    "PowerLawSTDP": (
        dict(tau_plus=20.0, tau_minus=20.0, learning_rate=0.1, alpha=0.5, w_0=1.0, mu=0.4),
        (20.0,),
        lambda w, x, y: w - 0.1 * 0.5 * w * y[0],
        lambda w, x, y: w + 0.1 * w**0.4 * x[0],
    ),
    "TripletSTDP": (
        dict(
            tau_plus=20.0,
            tau_minus=20.0,
            tau_x=50.0,
            tau_y=50.0,
            a2_plus=0.05,
            a2_minus=0.04,
            a3_plus=0.03,
            a3_minus=0.02,
            **BOUNDS,
        ),
        (20.0, 50.0),
        lambda w, x, y: w - y[0] * (0.04 + 0.02 * x[1]),
        lambda w, x, y: w + x[0] * (0.05 + 0.03 * y[1]),
    ),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_the_other_rules_written_as_two_functions(name):
    arguments, times, on_pre, on_post = WRITTEN_OUT[name]
    rule, synapses = getattr(hebbax, name)(**arguments), hebbax.Synapses.random((30, 20), prob=0.5, seed=1)
    decay = np.exp(-1 / np.float32(times))[:, None]
    high = arguments.get("w_max", np.inf)

    def bounded(function):
        return lambda w, x, y: jnp.clip(function(w, x, y), 0.0, high)

    @jax.jit
    def both(carry, spikes):
        weight, state, ours, x, y = carry
        weight, state = rule.step(synapses, weight, state, *spikes, 1.0)
        x, y = decay * x, decay * y
        ours = synapses.apply_on_pre(bounded(on_pre), ours, spikes[0], pre=x.T, post=y.T)
        ours = synapses.apply_on_post(bounded(on_post), ours, spikes[1], pre=x.T, post=y.T)
        return (weight, state, ours, x + spikes[0], y + spikes[1]), None

    rng, weight = np.random.default_rng(0), jnp.full(synapses.nse, 0.5, jnp.float32)
    spikes = rng.random((50, 30)) < 0.1, rng.random((50, 20)) < 0.1
    traces = (jnp.zeros((len(times), n), jnp.float32) for n in synapses.shape)
    carry = weight, rule.init(synapses), weight, *traces
    (weight, _, ours, *_), _ = jax.lax.scan(both, carry, spikes)
    np.testing.assert_allclose(ours, weight, rtol=2e-5, atol=1e-6)
    assert np.ptp(weight) > 0.2


def smooth(w, pre, post):
    return w + 0.1 * jnp.sin(pre * w) * jnp.exp(-post)


@pytest.mark.parametrize("side", SIDES)
def test_derivatives_forwards_and_backwards_also_of_what_the_function_closes_over(side):
    rng, synapses, (weight, _), pre, post = network(5)
    spike = rng.random(synapses.shape[SIDES.index(side)]) < 0.5

    def function(weight, pre, post, rate):
        def one(w, pre, post):
            return smooth(w, pre, post) * rate

        return apply_on(synapses, side, one, weight, spike, pre=pre, post=post, capacity=8)

    given = weight, pre, post, np.float32(0.5)
    check_grads(jax.jit(function), given, order=1, modes=("fwd", "rev"), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("side", SIDES)
def test_vmap_and_jit_give_what_single_calls_give(side):
    rng, synapses, _, pre, post = network(6)
    spikes = rng.random((3, synapses.shape[SIDES.index(side)])) < 0.5
    weights = rng.uniform(-1, 1, (3, synapses.nse)).astype(np.float32)

    def one(weight, spike, rate):
        return apply_on(synapses, side, lambda w, x, y: smooth(w, x, y) * rate, weight, spike, pre=pre, post=post)

    rates = np.float32([0.5, 0.25, 1.0])
    out = jax.jit(jax.vmap(one))(weights, spikes, rates)
    single = [one(*x) for x in zip(weights, spikes, rates, strict=True)]
    np.testing.assert_allclose(out, np.stack(single), rtol=1e-6, atol=1e-6)
    gradient = jax.grad(lambda w: jax.vmap(one)(w, spikes, rates).sum())(weights)
    slope = jax.jit(jax.grad(lambda *x: one(*x).sum()))
    singles = [slope(*x) for x in zip(weights, spikes, rates, strict=True)]
    np.testing.assert_allclose(gradient, np.stack(singles), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "batched", ["weight age limit", "spike", "pre", "post limit", "rate", "weight spike post rate"]
)
def test_vmap_over_any_of_the_operands(side, batched):
    rng, synapses, (weight, age), pre, post = network(11)
    limit, spike = weight + 0.25, rng.random(synapses.shape[SIDES.index(side)]) < 0.5
    given = dict(weight=weight, age=age, limit=limit, spike=spike, pre=pre, post=post, rate=np.float32(0.5))
    batch = {
        name: np.stack([given[name], np.roll(given[name], 1), 1 - given[name]])
        for name in batched.split()
        if name != "spike"
    }
    if "spike" in batched:
        batch["spike"] = np.stack([spike, ~spike, np.zeros_like(spike)])

    @jax.jit
    def one(given):
        def function(synapse, x, y):
            weight, age, limit = synapse
            return jnp.minimum(weight * given["rate"] + x * y, limit) - age, age + 1, limit

        values = given["weight"], given["age"], given["limit"]
        return apply_on(
            synapses, side, function, values, given["spike"], pre=given["pre"], post=given["post"], capacity=16
        )

    axes = {name: 0 if name in batch else None for name in given}
    out = jax.vmap(one, in_axes=(axes,), out_axes=0)(given | batch)
    single = [one(given | {name: x[k] for name, x in batch.items()}) for k in range(3)]
    for got, *expected in zip(out, *single, strict=True):
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_a_batch_of_batches_and_one_of_structures(side):
    rng, synapses, _, pre, post = network(12, (8, 8))
    spikes = rng.random((2, 3, 8)) < 0.5
    weights = rng.uniform(-1, 1, (2, synapses.nse)).astype(np.float32)

    def one(weight, spike, synapses=synapses):
        return apply_on(synapses, side, smooth, weight, spike, pre=pre, post=post, capacity=16)

    out = jax.vmap(jax.vmap(one, in_axes=(None, 0)))(weights, spikes)
    alone = jax.jit(one)
    expected = [[alone(weights[j], spikes[j, k]) for k in range(3)] for j in range(2)]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), synapses)
    out = jax.vmap(one)(weights, spikes[:, 0], both)
    np.testing.assert_allclose(out, [alone(weights[j], spikes[j, 0]) for j in range(2)], rtol=1e-6, atol=1e-6)


@pytest.mark.optimised
def test_a_batch_copies_no_values():
    synapses = hebbax.Synapses.random((200, 300), prob=0.2, seed=2)

    @functools.partial(jax.jit, donate_argnums=1)
    def run(synapses, weights, spikes):
        one = jax.vmap(lambda weight, spike: synapses.apply_on_post(lambda w, x, y: w * 0.5, weight, spike))
        return jax.lax.scan(lambda weights, spikes: (one(weights, spikes), None), weights, spikes)[0]

    text = run.lower(synapses, jnp.ones((3, synapses.nse)), np.zeros((4, 3, 300), bool)).compile().as_text()
    assert at_least(text, synapses.nse, "copy", "copy-start", "dynamic-slice", kind="f32") == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("check", [False, True][: 1 + hasattr(jax.lax, "pcast")])  # before JAX 0.8, without its check
def test_shard_map(side, check):
    """Each device its own members of a batch; here there is one."""
    rng, synapses, _, pre, post = network(7)
    spikes = rng.random((2, synapses.shape[SIDES.index(side)])) < 0.5
    weights = rng.uniform(-1, 1, (2, synapses.nse)).astype(np.float32)

    def one(weight, spike):
        return apply_on(synapses, side, smooth, weight, spike, pre=pre, post=post)

    mesh, members = Mesh(jax.devices()[:1], ("members",)), P("members")
    run = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=members, out_specs=members, check_vma=check)
    np.testing.assert_allclose(jax.jit(run)(weights, spikes), jax.vmap(one)(weights, spikes), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda w: run(w, spikes).sum()))(weights)
    expected = jax.jit(jax.grad(lambda w: jax.vmap(one)(w, spikes).sum()))(weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_what_a_function_closes_over_may_be_traced():
    synapses = hebbax.Synapses.random((8, 8), prob=0.5, seed=2)
    weight, spike = jnp.full(synapses.nse, 0.5), jnp.ones(8, bool)

    @jax.jit
    def decay(weight, factor, steps):
        return synapses.apply_on_pre(lambda w, pre, post: w * factor**steps, weight, spike)

    np.testing.assert_allclose(decay(weight, 0.5, 2), np.full(synapses.nse, 0.125))


WRONG = [
    (dict(pre_spike=np.ones(3, bool)), hebbax.ShapeError, r"pre_spike: got shape \(3,\), expected \(4,\)$"),
    (
        dict(pre_spike=np.ones((4, 2))),
        hebbax.ShapeError,
        r"pre_spike: got shape \(4, 2\), .* map over it with jax.vmap",
    ),
    (dict(pre_spike=None), TypeError, "pre_spike: got NoneType, expected an array"),
    (dict(pre_spike=[True] * 4), TypeError, "pre_spike: got list, expected an array"),
    (dict(pre_spike=np.ones(4) * u.mV), TypeError, "pre_spike: got Quantity, expected an array"),
    (dict(pre_spike=np.ones(4, complex)), TypeError, "pre_spike: got dtype complex64, expected a real dtype"),
    (dict(per_synapse=None), TypeError, "per_synapse: got None, expected at least one array"),
    (
        dict(per_synapse=(np.ones(5),)),
        hebbax.ShapeError,
        r"per_synapse\[0\]: got shape \(5,\), expected 4 in the first",
    ),
    (
        dict(per_synapse=dict(g=np.ones(5) * u.nS)),
        hebbax.ShapeError,
        r"per_synapse\['g'\]: got shape \(5,\), expected 4",
    ),
    (dict(per_synapse=np.array(["a"] * 4)), TypeError, "per_synapse: got dtype <U1, expected one that JAX knows"),
    (dict(post=dict(v=np.ones(4))), hebbax.ShapeError, r"post\['v'\]: got shape \(4,\), expected 3 in the"),
    (dict(pre=1.0), hebbax.ShapeError, r"pre: got shape \(\), expected 4 in the first dimension"),
    (dict(capacity=0), ValueError, "capacity: got 0, expected at least 1"),
    (dict(capacity=1.5), TypeError, "capacity: got 1.5, expected an integer"),
    (dict(function=None), TypeError, "function: got NoneType, expected a function"),
    (
        dict(function=lambda w, pre, post: (w, w)),
        TypeError,
        r"function: returned \(a value, a value\), expected a value, as its first argument",
    ),
    (
        dict(per_synapse=(np.ones(4),), function=lambda synapse, pre, post: (jnp.stack([synapse[0]] * 2),)),
        hebbax.ShapeError,
        r"function\(...\)\[0\]: got shape \(2,\), expected \(\), that of its first argument",
    ),
    (
        dict(per_synapse=np.arange(4), function=lambda n, pre, post: n + 0.5),
        TypeError,
        r"function\(...\): got dtype float32, expected int32, that of its first argument",
    ),
    (
        dict(function=lambda w, pre, post: w * u.mV),
        u.UnitMismatchError,
        r"function\(...\): got a Quantity of unit mV, expected a plain number",
    ),
    (
        dict(per_synapse=np.ones(4) * u.nS, function=lambda w, pre, post: w * u.mV),
        u.UnitMismatchError,
        r"function\(...\): got a Quantity of unit .*, expected a Quantity of unit nS",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_wrong_arguments_are_named(changed, error, message):
    synapses = hebbax.Synapses([0, 1, 2, 2, 4], [0, 2, 0, 1], shape=(4, 3))
    arguments = dict(function=lambda w, pre, post: w, per_synapse=np.ones(4, np.float32), pre_spike=np.ones(4, bool))
    with pytest.raises(error, match=message):
        synapses.apply_on_pre(**(arguments | changed))


@pytest.mark.parametrize("side", SIDES)
def test_an_index_out_of_range_is_an_error_or_skipped(tiles, side):
    synapses = hebbax.Synapses([0, 1, 2], [0, 1], shape=(2, 2))
    leaves, tree = jax.tree.flatten(synapses)

    def call(dtype):
        wrong = [jnp.where(x == 1, 7, x) if x.shape == (2,) else x for x in leaves]
        wrong = jax.tree.unflatten(tree, [jnp.asarray(x, dtype) for x in wrong])
        return np.asarray(apply_on(wrong, side, lambda w, pre, post: w + 1, jnp.zeros(2), jnp.ones(2, bool)))

    for dtype in (jnp.int32, jnp.int64):
        with enable_x64(dtype == jnp.int64):
            if tiles == "jax":
                np.testing.assert_array_equal(call(dtype), [1, 0])
                continue
            message = rf"apply_on_{side}: indices\[1\] = 7, expected a neuron in \[0, 2\)"
            with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
                call(dtype)


def test_a_second_derivative_is_refused():
    synapses = hebbax.Synapses([0, 1, 2], [0, 1], shape=(2, 2))

    def total(weight):
        return synapses.apply_on_pre(lambda w, pre, post: w**3, weight, jnp.ones(2, bool)).sum()

    with pytest.raises(NotImplementedError, match="second derivative"):
        jax.hessian(total)(jnp.ones(2))


@pytest.mark.optimised
@pytest.mark.parametrize("side", SIDES)
def test_a_compiled_step_copies_no_array_of_all_synapses(side):
    """Also where new values do not depend on the old ones, and where some values only are read."""
    synapses = hebbax.Synapses.random((200, 300), prob=0.2, seed=2)
    spikes = np.zeros((4, synapses.shape[SIDES.index(side)]), bool)

    @functools.partial(jax.jit, donate_argnums=1)
    def run(synapses, values, limit, spikes):
        def rule(synapse, pre, post):
            weight, seen, since, limit = synapse
            return jnp.minimum(weight * 0.5 + seen + since, limit), pre, jnp.zeros_like(since), limit

        def step(values, spike):
            out = apply_on(synapses, side, rule, (*values, limit), spike, pre=jnp.ones(200), post=jnp.ones(300))
            assert out[3] is limit
            return out[:3], None

        return jax.lax.scan(step, values, spikes)[0]

    ones = [jnp.ones(synapses.nse) + k for k in range(4)]
    text = run.lower(synapses, tuple(ones[:3]), ones[3], spikes).compile().as_text()
    assert [line for line in text.splitlines() if f"f32[{synapses.nse}]" in line and " copy(" in line] == []


def test_values_that_are_only_read_have_derivatives_too():
    rng, synapses, (weight, _), pre, _ = network(8)
    limit, spike = rng.uniform(-1, 1, synapses.nse).astype(np.float32), rng.random(12) < 0.5

    def total(weight, limit):
        def rule(synapse, pre, post):
            return synapse[0] * synapse[1] ** 2 + pre, synapse[1]

        return (synapses.apply_on_pre(rule, (weight, limit), spike, pre=pre, capacity=8)[0] * factor).sum()

    factor = rng.uniform(0, 1, weight.shape).astype(np.float32)
    check_grads(jax.jit(total), (weight, limit), order=1, modes=("fwd", "rev"), rtol=0.02, atol=0.02)


@pytest.mark.optimised
@pytest.mark.parametrize("side", SIDES)
def test_what_is_computed_of_the_values_before_copies_none_of_them(side):
    """`after`, as in the updates: a whole step, with what the weights are read for."""
    synapses = hebbax.Synapses.random((200, 300), prob=0.2, seed=2)
    spikes = np.zeros((4, 200), bool), np.zeros((4, 300), bool)

    @functools.partial(jax.jit, donate_argnums=1, static_argnums=3)
    def run(synapses, weight, spikes, waits):
        def step(weight, spikes):
            current = synapses.propagate_on_pre(weight, spikes[0])
            options = dict(after=current) if waits else {}
            weight = apply_on(synapses, side, lambda w, x, y: w * 0.5, weight, spikes[SIDES.index(side)], **options)
            return weight, current

        return jax.lax.scan(step, weight, spikes)

    def copies(waits):
        text = run.lower(synapses, jnp.ones(synapses.nse), spikes, waits).compile().as_text()
        return [line for line in text.splitlines() if f"f32[{synapses.nse}]" in line and " copy(" in line]

    assert copies(True) == [] and copies(False)


def test_the_function_is_not_called_for_pairs_that_have_no_synapse(tiles):
    """Whose values might make a gradient NaN, or a loop endless: neuron 2 has none."""
    synapses = hebbax.Synapses([0, 1, 2], [0, 1], shape=(2, 3))
    post, spike = jnp.array([1.0, 2.0, 0.0]), jnp.ones(2, bool)

    def root(rate):
        return synapses.apply_on_pre(lambda w, x, y: w + jnp.sqrt(rate * y), jnp.ones(2), spike, post=post).sum()

    np.testing.assert_allclose(jax.grad(root)(1.0), 0.5 * (1 + np.sqrt(2)), rtol=1e-6)

    def halved(w, x, threshold):
        return jax.lax.while_loop(lambda w: w > threshold, lambda w: w / 2, w)

    out = synapses.apply_on_pre(halved, jnp.ones(2), spike, post=jnp.array([0.3, 0.6, -1.0]), capacity=7)
    np.testing.assert_array_equal(out, [0.25, 0.5])


@pytest.mark.skipif(not hasattr(jax.lax, "pcast"), reason="before JAX 0.8, without its check")
def test_what_a_function_closes_over_in_shard_map():
    synapses = hebbax.Synapses([0, 1, 2], [0, 1], shape=(2, 2))
    mesh, weights, rates = Mesh(jax.devices()[:1], ("m",)), jnp.ones((1, 2)), jnp.full(1, 3.0)

    def one(weight, rate):
        return synapses.apply_on_pre(lambda w, x, y: w * rate, weight, jnp.ones(2, bool))

    def run(function, weight, rate, *specs):
        function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("m"))
        return jax.jit(jax.value_and_grad(lambda rate: function(weight, rate).sum()))(rate)

    cast = run(lambda w, r: one(w[0], jax.lax.pcast(r, "m", to="varying"))[None], weights, 3.0, P("m"), P())
    other = run(lambda w, r: one(w, r[0])[None], weights[0], rates, P(), P("m"))  # only the closed-over array varies
    assert [float(np.sum(x)) for x in (*cast, *other)] == [6.0, 2.0, 6.0, 2.0]
    with pytest.raises(ValueError, match="function: closes over an array that is the same on all devices"):
        run(lambda w, r: one(w[0], r)[None], weights, 3.0, P("m"), P())


def test_keys_of_random_numbers_and_numbers_without_a_unit():
    synapses = hebbax.Synapses([0, 2], [0, 1], shape=(1, 2))
    state = jax.random.split(jax.random.key(0), 2), u.Quantity(jnp.ones(2))

    def draw(synapse, pre, post):
        key, weight = synapse
        return jax.random.fold_in(key, 1), weight * 2 + jax.random.uniform(key)

    keys, weight = synapses.apply_on_pre(draw, state, jnp.ones(1, bool))
    assert (keys == jax.vmap(lambda key: jax.random.fold_in(key, 1))(state[0])).all()
    np.testing.assert_allclose(weight.mantissa, 2 + jax.vmap(jax.random.uniform)(state[0]), rtol=1e-6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("names", [("indptr",), ("indices", "csc_indices"), None])
def test_wide_indices(side, names):
    """Of the structure all, or some: then without the kernel."""
    with enable_x64(True):
        rng, synapses, values, pre, post = network(9)
        spike = rng.random(synapses.shape[SIDES.index(side)]) < 0.5
        arrays = {name: x for name, x in vars(synapses).items() if name != "shape"}
        wide = {name: jnp.asarray(x, jnp.int64) for name, x in arrays.items() if names is None or name in names}
        wide = assemble(hebbax.Synapses, vars(synapses) | wide)
        out = apply_on(wide, side, rule, values, spike, pre=pre, post=post, capacity=16)
        for got, expected in zip(out, by_hand(synapses, side, values, spike, pre, post), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_more_neurons_than_lists_of_spikes_have_room_for_are_refused_by_name(side):
    n = 2**31
    shape = (n, 3) if side == "pre" else (3, n)
    sizes = dict(indptr=shape[0] + 1, indices=5, csc_indptr=shape[1] + 1, csc_indices=5, weight_indices=5)
    fields = {name: jax.ShapeDtypeStruct((size,), np.int64) for name, size in sizes.items()}
    synapses = assemble(hebbax.Synapses, {**fields, "shape": shape})
    values, spike = jax.ShapeDtypeStruct((5,), np.float32), jax.ShapeDtypeStruct((n,), bool)
    with enable_x64(True), pytest.raises(OverflowError, match=f"^{side}_spike: got {n} neurons, expected at most"):
        jax.eval_shape(lambda s, *x: apply_on(s, side, lambda w, *_: w, *x), synapses, values, spike)
