"""`hebbax replay`, run in this process, and interrupted in another one."""

import json
import signal
import subprocess
import sys
import time

import brainunit as u
import h5py
import numpy as np
import pytest
import scipy.sparse
from recorded import NEURON, POST, PRE, RULE, TIME, WEIGHT, N, write_spikes, write_synapses
from typer.testing import CliRunner

import hebbax
import hebbax.replay.figure
from children import environment
from hebbax import cli
from hebbax._terminal import INTERRUPTED
from hebbax.replay import Replay

AS_RULE = ["--tau-minus", "30", "--a-plus", "0.1", "--a-minus", "0.11", "--w-max", "1"]


@pytest.fixture
def run(threads, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        command = ["replay", *map(str, arguments)]
        return CliRunner().invoke(cli.app, command, env={"COLUMNS": "300", "NO_COLOR": "1"})

    return invoke


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def expected(side=None, rule=RULE):
    replay = Replay(rule, PRE, POST, WEIGHT, shape=(N, N))
    replay.advance(TIME, NEURON, side)
    return replay.weight


def words(text):
    return " ".join(text.replace("│", " ").replace("┃", " ").split())


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "h5"])
def test_it_writes_weights_a_report_and_a_figure(kind, run, tmp_path):
    path, spikes = write_synapses(tmp_path / f"w.{kind}"), write_spikes(tmp_path / "spikes.csv")
    result = run(path, spikes, *AS_RULE, "--output", f"new.{kind}")
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == sorted([f"w.{kind}", "spikes.csv", f"new.{kind}", "new-results.h5", "new.png"])
    again = hebbax.replay.connectivity.read(tmp_path / f"new.{kind}", None, True, None)
    np.testing.assert_allclose(again.weight, expected(), rtol=0, atol=1e-12)
    with h5py.File(tmp_path / "new-results.h5") as said:
        assert said.attrs["rule"] == "PairSTDP" and said["parameters"].attrs["pairing"] == "all"
        tau, a_minus = said["parameters/tau_minus"], said["parameters/a_minus"]
        assert (tau[()], tau.attrs["units"], a_minus[()]) == (30.0, "ms", 0.11)
        assert said.attrs["hebbax"] == hebbax.__version__ and json.loads(said.attrs["spikes"]) == [str(spikes)]
        assert said.attrs["command_line"] and said["updates"][()] > 0
        for when, weight in (("start", WEIGHT), ("end", again.weight)):
            edges = np.append(said["weight_bin"], max(WEIGHT.max(), again.weight.max()))
            np.testing.assert_array_equal(said[f"weight_{when}_synapses"], np.histogram(weight, edges)[0])
        seconds = np.diff(np.append(said["time"], TIME[-1]))
        np.testing.assert_allclose((said["all_rate"] * seconds * N).sum(), TIME.size)
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")
    for text in (
        "tau_plus 20 ms, tau_minus 30 ms", "a_plus 0.1, a_minus 0.11", "w_min 0, w_max 1", "synapses 30 of float64",
        f"spikes {TIME.size}", f"weight, before {WEIGHT.mean():.5g} ±", f"weight, after {expected().mean():.5g} ±",
        "updates/s", f"wrote new.{kind}", "wrote new.png",
    ):  # fmt: skip
        assert text in words(result.output), result.output


def test_it_overwrites_only_by_force_and_has_defaults(run, tmp_path):
    write_synapses(tmp_path / "w.npz")
    write_spikes(tmp_path / "s.parquet")
    result = run("w.npz", "s.parquet")
    assert result.exit_code == 0 and files(tmp_path) == [
        "s.parquet", "w-replayed-results.h5", "w-replayed.npz", "w-replayed.png", "w.npz",
    ]  # fmt: skip
    step = 0.005 * WEIGHT.max()
    assert f"a_plus {step:.6g}, a_minus {1.05 * step:.6g}" in result.output
    before = (tmp_path / "w-replayed.npz").read_bytes()
    for other in ([], ["--output", "w.npz"]):
        result = run("w.npz", "s.parquet", "--tau-plus", "5", *other)
        assert result.exit_code == 2 and "is there already: --force overwrites it" in result.output
    assert (tmp_path / "w-replayed.npz").read_bytes() == before
    assert run("w.npz", "s.parquet", "--tau-plus", "5", "--force").exit_code == 0
    assert (tmp_path / "w-replayed.npz").read_bytes() != before


