"""The host side of the CUDA backend: what is compiled, launched, on which stream and device, and what is said of lacks.

CuPy is played by `emulated`, which keeps a log.
"""

import contextlib
import mmap
import re
import sys
import warnings
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gpu_on_cpu
import hebbax
from hebbax._core import compat, lowering, memory
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from hebbax._cuda import launch, native
from hebbax._cuda.plan import FIELDS, expressions, plan_call
from problems import INDEX_ERRORS, PLATFORM, WHY_NO_CUPY, call, operands, random_network

if PLATFORM != "cpu" or WHY_NO_CUPY:
    pytest.skip(WHY_NO_CUPY or "on a GPU there is no stand-in", allow_module_level=True)
import cupy  # the stand-in

from emulated import GraphMemory, Launch, Load, machine
from emulated.machine import XLA_STREAM

SHAPE, NSE = (40, 50), 700
BOUNDS = {"w_min": -1.0, "w_max": 1.0}


@pytest.fixture
def given(spec, rng):
    return {name: jnp.array(x) for name, x in operands(spec, rng, random_network(rng, SHAPE, NSE)).items()}


@contextlib.contextmanager
def playing(**knobs):
    """Another machine for a while; its log is empty at first."""
    before = {name: getattr(machine, name) for name in knobs}
    vars(machine).update(knobs)
    machine.log.clear()
    try:
        yield machine.log
    finally:
        vars(machine).update(before)


def forget_what_is_loaded():
    native.forget()
    machine.loaded.clear()


@pytest.fixture(autouse=True)
def nothing_is_loaded():
    forget_what_is_loaded()
    launch.multiprocessors.cache_clear()
    memory._cuda_call.cache_clear()
    jax.clear_caches()


@pytest.fixture(params=["cupy", "callback"])
def way(request, monkeypatch):
    """The backends of CUDA; the name of the second one is for once not that of the CPU's."""
    monkeypatch.setitem(lowering._RUNNERS, "callback", lowering._call_back_on_cuda)
    yield request.param
    jax.clear_caches()


def kinds(log):
    return [x.name.split("<")[0] if isinstance(x, Launch) else type(x).__name__ for x in log]


def test_one_call_launches_these_kernels_on_the_stream_of_xla(spec, given, way):
    options = BOUNDS if spec.kind == "update" else {}
    with playing(multiprocessors=132) as log:
        out = call(spec, given, shape=SHAPE, backend=way, **options)
        np.testing.assert_allclose(out, call(spec, given, shape=SHAPE, backend="jax", **options), rtol=1e-6, atol=1e-6)
    loads, launched = log[:1], log[1:]
    assert kinds(loads) == ["Load"] and loads[0].options == ("--std=c++17", "--fmad=false")
    assert kinds(launched) == ["find_rows", *(["update", "clip"] if spec.kind == "update" else ["propagate"])]
    assert {(x.stream, x.device) for x in launched} == {(XLA_STREAM, 0)}
    kernel = launched[1]
    argument = kernel.argument[0]
    assert {x.block for x in launched} == {(256, 1, 1)}
    assert kernel.grid == (3, 1, 1)  # 700 elements at most, and 256 threads a block
    assert kernel.name == expressions(spec, "float32", "int32")[spec.kind]
    sizes = {name: int(argument[name]["size"]) for name in ("weight", "indices", "indptr", "spike", "trace", "w_min")}
    n_event, n_other = spec.sizes(SHAPE)
    bounded = spec.kind == "update"
    assert sizes == {
        "weight": NSE, "indices": NSE, "indptr": n_event + 1, "spike": n_event,
        "trace": n_other * bounded, "w_min": bounded,
    }  # fmt: skip
    assert argument["n_other"] == n_other and argument["members"] == argument["lists"] == 1
    in_place = argument["result"]["data"] == argument["weight"]["data"]
    assert in_place == bounded
    assert argument["zeroed"] == (0 if bounded else n_other)


