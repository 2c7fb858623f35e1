"""Weights in CSC order: the functions of this family do what those for CSR order do to the same synapses."""

import inspect

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import error_cases
import hebbax
import oracle
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from problems import DTYPES, INDEX_ERRORS, call, enable_x64, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (20, 30)
EVENTS = {"pre": (hebbax.update_csc_on_binary_pre, UPDATE_PRE), "post": (hebbax.update_csc_on_binary_post, UPDATE_POST)}
PER_SYNAPSE = ("weight", "w_min", "w_max")


@pytest.fixture(params=EVENTS)
def event(request):
    return request.param


@pytest.fixture
def network(rng):
    """With pairs that are connected twice, and a column's synapses in any order."""
    network = random_network(rng, SHAPE, 250)
    assert len(set(zip(network.pre, network.post, strict=True))) < network.nse
    return network


def csc_structure(network):
    """`indices` and `indptr` of the columns."""
    structure = network.structure(UPDATE_POST)
    return {name: structure[name] for name in ("indices", "indptr")}


def in_csc_order(network, x):
    return x if np.ndim(x) == 0 else x[network.csc_order]


def problem(event, network, rng, dtype=np.float32, **more):
    """Operands of the CSR function with those `more`, and of the CSC one."""
    csr = operands(EVENTS[event][1], rng, network, dtype) | more
    csc = {name: x for name, x in csr.items() if name not in ("indices", "indptr", "weight_indices")}
    csc |= {name: in_csc_order(network, csc[name]) for name in PER_SYNAPSE if name in csc}
    return csr, csc | csc_structure(network)


def call_csc(event, given, **options):
    function, spec = EVENTS[event]
    return function(**{spec.public_name(name): x for name, x in given.items()}, **options)


def test_the_default_backend_is_that_of_the_operator_whose_kernel_runs(event, network, rng, set_default):
    other = {"post": UPDATE_PRE, "pre": UPDATE_POST}[event]

    def custom_calls():
        given = problem(event, network, rng)[1]
        return jax.jit(lambda w: call_csc(event, given | {"weight": w}, shape=SHAPE)).lower(given["weight"]).as_text()

    assert "hebbax_update" in custom_calls()
    set_default(other, "jax")
    assert "hebbax_update" not in custom_calls()


def same(backend, out, expected):
    """Bit for bit, but where XLA may fuse a product with a sum in one program and not in the other."""
    if backend == "jax":
        oracle.assert_close(out, expected)
    else:
        np.testing.assert_array_equal(np.asarray(out), np.asarray(expected), strict=True)


def scalar_bounds(rng, network, n_event):
    return {"w_min": -1.0, "w_max": np.float32(1.25)}


def bounds_in_arrays(rng, network, n_event):
    low, high = rng.uniform(-1.5, 0, network.nse), rng.uniform(0.25, 1.5, network.nse)
    return {"w_min": low.astype(np.float32), "w_max": high.astype(np.float32)}


def everything(rng, network, n_event):
    return bounds_in_arrays(rng, network, n_event) | {"gain": rng.uniform(-2, 2, n_event).astype(np.float32)}


MORE = {
    "nothing": (lambda *_: {}, {}),
    "scalar bounds": (scalar_bounds, {}),
    "arrays": (bounds_in_arrays, {}),
    "promise": (scalar_bounds, {"weight_in_bounds": True}),
    "gain": (everything, {}),
    "scalar gain": (lambda *_: {"gain": -0.5, "w_max": 1.0}, {}),
    "soft bound": (scalar_bounds, {"soft_bound": "upper"}),
    "soft bound, everything": (everything, {"soft_bound": "lower", "mu": 0.5, "weight_in_bounds": True}),
    "after": (lambda *_: {"after": (np.ones(3), {"current": 1.0 * u.mV})}, {}),
}


