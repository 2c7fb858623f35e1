"""Where there is no memory, hebbax's own code says so: two of the cases of `make stress`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[1] / "stress"
sys.path.insert(0, str(STRESS))
from built import library, why_no_compiler  # noqa: E402

from problems import WHY_NO_CUPY  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an allocator is preloaded, for glibc")
@pytest.mark.parametrize("case", ["cuda", "python"])
def test_each_allocation_may_fail(case):
    reason = (why_no_compiler() or WHY_NO_CUPY) if case == "cuda" else None
    if reason:
        pytest.skip(reason)
    shim = str(library("fail")) if case == "cuda" else ""
    command = [sys.executable, str(STRESS / "fault_allocation.py"), shim, case]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "LD_PRELOAD": shim}
    child = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    if "skipped" in child.stderr:
        pytest.skip(child.stderr.strip())
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["raised"] >= 1 and found["wrong"] == []
