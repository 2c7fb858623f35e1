"""One delay per synapse: currents against a simulation in NumPy, events, JAX around them, and what is refused."""

import pickle

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax._core import events
from hebbax._core.specs import Arrivals
from hebbax.delays import DelayedSynapses
from hlo import at_least
from problems import DTYPES, INDEX_ERRORS, enable_x64

pytestmark = pytest.mark.together(1)
DT = 0.1 * u.ms
SHAPE, STEPS = (23, 17), 40
# Longest axonal and dendritic delay, in steps.
LONGEST = [(0, 0), (7, 0), (0, 5), (6, 4)]


def random_delays(rng, longest, nse, start=0):
    """Some delays of those up to the longest, which is there, are left out."""
    ago = rng.choice(np.setdiff1d(np.arange(start, longest + 1), [2, 5]), nse)
    ago[rng.integers(nse)] = longest
    return ago


@pytest.fixture
def network(rng):
    synapses = hebbax.Synapses.random(SHAPE, indegree=9, multapses=True, seed=3)
    return synapses, rng.integers(1, 99, synapses.nse).astype(np.float32) / 8, rng.random((STEPS, SHAPE[0])) < 0.2


def ends(synapses):
    return np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr)), np.asarray(synapses.indices)


def brute_force(synapses, weight, pre, axonal, dendritic):
    """The currents: a spike's weight, times what it releases (`pre`, if it is no bool), arrives both delays later."""
    out = np.zeros((len(pre) + axonal.max() + dendritic.max(), synapses.n_post), weight.dtype)
    for k, (i, j) in enumerate(zip(*ends(synapses), strict=True)):
        at = np.flatnonzero(pre[:, i])
        out[at + axonal[k] + dendritic[k], j] += weight[k] * pre[at, i]
    return out[: len(pre)]


def currents(delayed, weight, pre, due=False, backend=None, gain=None, **options):
    def step(state, pushed):
        spike, gain = pushed
        if due:
            current, state = delayed.propagate_due(weight, state, backend)
            return delayed.push(state, spike, gain=gain), current
        return delayed.propagate(weight, delayed.push(state, spike, gain=gain), backend)[::-1]

    return jax.lax.scan(step, delayed.init(weight, with_gain=gain is not None, **options), (pre, gain))[1]


@pytest.mark.parametrize("longest", LONGEST)
def test_currents(rng, network, longest, backend):
    synapses, weight, pre = network
    axonal, dendritic = (random_delays(rng, x, synapses.nse) for x in longest)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    weight_in_order = synapses.reorder(weight, delayed.permutation)
    got = jax.jit(currents, static_argnames="backend")(delayed, weight_in_order, pre, backend=backend)
    np.testing.assert_array_equal(got, brute_force(synapses, weight, pre, axonal, dendritic))
    np.testing.assert_array_equal(synapses.restore(weight_in_order, delayed.permutation), weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_due_is_known_before_the_push(rng, network, backend, dtype):
    with enable_x64(dtype == "float64"):
        check_what_is_due(rng, network, backend, dtype)


def check_what_is_due(rng, network, backend, dtype):
    synapses, weight, pre = network
    axonal, dendritic = random_delays(rng, 6, synapses.nse, start=1), random_delays(rng, 3, synapses.nse)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    weight = jnp.asarray(np.minimum(np.round(weight), 4), DTYPES[dtype])  # whose sums are exact
    in_order = synapses.reorder(weight, delayed.permutation)
    got = currents(delayed, in_order, pre, due=True, backend=backend)
    assert got.dtype == weight.dtype
    expected = brute_force(synapses, np.asarray(weight, np.float64), pre, axonal, dendritic)
    np.testing.assert_array_equal(np.asarray(got, np.float64), expected)


def test_units(rng, network):
    synapses, weight, pre = network
    delayed = DelayedSynapses(synapses, DT, axonal=200.0 * u.us, dendritic=random_delays(rng, 3, synapses.nse) * DT)
    plain = currents(delayed, jnp.asarray(weight), pre)
    got = currents(delayed, jnp.asarray(weight) * u.nA, pre)
    assert got.unit == u.nA and np.any(plain)
    np.testing.assert_array_equal(got.mantissa, plain)


@pytest.mark.parametrize("longest", LONGEST)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_weight_for_all(rng, network, longest, shape, backend):
    synapses, _, pre = network
    axonal, dendritic = (random_delays(rng, x, synapses.nse) for x in longest)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    got = currents(delayed, np.full(shape, 3.0) * u.nA, pre, backend=backend)
    expected = brute_force(synapses, np.full(synapses.nse, 3.0), pre, axonal, dendritic)
    np.testing.assert_array_equal(got / u.nA, expected)

    def total(weight):
        return jnp.sum(currents(delayed, weight, pre, backend=backend) * jnp.arange(17.0))

    derivative = jax.grad(total)(jnp.full(shape, 3.0))
    assert derivative.shape == shape
    np.testing.assert_allclose(derivative, (expected / 3 * np.arange(17)).sum(), rtol=1e-5)
    batch = jax.vmap(lambda w: currents(delayed, w, pre, backend=backend))(jnp.full((2, *shape), 3.0))
    np.testing.assert_array_equal(batch, [expected, expected])


def test_many_spikes_and_long_delays(rng):
    """More rows than a kernel finds in a batch, in lists that are cut there."""
    synapses = hebbax.Synapses.random((900, 40), outdegree=6, seed=1)
    axonal = rng.integers(0, 60, synapses.nse)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT)
    weight = rng.integers(1, 9, synapses.nse).astype(np.float32)
    pre = rng.random((70, 900)) < 0.9
    got = jax.jit(currents)(delayed, synapses.reorder(weight, delayed.permutation), pre)
    expected = brute_force(synapses, weight, pre, axonal, np.zeros_like(axonal))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape, nse", [((0, 4), 0), ((4, 0), 0), ((3, 4), 0), ((0, 0), 0)])
