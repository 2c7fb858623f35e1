"""The networks of `hebbax.experiments` in double precision: what test_networks.py compares with.

Weights come from times of spikes, synapse by synapse, with a delay where the model has it, and not from a loop over
steps. Neurons are moved by matrix exponentials, and reset where the run recorded a spike, so that one that was rounded
to the other side of a threshold does not end the comparison.
"""

import brainunit as u
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from hebbax.experiments import brunel10k, cuba, hpc
from hebbax.experiments.poisson import poisson_counts

DT = 0.1  # ms, of all of them


def pre_of(synapses):
    return np.repeat(np.arange(synapses.n_pre), np.diff(synapses.indptr))


class Learning:
    """What one synapse does: `up` and `down` change a weight by a trace."""

    def __init__(self, experiment, p, start):
        if experiment is brunel10k:
            self.up = lambda w, x: w + 0.01 * (0.3 - w) * x
            self.down = lambda w, y: w - 0.01 * 2.02 * w * y
            self.tau_up = self.tau_down = 20.0
        elif experiment is cuba:
            largest = 2 * start
            self.up = lambda w, x: min(w + 0.005 * largest * x, largest)
            self.down = lambda w, y: max(w - 1.05 * 0.005 * largest * y, 0.0)
            self.tau_up = self.tau_down = 20.0
        else:
            self.up = lambda w, x: w + 0.1 * w**0.4 * x
            self.down = lambda w, y: max(w - 0.1 * 0.0513 * w * y, 0.0)
            self.tau_up, self.tau_down = 15.0, 30.0
        self.start, self.dendritic = start, experiment is hpc

    def course(self, pre, post, delay, end):
        """The last weight, of synaptic events before step `end`, and those that it sent with the steps it sent them in.

        Steps are those of the neurons' spikes. With a dendritic delay the synapse has presynaptic spikes at once and
        postsynaptic ones late; what it sends has the spike's own depression. With an axonal one it is the other way
        round, and what it sends is the weight before.
        """
        arriving, returning = (pre, post + delay) if self.dendritic else (pre + delay, post)
        weight, sent = self.start, []
        for t in np.union1d(arriving, returning):
            if t >= end:
                break
            before, arrives = weight, t in arriving
            x, y = (
                np.exp(-(t - times[times < t]) * DT / tau).sum()
                for times, tau in ((arriving, self.tau_up), (returning, self.tau_down))
            )
            if self.dendritic and t in returning:
                weight = self.up(weight, x)
            if arrives:
                weight = self.down(weight, y)
            if not self.dendritic and t in returning:
                weight = self.up(weight, x)
            if arrives:
                sent.append((t if self.dendritic else t - delay, weight if self.dendritic else before))
        return weight, sent


def weights_and_arrivals(experiment, run):
    """Last weights of the synapses that learn, and what arrives: `(steps, n)` by whether it is inhibition."""
    network, delay, n = run.network, run.network.delay, run.n
    times = [run.spike_step[run.spike_neuron == k].astype(int) for k in range(n)]
    arrivals = {kind: np.zeros((run.steps + delay, n)) for kind in (False, True)}
    learnt = np.zeros(0)
    for projection in network.projections:
        into = arrivals[projection.inhibitory]
        pre, post = pre_of(projection.synapses), np.asarray(projection.synapses.indices)
        if projection.rule is None:
            for i, j in zip(pre, post, strict=True):
                into[times[i] + delay, j] += projection.weight
            continue
        learning = Learning(experiment, network.neurons.parameters, projection.weight)
        learnt = np.full(pre.size, float(projection.weight))
        end = run.steps - delay if learning.dendritic else run.steps  # see `Network.dendritic`
        for k, (i, j) in enumerate(zip(pre, post, strict=True)):
            learnt[k], sent = learning.course(times[i], times[j], delay, end)
            for t, weight in sent:
                into[t + delay, j] += weight
    return learnt, {kind: x[: run.steps] for kind, x in arrivals.items()}


class Neurons:
    """Potentials `(n,)` over the leak potential in mV, step by step."""

    def __init__(self, experiment, p, voltage):
        n = voltage.size
        self.experiment, self.last = experiment, np.full(n, -(10**6))
        if experiment is brunel10k:
            rates, self.threshold, self.reset, self.rest = [[-1 / 20]], 20.0, 0.0, 20
        elif experiment is cuba:
            rates = [[-1 / 20, 1 / 20, 1 / 20], [0, -1 / 5, 0], [0, 0, -1 / 10]]
            leak = p.leak_potential / u.mV
            self.threshold, self.reset, self.rest = -50.0 - leak, -60.0 - leak, 50
        else:
            tau = 0.32582722403722841
            rates = [[-1 / 10, 1 / 250, 0], [0, -1 / tau, np.e / tau], [0, 0, -1 / tau]]
            self.threshold, self.reset, self.rest = 20.0, 0.0, 5
        self.matrix = scipy.linalg.expm(np.array(rates) * DT)
        self.state = np.zeros((len(rates), n))
        self.state[0] = voltage

    def step(self, t, excitation, inhibition, spike):
        """Advance to where the threshold is compared; return by how much it is passed, and make these spikes."""
        if self.experiment is cuba:  # what arrives is taken up at the step's start
            self.state[1:] += excitation, inhibition
        self.state = self.matrix @ self.state
        resting = t - self.last <= self.rest
        if self.experiment is brunel10k:
            resting = t - self.last < self.rest
        self.state[0, resting] = self.reset
        above = np.where(resting, -np.inf, self.state[0] - self.threshold)
        self.last[spike] = t
        self.state[0, spike] = self.reset
        if self.experiment is hpc:
            self.state[2] += excitation + inhibition
        if self.experiment is brunel10k:
            self.state[0] += np.where(t - self.last < self.rest, 0.0, excitation + inhibition)
        return above


def passed_thresholds(experiment, run, arrivals):
    """By how much each neuron passed its threshold in each step, `(steps, n)`, in mV; -inf where it rested."""
    network, p, ids = run.network, run.network.neurons.parameters, np.arange(run.n)
    start = network.neurons.start(jnp.asarray(ids))
    neurons = Neurons(experiment, p, np.asarray(start.voltage, float))
    excitation, inhibition = arrivals[False], arrivals[True]
    if experiment is not cuba:
        rate, weight = (20.0, 0.1) if experiment is brunel10k else (p.drive_rate * u.ms, p.weight / u.pA)
        counts = poisson_counts(run.seed, rate * DT, ids.astype(np.int32), np.arange(run.steps, dtype=np.int32))
        excitation = excitation + weight * np.asarray(counts, float)
    spikes = raster(run)
    return np.array([neurons.step(t, excitation[t], inhibition[t], spikes[t]) for t in range(run.steps)])


def raster(run):
    spikes = np.zeros((run.steps, run.n), bool)
    spikes[run.spike_step, run.spike_neuron] = True
    return spikes
