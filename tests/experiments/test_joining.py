"""hebbax.experiments.joining: what is visited together (that it makes no difference, on_four_devices.py shows)."""

import dataclasses

import numpy as np
import pytest

import hebbax
from hebbax import _cpu
from hebbax.experiments import hpc, joining
from hebbax.experiments.learning import learning_of

pytestmark = pytest.mark.skipif(_cpu.missing is not None, reason="nothing is late without kernels")


def test_which_synapses_are_visited_together():
    """Those that do not learn, with those of the same neurons and weight that do, if rows are short."""
    built = hpc.build(hpc.Parameters(), scale=0.01, inputs=0.005, plastic=True, seed=0)
    learns, static, inhibitory = built.projections

    def left(*projections, shards=1, backend=None, **bounds):
        given = dataclasses.replace(built, projections=projections)
        learning = learning_of(given, backend, "cpu")
        for k, how in learning.items() if bounds else ():
            learning[k] = dataclasses.replace(how, numbers=dataclasses.replace(how.numbers, **bounds))
        found, onto = joining.joined(given, learning, shards)
        assert all(found.projections[k].rule is not None for k in onto)
        return list(found.projections), onto

    (both, _), onto = left(learns, static, inhibitory)
    assert list(onto) == [0] and onto[0] is learns.onto
    (_, again), onto = left(static, inhibitory, learns)
    assert list(onto) == [1] and again.rule is learns.rule
    whole, parts = both.synapses, [learns.synapses, static.synapses]
    degrees = [np.diff(x.csc_indptr) for x in (whole, *parts)]
    np.testing.assert_array_equal(degrees[0], degrees[1] + degrees[2])
    for x, part in zip((onto[1], ~onto[1]), parts, strict=True):
        np.testing.assert_array_equal(whole.csc_indices[np.repeat(x, degrees[0])], part.csc_indices)
    assert left(learns, static, inhibitory, backend="jax") == ([learns, static, inhibitory], {})
    long = dataclasses.replace(learns, expected=joining.SHORT * built.excitatory.sum())
    assert left(long, static) == ([long, static], {}) and len(left(long, static, shards=2)[0]) == 1
    for bounds in (dict(high=learns.weight / 2), dict(low=learns.weight * 2)):
        assert left(learns, static, **bounds) == ([learns, static], {})
    for change in (
        dict(weight=static.weight / 2),
        dict(onto=None),
        dict(onto=np.ones(112, bool)),
        dict(drawn=static.synapses),
        dict(expected=0),
    ):
        other = dataclasses.replace(static, **change)
        assert left(learns, other) == ([learns, other], {})
    more = [learns, static, dataclasses.replace(static, onto=np.zeros(112, bool))]  # what arrives is added in one order
    assert left(*more) == (more, {})


def test_what_is_wrong_of_projections_is_said():
    built = hpc.build(hpc.Parameters(), scale=0.01, inputs=0.005, plastic=True, seed=0)
    learns, static, _ = built.projections

    def draw(**change):
        given = dataclasses.replace(built, projections=[learns, dataclasses.replace(static, **change)])
        return joining.joined(given, learning_of(given, None, "cpu"), 1)[0].projections[0].synapses

    for onto, got in ((np.ones(111, bool), r"bool of shape \(111,\)"), (np.ones(112), r"float64 of shape \(112,\)")):
        with pytest.raises(ValueError, match=rf"^onto: got {got}, expected bool of shape \(112,\)"):
            draw(onto=onto)
    with pytest.raises(
        ValueError, match=r"^onto: got a projection with a synapse onto neuron \d+, for which it is False"
    ):
        draw(onto=static.onto & (np.arange(112) > 10))
    for wrong in (3, hebbax.Synapses.random((5, 112), prob=0.1)):
        with pytest.raises(
            TypeError, match=r"^drawn: got .* from drawn\(0, 112\), expected a hebbax.Synapses of shape"
        ):
            draw(drawn=lambda *_, wrong=wrong: wrong)
