"""No structure, however wrong, makes a kernel touch what is not its own, or miss an element that is in range."""

import subprocess
import sys
from pathlib import Path

import pytest

import emulated

pytestmark = pytest.mark.skipif(emulated.find_compiler() is None, reason="no C++ compiler was found")
SCRIPT = Path(__file__).with_name("hostile.py")


def run(*arguments):
    """In a process of its own, which may end at a fault."""
    tests = str(SCRIPT.parents[1])
    code = f"import runpy, sys; sys.path.insert(0, {tests!r}); runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_structures():
    done = run(100_000)
    assert done.returncode == 0, done.stdout[-100:] + done.stderr
    assert done.stdout.endswith("100000 cases are right\n")


# What guards the kernels, and the same without it.
GUARDS = {
    "where a row begins": ("start < 0 ? 0 : start", "start"),
    "where a row ends": ("end > nse ? nse : end", "end"),
    "sums of elements": ("b < most - a ? a + b : most", "a + b"),
    "indices": ("(uint64) from[i] < call.n_other", "true"),
    "weight_indices": ("(uint64) to[i] < call.indices.size", "true"),
}


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_that_is_missing_shows(guard):
    assert run(300, 0, *GUARDS[guard]).returncode != 0
