"""Errors: the right type, and a message that says which argument, what it got and what it expected."""

import pickle
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import error_cases
import hebbax
from problems import INDEX_ERRORS, call, operands, random_network

CASES = {name: rest for name, *rest in error_cases.cases()}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    assert error_cases.wrong_message(*CASES[name]) is None


@pytest.mark.slow
def test_every_error_also_fires_under_python_O():
    script = str(Path(error_cases.__file__))
    child = subprocess.run([sys.executable, "-O", script], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [str(len(CASES)), "cases,", "optimised:", "True"]


def test_names_of_cases_are_unique():
    assert len(CASES) == sum(1 for _ in error_cases.cases())


def test_shape_error_is_value_and_assertion_error_and_survives_pickling():
    error = pickle.loads(pickle.dumps(hebbax.ShapeError("weight: got this, expected that")))
    assert type(error) is hebbax.ShapeError and str(error) == "weight: got this, expected that"
    assert isinstance(error, ValueError) and isinstance(error, AssertionError)


def test_raised_errors_survive_pickling():
    for name, (function, *_) in CASES.items():
        with pytest.raises(Exception) as info:
            function()
        copy = pickle.loads(pickle.dumps(info.value))
        assert type(copy) is info.type and str(copy) == str(info.value), name


def test_errors_are_raised_while_tracing_too(spec):
    """Shapes, dtypes and units are known under `jit`, so what is wrong with them is said there."""
    given = error_cases.correct(spec)
    given["spike"] = given["spike"][1:]
    with pytest.raises(hebbax.ShapeError, match=spec.public_name("spike")):
        jax.eval_shape(lambda x: call(spec, x, shape=error_cases.SHAPE), given)


def test_an_index_out_of_range_is_an_error_that_can_be_caught_and_leaves_everything_working(spec, cpu_kernel, rng):
    network = random_network(rng, (6, 7), 20)
    given = operands(spec, rng, network, p_spike=1.0)
    expected = call(spec, given, shape=network.shape, backend="jax")
    wrong = given | {"indices": given["indices"] + 100}
    for _ in range(3):
        with pytest.raises(INDEX_ERRORS, match=r"\bindices\b.*10\d"):
            jax.block_until_ready(call(spec, wrong, shape=network.shape, backend=cpu_kernel))
        out = call(spec, given, shape=network.shape, backend=cpu_kernel)
        assert out.tolist() == pytest.approx(expected.tolist())