def test_empty_networks(shape, nse):
    synapses = hebbax.Synapses(np.zeros(shape[0] + 1, int), np.zeros(nse, int), shape=shape)
    delayed = DelayedSynapses(synapses, DT, axonal=0.3 * u.ms)
    got = currents(delayed, jnp.zeros(0), np.ones((3, shape[0]), bool))
    np.testing.assert_array_equal(got, np.zeros((3, shape[1])))


# -- under JAX


def test_vmap(rng, network, backend):
    synapses, weight, pre = network
    axonal, dendritic = (random_delays(rng, 4, synapses.nse) for _ in range(2))
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    pre, weights = np.stack([pre, pre[::-1]]), np.stack([weight, 2 * weight])
    in_order = synapses.reorder(weights, delayed.permutation)
    got = jax.vmap(lambda weight, pre: currents(delayed, weight, pre, backend=backend))(in_order, pre)
    expected = [brute_force(synapses, *x, axonal, dendritic) for x in zip(weights, pre, strict=True)]
    np.testing.assert_array_equal(got, np.stack(expected))


def test_shard_map_over_members(rng, network):
    """Each device its own members of a batch; here there is one."""
    synapses, weight, pre = network
    axonal, dendritic = (random_delays(rng, 4, synapses.nse) for _ in range(2))
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    weights = synapses.reorder(jnp.stack([weight, 2 * weight]), delayed.permutation)
    members = P("members")
    run = jax.vmap(lambda weight, pre: currents(delayed, weight, pre))
    mesh = Mesh(jax.devices()[:1], ("members",))
    run = jax.shard_map(run, mesh=mesh, in_specs=members, out_specs=members, check_vma=False)
    got = jax.jit(run)(weights, jnp.stack([pre, pre]))
    expected = brute_force(synapses, weight, pre, axonal, dendritic)
    np.testing.assert_array_equal(got, [expected, 2 * expected])


@pytest.mark.parametrize("due", [False, True])
def test_derivative_in_the_weight(rng, network, backend, due):
    synapses, weight, pre = network
    axonal, dendritic = random_delays(rng, 6, synapses.nse, start=1), random_delays(rng, 4, synapses.nse)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    factor = rng.integers(-8, 8, (STEPS, SHAPE[1])).astype(np.float32)
    gradient = jax.grad(lambda weight: (factor * currents(delayed, weight, pre, due, backend)).sum())(
        synapses.reorder(jnp.asarray(weight), delayed.permutation)
    )
    expected = np.zeros(synapses.nse)
    for k, (i, j) in enumerate(zip(*ends(synapses), strict=True)):
        at = np.flatnonzero(pre[:, i]) + axonal[k] + dendritic[k]
        expected[k] = factor[at[at < STEPS], j].sum()
    np.testing.assert_array_equal(synapses.restore(gradient, delayed.permutation), expected)


