"""Structures whose sizes and positions pass 2^31 and 2^32, in bytes and in elements: by every operator.

Most of their memory is pretended: pages that nobody writes to are not there (see `pretended`). The rows that are worked
on are those of a small network, whose results are compared bit for bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import Result

FOLDER = Path(__file__).parent
SEED = 1
LIMIT = 7 << 30  # bytes of memory that a group may really use, or three quarters of what is free
REAL = 10 << 30  # that must be free for weights that are all there
GROUPS = {
    "inplace": "operators of hebbax.inplace: all dtypes and pairs of index dtypes; elements, partners, spikes",
    "clip": "clips of all weights, through hebbax.inplace",
    "jax": "operators through JAX, weights donated; cython and callback; elements, partners, spikes",
    "members": "batches whose members lie far apart, and collect",
    "cuda": "the CUDA kernels, played on the host",
    "lists": "lists of spikes, exchanged ones, delays, traces and apply_on_pre/post",
    "real": "more than 2^31 weights of 16 bits, really there",
    "refused": "what int32 cannot count or name, refused by the argument's name",
}

LONG = ("inplace", "jax", "cuda")  # the others are complete from an effort of 0.2 on


def run(effort: float, say: Callable[[str], None]) -> list[Result]:
    return [_group(name, min(effort if name in LONG else 5 * effort, 1.0), say) for name in GROUPS]


def _group(name: str, share: float, say: Callable[[str], None]) -> Result:
    start = time.monotonic()

    def result(count: int, found: str, passed: bool) -> Result:
        say(f"{name}: {count} cases, {found}")
        seconds = time.monotonic() - start
        return Result(GROUPS[name], count, "cases", seconds, found, passed, SEED)

    if sys.platform != "linux":
        return result(0, "skipped: Linux alone pretends to have memory", True)
    if name == "real" and _meminfo("MemAvailable") < REAL:
        return result(0, f"skipped: needs {REAL >> 30} GB that are free", True)
    cases, most, status, errors = _run(name, share)
    failed = [case["case"] for case in cases if case["why"]]
    for case in cases:
        if case["why"]:
            say(f"{case['case']}\n{case['why']}")
    if failed:
        return result(len(cases), f"{len(failed)} failed, the first: {failed[0]}", False)
    if status != 0 or not cases:
        last = cases[-1]["case"] if cases else "none"
        reason = f"ended with status {status} after {last!r}: {(errors.splitlines() or ['nothing said'])[-1]}"
        return result(len(cases), reason, False)
    return result(len(cases), f"nothing (at most {most / 2**30:.1f} GB really used)", True)


def _run(name: str, share: float) -> tuple[list[dict], int, int, str]:
    """The cases of a group, by a process of its own, which is ended where it takes memory that is to be pretended."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    command = [sys.executable, str(FOLDER / "overflow_cases.py"), name, str(SEED), str(share)]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    most, limit = 0, max(LIMIT, _meminfo("MemAvailable") * 3 // 4)
    with tempfile.TemporaryFile("w+") as err, tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        while process.poll() is None:
            most = max(most, _anonymous(process.pid))
            if most > limit:
                process.kill()
            time.sleep(0.1)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    if most > limit:
        texts[1] += f"\nused more than {limit >> 30} GB"
    cases = [json.loads(line) for line in texts[0].splitlines() if line.startswith("{")]
    return cases, most, process.returncode, texts[1]


def _meminfo(name: str) -> int:
    return int(Path("/proc/meminfo").read_text().split(f"{name}:")[1].split()[0]) * 1024


def _anonymous(pid: int) -> int:
    """Bytes that a process has for itself; pages that are shown many times are not among them."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0]) * 1024
    except (OSError, IndexError):  # it has ended
        return 0
