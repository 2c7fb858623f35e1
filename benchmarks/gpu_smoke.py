"""Whether backend 'cupy' gives what backend 'jax' gives, and whether Python runs at a step."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gpu_stage import Cases, Options, Skipped, python_entries

import hebbax
import problems  # which, in a rehearsal, installs the stand-in for CuPy
from hebbax._core.specs import PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE, Spec
from problems import DTYPES, SPECS, call, enable_x64, operands, random_network

OURS, REFERENCE = "cupy", "jax"
SHAPE, NSE = (300, 200), 5000
BOUNDS = {"w_min": -1.0, "w_max": 1.0}
STEPS = 6


def cases(options: Options) -> Cases:
    for spec in SPECS:
        yield f"{spec.name}, eager", functools.partial(eager, spec)
    yield from loops(options)
    for dtype in ("float16", "bfloat16", "float64"):
        yield dtype, functools.partial(of_dtype, dtype)
    yield "int64 indices", int64
    yield "nothing there", empty
    yield "a batch", batch
    yield "hebbax.inplace", in_place
    yield "backend 'callback'", functools.partial(callback, options)


def loops(options: Options) -> Cases:
    """What differs where XLA captures calls in CUDA graphs."""
    for spec in SPECS:
        yield f"{spec.name}, scan", functools.partial(scan, options, spec)
    yield "n = 1 024, spikes scanned, sums stored", fused
    yield "n = 1 024, weights scanned", functools.partial(slices, of_scan)
    yield "n = 1 024, weights in rows of an array", functools.partial(slices, of_array)
    yield "from a new thread", other_thread


def problem(spec: Spec, dtype: str = "float32", shape=SHAPE, nse: int = NSE, **structure: Any) -> dict[str, jax.Array]:
    """Operands whose results are exact: sums, because they add up eighths."""
    rng = np.random.default_rng(2000)
    given = operands(spec, rng, random_network(rng, shape, nse), DTYPES[dtype], **structure)
    return {name: jnp.asarray(x) for name, x in given.items()}


def same(got: Any, wanted: Any) -> None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        x, y = (np.asarray(jax.device_get(z)) for z in (x, y))
        assert (x.dtype, x.shape) == (y.dtype, y.shape), f"got {x.dtype}{x.shape}, expected {y.dtype}{y.shape}"
        assert (x == y).all(), f"{(x != y).sum()} of {x.size} values differ, by up to {np.abs(x - y).max()}"


def agree(function: Callable, *given: Any) -> None:
    """Compare what `function(backend, *given)` returns on either backend."""
    same(function(OURS, *given), function(REFERENCE, *given))


def run(spec: Spec, backend: str, given: dict, shape=SHAPE, bounds: bool = True) -> jax.Array:
    """The operator; an update is clipped, all of it."""
    return call(spec, given, shape=shape, backend=backend, **(BOUNDS if bounds and spec.kind == "update" else {}))


def eager(spec: Spec) -> None:
    given = problem(spec)
    agree(lambda backend: run(spec, backend, given))
    if spec.kind == "update":  # only what spikes touch
        agree(lambda backend: call(spec, given, shape=SHAPE, backend=backend, **BOUNDS, weight_in_bounds=True))
        gain = jnp.ones(given["spike"].shape)
        agree(lambda backend: call(spec, given | {"gain": gain}, shape=SHAPE, backend=backend))


def step_of(spec: Spec, backend: str, given: dict) -> Callable:
    """A step of `lax.scan`: it updates the weights, or adds up sums of them."""

    def step(state, spike):
        weight, out = state
        new = run(spec, backend, given | {"weight": weight, "spike": spike})
        return ((new, out) if spec.kind == "update" else (weight, out + new)), None

    return step


def loop_of(spec: Spec, backend: str) -> Callable:
    def loop(state, given, spikes):
        return jax.lax.scan(step_of(spec, backend, given), state, spikes)[0]

    return jax.jit(loop)


def loop_arguments(spec: Spec, steps: int = STEPS) -> tuple:
    given = problem(spec)
    spikes = jnp.asarray(np.random.default_rng(1).random((steps, given["spike"].size)) < 0.1)
    return (given["weight"], jnp.zeros(spec.sizes(SHAPE)[1])), given, spikes


# Slices of a multiple of 128 bytes, which XLA may hand to a call, and take from it, without copying them.
WIDE = (1024, 1024)


def wide_problem(spec: Spec) -> tuple[dict[str, jax.Array], jax.Array]:
    """Operands, whose weights are 80 000 bytes, and spikes of every step."""
    rng = np.random.default_rng(3)
    given = {name: jnp.asarray(x) for name, x in operands(spec, rng, random_network(rng, WIDE, 20_000)).items()}
    given |= {name: jnp.round(8 * given[name]) / 8 for name in ("weight", "trace")}  # whose sums are exact
    return given, jnp.asarray(rng.random((STEPS, WIDE[0])) < 0.1)


def fused() -> None:
    """Spikes are read, and sums written, where they lie in what the loop scans and stores."""
    given, spikes = wide_problem(UPDATE_PRE)

    def loop(backend):
        def step(weight, spike):
            read = {name: given[name] for name in ("indices", "indptr")} | {"weight": weight, "spike": spike}
            out = run(PROPAGATE_PRE, backend, read, WIDE)
            return call(UPDATE_PRE, given | read, shape=WIDE, backend=backend, after=out, **BOUNDS), out

        return jax.jit(lambda weight: jax.lax.scan(step, weight, spikes))(given["weight"])

    agree(loop)


def of_scan(weights: jax.Array, spikes: jax.Array, update: Callable) -> jax.Array:
    return jax.lax.scan(lambda _, x: (None, update(*x)), None, (weights, spikes))[1]


def of_array(weights: jax.Array, spikes: jax.Array, update: Callable) -> jax.Array:
    def step(i, weights):
        return weights.at[i].set(update(weights[i], spikes[i]))

    return jax.lax.fori_loop(0, STEPS, step, weights)


def slices(loop: Callable) -> None:
    """An update of a slice, whose result is a slice too: of another array, or where the old weights lie."""
    given, spikes = wide_problem(UPDATE_POST)
    weights = jnp.stack([given["weight"] + i / 8 for i in range(STEPS)])
    before = np.array(weights)

    def steps(backend):
        def update(weight, spike):
            return run(UPDATE_POST, backend, given | {"weight": weight, "spike": spike}, WIDE)

        return jax.jit(functools.partial(loop, update=update))(weights, spikes)

    agree(steps)
    same(weights, before)


def other_thread() -> None:
    for spec in (UPDATE_PRE, PROPAGATE_PRE):
        loop, arguments, got = loop_of(spec, OURS), loop_arguments(spec), []
        loop(*arguments)  # compiled here, called there

        def work(loop=loop, arguments=arguments, got=got):
            got.append(jax.block_until_ready(loop(*arguments)))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        same(got[0], loop_of(spec, REFERENCE)(*arguments))


def scan(options: Options, spec: Spec) -> dict[str, float | None]:
    """Compare loops; return how often Python is entered in a step."""
    loop = loop_of(spec, OURS)
    few, many = (10, 1000) if options.on_gpu else (3, 30)
    entered = {}
    for steps in (few, many):
        arguments = loop_arguments(spec, steps)
        got = jax.block_until_ready(loop(*arguments))
        if steps == few:
            same(got, loop_of(spec, REFERENCE)(*arguments))
        with python_entries() as entries:
            jax.block_until_ready(loop(*arguments))
        entered[steps] = entries.count
    told = {"python_a_step": None}
    if None not in entered.values():
        told["python_a_step"] = (entered[many] - entered[few]) / (many - few)
        assert not options.on_gpu or told["python_a_step"] < 0.1, f"Python is entered in a step: {told}"
    return told


def of_dtype(dtype: str) -> None:
    with enable_x64(True):
        for spec in SPECS:
            given = problem(spec, dtype)
            agree(lambda backend, spec=spec, given=given: run(spec, backend, given))


def int64() -> None:
    with enable_x64(True):
        for spec in SPECS:
            given = problem(spec, index_dtype=np.int64)
            assert given["indices"].dtype == given["indptr"].dtype == jnp.int64
            agree(lambda backend, spec=spec, given=given: run(spec, backend, given))


def empty() -> None:
    for shape in ((0, 0), (0, 7), (7, 0), (7, 7)):
        for spec in SPECS:
            given = problem(spec, shape=shape, nse=0)
            agree(lambda backend, spec=spec, given=given, shape=shape: run(spec, backend, given, shape))


def batch() -> None:
    for spec in SPECS:
        given = problem(spec)
        weights = jnp.stack([given["weight"], -given["weight"], 2 * given["weight"]])
        spikes = jnp.stack([given["spike"], ~given["spike"], given["spike"]])

        def member(weight, spike, backend, spec=spec, given=given):
            return run(spec, backend, given | {"weight": weight, "spike": spike})

        agree(lambda backend, f=member, w=weights, s=spikes: jax.vmap(lambda x, y: f(x, y, backend))(w, s))


def in_place() -> None:
    import cupy

    for spec in SPECS:
        given = problem(spec)
        there = {spec.public_name(name): cupy.asarray(np.asarray(x)) for name, x in given.items()}
        out = getattr(hebbax.inplace, spec.name)(**there, shape=SHAPE)
        same(out.get(), run(spec, REFERENCE, given, bounds=False))


def callback(options: Options) -> None:
    """The same kernels by way of Python, where that can be asked for."""
    if "callback" not in problems.BACKENDS:
        raise Skipped(f"not on platform {options.platform!r}")
    for spec in SPECS:
        given = problem(spec)
        same(run(spec, "callback", given), run(spec, REFERENCE, given))
