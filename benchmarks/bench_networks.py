"""Time plastic networks in hebbax and in other simulators: `make bench-networks`, or see `bench_networks.py --help`.

Every run is a process of its own, `networks/*_networks.py`, and all contenders take turns, round after round.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import networks_report as report
import typer
from cases import Target
from machine import PACKAGES, commit, machine, versions
from measure import judge, usable_cpus
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

RESULTS = Path(__file__).parent / "results"
SCRIPTS = Path(__file__).parent / "networks"
RATE_TOLERANCE = 0.1  # networks whose rates differ by more are not the same
SYNAPSES_TOLERANCE = 0.01  # nor are those whose numbers of plastic synapses, which are drawn, do


class Contender(NamedTuple):
    simulator: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.simulator} {self.threads}t"


class Row(NamedTuple):
    """A network, the biological time that is simulated, and the figures that hebbax must reach there."""

    network: str
    size: str
    seconds: float
    brainevent_seconds: float  # it would take many minutes for more
    faster: float  # than the fastest other simulator
    two_threads: float  # times as fast as one
    plastic: float | None = None  # times as long as static, at most
    options: tuple[str, ...] = ()


ROWS = (
    Row("cuba4000", "4 000 neurons × 80", 1.0, 0.2, 2.5, 0.95, plastic=1.4),
    Row("cuba40000", "40 000 neurons × 800", 0.5, 0.05, 4.0, 1.6),
    Row("brunel10k", "10 000 neurons × 1 000", 0.3, 0.02, 4.0, 1.6, plastic=1.6),
    Row("hpc", "11 250 neurons × 11 250", 0.3, 0.01, 4.0, 1.6, options=("--scale", "1")),
)


def contenders() -> list[Contender]:
    """hebbax first; brainevent's kernels are serial, so it gets all CPUs, for XLA."""
    cpus = min(2, usable_cpus())
    of = [Contender(name, threads) for name in ("hebbax", "Brian2", "NEST") for threads in range(1, cpus + 1)]
    return [*of, Contender("brainevent", cpus)]


