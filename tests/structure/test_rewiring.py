"""Synapses that come and go: against lists of them, rebuilt by `from_coo`, and in places that stay free."""

import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.test_util import check_grads
from test_multapses import operands_of
from test_synapses import ARRAYS

import hebbax
import oracle
from problems import enable_x64

# Few, because each is compiled anew: neurons, places and synapses that are offered.
SIZES = [((3, 4), 14, 9), ((1, 30), 20, 30), ((4, 4), 0, 3), ((0, 3), 0, 2), ((6, 6), 9, 0)]


def values_of(rng, n):
    """Of any kind; each tells its synapse from others."""
    return {
        "weight": rng.permutation(n).astype(np.float32) * u.nS, "age": rng.integers(0, 99, n).astype(np.int32),
        "half": (jnp.asarray(rng.integers(0, 99, n), jnp.bfloat16), rng.random(n) < 0.5),
        "two": rng.integers(0, 99, (n, 2)).astype(np.int8),
    }  # fmt: skip


def some_synapses(rng, shape, nse, multapses, used=None):
    """A structure of so many places, of which the last may be free, its pairs in CSR order, and values."""
    n = shape[0] * shape[1]
    used = nse if used is None else used
    cells = np.sort(rng.integers(n, size=used) if multapses else rng.choice(n, used, replace=False)) if n else []
    pre, post = np.divmod(np.asarray(cells, int), max(shape[1], 1))
    synapses, _ = hebbax.Synapses.from_coo(pre, post, np.zeros(used, np.float32), shape=shape, multapses=multapses)
    values = values_of(rng, used)
    new = jax.tree.map(lambda x: x[:0], values, is_leaf=lambda x: isinstance(x, u.Quantity))
    options = dict(values=values, new=new, multapses=multapses, room=nse - used)
    return (*hebbax.rewire(synapses, np.ones(used, bool), [], [], **options), (pre, post))


def listed(pairs, keep, offer, multapses, shape, room):
    """Which of the old and of the offered synapses the list has, one after the other; and how many had no room."""
    kept = [k for k in range(len(pairs[0])) if keep[k]]
    there = {(pairs[0][k], pairs[1][k]) for k in kept}
    added, dropped = [], 0
    for k, pair in enumerate(zip(*offer, strict=True)):
        if not all(0 <= i < n for i, n in zip(pair, shape, strict=True)) or (not multapses and pair in there):
            continue
        if len(kept) + len(added) < room:
            added.append(k)
            there.add(pair)
        else:
            dropped += 1
            there.add(pair)
    return kept, added, dropped


def rebuilt(shape, pairs, offer, kept, added, values, new):
    """The structure and the values of a list, from COO."""
    pre, post = (np.concatenate([old[kept], more[added]]) for old, more in zip(pairs, offer, strict=True))
    zeros = np.zeros(pre.size, np.float32)
    synapses, _, order = hebbax.Synapses.from_coo(
        pre, post, zeros, shape=shape, multapses=True, return_permutation=True
    )

    def carried(old, new):
        if isinstance(old, u.Quantity):
            return u.Quantity(carried(old.mantissa, new.to(old.unit).mantissa), unit=old.unit)
        old, new = np.asarray(old), np.broadcast_to(np.asarray(new), (len(offer[0]), *old.shape[1:]))
        return np.concatenate([old[kept], new[added].astype(old.dtype)])[order]

    return synapses, jax.tree.map(carried, values, new, is_leaf=lambda x: isinstance(x, u.Quantity))


def check(got, expected):
    """Structure and values, bit for bit, and what is said of free places."""
    (out, values), (expected, expected_values) = got, expected
    used, nse = expected.nse, out.nse
    assert out.shape == expected.shape
    for name in ARRAYS:
        got, want = np.asarray(getattr(out, name)), np.asarray(getattr(expected, name))
        free = np.arange(used, nse) if name == "weight_indices" else np.zeros(nse - used, int)
        want = want if name.endswith("indptr") else np.concatenate([want, free.astype(want.dtype)])
        np.testing.assert_array_equal(got, want, err_msg=name, strict=True)
    assert jax.tree.structure(values) == jax.tree.structure(expected_values)
    for got, want in zip(jax.tree.leaves(values), jax.tree.leaves(expected_values), strict=True):
        assert isinstance(got, jax.Array) and got.dtype == want.dtype and got.shape == (nse, *want.shape[1:])
        np.testing.assert_array_equal(np.asarray(got)[:used], want)
        assert not np.asarray(got)[used:].any()


