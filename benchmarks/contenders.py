"""The contenders: each a function `run(steps)` that waits until `steps` steps are done and returns the state."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import brainunit as u
import cases
import jax
import jax.numpy as jnp
import numpy as np
from cases import ARGSORT, CSC_VIEW, MEMBERS, ONE, PATTERNS, RANDOM, SOFT, SYNAPSES, Case, Network
from libraries import HIGH, LOW, NUMPY, PLAIN_JAX, Library, hebbax_library, numpy_library, peer_backends, peer_library

import hebbax
from hebbax._core import connectivity
from hebbax._core.specs import PROPAGATE_PRE, UPDATE_POST, UPDATE_PRE

Run = Callable[[int], dict]


def advance(library: Library, case: Case, network: Network, state: dict, spike: dict) -> dict:
    """One step of any library, on arrays of JAX or NumPy."""
    weight, out, traces = state["weight"], state["out"], {side: state[f"{side}_trace"] for side in ("pre", "post")}
    beside = case.mode == "threads"
    if case.spec is None:
        out = library.propagate(network, PROPAGATE_PRE, weight, spike["pre"])
        weight = library.update(network, UPDATE_PRE, weight, traces["post"], spike["pre"], after=out)
        weight = library.update(network, UPDATE_POST, weight, traces["pre"], spike["post"], after=out)
        for side, amount in (("pre", 0.01), ("post", -0.0105)):
            traces[side] = 0.95 * traces[side] + amount * spike[side].astype(weight.dtype)
    elif case.spec.kind == "update":
        other = "pre" if case.spec.event == "post" else "post"
        if beside:
            traces[other] = 0.999 * traces[other] + 1e-5
        weight = library.update(network, case.spec, weight, traces[other], spike[case.spec.event])
    else:
        new = library.propagate(network, case.spec, weight, spike[case.spec.event])
        out = 0.999 * out + new if beside else new
    return {"weight": weight, "out": out, **{f"{side}_trace": trace for side, trace in traces.items()}}


def jax_loop(library: Library, case: Case, network: Network) -> Run:
    """Steps in `lax.scan`, the state donated and carried on from one run to the next."""
    structure = jax.tree.map(jnp.asarray, (network, cases.spikes(case)))
    state = jax.tree.map(jnp.asarray, cases.initial_state(case))

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def loop(state, structure, steps):
        network, spikes = structure

        def step(state, i):
            return advance(library, case, network, state, {side: s[i % PATTERNS] for side, s in spikes.items()}), None

        return jax.lax.scan(step, state, jnp.arange(steps))[0]

    def run(steps):
        nonlocal state
        state = jax.block_until_ready(loop(state, structure, steps))
        return state

    return run


def ensemble(library: Library, how: str, case: Case, network: Network) -> Run:
    """Networks of one structure, each with its own weights, traces and spikes.

    `how` is 'vmap', 'calls' (one after the other in every step) or 'loops' (one after the other, each in a loop of its
    own, where its weights stay in the cache). The first network gets the spikes that a single one would.
    """
    structure = jax.tree.map(jnp.asarray, (network, cases.spikes(case)[case.spec.event]))
    start = cases.initial_state(case)
    trace = jnp.stack([_trace(start, case)] * MEMBERS)
    weights = [jnp.array(start["weight"]) for _ in range(MEMBERS)]
    weights = jnp.stack(weights) if how == "vmap" else weights

    @functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
    def run_steps(weights, trace, structure, steps):
        network, spikes = structure
        members = jnp.arange(MEMBERS)

        def update(weight, k, i):
            return library.update(network, case.spec, weight, trace[k], spikes[(i + k) % PATTERNS])

        def loop(step, weights):
            return jax.lax.scan(lambda weights, i: (step(weights, i), None), weights, jnp.arange(steps))[0]

        if how == "vmap":
            return loop(lambda w, i: jax.vmap(update, in_axes=(0, 0, None))(w, members, i), weights)
        if how == "calls":
            return loop(lambda ws, i: [update(w, k, i) for k, w in enumerate(ws)], weights)
        return [loop(lambda w, i, k=k: update(w, k, i), w) for k, w in enumerate(weights)]

    def run(steps):
        nonlocal weights
        weights = jax.block_until_ready(run_steps(weights, trace, structure, steps))
        return {"weight": weights[0]}

    return run


def empty_loop(case: Case, network: Network) -> Run:
    """Counting, and picking the step's spikes, which every loop in `lax.scan` does.

    XLA compiles this loop as a whole. Around calls it cannot: what is left then is seen where no neuron spikes.
    """
    spikes = jnp.asarray(cases.spikes(case)["pre"])

    @functools.partial(jax.jit, static_argnums=1)
    def loop(spikes, steps):
        return jax.lax.scan(lambda _, i: (spikes[i % PATTERNS], None), spikes[0], jnp.arange(steps))[0]

    return lambda steps: {"out": jax.block_until_ready(loop(spikes, steps))}


def eager_calls(library: Library, case: Case, network: Network) -> Run:
    """One operator called again and again on the same weights."""
    structure = jax.tree.map(jnp.asarray, network)
    spikes = list(jnp.asarray(cases.spikes(case)[case.spec.event]))
    state = jax.tree.map(jnp.asarray, cases.initial_state(case))
    weight, trace, low, high = state["weight"], _trace(state, case), LOW, HIGH
    if case.units:
        weight, trace, low, high = (u.Quantity(x, unit=u.nsiemens) for x in (weight, trace, low, high))

    def call(spike):
        if case.spec.kind == "update":
            return library.update(structure, case.spec, weight, trace, spike, (low, high))
        return library.propagate(structure, case.spec, weight, spike)

    return _repeat(call, spikes, case)


def _repeat(call, spikes, case) -> Run:
    result = "weight" if case.spec.kind == "update" else "out"

    def run(steps):
        for i in range(steps):
            out = jax.block_until_ready(call(spikes[i % PATTERNS]))
        return {result: u.get_mantissa(out)}

    return run


def _trace(state, case):
    return state["pre_trace" if case.spec.event == "post" else "post_trace"]


def numpy_loop(case: Case, network: Network, state: dict | None = None, library: Library = NUMPY) -> Run:
    """Python's loop over the spiking neurons, in place."""
    spikes = cases.spikes(case)
    state = state or cases.initial_state(case)
    if case.mode == "eager":

        def call(spike):
            if case.spec.kind == "update":
                return NUMPY.update(network, case.spec, state["weight"].copy(), _trace(state, case), spike)
            return NUMPY.propagate(network, case.spec, state["weight"], spike)

        return _repeat(call, spikes[case.spec.event], case)

    def run(steps):
        nonlocal state
        for i in range(steps):
            state = advance(library, case, network, state, {side: s[i % PATTERNS] for side, s in spikes.items()})
        return state

    return run


