"""Importing hebbax: no thread, no device, and hardly any time beyond what JAX and brainunit take."""

import os
import subprocess
import sys

import pytest


def child(code, **environment):
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", [pytest.param("1", marks=pytest.mark.slow), "4"])
def test_import_starts_no_thread(threads):
    code = "import os, jax, brainunit; count = lambda: len(os.listdir('/proc/self/task')); before = count()\n"
    code += "import hebbax; print(before, count())"
    before, after = child(code, HEBBAX_NUM_THREADS=threads).stdout.split()
    assert before == after


def test_import_touches_no_device():
    """Whoever asks JAX for a device here gets an error, as in the end."""
    code = "import hebbax, jax; hebbax.backends(); print('no device yet', flush=True); jax.devices()"
    result = child(code, JAX_PLATFORMS="no_such_platform")
    assert result.stdout == "no device yet\n" and "no_such_platform" in result.stderr, result.stderr


def test_import_loads_nothing_that_only_some_need():
    code = "import sys, jax, brainunit; before = set(sys.modules)\nimport hebbax; print(*set(sys.modules) - before)"
    loaded = set(child(code).stdout.split())
    assert "hebbax" in loaded
    assert not loaded & {"cupy", "matplotlib", "numba", "rich", "scipy.sparse", "typer"}


@pytest.mark.slow
def test_import_takes_less_than_a_tenth_of_a_second():
    """The least of three, for a busy machine takes its time and the first run may have to compile Python."""
    code = "import time, jax, brainunit; start = time.perf_counter(); import hebbax; print(time.perf_counter() - start)"
    assert min(float(child(code).stdout) for _ in range(3)) < 0.1
