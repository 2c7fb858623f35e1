"""benchmarks/gpu_check.py: that it runs, without a GPU, and what it makes of stages that go wrong."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import gpu_on_cpu
import hebbax
import problems
from children import environment
from emulated import machine

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")
STAGE = """
import os, time

def wrong():
    assert 1 == 2, "one is not two"

def cases(options):
    yield "good", lambda: {"x": options.rounds}
    yield "wrong", wrong
    yield "ends the process", os.abort
    yield "after that", lambda: None
    yield "hangs", lambda: time.sleep(60)
    yield "never", lambda: None

def lost():
    raise RuntimeError("an illegal memory access")

def contexts(options):
    yield "before", os.getpid
    yield "wrong", wrong
    yield "same process", os.getpid
    yield "lost", lost
    yield "after", os.getpid

def broken(options):
    raise RuntimeError("no case")
"""


@pytest.fixture
def gpu_check(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_check

    (tmp_path / "stage_of_a_test.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stages = {
        name: gpu_check.Stage(name, f"stage_of_a_test.{name}", seconds, {})
        for name, seconds in (("cases", 4), ("broken", 60), ("contexts", 60))
    }
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    return gpu_check


@pytest.fixture
def run(gpu_check, monkeypatch, tmp_path):
    """`run(*options)`: the exit status and the results."""
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi

    def run(*options, platform="cpu"):
        options = ("--platform", platform, *options)
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--output", str(tmp_path / "out"), *options])
        status = gpu_check.main()
        (path,) = (tmp_path / "out").glob("gpu-*.json")
        return status, json.loads(path.read_text())

    return run


def test_a_case_that_fails_hangs_or_ends_the_process_costs_no_other(run, capsys):
    status, results = run("--stages", "cases", "--rounds", "3")
    assert status == 11
    stage = results["stages"]["cases"]
    found = stage["cases"]
    assert found["good"]["result"] == {"x": 3} and "result" in found["after that"]
    failures = {name: case["failure"] for name, case in found.items() if "failure" in case}
    assert failures == {
        "wrong": "AssertionError: one is not two", "ends the process": "ended by SIGABRT",
        "hangs": "stopped at its time limit",
    }  # fmt: skip
    assert stage["left_out"] == ["never"]
    printed = capsys.readouterr().out
    assert "cases: 2 done, 3 FAILED, 1 left out" in printed and "cases FAILED: wrong: AssertionError" in printed


def test_cases_are_chosen_by_name_and_a_stage_that_cannot_start_is_a_failure(run):
    status, results = run("--stages", "cases,broken", "--cases", "good|after")
    assert list(results["stages"]["cases"]["cases"]) == ["good", "after that"]
    assert results["stages"]["broken"]["ended"] == "exit status 1: RuntimeError: no case" and status == 12
    assert "good" in (run("--stages", "cases", "--cases", "good")[1]["stages"]["cases"]["cases"])


@pytest.mark.parametrize("platform, processes", [("cpu", 1), ("cuda", 2)])
def test_what_loses_the_gpu_ends_its_process_and_a_wrong_result_does_not(run, platform, processes):
    status, results = run("--stages", "contexts", platform=platform)
    found = results["stages"]["contexts"]["cases"]
    before, same, after = (found[name]["result"] for name in ("before", "same process", "after"))
    assert before == same and len({before, after}) == processes and status == 13
    assert [name for name, case in found.items() if "failure" in case] == ["wrong", "lost"]


def test_a_run_that_is_stopped_ends_its_stages_and_starts_no_more(gpu_check, run, monkeypatch):
    monkeypatch.setattr(gpu_check, "STAGES", {"cases": gpu_check.STAGES["cases"]._replace(seconds=60)})
    started, processes = time.monotonic(), []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)
            if len(processes) == 1:  # when this is done, or Ctrl-C could come before anybody knows of the process
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(gpu_check.subprocess, "Popen", Popen)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does it that starts it in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run("--stages", "cases", "--cases", "hangs", "--commit", "none")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 30 and len(processes) == 1 and processes[0].returncode == -signal.SIGKILL


def test_without_time_nothing_is_started(run):
    status, results = run("--minutes", "0")
    assert {stage["ended"] for stage in results["stages"].values()} == {"not started: no time was left"}
    assert status == 3


def test_wheels_are_used_without_being_installed(run, tmp_path, monkeypatch):
    source = (tmp_path / "stage_of_a_test.py").rename(tmp_path / "moved")
    with zipfile.ZipFile(tmp_path / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("stage_of_a_test.py", source.read_text())
    status, results = run("--stages", "cases", "--cases", "good", "--wheels", str(tmp_path))
    assert status == 0 and "result" in results["stages"]["cases"]["cases"]["good"]
    assert str(tmp_path) not in results["command"]
    assert results["command"].endswith(f"--stages cases --cases good --wheels {tmp_path.name}")
    with pytest.raises(SystemExit):
        run("--wheels", str(tmp_path / "out"))


def test_an_unknown_stage_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--stages", "cases,nonsense")
    assert "--stages: got nonsense, expected some of cases, broken, contexts" in capsys.readouterr().err


def test_outcomes_of_tests_are_counted_once(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_tests

    text = (
        "[gw0] [ 10%] PASSED tests/a.py::b[cupy]\n[gw1] [ 20%] FAILED tests/a.py::c \n"
        "tests/a.py::d SKIPPED (no) [30%]\n"
        "=========== FAILURES ==========\nE  FAILED::x\n=== short test summary info ===\nFAILED tests/a.py::c - no\n"
    )
    assert gpu_tests.outcomes(text) == {"passed": 1, "skipped": 1, "failed": ["tests/a.py::c"]}


TEST = """
import subprocess, time

