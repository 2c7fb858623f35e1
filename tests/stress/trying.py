"""How platforms.py and aarch64.py try things: commands, a selection of the tests, and the bits of results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16
from record import ROOT, Result

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "platforms"
SELECTION = ("tests/operators", "tests/outside_jax", "tests/structure/test_sent.py")
SHORT = ("tests/operators/test_powers.py", "tests/outside_jax/test_inplace.py")
# What the tests of the selection import, beside JAX.
NEEDED = ("jax", "numpy", "scipy", "brainunit", "typer", "rich", "pytest", "hypothesis", "ml_dtypes", "flatbuffers")


def command(*words: object, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run it at the root, and return its status with all that it printed."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | changes
    return subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def must(*words: object, **changes: str) -> str:
    """Run what has to succeed, and return what it printed."""
    done = command(*words, **changes)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def file_of(what: str, suffix: str) -> Path:
    return BUILD / f"{re.sub(r'[^A-Za-z0-9.]+', '-', what)}.{suffix}"


def skipped(what: str, why: str) -> Result:
    return Result(what, 0, "tests passed", 0.0, f"skipped: {why}", True)


def tested(what: str, effort: float, python: Sequence[object] = (sys.executable,), **changes: str) -> Result:
    """Run the tests of our selection, or with less effort few of them, by this Python."""
    begin = time.monotonic()
    done = command(
        ".ci/quickly", *python, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-m", "not slow",
        *(SELECTION if effort >= 1 else SHORT), **changes,
    )  # fmt: skip
    file_of(what, "log").write_text(done.stdout)
    counts = re.findall(r"(\d+) passed", done.stdout)
    passed = int(counts[-1]) if counts else 0
    good = done.returncode == 0 and passed > 0
    failures = re.findall(r"^(?:FAILED|ERROR) (?:\S*/)?(\S+)", done.stdout, re.M)
    found = "nothing" if good else f"status {done.returncode}: {', '.join(failures[:3]) or done.stdout[-200:]}"
    if len(failures) > 3:
        found += f" and {len(failures) - 3} more"
    how = "" if effort >= 1 else " (few tests)"
    return Result(what + how, passed, "tests passed", time.monotonic() - begin, found, good)


def compare(what: str, plain: Path, python: Sequence[object], **changes: str) -> Result:
    """Whether results have the bits that are in the file `plain`, which the build in use here made.

    But for bits of NaN, which processors choose for themselves, and float64's powers, which are those of the C library.
    """
    begin = time.monotonic()
    path = file_of(what, "npz")
    done = command(*python, HERE / "same_bits.py", path, **changes)
    if done.returncode != 0:
        return Result(what, 0, "results", time.monotonic() - begin, f"failed: {done.stdout[-300:]}", False)
    with np.load(plain) as expected, np.load(path) as got:
        made, wrong, powers, nans = int(got["made"]), list(got["unequal"]), [], 0
        for name in expected.files:
            if name in ("made", "unequal"):
                continue
            moved, nan, most = differences(name, expected[name], got[name])
            nans += nan
            if moved and name.startswith("float64 **") and most <= 1:
                powers.append(moved / expected[name].size)
            elif moved and not ("float64: update" in name and "power" in name and most < 1e-15):
                wrong.append(name)
    path.unlink()
    said = [f"other bits in {len(wrong)}: {', '.join(wrong[:3])}"] if wrong else ["same bits"]
    said += [f"but for {nans:,} NaNs"] if nans else []
    said += [f"but for powers of float64: {max(powers):.2%} differ, in the last place"] if powers else []
    return Result(what, made, "results", time.monotonic() - begin, ", ".join(said), not wrong)


def differences(name: str, x: np.ndarray, y: np.ndarray) -> tuple[int, int, float]:
    """How many numbers differ, how many NaNs do in their bits, and by how much at most.

    That is in units in the last place for powers by themselves, otherwise as it is.
    """
    kind = re.findall(r"b?float\d+", name)[0]
    dtype = np.dtype(bfloat16 if kind == "bfloat16" else kind)
    other = x != y
    a, b = x.view(dtype)[other], y.view(dtype)[other]
    nan = np.isnan(a) & np.isnan(b)
    a, b = a[~nan].astype(np.float64), b[~nan].astype(np.float64)
    unit = np.spacing(np.maximum(np.abs(a), np.abs(b))) if "**" in name else 1.0
    return a.size, int(nan.sum()), float(np.max(np.abs(a - b) / unit, initial=0.0))
