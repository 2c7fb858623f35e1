"""benchmarks/messages.py: what it makes of samples, and that real processes give some."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def messages(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import messages

    return messages


@pytest.mark.parametrize("name, processes, rounds", [("gloo", 2, 1), ("gloo", 5, 4), ("mpi", 4, 2), ("mpi", 5, 3)])
def test_what_is_fitted_is_what_times_were_made_of(messages, name, processes, rounds):
    def taken(size):
        return rounds * 2e-5 + (processes - 1) * size / 4e9

    rows = [messages.Row(name, processes, size, taken(size), 0.0, 1.0) for size in (0, 1 << 10, 1 << 22)]
    latency, bandwidth = messages.fit(rows)
    assert latency == pytest.approx(2e-5) and bandwidth == pytest.approx(4e9)
    _, (_, _, cells) = messages.tables({(processes, name): rows})
    assert cells == [[name, str(processes), str(rounds), "20.0 µs", "4.00 GB/s"]]


def test_sizes_as_one_writes_them(messages):
    assert [messages.amount(size) for size in messages.SIZES[::3]] == ["16 B", "1 kB", "64 kB", "4 MB"]


def test_an_mpi_that_is_not_there_is_named(messages, monkeypatch):
    monkeypatch.setattr(messages, "_mpiexec", lambda: None)
    with pytest.raises(RuntimeError, match="mpi: there is no mpiexec"):
        messages.measure(2, "mpi", [16])
    monkeypatch.setattr(messages, "_mpiexec", lambda: sys.executable)
    monkeypatch.setenv("MPITRAMPOLINE_LIB", "/nowhere/libmpiwrapper.so")
    assert "MPITRAMPOLINE_LIB" in messages.missing("mpi")
    assert messages.missing("gloo") is None


def test_a_process_that_fails_before_it_has_measured_is_reported(messages, tmp_path):
    outputs = [tmp_path / "0.json", tmp_path / "1.json"]
    writing = [sys.executable, "-c", f"import os; open({str(outputs[0])!r}, 'w').close(); os._exit(6)"]
    failing = [sys.executable, "-c", "raise SystemExit('what went wrong')"]
    with pytest.raises(RuntimeError, match=r"status 6: \n.*status 1: what went wrong"):
        messages._run([writing, failing], outputs)
    outputs[0].unlink()
    messages._run([writing], outputs[:1])  # a process that fails at its end alone has measured


def test_a_process_that_hangs_is_ended_and_reported(messages, monkeypatch, tmp_path):
    monkeypatch.setattr(messages, "LIMIT", 2)
    hanging = ["sh", "-c", "echo began; exec sleep 60"]  # (which begin in less than that on a busy machine too)
    with pytest.raises(RuntimeError, match="status -9: began\n\nended after 2 s"):
        messages._run([hanging], [tmp_path / "0.json"])


@pytest.mark.slow
def test_it_measures_and_writes_tables(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "messages.py"), "--processes", "2", "--implementation", "gloo"]
    command += ["--largest", "1024", "--rounds", "2", "--duration", "0.01", "--output", str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert child.returncode == 0, child.stderr
    text = (tmp_path / "messages.md").read_text()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if "| 2 |" in line]
    assert [row[:3] for row in cells] == [["gloo", "2", size] for size in ("16 B", "64 B", "256 B", "1 kB", "1")]
    medians = [float(row[3].removesuffix(" µs").replace(",", "")) for row in cells]
    assert all(0 < x < 1e6 for x in medians)