def test_two_populations(run, tmp_path):
    side = np.arange(TIME.size) % 2 + 1
    write_synapses(tmp_path / "w.csv")
    write_spikes(tmp_path / "pre.csv", 1000 * TIME[side == 1], NEURON[side == 1])
    write_spikes(tmp_path / "post.csv", 1000 * TIME[side == 2], NEURON[side == 2])
    result = run("w.csv", "--pre", "pre.csv", "--post", "post.csv", "--time-unit", "ms", "--shape", N, N, *AS_RULE)
    assert result.exit_code == 0, result.output
    assert f"{(side == 1).sum()} presynaptic, {(side == 2).sum()} postsynaptic" in result.output
    found = hebbax.replay.connectivity.read(tmp_path / "w-replayed.csv", (N, N), False, None)
    np.testing.assert_allclose(found.weight, expected(side), rtol=0, atol=1e-9)


def test_a_sonata_file_of_spikes_has_both_populations_that_the_edges_name(run, tmp_path):
    side = np.arange(TIME.size) % 2 + 1
    write_synapses(tmp_path / "w.h5", source_node_id="a", target_node_id="b")
    for k, name in ((1, "a"), (2, "b")):
        write_spikes(tmp_path / "s.h5", TIME[side == k], NEURON[side == k], name)
    result = run("w.h5", "s.h5", "--shape", N, N, *AS_RULE)
    assert result.exit_code == 0, result.output
    found = hebbax.replay.connectivity.read(tmp_path / "w-replayed.h5", (N, N), False, None)
    np.testing.assert_allclose(found.weight, expected(side), rtol=0, atol=1e-9)
    write_spikes(tmp_path / "s.csv")
    result = run("w.h5", "s.csv", "--shape", N, N, "--force")
    assert result.exit_code == 1 and "s.csv: the neurons are of two populations: give --pre and --post" in result.output


WRONG = [
    (["w.csv"], 2, "expected either SPIKES, of one population, or both --pre and --post"),
    (["w.csv", "s.csv", "--pre", "s.csv"], 2, "expected either SPIKES"),
    (["w.csv", "--pre", "s.csv"], 2, "expected either SPIKES"),
    (["no.csv", "s.csv"], 1, "error: no.csv: No such file or directory"),
    (["w.csv", "no.csv"], 1, "error: no.csv: No such file or directory"),
    (["w.csv", "no.h5"], 1, "error: no.h5: No such file or directory"),
    (["w.csv", "no.parquet"], 1, "error: no.parquet: No such file or directory"),
    (
        ["w.csv", "s.txt"],
        1,
        "error: s.txt: got a name that ends in '.txt', expected one of .csv, .parquet, .pq, .h5, .hdf5",
    ),
    (["w.txt", "s.csv"], 1, "error: w.txt: got a name that ends in '.txt', expected one of .csv, .parquet"),
    (["w.csv", "s.csv", "--output", "new.npz"], 2, "got 'new.npz', expected a name that ends in .csv"),
    (["w.csv", "s.csv", "--output", "no/new.csv"], 2, "got 'no/new.csv', but there is no folder 'no'"),
    (["w.csv", "s.csv", "--output", "s.csv", "--force"], 2, "s.csv has the spikes: expected another name"),
    (["w.csv", "s.csv", "--output", "folder.csv", "--force"], 2, "folder.csv is a folder, expected the name of a file"),
    (["w.npz", "s.csv", "--w-max", "1e39"], 2, "got 1e+39, which float32, the dtype of the weights, cannot hold"),
    (["w.npz", "s.csv", "--w-max", "1", "--a-plus", "1e39"], 2, "got 1e+39, which float32"),
    (["w.csv", "s.csv", "--w-max", "nan"], 2, "got nan, expected a finite number"),
    (["w.csv", "s.csv", "--w-min", "2"], 2, "expected a value: no weight of w.csv is above --w-min, 2"),
    (["w.csv", "s.csv", "--w-min", "2", "--w-max", "1"], 2, "w_min"),
    (["w.csv", "s.csv", "--w-max", "0.1"], 1, "error: w.csv, line 2: weight: got 0."),
    (["w.csv", "s.csv", "--tau-plus", "0"], 2, "got 0.0, expected from 0.001"),
    (["w.csv", "s.csv", "--population", "a"], 1, "error: w.csv: has no populations"),
    (["w.csv", "s.csv", "--shape", "0", "7"], 2, "got 0 7, expected two numbers of at least 1"),
    (["w.csv", "s.csv", "--shape", "7", "8"], 1, "error: w.csv: is of shape (7, 8), not of one population"),
    (["w.csv", "s.csv", "--shape", "7", "6"], 1, "post: got 6, expected below 6"),
    (["w.csv", "wrong.csv"], 1, "error: wrong.csv, line 3: neuron: got 'x', expected a whole number"),
]


