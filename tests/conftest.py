"""Fixtures for every test; the tests of one machine's CPU need no other platform."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported, here and in the children

import numpy as np
import pytest
from hypothesis import settings

import hebbax
from problems import BACKENDS, CPU_KERNELS, KERNELS, PROPAGATES, SPECS, UPDATES

settings.register_profile("hebbax", deadline=None, max_examples=25, print_blob=True)  # compiling takes its time
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
