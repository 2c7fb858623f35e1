"""Cases of `overflow`: the operators, through `hebbax.inplace` and through JAX, on rows that lie far from the start."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from far import Place, Problem, changed_around, fits, large, large_sizes, small, sums, weights_at
from ml_dtypes import bfloat16
from pretended import enable_x64, may_own, owned_by_jax, put, shown_to_jax, take, zeros

import hebbax
from hebbax import _cpu
from hebbax._core import lowering, unitless
from hebbax._core.specs import CSC_SPECS, SPECS, UPDATE_CSC_PRE, Spec

Case = tuple[str, Callable[[], None]]

DTYPES = (np.float16, bfloat16, np.float32, np.float64)
INDEX = (np.int32, np.int64)
# Elements before those that are worked on: 2^31 and 2^32 of them, or of bytes, at 1 to 8 bytes each.
BOUNDARIES = tuple(1 << k for k in (28, 29, 30, 31, 32))
SIZES = (
    (40, 60),
    (300, 1000),
    (16000, 20),
)  # rows, and their length: by one thread, by parts of rows, by copies of them
EXTRAS: tuple[tuple[str, ...], ...] = ((), ("gain",), ("bound",), ("bounds", "gain"))
OPTIONS: tuple[dict, ...] = ({}, {"soft_bound": "upper"}, {"soft_bound": "lower", "mu": 0.4})


def at(boundary: int, problem: Problem) -> Place:
    """Elements on both sides of the boundary, or just before it, where the index is int32 and goes no further."""
    nse = problem.sizes[0]
    found = Place(boundary - nse // 2, boundary - nse // 2)
    return found if fits(problem, found) else Place(boundary - nse - 8, boundary - nse - 8)


def options_of(spec: Spec, number: int, extras: tuple[str, ...]) -> dict:
    if spec.kind != "update" or not {"bound", "bounds"} & set(extras):
        return {}
    return {"weight_in_bounds": True, **OPTIONS[number % len(OPTIONS)]}


def check_update(got: Any, before: np.ndarray, expected: np.ndarray, where: int, size: int, total: int) -> None:
    assert (before.tobytes() != np.asarray(expected).tobytes()) or not size, "nothing was to change"
    assert take(got, where, size).tobytes() == np.asarray(expected).tobytes(), "not what the small network has"
    assert not changed_around(got, take, where, size, total), "something else changed"


# hebbax.inplace


def in_place(problem: Problem, place: Place, options: dict, out: Any = None) -> None:
    function = getattr(hebbax.inplace, problem.spec.name)
    public = {problem.spec.public_name(name): x for name, x in problem.given.items() if name != "weight"}
    weight = problem.given["weight"].copy()
    expected = function(weight, **public, shape=problem.shape, **options)
    big = large(problem, place)
    nse = large_sizes(problem, place)[0]
    public = {problem.spec.public_name(name): x for name, x in big.given.items()}
    if problem.spec.kind == "propagate":
        got = function(**public, shape=big.shape, out=out, **options)
        check_sums(got, expected, place.partners)
    else:
        got = function(**public, shape=big.shape, **options)
        check_update(got, problem.given["weight"], expected, weights_at(problem, place), problem.sizes[0], nse)


def check_sums(got: Any, expected: Any, where: int) -> None:
    expected = np.asarray(expected)
    assert expected.any(), "nothing was to be summed"
    assert take(got, where, expected.size).tobytes() == expected.tobytes(), "not what the small network has"
    assert not changed_around(got, take, where, expected.size, got.size), "something else was added to"


def inplace_cases(rng: np.random.Generator) -> Iterator[Case]:
    number = 0
    for spec, dtype, index, indptr, boundary in itertools.product(SPECS, DTYPES, INDEX, INDEX, BOUNDARIES):
        number += 1
        extras = EXTRAS[number % 4] if spec.kind == "update" else EXTRAS[number % 2]
        rows, length = SIZES[number % 3]
        problem = small(rng, spec, rows, length, dtype, index, indptr, extras)
        place, options = at(boundary, problem), options_of(spec, number, extras)
        name = f"{spec.name} {np.dtype(dtype)} {np.dtype(index)}/{np.dtype(indptr)} {' '.join(extras)} {options}"

        def elements(problem=problem, place=place, options=options, threads=1 + number % 2) -> None:
            hebbax.set_num_threads(threads)
            in_place(problem, place, options)

        if fits(problem, place):
            yield f"{name}: elements at {place.rows}", elements
        far = Place(place.rows, place.slots, boundary - problem.sizes[2] // 2, 1)
        if not fits(problem, far):
            far = Place(place.rows, place.slots, boundary - problem.sizes[2] - 8, 1)
        # Sums are all written: of 16-bit weights in memory that is real.
        most = {2: 1 << 28, 4: 1 << 31, 8: 1 << 31}[np.dtype(dtype).itemsize] if spec.kind == "propagate" else 1 << 32

        def partners(problem=problem, far=far, options=options, dtype=dtype, threads=1 + number % 2) -> None:
            hebbax.set_num_threads(threads)
            n_other = large_sizes(problem, far)[2]
            own = problem.spec.kind == "propagate"
            out = sums(n_other, dtype, far.partners, problem.sizes[2]) if own else None
            in_place(problem, far, options, out)

        if fits(problem, far) and boundary <= most:
            yield f"{name}: partners at {far.partners}", partners
        far_event = Place(1000, 1000, 0, boundary - problem.sizes[1] // 2)

        def events(problem=problem, place=far_event, options=options, threads=1 + number % 2) -> None:
            hebbax.set_num_threads(threads)
            in_place(problem, place, options)

        if boundary >= 1 << 31 and dtype in (np.float16, np.float32):
            yield f"{name}: spikes at {far_event.events}", events


def clip_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Clips of all weights, of which only the last ones are beyond a bound."""
    for spec, dtype, extras in itertools.product(SPECS[:2], (np.float16, np.float32), EXTRAS[2:]):
        for boundary in (1 << 31, 1 << 32):
            problem = small(rng, spec, 300, 1000, dtype, np.int64, np.int64, extras)
            place = at(boundary, problem)

            def all_of_them(problem=problem, place=place) -> None:
                hebbax.set_num_threads(2)
                in_place(problem, place, {})

            yield f"{spec.name} {np.dtype(dtype)} {' '.join(extras)}: all weights of {place.rows} and more", all_of_them


