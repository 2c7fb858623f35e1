"""Song, Miller & Abbott (2000) in Brian2: the model of `hebbax.experiments.song2000`, stated a second time.

    python tests/brian2_song2000.py result.npz --neurons 4 --seconds 600 --seed 0

writes the final weights, `weight`, shape `(neurons, inputs)`, in leak conductances, and `spikes`, shape
`(seconds, neurons)`, the number of spikes in each second. Brian2 writes a C++ program, compiles and runs it.
With `--given given.npz`, initial weights and input are not drawn at random: `weight`, shape `(neurons, inputs)`;
`step` and `source`, of each input spike; `inhibitory`, shape `(steps, neurons)`, numbers of inhibitory spikes.

A script and not a function, since Brian2 keeps one device and one set of settings for a whole process.
"""

import argparse
import dataclasses
import tempfile

import brainunit as u
import brian2 as b
import numpy as np

from hebbax.experiments.song2000 import Parameters

# The voltage moves by the exact solution for conductances that are constant during the step; then they decay.
NEURON = """
v : 1
excitation : 1
inhibition : 1
"""
UPDATE = """
conductance = 1 + excitation + inhibition
target = (e_rest + excitation * e_excitatory + inhibition * e_inhibitory) / conductance
v = target + (v - target) * exp(-dt / tau_membrane * conductance)
excitation = excitation * exp(-dt / tau_excitation)
inhibition = inhibition * exp(-dt / tau_inhibition)
"""
SYNAPSE = """
w : 1
dx/dt = -x / tau_plus : 1 (event-driven)
dy/dt = -y / tau_minus : 1 (event-driven)
"""
# Pathways run in the order of their numbers. Spikes arrive in the step in which they occur, after the update above.
OURS = [  # both changes first, and then both traces: spikes that coincide do not see each other
    ("pre", 0, "excitation_post += w; w = clip(w - y, 0, w_max)"),
    ("post", 1, "w = clip(w + x, 0, w_max)"),
    ("pre", 2, "x += step_up"),
    ("post", 2, "y += step_down"),
]
USUAL = [  # as in Brian2's example of this paper: the neuron's spike sees those of the same step
    ("pre", 0, "excitation_post += w; x += step_up; w = clip(w - y, 0, w_max)"),
    ("post", 1, "y += step_down; w = clip(w + x, 0, w_max)"),
]


def simulate(p, *, neurons, inputs, seconds, seed, pathways, given=None):
    """Return the final weights and the number of spikes in each second."""
    namespace = {
        "e_rest": p.resting_potential / u.mV,
        "e_excitatory": p.excitatory_potential / u.mV,
        "e_inhibitory": p.inhibitory_potential / u.mV,
        "v_threshold": p.threshold / u.mV,
        "v_reset": p.reset_potential / u.mV,
        "tau_membrane": p.membrane_time / u.ms * b.ms,
        "tau_excitation": p.excitatory_time / u.ms * b.ms,
        "tau_inhibition": p.inhibitory_time / u.ms * b.ms,
        "tau_plus": p.potentiation_time / u.ms * b.ms,
        "tau_minus": p.depression_time / u.ms * b.ms,
        "w_max": p.largest_weight,
        "step_up": p.potentiation * p.largest_weight,
        "step_down": p.depression_ratio * p.potentiation * p.largest_weight,
    }
    b.defaultclock.dt = p.time_step / u.ms * b.ms
    b.seed(seed)
    group = b.NeuronGroup(
        neurons, NEURON, threshold="v >= v_threshold", reset="v = v_reset", method="euler", namespace=namespace
    )  # fmt: skip
    group.v = namespace["e_rest"]
    update = group.run_regularly(UPDATE, when="groups")
    if given is None:
        low, high = (x * p.largest_weight for x in p.start_range)
        weight = np.random.default_rng(seed).uniform(low, high, neurons * inputs)
        source = b.PoissonGroup(neurons * inputs, rates=p.excitatory_rate / u.Hz * b.Hz)
        inhibition = b.PoissonInput(
            group, "inhibition", p.inhibitory_inputs, p.inhibitory_rate / u.Hz * b.Hz, p.inhibitory_weight
        )
    else:
        weight = given["weight"].ravel()
        source = b.SpikeGeneratorGroup(neurons * inputs, given["source"], given["step"] * b.defaultclock.dt)
        namespace["received"] = b.TimedArray(given["inhibitory"] * p.inhibitory_weight, b.defaultclock.dt)
        inhibition = group.run_regularly("inhibition += received(t, i)", when="synapses")
    synapses = b.Synapses(
        source,
        group,
        SYNAPSE,
        on_pre={f"pre{k}": code for k, (side, _, code) in enumerate(pathways) if side == "pre"},
        on_post={f"post{k}": code for k, (side, _, code) in enumerate(pathways) if side == "post"},
        namespace=namespace,
    )
    for k, (side, order, _) in enumerate(pathways):
        getattr(synapses, f"{side}{k}").order = order
    synapses.connect(i=np.arange(neurons * inputs), j=np.arange(neurons * inputs) // inputs)
    synapses.w = weight
    monitor = b.SpikeMonitor(group)
    network = b.Network(group, update, source, inhibition, synapses, monitor)
    with tempfile.TemporaryDirectory() as directory:
        network.run(seconds * b.second)
        b.device.build(directory=directory, compile=True, run=True)
        weight = np.array(synapses.w).reshape(neurons, inputs)
        bins = np.arange(np.ceil(seconds) + 1), np.arange(neurons + 1)
        spikes = np.histogram2d(np.array(monitor.t / b.second), np.array(monitor.i), bins)[0]
    return weight, spikes.astype(int)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--neurons", type=int, default=4)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--potentiation", type=float, default=Parameters().potentiation)
    parser.add_argument("--usual-order", action="store_true", help="count spikes that coincide, as Brian2 does")
    parser.add_argument("--given", help="a file of initial weights and input")
    given = parser.parse_args()
    b.set_device("cpp_standalone", build_on_run=False)
    weight, spikes = simulate(
        dataclasses.replace(Parameters(), potentiation=given.potentiation),
        neurons=given.neurons,
        inputs=given.inputs,
        seconds=given.seconds,
        seed=given.seed,
        pathways=USUAL if given.usual_order else OURS,
        given=np.load(given.given) if given.given else None,
    )
    np.savez(given.output, weight=weight, spikes=spikes)


if __name__ == "__main__":
    main()
