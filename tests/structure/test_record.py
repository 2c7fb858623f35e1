"""Recorders: against plain NumPy, where there is no room, in batches, in loops without copies, and read as tables."""

import pickle
import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hebbax
from hebbax._core import logs
from hebbax.errors import RecordOverflow
from hebbax.record import Rates, Spikes, Weights
from hlo import at_least, compiled
from problems import enable_x64

MS = 1.0 * u.ms


def all_of(recorder, seen):
    return jax.lax.scan(lambda recorder, x: (recorder.record(x), None), recorder, seen)[0]


run = jax.jit(all_of, donate_argnums=0)


def draw(seed, steps, n, rate):
    return np.random.default_rng(seed).random((steps, n)) < rate


@given(
    seed=st.integers(0, 999), n=st.sampled_from((1, 7, 130, 1000)), rate=st.sampled_from((0.001, 0.1, 1.0)),
    capacity=st.sampled_from((0, 1, 40, 30_000)),
)  # fmt: skip
def test_spikes_are_those_of_the_raster(seed, n, rate, capacity):
    raster = draw(seed, 20, n, rate)
    spikes = run(Spikes.of(n, capacity), raster)
    step, neuron = np.nonzero(raster)
    lost = max(step.size - capacity, 0)
    assert (int(spikes.count), int(spikes.lost), int(spikes.steps)) == (step.size, lost, 20)
    table = spikes.table(partial=True)
    np.testing.assert_array_equal(table["step"], step[:capacity])
    np.testing.assert_array_equal(table["neuron"], neuron[:capacity])
    trains = spikes.trains(0.5, partial=True)
    assert len(trains) == n
    for k, train in enumerate(trains):
        np.testing.assert_array_equal(train, 0.5 * step[:capacity][neuron[:capacity] == k])
    if lost:
        for read in (spikes.table, spikes.trains):
            with pytest.raises(RecordOverflow, match=f"{lost} of {step.size} spikes were lost") as caught:
                read()
            error = pickle.loads(pickle.dumps(caught.value)) if capacity else caught.value
            assert (error.lost, error.capacity, error.needed) == (lost, capacity, step.size)
    else:
        assert spikes.table()["step"].size == step.size


@given(
    seed=st.integers(0, 999), every=st.sampled_from((1, 3, 20)), bins=st.sampled_from((1, 5, 20)),
    groups=st.sampled_from((None, 1, 4)),
)  # fmt: skip
def test_rates_are_those_of_the_raster(seed, every, bins, groups):
    raster, rng = draw(seed, 20, 30, 0.3), np.random.default_rng(seed)
    group = None if groups is None else rng.integers(-1, groups, 30)
    rates = run(Rates.of(30, every, bins, group), raster)
    ids = np.arange(30) if group is None else group
    complete = min(20 // every, bins)
    expected = np.array(
        [
            [raster[k * every : (k + 1) * every, ids == g].sum() for g in range(ids.max() + 1)]
            for k in range(complete)
        ]
    )  # fmt: skip
    np.testing.assert_array_equal(rates.counts(partial=True), expected)
    sizes = [max((ids == g).sum(), 1) for g in range(ids.max() + 1)]
    np.testing.assert_allclose(rates.rates(2.0, partial=True), expected / sizes / (2 * every))
    hertz = rates.rates(2 * u.ms, partial=True) / u.Hz
    np.testing.assert_allclose(hertz, expected / sizes / (2e-3 * every))
    if 20 > every * bins:
        with pytest.raises(RecordOverflow, match=f"{20 - every * bins} of 20 steps were lost") as caught:
            rates.counts()
        assert caught.value.needed == 20
    else:
        assert rates.counts().shape == expected.shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("every, samples", [(1, 9), (3, 2), (3, 3), (20, 1)])
def test_weights_are_those_of_the_steps(rng, dtype, every, samples):
    with enable_x64(dtype == "float64"):
        course, positions = jnp.asarray(rng.normal(size=(9, 50)), dtype), [3, 49, 3, 0]
        weights = run(Weights.of(course[0] * u.nS, positions, every, samples), course * u.nS)
        due = np.asarray(course)[::every][:, positions]
        got = weights.course(partial=True)
        assert got.mantissa.dtype == dtype and got.unit == u.nS
        np.testing.assert_array_equal(got.mantissa, due[:samples])
        if len(due) > samples:
            with pytest.raises(RecordOverflow, match=f"samples was {samples}, and {len(due)} would have been enough"):
                weights.table()


def test_jax_and_the_kernels_record_the_same(rng):
    for seed in range(5):
        raster = draw(seed, 12, 40, 0.2)
        group = jnp.asarray(rng.integers(-1, 5, 40), jnp.int32)
        ours = logs.spikes_log(60), logs.counts_log(3, 5, 3), jnp.zeros(6)
        plan = jnp.array([0, 4, 39, 0, 7], jnp.int32)
        theirs, then = ours, plan
        for spike in jnp.asarray(raster):
            weight = jnp.asarray(rng.random(40), jnp.float32)
            spikes, counts, values = ours
            values, later = logs.sample(values, weight, plan)
            ours = logs.append(spikes, spike), logs.tally(counts, spike, group), values
            spikes, counts, values = theirs
            theirs = (
                logs._append_in_jax(spikes, spike), logs._tally_in_jax(counts, spike, group),
                logs._sample_in_jax(values, weight, then),
            )  # fmt: skip
            plan = then = later
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("make", [lambda: Spikes.of(9, 25), lambda: Rates.of(9, 2, 3, [0, 1, 1, 0, -1, 2, 2, 2, 0])])
def test_members_of_a_batch_are_recorded_each_by_itself(make):
    """Also twice over, and where members share what is not theirs."""
    raster = jnp.asarray(np.random.default_rng(0).random((6, 4, 2, 9)) < 0.3)
    alone = [[run(make(), raster[:, i, j]) for j in range(2)] for i in range(4)]
    step = jax.vmap(jax.vmap(lambda recorder, spike: recorder.record(spike)))
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, 2, *x.shape)), make())
    batch, _ = jax.jit(lambda b, r: jax.lax.scan(lambda b, x: (step(b, x), None), b, r))(batch, raster)
    inside = jax.vmap(jax.vmap(lambda r: all_of(make(), r), 1), 1)(raster)
    for i in range(4):
        for j in range(2):
            for many in (batch, inside):
                np.testing.assert_array_equal(many.log[i, j], alone[i][j].log)
    with pytest.raises(hebbax.ShapeError, match=r": got a batch of \(4, 2\) recorders, expected one"):
        batch.table(0.1)
    shared = jax.vmap(lambda recorder: recorder.record(raster[0, 0, 0]))(jax.tree.map(lambda x: x[0], batch))
    for j in range(2):
        np.testing.assert_array_equal(shared.log[j], alone[0][j].record(raster[0, 0, 0]).log)


