"""Potentiation that is done late, `hebbax.rules._late`, against the rules' own steps."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hebbax
from hebbax import _cpu
from hebbax._core import visit
from hebbax._core.sent import pack
from hebbax.rules import _late

pytestmark = pytest.mark.skipif(_cpu.missing is not None, reason="needs the CPU kernels")
DT = 0.1 * u.ms
RULES = {
    "additive": hebbax.PairSTDP(20.0 * u.ms, 15.0 * u.ms, 0.05, 0.06, 0.0, 1.0),
    "nearest": hebbax.PairSTDP(20.0 * u.ms, 15.0 * u.ms, 0.05, 0.06, 0.0, 1.0, pairing="nearest"),
    "multiplicative": hebbax.PairSTDP(5.0 * u.ms, 15.0 * u.ms, 0.05, 0.06, 0.0, 1.0, mu_plus=1.0, mu_minus=1.0),
    "between": hebbax.PairSTDP(20.0 * u.ms, 15.0 * u.ms, 0.05, 0.06, 0.0, 1.0, mu_plus=0.3, mu_minus=0.2),
    "unbounded": hebbax.PairSTDP(20.0 * u.ms, 15.0 * u.ms, 0.05, 0.06, -np.inf, np.inf),
    "power law": hebbax.PowerLawSTDP(15.0 * u.ms, 30.0 * u.ms, 0.1, 0.5, w_0=1.0),
}


def network(seed, n_pre, n_post, prob):
    rng = np.random.default_rng(seed)
    synapses, weight = hebbax.Synapses.from_dense(
        np.where(rng.random((n_pre, n_post)) < prob, rng.uniform(0.1, 0.9, (n_pre, n_post)), 0).astype(np.float32)
    )
    return synapses, weight, rng


def run(rule, synapses, weight, pre, post, *, dendritic, late, first=0, settled=()):
    """Weights that were sent at every step, and the last ones: by the rule's steps, or late."""
    steps, n_pre = pre.shape
    lists = pack(jnp.asarray(pre), pre.size)
    state = _late.start(synapses) if late else rule.init(synapses)
    numbers = _late.pair_rule(rule, synapses, DT, dendritic=dendritic)

    def step(carry, inputs):
        weight, state = carry
        k, pre_spike, post_spike = inputs
        named = lists.at(k)
        if late:
            returned = post_spike if dendritic else None
            weight, state, sent = _late.arrive(numbers, synapses, weight, state, named, returned, first + k)
            return (weight, _late.leave(rule, synapses, state, post_spike, DT, sent)), sent
        if dendritic:
            new, state = _late.step_returned(rule, synapses, weight, state, pre_spike, post_spike, DT, None)
        else:
            new, state = rule.step(synapses, weight, state, pre_spike, post_spike, DT)
        sent = synapses.propagate_on_pre(new if dendritic else weight, pre_spike)
        return (new, state), sent

    if late:
        state = state._replace(pre=visit.Archive.empty(*synapses.shape, first))
    settle = jax.jit(lambda weight, state, step: _late.settle(numbers, synapses, weight, state, step))
    carry, sent, start = (weight, state), [], 0
    for end in (*settled, steps):
        inputs = jnp.arange(start, end), jnp.asarray(pre[start:end]), jnp.asarray(post[start:end])
        carry, some = jax.jit(lambda carry, inputs: jax.lax.scan(step, carry, inputs))(carry, inputs)
        sent.append(some)
        if late:
            carry = settle(*carry, first + end)
        start = end
    return np.concatenate(sent), np.asarray(carry[0])


def spikes(rng, steps, n, rate):
    return rng.random((steps, n)) < rate


@pytest.mark.parametrize("dendritic", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_late_is_as_at_once(name, dendritic):
    synapses, weight, rng = network(1, 23, 17, 0.4)
    pre, post = spikes(rng, 300, 23, 0.05), spikes(rng, 300, 17, 0.08)
    options = dict(dendritic=dendritic)
    sent, last = run(RULES[name], synapses, weight, pre, post, late=False, **options)
    sent_late, last_late = run(RULES[name], synapses, weight, pre, post, late=True, **options)
    assert np.abs(last - np.asarray(weight)).max() > 0.1
    np.testing.assert_allclose(sent_late, sent, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(last_late, last, rtol=2e-4, atol=2e-5)