@pytest.mark.parametrize("due", [False, True])
@pytest.mark.parametrize("longest", [(6, 0), (6, 4)])
def test_floating_spikes_have_the_derivative_of_a_product(rng, network, longest, due):
    synapses, weight, pre = network
    axonal, dendritic = (random_delays(rng, x, synapses.nse, start=min(x, 1)) for x in longest)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    factor = rng.integers(-8, 8, (STEPS, SHAPE[1])).astype(np.float32)
    in_order = synapses.reorder(jnp.asarray(weight), delayed.permutation)

    def loss(pre):
        out = currents(delayed, in_order, pre, due, spike_dtype=np.float32)
        return (factor * out).sum(), out

    gradient, out = jax.grad(loss, has_aux=True)(jnp.asarray(pre, np.float32))
    np.testing.assert_array_equal(out, brute_force(synapses, weight, pre, axonal, dendritic))
    expected = np.zeros((STEPS, SHAPE[0]))
    for k, (i, j) in enumerate(zip(*ends(synapses), strict=True)):
        late = axonal[k] + dendritic[k]
        expected[: STEPS - late, i] += weight[k] * factor[late:, j]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("due", [False, True])
@pytest.mark.parametrize("longest", [(6, 0), (6, 4)])
@pytest.mark.parametrize("spike_dtype", [bool, np.float32])
def test_a_gain_is_that_of_the_step_in_which_the_spike_left(rng, network, backend, longest, due, spike_dtype):
    synapses, weight, pre = network
    axonal, dendritic = (random_delays(rng, x, synapses.nse, start=min(x, 1)) for x in longest)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    gain = rng.integers(1, 8, pre.shape).astype(np.float32) / 4
    factor = rng.integers(-8, 8, (STEPS, SHAPE[1])).astype(np.float32)
    in_order = synapses.reorder(jnp.asarray(weight), delayed.permutation)

    def loss(gain, weight):
        out = currents(delayed, weight, pre.astype(spike_dtype), due, backend, gain, spike_dtype=spike_dtype)
        return (factor * out).sum(), out

    (of_gain, of_weight), out = jax.grad(loss, argnums=(0, 1), has_aux=True)(jnp.asarray(gain), in_order)
    np.testing.assert_array_equal(out, brute_force(synapses, weight, pre * gain, axonal, dendritic))
    by_gain, by_weight = np.zeros(pre.shape), np.zeros(synapses.nse)
    for k, (i, j) in enumerate(zip(*ends(synapses), strict=True)):
        late = axonal[k] + dendritic[k]
        by_gain[: STEPS - late, i] += pre[: STEPS - late, i] * weight[k] * factor[late:, j]
        by_weight[k] = (pre * gain)[: STEPS - late, i] @ factor[late:, j]
    np.testing.assert_allclose(of_gain, by_gain, rtol=1e-6)
    np.testing.assert_allclose(synapses.restore(of_weight, delayed.permutation), by_weight, rtol=1e-6)
    tangent = jax.jvp(loss, (jnp.asarray(gain), in_order), (jnp.ones_like(gain), in_order))[1][0]
    np.testing.assert_allclose(tangent, by_gain.sum() + by_weight @ weight, rtol=1e-5)
    batch = jax.vmap(lambda gain: loss(gain, in_order)[1])(np.stack([gain, 2 * gain]))
    np.testing.assert_array_equal(batch, [out, 2 * out])


@pytest.mark.optimised
def test_a_loop_copies_no_list_and_no_pending_current(rng, network):
    synapses, weight, pre = network
    axonal, dendritic = random_delays(rng, 6, synapses.nse, start=1), random_delays(rng, 9, synapses.nse)
    delayed = DelayedSynapses(synapses, DT, axonal=axonal * DT, dendritic=dendritic * DT)
    weight = synapses.reorder(jnp.asarray(weight), delayed.permutation)
    state = delayed.init(weight)

    def step(state, noise):
        current, state = delayed.propagate_due(weight, state)
        return delayed.push(state, noise ^ (current.sum() > 9)), None

    loop = jax.jit(lambda state, noise: jax.lax.scan(step, state, noise)[0], donate_argnums=0)
    text = loop.lower(state, pre).compile().as_text()
    sizes = state.pre.size, state.pending.size
    found = at_least(text, min(sizes))
    assert {size for _, size, _ in found} >= set(sizes)
    assert not [x for x in found if x[2] in ("copy", "copy-start") and x[1] in sizes]
    before = state.pre.unsafe_buffer_pointer(), state.pending.unsafe_buffer_pointer()
    after = loop(state, pre)
    assert (after.pre.unsafe_buffer_pointer(), after.pending.unsafe_buffer_pointer()) == before


