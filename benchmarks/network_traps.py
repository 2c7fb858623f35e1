"""What docs/networks.md warns of, measured: one plastic network, and what each trap makes of its time.

    python benchmarks/network_traps.py

Prints a Markdown table. The network is like `hebbax simulate cuba`, with a delay of 15 steps: 4 000 integrate-and-fire
neurons with 80 synapses each, at a few Hz, whose excitatory ones learn; and one of 16 000 with 320 each for the rows on
devices. Programs take turns, and what is told is the median over rounds of the ratio to the program that a row is
compared with. It takes a minute or two, most of it compilation.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from machine import commit, machine, versions

import hebbax
from hebbax.sharding import exchange

ROUNDS, STEPS, DELAY, WARM_UP = 15, 1500, 15, 3000
DT = 0.1 * u.ms
HOLD = {"fence": hebbax.fence, "barrier": jax.lax.optimization_barrier, "nothing": lambda x: x}


class Membrane(NamedTuple):
    """Neurons' state, potentials in mV above the leak potential."""

    voltage: jax.Array
    excitation: jax.Array
    inhibition: jax.Array
    resting: jax.Array  # steps that remain


@dataclass(frozen=True)
class Network:
    """Excitatory and inhibitory synapses; every fifth neuron is inhibitory."""

    excitatory: hebbax.Synapses
    inhibitory: hebbax.Synapses
    weight: float  # at first; of the inhibitory synapses it is `inhibition`, for good
    inhibition: float

    @classmethod
    def draw(cls, n: int, synapses: int) -> Network:
        ids, draw = np.arange(n), functools.partial(hebbax.Synapses.random, (n, n), prob=synapses / n)
        of_80 = 80 / synapses  # of Vogels & Abbott's weights
        return cls(draw(pre=ids[ids % 5 > 0]), draw(pre=ids[ids % 5 == 0], seed=1), 1.62 * of_80, -9.0 * of_80)

    @property
    def rule(self) -> hebbax.PairSTDP:
        step = 0.01 * self.weight
        return hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, step, 1.05 * step, 0.0, 2 * self.weight)

    def start(self) -> tuple:
        n, traces = self.excitatory.n_pre, self.rule.init(self.excitatory)
        voltage = np.random.default_rng(2).uniform(-11, -1, n).astype(np.float32)
        membrane = Membrane(jnp.asarray(voltage), jnp.zeros(n), jnp.zeros(n), jnp.zeros(n, jnp.int32))
        return jnp.zeros((DELAY, n), bool), membrane, jnp.full(self.excitatory.nse, self.weight, jnp.float32), traces


@dataclass(frozen=True)
class Program:
    """The network's loop, as the page recommends it unless a field says otherwise."""

    hold: str = "fence"
    after: bool = True
    record: str = "raster"  # or 'ids', 'voltages', 'counts', 'nothing'
    plastic: bool = True
    shared: str = "number"  # what a static network's excitatory weight is; or 'built', 'argument'
    structure: str = "argument"  # or 'closed over'
    ring: bool = False  # the delay as a ring of spikes, and not as intervals of one delay
    donate: bool = False
    steps: int = STEPS  # of a call
    devices: int = 1
    exchange: str = "per delay"  # or 'per step'; or 'awake', as hebbax.experiments have it


def neurons(hold: Callable, state: Membrane, excitation: jax.Array, inhibition: jax.Array) -> tuple:
    """Currents decay with 5 and 10 ms, the potential with 20 ms; the threshold is 1 mV below rest."""
    excitation = (state.excitation + excitation) * np.float32(np.exp(-0.1 / 5))
    inhibition = (state.inhibition + inhibition) * np.float32(np.exp(-0.1 / 10))
    moved = state.voltage + np.float32(0.1 / 20) * (excitation + inhibition - state.voltage)
    voltage = hold(jnp.where(state.resting > 0, np.float32(-11), moved))
    spike = voltage > -1
    resting = jnp.where(spike, 50, jnp.maximum(state.resting - 1, 0))
    return hold((Membrane(jnp.where(spike, np.float32(-11), voltage), excitation, inhibition, resting), spike))


def recorded(program: Program, spike: jax.Array, voltage: jax.Array) -> Any:
    if program.record == "ids":
        return jnp.nonzero(spike, size=64, fill_value=spike.size)[0]
    return {"nothing": None, "raster": spike, "voltages": (spike, voltage), "counts": (spike, spike.sum())}[
        program.record
    ]


