"""Measure hebbax's CUDA backend against its peers and against the card's bandwidth: `gpu.py --help`."""

from __future__ import annotations

import datetime
import functools
import importlib
import json
import os
import platform as host
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Annotated

import brainevent
import gpu_cases
import gpu_report
import jax
import jax.numpy as jnp
import typer
from cases import Case, Network
from contenders import Contender, Run, advance
from gpu_report import CLIP, JAX, OURS, UNBOUNDED
from libraries import Library, hebbax_library, peer_library
from machine import PACKAGES, commit, versions
from measure import TOLERANCE, interleave, summary, time_step
from rich.console import Console

import hebbax

HERE = Path(__file__).parent
BACKENDS = {"cuda": "cupy", "cpu": None}  # hebbax's
CUDA_PACKAGES = ("jax-cuda12-plugin", "jax-cuda13-plugin", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cuda-nvrtc")
CHECKED = 2  # steps whose result is compared
# Steps of a measurement by the most that one may take, in microseconds: few different ones, as each is compiled.
STEPS = ((300, 1024), (50_000, 32))
# With these, XLA may put a loop, and calls in it, into a CUDA graph.
GRAPH_FLAGS = "--xla_gpu_graph_min_graph_size=1 --xla_gpu_enable_command_buffer=+WHILE"
GRAPH_TIMEOUT = 240
log = Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print


class PythonCalls:
    """Counts how often XLA calls the Python function that launches hebbax's CUDA kernels."""

    def __init__(self, platform: str) -> None:
        self.count = 0
        if platform == "cuda":  # on CPUs there is none
            module = importlib.import_module("hebbax._cuda.launch")
            module.run = self._counting(module.run)  # before anything is traced, so that nobody holds the old one

    def _counting(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def counting(*args, **kwargs):
            self.count += 1
            return function(*args, **kwargs)

        return counting


class Loop:
    """Steps in `lax.scan`, the state donated; compiled once for all rates."""

    def __init__(self, library: Library, case: Case) -> None:
        def loop(state, network, spikes, steps):
            def step(state, i):
                return advance(library, case, network, state, {case.spec.event: spikes[i % spikes.shape[0]]}), None

            return jax.lax.scan(step, state, jnp.arange(steps))[0]

        self.compiled = jax.jit(loop, static_argnums=3, donate_argnums=0)


class Weights:
    """The state that contenders take over from one another, so that there is only one copy of the weights."""

    def __init__(self, initial: dict) -> None:
        self.initial, self.state = initial, {}

    def reset(self) -> None:
        self.state = {}  # frees it before there is another
        self.state = jax.block_until_ready(jax.tree.map(jnp.copy, self.initial))

    def runner(self, loop: Loop, network: Network, spikes: jax.Array) -> Run:
        def run(steps):
            self.state = jax.block_until_ready(loop.compiled(self.state, network, spikes, steps))
            return self.state

        return run


def libraries(case: Case, network: Network, platform: str, ours: bool) -> dict[str, Callable[[], Library]]:
    """What makes each contender. The first is the reference, which updates weights as all others but one do."""
    backend, kind = BACKENDS[platform], case.spec.kind
    makers: dict = {JAX: lambda: hebbax_library("jax", True), OURS: lambda: hebbax_library(backend, True)}
    if kind == "update":
        makers[CLIP] = lambda: hebbax_library(backend, False)
        primitive, sides = getattr(brainevent, f"{case.spec.name}_p"), ()
    else:
        primitive = brainevent.binary_csrmv_indexed_p if case.spec.permuted else brainevent.binary_csrmv_p
        sides = (case.spec.event,)
    if not ours:
        for peer in primitive.available_backends("gpu" if platform == "cuda" else platform):
            makers[f"brainevent {peer}"] = functools.partial(peer_library, peer, network, sides)
        if kind == "update":
            default = "cuda_raw" if platform == "cuda" else "numba"
            makers[UNBOUNDED] = lambda: without_bounds(peer_library(default, network, sides))
    return makers


def without_bounds(library: Library) -> Library:
    """brainevent clips every weight where bounds are given. Without, it does less than hebbax; shown, not judged."""
    return library._replace(update=functools.partial(library.update, bounds=(None, None)))


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def check(case: Case, result: dict, expected: dict) -> None:
    """Raise ValueError where a result is wrong: updates must agree in every bit, sums to rounding."""
    key = "weight" if case.spec.kind == "update" else "out"
    got, want = result[key], expected[key]
    tolerance = 0.0 if key == "weight" else TOLERANCE[case.dtype]
    wrong = ~jnp.isclose(got, want, rtol=tolerance, atol=tolerance)
    if wrong.any():
        difference = float(jnp.max(jnp.abs(got - want)))
        raise ValueError(f"wrong result: {int(wrong.sum())} of {got.size} values differ, by up to {difference:.3g}")


def prepare(case: Case, network: Network, spikes: jax.Array, makers: dict, loops: dict, broken: dict) -> tuple:
    """Return every contender that gives the right result, with its steps, and why others do not."""
    initial = gpu_cases.initial_state(case.n, network.pre.indices.size)
    bounded, unbounded = Weights(initial), Weights(initial)
    ready, failures, expected = [], {}, {}

    def run_checked(name: str, weights: Weights) -> Run:
        if name not in loops:
            loops[name] = Loop(makers[name](), case)
        run = weights.runner(loops[name], network, spikes)
        weights.reset()
        run(CHECKED)
        return run

    for name in makers:
        if name in broken:  # would fail again, as slowly
            failures[name] = broken[name]
            continue
        weights = unbounded if name == UNBOUNDED else bounded
        try:
            if name == UNBOUNDED:
                reference = without_bounds(hebbax_library("jax", True))
                unbounded.reset()
                expected = {}
                expected = unbounded.runner(Loop(reference, case), network, spikes)(CHECKED)
            run = run_checked(name, weights)
            if not expected:  # of the first, which is the reference
                expected = {key: jnp.copy(weights.state[key]) for key in ("weight", "out")}
            check(case, weights.state, expected)
            contender = Contender(name, lambda *_: None)
            seconds = min(time_step(contender, run, CHECKED) for _ in range(2))
            steps = next((steps for limit, steps in STEPS if seconds * 1e6 < limit), CHECKED)
            run(steps)  # compiles
        except Exception as error:
            failures[name] = first_line(error)
            if not failures[name].startswith("ValueError: wrong result"):
                broken[name] = failures[name]
            if name == JAX:
                return [], dict.fromkeys(makers, f"nothing to compare with: {JAX} failed: {failures[name]}")
            continue
        ready.append((contender, run, steps))
    for weights in {id(w): w for w in (bounded, unbounded) if w.state}.values():
        weights.reset()  # the last may have failed after it was given the state
    return ready, failures


def measure(
    case: Case, network: Network, makers: dict, loops: dict, broken: dict, rounds: int, calls: PythonCalls
) -> dict:
    """Times, failures, Python calls, and what a step touches."""
    spikes = jnp.asarray(gpu_cases.spikes(case))
    touched = gpu_cases.touched(case, network, spikes)
    ready, failures = prepare(case, network, spikes, makers, loops, broken)
    samples = interleave(ready, rounds, lambda _: None) if ready else {}
    found = {}
    for contender, run, steps in ready:
        found[contender.name] = {"steps": steps, **summary(samples[contender.name])}
        if contender.name in (OURS, CLIP):
            before = calls.count
            run(steps)
            found[contender.name]["python_calls"] = calls.count - before
    return {
        "group": case.group,
        "size": case.size,
        "nse": network.pre.indices.size,
        "touched": touched._asdict(),
        "contenders": found,
        "failures": failures,
    }


def describe(device: jax.Device) -> dict:
    """The card or CPU, its driver and CUDA."""
    about = {"device": device.device_kind, "host": f"{host.system()} {host.machine()}"}
    if device.platform == "cpu":
        return about
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        about["nvidia-smi"] = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        about["nvidia-smi"] = first_line(error)
    import cupy

    runtime = cupy.cuda.runtime
    about["cuda"] = f"runtime of CuPy {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
    return about | {"xla": " ".join(device.client.platform_version.split())}


def measure_graphs(scale, platform: str, rounds: int) -> dict:
    """Our kernels in another process, with the flags for CUDA graphs: an unknown flag aborts a process."""
    size = ", ".join(f"{x:,}".replace(",", " ") for x in (scale.neurons[0], scale.synapses[0]))
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {GRAPH_FLAGS}".strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # this process already has most of the memory
    }
    with tempfile.TemporaryDirectory() as folder:
        options = ["--platform", platform, "--ours", "--cases", f": {size}, 1%", "--rounds", str(rounds)]
        command = [sys.executable, __file__, *options, "--output", folder]
        about = {"flags": GRAPH_FLAGS, "cases": []}
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=GRAPH_TIMEOUT)
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()] or ["nothing said"]
            telling = next((line for line in lines if "XLA_FLAGS" in line), lines[-1])
            about["failure"] = f"exit status {error.returncode}: {telling.strip()}"
        except subprocess.TimeoutExpired:
            about["failure"] = f"stopped after {GRAPH_TIMEOUT} s"
        for path in Path(folder).glob("*.json"):  # also what a process did that failed later
            about["cases"] = json.loads(path.read_text())["cases"]
    return about


