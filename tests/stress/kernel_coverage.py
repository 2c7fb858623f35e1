"""Which lines and branches of the kernels, functions of the .pyx and .pxd files without the GIL, inputs have covered.

Clang counts in the C that Cython made, whose `#line` says where a line is from. Code that exists for each dtype
counts once: what is covered in any of them is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from pathlib import Path

from fuzz_build import MODULES
from record import Result

KERNEL = re.compile(r"__pyx_(fuse_[0-9_]*)?f_6hebbax_4_cpu_|__pyx_fuse_\d.*__pyx_f_6hebbax_4_cpu_")
WITH_PYTHON = ("from_dlpack", "call_kernel", "nothing")  # what these do is for fuzz_python
GOAL = 0.95


def covered(folder: Path, library: Path, random: int) -> list[Result]:
    """Replay the corpus and some random inputs; one row for lines, one for branches, which name what is left."""
    began = time.monotonic()
    profiles = [folder / f"{name}.profraw" for name in ("corpus", "random")]
    arguments = (["files", str(folder / "corpus")], ["random", "1", str(random), "96"])
    failed = 0
    for profile, more in zip(profiles, arguments, strict=True):
        command = [sys.executable, str(Path(__file__).with_name("fuzz_build.py")), str(library), *more]
        failed |= subprocess.run(
            command, env=os.environ | {"LLVM_PROFILE_FILE": str(profile)}, capture_output=True
        ).returncode
    merged = folder / "profdata"
    subprocess.run(["llvm-profdata", "merge", "-o", str(merged), *map(str, profiles)], check=True)
    export = ["llvm-cov", "export", str(library), f"-instr-profile={merged}"]
    data = json.loads(subprocess.run(export, check=True, capture_output=True, text=True).stdout)["data"][0]
    lines, branches = _by_source(folder / "covered" / "src", data)
    (folder / "coverage.json").write_text(
        json.dumps({"lines": _missed(lines), "branches": _missed(branches)}, indent=1) + "\n"
    )
    seconds = time.monotonic() - began
    return [_row(name, what, seconds, not failed) for name, what in (("lines", lines), ("branches", branches))]


def _by_source(sources: Path, data: dict) -> tuple[dict, dict]:
    """Whether each line, and each way of each branch, was taken, by what is its place in a .pyx or .pxd file."""
    maps = {}
    for module in MODULES:
        path = sources / "hebbax" / (module.replace(".", "/") + ".c")
        maps[str(path)] = _places(path)
    lines: dict = defaultdict(bool)
    branches: dict = defaultdict(bool)
    for function in data["functions"]:
        name, path = function["name"].rpartition(":")[2], function["filenames"][0]
        if path not in maps or not KERNEL.search(name) or "hebbax_fuzz" in name or name.endswith(WITH_PYTHON):
            continue
        for start, _, end, _, count, file, _, kind in function["regions"]:
            if kind == 0 and file == 0:
                for line in range(start, end + 1):
                    place = _place(maps[path], line)
                    if place and count:
                        lines[place] = True
                    elif place:
                        lines.setdefault(place, False)
        seen: dict = defaultdict(int)
        for start, column, _, _, true, false, file, _, _ in function["branches"]:
            place = _place(maps[path], start)
            if place is None or file or (true == 0 and false == 0 and not function["count"]):
                continue
            number = seen[place]
            seen[place] += 1
            for way, count in (("true", true), ("false", false)):
                branches[(*place, number, way)] |= count > 0
            del column
    return lines, branches


def _places(path: Path) -> list[tuple[int, str | None, int]]:
    """Where, by its lines that say `#line`, the rest of a C file is from; None for what is Cython's own."""
    places = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r'#line (\d+) "(.*)"', line)
        if found:
            source = found[2] if found[2].endswith((".pyx", ".pxd", ".pxi")) and "_cpu" in found[2] else None
            places.append((number + 1, Path(source).name if source else None, int(found[1])))
    return places


def _place(places: list[tuple[int, str | None, int]], line: int) -> tuple[str, int] | None:
    found = bisect_right(places, (line, "~", 0)) - 1
    if found < 0 or places[found][1] is None:
        return None
    return places[found][1], places[found][2]


def _missed(taken: dict) -> list[str]:
    return sorted({":".join(map(str, place)) for place, was in taken.items() if not was})


def _row(name: str, taken: dict, seconds: float, passed: bool) -> Result:
    share = sum(taken.values()) / max(len(taken), 1)
    left = sorted({place[:2] for place, was in taken.items() if not was})
    found = f"{share:.1%} covered; not: " + ", ".join(f"{file}:{line}" for file, line in left)
    return Result(f"{name} of the kernels", len(taken), name, seconds, found, passed and share > GOAL)
