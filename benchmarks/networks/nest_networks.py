"""The networks in NEST, with the leanest of its synapses that can do each; see script.py for the arguments."""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from constants import DT, Brunel, Cuba, Hpc
from script import Network, Outcome, main, peak_memory, since_start, weights


def run(options: argparse.Namespace, network: Network) -> Outcome:
    os.environ["PYNEST_QUIET"] = "1"
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.local_num_threads = options.threads
    nest.resolution = DT
    nest.rng_seed = options.seed
    memory_before, started = peak_memory(), time.perf_counter()
    build = {Cuba: cuba, Brunel: brunel, Hpc: hpc}[type(network)]
    excitatory = build(nest, network, not options.static)
    nest.Prepare()
    built, cpu, before_first_step = time.perf_counter(), time.process_time(), since_start()
    nest.Run(options.seconds * 1000)
    wall, cpu = time.perf_counter() - built, time.process_time() - cpu
    nest.Cleanup()
    memory = peak_memory()
    plastic_synapses = 0 if options.static else nest.GetDefaults("e_to_e", "num_connections")
    weight = sample(nest, excitatory, plastic_synapses) if plastic_synapses else None
    return Outcome(
        wall=wall,
        cpu=cpu,
        build=built - started,
        compilation=0.0,
        before_first_step=before_first_step,
        memory=memory,
        memory_before=memory_before,
        rate=nest.local_spike_counter / network.neurons / options.seconds,
        **weights(weight, plastic_synapses),
    )


def sample(nest, excitatory, synapses: int) -> np.ndarray:
    """Weights of about 10^5 plastic synapses: NEST takes a kilobyte for each one whose weight it tells."""
    some = excitatory[:: max(1, synapses // 100_000)]
    return np.array(nest.GetConnections(some, synapse_model="e_to_e").get("weight"))


def connect(nest, excitatory, inhibitory, p: Network, rule, rule_i, delay: float) -> None:
    """Connect everything; the model `e_to_e` is there already."""
    nest.CopyModel("static_synapse_hom_w_hpc", "e", {"weight": p.w_e})
    nest.CopyModel("static_synapse_hom_w_hpc", "i", {"weight": p.w_i})
    for source, target, how, model in (
        (excitatory, excitatory, rule, "e_to_e"),
        (excitatory, inhibitory, rule, "e"),
        (inhibitory, excitatory, rule_i, "i"),
        (inhibitory, inhibitory, rule_i, "i"),
    ):
        nest.Connect(source, target, how, {"synapse_model": model, "delay": delay})


def synapse(nest, plastic: bool, model: str, weight: float, **parameters: float) -> None:
    """Define the model `e_to_e`."""
    if plastic:
        nest.CopyModel(model, "e_to_e", {"weight": weight, **parameters})
    else:
        nest.CopyModel("static_synapse_hom_w_hpc", "e_to_e", {"weight": weight})


def cuba(nest, p: Cuba, plastic: bool):
    # A capacity of tau_m pF makes a current of 1 pA move the leak's end by 1 mV.
    neuron = dict(
        C_m=p.tau_m, tau_m=p.tau_m, tau_syn_ex=p.tau_e, tau_syn_in=p.tau_i, E_L=p.leak, V_th=p.threshold,
        V_reset=p.reset, t_ref=p.refractory, tau_minus=p.tau_minus,
    )  # fmt: skip
    excitatory = nest.Create("iaf_psc_exp", p.excitatory, neuron)
    inhibitory = nest.Create("iaf_psc_exp", p.neurons - p.excitatory, neuron)
    for group in (excitatory, inhibitory):
        group.V_m = nest.random.uniform(p.reset, p.threshold)
    step = {"lambda": p.a_plus / p.w_max, "alpha": p.a_minus / p.a_plus, "mu_plus": 0.0, "mu_minus": 0.0}
    synapse(nest, plastic, "stdp_synapse_hom_hpc", p.w_e, tau_plus=p.tau_plus, Wmax=p.w_max, **step)
    rule = {"rule": "pairwise_bernoulli", "p": p.probability}
    connect(nest, excitatory, inhibitory, p, rule, rule, DT)
    return excitatory


def brunel(nest, p: Brunel, plastic: bool):
    neuron = dict(
        tau_m=p.tau_m, E_L=p.reset, V_m=p.reset, V_th=p.threshold, V_reset=p.reset, t_ref=p.refractory,
        tau_minus=p.tau_minus,
    )  # fmt: skip
    excitatory = nest.Create("iaf_psc_delta", p.excitatory, neuron)
    inhibitory = nest.Create("iaf_psc_delta", p.inhibitory, neuron)
    step = {"lambda": p.lambda_, "alpha": p.alpha, "mu_plus": 1.0, "mu_minus": 1.0}
    synapse(nest, plastic, "stdp_synapse_hom_hpc", p.w_e, tau_plus=p.tau_plus, Wmax=p.w_max, **step)
    rule = {"rule": "pairwise_bernoulli", "p": p.probability}
    connect(nest, excitatory, inhibitory, p, rule, rule, p.delay)
    external_input(nest, excitatory + inhibitory, p)
    return excitatory


def hpc(nest, p: Hpc, plastic: bool):
    neuron = dict(
        C_m=p.capacity, tau_m=p.tau_m, tau_syn_ex=p.tau_syn, tau_syn_in=p.tau_syn, E_L=p.reset, V_th=p.threshold,
        V_reset=p.reset, t_ref=p.refractory, tau_minus=p.tau_minus,
    )  # fmt: skip
    excitatory = nest.Create("iaf_psc_alpha", p.excitatory, neuron)
    inhibitory = nest.Create("iaf_psc_alpha", p.inhibitory, neuron)
    for group in (excitatory, inhibitory):
        group.V_m = nest.random.normal(p.start_mean, p.start_sd)
    step = {"lambda": p.lambda_, "alpha": p.alpha, "mu": p.mu}
    synapse(nest, plastic, "stdp_pl_synapse_hom_hpc", p.w_e, tau_plus=p.tau_plus, **step)
    rule, rule_i = (
        {"rule": "fixed_indegree", "indegree": k, "allow_autapses": False, "allow_multapses": True}
        for k in (p.indegree_e, p.indegree_i)
    )
    connect(nest, excitatory, inhibitory, p, rule, rule_i, p.delay)
    external_input(nest, excitatory + inhibitory, p)
    return excitatory


def external_input(nest, neurons, p: Brunel | Hpc) -> None:
    generator = nest.Create("poisson_generator", 1, {"rate": 1000 * p.input_sources * p.input_rate})
    nest.Connect(generator, neurons, "all_to_all", {"synapse_model": "e", "delay": p.delay})


if __name__ == "__main__":
    main(run)
