"""The command line, run in this process."""

import errno
import json
import os
import signal
import sys

import brainunit as u
import h5py
import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import hebbax
from children import environment, free_port, run_together
from hebbax import _cpu, cli
from hebbax._cpu import cpus
from hebbax._cpu.cpus import numa_domains
from hebbax.experiments import brunel10k, cuba, digits, hpc, network_loop, reward, song2000

TINY = ["--neurons", "2", "--inputs", "20", "--seconds", "0.3"]
NETWORKS = {
    cuba: ["--neurons", "101", "--seconds", "0.03"],
    brunel10k: ["--neurons", "101", "--seconds", "0.03"],
    hpc: ["--scale", "0.01", "--inputs", "0.01", "--seconds", "0.03"],
}


@pytest.fixture
def run(threads):
    jax.devices()  # JAX has started, and `--devices` cannot give this process other ones

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})

    return invoke


@pytest.fixture
def must_not_simulate(monkeypatch):
    for experiment in (song2000, reward, digits, *NETWORKS):
        monkeypatch.setattr(experiment, "simulate", lambda *_, **__: pytest.fail("simulated"))


@pytest.fixture(params=NETWORKS, ids=lambda experiment: experiment.__name__.rpartition(".")[2])
def network(request):
    """An experiment on a network, its name, and options for a small one."""
    return request.param, request.param.__name__.rpartition(".")[2], NETWORKS[request.param]


def test_the_version_is_printed(run):
    assert run("--version").output == f"hebbax {hebbax.__version__}\n"


def test_info_shows_versions_backends_threads_and_devices(run):
    result = run("info")
    assert result.exit_code == 0, result.output
    for text in (hebbax.__version__, "jaxlib", "brainunit", "cupy", "OpenMP", "threads", "cpu:0"):
        assert text in result.output
    for backend in hebbax.backends():
        assert backend.name in result.output
        assert backend.description in result.output


def test_info_shows_numa_domains_and_which_cpus_of_them_are_usable(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "usable_cpus", lambda: {2, 3, 8})
    monkeypatch.setattr(cpus, "numa_domains", lambda: numa_domains(tmp_path))
    assert "NUMA" not in run("info").output
    for node, listed in {"node0": "0-3", "node10": "4-6,8", "node2": "7", "power": "", "node": "9"}.items():
        (tmp_path / node).mkdir()
        (tmp_path / node / "cpulist").write_text(f"{listed}\n")
    assert list(numa_domains(tmp_path).items()) == [(0, {0, 1, 2, 3}), (2, {7}), (10, {4, 5, 6, 8})]
    lines = [line for line in run("info").output.splitlines() if "NUMA" in line]
    for line, text in zip(lines, ("0 │ 2 of its 4", "2 │ 0 of its 1", "10 │ 1 of its 4"), strict=True):
        assert text in " ".join(line.split())


@pytest.mark.parametrize("cpulist", ["", "0-", "many"])
def test_a_numa_domain_without_cpus_or_of_nonsense_is_no_error(tmp_path, cpulist):
    (tmp_path / "node0").mkdir()
    (tmp_path / "node0" / "cpulist").write_text(cpulist)
    assert numa_domains(tmp_path) == ({0: set()} if cpulist == "" else {})


def test_info_says_why_a_backend_is_missing(run, monkeypatch):
    backend = hebbax.Backend("abacus", ("cpu",), "beads on wires", missing="two beads [red] fell off")
    monkeypatch.setattr(hebbax, "backends", lambda: (backend,))
    assert "no: two beads [red] fell off" in run("info").output


def test_simulate_prints_a_summary_and_writes_data_and_figure(run, tmp_path):
    both = ("--format", "npz", "--format", "hdf5")
    result = run("simulate", "song2000", *TINY, *both, "--output", tmp_path / "new" / "folder")
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
    assert sorted(p.name for p in folder.iterdir()) == ["song2000.h5", "song2000.npz", "song2000.png"]
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


@pytest.mark.slow
def test_reward_prints_a_summary_and_writes_data_and_figure(run, tmp_path):
    result = run("simulate", "reward", "--seconds", "0.3", "--seed", "2", "--format", "npz", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    for text in ("firing rate", "rewards", "weight of the chosen synapse", "weights of the others", "time per step"):
        assert text in result.output
    assert (tmp_path / "reward.png").read_bytes().startswith(b"\x89PNG")
    data = np.load(tmp_path / "reward.npz", allow_pickle=False)
    metadata = json.loads(str(data["metadata"]))
    assert set(metadata["arrays"]) == set(data.files) - {"metadata"}
    assert (metadata["steps"], metadata["seed"]) == (300, 2)
    assert metadata["parameters"]["reward_window"]["source"].startswith("program")
    assert data["weight_end"].shape == (80_000,) and data["time_s"][-1] == pytest.approx(0.3)


@pytest.mark.usefixtures("must_not_simulate")
@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("--seconds", "0", "got 0.0, expected from 0.001"),
        ("--backend", "abacus", "got 'abacus', expected one of"),
        ("--seed", "-1", "got -1, expected from 0"),
    ],
)
def test_a_bad_option_of_reward_is_named(run, tmp_path, option, value, expected):
    result = run("simulate", "reward", "--output", tmp_path / "out", option, value)
    assert result.exit_code == 2 and expected in result.output and option in result.output
    assert not (tmp_path / "out").exists()


