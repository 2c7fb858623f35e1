"""No structure, however wrong, makes a kernel touch what is not its own, or miss an element that is in range."""

import subprocess
import sys
from pathlib import Path

import pytest

import emulated
import hebbax

pytestmark = pytest.mark.skipif(emulated.find_compiler() is None, reason="no C++ compiler was found")
SCRIPT = Path(__file__).with_name("hostile.py")


def run(*arguments):
    """In a process of its own, which may end at a fault."""
    tests = str(SCRIPT.parents[1])
    code = f"import runpy, sys; sys.path.insert(0, {tests!r}); runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def assert_seen(done):
    """A case went wrong: by what it did, a fault or threads that do not meet; and nothing before it."""
    assert done.returncode < 0 or "AssertionError: case" in done.stderr or "LaunchError: " in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("cases", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_hostile_structures(cases):
    """The script was run on 100 000, which takes some minutes."""
    done = run(cases)
    assert done.returncode == 0, done.stdout[-100:] + done.stderr
    assert done.stdout.endswith(f"{cases} cases are right\n")


# What guards the kernels, and the same without it.
GUARDS = {
    "where a row begins": ("start < 0 ? 0 : start", "start"),
    "where a row ends": ("end > nse ? nse : end", "end"),
    "sums of elements": ("b < most - a ? a + b : most", "a + b"),
    "indices": ("(uint64) from[i] < call.n_other", "true"),
    "weight_indices": ("(uint64) to[i] < call.indices.size", "true"),
}
BARRIER = "__syncthreads();"
# What stands before each barrier.
BARRIERS = {
    "before the parts of a member are found": "if (WAY != BATCHED) return;\n    ",
    "after they are found": "[threadIdx.x].size;\n    }\n    ",
    "between two scans": "sum.add(other, most);\n    }\n    ",
    "in a scan": "sum = from(sum, 1);\n    ",
    "after tiles are summed up": "all = scan.all;\n    ",
}


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_that_is_missing_shows(guard):
    assert_seen(run(400, 0, *GUARDS[guard]))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_barrier_that_is_missing_shows(barrier):
    before = BARRIERS[barrier]
    assert_seen(run(400, 0, before + BARRIER, before))


def test_all_barriers_are_taken_away():
    sources = "".join(path.read_text("utf-8") for path in (Path(hebbax.__file__).parent / "cuda").glob("*.cu"))
    assert sources.count(BARRIER) == sum(sources.count(before + BARRIER) for before in BARRIERS.values())
    assert all(sources.count(text) for text, _ in GUARDS.values())