def build(network: Network, program: Program, mesh: Mesh | None = None) -> tuple[Callable, tuple, float]:
    """The compiled function `(state, *others) -> (state, recorded)`, its arguments, and the seconds to compile it."""
    rule, hold, state = network.rule, HOLD[program.hold], network.start()
    if program.ring:
        state = hebbax.delays.Ring.of(state[0][0], DELAY * DT, DT), *state[1:]
    others: Any = network.excitatory, network.inhibitory
    if mesh is not None:
        others, state = split(network, mesh, state)
    if program.shared == "argument":
        others = *others, state[2]

    def gather(spike: jax.Array, axis: int) -> jax.Array:
        if mesh is None:
            return spike
        if program.exchange == "awake":
            lists = exchange(spike, "neurons", awake=True)
            return jax.lax.map(lambda k: lists.at(k).todense(), jnp.arange(lists.steps))
        return jax.lax.all_gather(spike, "neurons", axis=axis, tiled=True)

    def step(synapses: tuple, shared: Any, carry: tuple, pre_spike: jax.Array) -> tuple:
        membrane, weight, traces = carry
        sent = weight if program.plastic else shared
        excitation = synapses[0].propagate_on_pre(sent, pre_spike)
        inhibition = synapses[1].propagate_on_pre(np.float32(network.inhibition), pre_spike)
        membrane, spike = neurons(hold, membrane, excitation, inhibition)
        if program.plastic:
            after = excitation if program.after else None
            weight, traces = rule.step(synapses[0], weight, traces, pre_spike, spike, DT, after=after)
        everyone = gather(spike, 0) if program.exchange == "per step" else spike
        return (membrane, weight, traces), (everyone, recorded(program, spike, membrane.voltage))

    def run(state: tuple, *others: Any) -> tuple:
        synapses, shared = others[:2], np.float32(network.weight)
        if mesh is not None:
            synapses = tuple(s.local() for s in synapses)
        if program.shared == "argument":
            shared = others[2]
        if program.shared == "built":
            shared = jnp.full(network.excitatory.nse, network.weight, jnp.float32)

        def interval(state: tuple, _: None) -> tuple:
            carry, (spikes, seen) = jax.lax.scan(functools.partial(step, synapses, shared), state[1:], state[0])
            return (spikes if program.exchange == "per step" else gather(spikes, 1), *carry), seen

        def ring_step(state: tuple, _: None) -> tuple:
            ring, *carry = state
            carry, (spike, seen) = step(synapses, shared, tuple(carry), ring.due())
            return (ring.push(spike)[0], *carry), seen

        if program.ring:
            return jax.lax.scan(ring_step, state, None, program.steps)
        return jax.lax.scan(interval, state, None, program.steps // DELAY)

    if mesh is not None:
        part, whole = P("neurons"), P()
        specs = whole, part, part, type(state[3])(pre=whole, post=part)
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(specs, part, part), out_specs=(specs, P(None, None, "neurons")), check_vma=False
        )
    arguments = (state, *others)
    if program.structure == "closed over":
        arguments, run = (state,), lambda state, run=run: run(state, *others)
    start = time.perf_counter()
    compiled = jax.jit(run, donate_argnums=0 if program.donate else ()).lower(*arguments).compile()
    return compiled, arguments, time.perf_counter() - start


def split(network: Network, mesh: Mesh, state: tuple) -> tuple[tuple, tuple]:
    """Structure and state, shared out: each device has so many neurons, and all synapses onto them."""
    layout = hebbax.sharding.Layout.even(network.excitatory.n_pre, mesh.size)
    e, i = (hebbax.sharding.split(s, mesh, pre=layout, post=layout) for s in (network.excitatory, network.inhibitory))
    traces = type(state[3])(pre=e.split_pre(state[3].pre, replicated=True), post=e.split_post(state[3].post))
    arriving = jax.device_put(state[0], jax.sharding.NamedSharding(mesh, P()))
    return (e, i), (arriving, jax.tree.map(e.split_post, state[1]), e.split_weight(state[2]), traces)


