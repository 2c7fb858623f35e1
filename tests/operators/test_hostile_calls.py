"""Hostile arrays through every door, a few of each; `make stress` makes a million such calls."""

from pathlib import Path

import numpy as np
import pytest

import oracle
from hostile_arrays import Guarded
from hostile_calls import assert_right, contents, draw_call, elements, outcome
from problems import CPU_KERNELS, KERNELS, enable_x64

STRESS = Path(__file__).parents[1] / "stress"


@pytest.fixture
def stress(monkeypatch, threads):
    """The modules of tests/stress; what they set is undone."""
    monkeypatch.syspath_prepend(STRESS)
    import fuzz_arguments
    import fuzz_lists
    import fuzz_operators

    with enable_x64(True):
        yield {
            "arguments": fuzz_arguments.Arguments, "constructors": fuzz_arguments.Constructors,
            "lists": fuzz_lists.Block, "operators": fuzz_operators.Block,
        }  # fmt: skip


@pytest.mark.parametrize("door", ["ffi", "inplace", "cuda"])
def test_what_is_to_come_is_what_the_oracle_says(door):
    """All elements at once, as `hostile_calls` has it, and one at a time."""
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        call = draw_call(rng, door)
        if call.batch or call.spec.kind == "collect" or call.nse > 64:
            continue
        arrays = contents(rng, call, 6)
        for k in range(6):
            given = {name: x[k] for name, x in arrays.items()}
            want = outcome(call, given)
            indptr = given["indptr"].astype(np.int64)
            if want.refused or (door == "cuda" and elements(given, call.nse, True)[3].size >= call.nse):
                continue  # on CUDA, of elements that are in several rows no more are taken than there are
            operands = given | {name: x.astype(x.dtype.newbyteorder("=")) for name, x in given.items()}
            operands |= {"indptr": np.clip(indptr, 0, call.nse), "spike": given["spike"] != 0}
            expected = oracle.evaluate(call.spec, call.shape, operands, **call.options)
            assert_right(call, want, expected)
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("door", ["ffi", "callback", "inplace", "cuda"])
def test_operators(stress, door):
    if {"ffi": "cython", "callback": "callback", "inplace": "cython", "cuda": "cupy"}[door] not in KERNELS:
        pytest.skip("no such backend")
    refused = 0
    for number in range(3):
        block = stress["operators"](door, number)
        refused += sum(not block.check(k) for k in range(60))
    assert refused == 0 if door == "cuda" else 0 < refused < 150


@pytest.mark.skipif(not CPU_KERNELS, reason="of the CPU's kernels")
@pytest.mark.parametrize("kind", range(7))
def test_lists_and_tiles(stress, kind):
    block = stress["lists"](kind)
    assert 0 < sum(not block.check(k) for k in range(60)) < 60


@pytest.mark.parametrize("what", ["arguments", "constructors"])
def test_what_does_not_fit_is_named(stress, what):
    blocks = [stress[what](number) for number in range(2)]
    assert sum(not block.check(k) for block in blocks for k in range(20)) > 5


def test_a_call_that_goes_wrong_shows(stress):
    block = stress["operators"]("inplace", 0)
    run = block.run
    wanted = [outcome(block.call, {name: x[k] for name, x in block.contents.items()}).refused for k in range(100)]
    k = next(k for k in range(100) if wanted[k])
    block.run = lambda: None
    with pytest.raises(AssertionError, match="accepted, expected"):
        block.check(k)
    k = next(k for k in range(100) if not wanted[k])

    def writes_outside():
        run()
        memory = block.memory[block.written]
        memory.bytes[memory.taken.stop if memory.taken.stop < memory.size else 0] ^= 1

    block.run = writes_outside
    with pytest.raises(AssertionError, match=r"outside (weight|out)"):
        block.check(k)

    def is_off():
        run()
        block.there[block.written][...] += 1

    block.run = is_off
    with pytest.raises(AssertionError):
        block.check(k)


def test_guarded_memory_is_clean_until_it_is_written_to():
    memory = Guarded(100)
    there, _ = memory.put(np.arange(5), True)
    there[...] = 7
    assert memory.is_clean()
    memory.bytes[memory.taken.start - 1] = 0
    assert not memory.is_clean()