@given(st.sampled_from(SIZES), st.booleans(), st.floats(0, 1), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_result_is_that_of_a_list(size, multapses, p_keep, scalars, seed):
    """Of new ones as many as are no repetition, in any order, whose values are one for all or one for each."""
    (shape, nse, m), rng = size, np.random.default_rng(seed)
    room = int(rng.integers(0, 4))
    used = min(nse, shape[0] * shape[1])
    synapses, values, pairs = some_synapses(rng, shape, used + room, multapses, used)
    keep = rng.random(used + room) < p_keep
    offer = tuple(rng.integers(max(n, 1), size=m if 0 not in shape else 0) for n in shape)
    kept, added, _ = listed(pairs, keep, offer, multapses, shape, np.inf)
    offer = tuple(x[added] for x in offer)
    new = values_of(rng, len(added))
    if scalars:
        new = {"weight": 0.5 * u.uS, "age": np.int8(3), "half": (2, True), "two": 7}
    out = hebbax.rewire(synapses, keep, *offer, values=values, new=new, multapses=multapses, room=room)
    assert out[0].nse == len(kept) + len(added) + room
    check(out, rebuilt(shape, pairs, offer, kept, np.arange(len(added)), values, new))


@given(st.sampled_from(SIZES), st.booleans(), st.floats(0, 1), st.sampled_from((0, 1, 100)), st.integers(0, 2**32 - 1))
def test_within_its_places_the_result_is_that_of_a_list(size, multapses, p_keep, free, seed):
    """Whatever is offered: neurons that do not exist, synapses that do, and more than there is room for."""
    (shape, nse, m), rng = size, np.random.default_rng(seed)
    used = max(0, min(nse, shape[0] * shape[1]) - free)
    synapses, values, pairs = some_synapses(rng, shape, nse, multapses, used)
    keep = rng.random(nse) < p_keep
    offer = tuple(rng.integers(-1, n + 1, size=m).astype(np.int32) for n in shape)
    new = values_of(rng, m)
    out = hebbax.rewire_within(synapses, keep, *offer, values=values, new=new, multapses=multapses)
    kept, added, dropped = listed(pairs, keep, offer, multapses, shape, nse)
    check((out.synapses, out.values), rebuilt(shape, pairs, offer, kept, added, values, new))
    assert np.flatnonzero(out.added).tolist() == added and out.added.shape == (m,)
    assert int(out.dropped) == dropped and out.dropped.dtype == jnp.int32


def test_both_forms_agree_where_rows_are_long():
    rng = np.random.default_rng(3)
    synapses = hebbax.Synapses.random((300, 200), prob=0.5, seed=3)
    keep, weight = rng.random(synapses.nse) < 0.8, rng.permutation(synapses.nse)
    offer = tuple(rng.integers(n, size=9000) for n in synapses.shape)
    out = hebbax.rewire_within(synapses, keep, *offer, values=weight, new=-1)
    assert 0 < out.added.sum() and int(out.synapses.indptr[-1]) == keep.sum() + out.added.sum()
    some = tuple(x[np.asarray(out.added)] for x in offer)
    check((out.synapses, out.values), hebbax.rewire(synapses, keep, *some, values=weight, new=-1))


def draws(key, shape, nse, m):
    keys = jax.random.split(key, 3)
    offer = (jax.random.randint(k, m, -1, n) for k, n in zip(keys, shape, strict=False))
    return (jax.random.bernoulli(keys[2], 0.85, (nse,)), *offer)


def test_in_a_compiled_loop_it_is_what_single_calls_make():
    rng = np.random.default_rng(5)
    synapses, values, _ = some_synapses(rng, (9, 7), 40, False, 33)
    start, keys = (synapses, values["weight"], jnp.arange(40)), jax.random.split(jax.random.key(1), 12)

    def renew(state, key):
        synapses, *values = state
        keep, pre, post = draws(key, (9, 7), 40, 20)
        out = hebbax.rewire_within(synapses, keep, pre, post, values=values, new=[1.5 * u.nS, 100])
        return (out.synapses, *out.values), (out.added, out.dropped)

    compiled = jax.jit(lambda state: jax.lax.scan(renew, state, keys))
    (last, weight, age), (added, dropped) = compiled(start)
    values = list(start[1:])
    for k, key in enumerate(keys):
        keep, pre, post = (np.asarray(x) for x in draws(key, (9, 7), 40, 20))
        used, chosen = int(synapses.indptr[-1]), np.asarray(added[k])
        room = 40 - int(keep[:used].sum() + chosen.sum())
        options = dict(values=values, new=[1.5 * u.nS, 100], room=room)
        synapses, values = hebbax.rewire(synapses, keep, pre[chosen], post[chosen], **options)
        assert room == 0 or dropped[k] == 0
    assert jax.tree.structure(last) == jax.tree.structure(synapses)
    for got, want in zip(jax.tree.leaves((last, weight, age)), jax.tree.leaves((synapses, *values)), strict=True):
        np.testing.assert_array_equal(got, want)
    assert dropped.any() and added.any() and not added.all()


def test_under_vmap_each_member_has_a_structure_of_its_own():
    synapses, values, _ = some_synapses(np.random.default_rng(6), (9, 7), 40, False, 33)
    keys, weight = jax.random.split(jax.random.key(2), 3), values["weight"]

    @jax.jit
    def renew(key, weight):
        keep, *offer = draws(key, (9, 7), 40, 20)
        out = hebbax.rewire_within(synapses, keep, *offer, values=weight, new=2.0 * u.nS)
        return out, out.synapses.propagate_on_post(out.values, jnp.arange(7) % 2)

    weights = jnp.stack([k * weight.mantissa for k in (1, 2, 3)]) * u.nS
    together = jax.vmap(renew)(keys, weights)
    for k in range(3):
        single = renew(keys[k], weights[k])
        for got, want in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
            np.testing.assert_array_equal(got[k], want)


def test_the_derivative_of_new_values_is_that_of_what_they_are():
    rng = np.random.default_rng(7)
    synapses, *_ = some_synapses(rng, (9, 7), 40, False, 33)
    keep, *offer = draws(jax.random.key(0), (9, 7), 40, 20)
    factors = rng.uniform(1, 2, 40).astype(np.float32)

    def total(weight, new):
        out = hebbax.rewire_within(synapses, keep, *offer, values=weight, new=new)
        return jnp.sum(out.values**2 * factors)

    weight, new = (rng.uniform(-1, 1, n).astype(np.float32) for n in (40, 20))
    check_grads(jax.jit(total), (weight, new), order=1, modes=("fwd", "rev"), rtol=0.02, atol=0.02)
    by_weight, by_new = jax.grad(total, (0, 1))(weight, new)
    out = hebbax.rewire_within(synapses, keep, *offer, values=jnp.arange(40), new=-1)
    assert np.count_nonzero(by_weight) == np.count_nonzero(np.asarray(keep)[:33])
    assert np.count_nonzero(by_new) == out.added.sum() > 0


# -- free places in use


@pytest.fixture
def with_room(rng):
    """Of 60 synapses, 25 are left, and 6 others."""
    synapses = hebbax.Synapses.random((12, 10), prob=0.5, seed=3)
    keep = rng.random(synapses.nse) < 0.4
    out = hebbax.rewire_within(synapses, keep, np.arange(6), np.arange(6))
    assert 0 < int(out.synapses.indptr[-1]) < synapses.nse - 10
    return out.synapses


def test_operators_leave_free_places_alone(spec, backend, with_room, rng):
    given = operands_of(spec, rng, with_room)
    given["weight"][int(with_room.indptr[-1]) :] = np.nan
    named = {spec.public_name(name): x for name, x in given.items()}
    for more in ({}, {"gain": rng.integers(-2, 2, given["spike"].size).astype(np.float32)}):
        out = getattr(with_room, f"{spec.kind}_on_{spec.event}")(**named, **more, backend=backend)
        names = ("indices", "indptr") if spec.event == "pre" else ("csc_indices", "csc_indptr", "weight_indices")
        structure = {name.removeprefix("csc_"): np.asarray(getattr(with_room, name)) for name in names}
        expected = oracle.evaluate(spec, with_room.shape, given | more | structure)
        oracle.assert_same(out, expected, signed_zeros=False)
        assert spec.kind == "update" or np.isfinite(out).all()


def test_operators_without_jax_leave_them_alone(spec, with_room, rng):
    given = operands_of(spec, rng, with_room)
    names = ("indices", "indptr") if spec.event == "pre" else ("csc_indices", "csc_indptr", "weight_indices")
    structure = {name.removeprefix("csc_"): np.asarray(getattr(with_room, name)) for name in names}
    expected = oracle.evaluate(spec, with_room.shape, given | structure)
    named = {spec.public_name(name): x for name, x in (given | structure).items()}
    out = getattr(hebbax.inplace, spec.name)(**named, shape=with_room.shape)
    oracle.assert_same(out, expected, signed_zeros=False)


def in_use(synapses):
    """The same synapses in as many places, and which places these are."""
    used = int(synapses.indptr[-1])
    return hebbax.Synapses(synapses.indptr, synapses.indices[:used], shape=synapses.shape), used


def test_derivatives_leave_them_alone(propagate, backend, with_room, rng):
    """Of what is summed by all three kinds of kernels: that in the weight is an update, that in the gain collects."""
    exact, used = in_use(with_room)
    given = operands_of(propagate, rng, with_room)
    weight, gain = given["weight"], rng.uniform(1, 2, given["spike"].size).astype(np.float32)

    def slopes(synapses, weight):
        method = getattr(synapses, f"propagate_on_{propagate.event}")
        options = {propagate.public_name("spike"): given["spike"], "backend": backend}
        return jax.grad(lambda weight, gain: jnp.sum(method(weight, gain=gain, **options) ** 2), (0, 1))(weight, gain)

    (by_weight, by_gain), expected = slopes(with_room, weight), slopes(exact, weight[:used])
    assert not by_weight[used:].any() and by_weight[:used].any() and by_gain.any()
    np.testing.assert_allclose(by_weight[:used], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_gain, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["pre", "post"])
def test_a_rule_of_functions_leaves_them_alone(side, with_room):
    weight = jnp.arange(with_room.nse, dtype=jnp.float32)
    apply = getattr(with_room, f"apply_on_{side}")
    out = apply(lambda w, pre, post: w + 1000, weight, np.ones(getattr(with_room, f"n_{side}"), bool))
    used = int(with_room.indptr[-1])
    np.testing.assert_array_equal(out, np.where(np.arange(weight.size) < used, weight + 1000, weight))


def test_matrices_have_no_elements_for_them(with_room, rng):
    exact, used = in_use(with_room)
    weight = rng.uniform(1, 2, with_room.nse).astype(np.float32)
    expected = exact.to_scipy(weight[:used]).toarray()
    np.testing.assert_array_equal(with_room.todense(weight), expected)
    assert with_room.to_scipy(weight).nnz == used
    np.testing.assert_array_equal(with_room.to_scipy(weight).toarray(), expected)
    slope = jax.grad(lambda weight: with_room.todense(weight).sum())(weight)
    np.testing.assert_array_equal(slope, np.arange(weight.size) < used)


def test_shards_have_none_of_them(with_room, rng):
    sharded = hebbax.sharding.split(with_room, Mesh(jax.devices()[:1], ("devices",)))
    used, weight = int(with_room.indptr[-1]), rng.uniform(1, 2, with_room.nse).astype(np.float32)
    spike = rng.random(with_room.n_pre) < 0.5
    parts = sharded.split_weight(weight), sharded.split_pre(spike)
    current = sharded.join_post(sharded.propagate_on_pre(*parts))
    np.testing.assert_array_equal(current, with_room.propagate_on_pre(weight, spike))
    np.testing.assert_array_equal(sharded.join_weight(parts[0]), np.where(np.arange(weight.size) < used, weight, 0))


def test_delays_refuse_them(with_room):
    with pytest.raises(ValueError, match=r"^synapses: got \d+ free places, expected none"):
        hebbax.delays.DelayedSynapses(with_room, 1.0, axonal=1.0)
    synapses, _ = hebbax.rewire(with_room, np.ones(with_room.nse, bool), [], [])
    assert hebbax.delays.DelayedSynapses(synapses, 1.0, axonal=1.0).nse == int(with_room.indptr[-1])


# -- errors


CORRECT = dict(keep=np.ones(4, bool), add_pre=[1], add_post=[1], values={"w": np.zeros(4, np.float32)}, new={"w": 0.0})
WRONG = [
    (dict(synapses=None), TypeError, "synapses: got NoneType, expected a hebbax.Synapses"),
    (dict(keep=np.ones(4)), TypeError, "keep: got dtype float64, expected bool"),
    (dict(keep=np.ones(3, bool)), hebbax.ShapeError, "keep: got shape (3,), expected (4,), one entry per synapse"),
    (dict(add_pre=[[1]]), hebbax.ShapeError, "add_pre: got shape (1, 1), expected one dimension"),
    (dict(add_pre=[0.5]), TypeError, "add_pre: got dtype float64, expected integers"),
    (dict(add_post=[1, 2]), hebbax.ShapeError, "add_post: got shape (2,), expected (1,), as add_pre has"),
    (dict(values={"w": np.zeros(3)}), hebbax.ShapeError, "values['w']: got shape (3,), expected (4, ...), one entry"),
    (dict(values={"w": np.float32(1)}), hebbax.ShapeError, "values['w']: got shape (), expected (4, ...), one entry"),
    (dict(new={"w": np.zeros((1, 1))}), hebbax.ShapeError, "new['w']: got shape (1, 1), expected a scalar or (1,)"),
    (dict(new={"w": np.zeros(3)}), hebbax.ShapeError, "new['w']: got shape (3,), expected a scalar or (1,)"),
    (dict(new=0.0), TypeError, "new: got a value, expected {'w': a value}, as values"),
    (dict(values={"w": np.arange(4)}), TypeError, "new['w']: got dtype float64, expected one that int32 can hold"),
    (dict(new={"w": 1.0 * u.nS}), u.UnitMismatchError, "new['w']: got a value of unit nS, expected a plain number"),
    (dict(multapses=1), TypeError, "multapses: got 1, expected True or False"),
]  # fmt: skip
WRONG_OUTSIDE_JIT = [
    (dict(add_pre=[2]), ValueError, "add_pre[0]: got 2, expected 0 to 1 (shape (2, 3))"),
    (dict(add_post=[-1]), ValueError, "add_post[0]: got -1, expected 0 to 2 (shape (2, 3))"),
    (dict(add_post=[2]), ValueError, "add_pre[0], add_post[0]: got 1, 2, where a synapse is kept or added already"),
    (dict(add_pre=[0, 0], add_post=[2, 2]), ValueError, "add_pre[1], add_post[1]: got 0, 2, where a synapse is kept"),
    (dict(room=-1), ValueError, "room: got -1, expected at least 0"),
    (dict(room=True), TypeError, "room: got True, expected an integer"),
]


@pytest.mark.parametrize(
    "function, changed, error, message",
    [
        *((hebbax.rewire, *case) for case in [*WRONG, *WRONG_OUTSIDE_JIT]),
        *((hebbax.rewire_within, *case) for case in WRONG),
    ],
)
def test_wrong_arguments_are_named(function, changed, error, message):
    arguments = dict(synapses=hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))) | CORRECT
    function(**arguments)
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        function(**(arguments | changed))