def test_structure_and_state_are_pytrees_and_pickle(rng, network):
    synapses, weight, pre = network
    delayed = DelayedSynapses(synapses, DT, axonal=random_delays(rng, 6, synapses.nse) * DT)
    weight = synapses.reorder(jnp.asarray(weight), delayed.permutation)
    state = delayed.push(delayed.init(weight), pre[0])
    again, state_again = pickle.loads(pickle.dumps((delayed, jax.tree.map(np.asarray, state))))
    assert jax.tree.structure(again) == jax.tree.structure(delayed) and repr(again) == repr(delayed)
    for k in range(1, 9):
        state, state_again = delayed.push(state, pre[k]), delayed.push(state_again, pre[k])
        (current, _), (current_again, _) = delayed.propagate(weight, state), again.propagate(weight, state_again)
        np.testing.assert_array_equal(current, current_again)
    jax.tree.map(lambda x: x, jax.tree.map(lambda x: None, delayed))


def test_an_index_out_of_range_is_named(rng, network):
    synapses, weight, _ = network
    delayed = DelayedSynapses(synapses, DT, axonal=random_delays(rng, 6, synapses.nse) * DT)
    object.__setattr__(delayed.unrolled, "indices", delayed.unrolled.indices.at[3].set(17))
    state, message = delayed.init(weight), r"propagate_csr_on_binary_pre: indices\[3\] = 17, expected .* in \[0, 17\)"
    with pytest.raises(INDEX_ERRORS, match=message):
        for _ in range(8):
            state = delayed.push(state, np.ones(SHAPE[0], bool))
            jax.block_until_ready(delayed.propagate(weight, state, "cython"))


# -- events


@pytest.mark.parametrize("record", [jax.jit(events.record_p.bind, static_argnames="arrivals"), events._record_in_jax])
def test_lists_are_the_same_natively_and_in_jax(rng, record):
    arrivals = Arrivals(37, (4, 1, 0))
    x = jnp.asarray(events.none_yet(arrivals))
    spikes = rng.random((7, 37)) < np.linspace(0, 1, 7)[:, None]
    for k, spike in enumerate(spikes):
        x = record(x, jnp.asarray(spike), jnp.array([k % 5, k], jnp.int32), spike, arrivals=arrivals)
        header, lists = np.asarray(x[:8]), np.asarray(x[8:]).reshape(5, 38)
        np.testing.assert_array_equal(header, [k % 5, k, 5, 37, 3, 4, 1, 0])
        for ago in range(min(k + 1, 5)):
            count, *ids = lists[(k - ago) % 5]
            np.testing.assert_array_equal(ids[:count], np.flatnonzero(spikes[k - ago]))


HOSTILE = {
    "position": {0: 5}, "negative position": {0: -1}, "length": {2: 6}, "no length": {2: 0}, "n": {3: 38},
    "negative n": {3: -1}, "count": {4: 2}, "huge count": {4: 2**31 - 1}, "delay": {5: 5}, "negative delay": {7: -1},
    "list": {8: 38}, "negative list": {8: -1}, "id": {8: 1, 9: 37}, "negative id": {8: 2, 9: 3, 10: -2},
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_damaged_lists_leave_no_buffer(rng, fault):
    synapses = hebbax.Synapses.random((37, 5), indegree=9)
    delayed = DelayedSynapses(synapses, DT, axonal=rng.choice([0, 1, 4], synapses.nse) * DT)
    assert delayed.pre == Arrivals(37, (4, 1, 0))
    weight = jnp.ones(synapses.nse)
    state = delayed.init(weight, hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.1, 0.0, 1.0))
    x = np.array(state.pre)
    x[0] = 0
    for at, value in HOSTILE[fault].items():
        x[at] = value
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="lists of arriving spikes are not as they were"):
        jax.block_until_ready(delayed.propagate(weight, state._replace(pre=jnp.asarray(x)), backend="cython"))


@pytest.mark.parametrize("shift", [-1, 10**6])
def test_a_damaged_shift_leaves_no_buffer(rng, shift):
    synapses = hebbax.Synapses.random((37, 5), indegree=9)
    delayed = DelayedSynapses(synapses, DT, axonal=rng.choice([0, 1, 4], synapses.nse) * DT)
    weight, spikes = jnp.ones(synapses.nse), (jnp.ones(37, bool), jnp.ones(5, bool))
    rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.1, 0.0, 1.0)
    state = delayed.push(delayed.init(weight, rule), *spikes)
    state = state._replace(post=state.post.at[1].set(shift))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="lists of arriving spikes are not as they were"):
        jax.block_until_ready(delayed.step(rule, weight, rule.init(synapses), state, *spikes, backend="cython"))


# -- errors


