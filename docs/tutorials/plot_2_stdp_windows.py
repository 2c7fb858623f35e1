"""
STDP windows
============

What a pair of spikes does to a weight, by the lag between them: the window of each rule, found by running pairs of
spikes. Nothing here is a formula of a window; the dots are what the rules did.
"""

import brainunit as u
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hebbax

# %%
# One pair for each lag
# ---------------------
# Every lag gets a synapse of its own, between an input and a neuron that nothing else is connected to: the weight
# matrix is diagonal. The input of the k-th synapse spikes in step 100, and its neuron ``lag[k]`` later.

lags = np.arange(-80, 81, 2)  # ms
synapses, _ = hebbax.Synapses.from_dense(np.eye(lags.size, dtype=np.float32))
steps = np.arange(200)[:, None]
pre_spikes = jnp.asarray(np.broadcast_to(steps == 100, (200, lags.size)))
post_spikes = jnp.asarray(steps == 100 + lags)


@jax.jit
def run(rule, synapses, weight, pre_spikes, post_spikes):
    def step(state, spikes):
        return rule.step(synapses, *state, *spikes, 1 * u.ms), None

    (weight, _), _ = jax.lax.scan(step, (weight, rule.init(synapses)), (pre_spikes, post_spikes))
    return weight


def window(rule, start):
    """The change of a weight that is `start` at first, for every lag."""
    weight = jnp.full(lags.size, start, jnp.float32)
    return np.asarray(run(rule, synapses, weight, pre_spikes, post_spikes) - weight)


# %%
# The rules
# ---------
# Weights lie between 0 and 1, or, in the power law, have no upper bound. The rules are pytrees, and so arguments of the
# compiled function.

soft = dict(mu_plus=1.0, mu_minus=1.0)
times = dict(tau_plus=17 * u.ms, tau_minus=34 * u.ms)
bounds = dict(w_min=0.0, w_max=1.0)
rules = {
    "PairSTDP, additive": hebbax.PairSTDP(**times, a_plus=0.02, a_minus=0.01, **bounds),
    "PairSTDP, multiplicative": hebbax.PairSTDP(**times, a_plus=0.02, a_minus=0.01, **bounds, **soft),
    "PowerLawSTDP": hebbax.PowerLawSTDP(**times, learning_rate=0.02, alpha=0.5, w_0=1.0, mu=0.4),
    "InhibitorySTDP": hebbax.InhibitorySTDP(20 * u.ms, eta=0.01, target_rate=5 * u.Hz, **bounds),
}
fig, panels = plt.subplots(2, 2, figsize=(8, 5.5), sharex=True, layout="constrained")
for (name, rule), axes in zip(rules.items(), panels.flat, strict=True):
    for start, color in ((0.25, "#D55E00"), (0.5, "black"), (0.75, "#0072B2")):
        axes.plot(lags, window(rule, start), ".", markersize=4, color=color, label=f"from {start}")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_title(name, fontsize="medium")
panels[0, 0].legend(frameon=False)
fig.supxlabel("the neuron's spike after its input's (ms)")
fig.supylabel("change of the weight")

# %%
# Additive: the change does not depend on the weight. Multiplicative: potentiation shrinks towards the upper bound, and
# depression towards the lower one. Power law: potentiation grows with the weight to the power of 0.4, depression in
# proportion to it. Inhibition has a symmetric window, lowered by what each input's spike takes away by itself; where
# the two balance, the neuron has its target rate.
#
# At lag 0 only that offset is there: :doc:`spikes that coincide in a step do not see each other </semantics>`.

rule = rules["PairSTDP, additive"]
print(f"lag 0: {window(rule, 0.5)[lags == 0][0]:g}")
largest = np.abs(window(rule, 0.5)[lags > 0] - 0.02 * np.exp(-lags[lags > 0] / 17)).max()
print(f"largest difference from 0.02 exp(-lag / tau_plus): {largest:.1e}")

# %%
# Triplets
# --------
# The triplet rule has no window: what a pair does depends on the spikes before. Its parameters here are those that were
# fitted to visual cortex (Pfister & Gerstner 2006), with which a single pair depresses only. So we repeat 60 pairs,
# with a lag of 10 ms either way, at several frequencies, each again with a synapse of its own.

frequencies = np.array([0.5, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50])  # Hz
triplets = hebbax.TripletSTDP(
    tau_plus=16.8 * u.ms, tau_minus=33.7 * u.ms, tau_x=101 * u.ms, tau_y=114 * u.ms,
    a2_plus=0.0, a2_minus=7.1e-3, a3_plus=6.5e-3, a3_minus=0.0, w_min=0.0, w_max=10.0,
)  # fmt: skip
pairs = hebbax.PairSTDP(16.8 * u.ms, 33.7 * u.ms, a_plus=7.1e-3, a_minus=7.1e-3, w_min=0.0, w_max=10.0)
one_each, _ = hebbax.Synapses.from_dense(np.eye(frequencies.size, dtype=np.float32))


def after_60_pairs(rule, lag):
    """The weight, 1 at first, after pairs at every frequency."""
    onsets = np.round(1000 / frequencies * np.arange(60)[:, None]).astype(int) + 20
    spikes = np.zeros((2, onsets.max() + 100, frequencies.size), bool)
    for train, steps in zip(spikes, (onsets, onsets + lag), strict=True):
        train[steps, np.arange(frequencies.size)] = True
    return np.asarray(run(rule, one_each, jnp.ones(frequencies.size), *map(jnp.asarray, spikes)))


fig, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
for rule, name, style in ((triplets, "triplets", "-"), (pairs, "pairs", ":")):
    for lag, color in ((10, "#0072B2"), (-10, "#D55E00")):
        label = f"{name}, post 10 ms {'after' if lag > 0 else 'before'} pre"
        axes.plot(frequencies, after_60_pairs(rule, lag) - 1, style, color=color, label=label)
axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
axes.set(xlabel="frequency of the pairs (Hz)", ylabel="relative change of the weight")
axes.legend(frameon=False, fontsize="small")

# %%
# With triplets, frequent pairs potentiate in either order, as was measured; :doc:`agreement </agreement>` has the
# measured values beside those of the rule.