def test_several_of_one_pair_that_are_kept_take_the_flag():
    synapses = hebbax.Synapses([0, 2, 2], [1, 1], shape=(2, 3), multapses=True)
    keep = np.array([True, True])
    with pytest.raises(ValueError, match=r"^multapses: got False, expected True where several"):
        hebbax.rewire(synapses, keep, [0], [0])
    assert hebbax.rewire(synapses, keep, [0], [1], multapses=True)[0].indices.tolist() == [1, 1, 1]
    assert hebbax.rewire(synapses, ~keep, [0], [1])[0].nse == 1  # where one was


@pytest.mark.parametrize("name", ["synapses", "keep", "add_pre", "add_post"])
def test_outside_jit_means_outside(name):
    synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    arguments = dict(synapses=synapses, keep=jnp.ones(4, bool), add_pre=jnp.array([1]), add_post=jnp.array([1]))

    def inside(x):
        return hebbax.rewire(**(arguments | {name: x}))

    with pytest.raises(
        TypeError, match=f"^{name}: got a traced array, expected a concrete one: .* hebbax.rewire_within"
    ):
        jax.jit(inside)(arguments[name])


def test_a_structure_that_is_closed_over_may_be_rewired_while_jax_traces():
    synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    kept = []

    @jax.jit
    def total(weight):
        built, weight = hebbax.rewire(synapses, np.arange(4) > 0, [1], [1], values=weight, new=8.0, room=2)
        kept.append(built)
        return built.propagate_on_pre(weight, jnp.ones(2, bool))

    np.testing.assert_array_equal(total(jnp.array([1.0, 2.0, 3.0, 4.0])), [3, 10, 4])
    assert kept[0].indices.tolist() == [1, 0, 1, 2, 0, 0]  # it holds no tracer


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32])
def test_ids_may_be_of_any_integers(dtype):
    """Also of those that cannot hold the number of neurons."""
    synapses = hebbax.Synapses([0, 1, *[1] * 299], [299], shape=(300, 300))
    pre, post = np.array([3, 127, 2], dtype), np.array([7, 127, np.iinfo(dtype).max], dtype)
    out = hebbax.rewire_within(synapses, np.zeros(1, bool), pre, post)
    assert out.added.tolist() == [True, False, False] and int(out.dropped) == (1 if dtype == np.uint32 else 2)
    built, _ = hebbax.rewire(synapses, np.zeros(1, bool), pre[:1], post[:1])
    assert built.csc_indices.tolist() == out.synapses.csc_indices.tolist() == [3]


