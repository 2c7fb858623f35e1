"""Potentiation that is done late, `hebbax.rules._late`, against the rules' own steps."""

import dataclasses
from types import SimpleNamespace

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
from hebbax._core.pytree import assemble
from hebbax._core.sent import SpikeLists, pack
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


def run(rule, synapses, weight, pre, post, *, dendritic, late, first=0, settled=(), passes=None):
    """Weights that were sent at every step, and the last ones: by the rule's steps, or late.

    To `passes` is added how far rows have taken what they missed before they are told to, and the shares of all steps.
    """
    steps = len(pre)
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
            share = state.pre.settling[4]
            return (weight, _late.leave(rule, synapses, state, post_spike, DT, sent)), (sent, share)
        if dendritic:
            new, state = _late.step_returned(rule, synapses, weight, state, pre_spike, post_spike, DT, None)
        else:
            new, state = rule.step(synapses, weight, state, pre_spike, post_spike, DT)
        sent = synapses.propagate_on_pre(new if dendritic else weight, pre_spike)
        return (new, state), (sent, 0)

    if late:
        state = state._replace(pre=visit.Archive.empty(synapses, first))
    settle = jax.jit(lambda weight, state, step: _late.settle(numbers, synapses, weight, state, step))
    carry, sent, start = (weight, state), [], 0
    for end in (*settled, steps):
        inputs = jnp.arange(start, end), jnp.asarray(pre[start:end]), jnp.asarray(post[start:end])
        carry, (some, shares) = jax.jit(lambda carry, inputs: jax.lax.scan(step, carry, inputs))(carry, inputs)
        sent.append(some)
        if passes is not None:
            passes.append((*np.asarray(carry[1].pre.settling[:4]) - [first, first, first, 0], np.asarray(shares)))
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


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_late_is_as_at_once_whatever_the_network(data):
    """Rates at which neurons spike in most steps, or never; rows longer than what is worked on together."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    n_pre, n_post = data.draw(st.sampled_from([(1, 1), (3, 1300), (40, 5), (25, 40)]))
    synapses, weight, rng = network(seed, n_pre, n_post, data.draw(st.sampled_from([0.05, 0.5, 1.0])))
    steps, rates = 90, st.sampled_from([0.0, 0.01, 0.2, 0.9])
    pre, post = spikes(rng, steps, n_pre, data.draw(rates)), spikes(rng, steps, n_post, data.draw(rates))
    rule, options = RULES[data.draw(st.sampled_from(sorted(RULES)))], dict(dendritic=data.draw(st.booleans()))
    expected = run(rule, synapses, weight, pre, post, late=False, **options)
    for got, x in zip(run(rule, synapses, weight, pre, post, late=True, **options), expected, strict=True):
        np.testing.assert_allclose(got, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dendritic", [False, True])
def test_it_does_not_matter_when_synapses_take_what_they_missed(dendritic):
    """Or how many threads there are, or which step is the first: the same bits."""
    synapses, weight, rng = network(2, 150, 400, 0.5)
    pre, post = spikes(rng, 60, 150, 0.4), spikes(rng, 60, 400, 0.1)
    options = dict(dendritic=dendritic, late=True)
    expected = run(RULES["power law"], synapses, weight, pre, post, **options)
    before = hebbax.get_num_threads()
    for threads, first, settled in ((1, 0, ()), (6, 1_999_999_000, (7, 8, 31)), (2, 5, range(1, 60, 9))):
        hebbax.set_num_threads(threads)
        try:
            got = run(RULES["power law"], synapses, weight, pre, post, first=first, settled=settled, **options)
        finally:
            hebbax.set_num_threads(before)
        for x, y in zip(got, expected, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dendritic", [False, True])
def test_synapses_miss_more_spikes_than_are_kept(dendritic):
    """Of some neurons, in each step, while one presynaptic neuron spikes at first and at last only."""
    synapses, weight, rng = network(3, 9, 21, 0.8)
    pre, post = spikes(rng, 200, 9, 0.02), spikes(rng, 200, 21, 0.05)
    post[:, ::4] = True
    pre[:, 0] = False
    pre[[3, 190], 0] = True
    options = dict(dendritic=dendritic)
    expected = run(RULES["between"], synapses, weight, pre, post, late=False, **options)
    assert post[3:190, 0].sum() > 2 * _cpu.most_recent()
    for got, x in zip(run(RULES["between"], synapses, weight, pre, post, late=True, **options), expected, strict=True):
        np.testing.assert_allclose(got, x, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dendritic", [False, True])
def test_rows_take_a_share_at_every_step(dendritic):
    """Before there is no room for a spike, without all rows having to wait for all: the same bits.

    Some weights are out of bounds at first, where they stay until they change: a spike that is not to be taken yet does
    not bring them back.
    """
    synapses, weight, rng = network(7, 300, 30, 0.5)
    weight = weight.at[::7].set(1.5)
    steps, passes = 500, []
    pre, post = spikes(rng, steps, 300, 0.004), spikes(rng, steps, 30, np.where(np.arange(30) % 6, 0.001, 0.3))
    options = dict(dendritic=dendritic, late=True)
    sent, last = run(RULES["power law"], synapses, weight, pre, post, passes=passes, **options)
    base, passed, began, following, shares = passes[0]
    assert base == 0 and 300 < passed <= began <= steps and (shares[-1] == 0 or 0 < following < 300)
    assert 0 < shares.max() < 30
    often = range(10, steps, 10)
    for first in (0, 1_999_999_000):
        expected = run(RULES["power law"], synapses, weight, pre, post, first=first, settled=often, **options)
        np.testing.assert_array_equal(sent, expected[0])
        np.testing.assert_array_equal(last, expected[1])
    assert (last == 1.5).any() and (last[::7] < 1.5).any()


@pytest.mark.parametrize("dendritic", [False, True])
def test_steps_are_more_than_16_bits_count(dendritic):
    """Of neurons that spike rarely: the archive counts anew from where rows have taken what was before.

    Shortly before it does, there are spikes which one row has yet to take.
    """
    rule = hebbax.PairSTDP(50.0 * u.ms, 50.0 * u.ms, 0.5, 0.1, -np.inf, np.inf)
    synapses, weight, rng = network(8, 6, 5, 1.0)
    steps, passes = 90_000, []
    pre, post = spikes(rng, steps, 6, 1e-4), spikes(rng, steps, 5, 2e-4)
    pre[64_900:, 0], post[64_000:65_100], post[64_950] = False, False, True
    pre[[64_900, 80_000], 0] = True
    sent, last = run(rule, synapses, weight, pre, post, late=True, dendritic=dendritic, passes=passes)
    base, passed, *_ = passes[0]
    assert 0 < base <= passed < steps
    expected = run(rule, synapses, weight, pre, post, late=False, dendritic=dendritic)
    np.testing.assert_allclose(sent, expected[0], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(last, expected[1], rtol=2e-4, atol=2e-5)


def test_all_rows_take_what_they_missed_where_shares_are_too_small():
    """As where steps are left out: what has not been taken by then is taken before a spike is lost."""
    synapses, weight = hebbax.Synapses.from_dense(np.full((4000, 1), 0.5, np.float32))
    numbers = _late.pair_rule(RULES["unbounded"], synapses, DT, dendritic=True)
    arrive = jax.jit(lambda *args: _late.arrive(numbers, synapses, *args))
    settle = jax.jit(lambda *args: _late.settle(numbers, synapses, *args))
    results = []
    for often in (False, True):
        state, new = _late.start(synapses), weight
        for k in range(80):
            lists = pack(jnp.full((1, 4000), k in (0, 79)), 4000).at(0)
            new, state, _ = arrive(new, state, lists, jnp.array([True]), jnp.int32(100 * k))
            if often and k % 10 == 0:
                new, state = settle(new, state, jnp.int32(100 * k + 1))
            if not often and k == 63:
                assert state.pre.settling[0] == 0 and state.pre.settling[4] > 0
            if not often and k == 64:
                assert state.pre.settling.tolist() == [6400, 6400, 6400, 0, 0]
        assert state.pre.settling[0] > 0
        results.append(settle(new, state, jnp.int32(8000))[0])
    assert results[0][0] > 0.5
    np.testing.assert_array_equal(*results)


def visited(steps, *, pre, post, dt=DT):
    """The weight of one synapse, 0.5 at first, after these steps, with a dendritic delay; it is settled in the end."""
    rule = RULES["unbounded"]
    synapses, weight = hebbax.Synapses.from_dense(np.full((1, 1), 0.5, np.float32))
    numbers, state = _late.pair_rule(rule, synapses, dt, dendritic=True), _late.start(synapses)
    for step in steps:
        spike, lists = jnp.array([step in post]), pack(jnp.array([[step in pre]]), 1).at(0)
        arrive = jax.jit(lambda *args: _late.arrive(numbers, synapses, *args))
        weight, state, _ = arrive(weight, state, lists, spike, jnp.int32(step))
    settle = jax.jit(lambda *args: _late.settle(numbers, synapses, *args))
    return float(settle(weight, state, jnp.int32(steps[-1] + 1))[0][0])


def test_a_spike_may_be_long_ago():
    """Longer than steps are counted in 16 bits: in steps of 100 ns, by the closed form."""
    dt, late = 1e-4 * u.ms, 150_000
    expected = 0.5 + 0.05 * (np.exp(-100_000 * 1e-4 / 20) + np.exp(-late * 1e-4 / 20))
    got = visited([0, 100_000, late], pre={0}, post={100_000, late}, dt=dt)
    assert got == pytest.approx(expected, rel=1e-6)


def test_a_spike_of_the_far_future_is_no_earlier_one():
    """Such as nobody keeps; its step overflows no number."""
    synapses, weight, _ = network(4, 5, 6, 1.0)
    numbers, state = _late.pair_rule(RULES["additive"], synapses, DT, dendritic=True), _late.start(synapses)
    numbers = dataclasses.replace(numbers, down=dataclasses.replace(numbers.down, factor=0.0))
    archive = visit.Archive.empty(synapses, -1)
    rows = archive.rows.at[:, 2].set(2**31 - 1).at[:, 3].set(int(np.float32(1).view(np.int32)))
    state = state._replace(pre=archive._replace(rows=rows))
    lists, spike = pack(jnp.ones((1, 5), bool), 5).at(0), jnp.ones(6, bool)
    after, *_ = jax.jit(lambda *x: _late.arrive(numbers, synapses, *x, lists, spike, jnp.int32(100)))(weight, state)
    np.testing.assert_array_equal(after, weight)


def test_what_is_wrong_is_said():
    synapses, weight, _ = network(4, 5, 6, 1.0)
    numbers, state = _late.pair_rule(RULES["additive"], synapses, DT, dendritic=True), _late.start(synapses)
    lists, spike = pack(jnp.ones((1, 5), bool), 5).at(0), jnp.ones(6, bool)

    def arrive(state=state, lists=lists, indices=synapses.indices, indptr=synapses.indptr, step=3, spike=spike):
        wrong = SimpleNamespace(indices=indices, indptr=indptr)
        call = jax.jit(lambda weight, state: _late.arrive(numbers, wrong, weight, state, lists, spike, jnp.int32(step)))
        return jax.block_until_ready(call(weight, state))

    arrive()
    with pytest.raises(Exception, match=r"indices\[7\] = 6, expected a neuron in \[0, 6\)"):
        arrive(indices=synapses.indices.at[7].set(6))
    far = synapses.indptr.at[2].set(31)
    rows = visit.Archive.rows_with(SimpleNamespace(indptr=far), state.pre.rows[:, 2:])
    moved = state._replace(pre=state.pre._replace(rows=rows))
    with pytest.raises(Exception, match=r"indptr\[1 : 3\] = \[6, 31\]"):
        arrive(state=moved, indptr=far)
    with pytest.raises(Exception, match=r"rows\[1, :2\] = \[6, 31\], expected what indptr says, \[6, 12\]"):
        arrive(state=moved)
    with pytest.raises(Exception, match="lists"):
        arrive(lists=pack(jnp.ones((1, 4), bool), 4).at(0))
    with pytest.raises(Exception, match="lists"):
        arrive(lists=pack(jnp.ones((1, 5), bool), 4).at(0))  # no room for one
    doubled = pack(jnp.ones((1, 5), bool), 5).at(0)
    doubled = assemble(SpikeLists, dict(message=doubled.message.at[-1].set(3), sent=doubled.sent))  # 0, 1, 2, 3, 3
    with pytest.raises(Exception, match="lists"):
        arrive(lists=doubled)
    silent = jnp.zeros(6, bool)  # (what is wrong is not that they would come too late)
    for lost in (doubled, pack(jnp.ones((1, 5), bool), 4).at(0)):
        with pytest.raises(Exception, match="lists"):
            arrive(state=state._replace(pre=visit.Archive.empty(synapses, 4)), lists=lost, spike=silent)
    later = state._replace(pre=visit.Archive.empty(synapses, 4))
    with pytest.raises(Exception, match="post_spike: got spikes of step 3, expected none before step 4"):
        arrive(state=later)
    for wrong in ([0, 0, 0, 6, 1], [0, 0, 0, -1, 1], [0, 0, 0, 0, -1], [0, 2, 1, 0, 0], [1, 0, 0, 0, 0]):
        with pytest.raises(Exception, match="settling: got what no pass can be at"):
            arrive(state=state._replace(pre=state.pre._replace(settling=jnp.array(wrong, jnp.int32))))


def test_rules_that_cannot_be_late():
    synapses, *_ = network(5, 5, 6, 1.0)
    each = np.linspace(0.1, 0.2, 6)[None]
    for rule in (
        hebbax.InhibitorySTDP(20.0 * u.ms, 0.1, 5.0 * u.Hz, 0.0, 1.0),
        dataclasses.replace(RULES["additive"], a_plus=each),
        dataclasses.replace(RULES["additive"], tau_minus=each * u.second),
        dataclasses.replace(RULES["additive"], w_max=np.linspace(0, 1, synapses.nse)),
    ):
        assert _late.pair_rule(rule, synapses, DT, dendritic=False) is None
