"""Arrays as nobody should give them, and memory for them between pages that nobody may touch.

A generator makes `count` arrays at once, by rows: some as they should be, and others wrong in one way or several.
"""

import ctypes
import mmap

import ml_dtypes
import numpy as np

GUARD = 64 * mmap.PAGESIZE
CANARY = 0xA5


class Guarded:
    """Memory for one operand, between two stretches that nobody may touch."""

    def __init__(self, size):
        self.size = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, self.size + 2 * GUARD)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for guard in (start, start + GUARD + self.size):
            assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(guard), GUARD, 0) == 0
        self.bytes = np.frombuffer(self._memory, np.uint8, self.size, GUARD)
        self.address = start + GUARD

    def put(self, x, at_end, alignment=1):
        """Copy an array to its end, or to its beginning; what is left over is filled."""
        offset = (self.size - x.nbytes) // alignment * alignment if at_end else 0
        self.bytes[:] = CANARY
        self.taken = slice(offset, offset + x.nbytes)
        there = self.bytes[self.taken].view(x.dtype).reshape(x.shape)
        there[...] = x
        return there, self.address + offset

    def is_clean(self):
        before, after = self.bytes[: self.taken.start], self.bytes[self.taken.stop :]
        return bool((before == CANARY).all() and (after == CANARY).all())


def extremes(limit, dtype):
    """Integers next to [0, limit], and those next to what 32 or 64 bits hold."""
    info = np.iinfo(dtype)
    x = [-1, limit, limit + 1, -limit - 1, info.min, info.max, info.max - 1, 2**31 - 1, -(2**31)]
    if info.bits == 64:
        x += [2**31, 2**32, 2**32 + 1, -(2**32), 2**62, 2**63 - 2, limit + 2**32]
    return np.array([number for number in x if info.min <= number <= info.max], dtype)


def ways(rng, count, probabilities):
    """Which of several ways each of `count` rows goes, as a column."""
    return rng.choice(len(probabilities), (count, 1), p=probabilities)


def integers(rng, count, size, limit, dtype, valid=0.7):
    """Indices of which all, few or none are in [0, limit); shape (count, size)."""
    left, odd = 1 - valid, extremes(limit, dtype)
    low, high = max(-3, np.iinfo(dtype).min), min(limit + 4, np.iinfo(dtype).max)
    x = rng.integers(0, max(limit, 1), (count, size))
    near = rng.integers(low, high, (count, size))
    sprinkled = rng.random((count, size)) < rng.choice([1.5 / max(size, 1), 0.2, 0.9], (count, 1))
    way = ways(rng, count, [valid, 0.2 * left, 0.1 * left, 0.7 * left])
    x, one = x.astype(dtype), rng.choice(odd, (count, 1))
    x = np.where(way == 1, near.astype(dtype), np.where(way == 2, one, x))
    return np.where((way == 3) & sprinkled, rng.choice(odd, (count, size)), x)


def slots(rng, count, nse, dtype, valid=0.75):
    """Permutations, and such as are none; shape (count, nse)."""
    order = rng.permuted(np.tile(np.arange(nse), (count, 1)), axis=1)
    order = np.where(rng.random((count, 1)) < 0.1, np.arange(nse)[::-1], order).astype(dtype)
    return np.where(rng.random((count, 1)) < valid, order, integers(rng, count, nse, nse, dtype, 0.4))


def row_starts(rng, count, n, nse, dtype, valid=0.7):
    """`indptr` that lead from 0 to `nse`, or only from somewhere to somewhere, or are wrong; shape (count, n + 1)."""
    info, left, odd = np.iinfo(dtype), 1 - valid, np.arange(n + 1) % 2
    x = np.sort(rng.integers(0, nse + 1, (count, n + 1)), axis=1)
    whole = rng.random(count) < 0.7
    x[whole, 0], x[whole, -1] = 0, nse
    if n == 0:
        x[whole] = nse
    way = ways(rng, count, [valid, 0.15 * left, 0.15 * left, 0.1 * left, 0.6 * left])
    x = np.where(way == 1, x[:, ::-1], np.where(way == 2, nse * odd, x)).astype(dtype)
    sprinkled = rng.random((count, n + 1)) < rng.choice([1.5 / (n + 1), 0.2, 0.9], (count, 1))
    x = np.where(way == 3, np.array([info.min, info.max], dtype)[odd], x)
    return np.where((way == 4) & sprinkled, rng.choice(extremes(nse, dtype), (count, n + 1)), x)


def floats(rng, shape, dtype, steps=2**20, extreme=0.0, subnormal=False):
    """Multiples of 1 / `steps` in [-2, 2], products and differences of which are far from subnormal, and other floats.

    `extreme` is how many are; `subnormal`, whether these may be so small that XLA, on CPUs, takes them for zeros.
    """
    x = (rng.integers(-2 * steps, 2 * steps + 1, shape) / steps).astype(dtype)
    if not extreme:
        return x
    most = float(ml_dtypes.finfo(dtype).max)
    odd = [0.0, -0.0, np.inf, -np.inf, np.nan, most, -most]
    odd += [float(ml_dtypes.finfo(dtype).smallest_subnormal), -float(ml_dtypes.finfo(dtype).tiny)] if subnormal else []
    return np.where(rng.random(shape) < extreme, rng.choice(np.array(odd).astype(dtype), shape), x)


def spikes(rng, count, shape, dtype):
    """Nobody, everybody and some spike; a bool may be any byte. Shape (count, *shape)."""
    rate = rng.choice([0.0, 0.1, 0.5, 1.0], (count, *(1 for _ in shape)), p=[0.05, 0.35, 0.4, 0.2])
    is_spike = rng.random((count, *shape)) < rate
    if dtype.kind == "b":
        raw = rng.choice(np.array([1, 1, 1, 2, 0x80, 0xFF], np.uint8), is_spike.shape)
        return np.where(is_spike, raw, 0).astype(np.uint8).view(bool)
    raw = rng.choice(np.array([1, -1, 2] if dtype.kind == "i" else [1, -0.5, np.nan, np.inf], dtype), is_spike.shape)
    return np.where(is_spike, raw, rng.choice(np.array([0, 0] if dtype.kind == "i" else [0, -0.0], dtype)))
