"""The kernels, compiled by CuPy when they are first needed, and their launch."""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hebbax._core.forks import HOW
from hebbax._cuda.plan import CONSTANTS, FIELDS, THREADS, Plan

# No contraction, as on CPUs: the same bits, but for subnormals, which CuPy's own options make 0.
OPTIONS = ("--std=c++17", "--fmad=false")


_lost_in_fork = False


@functools.cache
def missing() -> str | None:
    """Say in one sentence why the kernels cannot be used here; None: they can. This imports CuPy."""
    if _lost_in_fork:
        return f"this process was forked from one that had asked for CUDA, which it then cannot use: {HOW}"
    try:
        importlib.import_module("hebbax._core.dlpack")
    except ImportError as error:
        return f"its compiled module does not load: {error}"
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
    return None


def _in_forked_child() -> None:
    global _lost_in_fork
    _lost_in_fork = _lost_in_fork or missing.cache_info().currsize > 0
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
def _kernels(kind: str, names: tuple[str, ...], device: int) -> tuple[dict[str, Any], int]:
    """The kernels, compiled and loaded on a device, and how many multiprocessors that has."""
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(device) as current:
        module = cupy.RawModule(code=source(kind), options=OPTIONS, name_expressions=names)
        try:
            kernels = {name: module.get_function(name) for name in names}
        except Exception as error:  # CuPy's own, of the compiler or of the driver
            raise RuntimeError(
                f"the CUDA kernels {', '.join(names)} cannot be compiled or loaded on device {device} by CuPy "
                f"{cupy.__version__} ({_first_line(error)}); backend='jax' does without"
            ) from error
        return kernels, current.attributes["MultiProcessorCount"]


def prepare(plan: Plan, devices: Iterable[int]) -> None:
    """Compile and load what a plan needs, which must not happen while a CUDA graph is captured."""
    for device in devices:
        _kernels(plan.kind, plan.names, device)


def addresses(buffers: Mapping[str, Any]) -> dict[str, int]:
    """Where the memory is of what speaks DLPack, by name."""
    from hebbax._core.dlpack import Borrowed

    return {name: Borrowed(x).pointer for name, x in buffers.items() if name in FIELDS}


class _Foreign(NamedTuple):
    """A stream that somebody else, such as XLA, has made, as CUDA's stream protocol wants it."""

    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def stream_of(address: int, device: int) -> Any:
    """CuPy's object for a stream of somebody else."""
    cuda = importlib.import_module("cupy").cuda
    if hasattr(cuda.Stream, "from_external"):  # since CuPy 14, which deprecates the other
        return cuda.Stream.from_external(_Foreign(address))
    return cuda.ExternalStream(address, device)


def run(plan: Plan, addresses: Mapping[str, int], device: int, stream: Any) -> None:
    """Launch a plan's kernels on a stream, given the addresses of result, operands, and scratch memory (`rows`)."""
    if not plan.launches:
        return
    cupy = importlib.import_module("cupy")
    kernels, multiprocessors = _kernels(plan.kind, plan.names, device)
    call = plan.template.copy()
    for name, address in addresses.items():
        call[name]["data"] = address
    with cupy.cuda.Device(device), stream:
        if plan.counters:
            cupy.cuda.runtime.memsetAsync(addresses["rows"], 0, plan.counters, stream.ptr)
        for launch in plan.launches:
            kernels[launch.name](launch.grid(multiprocessors), (THREADS,), (call,))