class Timed:
    """A program that is ready to be timed, warm."""

    def __init__(self, network: Network, program: Program):
        mesh = Mesh(jax.devices()[: program.devices], ("neurons",)) if program.devices > 1 else None
        hebbax.set_num_threads(1)
        self.call, (self.state, *self.others), _ = build(network, program, mesh)
        self.program, self.neurons = program, network.excitatory.n_pre
        self.spikes = self.timed_steps = 0
        for _ in range(WARM_UP // program.steps):
            self.state, _ = jax.block_until_ready(self.call(self.state, *self.others))

    def once(self) -> float:
        """Seconds a step."""
        calls = STEPS // self.program.steps
        start = time.perf_counter()
        for _ in range(calls):
            self.state, seen = self.call(self.state, *self.others)
        jax.block_until_ready((self.state, seen))
        taken = time.perf_counter() - start
        seen = np.asarray(seen[0] if isinstance(seen, tuple) else seen)
        if self.program.record != "nothing":
            self.spikes += (seen < self.neurons).sum() if self.program.record == "ids" else seen.sum()
            self.timed_steps += self.program.steps
        return taken / (calls * self.program.steps)

    @property
    def rate(self) -> str:
        """Of short calls, that of the last in each round."""
        return f"{self.spikes / (self.neurons * self.timed_steps * 1e-4):.1f} Hz" if self.timed_steps else ""


BEST = Program()
STATIC, SHORT = replace(BEST, plastic=False), replace(BEST, steps=DELAY)
GROUPS = (  # of programs that take turns, the first being what the others are compared with
    (
        (4000, 80),
        {
            "as above, the delay by intervals": BEST,
            "the delay by `hebbax.delays.Ring`": replace(BEST, ring=True),
            "no fence": replace(BEST, hold="nothing"),
            "`optimization_barrier` for the fence": replace(BEST, hold="barrier"),
            "no `after`": replace(BEST, after=False),
            "no spikes recorded": replace(BEST, record="nothing"),
            "spikes recorded as ids, by `jnp.nonzero(size=64)`": replace(BEST, record="ids"),
            "potentials recorded as well": replace(BEST, record="voltages"),
            "spikes counted in every step, by `sum`": replace(BEST, record="counts"),
        },
    ),
    (
        (4000, 80),
        {
            "static, the shared weight a number": STATIC,
            "`jnp.full(nse, w)` in the function": replace(STATIC, shared="built"),
            "such an array as an argument": replace(STATIC, shared="argument"),
        },
    ),
    (
        (4000, 80),
        {
            "calls of 15 steps, state donated": replace(SHORT, donate=True),
            "not donated": SHORT,
        },
    ),
    (
        (16_000, 320),
        {
            "one device, 16 000 × 320": BEST,
            "two devices, one exchange per delay, as `hebbax simulate` does it": replace(
                BEST, devices=2, exchange="awake"
            ),
            "the same, by `jax.lax.all_gather`": replace(BEST, devices=2),
            "one `all_gather` per step": replace(BEST, devices=2, exchange="per step"),
        },
    ),
)


def once() -> dict[str, float]:
    """Seconds of what is done once, or once for many steps."""
    network, taken = Network.draw(16_000, 320), {}
    for where in ("argument", "closed over"):
        program = replace(BEST, structure=where)
        taken[f"compilation, structure {where}"] = np.median([build(network, program)[2] for _ in range(3)])
    raster = jax.random.bernoulli(jax.random.key(0), 5e-4, (1000, 4000))
    for name, find in (
        ("`np.nonzero(np.asarray(raster))`, of 1 000 steps of 4 000 neurons", lambda: np.nonzero(np.asarray(raster))),
        ("`np.nonzero(raster)`, which is JAX's", lambda: np.nonzero(raster)),
    ):
        find()
        taken[name] = np.median([seconds(find) for _ in range(3)])
    return taken


def seconds(function: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    load = os.getloadavg()[0]
    print("| program | µs a step | times as long | rate |\n|---|---:|---:|---:|")
    for size, programs in GROUPS:
        network = Network.draw(*size)
        timed = {name: Timed(network, program) for name, program in programs.items()}
        rounds = [[x.once() for x in timed.values()] for _ in range(ROUNDS)]
        for k, name in enumerate(programs):
            ratio = "" if k == 0 else f"{np.median([x[k] / x[0] for x in rounds]):.2f}"
            taken = 1e6 * np.median([x[k] for x in rounds])
            print(f"| {name} | {taken:.1f} | {ratio} | {timed[name].rate} |", flush=True)
    print("\n| once | seconds |\n|---|---:|")
    for name, taken in once().items():
        print(f"| {name} | {taken:.2g} |", flush=True)
    print(f"\nLoad {load:.1f} at first, {os.getloadavg()[0]:.1f} at last; {commit()}; {machine()['cpu']}; {versions()}")


if __name__ == "__main__":
    main()
