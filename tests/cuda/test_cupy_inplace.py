"""hebbax.inplace on CuPy arrays, held to the oracle: on a GPU, or on CuPy's stand-in."""

import ctypes
import mmap
import subprocess
import sys

import numpy as np
import pytest

import hebbax
import oracle
import out_of_range
from problems import DTYPES, PLATFORM, WHY_NO_CUPY, operands, random_network

if WHY_NO_CUPY:
    pytest.skip(WHY_NO_CUPY, allow_module_level=True)
cupy = pytest.importorskip("cupy")
on_stand_in = pytest.mark.skipif(PLATFORM != "cpu", reason="of the stand-in")

SHAPE, NSE = (20, 30), 150
HAS_BFLOAT16 = PLATFORM == "cpu"  # CuPy's support of it depends on its version


def call(spec, given, **options):
    arguments = {spec.public_name(name): x for name, x in given.items()}
    return getattr(hebbax.inplace, spec.name)(**arguments, **options)


def on_device(given):
    return {name: cupy.asarray(x) if np.ndim(x) else x for name, x in given.items()}


def problem(spec, rng, dtype="float32", **structure):
    if dtype == "bfloat16" and not HAS_BFLOAT16:
        pytest.skip("CuPy may have no bfloat16")
    return operands(spec, rng, random_network(rng, SHAPE, NSE), DTYPES[dtype], **structure)


