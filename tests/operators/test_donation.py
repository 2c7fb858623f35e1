"""In place: no copy of the weight under donation, in `scan`, and in a step that also reads it."""

import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
from hebbax._core.specs import PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE
from problems import BACKENDS, PLATFORM, call, operands, random_network

pytestmark = pytest.mark.optimised
SHAPE, NSE = (60, 70), 1777  # a size that nothing else here has
BOUNDS = {"w_min": -1.0, "w_max": 1.0}
TYPES = {"float32": "f32", "bfloat16": "bf16"}


def copies(text, dtype="float32", size=NSE):
    """The instructions of compiled HLO that copy an array of the weight's size and type."""
    pattern = rf"= {TYPES[dtype]}\[{size}\]\S* copy(?:-start)?\(.*"
    return re.findall(pattern, text)


@pytest.fixture
def network(rng):
    return random_network(rng, SHAPE, NSE)


def on_device(given):
    return {name: jnp.array(x, copy=True) for name, x in given.items()}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("options", [{}, BOUNDS, BOUNDS | {"weight_in_bounds": True}], ids=str)
def test_donated_weight_is_updated_in_place(update, network, rng, kernel, options, dtype):
    given = on_device(operands(update, rng, network, jnp.dtype(dtype)))
    weight = given.pop("weight")

    def function(weight, given):
        return call(update, given | {"weight": weight}, shape=SHAPE, backend=kernel, **options)

    expected = np.array(jax.jit(function)(weight, given))
    before = weight.unsafe_buffer_pointer()
    step = jax.jit(function, donate_argnums=0)
    out = step(weight, given)
    assert weight.is_deleted() and out.unsafe_buffer_pointer() == before
    np.testing.assert_array_equal(np.array(out), expected)
    assert copies(step.lower(out, given).compile().as_text(), dtype) == []


def test_weight_that_is_not_donated_is_copied(update, network, rng, kernel):
    given = on_device(operands(update, rng, network))
    out = call(update, given, shape=SHAPE, backend=kernel)
    assert out.unsafe_buffer_pointer() != given["weight"].unsafe_buffer_pointer()


@pytest.mark.parametrize("options", [{}, BOUNDS], ids=str)
def test_scan_updates_in_place(update, network, rng, kernel, options):
    given = on_device(operands(update, rng, network))
    weight = given.pop("weight")
    spikes = jnp.array(rng.random((5, given.pop("spike").size)) < 0.3)

    def step(weight, spike):
        return call(update, given | {"weight": weight, "spike": spike}, shape=SHAPE, backend=kernel, **options)

    def function(weight, spikes):
        return jax.lax.scan(lambda w, spike: (step(w, spike), None), weight, spikes)[0]

    expected = weight
    for spike in spikes:
        expected = step(expected, spike)
    run = jax.jit(function, donate_argnums=0)
    assert copies(run.lower(weight, spikes).compile().as_text()) == []
    before = weight.unsafe_buffer_pointer()
    out = run(weight, spikes)
    assert out.unsafe_buffer_pointer() == before
    np.testing.assert_array_equal(out, expected)


RECORDED = np.arange(1, NSE, 100)  # of many rows: NumPy sorts ties, and so draws networks, as the processor has it
# What the first update waits for, of what the step has computed from the weight.
READ = {
    "current": lambda current, seen: current,
    "both": lambda current, seen: (current, {"seen": seen}),
    "nothing": lambda current, seen: None,
}