def find_device(platform: str) -> jax.Device:
    """The device to measure; without one, say so and leave."""
    if platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        device = jax.devices(platform)[0]
    except RuntimeError as error:
        log(f"no CUDA device: {str(error).strip().splitlines()[0]}")
        raise typer.Exit(1) from None
    for backend in hebbax.backends():
        if backend.name == BACKENDS[platform] and backend.missing:
            log(f"hebbax's backend {backend.name!r} cannot be used: {backend.missing}")
            raise typer.Exit(1)
    return device


def main(
    platform: Annotated[str, typer.Option(help="'cuda', or 'cpu': a rehearsal in small sizes.")] = "cuda",
    quick: Annotated[bool, typer.Option("--quick", help="Three sizes.")] = False,
    cases: Annotated[str, typer.Option(help="Only cases whose name matches this regular expression.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds a case.")] = 5,
    minutes: Annotated[float | None, typer.Option(help="Start no case after so many minutes.")] = None,
    graphs: Annotated[bool, typer.Option(help="Also with XLA's flags for CUDA graphs, in another process.")] = True,
    ours: Annotated[bool, typer.Option("--ours", help="Only hebbax.")] = False,
    add: Annotated[bool, typer.Option("--add", help="Keep cases that the file has from the same sources.")] = False,
    sources: Annotated[str, typer.Option(help="Their commit, where git cannot tell.")] = "",
    output: Annotated[Path | None, typer.Option(help="Folder; of a rehearsal, by default the system's.")] = None,
) -> None:
    """Time all contenders in turn, write JSON and Markdown after each case, and print one table at the end."""
    if platform not in BACKENDS:
        raise typer.BadParameter(f"got {platform!r}, expected one of {', '.join(BACKENDS)}")
    started, scale = time.monotonic(), gpu_cases.SCALES[platform]
    chosen = [case for case in gpu_cases.cases(scale, quick) if re.search(cases, case.label)]
    if not chosen:
        raise typer.BadParameter(f"no case matches {cases!r}")
    device = find_device(platform)
    packages = [*PACKAGES, *CUDA_PACKAGES] if platform == "cuda" else PACKAGES
    about = {
        "platform": platform,
        "commit": sources or commit(),
        "machine": describe(device),
        "versions": {name: number for name, number in versions(packages).items() if number != "not installed"},
        "flags": os.environ.get("XLA_FLAGS", ""),
    }
    slug = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
    stem = f"gpu-{slug}" if platform == "cuda" else "gpu-rehearsal-on-a-cpu"
    folder = output or (HERE / "results" if platform == "cuda" else Path(tempfile.gettempdir()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}{'-quick' if quick else ''}.json"
    results = about | {"runs": [], "graphs": {}, "cases": []}
    if add and path.exists():
        earlier = json.loads(path.read_text())
        if any(earlier[key] != about[key] for key in about):
            raise typer.BadParameter(f"{path} is from other sources, another machine or other versions")
        results = earlier
    run = {
        "command": shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "copy_gb_s": gpu_cases.copy_bandwidth(scale, device) / 1e9,
        "left_out": {},
    }
    results["runs"].append(run)
    log(f"{device.device_kind}: copies {run['copy_gb_s']:.0f} GB/s")

    def write():
        run["seconds"] = round(time.monotonic() - started)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        path.with_suffix(".md").write_text(gpu_report.markdown(results))

    def leave_out(case: Case, reason: str):
        run["left_out"][case.label] = reason
        log(f"{case.label}: left out, {reason}")

    calls = PythonCalls(platform)
    if graphs and not ours:
        results["graphs"] = measure_graphs(scale, platform, rounds)
        log(f"with {GRAPH_FLAGS}: {results['graphs'].get('failure', 'done')}, {time.monotonic() - started:.0f} s")

    def measure_network(n: int, synapses: int, same_network: list[Case]) -> None:
        reason, built = gpu_cases.too_large(n * synapses, device), None
        for spec, same_operator in groupby(same_network, key=lambda case: case.spec):
            makers, loops, broken = {}, {}, {}
            for case in same_operator:
                if minutes is not None and time.monotonic() - started > 60 * minutes:
                    reason = f"not started within {minutes:g} minutes"
                if reason:
                    leave_out(case, reason)
                    continue
                built = built or jax.block_until_ready(gpu_cases.network(n, synapses))
                makers = makers or libraries(case, built, platform, ours)
                found = measure(case, built, makers, loops, broken, rounds, calls)
                gpu_report.judge(found, spec, n, scale, (synapses, case.rate), run["copy_gb_s"])
                kept = [c for c in results["cases"] if (c["group"], c["size"]) != (found["group"], found["size"])]
                results["cases"] = [*kept, found]
                write()
                log(f"{case.label}: {gpu_report.line(found)}; {time.monotonic() - started:.0f} s")
            jax.clear_caches()

    for (n, synapses), same_network in groupby(chosen, key=lambda case: (case.n, case.synapses)):
        measure_network(n, synapses, list(same_network))  # a function: its arrays are freed before there are others
    write()
    gpu_report.show(results, path)
    if any(name in case["failures"] for case in results["cases"] for name in (OURS, CLIP)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