def test_quick():
    pass

def test_slow(capfd):
    with capfd.disabled():
        wait = 'for i in $(seq 300); do sleep 0.1; [ -e done ] && exit; done; touch "waited in vain"'
        subprocess.Popen(["sh", "-c", wait], cwd={folder!r})
    time.sleep(60)
"""


@pytest.mark.slow
def test_what_passed_is_known_where_tests_are_stopped(monkeypatch, tmp_path):
    """Also where processes that pytest has started go on and keep what it prints to."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as for every stage
    import gpu_tests
    from gpu_stage import Options

    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "test_of_a_test.py").write_text(TEST.format(folder=str(tmp_path)))
    monkeypatch.setattr(gpu_tests, "TESTS", tmp_path)
    monkeypatch.setattr(gpu_tests, "REHEARSED", (("some",), "test"))
    try:
        with pytest.raises(AssertionError, match=r"^stopped after \d+ s: 1 passed, none failed$"):
            gpu_tests.run(Options("cpu", "", 1, time.time() + gpu_tests.SPARED + 20))
    finally:
        (tmp_path / "done").touch()
    assert not (tmp_path / "waited in vain").exists()


def test_python_is_counted_where_it_is_entered(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_stage import python_entries

    def entered():
        return None

    with python_entries() as none:
        pass
    with python_entries() as some:
        for _ in range(7):
            entered()
    if hasattr(sys, "monitoring"):
        assert some.count - none.count == 7
    else:
        assert none.count is some.count is None


def test_limits_compile_for_a_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "cuda"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_kernels
    import nvrtc

    if nvrtc.find() is None:
        pytest.skip("NVRTC is not installed (nvidia-cuda-nvrtc)")
    names = (*gpu_kernels.LIMITS, "spin")
    compiled = nvrtc.compile_for("sm_90", gpu_kernels.SOURCE, names, gpu_kernels.COMPILER_OPTIONS)
    assert set(compiled) == set(names) and not any(kernel.spilled for kernel in compiled.values())


class Card:
    """What the timer uses of `cupy`: a device on which a call takes 3 microseconds, and that does nothing by itself."""

    def __init__(self, captures):
        self.time, self.capturing, self.captures, self.launched = 0.0, None, captures, []
        self.cuda = self.Device = self
        self.Stream = lambda non_blocking: self
        self.get_elapsed_time = lambda before, after: 1e3 * (after.at - before.at)

    def __call__(self, *_):  # Device()
        return self

    __enter__, __exit__ = __call__, lambda *_: None
    synchronize = upload = lambda *_: None

    def call(self):
        if self.capturing is None:
            self.time += 3e-6
        else:
            self.capturing.append(1)

    def begin_capture(self):
        if not self.captures:
            raise RuntimeError("not now")
        self.capturing = []

    def end_capture(self):
        captured, self.capturing = self.capturing, None
        return SimpleNamespace(upload=self.upload, launch=lambda stream: [self.call() for _ in captured])

    def Event(self):
        event = SimpleNamespace(at=None, synchronize=self.synchronize)
        event.record = lambda stream: setattr(event, "at", self.time)
        return event


@pytest.mark.parametrize("captures", [True, False])
def test_kernels_are_timed_as_a_graph_or_else_queued(monkeypatch, captures):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_kernels
    from gpu_stage import Options

    timer, card = object.__new__(gpu_kernels.Timer), Card(captures)
    timer.options, timer.cupy, spun = Options("cuda", "", 3, 0.0), card, []
    monkeypatch.setattr(timer, "launch", lambda name, **work: spun.append((name, work["count"] > 0)))
    found = timer([card.call] * 4)
    assert found["us"] == pytest.approx(3) and len(found["samples_us"]) == 3
    how = "CUDA graph" if captures else r"queued, .*RuntimeError: not now"
    assert re.match(how, found["how"]) and spun == [("spin", True)] * 4


def test_what_is_timed_can_be_captured(monkeypatch, spec):
    """Nothing of it needs a copy, say of a bound: such a call would only be queued."""
    if problems.PLATFORM != "cpu" or problems.WHY_NO_CUPY:
        pytest.skip(problems.WHY_NO_CUPY or "on a GPU there is no stand-in")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_kernels
    from cases import Case
    from gpu_stage import Options

    class Timer(gpu_kernels.Timer):
        def __call__(self, calls):
            calls[0]()
            monkeypatch.setattr(machine, "capturing", 0)  # the stream that is current
            calls[1]()
            return {"us": 1.0}

    assert gpu_kernels.operator(Timer(Options("cpu", "", 1, 0.0)), Case(spec, 100, 10, 0.01))["elements"] == 10


def test_a_call_that_could_only_be_queued_is_told_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_report

    hows = {"update pre: 10": "CUDA graph", "update pre: 20": "queued, for no graph could be captured (no)"}
    cases = {name: {"result": {"us": 2.0, "elements": 10, "how": how}} for name, how in hows.items()}
    rows = gpu_report.kernel_rows({"stages": {"kernels": {"cases": cases}}})
    assert [row[0] for row in rows] == ["update pre: 10", "update pre: 20 (queued)"]


UNHURRIED = ("--minutes", "16", "--patience", "10", "--rounds", "1")


def rehearse(folder, *options):
    if reason := gpu_on_cpu.emulated.why_no_compiler():
        pytest.skip(reason)
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--platform", "cpu", "--output", str(folder), *options]
    child = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=1000)
    assert child.returncode in (0, 3), child.stdout + child.stderr
    return json.loads((folder / "gpu-rehearsal-on-a-cpu.json").read_text())["stages"]


