"""Threads, forks and members that fail: children of faults.py. `python fault_threads.py CASE COUNT SEED`; JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

import hebbax
from hebbax._core.specs import SPECS, UPDATE_POST
from problems import INDEX_ERRORS, call, operands, random_network

WORKERS = 16


def problems(rng: np.random.Generator) -> list[tuple]:
    """Of every operator, large enough for several threads and small, with the right result."""
    found = []
    for spec in SPECS:
        for shape, nse in (((300, 400), 300_000), ((30, 40), 500)):
            network = random_network(rng, shape, nse, sorted_rows=nse > 1000)
            given = operands(spec, rng, network, exact=False)
            jitted = jax.jit(lambda given, spec=spec, shape=shape: call(spec, given, shape=shape, backend="cython"))
            expected = np.asarray(jitted(given)).tobytes()
            found.append((spec, shape, given, jitted, expected))
    return found


def right(problem: tuple, jitted: bool) -> bool:
    spec, shape, given, by_jax, expected = problem
    if jitted:
        return np.asarray(by_jax(given)).tobytes() == expected
    own = {spec.public_name(name): x for name, x in (given | {"weight": given["weight"].copy()}).items()}
    return getattr(hebbax.inplace, spec.name)(**own, shape=shape).tobytes() == expected


def concurrent(count: int, seed: int) -> dict[str, Any]:
    """Threads that call all at once, by either door, while the number of threads a kernel may use changes."""
    known, wrong = problems(np.random.default_rng(seed)), []
    barrier = threading.Barrier(WORKERS)

    def work(worker):
        rng = np.random.default_rng([seed, worker])
        barrier.wait()
        for k in range(count // WORKERS):
            hebbax.set_num_threads(int(rng.integers(1, 5)))
            which, jitted = int(rng.integers(len(known))), bool(rng.random() < 0.5)
            if not right(known[which], jitted):
                wrong.append(f"thread {worker}, call {k}: {known[which][0].name}, jitted: {jitted}")

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    return {"done": WORKERS * (count // WORKERS), "wrong": wrong}


def short_lived(count: int, seed: int) -> dict[str, Any]:
    """Threads that make a few calls and end: OpenMP's team of each has to end with it."""
    known, wrong, process = problems(np.random.default_rng(seed)), [], psutil.Process()
    hebbax.set_num_threads(3)
    alive = []

    def work(number):
        rng = np.random.default_rng([seed, number])
        for jitted in (False, True):
            if not right(known[int(rng.integers(len(known)))], jitted):
                wrong.append(f"thread {number}")

    for first in range(0, count, WORKERS):
        threads = [threading.Thread(target=work, args=(first + k,)) for k in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + 10  # the system may take its time to end them
        while alive and process.num_threads() > alive[0] and time.monotonic() < deadline:
            time.sleep(0.001)
        alive.append(process.num_threads())
    if max(alive) > alive[0]:
        wrong.append(f"threads of the process: {alive[0]} at first, {max(alive)} later")
    return {"done": count, "wrong": wrong, "threads": alive[-1]}


def clients(count: int, seed: int) -> dict[str, Any]:
    """XLA's pool ends, with its client, right after calls that have borrowed its threads; a new one takes its place."""
    from jax.extend.backend import clear_backends

    wrong, rng = [], np.random.default_rng(seed)
    hebbax.set_num_threads(4)
    for k in range(count):
        known = problems(rng)
        wrong += [f"client {k}: {x[0].name}" for x in known if not right(x, jitted=True)]
        del known
        clear_backends()
    return {"done": count, "wrong": wrong}


def forks(count: int, seed: int) -> dict[str, Any]:
    """Forks while other threads compute by both doors: the child calls in place, and ends."""
    known, wrong, stop = problems(np.random.default_rng(seed)), [], threading.Event()
    hebbax.set_num_threads(2)
    calls = [0]

    def work(worker):
        rng = np.random.default_rng([seed, worker])
        while not stop.is_set():
            if not right(known[int(rng.integers(len(known)))], bool(worker % 2)):
                wrong.append(f"thread {worker} of the parent")
            calls[0] += 1

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for number in range(count):
        child = os.fork()
        if child == 0:
            good = False
            try:
                good = all(right(x, jitted=False) for x in known)
            finally:
                os._exit(0 if good else 1)
        end = time.monotonic() + 60
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.001)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, 9)
            os.waitpid(child, 0)
            wrong.append(f"fork {number} did not end within a minute")
        elif status:
            wrong.append(f"fork {number} ended with {status}")
    stop.set()
    for thread in threads:
        thread.join()
    return {"done": count, "wrong": wrong, "calls": calls[0]}


