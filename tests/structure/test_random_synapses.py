"""`Synapses.random`: exact degrees, no duplicates, and the right probabilities."""

import re
from itertools import pairwise

import numpy as np
import pytest
from test_synapses import check, same

import hebbax
from hebbax._core import drawing

SHAPES = [(1, 1), (7, 7), (30, 12), (12, 30), (0, 5), (5, 0), (1, 40), (40, 1)]


def pattern_of(synapses):
    """The dense pattern, of a structure without duplicates that is in order."""
    counts = np.zeros(synapses.shape, int)
    pre = np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr))
    np.add.at(counts, (pre, np.asarray(synapses.indices)), 1)
    assert counts.max(initial=0) <= 1, "duplicates"
    check(synapses, counts > 0)
    return counts > 0


@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", ["indegree", "outdegree"])
def test_degrees_are_exact(shape, rule, autapses):
    axis = 1 if rule == "outdegree" else 0
    candidates = shape[axis] if autapses or 0 in shape else shape[axis] - 1
    for degree in sorted({0, min(1, candidates), candidates // 3, candidates // 2 + candidates % 2, candidates}):
        pattern = pattern_of(hebbax.Synapses.random(shape, **{rule: degree}, autapses=autapses, seed=degree))
        assert (pattern.sum(axis=axis) == degree).all()
        assert autapses or not pattern.diagonal().any()
    with pytest.raises(ValueError, match=rf"^{rule}: got {candidates + 1}, expected 0 to {candidates}, .*candidates"):
        hebbax.Synapses.random(shape, **{rule: candidates + 1}, autapses=autapses)


@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prob", [0, 0.0, 1e-300, 1e-12, 0.3, 0.99, 1, 1.0])
def test_prob_is_exact_at_its_ends(shape, prob, autapses):
    pattern = pattern_of(hebbax.Synapses.random(shape, prob=prob, autapses=autapses))
    everything = np.ones(shape, bool)
    if not autapses:
        np.fill_diagonal(everything, False)
    assert not (pattern & ~everything).any()
    if prob == 1:
        np.testing.assert_array_equal(pattern, everything)
    if prob < 1e-6:
        assert not pattern.any()


def pairs(drawn):
    """The pairs of neurons of what `drawing.random` returns."""
    indptr, indices, by_column = drawn
    row = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    return (indices, row) if by_column else (row, indices)


def average(trials, shape, **options):
    """How often each pair is connected, over independent networks, which one generator draws."""
    rng = np.random.default_rng(7)
    total = np.zeros(shape)
    for _ in range(trials):
        rules = (options.get(rule) for rule in ("prob", "indegree", "outdegree"))
        pre, post = pairs(drawing.random(shape, *rules, options.get("autapses", True), rng))
        total[pre, post] += 1
    return total / trials


@pytest.mark.together(1)
@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("options", [
    {"prob": 0.05}, {"prob": 0.4}, {"prob": 0.9}, {"indegree": 1}, {"indegree": 4}, {"outdegree": 2}, {"outdegree": 5},
], ids=str)  # fmt: skip
def test_every_pair_has_its_probability(shape, options, autapses):
    trials = 4000
    mean = average(trials, shape, autapses=autapses, **options)
    candidates = np.ones(shape)
    if not autapses:
        np.fill_diagonal(candidates, 0)
    if "prob" in options:
        p = candidates * options["prob"]
    else:
        ((rule, degree),) = options.items()
        p = candidates * degree / candidates.sum(axis=int(rule == "outdegree"), keepdims=True)
    inside = (0 < p) & (p < 1)
    z = (mean - p)[inside] / np.sqrt(p * (1 - p) / trials)[inside]
    assert abs(z).max() < 5 and 0.4 < (z**2).mean() < 1.9, (abs(z).max(), (z**2).mean())
    np.testing.assert_array_equal(mean[~inside], p[~inside])


@pytest.mark.parametrize("n, k", [(5, 2), (5, 3), (6, 3), (4, 1), (4, 4)])
def test_every_subset_is_as_probable(n, k, rng):
    """Not only every single target: also those that meet duplicates while they are drawn."""
    rows = 30_000
    subsets = drawing._distinct(rng, rows, k, n)
    _, counts = np.unique(subsets @ n ** np.arange(k), return_counts=True)
    total = np.prod(np.arange(n - k + 1, n + 1)) // np.prod(np.arange(1, k + 1))
    assert counts.size == total
    chi2 = ((counts - rows / total) ** 2 / (rows / total)).sum()
    assert chi2 <= (total - 1) + 5 * np.sqrt(2 * (total - 1))


def test_pairs_are_independent():
    """The number of synapses has the binomial's variance, and so has that of a row and of a column."""
    rng, trials, p = np.random.default_rng(3), 3000, 0.2
    patterns = []
    for _ in range(trials):
        pattern = np.zeros((5, 8))
        pattern[pairs(drawing.random((5, 8), p, None, None, True, rng))] = 1
        patterns.append(pattern)
    patterns = np.array(patterns)
    for counts, n in ((patterns.sum((1, 2)), 40), (patterns.sum(2)[:, 0], 8), (patterns.sum(1)[:, 3], 5)):
        variance = n * p * (1 - p)
        assert abs(counts.mean() - n * p) < 5 * np.sqrt(variance / trials)
        assert abs(counts.var() / variance - 1) < 6 * np.sqrt(2 / trials)


def test_many_small_blocks_are_as_good_as_one(monkeypatch):
    monkeypatch.setattr(drawing, "GROUP", 64)
    for shape in ((50, 40), (40, 50)):
        for options in ({"prob": 0.3}, {"outdegree": 10}, {"outdegree": 30}, {"indegree": 7}):
            for autapses in (True, False):
                pattern = pattern_of(hebbax.Synapses.random(shape, **options, autapses=autapses))
                assert autapses or not pattern.diagonal().any()
                if "prob" in options:
                    assert abs(pattern.mean() - 0.3) < 0.06
                else:
                    assert {*pattern.sum(axis=int("outdegree" in options))} == {*options.values()}


def test_gaps_that_do_not_suffice_are_drawn_on(monkeypatch):
    monkeypatch.setattr(drawing.math, "sqrt", lambda _: -1.875)  # `mean + 1` gaps: too few about half the time
    rng = np.random.default_rng(0)
    cells = [drawing._bernoulli_cells(rng, 1000, 0.5) for _ in range(200)]
    assert all((np.diff(x) > 0).all() and 0 <= x[0] and x[-1] < 1000 for x in cells)
    late = np.mean([(x >= 900).sum() for x in cells])
    assert abs(late - 50) < 5 * 5 / np.sqrt(200)


def test_larger_networks_are_sparse_throughout():
    shape, nse = (1_000_000, 2_000_000), 100_000
    synapses = hebbax.Synapses.random(shape, prob=nse / shape[0] / shape[1])
    assert abs(synapses.nse - nse) < 6 * np.sqrt(nse)
    post = np.asarray(synapses.indices)
    assert abs(post.mean() / shape[1] - 0.5) < 6 / np.sqrt(12 * nse)


@pytest.mark.parametrize("options", [{"prob": 0.2}, {"indegree": 5}, {"outdegree": 5}], ids=str)
def test_seeds(options):
    make = lambda seed: hebbax.Synapses.random((30, 30), **options, seed=seed)  # noqa: E731
    assert same(make(3), make(3)) and same(make(np.int64(3)), make(3)) and same(make(np.random.default_rng(3)), make(3))
    assert not same(make(3), make(4)) and same(make(0), hebbax.Synapses.random((30, 30), **options))
    rng = np.random.default_rng(3)
    assert not same(make(rng), make(rng))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, TypeError, "got none of prob, indegree, outdegree, expected exactly one"),
        ({"prob": 0.1, "indegree": 0}, TypeError,
         "got prob and indegree of prob, indegree, outdegree, expected exactly one"),
        ({"prob": 1.5}, ValueError, "prob: got 1.5, expected 0 to 1"),
        ({"prob": -1}, ValueError, "prob: got -1, expected 0 to 1"),
        ({"prob": float("nan")}, ValueError, "prob: got nan, expected 0 to 1"),
        ({"prob": "0.1"}, TypeError, "prob: got '0.1', expected a number from 0 to 1"),
        ({"prob": True}, TypeError, "prob: got True, expected a number from 0 to 1"),
        ({"indegree": -1}, ValueError, "indegree: got -1, expected 0 to 5, the fewest candidates of any neuron"),
        ({"outdegree": 7}, ValueError, "outdegree: got 7, expected 0 to 6, the fewest candidates of any neuron"),
        ({"outdegree": 6, "autapses": False}, ValueError,
         "outdegree: got 6, expected 0 to 5, the fewest candidates of any neuron without autapses"),
        ({"outdegree": 2.0}, TypeError, "outdegree: got 2.0, expected an integer"),
        ({"indegree": True}, TypeError, "indegree: got True, expected an integer"),
        ({"prob": 0.1, "autapses": 1}, TypeError, "autapses: got 1, expected True or False"),
        ({"prob": 0.1, "seed": -1}, ValueError, "seed: got -1, expected an int >= 0"),
        ({"prob": 0.1, "seed": None}, TypeError, "seed: got None, expected an int or a numpy.random.Generator"),
        ({"prob": 0.1, "seed": 1.0}, TypeError, "seed: got 1.0, expected an int or a numpy.random.Generator"),
    ],
    ids=str,
)  # fmt: skip
def test_random_errors(options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        hebbax.Synapses.random((5, 6), **options)


def test_random_wants_a_shape():
    with pytest.raises(hebbax.ShapeError, match=r"^shape: got 5, expected \(n_pre, n_post\)"):
        hebbax.Synapses.random(5, prob=0.1)


@pytest.mark.parametrize("rule", [{"prob": 1.0}, {"prob": 0.4}, {"indegree": 3}, {"outdegree": 2}])
def test_some_neurons_only(rule):
    pre, post = np.array([0, 2, 3, 7, 8]), np.array([1, 4, 5, 6])
    pattern = pattern_of(hebbax.Synapses.random((9, 7), **rule, pre=pre, post=post, autapses=False))
    sub = pattern[np.ix_(pre, post)]
    assert sub.sum() == pattern.sum() > 0
    if "outdegree" not in rule:  # the draw of a neuron is the same whoever else is connected
        everyone = pattern_of(hebbax.Synapses.random((9, 7), **rule, pre=pre, autapses=False))
        np.testing.assert_array_equal(pattern[:, post], everyone[:, post])
    for name, axis in (("indegree", 0), ("outdegree", 1)):
        if name in rule:
            assert (sub.sum(axis) == rule[name]).all()


def test_some_neurons_on_one_side_without_autapses():
    ids = np.array([1, 3])
    pattern = pattern_of(hebbax.Synapses.random((4, 4), prob=1.0, pre=ids, autapses=False))
    np.testing.assert_array_equal(pattern, np.array([[0, 0, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool))
    square = pattern_of(hebbax.Synapses.random((4, 4), indegree=1, pre=ids, post=ids, autapses=False))
    np.testing.assert_array_equal(np.argwhere(square), [[1, 3], [3, 1]])
    onto_all = pattern_of(hebbax.Synapses.random((4, 4), indegree=1, pre=ids, autapses=False))
    assert (onto_all.sum(0) == 1).all() and onto_all[1, 3] and onto_all[3, 1]
    from_all = pattern_of(hebbax.Synapses.random((4, 4), outdegree=2, post=[0, 1, 2], autapses=False))
    assert (from_all.sum(1) == 2).all() and not from_all.diagonal().any()
    onto_others = pattern_of(hebbax.Synapses.random((4, 4), indegree=2, pre=ids, post=[0, 2], autapses=False))
    np.testing.assert_array_equal(onto_others.sum(0), [2, 0, 2, 0])


def test_what_neurons_are_refused():
    ids = np.array([1, 3])
    with pytest.raises(ValueError, match=r"^indegree: got 2, expected 0 to 1, the fewest .* without autapses"):
        hebbax.Synapses.random((4, 4), indegree=2, pre=ids, autapses=False)
    with pytest.raises(ValueError, match=r"^post: got neurons that do not ascend"):
        hebbax.Synapses.random((4, 4), prob=0.5, post=[2, 1])
    with pytest.raises(ValueError, match=r"^pre.*4"):
        hebbax.Synapses.random((4, 9), prob=0.5, pre=[0, 4])
    with pytest.raises(ValueError, match=r"^indegree: got 3, expected 0 to 2"):
        hebbax.Synapses.random((4, 9), indegree=3, pre=ids)


RULES = [{"prob": 0.3}, {"indegree": 5}, {"outdegree": 5}, {"indegree": 20}, {"outdegree": 20}]
SUBSETS = [{}, {"pre": np.arange(0, 33, 2)}, {"post": np.arange(3, 29)}, {"pre": np.arange(25), "post": np.arange(25)}]


def drawn(size, options, seed=5, **more):
    """The dense counts of a square network."""
    synapses = hebbax.Synapses.random((size, size), **options, seed=seed, **more)
    dense = np.zeros((size, size), int)
    np.add.at(dense, (np.repeat(np.arange(size), np.diff(synapses.indptr)), np.asarray(synapses.indices)), 1)
    if not options.get("multapses"):
        check(synapses, dense > 0)
    return dense


@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: "-".join(subset))
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_parts_are_those_of_the_whole(rule, subset, autapses, monkeypatch):
    """Whatever the ranges, and also where these cut groups of neurons that are drawn together."""
    if next(iter(rule.values())) == 20 and "pre" in subset:
        rule = dict.fromkeys(rule, 12)
    monkeypatch.setattr(drawing, "GROUP", 40)
    options = rule | subset | {"autapses": autapses}
    whole = drawn(33, options)
    for shards in (1, 2, 3, 5):
        together = 0
        for a, b in pairwise(np.linspace(0, 33, shards + 1).astype(int)):
            part = drawn(33, options, part=(a, b))
            assert not part[:, :a].any() and not part[:, b:].any()
            together = together + part
        np.testing.assert_array_equal(together, whole)
    assert np.unique(whole, axis=1).shape[1] > 5  # neurons differ, also those of different groups
    assert not drawn(33, options, part=(7, 7)).any()


@pytest.mark.parametrize("rule", [{"indegree": 50}, {"outdegree": 50}], ids=str)
def test_parts_with_multapses(rule, monkeypatch):
    monkeypatch.setattr(drawing, "GROUP", 200)
    options = rule | {"multapses": True, "autapses": False}
    whole = drawn(33, options)
    assert whole.max() > 1 and not whole.diagonal().any()
    parts = [drawn(33, options, part=ends) for ends in ((0, 10), (10, 11), (11, 33))]
    np.testing.assert_array_equal(sum(parts), whole)


@pytest.mark.parametrize("rule", [{"prob": 0.3}, {"indegree": 5}], ids=str)
@pytest.mark.parametrize("autapses", [True, False])
def test_some_neurons_have_what_they_have_in_the_whole(rule, autapses, monkeypatch):
    monkeypatch.setattr(drawing, "GROUP", 40)
    whole = drawn(33, rule, autapses=autapses)
    for post in (np.arange(4, 21), np.array([0, 17, 18, 32])):
        part = drawn(33, rule, autapses=autapses, post=post)
        np.testing.assert_array_equal(part[:, post], whole[:, post])
        assert part.sum() == whole[:, post].sum()


def test_groups_are_independent(monkeypatch):
    """The targets of neurons of different groups have as many in common as independent ones have."""
    monkeypatch.setattr(drawing, "GROUP", 1)
    patterns = drawn(400, {"indegree": 40})
    common = (patterns.T @ patterns)[np.triu_indices(400, 1)]
    assert abs(common.mean() - 4) < 0.02
    assert abs(common.var() / (4 * 0.9 * 360 / 399) - 1) < 0.05  # of the hypergeometric distribution


@pytest.mark.parametrize(
    "part, error, message",
    [
        (3, TypeError, "part: got 3, expected (first, stop), two integers"),
        ((1, 2, 3), TypeError, "part: got (1, 2, 3), expected (first, stop), two integers"),
        ((0, 1.0), TypeError, "part: got (0, 1.0), expected (first, stop), two integers"),
        ((2, 1), ValueError, "part: got (2, 1), expected (first, stop) with 0 <= first <= stop <= 6"),
        ((0, 7), ValueError, "part: got (0, 7), expected (first, stop) with 0 <= first <= stop <= 6"),
    ],
    ids=str,
)
def test_what_is_no_part(part, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        hebbax.Synapses.random((5, 6), prob=0.5, part=part)


@pytest.mark.parametrize("shape, rule", [((2**40, 2), "prob"), ((2, 2**40), "indegree"), ((10**5, 10**5), "outdegree")])
def test_more_than_int32_counts_is_refused_before_anything_is_drawn(shape, rule):
    """(Or memory for 2^40 neurons would be asked for.)"""
    value = {"prob": 1e-9, "indegree": 1, "outdegree": 30000}[rule]
    with pytest.raises(OverflowError, match=r"^shape: got .*, which do not fit int32; .*jax_enable_x64"):
        hebbax.Synapses.random(shape, **{rule: value})
