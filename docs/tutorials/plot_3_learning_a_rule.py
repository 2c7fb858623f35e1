"""
Learning a rule by gradient
===========================

A rule of unknown amplitudes and time constants has made a distribution of synaptic weights, as an experiment could
measure it. Which parameters does it have? We guess, simulate the network with this guess, compare the weights at the
end with the target, and follow the derivative of their distance back through every step of the simulation.

The functions are those of ``examples/learn_stdp.py``. **This page runs them at a small size**, 2 s of biological time
and 60 iterations, unless it is made in full size; the example's own, 5 s and 120, finds the parameters better, and
estimates how well they can be found.
"""

import os
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hebbax

sys.path.insert(0, "../../examples")  # this page is run in docs/tutorials
import learn_stdp

full = os.environ.get("HEBBAX_DOCS_FULL") == "1"
blocks, iterations = (50, 120) if full else (20, 60)  # of 100 steps of 1 ms

# %%
# A simulation with a derivative
# ------------------------------
# The weights at the end are a function of the logarithms of the parameters: so these stay positive, and steps of the
# descent are relative. Bounds are multiplicative, as a weight that rests at a hard bound has no derivative.
# ``jax.checkpoint`` keeps one state per 100 steps for the backward pass, and simulates these again when it comes to
# them.
#
# .. literalinclude:: ../../../examples/learn_stdp.py
#    :pyobject: final_weight
#
# The network has 20 groups of 20 inputs and 5 neurons. Those of a group pick up the events of a common source with
# delays, so that some inputs lead and others trail the neurons. The spikes are given.

synapses, _ = hebbax.Synapses.from_dense(np.kron(np.eye(20), np.ones((20, 5), np.float32)))
spikes = learn_stdp.draw_spikes(jax.random.key(0), blocks)
other_spikes = learn_stdp.draw_spikes(jax.random.key(1), blocks)
simulate = jax.jit(learn_stdp.final_weight)
target = jnp.sort(simulate(learn_stdp.logs(learn_stdp.TRUE), synapses, other_spikes))
print(synapses)

# %%
# The loss is the mean squared difference of the sorted weights and the sorted target: which synapse has which weight is
# not told, and the target comes from other spike trains than those that the learner simulates.
#
# .. literalinclude:: ../../../examples/learn_stdp.py
#    :pyobject: squared_distance
#
# Descent
# -------
# ``jax.value_and_grad`` of the loss, and Adam:
#
# .. literalinclude:: ../../../examples/learn_stdp.py
#    :pyobject: learn


def report(k, distance):
    print(f"iteration {k:3}: distance {distance:5.2f} pS")


course = learn_stdp.learn(learn_stdp.GUESS, synapses, spikes, target, iterations, report)

# %%
# What was found
# --------------

print("parameter   start  learned  target's")
for name, unit in learn_stdp.UNITS.items():
    print(f"{name:9} {learn_stdp.GUESS[name]:7.1f} {course[name][-1]:8.1f} {learn_stdp.TRUE[name]:9.1f}  {unit}")
ratio = [p["a_plus"] / p["a_minus"] for p in (learn_stdp.GUESS, {k: x[-1] for k, x in course.items()}, learn_stdp.TRUE)]
print("ratio     {:7.2f} {:8.2f} {:9.2f}".format(*ratio))

blue, orange, black = "#0072B2", "#D55E00", "#000000"
fig, (of_loss, of_window) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
of_loss.semilogy(course["distance"], color=blue)
of_loss.set(xlabel="iteration", ylabel="distance to the target (pS)")
lag = np.linspace(0, 80, 200)
learned = {name: course[name][-1] for name in learn_stdp.TRUE}
windows = {"start": (learn_stdp.GUESS, orange), "learned": (learned, blue), "target": (learn_stdp.TRUE, black)}
for label, (p, color) in windows.items():
    of_window.plot(lag, p["a_plus"] / 2 * np.exp(-lag / p["tau_plus"]), color=color, label=label)
    of_window.plot(-lag, -p["a_minus"] / 2 * np.exp(-lag / p["tau_minus"]), color=color)
of_window.set(xlabel="neuron's spike after its input's (ms)", ylabel="change of a weight of 0.5 nS (pS)")
of_window.legend(frameon=False)

# %%
# The distance cannot fall to zero, as the target was made with other spikes; it falls to what these spikes allow. At
# the small size the parameters come out up to a quarter off; with more spikes, as in ``examples/learn_stdp.py`` itself,
# they are found better, :doc:`with an estimate of the errors to be expected </generated/examples/index>`.
# :doc:`Derivatives and batches </derivatives>` says what can be differentiated, and what a gradient costs;
# ``examples/surrogate_gradient.py`` differentiates through spikes.
