"""Every allocation of hebbax's own code fails once, in calls that make some: the child of faults.py.

With fail.c preloaded, whose path comes first: `python fault_allocation.py PRELOADED CASE`. Prints JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import hebbax
from hebbax import _cpu
from hebbax._core.specs import SPECS
from problems import call, gpu_on_cpu, operands, random_network

# Short rows, which threads copy for sums, of more than a cache holds.
SHAPE, SYNAPSES = (100_000, 90_000), 2_200_000
Run = Callable[[], Any]


def operator(name: str) -> Run:
    """By XLA, on two threads that it lends."""
    spec = next(spec for spec in SPECS if spec.name.startswith(name))
    rng = np.random.default_rng(0)
    given = operands(spec, rng, random_network(rng, SHAPE, SYNAPSES), p_spike=0.9)
    given |= {"w_max": 1.0} if spec.kind == "update" else {}
    given = {key: jnp.asarray(x) if np.ndim(x) else x for key, x in given.items()}
    return lambda: call(spec, given, shape=SHAPE, backend="cython")


def exchange() -> Run:
    """Lists of more spikes than lie on the stack, exchanged between two devices that wait for each other awake."""
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    n = 6000
    mesh, synapses = Mesh(jax.devices()[:2], ("x",)), hebbax.Synapses.random((n, 50), outdegree=5)
    weight = jnp.linspace(0, 1, synapses.nse)

    def deliver(spikes):
        lists = hebbax.sharding.exchange(spikes, "x", awake=True)
        return jnp.stack([synapses.propagate_on_pre(weight, lists.at(k)) for k in range(lists.steps)])

    shared = jax.jit(jax.shard_map(deliver, mesh=mesh, in_specs=P(None, "x"), out_specs=P(), check_vma=False))
    spikes = jnp.asarray(np.random.default_rng(0).random((2, n)) < 0.8)
    return lambda: shared(spikes)


def cuda() -> Run:
    """The CUDA backend's first call, which loads kernels, on stand-ins for a GPU."""
    if gpu_on_cpu.emulated.find_compiler() is None:
        raise SystemExit("skipped: no C++ compiler")
    from hebbax._cuda import native

    rng = np.random.default_rng(0)
    given = operands(SPECS[0], rng, random_network(rng, (20, 30), 100))

    def run():
        native.forget()
        return call(SPECS[0], given, shape=(20, 30), backend="cupy")

    return run


CASES = {
    "update_on_post": lambda: operator("update_csr_on_binary_post"),
    "propagate_on_pre": lambda: operator("propagate_csr_on_binary_pre"),
    "propagate_on_post": lambda: operator("propagate_csr_on_binary_post"),
    "exchange": exchange, "cuda": cuda,
}  # fmt: skip
KEPT = {"exchange": 3, "cuda": None}  # blocks that calls may leave behind: places of 4 meetings; what was loaded


def of_python() -> None:
    """Each of Python's own allocations fails in turn, in the compiled code that takes arrays and calls kernels."""
    try:
        import _testcapi
    except ImportError:
        raise SystemExit("skipped: this Python comes without its module _testcapi") from None
    none = np.zeros(0, np.float32)
    structure = np.array([0, 1, 0, 1], np.int32), np.array([0, 2, 4], np.int32), np.array([0, 2, 1, 3], np.int32)
    others = *structure, np.array([True, False]), np.ones(2, np.float32), none, none, none

    def kernel(weight):
        _cpu.kernels()["update"](weight, weight, *others, flags=_cpu.flag("PERMUTED"), mu=1.0)
        return weight

    tried, raised, wrong = 0, 0, []
    for run in (kernel, _cpu.view):
        expected, references = run(np.zeros(4, np.float32)).copy(), [sys.getrefcount(x) for x in others]
        first, quiet = tried, 0
        while quiet < 50:  # calls that made fewer
            weight, error = np.zeros(4, np.float32), None
            try:
                _testcapi.set_nomemory(tried - first, tried - first + 1)
                run(weight)
            except BaseException as problem:
                error = problem
            _testcapi.remove_mem_hooks()
            tried += 1
            quiet = 0 if error is not None else quiet + 1
            raised += error is not None
            if error is not None and not isinstance(error, MemoryError):
                wrong.append(f"{run.__name__}, allocation {tried - first}: {type(error).__name__}: {error}"[:300])
            error = None
            if not np.array_equal(run(np.zeros(4, np.float32)), expected):
                wrong.append(f"{run.__name__}, allocation {tried - first}: the next call is wrong")
        tried -= quiet
        if [sys.getrefcount(x) for x in others] != references:
            wrong.append(f"{run.__name__}: arrays are held after the call")
    print(json.dumps({"tried": tried, "raised": raised, "wrong": wrong}))


def main(preloaded: str, case: str) -> None:
    if case == "python":
        return of_python()
    shim = ctypes.CDLL(preloaded)
    shim.fail_asked.restype = shim.fail_held.restype = ctypes.c_long
    hebbax.set_num_threads(2)
    run = CASES[case]()
    expected = np.asarray(run())  # all is loaded
    pieces = shim.fail_watch(b"/hebbax/")
    if not pieces:
        raise SystemExit("hebbax's modules were not found")
    np.testing.assert_array_equal(run(), expected)
    before, tried, raised, wrong = shim.fail_held(), 0, 0, []
    while tried < 1000:
        shim.fail_at(ctypes.c_long(tried + 1))
        try:
            result, error = np.asarray(run()), None
        except Exception as problem:
            result, error = None, problem
        asked = shim.fail_asked()
        shim.fail_at(ctypes.c_long(0))
        if asked <= tried:
            break
        tried += 1
        if error is not None:
            raised += 1
            if not (isinstance(error, MemoryError) or "memory" in str(error)):
                wrong.append(f"allocation {tried}: {type(error).__name__}: {error}"[:300])
        elif not np.array_equal(result, expected):
            wrong.append(f"allocation {tried}: another result, and no error")
        error = None
        if not np.array_equal(np.asarray(run()), expected):
            wrong.append(f"allocation {tried}: the next call is wrong")
    gc.collect()
    more, allowed = shim.fail_held() - before, KEPT.get(case, 0)
    if allowed is not None and more > allowed:
        wrong.append(f"{more} blocks were not freed")
    print(json.dumps({"tried": tried, "raised": raised, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
