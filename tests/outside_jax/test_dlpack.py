"""DLPack: the JAX functions take arrays of any library, and the kernels' door through Python lets nothing wrong in."""

import jax
import numpy as np
import pytest

import hebbax
import oracle
from hebbax import _cpu, operators
from hebbax._core import lowering, unitless
from problems import DTYPES, call, enable_x64, operands, random_network
from sharing import READ_ONLY, Shared, aligned

SHAPE, NSE = (20, 30), 150


def problem(spec, rng, dtype="float32", **structure):
    return operands(spec, rng, random_network(rng, SHAPE, NSE), DTYPES[dtype], **structure)


def shared(given, **options):
    return {name: Shared(aligned(x), **options) for name, x in given.items()}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_any_library_are_taken(spec, rng, backend, dtype, versioned):
    given = problem(spec, rng, dtype)
    with enable_x64(True):
        expected = np.asarray(call(spec, given, shape=SHAPE, backend=backend))
        out = np.asarray(call(spec, shared(given, versioned=versioned), shape=SHAPE, backend=backend))
    assert out.dtype == DTYPES[dtype] and out.tobytes() == expected.tobytes()


def test_no_copy_is_made_where_the_layout_allows(spec, rng, monkeypatch):
    taken = {}
    compiled = operators._compiled

    def spy(x, static):
        taken.update(zip(spec.parameters, x, strict=True))
        return compiled(x, static)

    monkeypatch.setattr(operators, "_compiled", spy)
    given = shared(problem(spec, rng))
    expected = oracle.evaluate(spec, SHAPE, {name: x.array.copy() for name, x in given.items()})
    oracle.assert_close(call(spec, given, shape=SHAPE), expected)
    for name, x in given.items():
        assert taken[name].unsafe_buffer_pointer() == x.array.ctypes.data, name


@pytest.mark.parametrize(
    "x",
    [
        Shared(aligned(np.arange(12.0, dtype=np.float32))[::2]), Shared(aligned(np.arange(12, dtype=np.int32))[::-1]),
        Shared(aligned(np.arange(12.0, dtype=np.float32))[1:]), Shared(aligned(np.arange(12.0))),
        Shared(aligned(np.arange(12))), Shared(aligned(np.arange(12, dtype=np.uint64))),
        Shared(aligned(np.arange(12.0, dtype=np.float32)), flags=READ_ONLY), Shared(np.array(3.0, np.float32)),
        Shared(np.zeros(0, np.float32)),
    ],
    ids=["strided", "reversed", "misaligned", "float64", "int64", "uint64", "read-only", "scalar", "empty"],
)  # fmt: skip
def test_what_jax_cannot_use_as_it_is_is_copied(x):
    out = unitless.check_host_array("weight", x)
    np.testing.assert_array_equal(out, x.array)


def test_arrays_of_the_host_go_where_numpys_go(monkeypatch):
    """JAX would keep them on the CPU, and with them all that is computed from them."""
    x = Shared(aligned(np.arange(12.0, dtype=np.float32)))
    assert isinstance(unitless.check_host_array("weight", x), jax.Array)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    out = unitless.check_host_array("weight", x)
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, x.array)


def test_64_bit_integers_are_checked_before_jax_truncates_them(spec, rng):
    given = problem(spec, rng, index_dtype=np.int64)
    expected = call(spec, given, shape=SHAPE)
    np.testing.assert_array_equal(call(spec, shared(given), shape=SHAPE), expected)
    given["indices"][-1] = 2**32
    with pytest.raises(OverflowError, match=rf"^indices: .*{2**32}.*jax_enable_x64"):
        call(spec, shared(given), shape=SHAPE)


def test_64_bit_integers_that_the_host_cannot_read_are_checked_too(monkeypatch):
    """JAX takes these, from a device's memory; here it is the host's after all."""
    monkeypatch.setattr(_cpu, "can_view", lambda x: False)
    x = Shared(aligned(np.arange(12)))
    out = unitless.check_host_array("indices", x)
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, x.array)
    x.array[3] = 2**32
    with pytest.raises(OverflowError, match=rf"^indices: .*{2**32}"):
        unitless.check_host_array("indices", x)


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (lambda x: Shared(x, device_type=2), TypeError, "which JAX cannot take"),
        (lambda x: Shared(x, code=9), TypeError, "type 9"),
        (lambda x: Shared(x, version=(2, 0)), TypeError, "version 2"),
        (lambda x: Shared(x.astype(np.complex64)), TypeError, "complex64"),
        (lambda x: Shared(x[None]), hebbax.ShapeError, r"\(1, \d+\)"),
    ],
)
def test_errors_name_the_argument(spec, rng, wrong, error, words):
    given = problem(spec, rng)
    for name in spec.arguments:
        with pytest.raises(error, match=f"^{spec.public_name(name)}: got .*{words}"):
            call(spec, given | {name: wrong(given[name])}, shape=SHAPE)