def test_nothing_on_the_host_depends_on_the_spikes(spec, given):
    step = jax.jit(lambda spike: call(spec, given | {"spike": spike}, shape=SHAPE, backend="cupy"))
    logs = []
    for spike in (jnp.zeros_like(given["spike"]), jnp.ones_like(given["spike"]), given["spike"]):
        with playing() as log:
            step(spike).block_until_ready()
        launches = [x for x in log if not isinstance(x, Load)]
        logs.append([(x.name, x.grid) if isinstance(x, Launch) else x.size for x in launches])
    assert logs[0] == logs[1] == logs[2] and len(logs[0]) == 2


def test_everything_is_loaded_when_jax_lowers_so_that_a_graph_can_be_captured(spec, given, way):
    function = jax.jit(lambda given: call(spec, given, shape=SHAPE, backend=way))
    with playing() as log:
        compiled = function.lower(given).compile()
        assert kinds(log) == ["Load"]
    expected = call(spec, given, shape=SHAPE, backend="jax")
    with playing(capturing=XLA_STREAM) as log:
        out = compiled(given)
        np.testing.assert_array_equal(out, expected)
        assert "Load" not in kinds(log)
    forget_what_is_loaded()  # as if nothing had been loaded
    with playing(capturing=XLA_STREAM), pytest.raises(INDEX_ERRORS, match="capturing"):
        compiled(given).block_until_ready()


@pytest.mark.parametrize("name", [None, "callback"])
def test_what_runs_on_cuda_can_be_captured_in_a_graph(spec, given, name):
    """Our own handler says so of itself: see test_native.py."""
    function = jax.jit(lambda given: call(spec, given, shape=SHAPE, backend=name))
    text = function.trace(given).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla_buffer_python_gpu_callback_cmd_buffer" if name else f"@hebbax_cuda_{spec.kind}") == 1


def test_launches_are_on_the_device_of_xla(spec, given, way, monkeypatch):
    monkeypatch.setattr(lowering, "_device_numbers", lambda: [0, 1])
    with playing(devices=2, xla_device=1) as log:
        call(spec, given, shape=SHAPE, backend=way).block_until_ready()
    assert {x.device for x in log if not isinstance(x, Load)} == {1}


def test_a_compiler_that_fails_is_named(given, spec, monkeypatch):
    monkeypatch.setattr(launch, "source", lambda kind: "nonsense")
    with pytest.raises(RuntimeError, match=rf"the CUDA kernels .*{spec.kind}<.* on device 0 .*backend='jax'"):
        call(spec, given, shape=SHAPE, backend="cupy")


@pytest.mark.parametrize("n", [40, 3000, 70_000])
def test_rows_of_one_element_and_of_none(update, n):
    """Each warp looks at many; with 70 000 they are listed first, in tiles, and searched for in more than one round."""
    given = {
        "weight": np.zeros(n, "f4"), "indices": np.zeros(n, "i4"), "trace": np.ones(1, "f4"),
        "indptr": np.arange(2 * n + 1) // 2,  # every other row is empty
        "spike": np.ones(2 * n, bool),
    }  # fmt: skip
    if update.permuted:
        given["weight_indices"] = np.arange(n)[::-1].astype("i4")
    shape = (1, 2 * n) if update.event == "post" else (2 * n, 1)
    out = call(update, given, shape=shape, backend="cupy")
    np.testing.assert_array_equal(out, np.ones(n))


def test_kernels_are_loaded_on_every_device_that_jax_has(given, spec, monkeypatch):
    monkeypatch.setattr(lowering, "_device_numbers", lambda: [0, 2])
    with playing(devices=3) as log:
        jax.jit(lambda given: call(spec, given, shape=SHAPE, backend="cupy")).lower(given)
    assert [x.device for x in log] == [0, 2]