def test_weights_of_a_batch():
    course = jnp.asarray(np.random.default_rng(0).random((5, 3, 20)), jnp.float32)
    batch = jax.vmap(lambda x: all_of(Weights.of(x[0], [2, 19], 2, 3), x), 1)(course)
    for k in range(3):
        member = jax.tree.map(lambda x, k=k: x[k], batch)
        np.testing.assert_array_equal(member.course(), course[::2, k][:, [2, 19]])


SIZES = {"spikes": 2 + 2 * 777, "rates": 3 + 7 * 111, "weights": 8 * 97, "weight": 3333}  # that nothing else has


def network_loop(wait, read_first=False):
    """A loop of a network that learns, and records all; its state."""
    rng = np.random.default_rng(0)
    ids = rng.choice(60 * 70, SIZES["weight"], replace=False)
    weight = np.full(ids.size, 0.5, np.float32)
    synapses, weight = hebbax.Synapses.from_coo(ids // 70, ids % 70, weight, shape=(60, 70))
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.01, 0.0105, 0.0, 1.0)

    def step(state, spike):
        weight, traces, spikes, rates, weights = state
        pre_spike, post_spike = spike[:60], spike[60:]
        current = synapses.propagate_on_pre(weight, pre_spike)
        if read_first:
            weights = weights.record(weight)
        after = (current, weights) if wait else current
        weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, MS, after=after)
        if not read_first:
            weights = weights.record(weight)
        return (weight, traces, spikes.record(spike), rates.record(spike), weights), current.sum()

    state = (
        weight, rule.init(synapses), Spikes.of(130, 777), Rates.of(130, 3, 7, np.arange(130) % 111),
        Weights.of(weight, rng.integers(weight.size, size=97), 2, 8),
    )  # fmt: skip
    return lambda state, raster: jax.lax.scan(step, state, raster), state


def copies(text):
    sizes = set(SIZES.values())
    return [found for found in at_least(text, 700, "copy", "copy-start") if found[1] in sizes]


