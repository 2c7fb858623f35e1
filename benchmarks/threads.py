"""What a second thread is worth: update and propagate beside elementwise work, in a step. See `threads.py --help`.

A step of `lax.scan` is one operator and the decay of what it takes or gives. In every round it is timed on one thread,
on two, and on one beside another process that does the same: what two cores that need not wait for each other, but
share what the machine makes them share, could do at best.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from machine import commit, machine, versions
from rich.console import Console
from rich.table import Table

import hebbax

RESULTS = Path(__file__).parent / "results"
OPERATORS = ("update pre", "update post", "propagate pre")
PATTERNS = 8  # different spike vectors, which take turns
NEEDED, FROM, ALLOWED = 1.6, 10**5, 1 / 1.05  # times as fast, from so many elements a step on; and at any number
COLUMNS = (
    "operator", "synapses of a row", "elements a step", "one thread, µs a step", "two threads", "times as fast",
    "two processes, times as much",
)  # fmt: skip


class Case(NamedTuple):
    """One operator, and how much it has to do."""

    operator: str
    row: int
    elements: int  # a step
    synapses: int

    @property
    def n(self) -> int:
        return self.synapses // self.row


class Times(NamedTuple):
    """Microseconds a step, medians of rounds, and the medians of the ratios within them."""

    one: float
    two: float
    faster: float  # two threads than one
    bound: float  # what two processes do beside each other, over what one does alone

    def judged(self, case: Case) -> bool:
        return self.faster >= (NEEDED if case.elements >= FROM else ALLOWED)


def loop(case: Case) -> Callable[[int], None]:
    """What runs so many steps; the state is donated and carried on from one run to the next."""
    n = case.n
    synapses = hebbax.Synapses.random((n, n), outdegree=case.row)
    rng = np.random.default_rng(0)
    patterns = jnp.asarray(rng.random((PATTERNS, n)) < case.elements / synapses.nse)

    def run(state: tuple, synapses: hebbax.Synapses, patterns: jax.Array, steps: int) -> tuple:
        def step(state: tuple, k: jax.Array) -> tuple:
            weight, values = state
            spike = patterns[k % PATTERNS]
            if case.operator == "propagate pre":
                return (weight, 0.99 * values + synapses.propagate_on_pre(weight, spike)), None
            values = 0.99 * values + 1e-7
            if case.operator == "update pre":
                weight = synapses.update_on_pre(weight, spike, values, 0.0, 1.0, weight_in_bounds=True)
            else:
                weight = synapses.update_on_post(weight, values, spike, 0.0, 1.0, weight_in_bounds=True)
            return (weight, values), None

        return jax.lax.scan(step, state, jnp.arange(steps))[0]

    compiled = jax.jit(run, static_argnames="steps", donate_argnames="state")
    state = jnp.full(synapses.nse, 0.5, jnp.float32), jnp.zeros(n, jnp.float32)

    def steps(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, synapses, patterns, steps=count))

    return steps


class Neighbour:
    """A process that does the same on one thread, when it is told to."""

    def __init__(self, case: Case, steps: int) -> None:
        command = [sys.executable, __file__, "--neighbour", json.dumps([*case, steps])]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear("ready")

    def __enter__(self) -> None:
        self._say("go")
        self._hear("going")

    def __exit__(self, *_: object) -> None:
        self._hear("done")

    def end(self) -> None:
        self._child.communicate()

    def _say(self, word: str) -> None:
        print(word, file=self._child.stdin, flush=True)

    def _hear(self, word: str) -> None:
        heard = self._child.stdout.readline().strip()  # type: ignore[union-attr]
        if heard != word:
            raise RuntimeError(f"the process beside this one said {heard!r}, expected {word!r}")


def be_neighbour(given: str) -> None:
    """Do three times as many steps as the other process times, so that it is never alone."""
    *case, steps = json.loads(given)
    hebbax.set_num_threads(1)
    run = loop(Case(*case))
    run(steps)
    print("ready", flush=True)
    while sys.stdin.readline():
        print("going", flush=True)
        for _ in range(3):
            run(steps)
        print("done", flush=True)


def measure(case: Case, rounds: int, duration: float) -> Times:
    run = loop(case)

    def timed(threads: int, steps: int) -> float:
        hebbax.set_num_threads(threads)
        started = time.perf_counter()
        run(steps)
        return (time.perf_counter() - started) / steps * 1e6

    timed(1, PATTERNS)  # compiles
    steps = PATTERNS * max(1, math.ceil(duration * 1e6 / (PATTERNS * timed(1, PATTERNS))))
    neighbour = Neighbour(case, steps)
    timed(1, steps)
    found = []
    for _ in range(rounds):
        one, two = timed(1, steps), timed(2, steps)
        with neighbour:
            beside = timed(1, steps)
        found.append((one, two, one / two, 2 * one / beside))
    neighbour.end()
    return Times(*map(statistics.median, zip(*found, strict=True)))


def cells(case: Case, times: Times) -> list[str]:
    """A row of the table, as `COLUMNS`."""
    spaced = [f"{x:,}".replace(",", " ") for x in (case.row, case.elements)]
    mark = "" if times.judged(case) else " (missed)"
    return [
        case.operator, *spaced, f"{times.one:,.0f}", f"{times.two:,.0f}", f"{times.faster:.2f}{mark}",
        f"{times.bound:.2f}",
    ]  # fmt: skip


def markdown(found: dict[Case, Times], text: list[str]) -> str:
    lines = [" | ".join(COLUMNS), "---|" + "|".join(["---:"] * (len(COLUMNS) - 1))]
    lines += [" | ".join(cells(*item)) for item in found.items()]
    return "\n\n".join(["# A second thread", *text, "\n".join(f"| {line} |" for line in lines)]) + "\n"


def main(
    operators: Annotated[list[str], typer.Option(help="One or several.")] = list(OPERATORS),  # noqa: B006
    row: Annotated[list[int], typer.Option(min=1, help="Synapses of a row.")] = [100, 1000],  # noqa: B006
    elements: Annotated[list[int], typer.Option(min=1, help="Elements a step.")] = [  # noqa: B006
        10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000,
    ],
    synapses: Annotated[int, typer.Option(min=1, help="Of the network.")] = 4_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements, of which the median counts.")] = 9,
    duration: Annotated[float, typer.Option(min=0, help="Seconds that a measurement takes, about.")] = 0.1,
    output: Annotated[Path, typer.Option(help="Folder for the file.")] = RESULTS,
    neighbour: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:  # fmt: skip
    """Time two threads against one, print a table and write it as Markdown."""
    if neighbour:
        be_neighbour(neighbour)
        return
    where, at, known = machine(), commit(), versions()
    cases = [Case(o, r, e, synapses) for o in operators for r in row for e in elements if e <= synapses]
    found: dict[Case, Times] = {}
    console = Console()
    with Console(stderr=True).status("") as status:
        for case in cases:
            status.update(", ".join(map(str, case)))
            found[case] = measure(case, rounds, duration)
            console.print(*cells(case, found[case]), sep=" | ", highlight=False)
    used = ", ".join(f"{name} {known[name]}" for name in ("python", "hebbax", "jax", "jaxlib"))
    text = [
        f"`{shlex.join(['python', 'benchmarks/threads.py', *sys.argv[1:]])}` at {at}, "
        f"{datetime.date.today().isoformat()}; {where['cpu']}, {where['cpus']} CPUs, load average "
        f"{where['load_average'][0]} before and {os.getloadavg()[0]:.2f} after; {used}.",
        f"A step of `lax.scan` on {synapses:,} synapses: the operator, and the decay of the traces or sums of all "
        f"neurons. Medians of {rounds} rounds, in which one thread, two threads, and one thread beside another process "
        f"take turns. Wanted: {NEEDED} times as fast from {FROM:,} elements on, and never slower than "
        f"{1 / ALLOWED:.2f} of one thread's time.",
        "Two processes, times as much: what two processes that do one thread's work each, at the same time, get done "
        "over what one alone does. Cores that share bandwidth or are two threads of one core cannot do more.",
    ]
    table = Table(*COLUMNS, title="A second thread", title_justify="left")
    for item in found.items():
        table.add_row(*cells(*item))
    console.print(table)
    output.mkdir(parents=True, exist_ok=True)
    (output / "threads.md").write_text(markdown(found, text))
    console.print(f"wrote {output / 'threads.md'}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
