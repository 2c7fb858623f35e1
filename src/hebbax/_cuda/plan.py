"""What a call of a kernel is told, but for addresses: which kernels run, on which blocks, on arrays of which shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hebbax._core.specs import STRUCTURE, UPDATE_OPERANDS, Spec

# What the kernels' source is compiled with. With 1024 threads of 4 elements on each multiprocessor, more bytes are
# under way than memory delivers in the time that one access takes, and ptxas spills no registers.
CONSTANTS = {
    "THREADS": 256,  # of a block
    "BLOCKS": 4,  # that a multiprocessor must have registers for
    "ITEMS": 4,  # elements of a thread in one go, all of whose loads are under way together
    "SPIKES": 16,  # that a thread looks at in one go, read as a whole where they lie at a multiple
    "TILES": 512,  # of neurons, at most: every block sums up what they have
    "DIMS": 8,  # of a batch, at most
}
THREADS, DIMS = CONSTANTS["THREADS"], CONSTANTS["DIMS"]

TYPES = {
    "float16": "float16", "bfloat16": "bfloat16", "float32": "float", "float64": "double",
    "int32": "int", "int64": "long long",
}  # fmt: skip
SOFT = ("HARD", "LINEAR", "POWER")
WAYS = ("BATCHED", "FLAT")

# The structs of cuda/call.cu.
_OPERAND = np.dtype([("data", np.uint64), ("size", np.int64)])
FIELDS = ("result", *UPDATE_OPERANDS, "rows")
_NUMBERS = ("lists", "tiles", "per_tile", "wide", "n_other", "zeroed", "soft_upper")
CALL = np.dtype(
    [(name, _OPERAND) for name in FIELDS]
    + [*((name, np.int64) for name in _NUMBERS), ("mu", np.float64), ("members", np.int64), ("rank", np.int64)]
    + [("dims", np.int64, DIMS), ("strides", np.int64, (len(FIELDS), DIMS))]
)
_GRID_Y = 65535  # the most that CUDA takes


def expressions(
    spec: Spec, weight: Any, index: Any, soft: str = "HARD", way: str = "FLAT", shared: bool = False
) -> dict[str, str]:
    """The C++ names of an operator's kernels for these dtypes; `shared`: there is one weight for all synapses."""
    weight, index = (TYPES[np.dtype(dtype).name] for dtype in (weight, index))
    permuted = str(spec.permuted and not shared).lower()
    own = [weight, index, permuted, soft if spec.kind == "update" else str(shared).lower(), way]
    names = {"find_rows": "find_rows", spec.kind: f"{spec.kind}<{', '.join(own)}>"}
    if spec.kind == "update":
        names["clip"] = f"clip<{weight}, {way}>"
    return names


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
    scratch: int  # bytes of memory that it needs beside its operands
    template: np.ndarray


def plan_call(
    spec: Spec, result: Any, operands: Mapping[str, Any], soft_bound: str | None = None, mu: float = 1.0,
    clip_all: bool = False, **_: Any,
) -> Plan:  # fmt: skip
    """Plan a call, given anything with `shape` and `dtype`: the result, and the operands by name (empty: not given)."""
    batch = tuple(result.shape[:-1])
    if len(batch) > DIMS:
        raise NotImplementedError(f"{spec.name}: got a batch of {len(batch)} dimensions, expected at most {DIMS}")
    call, strides = np.zeros(1, CALL), dict.fromkeys(FIELDS, np.zeros(DIMS, np.int64))
    for name, x in {"result": result, **operands}.items():
        if name in FIELDS:
            call[name]["size"] = x.shape[-1]
            strides[name] = _strides((1,) * len(batch) if name in STRUCTURE else x.shape[:-1])
    strides["rows"] = strides["spike"]
    call["strides"] = [strides[name] for name in FIELDS]
    nse, n_event = operands["indices"].shape[-1], operands["spike"].shape[-1]
    n_other = result.shape[-1] if spec.kind == "propagate" else operands["trace"].shape[-1]
    members, lists = math.prod(batch), math.prod(operands["spike"].shape[:-1])
    sizes = (nse, n_event, n_other, *(x.shape[-1] for x in operands.values()))
    way = "BATCHED" if batch or max(sizes) >= 2**31 else "FLAT"
    per_round = THREADS * CONSTANTS["SPIKES"]  # neurons that a block of `find_rows` looks at in one go
    per_tile = per_round * max(1, math.ceil(n_event / (per_round * CONSTANTS["TILES"])))
    tiles = math.ceil(n_event / per_tile)
    list_size = 2 * tiles + 3 * n_event
    wide = np.dtype(operands["indptr"].dtype).itemsize == 8
    zeroed = 0 if spec.kind == "update" else members * result.shape[-1] * result.dtype.itemsize // 4
    call["dims"][0, : len(batch)] = batch
    numbers = (lists, tiles, per_tile, wide, n_other, zeroed, soft_bound == "upper")
    for name, number in zip(_NUMBERS, numbers, strict=True):
        call[name] = number
    call["rows"]["size"], call["mu"] = list_size, mu
    call["members"], call["rank"] = members, len(batch)

    soft = SOFT[0 if soft_bound is None else 1 if mu == 1 else 2]
    shared = spec.kind != "update" and operands["weight"].shape[-1] == 1 != nse
    names = expressions(spec, operands["weight"].dtype, operands["indices"].dtype, soft, way, shared)
    touches = bool(members and nse and n_event and n_other)
    launches = []
    if zeroed or touches:
        work = max(tiles * per_round, math.ceil(zeroed / lists))
        launches.append(Launch(names["find_rows"], work, per_round, lists, CONSTANTS["BLOCKS"]))
    if touches:
        launches.append(Launch(names[spec.kind], nse, THREADS, members, CONSTANTS["BLOCKS"]))
    if clip_all and members and nse:
        launches.append(Launch(names["clip"], nse, 4 * THREADS, members, 8))
    return Plan(spec.kind, tuple(names.values()), tuple(launches), max(8 * lists * list_size, 8), call)


def _strides(dims: tuple[int, ...]) -> np.ndarray:
    """Members from one to the next along each dimension of a batch, 0 where there is one that all share."""
    strides = np.zeros(DIMS, np.int64)
    for d, size in enumerate(dims):
        strides[d] = math.prod(dims[d + 1 :]) if size > 1 else 0
    return strides
