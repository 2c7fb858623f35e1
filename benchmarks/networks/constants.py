"""The networks, stated once for all simulators. Times are in ms, potentials in mV, rates in kHz, currents in pA.

All of them run in steps of `DT`, in single precision where the simulator offers it, without recording more than the
number of spikes. A neuron's state first moves to the end of a step; then it is compared with the threshold; then spikes
arrive, after the rest of their delay; then the plastic weights change; then neurons that have spiked are reset. During
the refractory time the potential stays at the reset, whatever arrives.

- `cuba`: the current-based network of Vogels & Abbott (2005), J. Neurosci. 25:10786, as in Brian2's CUBA example: no
  external input, a leak that ends above the threshold, random potentials at the start. Each two neurons are connected
  with one probability, so that ten times the neurons have ten times the synapses each, of a tenth of the weight.
  Its excitatory-to-excitatory synapses have pair STDP with fixed steps, between 0 and `w_max`.
  Spikes arrive in the step in which they occur (NEST: one step later, the least that it can do).
- `brunel10k`: the plastic network of the comparison by Ahmad, Isbister, Smithe & Stringer (2018), Spike: a GPU
  optimised spiking neural network simulator, bioRxiv 461160. Delta currents, a delay, Poisson input, and
  w -= lambda alpha w y on a presynaptic spike, w += lambda (w_max - w) x on a postsynaptic one.
  The delay comes before the synapse (NEST: after it, the only kind that it has).
- `hpc`: NEST's `hpc_benchmark`, after Morrison, Aertsen & Diesmann (2007), Neural Comput. 19:1437: currents that are
  alpha functions, a fixed number of inputs whatever the scale, and w += lambda w^mu x, w -= lambda alpha w y, unbounded
  above, on excitatory-to-excitatory synapses. The delay comes after the synapse: a postsynaptic spike is late there.
"""

from __future__ import annotations

import dataclasses
import math

DT = 0.1


@dataclasses.dataclass(frozen=True)
class Cuba:
    neurons: int = 4000
    excitatory_fraction: float = 0.8
    probability: float = 0.02
    tau_m: float = 20.0
    tau_e: float = 5.0
    tau_i: float = 10.0
    leak: float = -49.0
    threshold: float = -50.0
    reset: float = -60.0  # and the least potential at the start; the largest is the threshold
    refractory: float = 5.0
    tau_plus: float = 20.0
    tau_minus: float = 20.0

    @property
    def excitatory(self) -> int:
        return round(self.excitatory_fraction * self.neurons)

    @property
    def w_e(self) -> float:
        """Of all excitatory synapses at the start."""
        return 1.62 * 4000 / self.neurons

    @property
    def w_i(self) -> float:
        return -9.0 * 4000 / self.neurons

    @property
    def w_max(self) -> float:
        return 2 * self.w_e

    @property
    def a_plus(self) -> float:
        return 0.005 * self.w_max

    @property
    def a_minus(self) -> float:
        return 1.05 * self.a_plus


@dataclasses.dataclass(frozen=True)
class Brunel:
    excitatory: int = 8000
    inhibitory: int = 2000
    probability: float = 0.1
    tau_m: float = 20.0
    threshold: float = 20.0
    reset: float = 0.0  # also at the start, and where the leak ends
    refractory: float = 2.0
    delay: float = 1.5
    w_e: float = 0.1
    w_i: float = -0.5
    input_sources: int = 1000  # of a neuron's own, each of input_rate, connected with w_e
    input_rate: float = 0.02
    w_max: float = 0.3
    lambda_: float = 0.01
    alpha: float = 2.02
    tau_plus: float = 20.0
    tau_minus: float = 20.0

    @property
    def neurons(self) -> int:
        return self.excitatory + self.inhibitory


@dataclasses.dataclass(frozen=True)
class Hpc:
    scale: float = 1.0
    indegree_e: int = 9000
    indegree_i: int = 2250
    capacity: float = 250.0  # pF
    tau_m: float = 10.0
    threshold: float = 20.0
    reset: float = 0.0  # and where the leak ends
    refractory: float = 0.5
    tau_syn: float = 0.32582722403722841
    start_mean: float = 5.7
    start_sd: float = 7.2
    delay: float = 1.5
    epsp: float = 0.14  # the peak that one excitatory spike causes, mV
    g: float = -5.0  # inhibitory over excitatory weight
    eta: float = 1.685  # external input over what reaches the threshold
    lambda_: float = 0.1
    alpha: float = 0.0513
    mu: float = 0.4
    tau_plus: float = 15.0
    tau_minus: float = 30.0

    @property
    def excitatory(self) -> int:
        return int(9000 * self.scale)

    @property
    def inhibitory(self) -> int:
        return int(2250 * self.scale)

    @property
    def neurons(self) -> int:
        return self.excitatory + self.inhibitory

    @property
    def w_e(self) -> float:
        """The peak of a current, in pA, that moves a neuron at rest by `epsp`."""
        t, step, peak = 0.0, 1e-4, 0.0
        while (potential := self._psp(t)) >= peak:
            t, peak = t + step, potential
        return self.epsp / peak

    def _psp(self, t: float) -> float:
        """The potential, in mV, after an alpha function of 1 pA."""
        a = 1 / self.tau_syn - 1 / self.tau_m
        slow, fast = math.exp(-t / self.tau_m), math.exp(-t / self.tau_syn)
        return math.e / (self.tau_syn * self.capacity * a) * ((slow - fast) / a - t * fast)

    @property
    def w_i(self) -> float:
        return self.g * self.w_e

    @property
    def input_sources(self) -> int:
        """A neuron's own, each of input_rate, connected with w_e."""
        return self.indegree_e

    @property
    def input_rate(self) -> float:
        """In kHz."""
        charge = self.w_e * math.e * self.tau_syn
        return self.eta * self.threshold * self.capacity / (self.indegree_e * self.tau_m * charge)


NETWORKS = {"cuba4000": Cuba(), "cuba40000": Cuba(neurons=40_000), "brunel10k": Brunel(), "hpc": Hpc()}