def test_inplace_runs_on_the_device_of_its_arrays_on_the_current_stream(spec, rng):
    given = operands(spec, rng, random_network(rng, SHAPE, NSE))
    function = getattr(hebbax.inplace, spec.name)
    with playing(devices=2) as log:
        with cupy.cuda.Device(1):
            there = {spec.public_name(name): cupy.asarray(x) for name, x in given.items()}
        function(**there, shape=SHAPE)
        assert {(x.device, x.stream) for x in log[1:]} == {(1, 0)}
        assert cupy.cuda.Device().id == 0
        log.clear()
        mine = SimpleNamespace(__cuda_stream__=lambda: (0, 77))
        with cupy.cuda.Device(1), cupy.cuda.Stream.from_external(mine):
            function(**there, shape=SHAPE)
        assert {(x.device, x.stream) for x in log} == {(1, 77)}
        there[spec.public_name("spike")] = cupy.asarray(given["spike"])
        with pytest.raises(
            ValueError, match=f"^{spec.public_name('spike')}: got a ndarray on device 0 .*CUDA device 1"
        ):
            function(**there, shape=SHAPE)


def test_inplace_in_a_graph_that_the_user_captures_has_memory_of_the_graph(spec, rng):
    given = operands(spec, rng, random_network(rng, SHAPE, NSE))
    there = {spec.public_name(name): cupy.asarray(x) for name, x in given.items()}
    out = {} if spec.kind == "update" else {"out": cupy.zeros(spec.sizes(SHAPE)[1], np.float32)}
    function = getattr(hebbax.inplace, spec.name)
    stream = cupy.cuda.Stream.from_external(SimpleNamespace(__cuda_stream__=lambda: (0, 77)))
    with playing(capturing=77) as log, stream:
        with pytest.raises(RuntimeError, match=f"^{spec.name}: .* not loaded on CUDA device 0 .* call it once before"):
            function(**there, **out, shape=SHAPE)
        assert not log  # nor was the capture spoilt
    function(**{name: x.copy() for name, x in there.items()}, **out, shape=SHAPE)  # loads
    with playing(capturing=77) as log, stream:
        result = function(**there, **out, shape=SHAPE)
        np.testing.assert_allclose(result.get(), call(spec, given, shape=SHAPE, backend="jax"), rtol=1e-6, atol=1e-6)
        taken, *launches, freed = log
        assert isinstance(taken, GraphMemory) and isinstance(freed, GraphMemory) and taken.ptr == freed.ptr
        assert {x.argument[0]["rows"]["data"] for x in launches if isinstance(x, Launch)} == {taken.ptr}
        name = spec.public_name("spike")
        with pytest.raises(ValueError, match=f"^{name}: got a ndarray of dtype float32 of which a copy .* dtype bool"):
            function(**there | {name: there[name].astype(np.float32)}, **out, shape=SHAPE)
        if spec.kind == "update":
            with pytest.raises(ValueError, match=r"^w_min: got a ndarray of dtype float64 of which a copy is needed"):
                function(**there, shape=SHAPE, w_min=0.5)
        else:
            half = there | {"weight": there["weight"].astype(np.float16)}
            with pytest.raises(ValueError, match=r"^out: got a ndarray of dtype float16 of which a copy is needed"):
                function(**half, shape=SHAPE)


