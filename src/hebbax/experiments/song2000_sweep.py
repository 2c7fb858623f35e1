"""Many runs of `song2000`, with different constants or seeds, as one program on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax.experiments import song2000
from hebbax.experiments.network_report import SETTLED
from hebbax.experiments.song2000 import Constants, Parameters, State
from hebbax.experiments.sweeping import Outcome, check_memory, side_by_side

FIXED = ("time_step", "inhibitory_inputs", "excitatory_rate", "inhibitory_rate")  # say what is drawn, and how much


def simulate(
    parameters: Sequence[Parameters], *, seeds: Sequence[int], neurons: int, inputs: int, seconds: float,
    backend: str | None = None, on_progress: Callable[[float], object] | None = None,
) -> Outcome:  # fmt: skip
    """Run members that differ in constants or seeds: one `jax.vmap` of all of them.

    Parameters
    ----------
    parameters : sequence of Parameters
        Of every member; all have the same `FIXED` ones.
    seeds : sequence of int
        Of every member. Where all are equal, inputs are drawn once for all.
    neurons, inputs, seconds, backend, on_progress
        As `song2000.simulate` takes them.

    Returns
    -------
    Outcome
        Equal to those of runs by themselves to rounding: XLA merges the operations of a step otherwise.

    Raises
    ------
    ValueError
        What must be the same is not; an argument or a parameter is out of range.
    MemoryError
        The members do not fit into memory together.
    """
    p, members = parameters[0], len(parameters)
    for name in FIXED:
        if any(str(getattr(other, name)) != str(getattr(p, name)) for other in parameters):
            raise ValueError(f"{name}: expected the same for all members")
    (steps,) = {song2000.check(other, neurons, inputs, seconds) for other in parameters}
    block, n, settled = song2000.block_of(p, neurons, inputs), neurons, int(SETTLED * steps)
    synapses = song2000.connect(neurons, inputs)
    drawn = 2 * block * n * inputs  # whether each input spikes, and what is computed from it
    differ = len(set(seeds)) > 1
    check_memory(members, 8 * n * inputs + 4 * n * inputs + (drawn if differ else 0), 0 if differ else drawn)
    of_members, axes = side_by_side([song2000.constants(other) for other in parameters])
    keys = jax.vmap(jax.random.split)(jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32)))
    keys, key_axis = (keys, 0) if differ else (keys[0], None)
    ids = np.arange(n)

    def start(c: Constants, keys: jax.Array) -> tuple[State, jax.Array]:
        weight = song2000.initial_weight(c, jnp.asarray(ids), inputs, keys[0])
        return song2000.initial_state(c, synapses, weight), jnp.zeros(n, jnp.int32)

    def run(
        c: Constants, carry: tuple[State, jax.Array], keys: jax.Array, number: jax.Array, length: int
    ) -> tuple[State, jax.Array]:
        state, counts = carry
        key = jax.random.fold_in(keys[1], number)
        pre_spikes, inhibitory, _ = song2000.draw_inputs(p, jnp.asarray(ids), inputs, block, key)
        step = song2000.make_step(c, p.time_step, synapses, backend)
        state, spikes = jax.lax.scan(step, state, (pre_spikes[:length], inhibitory[:length]))
        counted = number * block + jnp.arange(length) >= settled
        return state, counts + jnp.sum(spikes & counted[:, None], axis=0, dtype=jnp.int32)

    carry = jax.jit(jax.vmap(start, in_axes=(axes, key_axis), axis_size=members))(of_members, keys)

    def run_all(c: Constants, carry: tuple, keys: jax.Array, number: jax.Array, length: int) -> tuple:
        def one(c: Constants, carry: tuple, keys: jax.Array) -> tuple:
            return run(c, carry, keys, number, length)

        return jax.vmap(one, in_axes=(axes, 0, key_axis), axis_size=members)(c, carry, keys)

    jitted = jax.jit(run_all, static_argnames="length", donate_argnums=1)
    starts = range(0, steps, block)
    lengths = {min(block, steps - first) for first in (starts[0], starts[-1])}
    compiled = {k: jitted.lower(of_members, carry, keys, np.int32(0), length=k).compile() for k in lengths}
    started, done = time.perf_counter(), 0
    for number, first in enumerate(starts):
        length = min(block, steps - first)
        carry = jax.block_until_ready(compiled[length](of_members, carry, keys, np.int32(number)))
        done = first + length
        if on_progress and on_progress(done * (p.time_step / u.second)):
            break
    state, counts = carry
    rates = np.asarray(counts) / (max(done - settled, 1) * (p.time_step / u.second))
    high = np.array([other.largest_weight for other in parameters])
    return Outcome(
        done, done < steps, {"": rates}, np.asarray(state.weight), np.zeros(members), high, "leak conductances",
        time.perf_counter() - started,
    )  # fmt: skip
