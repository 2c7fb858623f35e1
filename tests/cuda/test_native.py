"""The handler that XLA calls on a GPU, called as XLA would; CUDA's driver and CuPy are played by `emulated`."""

import concurrent.futures
import ctypes
import json
import sys
import threading

import numpy as np
import pytest

from children import environment, run_together
from frames import ENTRIES, Xla, ask_metadata
from hebbax._core.specs import OPERANDS, UPDATE_PRE
from hebbax._cuda import launch, native
from hebbax._cuda.driver import use_driver
from hebbax._cuda.plan import plan_call
from problems import PLATFORM, WHY_NO_CUPY, call, operands, random_network

if PLATFORM != "cpu" or WHY_NO_CUPY:
    pytest.skip(WHY_NO_CUPY or "on a GPU there is no stand-in", allow_module_level=True)

from emulated import Launch, Load, driver, machine

SHAPE, NSE, MISFIT = (40, 50), 700, "this call was compiled by another version of hebbax"
HANDLERS = native.capsules()


@pytest.fixture(autouse=True)
def gpus():
    """Four, and an XLA that says itself on which one it calls."""
    use_driver(**driver.addresses(driver.FUNCTIONS))
    machine.reset()
    machine.devices = 4
    native.forget()
    yield
    use_driver(**driver.addresses(driver.FUNCTIONS | driver.XLA))
    native.forget()
    machine.reset()


class Problem:
    """An operator's call: its attributes, and fresh buffers."""

    def __init__(self, spec, rng, nse=NSE):
        given = operands(spec, rng, random_network(rng, SHAPE, nse))
        absent = {"weight_indices": np.zeros(0, np.int32)}
        self.given = {name: given.get(name, absent.get(name, np.zeros(0, np.float32))) for name in spec.operands}
        self.result = given["weight"] if spec.kind == "update" else np.full(spec.sizes(SHAPE)[1], 7, np.float32)
        self.expected = np.asarray(call(spec, given, shape=SHAPE, backend="jax"))
        plan = plan_call(spec, self.result, self.given)
        self.attributes = launch.encode(plan, spec, self.result, [0])
        self.scratch = np.full(plan.scratch, 0xA5, np.uint8)

    def run(self, xla, stage="execute", **changed):
        attributes = {name: x for name, x in (self.attributes | changed).items() if x is not None}
        return xla.call(HANDLERS[stage], attributes, [*self.given.values()], [self.result, self.scratch])


@pytest.fixture
def problem(spec, rng):
    return Problem(spec, rng)


@pytest.mark.parametrize("stage", HANDLERS)
def test_a_handler_says_its_version_and_that_it_can_be_captured(stage):
    assert ask_metadata(HANDLERS[stage]) == ((0, 1), 1)


def test_initialize_loads_and_execute_launches_on_the_device_and_stream_of_xla(problem, spec):
    xla = Xla(device=2, stream=0x77)
    assert problem.run(xla, "initialize") is None
    assert [(type(x), x.device) for x in machine.log] == [(Load, 2)]
    assert problem.run(xla, "initialize") is None and len(machine.log) == 1
    machine.capturing = 0x77
    assert problem.run(xla) is None
    np.testing.assert_allclose(problem.result, problem.expected, rtol=1e-6, atol=1e-6)
    assert {(x.device, x.stream) for x in machine.log[1:]} == {(2, 0x77)}
    assert [x.name.split("<")[0] for x in machine.logged(Launch)][-1] == spec.kind


def test_without_initialize_execute_loads(problem):
    assert problem.run(Xla(device=1)) is None
    assert [x.device for x in machine.logged(Load)] == [1]
    np.testing.assert_allclose(problem.result, problem.expected, rtol=1e-6, atol=1e-6)


def test_many_threads_on_all_devices_load_once_on_each(problem):
    barrier = threading.Barrier(12)

    def initialize(i):
        barrier.wait()
        return problem.run(Xla(device=i % 4), "initialize")

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert [*pool.map(initialize, range(12))] == [None] * 12
    assert sorted(x.device for x in machine.logged(Load)) == [0, 1, 2, 3]


def test_launches_are_in_the_context_of_the_device_which_is_left_again(problem):
    """Whatever that of the thread is: the stand-in refuses to launch in another one."""

    def run():
        assert machine.context == 0
        errors = [problem.run(Xla(device=device)) for device in (3, 1)]
        return errors, machine.contexts

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == ([None, None], [])


