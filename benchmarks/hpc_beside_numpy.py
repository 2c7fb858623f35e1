"""The network `hpc` again in NumPy, in double precision and step by step, given the spikes that hebbax had.

    python benchmarks/hpc_beside_numpy.py [--scale 1] [--inputs 1] [--seconds 0.4]

The network is chaotic: a rounding moves one spike by a step, and some milliseconds later all of them. So NumPy's
neurons are reset where hebbax's have spiked, and nowhere else; each must have been at the threshold then, and at no
other time, and by these spikes the weights must have become what they are: else the command fails. Synapses, first
potentials, input and constants are hebbax's. At scale 1 it takes some minutes and 4 GB.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import Annotated

import brainunit as u
import jax.numpy as jnp
import numpy as np
import typer
from machine import commit, machine, versions
from rich.console import Console

from hebbax.experiments import hpc
from hebbax.experiments.network import Run

BLOCK = 50  # steps whose drive is drawn at once


@dataclass(frozen=True)
class Found:
    """What a run comes to beside NumPy."""

    spikes: int
    wrong: list[tuple[int, int, float]]  # step, neuron, how far (mV) from the threshold: spikes too many, or missing
    close: int  # how often a neuron was within 0.001 mV of the threshold
    weights: int  # of which all were compared
    weight: float  # their mean, pA,
    difference: float  # and the largest difference

    @property
    def largest(self) -> float:
        """How far from the threshold, at most, the wrong ones were."""
        return max((abs(distance) for *_, distance in self.wrong), default=0.0)

    @property
    def rounded(self) -> bool:
        """Whether all that is wrong may come from single precision."""
        return self.largest < 1e-3 and (not self.weights or self.difference < 1e-6 * self.weight)


class Weights:
    """Those of synapses that learn, as matrices: two synapses of the same neurons have the same weight."""

    def __init__(self, projection, neurons: np.ndarray, p: hpc.Parameters):
        self.neurons, self.weight = neurons, np.full((neurons.size, neurons.size), float(projection.weight))
        synapses = projection.synapses
        self.indptr, indices = (np.asarray(x) for x in (synapses.indptr, synapses.indices))
        self.place = np.full(self.indptr.size - 1, -1)
        self.place[neurons] = np.arange(neurons.size)
        self.post = self.place[indices]
        self.number = np.zeros(self.weight.shape, np.uint16)
        for row, j in zip(self.number, neurons, strict=True):
            row[:] = np.bincount(self._targets(j), minlength=neurons.size)
        self.up, self.down, self.mu = p.learning_rate, p.learning_rate * p.depression_ratio, p.exponent
        self.pre_decay, self.post_decay = (np.exp(-(p.time_step / x)) for x in (p.potentiation_time, p.depression_time))
        self.pre_trace, self.post_trace = np.zeros(neurons.size), np.zeros(neurons.size)

    def _targets(self, neuron: int) -> np.ndarray:
        return self.post[self.indptr[neuron] : self.indptr[neuron + 1]]

    def step(self, pre: np.ndarray, post: np.ndarray, out: np.ndarray) -> None:
        """Postsynaptic spikes, as synapses see them, then presynaptic ones, which are sent; then traces."""
        pre, post = (x[x >= 0] for x in (self.place[pre], self.place[post]))
        self.pre_trace *= self.pre_decay
        self.post_trace *= self.post_decay
        for i in post:
            self.weight[:, i] += self.up * self.weight[:, i] ** self.mu * self.pre_trace
        for j in pre:
            self.weight[j] -= self.down * self.weight[j] * self.post_trace
            out[self.neurons] += self.weight[j] * self.number[j]
        self.pre_trace[pre] += 1
        self.post_trace[post] += 1

    def differs_from(self, weight: np.ndarray) -> float:
        """The largest difference, of all weights in CSR order."""
        if weight.size != self.indptr[-1]:
            raise ValueError(f"weight: got {weight.size}, expected {self.indptr[-1]}")
        of_rows = [
            np.abs(weight[self.indptr[j] : self.indptr[j + 1]] - own[self._targets(j)]).max(initial=0)
            for j, own in zip(self.neurons, self.weight, strict=True)
        ]
        return float(np.max(of_rows))  # NaN if any is


def check(run: Run, p: hpc.Parameters) -> Found:
    """Go through a run step by step."""
    network, n, delay = run.network, run.n, run.network.delay
    spikes = np.split(run.spike_neuron, np.searchsorted(run.spike_step, np.arange(1, run.steps)))
    learning, static = None, []
    for projection in network.projections:
        if projection.rule is None:
            synapses = projection.synapses
            views = (np.asarray(x) for x in (synapses.indptr, synapses.indices))
            static.append((*views, float(projection.weight)))
        else:
            learning = Weights(projection, np.flatnonzero(network.excitatory), p)
    # Presynaptic spikes change weights, in hebbax, when they arrive.
    seen = -(-run.steps // delay) * delay - delay
    threshold, drive_weight, rest = p.threshold / u.mV, p.weight / u.pA, round(p.refractory_time / p.time_step)
    (v_v, v_i, v_r), (_, i_i, i_r), (_, _, r_r) = p.propagator
    ids = jnp.arange(n, dtype=jnp.int32)
    voltage = np.asarray(network.neurons.start(ids).voltage, np.float64)
    current, rise, refractory, sent = np.zeros(n), np.zeros(n), np.zeros(n, int), np.zeros((delay + 1, n))
    wrong, close, difference = [], 0, 0.0
    for k in range(run.steps):
        if k % BLOCK == 0:
            drive = np.asarray(network.neurons.drive(ids, jnp.arange(k, k + BLOCK, dtype=jnp.int32)))
        moved = v_v * voltage + v_i * current + v_r * rise
        spike, awake = np.zeros(n, bool), refractory == 0
        spike[spikes[k]] = True
        wrong += [(k, j, moved[j] - threshold) for j in np.flatnonzero(spike != (awake & (moved >= threshold)))]
        close += np.count_nonzero(awake & (np.abs(moved - threshold) < 1e-3))
        voltage = np.where(spike | (refractory > 0), 0.0, moved)
        current, rise = i_i * current + i_r * rise, r_r * rise
        refractory = np.where(spike, rest, np.maximum(refractory - 1, 0))
        out = sent[(k + delay) % (delay + 1)]
        out[:] = 0
        if learning is not None:
            if k == seen:
                difference = learning.differs_from(run.weight_end)
                mean = np.average(learning.weight, weights=learning.number)
            learning.step(spikes[k], spikes[k - delay] if k >= delay else spikes[k][:0], out)
        for indptr, indices, weight in static:
            for j in spikes[k]:
                out += weight * np.bincount(indices[indptr[j] : indptr[j + 1]], minlength=n)
        rise += sent[k % (delay + 1)] + drive_weight * drive[k % BLOCK].astype(np.float64)
    if learning is None:
        mean = float("nan")
    return Found(run.spike_step.size, wrong, close, run.weight_end.size, float(mean), difference)


def main(
    scale: Annotated[float, typer.Option(help="Neurons, in 11 250.")] = 1.0,
    inputs: Annotated[float, typer.Option(help="Part of the 11 250 synapses onto a neuron.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Biological time.")] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="Of the run.")] = 0,
) -> None:
    """Run hpc in hebbax, go through it in NumPy, and print what differs."""
    p = hpc.Parameters()
    if seconds * u.second <= p.delay:
        raise typer.BadParameter(f"--seconds: got {seconds}, expected more than the delay, in which no weight changes")
    with Console(stderr=True).status("hpc in hebbax, then in NumPy"):
        try:
            run = hpc.simulate(p, scale=scale, inputs=inputs, seconds=seconds, seed=seed)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        found = check(run, p)
    listed = ", ".join(f"{name} {number}" for name, number in versions(("hebbax", "jax", "numpy")).items())
    print(f"`{shlex.join(['python', 'benchmarks/hpc_beside_numpy.py', *sys.argv[1:]])}` at {commit()}; {listed};")
    print(f"{machine()['cpu']}.\n\n| | |\n|---|---:|")
    for name, number in (
        ("neurons", f"{run.n:,}"),
        ("synapses", f"{run.synapses:,}"),
        ("steps", f"{run.steps:,}"),
        ("spikes", f"{found.spikes:,}"),
        ("spikes too many or missing", f"{len(found.wrong):,}"),
        ("their largest distance from the threshold, mV", f"{found.largest:.2g}"),
        ("times that a neuron was within 0.001 mV of it", f"{found.close:,}"),
        ("weights compared", f"{found.weights:,}"),
        ("mean weight at the end, pA", f"{found.weight:.4g}"),
        ("largest difference of a weight, pA", f"{found.difference:.2g}"),
    ):
        print(f"| {name} | {number} |")
    if not found.rounded:
        raise SystemExit("hebbax and NumPy differ by more than rounding")


if __name__ == "__main__":
    typer.run(main)
