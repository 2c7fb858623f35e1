"""Backends: which there are, which one runs, and what is said about one that cannot."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import hebbax
from problems import INDEX_ERRORS, PLATFORM, SPECS, WHY_NO_CUPY, call, operands, random_network

EMULATED = ("cupy",) if PLATFORM == "cpu" and WHY_NO_CUPY is None else ()
TARGET = {"update": "hebbax_update", "propagate": "hebbax_propagate"}


def operator(spec):
    return getattr(hebbax, f"{spec.name}_p")


def compiled_text(spec, operands, **options):
    return jax.jit(lambda x: call(spec, x, **options)).lower(operands).compile().as_text()


def test_every_cpu_backend_is_here(spec):
    assert operator(spec).available_backends("cpu") == ("cython", *EMULATED, "callback", "jax")


@pytest.mark.parametrize("platform", ["rocm", "tpu"])
def test_other_platforms_get_plain_jax(spec, platform):
    assert operator(spec).available_backends(platform) == ("jax",)


def test_backends_says_what_runs_where():
    backends = {backend.name: backend for backend in hebbax.backends()}
    assert list(backends) == ["cython", "cupy", "callback", "jax"]
    assert [name for name, backend in backends.items() if "cpu" in backend.platforms] == [
        "cython", *EMULATED, "callback", "jax"
    ]  # fmt: skip
    assert "cuda" in backends["cupy"].platforms and {"cpu", "cuda"} <= {*backends["callback"].platforms}
    for backend in backends.values():
        assert backend.description and (backend.missing is None or backend.name == "cupy")


@pytest.fixture
def problem(spec, rng):
    network = random_network(rng, (12, 15), 60)
    return operands(spec, rng, network), network.shape


@pytest.mark.parametrize("name, present", [("cython", True), ("jax", False), (None, True)])
def test_the_named_backend_is_the_one_that_runs(spec, problem, name, present):
    given, shape = problem
    assert (TARGET[spec.kind] in compiled_text(spec, given, shape=shape, backend=name)) is present


def test_callback_is_neither_of_the_others(spec, problem):
    given, shape = problem
    text = compiled_text(spec, given, shape=shape, backend="callback")
    assert "custom-call" in text and TARGET[spec.kind] not in text


def test_set_default_reaches_compiled_functions(spec, rng, set_default):
    """Seen from an index out of range, which the kernels report and the reference skips."""
    network = random_network(rng, (12, 15), 60)
    given = operands(spec, rng, network, p_spike=1.0)
    given["indices"][7] = 1000

    @jax.jit
    def function(x):
        return call(spec, x, shape=network.shape)

    for backend in ("jax", "cython", "jax", "callback"):
        set_default(spec, backend)
        assert (TARGET[spec.kind] in function.lower(given).compile().as_text()) is (backend == "cython")
        if backend == "jax":
            jax.block_until_ready(function(given))
        else:
            with pytest.raises(INDEX_ERRORS, match="indices"):
                jax.block_until_ready(function(given))


def test_set_default_reaches_eager_calls_and_one_operator_only(rng, set_default):
    network = random_network(rng, (12, 15), 60)
    given = {spec: operands(spec, rng, network, p_spike=1.0) for spec in SPECS}
    for x in given.values():
        x["indices"][7] = 1000
    set_default(SPECS[0], "jax")
    jax.block_until_ready(call(SPECS[0], given[SPECS[0]], shape=network.shape))
    for spec in SPECS[1:]:
        with pytest.raises(INDEX_ERRORS, match="indices"):
            jax.block_until_ready(call(spec, given[spec], shape=network.shape))


def test_operators_without_units_can_be_called(spec, problem, backend):
    given, shape = problem
    arguments = [given[name] for name in spec.arguments]
    out = operator(spec)(*arguments, shape=shape, backend=backend)
    np.testing.assert_array_equal(out, call(spec, given, shape=shape, backend=backend))
    assert spec.name in repr(operator(spec))


WITHOUT_KERNELS = """
import sys
sys.modules["hebbax._cpu.handlers"] = None
import hebbax, numpy as np
assert hebbax.update_csr_on_binary_pre_p.available_backends("cpu") == ("jax",)
reasons = {backend.name: backend.missing for backend in hebbax.backends()}
assert reasons["jax"] is None and "does not load" in reasons["cython"] and "does not load" in reasons["callback"]
arguments = np.ones(2, np.float32), np.array([0, 1]), np.array([0, 2]), np.ones(1), np.ones(2)
assert hebbax.update_csr_on_binary_pre(*arguments, shape=(1, 2)).tolist() == [2, 2]
for backend in ("cython", "callback"):
    try:
        hebbax.update_csr_on_binary_pre(*arguments, shape=(1, 2), backend=backend)
    except ValueError as error:
        message = str(error)
        assert backend in message and "'jax'" in message and "does not load" in message, message
    else:
        raise SystemExit("no error")
assert hebbax.get_num_threads() >= 1
"""


WITHOUT_CUDA = """
import sys
sys.modules[sys.argv[1]] = None
import hebbax
(cupy,) = (backend for backend in hebbax.backends() if backend.name == "cupy")
assert "do not load" in cupy.missing and sys.argv[1] in cupy.missing, cupy.missing
"""


@pytest.mark.parametrize("module", ["hebbax._cuda.native", pytest.param("hebbax._core.dlpack", marks=pytest.mark.slow)])
def test_a_module_of_the_cuda_backend_that_does_not_load_is_named(module):
    child = subprocess.run([sys.executable, "-c", WITHOUT_CUDA, module], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_without_the_compiled_modules_plain_jax_runs_and_the_reason_is_given():
    child = subprocess.run([sys.executable, "-c", WITHOUT_KERNELS], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
