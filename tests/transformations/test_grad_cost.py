"""What a derivative costs, seen in the compiled program: kernels that go from event to event, nothing dense.

Where no clipping asks for more, nothing is gathered or scattered that has the size of the synapses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax
import hlo
from problems import call, operands, random_network

pytestmark = pytest.mark.optimised
SHAPE, NSE = (60, 70), 1777  # a size that nothing else here has; 60 * 70 = 4200 neither
MODES = {
    "unclipped": {}, "in bounds": {"w_min": -1.0, "w_max": 1.0, "weight_in_bounds": True},
    "soft, in bounds": {"w_min": -1.0, "w_max": 1.0, "weight_in_bounds": True, "soft_bound": "upper", "mu": 0.5},
    "clipped": {"w_min": -1.0, "w_max": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(0), SHAPE, NSE)


def loss(spec, network, rng, backend="cython", gain=False, **options):
    """A loss that is not linear, and a dict of what it is differentiated by."""
    given = operands(spec, rng, network)
    x = {name: jnp.asarray(given.pop(name)) for name in ("weight", "trace") if name in given}
    if gain:
        x["gain"] = jnp.ones(given["spike"].size)
    return lambda x: (call(spec, given | x, shape=SHAPE, backend=backend, **options) ** 2).sum(), x


def indirect(text):
    """What follows indices: XLA keeps some of it as an operation, and turns some into loops over slices."""
    operations = ("gather", "scatter", "dot", "sort", "dynamic-slice", "dynamic-update-slice")
    return [" while("] * text.count(" while(") + hlo.at_least(text, NSE, *operations)


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_of_update(update, network, rng, mode, gain):
    """Also clipping needs elementwise work alone: which weights a spike touches, a kernel finds."""
    function, x = loss(update, network, rng, gain=gain, **MODES[mode])
    text = hlo.compiled(jax.value_and_grad(function), x).as_text()
    found = hlo.custom_calls(text)
    assert set(found) == {"update", "propagate"} | ({"collect"} if gain else set())
    assert indirect(text) == []
    assert hlo.at_least(text, SHAPE[0] * SHAPE[1]) == []  # no dense matrix


def test_a_linear_backward_pass_is_one_propagate(update, network, rng):
    function, x = loss(update, network, rng)
    text = hlo.compiled(jax.value_and_grad(function), x).as_text()
    assert hlo.custom_calls(text) == ["propagate", "update"]


def test_gradient_of_propagate(propagate, network, rng):
    function, x = loss(propagate, network, rng)
    text = hlo.compiled(jax.value_and_grad(function), x).as_text()
    assert hlo.custom_calls(text) == ["propagate", "update"]
    assert indirect(text) == [] and hlo.at_least(text, SHAPE[0] * SHAPE[1]) == []


def test_gradient_of_floating_spikes(propagate, network, rng):
    """For all neurons, spiking or not: O(nse), in a kernel."""
    given = operands(propagate, rng, network)
    spike = jnp.asarray(given.pop("spike"), jnp.float32)
    function = lambda s: (call(propagate, given | {"spike": s}, shape=SHAPE, backend="cython") ** 2).sum()  # noqa: E731
    text = hlo.compiled(jax.value_and_grad(function), spike).as_text()
    assert hlo.custom_calls(text) == ["collect", "propagate"]
    assert indirect(text) == [] and hlo.at_least(text, SHAPE[0] * SHAPE[1]) == []


@pytest.mark.parametrize("mode", ["unclipped", "clipped"])
def test_forward_mode(update, network, rng, mode):
    function, x = loss(update, network, rng, gain=True, **MODES[mode])
    text = hlo.compiled(lambda x: jax.jvp(function, (x,), (x,)), x).as_text()
    assert set(hlo.custom_calls(text)) == {"update"}
    assert indirect(text) == [] and hlo.at_least(text, SHAPE[0] * SHAPE[1]) == []


def test_the_weight_alone_costs_nothing_without_bounds(update, network, rng):
    """An update is the identity in its weight then: no kernel runs backward, nor for the value, which nobody wants."""
    fixed = operands(update, rng, network)
    weight = fixed.pop("weight")

    def backward(weight, cotangent):
        function = lambda w: call(update, fixed | {"weight": w}, shape=SHAPE, backend="cython")  # noqa: E731
        return jax.vjp(function, weight)[1](cotangent)

    assert hlo.custom_calls(hlo.compiled(backward, weight, jnp.ones(NSE)).as_text()) == []


def test_a_simulation_keeps_its_cost(network, rng):
    """The gradient through the steps of a rule: kernels in the two loops, and nothing else that has an index."""
    synapses = hebbax.Synapses.random(SHAPE, prob=0.5, seed=1)
    weight = jnp.asarray(rng.uniform(0, 1, synapses.nse), jnp.float32)
    pre, post = (jnp.asarray(rng.random((10, n)) < 0.2) for n in SHAPE)

    def function(parameters, weight):
        rule = hebbax.PairSTDP(*parameters, 0.0, 1.0, mu_plus=0.5)

        def step(carry, spikes):
            return rule.step(synapses, *carry, *spikes, 1.0, backend="cython"), None

        return (jax.lax.scan(step, (weight, rule.init(synapses)), (pre, post))[0][0] ** 2).sum()

    text = hlo.compiled(jax.value_and_grad(function, (0, 1)), jnp.float32([20.0, 30.0, 0.1, 0.12]), weight).as_text()
    assert set(hlo.custom_calls(text)) == {"update", "propagate", "collect", "fence"}
    assert hlo.at_least(text, synapses.nse, "gather", "scatter", "sort", "dot") == []
    # What the backward pass reads again is kept for all ten steps.
    largest = max(size for _, size, _ in hlo.instructions(text))
    assert largest <= 10 * synapses.nse


def test_the_search_finds_what_plain_jax_does(update, network, rng):
    """Or it would find nothing anywhere."""
    function, x = loss(update, network, rng, backend="jax", **MODES["in bounds"])
    text = hlo.compiled(jax.value_and_grad(function), x).as_text()
    assert hlo.custom_calls(text) == [] and indirect(text)
    dense = lambda w: jnp.zeros(SHAPE).at[network.pre, network.post].add(w)  # noqa: E731
    text = hlo.compiled(jax.grad(lambda w: (dense(w) ** 2).sum()), x["weight"]).as_text()
    assert hlo.at_least(text, SHAPE[0] * SHAPE[1])
