"""benchmarks/bench_networks.py: the constants of its networks, and what it makes of what the simulators report."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def modules(monkeypatch):
    for folder in (BENCHMARKS, BENCHMARKS / "networks"):
        monkeypatch.syspath_prepend(str(folder))
    import bench_networks
    import constants
    import networks_report

    return bench_networks, networks_report, constants


def outcome(wall, *, first=10.0, memory=10**9, rate=5.0, seconds=1.0):
    return {
        "seconds": seconds, "wall": wall * seconds, "cpu": None, "wall_per_second": wall, "build": 1.0,
        "compilation": 2.0, "before_first_step": first, "memory": memory, "memory_before": 10**8, "rate": rate,
        "plastic_synapses": 10**6, "weight_mean": 1.5, "weight_sd": 0.25,
    }  # fmt: skip


def measured(modules, monkeypatch, reports):
    """The row that comes of these reports, a function of simulator, threads and whether it is static."""
    bench_networks, _, _ = modules

    def run(row, contender, static, timeout, seed, seconds=None):
        return reports(contender.simulator, contender.threads, static, seconds)

    monkeypatch.setattr(bench_networks, "run", run)
    chosen = [bench_networks.Contender(name, threads) for name in ("hebbax", "Brian2", "NEST") for threads in (1, 2)]
    chosen.append(bench_networks.Contender("brainevent", 2))
    return bench_networks.measure(bench_networks.ROWS[0], chosen, 2, 1.0, lambda _: None)


WALLS = {"hebbax": 1.0, "Brian2": 3.0, "NEST": 9.0, "brainevent": 12.0}


def test_constants_are_those_that_nest_computes(modules):
    _, _, constants = modules
    p = constants.Hpc()
    assert p.w_e == pytest.approx(45.6, abs=0.05)
    # A constant current of the input's mean reaches eta times the threshold.
    charge = p.w_e * math.e * p.tau_syn
    assert p.input_sources * p.input_rate * charge * p.tau_m / p.capacity == pytest.approx(p.eta * p.threshold)
    assert constants.Cuba(neurons=40_000).w_e == pytest.approx(0.162)


def test_hebbax_runs_the_network_with_all_its_inputs(modules):
    from hebbax_networks import simulation

    _, _, constants = modules
    p = constants.Hpc(scale=0.01)
    run = simulation(p)(seconds=0.0015)
    assert run.n == p.neurons
    assert run.synapses == p.neurons * (p.indegree_e + p.indegree_i)


def test_targets_compare_the_best_thread_counts(modules, monkeypatch):
    def reports(simulator, threads, static, seconds):
        wall = WALLS[simulator] / threads**0.5 * (0.8 if static else 1.0)
        return outcome(wall, first=3.0 if simulator == "hebbax" else 9.0, memory=2e8 if simulator == "NEST" else 1e8)

    row = measured(modules, monkeypatch, reports)
    found = {(t["metric"], t["numerator"], t["denominator"]): (t["ratio"], t["reached"]) for t in row["targets"]}
    assert found == {
        ("wall_per_second", "Brian2 2t", "hebbax 2t"): (pytest.approx(3.0), True),
        ("wall_per_second", "brainevent 2t", "hebbax 2t"): (pytest.approx(12.0), True),
        ("wall_per_second", "hebbax 1t", "hebbax 2t"): (pytest.approx(2**0.5), True),
        ("wall_per_second", "hebbax 2t", "hebbax 2t static"): (pytest.approx(1.25), True),
        ("before_first_step", "Brian2 2t", "hebbax 2t"): (pytest.approx(3.0), False),
        ("memory", "Brian2 2t", "hebbax 2t"): (1.0, True),
        ("memory", "NEST 2t", "hebbax 2t"): (2.0, True),
    }


def test_another_rate_over_the_same_time_makes_a_figure_void(modules, monkeypatch):
    def reports(simulator, threads, static, seconds):
        seconds = seconds or (0.2 if simulator == "brainevent" else 1.0)
        start = 8.0 if seconds < 1 else 5.0  # all are livelier at first
        return outcome(WALLS[simulator], rate=start * (1.2 if simulator == "NEST" else 1.05), seconds=seconds)

    _, networks_report, _ = modules
    row = measured(modules, monkeypatch, reports)
    assert row["void"] == ["NEST 1t", "NEST 2t"]
    verdicts = [networks_report.verdict(row, target) for target in row["targets"]]
    assert [verdict for verdict in verdicts if "void" in verdict] == [v for v in verdicts if "NEST" in v] != []


def test_another_number_of_synapses_makes_a_figure_void(modules, monkeypatch):
    def reports(simulator, threads, static, seconds):
        more = 1.2 if simulator == "Brian2" else 1.005
        return outcome(WALLS[simulator]) | {"plastic_synapses": round(10**6 * more)}

    assert measured(modules, monkeypatch, reports)["void"] == ["Brian2 1t", "Brian2 2t"]


def test_a_simulator_that_fails_is_named_with_its_reason(modules, monkeypatch, tmp_path):
    def reports(simulator, threads, static, seconds):
        if simulator == "Brian2":
            raise subprocess.CalledProcessError(1, "python", stderr="Traceback\nImportError: no brian2\n")
        return outcome(WALLS[simulator])

    _, networks_report, _ = modules
    row = measured(modules, monkeypatch, reports)
    assert row["failures"] == {f"Brian2 {t}t": "ImportError: no brian2" for t in (1, 2)}
    results = {
        "command": "python", "commit": "abc", "versions": {"hebbax": "1"}, "networks": [row],
        "machine": {"cpu": "a CPU", "cpus": 2, "load_average": [0.1], "load_average_after": [0.2]},
    }  # fmt: skip
    text = networks_report.markdown(results)
    assert "| cuba4000: 4 000 neurons × 80 | 1.00 (1t) | 9.00 (1t) | 12.0 (2t) |" in text
    assert "| NEST 1t | 9.00 | 1.00 | 10.0 | 2.00 | 1.00 | 1000 | 900 | 5.00 | 1.5 ± 0.25 |" in text
    assert "- cuba4000: Brian2 1t failed: ImportError: no brian2" in text
    networks_report.plot(results, tmp_path / "networks.png")
    assert (tmp_path / "networks.png").stat().st_size > 1000


@pytest.mark.slow
def test_nest_reports_what_it_took(tmp_path):
    pytest.importorskip("nest")
    script, file = BENCHMARKS / "networks" / "nest_networks.py", tmp_path / "outcome.json"
    subprocess.run([sys.executable, script, "cuba4000", "--seconds=0.1", f"--json={file}"], check=True)
    found = json.loads(file.read_text())
    assert 3 < found["rate"] < 10 and found["plastic_synapses"] == pytest.approx(3200**2 * 0.02, rel=0.02)