def members(count: int, seed: int) -> dict[str, Any]:
    """Batches one member of which meets a bad index: an error names it; the others, and what was given, are well."""
    wrong, rng = [], np.random.default_rng(seed)
    for k in range(count):
        spec = SPECS[k % len(SPECS)]
        shape, nse, batch = ((60, 80), 4000, 5) if k % 3 else ((300, 400), 300_000, 3)
        given = operands(spec, rng, random_network(rng, shape, nse))
        sizes = np.diff(given["indptr"])
        row = int(rng.choice(np.flatnonzero(sizes)))
        given["indices"] = given["indices"].copy()
        given["indices"][int(rng.integers(given["indptr"][row], given["indptr"][row + 1]))] = 10**6
        spikes = rng.random((batch, given["spike"].size)) < 0.5
        spikes[:, row] = False
        bad = int(rng.integers(batch))
        hit = spikes.copy()
        hit[bad, row] = True
        before = {name: np.array(x) for name, x in given.items()}
        weights = jnp.asarray(np.broadcast_to(given["weight"], (batch, nse)))

        def one(weight, spike, spec=spec, given=given, shape=shape):
            return call(spec, given | {"weight": weight, "spike": spike}, shape=shape, backend="cython")

        batched = jax.jit(jax.vmap(one))
        expected = np.stack([np.asarray(one(weights[i], spikes[i])) for i in range(batch)])
        try:
            np.asarray(batched(weights, hit))
            wrong.append(f"{k}: no error")
        except INDEX_ERRORS as error:
            if "indices" not in str(error) or "1000000" not in str(error):
                wrong.append(f"{k}: {error}"[:200])
        if any(not np.array_equal(x, before[name]) for name, x in given.items()) or not np.array_equal(
            np.asarray(weights), np.broadcast_to(before["weight"], weights.shape)
        ):
            wrong.append(f"{k}: what was given has changed")
        if np.asarray(batched(weights, spikes)).tobytes() != expected.tobytes():
            wrong.append(f"{k}: without that spike the batch is wrong")
        others = np.arange(batch) != bad
        if np.asarray(jax.vmap(one)(weights[others], hit[others])).tobytes() != expected[others].tobytes():
            wrong.append(f"{k}: the other members are wrong")
    # A batch of structures is a loop over its members.
    given = operands(UPDATE_POST, rng, random_network(rng, (60, 80), 4000), p_spike=1.0)
    slots = np.stack([given["weight_indices"]] * 3)
    slots[1, 7] = -1
    loop = jax.vmap(lambda x: call(UPDATE_POST, given | {"weight_indices": x}, shape=(60, 80), backend="cython"))
    try:
        jax.block_until_ready(loop(slots))
        wrong.append("a batch of structures: no error")
    except INDEX_ERRORS as error:
        if "weight_indices[7] = -1" not in str(error):
            wrong.append(f"a batch of structures: {error}"[:200])
    good = np.asarray(loop(slots[[0, 2]]))
    if good[0].tobytes() != good[1].tobytes():
        wrong.append("a batch of structures: the others differ")
    return {"done": count + 1, "wrong": wrong}


if __name__ == "__main__":
    case, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cases = {f.__name__: f for f in (concurrent, short_lived, clients, forks, members)}
    print(json.dumps(cases[case](count, seed)))