def build(build_once: Callable[[Case, Network], object]) -> Callable[[Case, Network], Run]:
    """What builds a network's structure, as a contender."""

    def make(case: Case, network: Network) -> Run:
        def run(steps):
            for _ in range(steps):
                build_once(case, network)
            return {}

        return run

    return make


@functools.lru_cache(maxsize=1)
def _distinct(n: int, synapses: int) -> tuple[np.ndarray, np.ndarray]:
    """A CSR structure without duplicates, which the benchmark's networks have."""
    structure = hebbax.Synapses.random((n, n), outdegree=synapses)
    return np.asarray(structure.indptr), np.asarray(structure.indices)


BUILDERS = {
    CSC_VIEW: lambda case, network: connectivity.transposed(network.pre.indptr, network.pre.indices, (case.n, case.n)),
    ARGSORT: lambda case, network: np.argsort(network.pre.indices, kind="stable"),
    SYNAPSES: lambda case, network: hebbax.Synapses(*_distinct(case.n, case.synapses), shape=(case.n, case.n)),
    RANDOM: lambda case, network: hebbax.Synapses.random((case.n, case.n), outdegree=case.synapses),
}


CHANGE = 1e-3  # what the lower bound adds, in place of a trace
# Elements between prefetch and use in bound.c. 10 000 neurons, 1 000 synapses, 1%, 1 thread: 16: 339, 32: 285, 64: 219,
# 128: 155, 256: 98, 512: 110, 1 024: 135 microseconds; at 10 000, 100, 1% all between 5 and 8.
AHEAD = 256


