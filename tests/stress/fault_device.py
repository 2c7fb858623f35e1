"""A CUDA device that disappears, on stand-ins for CuPy and CUDA's driver: the child of faults.py. Prints JSON.

Functions of the driver and of CuPy's runtime begin to return an error, each alone and then all of them; then the
device comes back. (A real one does not, in one process: what shows is that hebbax has kept nothing of the failure.)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import hebbax
import oracle
from emulated import driver, machine
from emulated.machine import CUDADriverError, CUDARuntimeError
from hebbax._core.specs import SPECS
from hebbax._cuda import launch, native
from hebbax._cuda.driver import use_driver
from problems import WHY_NO_CUPY, call, operands, random_network

SHAPE, NSE, GONE = (40, 50), 700, 46
SAYS = "CUDA_ERROR_DEVICE_UNAVAILABLE"
ENTRIES = [name for name in driver.FUNCTIONS if not name.startswith("cuGetError")]


@ctypes.CFUNCTYPE(ctypes.c_int)
def gone():
    return GONE


def fail(*_, **__):
    raise CUDARuntimeError(GONE)


def fail_load():
    raise CUDADriverError(GONE)


@contextlib.contextmanager
def lost(entries: list[str], runtime: bool) -> Iterator[None]:
    """Let these of the driver's functions fail, and CuPy's runtime and its loading of modules."""
    cuda = sys.modules["cupy"].cuda.runtime
    before = vars(cuda).copy()
    functions = driver.FUNCTIONS | driver.XLA
    use_driver(**driver.addresses(functions | dict.fromkeys(entries, gone)))
    if runtime:
        vars(cuda).update(
            dict.fromkeys(("memsetAsync", "mallocAsync", "freeAsync", "getDeviceCount", "setDevice"), fail)
        )
        machine.check_load = fail_load
    try:
        yield
    finally:
        use_driver(**driver.addresses(functions))
        vars(cuda).update(before)
        vars(machine).pop("check_load", None)


def entry_points(spec, given):
    """By name: XLA's handler, the callback, and in place on device arrays."""
    import cupy

    def in_place():
        own = {spec.public_name(name): cupy.asarray(x) for name, x in given.items()}
        return getattr(hebbax.inplace, spec.name)(**own, shape=SHAPE).get()

    def by(backend):
        return lambda: np.asarray(call(spec, given, shape=SHAPE, backend=backend))

    return {"cupy": by("cupy"), "inplace": in_place}


def main() -> None:
    if WHY_NO_CUPY:
        raise SystemExit(f"skipped: {WHY_NO_CUPY}")
    driver._NAMES[GONE] = SAYS.encode()
    driver._what_failed[GONE] = b"CUDA-capable device(s) is/are busy or unavailable"
    sys.modules["emulated.machine"]._MEANINGS[GONE] = "cudaErrorDevicesUnavailable: the device is unavailable"
    done, raised, wrong, rng = 0, 0, [], np.random.default_rng(0)
    losses = [([name], False) for name in ENTRIES] + [(ENTRIES, False), (ENTRIES, True)]
    for spec in SPECS:
        given = operands(spec, rng, random_network(rng, SHAPE, NSE))
        expected = oracle.evaluate(spec, SHAPE, given)
        for name, run in entry_points(spec, given).items():
            oracle.assert_close(run(), expected)
            for entries, runtime in losses:
                for loaded in (True, False):
                    done += 1
                    what = f"{spec.name}, {name}, {'loaded' if loaded else 'not loaded'}, {len(entries)}: {entries[0]}"
                    if not loaded:
                        native.forget()
                        machine.loaded.clear()
                    try:
                        with lost(entries, runtime):
                            oracle.assert_close(run(), expected)
                        if len(entries) > 1:
                            wrong.append(f"{what}: no error")
                    except AssertionError:
                        wrong.append(f"{what}: a wrong result, and no error")
                    except Exception as error:
                        raised += 1
                        if SAYS not in str(error) and "cudaErrorDevicesUnavailable" not in str(error):
                            wrong.append(f"{what}: {type(error).__name__}: {error}"[:250])
                    machine._contexts.clear()
                    try:
                        oracle.assert_close(run(), expected)
                    except Exception as error:
                        wrong.append(f"{what}, and back again: {type(error).__name__}: {error}"[:250])
    with lost(ENTRIES, True):  # before anybody has asked for CUDA
        launch.missing.cache_clear()
        reason = launch.missing()
    launch.missing.cache_clear()
    if reason is None or "cudaErrorDevicesUnavailable" not in reason:
        wrong.append(f"hebbax.backends: {reason}")
    print(json.dumps({"done": done, "raised": raised, "wrong": wrong}))


if __name__ == "__main__":
    main()
