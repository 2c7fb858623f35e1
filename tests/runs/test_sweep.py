"""Sweeps: values to sweep over, members beside runs by themselves, and the command."""

import csv
import json
import signal

import brainunit as u
import h5py
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from hebbax import cli
from hebbax.experiments import brunel10k, cuba, hpc, network_sweep, song2000, song2000_sweep, sweeping
from hebbax.runs import sweep
from hebbax.runs.ranges import grid, over

SMALL = {cuba: dict(neurons=100), brunel10k: dict(neurons=100), hpc: dict(scale=0.01, inputs=0.01)}
SECONDS = 0.03


@pytest.fixture
def run(threads, tmp_path, monkeypatch):
    jax.devices()
    monkeypatch.chdir(tmp_path)

    def invoke(content, *arguments):
        (tmp_path / "run.toml").write_text(content)
        command = ["sweep", "run.toml", *map(str, arguments)]
        return CliRunner().invoke(cli.app, command, env={"COLUMNS": "300", "NO_COLOR": "1"})

    return invoke


def test_values_are_ranges_and_lists():
    schema = sweep.schemas()["song2000"]
    found = over(["potentiation=0.001:0.003:3", "membrane_time=10 ms, 0.02 s", "seed=2:4"], schema)
    np.testing.assert_allclose(found["potentiation"], [0.001, 0.002, 0.003])
    assert [str(x) for x in found["membrane_time"]] == ["10. ms", "20. ms"] and found["seed"] == [2, 3, 4]
    found = over(["depression_ratio=log:0.01:1:3", "threshold=-54 mV:-50 mV:3"], schema)
    np.testing.assert_allclose(found["depression_ratio"], [0.01, 0.1, 1])
    np.testing.assert_allclose([x / u.mV for x in found["threshold"]], [-54, -52, -50])
    for text in ("potentiation=0:1:100_000_000", "seed=0:4_000_000_000"):  # not made before they are refused
        with pytest.raises(ValueError, match="expected at most 100000"):
            over([text], schema)
    assert grid(dict(a=[1, 2], b=[3, 4])) == [dict(a=1, b=3), dict(a=1, b=4), dict(a=2, b=3), dict(a=2, b=4)]


def assert_as_alone(experiment, name, values, exact):
    """Every member is the run by itself with its value."""
    parameters = [experiment.Parameters(**{name: value}) for value in values]
    options = dict(plastic=True, seed=3, **SMALL[experiment])
    outcome = network_sweep.simulate([experiment.build(p, **options) for p in parameters], seconds=SECONDS)
    ends = []
    for k, p in enumerate(parameters):
        alone = experiment.simulate(p, seconds=SECONDS, **options)
        ends.append(alone.weight_end)
        rates = alone.rates(int(0.2 * alone.steps)) / u.Hz
        for population, of in (("excitatory", True), ("inhibitory", False)):
            own = rates[alone.network.excitatory == of]
            np.testing.assert_allclose(outcome.rates[population][k], own, rtol=1e-12)
        np.testing.assert_allclose(outcome.weight[k], alone.weight_end, rtol=1e-5)
        if exact:  # (what learns late rounds otherwise)
            at_once = experiment.simulate(p, seconds=SECONDS, backend="callback", **options)
            np.testing.assert_array_equal(outcome.weight[k], at_once.weight_end)
        assert outcome.steps == alone.steps and outcome.unit == alone.network.weight_unit
    assert rates.any() and (ends[0] != ends[-1]).any() and (ends[0] != alone.weight_start).any()


