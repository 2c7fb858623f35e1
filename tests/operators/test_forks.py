"""What a process that was forked can still do, and what it says of the rest, in processes of their own."""

import os
import sys

import numpy as np
import pytest

import hebbax
from children import environment, run_together
from hebbax._core import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SETUP = """
import multiprocessing, warnings
import brainunit as u, jax, jax.numpy as jnp, numpy as np
import hebbax

warnings.simplefilter("ignore")  # JAX's own, about forks

N, M = 200, 2000
INDPTR, INDICES = np.arange(N + 1) * M, np.tile(np.arange(M), N)

def inplace():
    weight = np.zeros(N * M, np.float32)
    hebbax.inplace.update_csr_on_binary_pre(weight, INDICES, INDPTR, np.ones(N, bool), np.ones(M), shape=(N, M))
    sums = hebbax.inplace.propagate_csr_on_binary_pre(weight, INDICES, INDPTR, np.ones(N, bool), shape=(N, M))
    return float(weight.sum()), float(sums.sum())

def update(backend):
    return np.asarray(hebbax.update_csr_on_binary_pre(
        np.zeros(4, np.float32), np.arange(4), np.array([0, 4]), np.array([True]), np.ones(4, np.float32),
        shape=(1, 4), backend=backend,
    )).sum()

WAYS = {
    "cython": lambda: update("cython"),
    "callback": lambda: update("callback"),
    "low-level": lambda: float(hebbax.update_csr_on_binary_pre_p(
        np.zeros(1, np.float32), np.arange(1), np.array([0, 1]), np.array([True]), np.ones(1, np.float32), shape=(1, 1)
    )[0]),
    "random": lambda: hebbax.Synapses.random((4, 4), outdegree=1).nse,
    "dense": lambda: hebbax.Synapses.from_dense(np.ones((2, 2), np.float32))[0].nse,
    "new rule": lambda: hebbax.InhibitorySTDP(*MADE_BEFORE).eta,
    "rule": lambda: RULE.init(NETWORK).pre.size,
    "step": lambda: RULE.step(NETWORK, np.zeros(1, np.float32), STATE, np.ones(1, bool), np.ones(1, bool), 1.0)[0].size,
}

RULE = hebbax.PairSTDP(20.0, 20.0, 0.1, 0.1, 0.0, 1.0)

def answer(way, queue):
    try:
        queue.put((way, str((inplace if way == "inplace" else WAYS[way])())))
    except RuntimeError as error:
        queue.put((way, f"RuntimeError: {error}"))

def forked(*ways):
    fork = multiprocessing.get_context("fork")
    for way in ways:
        queue = fork.SimpleQueue()
        child = fork.Process(target=answer, args=(way, queue))
        child.start()
        child.join(20)
        if child.is_alive():
            child.kill()
            print(f"{way}: no answer")
        else:
            print("{}: {}".format(*queue.get()))
"""


def run(script):
    """What a script says of each way, line by line."""
    (status,), (output,) = run_together([[sys.executable, "-c", SETUP + script]], [environment()])
    assert status == 0, output
    return dict(line.split(": ", 1) for line in output.strip().splitlines())


@pytest.mark.slow
def test_after_jax_and_openmp_have_run():
    """JAX is refused at once, with what to do instead; the kernels themselves work, on one thread."""
    said = run("""
ONE = jnp.ones(())
MADE_BEFORE = ONE * u.ms, ONE * u.nS, ONE * u.Hz, 0 * ONE * u.nS, ONE * u.nS
NETWORK, _ = hebbax.Synapses.from_dense(np.ones((1, 1), np.float32))
STATE = RULE.init(NETWORK)
hebbax.set_num_threads(2)
print("parent:", inplace())
forked("inplace", *WAYS)
""")
    assert said.pop("parent") == said.pop("inplace") == "(400000.0, 400000.0)"
    assert len(said) == 8
    for way, words in said.items():
        assert words.startswith("RuntimeError: this process was forked from one in which JAX was running"), way
        assert "'spawn'" in words and "hebbax.inplace" in words


def test_before_jax_has_run():
    """Everything works, also twice removed from where hebbax was imported."""
    said = run('forked("inplace", "cython", "callback", "low-level", "random", "dense")')
    assert said == {
        "inplace": "(400000.0, 400000.0)", "cython": "4.0", "callback": "4.0",
        "low-level": "1.0", "random": "4", "dense": "4",
    }  # fmt: skip


@pytest.mark.parametrize("way", ["init", "step"])
def test_a_rule_asks_whether_jax_is_lost(way, monkeypatch):
    rule = hebbax.PairSTDP(20.0, 20.0, 0.1, 0.1, 0.0, 1.0)
    synapses, weight = hebbax.Synapses.from_dense(np.ones((1, 1), np.float32))
    state, spike = rule.init(synapses), np.ones(1, bool)
    monkeypatch.setattr(forks, "_jax_is_lost", True)
    with pytest.raises(RuntimeError, match="forked"):
        rule.init(synapses) if way == "init" else rule.step(synapses, weight, state, spike, spike, 1.0)


@pytest.mark.slow
def test_cuda_does_not_survive_a_fork():
    """On CuPy's stand-in: a child of a process that has asked for CUDA says what to do, one of another may ask."""
    said = run("""
import emulated
if reason := emulated.install():
    print("skip:", reason)
    raise SystemExit
from hebbax._cuda import launch
WAYS["cuda"] = lambda: launch.missing()
import cupy
ROW, ONE = np.array([0, 1]), np.ones(1, bool)
WAYS["array"] = lambda: hebbax.inplace.propagate_csr_on_binary_pre(WEIGHT, ROW[:1], ROW, ONE, shape=(1, 1))
forked("cuda")
print("parent:", WAYS["cuda"]())
WEIGHT = cupy.zeros(1, np.float32)
print("before:", end=" ")
forked("array")
""")
    if "skip" in said:
        pytest.skip(said["skip"])
    assert said["cuda"] == said["parent"] == "None"
    words = (
        "RuntimeError: weight: got a ndarray on a CUDA device, whose kernels cannot be used: this process was forked"
    )
    assert said["before"].startswith(f"array: {words}") and "'spawn'" in said["before"]
