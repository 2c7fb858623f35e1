"""`--json`: one object on stdout, and how commands end."""

import json
import signal

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import hebbax
from hebbax import cli
from hebbax.experiments import cuba, network_loop

TINY = ["simulate", "cuba", "--neurons", "101", "--seconds", "0.02", "--devices", "1", "--json"]


@pytest.fixture
def run(threads, tmp_path, monkeypatch):
    jax.devices()
    monkeypatch.chdir(tmp_path)

    try:
        runner = CliRunner(mix_stderr=False)
    except TypeError:  # newer ones never mix
        runner = CliRunner()

    def invoke(*arguments):
        result = runner.invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})
        found = json.loads(result.stdout)  # one object, and nothing else
        assert result.stdout.count("\n") == 1 and found["exit_status"] == result.exit_code
        return found, result

    return invoke


def test_a_run_is_one_object(run, tmp_path):
    found, result = run(*TINY, "--seed", 7, "--set", "membrane_time=16.8 ms", "--format", "npz")
    assert found["status"] == "done" and found["command"] == "simulate cuba" and found["seed"] == 7
    assert found["parameters"]["membrane_time"] == "16.8 ms" and found["hebbax"] == hebbax.__version__
    assert found["files"] == ["cuba/cuba.npz", "cuba/cuba.png"]
    data, results = np.load(tmp_path / "cuba" / "cuba.npz"), found["results"]
    assert results["steps"] == {"value": 200, "unit": "1"} and results["wall_time"]["value"] > 0
    mean = {"value": pytest.approx(data["weight_end"].mean()), "unit": "mV"}
    assert results["weight_end_mean"] == mean
    counted = data["spike_time_s"] >= 0.2 * 0.02 - 1e-9
    rate = (
        np.count_nonzero(counted & data["excitatory"][data["spike_neuron"]]) / data["excitatory"].sum() / (0.8 * 0.02)
    )
    assert results["rate_excitatory"] == {"value": pytest.approx(rate), "unit": "Hz"}
    assert results["irregularity"]["value"] is None  # not a number
    assert "firing rate" in result.stderr


def test_the_versions_are_one_object(run):
    found, _ = run("info", "--json")
    assert found["versions"]["jax"] == jax.__version__ and found["threads"] == hebbax.get_num_threads()
    assert [x["name"] for x in found["backends"]] == [x.name for x in hebbax.backends()]


def test_a_replay_is_one_object(run, tmp_path):
    (tmp_path / "w.csv").write_text("pre,post,weight\n0,1,0.5\n")
    (tmp_path / "spikes.csv").write_text("time,neuron\n0.010,0\n0.015,1\n")
    found, _ = run("replay", "w.csv", "spikes.csv", "--w-max", 1, "--json")
    assert found["files"] == ["w-replayed.csv", "w-replayed-results.h5", "w-replayed.png"]
    assert found["results"]["weight_end_mean"]["value"] == pytest.approx(0.5 + 0.005 * np.exp(-5 / 20))
    assert "warnings" not in found
    (tmp_path / "w.csv").write_text("pre,post,weight\n0,1,1e200\n")
    found, _ = run("replay", "w.csv", "spikes.csv", "--rule", "power-law", "--mu", 6, "--force", "--json")
    assert found["warnings"] == ["1 weights have become infinite or no numbers"]
    found, result = run("replay", "w.csv", "nowhere.csv", "--force", "--json")
    assert (result.exit_code, found["status"]) == (1, "failed") and "nowhere.csv: No such file" in found["error"]
    assert "nowhere.csv: No such file" in result.stderr


@pytest.mark.parametrize(
    "options, status, expected",
    [
        (["--neurons", "3"], 2, "'--neurons': got 3, expected at least 5"),
        (["--set", "trace_tim=3 ms"], 2, "did you mean trace_time?"),
        (["--nonsense"], 2, "No such option"),
        (["--set", "largest_weight=-1"], 1, "refuses its constants (largest_weight = -1.0)"),
    ],
)
def test_an_error_is_one_object(run, options, status, expected):
    found, result = run(*TINY, *options)
    assert result.exit_code == status and found["status"] == "failed" and expected in found["error"]
    assert expected in result.stderr


def test_a_fault_of_ours_is_one_object_and_a_traceback(run, monkeypatch):
    def fail(**_):
        raise RuntimeError("beads fell off")

    monkeypatch.setattr(cuba, "simulate", fail)
    found, result = run(*TINY)
    assert found["error"] == "RuntimeError: beads fell off" and isinstance(result.exception, RuntimeError)


def test_an_interrupted_run_is_one_object(run, monkeypatch):
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 90)
    simulate = cuba.simulate

    def interrupted(*, on_progress, **options):
        def press_ctrl_c(done):
            if done < 0.01:
                signal.raise_signal(signal.SIGINT)
            return on_progress(done)

        return simulate(on_progress=press_ctrl_c, **options)

    monkeypatch.setattr(cuba, "simulate", interrupted)
    found, result = run(*TINY)
    assert (result.exit_code, found["status"]) == (130, "interrupted") and found["results"]["steps"]["value"] == 90


def test_the_written_file_is_in_the_object(run):
    found, _ = run("simulate", "cuba", "--write-config", "--json")
    assert found["config"].startswith("#") and "[parameters]" in found["config"]


def test_help_says_the_exit_statuses():
    result = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"})
    assert "0 done, 1 a run or a file failed, 2 wrong usage, 130 interrupted" in result.output