def test_indices_of_64_bits_stay_so():
    with enable_x64(True):
        synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
        synapses = jax.tree.map(lambda x: x.astype(jnp.int64), synapses)
        weight, new = np.arange(4.0), np.array([2**40])
        out = hebbax.rewire_within(synapses, weight > 0, np.array([1]), np.array([1]), values=weight, new=0.5)
        assert {getattr(out.synapses, name).dtype for name in ARRAYS} == {np.dtype(np.int64)}
        assert out.values.tolist() == [1, 2, 0.5, 3] and out.values.dtype == np.float64
        out = hebbax.rewire_within(synapses, weight > 0, new, np.array([1]))
        assert not out.added.any() and out.dropped == 0


def test_pruning_alone_takes_no_new_values_and_integers_do_not_wrap():
    synapses, keep = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3)), np.array([1, 0, 1, 1], bool)
    pruned, weight = hebbax.rewire(synapses, keep, [], [], values=np.float64([1, 2, 3, 4]) * u.nS)
    assert pruned.nse == 3 and weight.unit == u.nS
    np.testing.assert_array_equal(weight.mantissa, [1, 3, 4])
    with pytest.raises(TypeError, match=r"^new: got "):
        hebbax.rewire(synapses, keep, [0], [2], values=np.ones(4))
    for run in (hebbax.rewire, hebbax.rewire_within):
        for dtype, new in ((np.int8, 300), (np.uint8, -1)):
            with pytest.raises(
                OverflowError, match=rf"^new: got {new}, expected what {np.dtype(dtype)} can hold, as values"
            ):
                run(synapses, keep, [0], [2], values=np.zeros(4, dtype), new=new)
        with pytest.raises(TypeError, match=r"^values: got dtype key<fry>, expected numbers or bool"):
            run(synapses, keep, [0], [2], values=jax.random.split(jax.random.key(0), 4), new=jax.random.key(1))
