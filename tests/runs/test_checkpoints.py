"""Runs that are stopped, and go on from what was kept to the bits of the run that was not."""

import dataclasses
import functools
import json
import sys

import brainunit as u
import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from kept import SECONDS, check_same, make_blocks_small, runner

import hebbax
from children import environment, free_port, run_tests, run_together
from hebbax import _cpu
from hebbax.experiments import cuba, joining
from hebbax.experiments.keeping import Refused, described
from hebbax.runs import checkpoints, store
from hebbax.runs.checkpoints import Checkpoints

HALF = {"song2000": 0.3, "reward": 1.0, "digits": 1.0, "cuba": 0.02, "brunel10k": 0.02, "hpc": 0.02}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_blocks_small(monkeypatch)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("reward", "hpc", "brunel10k")]


@pytest.mark.parametrize("name", ["cuba", "song2000", "digits", *SLOW])
def test_a_run_goes_on_to_the_same_bits(name, tmp_path):
    """Stopped between two records, with a checkpoint after every block; and then once more, to be longer."""
    whole = runner(name)()
    part = runner(name)(keeper=Checkpoints(tmp_path, name, every=0), on_progress=lambda done: done > HALF[name])
    assert 0 < part.steps < whole.steps
    told = []
    rest = runner(name)(keeper=Checkpoints(tmp_path, name, resume=True), on_progress=told.append)
    check_same(rest, whole)
    assert len(told) > 1 and told[0] == pytest.approx(float(part.steps * time_step(part)))  # from where time is left
    assert rest.wall_time > part.wall_time
    if SECONDS[name]:
        longer = runner(name, 1.5)(keeper=Checkpoints(tmp_path, name, resume=True))
        assert longer.steps > whole.steps
        check_same(longer, runner(name, 1.5)())
    assert len([x for x in tmp_path.glob("*.h5") if not x.name.endswith(".seen.h5")]) == checkpoints.KEPT


def time_step(run):
    parameters = run.network.neurons.parameters if hasattr(run, "network") else run.parameters
    return parameters.time_step / u.second