def test_signatures_are_those_of_the_family():
    """Positional as in brainevent, then what all of our updates take by name."""
    for event, (function, spec) in EVENTS.items():
        own, csr = (inspect.signature(f).parameters for f in (function, getattr(hebbax, spec.name)))
        middle = ["pre_trace", "post_spike"] if event == "post" else ["pre_spike", "post_trace"]
        positional = [name for name, x in own.items() if x.kind is x.POSITIONAL_OR_KEYWORD]
        assert positional == ["weight", "indices", "indptr", *middle, "w_min", "w_max"]
        named = {name: x.default for name, x in own.items() if x.kind is x.KEYWORD_ONLY}
        assert named == {name: x.default for name, x in csr.items() if x.kind is x.KEYWORD_ONLY}
        assert list(named)[:2] == ["shape", "backend"] and own["w_min"].default is own["w_max"].default is None


def test_worked_example(backend):
    """W = [[0.5, 0.25], [1.0, 0.125]], column by column, called by position."""
    weight, indices, indptr = np.array([0.5, 1.0, 0.25, 0.125], np.float32), np.array([0, 1, 0, 1]), np.array([0, 2, 4])
    one, values, options = np.array([True, False]), np.array([0.25, -0.125]), {"shape": (2, 2), "backend": backend}
    out = hebbax.update_csc_on_binary_post(weight, indices, indptr, values, one, 0.0, 0.875, **options)
    np.testing.assert_array_equal(out, [0.75, 0.875, 0.25, 0.125])
    out = hebbax.update_csc_on_binary_pre(weight, indices, indptr, one, values, None, 0.625, **options)
    np.testing.assert_array_equal(out, [0.625, 0.625, 0.125, 0.125])


