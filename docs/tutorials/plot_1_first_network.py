"""
A first network
===============

Inputs that fire together win: a population of integrate-and-fire neurons learns which of its inputs belong together.
This begins with the example of the README and ends with a network whose neurons drive, inhibit and learn.
"""

import functools

import brainunit as u
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hebbax

# %%
# Who connects to whom
# --------------------
# A :class:`hebbax.Synapses` is the structure of a projection, here of 1 000 inputs onto 100 neurons, of which each two
# are connected with a probability of 0.1. It holds no weights: these are an array with one entry for each synapse, or,
# with a unit, a quantity.

n_inputs, n = 1000, 100
synapses = hebbax.Synapses.random((n_inputs, n), prob=0.1, seed=0)
weight = jnp.full(synapses.nse, 0.5, jnp.float32) * u.mV  # the jump of the potential by a spike
print(synapses)

# %%
# A spike of some inputs, as the neurons feel it, is the sum of the weights of those that spike:

spike = jnp.arange(n_inputs) < 50
print(synapses.propagate_on_pre(weight, spike)[:5])

# %%
# How weights change
# ------------------
# :class:`hebbax.PairSTDP` strengthens a synapse whose input came before the neuron's spike, and weakens it where it
# came after, a little more on the whole. A rule keeps traces of both sides' spikes; its ``step`` takes and returns
# them.

dt = 1 * u.ms
rule = hebbax.PairSTDP(
    tau_plus=20 * u.ms, tau_minus=20 * u.ms, a_plus=0.02 * u.mV, a_minus=0.024 * u.mV, w_min=0 * u.mV, w_max=1 * u.mV
)
traces = rule.init(synapses)
post_spike = jnp.zeros(n, bool)
changed, traces = rule.step(synapses, weight, traces, spike, post_spike, dt)  # the inputs spike,
changed, traces = rule.step(synapses, changed, traces, jnp.zeros(n_inputs, bool), ~post_spike, dt)  # then the neurons
print(f"{(changed - weight).max() / u.mV:.5f} mV")  # 0.02 exp(-1 / 20)

# %%
# Neurons
# -------
# They are a few lines of :mod:`jax.numpy` in the step of a loop: a potential that decays, takes up what arrives, and is
# reset at the threshold. What the inputs send arrives in the next step: a pair of spikes that coincide in a step is
# :doc:`not counted </semantics>`, so that an input that fires must make its neuron fire later. The neurons also inhibit
# each other, all with the same weight, which then is one number, and 2 ms later, by a :class:`hebbax.delays.Ring`.
#
# Three things in this step are there for XLA: ``after`` says that the update of the weights must wait for the sum that
# reads them, or they would be copied; :func:`hebbax.fence` has the potential worked out once, and not for each of its
# uses; and the structure is an argument, not a constant. :doc:`Sharp bits </sharp_bits>` says more.

lateral = hebbax.Synapses.random((n, n), prob=0.5, autapses=False, seed=1)
decay, threshold, inhibition = float(jnp.exp(-dt / (20 * u.ms))), 15 * u.mV, -0.2 * u.mV


def step(structure, state, pre_spike):
    synapses, lateral = structure
    weight, traces, voltage, arriving, ring = state
    inhibited = lateral.propagate_on_pre(inhibition, ring.due())
    voltage = hebbax.fence(decay * voltage + arriving + inhibited)
    post_spike = voltage > threshold
    arriving = synapses.propagate_on_pre(weight, pre_spike)  # in the next step
    weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, dt, after=arriving)
    voltage = u.math.where(post_spike, 0 * u.mV, voltage)
    ring, _ = ring.push(post_spike)
    return (weight, traces, voltage, arriving, ring), post_spike


# %%
# Inputs
# ------
# All inputs fire at 10 Hz. The first 200 get a part of their spikes from a common source: they often fire together.

groups = {"together": np.arange(n_inputs) < 200, "alone": np.arange(n_inputs) >= 200}


def draw(key, steps):
    own_key, source_key, copy_key = jax.random.split(key, 3)
    source = jax.random.bernoulli(source_key, 0.015, (steps, 1))
    common = source & jax.random.bernoulli(copy_key, 0.3, (steps, n_inputs)) & groups["together"]
    return common | jax.random.bernoulli(own_key, jnp.where(groups["together"], 0.0055, 0.01), (steps, n_inputs))


# %%
# The loop
# --------
# :func:`jax.lax.scan` repeats the step; ``jit`` compiles it, and ``donate_argnames`` lets a call write over the state
# that it is given. After each second of biological time we look at the weights (``np.array`` copies them, as the next
# call writes over these too) and keep the spikes.


@functools.partial(jax.jit, donate_argnames="state")
def simulate_second(structure, state, key):
    return jax.lax.scan(functools.partial(step, structure), state, draw(key, 1000))


ring = hebbax.delays.Ring.of(post_spike, 2 * u.ms, dt)
voltage = jnp.linspace(0, 15, n, dtype=jnp.float32) * u.mV
state = weight, rule.init(synapses), voltage, jnp.zeros(n) * u.mV, ring
pre = np.repeat(np.arange(n_inputs), np.diff(synapses.indptr))  # of every synapse
of_group = {name: members[pre] for name, members in groups.items()}
course, rasters = [], []
for second in range(60):
    state, raster = simulate_second((synapses, lateral), state, jax.random.key(second))
    seen = np.array(state[0] / u.mV)
    course.append([seen[synapses_of].mean() for synapses_of in of_group.values()])
    rasters.append(np.asarray(raster))
rate = [raster.mean() * 1000 for raster in rasters]

# %%
# What they have learned
# ----------------------
# The synapses of the inputs that fire together have grown, those of the others shrunk, and the neurons answer the
# source.

blue, orange = "#0072B2", "#D55E00"
fig, (of_weights, of_course, of_rate) = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for (name, synapses_of), color in zip(of_group.items(), (blue, orange), strict=True):
    of_weights.hist(seen[synapses_of], bins=25, range=(0, 1), density=True, histtype="step", color=color, label=name)
of_weights.axvline(0.5, color="black", linestyle="--", label="at first, all")
of_weights.set(xlabel="weight (mV)", ylabel="density", title=f"after {len(course)} s")
for values, color in zip(np.transpose(course), (blue, orange), strict=True):
    of_course.plot(np.arange(len(course)) + 1, values, color=color)
of_course.set(xlabel="time (s)", ylabel="mean weight (mV)", ylim=(0, 1))
of_rate.plot(np.arange(len(rate)) + 1, rate, color="black")
of_rate.set(xlabel="time (s)", ylabel="firing rate (Hz)", ylim=(0, None))
of_weights.legend(frameon=False)

# %%
# The last half second of spikes, with the instants at which more than 40 inputs of the first group fired at once:

inputs = np.asarray(draw(jax.random.key(second), 1000))  # the same key draws the same spikes
fig, axes = plt.subplots(figsize=(8, 3), layout="constrained")
times, neurons = np.nonzero(rasters[-1][500:])
axes.vlines(np.flatnonzero(inputs[500:, groups["together"]].sum(1) > 40), -1, n, color=orange, alpha=0.4, linewidth=2)
axes.plot(times, neurons, ".", color=blue, markersize=3)
axes.set(xlabel="time (ms)", ylabel="neuron", ylim=(-1, n))

# %%
# Next: :doc:`how to record more </recording>`, :doc:`other rules </rules>`, :doc:`delays of each synapse </delays>`,
# and :doc:`what makes a network fast </networks>`.