@pytest.mark.parametrize("marks", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_runs_go_on_on_other_devices(marks):
    run_tests(__file__, f"optimised and {marks}", devices=4)


@pytest.mark.optimised
@pytest.mark.skipif(jax.device_count() < 4, reason="runs in a process that has four devices")
@pytest.mark.parametrize("name", ["cuba", *(pytest.param(x, marks=pytest.mark.slow) for x in ("hpc", "song2000"))])
def test_a_run_goes_on_on_other_devices(name, tmp_path, monkeypatch):
    """On four, which neurons of odd numbers do not divide evenly into, then on two, then on one.

    On two, synapses that learn are visited by themselves, as those of longer rows are.
    """
    whole, done = runner(name)(), 0.0
    for size, end in ((4, HALF[name] / 2), (2, HALF[name]), (1, 10.0)):
        monkeypatch.setattr(joining, "SHORT", 0 if size == 2 else 64)
        keeper = Checkpoints(tmp_path, name, every=0, resume=done > 0)
        mesh = Mesh(jax.devices()[:size], ("neurons",))
        run = runner(name)(keeper=keeper, mesh=mesh, on_progress=lambda now, end=end: now > end)
        keeper.close()
        done = run.steps
    check_same(run, whole)


@pytest.mark.skipif(_cpu.missing is not None, reason="nothing is late without kernels")
@pytest.mark.parametrize("before, after", [(0, 64), (64, 0)])
@pytest.mark.parametrize("name", ["cuba", *(pytest.param(x, marks=pytest.mark.slow) for x in ("hpc", "brunel10k"))])
def test_a_run_goes_on_with_other_synapses_visited_together(name, before, after, tmp_path, monkeypatch):
    """Long enough for a trace to show of which the rule is then not to be told."""
    whole, keep = runner(name, 4)(), functools.partial(Checkpoints, tmp_path, name, every=0)
    monkeypatch.setattr(joining, "SHORT", before)
    first = runner(name, 4)(keeper=keep(), on_progress=lambda now: now > 0.09)
    assert 0.08 < first.time / u.second < 0.12
    monkeypatch.setattr(joining, "SHORT", after)
    check_same(runner(name, 4)(keeper=keep(resume=True)), whole)


def test_what_is_written_does_not_grow_with_what_was_seen(tmp_path):
    """A checkpoint has what is new alone."""
    sizes = []
    simulate = functools.partial(runner("cuba"), keeper=Checkpoints(tmp_path, "cuba", every=0))
    simulate(on_progress=lambda _: sizes.append({x.name: x.stat().st_size for x in tmp_path.iterdir()}))
    names = [x for x in sizes[-1] if x.endswith(".seen.h5")]
    first, last = (min(names, key=end_of), max(names, key=end_of))
    assert len(names) >= 3 and sizes[-1][last] < 1.5 * sizes[-1][first]


def end_of(name):
    return int(name.removesuffix(".seen.h5").rpartition("-")[2])


@pytest.fixture
def stopped(tmp_path):
    """A folder with checkpoints of a run, and the run."""
    run = runner("cuba")
    run(keeper=Checkpoints(tmp_path, "cuba", every=0), on_progress=lambda done: done > HALF["cuba"])
    return tmp_path, run


@pytest.mark.parametrize(
    "change, expected",
    [
        (dict(seed=1), "seed 0, and not 1"),
        (dict(plastic=False), "plastic True, and not False"),
        (dict(neurons=54), "neurons 53, and not 54"),
        (dict(backend="jax"), r"learning \['late'\], and not \['at once'\]"),
        (dict(seconds=0.01), "seconds: got 100 steps, expected at least 270, where the checkpoint is"),
    ],
)
def test_it_does_not_go_on_from_another_run(change, expected, stopped):
    folder, run = stopped
    with pytest.raises(Refused, match=expected):
        run(**change, keeper=Checkpoints(folder, "cuba", resume=True))


def test_constants_differ_by_their_last_digit():
    p = cuba.Parameters()
    other = dataclasses.replace(p, membrane_time=20.000000001 * u.ms)
    assert described("cuba", other)["membrane_time"] == "20.000000001 ms" != described("cuba", p)["membrane_time"]


def test_it_warns_where_versions_differ(stopped, monkeypatch):
    folder, run = stopped
    monkeypatch.setattr(hebbax, "__version__", "0.0.7")
    told = []
    run(keeper=Checkpoints(folder, "cuba", resume=True, warn=told.append))
    assert len(told) == 1 and "hebbax 0.0.7" in told[0] and str(folder / "cuba-270.h5") in told[0]


def test_a_checkpoint_opens_as_hdf5_and_says_what_the_run_was(stopped):
    import h5py

    folder, _ = stopped
    with h5py.File(folder / "cuba-270.h5") as file:
        about = json.loads(file.attrs["about"])
        names = {json.loads(x.attrs["name"]) for x in file.values()}
    assert about["steps"] == 270 and about["run"]["experiment"] == "cuba" and about["run"]["membrane_time"] == "20.0 ms"
    assert about["sessions"] == [[0, checkpoints.versions()]] and ".weights[0]" in names
    assert (folder / "cuba-270.h5").read_bytes().startswith(b"hebbax checkpoint, format 2\n")


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"a/b .[0]": np.arange(3, dtype=np.float32), "empty": np.zeros((0, 2), bool), "one": np.int64(7)}
    store.write(tmp_path / "x.h5", "thing", 3, store.fill_with(arrays, {"why": [1, "é"]}))
    found, about = store.contents(store.read(tmp_path / "x.h5", "thing", 3)[0])
    assert about == {"why": [1, "é"]} and list(found) == list(arrays)
    for name, x in arrays.items():
        np.testing.assert_array_equal(found[name], x, strict=True)


@pytest.mark.slow
def test_processes_are_kept_and_one_goes_on_and_they_from_it(tmp_path):
    """The first writes for all; 0.02 s by two of them, on to 0.03 s by one, and to 0.04 s by two again."""
    code = "from hebbax import cli; from hebbax.experiments import network_loop as x; x.CHUNK_STEPS = 90; cli.main()"
    command = [sys.executable, "-c", code, "simulate", "cuba", "--neurons", "301", "--format", "npz"]

    def run(processes, seconds, folder, *options):
        port = free_port()
        environments = [environment()] if processes == 1 else [slurm(k, port) for k in range(processes)]
        given = ["--seconds", str(seconds), "--output", str(tmp_path / folder), *options]
        given += ["--distributed"] if processes > 1 else []
        statuses, outputs = run_together([[*command, *given]] * len(environments), environments)
        assert set(statuses) == {0}, "\n".join(outputs)

    kept = "--checkpoint", str(tmp_path / "ck"), "--every", "0"
    run(2, 0.02, "kept", *kept)
    run(1, 0.03, "kept", *kept, "--resume")
    run(2, 0.04, "kept", *kept, "--resume")
    run(1, 0.04, "one")
    one, two = (np.load(tmp_path / name / "cuba.npz") for name in ("one", "kept"))
    assert one["spike_time_s"].size > 100
    for name in set(one.files) - {"metadata"}:
        np.testing.assert_array_equal(two[name], one[name], err_msg=name, strict=True)


def slurm(rank, port):
    """The environment that srun gives one of two processes; JAX takes the port from the job's number."""
    job = {"SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1", "SLURM_NTASKS": "2"}
    own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
    return environment(JAX_COORDINATOR_ADDRESS=f"localhost:{port}", **job, **own)