# JAX


def through_jax(problem: Problem, place: Place, options: dict, backend: str, wide: bool, threads: int) -> None:
    hebbax.set_num_threads(threads)
    spec, nse = problem.spec, large_sizes(problem, place)[0]

    def run(weight: Any, others: dict, shape: tuple[int, int]) -> Any:
        # (The public function of that name sorts the structure by row at first, all of it.)
        by_row = spec == UPDATE_CSC_PRE
        operator = unitless.OPERATORS[spec] if by_row else getattr(hebbax, spec.name)
        public = {spec.public_name(name): x for name, x in others.items()}
        return operator(weight, **public, shape=shape, backend=backend, **options)

    compiled = jax.jit(run, static_argnums=2, donate_argnums=(0,) if spec.kind == "update" else ())
    with enable_x64(wide):
        weight, others = problem.given["weight"], {n: x for n, x in problem.given.items() if n != "weight"}
        expected = np.asarray(compiled(jnp.array(weight), others, problem.shape))
        big = large(problem, place, with_weight=False)
        own = {name: shown(x) for name, x in big.given.items()}
        where = weights_at(problem, place)
        memory = put(owned_by_jax(nse, weight.dtype), weight, where)
        address = memory.unsafe_buffer_pointer()
        got = compiled(memory, own, big.shape)
        if spec.kind == "propagate":
            check_sums(got, expected, place.partners)
        else:
            assert got.unsafe_buffer_pointer() == address, "the weight was copied"
            check_update(got, weight, expected, where, problem.sizes[0], nse)


