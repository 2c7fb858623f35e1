"""Check and measure hebbax on a GPU, in stages with a time limit each: `gpu_check.py --help`, and docs/gpu.md.

This process imports neither JAX nor CuPy: every stage has a process of its own, which may crash or hang. Results are
written after every case of a stage, so that whatever ends the run leaves what it had.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import gpu_report
from gpu_stage import AGAIN, Options, run_stage
from machine import commit

HERE = Path(__file__).resolve().parent
RESTARTS = 8  # of a stage whose process ended, or whose CUDA context is lost
# With these, XLA may put a loop, and calls in it, into a CUDA graph; with none of them, nothing.
GRAPHS = "--xla_gpu_graph_min_graph_size=1 --xla_gpu_enable_command_buffer=+WHILE"
NO_GRAPHS = "--xla_gpu_enable_command_buffer="
# So that processes share the card's memory, and JAX gives back to CuPy what it no longer needs.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
GIVEN_BACK = {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}

stopping = threading.Event()  # then those who wait for the stages' processes end them


class Stage(NamedTuple):
    """What a stage does, which function gives its cases (module.function), and how many seconds it may take."""

    title: str
    cases: str
    seconds: float
    environment: dict[str, str] = {}  # noqa: RUF012
    alone: bool = False  # since it measures; the others run side by side, before them


# Most telling first.
STAGES = {
    "machine": Stage("versions, backends, kernels", "gpu_machine.cases", 60, SHARED),
    "smoke": Stage("results against backend 'jax'", "gpu_smoke.cases", 120, SHARED),
    "graphs": Stage("the same in CUDA graphs", "gpu_smoke.loops", 45, SHARED | {"XLA_FLAGS": GRAPHS}),
    "no-graphs": Stage("the same without CUDA graphs", "gpu_smoke.loops", 45, SHARED | {"XLA_FLAGS": NO_GRAPHS}),
    "sanitizer": Stage("compute-sanitizer", "gpu_sanitizer.cases", 90, SHARED),
    "tests": Stage("tests of the operators", "gpu_tests.cases", 150, SHARED),
    "kernels": Stage("times of kernels, and limits", "gpu_kernels.cases", 100, GIVEN_BACK, alone=True),
    "loops": Stage("what XLA's loops take", "gpu_loops.cases", 60, alone=True),
    "steps": Stage("steps in lax.scan", "gpu_steps.cases", 120, alone=True),
    "peers": Stage("steps beside brainevent's", "gpu_steps.peer_cases", 240, alone=True),
}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--platform", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--stages", default=",".join(STAGES), help="those to run, with commas")
    parser.add_argument("--cases", default="", metavar="REGEX", help="only cases whose name matches")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything")
    parser.add_argument("--patience", type=float, default=1.0, help="times the limits of the stages")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of a time")
    parser.add_argument("--output", type=Path, help="folder; by default results/, of a rehearsal the system's")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use without installing them")
    parser.add_argument("--commit", default="", help="of the sources, where git cannot tell")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # what the processes of stages are started with
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    given = arguments().parse_args()
    if given.stage:
        options = Options(given.platform, given.cases, given.rounds, given.until)
        return run_stage(given.stage, options, given.into)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so end the stages' processes
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts it in the background
    stopping.clear()
    names = given.stages.split(",")
    if unknown := [name for name in names if name not in STAGES]:
        arguments().error(f"--stages: got {', '.join(unknown)}, expected some of {', '.join(STAGES)}")
    by_default = HERE / "results" if given.platform == "cuda" else Path(tempfile.gettempdir())
    folder = given.output or by_default
    path = folder / f"{stem(given.platform)}.json"
    parts = path.with_suffix("")  # of the results, and what each stage printed
    parts.mkdir(parents=True, exist_ok=True)
    results = {
        "platform": given.platform,
        "commit": given.commit or commit(),
        "date": datetime.date.today().isoformat(),
        "command": command(given),
        "stages": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        packages = unpack(given.wheels, Path(temporary)) if given.wheels else []
        end = time.monotonic() + 60 * given.minutes
        together = [name for name in names if not STAGES[name].alone]
        groups = [together] * bool(together) + [[name] for name in names if STAGES[name].alone]
        for group in groups:
            with concurrent.futures.ThreadPoolExecutor(len(group)) as pool:
                running = {name: pool.submit(run, name, given, end, packages, parts) for name in group}
                try:
                    for name, stage in running.items():
                        results["stages"][name] = stage.result()
                        write(results, path)
                        print(gpu_report.line(name, results["stages"][name]), flush=True)
                except BaseException:  # such as of Ctrl-C
                    stopping.set()
                    raise
    print("\n" + gpu_report.summary(results) + f"\n{path.with_suffix('')}.{{json,md}}")
    return status(results)


def command(given: argparse.Namespace) -> str:
    """What was asked for; of folders only the names, since where they are is this machine's."""
    folders = {str(given.output), str(given.wheels)}
    words = (Path(word).name if word in folders else word for word in sys.argv[1:])
    return shlex.join(["python", "benchmarks/gpu_check.py", *words])


