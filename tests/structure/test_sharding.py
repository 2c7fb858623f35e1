"""Networks split over devices: layouts and errors here, values in processes that have several devices."""

import sys
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import hebbax
from children import environment, free_port, run_tests, run_together
from hebbax import sharding
from hebbax.sharding import sharded as sharded_module

HERE = Path(__file__).parent
NO_COLLECTIVES = 77  # the exit status of two_processes.py


@pytest.mark.optimised
def test_on_four_devices(pytestconfig):
    """The tests in four_devices.py, with four virtual devices; as many cases as here."""
    run_tests(HERE / "four_devices.py", pytestconfig.getoption("markexpr"), devices=4)


@pytest.mark.slow
def test_on_two_processes():
    command = [sys.executable, str(HERE / "two_processes.py")]
    address = f"127.0.0.1:{free_port()}"
    statuses, outputs = run_together([[*command, str(rank), address] for rank in (0, 1)], [environment()] * 2)
    if NO_COLLECTIVES in statuses:
        pytest.skip(outputs[statuses.index(NO_COLLECTIVES)].splitlines()[-1])
    assert statuses == [0, 0], "\n".join(outputs)
    for rank, output in enumerate(outputs):
        assert f"process {rank} is done" in output


# -- layouts


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "counts", [[], [0], [0, 0, 0], [5], [9, 1, 1, 1, 1, 1], [1, 1, 1, 1, 9], [3, 0, 7, 2, 2, 0, 4]]
)
def test_balanced_layouts_are_the_best_there_are(counts, shards):
    layout = sharding.Layout.balanced(counts, shards)
    cost = np.array(counts, int) + 1

    def fullest(starts):
        return max(cost[a:b].sum() for a, b in pairwise(starts))

    inner = combinations_with_replacement(range(len(counts) + 1), shards - 1)
    assert fullest(layout.starts) == min(fullest((0, *cut, len(counts))) for cut in inner)
    assert (layout.n, layout.shards) == (len(counts), shards)


@pytest.mark.parametrize("n, shards", [(0, 1), (0, 3), (1, 4), (10, 4), (12, 4)])
def test_places_ascend_and_are_those_of_the_shard(n, shards):
    for layout in (sharding.Layout.even(n, shards), sharding.Layout.balanced(np.arange(n), shards)):
        places = layout.places
        assert np.all(np.diff(places) > 0) and places.size == n and layout.length == shards * layout.size >= shards
        for k in range(shards):
            own = places[layout.starts[k] : layout.starts[k + 1]]
            np.testing.assert_array_equal(own, k * layout.size + np.arange(own.size))


@pytest.mark.parametrize(
    "starts, size, message",
    [
        ((0,), 1, r"^starts: got \(0,\), expected ascending integers from 0"),
        ((1, 2), 1, r"^starts: got"),
        ((0, 3, 2), 3, r"^starts: got"),
        ((0, 3, 4), 2, r"^size: got 2, expected at least 3"),
        ((0, 0), 0, r"^size: got 0, expected at least 1"),
        ((0, 1.5), 3, r"^starts: got \(0, 1.5\), expected ascending integers"),
    ],
)
def test_wrong_layouts(starts, size, message):
    with pytest.raises(ValueError, match=message):
        sharding.Layout(starts, size)


@pytest.mark.parametrize("shards", [0, -1, 1.5, None])
def test_a_layout_has_shards(shards):
    for make in (lambda: sharding.Layout.even(5, shards), lambda: sharding.Layout.balanced([1, 2], shards)):
        with pytest.raises(ValueError, match=rf"^shards: got {shards}, expected an integer of at least 1"):
            make()


# -- one device, and errors


@pytest.fixture
def mesh():
    return Mesh(jax.devices()[:1], ("devices",))


@pytest.fixture
def sharded(synapses, mesh):
    return sharding.split(synapses, mesh)


def test_one_device_has_all_of_it(synapses, sharded):
    weight = jnp.arange(5.0)
    out = sharded.update_on_post(sharded.split_weight(weight), np.ones(3), np.array([1, 0, 0, 1]), 0.0, 4.0)
    np.testing.assert_array_equal(
        sharded.join_weight(out), synapses.update_on_post(weight, np.ones(3), np.array([1, 0, 0, 1]), 0.0, 4.0)
    )
    assert repr(sharded) == "ShardedSynapses(shape=(3, 4), nse=5, shards=1, room for 5 each)"
    assert "indptr=None" in repr(jax.tree.map(lambda _: None, sharded))


def test_a_new_value_compiles_nothing_anew(sharded):
    sharded.propagate_on_pre(jnp.ones(5), jnp.ones(3, bool))
    before = sharded_module._compiled._cache_size()
    sharded.propagate_on_pre(jnp.zeros(5), jnp.zeros(3, bool))
    assert sharded_module._compiled._cache_size() == before


