"""Several synapses between the same two neurons: built, drawn, propagated, updated and learning as any others."""

import re
import warnings

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from test_random_synapses import pairs

import hebbax
import oracle
from hebbax._core import drawing

BOTH = {"multapses": True, "sum_duplicates": True}


def lists(rng, shape, nse):
    """Pairs in any order, most of which are there several times, and a weight for each that tells them apart."""
    pairs = rng.integers(shape, size=(max(nse // 3, 1), 2)) if nse else np.zeros((0, 2), int)
    pre, post = pairs[rng.integers(max(nse // 3, 1), size=nse)].T
    return pre, post, rng.permutation(nse).astype(np.float32)


def check_views(synapses, pre, post):
    """All arrays, from the pairs in a stable order."""
    csr = np.lexsort((post, pre))
    pre, post = pre[csr], post[csr]
    csc = np.lexsort((pre, post))
    np.testing.assert_array_equal(synapses.indices, post)
    np.testing.assert_array_equal(np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr)), pre)
    np.testing.assert_array_equal(synapses.csc_indices, pre[csc])
    np.testing.assert_array_equal(np.repeat(np.arange(synapses.n_post), np.diff(synapses.csc_indptr)), post[csc])
    np.testing.assert_array_equal(synapses.weight_indices, csc)
    return csr


# -- building


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_every_constructor_keeps_them_in_the_order_in_which_they_are_given(n_pre, n_post, nse, seed):
    shape, rng = (n_pre, n_post), np.random.default_rng(seed)
    pre, post, numbers = lists(rng, shape, nse)
    W = np.zeros(shape, np.float32)
    np.add.at(W, (pre, post), numbers)
    matrix = scipy.sparse.coo_array((numbers, (pre, post)), shape=shape)
    for synapses, weight in (
        hebbax.Synapses.from_coo(pre, post, numbers, shape=shape, multapses=True),
        hebbax.Synapses.from_scipy(matrix, multapses=True),
    ):
        order = check_views(synapses, pre, post)
        np.testing.assert_array_equal(weight, numbers[order])
        back = synapses.to_scipy(weight)
        assert back.nnz == nse
        np.testing.assert_array_equal(back.toarray(), W)
        np.testing.assert_array_equal(hebbax.Synapses.from_scipy(back, multapses=True)[1], weight)
    by_row = np.argsort(pre, kind="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unsorted rows
        synapses = hebbax.Synapses(synapses.indptr, post[by_row], shape=shape, multapses=True)
    check_views(synapses, pre, post)


def test_unsorted_rows_are_still_warned_of_and_sorted_ones_not():
    with pytest.warns(UserWarning, match=r"^indices\[2\]: got 0 after 1 in row 0; .* return_permutation=True"):
        hebbax.Synapses([0, 3], [1, 1, 0], shape=(1, 2), multapses=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hebbax.Synapses([0, 3], [0, 1, 1], shape=(1, 2), multapses=np.True_)


def test_they_raise_unless_they_are_asked_for():
    """Also in what a network with them was written to."""
    synapses, weight = hebbax.Synapses.from_coo([0, 0], [1, 1], np.float32([1, 2]), shape=(1, 2), multapses=True)
    for build in (
        lambda **options: hebbax.Synapses(synapses.indptr, synapses.indices, shape=(1, 2), **options),
        lambda **options: hebbax.Synapses.from_coo([0, 0], [1, 1], weight, shape=(1, 2), **options),
        lambda **options: hebbax.Synapses.from_scipy(synapses.to_scipy(weight), **options),
    ):
        with pytest.raises(ValueError, match=r"duplicate synapse \(multapses=True would keep both, .* sum"):
            build()
        with pytest.raises(TypeError, match=r"^multapses: got 1, expected True or False$"):
            build(multapses=1)
        build(multapses=True)
    for build in (
        lambda: hebbax.Synapses.from_coo([0], [0], weight[:1], shape=(1, 1), **BOTH),
        lambda: hebbax.Synapses.from_scipy(scipy.sparse.eye_array(2, dtype=np.float32), **BOTH),
    ):
        with pytest.raises(ValueError, match=r"^multapses: got True with sum_duplicates=True, expected one of the two"):
            build()


def test_the_dense_matrix_has_their_sum_and_a_derivative():
    synapses = hebbax.Synapses([0, 3, 4], [0, 1, 1, 1], shape=(2, 2), multapses=True)
    dense, pull = jax.vjp(synapses.todense, jnp.array([1.0, 2.0, 4.0, 8.0]))
    np.testing.assert_array_equal(dense, [[1, 6], [0, 8]])
    np.testing.assert_array_equal(pull(jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0], [1, 2, 2, 4])
    assert repr(synapses) == "Synapses(shape=(2, 2), nse=4, 1 per pair, int32, 72 B)"


# -- drawing


@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("shape", [(7, 7), (5, 3), (3, 5), (0, 4), (4, 0)])
@pytest.mark.parametrize("rule", ["indegree", "outdegree"])
def test_degrees_are_exact(rule, shape, autapses):
    """Also those beyond the number of candidates."""
    axis = 1 if rule == "outdegree" else 0
    for degree in (0, 2, 40) if shape[axis] else (0,):
        synapses = hebbax.Synapses.random(shape, **{rule: degree}, autapses=autapses, multapses=True, seed=degree)
        pre = np.repeat(np.arange(shape[0]), np.diff(synapses.indptr))
        check_views(synapses, pre, np.asarray(synapses.indices))
        counts = np.zeros(shape, int)
        np.add.at(counts, (pre, np.asarray(synapses.indices)), 1)
        assert (counts.sum(axis=axis) == degree).all()
        assert autapses or not counts.diagonal().any()
        assert degree < 40 or 0 in shape or counts.max() > 1


@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("rule", ["indegree", "outdegree"])
def test_each_is_drawn_independently_and_uniformly(rule, autapses):
    """How often each pair is there has the mean and the variance of a binomial number, by neuron and in all."""
    shape, degree, trials = (6, 9), 4, 1000
    rng, axis = np.random.default_rng(11), 1 if rule == "outdegree" else 0
    counts = np.zeros((trials, *shape), int)
    for k in range(trials):
        degrees = (None, degree, None) if rule == "indegree" else (None, None, degree)
        np.add.at(counts[k], pairs(drawing.random(shape, *degrees, autapses, rng, multapses=True)), 1)
    candidates = np.ones(shape)
    if not autapses:
        np.fill_diagonal(candidates, 0)
    p = candidates / candidates.sum(axis=axis, keepdims=True)
    possible = p > 0
    variance = degree * p * (1 - p)
    z = (counts.mean(axis=0) - degree * p)[possible] / np.sqrt(variance / trials)[possible]
    assert abs(z).max() < 5 and 0.4 < (z**2).mean() < 1.9
    assert not counts[:, ~possible].any()
    ratio = counts.var(axis=0)[possible] / variance[possible]
    assert ratio.mean() == pytest.approx(1, abs=0.03)  # (of distinct ones, 0.4 or 0.6)


def test_what_cannot_be_drawn():
    def draw(shape=(5, 6), **options):
        return hebbax.Synapses.random(shape, multapses=True, **options)

    for error, message, options in [
        (ValueError, "multapses: got True with prob, expected indegree or outdegree: prob connects", {"prob": 0.1}),
        (ValueError, "indegree: got -1, expected an int >= 0", {"indegree": -1}),
        (ValueError, "outdegree: got 1, expected 0 to 0, the fewest candidates of any neuron without autapses",
         {"outdegree": 1, "autapses": False, "shape": (1, 1)}),
        (ValueError, "indegree: got 1, expected 0 to 0, the fewest", {"indegree": 1, "shape": (0, 3)}),
        (TypeError, "indegree: got 2.5, expected an integer", {"indegree": 2.5}),
    ]:  # fmt: skip
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            draw(**options)
    with pytest.raises(TypeError, match=r"^multapses: got 'yes', expected True or False"):
        hebbax.Synapses.random((5, 6), indegree=1, multapses="yes")
    same = [np.asarray(draw(indegree=3, seed=seed).indices) for seed in (3, np.random.default_rng(3))]
    np.testing.assert_array_equal(*same)


# -- in use


@pytest.fixture
def network(rng):
    pre, post, _ = lists(rng, (30, 20), 400)
    return hebbax.Synapses.from_coo(pre, post, np.zeros(400, np.float32), shape=(30, 20), multapses=True)[0]


def operands_of(spec, rng, synapses):
    """By the names of `_core.specs`; weights are eighths, whose sums are the same in any order."""
    n_event, n_other = spec.sizes(synapses.shape)
    given = {"weight": rng.integers(-16, 16, synapses.nse).astype(np.float32) / 8, "spike": rng.random(n_event) < 0.5}
    if spec.kind == "update":
        given |= {"trace": rng.uniform(-2, 2, n_other).astype(np.float32), "w_min": -1.0, "w_max": 1.0}
    return given


def test_operators_are_those_of_the_oracle(spec, backend, network, rng):
    given = operands_of(spec, rng, network)
    named = {spec.public_name(name): x for name, x in given.items()}
    out = getattr(network, f"{spec.kind}_on_{spec.event}")(**named, backend=backend)
    names = ("indices", "indptr") if spec.event == "pre" else ("csc_indices", "csc_indptr", "weight_indices")
    structure = {name.removeprefix("csc_"): np.asarray(getattr(network, name)) for name in names}
    oracle.assert_same(out, oracle.evaluate(spec, network.shape, given | structure), signed_zeros=False)
    if spec.kind == "propagate":
        W = network.to_scipy(given["weight"]).toarray()
        np.testing.assert_array_equal(out, given["spike"] @ W if spec.event == "pre" else W @ given["spike"])


def test_threads_share_out_rows_with_runs_of_one_target(rng, threads):
    """Long enough that a thread takes a range of targets of every row: whole runs of equal ones."""
    synapses = hebbax.Synapses.random((24, 900), outdegree=30_000, multapses=True, seed=rng)
    weight = rng.uniform(-1, 1, synapses.nse).astype(np.float32)
    spike = np.ones(24, bool)
    results = []
    for n in (1, 3):
        threads(n)
        results.append(np.asarray(synapses.propagate_on_pre(weight, spike)))
    np.testing.assert_array_equal(*results)
    expected = synapses.to_scipy(weight.astype(np.float64)).toarray().sum(axis=0)
    np.testing.assert_allclose(results[0], expected, atol=1e-3)


def test_a_rule_changes_each_as_if_it_were_alone(network, rng):
    """Synapses of one pair that start alike stay alike, and are what a single one becomes."""
    pre = np.repeat(np.arange(30), np.diff(network.indptr))
    pairs, pair = np.unique(np.stack([pre, network.indices]), axis=1, return_inverse=True)
    start = rng.uniform(0, 1, pairs.shape[1]).astype(np.float32)
    single, weight = hebbax.Synapses.from_coo(*pairs, start, shape=network.shape)
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.1, 0.105, 0.0, 1.0)
    pre_spikes, post_spikes = (jnp.array(rng.random((20, n)) < 0.2) for n in network.shape)

    def simulate(synapses, weight):
        def step(state, spikes):
            return rule.step(synapses, *state, *spikes, 1 * u.ms), None

        return jax.lax.scan(step, (weight, rule.init(synapses)), (pre_spikes, post_spikes))[0][0]

    out, expected = simulate(network, jnp.asarray(weight)[pair.ravel()]), simulate(single, weight)
    np.testing.assert_array_equal(out, expected[pair.ravel()])
    assert np.mean(expected != weight) > 0.9


def test_a_dense_matrix_sums_16_bits_in_float32():
    synapses, weight = hebbax.Synapses.from_coo(
        np.zeros(300, int), np.zeros(300, int), jnp.ones(300, jnp.bfloat16), shape=(1, 1), multapses=True
    )
    dense = synapses.todense(weight)
    assert dense.dtype == jnp.bfloat16 and dense[0, 0] == 300


@pytest.mark.parametrize("flag", ["sum_duplicates", "multapses", "return_permutation"])
def test_flags_are_true_or_false(flag):
    with pytest.raises(TypeError, match=f"^{flag}: got 'no', expected True or False"):
        hebbax.Synapses.from_coo([0], [0], np.ones(1, np.float32), shape=(1, 1), **{flag: "no"})
