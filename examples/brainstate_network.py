"""A network in brainstate, unchanged, before and after `hebbax.brainevent.enable()`.

4 000 leaky neurons, 4 in 5 of them excitatory, each with a fixed number of random synapses (`EventFixedProb`) onto all:
the network of Vogels & Abbott (2005, doi:10.1523/JNEUROSCI.3508-05.2005) with synapses that are currents, as in the
review of Brette et al. (2007, doi:10.1007/s10827-007-0038-6). Neither brainstate nor the program knows of hebbax.
"""

from __future__ import annotations

import time
from typing import Annotated

import brainstate
import jax.numpy as jnp
import numpy as np
import typer

import hebbax.brainevent

DT = 0.1  # ms
REST, THRESHOLD, RESET = -49.0, -50.0, -60.0  # mV
EXCITATION, INHIBITION = 1.62, -9.0  # mV


class Network(brainstate.nn.Module):
    """Voltages, and the currents that excitatory and inhibitory spikes leave behind."""

    def __init__(self, neurons: int, synapses: int):
        super().__init__()
        self.excitatory = neurons * 4 // 5
        inhibitory = neurons - self.excitatory
        self.to_excite = brainstate.nn.EventFixedProb(self.excitatory, neurons, synapses, EXCITATION, seed=1)
        self.to_inhibit = brainstate.nn.EventFixedProb(inhibitory, neurons, synapses, INHIBITION, seed=2)
        start = np.random.default_rng(3).uniform(RESET, THRESHOLD, neurons)
        self.voltage = brainstate.ShortTermState(jnp.asarray(start, jnp.float32))
        self.excitation, self.inhibition = (brainstate.ShortTermState(jnp.zeros(neurons)) for _ in range(2))
        self.silence = brainstate.ShortTermState(jnp.zeros(neurons, jnp.int32))  # steps, after a spike

    def update(self, _):
        drive = REST - self.voltage.value + self.excitation.value + self.inhibition.value
        voltage = jnp.where(self.silence.value > 0, RESET, self.voltage.value + DT / 20 * drive)
        spikes = voltage > THRESHOLD
        self.voltage.value = jnp.where(spikes, RESET, voltage)
        self.silence.value = jnp.where(spikes, round(5 / DT), self.silence.value - 1)
        self.excitation.value += DT * (-self.excitation.value / 5) + self.to_excite(spikes[: self.excitatory])
        self.inhibition.value += DT * (-self.inhibition.value / 10) + self.to_inhibit(spikes[self.excitatory :])
        return spikes


def simulate(neurons: int, synapses: int, steps: int) -> tuple[np.ndarray, float]:
    """Return the spikes, `(steps, neurons)`, and the processor time of a second run, in which nothing compiles."""
    network = Network(neurons, synapses)
    run = brainstate.transform.jit(lambda: brainstate.transform.for_loop(network.update, jnp.arange(steps)))
    first = np.asarray(run())
    started = time.process_time()
    second = np.asarray(run())
    return np.concatenate([first, second]), time.process_time() - started


def main(
    neurons: Annotated[int, typer.Option(min=10)] = 4000,
    synapses: Annotated[int, typer.Option(min=1, help="Of each neuron.")] = 80,
    milliseconds: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Simulate with brainevent's own kernels and with hebbax's, and compare."""
    steps = round(milliseconds / DT)
    print(f"{neurons} neurons, {synapses} synapses each, {milliseconds} ms: compiling, and two runs, twice", flush=True)
    before, seconds = simulate(neurons, synapses, steps)
    rate = before[steps:].mean() / DT * 1000
    print(f"brainevent alone   {seconds:7.3f} s of processor time, {rate:.1f} spikes/s of a neuron", flush=True)
    with hebbax.brainevent.enable():
        after, faster = simulate(neurons, synapses, steps)
    print(f"with hebbax        {faster:7.3f} s of processor time, {seconds / faster:.1f} times less")
    print("spikes are equal" if np.array_equal(before, after) else "spikes DIFFER")


if __name__ == "__main__":
    typer.run(main)
