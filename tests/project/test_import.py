"""Importing hebbax: no thread, no device, and nothing that only some need."""

import json
import os
import subprocess
import sys

import pytest

CHILD = """
import json, os, sys, jax, brainunit

def state():
    tasks = "/proc/self/task"
    return {"threads": len(os.listdir(tasks)) if os.path.isdir(tasks) else None, "modules": sorted(sys.modules)}

before = state()
import hebbax
print(json.dumps([before, state()]))
hebbax.backends()
print("no device yet", flush=True)
jax.devices()
"""


def child(code, **environment):
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)


@pytest.fixture(scope="session", params=[pytest.param("1", marks=pytest.mark.slow), "4"])
def imported(request):
    """A process that imports hebbax and then asks JAX for a device, which is an error there."""
    return child(CHILD, HEBBAX_NUM_THREADS=request.param, JAX_PLATFORMS="no_such_platform")


def test_import_starts_no_thread(imported):
    before, after = json.loads(imported.stdout.splitlines()[0])
    assert before["threads"] == after["threads"]


def test_import_touches_no_device(imported):
    assert imported.stdout.splitlines()[1:] == ["no device yet"], imported.stderr
    assert "no_such_platform" in imported.stderr


def test_import_loads_nothing_that_only_some_need(imported):
    before, after = (set(state["modules"]) for state in json.loads(imported.stdout.splitlines()[0]))
    assert "hebbax" in after - before
    assert not (after - before) & {"cupy", "matplotlib", "numba", "rich", "scipy.sparse", "typer"}
