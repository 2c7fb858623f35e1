"""What goes wrong with a run's files, done to them: the last good checkpoint survives, and what and where is said.

A disk is made full by a limit to the size of files, which takes no rights: writes then fail in the middle of a file.
One test has a disk of its own, which is full, where the system lets users mount one.
"""

import functools
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from kept import check_same, make_blocks_small, runner
from typer.testing import CliRunner

from children import environment
from hebbax import cli
from hebbax.experiments import cuba, network_loop
from hebbax.runs import checkpoints, store
from hebbax.runs.checkpoints import Checkpoints, Damaged, Refused


@pytest.fixture(autouse=True)
def small(monkeypatch):
    make_blocks_small(monkeypatch)


@pytest.fixture(scope="module")
def whole():
    with pytest.MonkeyPatch.context() as patch:
        make_blocks_small(patch)
        return runner("cuba")()


@pytest.fixture
def stopped(tmp_path):
    """A folder with the checkpoints `cuba-180.h5` and `cuba-270.h5`."""
    runner("cuba")(keeper=Checkpoints(tmp_path, "cuba", every=0), on_progress=lambda done: done > 0.02)
    return tmp_path


def go_on(folder, warn=lambda _: None):
    return runner("cuba")(keeper=Checkpoints(folder, "cuba", every=0, resume=True, warn=warn))


# -- kill -9

SAVES = """
import sys, numpy as np, pathlib
from hebbax.runs.checkpoints import Checkpoints
folder = pathlib.Path(sys.argv[1])
keeper = Checkpoints(folder, "run", resume=any(folder.glob("run-*[0-9].h5")))
kept = keeper.start({})
steps = 0
if kept:
    assert (kept.state["all"] == kept.steps).all() and (kept.seen["steps"] == np.arange(kept.steps)).all()
    steps = kept.steps + 1
print("ready", steps, flush=True)
while True:
    new = {} if not steps else {"steps": np.array([steps - 1])}
    keeper.save(steps, {"all": np.full(10_000, steps)}, new)
    steps += 1
"""


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_while_it_saves_it_goes_on_from_the_last_checkpoint(kills, tmp_path):
    """At random moments, while nothing but saving is done."""
    before, delays = -1, random.Random(kills)
    for _ in range(kills):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
        )
        word, steps = child.stdout.readline().split()
        assert word == "ready" and int(steps) > before
        before = int(steps)
        time.sleep(delays.uniform(0.05, 0.4))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    keeper = Checkpoints(tmp_path, "run", resume=True)
    kept = keeper.start({})
    keeper.save(kept.steps, kept.state, {})
    assert {x.name for x in tmp_path.glob("*.h5*") if not x.name.endswith(".seen.h5")} == {f"run-{kept.steps}.h5"}


@pytest.mark.slow
def test_killed_at_random_moments_a_run_comes_to_the_same_bits(tmp_path):
    """Of all that it does: starting, compiling, stepping, saving, deleting."""
    options = ["--neurons", "300", "--seconds", "1", "--format", "npz"]
    code = "from hebbax import cli; from hebbax.experiments import network_loop as x; x.CHUNK_STEPS = 30; cli.main()"
    command = [sys.executable, "-c", code, "simulate", "cuba", *options]
    kept = [*command, "--output", str(tmp_path / "kept"), "--checkpoint", str(tmp_path / "ck"), "--every", "0"]
    run = functools.partial(subprocess.run, env=environment(), check=True, capture_output=True)
    began = time.monotonic()
    run([*command, "--output", str(tmp_path / "one")])
    longest, moments, kills = time.monotonic() - began, random.Random(1), 0
    for _ in range(5):
        resume = ["--resume"] if any((tmp_path / "ck").glob("cuba-*[0-9].h5")) else []
        child = subprocess.Popen(
            [*kept, *resume], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.3, 1.2) * longest)
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    resume = ["--resume"] if any((tmp_path / "ck").glob("cuba-*[0-9].h5")) else []
    run([*kept, *resume])
    one, two = (np.load(tmp_path / name / "cuba.npz") for name in ("one", "kept"))
    assert kills > 2
    for name in set(one.files) - {"metadata"}:
        np.testing.assert_array_equal(two[name], one[name], err_msg=name, strict=True)


# -- a full disk


