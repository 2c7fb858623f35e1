"""What takes too long for the tests: sanitizers, fuzzing, mutations, faults, long runs, large arrays, other platforms.

    make stress                                    every part, as docs/reliability.md has it
    make stress STRESS_ARGS="faults --effort 0.1"  one of them, a tenth as long

Each part is a module of this folder with a function `run(effort, say)` that returns rows of results. What it found is
kept in results/, and the table in docs/reliability.md is written anew. Fails where a row did not pass.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from typing import Annotated

import typer
from record import RESULTS, Result, keep, write_page
from rich.console import Console

PARTS = (
    "sanitizers",
    "fuzz_kernels",
    "fuzz_python",
    "mutations",
    "faults",
    "long_runs",
    "overflow",
    "platforms",
    "supply_chain",
)


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}.", show_default="all")] = None,
    effort: Annotated[float, typer.Option(min=0, help="1 is what the page shows; less is shorter.")] = 1.0,
) -> None:
    """Run parts, keep what they found, and write the page's table."""
    console, failed = Console(), []
    if unknown := [part for part in parts or PARTS if part not in PARTS]:
        raise typer.BadParameter(f"parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    if not os.access(RESULTS, os.W_OK):
        raise SystemExit(f"{RESULTS} cannot be written to, where results are kept")
    signal.signal(signal.SIGINT, _interrupted)
    for part in parts or PARTS:
        console.rule(part)
        results = results_of(part, effort, console)
        for row in results:
            console.print(f"{row.what}: {row.count:,} {row.unit}, {row.seconds:,.0f} s: {row.found}", markup=False)
        failed += [f"{part}: {row.what}" for row in results if not row.passed]
        if any(row.what != "skipped" for row in results):  # or tools are missing here, and what is kept stays
            keep(part, results, effort)
            write_page()
    if failed:
        raise SystemExit("did not pass: " + "; ".join(failed))


def results_of(part: str, effort: float, console: Console) -> list[Result]:
    """What a part found; an error of its own is a row that did not pass, and costs no other part."""
    start = time.monotonic()
    try:
        return importlib.import_module(part).run(effort, console.print)
    except Exception as error:
        console.print_exception()
        found = f"ended early: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [Result("the run itself", 1, "run", time.monotonic() - start, found, False)]


def _interrupted(*_) -> None:
    """End at Ctrl-C with all that was started: threads that wait for it would start it again, as what has crashed."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()
    print("\ninterrupted", flush=True)
    os._exit(130)


if __name__ == "__main__":
    typer.run(main)
