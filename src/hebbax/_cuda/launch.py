"""The kernels, compiled by CuPy when they are first needed, and what `native` is told to launch them."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.resources
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from hebbax._core.forks import HOW
from hebbax._core.specs import OPERANDS, Spec
from hebbax._cuda.plan import CONSTANTS, THREADS, Plan

# No contraction, as on CPUs: the same bits, but for subnormals, which CuPy's own options make 0.
OPTIONS = ("--std=c++17", "--fmad=false")
NOTHING = "nothing"  # the kernel of a call that has no work: in a captured CUDA graph each call must leave a trace

_lost_in_fork = False


@functools.cache
def missing() -> str | None:
    """Say in one sentence why the kernels cannot be used here; None: they can. This imports CuPy."""
    if _lost_in_fork:
        return f"this process was forked from one that had asked for CUDA, which it then cannot use: {HOW}"
    try:
        for module in ("hebbax._cuda.native", "hebbax._core.dlpack"):
            importlib.import_module(module)
    except ImportError as error:
        return f"its compiled modules do not load: {error}"
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # CuPy raises what it likes where CUDA is not as it should be
        how = "install hebbax[cuda13] or hebbax[cuda12], whichever the driver supports"
        return f"CuPy cannot be imported ({_first_line(error)}): {how}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return f"there is no NVIDIA driver, or one that is too old for this CuPy ({_first_line(error)})"
    if count == 0:
        return "the CUDA driver finds no GPU"
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        how = "install hebbax[cuda13] or hebbax[cuda12], as CuPy is"
        return f"CuPy finds no CUDA compiler, NVRTC ({_first_line(error)}): {how}"
    if not _finds_headers(cupy):
        return "CuPy finds no CUDA headers, without which it compiles nothing: install hebbax[cuda13] or hebbax[cuda12]"
    return None


def _finds_headers(cupy: Any) -> bool:
    """Whether CuPy finds CUDA's headers, which it wants since 14.1, though the kernels include none."""
    if tuple(map(int, cupy.__version__.split(".")[:2])) < (14, 1):
        return True
    try:
        find = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory  # which CuPy asks
    except (ImportError, AttributeError):  # a CuPy to come may ask another; if it finds none, it says so itself
        return True
    return find("cudart") is not None


def _in_forked_child() -> None:
    global _lost_in_fork
    _lost_in_fork = _lost_in_fork or (missing.cache_info().currsize > 0 and missing() is None)
    missing.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip(' .:')}" if lines else type(error).__name__


@functools.cache
def source(kind: str) -> str:
    """The CUDA C++ of an operator's kernels."""
    folder = importlib.resources.files("hebbax") / "cuda"
    constants = "".join(f"constexpr int {name} = {value};\n" for name, value in CONSTANTS.items())
    files = (f'#line 1 "{name}.cu"\n' + (folder / f"{name}.cu").read_text("utf-8") for name in ("call", "rows", kind))
    return constants + "".join(files)


@functools.cache
def content(kind: str, names: tuple[str, ...]) -> int:
    """A number that tells these kernels, as they are in this version of hebbax, from all others."""
    text = repr((source(kind), OPTIONS, names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little", signed=True)


def functions(key: int, kind: str, names: tuple[str, ...], device: int) -> list[int]:
    """The addresses of kernels, compiled and loaded on a device for as long as this process lives."""
    if kind not in OPERANDS or key != content(kind, names):
        raise RuntimeError("this call was compiled by another version of hebbax")
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(device):
        module = cupy.RawModule(code=source(kind), options=OPTIONS, name_expressions=names)
        try:
            kernels = [module.get_function(name).kernel for name in names]
        except Exception as error:  # CuPy's own, of the compiler or of the driver
            raise RuntimeError(
                f"the CUDA kernels {', '.join(names)} cannot be compiled or loaded on device {device} by CuPy "
                f"{cupy.__version__} ({_first_line(error)}); backend='jax' does without"
            ) from error
    _loaded.extend(kernels)
    return [kernel.ptr for kernel in kernels]


_loaded: list[Any] = []  # CuPy unloads what nobody holds


@functools.cache
def multiprocessors(device: int) -> int:
    """How many a device has."""
    return importlib.import_module("cupy").cuda.Device(device).attributes["MultiProcessorCount"]


def encode(plan: Plan, spec: Spec, result: Any, devices: Iterable[int]) -> dict[str, Any]:
    """A plan in plain numbers and text, as `native` takes it from XLA (whose attributes these are) and from Python.

    Nothing in it belongs to this process. Grids are those of the largest of the devices, which suit any.
    """
    names = plan.names if plan.launches else (NOTHING,)
    most = max(map(multiprocessors, devices))
    grids = [(launch.name, *launch.grid(most)) for launch in plan.launches] or [(NOTHING, 1, 1)]
    places = [_offset(plan.template.dtype, name) for name in (*spec.operands, "result", "rows")]
    copied = math.prod(result.shape) * result.dtype.itemsize if spec.kind == "update" else 0
    return {
        "key": np.int64(content(plan.kind, names)),
        "kind": plan.kind,
        "kernels": "\n".join(names),
        "launches": np.array([(names.index(name), x, y) for name, x, y in grids], np.int64).reshape(-1),
        "places": np.array(places, np.int64) // 8,
        "sizes": np.array((THREADS, copied), np.int64),
        "words": plan.template.reshape(-1).view(np.int64),
    }


def _offset(call: Any, name: str) -> int:
    """Where the struct of a call has the address of an operand."""
    operand, offset = call.fields[name]
    return offset + operand.fields["data"][1]
