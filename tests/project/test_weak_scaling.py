"""benchmarks/weak_scaling.py: its model, and that it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def weak_scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import weak_scaling

    return weak_scaling


def test_a_ring_passes_every_part_through_every_node(weak_scaling):
    assert weak_scaling.gather_time(1, 10**6, 1.0, 1.0) == 0
    assert weak_scaling.gather_time(4, 100, 2.0, 50.0) == 3 * (2.0 + 100 / 50.0)


def test_rows_add_up(weak_scaling, monkeypatch):
    parts = iter([(1000, iter([1.0, 7.0, 0.5]).__next__), (1001, iter([1.0, 2.0, 3.0]).__next__)])
    monkeypatch.setattr(weak_scaling, "prepare", lambda *_: next(parts))
    one, two = weak_scaling.rows(100, 10, 5.0, 0.5, [1, 2], 1.0, 100.0, 3, 0.0)
    assert (one.neurons, one.synapses, one.spikes, one.step, one.real_time, one.efficiency) == (
        100, 1000, 250, 1.0, 2.0, 1.0,
    )  # fmt: skip
    assert (two.neurons, two.synapses, two.spikes, two.gather_bytes) == (200, 2000, 500, 100)
    assert (two.compute, two.gather, two.step, two.efficiency) == (2.0, 2.0, 4.0, 0.25)


@pytest.mark.slow
def test_it_measures_and_writes_a_table(tmp_path):
    sizes = ["--neurons", "50", "--synapses", "10", "--nodes", "2", "--rounds", "1", "--duration", "0.001"]
    sizes += ["--latency", "2", "--bandwidth", "25"]
    command = [sys.executable, str(BENCHMARKS / "weak_scaling.py"), *sizes, "--dt", "1", "--output", str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert child.returncode == 0, child.stderr
    text = (tmp_path / "weak_scaling.md").read_text()
    cells = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [row[:3] for row in cells] == [["1", "50", "500"], ["2", "100", "1e+03"]]
    measured = [float(row[6].split()[0].replace(",", "")) for row in cells]
    predicted = [float(row[8].split()[0].replace(",", "")) for row in cells]
    assert predicted[0] == measured[0] and abs(predicted[1] - measured[1] - 2) <= 1
    assert "Assumed: 2 µs a message, 25 GB/s a node" in text and "Not run on a cluster." in text
