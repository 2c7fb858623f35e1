"""Structures for `Synapses`, and arguments that do not fit, for tests/stress/fuzz_python.py.

Each constructor either builds what is in its arguments, or says which of them is wrong and where; and where an argument
of an operator has a wrong size, dtype, layout or owner, or a shape claims more neurons than there is memory, that is
said with its name, and nothing is changed.
"""

from __future__ import annotations

import re
import warnings

import jax
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO, BCSR

import hebbax
from hostile_arrays import Guarded, extremes, integers, row_starts
from hostile_calls import contents, draw_call
from problems import call as call_public

BLOCK = 1000
ERRORS = (ValueError, TypeError, IndexError, OverflowError)
DTYPES = tuple(map(np.dtype, ("i4", "i8", "u4", "u8", "i2", "u1")))


class CSR:
    """What `from_brainevent` takes: told by its name, and by what it has."""

    def __init__(self, data, indices, indptr, shape):
        self.data, self.indices, self.indptr, self.shape = data, indices, indptr, shape


class Constructors:
    """`Synapses`, and `from_coo`, `from_scipy`, `from_bcoo`, `from_bcsr` and `from_brainevent`."""

    NAMED = r"^(indptr|indices|pre|post|matrix)\b"
    WAYS = ("csr", "coo", "scipy csr", "scipy csc", "scipy coo", "bcoo", "bcsr", "brainevent")

    def __init__(self, number):
        self.number = number

    def __str__(self):
        return f"constructors of block {self.number}"

    def check(self, index):
        rng = np.random.default_rng([self.number, index, 5])
        way = self.WAYS[rng.integers(len(self.WAYS))]
        shape = tuple(int(x) for x in rng.integers(0, 30, 2))
        nse, multapses = int(rng.choice([0, 1, 5, 30, 60])), bool(rng.random() < 0.7)
        by_row = way not in ("coo", "scipy coo", "bcoo")
        if way.startswith("bc"):
            nse = max(nse, 1)
        n_rows, n_columns = shape[::-1] if way == "scipy csc" else shape
        dtypes = DTYPES if way in ("csr", "coo", "brainevent") else DTYPES[:2]  # others make their own of them
        kinds = [dtypes[rng.integers(len(dtypes))] for _ in range(2)]
        kinds[0] = kinds[way.startswith("scipy")]  # it takes one for both
        columns = integers(rng, 1, nse, n_columns, kinds[1], 0.85)[0]
        rows = (
            row_starts(rng, 1, n_rows, nse, kinds[0], 0.85)[0]
            if by_row
            else integers(rng, 1, nse, n_rows, kinds[0], 0.85)[0]
        )
        weight = np.arange(nse, dtype=np.float32)
        memory = [Guarded(x.nbytes) for x in (rows, columns, weight)]
        rows, columns, weight = (m.put(x, True)[0] for m, x in zip(memory, (rows, columns, weight), strict=True))
        before = [m.bytes.tobytes() for m in memory]
        want = self.pairs(way, rows, columns, n_rows, n_columns, shape)
        if want is not None and not multapses and np.unique(want[:2], axis=1).shape[1] < want[0].size:
            want = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that rows are sorted
                built = self.build(way, rows, columns, weight, shape, multapses)
        except ERRORS as error:
            assert want is None, f"{way}: {error}"
            assert re.search(self.NAMED, str(error)), f"{way}: does not name an argument: {type(error)}: {error}"
            built = None
        assert before == [m.bytes.tobytes() for m in memory], f"{way}: an argument was changed"
        if built is None:
            return False
        assert want is not None, f"{way}: accepted {rows}, {columns}, {shape}"
        self.assert_same(built, want, shape, way)
        return True

    def build(self, way, rows, columns, weight, shape, multapses):
        options = {"multapses": multapses}
        if way == "csr":
            return hebbax.Synapses(rows, columns, shape=shape, **options), None
        if way == "coo":
            return hebbax.Synapses.from_coo(rows, columns, weight, shape=shape, **options)
        if way == "brainevent":
            return hebbax.Synapses.from_brainevent(CSR(weight, columns, rows, shape), **options)
        if way.startswith("scipy"):
            kind = {"scipy csr": "csr_array", "scipy csc": "csc_array", "scipy coo": "coo_array"}[way]
            matrix = getattr(scipy.sparse, kind)(shape, dtype=np.float32)
            matrix.data = weight
            if way == "scipy coo":
                matrix.coords = (rows, columns)
            else:
                matrix.indptr, matrix.indices = rows, columns
            return hebbax.Synapses.from_scipy(matrix, **options)
        if way == "bcoo":
            return hebbax.Synapses.from_bcoo(BCOO((weight, np.stack([rows, columns], 1)), shape=shape), **options)
        return hebbax.Synapses.from_bcsr(BCSR((weight, columns, rows), shape=shape), **options)

    def pairs(self, way, rows, columns, n_rows, n_columns, shape):
        """Rows, columns and weights that these arrays say, in their order; None: they are to be refused."""
        rows, columns = (x.astype(object) for x in (rows, columns))
        pads = way.startswith("bc")
        kept = np.arange(columns.size)
        if way not in ("coo", "scipy coo", "bcoo"):
            starts, nse = rows, columns.size
            ends_well = starts[-1] == nse or (pads and 0 <= starts[-1] < nse)
            if starts[0] != 0 or not ends_well or (starts[1:] < starts[:-1]).any():
                return None
            kept = np.arange(int(starts[-1]))
            rows = np.repeat(np.arange(n_rows), np.diff(starts).astype(int))
        columns = columns[kept] if not pads or way == "bcoo" else columns
        if pads and way == "bcsr":
            columns = columns[kept]
        if pads:
            inside = np.array([i < n_rows and j < n_columns for i, j in zip(rows, columns, strict=True)], bool)
            rows, columns, kept = rows[inside], columns[inside], kept[inside]
        if any(not (0 <= i < n_rows and 0 <= j < n_columns) for i, j in zip(rows, columns, strict=True)):
            return None
        rows, columns = rows.astype(np.int64), columns.astype(np.int64)
        return np.array([*((columns, rows) if way == "scipy csc" else (rows, columns)), kept])

    def assert_same(self, built, want, shape, way):
        synapses, weight = built
        pre, post, position = want
        order = np.lexsort((post, pre))
        pre, post = pre[order], post[order]
        across = np.argsort(post, kind="stable")
        for name, x in {
            "indices": post, "indptr": np.searchsorted(pre, np.arange(shape[0] + 1)),
            "csc_indices": pre[across], "csc_indptr": np.searchsorted(post[across], np.arange(shape[1] + 1)),
            "weight_indices": across,
        }.items():  # fmt: skip
            assert np.array_equal(getattr(synapses, name), x), f"{way}: {name}: {getattr(synapses, name)}, expected {x}"
        if weight is not None and way != "scipy csc":  # (SciPy's own order of what is several times in a place)
            assert np.array_equal(weight, position[order]), f"{way}: weight: {weight}, expected {position[order]}"


