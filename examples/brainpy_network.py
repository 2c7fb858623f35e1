"""A plastic network in BrainPy, unchanged, before and after `hebbax.brainevent.enable()`.

Poisson inputs make neurons fire through synapses that learn: `STDP_Song2000` with `EventCSRLinear` (Song, Miller &
Abbott 2000, doi:10.1038/78829). BrainPy computes both by brainevent; neither it nor the program knows of hebbax.
"""

from __future__ import annotations

import time
from typing import Annotated

import brainpy as bp
import brainpy.math as bm
import numpy as np
import typer

import hebbax.brainevent


class Network(bp.DynSysGroup):
    """As many inputs as neurons, connected at random."""

    def __init__(self, neurons: int, synapses: int):
        super().__init__()
        self.inputs = bp.dyn.PoissonGroup(neurons, freqs=15.0)
        self.neurons = bp.dyn.LifRef(neurons, V_rest=-60.0, V_th=-50.0, V_reset=-60.0, tau=20.0, tau_ref=5.0)
        weight = np.random.default_rng(2).uniform(0, 3, neurons * synapses).astype(np.float32)
        self.plastic = bp.dyn.STDP_Song2000(
            pre=self.inputs,
            delay=None,
            comm=bp.dnn.EventCSRLinear(
                bp.conn.FixedPostNum(synapses, pre=neurons, post=neurons, seed=1), bm.Variable(weight)
            ),
            syn=bp.dyn.Expon.desc(neurons, tau=5.0),
            out=bp.dyn.CUBA.desc(),
            post=self.neurons,
            tau_s=20.0,
            tau_t=20.0,
            A1=0.01,
            A2=0.0105,
            W_min=0.0,
            W_max=3.0,
        )

    def update(self):
        self.plastic()
        self.inputs()
        self.neurons()
        return self.neurons.spike.value


def simulate(neurons: int, synapses: int, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the spikes, `(steps, neurons)`, how weights changed, and the processor time of a second run."""
    bm.random.seed(3)
    network = Network(neurons, synapses)
    weight = np.asarray(network.plastic.comm.weight.value)
    run = bm.jit(lambda start: bm.for_loop(network.step_run, start + bm.arange(steps)))
    first = np.asarray(run(0))
    started = time.process_time()
    second = np.asarray(run(steps))
    seconds = time.process_time() - started
    return np.concatenate([first, second]), np.asarray(network.plastic.comm.weight.value) - weight, seconds


def main(
    neurons: Annotated[int, typer.Option(min=10)] = 1000,
    synapses: Annotated[int, typer.Option(min=1, help="Of each input.")] = 100,
    milliseconds: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Simulate with brainevent's own kernels and with hebbax's, and compare."""
    steps = round(milliseconds / bm.get_dt())
    print(f"{neurons} neurons, {synapses} synapses each, {milliseconds} ms: compiling, and two runs, twice", flush=True)
    before, changes, seconds = simulate(neurons, synapses, steps)
    rate = before[steps:].mean() / bm.get_dt() * 1000
    print(f"brainevent alone   {seconds:7.3f} s of processor time, {rate:.1f} spikes/s of a neuron", flush=True)
    with hebbax.brainevent.enable():
        after, changes_after, faster = simulate(neurons, synapses, steps)
    print(f"with hebbax        {faster:7.3f} s of processor time, {seconds / faster:.1f} times less")
    same = np.array_equal(before, after) and np.array_equal(changes, changes_after)
    print(f"spikes and changes of weights ({abs(changes).mean():.3f} on average)", "are equal" if same else "DIFFER")


if __name__ == "__main__":
    typer.run(main)
