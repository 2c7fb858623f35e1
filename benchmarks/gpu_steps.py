"""What a step takes in `lax.scan`: hebbax's CUDA backend, plain JAX, and, in a stage of its own, brainevent."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import gpu_cases
import gpu_targets
import jax
import jax.numpy as jnp
from cases import Case, Network
from contenders import Contender, Run, advance
from gpu_report import CLIP, JAX, OURS, UNBOUNDED
from gpu_stage import Cases, Options, Skipped, first_line, python_entries
from libraries import Library, hebbax_library, peer_backends, peer_library
from measure import TOLERANCE, interleave, summary, time_step

BACKENDS = {"cuda": "cupy", "cpu": None}  # hebbax's
CHECKED = 2  # steps whose result is compared
# Steps of a measurement by the most that one may take, in microseconds: few different ones, as each is compiled.
STEPS = ((300, 1024), (50_000, 32))


def cases(options: Options) -> Cases:
    """hebbax beside plain JAX, all sizes."""
    yield from _cases(options, ours=True)


def peer_cases(options: Options) -> Cases:
    """Beside brainevent."""
    try:
        importlib.import_module("brainevent")
    except Exception as error:  # whatever keeps it from working here
        reason = first_line(error)

        def skip():
            raise Skipped(f"brainevent cannot be imported: {reason}")

        yield "brainevent", skip
        return
    yield from _cases(options, ours=False)


def _cases(options: Options, ours: bool) -> Cases:
    run = Runner(options, ours)
    for case in gpu_cases.cases(gpu_cases.SCALES[options.platform]):
        yield case.label, functools.partial(run, case)


class Runner:
    """Runs cases; what they share is kept: the network, and loops that are compiled for all rates."""

    def __init__(self, options: Options, ours: bool) -> None:
        self.options, self.ours = options, ours
        self.size = self.network = self.bench = self.too_large = None

    @functools.cached_property
    def copy_gb_s(self) -> float:
        return gpu_cases.copy_bandwidth(self.scale, self.device) / 1e9

    @property
    def scale(self) -> gpu_cases.Scale:
        return gpu_cases.SCALES[self.options.platform]

    @property
    def device(self) -> jax.Device:
        return jax.devices(self.options.platform)[0]

    def __call__(self, case: Case) -> dict:
        """Times, failures, entries of Python, what a step touches, and how that is judged."""
        size, copied = (case.n, case.synapses), self.copy_gb_s
        if self.size != size:
            self.size, self.network, self.bench = size, None, None  # freed before there are others
            self.too_large = gpu_cases.too_large(case.n * case.synapses, self.device)
        if self.too_large:
            raise Skipped(self.too_large)
        self.network = self.network or jax.block_until_ready(gpu_cases.network(*size))
        if self.bench is None or self.bench.spec is not case.spec:
            jax.clear_caches()
            self.bench = Bench(case, self.network, self.options.platform, self.ours)
        found = measure(case, self.network, self.bench, self.options.rounds)
        if JAX in found["failures"]:
            raise RuntimeError(found["failures"][JAX])
        gpu_targets.judge(found, case.spec, case.n, self.scale, (case.synapses, case.rate), copied)
        return found


class Bench:
    """One operator on one network: what runs it, compiled for all rates, and why some of it cannot."""

    def __init__(self, case: Case, network: Network, platform: str, ours: bool) -> None:
        self.spec = case.spec
        self.makers = libraries(case, network, platform, ours)
        self.loops: dict[str, Loop] = {}
        self.broken: dict[str, str] = {}


class Loop:
    """Steps in `lax.scan`, the state donated; compiled once for all rates."""

    def __init__(self, library: Library, case: Case) -> None:
        def loop(state, network, spikes, steps):
            def step(state, i):
                return advance(library, case, network, state, {case.spec.event: spikes[i % spikes.shape[0]]}), None

            return jax.lax.scan(step, state, jnp.arange(steps))[0]

        self.compiled = jax.jit(loop, static_argnums=3, donate_argnums=0)


class Weights:
    """The state that contenders take over from one another, so that there is only one copy of the weights."""

    def __init__(self, initial: dict) -> None:
        self.initial, self.state = initial, {}

    def reset(self) -> None:
        self.state = {}  # frees it before there is another
        self.state = jax.block_until_ready(jax.tree.map(jnp.copy, self.initial))

    def runner(self, loop: Loop, network: Network, spikes: jax.Array) -> Run:
        def run(steps):
            self.state = jax.block_until_ready(loop.compiled(self.state, network, spikes, steps))
            return self.state

        return run


def libraries(case: Case, network: Network, platform: str, ours: bool) -> dict[str, Callable[[], Library]]:
    """What makes each contender. The first is the reference, which updates weights as all others but one do."""
    backend, kind = BACKENDS[platform], case.spec.kind
    makers: dict = {JAX: lambda: hebbax_library("jax", True), OURS: lambda: hebbax_library(backend, True)}
    if kind == "update":
        makers[CLIP] = lambda: hebbax_library(backend, False)
    if ours:
        return makers
    product = "binary_csrmv_indexed_p" if case.spec.permuted else "binary_csrmv_p"
    primitive, sides = (f"{case.spec.name}_p", ()) if kind == "update" else (product, (case.spec.event,))
    for peer in peer_backends(primitive, "gpu" if platform == "cuda" else platform):
        makers[f"brainevent {peer}"] = functools.partial(peer_library, peer, network, sides)
    if kind == "update":
        default = "cuda_raw" if platform == "cuda" else "numba"
        makers[UNBOUNDED] = lambda: without_bounds(peer_library(default, network, sides))
    return makers


def without_bounds(library: Library) -> Library:
    """brainevent clips every weight where bounds are given. Without, it does less than hebbax; shown, not judged."""
    return library._replace(update=functools.partial(library.update, bounds=(None, None)))


def check(case: Case, result: dict, expected: dict) -> None:
    """Raise ValueError where a result is wrong: updates must agree in every bit, sums to rounding."""
    key = "weight" if case.spec.kind == "update" else "out"
    got, want = result[key], expected[key]
    tolerance = 0.0 if key == "weight" else TOLERANCE[case.dtype]
    wrong = ~jnp.isclose(got, want, rtol=tolerance, atol=tolerance)
    if wrong.any():
        difference = float(jnp.max(jnp.abs(got - want)))
        raise ValueError(f"wrong result: {int(wrong.sum())} of {got.size} values differ, by up to {difference:.3g}")


def prepare(case: Case, network: Network, spikes: jax.Array, makers: dict, loops: dict, broken: dict) -> tuple:
    """Return every contender that gives the right result, with its steps, and why others do not."""
    initial = gpu_cases.initial_state(case.n, network.pre.indices.size)
    bounded, unbounded = Weights(initial), Weights(initial)
    ready, failures, expected = [], {}, {}

    def run_checked(name: str, weights: Weights) -> Run:
        if name not in loops:
            loops[name] = Loop(makers[name](), case)
        run = weights.runner(loops[name], network, spikes)
        weights.reset()
        run(CHECKED)
        return run

    for name in makers:
        if name in broken:  # would fail again, as slowly
            failures[name] = broken[name]
            continue
        weights = unbounded if name == UNBOUNDED else bounded
        try:
            if name == UNBOUNDED:
                reference = without_bounds(hebbax_library("jax", True))
                unbounded.reset()
                expected = {}
                expected = unbounded.runner(Loop(reference, case), network, spikes)(CHECKED)
            run = run_checked(name, weights)
            if not expected:  # of the first, which is the reference
                expected = {key: jnp.copy(weights.state[key]) for key in ("weight", "out")}
            check(case, weights.state, expected)
            contender = Contender(name, lambda *_: None)
            seconds = min(time_step(contender, run, CHECKED) for _ in range(2))
            steps = next((steps for limit, steps in STEPS if seconds * 1e6 < limit), CHECKED)
            run(steps)  # compiles
        except Exception as error:
            failures[name] = first_line(error)
            if not failures[name].startswith("ValueError: wrong result"):
                broken[name] = failures[name]
            if name == JAX:
                return [], dict.fromkeys(makers, f"nothing to compare with: {JAX} failed: {failures[name]}")
            continue
        ready.append((contender, run, steps))
    for weights in {id(w): w for w in (bounded, unbounded) if w.state}.values():
        weights.reset()  # the last may have failed after it was given the state
    return ready, failures


def measure(case: Case, network: Network, bench: Bench, rounds: int) -> dict:
    spikes = jnp.asarray(gpu_cases.spikes(case))
    touched = gpu_cases.touched(case, network, spikes)
    ready, failures = prepare(case, network, spikes, bench.makers, bench.loops, bench.broken)
    samples = interleave(ready, rounds, lambda _: None) if ready else {}
    found = {}
    for contender, run, steps in ready:
        found[contender.name] = {"steps": steps, **summary(samples[contender.name])}
        if contender.name in (OURS, CLIP):
            found[contender.name]["python_a_step"] = python_a_step(run, steps)
    return {
        "group": case.group,
        "size": case.size,
        "nse": network.pre.indices.size,
        "touched": touched._asdict(),
        "contenders": found,
        "failures": failures,
    }


def python_a_step(run: Run, steps: int) -> float | None:
    """How often Python is entered in a step; before Python 3.12 that is not known."""
    entered = []
    for n in (CHECKED, steps):
        with python_entries() as entries:
            run(n)
        entered.append(entries.count)
    if None in entered or steps == CHECKED:
        return None
    return (entered[1] - entered[0]) / (steps - CHECKED)
