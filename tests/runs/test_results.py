"""Results in HDF5: what they say of the run, and that other libraries open them."""

import importlib.util
import json
import subprocess
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import hebbax
from hebbax import cli
from hebbax.experiments import cuba, network_loop, network_report, reward, song2000, song2000_report
from hebbax.experiments.parameters import Array, Data
from hebbax.runs import checkpoints, results, store


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run, and the file of its results."""
    path = tmp_path_factory.mktemp("results") / "song2000.h5"
    run = song2000.simulate(neurons=2, inputs=20, seconds=0.2, seed=5)
    results.write(path, song2000_report.data(run), results.provenance())
    return run, path


def test_arrays_have_units_axes_and_meanings(written):
    run, path = written
    with h5py.File(path) as file:
        arrays = song2000_report.arrays(run)
        assert set(arrays) - {"metadata"} <= set(file)
        for name in set(arrays) - {"metadata"}:
            np.testing.assert_array_equal(file[name], arrays[name], strict=True)
        assert file["rate_hz"].attrs["units"] == "Hz" and file["time_s"].attrs["units"] == "s"
        assert file["fraction_low"].attrs["long_name"] == "of weights below 0.1 of the largest"
        assert [axis.keys() for axis in file["weight_mean"].dims] == [["time_s"], ["neuron"]]
        threshold = file["parameters/threshold"]
        assert threshold[()] == -54.0 and threshold.attrs["units"] == "mV" and threshold.attrs["source"] == "paper"
        np.testing.assert_array_equal(file["parameters/start_range"], [0.0, 1.0])
    assert store.read(path, results.KIND, results.FORMAT)


def test_a_file_says_what_ran(written):
    with h5py.File(written[1]) as file:
        about = dict(file.attrs)
    assert about["hebbax"] == hebbax.__version__ and about["jax"] == jax.__version__ and about["seed"] == 5
    assert about["jax_backend"] == jax.default_backend() and about["command_line"] and about["date"].endswith("+00:00")
    assert about["experiment"].startswith("Song, Miller & Abbott (2000)")


def test_the_commit_is_that_of_the_folder_it_ran_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.provenance()["commit"] == "none"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    Path("a.txt").write_text("a")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    commit = results.provenance()["commit"]
    assert len(commit) == 40
    Path("a.txt").write_text("b")
    assert results.provenance()["commit"] == f"{commit} with changes"


def test_a_file_has_the_configuration_of_its_run_and_when_it_went_on(tmp_path, monkeypatch, threads):
    """By which it is run again, to the same bits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 50)

    def run(*options):
        result = CliRunner().invoke(cli.app, ["simulate", "cuba", *options], env={"COLUMNS": "300"})
        assert result.exit_code == 0, result.output

    kept = ("--checkpoint", "ck", "--output", "a")
    run("--neurons", "101", "--seconds", "0.01", "--set", "membrane_time=16.8 ms", "--static", "--seed", "7", *kept)
    with h5py.File("a/cuba.h5") as file:
        (tmp_path / "again.toml").write_text(file.attrs["configuration"])
        assert "sessions" not in file.attrs
        spikes = file["spike_time_s"][:]
    run("--config", "again.toml", "--output", "b", "--checkpoint", "other")
    run("--config", "again.toml", "--seconds", "0.02", "--resume")
    with h5py.File("a/cuba.h5") as longer, h5py.File("b/cuba.h5") as again:
        np.testing.assert_array_equal(again["spike_time_s"], spikes)
        assert again["parameters/membrane_time"][()] == 16.8 and spikes.size
        assert json.loads(longer.attrs["sessions"]) == [[k, checkpoints.versions()] for k in (0, 100)]
        np.testing.assert_array_equal(longer["spike_time_s"][: spikes.size], spikes)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xarray", "h5netcdf"))), reason="xarray or h5netcdf is not installed"
)
def test_xarray_opens_results(written, tmp_path):
    """Of a large array too, which is compressed, and of arrays of nothing."""
    import xarray

    run, path = written
    with xarray.open_dataset(path, engine="h5netcdf") as found:
        np.testing.assert_array_equal(found.weight_mean.sel(neuron=1), run.course("weight_mean")[:, 1])
        np.testing.assert_allclose(found.time_s, [0.0, 0.2])
        assert found.rate_hz.dims == ("interval", "neuron") and found.rate_hz.attrs["units"] == "Hz"
    with xarray.open_dataset(path, engine="h5netcdf", group="parameters") as found:
        assert found.threshold == -54.0 and found.threshold.attrs["units"] == "mV"
    network = network_report.data(cuba.simulate(neurons=400, seconds=0.005))
    rewards = Data({"reward_time_s": Array(np.zeros(0), "s", dims=("reward_time_s",))}, reward.Parameters(), {})
    for data in (network, rewards):
        results.write(tmp_path / "x.h5", data, {})
        with xarray.open_dataset(tmp_path / "x.h5", engine="h5netcdf") as found:
            for name, x in data.arrays.items():
                np.testing.assert_array_equal(found[name], x.value)
