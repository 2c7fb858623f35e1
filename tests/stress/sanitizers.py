"""The kernels watched by sanitizers: addresses and undefined behaviour in one copy of the package, threads in another.

    python tests/stress/run.py sanitizers --effort 0.1
    python tests/stress/sanitizers.py thread -m pytest tests/operators/test_threads.py -k python

The second form runs Python with these arguments in a copy that is watched (`address` or `thread`), and prints reports.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from record import Result
from sanitized import ADDRESS, THREAD, Copy, Edit, Ran, Sanitizer, headline

MOST_SHOWN = 5  # reports in a row of the table

# Where most can go wrong first: a shorter run does the first of them.
TESTS = (
    "operators/test_out_of_range.py", "operators/test_threads.py", "rules/test_late.py", "structure/test_sent.py",
    "outside_jax", "structure/test_exchange.py",
    "structure/test_split_batches.py", "transformations/test_vmap.py", "operators/test_values.py",
    "structure/test_apply.py", "structure/test_delayed_synapses.py", "structure/test_ring.py",
    "structure/test_sharding.py", "operators/test_soft_bound.py", "operators/test_semantics.py",
    "operators/test_csc.py", "operators/test_int64.py", "operators/test_donation.py", "operators/test_backends.py",
    "structure/test_rewiring.py", "operators/test_foreign.py", "operators/test_powers.py",
    "operators/test_errors.py", "operators/test_hostile_calls.py", "operators/test_forks.py",
    "operators/test_huge_pages.py",
)  # fmt: skip
THREADED = 13  # of them, from the front, in which threads meet

DOORS = ("ffi", "callback", "inplace", "lists")  # of the fuzzer
CALLS = 20_000  # by each of them

HOSTILE = "tests/out_of_range.py"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")
MANY = (*PYTEST, "tests/operators/test_threads.py", "-k")

# In modules that are small, and so built again soon.
ADDRESS_FAULTS = (
    Edit(
        "a wrong bound",
        "src/hebbax/_cpu/rows.pyx",
        "if begin < 0 or end < begin or end > nse:\n            set",
        "if begin < 0 or end < begin or end > nse + 1:\n            set",
        r"AddressSanitizer: heap-buffer-overflow[\s\S]*update_span",
        {"OpenMP": (HOSTILE, "inplace", "1"), "XLA": (HOSTILE, "cython", "1")},
    ),
    Edit(
        "a length in int32 that overflows",
        "src/hebbax/_cpu/rows.pyx",
        "if begin < 0 or end < begin or end > nse:\n            set",
        "if begin < 0 or <int32_t> end - <int32_t> begin < 0 or end > nse:\n            set",
        r"runtime error: signed integer overflow[\s\S]*rows_look_up",
        {"OpenMP": (HOSTILE, "inplace", "1"), "XLA": (HOSTILE, "cython", "1")},
    ),
)
THREAD_FAULTS = (
    Edit(
        "counters without fences, of chunks that are done",
        "src/hebbax/_cpu/threads.pyx",
        "    #ifdef _OPENMP\n",
        "    #undef HEBBAX_ADD\n    #define HEBBAX_ADD(p, n) __atomic_add_fetch((p), (n), __ATOMIC_RELAXED)\n"
        "    #ifdef _OPENMP\n",
        r"ThreadSanitizer: data race[\s\S]*threads_(run_borrowed|borrowed|work)",
        {"XLA": (*MANY, "many_python_threads and cython")},
    ),
    Edit(
        "a sum that threads share",
        "src/hebbax/_cpu/propagate.pyx",
        "    add_and_get(&job.added, added)\n",
        "    job.added += added\n",
        r"ThreadSanitizer: data race[\s\S]*propagate_(?:span|task|propagate)",
        # Large enough for OpenMP too, to which small work is not given.
        {
            "OpenMP": (*MANY, "subnormals and propagate and callback"),
            "XLA": (*MANY, "subnormals and propagate and cython"),
        },
    ),
)


class Work(NamedTuple):
    """Commands, and how many of what they do, which they may say themselves."""

    what: str
    commands: list[tuple[str, ...]]
    unit: str
    count: int | None = None


def works(sanitizer: Sanitizer, effort: float) -> list[Work]:
    """The tests and the fuzzer, of both as much as the effort is worth."""
    tests = TESTS if sanitizer is ADDRESS else TESTS[:THREADED]
    some = tests[: max(1, math.ceil(effort * len(tests)))]
    pytest = [(*PYTEST, "-m", "not slow", f"tests/{name}") for name in some]
    calls = max(1, int(CALLS * effort))
    fuzzer = [
        Work(
            f"fuzz_python, {door}",
            [("tests/stress/fuzz_python.py", "--door", door, "--calls", str(calls))],
            "calls",
            calls,
        )
        for door in DOORS
    ]
    return [Work(f"{len(some)} of {len(tests)} files of tests", pytest, "tests"), *fuzzer]


def run(effort: float, say: Callable) -> list[Result]:
    """A row for each sanitizer's tests, for its fuzzing by each door, and for each fault that is planted."""
    with ThreadPoolExecutor(2) as pool:  # of processes, most of which have one thread
        rows = pool.map(partial(watch, effort=effort, say=say), (ADDRESS, THREAD), (ADDRESS_FAULTS, THREAD_FAULTS))
        return [row for some in rows for row in some]


