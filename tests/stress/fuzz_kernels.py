"""The kernels under hostile arrays, without Python: by libFuzzer under AddressSanitizer, then from seeds, faster.

Every call has its buffers between pages without access and canaries, what it is to read only is mapped so, and what it
accepts is compared with an oracle (kernels/oracle.h), as is what it refuses, and how. Constants that keep small arrays
from threads and batches are small (fuzz_build.SMALL), so that they take every path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fuzz_build
import sanitized
from kernel_coverage import covered
from record import ROOT, Result

BUILD = ROOT / "build" / "fuzz"
SEED = 1
GUIDED, RANDOM = 4_000_000, 43_000_000  # inputs, most of two or three calls: more than 10^8 calls
LENGTH = 96  # bytes of an input
FILES = 3000  # of random inputs that coverage takes beside the corpus


def run(effort: float, say: Callable[[str], None]) -> list[Result]:
    """Fuzz as long as `effort` says, and measure what of the kernels that has covered."""
    lacking = fuzz_build.missing()
    if lacking:
        return [Result("skipped", 0, "calls", 0, lacking, True)]
    say("compiling the kernels three times")
    address = ["-O1", "-fsanitize=fuzzer-no-link,address", "-shared-libasan"]
    # (-Bsymbolic: or the sanitizer's library, which comes first, takes the counts of what is covered, and drops them)
    driver = [str(sanitized.found("clang", fuzz_build.FUZZER)), "-lstdc++", "-Wl,-Bsymbolic"]
    guided = fuzz_build.build(BUILD / "guided", "clang", address, libfuzzer=True, link=driver)
    plain = fuzz_build.build(BUILD / "plain", "clang", ["-O1"])
    counted = fuzz_build.build(BUILD / "covered", "clang", ["-O1", "-fprofile-instr-generate", "-fcoverage-mapping"])
    return [
        _guided(guided, round(GUIDED * effort), say),
        _random(plain, round(RANDOM * effort), say),
        *covered(BUILD, counted, round(FILES * max(effort, 1))),
    ]


def _guided(library: Path, inputs: int, say: Callable[[str], None]) -> Result:
    corpus, numbers = BUILD / "corpus", BUILD / "counts"
    corpus.mkdir(exist_ok=True)
    numbers.unlink(missing_ok=True)
    sanitizer = sanitized.found("clang", fuzz_build.ADDRESS)
    options = "detect_leaks=0:handle_abort=0:allocator_may_return_null=1"
    env = os.environ | {
        "LD_PRELOAD": str(sanitizer), "ASAN_OPTIONS": options, "HEBBAX_FUZZ_COUNTS": str(numbers),
    }  # fmt: skip
    say(f"libFuzzer: {inputs:,} inputs")
    flags = [
        f"-runs={inputs}",
        f"-max_len={LENGTH}",
        "-len_control=0",
        "-entropic=0",  # (which took half of the time, for a corpus of thousands)
        f"-seed={SEED}",
        "-timeout=60",
        f"-artifact_prefix={BUILD}/",
    ]
    began = time.monotonic()
    done = _run(library, "libfuzzer", str(corpus), *flags, env=env)
    seconds = time.monotonic() - began
    counts = [int(x) for x in numbers.read_text().split()] if numbers.exists() else [0]
    found = _found(done, sum(counts[2::2]), sum(counts[1::2]))
    return Result(
        "libFuzzer with AddressSanitizer", sum(counts[1::2]), "calls", seconds, found, not done.returncode, SEED
    )


def _random(library: Path, inputs: int, say: Callable[[str], None]) -> Result:
    say(f"from seeds: {inputs:,} inputs")
    began = time.monotonic()
    done = _run(library, "random", str(SEED), str(inputs), str(LENGTH))
    seconds = time.monotonic() - began
    rows = [x.split() for x in done.stdout.splitlines() if x.count(" ") == 2]
    calls, accepted = (sum(int(row[k]) for row in rows if row[0] in fuzz_build.KINDS) for k in (1, 2))
    return Result(
        "inputs from seeds", calls, "calls", seconds, _found(done, accepted, calls), not done.returncode, SEED
    )


def _found(done: subprocess.CompletedProcess, accepted: int, calls: int) -> str:
    if done.returncode == 0:
        return f"nothing; {accepted / max(calls, 1):.0%} were accepted"
    wrong = [x for x in done.stderr.splitlines() if "WRONG" in x or "ERROR: " in x]
    return (wrong or [f"ended with {done.returncode}"])[0][:200]


def _run(library: Path, *arguments: str, env: dict | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, str(Path(__file__).with_name("fuzz_build.py")), str(library), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True)
