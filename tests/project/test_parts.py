"""benchmarks/parts.py runs, and its stages follow one another."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.mark.slow
def test_a_part_is_measured_stage_by_stage():
    command = [sys.executable, str(BENCHMARKS / "parts.py"), "3000", "500", "3"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d,]+) \|$", child.stdout, re.MULTILINE)
    assert [stage for stage, *_ in rows] == ["imports alone", "drawn", "split, with weights"]
    memory = [int(x.replace(",", "")) for *_, x in rows]
    assert memory == sorted(memory) and memory[2] - memory[0] >= 4 * 4 * 500 * 1000 / 1e6  # four arrays of synapses
