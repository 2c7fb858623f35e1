"""Calls of the operators with hostile arrays: what they are given, and what is to come of it.

A `Call` is what a program is compiled for: an operator, sizes, dtypes, which operands there are. `contents` makes many
arrays for it, and `outcome` says of one of them, in plain NumPy, what results, or with what words it is refused.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import oracle
from hebbax._core.specs import OPERANDS, STRUCTURE, UPDATE_CSC_POST, UPDATE_POST, UPDATE_PRE, Spec
from hostile_arrays import floats, integers, row_starts, slots, spikes
from problems import DTYPES

SIZES = (0, 1, 2, 3, 5, 8, 9, 16, 31, 32, 33, 40, 64, 65, 80)
NSES = (0, 1, 2, 3, 7, 8, 16, 17, 32, 40, 63, 64, 96, 128, 200)
LARGE = (300, 400, 70_000)  # with which kernels go parallel


@dataclasses.dataclass(frozen=True)
class Call:
    spec: Spec
    n_event: int
    n_other: int
    nse: int
    dtypes: dict[str, np.dtype]  # of the operands that are given
    scalars: tuple[str, ...]  # those that are one number for all
    batched: tuple[str, ...]  # those that have a batch, of `batch` members
    batch: int
    options: dict[str, Any]  # of an update
    extreme: float  # how many floats are
    door: str

    @property
    def skips(self):
        """Whether elements out of range are left out, and no call is refused, as on CUDA."""
        return self.door == "cuda"

    @property
    def shape(self):
        sizes = self.n_event, self.n_other
        return sizes if self.spec.event == "pre" else sizes[::-1]

    @property
    def n_out(self):
        return {"update": self.nse, "propagate": self.n_other, "collect": self.n_event}[self.spec.kind]

    def sizes(self):
        whole = {
            "weight": self.nse, "indices": self.nse, "indptr": self.n_event + 1, "weight_indices": self.nse,
            "spike": self.n_event, "trace": self.n_other, "gain": self.n_event, "w_min": self.nse, "w_max": self.nse,
        }  # fmt: skip
        return {name: () if name in self.scalars else (whole[name],) for name in self.dtypes}

    def __str__(self):
        given = ", ".join(
            f"{name} {dtype}{'*' if name in self.scalars else ''}{'+' if name in self.batched else ''}"
            for name, dtype in self.dtypes.items()
        )
        return f"{self.spec.name}, shape {self.shape}, nse {self.nse}, {given}, {self.options}"


def draw_call(rng, door, large=False):
    """A call that a door takes: 'ffi', 'callback', 'inplace' or 'cuda'."""
    kind = str(rng.choice(["update", "propagate", "collect"], p=[0.5, 0.3, 0.2]))
    spec = (UPDATE_POST, UPDATE_PRE)[rng.integers(2)].like(kind)
    if kind == "update" and door in ("ffi", "callback") and rng.random() < 0.15:
        spec = UPDATE_CSC_POST
    n_event, n_other, nse = LARGE if large else (int(rng.choice(SIZES)), int(rng.choice(SIZES)), int(rng.choice(NSES)))
    weight = np.dtype(DTYPES[str(rng.choice(["float16", "bfloat16", "float32", "float64"], p=[0.15, 0.15, 0.4, 0.3]))])
    if door == "cuda":
        weight = np.dtype(DTYPES[("float32", "float64")[rng.integers(2)]])
    arithmetic = np.dtype(oracle.arithmetic_dtype(weight))
    index, starts = (np.dtype(str(rng.choice(["i4", "i8"]))) for _ in range(2))
    dtypes = {"weight": weight, "indices": index, "indptr": starts, "spike": np.dtype(bool)}
    if spec.permuted:
        dtypes["weight_indices"] = index
    if kind != "propagate":
        dtypes["trace"] = arithmetic
    if kind != "collect" and rng.random() < 0.5:
        dtypes["gain"] = arithmetic
    if kind == "update":
        dtypes |= {name: weight for name in ("w_min", "w_max") if rng.random() < 0.5}
    scalars = [name for name in ("gain", "w_min", "w_max") if name in dtypes and rng.random() < 0.5]
    scalars += ["weight"] if kind == "propagate" and rng.random() < 0.2 else []
    options: dict[str, Any] = {}
    if kind == "update":
        options["weight_in_bounds"] = bool(rng.random() < 0.3)
        softs = [s for s, own in (("upper", "w_max"), ("lower", "w_min")) if own in dtypes]
        if softs and door != "cuda" and rng.random() < 0.3:
            options |= {"soft_bound": str(rng.choice(softs)), "mu": float(rng.choice([0.0, 0.5, 1.0, 2.5]))}
    if door == "inplace":
        _with_other_dtypes(rng, dtypes, kind)
    elif rng.random() < 0.2 and kind != "collect":
        dtypes["spike"] = np.dtype(str(rng.choice(["f4", "i4"])))
    names = [name for name in dtypes if name not in STRUCTURE]
    batched, batch = (), 0
    if door in ("ffi", "callback") and not large and rng.random() < 0.25:
        batched, batch = tuple(rng.permutation(names)[: rng.integers(1, len(names) + 1)]), int(rng.integers(1, 4))
    extreme = 0.0 if door == "cuda" or "soft_bound" in options else float(rng.choice([0, 0.05, 0.5]))
    dtypes = {name: dtypes[name] for name in OPERANDS[kind] if name in dtypes}
    return Call(
        spec, n_event, n_other, nse, dtypes, tuple(scalars), batched, batch, options, extreme, door
    )  # fmt: skip


def _with_other_dtypes(rng, dtypes, kind):
    """Now and then such as a kernel does not take, of which a copy is made."""
    if kind == "collect" or rng.random() < 0.6:
        return
    for name in STRUCTURE:
        if name in dtypes and rng.random() < 0.4:
            dtypes[name] = np.dtype(str(rng.choice(["i2", "u1", "u4", "u8", ">i4", ">i8"])))
    for name in ("trace", "gain", "w_min", "w_max"):
        if name in dtypes and rng.random() < 0.3:
            dtypes[name] = np.dtype(str(rng.choice(["f2", "f4", "f8", "i4", ">f8"])))
    if rng.random() < 0.5:
        dtypes["spike"] = np.dtype(str(rng.choice(["f4", "f8", "i4", "i8"])))


def contents(rng, call, count):
    """`count` arrays for every operand, shape (count, [batch,] size)."""
    steps, out = 8 if call.skips else 2**20, {}  # (atomics add in any order)
    for name, size in call.sizes().items():
        dtype, own = call.dtypes[name].newbyteorder("="), ((call.batch,) if name in call.batched else ()) + size
        if name == "spike":
            x = spikes(rng, count, own, dtype)
        elif name == "weight_indices":
            x = slots(rng, count, call.nse, dtype)
        elif name == "indices":
            x = integers(rng, count, call.nse, call.n_other, dtype)
        elif name == "indptr":
            x = row_starts(rng, count, call.n_event, call.nse, dtype)
        elif dtype.kind == "i":
            x = rng.integers(-3, 4, (count, *own)).astype(dtype)
        else:
            x = floats(rng, (count, *own), dtype, steps, call.extreme, call.door == "inplace")
        out[name] = x.astype(call.dtypes[name], copy=False)
    return out


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the error has to say, or the result, and where that is told."""

    refused: tuple[str, ...] = ()  # one of these
    result: np.ndarray | None = None
    known: np.ndarray | None = None