def shapes_only(n_event, nse, n_other=1000, indptr="i4"):
    """Operands of `update_csr_on_binary_post` that take no memory."""
    shapes = {
        "weight": (nse,), "indices": (nse,), "indptr": (n_event + 1,), "weight_indices": (nse,), "spike": (n_event,),
        "trace": (n_other,),
    }  # fmt: skip
    dtypes = {"weight": "f4", "trace": "f4", "spike": "?", "indptr": indptr}
    return {name: np.broadcast_to(np.zeros((), dtypes.get(name, "i4")), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("rows, length", [(1, 10**6), (10**6, 10), (10**3, 10**3)])
def test_one_long_row_and_many_short_ones_fill_the_chip(rows, length):
    """The grid does; that its warps share out the elements of any rows is what the values show."""
    given = shapes_only(rows, rows * length)
    plan = plan_call(UPDATE_POST, given["weight"], given)
    *find, update = plan.launches
    assert update.grid(132) == (4 * 132, 1)
    assert [x.grid(132) for x in find] == [(245 if rows == 10**6 else 1, 1)]


@pytest.mark.parametrize("n", [1, 4096, 4097, 512 * 4096, 512 * 4096 + 1, 10**9])
def test_neurons_are_cut_into_tiles(n):
    """Into so few that every block can sum up what they have."""
    given = shapes_only(n, 2 * n)
    call = plan_call(UPDATE_POST, given["weight"], given).template[0]
    tiles, per_tile = int(call["tiles"]), int(call["per_tile"])
    assert (tiles - 1) * per_tile < n <= tiles * per_tile
    assert tiles <= 512 and per_tile % 4096 == 0


def test_kernels_are_those_of_the_sizes():
    def ways(kind="update", **sizes):
        given = shapes_only(**sizes)
        result = given["weight"] if kind == "update" else given["trace"]
        return [name.split(", ")[-1].strip(">") for name in plan_call(UPDATE_POST.like(kind), result, given).names]

    assert ways(n_event=32 * 1024, nse=10**6) == ["find_rows", "FLAT", "FLAT"]
    assert ways("propagate", n_event=10, nse=10) == ["find_rows", "FLAT"]
    for large in ({"nse": 2**31}, {"n_other": 2**31}, {"n_event": 2**31}):
        assert ways(**{"n_event": 10, "nse": 100} | large) == ["find_rows", "BATCHED", "BATCHED"]
        assert ways(**{"n_event": 10, "nse": 100} | dict.fromkeys(large, 2**31 - 2))[-1] == "FLAT"
    assert plan_call(UPDATE_POST, np.zeros(4, "f4"), shapes_only(3, 4, indptr="i8")).template[0]["wide"] == 1


@pytest.mark.slow
def test_slots_beyond_those_that_indices_can_number(rng):
    """More than 2^31 synapses (of which the system stores only those few that are touched) with int32 neurons."""
    nse, at = 2**31 + 2000, 2**31 + 500
    sparse = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)  # named since Python 3.13
    weight = np.frombuffer(mmap.mmap(-1, 2 * nse, flags=sparse), np.float16)
    given = {
        "weight": weight, "indices": np.frombuffer(mmap.mmap(-1, 4 * nse, flags=sparse), np.int32),
        "indptr": np.array([0, at, at + 400, nse]), "spike": np.array([False, True, False]),
        "trace": np.ones(1, np.float32),
    }  # fmt: skip
    there = {UPDATE_PRE.public_name(name): cupy.ndarray(x, 0) for name, x in given.items()}
    hebbax.inplace.update_csr_on_binary_pre(**there, shape=(3, 1))
    assert (weight[at : at + 400] == 1).all() and not weight[:2000].any() and not weight[-1000:].any()


@pytest.mark.parametrize("platforms", [["cuda"], ["cpu", "cuda"]])
def test_without_gpus_of_its_own_jax_lowers_plain_jax(spec, given, platforms, monkeypatch):
    if platforms == ["cuda"]:
        monkeypatch.setattr(lowering, "_device_numbers", gpu_on_cpu.DEVICE_NUMBERS)
    function = jax.jit(lambda given: call(spec, given, shape=SHAPE))
    assert "hebbax_cuda" not in function.trace(given).lower(lowering_platforms=tuple(platforms)).as_text()


def test_a_batch_has_a_row_of_blocks_for_each_member_and_lists_rows_once_where_spikes_are_shared():
    given = {
        "weight": np.zeros((3, 5, 200), "f4"), "indices": np.zeros(200, "i4"), "indptr": np.zeros(11, "i4"),
        "weight_indices": np.zeros(0, "i4"), "spike": np.zeros((1, 1, 10), bool), "trace": np.zeros((1, 5, 7), "f4"),
        "gain": np.zeros((3, 1, 10), "f4"), "w_min": np.zeros((1, 1, 0), "f4"),
    }  # fmt: skip
    plan = plan_call(UPDATE_PRE, given["weight"], given)
    assert [launch.grid(132) for launch in plan.launches] == [(1, 1), (1, 15)]
    call = plan.template[0]
    strides = {
        name: call["strides"][FIELDS.index(name), :2].tolist()
        for name in ("weight", "indices", "spike", "trace", "gain", "rows")
    }
    assert strides == {
        "weight": [5, 1], "indices": [0, 0], "spike": [0, 0], "trace": [0, 1], "gain": [1, 0], "rows": [0, 0],
    }  # fmt: skip
    assert (call["members"], call["lists"], call["rank"]) == (15, 1, 2)
    spiking = given | {"spike": np.zeros((3, 1, 10), bool)}
    plan = plan_call(UPDATE_PRE, given["weight"], spiking)
    assert [launch.grid(1) for launch in plan.launches] == [(1, 3), (1, 15)]
    assert plan.scratch == 3 * (16 + 24 * 10)  # one tile, and 10 neurons that may have rows


def test_a_batch_of_too_many_dimensions_is_refused():
    deep = np.zeros((1,) * 9 + (10,), "f4")
    with pytest.raises(NotImplementedError, match="batch of 9 dimensions, expected at most 8"):
        plan_call(UPDATE_POST, deep, shapes_only(10, 10) | {"weight": deep})


def test_nested_vmaps(spec, rng):
    given = operands(spec, rng, random_network(rng, SHAPE, 100))
    spikes = rng.random((2, 1, 3, 2, *given["spike"].shape)) < 0.5
    results = []
    for backend in ("cupy", "jax"):
        function = lambda spike, backend=backend: call(spec, given | {"spike": spike}, shape=SHAPE, backend=backend)  # noqa: E731
        for _ in range(4):
            function = jax.vmap(function)
        results.append(np.asarray(function(jnp.array(spikes))))
    np.testing.assert_array_equal(*results)


# -- what is said where something is missing


def without(monkeypatch, part, error=None, value=None):
    def fails(*_):
        if error:
            raise error
        return value

    monkeypatch.setattr(part[0], part[1], fails)


REASONS = {
    "no CuPy": (None, r"CuPy cannot be imported \(ModuleNotFoundError: .*cupy.*\): install hebbax\[cuda13\]"),
    "no driver": (
        lambda m: without(m, (cupy.cuda.runtime, "getDeviceCount"), RuntimeError("no driver\nat all")),
        r"there is no NVIDIA driver, or one that is too old for this CuPy \(RuntimeError: no driver\)",
    ),
    "no GPU": (lambda m: without(m, (cupy.cuda.runtime, "getDeviceCount"), value=0), "the CUDA driver finds no GPU"),
    "no compiler": (
        lambda m: without(m, (cupy.cuda.nvrtc, "getVersion"), RuntimeError("libnvrtc.so.13: not found")),
        r"CuPy finds no CUDA compiler, NVRTC \(RuntimeError: libnvrtc.so.13: not found\): install hebbax\[cuda13\]",
    ),
    "no headers": (
        lambda m: without(m, (sys.modules["cuda.pathfinder"], "find_nvidia_header_directory")),
        r"CuPy finds no CUDA headers, without which it compiles nothing: install hebbax\[cuda13\]",
    ),
}  # fmt: skip


@pytest.fixture(params=REASONS)
def lack(request, monkeypatch):
    """Something is missing; what is said of it."""
    change, reason = REASONS[request.param]
    if change is None:
        monkeypatch.setitem(sys.modules, "cupy", None)
    else:
        change(monkeypatch)
    launch.missing.cache_clear()
    lowering.best_backend.cache_clear()
    jax.clear_caches()
    yield reason
    monkeypatch.undo()
    launch.missing.cache_clear()
    lowering.best_backend.cache_clear()


def test_older_cupy_compiles_without_headers(monkeypatch):
    without(monkeypatch, (sys.modules["cuda.pathfinder"], "find_nvidia_header_directory"))
    monkeypatch.setattr(cupy, "__version__", "14.0.1")
    launch.missing.cache_clear()
    assert launch.missing() is None


def test_a_pathfinder_that_is_not_known_is_left_to_cupy(monkeypatch):
    monkeypatch.delattr(sys.modules["cuda.pathfinder"], "find_nvidia_header_directory")
    launch.missing.cache_clear()
    assert launch.missing() is None


@pytest.fixture
def no_plugin(monkeypatch):
    """JAX without its plugin for CUDA, as it is where only the CPU's was installed."""
    monkeypatch.setattr(compat, "entry_points", lambda group: [])
    monkeypatch.setattr(compat.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(lowering, "cuda_plugin_missing", compat.cuda_plugin_missing)
    for cached in (compat.cuda_plugin_missing, lowering.best_backend):
        cached.cache_clear()
    yield "JAX has no plugin for CUDA: install jax[cuda13] or jax[cuda12], whichever the driver supports"
    for cached in (compat.cuda_plugin_missing, lowering.best_backend):
        cached.cache_clear()


def test_a_missing_plugin_of_jax_is_named(no_plugin, spec, given):
    (entry,) = (backend for backend in hebbax.backends() if backend.name == "cupy")
    assert entry.missing == no_plugin
    with pytest.raises(ValueError, match=re.escape(f"'cupy' cannot be used: {no_plugin}")):
        call(spec, given, shape=SHAPE, backend="cupy")


def test_arrays_of_cupy_need_no_plugin_of_jax(no_plugin, spec, rng):
    given = operands(spec, rng, random_network(rng, SHAPE, NSE))
    there = {spec.public_name(name): cupy.asarray(x) for name, x in given.items()}
    with playing() as log:
        getattr(hebbax.inplace, spec.name)(**there, shape=SHAPE)
    assert spec.kind in kinds(log)


@pytest.mark.parametrize("found", ["entry point", "module"])
def test_a_plugin_of_jax_is_found(no_plugin, monkeypatch, tmp_path, found):
    if found == "entry point":
        entry = EntryPoint("xla_cuda13", "jax_plugins.xla_cuda13", "jax_plugins")
        monkeypatch.setattr(compat, "entry_points", lambda group: [entry] if group == "jax_plugins" else [])
    else:
        (tmp_path / "xla_cuda12").mkdir()
        (tmp_path / "xla_cuda12" / "__init__.py").touch()
        package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(compat.importlib.util, "find_spec", {"jax_plugins": package}.get)
    assert compat.cuda_plugin_missing() is None


@pytest.mark.together(1)
def test_a_lack_is_named_and_plain_jax_runs_with_one_warning(lack, spec, given):
    (entry,) = (backend for backend in hebbax.backends() if backend.name == "cupy")
    assert entry.missing and "\n" not in entry.missing
    operator = getattr(hebbax, f"{spec.name}_p")
    assert operator.available_backends("gpu") == ("jax",)

    def lower():
        function = jax.jit(lambda given: call(spec, given, shape=SHAPE))
        return function.trace(given).lower(lowering_platforms=("cuda",)).as_text()

    with pytest.warns(
        RuntimeWarning, match=f"'jax' runs on platform 'cuda' instead of 'cupy', which is faster: {lack}"
    ):
        assert "custom_call" not in lower()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lower()


@pytest.mark.together(1)
def test_a_backend_that_is_asked_for_and_cannot_run_is_an_error(lack, spec, given):
    with pytest.raises(ValueError, match=f"^backend: got 'cupy'.*'cupy' cannot be used: {lack}"):
        call(spec, given, shape=SHAPE, backend="cupy")


def test_inplace_says_why_it_cannot_run(lack, spec, rng):
    given = operands(spec, rng, random_network(rng, SHAPE, NSE))
    weight = cupy.asarray(given["weight"])
    arguments = {spec.public_name(name): x for name, x in given.items()} | {"weight": weight}
    with pytest.raises(RuntimeError, match=f"^weight: got a ndarray on a CUDA device, whose .*cannot be used: {lack}"):
        getattr(hebbax.inplace, spec.name)(**arguments, shape=SHAPE)
