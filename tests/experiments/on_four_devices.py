"""What test_networks.py runs in a process of its own, in which JAX has four virtual CPU devices."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from small_networks import RUNS, echoes

import hebbax
from hebbax import _cpu
from hebbax._core import connectivity
from hebbax.experiments import cuba, joining, network_loop, network_split, song2000
from problems import enable_x64

pytestmark = pytest.mark.optimised


def mesh(size):
    assert jax.device_count() == 4
    return Mesh(jax.devices()[:size], ("neurons",))


@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits_on_any_number_of_devices(name, monkeypatch):
    """Of neurons that do not divide evenly, over several chunks."""
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 90)
    one, *others = (RUNS[name](seconds=0.045, mesh=mesh(size)) for size in (1, 2, 4))
    assert one.n % 2 == 1 and one.devices == 1
    assert one.spike_step.size > 100 and (one.weight_end != one.weight_start).mean() > 0.3
    for other, size in zip(others, (2, 4), strict=True):
        assert other.devices == size
        for field in ("spike_step", "spike_neuron", "weight_start", "weight_end"):
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field), err_msg=field, strict=True)


@pytest.mark.skipif(_cpu.missing is not None, reason="nothing is late without kernels")
@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits_whether_synapses_are_visited_together_or_not(name, monkeypatch):
    together = RUNS[name](seconds=0.03, mesh=mesh(4))

    def shards():
        return len(network_split.Split(together.network, mesh(4), 0, None).shards)

    assert shards() == 2
    monkeypatch.setattr(joining, "SHORT", 0)
    assert shards() == 3
    apart = RUNS[name](seconds=0.03, mesh=mesh(4))
    for field in ("spike_step", "spike_neuron", "weight_start", "weight_end", "synapses"):
        np.testing.assert_array_equal(getattr(apart, field), getattr(together, field), err_msg=field, strict=True)


@pytest.mark.parametrize("name", RUNS)
def test_spikes_without_room_in_lists_are_sent_as_bits(name, monkeypatch):
    """Between processes, where lists have little room."""
    every = RUNS[name](seconds=0.03, mesh=mesh(4))
    monkeypatch.setattr(network_split, "listed", lambda: 1 / 100)
    some = RUNS[name](seconds=0.03, mesh=mesh(4))
    assert every.crowded == 0 and 0 < some.crowded < some.steps / some.network.delay
    for field in ("spike_step", "spike_neuron", "weight_end"):
        np.testing.assert_array_equal(getattr(some, field), getattr(every, field), err_msg=field, strict=True)


@pytest.mark.parametrize("asked", [None, "jax"])
def test_the_csc_view_is_there_where_it_is_read(asked):
    """Of a projection that learns at once; late or without learning, rows are all that is read."""
    build = functools.partial(cuba.build, cuba.Parameters(), neurons=203, seed=0)
    late = asked is None and _cpu.missing is None
    for network, reads_csc in (
        (build(plastic=True), [False, False] if late else [True, False, False]),
        (build(plastic=False), [False, False]),
    ):
        split = network_split.Split(network, mesh(4), 0, asked)
        assert split.how == (["late" if late else "at once"] if network.projections[0].rule else [])
        assert [shard.csc_indptr is not None for shard in split.shards] == reads_csc
        assert all(shard.count for shard in split.shards)


@pytest.mark.skipif(_cpu.missing is not None, reason="nothing is late without kernels")
def test_more_synapses_on_a_device_than_late_ones_may_be_are_refused(monkeypatch):
    monkeypatch.setattr(connectivity, "index_dtype", lambda *_: np.dtype(np.int64))
    network = cuba.build(cuba.Parameters(), neurons=203, plastic=True, seed=0)
    with enable_x64(True), pytest.raises(OverflowError, match=r"^mesh: got 4 devices, .* expected more devices"):
        network_split.Split(network, mesh(4), 0, None)


def test_neurons_with_inputs_of_their_own_are_the_same_on_any_number_of_devices():
    """Five of them: the third device has one, the fourth none."""
    one, other = (song2000.simulate(neurons=5, seconds=0.2, mesh=mesh(size)) for size in (1, 4))
    assert one.records[-1].spikes.min() > 0 and (one.weight_end != one.weight_start).mean() > 0.5
    assert other.updates == one.updates
    for name in ("weight_start", "weight_end"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name), err_msg=name)
    np.testing.assert_array_equal(other.course("spikes"), one.course("spikes"))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("dendritic", [False, True])
@pytest.mark.parametrize("awake", [False, True])
def test_spikes_reach_other_devices_after_the_delay(size, dendritic, awake, monkeypatch):
    """By an exchange of ours, however many CPUs this machine has, and by JAX's."""
    monkeypatch.setattr(_cpu, "most_devices", lambda: 4 if awake else 1)
    run, expected = echoes(n=7, delay=3, steps=60, dendritic=dendritic, mesh=mesh(size))
    np.testing.assert_array_equal(run.spike_step, expected[0])
    np.testing.assert_array_equal(run.spike_neuron, expected[1])


def test_a_large_network_is_shared_out_by_itself(monkeypatch):
    assert RUNS["cuba"](seconds=0.001).devices == 1
    monkeypatch.setattr(network_loop, "PAYS", 1)
    assert RUNS["cuba"](seconds=0.001).devices == 4


def test_devices_share_the_kernels_threads(threads):
    threads(8)
    seen = []
    for size in (1, 2, 4):
        RUNS["cuba"](seconds=0.001, mesh=mesh(size), on_progress=lambda _: seen.append(hebbax.get_num_threads()))
    assert seen == [8, 4, 2]
    assert hebbax.get_num_threads() == 8