def status(results: dict) -> int:
    """0: all is well; 10 + n: the n-th of `STAGES` failed, and no earlier one; 3: there was no time for all."""
    for number, name in enumerate(STAGES, 1):
        if name in results["stages"] and gpu_report.failed(results["stages"][name]):
            return 10 + number
    return 3 if any(gpu_report.left_out(stage) for stage in results["stages"].values()) else 0


def write(results: dict, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(gpu_report.markdown(results))


def run(name: str, given: argparse.Namespace, end: float, packages: list[str], folder: Path) -> dict:
    """Run a stage in processes of its own, as long as they end before they are through, within its limit."""
    stage, start = STAGES[name], time.monotonic()
    limit = min(given.patience * stage.seconds, end - start)
    found: dict = {"title": stage.title, "limit": round(limit), "cases": {}}
    if limit < 1:
        return found | {"ended": "not started: no time was left"}
    into = folder / f"{name}.json"
    into.unlink(missing_ok=True)
    until = str(time.time() + limit)
    command = [sys.executable, __file__, "--stage", stage.cases, "--into", str(into), "--until", until]
    command += ["--platform", given.platform, "--cases", given.cases, "--rounds", str(given.rounds)]
    with (folder / f"{name}.log").open("w") as log:
        for _ in range(RESTARTS):
            ended = wait(command, environment(stage, given.platform, packages), log, start + limit)
            if into.exists():
                found |= json.loads(into.read_text())
            running = [case for case in found["cases"].values() if "running" in case]
            for case in running:
                case.clear()
                case["failure"] = ended
            over = stopping.is_set() or time.monotonic() > start + limit - 1
            if over or not (running or ended == f"exit status {AGAIN}"):
                break
            into.write_text(json.dumps(found))
    if ended and not running and ended != f"exit status {AGAIN}":
        said = [line for line in (folder / f"{name}.log").read_text().splitlines() if line.strip()]
        found["ended"] = ": ".join([ended, *said[-1:]])
    return found | {"seconds": round(time.monotonic() - start, 1)}


def wait(command: list[str], env: dict[str, str], log, end: float) -> str:
    """Run a process and all that it starts; say how it ended where that was not well."""
    child = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    end = max(end, time.monotonic() + 1)
    try:
        while (code := child.poll()) is None:
            if time.monotonic() > end:
                return "stopped at its time limit"
            if stopping.wait(0.1):
                return "stopped"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it, or what it has left behind
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit status {code}" if code else ""


def environment(stage: Stage, platform: str, packages: list[str]) -> dict[str, str]:
    own = {
        "HEBBAX_TEST_PLATFORM": platform,
        "JAX_PLATFORMS": "cuda,cpu" if platform == "cuda" else "cpu",
        "PYTHONPATH": os.pathsep.join([*packages, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }
    env = os.environ | own | stage.environment
    if "XLA_FLAGS" in stage.environment:
        env["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {stage.environment['XLA_FLAGS']}".strip()
    return env


def unpack(wheels: Path, folder: Path) -> list[str]:
    """The wheels of a folder, unpacked beside one another, as what Python's path needs."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        arguments().error(f"--wheels: found no wheel in {wheels}")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return [str(folder)]


def stem(platform: str) -> str:
    """The name of the results, with that of the card."""
    if platform == "cpu":
        return "gpu-rehearsal-on-a-cpu"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        name = subprocess.run(query, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        name = "unknown"
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"


if __name__ == "__main__":
    sys.exit(main())
