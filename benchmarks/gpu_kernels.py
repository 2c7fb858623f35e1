"""What the kernels take by themselves, and what the least that they do would: without XLA, and without the host."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases as all_cases
import gpu_cases
import jax
import numpy as np
from gpu_stage import Cases, Options, Skipped, first_line

import hebbax
from hebbax._core.specs import SPECS, Spec

SOURCE = Path(__file__).with_name("limits.cu").read_text()
COMPILER_OPTIONS = ("--std=c++17",)
LIMITS = ("copy", "read_modify_write", "gather", "atomic_add", "read_and_add")
THREADS, BLOCKS = 256, 8  # of a block; on a multiprocessor
COPIES = 12  # arrays as large as the weights that are there at once, at most: JAX makes networks by sorting
ADDRESSES, NUMBERS = ("target", "source", "indices"), ("size", "source_size", "count", "seed")
# What an operator does at least: the kernel, whether it changes as many numbers as there are synapses or neurons, and
# which of the two it reads.
LIMITED = {
    "random read-modify-write": ("read_modify_write", True, False),
    "gather": ("gather", True, False),
    "atomic add": ("atomic_add", False, True),
    "random read and add": ("read_and_add", False, True),
}
WORK = np.dtype([(name, "u8") for name in ADDRESSES] + [(name, "i8") for name in NUMBERS])
PATTERNS = 8  # spike vectors, of a call each, that are timed together
LEAST = 0.01  # seconds that a measurement takes
AHEAD = 20e-6  # seconds that the host needs to launch a graph, at most
QUEUED = 200  # calls, of a few launches each: CUDA keeps about a thousand waiting
CYCLES = 2e9  # a second, at most


def cases(options: Options) -> Cases:
    """Small networks first; the limits of a network come before its operators."""
    scale = gpu_cases.SCALES[options.platform]
    timer = Timer(options)
    sizes = [(n, synapses) for n in scale.neurons for synapses in scale.synapses]
    yield "copy", functools.partial(copy, timer, scale.copied // 4)
    for n, synapses in sorted(sizes, key=lambda size: size[0] * size[1]):
        for rate in scale.rates:
            case = functools.partial(all_cases.Case, n=n, synapses=synapses, rate=rate)
            elements = round(n * synapses * rate)
            size = case(None).size
            for title, (name, per_synapse, source_per_synapse) in LIMITED.items():
                sizes = n * (synapses if per_synapse else 1), n * (synapses if source_per_synapse else 1)
                yield f"{title}: {size}", functools.partial(limit_of, timer, elements, name, *sizes)
            for spec in SPECS:
                yield case(spec).label.replace(", scan", ""), functools.partial(operator, timer, case(spec))


class Timer:
    """Calls on CuPy's current stream, timed on the device: as a CUDA graph, or queued behind a kernel that waits."""

    def __init__(self, options: Options) -> None:
        import problems  # installs the stand-in for CuPy in a rehearsal

        assert problems.WHY_NO_CUPY is None, problems.WHY_NO_CUPY
        import cupy

        self.options, self.cupy = options, cupy
        self.multiprocessors = cupy.cuda.Device().attributes["MultiProcessorCount"]
        names = (*LIMITS, *["spin"] * options.on_gpu)
        module = cupy.RawModule(code=SOURCE, options=COMPILER_OPTIONS, name_expressions=names)
        self.kernels = {name: module.get_function(name) for name in names}

    def launch(self, name: str, blocks: int = 0, **work: int) -> None:
        argument = np.zeros(1, WORK)
        for field, value in work.items():
            argument[field] = value
        grid = blocks or max(1, min(-(-work["count"] // THREADS), self.multiprocessors * BLOCKS))
        self.kernels[name]((grid,), (1 if name == "spin" else THREADS,), (argument,))

    def array(self, x: Any) -> Any:
        """Memory of JAX's as CuPy's; in a rehearsal a copy."""
        return self.cupy.from_dlpack(x) if self.options.on_gpu else self.cupy.asarray(np.asarray(x))

    def check_memory(self, needed: int) -> None:
        """Skip what does not fit; JAX needs what CuPy keeps."""
        if not self.options.on_gpu:
            return
        if self.cupy.cuda.runtime.memGetInfo()[0] < needed:
            network.cache_clear()
        self.cupy.get_default_memory_pool().free_all_blocks()
        if (free := self.cupy.cuda.runtime.memGetInfo()[0]) < needed:
            raise Skipped(f"needs about {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free")

    def __call__(self, calls: list[Callable[[], Any]]) -> dict:
        """Microseconds of one of the calls."""
        if not self.options.on_gpu:
            return self.by_the_clock(calls)
        with self.cupy.cuda.Stream(non_blocking=True) as stream:
            return self.on_the_device(calls, stream)

    def by_the_clock(self, calls: list[Callable[[], Any]]) -> dict:
        samples = []
        for _ in range(self.options.rounds):
            start = time.perf_counter()
            for call in calls:
                call()
            samples.append(1e6 * (time.perf_counter() - start) / len(calls))
        return told(samples, "the host's clock")

    def on_the_device(self, calls: list[Callable[[], Any]], stream: Any) -> dict:
        self.cupy.cuda.Device().synchronize()  # what filled the arrays ran on other streams
        for call in calls:  # compiles, and leaves scratch memory in CuPy's pool
            call()
        stream.synchronize()
        try:
            play, ahead, most, how = self.captured(calls, stream), AHEAD, 1000, "CUDA graph"
        except Exception as error:
            play, ahead = self.queued(calls, stream)
            most, how = max(1, QUEUED // len(calls)), f"queued, for no graph could be captured ({first_line(error)})"
        times = max(1, min(most, round(LEAST / self.elapsed(play, stream, 1, ahead))))
        samples = [self.elapsed(play, stream, times, ahead) for _ in range(self.options.rounds)]
        return told([1e6 * x / times / len(calls) for x in samples], how)

    def captured(self, calls: list[Callable[[], Any]], stream: Any) -> Callable[[], Any]:
        stream.begin_capture()
        try:
            for call in calls:
                call()
        finally:
            graph = stream.end_capture()
        graph.upload(stream)
        return lambda: graph.launch(stream)

    def queued(self, calls: list[Callable[[], Any]], stream: Any) -> tuple[Callable[[], Any], float]:
        """The calls, and how many seconds the host needs for them."""

        def play():
            for call in calls:
                call()

        start = time.perf_counter()
        play()
        ahead = time.perf_counter() - start
        stream.synchronize()
        return play, ahead

    def elapsed(self, play: Callable[[], Any], stream: Any, times: int, ahead: float) -> float:
        """Seconds between two events; the host queues everything before the first one is reached."""
        cuda = self.cupy.cuda
        before, after = cuda.Event(), cuda.Event()
        self.launch("spin", blocks=1, count=int(CYCLES * min(0.2, 2 * times * ahead)))
        before.record(stream)
        for _ in range(times):
            play()
        after.record(stream)
        after.synchronize()
        return cuda.get_elapsed_time(before, after) / 1e3


def told(samples: list[float], how: str) -> dict:
    return {"us": statistics.median(samples), "samples_us": samples, "how": how}


def copy(timer: Timer, count: int) -> dict:
    """The bandwidth that a large array is copied with."""
    count = count // 4 * 4 if timer.options.on_gpu else 4096
    source, target = timer.cupy.ones(count, np.float32), timer.cupy.zeros(count, np.float32)
    addresses = {"target": target.data.ptr, "source": source.data.ptr}
    found = timer([lambda: timer.launch("copy", count=count, **addresses)])
    assert bool((target == source).all()), "not everything was copied"
    return found | {"gb_s": 2 * 4 * count / found["us"] / 1e3}


def limit_of(timer: Timer, elements: int, name: str, size: int, source_size: int) -> dict:
    """As many changes, in an array as large, of what is read from another as large."""
    timer.check_memory(12 * max(size, source_size))
    given, source = {"size": size, "source_size": source_size, "count": elements}, timer.cupy.ones(1, np.float32)
    if name in ("gather", "read_and_add"):
        source = timer.cupy.ones(source_size, np.float32)
    if name == "gather":
        indices = timer.array(jax.random.randint(jax.random.key(0), (size,), 0, source_size, np.int32))
        given["indices"] = indices.data.ptr
    target = timer.cupy.zeros(size, np.float32)
    given |= {"target": target.data.ptr, "source": source.data.ptr}
    found = timer([lambda s=s: timer.launch(name, **given, seed=s) for s in range(PATTERNS)])
    assert float(target.sum()) > 0 or not elements, "nothing was changed"
    return found | {"elements": elements}


@functools.lru_cache(maxsize=1)
def network(timer: Timer, n: int, synapses: int) -> all_cases.Network:
    """The structure of either side, made by JAX, as CuPy's arrays."""
    return jax.tree.map(timer.array, jax.block_until_ready(gpu_cases.network(n, synapses)))


def operator(timer: Timer, case: all_cases.Case) -> dict:
    """An operator in place, with bounds that its weights lie in, on several spike vectors in turn."""
    timer.check_memory(4 * COPIES * case.n * case.synapses)
    half = network(timer, case.n, case.synapses).half(case.spec)
    state = gpu_cases.initial_state(case.n, case.n * case.synapses)
    spikes = [timer.cupy.asarray(row) for row in gpu_cases.spikes(case)[:PATTERNS]]
    weight = timer.cupy.array(timer.array(state["weight"]))  # which may be written to
    other = "pre_trace" if case.spec.event == "post" else "post_trace"
    given = {"indices": half.indices, "indptr": half.indptr, "shape": (case.n, case.n)}
    if case.spec.permuted:
        given["weight_indices"] = half.weight_indices
    if case.spec.kind == "update":
        given |= {case.spec.public_name("trace"): timer.array(state[other])}
        low, high = timer.cupy.zeros((), np.float32), timer.cupy.ones((), np.float32)  # numbers would be copied there
        given |= {"w_min": low, "w_max": high, "weight_in_bounds": True}
    else:
        given["out"] = timer.cupy.zeros(case.n, np.float32)
    function = getattr(hebbax.inplace, case.spec.name)
    found = timer([functools.partial(function, weight, **given, **spike_of(case.spec, x)) for x in spikes])
    return found | {"elements": round(case.n * case.synapses * case.rate)}


def spike_of(spec: Spec, spike: Any) -> dict[str, Any]:
    return {spec.public_name("spike"): spike}
