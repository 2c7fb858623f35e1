"""Many runs of a network, with different constants, as one program on one device."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.sent import nobody, pack
from hebbax._core.specs import Sent
from hebbax.experiments.learning import learning_of
from hebbax.experiments.network import Network, check_senders
from hebbax.experiments.network_loop import CHUNK_STEPS, steps_in
from hebbax.experiments.network_report import SETTLED
from hebbax.experiments.network_split import Own, State, number, run_interval
from hebbax.experiments.sweeping import Outcome, check_memory, side_by_side


def simulate(
    networks: Sequence[Network], *, seconds: float, backend: str | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> Outcome:  # fmt: skip
    """Run networks that have the same neurons and synapses, and differ in numbers: one `jax.vmap` of all of them.

    Parameters
    ----------
    networks : sequence of Network
        As an experiment's `build` returns them.
    seconds : float
        Biological time, at least one step.
    backend : str, optional
        Of the operators.
    on_progress : callable, optional
        Called with the biological time in seconds; if what it returns is true, the run ends there.

    Returns
    -------
    Outcome
        Each member is as a run by itself, to rounding: what rules compute with constants that differ, a run by itself
        computes in Python, in float64, or in a kernel (see `hebbax.experiments.learning`), and XLA may merge operations
        in another way.

    Raises
    ------
    ValueError
        The networks differ in more than numbers; `seconds` is not a positive number, or takes too many steps.
    MemoryError
        They do not fit into memory together.
    """
    network, members = networks[0], len(networks)
    if any(other.delay != network.delay for other in networks):
        raise ValueError("delay: expected the same for all members")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds: got {seconds}, expected a positive number")
    steps, dt, delay = steps_in(seconds, network.neurons.time_step), network.neurons.time_step / u.second, network.delay
    n, settled = network.excitatory.size, int(SETTLED * steps)
    synapses = [p.synapses for p in network.projections]
    for p, s in zip(network.projections, synapses, strict=True):
        check_senders(p, np.asarray(s.indptr), network.excitatory)
    learning = [k for k, p in enumerate(network.projections) if p.rule is not None]
    each = 4 * sum(2 * synapses[k].nse for k in learning) + n * (40 + 12 * len(learning) + 14 * delay)
    check_memory(members, each, CHUNK_STEPS * n * 4)
    of_members, axes = side_by_side([
        (x.neurons.constants, [p.weight for p in x.projections], [p.rule for p in x.projections]) for x in networks
    ])  # fmt: skip
    everyone = Own(np.arange(n, dtype=np.int32), network.excitatory, np.ones(n, bool))
    sent = Sent(n, 2 * delay, n * delay)

    def network_of(constants: tuple) -> Network:
        neurons, weights, rules = constants
        projections = [
            dataclasses.replace(p, weight=w, rule=r)
            for p, w, r in zip(network.projections, weights, rules, strict=True)
        ]
        own: Any = dataclasses.replace(network.neurons, given=neurons)  # type: ignore[type-var]
        return dataclasses.replace(network, neurons=own, projections=projections)

    def start(constants: tuple, synapses: list) -> tuple[State, jax.Array]:
        own = network_of(constants)
        state = State(
            arriving=nobody(sent),
            own=jnp.zeros(((1 + network.dendritic) * delay, n), bool),
            crowded=jnp.int32(0),
            neurons=own.neurons.start(jnp.asarray(everyone.ids)),
            weights=tuple(jnp.full(synapses[k].nse, number(own.projections[k].weight), jnp.float32) for k in learning),
            traces=tuple(x.start(synapses[k]) for k, x in learning_of(own, backend).items()),
        )
        return state, jnp.zeros(n, jnp.int32)

    def run(constants: tuple, carry: tuple, synapses: list, firsts: jax.Array) -> tuple[State, jax.Array]:
        own = network_of(constants)

        def interval(carry: tuple, first: jax.Array) -> tuple[tuple, None]:
            state, counts = carry
            numbers = first + jnp.arange(delay, dtype=jnp.int32)
            drive = own.neurons.drive(jnp.asarray(everyone.ids), numbers)
            learning = learning_of(own, backend)
            after, spikes = run_interval(
                own, synapses, learning, everyone, drive, state, state.arriving, numbers, backend
            )
            counted = (numbers >= settled) & (numbers < steps)
            counts = counts + jnp.sum(spikes & counted[:, None], axis=0, dtype=jnp.int32)
            kept = jnp.concatenate([state.own[delay:], spikes])
            return (State(pack(everyone.by_population(spikes), n * delay), kept, state.crowded, *after), counts), None

        return jax.lax.scan(interval, carry, firsts)[0]

    carry = jax.jit(jax.vmap(start, in_axes=(axes, None), axis_size=members))(of_members, synapses)
    run_all = jax.jit(jax.vmap(run, in_axes=(axes, 0, None, None), axis_size=members), donate_argnums=1)
    chunk, intervals = max(1, CHUNK_STEPS // delay), math.ceil(steps / delay)
    firsts = [np.arange(k, min(k + chunk, intervals), dtype=np.int32) * delay for k in range(0, intervals, chunk)]
    compiled = {x.size: run_all.lower(of_members, carry, synapses, x).compile() for x in (firsts[0], firsts[-1])}
    started, done = time.perf_counter(), 0
    for some in firsts:
        carry = jax.block_until_ready(compiled[some.size](of_members, carry, synapses, some))
        done = min(int(some[-1]) + delay, steps)
        if on_progress and on_progress(done * dt):
            break
    state, counts = carry
    rates = np.asarray(counts) / max(done - settled, 1) / dt
    populations = {"excitatory": rates[:, network.excitatory], "inhibitory": rates[:, ~network.excitatory]}
    weight = np.asarray(state.weights[0]) if learning else np.zeros((members, 0), np.float32)
    low, high = (_bound(networks, learning, name, other) for name, other in (("w_min", 0.0), ("w_max", math.inf)))
    return Outcome(
        done, done < steps, populations, weight, low, high, network.weight_unit, time.perf_counter() - started
    )


def _bound(networks: Sequence[Network], learning: list[int], name: str, otherwise: float) -> np.ndarray:
    rules = [x.projections[learning[0]].rule if learning else None for x in networks]
    return np.array([getattr(rule, name, otherwise) for rule in rules], np.float64)
