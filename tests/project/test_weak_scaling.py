"""benchmarks/weak_scaling.py: its model, and that it runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hebbax._core.sent import merge
from hebbax.experiments import joining

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def weak_scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import weak_scaling

    return weak_scaling


def test_a_ring_passes_every_part_through_every_node(weak_scaling):
    fabric = weak_scaling.Fabric("", latency=2.0, bandwidth=50.0)
    assert fabric.ring(1, 10**6) == fabric.tree(1, 10**6) == 0
    assert fabric.ring(4, 100) == 3 * (2.0 + 100 / 50.0)
    assert fabric.tree(4, 100) == 2 * 2.0 + 3 * 100 / 50.0


@pytest.mark.parametrize("short", [0, 1000])
def test_a_node_has_its_part_of_the_whole_network(short, weak_scaling, monkeypatch):
    """Of four nodes the first; and what spikes of others arrive is what was drawn."""
    monkeypatch.setattr(joining, "SHORT", short)
    monkeypatch.setattr(weak_scaling.network_split, "LISTED", 1.0)
    node, whole = weak_scaling.Node(4, 30, 0.01, 500.0), weak_scaling.Node(1, 120, 0.01, 500.0)
    assert len(node.synapses) == (2 if short else 3)
    for own, every in zip(node.synapses, whole.synapses, strict=True):
        size = node.layout.size
        there = np.asarray(every.indices) < size
        np.testing.assert_array_equal(own.indptr, np.append(0, np.cumsum(there))[every.indptr])
        np.testing.assert_array_equal(own.indices, every.indices[there])
    lists = merge(node.patterns[0], node.nodes, node.sent)
    dense = np.stack([lists.at(k).todense() for k in range(lists.steps)])
    steps = lists.steps // 2  # of both populations
    excited, inhibited = dense[:steps], dense[steps:]
    np.testing.assert_array_equal((excited | inhibited)[:, :size], node.own[0])
    assert not excited[:, ~node.network.excitatory].any() and not inhibited[:, node.network.excitatory].any()
    assert (dense.reshape(lists.steps, 4, size).sum((0, 2)) > 0).all() and lists.overflow == 0


def test_a_line_counts_once_a_step(weak_scaling):
    """However often it is visited, and as written where any visit writes; a row of 40 may begin within a line."""
    from lines import Lines, ranges, seconds

    lines, first, second = Lines(), np.zeros(100, np.float32), np.zeros(100, np.float32)
    lines.visit(first, np.array([40, 0, 70]), np.array([80, 1, 70]))
    lines.visit(second, np.array([3, 20]), writes=True)
    lines.visit(first, np.array([50]), writes=True)
    step = lines.step()
    assert lines.size == 14
    np.testing.assert_array_equal(step >> 1, [2, 3, 4, 0, 7, 8])
    np.testing.assert_array_equal(step & 1, [0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(ranges(np.array([3, 9, 5]), np.array([5, 9, 8])), [3, 4, 5, 6, 7])
    assert seconds([step, step], lines.size, 2, 3) > 0


@pytest.mark.slow
def test_it_measures_and_writes_tables(tmp_path):
    sizes = ["--neurons", "50", "--inputs", "0.01", "--nodes", "2", "--rounds", "1", "--duration", "0.001"]
    command = [sys.executable, str(BENCHMARKS / "weak_scaling.py"), *sizes, "--output", str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert child.returncode == 0, child.stderr
    text = (tmp_path / "weak_scaling.md").read_text()
    cells = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if re.match(r"\| \d", line)]
    measured, predicted = cells[:2], cells[2:]
    assert all(float(row[-2].replace(",", "")) >= 0 for row in measured)
    assert [row[:2] for row in measured] == [["1", "50"], ["2", "100"]]
    assert predicted[0][1].endswith("100%") and [row[0] for row in predicted] == ["1", "2"]
    assert "InfiniBand 2 µs a message, 25 GB/s a node" in text and "Not run on a cluster." in text
