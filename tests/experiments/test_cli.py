"""The command line, run in this process."""

import json
import signal
import sys

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import hebbax
from children import environment, free_port, run_together
from hebbax import cli
from hebbax.experiments import song2000

TINY = ["--neurons", "2", "--inputs", "20", "--seconds", "0.3"]


@pytest.fixture
def run(threads):
    jax.devices()  # JAX has started, and `--devices` cannot give this process other ones

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})

    return invoke


@pytest.fixture
def must_not_simulate(monkeypatch):
    monkeypatch.setattr(song2000, "simulate", lambda *_, **__: pytest.fail("simulated"))


def test_info_shows_versions_backends_threads_and_devices(run):
    result = run("info")
    assert result.exit_code == 0, result.output
    for text in (hebbax.__version__, "jaxlib", "brainunit", "cupy", "OpenMP", "threads", "cpu:0"):
        assert text in result.output
    for backend in hebbax.backends():
        assert backend.name in result.output
        assert backend.description in result.output


def test_info_says_why_a_backend_is_missing(run, monkeypatch):
    backend = hebbax.Backend("abacus", ("cpu",), "beads on wires", missing="two beads [red] fell off")
    monkeypatch.setattr(hebbax, "backends", lambda: (backend,))
    assert "no: two beads [red] fell off" in run("info").output


def test_simulate_prints_a_summary_and_writes_data_and_figure(run, tmp_path):
    result = run("simulate", "song2000", *TINY, "--output", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    for text in (
        "firing rate",
        "weight, mean",
        "standard deviation",
        "below 0.1",
        "above 0.9",
        "time per step",
        "updates",
    ):
        assert text in result.output
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["song2000.npz", "song2000.png"]
    for path in folder.iterdir():
        assert f"wrote {path}" in result.output
    assert (folder / "song2000.png").read_bytes().startswith(b"\x89PNG")

    data = np.load(folder / "song2000.npz", allow_pickle=False)
    metadata = json.loads(str(data["metadata"]))
    assert set(metadata["arrays"]) == set(data.files) - {"metadata"}
    assert metadata["steps"] == 3000
    assert metadata["parameters"]["threshold"]["source"] == "paper"
    assert "mV" in metadata["parameters"]["threshold"]["value"]
    assert data["weight_end"].shape == data["weight_start"].shape == (2, 20)
    assert data["time_s"][-1] == pytest.approx(0.3)
    assert data["rate_hz"].shape == (len(data["time_s"]) - 1, 2)


def test_options_reach_the_simulation(run, tmp_path, monkeypatch):
    simulate, seen = song2000.simulate, {}
    monkeypatch.setattr(song2000, "simulate", lambda **options: seen.update(options) or simulate(**options))
    chosen = ["--seed", 7, "--dt", 0.5, "--backend", "jax", "--threads", 3]
    result = run("simulate", "song2000", *TINY, "--output", tmp_path, *chosen)
    assert result.exit_code == 0, result.output
    assert (seen["neurons"], seen["inputs"], seen["seconds"], seen["seed"], seen["backend"]) == (2, 20, 0.3, 7, "jax")
    assert str(seen["parameters"].time_step) == str(song2000.Parameters(time_step=0.5 * cli.u.ms).time_step)
    assert hebbax.get_num_threads() == 3


@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("--neurons", "0", "got 0, expected at least 1"),
        ("--inputs", "-3", "got -3, expected at least 1"),
        ("--seconds", "0", "got 0.0, expected from 0.001 to 1e+06"),
        ("--seconds", "nan", "got nan, expected from"),
        ("--dt", "5", "got 5.0, expected from 0.001 to 1"),
        ("--seed", "-1", "got -1, expected from 0"),
        ("--threads", "0", "got 0, expected at least 1"),
        ("--backend", "abacus", "got 'abacus', expected one of"),
        ("--devices", "0", "got 0, expected at least 1"),
        ("--devices", "1000", "got 1000, expected at most"),
        ("--neurons", "many", "Invalid value for '--neurons'"),
        ("--inputs", "300000000", "neurons * inputs: got 4 * 300000000"),
    ],
)
@pytest.mark.usefixtures("must_not_simulate")
def test_a_bad_option_is_named(run, tmp_path, option, value, expected):
    result = run("simulate", "song2000", "--output", tmp_path / "out", option, value)
    assert result.exit_code == 2
    assert expected in result.output
    assert option.strip("-") in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("must_not_simulate")