def main(
    networks: Annotated[str, typer.Option(help="Only networks whose whole name matches this expression.")] = ".*",
    simulators: Annotated[str, typer.Option(help="Only contenders whose name, 'NEST 2t' say, matches this.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds with plasticity; without, one is enough.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds that a run may take.")] = 1800.0,
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = RESULTS,
) -> None:
    """Run all contenders in turn, print one table, and write JSON, a plot and the README's table."""
    rows = [row for row in ROWS if re.fullmatch(networks, row.network)]
    chosen = [contender for contender in contenders() if re.search(simulators, contender.name)]
    if not (rows and chosen):
        raise typer.BadParameter(f"no network matches {networks!r}, or no contender matches {simulators!r}")
    started, load, measured_at = time.perf_counter(), machine(), commit()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(rows) * len(chosen) * (rounds + 1))

        def say(text: str) -> None:
            progress.update(bar, description=text, refresh=True)
            progress.advance(bar)

        measured = [measure(row, chosen, rounds, timeout, say) for row in rows]
    results = {
        "command": shlex.join(["python", "benchmarks/bench_networks.py", *without_output(sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": measured_at,
        "machine": load | {"load_average_after": [round(x, 2) for x in os.getloadavg()]},
        "versions": versions((*PACKAGES, "Brian2", "nest-simulator")),
        "rounds": rounds,
        "seconds_in_all": round(time.perf_counter() - started),
        "networks": measured,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "networks.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (output / "networks.md").write_text(report.markdown(results))
    report.plot(results, output / "networks.png")
    report.show(results)


def without_output(arguments: list[str]) -> list[str]:
    """The arguments but for where the files go, which is a folder of this machine."""
    if "--output" in arguments:
        at = arguments.index("--output")
        arguments = arguments[:at] + arguments[at + 2 :]
    return [x for x in arguments if not x.startswith("--output=")]


def measure(row: Row, chosen: list[Contender], rounds: int, timeout: float, say) -> dict:
    """What every run reported, why runs failed, whose rates are others, and the row's targets."""
    found: dict[str, dict[str, list[dict]]] = {c.name: {"plastic": [], "static": []} for c in chosen}
    failures: dict[str, str] = {}
    for i in range(rounds + 1):
        kind = "static" if i == rounds else "plastic"
        for contender in chosen[i % len(chosen) :] + chosen[: i % len(chosen)]:
            say(f"{row.network}, {contender.name}, {kind}, round {i % rounds + 1}")
            if contender.name in failures:
                continue
            try:
                found[contender.name][kind].append(run(row, contender, kind == "static", timeout, seed=i + 1))
            except (subprocess.SubprocessError, OSError) as error:
                failures[contender.name] = reason(error)
    found = {name: outcomes for name, outcomes in found.items() if outcomes["plastic"]}
    return {
        "network": row.network,
        "size": row.size,
        "contenders": found,
        "failures": failures,
        "void": other_rates(row, found, timeout),
        "targets": list(targets(row, found)),
    }


def run(row: Row, contender: Contender, static: bool, timeout: float, seed: int, seconds: float | None = None) -> dict:
    if seconds is None:
        seconds = row.brainevent_seconds if contender.simulator == "brainevent" else row.seconds
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outcome.json"
        command = [sys.executable, SCRIPTS / f"{contender.simulator.lower()}_networks.py", row.network, *row.options]
        command += [f"--seconds={seconds}", f"--threads={contender.threads}", f"--seed={seed}", f"--json={file}"]
        command += ["--static"] * static
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout, cwd=folder)
        return {"seconds": seconds, **json.loads(file.read_text())}


def reason(error: Exception) -> str:
    """The last line of what a failed script said."""
    said = getattr(error, "stderr", None) or str(error)
    return (said.strip().splitlines() or [type(error).__name__])[-1]


def other_rates(row: Row, found: dict, timeout: float) -> list[str]:
    """Whose rate over the same time, or whose synapses, differ from hebbax's: the network that they ran is another."""
    ours = Contender("hebbax", 1)
    if ours.name not in found:
        return []
    synapses = {name: outcomes["plastic"][0]["plastic_synapses"] for name, outcomes in found.items()}
    expected = {row.seconds: rate(found[ours.name])}
    for outcomes in found.values():
        seconds = outcomes["plastic"][0]["seconds"]
        if seconds not in expected:
            expected[seconds] = run(row, ours, False, timeout, 1, seconds)["rate"]
    return [
        name
        for name, outcomes in found.items()
        if abs(rate(outcomes) / expected[outcomes["plastic"][0]["seconds"]] - 1) > RATE_TOLERANCE
        or abs(synapses[name] / synapses[ours.name] - 1) > SYNAPSES_TOLERANCE
    ]


def rate(outcomes: dict) -> float:
    return statistics.median(outcome["rate"] for outcome in outcomes["plastic"])


def targets(row: Row, found: dict):
    """The figures that must be reached, for as many of the contenders as there are; best thread count of each."""
    samples = {
        metric: {
            f"{name}{' static' * (kind == 'static')}": [outcome[metric] for outcome in outcomes]
            for name, runs in found.items()
            for kind, outcomes in runs.items()
            if outcomes
        }
        for metric in ("wall_per_second", "before_first_step", "memory")
    }

    def compare(numerator: str | None, denominator: str | None, sign: str, limit: float, metric="wall_per_second"):
        if {numerator, denominator} <= samples[metric].keys():
            yield {"metric": metric, **judge(Target(numerator, denominator, sign, limit), samples[metric])}

    def best(*simulators: str) -> str | None:
        wall = {name: statistics.median(x["wall_per_second"] for x in runs["plastic"]) for name, runs in found.items()}
        names = [name for name in wall if name.rpartition(" ")[0] in simulators]
        return min(names, key=wall.__getitem__, default=None)

    ours, brian2, nest, peer = best("hebbax"), best("Brian2"), best("NEST"), best("brainevent")
    yield from compare(best("Brian2", "NEST", "brainevent"), ours, "≥", row.faster)
    yield from compare(peer, ours, "≥", 10)
    yield from compare("hebbax 1t", "hebbax 2t", "≥", row.two_threads)
    if row.plastic:
        yield from compare(ours, f"{ours} static", "≤", row.plastic)
    yield from compare(brian2, ours, "≥", 4, "before_first_step")
    yield from compare(brian2, ours, "≥", 1, "memory")
    yield from compare(nest, ours, "≥", 1, "memory")


if __name__ == "__main__":
    typer.run(main)