@pytest.mark.parametrize("arguments, status, message", WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_what_is_wrong_is_said_and_nothing_is_written(arguments, status, message, run, tmp_path):
    write_synapses(tmp_path / "w.csv")
    write_spikes(tmp_path / "s.csv")
    scipy.sparse.save_npz(tmp_path / "w.npz", scipy.sparse.csr_array(np.full((7, 7), 0.5, np.float32)))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "wrong.csv").write_text("time,neuron\n0.1,1\n0.2,x\n")
    for name in ("s.txt", "w.txt"):
        (tmp_path / name).touch()
    before = files(tmp_path)
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert message in words(result.output), result.output
    assert files(tmp_path) == before


def test_a_write_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    write_synapses(tmp_path / "w.npz")
    write_spikes(tmp_path / "s.csv")

    def fail(file, matrix):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scipy.sparse, "save_npz", fail)
    result = run("w.npz", "s.csv")
    assert result.exit_code == 1 and "error: w-replayed.npz: No space left on device" in result.output
    assert files(tmp_path) == ["s.csv", "w.npz"]


def test_without_matplotlib_there_is_no_figure(run, tmp_path, monkeypatch):
    write_synapses(tmp_path / "w.csv")
    write_spikes(tmp_path / "s.csv")
    for name in [x for x in sys.modules if x.startswith("matplotlib") or x == "hebbax.replay.figure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("w.csv", "s.csv")
    assert result.exit_code == 0 and "no figure: it takes matplotlib" in result.output
    assert files(tmp_path) == ["s.csv", "w-replayed-results.h5", "w-replayed.csv", "w.csv"]


@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value):RuntimeWarning")  # in the mean of such weights
@pytest.mark.parametrize("weight, lost", [(5.0, 2), (1e200, 1)])
def test_weights_that_grow_beyond_their_dtype_are_told(run, tmp_path, weight, lost):
    """Of both, or of one, and the other is counted: without a spike, it stays."""
    (tmp_path / "w.csv").write_text(f"pre,post,weight\n0,1,{weight}\n2,1,3.0\n")
    first = "0.0,0\n0.0,2\n" if lost == 2 else "0.0,0\n"
    (tmp_path / "s.csv").write_text("time,neuron\n" + first + "".join(f"{0.001 * k},1\n" for k in range(1, 50)))
    growing = ("--rule", "power-law", "--mu", 6, "--learning-rate", 1e6, "--alpha", 0, "--shape", 3, 3)
    result = run("w.csv", "s.csv", *growing)
    assert result.exit_code == 0 and f"warning: {lost} weights have become infinite" in result.output, result.output
    with h5py.File("w-replayed-results.h5") as file:
        assert file["weight_end_synapses"][:].sum() == 2 - lost and file["weight_start_synapses"][:].sum() == 2