def test_an_output_that_cannot_be_written_is_reported_before_the_simulation(run, tmp_path):
    (tmp_path / "file").touch()
    result = run("simulate", "song2000", "--output", tmp_path / "file")
    assert result.exit_code == 2
    assert "'--output'" in result.output
    assert "expected a folder that can be written to" in result.output


def test_ctrl_c_keeps_what_was_computed(run, tmp_path, monkeypatch):
    simulate, before = song2000.simulate, signal.getsignal(signal.SIGINT)

    def interrupted(*, on_progress, **options):
        def press_ctrl_c_once(done):
            if done < 0.15:
                signal.raise_signal(signal.SIGINT)
            return on_progress(done)

        return simulate(on_progress=press_ctrl_c_once, **options)

    monkeypatch.setattr(song2000, "simulate", interrupted)
    result = run("simulate", "song2000", *TINY, "--output", tmp_path)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.output
    assert np.load(tmp_path / "song2000.npz")["time_s"][-1] == pytest.approx(0.1)
    assert (tmp_path / "song2000.png").exists()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_another_process_stopped_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(song2000, "_any_process", lambda stop: True)
    result = run("simulate", "song2000", *TINY, "--output", tmp_path)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.output


def test_without_matplotlib_it_says_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "hebbax.experiments.song2000_figure", raising=False)
    for name in ("matplotlib", "matplotlib.axes", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("simulate", "song2000", *TINY, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert 'pip install "hebbax[plot]"' in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["song2000.npz"]


def test_a_failed_write_leaves_the_file_of_before(run, tmp_path, monkeypatch):
    def fail(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    (tmp_path / "song2000.npz").write_bytes(b"whole")
    monkeypatch.setattr(np, "savez_compressed", fail)
    result = run("simulate", "song2000", *TINY, "--output", tmp_path)
    assert isinstance(result.exception, OSError)
    assert [p.name for p in tmp_path.iterdir()] == ["song2000.npz"]
    assert (tmp_path / "song2000.npz").read_bytes() == b"whole"


def simulate_in(tmp_path, environments, *options):
    """Run the command in processes of their own; return what they printed, and the data."""
    command = [sys.executable, "-c", "from hebbax.cli import main; main()", "simulate", "song2000"]
    sizes = ["--neurons", "3", "--inputs", "1000", "--seconds", "0.2"]
    commands = [[*command, *sizes, "--output", str(tmp_path), *options]] * len(environments)
    statuses, outputs = run_together(commands, environments)
    assert set(statuses) == {0}, "\n".join(outputs)
    return outputs, dict(np.load(tmp_path / "song2000.npz"))


def slurm(rank, port):
    """The environment that srun gives one of two processes; JAX takes the port from the job's number."""
    job = {"SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "2"}
    own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    return environment(JAX_COORDINATOR_ADDRESS=f"localhost:{port}", **job, **own)


@pytest.mark.slow
def test_devices_and_processes_give_the_same_result_as_one_device(tmp_path):
    (one,), expected = simulate_in(tmp_path / "one", [environment()])
    _, two = simulate_in(tmp_path / "two", [environment()], "--devices", "2")
    port = free_port()
    outputs, far = simulate_in(tmp_path / "far", [slurm(0, port), slurm(1, port)], "--distributed")
    for result in (two, far):
        for name in result.keys() - {"metadata"}:
            np.testing.assert_array_equal(result[name], expected[name], err_msg=name)
    assert expected["rate_hz"].min() > 0 and (expected["weight_end"] != expected["weight_start"]).mean() > 0.5
    assert "firing rate" in one and ["firing rate" in output for output in outputs] == [True, False]
    assert ["wrote " in output for output in outputs] == [True, False]


@pytest.mark.usefixtures("must_not_simulate")
def test_without_other_processes_it_says_so(run, tmp_path, monkeypatch):
    def fail():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(cli.jax.distributed, "initialize", fail)
    result = run("simulate", "song2000", *TINY, "--distributed", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "'--distributed': got no processes to join (coordinator_address should be defined.)" in result.output
    assert not (tmp_path / "out").exists()
