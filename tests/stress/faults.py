"""Faults: no memory, Ctrl-C, forks, threads that come and go, a member that fails, a device that disappears."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from built import library, why_no_compiler
from record import Result

HERE = Path(__file__).parent
SEED, LIMIT = 20, 3600
ALLOCATIONS = ("update_on_post", "propagate_on_pre", "propagate_on_post", "exchange", "cuda", "python")
# Calls, and synapses: as many as 2.4 GB hold, and what JAX keeps several arrays of.
SIGNALS = {
    "inplace update_on_post": 200_000_000, "inplace soft update_on_pre": 200_000_000,
    "inplace propagate_on_post": 200_000_000, "jax update_on_post": 100_000_000,
    "jax soft update_on_pre": 100_000_000,
}  # fmt: skip
ANSWERED = 1.0  # seconds
THREADS = {
    "concurrent": ("calls of all operators, jitted and in place, by 16 Python threads at once", 16_000, "calls"),
    "short_lived": ("Python threads that call both ways, and end", 4_000, "threads"),
    "clients": ("XLA clients whose threads are borrowed, and that then end", 20, "clients"),
    "forks": ("forks while four threads compute, and calls in place in the child", 300, "forks"),
    "members": ("batches one member of which has an index out of range", 300, "batches"),
}
Say = Callable[[str], object]


class ChildFailed(Exception):
    pass


def run(effort: float, say: Say) -> list[Result]:
    rows = [_allocation(say)]
    times = max(4, round(8 * effort))
    for case, synapses in SIGNALS.items():
        rows.append(_signals(case, max(20_000_000, round(synapses * min(2 * effort, 1))), times, say))
    rows += [_simulate(times, say), _replay(times, say)]
    for case, (what, count, unit) in THREADS.items():
        rows.append(_threads(case, what, max(3, round(count * effort)), unit, say))
    rows.append(_device(say))
    return rows


def _child(script: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """What a child prints last, as JSON."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"} | environment
    child = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    if child.returncode:
        raise ChildFailed(f"ended with {child.returncode}: {(child.stderr.strip() or 'silence').splitlines()[-1]}")
    return json.loads(child.stdout.splitlines()[-1])


def _row(what: str, unit: str, work: Callable[[], tuple[int, str, list[str]]]) -> Result:
    """The row of some work, which returns a count, what went well, and all that was wrong."""
    started = time.perf_counter()
    try:
        count, good, wrong = work()
    except (ChildFailed, subprocess.TimeoutExpired) as error:
        count, good, wrong = 0, "", [str(error)]
    seconds = time.perf_counter() - started
    found = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "") if wrong else good
    return Result(what, count, unit, seconds, found, not wrong, SEED)


def _allocation(say: Say) -> Result:
    what, unit = "each allocation of hebbax's own code fails once", "allocations"
    if reason := why_no_compiler():
        return Result(what, 0, unit, 0, reason, True)
    if not hasattr(os, "confstr") or not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
        return Result(what, 0, unit, 0, "skipped: the allocator that is preloaded is written for glibc", True)

    def work():
        shim, tried, raised, wrong, skipped = str(library("fail")), 0, 0, [], []
        for case in ALLOCATIONS:
            flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"} if case == "exchange" else {}
            try:
                found = _child("fault_allocation.py", shim, case, LD_PRELOAD=shim, **flags)
            except ChildFailed as error:
                (skipped if "skipped" in str(error) else wrong).append(f"{case}: {error}")
                continue
            say(f"{case}: {found}")
            tried, raised = tried + found["tried"], raised + found["raised"]
            wrong += [f"{case}: {x}" for x in found["wrong"]]
            if not found["tried"]:
                wrong.append(f"{case}: allocated nothing")
        good = (
            f"an error that says so of {raised}, the right result without it of {tried - raised}; nothing leaked"
            + "".join(f"; {x}" for x in skipped)
        )
        return tried, good, wrong

    return _row(what, unit, work)


def _signals(case: str, synapses: int, times: int, say: Say) -> Result:
    def work():
        found = _child("fault_signals.py", case, synapses, times, SEED)
        say(f"{case}: {found}")
        answered, wrong = found["answered"], []
        if len(answered) < times:
            wrong.append(f"{len(answered)} of {times} were answered within the call")
        if answered and max(answered) > ANSWERED:
            wrong.append(f"answered after up to {max(answered):.1f} s, of a call of {found['takes']:.1f} s")
        good = (
            f"a call of {found['takes']:.1f} s; answered after {np.median(answered):.2f} s, at most {max(answered):.2f}"
        )
        return len(answered), good, wrong

    return _row(f"Ctrl-C in {case}, {synapses / 1e6:g} million synapses", "signals", work)