def test_what_split_refuses(synapses, mesh):
    several = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("a", "b"))
    layout = sharding.Layout.even(4, 1)
    for error, message, arguments, options in [
        (TypeError, "^synapses: got ndarray, expected a hebbax.Synapses", (np.ones(3), mesh), {}),
        (TypeError, "^mesh: got list, expected a jax.sharding.Mesh", (synapses, jax.devices()), {}),
        (ValueError, "^axis: got None, expected one of the mesh's axes, 'a', 'b'", (synapses, several), {}),
        (ValueError, "^axis: got 'c', expected one of the mesh's axes, 'devices'", (synapses, mesh, "c"), {}),
        (hebbax.ShapeError, r"^recurrent: got synapses of shape \(3, 4\)", (synapses, mesh), {"recurrent": True}),
        (TypeError, "^csc: got 1, expected True or False", (synapses, mesh), {"csc": 1}),
        (ValueError, "^pre: got a layout of 4 neurons on 1 shards, expected 3 on 1", (synapses, mesh), {"pre": layout}),
        (
            ValueError, "^post: got a layout of 4 neurons on 2 shards, expected 4 on 1", (synapses, mesh),
            {"post": sharding.Layout.even(4, 2)},
        ),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            sharding.split(*arguments, **options)
    with pytest.raises(TypeError, match=r"^synapses: got traced arrays, .* outside jit"):
        jax.jit(lambda synapses: sharding.split(synapses, mesh).indptr)(synapses)
    square = hebbax.Synapses.random((4, 4), prob=0.5)
    with pytest.raises(ValueError, match=r"^pre: got a layout, expected none where recurrent=True"):
        sharding.split(square, mesh, recurrent=True, pre=layout)


@pytest.mark.parametrize("name, size", [("weight", 5), ("pre", 3), ("post", 4)])
def test_what_splitting_and_joining_arrays_refuses(sharded, name, size):
    argument = "weight" if name == "weight" else "x"
    for way in ("split", "join"):
        method = getattr(sharded, f"{way}_{name}")
        with pytest.raises(hebbax.ShapeError, match=rf"^{argument}: got shape \(7,\), expected \(..., {size}\)"):
            method(jnp.ones(7))
        with pytest.raises(hebbax.ShapeError, match=rf"^{argument}: got shape \(\), expected \(..., {size}\)"):
            method(1.0)
        with pytest.raises(TypeError, match=rf"^{argument}: got a traced array, .* outside jit"):
            jax.jit(method)(jnp.ones(size))
        with pytest.raises(TypeError, match=rf"^{argument}: got list, expected an array"):
            method([1.0] * size)


@pytest.mark.parametrize("name", ["weight", "pre_spike", "post_trace", "w_min", "w_max", "gain"])
def test_a_wrong_shape_is_named(sharded, name):
    given = {"weight": jnp.ones(5), "pre_spike": jnp.ones(3), "post_trace": jnp.ones(4)}
    with pytest.raises(hebbax.ShapeError, match=rf"^{name}: got shape \(7,\), expected .* as split"):
        sharded.update_on_pre(**given | {name: jnp.ones(7)})


def test_other_errors_are_those_of_the_operators(sharded):
    weight, spike = jnp.ones(5), jnp.ones(3, bool)
    with pytest.raises(TypeError, match=r"^weight: got dtype int32"):
        sharded.propagate_on_pre(jnp.ones(5, jnp.int32), spike)
    with pytest.raises(ValueError, match=r"^w_min: got 1.0, expected at most w_max, 0.0"):
        sharded.update_on_pre(weight, spike, jnp.ones(4), 1.0, 0.0)
    with pytest.raises(u.UnitMismatchError, match=r"^post_trace: "):
        sharded.update_on_pre(weight * u.mV, spike, jnp.ones(4))
    with pytest.raises(ValueError, match="backend"):
        sharded.propagate_on_post(weight, jnp.ones(4), backend="abacus")
    with pytest.raises(TypeError, match=r"^update_on_pre\(\) got an unexpected argument 'colour'"):
        sharded.update_on_pre(weight, spike, jnp.ones(4), colour="red")
    with pytest.raises(TypeError, match=r"^propagate_on_pre\(\) got an unexpected argument 'after'"):
        sharded.propagate_on_pre(weight, spike, after=jnp.ones(3))
    with pytest.raises(TypeError, match=r"^update_on_post\(\) lacks weight, post_spike"):
        sharded.update_on_post(None, jnp.ones(3), None)
    with pytest.raises(OverflowError, match=r"^pre_spike: .*jax_enable_x64"):
        sharded.propagate_on_pre(weight, np.full(3, 2**40))
