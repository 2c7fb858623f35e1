"""The operators under the tools of compute-sanitizer; run as a script, what they watch."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 9  # the exit status where a tool has found something
SHAPE, NSE = (300, 200), 3000


def cases(options):
    for tool in TOOLS:
        yield tool, functools.partial(watch, options, tool)


def watch(options, tool: str) -> str:
    """What the tool says at the end."""
    from gpu_stage import Skipped

    toolkits = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders = [os.environ.get("PATH", ""), *(f"{toolkit}/bin" for toolkit in toolkits if toolkit)]
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    command = [sys.executable, __file__]
    if sanitizer:
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), *command]
    elif options.on_gpu:
        raise Skipped("compute-sanitizer is not installed")
    elif tool != TOOLS[0]:
        raise Skipped("a rehearsal runs the operators once, unwatched")
    limit = max(1, options.until - time.time() - 2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    print(done.stdout, done.stderr)
    told = "; ".join(line.strip("= ") for line in done.stdout.splitlines() if "SUMMARY" in line)
    assert done.returncode == 0, f"exit status {done.returncode}: {told or done.stderr.strip()[-300:]}"
    return told or "not watched"


def main() -> None:
    """Every operator on CuPy's arrays, against the oracle: with bounds, with long rows and in float16 too."""
    tests = Path(__file__).resolve().parent.parent / "tests"
    sys.path.insert(0, str(tests))
    import numpy as np

    import hebbax
    import oracle
    import problems

    if problems.WHY_NO_CUPY:
        raise RuntimeError(problems.WHY_NO_CUPY)
    import cupy

    rng = np.random.default_rng(0)
    for spec in problems.SPECS:
        bounds = {"w_min": -1.0, "w_max": 1.0} if spec.kind == "update" else {}
        for degrees in ("even", "hub"):
            for dtype in (np.float32, np.float16):
                network = problems.random_network(rng, SHAPE, NSE, degrees=degrees)
                given = problems.operands(spec, rng, network, dtype)
                there = {spec.public_name(name): cupy.asarray(x) for name, x in given.items()}
                out = getattr(hebbax.inplace, spec.name)(**there, **bounds, shape=SHAPE)
                oracle.assert_same(out.get(), oracle.evaluate(spec, SHAPE, given | bounds))


if __name__ == "__main__":
    main()