def test_what_xla_did_not_alias_is_copied(rng):
    problem = Problem(UPDATE_PRE, rng)
    before = problem.result.copy()
    problem.result = np.full_like(before, 7)
    assert problem.run(Xla()) is None
    np.testing.assert_allclose(problem.result, problem.expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(problem.given["weight"], before)


def test_a_call_without_work_launches_a_kernel_too(rng):
    problem = Problem(UPDATE_PRE, rng, nse=0)
    assert problem.run(Xla(), "initialize") is None and problem.run(Xla()) is None
    assert [(x.name, x.grid) for x in machine.logged(Launch)] == [("nothing", (1, 1, 1))]


# -- errors


@pytest.mark.parametrize("stage", HANDLERS)
def test_an_xla_that_does_not_know_the_device_is_refused(problem, stage):
    assert "does not tell on which device" in problem.run(Xla(entries=ENTRIES[:-1]), stage)
    assert not machine.log


def numbers(*x):
    return np.array(x, np.int64)


WRONG = {
    "kernels": (7, numbers(1, 2)),
    "key": ("text", numbers(1), np.float32(1)),
    "kind": (7, numbers(1, 2)),
    "launches": ("text", np.zeros(3, np.int32), numbers(), numbers(0, 1), numbers(-1, 1, 1)),
    "places": ("text", numbers(0, 1), numbers(0, 1, -1), numbers(0, 1, 10**6), np.zeros(40, np.int64)),
    "sizes": ("text", numbers(256), numbers(256, 0, 0), np.zeros(2, np.float32)),
    "words": ("text", numbers(), np.zeros(600, np.int64)),
}


@pytest.mark.parametrize("stage", HANDLERS)
@pytest.mark.parametrize("name", WRONG)
def test_attributes_of_another_form_are_refused(problem, name, stage):
    for wrong in (None, *WRONG[name]):
        assert problem.run(Xla(), stage, **{name: wrong}) == MISFIT, wrong
    assert problem.run(Xla(), stage, **{f"{name}s": problem.attributes[name], name: None}) == MISFIT
    assert not machine.log


def test_a_kernel_that_there_is_not_and_buffers_that_there_are_not_are_refused(problem):
    assert problem.run(Xla(), launches=numbers(9, 1, 1)) == MISFIT
    del problem.given["weight"], problem.given["spike"]
    assert problem.run(Xla()) == MISFIT


def test_kernels_of_another_version_are_refused(problem, monkeypatch):
    monkeypatch.setattr(launch, "source", lambda kind: "another one")
    launch.content.cache_clear()
    assert problem.run(Xla(), "initialize") == f"RuntimeError: {MISFIT}"
    launch.content.cache_clear()


def test_a_compiler_that_fails_is_an_error_of_xla(problem, monkeypatch):
    monkeypatch.setattr(launch, "source", lambda kind: "nonsense")
    launch.content(problem.attributes["kind"], tuple(problem.attributes["kernels"].split("\n")))
    said = problem.run(Xla(), "initialize")
    assert said.startswith("RuntimeError: the CUDA kernels") and "on device 0" in said and "backend='jax'" in said


def test_an_error_of_the_driver_has_its_words(problem):
    assert problem.run(Xla(), "initialize") is None
    machine.capturing = 0x9
    assert problem.run(Xla()) == (
        "cuLaunchKernel: CUDA_ERROR_STREAM_CAPTURE_ISOLATION (905): cudaErrorStreamCaptureIsolation: dependency "
        "created on uncaptured work in another stream"
    )


def test_an_error_that_the_driver_does_not_know_has_its_number(problem):
    @ctypes.CFUNCTYPE(ctypes.c_int)
    def fails():
        return 12345

    use_driver(**driver.addresses(driver.FUNCTIONS | {"cuLaunchKernel": fails}))
    assert problem.run(Xla()) == "cuLaunchKernel: an unknown error (12345): an unknown error"


def test_a_device_that_is_not_there_is_an_error(problem):
    assert "cudaErrorInvalidDevice" in problem.run(Xla(device=9), "initialize")


# -- in another process

REGISTERED = """
import hebbax
from jaxlib import xla_client

def of_a_plugin(name, handlers, platform, api_version, traits):
    if "hebbax" in name:
        print(name, sorted(handlers), platform, api_version, int(traits))

xla_client.register_custom_call_handler("CUDA", of_a_plugin)
"""


@pytest.mark.slow
def test_the_handlers_are_there_for_a_plugin_that_comes_later():
    (status,), (printed,) = run_together([[sys.executable, "-c", REGISTERED]], [environment()])
    assert status == 0 and printed.splitlines() == [
        f"hebbax_cuda_{kind} ['execute', 'initialize'] CUDA 1 0" for kind in OPERANDS
    ], printed


CHILD = """
import json, os, sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("cache_hits")))
import numpy as np
from problems import SPECS, call, operands, random_network

out = {}
for spec in SPECS:
    rng = np.random.default_rng(1)
    given = operands(spec, rng, random_network(rng, (40, 50), 700))
    function = jax.jit(lambda given: call(spec, given, shape=(40, 50), backend="cupy"))
    lowered = function.lower(given)
    before = sum(hits)
    compiled = lowered.compile()
    out[spec.name] = lowered.as_text(), np.asarray(compiled(given)).tolist(), sum(hits) - before
print("RESULT" + json.dumps(out))
"""


@pytest.mark.slow
def test_a_program_from_the_persistent_cache_runs_in_another_process(tmp_path):
    """Whose addresses are others: nothing in the program depends on them."""
    results = []
    for seed in "12":
        (status,), (printed,) = run_together(
            [[sys.executable, "-c", CHILD, str(tmp_path)]], [environment(PYTHONHASHSEED=seed)]
        )
        assert status == 0, printed
        results.append(json.loads(printed.split("RESULT")[1]))
    first, second = results
    for name in first:
        assert first[name][:2] == second[name][:2]
        assert (first[name][2], second[name][2]) == (0, 1), "the second process did not find it in the cache"