@pytest.mark.slow
def test_a_small_rehearsal(tmp_path):
    """A case or two of each stage, but for that which calls brainevent."""
    chosen = "backends|propagate_csr_on_binary_pre, scan|memcheck|pytest|copy|random|own flags|propagate pre"
    # (with time for what else this machine does: where its limit ends a stage, cases are left out)
    stages = rehearse(tmp_path, *UNHURRIED, "--cases", chosen)
    assert [name for name, stage in stages.items() if not stage["cases"]] == ["peers"]
    results = {name: {case: x["result"] for case, x in stage["cases"].items()} for name, stage in stages.items()}
    assert set(results["machine"]["backends"]) == {backend.name for backend in hebbax.backends()}
    assert "python_a_step" in results["smoke"]["propagate_csr_on_binary_pre, scan"]
    assert len(results["loops"]["XLA's own flags"]["us_a_step"]) == 3
    kernels = results["kernels"]
    assert kernels["copy"]["gb_s"] > 0 and kernels["random read-modify-write: 100, 10, 1%"]["elements"] == 10
    assert kernels["propagate pre: 100, 10, 1%"]["us"] > 0
    steps = results["steps"]["propagate pre, scan: 100, 10, 1%"]
    assert not steps["failures"] and steps["contenders"]["hebbax"]["median_us"] > 0
    text = (tmp_path / "gpu-rehearsal-on-a-cpu.md").read_text()
    assert "| propagate pre: 100, 10, 1% |" in text and "no time here says anything about a GPU" in text


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path):
    stages = rehearse(tmp_path, *UNHURRIED)
    cases = list(itertools.chain.from_iterable(stage["cases"].values() for stage in stages.values()))
    assert len(stages) == 10 and len(cases) > 50 and not [case for case in cases if "failure" in case]
    assert not any(stage.get("left_out") for stage in stages.values())