def simulation(network, rng, *, kernel, after, record=False):
    """Steps of a plastic network in `scan`: propagate -> update_pre -> update_post; its donated state and its input."""
    pre, post = (on_device(network.structure(spec)) for spec in (UPDATE_PRE, UPDATE_POST))
    options = {"shape": SHAPE, "backend": kernel}
    bounds = BOUNDS | {"weight_in_bounds": True} | options

    def step(state, pre_spike):
        weight, voltage, pre_trace, post_trace = state
        seen = weight[RECORDED] if record else None
        current = call(PROPAGATE_PRE, {"weight": weight, "spike": pre_spike, **pre}, **options)
        voltage = 0.9 * voltage + current
        post_spike = voltage > 1
        given = {"spike": pre_spike, "trace": -post_trace, **pre, "after": READ[after](current, seen)}
        weight = call(UPDATE_PRE, {"weight": weight, **given}, **bounds)
        given = {"spike": post_spike, "trace": pre_trace, **post}
        weight = call(UPDATE_POST, {"weight": weight, **given}, **bounds)
        pre_trace, post_trace = (
            0.9 * trace + jnp.where(spike, 0.01, 0)
            for trace, spike in ((pre_trace, pre_spike), (post_trace, post_spike))
        )
        return (weight, jnp.where(post_spike, 0, voltage), pre_trace, post_trace), (post_spike, seen)

    weight = jnp.array(rng.uniform(-1, 1, network.nse), jnp.float32)
    state = weight, jnp.zeros(SHAPE[1]), jnp.zeros(SHAPE[0]), jnp.zeros(SHAPE[1])
    spikes = jnp.array(rng.random((20, SHAPE[0])) < 0.2)
    return jax.jit(lambda state, spikes: jax.lax.scan(step, state, spikes), donate_argnums=0), state, spikes


@pytest.mark.parametrize("record", [False, True])
def test_plastic_step_with_after_copies_no_weight(network, rng, kernel, record):
    """Also where it records some weights before they are changed."""
    after = "both" if record else "current"
    run, state, spikes = simulation(network, rng, kernel=kernel, after=after, record=record)
    text = run.lower(state, spikes).compile().as_text()
    if record and PLATFORM == "cuda":  # there XLA merges the recording into what stores it, later
        assert copies(text)
        return
    assert f"f32[{NSE}]" in text and copies(text) == []
    before = state[0].unsafe_buffer_pointer()
    start = np.array(state[0])
    (weight, *_), (post_spikes, seen) = run(state, spikes)
    assert weight.unsafe_buffer_pointer() == before
    assert post_spikes.any()
    if record:
        np.testing.assert_array_equal(seen[0], start[RECORDED])
        assert np.any(seen[-1] != seen[0])


@pytest.mark.parametrize("after, record", [("nothing", False), ("current", True)])
def test_the_search_for_copies_finds_those_made_without_after(network, rng, kernel, after, record):
    """If XLA should learn to do without, as on GPUs, unless weights are recorded, `after` has become unnecessary."""
    run, state, spikes = simulation(network, rng, kernel=kernel, after=after, record=record)
    assert bool(copies(run.lower(state, spikes).compile().as_text())) == (record or PLATFORM == "cpu")


@pytest.mark.parametrize("other", [name for name in BACKENDS if name != "cupy"])  # whose sums differ in the last bits
def test_after_does_not_change_the_simulation(network, other):
    results = []
    for after in ("nothing", "both"):
        run, state, spikes = simulation(network, np.random.default_rng(3), kernel=other, after=after, record=True)
        results.append(jax.tree.map(np.array, run(state, spikes)))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_a_rule_whose_weights_are_recorded_copies_none(rng, cpu_kernel):
    """Read before the step and waited for, and read after it."""
    synapses = hebbax.Synapses.random(SHAPE, prob=0.4, seed=rng)
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.01, 0.0105, 0.0, 1.0)
    spikes = jnp.array(rng.random((5, sum(SHAPE))) < 0.3)

    def step(state, spike):
        weight = state[0]
        pre_spike, post_spike = jnp.split(spike, [SHAPE[0]])
        seen = weight[RECORDED]
        current = synapses.propagate_on_pre(weight, pre_spike, backend=cpu_kernel)
        after = (current, seen)
        state = rule.step(synapses, *state, pre_spike, post_spike, 1 * u.ms, after=after, backend=cpu_kernel)
        return state, (current, seen, state[0][RECORDED])

    run = jax.jit(lambda state, spikes: jax.lax.scan(step, state, spikes), donate_argnums=0)
    text = run.lower((jnp.full(synapses.nse, 0.5), rule.init(synapses)), spikes).compile().as_text()
    assert f"f32[{synapses.nse}]" in text and copies(text, size=synapses.nse) == []