def test_a_member_of_cuba_is_the_run_by_itself():
    assert_as_alone(cuba, "membrane_time", [16.8 * u.ms, 20.0 * u.ms, 22.0 * u.ms], exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment, name, values, exact",
    [
        (cuba, "trace_time", [20.0 * u.ms, 10.0 * u.ms], False),
        (brunel10k, "drive_rate", [18.0 * u.kHz, 20.0 * u.kHz, 26.0 * u.kHz], False),
        (brunel10k, "learning_rate", [0.01, 0.05], False),
        (hpc, "drive", [1.5, 1.9], True),
        (hpc, "refractory_time", [0.5 * u.ms, 1.0 * u.ms], True),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_member_of_a_network_is_the_run_by_itself(experiment, name, values, exact):
    assert_as_alone(experiment, name, values, exact)


FAST = dict(neurons=2, inputs=300, seconds=0.1)
STRONG = dict(largest_weight=0.06)  # so that a few inputs make a neuron spike


def test_a_member_of_song2000_is_the_run_by_itself(monkeypatch):
    parameters = [song2000.Parameters(potentiation=x, **STRONG) for x in (0.005, 0.02, 0.02)]
    seeds, traced, make_step = [1, 1, 2], [], song2000.make_step
    with monkeypatch.context() as patch:
        patch.setattr(song2000, "make_step", lambda *args: traced.append(args) or make_step(*args))
        outcome = song2000_sweep.simulate(parameters, seeds=seeds, **FAST)
    assert len(traced) == 1  # no loop over members
    for k, (p, seed) in enumerate(zip(parameters, seeds, strict=True)):
        alone = song2000.simulate(p, seed=seed, **FAST)
        assert alone.records[-1].spikes.min() > 0
        np.testing.assert_allclose(outcome.weight[k].reshape(2, -1), alone.weight_end, rtol=1e-5)
    assert len({x.tobytes() for x in outcome.weight}) == 3


def test_the_program_of_a_network_is_traced_once(monkeypatch):
    traced, run_interval = [], network_sweep.run_interval
    monkeypatch.setattr(network_sweep, "run_interval", lambda *args: traced.append(args) or run_interval(*args))
    parameters = [cuba.Parameters(excitatory_weight=x * u.mV) for x in np.linspace(1, 2, 7)]
    networks = [cuba.build(p, neurons=50, plastic=False, seed=0) for p in parameters]
    outcome = network_sweep.simulate(networks, seconds=0.02)
    assert len(traced) == 1 and outcome.rates["excitatory"].shape == (7, 40) and outcome.weight.shape == (7, 0)


CUBA = 'experiment = "cuba"\nneurons = 100\nseconds = "20 ms"\nseed = 3\n[parameters]\npotentiation = 0.01\n'


def test_the_command_writes_table_data_and_figure(run, tmp_path):
    result = run(CUBA, "--over", "membrane_time=16 ms:20 ms:2", "--over", "largest_weight=2,3", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["members"] == 4 and found["results"]["membrane_time"] == {"values": [16, 16, 20, 20], "unit": "ms"}
    assert found["files"] == [f"sweep-cuba/sweep-cuba.{kind}" for kind in ("csv", "h5", "png")]
    with open(tmp_path / "sweep-cuba" / "sweep-cuba.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with h5py.File(tmp_path / "sweep-cuba" / "sweep-cuba.h5") as file:
        np.testing.assert_array_equal([float(row["weight_mean (mV)"]) for row in rows], file["weight_mean"])
        np.testing.assert_allclose(file["weight"][:].mean(1), file["weight_mean"], rtol=1e-6)
        assert file["membrane_time"].attrs["units"] == "ms" and "membrane_time" not in file["parameters"]
        assert file["weight"].dims[0][0] == file["membrane_time"].dims[0][0]  # the axis `member`
        assert file["parameters/potentiation"][()] == 0.01 and "potentiation = 0.01" in file.attrs["configuration"]
        assert file.attrs["seed"] == 3 and {"command_line", "commit", "jax"} <= {*file.attrs}
        assert json.loads(file.attrs["over"]) == {"membrane_time": ["16.0 ms", "20.0 ms"], "largest_weight": [2.0, 3.0]}
        weight = file["weight"][3]
    assert (tmp_path / "sweep-cuba" / "sweep-cuba.png").read_bytes().startswith(b"\x89PNG")
    p = cuba.Parameters(membrane_time=20.0 * u.ms, largest_weight=3.0, potentiation=0.01)
    alone = cuba.simulate(p, neurons=100, seconds=0.02, seed=3)
    np.testing.assert_allclose(weight, alone.weight_end, rtol=1e-5)


def test_a_file_that_cannot_be_written_is_an_error_in_a_line(run, tmp_path):
    (tmp_path / "sweep-cuba" / "sweep-cuba.h5").mkdir(parents=True)
    result = run(CUBA, "--over", "membrane_time=16 ms", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["error"] == "sweep-cuba/sweep-cuba.h5: Is a directory"


def test_ctrl_c_keeps_what_was_computed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(network_sweep, "CHUNK_STEPS", 90)
    compute = network_sweep.simulate

    def interrupted(*args, on_progress, **options):
        signal.raise_signal(signal.SIGINT)
        return compute(*args, on_progress=on_progress, **options)

    monkeypatch.setattr(network_sweep, "simulate", interrupted)
    result = run(CUBA, "--over", "membrane_time=16 ms, 20 ms")
    assert result.exit_code == 130 and "interrupted" in result.output and "2 members, 90 steps" in result.output


@pytest.mark.parametrize(
    "content, options, expected",
    [
        (CUBA, ["time_step=1 ms, 2 ms"], "time_step shapes the program, or what is drawn: a sweep of cuba can be over"),
        (CUBA, ["neurons=3, 4"], "neurons shapes the program"),
        (CUBA, ["seed=0:3"], "seed shapes the program, or what is drawn"),
        ('experiment = "song2000"', ["excitatory_rate=1 Hz, 2 Hz"], "depression_time, seed"),
        ('experiment = "song2000"', ["start_range=1, 2"], "start_range is a pair"),
        (CUBA, ["membrane_tim=1 ms"], "parameters.membrane_tim: unknown, did you mean membrane_time?"),
        (CUBA, ["membrane_time=1:2:3"], 'parameters.membrane_time: got 1, expected a quantity, such as "20.0 ms"'),
        (CUBA, ["potentiation=1:2"], "expected FIRST:LAST:COUNT"),
        (CUBA, ["potentiation=log:0:2:4"], "neither of them 0"),
        (CUBA, ["potentiation=1:2:none"], "got 'none' values"),
        (CUBA, [], "expected at least one NAME=VALUES"),
        ("neurons = 3", ["potentiation=1,2"], "experiment: got None, expected one of song2000, cuba"),
        ('experiment = ["cuba"]', ["potentiation=1,2"], "experiment: got ['cuba'], expected one of song2000, cuba"),
        ('experiment = "cuba"\ndevices = 2', ["potentiation=1,2"], "expected devices = 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_told(run, content, options, expected):
    result = run(content, *(x for text in options for x in ("--over", text)))
    assert result.exit_code == 2, result.output
    assert expected in result.output


def test_a_sweep_that_does_not_fit_is_refused_before_it_begins(run, monkeypatch):
    monkeypatch.setattr(sweeping, "_free", lambda: 200_000)
    result = run(CUBA, "--over", "potentiation=0.001:0.01:30")
    assert result.exit_code == 1 and "memory: 30 members of" in result.output and "members fit" in result.output
