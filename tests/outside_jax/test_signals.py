"""Ctrl-C in a long call: the kernels let Python answer, and XLA does not keep the thread that could."""

import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

import hebbax
from hebbax import operators
from hebbax._core.specs import UPDATE_POST
from hebbax._cpu import _threads

N, ROW = 128, 1 << 17
INDPTR, INDICES = np.arange(N + 1, dtype=np.int32) * ROW, np.tile(np.arange(ROW, dtype=np.int32), N)
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name != "posix", reason="signals are POSIX's")


def interrupted(weight, handler):
    """Update in place, and be sent a signal once the kernel has begun."""

    def send():
        while weight[0] == 0:
            time.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    sender = threading.Thread(target=send)
    _threads.look_every(0.0)
    try:
        sender.start()
        spike, trace = np.ones(N, bool), np.ones(ROW, np.float32)
        hebbax.inplace.update_csr_on_binary_pre(weight, INDICES, INDPTR, spike, trace, shape=(N, ROW))
    finally:
        weight[0] = 1
        sender.join()
        _threads.look_every(0.1)
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("n", [1, 2])
def test_a_call_in_place_ends_by_what_the_handler_raises(threads, n):
    threads(n)
    weight = np.zeros(N * ROW, np.float32)
    with pytest.raises(KeyboardInterrupt):
        interrupted(weight, signal.default_int_handler)
    assert (weight == 0).any()  # it did not go on to the end
    weight[:] = 0
    seen = []
    interrupted(weight, lambda *_: seen.append(True))
    assert seen and (weight == 1).all()  # where the handler raises nothing, it does


def test_a_long_call_outside_jit_counts_as_work():
    """XLA has the caller wait for what it takes to be cheap, without an ear for signals."""

    def operations(nse):
        sizes = {"weight": (nse, "f4"), "indices": (nse, "i4"), "indptr": (5, "i4"), "weight_indices": (nse, "i4")}
        sizes |= {"trace": (3, "f4"), "spike": (4, "?")}
        given = {name: jax.ShapeDtypeStruct((size,), dtype) for name, (size, dtype) in sizes.items()}
        operands = [given.get(name) for name in UPDATE_POST.parameters]
        static = UPDATE_POST, (3, 4), None, (True, None, 1.0)
        costs = operators._compiled.lower(operands, static).compile().cost_analysis()
        return (costs[0] if isinstance(costs, list) else costs).get("flops", 0)

    assert operations(1 << 24) >= 1000 > operations(1 << 20)
