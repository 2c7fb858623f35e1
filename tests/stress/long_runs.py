"""Long runs: nothing grows, and float32 stays as near to float64 as rounding alone can explain."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from built import why_no_compiler
from record import Result

CHILD = Path(__file__).with_name("long_run.py")
SEED = 20
RUNS = {
    "small": ("a recurrent network of 64 neurons and 512 synapses", 100_000_000),
    "song2000": ("song2000, 4 000 synapses, in steps of 0.1 ms (3.6 * 10^7: an hour)", 36_000_000),
}
SETTLED = 0.2  # of a run, after which nothing may grow
GROWTH = 4 << 20  # bytes over the rest, by a line through the samples: less than one for 20 steps, or 10 kB a block
WRONG = 1e-3  # an error of an amplitude that has to show


def run(effort: float, say: Callable[[str], object]) -> list[Result]:
    """Both runs, and one whose reference is wrong."""
    if reason := why_no_compiler():
        return [Result("long runs", 0, "steps", 0, reason, True)]
    rows = []
    for which, (what, steps) in RUNS.items():
        found = _child(which, max(400_000, round(steps * effort)), 0, say)
        rows += [_growth(what, found), _drift(what, found)]
    wrong = _child("small", 400_000, WRONG, say)
    seen = wrong["worst"] > 1
    text = f"leaves the bound, {wrong['worst']:.1f} times" if seen else "did not leave the bound"
    what = f"the same of the first, with a reference whose amplitudes are {WRONG:.1%} off"
    return [*rows, Result(what, wrong["steps"], "steps", wrong["seconds"], text, seen, SEED)]


def _child(which: str, steps: int, wrong: float, say: Callable[[str], object]) -> dict[str, Any]:
    command = [sys.executable, str(CHILD), which, str(steps), str(SEED), str(wrong)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        last = ""
        for number, line in enumerate(child.stdout):
            last = line
            if number % 40 == 0:
                say(f"{which}: {line[:160].strip()}")
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with {child.returncode}")
    return json.loads(last)


def _growth(what: str, found: dict[str, Any]) -> Result:
    done, memory, files, threads = np.array(found["samples"], np.float64).T
    late = done >= SETTLED * done[-1]
    slope, _ = np.polyfit(done[late], memory[late], 1)
    growth = slope * (done[-1] - done[late][0])
    more = [int(x[late].max() - x[late][0]) for x in (files, threads)]
    text = (
        f"memory {growth / 1e3:+,.0f} kB after the first fifth, by a line through {late.sum()} samples "
        f"({1e6 * slope:+.3g} bytes in 10^6 steps), {memory[-1] / 1e6:.0f} MB at the end; descriptors {more[0]:+}, "
        f"threads {more[1]:+}"
    )
    passed = bool(growth <= GROWTH) and max(more) <= 0
    return Result(f"{what}: what it holds", found["steps"], "steps", found["seconds"], text, passed, SEED)


def _drift(what: str, found: dict[str, Any]) -> Result:
    text = (
        f"at the end {found['drift']:.1e} of the largest weight, where rounding explains {found['bound']:.1e}; at no "
        f"time more than {found['worst']:.0%} of what it explains for a weight; {found['touches']:,.0f} updates of each"
    )
    passed = found["finite"] and found["worst"] <= 1 and found["moved"] > 0.05
    return Result(f"{what}: drift from float64", found["steps"], "steps", found["seconds"], text, passed, SEED)