@pytest.fixture
def full_disk(monkeypatch):
    """A function after which the next saves, as many as it is given, find room for 5 000 bytes of a file only."""
    left, save = [0], Checkpoints.save

    def with_limit(self, *arguments):
        if not left[0]:
            return save(self, *arguments)
        left[0] -= 1
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            save(self, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(Checkpoints, "save", with_limit)
    return lambda saves: left.__setitem__(0, saves)


def test_a_disk_that_was_full_for_a_while_costs_checkpoints_only(tmp_path, full_disk, whole):
    """What was seen meanwhile is in the next one that is written."""
    told = []
    keeper = Checkpoints(tmp_path, "cuba", every=0, warn=told.append)
    full_disk(3)
    run = runner("cuba")(keeper=keeper)
    assert len(told) == 3 and keeper.failed is None and "no checkpoint after 90 steps" in told[1]
    assert f"{tmp_path / 'cuba-0-90.seen.h5'}: File too large" in told[1]
    check_same(run, whole)
    keeper.close()
    check_same(go_on(tmp_path), whole)
    assert [x.name for x in tmp_path.iterdir() if x.name.startswith(".")] == [".cuba.lock"]


def test_a_disk_that_stays_full_keeps_the_last_checkpoint_and_ends_with_an_error(
    stopped, full_disk, whole, monkeypatch
):
    before = {x.name: x.read_bytes() for x in stopped.iterdir()}
    full_disk(1000)
    keeper = Checkpoints(stopped, "cuba", every=0, resume=True)
    check_same(runner("cuba")(keeper=keeper), whole)
    assert "no checkpoint after 450 steps" in keeper.failed
    keeper.close()
    assert {x.name: x.read_bytes() for x in stopped.iterdir()} == before
    monkeypatch.setattr(cuba, "simulate", lambda **options: runner("cuba")(keeper=options["keeper"]))
    command = [
        "simulate",
        "cuba",
        "--seconds",
        "0.045",
        "--output",
        str(stopped / "out"),
        "--checkpoint",
        str(stopped),
        "--resume",
    ]
    result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 1 and "no checkpoint after 450 steps" in result.output
    assert "warning: " in result.output and (stopped / "out" / "cuba.h5").exists()


ON_A_SMALL_DISK = """
import subprocess, sys, pytest
from pathlib import Path
from kept import check_same, make_blocks_small, runner
from hebbax.runs.checkpoints import Checkpoints

make_blocks_small(pytest.MonkeyPatch())
disk, told, whole = Path(sys.argv[1]), [], runner("cuba")()
keeper = Checkpoints(disk, "cuba", every=0, warn=told.append)
check_same(runner("cuba")(keeper=keeper), whole)
assert "no checkpoint after 450 steps" in keeper.failed and "No space left on device" in keeper.failed, keeper.failed
assert all("No space left on device" in x for x in told)
keeper.close()
assert max(int(x.stem.split("-")[1]) for x in disk.glob("cuba-*[0-9].h5")) in (90, 180), list(disk.iterdir())
subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
check_same(runner("cuba")(keeper=Checkpoints(disk, "cuba", every=0, resume=True)), whole)
assert (disk / "cuba-450.h5").exists()
print("went on")
"""
MOUNT = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=60k tmpfs "$0" && exec "$@"']


@pytest.mark.slow
def test_a_disk_that_is_really_full_keeps_the_last_checkpoint_and_with_more_room_it_goes_on(tmp_path):
    try:
        subprocess.run([*MOUNT, str(tmp_path), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system mounts no disk for a user: {error}")
    child = subprocess.run(
        [*MOUNT, str(tmp_path), sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path)], capture_output=True, text=True,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )  # fmt: skip
    assert child.stdout.endswith("went on\n"), child.stdout + child.stderr


def test_a_run_that_is_stopped_on_a_full_disk_says_that_it_was_not_kept(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(
        cuba, "simulate", lambda **options: runner("cuba")(keeper=options["keeper"], on_progress=lambda _: True)
    )
    full_disk(1000)
    command = ["simulate", "cuba", "--output", str(tmp_path / "out"), "--checkpoint", str(tmp_path)]
    result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 1 and "no checkpoint after 90 steps" in result.output, result.output


# -- damaged files


def test_every_cut_and_every_flipped_bit_is_found(stopped):
    """A file opens with neither, and says its name and what is wrong."""
    path, rng = stopped / "cuba-270.h5", random.Random(0)
    content = path.read_bytes()
    assert store.read(path, checkpoints.KIND, checkpoints.FORMAT)
    lengths = [0, 1, store.HEADER - 1, store.HEADER, len(content) - 1, *rng.sample(range(len(content)), 100)]
    places = [*range(store.HEADER), *rng.sample(range(store.HEADER, len(content)), 300)]
    cut = [content[:n] for n in lengths]
    flipped = [content[:k] + bytes([content[k] ^ 1 << rng.randrange(8)]) + content[k + 1 :] for k in places]
    for wrong in [*cut, *flipped, content + b"\0"]:
        path.write_bytes(wrong)
        with pytest.raises(Damaged) as raised:
            store.read(path, checkpoints.KIND, checkpoints.FORMAT)
        assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "name, change, expected",
    [
        ("cuba-270.h5", lambda x: x[:-100], "cuba-270.h5: has {} bytes, expected {}: it is not whole"),
        ("cuba-180-270.seen.h5", lambda x: x[:2000] + b"?" + x[2001:], "cuba-180-270.seen.h5: its content has changed"),
        ("cuba-180-270.seen.h5", None, "cuba-180-270.seen.h5: No such file or directory"),
        ("cuba-270.h5", lambda x: b"some text", "cuba-270.h5: has 9 bytes"),
        ("cuba-270.h5", lambda x: b"some text" * 100, "cuba-270.h5: is not a checkpoint of hebbax"),
    ],
)
def test_it_goes_on_from_the_checkpoint_before_a_damaged_one(name, change, expected, stopped, whole):
    path, told = stopped / name, []
    content = path.read_bytes()
    path.write_bytes(change(content)) if change else path.unlink()
    check_same(go_on(stopped, told.append), whole)
    assert len(told) == 1 and "going on from cuba-180.h5" in told[0]
    assert expected.format(len(content) - 100, len(content)) in told[0]
    assert sorted(x.name for x in stopped.glob("cuba*") if "seen" not in x.name) == ["cuba-360.h5", "cuba-450.h5"]


def test_without_a_whole_checkpoint_it_ends_and_says_why(stopped):
    for path in stopped.glob("cuba-*[0-9].h5"):
        path.write_bytes(path.read_bytes()[:1000])
    command = ["simulate", "cuba", "--output", str(stopped / "out"), "--checkpoint", str(stopped), "--resume"]
    result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 1 and "no checkpoint is whole" in result.output
    for name in ("cuba-180.h5", "cuba-270.h5"):
        assert f"{stopped / name}: has 1000 bytes" in result.output


def test_a_file_of_another_version_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 7)
    runner("cuba")(keeper=Checkpoints(tmp_path, "cuba"), on_progress=lambda _: True)
    monkeypatch.undo()
    expected = r"cuba-90.h5: is of version 7 of the format, and this hebbax reads version 2"
    with pytest.raises(Damaged, match=expected):
        go_on(tmp_path)


# -- folders


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(cuba, "simulate", lambda **_: pytest.fail("simulated"))
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file" / "ck"]
    if os.geteuid():  # whom rights bind
        (tmp_path / "read-only").mkdir(mode=0o500)
        folders.append(tmp_path / "read-only")
    for folder in folders:
        command = ["simulate", "cuba", "--output", str(tmp_path / "out"), "--checkpoint", str(folder)]
        result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
        assert result.exit_code == 2 and f"{folder}: expected a folder that can be written to" in result.output


def test_with_nothing_there_it_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(cuba, "simulate", lambda **_: pytest.fail("simulated"))
    command = ["simulate", "cuba", "--output", str(tmp_path / "out"), "--resume"]
    result = CliRunner().invoke(cli.app, [*command, "--checkpoint", str(tmp_path / "ck")], env={"COLUMNS": "300"})
    assert result.exit_code == 2 and "has no checkpoint cuba-<steps>.h5 to go on from" in result.output
    result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})
    assert result.exit_code == 2 and "expected --checkpoint FOLDER too" in result.output