def outcome(call, given):
    """What is to come of a call with these arrays."""
    if refused := _refused_by_value(call, given):
        return Outcome(refused=(refused,))
    members = [
        _outcome(call, {name: x[member] if name in call.batched else x for name, x in given.items()})
        for member in range(call.batch or 1)
    ]
    if any(x.refused for x in members):
        return Outcome(refused=sum((x.refused for x in members), ()))
    if not call.batch:
        return members[0]
    return Outcome((), *(np.stack([getattr(x, name) for x in members]) for name in ("result", "known")))


def _refused_by_value(call, given):
    """What `hebbax.inplace` says before it runs a kernel, of arrays that it converts or looks into."""
    low, high = given.get("w_min"), given.get("w_max")
    if call.door != "inplace" or call.spec.kind == "collect":  # JAX's functions are traced
        return None
    scalars = {name: given[name] for name in ("w_min", "w_max") if name in call.scalars}
    if len(scalars) == 2 and low > high:
        return "w_min: got"
    if call.options.get("soft_bound") and call.options["mu"] and any(np.isinf(x) for x in scalars.values()):
        return next(name for name, x in scalars.items() if np.isinf(x)) + ": got"
    for name in STRUCTURE:
        if name in given and given[name].dtype == np.uint64 and (given[name] > np.iinfo(np.int64).max).any():
            return f"{name}: got"
    return None


def elements(given, nse, clipped):
    """The spiking neurons, where their rows begin and end, and neuron and position of all elements of these.

    `clipped`, as on CUDA, of what is in range, and no more than `nse` in all.
    """
    events = np.flatnonzero(given["spike"].view(np.uint8) if given["spike"].dtype == bool else given["spike"])
    indptr = given["indptr"].astype(np.int64)
    begin, end = indptr[events], indptr[events + 1]
    if clipped:
        begin, end = np.clip(begin, 0, nse), np.clip(end, 0, nse)
        size = np.maximum(end - begin, 0)
    else:
        wrong = (begin < 0) | (end < begin) | (end > nse)
        size = np.where(wrong.cumsum() > 0, 0, np.where(wrong, 0, end - begin))  # up to the first that is
    event = np.repeat(events, size)
    k = np.arange(event.size) + np.repeat(begin - size.cumsum() + size, size)
    return (events, begin, end, event[:nse], k[:nse]) if clipped else (events, begin, end, event, k)


