"""The networks in plain JAX with brainevent's operators; see script.py for the arguments.

brainevent adds a trace to the weights of neurons that spike. Where the change depends on the weight, what it would add
is found first, from weights of zero, and then all weights change: its other way, `csr_apply_on_pre` and
`csr_apply_on_post`, goes through all synapses too, and in plain JAX.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from typing import Any

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
from constants import DT, Brunel, Cuba, Hpc
from script import Network, Outcome, keep_to, main, peak_memory, since_start, weights

BLOCK = 50  # steps in one call


def run(options: argparse.Namespace, network: Network) -> Outcome:
    keep_to(options.threads)  # before JAX starts its threads
    jax.block_until_ready(jnp.zeros(1))
    memory_before, started = peak_memory(), time.perf_counter()
    structure, make_step = MODELS[type(network)]
    pairs = structure(network, np.random.default_rng(options.seed))
    n_e, n_i = network.excitatory, network.neurons - network.excitatory
    shapes = {"ee": (n_e, n_e), "ei": (n_e, n_i), "ie": (n_i, n_e), "ii": (n_i, n_i)}
    plastic = not options.static
    projections = {name: project(shapes[name], pairs.pop(name), plastic and name == "ee") for name in shapes}
    jax.block_until_ready(projections)
    built = time.perf_counter()

    def start() -> dict:
        return initial_state(network, jax.random.key(options.seed), projections["ee"] if plastic else None)

    @functools.partial(jax.jit, donate_argnums=0)
    def block(state: dict, projections: dict) -> dict:
        step = make_step(network, projections, plastic)
        return jax.lax.scan(lambda state, _: (step(state), None), state, length=BLOCK)[0]

    compiled = block.lower(start(), projections).compile()
    jax.block_until_ready(compiled(start(), projections))  # compiles the kernels
    state = jax.block_until_ready(start())
    ready, cpu, before_first_step = time.perf_counter(), time.process_time(), since_start()
    blocks = round(options.seconds * 1000 / DT / BLOCK)
    for _ in range(blocks):
        state = compiled(state, projections)
    jax.block_until_ready(state)
    wall, cpu = time.perf_counter() - ready, time.process_time() - cpu
    memory = peak_memory()
    return Outcome(
        wall=wall,
        cpu=cpu,
        build=built - started,
        compilation=ready - built,
        before_first_step=before_first_step,
        memory=memory,
        memory_before=memory_before,
        rate=float(state["spikes"].sum()) / network.neurons / (blocks * BLOCK * DT / 1000),
        **weights(np.asarray(state["w"]) if plastic else None),
    )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("indices", "indptr", "workspace", "post"),
    meta_fields=("shape",),
)
@dataclasses.dataclass(frozen=True)
class Projection:
    """CSR structure, the CSC view of it if it is plastic, and what brainevent's products want besides."""

    shape: tuple[int, int]
    indices: Any
    indptr: Any
    workspace: Any
    post: Any = None  # indices, indptr, weight_indices

    def propagate(self, weight, spike):
        weight = jnp.full(1, weight, jnp.float32) if jnp.ndim(weight) == 0 else weight
        options = dict(shape=self.shape, workspace=self.workspace, transpose=True)
        return brainevent.binary_csrmv(weight, self.indices, self.indptr, spike, **options)

    def on_pre(self, weight, spike, trace, **bounds):
        structure = self.indices, self.indptr
        return brainevent.update_csr_on_binary_pre(weight, *structure, spike, trace, shape=self.shape, **bounds)

    def on_post(self, weight, spike, trace, **bounds):
        return brainevent.update_csr_on_binary_post(weight, *self.post, trace, spike, shape=self.shape, **bounds)


def bernoulli(rng: np.random.Generator, shape: tuple[int, int], probability: float) -> np.ndarray:
    """Connect each two neurons with this probability; returns presynaptic and postsynaptic neurons, in CSR order."""
    cells, mean = math.prod(shape), math.prod(shape) * probability
    gaps = rng.geometric(probability, int(mean + 10 * math.sqrt(mean) + 10))
    cell = np.cumsum(gaps) - 1
    return np.stack(np.divmod(cell[: np.searchsorted(cell, cells)], shape[1])).astype(np.int32)


def fixed_indegree(rng: np.random.Generator, shape: tuple[int, int], indegree: int, autapses: bool) -> np.ndarray:
    """Draw so many inputs, of which some may be the same, for each postsynaptic neuron; returns them in CSR order."""
    post = np.repeat(np.arange(shape[1], dtype=np.int32), indegree)
    pre = rng.integers(shape[0] - (not autapses), size=post.size, dtype=np.int32)
    if not autapses:
        pre += pre >= post
    order = np.argsort(pre, kind="stable")
    return np.stack([pre[order], post[order]])