@pytest.mark.parametrize("name", ["axonal", "dendritic"])
@pytest.mark.parametrize(
    "delay, error, message",
    [
        (-0.1 * u.ms, ValueError, r": got -0\.1 ms, expected a finite value of at least 0"),
        (np.nan * u.ms, ValueError, ": got nan ms"),
        (np.inf * u.ms, ValueError, ": got inf ms"),
        (0.15 * u.ms, ValueError, r": got 0\.15 ms, expected a multiple of dt"),
        (np.zeros(3) * u.ms, hebbax.ShapeError, r": got shape \(3,\), expected a scalar or \(4,\)"),
        (np.array([0.1, 0.2, 0.25, 0.1]) * u.ms, ValueError, r"\[2\]: got 0\.25 ms"),
        ([0.1] * 4, TypeError, ": got "),
        (1.0, u.UnitMismatchError, "dt: "),
        (1e8 * u.ms, OverflowError, ": got up to 1000000000 steps for 100 neurons"),
    ],
)
def test_what_is_no_delay_is_refused(name, delay, error, message):
    synapses = hebbax.Synapses(np.minimum(np.arange(101), 4), np.arange(4), shape=(100, 100))
    with pytest.raises(error, match="^" + (message if message == "dt: " else name + message)):
        DelayedSynapses(synapses, DT, **{name: delay})


def test_other_errors(network):
    synapses, weight, pre = network
    with pytest.raises(TypeError, match=r"^synapses: got int, expected hebbax\.Synapses"):
        DelayedSynapses(3, DT)
    delayed = DelayedSynapses(synapses, DT, axonal=0.2 * u.ms)
    rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.1, 0.0, 1.0)
    state = delayed.init(weight)
    with pytest.raises(hebbax.ShapeError, match=r"^pre_spike: got shape \(5,\), expected \(23,\)"):
        delayed.push(state, np.zeros(5, bool))
    with pytest.raises(hebbax.ShapeError, match=r"^post_spike: got shape \(5,\), expected \(17,\)"):
        delayed.push(state, pre[0], np.zeros(5, bool))
    floating = delayed.init(weight, spike_dtype=np.float32)
    with pytest.raises(TypeError, match=r"^pre_spike: got dtype bool, expected float32, for which the state was made"):
        delayed.push(floating, pre[0])
    with pytest.raises(TypeError, match=r"^gain: got one, expected none, since init had with_gain=False"):
        delayed.push(state, pre[0], gain=np.ones(23))
    with_gain = delayed.init(weight, with_gain=True)
    with pytest.raises(TypeError, match=r"^gain: got none, expected one, since init had with_gain=True"):
        delayed.push(with_gain, pre[0])
    with pytest.raises(hebbax.ShapeError, match=r"^gain: got shape \(5,\), expected a scalar or \(23,\)"):
        delayed.push(with_gain, pre[0], gain=np.ones(5))
    with pytest.raises(TypeError, match=r"^gain: got dtype complex64, expected a real dtype"):
        delayed.push(with_gain, pre[0], gain=np.ones(23, complex))
    with pytest.raises(TypeError, match=r"^gain: got str, expected an array or a real number"):
        delayed.push(with_gain, pre[0], gain="much")
    with pytest.raises(u.UnitMismatchError, match=r"^gain: got a value of unit mV, expected a plain number"):
        delayed.push(with_gain, pre[0], gain=np.ones(23) * u.mV)
    with pytest.raises(hebbax.ShapeError, match=r"^weight: got shape \(3,\)"):
        delayed.propagate(weight[:3], state)
    with pytest.raises(hebbax.ShapeError, match=r"^weight: got shape \(3,\), expected \(.*,\), or a scalar"):
        delayed.init(weight[:3])
    with pytest.raises(TypeError, match=r"^weight: got dtype int"):
        delayed.init(weight.astype(int))
    with pytest.raises(TypeError, match=r"^state: got one with no traces, expected pre_trace: make it with init"):
        delayed.step(rule, weight, rule.init(synapses), state, pre[0], np.zeros(17, bool))
    with pytest.raises(ValueError, match=r"^axonal: got a delay of 0 steps, expected at least 1"):
        DelayedSynapses(synapses, DT).propagate_due(weight, DelayedSynapses(synapses, DT).init(weight))


def test_a_function_of_one_synapse_knows_no_delay_of_each(network):
    synapses, weight, pre = network
    delayed = DelayedSynapses(synapses, DT, axonal=0.2 * u.ms)

    class Rule:
        def step(self, synapses, weight, state, pre_spike, *_, **__):
            return synapses.apply_on_pre(lambda w, x, y: w, weight, pre_spike), state

    with pytest.raises(NotImplementedError, match=r"apply_on_pre and apply_on_post know no delay of each synapse"):
        delayed.step(Rule(), weight, None, delayed.init(weight), pre[0], np.zeros(17, bool))