@pytest.mark.together(2)
@pytest.mark.parametrize("sorted_rows", [False, True], ids=["unsorted", "sorted"])
@pytest.mark.parametrize("more", MORE)
def test_as_in_csr_order(event, rng, backend, more, sorted_rows):
    network = random_network(rng, SHAPE, 250, sorted_rows)
    function, options = MORE[more]
    n_event = EVENTS[event][1].sizes(SHAPE)[0]
    csr, csc = problem(event, network, rng, **function(rng, network, n_event))
    options = {"shape": SHAPE, "backend": backend} | options
    expected = np.asarray(call(EVENTS[event][1], csr, **options))
    out = call_csc(event, csc, **options)
    same(backend, out, expected[network.csc_order])
    assert not np.array_equal(out, csc["weight"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(event, network, rng, backend, dtype):
    csr, csc = problem(event, network, rng, DTYPES[dtype], w_min=-1.0)
    options = {"shape": SHAPE, "backend": backend}
    with enable_x64(True):
        expected, out = call(EVENTS[event][1], csr, **options), call_csc(event, csc, **options)
    assert out.dtype == DTYPES[dtype]
    same(backend, out, np.asarray(expected)[network.csc_order])


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("dtypes", [("int64", "int32"), ("int32", "int64"), ("uint8", "uint64"), ("uint32", "int16")])
def test_index_dtypes(event, network, rng, backend, dtypes, x64):
    _, csc = problem(event, network, rng)
    converted = csc | {name: csc[name].astype(dtype) for name, dtype in zip(("indices", "indptr"), dtypes, strict=True)}
    options = {"shape": SHAPE, "backend": backend}
    with enable_x64(x64):
        out, expected = call_csc(event, converted, **options), call_csc(event, csc, **options)
        same(backend, out, expected)
        traced = jax.jit(lambda x: call_csc(event, x, **options))(converted)
        same(backend, traced, expected)


def test_units(event, network, rng, backend):
    _, csc = problem(event, network, rng, w_min=-1.0, w_max=1.25)
    options = {"shape": SHAPE, "backend": backend, "soft_bound": "upper"}
    plain = call_csc(event, csc, **options)
    csc |= {"weight": csc["weight"] * u.nS, "trace": csc["trace"] * u.nS}
    out = call_csc(event, csc | {"w_min": -1.0 * u.nS, "w_max": 1.25e-3 * u.uS}, **options)
    assert out.unit == u.nS
    oracle.assert_close(out.mantissa, plain)  # 1.25e-3 is rounded, and the factor 1000 too
    with pytest.raises(u.UnitMismatchError, match="w_min"):
        call_csc(event, csc | {"w_min": -1.0, "w_max": 1.25 * u.nS}, **options)


def test_inside_jit_with_the_structure_a_constant_and_traced(event, network, rng, backend):
    n_event = EVENTS[event][1].sizes(SHAPE)[0]
    _, csc = problem(event, network, rng, **everything(rng, network, n_event))
    options = {"shape": SHAPE, "backend": backend, "soft_bound": "upper", "mu": 0.5}
    expected = call_csc(event, csc, **options)
    structure = {name: csc.pop(name) for name in ("indices", "indptr")}
    on_device = {name: jnp.asarray(x) for name, x in structure.items()}
    for constant in (structure, on_device):
        same(backend, call_csc(event, csc | constant, **options), expected)
        same(backend, jax.jit(lambda x, c=constant: call_csc(event, x | c, **options))(csc), expected)
    for name in structure:  # one of them traced
        mixed = jax.jit(lambda x, s, n=name: call_csc(event, x | structure | {n: s}, **options))
        same(backend, mixed(csc, structure[name]), expected)
    same(backend, jax.jit(lambda x, s: call_csc(event, x | s, **options))(csc, structure), expected)
    with jax.disable_jit():
        same(backend, jax.jit(lambda x, s: call_csc(event, x | s, **options))(csc, structure), expected)


def test_in_a_loop_the_structure_is_sorted_once(rng, backend):
    """A constant structure leaves no sorting in the program; a traced one is sorted there."""
    network = random_network(rng, SHAPE, 250)
    _, csc = problem("pre", network, rng)
    structure = {name: csc.pop(name) for name in ("indices", "indptr")}

    def run(weight, structure):
        def step(weight, _):
            given = csc | structure | {"weight": weight}
            return call_csc("pre", given, shape=SHAPE, backend=backend, w_max=1.0), None

        return jax.lax.scan(step, weight, length=3)[0]

    constant, traced = jax.jit(lambda weight: run(weight, structure)), jax.jit(run)
    same(backend, constant(csc["weight"]), traced(csc["weight"], structure))
    assert "stablehlo.sort" not in constant.lower(csc["weight"]).as_text()
    assert "stablehlo.sort" in traced.lower(csc["weight"], structure).as_text()


def test_vmap_is_a_loop(event, rng, backend):
    """Over weights and spikes, and over structures, which have the same number of synapses."""
    networks = [random_network(rng, SHAPE, 100) for _ in range(2)]
    problems = [problem(event, network, rng)[1] for network in networks]
    options = {"shape": SHAPE, "backend": backend, "w_max": 1.0}
    for names in (("weight", "spike"), ("weight", "indices", "indptr", "spike", "trace")):
        batch = {name: np.stack([given[name] for given in problems]) for name in names}
        out = jax.vmap(lambda x: call_csc(event, problems[0] | x, **options))(batch)
        for k in range(2):
            one = problems[0] | {name: x[k] for name, x in batch.items()}
            same(backend, out[k], call_csc(event, one, **options))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("shape, nse", [((0, 3), 0), ((3, 0), 0), ((0, 0), 0), ((3, 4), 0), ((1, 1), 1)])
def test_empty_networks(event, rng, backend, shape, nse, traced):
    network = random_network(rng, shape, nse)
    csr, csc = problem(event, network, rng, w_min=0.0, w_max=1.0)

    def function(given):
        return call_csc(event, given, shape=shape, backend=backend, soft_bound="upper")

    out = (jax.jit(function) if traced else function)(csc)
    expected = oracle.evaluate(EVENTS[event][1], shape, csr, soft_bound="upper")
    oracle.assert_close(out, expected[network.csc_order])


def test_more_synapses_than_either_side_has_neurons(event, rng, cpu_kernel, threads):
    """Large enough for every kernel to go parallel."""
    network = random_network(rng, (300, 400), 300_000)
    csr, csc = problem(event, network, rng, w_min=-1.0, w_max=1.0)
    options = {"shape": (300, 400), "backend": cpu_kernel, "soft_bound": "lower", "mu": 0.5}
    expected = np.asarray(call(EVENTS[event][1], csr, **options))[network.csc_order]
    for n in (1, 3):
        threads(n)
        np.testing.assert_array_equal(call_csc(event, csc, **options), expected)


# -- errors


def wrong_arguments(event):
    """(argument as the function calls it, value, error, words of the message)"""
    n_pre, n_post = SHAPE
    spike, trace = f"{event}_spike", f"{'pre' if event == 'post' else 'post'}_trace"
    n_event, n_other = (n_post, n_pre) if event == "post" else SHAPE
    Shape = hebbax.ShapeError
    yield spike, np.ones(n_event + 1, bool), Shape, [f"({n_event + 1},)", f"({n_event},)", str(SHAPE)]
    yield spike, np.ones(n_event, np.complex64), TypeError, ["complex64", "real"]
    yield trace, np.ones(n_other - 1), Shape, [f"({n_other - 1},)", f"({n_other},)", str(SHAPE)]
    yield trace, np.ones(n_other) * u.mV, u.UnitMismatchError, ["mV"]
    yield trace, None, TypeError, []
    yield "gain", np.ones(n_other), Shape, [f"({n_other},)", "a scalar", f"({n_event},)"]
    yield "weight", np.ones(251, np.float32), Shape, ["(251,)", "(250,)"]
    yield "weight", np.ones(1, np.float32), Shape, ["per-synapse", "250"]
    yield "weight", np.ones(250, np.int32), TypeError, ["int32", "float32"]
    yield "w_max", np.ones(20), Shape, ["(20,)", "scalar", "(250,)"]
    yield "indices", np.zeros((250, 1), np.int32), Shape, ["(250, 1)"]
    yield "indices", np.zeros(250, np.float32), TypeError, ["float32"]
    yield "indptr", np.zeros(n_pre + 1, np.int32), Shape, [f"({n_pre + 1},)", f"({n_post + 1},)", str(SHAPE)]
    yield "indptr", np.zeros(n_post + 1, np.float32), TypeError, ["float32"]
    yield "shape", (20,), Shape, ["(20,)", "(n_pre, n_post)"]
    yield "backend", "numba", ValueError, ["'numba'", "'jax'"]
    yield "soft_bound", "upper", ValueError, ["without w_max"]
    yield "mu", 0.5, ValueError, ["0.5", "soft_bound"]


WRONG = {
    f"{event}: {name} = {getattr(value, 'dtype', '')}{getattr(value, 'shape', value)}": (event, name, value, *expected)
    for event in EVENTS
    for name, value, *expected in wrong_arguments(event)
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_argument_as_this_function_calls_it(case):
    event, name, value, error, words = WRONG[case]
    rng = np.random.default_rng(0)
    _, csc = problem(event, random_network(rng, SHAPE, 250), rng)
    function, spec = EVENTS[event]
    given = {spec.public_name(operand): x for operand, x in csc.items()} | {"shape": SHAPE} | {name: value}
    assert error_cases.wrong_message(lambda: function(**given), error, [name, *words]) is None


@pytest.mark.parametrize("name, value", [
    ("weight", np.ones(251, np.float32)), ("weight", np.ones(250, np.int32)),
    ("indices", np.ones((250, 1), np.int32)), ("indices", np.ones(250, np.float32)),
    ("indptr", np.zeros(12, np.int32)), ("indptr", np.zeros(31, np.float32)), ("indptr", np.zeros((1, 31), np.int32)),
], ids=lambda x: x if isinstance(x, str) else f"{x.dtype}{x.shape}")  # fmt: skip
def test_errors_are_raised_while_tracing_too(event, rng, name, value):
    """Shapes and dtypes are known there, of a structure too."""
    _, csc = problem(event, random_network(rng, SHAPE, 250), rng)
    error = hebbax.ShapeError if np.issubdtype(value.dtype, np.integer) == (name != "weight") else TypeError
    with pytest.raises(error, match=rf"^{name}: got "):
        jax.eval_shape(lambda x: call_csc(event, x, shape=SHAPE), csc | {name: value})


@pytest.mark.parametrize("value", [-1, 20, 10**6])
def test_an_id_out_of_range_is_reported(event, rng, cpu_kernel, value):
    _, csc = problem(event, random_network(rng, SHAPE, 250), rng)
    csc |= {"spike": np.ones_like(csc["spike"]), "indices": csc["indices"].copy()}
    csc["indices"][77] = value
    for wrap in (lambda f: f, jax.jit):  # where the structure is a constant
        function = wrap(lambda weight: call_csc(event, csc | {"weight": weight}, shape=SHAPE, backend=cpu_kernel))
        with pytest.raises(INDEX_ERRORS, match=rf"indices\[77\]\D+{value}\b") as info:
            jax.block_until_ready(function(csc["weight"]))
        assert event == "pre" or f"update_csc_on_binary_{event}" in str(info.value)


@pytest.mark.parametrize("position, value", [(7, -1), (7, 251), (30, 251)])
def test_column_starts_out_of_range_are_reported(event, rng, cpu_kernel, position, value):
    _, csc = problem(event, random_network(rng, SHAPE, 250), rng)
    csc |= {"spike": np.ones_like(csc["spike"]), "indptr": csc["indptr"].copy()}
    csc["indptr"][position] = value
    with pytest.raises(INDEX_ERRORS, match=r"indptr\["):
        jax.block_until_ready(call_csc(event, csc, shape=SHAPE, backend=cpu_kernel))


def test_columns_that_leave_elements_out(event, rng, backend):
    """They belong to no synapse: skipped, or refused where the structure is looked at; never another column's."""
    network = random_network(rng, SHAPE, 250)
    _, csc = problem(event, network, rng)
    csc |= {"spike": np.ones_like(csc["spike"]), "trace": np.abs(csc["trace"]) + 1}
    whole, out_of_columns = call_csc(event, csc, shape=SHAPE, backend=backend), np.r_[:4, 240:250]
    csc["indptr"] = np.clip(csc["indptr"], 4, 240)
    expected = np.array(whole)
    expected[out_of_columns] = csc["weight"][out_of_columns]
    out = jax.jit(lambda x: call_csc(event, x, shape=SHAPE, backend=backend))(csc)
    np.testing.assert_array_equal(out, expected)
    if event == "pre":
        with pytest.raises(ValueError, match=r"^indptr\[0\]: got 4, expected 0"):
            call_csc(event, csc, shape=SHAPE, backend=backend)


def test_ids_out_of_range_are_skipped_where_the_structure_is_traced(rng, backend):
    """As the documentation says of this one function; other elements are updated, and none is read out of bounds."""
    network = random_network(rng, SHAPE, 250)
    _, csc = problem("pre", network, rng)
    csc["spike"] = np.ones_like(csc["spike"])
    whole = call_csc("pre", csc, shape=SHAPE, backend=backend)
    wrong = csc["indices"].copy()
    wrong[[3, 100, 249]] = -1, 20, np.iinfo(np.int32).max
    out = jax.jit(lambda x: call_csc("pre", x, shape=SHAPE, backend=backend))(csc | {"indices": wrong})
    expected = np.array(whole)
    expected[[3, 100, 249]] = csc["weight"][[3, 100, 249]]
    np.testing.assert_array_equal(out, expected)
