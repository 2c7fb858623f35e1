"""Importing hebbax: no thread, no device, and hardly any time beyond what JAX and brainunit take."""

import os
import subprocess
import sys

import pytest


def child(code, **environment):
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", ["1", "4"])
def test_import_starts_no_thread(threads):
    code = "import os, jax, brainunit; count = lambda: len(os.listdir('/proc/self/task')); before = count()\n"
    code += "import hebbax; print(before, count())"
    before, after = child(code, HEBBAX_NUM_THREADS=threads).stdout.split()
    assert before == after


def test_import_touches_no_device():
    """Whoever asks JAX for a device here gets an error, as the second child shows."""
    environment = {"JAX_PLATFORMS": "no_such_platform"}
    assert child("import hebbax; hebbax.backends()", **environment).returncode == 0
    assert "no_such_platform" in child("import hebbax, jax; jax.devices()", **environment).stderr


@pytest.mark.parametrize("module", ["cupy", "matplotlib", "numba", "rich", "scipy.sparse", "typer"])
def test_import_loads_nothing_that_only_some_need(module):
    code = f"import sys, jax, brainunit; loaded = lambda: {module!r} in sys.modules; before = loaded()\n"
    code += "import hebbax; print(loaded(), before)"
    after, before = child(code).stdout.split()
    assert after == before


def test_import_takes_less_than_a_tenth_of_a_second():
    """The least of three, for a busy machine takes its time and the first run may have to compile Python."""
    code = "import time, jax, brainunit; start = time.perf_counter(); import hebbax; print(time.perf_counter() - start)"
    assert min(float(child(code).stdout) for _ in range(3)) < 0.1
