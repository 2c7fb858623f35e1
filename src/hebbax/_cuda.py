"""The CUDA backend: the kernels of cuda/*.cu, compiled by CuPy when they are first needed, on memory that others own.

A `Plan` holds everything about a call that shapes and dtypes decide: which kernels run, on which blocks, and what they
are told. So nothing depends on how many neurons spike, the same launches can be captured in a CUDA graph and replayed,
and a call only fills in addresses. CuPy is imported at first use.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hebbax._specs import STRUCTURE, UPDATE_OPERANDS, Spec

# What the kernels' source is compiled with. With 512 threads of 4 elements on each multiprocessor, more bytes are under
# way than memory delivers in the time that one access takes, and ptxas spills no registers.
CONSTANTS = {
    "THREADS": 256,  # of a block
    "BLOCKS": 2,  # that a multiprocessor must have registers for
    "ITEMS": 4,  # elements of a thread in one go, all of whose loads are under way together
    "SPIKES": 4,  # that a thread looks at in one go
    "DIMS": 8,  # of a batch, at most
}
THREADS, DIMS = CONSTANTS["THREADS"], CONSTANTS["DIMS"]
# No contraction, as on CPUs: the same bits, but for subnormals, which CuPy's own options make 0.
OPTIONS = ("--std=c++17", "--fmad=false")

TYPES = {
    "float16": "float16", "bfloat16": "bfloat16", "float32": "float", "float64": "double",
    "int32": "int", "int64": "long long",
}  # fmt: skip
SOFT = ("HARD", "LINEAR", "POWER")

# The structs of cuda/call.cu.
_OPERAND = np.dtype([("data", np.uint64), ("size", np.int64), ("strides", np.int64, DIMS)])
_FIELDS = ("result", *(name for name in UPDATE_OPERANDS if name != "after"), "rows")
_NUMBERS = ("rank", "members", "lists", "row_bits", "n_other", "zeroed", "soft_upper")
CALL = np.dtype(
    [(name, _OPERAND) for name in _FIELDS]
    + [("dims", np.int64, DIMS), *((name, np.int64) for name in _NUMBERS), ("mu", np.float64)]
)
_GRID_Y = 65535  # the most that CUDA takes


@functools.cache
def missing() -> str | None:
    """Say in one sentence why the kernels cannot be used here; None: they can. This imports CuPy."""
    try:
        importlib.import_module("hebbax._dlpack")
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


def expressions(spec: Spec, weight: Any, index: Any, indptr: Any, soft: str = "HARD") -> dict[str, str]:
    """The C++ names of an operator's kernels for these dtypes."""
    weight, index, indptr = (TYPES[np.dtype(dtype).name] for dtype in (weight, index, indptr))
    own = [weight, index, str(spec.permuted).lower(), *([soft] if spec.kind == "update" else [])]
    names = {"find_rows": f"find_rows<{indptr}>", spec.kind: f"{spec.kind}<{', '.join(own)}>"}
    return names | {"clip": f"clip<{weight}>"} if spec.kind == "update" else names


@dataclass(frozen=True)
class Launch:
    """A kernel, how much work there may be for it, and how much of that one of its blocks does in one go."""

    name: str
    work: int
    per_block: int
    rows: int  # of the grid: members of a batch, or lists
    resident: int  # blocks on a multiprocessor

    def grid(self, multiprocessors: int) -> tuple[int, int]:
        y = max(1, min(self.rows, _GRID_Y))
        most = max(1, multiprocessors * self.resident // y)
        return max(1, min(math.ceil(self.work / self.per_block), most)), y


@dataclass(frozen=True)
class Plan:
    """A call but for the addresses of its operands."""

    kind: str
    names: tuple[str, ...]
    launches: tuple[Launch, ...]
    scratch: int  # bytes of memory that it needs beside its operands, and
    counters: int  # how many of them are to be 0 at first
    template: np.ndarray


def plan(
    spec: Spec, result: Any, operands: Mapping[str, Any], soft_bound: str | None = None, mu: float = 1.0,
    clip_all: bool = False, **_: Any,
) -> Plan:  # fmt: skip
    """Plan a call, given anything with `shape` and `dtype`: the result, and the operands by name (empty: not given)."""
    batch = tuple(result.shape[:-1])
    if len(batch) > DIMS:
        raise NotImplementedError(f"{spec.name}: got a batch of {len(batch)} dimensions, expected at most {DIMS}")
    call = np.zeros(1, CALL)
    for name, x in {"result": result, **operands}.items():
        if name in _FIELDS:
            call[name]["size"] = x.shape[-1]
            call[name]["strides"] = _strides((1,) * len(batch) if name in STRUCTURE else x.shape[:-1])
    call["rows"]["strides"] = call["spike"]["strides"]
    nse, n_event = operands["indices"].shape[-1], operands["spike"].shape[-1]
    n_other = result.shape[-1] if spec.kind == "propagate" else operands["trace"].shape[-1]
    members, lists = math.prod(batch), math.prod(operands["spike"].shape[:-1])
    row_bits = n_event.bit_length()
    if (bits := row_bits + nse.bit_length()) > 64:
        raise NotImplementedError(
            f"{spec.name}: got {n_event} neurons and {nse} synapses, numbers of {bits} bits together, "
            f"expected at most 64"
        )
    zeroed = 0 if spec.kind == "update" else members * result.shape[-1] * result.dtype.itemsize // 4
    call["dims"][0, : len(batch)] = batch
    numbers = (len(batch), members, lists, row_bits, n_other, zeroed, soft_bound == "upper")
    for name, number in zip(_NUMBERS, numbers, strict=True):
        call[name] = number
    call["mu"] = mu

    soft = SOFT[0 if soft_bound is None else 1 if mu == 1 else 2]
    names = expressions(spec, operands["weight"].dtype, operands["indices"].dtype, operands["indptr"].dtype, soft)
    touches = bool(members and nse and n_event and n_other)
    launches = []
    if touches or zeroed:
        per_block = THREADS * CONSTANTS["SPIKES"]
        launches.append(Launch(names["find_rows"], max(n_event, math.ceil(zeroed / lists)), per_block, lists, 8))
    if touches:
        launches.append(Launch(names[spec.kind], nse, THREADS, members, CONSTANTS["BLOCKS"]))
    if clip_all and members and nse:
        launches.append(Launch(names["clip"], nse, 4 * THREADS, members, 8))
    counters = 8 * max(lists, 1)
    return Plan(spec.kind, tuple(names.values()), tuple(launches), counters + 24 * lists * n_event, counters, call)


def _strides(dims: tuple[int, ...]) -> np.ndarray:
    """Members from one to the next along each dimension of a batch, 0 where there is one that all share."""
    strides = np.zeros(DIMS, np.int64)
    for d, size in enumerate(dims):
        strides[d] = math.prod(dims[d + 1 :]) if size > 1 else 0
    return strides


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
    from hebbax._dlpack import Borrowed

    return {name: Borrowed(x).pointer for name, x in buffers.items() if name in _FIELDS}


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
        cupy.cuda.runtime.memsetAsync(addresses["rows"], 0, plan.counters, stream.ptr)
        for launch in plan.launches:
            kernels[launch.name](launch.grid(multiprocessors), (THREADS,), (call,))