EXTRAS = {
    "none": {}, "low": {"w_min": -1.0}, "scalars": {"w_min": np.float32(-1), "w_max": 1},
    "arrays": {"w_min": np.full(NSE, -0.5), "w_max": np.full(NSE, 0.5), "gain": 1.5},
    "gains": {"w_max": 0.25, "gain": "array"}, "NaN": {"w_min": float("nan")}, "NaN above": {"w_max": float("nan")},
    "soft": {"w_min": -2.0, "w_max": 2.0, "soft_bound": "upper"},
    "power": {"w_min": np.full(NSE, -2.0), "w_max": 2.0, "soft_bound": "lower", "mu": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_are_those_of_the_oracle(update, rng, dtype, extra):
    given, extra = problem(update, rng, dtype), dict(EXTRAS[extra])
    options = {name: extra.pop(name) for name in ("soft_bound", "mu") if name in extra}
    if isinstance(extra.get("gain"), str):
        extra["gain"] = rng.uniform(-2, 2, given["spike"].size)
    given |= {name: x.astype(DTYPES[dtype]) if np.ndim(x) and name != "gain" else x for name, x in extra.items()}
    for weight_in_bounds in (False, True):
        expected = oracle.evaluate(update, SHAPE, given, weight_in_bounds=weight_in_bounds, **options)
        there = on_device(given)
        out = call(update, there, shape=SHAPE, weight_in_bounds=weight_in_bounds, **options)
        assert out is there["weight"]
        oracle.assert_close(out.get(), expected) if options else oracle.assert_same(out.get(), expected)
        assert not np.array_equal(out.get(), given["weight"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_may_begin_anywhere_in_an_array(update, rng, dtype):
    """They are clipped by 16 bytes, which begin where the device's memory has such: the rest of the array stays."""
    given = problem(update, rng, dtype) | {"w_min": -0.5, "w_max": 0.5}
    expected = oracle.evaluate(update, SHAPE, given)
    for begin in range(9):
        whole = np.full(NSE + 20, 9, DTYPES[dtype])
        whole[begin : begin + NSE] = given["weight"]
        there = on_device(given | {"weight": whole})
        weight = there["weight"][begin : begin + NSE]
        oracle.assert_same(call(update, there | {"weight": weight}, shape=SHAPE).get(), expected)
        out = there["weight"].get()
        oracle.assert_same(out[begin : begin + NSE], expected)
        assert (out[:begin] == 9).all() and (out[begin + NSE :] == 9).all()


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_those_of_the_oracle(propagate, rng, dtype, index_dtype):
    given = problem(propagate, rng, dtype, index_dtype=index_dtype)
    expected = oracle.evaluate(propagate, SHAPE, given)
    new = call(propagate, on_device(given), shape=SHAPE)
    assert isinstance(new, cupy.ndarray)
    oracle.assert_same(new.get(), expected)
    out = cupy.asarray(np.full(expected.shape, 7, expected.dtype))
    assert call(propagate, on_device(given), shape=SHAPE, out=out) is out
    oracle.assert_same(out.get(), expected)


@pytest.mark.parametrize("dtype", ["i4", "f4", "f8", "u1"])
def test_spikes_and_structure_of_other_dtypes(spec, rng, dtype):
    given = problem(spec, rng)
    given["spike"] = given["spike"].astype(dtype)
    given["indptr"] = given["indptr"].astype("i8")
    expected = oracle.evaluate(spec, SHAPE, given)
    oracle.assert_same(call(spec, on_device(given), shape=SHAPE).get(), expected)


def test_spikes_begin_at_any_address(spec, rng):
    """Where it allows for that, many are read at once; elsewhere a GPU could not."""
    given = problem(spec, rng)
    expected, there = oracle.evaluate(spec, SHAPE, given), on_device(given)
    for before in range(16):
        spike = cupy.asarray(np.concatenate([np.ones(before, bool), given["spike"]]))[before:]
        weight = there["weight"].copy()
        oracle.assert_same(call(spec, there | {"spike": spike, "weight": weight}, shape=SHAPE).get(), expected)


def test_empty_networks(spec, rng):
    for shape in ((0, 0), (0, 4), (4, 0), (4, 3)):
        given = operands(spec, rng, random_network(rng, shape, 0))
        oracle.assert_same(call(spec, on_device(given), shape=shape).get(), oracle.evaluate(spec, shape, given))


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_elements_out_of_range_are_skipped(spec, index_dtype):
    for size in (out_of_range.SMALL, out_of_range.UNEVEN):
        for _, name, given, shape in out_of_range.cases(spec, size, index_dtype):
            out = call(spec, on_device(given), shape=shape).get()
            if name == "indptr":  # a row that ends before it begins says nothing about the others
                continue
            oracle.assert_close(out, oracle.evaluate(spec, shape, given))


def guarded(x, after):
    """`x` on CuPy's stand-in, directly before (or behind) a page that nobody may touch."""
    page = mmap.PAGESIZE
    pages = -(-max(x.nbytes, 1) // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * page):
        assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(guard), page, 0) == 0
    offset = page + (pages * page - x.nbytes if after else 0)
    there = np.frombuffer(memory, x.dtype, x.size, offset)
    there[...] = x
    return cupy.ndarray(there, 0)


@on_stand_in
@pytest.mark.parametrize("after", [True, False])
def test_nothing_outside_the_buffers_is_touched(spec, after):
    """A touch would end the process; also where every index is wrong, and `indptr` in every way."""
    cases = list(out_of_range.cases(spec, out_of_range.SMALL, np.int64))
    assert {name for _, name, _, _ in cases} >= {"indices", "indptr"}
    for _, _, given, shape in cases:
        if spec.kind == "update":
            n = given["weight"].size
            given = given | {"w_min": np.full(n, -1, np.float32), "w_max": np.full(n, 1, np.float32)}
            given["gain"] = np.ones(given["spike"].size, np.float32)
        there = {name: guarded(x, after) for name, x in given.items()}
        call(spec, there, shape=shape)


# -- what is refused


def refused(spec, given, error, match, **options):
    with pytest.raises(error, match=match):
        call(spec, given, shape=SHAPE, **options)


def test_arrays_elsewhere_are_refused(spec, rng):
    given = on_device(problem(spec, rng))
    name = spec.public_name("spike")
    elsewhere = given["spike"].get()
    refused(spec, given | {"spike": elsewhere}, TypeError, f"^{name}: got a NumPy array, .*CUDA device 0.*cupy.asarray")
    refused(spec, given | {"spike": [True] * 5}, TypeError, f"^{name}: got list, expected an array")
    host = problem(spec, rng) | {"spike": given["spike"]}
    refused(spec, host, ValueError, f"^{name}: got a ndarray on another device than weight")


def test_targets_that_cannot_be_written_are_refused(spec, rng):
    given = on_device(problem(spec, rng))
    name, size = ("weight", NSE) if spec.kind == "update" else ("out", spec.sizes(SHAPE)[1])
    strided = cupy.asarray(np.zeros(2 * size, np.float32))[::2]
    target = {"weight": strided} if name == "weight" else {}
    out = {} if name == "weight" else {"out": strided}
    refused(spec, given | target, ValueError, f"^{name}: got an array that is not contiguous", **out)
    odd = cupy.asarray(np.zeros(4 * size + 1, np.uint8))[1:].view(np.float32)
    misaligned = (given | {"weight": odd}, {}) if name == "weight" else (given, {"out": odd})
    refused(
        spec,
        misaligned[0],
        ValueError,
        f"^{name}: got an array that is not contiguous .* or not aligned",
        **misaligned[1],
    )
    if name == "weight":
        refused(spec, given | {"w_min": given["weight"]}, ValueError, "^weight: got memory whose range overlaps")
    else:
        refused(spec, given, ValueError, "^out: got memory whose range overlaps", out=given["weight"][:size])
        refused(spec, given, TypeError, "^out: got dtype float64", out=cupy.asarray(np.zeros(size)))
        refused(spec, given, TypeError, "^out: got a NumPy array", out=np.zeros(size, np.float32))


def test_wrong_shapes_and_dtypes_are_refused(spec, rng):
    given = on_device(problem(spec, rng))
    short = {"indptr": given["indptr"][:-1]}
    refused(spec, given | short, hebbax.ShapeError, "^indptr: got shape")
    refused(spec, given | {"weight": cupy.asarray(np.zeros(NSE, "i4"))}, TypeError, "^weight: got dtype int32")


CHILD = """
import importlib.util, sys
if importlib.util.find_spec("cupy") is None:
    sys.exit("no CuPy")
import hebbax, cupy
(entry,) = [backend for backend in hebbax.backends() if backend.name == "cupy"]
print(entry.missing)
for name in ("RawModule", "ndarray", "array", "empty", "from_dlpack", "may_share_memory"):
    getattr(cupy, name)
for name in ("Device", "Stream", "get_current_stream"):
    getattr(cupy.cuda, name)
cupy.cuda.Stream.null.ptr, cupy.cuda.Stream.null.is_capturing
for name in ("getDeviceCount", "mallocAsync", "freeAsync"):
    getattr(cupy.cuda.runtime, name)
cupy.RawKernel.kernel, cupy.cuda.nvrtc.getVersion
assert "name_expressions" in cupy.RawModule.__doc__
"""


def test_cupy_itself_has_what_is_used_of_it_and_says_why_it_cannot_be():
    """In a process of its own: here, a stand-in has its name."""
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    if child.stderr.strip() == "no CuPy":
        pytest.skip("CuPy is not installed")
    assert child.returncode == 0, child.stderr
    (line,) = child.stdout.splitlines()
    assert line == "None" or line.startswith(("there is no NVIDIA driver", "the CUDA driver finds no GPU"))