def test_no_spikes_and_no_synapses(run, tmp_path):
    (tmp_path / "w.csv").write_text("pre,post,weight\n")
    (tmp_path / "s.csv").write_text("time,neuron\n")
    assert run("w.csv", "s.csv", "--w-max", "1", "--shape", 3, 3).exit_code == 0
    assert (tmp_path / "w-replayed.csv").read_text() == "pre,post,weight\n"
    (tmp_path / "s.csv").write_text("time,neuron\n1,2\n")
    assert run("w.csv", "s.csv", "--w-max", "1", "--shape", 3, 3, "--force").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_ctrl_c_ends_it_and_leaves_nothing_half(tmp_path):
    write_synapses(tmp_path / "w.csv")
    count = 3_000_000
    with (tmp_path / "s.csv").open("w") as file:
        file.write("time,neuron\n")
        file.writelines(f"{k}e-3,{k % N}\n" for k in range(count))
    before = files(tmp_path)
    # (a shell that starts the tests in the background has SIGINT ignored)
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "import hebbax.cli; print('up', flush=True); hebbax.cli.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "replay", "w.csv", "s.csv"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(), cwd=tmp_path, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "up\n"
    time.sleep(5)  # of some 30
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == INTERRUPTED, output
    assert "interrupted: nothing was left half written" in output and "Traceback" not in output
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(run, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = run("w.csv", "s.csv", "--output", "new.csv")
    assert found.exit_code == 2 and "'new.csv', but the folder '.' cannot be written to" in words(found.output)


RULES = {
    "triplet": (
        ["--tau-x", "90", "--a3-plus", "0.05", "--a2-minus", "0.02", "--w-max", "1"],
        hebbax.TripletSTDP(
            16.8 * u.ms, 33.7 * u.ms, 90.0 * u.ms, 114.0 * u.ms, 0.0, 0.02, 0.05, 0.0, 0.0, 1.0
        ),
    ),
    "power-law": (
        ["--tau-plus", "0.02 s", "--alpha", "0.5", "--w-0", "0.7"],
        hebbax.PowerLawSTDP(20.0 * u.ms, 30.0 * u.ms, learning_rate=0.1, alpha=0.5, w_0=0.7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_other_rules(name, run, tmp_path):
    options, rule = RULES[name]
    write_synapses(tmp_path / "w.npz")
    write_spikes(tmp_path / "s.csv")
    result = run("w.npz", "s.csv", "--rule", name, *options, "--output", "new.npz")
    assert result.exit_code == 0, result.output
    assert type(rule).__name__ in words(result.output)
    again = hebbax.replay.connectivity.read(tmp_path / "new.npz", None, True, None)
    np.testing.assert_allclose(again.weight, expected(rule=rule), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--tau-x", "90"],
            "'--tau-x': not of the rule pair, expected some of '--tau-plus', '--tau-minus', '--a-plus'",
        ),
        (["--rule", "power-law", "--w-max", "1"], "'--w-max': not of the rule power-law"),
        (["--rule", "power-law", "--w-0", "0"], "w_0: got 0.0, expected a finite value of more than 0"),
        (["--rule", "triplet", "--a3-plus", "inf"], "'--a3-plus': got inf, expected a finite number"),
        (["--rule", "bcm"], "'bcm' is not one of"),
    ],
)
def test_rules_have_parameters_of_their_own(options, message, run, tmp_path):
    write_synapses(tmp_path / "w.npz")
    write_spikes(tmp_path / "s.csv")
    result = run("w.npz", "s.csv", *options)
    assert result.exit_code == 2 and message in words(result.output), result.output
    assert files(tmp_path) == ["s.csv", "w.npz"]