def test_checkpoints_of_an_earlier_run_are_not_overwritten(stopped):
    with pytest.raises(Refused, match=r"has a checkpoint of cuba, cuba-270.h5: go on from it, or remove it"):
        Checkpoints(stopped, "cuba")
    Checkpoints(stopped, "cub")  # another name


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    running = Checkpoints(tmp_path, "cuba")
    for resume in (False, True):
        with pytest.raises(Refused, match="another run writes its checkpoints of cuba there now"):
            Checkpoints(tmp_path, "cuba", resume=resume)
    Checkpoints(tmp_path, "hpc")
    running.close()
    Checkpoints(tmp_path, "cuba")


def test_ctrl_c_leaves_results_and_a_checkpoint(tmp_path, monkeypatch):
    """The command again, with --resume, comes to what an uninterrupted one does."""
    simulate, presses = cuba.simulate, [0.02]

    def interrupted(*, on_progress, **options):
        def press_ctrl_c(done):
            if presses and done > presses[0]:
                presses.pop()
                signal.raise_signal(signal.SIGINT)
            return on_progress(done)

        return simulate(on_progress=press_ctrl_c, **options)

    monkeypatch.setattr(cuba, "simulate", interrupted)
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 90)

    def run(folder, *options):
        size = ["--neurons", "101", "--seconds", "0.04", "--format", "npz", "--output", str(tmp_path / folder)]
        return CliRunner().invoke(cli.app, ["simulate", "cuba", *size, *options], env={"COLUMNS": "300"})

    kept = "--checkpoint", str(tmp_path / "ck")
    result = run("kept", *kept)
    assert result.exit_code == 130 and f"--resume goes on from {tmp_path / 'ck'}" in result.output
    assert np.load(tmp_path / "kept" / "cuba.npz")["spike_time_s"].max() < 0.027
    for folder, options in (("kept", (*kept, "--resume")), ("one", ())):
        result = run(folder, *options)
        assert result.exit_code == 0, result.output
    one, two = (np.load(tmp_path / name / "cuba.npz") for name in ("one", "kept"))
    for name in set(one.files) - {"metadata"}:
        np.testing.assert_array_equal(two[name], one[name], err_msg=name, strict=True)
