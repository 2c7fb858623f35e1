"""What takes lists of spikes, or visits synapses in tiles, given hostile ones: for tests/stress/fuzz_python.py.

Lists that devices have sent each other, and lists of spikes on their way, in operators; merging, tracing, recording and
delivering; `Synapses.apply_on_pre` and `apply_on_post` of a structure that nobody has checked.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import hebbax
import hostile_calls
from hebbax._core.delivery import deliver
from hebbax._core.events import record
from hebbax._core.primitives import Network
from hebbax._core.pytree import assemble
from hebbax._core.reference import HEADER, SENT_HEADER
from hebbax._core.sent import SpikeLists, fade, merge
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE, Arrivals, Sent
from hebbax._core.unitless import operator_of
from hostile_arrays import Guarded, extremes, floats, integers, row_starts, slots, spikes
from hostile_calls import Outcome

BLOCK = 1000
KINDS = ("sent", "arriving", "deliver", "merge", "fade", "record", "apply")
SENT_REFUSED, EVENTS_REFUSED = "more spikes than the lists have room for", "are not as they were recorded"
REFUSALS = (ValueError, jax.errors.JaxRuntimeError)


def sent_message(rng, sent, ids=None):
    """A message of `_core.sent`, mostly as it should be."""
    total = int(rng.integers(0, sent.capacity + 1))
    starts = np.sort(rng.integers(0, total + 1, sent.steps + 1))
    starts[0], starts[-1] = 0, total
    header = np.array([rng.integers(0, max(sent.steps, 1)), sent.n, sent.steps, sent.capacity, 0], np.int64)
    if rng.random() < 0.15:
        header[rng.integers(SENT_HEADER)] = rng.choice(extremes(sent.capacity, np.int32))
    if rng.random() < 0.2:
        starts[rng.integers(starts.size)] = rng.choice(extremes(sent.capacity, np.int32))
    listed = integers(rng, 1, sent.capacity, sent.n, np.int32, 0.8)[0]
    return np.concatenate([header, starts, listed]).astype(np.int32)


def events_array(rng, arrivals):
    """An array of `_core.events`, mostly as it should be."""
    n, length, delays = arrivals.n, arrivals.length, list(arrivals.delays)
    header = [int(rng.integers(length)), 0, length, n, len(delays), *delays]
    lists = integers(rng, 1, length * (n + 1), n, np.int32, 0.85)[0].reshape(length, n + 1)
    lists[:, 0] = integers(rng, 1, length, n + 1, np.int32, 0.9)[0]
    if rng.random() < 0.15:
        header[rng.integers(len(header))] = int(rng.choice(extremes(length, np.int32)))
    return np.concatenate([header, lists.reshape(-1)]).astype(np.int32)


def read_message(message, sent):
    """The neurons that a message lists; None: it is to be refused."""
    n, size = sent.n, message.size
    step, own, steps, capacity, lost = (int(x) for x in message[:SENT_HEADER])
    if sent.second:  # names a step of the first half
        step = step + steps // 2 if 0 <= step < steps // 2 else -1
    if own != n or capacity < 0 or lost or not 0 <= step < steps or size != SENT_HEADER + steps + 1 + capacity:
        return None
    begin, end = (int(x) for x in message[SENT_HEADER + step : SENT_HEADER + step + 2])
    if not 0 <= begin <= end <= capacity:
        return None
    ids = message[SENT_HEADER + steps + 1 :][begin:end].astype(np.int64)
    return None if ((ids < 0) | (ids >= n)).any() else ids


def read_header(events):
    """Of the lists of spikes on their way; None: they are to be refused."""
    position, shift, length, n, count = (int(x) for x in events[:HEADER])
    if length < 1 or n < 0 or not 0 <= position < length or shift < 0 or not 0 <= count <= length:
        return None
    if events.size != HEADER + count + length * (n + 1):
        return None
    delays = events[HEADER : HEADER + count].astype(np.int64)
    return None if ((delays < 0) | (delays >= length)).any() else (position, length, n, delays)


def read_events(events, rows):
    """The rows that have an arriving spike, in order."""
    if (header := read_header(events)) is None:
        return None
    position, length, n, delays = header
    lists, found = events[HEADER + delays.size :].reshape(length, n + 1), [np.zeros(0, np.int64)]
    if rows != length * n:
        return None
    for delay in delays:
        count, *ids = lists[(position - delay) % length]
        ids = np.array(ids[: max(count, 0)], np.int64)
        if not 0 <= count <= n or ((ids < 0) | (ids >= n)).any():
            return None
        found.append((length - 1 - delay) * n + ids)
    return np.concatenate(found)


class Block:
    """A program, many arrays for it, and guarded memory in which each of them is put in turn."""

    def __init__(self, number):
        rng = np.random.default_rng([number, 77])
        self.kind = KINDS[number % len(KINDS)]
        program, self.contents, self.expect = getattr(self, self.kind)(rng)
        self.memory, there = [], []
        for x in self.contents:
            self.memory.append(Guarded(x[0].nbytes))
            there.append(self.memory[-1].put(x[0], rng.random() < 0.5, 64)[0])
        self.there, self.program = there, jax.jit(program)
        self.arrays = [jax.device_put(x) for x in there]

    def __str__(self):
        return f"{self.kind}, {', '.join(f'{x.shape[1:]} {x.dtype}' for x in self.contents)}"

    def check(self, index):
        given = [x[index] for x in self.contents]
        for there, x in zip(self.there, given, strict=True):
            there[...] = x
        before, got, said = [memory.bytes.tobytes() for memory in self.memory], None, None
        with np.errstate(all="ignore"):
            want = self.expect(*given)
        try:
            got = np.asarray(self.program(*self.arrays))
        except REFUSALS as error:
            said = str(error)
        assert before == [memory.bytes.tobytes() for memory in self.memory], "an operand was changed"
        if said is not None or want.refused:
            assert said is not None, f"accepted, expected {want.refused[0]}"
            assert any(x in said for x in want.refused), f"said {said!r}, expected {want.refused or 'no error'}"
            return False
        assert got.shape == want.result.shape and got.dtype == want.result.dtype, f"{got.shape} {got.dtype}"
        known = want.known
        assert hostile_calls.same(got[known], want.result[known], True), f"{got}, expected {want.result} at {known}"
        return True

    # What each kind runs, on what arrays (with a leading dimension), and what is to come of it.

    def structure(self, rng, n_rows, n_other, nse, count=1):
        """Of rows, columns and slots that are in range; rows may overlap."""
        rows = row_starts(rng, count, n_rows, nse, np.int32, 1.0)
        return rows, integers(rng, count, nse, n_other, np.int32, 1.0), slots(rng, count, nse, np.int32, 1.0)

    def operands(self, rng, arrivals, n_rows):
        """A call of an operator, and arrays for all but its spikes."""
        kind = str(rng.choice(["update", "propagate"]))
        spec = (UPDATE_POST, UPDATE_PRE)[rng.integers(2)].like(kind)
        n_other, nse = int(rng.integers(1, 40)), int(rng.integers(2, 100))
        rows, indices, places = self.structure(rng, n_rows, n_other, nse, BLOCK)
        weight, values = (floats(rng, (BLOCK, n), np.float32, extreme=0.02) for n in (nse, n_other))
        call = hostile_calls.Call(
            spec, n_rows, n_other, nse, {}, (), (), 0, {"weight_in_bounds": False}, 0.0, "inplace"
        )  # fmt: skip
        return call, dataclasses.replace(spec, arrivals=arrivals), (weight, indices, rows, places, values)

    def expected(self, call, events, refused, weight, indices, rows, places, trace, spikes_of):
        if spikes_of is None:
            return Outcome((refused,))
        size = rows[spikes_of + 1].astype(np.int64) - rows[spikes_of]
        event = np.repeat(spikes_of, size)
        k = np.arange(event.size) + np.repeat(rows[spikes_of] - size.cumsum() + size, size)
        slot = places[k] if call.spec.permuted else k
        given = {"weight": weight, "trace": trace}
        return Outcome((), *hostile_calls.result_of(call, given, event, slot, indices[k].astype(np.int64)))

    def sent(self, rng):
        n, steps = int(rng.integers(1, 60)), int(rng.integers(1, 5))
        sent = Sent(n, steps, int(rng.integers(0, 60)), second=bool(rng.integers(2)))
        call, spec, arrays = self.operands(rng, sent, n)
        messages = np.stack([sent_message(rng, sent) for _ in range(BLOCK)])

        def program(message, weight, indices, rows, places, trace):
            permuted = (places,) if spec.permuted else ()
            if spec.kind == "propagate":
                return operator_of(spec)(weight, indices, rows, *permuted, message, shape=call.shape)
            ends = (trace, message) if spec.event == "post" else (message, trace)
            return operator_of(spec)(weight, indices, rows, *permuted, *ends, shape=call.shape)

        def expect(message, *given):
            return self.expected(call, message, SENT_REFUSED, *given, read_message(message, sent))

        return program, (messages, *arrays), expect

    def arriving(self, rng):
        delays = tuple(int(x) for x in sorted(rng.permutation(5)[: rng.integers(1, 4)], reverse=True))
        arrivals = Arrivals(int(rng.integers(1, 20)), delays)
        n_rows = arrivals.length * arrivals.n
        call, spec, arrays = self.operands(rng, arrivals, n_rows)
        events = np.stack([events_array(rng, arrivals) for _ in range(BLOCK)])

        def program(events, weight, indices, rows, places, trace):
            net = Network(spec, None, (indices, rows, places), events)
            none = jnp.zeros(0, weight.dtype)
            if spec.kind == "propagate":
                return net.propagate(weight, none, call.n_other)
            return net.add(weight, trace, none)

        def expect(events, *given):
            return self.expected(call, events, EVENTS_REFUSED, *given, read_events(events, n_rows))

        return program, (events, *arrays), expect

    def deliver(self, rng):
        arrivals = Arrivals(int(rng.integers(1, 20)), (2, 1))
        n_rows, n_other, nse, n = arrivals.length * arrivals.n, int(rng.integers(4, 40)), 60, 3
        spec = dataclasses.replace(UPDATE_PRE.like("propagate"), arrivals=arrivals)
        rows, indices, places = self.structure(rng, n_rows, n_other, nse, BLOCK)
        weight, sums = (floats(rng, (BLOCK, size), np.float32) for size in (nse, 2 * n_other))
        events = np.stack([events_array(rng, arrivals) for _ in range(BLOCK)])
        place = integers(rng, BLOCK, 1, n_other - n + 1, np.int32, 0.9)[:, 0]

        def program(events, weight, indices, rows, places, sums, place):
            return deliver(weight, (indices, rows, places), events, None, sums, place, n, spec=spec, backend=None)

        def expect(events, weight, indices, rows, places, sums, place):
            arriving, out = read_events(events, n_rows), sums.copy()
            if arriving is None or not 0 <= place <= n_other - n:
                return Outcome((EVENTS_REFUSED,))
            out[place : place + n] = out[place + n_other : place + n_other + n] = 0
            for row in arriving:
                for k in range(rows[row], rows[row + 1]):
                    out[place + indices[k]] += weight[k]
            return Outcome((), out, np.ones(out.shape, bool))

        return program, (events, weight, indices, rows, places, sums, place), expect

    def merge(self, rng):
        devices, n, steps = (int(rng.integers(low, high)) for low, high in ((2, 5), (1, 30), (1, 5)))
        sent = Sent(n, steps, int(rng.integers(0, 30)))
        messages = np.stack(
            [np.concatenate([sent_message(rng, sent) for _ in range(devices)]) for _ in range(BLOCK)]
        )  # fmt: skip

        def expect(messages):
            parts = messages.reshape(devices, -1).astype(np.int64)
            starts, ids = parts[:, SENT_HEADER : SENT_HEADER + steps + 1], parts[:, SENT_HEADER + steps + 1 :]
            alike = (parts[:, 1:4] == [n, steps, sent.capacity]).all()
            ascend = (starts[:, 0] >= 0).all() and (np.diff(starts) >= 0).all()
            if not (alike and ascend and (parts[:, 4] == np.maximum(starts[:, -1] - sent.capacity, 0)).all()):
                return Outcome(("merge: the messages are not as they were packed",))
            lost = parts[:, 4].max()
            out = np.zeros(SENT_HEADER + steps + 1 + devices * sent.capacity, np.int32)
            out[:SENT_HEADER] = 0, devices * n, steps, devices * sent.capacity, lost
            total = np.append(0, np.diff(starts).sum(0).cumsum())
            out[SENT_HEADER : SENT_HEADER + steps + 1] = total.astype(np.int32)
            known = np.arange(out.size) < SENT_HEADER + steps + 1
            if not lost:
                merged = [
                    ids[d, starts[d, s] : starts[d, s + 1]] + d * n for s in range(steps) for d in range(devices)
                ]  # fmt: skip
                known = np.arange(out.size) < SENT_HEADER + steps + 1 + total[-1]
                out[SENT_HEADER + steps + 1 :][: total[-1]] = np.concatenate(merged).astype(np.int32)
            return Outcome((), out, known)

        return lambda messages: merge(messages, devices, sent).message, (messages,), expect

    def fade(self, rng):
        n, steps, sets = int(rng.integers(1, 60)), int(rng.integers(1, 5)), bool(rng.integers(2))
        sent = Sent(n, steps, int(rng.integers(0, 60)), second=bool(rng.integers(2)))
        dtype = np.dtype(str(rng.choice(["f4", "f8"])))
        messages = np.stack([sent_message(rng, sent) for _ in range(BLOCK)])
        trace, keep, amount = (floats(rng, (BLOCK, *shape), dtype, 8) for shape in ((n,), (), ()))
        keep[::3] = 1

        def program(message, trace, keep, amount):
            return fade(trace, keep, amount, assemble(SpikeLists, dict(message=message, sent=sent)), sets=sets)

        def expect(message, trace, keep, amount):
            if (ids := read_message(message, sent)) is None:
                return Outcome((SENT_REFUSED,))
            out = trace if keep == 1 else trace * keep
            out = out.copy()
            if sets:
                out[ids] = amount
            else:
                np.add.at(out, ids, amount)
            return Outcome((), out, np.ones(n, bool))

        return program, (messages, trace, keep, amount), expect

    def record(self, rng):
        delays = tuple(int(x) for x in sorted(rng.permutation(5)[: rng.integers(1, 4)], reverse=True))
        arrivals = Arrivals(int(rng.integers(1, 70)), delays)
        events = np.stack([events_array(rng, arrivals) for _ in range(BLOCK)])
        spike = spikes(rng, BLOCK, (arrivals.n,), np.dtype(bool))
        position, shift = (integers(rng, BLOCK, 1, arrivals.length, np.int32, 0.85)[:, 0] for _ in range(2))

        def program(events, spike, position, shift):
            return record(events, spike, position, shift, jnp.int32(0), arrivals)

        def expect(events, spike, position, shift):
            header = read_header(events)
            if header is None or header[2] != arrivals.n or not 0 <= position < header[1]:
                return Outcome((EVENTS_REFUSED,))
            out, known = events.copy(), np.ones(events.size, bool)
            ids = np.flatnonzero(spike.view(np.uint8))
            start = HEADER + header[3].size + position * (arrivals.n + 1)
            out[0], out[1], out[start] = position, shift, ids.size
            out[start + 1 : start + 1 + ids.size] = ids
            return Outcome((), out, known)

        return program, (events, spike, position, shift), expect

    def apply(self, rng):
        side = ("pre", "post")[rng.integers(2)]
        spec = UPDATE_PRE if side == "pre" else UPDATE_POST
        n, n_other, nse = (int(rng.integers(1, 50)) for _ in range(3))
        call = hostile_calls.Call(spec, n, n_other, nse, {}, (), (), 0, {}, 0.0, "inplace")
        rows, indices, places = (
            row_starts(rng, BLOCK, n, nse, np.int32), integers(rng, BLOCK, nse, n_other, np.int32),
            slots(rng, BLOCK, nse, np.int32),
        )  # fmt: skip
        spike = spikes(rng, BLOCK, (n,), np.dtype(bool)).view(np.uint8).astype(bool)
        weight, own, other = (floats(rng, (BLOCK, size), np.float32, 8) for size in (nse, n, n_other))
        capacity = int(rng.choice([1, 7, 64, 2048]))

        def program(rows, indices, places, spike, weight, own, other):
            views = dict(indptr=rows, indices=indices, csc_indptr=rows, csc_indices=indices, weight_indices=places)
            synapses = assemble(hebbax.Synapses, views | {"shape": call.shape})
            function = getattr(synapses, f"apply_on_{side}")
            ends = {"pre": own, "post": other} if side == "pre" else {"post": own, "pre": other}
            rule = (lambda w, a, b: 2 * w + a - b) if side == "pre" else (lambda w, b, a: 2 * w + a - b)
            return function(rule, weight, spike, capacity=capacity, **ends)

        def expect(rows, indices, places, spike, weight, own, other):
            given = {"spike": spike, "indptr": rows, "indices": indices, "weight_indices": places, "weight": weight}
            if rows[-1] <= 0:  # there is no synapse, it says
                return Outcome((), weight, np.ones(nse, bool))
            if self.refusal(call, given, side):  # by the first wrong index, whoever spikes
                return Outcome((self.refusal(call, given | {"spike": np.ones(n, bool)}, side),))
            *_, event, k = hostile_calls.elements(given, nse, False)
            slot = places[k] if spec.permuted else k
            out = weight.copy()
            out[slot] = 2 * weight[slot] + own[event] - other[indices[k]]
            return Outcome((), out, np.bincount(slot, minlength=nse) <= 1)

        return program, (rows, indices, places, spike, weight, own, other), expect

    def refusal(self, call, given, side):
        events, begin, end, _, k = hostile_calls.elements(given, call.nse, False)
        partner = given["indices"][k].astype(np.int64)
        slot = given["weight_indices"][k].astype(np.int64) if call.spec.permuted else k
        ok = (partner >= 0) & (partner < call.n_other) & (slot >= 0) & (slot < call.nse)
        said = hostile_calls.first_wrong(call, events, begin, end, k, slot, partner, ok)
        return said and said.replace(call.spec.name, f"apply_on_{side}")
