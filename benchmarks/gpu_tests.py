"""The tests of the operators with backend 'cupy', in processes side by side."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time

from gpu_stage import TESTS, Cases, Options

FOLDERS = ("operators", "outside_jax", "transformations", "cuda")
NAMES = "cupy or every_backend_agrees"
REHEARSED = ("cuda",), "updates_are_those_of_the_oracle and float32"
WORKERS = 12
OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
SPARED = 5  # seconds for what is said at the end


def cases(options: Options) -> Cases:
    yield "pytest", lambda: run(options)


def run(options: Options) -> dict:
    """How many passed, failed and so on, also where there was no time for all."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
    folders, names = (FOLDERS, NAMES) if options.on_gpu else REHEARSED
    command += [*(str(TESTS / folder) for folder in folders), "-k", names]
    if options.on_gpu and importlib.util.find_spec("xdist"):
        command += ["-n", str(WORKERS)]
    limit = options.until - time.time() - SPARED
    whole = True
    with tempfile.TemporaryFile("w+") as printed:  # a pipe would be open until the last of pytest's processes has ended
        child = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, cwd=TESTS.parent)
        try:
            child.wait(max(1, limit))
        except subprocess.TimeoutExpired:
            child.kill()
            whole = child.wait() == 0
        printed.seek(0)
        text = printed.read()
    print(text)
    told = outcomes(text) | {"whole": whole}
    assert told["passed"] and not told["failed"], f"{told['passed']} passed, failed: {'; '.join(told['failed'][:20])}"
    assert whole, f"stopped after {limit:.0f} s: {told['passed']} passed, none failed"
    assert child.returncode == 0, f"exit status {child.returncode}, see the log"
    return told


def outcomes(text: str) -> dict:
    """Counts, and the names of those that failed, from what `pytest -v` prints of each test."""
    body = re.split(r"^=+ (?:FAILURES|ERRORS|short test summary info) =+$", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = {"passed": 0, "skipped": 0, "failed": []}
    for line in body.splitlines():
        if "::" not in line or not (outcome := OUTCOME.search(line)):
            continue
        name = next(word for word in line.split() if "::" in word)
        if outcome[1] in ("FAILED", "ERROR"):
            found["failed"].append(name)
        else:
            found["skipped" if outcome[1] == "SKIPPED" else "passed"] += 1
    return found