@pytest.mark.optimised
@pytest.mark.parametrize("wait, read_first", [(False, False), (True, True)])
def test_a_loop_copies_no_recorder_and_no_weights(wait, read_first):
    loop, state = network_loop(wait, read_first)
    raster = draw(0, 10, 130, 0.2)
    step = jax.jit(loop, donate_argnums=0).lower(state, raster).compile()
    text = step.as_text()
    for size in SIZES.values():
        assert re.search(rf"\[{size}\]", text)
    assert copies(text) == []
    before = [x.unsafe_buffer_pointer() for x in (state[2].log, state[3].log, state[4].values)]
    (_, _, spikes, rates, weights), _ = step(state, raster)
    assert [x.unsafe_buffer_pointer() for x in (spikes.log, rates.log, weights.values)] == before
    np.testing.assert_array_equal(spikes.table()["neuron"], np.nonzero(raster)[1])
    assert weights.course().shape == (5, 97)


@pytest.mark.optimised
def test_the_search_for_copies_finds_those_of_what_is_not_donated_and_not_waited_for():
    loop, state = network_loop(False)
    text = compiled(loop, state, draw(0, 10, 130, 0.2)).as_text()
    assert {size for _, size, _ in copies(text)} >= {SIZES["spikes"], SIZES["rates"], SIZES["weights"]}
    loop, state = network_loop(False, read_first=True)
    step = jax.jit(loop, donate_argnums=0).lower(state, draw(0, 10, 130, 0.2)).compile()
    assert SIZES["weight"] in {size for _, size, _ in copies(step.as_text())}


def test_an_emptied_recorder_goes_on_in_time():
    raster = draw(1, 40, 50, 0.1)
    spikes, steps, neurons = Spikes.of(50, 120), [], []
    for chunk in np.split(raster, 4):
        spikes = run(spikes, chunk)
        table = spikes.table()
        steps.append(table["step"])
        neurons.append(table["neuron"])
        spikes = spikes.emptied()
    np.testing.assert_array_equal([np.concatenate(steps), np.concatenate(neurons)], np.nonzero(raster))
    assert spikes.table()["step"].size == 0


def test_tables_have_columns_of_one_length_and_times_of_double_precision():
    spikes = run(Spikes.of(5, 99), draw(0, 30, 5, 0.3))
    rates = run(Rates.of(5, 4, 8), draw(0, 30, 5, 0.3))
    weights = run(Weights.of(jnp.zeros(6), [1, 2], 7, 5), jnp.zeros((30, 6)))
    for recorder in (spikes, rates, weights):
        plain, with_unit = recorder.table(0.1), recorder.table(0.1 * u.ms)
        assert len({x.shape for x in plain.values()} | {x.shape for x in with_unit.values()}) == 1
        assert all(isinstance(x, np.ndarray) for x in plain.values()) and plain["time"].dtype == np.float64
        assert isinstance(with_unit["time"].mantissa, np.ndarray) and with_unit["time"].unit == u.ms
        np.testing.assert_array_equal(with_unit["time"].mantissa, plain["time"])
    np.testing.assert_array_equal(spikes.table(0.1)["time"], 0.1 * spikes.table()["step"])
    np.testing.assert_array_equal(weights.table()["step"], np.repeat([0, 7, 14, 21, 28], 2))
    np.testing.assert_array_equal(weights.table()["synapse"], [1, 2] * 5)


def test_tables_are_data_frames_in_a_line():
    pandas = pytest.importorskip("pandas")
    spikes = run(Spikes.of(5, 99), draw(0, 30, 5, 0.3))
    assert list(pandas.DataFrame(spikes.table(0.1)).columns) == ["time", "neuron"]


def test_lists_of_spikes_and_numbers_are_taken():
    lists = hebbax._core.sent.pack(jnp.asarray(draw(0, 2, 30, 0.3)), 60)
    for spike in (lists.at(1), draw(0, 2, 30, 0.3)[1], draw(0, 2, 30, 0.3)[1] * 2.5):
        np.testing.assert_array_equal(
            Spikes.of(30, 40).record(spike).table()["neuron"], np.flatnonzero(draw(0, 2, 30, 0.3)[1])
        )


def test_the_last_step_that_is_counted_is_told():
    """Not wrapped around, nor are counts of spikes."""
    spikes = hebbax._core.pytree.assemble(Spikes, dict(log=jnp.array([2**31 - 2, 2**31 - 2], jnp.int32), n=3))
    for record in (lambda x, s: logs.append(x, s), logs._append_in_jax):
        log = record(spikes.log, jnp.ones(3, bool))
        np.testing.assert_array_equal(log, [2**31 - 1] * 2)
        np.testing.assert_array_equal(record(log, jnp.ones(3, bool)), log)
    with pytest.raises(RecordOverflow, match="steps were recorded, or more"):
        spikes.record(jnp.ones(3, bool)).table()