@functools.cache
def _compiled_bound() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bound.so"
        options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", f"-DAHEAD={AHEAD}"]
        source = Path(__file__).with_name("bound.c")
        subprocess.run(["cc", *options, "-o", library, source], check=True, capture_output=True, text=True)
        compiled = ctypes.CDLL(str(library))
    arrays = [np.ctypeslib.ndpointer(dtype, flags="C") for dtype in (np.float32, np.int32, np.int64)]
    counts = [ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
    compiled.update.argtypes = [*arrays, *counts, ctypes.c_float]
    compiled.update.restype = None
    compiled.propagate.argtypes = [*arrays, *counts]
    compiled.propagate.restype = ctypes.c_float
    return compiled


def lower_bound(case: Case, network: Network, threads: int) -> Run:
    """Compiled code that visits the same slots, known beforehand and sorted."""
    compiled = _compiled_bound()
    half, weight = network.half(case.spec), cases.initial_state(case)["weight"]
    slots = [np.flatnonzero(spike[half.owner]) for spike in cases.spikes(case)[case.spec.event]]
    if half.weight_indices is not None:
        slots = [np.sort(half.weight_indices[elements]) for elements in slots]
    # Where each thread's part of the weights starts, in each pattern's part of `slots`.
    parts = np.linspace(0, weight.size, threads + 1)
    offsets = np.cumsum([0, *(s.size for s in slots)])
    begin = np.array([o + np.searchsorted(s, parts) for o, s in zip(offsets[:-1], slots, strict=True)], dtype=np.int64)
    slots = np.concatenate([*slots, np.zeros(AHEAD)], dtype=np.int32, casting="unsafe")

    def run(steps):
        if case.spec.kind == "update":
            compiled.update(weight, slots, begin, PATTERNS, steps, threads, CHANGE)
            return {"weight": weight}
        return {"sum": compiled.propagate(weight, slots, begin, PATTERNS, steps, threads)}

    return run


def numpy_results(case: Case, network: Network, steps: int) -> dict:
    return numpy_loop(case, network)(steps)


def _soft_results(mu: float) -> Callable[[Case, Network, int], dict]:
    return lambda case, network, steps: numpy_loop(case, network, library=numpy_library(mu))(steps)


def bound_results(case: Case, network: Network, steps: int) -> dict:
    traces = {name: np.full(case.n, CHANGE, np.float32) for name in ("pre_trace", "post_trace")}
    state = numpy_loop(case, network, cases.initial_state(case) | traces)(steps)
    return {"weight": state["weight"], "sum": state["out"].sum()}


class Contender(NamedTuple):
    name: str
    make: Callable[[Case, Network], Run]
    threads: int = 1
    expected: Callable[[Case, Network, int], dict] | None = numpy_results

    @property
    def ours(self) -> bool:
        return self.name.startswith("hebbax")


def contenders(case: Case, max_threads: int) -> Iterator[Contender]:
    """Who takes part in a case. brainevent's kernels are serial; XLA splits what it will over all CPUs."""
    if case.mode == "structure":
        yield from (Contender(name, build(builder), expected=None) for name, builder in BUILDERS.items())
        return
    eager = case.mode == "eager"
    loop = eager_calls if eager else jax_loop

    def of(library: Library):
        return functools.partial(loop, library)

    updates = case.spec is None or case.spec.kind == "update"
    if case.mode == "soft":
        yield Contender(ONE, of(hebbax_library("cython", True)))
        for mu, name in SOFT.items():
            yield Contender(name, of(hebbax_library("cython", True, soft_bound="upper", mu=mu)), 1, _soft_results(mu))
        return
    if case.mode == "ensemble":
        for (promise, how), name in cases.ENSEMBLES.items():
            yield Contender(name, functools.partial(ensemble, hebbax_library("cython", promise), how))
        yield Contender(
            cases.PEER_ENSEMBLE, lambda case, network: ensemble(peer_library("numba", network), "vmap", case, network)
        )
        return
    for threads in range(1, max_threads + 1):
        yield Contender(f"hebbax {threads}t", of(hebbax_library("cython", True)), threads)
        if updates:
            yield Contender(f"hebbax clip {threads}t", of(hebbax_library("cython", False)), threads)
    if case.mode == "threads":
        return
    yield Contender("hebbax callback", of(hebbax_library("callback", True)), max_threads)
    for backend in peer_backends("update_csr_on_binary_post_p", "cpu"):
        yield Contender(
            f"brainevent {backend}", lambda case, network, b=backend: loop(peer_library(b, network), case, network)
        )
    if not case.units:
        yield Contender("NumPy", numpy_loop)
        yield Contender("plain JAX", of(PLAIN_JAX))
    if not eager and case.spec is not None and case.dtype == "float32":
        for threads in range(1, max_threads + 1):
            bound = functools.partial(lower_bound, threads=threads)
            yield Contender(f"bound {threads}t", bound, threads, expected=bound_results)
    if not eager:
        yield Contender("empty loop", empty_loop, expected=None)
