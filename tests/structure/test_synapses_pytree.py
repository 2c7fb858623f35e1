"""`Synapses` as a pytree and as an object; what makes frozen dataclasses pytrees."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_synapses import ARRAYS, random_pattern, same

import hebbax
from hebbax._core import connectivity
from hebbax._core.pytree import assemble, pytree


def test_jit_takes_and_returns_it(synapses):
    @jax.jit
    def f(synapses, weight):
        assert isinstance(repr(synapses), str) and synapses.shape == (3, 4) and synapses.nse == 5
        return synapses, synapses.todense(weight), synapses.propagate_on_pre(weight, jnp.ones(3, bool))

    weight = jnp.arange(1.0, 6.0)
    out, dense, total = f(synapses, weight)
    assert type(out) is hebbax.Synapses and same(out, synapses)
    np.testing.assert_array_equal(dense, synapses.todense(weight))
    np.testing.assert_array_equal(total, dense.sum(axis=0))
    np.testing.assert_array_equal(jax.jit(lambda w: synapses.todense(w))(weight), dense)  # closed over


def test_it_may_be_built_from_constants_inside_jit():
    kept = []

    @jax.jit
    def f(weight):
        kept.append(hebbax.Synapses.random((4, 4), outdegree=2))
        return kept[0].todense(weight)

    dense = f(jnp.ones(8))
    np.testing.assert_array_equal(dense, kept[0].todense(jnp.ones(8)))  # it holds no tracer


def test_tree_functions_do_not_validate(synapses):
    nones = jax.tree.map(lambda _: None, synapses)
    strings = jax.tree.map(lambda x: f"<{x.size}>", synapses)
    structs = jax.eval_shape(lambda x: x, synapses)
    shifted = jax.tree.map(lambda x: x - 100, synapses)
    for x in (nones, strings, structs, shifted, jax.tree.unflatten(jax.tree.structure(synapses), [object()] * 5)):
        assert type(x) is hebbax.Synapses and x.shape == (3, 4) and repr(x).startswith("Synapses(")
    assert "indptr='<4>'" in repr(strings) and "shape=(3, 4)" in repr(strings)
    leaves, tree = jax.tree.flatten(synapses)
    assert same(jax.tree.unflatten(tree, leaves), synapses)
    assert hash(tree) == hash(jax.tree.structure(structs)) and tree == jax.tree.structure(structs)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(synapses)[0]]
    assert paths == [f".{name}" for name in ARRAYS]


@pytest.mark.parametrize(
    "f",
    [
        copy.copy,
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: jax.device_put(x, jax.devices()[0]),
        lambda x: jax.tree.map(lambda leaf: leaf, x),
        jax.jit(lambda x: x, donate_argnums=0),
        lambda x: jax.lax.scan(lambda carry, _: (carry, None), x, length=2)[0],
        lambda x: jax.block_until_ready(x),
    ],
    ids=["copy", "deepcopy", "pickle", "device_put", "tree.map", "donate", "scan", "block"],
)
def test_copies_are_the_same(f):
    make = lambda: hebbax.Synapses.random((20, 30), prob=0.2)  # noqa: E731
    out = f(make())
    assert type(out) is hebbax.Synapses and same(out, make()) and repr(out) == repr(make())


def test_it_is_frozen(synapses):
    with pytest.raises(AttributeError):
        synapses.shape = (1, 1)
    assert synapses == synapses and synapses in {synapses}


@pytest.mark.parametrize(
    "shape, k, text",
    [
        ((1000, 1000), 100, "Synapses(shape=(1000, 1000), nse=100000, 0.1 per pair, int32, 1.2 MB)"),
        ((3, 3), 1, "Synapses(shape=(3, 3), nse=3, 0.333 per pair, int32, 68 B)"),
        ((100, 3), 1, "Synapses(shape=(100, 3), nse=100, 0.333 per pair, int32, 1.6 kB)"),
        ((0, 3), 0, "Synapses(shape=(0, 3), nse=0, int32, 20 B)"),
    ],
)
def test_repr(shape, k, text):
    assert repr(hebbax.Synapses.random(shape, outdegree=k)) == text


def test_views_transposed_twice_are_the_same(rng):
    pattern = random_pattern(rng, (30, 20))
    synapses, _ = hebbax.Synapses.from_dense(pattern.astype(np.float32))
    csr = np.asarray(synapses.indptr), np.asarray(synapses.indices)
    csc_indptr, csc_indices, there = connectivity.transposed(*csr, (30, 20))
    *back, here = connectivity.transposed(csc_indptr, csc_indices, (20, 30))
    for x, y in zip(back, csr, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(there[here], np.arange(synapses.nse))


def test_a_pytree_is_put_together_without_its_checks():
    from dataclasses import dataclass

    @pytree("name", "size")
    @dataclass(frozen=True)
    class Rule:
        tau: object
        name: str
        rate: object = 1.0
        size: int = 2

        def __post_init__(self):
            if not self.tau > 0:
                raise ValueError(f"tau: got {self.tau}")

    rule = Rule(3.0, "a")
    assert jax.tree.leaves(rule) == [3.0, 1.0]
    assert jax.tree.map(lambda x: -x, rule).tau == -3.0 and jax.tree.map(lambda _: None, rule).name == "a"
    out = jax.jit(lambda rule: jax.tree.map(lambda x: 2 * x, rule))(rule)
    assert (float(out.tau), float(out.rate), out.name, out.size) == (6.0, 2.0, "a", 2)
    assert [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(rule)[0]] == [".tau", ".rate"]
    assert jax.tree.structure(rule) != jax.tree.structure(Rule(3.0, "b"))
    assert jax.vmap(lambda rule, x: rule.tau * x, (None, 0))(rule, jnp.ones(2)).shape == (2,)
    with pytest.raises(ValueError):
        Rule(-1.0, "a")
    assert assemble(Rule, {"tau": None}).tau is None