def watch(sanitizer: Sanitizer, faults: tuple[Edit, ...], effort: float, say: Callable) -> list[Result]:
    """The rows of one."""
    if missing := sanitizer.missing():
        return [Result(sanitizer.name, 0, "tests", 0, f"skipped: {missing}", True)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(sanitizer, Path(folder))
        say(f"{sanitizer.name}: built")
        for work in works(sanitizer, effort):
            rows.append(done(copy, work, say))
            say(f"{rows[-1].what}: {rows[-1].found}", markup=False)
        for fault in faults:
            rows.append(planted(copy, fault))
            say(f"{rows[-1].what}: {rows[-1].found}", markup=False)
    return rows


def done(copy: Copy, work: Work, say: Callable) -> Result:
    """What the sanitizer, and the commands themselves, find where nothing is planted."""
    started, count, reports, ends = time.monotonic(), 0, [], []
    for command in work.commands:
        ran = copy.run(command)
        passed = re.findall(r"(\d+) passed", ran.output)
        count += work.count if work.count is not None else int(passed[-1]) if passed else 0
        reports += ran.reports
        if ran.status:
            ends.append(f"{command[-1]} ends with {ran.status}: {' '.join(ran.output.split())[-300:]}")
        say(f"{copy.sanitizer.name}: {command[-1]}: {ran.output.strip()[-100:]}", markup=False)
    found = [*dict.fromkeys(headline(report) for report in reports)][:MOST_SHOWN] + ends
    text = f"{len(reports)} reports: {'; '.join(found)}" if found else "no report"
    return Result(
        f"{copy.sanitizer.name}: {work.what}",
        count,
        work.unit,
        time.monotonic() - started,
        text,
        not found and count > 0,
    )


def planted(copy: Copy, fault: Edit) -> Result:
    """Whether a fault is reported, as what it is, and by the threads of all that are to show it."""
    started, said, missed = time.monotonic(), [], False
    with copy.planted(fault):
        for threads, command in fault.commands.items():
            ran = copy.run(command, halts=True)
            caught = [headline(report) for report in ran.reports if re.search(fault.report, report)]
            missed = missed or not caught
            said.append(
                f"{threads}: {caught[0]}" if caught else f"{threads}: NOT caught, {len(ran.reports)} other reports"
            )
    text, seconds = ("NOT caught; " if missed else "caught; ") + "; ".join(said), time.monotonic() - started
    return Result(f"{copy.sanitizer.name}: planted: {fault.what}", len(said), "calls of it", seconds, text, not missed)


def main(name: str = "", *command: str) -> Ran:
    known = {"address": ADDRESS, "thread": THREAD}
    if name not in known or not command:
        given = " ".join((name, *command)) or "nothing"
        raise SystemExit(f"got {given}, expected address or thread, and what Python is to run: -m pytest ..., say")
    sanitizer = known[name]
    if missing := sanitizer.missing():
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as folder:
        ran = Copy(sanitizer, Path(folder)).run(command)
    print(ran.output, *ran.reports, f"{len(ran.reports)} reports", sep="\n")
    return ran


if __name__ == "__main__":
    ran = main(*sys.argv[1:])
    raise SystemExit(ran.status or len(ran.reports) > 0)
