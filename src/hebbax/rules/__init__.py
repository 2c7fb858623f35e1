"""Rules of spike-timing-dependent plasticity (STDP): traces, amplitudes, and which update runs when.

A rule is a frozen dataclass, and a pytree: it may be an argument of a function under `jit`. It has two methods::

    state = rule.init(synapses)
    weight, state = rule.step(synapses, weight, state, pre_spike, post_spike, dt)

`ClopathSTDP` takes the postsynaptic voltage in place of `post_spike`. Two others change no weights, but scale what
synapses pass on: `ShortTermPlasticity` by a gain for each presynaptic neuron, `SynapticScaling` by a factor for each
postsynaptic one.

All rules order what happens within a step alike. First the traces decay by `dt`. Then spikes change weights: those of
presynaptic neurons first, those of postsynaptic neurons after them, both by the traces as they were before the spikes
of this step, so that spikes which coincide do not see each other. Last, this step's spikes are added to the traces.
(`RewardSTDP` has eligibilities in the place of weights there; what a step's reward makes of them comes first.)

A parameter is one number, or an array that broadcasts against the weight matrix: of shape `(n_pre, 1)`, one value per
presynaptic neuron, or `(1, n_post)`, one per postsynaptic neuron. A synapse whose bounds, of shape `(nse,)`, are equal
stays as it is: `jnp.where(plastic, w_min, weight)` and `jnp.where(plastic, w_max, weight)`, of the weights that a run
starts from, make a mask. (Where weights are differentiated, such a synapse has the derivative of the clipping.)

Traces of float32 follow their time constant as long as `dt / tau` is above about 3e-7; below that, rounding is stronger
than the decay, and `step` warns, unless it sees traced values only.

Weights are promised to lie within the bounds, where a rule also keeps them: a step then costs what its events cost. A
weight that starts outside is left there until one of its neurons spikes.

To write a rule of one's own takes traces and an update or two, or, where these do not have its dependence on the
weight, a function of one synapse. Diehl & Cook (2015), doi:10.3389/fncom.2015.00099, compare `DiehlCookSTDP` with one
whose changes fall off exponentially towards the bounds:

>>> import hebbax, jax.numpy as jnp
>>> def step(synapses, weight, pre_trace, pre_spike, post_spike, eta=0.01, target=0.4, w_max=1.0, beta=2.0):
...     def change(w, x, _):
...         return w + eta * (x * jnp.exp(-beta * w) - target * jnp.exp(-beta * (w_max - w)))
...     pre_trace = 0.95 * pre_trace
...     weight = synapses.apply_on_post(change, weight, post_spike, pre=pre_trace)
...     return weight, jnp.where(pre_spike, pre_trace + 1.0, pre_trace)
>>> synapses, weight = hebbax.Synapses.from_dense(jnp.full((2, 1), 0.5))
>>> weight, pre_trace = step(synapses, weight, jnp.array([1.0, 0.0]), jnp.array([False, False]), jnp.array([True]))
>>> print(*(f"{w:.4f}" for w in weight))
0.5020 0.4985
"""

from hebbax.rules._traces import EventTrace, PairTraces
from hebbax.rules.clopath import ClopathSTDP, ClopathTraces
from hebbax.rules.diehl_cook import DiehlCookSTDP, PreTrace
from hebbax.rules.homeostasis import HomeostaticTraces, HomeostaticTripletSTDP, ScalingState, SynapticScaling
from hebbax.rules.inhibitory import InhibitorySTDP
from hebbax.rules.pair import PairSTDP
from hebbax.rules.power_law import PowerLawSTDP
from hebbax.rules.reward import RewardSTDP, RewardTraces
from hebbax.rules.short_term import ShortTermPlasticity, ShortTermState
from hebbax.rules.triplet import TripletSTDP, TripletTraces

__all__ = [
    "ClopathSTDP",
    "ClopathTraces",
    "DiehlCookSTDP",
    "EventTrace",
    "HomeostaticTraces",
    "HomeostaticTripletSTDP",
    "InhibitorySTDP",
    "PairSTDP",
    "PairTraces",
    "PowerLawSTDP",
    "PreTrace",
    "RewardSTDP",
    "RewardTraces",
    "ScalingState",
    "ShortTermPlasticity",
    "ShortTermState",
    "SynapticScaling",
    "TripletSTDP",
    "TripletTraces",
]