def shown(x: np.ndarray) -> Any:
    if x.dtype == bfloat16 and x.ndim:  # which NumPy cannot show, and is one bound for each weight
        first = np.flatnonzero(x[-(1 << 20) :])
        start = x.size - (1 << 20) + first[0] if first.size else 0
        return put(owned_by_jax(x.size, x.dtype), x[start:], start)
    return shown_to_jax(x) if x.ndim else x


def jax_cases(rng: np.random.Generator, cuda: bool = False) -> Iterator[Case]:
    number = 0
    for spec, dtype, index, indptr, boundary in itertools.product(
        (*SPECS, *CSC_SPECS), DTYPES, INDEX, INDEX, BOUNDARIES[1:]
    ):
        number += 1
        extras = EXTRAS[number % 4] if spec.kind == "update" else EXTRAS[number % 2]
        rows, length = ((40, 60), (33000, 2))[number % 2] if cuda else SIZES[number % 3]
        problem = small(rng, spec, rows, length, dtype, index, indptr, extras)
        options = options_of(spec, number, extras)
        wide = np.int64 in (index, indptr) or dtype == np.float64
        backend = "cupy" if cuda else "callback" if number % 5 == 0 else "cython"
        settings: dict = dict(options=options, backend=backend, wide=wide, threads=1 + number % 2)
        run = functools.partial(through_jax, problem, **settings)
        name = f"{backend} {spec.name} {np.dtype(dtype)} {np.dtype(index)}/{np.dtype(indptr)}"
        name = f"{name} {' '.join(extras)} {options}"
        place = at(boundary, problem)
        if fits(problem, place) and may_own(large_sizes(problem, place)[0], dtype):
            yield f"{name}: elements at {place.rows}", functools.partial(run, place)
        place = Place(1000, 1000, 0, boundary - problem.sizes[1] // 2)
        if boundary >= 1 << 31 and dtype == np.float32 and np.int64 in (index, indptr) and not cuda:
            yield f"{name}: spikes at {place.events}", functools.partial(run, place)
        place = Place(1000, 1000, boundary - problem.sizes[2] - 8)
        most = 1 << 30 if spec.kind == "propagate" else 1 << 31  # its result is real
        if 1 << 30 <= boundary <= most and dtype == np.float32 and not (cuda and spec.kind == "propagate"):
            yield f"{name}: partners at {place.partners}", functools.partial(run, place)


LEFT_OUT = (*(spec.name for spec in CSC_SPECS), "bfloat16", "float64")  # their kernels would have to be compiled, too


def cuda_cases(rng: np.random.Generator) -> Iterator[Case]:
    """The CUDA kernels, which the host plays (see tests/gpu_on_cpu.py)."""
    import gpu_on_cpu

    if reason := gpu_on_cpu.install():
        raise RuntimeError(reason)
    cases = (case for case in jax_cases(rng, cuda=True) if not set(LEFT_OUT) & set(case[0].split()))
    return cases


def member_cases(rng: np.random.Generator) -> Iterator[Case]:
    """A batch of three, the second and third of which begin far from the first; and `collect`, which has no door."""
    for spec, dtype, index in itertools.product((*SPECS, *(x.like("collect") for x in SPECS[:2])), DTYPES[1:], INDEX):
        for boundary in (1 << 29, 1 << 30, 1 << 31):
            problem = small(rng, spec, 300, 200, dtype, index, np.int64)
            place = at(boundary, problem)
            if fits(problem, place):
                yield (
                    f"{spec.name} {np.dtype(dtype)} {np.dtype(index)}: members at {large_sizes(problem, place)[0]}",
                    lambda problem=problem, place=place: by_members(problem, place),
                )


def by_members(problem: Problem, place: Place) -> None:
    spec, (nse, n_event, n_other) = problem.spec, large_sizes(problem, place)
    kernel, told = _cpu.kernels()[spec.kind], lowering.attributes(spec)
    arithmetic = np.float64 if problem.given["weight"].dtype == np.float64 else np.float32

    def view(x: np.ndarray) -> np.ndarray:
        return x.view(np.uint16) if x.dtype == bfloat16 else x

    def call(given: dict, weight: np.ndarray, n_out: int) -> np.ndarray:
        result = view(weight) if spec.kind == "update" else np.zeros((*weight.shape[:-1], n_out), arithmetic)
        batched = {n: x if n in ("indices", "indptr", "weight_indices") else x[None] for n, x in given.items()}
        kernel(result, view(weight), *(batched.get(name) for name in spec.operands[1:]), **told)
        return result

    others = {name: x for name, x in problem.given.items() if name != "weight"}
    count = problem.sizes[2] if spec.kind == "propagate" else problem.sizes[1]
    weight = problem.given["weight"]
    expected = call(others, np.stack([weight, weight]), count)
    big, where = large(problem, place, with_weight=False), weights_at(problem, place)
    memory = zeros(3 * nse, weight.dtype)
    for k in (1, 2):
        memory[k * nse + where :][: weight.size] = weight
    first = place.partners if spec.kind == "propagate" else place.events
    got = call(big.given, memory.reshape(3, nse), n_other if spec.kind == "propagate" else n_event)
    if spec.kind == "update":
        got = np.stack([got[k, where : where + weight.size] for k in (1, 2)])
        assert expected.tobytes() != view(np.stack([weight, weight])).tobytes(), "nothing was to change"
    else:
        got = got[1:, first : first + count]
        assert expected.any(), "nothing was to be summed"
    assert got.tobytes() == expected.tobytes(), "not what the small network has"


# Real memory


def real_cases(rng: np.random.Generator) -> Iterator[Case]:
    """More than 2^31 weights of 16 bits, all of them there: 4.3 GB."""
    for spec, dtype in itertools.product(SPECS, DTYPES[:2]):
        index = np.int64 if spec.permuted else np.int32
        problem = small(rng, spec, 300, 1000, dtype, index, np.int64)
        yield f"{spec.name} {np.dtype(dtype)}: {(1 << 31) + 150000} weights", functools.partial(on_real, problem)


def on_real(problem: Problem) -> None:
    place = at(1 << 31, problem)
    nse, weight = large_sizes(problem, place)[0], problem.given["weight"]
    where = weights_at(problem, place)
    donate = (0,) if problem.spec.kind == "update" else ()
    with enable_x64(True):
        memory = put(jnp.full(nse, 0.5, weight.dtype), weight, where)
        run = jax.jit(lambda weight, others, shape: call(problem.spec, weight, others, shape), static_argnums=2,
                      donate_argnums=donate)  # fmt: skip
        expected = np.asarray(run(jnp.array(weight), without_weight(problem), problem.shape))
        big = large(problem, place, with_weight=False)
        got = run(memory, {name: shown(x) for name, x in big.given.items()}, big.shape)
        if not donate:
            check_sums(got, expected, 0)
            return
        assert take(got, where, weight.size).tobytes() == expected.tobytes(), "not what the small network has"
        x, step = np.asarray(got), 1 << 26  # (by XLA, it would take as much memory again, and more)
        others = sum(np.count_nonzero(x[k : k + step] != 0.5) for k in range(0, nse, step))
        assert int(others) == np.count_nonzero(np.asarray(expected, np.float32) != 0.5), "something else changed"


def call(spec: Spec, weight: Any, others: dict, shape: tuple[int, int]) -> Any:
    return getattr(hebbax, spec.name)(weight, **{spec.public_name(n): x for n, x in others.items()}, shape=shape)


def without_weight(problem: Problem) -> dict:
    return {name: x for name, x in problem.given.items() if name != "weight"}
