"""hebbax.inplace: the operators without JAX, held to the oracle bit for bit and to the JAX functions."""

import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import brainunit as u
import jax.numpy as jnp
import numpy as np
import pytest

import error_cases
import hebbax
import oracle
import out_of_range
from hebbax import _cpu
from hebbax._core import lowering
from problems import DTYPES, enable_x64, operands, random_network
from problems import call as call_jax
from sharing import READ_ONLY, Shared

SHAPE, NSE = (20, 30), 150
INDEX_DTYPES = {
    "i4": ("i4", "i4", "i4"),
    "i8": ("i8", "i8", "i8"),
    "mixed": ("i8", "i4", "i4"),
    "u": ("u4", "u8", "u2"),
}


def call(spec, operands, **options):
    """Call the function of `hebbax.inplace` with operands named as in `_core.specs`."""
    function = getattr(hebbax.inplace, spec.name)
    return function(**{spec.public_name(name): x for name, x in operands.items()}, **options)


def problem(spec, rng, dtype="float32", index_dtypes=("i4", "i4", "i4"), shape=SHAPE, nse=NSE):
    network = random_network(rng, shape, nse)
    given = operands(spec, rng, network, DTYPES[dtype])
    for name, index_dtype in zip(("indices", "indptr", "weight_indices"), index_dtypes, strict=True):
        if name in given:
            given[name] = given[name].astype(index_dtype)
    return given


def bounds_and_gains(rng, dtype, n_event, nse=NSE):
    low, high = (rng.uniform(*limits, nse).astype(DTYPES[dtype]) for limits in ((-2, -0.5), (0.5, 2)))
    gain = rng.uniform(-2, 2, n_event)
    yield {}
    yield {"w_min": -1.0}
    yield {"w_max": np.float32(1)}
    yield {"w_min": -1, "w_max": 1}
    yield {"w_min": low, "w_max": high}
    yield {"w_min": low, "w_max": 0.25, "gain": 1.5}
    yield {"w_min": np.float64(-0.5), "gain": gain}
    yield {"w_min": high, "w_max": low, "gain": np.float32(-2)}
    yield {"w_min": np.nan, "gain": gain.astype(np.float32)}
    yield {"w_max": np.array(0.5), "gain": True}