def test_methods_of_synapses_take_them_too(synapses, rng):
    weight, spike, trace = np.ones(5, np.float32), np.array([True, False, True]), np.ones(4, np.float32)
    expected = synapses.update_on_pre(weight, spike, trace)
    out = synapses.update_on_pre(Shared(weight), Shared(spike), Shared(trace), w_min=Shared(np.array(0, np.float32)))
    np.testing.assert_array_equal(out, expected)


def test_tensors_of_pytorch(spec, rng):
    torch = pytest.importorskip("torch")
    given = problem(spec, rng, index_dtype=np.int64)
    expected = call(spec, given, shape=SHAPE)
    tensors = {name: torch.tensor(x) for name, x in given.items()}
    np.testing.assert_array_equal(call(spec, tensors, shape=SHAPE), expected)
    out = call(spec, tensors | {"weight": tensors["weight"].to(torch.bfloat16)}, shape=SHAPE)
    assert out.dtype == DTYPES["bfloat16"]
    with pytest.raises(TypeError, match=r"^weight: got Tensor, .*detach\(\)"):
        call(spec, tensors | {"weight": tensors["weight"].requires_grad_()}, shape=SHAPE)


# -- the door


def enter(spec, given, result=None):
    """Call the kernel as nobody should: without any of the checks in Python."""
    if result is None:
        size = spec.sizes(SHAPE)[1]
        result = given["weight"].copy() if spec.kind == "update" else np.zeros(size, np.float32)
    arguments = [given.get(name) for name in spec.operands]
    _cpu.kernels()[spec.kind](result, *arguments, **lowering.attributes(spec, clip_all=True))
    return result


def wrong_operands(given, spec):
    """(name, a value that would make a kernel leave a buffer, or take one for what it is not)"""
    fine = [(spec.kind, spec.permuted, "indptr", np.int64), (spec.kind, False, "indices", np.int64)]
    fine.append(("propagate", spec.permuted, "weight", np.float16))
    for name, x in given.items():
        if name != "trace":  # whose size is what indices are held to
            yield name, x[:-1]
            yield name, np.append(x, x)
        yield name, x[::-1]
        yield name, x[None]
        yield name, x[:1].reshape(())
        yield name, None
        yield name, Shared(x, device_type=2)
        yield name, Shared(x, lanes=2)
        yield name, Shared(x, bits=4)
        yield name, Shared(x[::-1])
        for dtype in (np.int8, np.int16, np.uint32, np.uint64, np.complex64, "S4", object):
            yield name, x.astype(dtype)
        for dtype in (bool, np.int32, np.int64, np.float16, np.float32, np.float64):
            if x.dtype != dtype and (spec.kind, spec.permuted, name, dtype) not in fine:
                yield name, x.astype(dtype)
    if spec.kind == "update":
        for name, n in (("gain", given["spike"].size), ("w_min", NSE), ("w_max", NSE)):
            for size in (2, n - 1, n + 1):
                yield name, np.ones(size, np.float32)
            yield name, np.ones(n)
            yield name, np.ones(n, np.int32)


def test_the_door_lets_in_what_is_right(spec, rng):
    given = problem(spec, rng)
    extra = {"gain": np.ones(1, np.float32), "w_min": np.full(NSE, -1, np.float32)} if spec.kind == "update" else {}
    expected = oracle.evaluate(spec, SHAPE, given | {name: x if x.size > 1 else x[0] for name, x in extra.items()})
    oracle.assert_same(enter(spec, given | extra), expected)


def test_the_door_lets_nothing_wrong_in(spec, rng):
    given = problem(spec, rng)
    result = enter(spec, given)
    for name, wrong in wrong_operands(given, spec):
        with pytest.raises((TypeError, ValueError, BufferError)):
            enter(spec, given | {name: wrong}, result)
    wrong_results = [
        result[::-1],
        np.zeros((), result.dtype),
        result.astype(np.float64),
        Shared(result, flags=READ_ONLY),
    ]
    wrong_results += [result[:-1]] * (spec.kind == "update")  # (of sums, the size is what indices are held to)
    for wrong in wrong_results:
        with pytest.raises((TypeError, ValueError, BufferError)):
            enter(spec, given, wrong)


def test_the_door_of_sums_over_rows(update, rng):
    """Which have an element for each neuron that may spike, and whose traces and results are in single precision."""
    given, collect = problem(update, rng), update.like("collect")
    size = given["spike"].size
    assert enter(collect, given, np.zeros(size, np.float32)).any()
    for wrong in (np.zeros(size - 1, np.float32), np.zeros(size + 1, np.float32), np.zeros(size)):
        with pytest.raises(ValueError, match=r"^result "):
            enter(collect, given, wrong)
    with pytest.raises(ValueError, match=r"^trace "):
        enter(collect, given | {"trace": given["trace"].astype(np.float64)}, np.zeros(size, np.float32))


def test_the_door_counts_operands(spec, rng):
    given = problem(spec, rng)
    kernel, attributes = _cpu.kernels()[spec.kind], lowering.attributes(spec)
    with pytest.raises(TypeError, match="operands, expected"):
        kernel(given["weight"], *list(given.values())[:4], **attributes)
    with pytest.raises(TypeError):
        kernel(None, *(given.get(name) for name in spec.operands), **attributes)