@pytest.mark.parametrize("step", [3, 4_294_968, 2**31 - 2])
def test_a_sample_behind_the_last_one_is_written_nowhere(step):
    """Also where its number times the number of weights is more than int32 holds."""
    plan = jnp.concatenate([jnp.array([step, 1], jnp.int32), jnp.arange(1000, dtype=jnp.int32)])
    for sample in (logs._sample_in_jax, lambda *operands: logs.sample(*operands)[0]):
        assert not sample(jnp.zeros(3000), jnp.ones(1000), plan).any()


def test_an_array_that_holds_something_else_is_refused():
    """And nothing is written outside of it."""
    log = jnp.array([-5, 0, 1, 1], jnp.int32)
    with pytest.raises(Exception, match="append: the array is not as it was made"):
        jax.block_until_ready(logs.append(log, jnp.ones(3, bool)))
    np.testing.assert_array_equal(logs._append_in_jax(log, jnp.zeros(3, bool))[2:], [1, 1])
    for counts in ([0, 0, 1, 0], [0, 1, 0, 0], [-1, 1, 1, 0]):
        with pytest.raises(Exception, match="tally: the array is not as it was made"):
            jax.block_until_ready(logs.tally(jnp.array(counts, jnp.int32), jnp.ones(3, bool), jnp.zeros(0, jnp.int32)))
    values, _ = logs.sample(jnp.zeros(2), jnp.ones(3), jnp.array([0, 1, -1, 3], jnp.int32))
    np.testing.assert_array_equal(values, 0)


WRONG = [
    (lambda: Spikes.of(-1, 3), ValueError, "n: got -1, expected 0 to"),
    (lambda: Spikes.of(3, 2.0), TypeError, "capacity: got 2.0, expected an integer"),
    (lambda: Spikes.of(3, 2**30), ValueError, "capacity: got 1073741824, an array of"),
    (lambda: Spikes.of(3, 3).record(jnp.zeros(4, bool)), hebbax.ShapeError, r"spike: got shape \(4,\), expected \(3"),
    (lambda: Spikes.of(3, 3).record(jnp.zeros(3, complex)), TypeError, "spike: got dtype complex64"),
    (lambda: Spikes.of(3, 3).table(0.0), ValueError, "dt: got 0.0, expected a finite value of more than 0"),
    (lambda: Spikes.of(3, 3).table(1 * u.mV), u.UnitMismatchError, "dt: got a value of unit mV"),
    (lambda: Spikes.of(3, 3).table([1.0]), TypeError, "dt: got"),
    (lambda: Spikes.of(3, 3).table(np.ones(2)), hebbax.ShapeError, r"dt: got shape \(2,\), expected a scalar"),
    (lambda: Spikes.of(3, 3).table(partial=1), TypeError, "partial: got 1, expected True or False"),
    (lambda: jax.jit(lambda s: s.table()["step"])(Spikes.of(3, 3)), TypeError, "log: got a traced array"),
    (lambda: Rates.of(3, 0, 1), ValueError, "every: got 0, expected 1 to"),
    (lambda: Rates.of(3, 1, 1, [0, 1]), hebbax.ShapeError, r"group: got shape \(2,\), expected \(3,\)"),
    (lambda: Rates.of(3, 1, 1, [0, 1, 3]), ValueError, r"group\[2\]: got 3, expected -1 to 2"),
    (lambda: Rates.of(3, 2**30, 1, [0, 0, 0]), ValueError, "every: got 1073741824, expected at most 715827882"),
    (lambda: Rates.of(3, 1, 2**30), ValueError, "bins: got 1073741824 for 3 groups"),
    (lambda: Weights.of(jnp.zeros((2, 2)), [0], 1, 1), hebbax.ShapeError, r"weight: got shape \(2, 2\)"),
    (lambda: Weights.of(jnp.zeros(3), [0, 3], 1, 1), ValueError, r"positions\[1\]: got 3, expected 0 to 2"),
    (lambda: Weights.of(jnp.zeros(3), [0], 2**20, 2**20), ValueError, "samples: got 1048576 every 1048576 steps"),
    (lambda: Weights.of(jnp.zeros(3), [0], 1, 1).record(jnp.zeros(4)), hebbax.ShapeError, r"weight: got shape \(4,\)"),
    (lambda: Weights.of(jnp.zeros(3), [0], 1, 1).record(jnp.zeros(3) * u.nS), u.UnitMismatchError, "weight: got"),
    (
        lambda: Weights.of(jnp.zeros(3), [0], 1, 1).record(jnp.zeros(3, jnp.bfloat16)), TypeError,
        "weight: got dtype bfloat16, expected float32",
    ),
]  # fmt: skip


@pytest.mark.parametrize("call, error, message", WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