def _simulate(times: int, say: Say) -> Result:
    def work():
        rng, wrong, answers = np.random.default_rng(SEED), [], []
        for _ in range(times):
            with tempfile.TemporaryDirectory() as folder:
                answer, problem = _interrupt(Path(folder), rng.uniform(0, 3))
            say(f"simulate: {answer}, {problem}")
            answers += [] if answer is None else [answer]
            wrong += [problem] if problem else []
        if answers and max(answers) > ANSWERED:
            wrong.append(f"what was computed was written only after {max(answers):.1f} s")
        good = (
            f"what was computed is written after {np.median(answers):.2f} s, at most {max(answers):.2f}"
            if answers
            else ""
        )
        return times, good, wrong

    return _row("Ctrl-C in `hebbax simulate song2000`", "signals", work)


def _interrupt(folder: Path, after: float) -> tuple[float | None, str]:
    """Interrupt the command once it simulates; return how long the answer took, or a problem."""
    result = folder / "song2000.npz"
    command = ("simulate", "song2000", "--output", str(folder), "--format", "npz")
    status, said, answered = _on_a_terminal(command, b"simulating", after, lambda said: result.exists())
    if status != 130 or answered is None or b"interrupted" not in said:
        return answered, f"ended with {status}: {said[-200:]!r}"
    with np.load(result) as file:
        steps = json.loads(str(file["metadata"]))["steps"]
        whole = 0 < steps < 6_000_000 and steps % 1000 == 0 and np.isfinite(file["weight_end"]).all()
    return answered, "" if whole else f"{steps} steps in the file"


def _replay(times: int, say: Say) -> Result:
    neurons, synapses, spikes = 200, 20_000, 4_000_000  # which take half a minute

    def work():
        rng, wrong, answers = np.random.default_rng(SEED), [], []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pairs = rng.choice(neurons**2, synapses, replace=False)
            np.savetxt(
                folder / "w.csv", np.c_[pairs // neurons, pairs % neurons, rng.random(synapses)],
                fmt=("%d", "%d", "%.6f"), delimiter=",", header="pre,post,weight", comments="",
            )  # fmt: skip
            with (folder / "spikes.csv").open("w") as file:
                file.write("time,neuron\n")
                ids = rng.integers(0, neurons, spikes).tolist()
                file.writelines(f"{k}e-4,{j}\n" for k, j in enumerate(ids))
            before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
            command = ("replay", str(folder / "w.csv"), str(folder / "spikes.csv"))
            for _ in range(times):
                status, said, answered = _on_a_terminal(
                    command, b"replaying", rng.uniform(0, 3), lambda said: b"interrupted" in said
                )
                problem = "" if status == 130 and answered is not None else f"ended with {status}: {said[-200:]!r}"
                if {path: path.stat().st_mtime_ns for path in folder.iterdir()} != before:
                    problem = f"files were left or changed: {sorted(path.name for path in folder.iterdir())}"
                say(f"replay: {answered}, {problem}")
                answers += [] if answered is None else [answered]
                wrong += [problem] if problem else []
        if answers and max(answers) > ANSWERED:
            wrong.append(f"it answered only after {max(answers):.1f} s")
        good = f"answered after {np.median(answers):.2f} s, at most {max(answers):.2f}" if answers else ""
        return times, good + "; nothing was written", wrong

    return _row("Ctrl-C in `hebbax replay`", "signals", work)


def _on_a_terminal(
    command: tuple[str, ...], started: bytes, after: float, is_answered: Callable[[bytes], bool]
) -> tuple[int, bytes, float | None]:
    """Run the command on a terminal, and press Ctrl-C some seconds after it has said that it started.

    Return its exit status, what it said, and how long it took to answer, None if it did not.
    """
    terminal, other = pty.openpty()
    env = os.environ | {"JAX_PLATFORMS": "cpu", "TERM": "xterm", "COLUMNS": "100"}
    python = [sys.executable, "-c", "from hebbax.cli import main; main()", *command]
    child = subprocess.Popen(python, stdin=other, stdout=other, stderr=other, env=env)
    os.close(other)
    said, at, sent, answered, end = b"", None, None, None, time.monotonic() + 600
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.005)[0]:
                try:
                    said += os.read(terminal, 65536)
                except OSError:  # the other end is closed
                    break
            now = time.monotonic()
            if at is None and started in said:
                at = now + after
            if at is not None and sent is None and now >= at:
                child.send_signal(signal.SIGINT)
                sent = time.monotonic()
            if sent is not None and answered is None and is_answered(said):
                answered = now - sent
        status = child.wait(60)
    finally:
        child.kill()
        child.wait()
        os.close(terminal)
    return status, said, answered


def _threads(case: str, what: str, count: int, unit: str, say: Say) -> Result:
    def work():
        found = _child("fault_threads.py", case, count, SEED)
        say(f"{case}: {found}")
        good = "nothing" + (f", while the threads made {found['calls']:,} calls" if "calls" in found else "")
        return found["done"], good, found["wrong"]

    return _row(what, unit, work)


def _device(say: Say) -> Result:
    def work():
        try:
            found = _child("fault_device.py")
        except ChildFailed as error:
            if "skipped" in str(error):
                return 0, str(error), []
            raise
        say(f"device: {found}")
        good = f"{found['raised']} errors that name what failed; where nothing that failed was needed, the right result"
        return found["done"], good, found["wrong"]

    return _row("calls on an emulated CUDA device that disappears, and comes back", "calls", work)
