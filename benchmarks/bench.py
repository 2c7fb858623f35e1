"""Measure hebbax against its peers and against what memory allows: `make bench`, or see `bench.py --help`."""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import cases as all_cases
import report
import typer
from machine import commit, machine, versions
from measure import measure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

RESULTS = Path(__file__).parent / "results"


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only cases with a target, in fewer and shorter rounds.")
    ] = False,
    cases: Annotated[str, typer.Option(help="Only cases whose name matches this regular expression.")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds a case (7, quick: 3).")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the files.")] = RESULTS,
) -> None:
    """Time all contenders in turn, print one table, and write JSON, a plot and the table of docs/speed.md."""
    rounds = rounds or (3 if quick else 7)
    duration = 0.008 if quick else 0.02
    chosen = [case for case in all_cases.cases(quick) if re.search(cases, case.label)]
    if not chosen:
        raise typer.BadParameter(f"no case matches {cases!r}")
    started, load = time.perf_counter(), machine()
    measured = {}
    # Cases on the same network follow one another, so that it is built once.
    ordered = sorted(chosen, key=lambda case: (case.n * case.synapses, case.n))
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=len(ordered))
        for case in ordered:

            def say(text, case=case):
                progress.update(bar, description=f"{case.label}, {text}", refresh=True)

            measured[case] = measure(case, rounds, duration, say)
            progress.advance(bar)
    results = {
        "command": shlex.join(["python", "benchmarks/bench.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": load | {"load_average_after": [round(x, 2) for x in os.getloadavg()]},
        "versions": versions(),
        "rounds": rounds,
        "seconds_a_measurement": duration,
        "seconds_in_all": round(time.perf_counter() - started),
        "cases": [measured[case] for case in chosen],
    }
    output.mkdir(parents=True, exist_ok=True)
    name = "quick" if quick else "bench"
    (output / f"{name}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    report.plot(results, output / f"{name}.png")
    (output / f"{name}.md").write_text(report.markdown(results))
    _print(results, output / name)


def _print(results: dict, stem: Path) -> None:
    table = report.table(results)
    # As wide as the table needs: a narrower terminal breaks lines rather than leave out figures.
    console = Console(width=max(Console().width, Console(width=1000).measure(table).maximum))
    console.print(table)
    for reason, where in report.failures(results).items():
        console.print(f"failed: {reason}\n  in {'; '.join(where)}", markup=False, highlight=False)
    targets = [target for case in results["cases"] for target in case["targets"]]
    reached = sum(target["reached"] for target in targets)
    console.print(
        f"{reached} of {len(targets)} targets reached in {results['seconds_in_all']} s; {stem}.{{json,png,md}}"
    )


if __name__ == "__main__":
    typer.run(main)
