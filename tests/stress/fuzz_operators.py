"""The operators' doors, for tests/stress/fuzz_python.py: XLA's FFI, callback, `hebbax.inplace`, CUDA in emulation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import hebbax
from hebbax import _cpu
from hebbax._core.lowering import attributes
from hebbax._core.primitives import Network
from hebbax._core.specs import OPERANDS
from hostile_arrays import Guarded
from hostile_calls import assert_right, contents, draw_call, outcome
from problems import call as call_public

BACKENDS = {"ffi": "cython", "callback": "callback", "cuda": "cupy"}
BLOCK = 1000  # seeds that share a program, sizes and memory, but no arrays
LARGE_BLOCKS = 40  # one block of so many is large
REFUSALS = (ValueError, IndexError, OverflowError, jax.errors.JaxRuntimeError)


class Block:
    """A call, many arrays for it, and guarded memory in which each of them is put in turn."""

    def __init__(self, door, number):
        rng = np.random.default_rng([number, list(BACKENDS).index(door) if door in BACKENDS else 9])
        self.door, large = door, number % LARGE_BLOCKS == LARGE_BLOCKS - 1 and door != "cuda"
        self.call = draw_call(rng, door, large)
        self.count = 5 if large else BLOCK
        self.contents = contents(rng, self.call, self.count)
        hebbax.set_num_threads(int(rng.integers(1, 4)))
        self.memory, self.there = {}, {}
        self.aligned = rng.random(len(self.contents)) < 0.5
        for (name, x), at_end in zip(self.contents.items(), self.aligned, strict=True):
            self.put(name, x[0], bool(at_end))
        if door == "inplace":
            self.run = self.inplace(rng)
        else:
            self.run = self.compiled(donates=self.call.spec.kind == "update" and bool(rng.random() < 0.3))

    def put(self, name, x, at_end):
        self.memory[name] = Guarded(x.nbytes)
        self.there[name], address = self.memory[name].put(x, at_end, 1 if self.door == "inplace" else 64)
        return address

    def compiled(self, donates):
        """The operator as a program of arrays of JAX, which lie in the guarded memory too."""
        call, names = self.call, tuple(self.there)
        backend = BACKENDS[self.door]

        def operate(*values):
            given = dict(zip(names, values, strict=True))
            if call.spec.kind != "collect":
                return call_public(call.spec, given, shape=call.shape, backend=backend, **call.options)
            none = jnp.zeros(0, given["indices"].dtype)
            structure = given["indices"], given["indptr"], given.get("weight_indices", none)
            return Network(call.spec, backend, structure, given["spike"]).collect(given["weight"], given["trace"])

        axes = tuple(0 if name in call.batched else None for name in names)
        mapped = jax.vmap(operate, in_axes=axes) if call.batch else operate
        program = jax.jit(mapped, donate_argnums=(0,) if donates else ())
        arrays = [jax.device_put(x) for x in self.there.values()]
        for x, there in zip(arrays, self.there.values(), strict=True):
            assert there.size == 0 or x.unsafe_buffer_pointer() == there.ctypes.data, "JAX has made a copy"

        def run():
            weight = jnp.array(self.there["weight"], copy=True) if donates else arrays[0]
            return np.asarray(program(weight, *arrays[1:]))

        self.there["spike"][...] = 0
        run()  # JAX remembers a program's way to XLA once a call has succeeded, as this one does: nobody spikes
        return run

    def inplace(self, rng):
        """The function of `hebbax.inplace`, or where there is none the kernel itself, on arrays of NumPy."""
        call, given = self.call, self.there
        if call.spec.kind == "update":
            self.written = "weight"
        else:
            self.written = "out"
            dtype = call.dtypes["trace"] if call.spec.kind == "collect" else call.dtypes["weight"]
            self.put("out", np.zeros(call.n_out, dtype), bool(rng.random() < 0.5))
        if call.spec.kind == "collect":
            told = attributes(call.spec)
            views = {name: _as_kernels_take(given[name]) for name in given}
            operands = [views.get(name) for name in OPERANDS["collect"]]
            return lambda: _cpu.kernels()["collect"](given["out"], *operands, **told)
        arguments = {call.spec.public_name(name): x for name, x in given.items()}
        function = getattr(hebbax.inplace, call.spec.name)
        return lambda: function(**arguments, shape=call.shape, **call.options)

    def check(self, index):
        """One call: raises where it goes wrong."""
        given = {name: x[index % self.count] for name, x in self.contents.items()}
        for name, x in given.items():
            self.there[name][...] = x
        before = {name: memory.bytes.tobytes() for name, memory in self.memory.items()}
        want, said = outcome(self.call, given), None
        got = None
        try:
            got = self.run()
        except REFUSALS as error:
            said = str(error)
        written = self.written if self.door == "inplace" else None
        for name, memory in self.memory.items():
            after, taken = memory.bytes.tobytes(), memory.taken
            if name == written:
                start, stop = taken.start, taken.stop
                assert before[name][:start] == after[:start] and before[name][stop:] == after[stop:], f"outside {name}"
            else:
                assert before[name] == after, f"{name} was changed"
        if said is not None or want.refused:
            assert said is not None, f"accepted, expected {want.refused[0]}"
            assert any(x in said for x in want.refused), f"said {said!r}, expected {want.refused or 'no error'}"
            return False
        assert_right(self.call, want, self.there[written] if written else got)
        return True


def _as_kernels_take(x):
    return x.view(np.uint16) if x.dtype.itemsize == 2 and x.dtype != np.float16 else x