def test_options_reach_the_simulation(run, tmp_path, monkeypatch):
    simulate, seen = song2000.simulate, {}
    monkeypatch.setattr(song2000, "simulate", lambda **options: seen.update(options) or simulate(**options))
    chosen = ["--seed", 7, "--dt", 0.5, "--backend", "jax", "--threads", 3]
    result = run("simulate", "song2000", *TINY, "--output", tmp_path, *chosen)
    assert result.exit_code == 0, result.output
    assert (seen["neurons"], seen["inputs"], seen["seconds"], seen["seed"], seen["backend"]) == (2, 20, 0.3, 7, "jax")
    assert str(seen["parameters"].time_step) == str(song2000.Parameters(time_step=0.5 * u.ms).time_step)
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
    with h5py.File(tmp_path / "song2000.h5") as file:
        assert file["time_s"][-1] == pytest.approx(0.1)
    assert (tmp_path / "song2000.png").exists()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_another_process_stopped_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(song2000, "any_process", lambda stop: True)
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
    assert [p.name for p in tmp_path.iterdir()] == ["song2000.h5"]


def test_a_failed_write_leaves_the_file_of_before(run, tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "song2000.h5").write_bytes(b"whole")
    monkeypatch.setattr(os, "fsync", fail)
    result = run("simulate", "song2000", *TINY, "--output", tmp_path)
    assert result.exit_code == 1 and f"{tmp_path / 'song2000.h5'}: No space left" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["song2000.h5"]
    assert (tmp_path / "song2000.h5").read_bytes() == b"whole"


SHARED_OUT = {  # and what must have happened
    "song2000": (("--neurons", "3", "--inputs", "1000", "--seconds", "0.2"), lambda x: x["rate_hz"].min() > 0),
    "hpc": (("--scale", "0.02", "--inputs", "0.05", "--seconds", "0.06"), lambda x: x["spike_neuron"].size > 100),
}


def simulate_in(name, tmp_path, environments, *options):
    """Run the command in processes of their own; return what they printed, and the data."""
    command = [sys.executable, "-c", "from hebbax.cli import main; main()", "simulate", name]
    given = [*SHARED_OUT[name][0], "--format", "npz", "--output", str(tmp_path)]
    commands = [[*command, *given, *options]] * len(environments)
    statuses, outputs = run_together(commands, environments)
    assert set(statuses) == {0}, "\n".join(outputs)
    return outputs, dict(np.load(tmp_path / f"{name}.npz"))


def slurm(rank, port):
    """The environment that srun gives one of two processes; JAX takes the port from the job's number."""
    job = {"SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "2"}
    own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    return environment(JAX_COORDINATOR_ADDRESS=f"localhost:{port}", **job, **own)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED_OUT)
def test_devices_and_processes_give_the_same_result_as_one_device(name, tmp_path):
    (one,), expected = simulate_in(name, tmp_path / "one", [environment()])
    _, two = simulate_in(name, tmp_path / "two", [environment()], "--devices", "2")
    port = free_port()
    outputs, far = simulate_in(name, tmp_path / "far", [slurm(0, port), slurm(1, port)], "--distributed")
    for result in (two, far):
        for field in result.keys() - {"metadata"}:
            np.testing.assert_array_equal(result[field], expected[field], err_msg=field)
    assert SHARED_OUT[name][1](expected) and (expected["weight_end"] != expected["weight_start"]).mean() > 0.5
    assert "firing rate" in one and ["firing rate" in output for output in outputs] == [True, False]
    assert ["wrote " in output for output in outputs] == [True, False]


