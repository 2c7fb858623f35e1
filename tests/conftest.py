"""Fixtures for every test; the tests of one machine's CPU need no other platform."""

import gc
import itertools
import os
import zlib
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported, here and in the children

import jax
import numpy as np
import pytest
from hypothesis import settings

import hebbax
from problems import BACKENDS, CPU_KERNELS, KERNELS, PROPAGATES, SPECS, UPDATES

gc.set_threshold(
    100_000, 50, 100
)  # JAX makes and keeps so many objects that to look for cycles took a tenth of the time


def pytest_configure(config):
    few = bool(config.getoption("markexpr"))  # of all tests, `make test-all`, more examples of each
    settings.register_profile("hebbax", deadline=None, max_examples=8 if few else 25, print_blob=True)
    settings.load_profile("hebbax")


def pytest_generate_tests(metafunc):
    """Run a test that takes `spec`, `update`, `propagate`, `backend`, `kernel` or `cpu_kernel` for each of them."""
    by_name = {"ids": lambda spec: spec.name}
    for name, values, how in (
        ("spec", SPECS, by_name), ("update", UPDATES, by_name), ("propagate", PROPAGATES, by_name),
        ("backend", BACKENDS, {}), ("kernel", KERNELS, {}), ("cpu_kernel", CPU_KERNELS, {}),
    ):  # fmt: skip
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, **how)


@pytest.hookimpl(tryfirst=True)  # before cases are selected by their marks
def pytest_collection_modifyitems(items):
    """Mark cases that others make up for: most of the time of one goes into compiling it.

    As slow, which `make test` leaves out, those without which each value of each parameter is still in a case; as
    combinations, those without which every two values still meet in one, an operator and a backend, a backend and a
    dtype: CI leaves these out too, and `make test-all` runs all. The mark `together` says how many meet for both. Cases
    that are slow by themselves are looked at by themselves.
    """
    tests = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec"):
            mark, values = item.get_closest_marker("together"), values_of(item)
            meetings = set(itertools.combinations(values, min(mark.args[0] if mark else 2, len(values))))
            name, slow = item.nodeid.partition("[")[0], item.get_closest_marker("slow") is not None
            alone = set() if mark else set(values)
            tests[name, slow].append((meetings, zlib.crc32(item.nodeid.encode()), alone, item))
    for cases in tests.values():
        met, seen = set(), set()
        while cases:
            # Which brings most together that have not met: of several, one or another, so that tests differ in it.
            best = max(cases, key=lambda case: (len(case[0] - met), case[1]))
            cases.remove(best)
            meetings, _, alone, item = best
            if meetings <= met:
                item.add_marker("combination")
            if meetings <= met or (alone and alone <= seen):
                item.add_marker("slow")
            met |= meetings
            seen |= alone


def values_of(item):
    """The values of a case's parameters; those that one mark lists together count as one."""
    left = {name: id(value) for name, value in item.callspec.params.items()}
    values = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0].replace(" ", "").split(",") if isinstance(mark.args[0], str) else mark.args[0]
        values.append(tuple((name, left.pop(name)) for name in names))
    return [*values, *left.items()]


MOST_MAPPINGS = 20_000  # of memory: Linux grants a process 65 530, and XLA's compiler crashes where there are no more
LOOK_AFTER = 50  # tests
tests_done = itertools.count(1)


@pytest.fixture(autouse=True)
def mappings():
    """Let JAX forget what it has compiled, which is some mappings of memory for each program, before they run out."""
    yield
    maps = Path("/proc/self/maps")
    if next(tests_done) % LOOK_AFTER == 0 and maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def rng():
    return np.random.default_rng(2000)


@pytest.fixture
def threads():
    """`hebbax.set_num_threads`, undone after the test."""
    before = hebbax.get_num_threads()
    yield hebbax.set_num_threads
    hebbax.set_num_threads(before)


@pytest.fixture
def set_default():
    """`set_default(spec, backend)` on the CPU, undone after the test."""
    changed = []

    def change(spec, backend):
        changed.append(getattr(hebbax, f"{spec.name}_p"))
        changed[-1].set_default("cpu", backend)

    yield change
    for operator in changed:
        operator.set_default("cpu", BACKENDS[0])


@pytest.fixture
def synapses():
    """Five synapses, an empty row, sorted."""
    return hebbax.Synapses([0, 2, 2, 5], [1, 3, 0, 1, 2], shape=(3, 4))