@pytest.mark.parametrize("index_dtypes", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_are_those_of_the_oracle_bit_for_bit(update, rng, dtype, index_dtypes):
    given = problem(update, rng, dtype, INDEX_DTYPES[index_dtypes])
    moved = 0
    for extra in bounds_and_gains(rng, dtype, given["spike"].size):
        for weight_in_bounds in (False, True):
            weight = given["weight"].copy()
            expected = oracle.evaluate(update, SHAPE, given | extra, weight_in_bounds=weight_in_bounds)
            out = call(update, given | extra | {"weight": weight}, shape=SHAPE, weight_in_bounds=weight_in_bounds)
            assert out is weight
            oracle.assert_same(weight, expected)
            moved += np.sum(weight != given["weight"])
    assert moved > NSE


@pytest.mark.parametrize("index_dtypes", INDEX_DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gain", [None, "one", "each"])
def test_sums_are_those_of_the_oracle_bit_for_bit(propagate, rng, dtype, index_dtypes, gain):
    given = problem(propagate, rng, dtype, INDEX_DTYPES[index_dtypes])
    given |= {"gain": 0.7 if gain == "one" else rng.uniform(-2, 2, given["spike"].size)} if gain else {}
    before = {name: np.copy(x) for name, x in given.items()}
    expected = oracle.evaluate(propagate, SHAPE, given)
    out = np.full(expected.shape, np.nan, DTYPES[dtype])
    assert call(propagate, given, shape=SHAPE, out=out) is out
    oracle.assert_same(out, expected)
    new = call(propagate, given, shape=SHAPE)
    assert isinstance(new, np.ndarray) and np.any(new)
    oracle.assert_same(new, expected)
    assert all(np.array_equal(given[name], x) for name, x in before.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("soft_bound, mu", [("upper", 1), ("lower", 1.0), ("upper", 0.4), ("lower", 2), ("upper", 0)])
def test_soft_bounds(update, rng, dtype, soft_bound, mu):
    given = problem(update, rng, dtype)
    for bounds in ({"w_min": -2.0, "w_max": 2.0}, {"w_min": np.full(NSE, -2, DTYPES[dtype]), "w_max": 2}):
        given |= bounds
        options = {"soft_bound": soft_bound, "mu": mu}
        expected = oracle.evaluate(update, SHAPE, given, **options)
        out = call(update, given | {"weight": given["weight"].copy()}, shape=SHAPE, **options)
        assert not np.array_equal(out, given["weight"])
        oracle.assert_close(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_as_the_jax_functions(spec, rng, dtype):
    given = problem(spec, rng, dtype)
    given |= {"gain": rng.uniform(-2, 2, given["spike"].size)}
    given |= {"w_min": -1.0, "w_max": 1.5} if spec.kind == "update" else {}
    with enable_x64(True):
        expected = np.asarray(call_jax(spec, given, shape=SHAPE))
    out = call(spec, given | {"weight": given["weight"].copy()}, shape=SHAPE)
    assert out.dtype == expected.dtype and out.tobytes() == expected.tobytes()


def test_signatures_are_those_of_the_jax_functions_but_for_what_makes_sense_in_jax_only(spec):
    theirs, ours = (
        list(inspect.signature(getattr(module, spec.name)).parameters.values()) for module in (hebbax, hebbax.inplace)
    )
    shared = [parameter for parameter in theirs if parameter.name not in ("backend", "after")]
    assert [(p.name, p.kind, p.default) for p in ours if p.name != "out"] == [
        (p.name, p.kind, p.default) for p in shared
    ]
    assert [p.name for p in ours if p.name == "out"] == ["out"] * (spec.kind == "propagate")


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (4, 3)])
def test_empty_networks(spec, rng, shape):
    given = problem(spec, rng, shape=shape, nse=0)
    oracle.assert_same(call(spec, given, shape=shape), oracle.evaluate(spec, shape, given))


# -- what operands may be


@pytest.mark.parametrize("dtype", [bool, "i1", "u1", "i4", "u8", "f2", "f4", "f8", DTYPES["bfloat16"]])
@pytest.mark.parametrize("weight_dtype", ["float16", "float64"])
def test_spikes_and_traces_of_any_real_dtype(spec, rng, dtype, weight_dtype):
    given = problem(spec, rng, weight_dtype)
    given["spike"] = (given["spike"] * rng.choice([1, 3], given["spike"].size)).astype(dtype)
    if spec.kind == "update":
        given["trace"] = (3 * given["trace"]).astype(dtype)
        given["gain"] = rng.choice([0, 1, 2], given["spike"].size).astype(dtype)
    expected = oracle.evaluate(spec, SHAPE, given)
    oracle.assert_same(call(spec, given | {"weight": given["weight"].copy()}, shape=SHAPE), expected)


def test_negative_and_nan_are_spikes(spec, rng):
    given = problem(spec, rng)
    given["spike"] = np.where(given["spike"], [np.nan, -1.0] * (given["spike"].size // 2), -0.0)
    expected = oracle.evaluate(spec, SHAPE, given)
    oracle.assert_same(call(spec, given | {"weight": given["weight"].copy()}, shape=SHAPE), expected)


def strided(x):
    out = np.repeat(x, 2)[::2]
    assert not out.flags.c_contiguous
    return out


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    out = memory[1:].view(x.dtype)
    out[...] = x
    return out


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "strided": strided, "reversed": lambda x: x[::-1].copy()[::-1], "misaligned": misaligned, "read-only": read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()), "shared": Shared,
    "shared before DLPack 1.0": lambda x: Shared(x, versioned=False), "shared strided": lambda x: Shared(strided(x)),
    "shared read-only": lambda x: Shared(x, flags=READ_ONLY), "of JAX": jnp.asarray,
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_that_are_only_read_may_lie_in_memory_as_they_like(spec, rng, layout):
    given = problem(spec, rng)
    if spec.kind == "update":
        given |= {"w_min": np.full(NSE, -1, np.float32), "gain": rng.uniform(-1, 1, given["spike"].size).astype("f4")}
    expected = oracle.evaluate(spec, SHAPE, given)
    laid_out = {name: LAYOUTS[layout](x) for name, x in given.items()}
    if spec.kind == "update":
        laid_out["weight"] = given["weight"]
    oracle.assert_same(call(spec, laid_out, shape=SHAPE), expected)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_of_another_library_is_changed(spec, rng, dtype, versioned):
    given = problem(spec, rng, dtype)
    expected = oracle.evaluate(spec, SHAPE, given)
    if spec.kind == "update":
        memory = given["weight"]
        shared = given["weight"] = Shared(memory, versioned=versioned)
        assert call(spec, given, shape=SHAPE) is shared
    else:
        memory = np.empty(expected.shape, expected.dtype)
        shared = Shared(memory, versioned=versioned)
        assert call(spec, given, shape=SHAPE, out=shared) is shared
    oracle.assert_same(memory, expected)
    assert shared.exported == shared.freed > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_pytorch(spec, rng, dtype):
    torch = pytest.importorskip("torch")
    given = problem(spec, rng, dtype, ("i8", "i4", "i8"))
    expected = oracle.evaluate(spec, SHAPE, given)
    tensors = {name: torch.tensor(x.astype("f4" if dtype == "bfloat16" and name == "weight" else x.dtype))
               for name, x in given.items()}  # fmt: skip
    tensors["weight"] = tensors["weight"].to(getattr(torch, dtype))
    assert tensors["spike"].dtype == torch.bool
    if spec.kind == "update":
        out = call(spec, tensors | {"w_min": torch.tensor(-5.0)}, shape=SHAPE)
        assert out is tensors["weight"]
    else:
        out = torch.empty(len(expected), dtype=tensors["weight"].dtype)
        assert call(spec, tensors, shape=SHAPE, out=out) is out
    oracle.assert_same(out.to(torch.float64).numpy(), expected.astype(np.float64))
    changed = "weight" if spec.kind == "update" else "spike"
    with pytest.raises(TypeError, match=rf"{spec.public_name(changed)}: got Tensor, .*detach\(\)"):
        call(spec, tensors | {changed: torch.ones(len(tensors[changed]), requires_grad=True)}, shape=SHAPE)


def test_memory_is_given_back_after_an_error_too(spec, rng):
    given = problem(spec, rng)
    given["spike"][:] = True
    given["indices"][3] = 1000
    shared = {name: Shared(x) for name, x in given.items()}
    with pytest.raises(IndexError):
        call(spec, shared, shape=SHAPE)
    with pytest.raises(hebbax.ShapeError):
        call(spec, shared | {"spike": Shared(np.ones(1, bool))}, shape=SHAPE)
    assert all(x.exported == x.freed > 0 for x in shared.values())


# -- what is refused


def changed(spec, given, x):
    """Operands and options of a call that is to change `x`."""
    return (given | {"weight": x}, {}) if spec.kind == "update" else (given, {"out": x})


def target_of(spec, given):
    dtype = given["weight"].dtype
    return given["weight"].copy() if spec.kind == "update" else np.zeros(spec.sizes(SHAPE)[1], dtype)


TARGETS = {
    "read-only": (read_only, ValueError, "read-only"),
    "broadcast": (lambda x: np.broadcast_to(np.float32(1), x.shape), ValueError, "read-only"),
    "shared read-only": (lambda x: Shared(x, flags=READ_ONLY), ValueError, "read-only"),
    "of JAX": (jnp.asarray, TypeError, "JAX array.*numpy.array.*hebbax.{function}"),
    "strided": (strided, ValueError, r"not contiguous \(strides \(8,\)"),
    "shared strided": (lambda x: Shared(strided(x)), ValueError, "not contiguous"),
    "reversed": (lambda x: x[::-1], ValueError, r"not contiguous \(strides \(-4,\)"),
    "misaligned": (misaligned, ValueError, "not aligned"),
    "byte-swapped": (lambda x: x.astype(">f4"), TypeError, ">f4"),
    "integers": (lambda x: x.astype("i4"), TypeError, "int32"),
    "complex": (lambda x: Shared(x.astype("c8")), TypeError, "complex64"),
    "a list": (list, TypeError, "list"),
    "a quantity": (lambda x: x * u.mV, TypeError, r"quantity of unit mV.*\.to\(unit\)\.mantissa"),
    "a number": (lambda x: 1.0, TypeError, "float, expected a writable array"),
    "a scalar": (lambda x: np.float32(1), TypeError, "float32, expected a writable array"),
    "two-dimensional": (lambda x: x[None], hebbax.ShapeError, r"\(1, \d+\)"),
    "too long": (lambda x: np.append(x, x), hebbax.ShapeError, "expected"),
    "on a GPU": (lambda x: Shared(x, device_type=10), (NotImplementedError, ValueError), r"Shared on a.*device"),
    "of the next DLPack": (lambda x: Shared(x, version=(2, 0)), TypeError, "version 2 of DLPack"),
    "8-bit floats": (lambda x: Shared(x, code=10, bits=8), TypeError, "type 10 of 8 bits"),
    "vectors": (lambda x: Shared(x, lanes=2), TypeError, "NumPy"),
}  # fmt: skip


@pytest.mark.parametrize("what", TARGETS)
def test_what_is_to_be_changed_must_be_writable_memory(spec, rng, what):
    make, error, words = TARGETS[what]
    given = problem(spec, rng)
    target = make(target_of(spec, given))
    before = None if isinstance(target, Shared) else np.array(getattr(target, "mantissa", target))
    operands, options = changed(spec, given, target)
    name = "weight" if spec.kind == "update" else "out"
    with pytest.raises(error, match=f"^{name}: got .*{words.format(function=spec.name)}"):
        call(spec, operands, shape=SHAPE, **options)
    assert before is None or np.array_equal(np.array(getattr(target, "mantissa", target)), before)


def test_out_has_the_dtype_of_the_weight(propagate, rng):
    given = problem(propagate, rng, "float16")
    with pytest.raises(TypeError, match="out: got dtype float32, expected that of weight, float16"):
        call(propagate, given, shape=SHAPE, out=np.zeros(propagate.sizes(SHAPE)[1], np.float32))


def in_one_memory(first, second, apart):
    """Copies of two arrays in the same memory, the second right behind the first, less `apart` elements of its own."""
    memory = np.zeros(first.nbytes + second.nbytes + 64, np.uint8)
    start = first.nbytes - first.nbytes % -second.itemsize - apart * second.itemsize
    start = max(start, 0)
    first_view, second_view = memory[: first.nbytes], memory[start : start + second.nbytes]
    second_view.view(second.dtype)[...] = second
    first_view.view(first.dtype)[...] = first
    return first_view.view(first.dtype), second_view.view(second.dtype)


@pytest.mark.parametrize("share", [lambda x: x, Shared])
def test_memory_that_overlaps_is_refused_and_neighbours_are_not(spec, share, rng):
    what, given = "out", problem(spec, rng)
    if spec.kind == "update":
        what = "weight"
        given |= {"gain": np.ones(given["spike"].size), "w_min": np.full(NSE, -2.0), "w_max": np.full(NSE, 2.0)}
    expected = oracle.evaluate(spec, SHAPE, given)
    for name in [name for name in given if name != what]:
        target, other = in_one_memory(target_of(spec, given), given[name], 0)
        operands, options = changed(spec, given | {name: share(other)}, share(target))
        call(spec, operands, shape=SHAPE, **options)
        oracle.assert_same(target, expected)
        for apart in (1, given[name].size):
            target, other = in_one_memory(target_of(spec, given), given[name], apart)
            operands, options = changed(spec, given | {name: share(other)}, share(target))
            with pytest.raises(ValueError, match=f"^{what}: .*overlaps that of {spec.public_name(name)}"):
                call(spec, operands, shape=SHAPE, **options)


def test_operands_are_checked_as_by_the_jax_functions(spec):
    """The errors of error_cases.py, but that units are refused, and that 64-bit integers are no trouble."""
    for operand, x, error, words in error_cases.wrong_operands(spec):
        if error is OverflowError or "key<fry>" in words:
            continue
        if error is error_cases.UnitMismatch:
            error, words = TypeError, ["quantity", *words]
        if operand == "weight" and spec.kind == "update" and np.isscalar(x):
            error, words = TypeError, ["float32"]
        words = [word for word in words if word != "jax.vmap"]
        given = error_cases.correct(spec, **{operand: x})
        wrong = error_cases.wrong_message(
            lambda given=given: call(spec, given, shape=error_cases.SHAPE), error, [spec.public_name(operand), *words]
        )
        assert wrong is None, (operand, x)


def test_options_are_checked_as_by_the_jax_functions(spec):
    given = error_cases.correct(spec)
    for name, options, error, words in error_cases.wrong_options(spec):
        if name != "backend":
            options = {"shape": error_cases.SHAPE} | options
            assert error_cases.wrong_message(lambda o=options: call(spec, given, **o), error, words) is None, options
    for name in ("backend", "after"):
        with pytest.raises(TypeError, match=name):
            call(spec, given, shape=error_cases.SHAPE, **{name: None})


def test_bounds_are_checked_as_by_the_jax_functions(update):
    given = error_cases.correct(update)
    for options, error, words in error_cases.wrong_soft_bounds():
        function = lambda o=options: call(update, given | o, shape=error_cases.SHAPE)  # noqa: E731
        assert error_cases.wrong_message(function, error, words) is None, options
    for low, high in ((1, 0.5), (np.float32(1), -1), (np.array(2.0), np.float64(1))):
        with pytest.raises(ValueError, match=r"^w_min: got .* expected at most w_max"):
            call(update, given | {"w_min": low, "w_max": high}, shape=error_cases.SHAPE)
    for low, high in ((-np.inf, 1.0), (0, np.float32(np.inf))):
        with pytest.raises(ValueError, match="expected a finite bound"):
            call(update, given | {"w_min": low, "w_max": high}, shape=error_cases.SHAPE, soft_bound="upper")


def test_unsigned_indices_that_would_come_out_negative_are_refused(spec, rng):
    for name in ("indices", "indptr", *(("weight_indices",) if spec.permuted else ())):
        given = problem(spec, rng)
        given[name] = given[name].astype(np.uint64)
        given[name][-1] = 2**64 - 1
        with pytest.raises(OverflowError, match=rf"^{name}: got {2**64 - 1}, .*int64"):
            call(spec, given, shape=SHAPE)


# -- indices out of range, threads, and no JAX


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_child_reports_every_index_out_of_range(threads):
    """In a child, for a crash would take pytest along."""
    command = [sys.executable, out_of_range.__file__, "inplace", str(threads)]
    child = subprocess.run(command, capture_output=True, text=True)
    *lines, last = child.stdout.splitlines()
    assert child.returncode >= 0, f"killed by signal {-child.returncode} in: {last}"
    assert [line for line in lines if not line.endswith((": reported", ": nothing to report"))] == [], child.stderr
    assert last == "now uncaught" and len(lines) > 700
    assert child.returncode == 1 and "IndexError: " in child.stderr and "indices[0] = -1" in child.stderr


def large_problem(spec, rng):
    network = random_network(rng, (2000, 3000), 600_000, sorted_rows=True)
    return network, operands(spec, rng, network)


def test_several_threads_call_at_once(spec, rng, threads):
    network, given = large_problem(spec, rng)
    inputs = [
        given | {"weight": given["weight"].copy(), "spike": rng.random(given["spike"].size) < 0.5} for _ in range(8)
    ]
    threads(1)
    expected = [np.array(call(spec, x | {"weight": x["weight"].copy()}, shape=network.shape)) for x in inputs]
    assert not np.array_equal(expected[0], expected[1])
    threads(2)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: call(spec, x, shape=network.shape), inputs))
    for result, wanted in zip(results, expected, strict=True):
        assert result.tobytes() == wanted.tobytes()


def test_the_kernel_runs_without_the_gil(update, rng, threads):
    """With turns of an hour, another Python thread runs before the calls have ended only if that lets go of the GIL.

    What is called is the kernel, for NumPy too lets go of it now and then.
    """
    threads(1)
    _, given = large_problem(update, rng)
    given |= {"spike": np.ones_like(given["spike"])}
    given |= {name: np.full(1, bound, np.float32) for name, bound in (("w_min", -9), ("w_max", 9))}
    arguments = given["weight"], *(given.get(name) for name in update.operands)
    attributes = lowering.attributes(update, soft_bound="upper", mu=0.3)  # powers: a long call
    kernel, events, begun = _cpu.kernels()["update"], [], threading.Event()

    def work():
        begun.set()
        for _ in range(100):  # (a busy machine may take its time to wake the other thread)
            kernel(*arguments, **attributes)
        events.append("the calls end")

    before = sys.getswitchinterval()
    worker = threading.Thread(target=work)
    sys.setswitchinterval(3600)
    try:
        worker.start()
        begun.wait()
        events.append("the other thread runs")
        worker.join()
    finally:
        sys.setswitchinterval(before)
    assert events == ["the other thread runs", "the calls end"]


CHILD = """
import numpy as np, hebbax
weight, spike = np.array([0.5, 0.3, 0.8, 0.2]), np.array([1.0, 0.0], np.float32)
structure = np.array([0, 1, 0, 1], np.uint8), np.array([0, 2, 4])
hebbax.inplace.update_csr_on_binary_pre(weight, *structure, spike, spike, 0, 0.75, shape=(2, 2), gain=0.5,
                                        soft_bound="upper")
hebbax.inplace.update_csr_on_binary_post(weight, *structure, np.array([0, 2, 1, 3]), spike, spike, shape=(2, 2))
sums = hebbax.inplace.propagate_csr_on_binary_pre(weight.astype(np.float16), *structure, spike, shape=(2, 2))
"""


def test_nothing_is_computed_by_jax():
    """Whoever computes anything with JAX here gets an error, as in the end."""
    code = CHILD + "print(weight.dtype, sums.dtype, flush=True)\nimport jax.numpy as jnp; jnp.zeros(1)"
    environment = os.environ | {"JAX_PLATFORMS": "no_such_platform"}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert child.stdout.split() == ["float64", "float16"], child.stderr
    assert "no_such_platform" in child.stderr


@pytest.mark.parametrize("n", [7, 8, 31, 32, 33, 40, 100])
def test_a_single_spike_is_found_wherever_it_is(n):
    """Kernels pass over silent neurons by the dozen; each neuron has one synapse, to a partner of its own."""
    weight, indptr, indices = np.arange(1.0, n + 1), np.arange(n + 1), np.arange(n)[::-1].copy()
    for j in range(n):
        spike = np.arange(n) == j
        sums = hebbax.inplace.propagate_csr_on_binary_pre(weight, indices, indptr, spike, shape=(n, n))
        np.testing.assert_array_equal(sums, np.where(np.arange(n) == n - 1 - j, j + 1, 0))
        updated = hebbax.inplace.update_csr_on_binary_pre(weight.copy(), indices, indptr, spike, weight, shape=(n, n))
        np.testing.assert_array_equal(updated, np.where(spike, n + 1, weight))
