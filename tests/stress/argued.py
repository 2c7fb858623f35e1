"""Changes that no test can find, as results stay the same, and why."""

from __future__ import annotations

import re
from typing import NamedTuple

from mutants import Mutant

AHEAD = "how far ahead, and whether, memory is fetched: no result depends on it"
SPEED = "chooses between ways, or sizes of parts, with the same result"


class Argued(NamedTuple):
    path: str
    line: str  # a regular expression that the whole line has in it
    why: str
    change: str = ""  # one that "old -> new" has in it


KERNELS = "src/hebbax/_cpu/"
ARGUED = (
    *(
        Argued(KERNELS + path, rf"^ +prefetch_at\({what}, ", AHEAD, change)
        for path, change, *known in (
            ("buffers.pxd", "", "array, k", "array, end - 1"),
            ("update.pyx", "", "weight, slot", "w_min, slot", "w_max, slot"),
            # What these read to know what to fetch has to be in bounds.
            ("update.pyx", "-> pass", r"trace, indices\[fetch\]", r"trace, indices\[k\]"),
            ("calls.pyx", "-> pass", r"trace, spikes\.first .*\]"),
            ("propagate.pyx", "-> pass", r"weight, slots\[k \+ ahead.*\]", r"weight, slots\[fetched\]"),
            ("collect.pyx", "-> pass", r"weight, slots\[k \+ AHEAD.*\]"),
        )
        for what in known
    ),
    Argued(KERNELS + "propagate.pyx", r"if rows\.elements > COPIED or .* network\.indices\.size < CACHED:", SPEED),
    Argued(
        KERNELS + "propagate.pyx",
        r"^    return k$",
        "a thread whose part of a row is not there counts too few elements: one starts all over, with the same result",
        "-> pass",
    ),
    Argued(
        KERNELS + "propagate.pyx",
        r"copiers = copiers_for\(&job\) if parallel and parts == 1 else 1",
        "no copier and one are alike: the only question is whether there are several",
        "1 -> 0",
    ),
    Argued(KERNELS + "collect.pyx", r"tick \+= 1", "what is taken of it is whether LOOK divides it", "+= -> -="),
    Argued(
        KERNELS + "rows.pyx",
        r"^            continue",
        "of a call that fails in any case, no other row is looked up",
        "continue -> break",
    ),
    Argued(
        KERNELS + "rows.pyx",
        r"cdef int64_t events = list_of\(&network\.lists, 0\)\.count if .* else 0",
        "as few events as a batch has room for: how many, is not looked at",
        "0 -> 1",
    ),
    *(
        Argued(f"{KERNELS}{x}", r"^ *sched_yield\(\)", "a thread that waits keeps its core: results are the same")
        for x in ("threads.pyx", "exchange.pyx")
    ),
    Argued(
        KERNELS + "threads.pyx",
        r"if watch\.next > 0:",
        "a call looks for signals when it begins, too, which Python has done just before",
        "> -> >=",
    ),
    Argued(
        KERNELS + "exchange.pyx",
        r"if last > 0:",
        "the clock, which begins at 0 with the machine, is beyond 1 s",
        "0 -> 1",
    ),
    Argued(KERNELS + "propagate.pyx", r"^            elif not network\.shared:$", AHEAD),
    Argued(KERNELS + "propagate.pyx", r"begin = row\[tick\]\.begin \+ <int64_t> \(place", AHEAD),
    Argued(
        KERNELS + "propagate.pyx",
        r"cdef int64_t tick, k, begin, size, bad = 0",
        "an index that seems bad makes one thread start all over, with the same result",
        "0 -> 1",
    ),
    Argued(KERNELS + "update.pyx", r"if chunks == 1 or not permuted or elements < rows", SPEED),
    Argued(KERNELS + "update.pyx", r"return nse < CACHED or elements < nse // 16", SPEED),
    Argued(KERNELS + "calls.pyx", r"return <int64_t> \(operands\[1\]\.size \* share\)", SPEED),
    Argued(
        KERNELS + "threads.pyx",
        r"for _ in range\(1, <int> min\(get\(&limit\), chunks\)\)",
        "one more thread is asked to help, and finds nothing left",
        "1 -> 0",
    ),
    Argued(KERNELS + "threads.pyx", r"if spins % 1024:", "how often a thread that waits lets others have its core"),
    Argued(KERNELS + "rows.pyx", r"set_out\(walk, stop - start\)", SPEED),
    Argued(
        KERNELS + "rows.pyx",
        r"for j in range\(network\.indptr\.size - 1\)",
        "the row behind the last is looked at only where no index is bad, as another thread has changed it meanwhile",
        "1 -> 0",
    ),
    Argued(KERNELS + "buffers.pxd", r"k \+= 64 // sizeof", "65 divided by 2, 4 or 8 is what 64 is", "64 -> 65"),
    Argued(
        KERNELS + "pages.pxd",
        r"known = file != NULL",
        "whether huge pages are asked for, by what /sys says of the machine: results are the same",
    ),
    Argued(KERNELS + "pages.pxd", r"^ *return known;", "whether huge pages are asked for: results are the same"),
    Argued(
        "cuda/rows.cu",
        r"event < end \? spikes_from",
        "behind the last neuron there are none to look at, and no bit is set",
        "< -> <=",
    ),
    Argued(
        "src/hebbax/rules/_traces.py",
        r"jnp\.where\(jnp\.isfinite\(age\), step - \(age - self\.age\), 0\)",
        "an age that is not finite is renewed in the same step, and what was lost with it",
        "0 -> 1",
    ),
    Argued(
        "src/hebbax/rules/diehl_cook.py",
        r"weight_in_bounds=True",
        "spares a pass over weights in bounds, which they are",
        "True -> False",
    ),
    Argued(
        "src/hebbax/_core/primitives.py",
        r"zip\(x\.shape, shape, strict=True\)\) if have != want",
        "there are as many of the one as of the other: all that call it broadcast a trace or a gain by batches",
        "True -> False",
    ),
    Argued(
        "src/hebbax/rules/_traces.py",
        r"jnp\.where\(self\.ratio < _SLOW",
        "at the threshold itself both ways give the same to rounding",
        "< -> <=",
    ),
)


def argument(mutant: Mutant, line: str) -> str:
    """Why a change of this line has no effect; nothing if no reason is known."""
    change = f"{mutant.old} -> {mutant.new}"
    for known in ARGUED:
        if mutant.path == known.path and re.search(known.line, line) and known.change in change:
            return known.why
    return ""