def _outcome(call, given):
    spec, nse = call.spec, call.nse
    shared = given["weight"].size == 1 != nse
    permuted = spec.permuted and not shared
    events, begin, end, event, k = elements(given, nse, call.skips)
    partner, slot = given["indices"][k].astype(np.int64), k
    if permuted:
        slot = given["weight_indices"][k].astype(np.int64)
    ok = (partner >= 0) & (partner < call.n_other) & (slot >= 0) & (slot < nse)
    drops = call.door != "inplace" and call.n_out == 0  # XLA does not run what has no result
    if not (call.skips or drops) and (refused := first_wrong(call, events, begin, end, k, slot, partner, ok)):
        return Outcome((refused,))
    with np.errstate(all="ignore"):
        result, known = result_of(call, given, event[ok], slot[ok], partner[ok])
    return Outcome((), result, known)


def first_wrong(call, events, begin, end, k, slot, partner, ok):
    """What the kernels say of the first index that is wrong; a row that is comes after the elements of those before."""
    name, nse = "a derivative's " * (call.spec.kind == "collect") + call.spec.name, call.nse
    if not ok.all():
        at = np.argmin(ok)
        if not 0 <= partner[at] < call.n_other:
            return f"{name}: indices[{k[at]}] = {partner[at]}, expected a neuron in [0, {call.n_other})"
        return f"{name}: weight_indices[{k[at]}] = {slot[at]}, expected a position in [0, {nse})"
    wrong = (begin < 0) | (end < begin) | (end > nse)
    if not wrong.any():
        return None
    j, low, high = (int(x[np.argmax(wrong)]) for x in (events, begin, end))
    return f"{name}: indptr[{j} : {j + 2}] = [{low}, {high}], expected ascending values in [0, {nse}]"


def result_of(call, given, event, slot, partner):
    """As `oracle` has it, of all elements at once, in the order of which sums are taken."""
    weight = given["weight"].astype(given["weight"].dtype.newbyteorder("="))
    dtype, arithmetic = weight.dtype, oracle.arithmetic_dtype(weight.dtype)
    wide = np.broadcast_to(weight.astype(arithmetic), (call.nse,))
    gain = np.broadcast_to(given.get("gain", np.ones(())).astype(arithmetic), (call.n_event,))
    if call.spec.kind == "propagate":
        out = np.zeros(call.n_other, arithmetic)
        np.add.at(out, partner, gain[event] * wide[slot])
        return out.astype(dtype), np.ones(out.shape, bool)
    trace = given["trace"].astype(arithmetic)
    if call.spec.kind == "collect":
        out = np.zeros(call.n_event, arithmetic)
        np.add.at(out, event, wide[slot] * trace[partner])
        return out, np.ones(out.shape, bool)
    low, high = (
        np.broadcast_to(given[name].astype(dtype).astype(arithmetic), (call.nse,)) if name in given else None
        for name in ("w_min", "w_max")
    )
    own_low, own_high = (None if x is None else x[slot] for x in (low, high))
    change = gain[event] * trace[partner]
    if call.options.get("soft_bound"):
        change = change * _softness(wide[slot], own_low, own_high, call.options["soft_bound"], call.options["mu"])
    new = oracle.clip(wide[slot] + change, own_low, own_high).astype(dtype)
    out = weight.copy()
    out[slot] = new
    if not (call.options["weight_in_bounds"] or (low is None and high is None)):
        out = oracle.clip(out.astype(arithmetic), low, high).astype(dtype)
    return out, np.bincount(slot, minlength=call.nse) <= 1  # what is written more than once is not told


def _softness(x, low, high, soft_bound, mu):
    none = np.full(x.shape, None)
    ends = (none if end is None else end for end in (low, high))
    return np.array([oracle.softness(*one, soft_bound, mu) for one in zip(x, *ends, strict=True)], x.dtype)


def assert_right(call, want, got):
    """The result is the one that was to come: bit for bit, or with a soft bound, whose power is not exact, nearly."""
    assert got.shape == want.result.shape and got.dtype == want.result.dtype, f"{got.shape} {got.dtype}"
    expected, actual = want.result[want.known], got[want.known]
    if call.options.get("soft_bound"):
        oracle.assert_close(actual, expected, 16)
    elif not same(actual, expected, signed="w_min" not in call.dtypes and "w_max" not in call.dtypes):
        oracle.assert_same(actual, expected, signed_zeros=False)
        raise AssertionError("the sign of a zero differs")


def same(a, b, signed):
    """Equal, NaN with NaN, and, if asked for, zeros of the same sign."""
    if a.dtype.itemsize == 2:
        a, b = a.astype(np.float32), b.astype(np.float32)
    equal = (a == b) | ((a != a) & (b != b))
    return bool(equal.all()) and not (signed and (np.signbit(a) != np.signbit(b))[a == a].any())
