"""The exchange in which devices of one process wait for each other awake, by its handler: each device is a thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from frames import Xla
from hebbax import _cpu
from hebbax._core.reference import CAPACITY, SENT_HEADER, STEPS
from hostile_arrays import Guarded

if _cpu.missing:
    pytest.skip(_cpu.missing, allow_module_level=True)
from hebbax._cpu import exchange

HANDLER = exchange.capsules()["exchange"]
ROOM, UNTOUCHED = 12, -7


@pytest.fixture
def patience():
    """`set_patience`, undone after the test."""
    before = exchange.set_patience(60)
    yield exchange.set_patience
    exchange.set_patience(before)


def message_of(device, turn):
    """What a device sends in its turn: one step, of some spikes, and room for more, which says nothing."""
    message = np.full(SENT_HEADER + 2 + ROOM, -1 - device, np.int32)
    count = (device + turn) % (ROOM + 1)
    message[:SENT_HEADER] = 0
    message[[STEPS, CAPACITY]] = 1, ROOM
    message[SENT_HEADER : SENT_HEADER + 2] = 0, count
    message[SENT_HEADER + 2 :][:count] = 1000 * turn + device
    return message, SENT_HEADER + 2 + count


def meet(device, devices, run, turn=0, message=None):
    """Take part in an exchange; return what all have sent, a row of each device, and an error's words, or None."""
    message = message_of(device, turn)[0] if message is None else message
    out = np.full(devices * message.size, UNTOUCHED, np.int32)
    xla = Xla(run=-run)  # which no execution of JAX's is
    error = xla.call(HANDLER, operands=[message, np.int32([device])], results=[out])
    return out.reshape(devices, -1), error


def messages_of(devices, turn):
    """What each of them then has: the messages as far as they say something, and the rest as it was."""
    rows = np.full((devices, SENT_HEADER + 2 + ROOM), UNTOUCHED, np.int32)
    for row, sender in zip(rows, range(devices), strict=True):
        message, used = message_of(sender, turn)
        row[:used] = message[:used]
    return rows


def on_threads(devices, function):
    """What `function` returns for each of the devices, all at the same time."""
    ready = threading.Barrier(devices)

    def wait_and_call(device):
        ready.wait()
        return function(device)

    with ThreadPoolExecutor(devices) as pool:
        return [*pool.map(wait_and_call, range(devices))]


@pytest.mark.parametrize("devices", [1, 2, 3, exchange.MOST_DEVICES])
def test_every_device_gets_what_all_have_sent(devices, patience):
    """Turn by turn, without waiting in between, and of each message only what says something."""
    patience(20)
    turns = 2 if devices > 3 else 50
    found = on_threads(devices, lambda device: [meet(device, devices, run=100 + devices, turn=t) for t in range(turns)])
    for turn in range(turns):
        expected = messages_of(devices, turn)
        for own in found:
            rows, error = own[turn]
            assert error is None
            np.testing.assert_array_equal(rows, expected)


def test_more_devices_than_can_meet_are_refused(patience):
    patience(0.01)
    most = exchange.MOST_DEVICES
    for device, devices in ((0, most + 1), (most, most + 1), (2, 2), (-1, 2)):
        rows, error = meet(device, devices, run=1000 + devices)
        assert "exchange: no memory" in error and (rows == UNTOUCHED).all()


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_device_that_does_not_come_is_named_by_the_others(missing, patience):
    patience(0.05)
    there = [device for device in range(3) if device != missing]
    found = on_threads(2, lambda k: meet(there[k], 3, run=2000 + missing))
    for rows, error in found:
        assert error == f"exchange: device {missing} did not come within 0.05 s"
        np.testing.assert_array_equal(rows[:missing], messages_of(missing, 0))  # those before it were there
        assert (rows[missing:] == UNTOUCHED).all()


def test_a_device_that_comes_late_is_waited_for(patience):
    patience(20)

    def late(device):
        if device == 1:
            threading.Event().wait(0.3)
        return meet(device, 2, run=3000)

    assert [error for _, error in on_threads(2, late)] == [None, None]


def test_executions_do_not_meet_each_other(patience):
    """Two devices of each, all at the same time: only those of the same one wait for each other."""
    patience(20)
    found = on_threads(4, lambda k: meet(k % 2, 2, run=4000 + k // 2, turn=k // 2))
    for k, (rows, error) in enumerate(found):
        assert error is None
        np.testing.assert_array_equal(rows, messages_of(2, k // 2))


def test_a_second_exchange_of_an_execution_that_has_another_size_is_refused():
    assert meet(0, 1, run=5000)[1] is None
    rows, error = meet(0, 1, run=5000, message=np.zeros(9, np.int32))
    assert "a second exchange in a program" in error and (rows == UNTOUCHED).all()


def test_an_xla_that_does_not_know_its_executions_is_refused():
    message, out = message_of(0, 0)[0], np.zeros(SENT_HEADER + 2 + ROOM, np.int32)
    error = Xla(entries=("Error_Create",)).call(HANDLER, operands=[message, np.int32([0])], results=[out])
    assert error == "this version of XLA does not tell which execution calls"


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("devices", [1, 2, 12])
def test_packing_and_merging_touch_nothing_beyond_their_arrays(devices, at_end, rng):
    """Which lie next to memory that nobody may touch."""
    handlers, steps, own, capacity = exchange.capsules(), 3, 21, 40
    spikes = rng.random((steps, devices * own)) < 0.3
    messages = np.zeros((devices, SENT_HEADER + steps + 1 + capacity), np.int32)
    merged = np.zeros(SENT_HEADER + steps + 1 + devices * capacity, np.int32)

    def call(name, operand, result, **attributes):
        memory = [Guarded(x.nbytes) for x in (operand, result)]
        operand, out = (there.put(x, at_end)[0] for there, x in zip(memory, (operand, result), strict=True))
        assert Xla().call(handlers[name], operands=[operand], results=[out], **attributes) is None
        assert all(there.is_clean() for there in memory)
        result[...] = out

    for message, part in zip(messages, np.split(spikes, devices, axis=1), strict=True):
        call("pack", np.ascontiguousarray(part), message)
    call("merge", messages, merged, attributes={"n": np.int32(own)})
    starts, ids = np.split(merged[SENT_HEADER:], [steps + 1])
    assert starts[0] == 0 and starts[-1] == spikes.sum()
    for step in range(steps):
        np.testing.assert_array_equal(ids[starts[step] : starts[step + 1]], np.flatnonzero(spikes[step]))