@pytest.mark.usefixtures("must_not_simulate")
def test_without_other_processes_it_says_so(run, tmp_path, monkeypatch):
    def fail():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    result = run("simulate", "song2000", *TINY, "--distributed", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "'--distributed': got no processes to join (coordinator_address should be defined.)" in result.output
    assert not (tmp_path / "out").exists()


# -- digits


FEW = ["--neurons", 10, "--epochs", 1, "--images", 100]


@pytest.mark.slow
def test_digits_are_summed_up_and_written(run, tmp_path):
    result = run("simulate", "digits", *FEW, "--seed", 3, "--format", "npz", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    for text in ("100 shown to learn, 100 to assign classes, 360 held out", "accuracy, held out", "196 of 196 s"):
        assert text in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.npz", "digits.png"]
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    data = np.load(tmp_path / "digits.npz", allow_pickle=False)
    metadata = json.loads(str(data["metadata"]))
    assert set(metadata["arrays"]) == set(data.files) - {"metadata"}
    assert (metadata["steps"], metadata["seed"]) == (560 * 700, 3)
    assert data["weight"].shape == (64, 10) and data["confusion"].sum() == 360
    assert metadata["accuracy"] == np.trace(data["confusion"]) / 360


def test_options_reach_digits_and_ctrl_c_keeps_what_was_computed(run, tmp_path, monkeypatch):
    simulate, seen = digits.simulate, {}

    def interrupted(*, on_progress, **options):
        seen.update(options)

        def press_ctrl_c_once(done):
            if done < 20:
                signal.raise_signal(signal.SIGINT)
            return on_progress(done)

        return simulate(on_progress=press_ctrl_c_once, **options)

    monkeypatch.setattr(digits, "simulate", interrupted)
    chosen = ["--seed", 7, "--dt", 1.0, "--backend", "jax", "--threads", 3]
    result = run("simulate", "digits", *FEW, *chosen, "--format", "npz", "--output", tmp_path)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.output
    data = np.load(tmp_path / "digits.npz")
    assert len(data["learning_label"]) == digits.BLOCK and len(data["held_out_label"]) == 0
    assert (tmp_path / "digits.png").exists()
    assert [seen[x] for x in ("neurons", "epochs", "images", "seed", "backend")] == [10, 1, 100, 7, "jax"]
    assert str(seen["parameters"].time_step) == str(1.0 * u.ms)
    assert hebbax.get_num_threads() == 3


@pytest.mark.parametrize(
    "option, value, expected",
    [
        ("--neurons", "0", "got 0, expected at least 1"),
        ("--epochs", "0", "got 0, expected at least 1"),
        ("--images", "1500", "got 1500, expected from 1 to 1437"),
        ("--dt", "2", "got 2.0, expected from 0.001 to 1"),
        ("--backend", "abacus", "got 'abacus', expected one of"),
    ],
)
@pytest.mark.usefixtures("must_not_simulate")
def test_a_bad_option_of_digits_is_named(run, tmp_path, option, value, expected):
    result = run("simulate", "digits", "--output", tmp_path / "out", option, value)
    assert result.exit_code == 2, result.output
    assert expected in result.output and option in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("must_not_simulate")
def test_without_scikit_learn_it_says_how_to_get_it(run, tmp_path, monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run("simulate", "digits", *FEW, "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert 'pip install "hebbax[digits]"' in result.output
    assert not (tmp_path / "out").exists()


# -- experiments on networks


@pytest.mark.parametrize("static", [False, True])
def test_a_network_is_summed_up_and_written(run, tmp_path, network, static):
    _, name, tiny = network
    options = [*tiny, *(["--static"] if static else []), "--seed", 3, "--format", "npz"]
    result = run("simulate", name, *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    for text in ("excitatory", "firing rate, inhibitory", "irregularity", "devices", "per biological second"):
        assert text in result.output
    assert "0.03 of 0.03 s" in result.output
    assert ("of which 0 learn" in result.output) == static
    assert ("weight, at the end" in result.output) != static
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.npz", f"{name}.png"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    data = np.load(tmp_path / f"{name}.npz", allow_pickle=False)
    metadata = json.loads(str(data["metadata"]))
    assert (metadata["steps"], metadata["seed"]) == (300, 3)
    assert (data["weight_end"].size == 0) == static
    assert data["spike_time_s"].size == data["spike_neuron"].size > 0


def test_options_reach_a_network(run, tmp_path, network, monkeypatch):
    experiment, name, tiny = network
    simulate, seen = experiment.simulate, {}
    monkeypatch.setattr(experiment, "simulate", lambda **options: seen.update(options) or simulate(**options))
    chosen = ["--seed", 7, "--dt", 0.5, "--backend", "jax", "--threads", 3, "--devices", 1]
    result = run("simulate", name, *tiny, *chosen, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert (seen["seconds"], seen["seed"], seen["backend"], seen["plastic"]) == (0.03, 7, "jax", True)
    assert seen["mesh"].size == 1
    assert str(seen["parameters"].time_step) == str(0.5 * u.ms)
    assert hebbax.get_num_threads() == 3
    for option, value in zip(tiny[::2], tiny[1::2], strict=True):
        assert seen[option.strip("-")] == float(value)


@pytest.mark.parametrize("threads, most", [(1, 1), (1000, _cpu.most_devices())])
def test_a_network_has_as_many_devices_as_threads_but_not_more_than_cpus(run, tmp_path, monkeypatch, threads, most):
    seen = {}
    monkeypatch.setattr(jax.config, "update", seen.__setitem__)
    options = [*NETWORKS[cuba], "--threads", threads, "--output", tmp_path]
    assert run("simulate", "cuba", *options).exit_code == 0
    assert seen == {"jax_num_cpu_devices": most}


@pytest.mark.slow
def test_the_connectivity_of_cuba_may_be_chosen_even_none(run, tmp_path):
    sizes = []
    for connectivity in (0, 0.02, 1):
        size = ["--neurons", 100, "--connectivity", connectivity, "--seconds", 0.01]
        options = [*size, "--format", "npz", "--output", tmp_path]
        assert run("simulate", "cuba", *options).exit_code == 0
        sizes.append(np.load(tmp_path / "cuba.npz")["weight_end"].size)
    assert sizes[0] == 0 and sizes[2] == 80 * 80
    assert sizes[1] == pytest.approx(0.02 * sizes[2], rel=0.5)


@pytest.mark.parametrize(
    "command, option, value, expected",
    [
        ("cuba", "--neurons", "4", "got 4, expected at least 5"),
        ("cuba", "--connectivity", "1.5", "got 1.5, expected from 0 to 1"),
        ("cuba", "--connectivity", "nan", "got nan, expected from 0 to 1"),
        ("brunel10k", "--neurons", "0", "got 0, expected at least 5"),
        ("brunel10k", "--dt", "0.7", "delay: got 1.5 ms, expected a multiple of dt"),
        ("brunel10k", "--seed", "-1", "got -1, expected from 0"),
        ("brunel10k", "--backend", "abacus", "got 'abacus', expected one of"),
        ("hpc", "--dt", "0.7", "delay: got 1.5 ms, expected a multiple of dt"),
        ("hpc", "--scale", "0", "got 0.0, expected at least 0.001"),
        ("hpc", "--inputs", "2", "got 2.0, expected from 0.001 to 1"),
        ("hpc", "--devices", "1000", "got 1000, expected at most"),
        ("hpc", "--devices", "0", "got 0, expected at least 1"),
        ("hpc", "--seconds", "0", "got 0.0, expected from 0.001"),
        ("hpc", "--seconds", "1e6", "10000000000 steps of 0.1 ms, expected at most"),
    ],
)
@pytest.mark.usefixtures("must_not_simulate")
def test_a_bad_option_of_a_network_is_named(run, tmp_path, command, option, value, expected):
    result = run("simulate", command, "--output", tmp_path / "out", option, value)
    assert result.exit_code == 2, result.output
    assert expected in result.output and option in result.output
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_the_spikes_until_then(run, tmp_path, network, monkeypatch):
    experiment, name, tiny = network
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 90)
    simulate, before = experiment.simulate, signal.getsignal(signal.SIGINT)

    def interrupted(*, on_progress, **options):
        def press_ctrl_c_once(done):
            if done < 0.01:
                signal.raise_signal(signal.SIGINT)
            return on_progress(done)

        return simulate(on_progress=press_ctrl_c_once, **options)

    monkeypatch.setattr(experiment, "simulate", interrupted)
    result = run("simulate", name, *tiny, "--format", "npz", "--output", tmp_path)
    assert result.exit_code == 130, result.output
    assert "interrupted" in result.output
    data = np.load(tmp_path / f"{name}.npz")
    assert json.loads(str(data["metadata"]))["steps"] == 90
    assert not (data["spike_time_s"] >= 0.009).any()
    assert (tmp_path / f"{name}.png").exists()
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.slow
def test_devices_of_a_network_give_the_same_result(tmp_path):
    """In processes of their own, which start as many devices as they are asked for."""
    command = [sys.executable, "-c", "from hebbax.cli import main; main()", "simulate", "brunel10k"]
    options = ["--neurons", "101", "--seconds", "0.045", "--threads", "2", "--format", "npz", "--output"]
    outputs = [str(tmp_path / "one"), str(tmp_path / "two")]
    commands = [[*command, *options, output, "--devices", n] for output, n in zip(outputs, "12", strict=True)]
    statuses, texts = run_together(commands, [environment()] * 2)
    assert statuses == [0, 0], "\n".join(texts)
    one, two = (np.load(f"{output}/brunel10k.npz") for output in outputs)
    assert json.loads(str(two["metadata"]))["devices"] == 2
    assert one["spike_time_s"].size > 100
    for name in set(one.files) - {"metadata"}:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