class Arguments:
    """One argument of a call that is right is made wrong."""

    def __init__(self, number):
        rng = np.random.default_rng([number, 6])
        while True:
            self.call = draw_call(rng, "inplace" if number % 2 else "ffi")
            if self.call.spec.kind != "collect" and not self.call.batch and min(self.call.shape) > 1 < self.call.nse:
                break
        self.contents = contents(rng, self.call, BLOCK)
        for name, bound in (("w_min", -1), ("w_max", 1)):  # or their order might be what is refused
            if name in self.contents:
                self.contents[name][...] = bound
        self.inplace, self.number = bool(number % 2), number

    def __str__(self):
        return f"{'hebbax.inplace' if self.inplace else 'hebbax'}, {self.call}"

    def check(self, index):
        rng, call = np.random.default_rng([self.number, index, 8]), self.call
        given = {call.spec.public_name(name): x[index].copy() for name, x in self.contents.items()}
        arguments, shape, expected, errors = dict(given), call.shape, None, ERRORS
        name = str(rng.choice([*given, "shape"]))
        if name == "shape":
            shape, expected, errors = self.wrong_shape(rng)
        else:
            changes, expected = self.wrong(rng, name, given)
            arguments |= changes
        before = {key: x.tobytes() for key, x in given.items()}
        try:
            if self.inplace:
                getattr(hebbax.inplace, call.spec.name)(**arguments, shape=shape, **call.options)
            else:
                names = {call.spec.public_name(x): x for x in call.dtypes}
                operands = {names[key]: x for key, x in arguments.items()}
                jax.block_until_ready(call_public(call.spec, operands, shape=shape, **call.options))
        except errors as error:
            said = str(error)
        else:
            raise AssertionError(f"{name}: accepted {arguments[name] if name in arguments else shape!r}")
        assert before == {key: x.tobytes() for key, x in given.items()}, f"{name}: an argument was changed: {said}"
        assert re.search(expected, said), f"{name}: said {said!r}, expected {expected!r}"
        return False

    def wrong_shape(self, rng):
        """Sizes that the arrays do not have, or that nothing has."""
        event = "pre" if self.call.spec.event == "pre" else "post"
        odd = [int(x) for x in extremes(self.call.n_event, np.int64)] + [2**48, 2**60, 2**61, 2**63, 2**64, 10**30]
        n = odd[rng.integers(len(odd))]
        if n == self.call.n_event:
            n += 7
        shape = (n, self.call.shape[1]) if event == "pre" else (self.call.shape[0], n)
        if rng.random() < 0.2:
            shape = [(n,), None, "ab", (1.5, 2), (*shape, 1)][rng.integers(5)]
        elif rng.random() < 0.5 and (n < 0 or n > 2**46):  # of the other side: as large as a result, then
            shape = (n, self.call.n_event) if event == "post" else (self.call.n_event, n)
            out_of_memory = (MemoryError, jax.errors.JaxRuntimeError)
            named = r"(shape|\w+_trace): got|^indices: got dtype int32 for"
            return shape, rf"{named}|[Uu]nable to allocate|Out of memory|too big", ERRORS + out_of_memory
        return shape, r"^(shape|\w+): got", ERRORS

    def wrong(self, rng, name, given):
        """What is given instead, and what has to be said of it."""
        x, said = given[name], rf"^{name}: got"
        ways = ["type", "dtype", "rank"]
        if x.ndim and not (name == "indices" and given["weight"].size == 1):  # which no other array has the size of
            ways += ["longer", "shorter"]
        if self.inplace and name == "weight" and self.call.spec.kind == "update":
            ways += ["read-only", "strided", "overlapping", "jax"]
        way = str(rng.choice(ways))
        sized = r"^\w+: got" if name == "indices" else said  # by its size the others are compared
        if way == "longer":
            return {name: np.concatenate([x, x[:1], x[:1]])} if x.size else {name: np.zeros(2, x.dtype)}, sized
        if way == "shorter":
            return {name: x[: x.size - 2] if x.size > 2 else np.zeros(x.size + 2, x.dtype)}, sized
        if way == "rank":
            return {name: np.stack([np.stack([x, x])] * 2)}, sized
        if way == "type":
            odd = [object(), "abc", {}, [1, 2]] + ([None] if name in self.required() else [])
            return {name: odd[rng.integers(len(odd))]}, rf"{name}\b"
        if way == "dtype":
            return {name: np.zeros(x.shape, str(rng.choice(["c8", "U3", "O", "M8[s]"])))}, rf"{name}\b"
        if way == "read-only":
            x = x.view()
            x.flags.writeable = False
        elif way == "strided":
            x = np.repeat(x, 2)[::2]
        elif way == "jax":
            x = jax.numpy.asarray(x)
        else:
            indices = given["indices"]
            memory = np.zeros(max(x.nbytes, indices.nbytes), np.uint8)
            shared = {"weight": memory[: x.nbytes].view(x.dtype)}
            return shared | {"indices": memory[: indices.nbytes].view(indices.dtype.newbyteorder("="))}, said
        return {name: x}, said

    def required(self):
        return [self.call.spec.public_name(name) for name in self.call.spec.arguments]
