"""Indices out of range: kernels report them and never crash (in a child, for a crash would take pytest along)."""

import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest

import oracle
import out_of_range
from problems import CPU_KERNELS, INDEX_ERRORS, call, enable_x64, operands, random_network


@pytest.mark.parametrize(
    "name, threads",
    [
        pytest.param(*case, marks=() if case == ("cython", 1) else pytest.mark.slow)
        for case in itertools.product(CPU_KERNELS, (1, 2))
    ],
)
def test_child_reports_every_index_out_of_range_and_ends_with_an_exception(name, threads):
    command = [sys.executable, out_of_range.__file__, name, str(threads)]
    child = subprocess.run(command, capture_output=True, text=True)
    *lines, last = child.stdout.splitlines()
    assert child.returncode >= 0, f"killed by signal {-child.returncode} in: {last}"
    assert [line for line in lines if not line.endswith((": reported", ": nothing to report"))] == [], child.stderr
    assert last == "now uncaught" and len(lines) > 700
    assert child.returncode == 1
    assert "Traceback" in child.stderr and "indices[0] = -1" in child.stderr, child.stderr


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("where", [0, 9000])
def test_rows_that_threads_copy_are_looked_at_too(propagate, index_dtype, where, threads):
    threads(4)
    shape = (400_000, 700) if propagate.event == "pre" else (700, 400_000)
    network = random_network(np.random.default_rng(0), shape, 2_400_000)
    with enable_x64(True):
        given = operands(propagate, np.random.default_rng(1), network, p_spike=1.0, index_dtype=index_dtype)
        given["indices"][where] = 700
        with pytest.raises(INDEX_ERRORS, match=rf"indices\[{where}\] = 700"):
            jax.block_until_ready(call(propagate, given, shape=shape, backend="cython"))


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_reference_skips_elements_out_of_range(spec, index_dtype):
    shape, *_ = size = out_of_range.SMALL
    with enable_x64(True):
        for _, name, given, _ in out_of_range.cases(spec, size, index_dtype):
            out = call(spec, given, shape=shape, backend="jax")
            if name == "indptr":  # a row that ends before it begins says nothing about the others
                assert out.shape == ((given["weight"].size if spec.kind == "update" else spec.sizes(shape)[1]),)
                continue
            oracle.assert_close(out, oracle.evaluate(spec, shape, given))


def test_rows_need_not_cover_every_element(spec, rng, backend):
    network = random_network(rng, (6, 7), 30)
    given = operands(spec, rng, network, p_spike=1.0)
    whole = call(spec, given, shape=network.shape, backend=backend)
    given["indptr"] = np.clip(given["indptr"], 4, 25)
    part = call(spec, given, shape=network.shape, backend=backend)
    oracle.assert_close(part, oracle.evaluate(spec, network.shape, given))
    assert not np.array_equal(part, whole)


def test_weight_that_is_not_donated_survives_the_error(update, rng, cpu_kernel):
    network = random_network(rng, (6, 7), 30)
    given = operands(update, rng, network, p_spike=1.0)
    before = given["weight"].copy()
    given["indices"][-1] = -1
    with pytest.raises(INDEX_ERRORS, match="indices"):
        call(update, given, shape=network.shape, backend=cpu_kernel).block_until_ready()
    np.testing.assert_array_equal(given["weight"], before)
