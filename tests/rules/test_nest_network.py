"""The network `hpc` with the same synapses and the same input in NEST and in hebbax: all spikes are compared."""

import dataclasses
import importlib.util

import brainunit as u
import jax.numpy as jnp
import numpy as np
import pytest

from hebbax.experiments import hpc, network_loop

if importlib.util.find_spec("nest") is None:  # which is slow to import, and prints
    pytest.skip("NEST is not installed: `pip install nest-simulator` (Linux)", allow_module_level=True)

P = hpc.Parameters()
DT = P.time_step / u.ms
NEURON = {
    "C_m": P.capacitance / u.pF, "tau_m": P.membrane_time / u.ms, "E_L": 0.0, "V_reset": 0.0,
    "tau_syn_ex": P.synaptic_time / u.ms, "tau_syn_in": P.synaptic_time / u.ms, "V_th": P.threshold / u.mV,
    "t_ref": P.refractory_time / u.ms, "tau_minus": P.depression_time / u.ms,
}  # fmt: skip
RULE = {
    "lambda": P.learning_rate, "alpha": P.depression_ratio, "mu": P.exponent, "tau_plus": P.potentiation_time / u.ms,
}  # fmt: skip


class Driven(hpc.Neurons):
    """The neurons, without input in the first step, in which NEST's generators cannot send any."""

    def drive(self, ids, steps):
        return super().drive(ids, steps) * (steps > 0)[:, None]


def spikes_of_nest(network, steps):
    """Step and neuron of every spike."""
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.resolution = DT
    n = network.excitatory.size
    ids = jnp.arange(n, dtype=jnp.int32)
    neurons = nest.Create("iaf_psc_alpha", n, NEURON)
    neurons.V_m = np.asarray(network.neurons.start(ids).voltage, np.float64).tolist()
    first = min(neurons.tolist())
    nest.CopyModel("stdp_pl_synapse_hom", "learns", RULE)
    for projection in network.projections:
        indptr, post = np.asarray(projection.synapses.indptr), np.asarray(projection.synapses.indices)
        pre = np.repeat(np.arange(n), np.diff(indptr))
        model = "static_synapse" if projection.rule is None else "learns"
        number = {"weight": np.full(post.size, float(projection.weight)), "delay": np.full(post.size, P.delay / u.ms)}
        nest.Connect(first + pre, first + post, "one_to_one", {"synapse_model": model, **number})
    counts = np.asarray(network.neurons.drive(ids, jnp.arange(steps, dtype=jnp.int32))).astype(int)
    generators = nest.Create("spike_generator", n)
    for k, generator in enumerate(generators):
        (at,) = np.nonzero(counts[:, k])  # a step of `DT` before they arrive
        generator.set(spike_times=np.round(at * DT, 1).tolist(), spike_multiplicities=counts[at, k].tolist())
    nest.Connect(generators, neurons, "one_to_one", {"weight": P.weight / u.pA, "delay": DT})
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(steps * DT)
    step = np.round(recorder.events["times"] / DT).astype(int) - 1  # (NEST's time is that of a step's end)
    neuron = recorder.events["senders"] - first
    order = np.lexsort((neuron, step))
    return step[order], neuron[order]


@pytest.mark.parametrize("plastic", [False, True])
@pytest.mark.parametrize(("size", "seconds"), [(0.05, 0.2), (0.1, 0.3)])
def test_the_network_spikes_as_in_nest(size, seconds, plastic):
    network = hpc.build(P, scale=size, inputs=size, plastic=plastic, seed=0)
    network = dataclasses.replace(network, neurons=Driven(P, 0))
    run = network_loop.simulate(lambda: network, seconds=seconds)
    step, neuron = spikes_of_nest(network, run.steps)
    print(f"{run.n} neurons, {run.synapses} synapses, {seconds} s, plastic: {plastic}: {step.size} spikes in NEST")
    assert np.unique(neuron).size > run.n / 2
    assert plastic == bool(np.any(run.weight_end != run.weight_start))
    np.testing.assert_array_equal(run.spike_step, step)
    np.testing.assert_array_equal(run.spike_neuron, neuron)