def project(shape: tuple[int, int], pairs: np.ndarray, plastic: bool = False) -> Projection:
    pre, indices = pairs
    indptr = np.searchsorted(pre, np.arange(shape[0] + 1)).astype(np.int32)
    matrix = brainevent.CSR((jnp.zeros(1), jnp.asarray(indices), jnp.asarray(indptr)), shape=shape)
    _ = brainevent.BinaryArray(jnp.zeros(shape[0], bool)) @ matrix
    post = None
    if plastic:
        post_indptr, post_indices, slots = brainevent.csr_to_csc_index(indptr, indices, shape=shape, method="numpy")
        post = jnp.asarray(post_indices), jnp.asarray(post_indptr), jnp.asarray(slots)
    return Projection(shape, matrix.indices, matrix.indptr, matrix.buffers["binary_workspace"]["csr"], post)


def bernoulli_pairs(p: Cuba | Brunel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = {"e": p.excitatory, "i": p.neurons - p.excitatory}
    return {pre + post: bernoulli(rng, (n[pre], n[post]), p.probability) for pre in "ei" for post in "ei"}


def indegree_pairs(p: Hpc, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n, indegree = {"e": p.excitatory, "i": p.inhibitory}, {"e": p.indegree_e, "i": p.indegree_i}
    return {
        pre + post: fixed_indegree(rng, (n[pre], n[post]), indegree[pre], autapses=pre != post)
        for pre in "ei"
        for post in "ei"
    }


def initial_state(p: Network, key, plastic: Projection | None) -> dict:
    """Names are those of the equations; `late` spikes are in a ring, the oldest first at `t % length`."""
    n, n_e = p.neurons, p.excitatory
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    v = jnp.full(n, p.reset, jnp.float32)
    if isinstance(p, Cuba):
        v = jax.random.uniform(key, (n,), jnp.float32, p.reset, p.threshold)
    if isinstance(p, Hpc):
        v = p.start_mean + p.start_sd * jax.random.normal(key, (n,), jnp.float32)
    state = {"v": v, "refractory": jnp.zeros(n, jnp.int32), "spikes": jnp.zeros(n, jnp.int32)}
    if isinstance(p, Cuba):
        state |= {"ge": zeros(n), "gi": zeros(n)}
    else:
        state |= {"ring": jnp.zeros((round(p.delay / DT), n), bool), "t": jnp.int32(0), "key": key}
    if isinstance(p, Hpc):
        state |= {"current": zeros(n), "rise": zeros(n)}
    if plastic is not None:
        weight = jnp.full(plastic.indices.size, p.w_e, jnp.float32)
        state |= {"w": weight, "x": zeros(n_e), "y": zeros(n_e)}
    return state


def decay(tau: float) -> float:
    return math.exp(-DT / tau)


def fire(p: Network, state: dict, v):
    """Spikes of the neurons whose potential, after a step, is `v`; and the potential and refractory time then."""
    rest = state["refractory"] > 0
    v = jnp.where(rest, p.reset, v)
    spike = v >= p.threshold
    refractory = jnp.where(spike, round(p.refractory / DT), jnp.maximum(state["refractory"] - 1, 0))
    # Or XLA would compute all of this again for every array that it is used for.
    return jax.lax.optimization_barrier((spike, jnp.where(spike, p.reset, v), refractory))


def make_cuba_step(p: Cuba, to: dict[str, Projection], plastic: bool):
    n_e = p.excitatory
    slow, fast_e, fast_i = decay(p.tau_m), decay(p.tau_e), decay(p.tau_i)
    # How much of a current at the start of a step the potential has at its end.
    part_e, part_i = ((fast - slow) * tau / (tau - p.tau_m) for fast, tau in ((fast_e, p.tau_e), (fast_i, p.tau_i)))

    def step(state: dict) -> dict:
        v = p.leak + slow * (state["v"] - p.leak) + part_e * state["ge"] + part_i * state["gi"]
        spike, v, refractory = fire(p, state, v)
        spike_e, spike_i = spike[:n_e], spike[n_e:]
        to_e = to["ee"].propagate(state["w"] if plastic else p.w_e, spike_e)
        got_e = jnp.concatenate([to_e, to["ei"].propagate(p.w_e, spike_e)])
        got_i = jnp.concatenate([to[name].propagate(p.w_i, spike_i) for name in ("ie", "ii")])
        new = {
            "v": v,
            "refractory": refractory,
            "spikes": state["spikes"] + spike,
            "ge": fast_e * state["ge"] + got_e,
            "gi": fast_i * state["gi"] + got_i,
        }
        if plastic:
            x, y = decay(p.tau_plus) * state["x"], decay(p.tau_minus) * state["y"]
            w, _ = jax.lax.optimization_barrier((state["w"], to_e))  # or XLA copies what it reads and then changes
            bounds = dict(w_min=0.0, w_max=p.w_max)
            w = to["ee"].on_pre(w, spike_e, -p.a_minus * y, **bounds)
            w = to["ee"].on_post(w, spike_e, p.a_plus * x, **bounds)
            new |= {"w": w, "x": x + spike_e, "y": y + spike_e}
        return new

    return step


def counts(key, n: int, mean: float):
    """Poisson numbers, by inversion of their distribution: a tenth of what jax.random.poisson takes."""
    terms = np.cumsum([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(int(mean + 40))])
    uniform = jax.random.uniform(key, (n,))
    return sum((uniform > float(term)).astype(jnp.float32) for term in terms[terms < 1 - 2**-24])


def late_spikes(state: dict, spike):
    """What left the neurons a delay ago, and the ring with what leaves them now."""
    place = state["t"] % state["ring"].shape[0]
    return state["ring"][place], {"ring": state["ring"].at[place].set(spike), "t": state["t"] + 1}


def deliver(p: Brunel | Hpc, to: dict[str, Projection], late, weight):
    """What all neurons get of spikes of a delay ago, and of it what comes through plastic synapses."""
    late_e, late_i = late[: p.excitatory], late[p.excitatory :]
    to_e = to["ee"].propagate(weight, late_e)
    got_e = jnp.concatenate([to_e, to["ei"].propagate(p.w_e, late_e)])
    return got_e + jnp.concatenate([to[name].propagate(p.w_i, late_i) for name in ("ie", "ii")]), to_e


def make_brunel_step(p: Brunel, to: dict[str, Projection], plastic: bool):
    n_e, slow = p.excitatory, decay(p.tau_m)

    def step(state: dict) -> dict:
        spike, v, refractory = fire(p, state, p.reset + slow * (state["v"] - p.reset))
        late, ring = late_spikes(state, spike)
        got, to_e = deliver(p, to, late, state["w"] if plastic else p.w_e)
        key, drawn = jax.random.split(state["key"])
        got += p.w_e * counts(drawn, p.neurons, p.input_sources * p.input_rate * DT)
        v = jnp.where(refractory > 0, p.reset, v + got)
        new = {"v": v, "refractory": refractory, "spikes": state["spikes"] + spike, "key": key, **ring}
        if plastic:
            # `x` counts presynaptic spikes as they arrive.
            x, y = decay(p.tau_plus) * state["x"], decay(p.tau_minus) * state["y"]
            w, _ = jax.lax.optimization_barrier((state["w"], to_e))
            zeros = jnp.zeros_like(w)
            w -= p.lambda_ * p.alpha * w * to["ee"].on_pre(zeros, late[:n_e], y)
            w += p.lambda_ * (p.w_max - w) * to["ee"].on_post(zeros, spike[:n_e], x)
            new |= {"w": w, "x": x + late[:n_e], "y": y + spike[:n_e]}
        return new

    return step


def make_hpc_step(p: Hpc, to: dict[str, Projection], plastic: bool):
    n_e, slow, fast = p.excitatory, decay(p.tau_m), decay(p.tau_syn)
    # dv/dt = -v / tau_m + current / C, tau_syn dcurrent/dt = e rise - current, tau_syn drise/dt = -rise, over a step.
    a = 1 / p.tau_syn - 1 / p.tau_m
    of_current = (slow - fast) / (a * p.capacity)
    of_rise = math.e / (p.tau_syn * p.capacity * a) * ((slow - fast) / a - DT * fast)

    def step(state: dict) -> dict:
        v = p.reset + slow * (state["v"] - p.reset) + of_current * state["current"] + of_rise * state["rise"]
        spike, v, refractory = fire(p, state, v)
        late, ring = late_spikes(state, spike)
        got, to_e = deliver(p, to, late, state["w"] if plastic else p.w_e)
        key, drawn = jax.random.split(state["key"])
        got += p.w_e * counts(drawn, p.neurons, p.input_sources * p.input_rate * DT)
        new = {
            "v": v,
            "refractory": refractory,
            "spikes": state["spikes"] + spike,
            "current": fast * (state["current"] + math.e * DT / p.tau_syn * state["rise"]),
            "rise": fast * state["rise"] + got,
            "key": key,
            **ring,
        }
        if plastic:
            # `y` counts postsynaptic spikes as they arrive at the synapse.
            x, y = decay(p.tau_plus) * state["x"], decay(p.tau_minus) * state["y"]
            w, _ = jax.lax.optimization_barrier((state["w"], to_e))
            zeros = jnp.zeros_like(w)
            w -= p.lambda_ * p.alpha * w * to["ee"].on_pre(zeros, spike[:n_e], y)
            w += p.lambda_ * w**p.mu * to["ee"].on_post(zeros, late[:n_e], x)
            new |= {"w": jnp.maximum(w, 0), "x": x + spike[:n_e], "y": y + late[:n_e]}
        return new

    return step


MODELS = {
    Cuba: (bernoulli_pairs, make_cuba_step),
    Brunel: (bernoulli_pairs, make_brunel_step),
    Hpc: (indegree_pairs, make_hpc_step),
}

if __name__ == "__main__":
    main(run)
