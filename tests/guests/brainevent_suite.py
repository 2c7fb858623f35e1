"""brainevent's own tests of what hebbax serves, which come with it, with hebbax as the backend: `make test-brainevent`.

A plugin of pytest, which also starts it. Tests that run once for every backend run for hebbax alone.
"""

import gc
import itertools
import sys
from collections import defaultdict

import jax
import pytest

import hebbax.brainevent

MODULES = (
    "_csr.binary_test",
    "_csr.binary_indexed_test",
    "_csr.plasticity_binary_test",
    "_fcn.binary_test",
    "_fcn.plasticity_binary_test",
)
tests_done = itertools.count(1)
CASES = 2  # of one test with many, from the first to the last: most of the time goes into compiling them
# By a part of a test's name: why it says nothing about hebbax.
LEFT_OUT = {
    "weighted": "events that carry values are handed back to brainevent's backends, as test_brainevent.py checks",
    "cuda": "about brainevent's own kernels for CUDA",
    "gpu": "the same",
    "test_import_brainevent_needs_no_nvcc": "loads a module anew, whose primitives then are others than those served",
}
OTHERS = {"numba", "jax_raw", "pallas", "cuda_raw", "cusparse"}


def pytest_configure(config):
    """Before tests are collected, which ask for the names of all backends then."""
    hebbax.brainevent.enable()


def pytest_collection_modifyitems(config, items):
    unused = set(LEFT_OUT) - {part for part in LEFT_OUT for item in items if part in item.nodeid}
    if unused:
        raise pytest.UsageError(f"no test has a name with {', '.join(sorted(unused))}")
    left_out = [item for item in items if any(part in item.nodeid for part in LEFT_OUT) or names_another_backend(item)]
    tests = defaultdict(list)
    for item in items:
        if item not in set(left_out):
            tests[item.nodeid.partition("[")[0]].append(item)
    kept = {case for cases in tests.values() for case in cases[:: max(1, len(cases) // CASES)]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_runtest_teardown(item):
    """Now and then, let JAX forget what it has compiled, before the system's limit of mappings of memory is reached."""
    if next(tests_done) % 50 == 0:
        jax.clear_caches()
        gc.collect()


def names_another_backend(item):
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(isinstance(value, str) and value in OTHERS for value in values)


if __name__ == "__main__":
    names = [f"brainevent.{module}" for module in MODULES]
    options = ["-p", "brainevent_suite", "-c", "/dev/null", "-p", "no:cacheprovider", "-q", "--pyargs"]
    sys.exit(pytest.main([*options, *sys.argv[1:], *names]))
