"""Rules and currents with delays against the closed form with shifted spike times."""

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stdp_reference
from test_agreement import DT, NEST_PAIR, W_START, all_to_all, double_precision, quantities, random_trains  # noqa: F401

import hebbax
from hebbax.delays import Ring

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
