"""What a call of a kernel is told, but for addresses: which kernels run, on which blocks, on arrays of which shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hebbax._core.specs import STRUCTURE, UPDATE_OPERANDS, Spec

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

TYPES = {
    "float16": "float16", "bfloat16": "bfloat16", "float32": "float", "float64": "double",
    "int32": "int", "int64": "long long",
}  # fmt: skip
SOFT = ("HARD", "LINEAR", "POWER")

# The structs of cuda/call.cu.
_OPERAND = np.dtype([("data", np.uint64), ("size", np.int64), ("strides", np.int64, DIMS)])
FIELDS = ("result", *UPDATE_OPERANDS, "rows")
_NUMBERS = ("rank", "members", "lists", "row_bits", "n_other", "zeroed", "soft_upper")
CALL = np.dtype(
    [(name, _OPERAND) for name in FIELDS]
    + [("dims", np.int64, DIMS), *((name, np.int64) for name in _NUMBERS), ("mu", np.float64)]
)
_GRID_Y = 65535  # the most that CUDA takes


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


def plan_call(
    spec: Spec, result: Any, operands: Mapping[str, Any], soft_bound: str | None = None, mu: float = 1.0,
    clip_all: bool = False, **_: Any,
) -> Plan:  # fmt: skip
    """Plan a call, given anything with `shape` and `dtype`: the result, and the operands by name (empty: not given)."""
    batch = tuple(result.shape[:-1])
    if len(batch) > DIMS:
        raise NotImplementedError(f"{spec.name}: got a batch of {len(batch)} dimensions, expected at most {DIMS}")
    call = np.zeros(1, CALL)
    for name, x in {"result": result, **operands}.items():
        if name in FIELDS:
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
