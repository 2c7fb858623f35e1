"""Fuzzing from Python: hostile arrays through every door, in processes that may crash or hang, against plain NumPy.

    python tests/stress/run.py fuzz_python --effort 0.01
    python tests/stress/fuzz_python.py --door ffi --seed 1234 --calls 1     one call again, as the parent says it

A seed is a call: of so many seeds of a block, all have the same program, sizes and memory. What a call reads and writes
lies between pages that nobody may touch; so do XLA's own buffers, by guarded_malloc.c, where there is a C compiler.
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "cuda")]

HERE = Path(__file__).parent
SEED = 0
TOGETHER = 2  # doors at a time, each a process
PATIENCE = 300  # seconds for one call, those not counted in which it was stopped
MOST_FOUND = 10  # after which a door is left
FORGET = 20  # blocks after which JAX forgets its programs, each of which is some mappings of memory


class Door(NamedTuple):
    what: str
    blocks: str  # the class, in which module
    calls: int  # at an effort of 1
    needs_compiler: bool = False


DOORS = {
    "ffi": Door("XLA's FFI", "fuzz_operators:Block", 300_000),
    "callback": Door("callback", "fuzz_operators:Block", 250_000),
    "inplace": Door("hebbax.inplace and the kernels' own door", "fuzz_operators:Block", 250_000),
    "lists": Door("lists of spikes, and apply, by XLA's FFI", "fuzz_lists:Block", 200_000),
    "cuda": Door("CUDA in emulation, by XLA's FFI", "fuzz_operators:Block", 40_000, True),
    "cuda-kernels": Door("CUDA in emulation, the kernels", "fuzz_python:CudaKernels", 20_000, True),
    "constructors": Door("Synapses and from_...", "fuzz_arguments:Constructors", 20_000),
    "arguments": Door("arguments that do not fit, and huge shapes", "fuzz_arguments:Arguments", 30_000),
}


def run(effort: float, say: Callable) -> list:
    """A row for each door."""
    from record import Result

    import emulated

    def row(name: str) -> Result:
        door, started = DOORS[name], time.monotonic()
        if door.needs_compiler and emulated.find_compiler() is None:
            return Result(door.what, 0, "calls", 0, "skipped: install a C++ compiler, such as g++", True, SEED)
        calls, refused, found = fuzz(name, SEED, max(1, int(door.calls * effort)), guard, say)
        said = f"nothing; {refused:,} refused"
        if not guard and name not in ("inplace", "cuda-kernels", "constructors"):
            said += "; no guard around XLA's own buffers: install a C compiler, such as gcc"
        text = "; ".join(found) if found else said
        say(f"{name}: {calls} calls: {text}", markup=False)
        return Result(door.what, calls, "calls", time.monotonic() - started, text, not found, SEED)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(TOGETHER) as pool:
        guard = guarded_malloc(Path(folder), say)
        return list(pool.map(row, DOORS))


def guarded_malloc(folder: Path, say: Callable) -> str:
    """A library that guards XLA's buffers, '' where it cannot be built."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        say("no guard pages around XLA's own buffers: they take gcc, on Linux")
        return ""
    target = folder / "guarded_malloc.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(target), str(HERE / "guarded_malloc.c")]
    subprocess.run(command, check=True)
    return str(target)


def fuzz(door: str, seed: int, calls: int, guard: str, say: Callable) -> tuple[int, int, list[str]]:
    """How many calls were done, how many of them refused, and what went wrong, by the seed that does it again."""
    end, done, refused, found = seed + calls, 0, 0, []
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(Progress.SIZE))
        file.flush()
        progress = Progress(file.name)
        while seed < end and len(found) < MOST_FOUND:
            progress.write(seed, 0, 0)
            command = [sys.executable, str(HERE / "fuzz_python.py"), "--door", door, "--seed", str(seed)]
            command += ["--calls", str(end - seed), "--progress", file.name]
            with tempfile.TemporaryFile("w+") as output:
                environment = os.environ | {"JAX_PLATFORMS": "cpu"} | ({"LD_PRELOAD": guard} if guard else {})
                child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
                hangs = watch(child, progress)
                output.seek(0)
                lines = output.read().splitlines()
            at, some, some_refused = progress.read()
            done, refused = done + some, refused + some_refused
            found += [line for line in lines if line.startswith("found: ")]
            if hangs or child.returncode != 0:
                what = "hangs" if hangs else f"ends with {child.returncode}: {' '.join(lines[-2:])[:300]}"
                again = f"python tests/stress/fuzz_python.py --door {door} --seed {at} --calls 1"
                found.append(f"`{again}` {what}")
                say(found[-1], markup=False)
                done += 1
            seed = at + 1
    return done, refused, found[:MOST_FOUND]


def watch(child: subprocess.Popen, progress: Progress) -> bool:
    """Wait until a child ends; end it, and return True, where it stays with a call, unless it is stopped."""
    last, waited, before = None, 0.0, time.monotonic()
    while True:
        try:
            child.wait(1)
            return False
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if not is_stopped(child.pid):
            waited += min(now - before, 2.0)  # nor if all were stopped
        before = now
        if progress.read()[0] != last:
            last, waited = progress.read()[0], 0.0
        if waited > PATIENCE:
            child.kill()
            child.wait()
            return True


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


class Progress:
    """The call that a child is at, how many it has done, and how many were refused, in memory that outlives it."""

    SIZE = 24

    def __init__(self, path: str):
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self.SIZE)

    def write(self, *numbers: int) -> None:
        struct.pack_into("qqq", self._memory, 0, *numbers)

    def read(self) -> tuple[int, int, int]:
        return struct.unpack_from("qqq", self._memory)


class CudaKernels:
    """The kernels as tests/cuda/hostile.py runs them: small blocks, sanitized, batches, in guarded memory."""

    kernels = memory = None

    def __init__(self, number: int):
        import hostile

        if CudaKernels.kernels is None:
            CudaKernels.kernels, CudaKernels.memory = hostile.Kernels(), hostile.guarded_memory()
        self.first, self.run = number * 1000, hostile.check

    def check(self, index: int) -> bool:
        self.run(self.kernels, self.memory, self.first + index)
        return True


def calls_of(door: str, first: int, count: int, progress: Progress | None) -> int:
    """Make the calls of so many seeds; return how many were wrong, each of which is printed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_traceback_filtering", "off")  # of many errors, takes longer than all else
    module, _, name = DOORS[door].blocks.partition(":")
    make = getattr(importlib.import_module(module), name)
    size, block, number, wrong, refused = 1000, None, None, 0, 0
    for done, seed in enumerate(range(first, first + count)):
        if progress:
            progress.write(seed, done, refused)
        if seed // size != number:
            if number is not None and seed // size % FORGET == 0:
                jax.clear_caches()
            number = seed // size
            block = make(door, number) if module == "fuzz_operators" else make(number)
        try:
            refused += not block.check(seed % size)
        except Exception as error:
            what = f"{getattr(block, 'call', block)}: {type(error).__name__}: {error}"
            print(f"found: `--door {door} --seed {seed} --calls 1`: {' '.join(what.split())[:600]}", flush=True)
            wrong += 1
            if wrong == MOST_FOUND:
                break
    if progress:
        progress.write(first + count - 1 if wrong < MOST_FOUND else seed, done + 1, refused)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", choices=DOORS, required=True)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--progress", help="a file that the parent looks at")
    given = parser.parse_args()
    wrong = calls_of(given.door, given.seed, given.calls, Progress(given.progress) if given.progress else None)
    if not given.progress:
        print(f"{wrong} of {given.calls} calls went wrong")
        raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
