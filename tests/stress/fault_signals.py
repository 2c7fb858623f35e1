"""Ctrl-C in the middle of a long call: the child of faults.py. `python fault_signals.py CASE SYNAPSES TIMES SEED`

Prints JSON: how long the call takes, and after which time each signal was answered.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

import hebbax

ROWS, PARTNERS = 1000, 100_000


def scattered(n: int) -> np.ndarray:
    """A permutation, made without another array of its size."""
    step = 0x9E3779B1 % n
    while np.gcd(step, n) != 1:
        step += 1
    out, piece = np.empty(n, np.int32), 1 << 22
    for k in range(0, n, piece):
        out[k : k + piece] = np.arange(k, min(n, k + piece), dtype=np.int64) * step % n
    return out


def prepare(case: str, n: int):
    per = n // ROWS
    n = per * ROWS
    indices = np.tile(np.sort(np.arange(per, dtype=np.int64) * 7919 % PARTNERS).astype(np.int32), ROWS)
    indptr, weight = np.arange(ROWS + 1, dtype=np.int32) * per, np.zeros(n, np.float32)
    spike, trace = np.ones(ROWS, bool), np.ones(PARTNERS, np.float32)
    pre, post = {"shape": (ROWS, PARTNERS)}, {"shape": (PARTNERS, ROWS)}
    soft = {"w_min": -1.0, "w_max": 1.0, "soft_bound": "upper", "mu": 0.3}
    slots = scattered(n) if "post" in case else None
    if case.startswith("inplace"):
        f = hebbax.inplace
        return {
            "inplace update_on_post": lambda: f.update_csr_on_binary_post(
                weight, indices, indptr, slots, trace, spike, **post
            ),
            "inplace soft update_on_pre": lambda: f.update_csr_on_binary_pre(
                weight, indices, indptr, spike, trace, **soft, **pre
            ),
            "inplace propagate_on_post": lambda: f.propagate_csr_on_binary_post(
                weight, indices, indptr, slots, spike, **post
            ),
        }[case]  # fmt: skip
    on_device = [jnp.asarray(x) for x in (weight, indices, indptr, *([slots] if slots is not None else []))]
    spike, trace = jnp.asarray(spike), jnp.asarray(trace)
    f = hebbax.update_csr_on_binary_post if slots is not None else hebbax.update_csr_on_binary_pre
    others = (trace, spike) if slots is not None else (spike, trace)
    options = post if slots is not None else soft | pre
    return lambda: f(*on_device, *others, **options).block_until_ready()


def main(case: str, n: int, times: int, seed: int) -> None:
    run, rng = prepare(case, n), np.random.default_rng(seed)
    for _ in range(2):
        started = time.perf_counter()
        run()
        takes = time.perf_counter() - started
    answered, late = [], 0
    while len(answered) < times and late < 5 * times:
        sent = [0.0]

        after = takes * rng.uniform(0.05, 0.6)

        def send(sent=sent, after=after):
            time.sleep(after)
            sent[0] = time.perf_counter()
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=send)
        inside = True
        try:
            sender.start()
            run()
            inside = bool(sent[0])  # the call may have ended before the signal
            sender.join()
            time.sleep(0.1)
        except KeyboardInterrupt:
            now = time.perf_counter()
            sender.join()
            if inside:
                answered.append(now - sent[0])
        late += not inside
    jax.effects_barrier()
    print(json.dumps({"takes": takes, "answered": answered}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
