"""The cases of one stage, one after the other, in its process; what each has found is written at once."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

AGAIN = 75  # the exit status of a process that wants another one to go on
TESTS = Path(__file__).resolve().parent.parent / "tests"


class Options(NamedTuple):
    platform: str  # "cuda", or "cpu": a rehearsal
    cases: str  # only those whose name matches this regular expression
    rounds: int
    until: float  # `time.time()` at which the process is ended

    @property
    def on_gpu(self) -> bool:
        return self.platform == "cuda"


# A name, and what returns what is found, or raises.
Cases = Iterator[tuple[str, Callable[[], Any]]]


class Skipped(Exception):
    """Why a case does not apply here."""


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def run_stage(where: str, options: Options, into: Path) -> int:
    """Run what the function `where` gives, but for what is in `into` already; return the exit status."""
    for folder in (TESTS, TESTS / "cuda"):  # networks, the oracle, and what plays the GPU in a rehearsal
        sys.path.insert(0, str(folder))
    module, name = where.split(".")
    listed = {
        case: function
        for case, function in getattr(importlib.import_module(module), name)(options)
        if re.search(options.cases, case)
    }
    found = json.loads(into.read_text()) if into.exists() else {"cases": {}}

    def write() -> None:
        new = into.with_suffix(".new")
        found["left_out"] = [case for case in listed if case not in found["cases"]]
        new.write_text(json.dumps(found, ensure_ascii=False))
        os.replace(new, into)

    for case in [case for case in listed if case not in found["cases"]]:
        longest = max((told.get("seconds", 0) for told in found["cases"].values()), default=0)
        if time.time() + longest > options.until - 1:  # such cases may take as long
            break
        found["cases"][case] = {"running": True}
        write()
        start = time.monotonic()
        told = outcome(listed[case])
        found["cases"][case] = told | {"seconds": round(time.monotonic() - start, 2)}
        write()
        print(f"{case}: {told.get('failure') or told.get('skipped') or 'done'}", flush=True)
        # What is wrong with CUDA itself stays wrong in this process; a wrong result does not.
        if options.on_gpu and "failure" in told and not told["failure"].startswith("AssertionError"):
            return AGAIN
    write()
    return 0


def outcome(function: Callable[[], Any]) -> dict:
    try:
        return {"result": function()}
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"failure": first_line(error)}


@contextmanager
def python_entries() -> Iterator[SimpleNamespace]:
    """Count the functions of Python that any thread enters; before Python 3.12 that is not known."""
    entries = SimpleNamespace(count=None)
    if not hasattr(sys, "monitoring"):
        yield entries
        return
    monitoring, tool = sys.monitoring, sys.monitoring.PROFILER_ID

    def entered(*_):
        entries.count += 1

    entries.count = 0
    gc.disable()  # it calls functions of JAX
    monitoring.use_tool_id(tool, "python_entries")
    monitoring.register_callback(tool, monitoring.events.PY_START, entered)
    monitoring.set_events(tool, monitoring.events.PY_START)
    try:
        yield entries
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
        gc.enable()
