"""The networks in Brian2, which writes a C++ program, compiles and runs it; see script.py for the arguments.

Of two ways to keep traces the faster is taken for each network. In neurons, which decay at every step: 3.3 s of one CPU
per biological second at cuba40000 and 11.4 at brunel10k, where synapses with traces of their own that catch up at every
spike, as in Brian2's tutorials, took 8.2 and 24.8; at cuba4000 0.24 and 0.165. A neuron's trace that is late by the
delay counts the spikes that a projection of each neuron to itself delivers. Traces in synapses see the presynaptic
spike of the very step, which is one in some thousands of pairs.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import brian2 as b
import numpy as np
from constants import DT, Brunel, Cuba, Hpc
from script import Network, Outcome, main, peak_memory, since_start, weights

# Put into the C++ program, which prints when its network is there, and the most that it had in memory.
BEFORE = """
std::chrono::duration<double> built = std::chrono::steady_clock::now().time_since_epoch();
std::cout << std::fixed << "built " << built.count();
std::clock_t cpu = std::clock();
"""
AFTER = """
std::cout << " cpu " << double(std::clock() - cpu) / CLOCKS_PER_SEC << " memory ";
std::ifstream status("/proc/self/status");
std::string word;
while (status >> word && word != "VmHWM:") {}
status >> word;
std::cout << word << std::endl;
"""
TIME_CONSTANTS = {"x": "tau_plus", "y": "tau_minus"}  # of the traces of presynaptic and of postsynaptic spikes


def run(options: argparse.Namespace, network: Network) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        b.set_device("cpp_standalone", build_on_run=False, directory=folder)
        b.prefs.core.default_float_dtype = np.float32
        b.prefs.devices.cpp_standalone.openmp_threads = options.threads if options.threads > 1 else 0
        b.prefs.devices.cpp_standalone.extra_make_args_unix = ["-j", str(os.cpu_count())]
        b.defaultclock.dt = DT * b.ms
        b.seed(options.seed)
        stated = time.perf_counter()
        objects = {Cuba: cuba, Brunel: brunel, Hpc: hpc}[type(network)](network, not options.static)
        neurons, synapses = objects[0], objects[1]
        spikes = b.SpikeMonitor(neurons, record=False)
        b.prefs.codegen.cpp.headers += ["<chrono>", "<ctime>", "<iostream>", "<fstream>", "<string>"]
        b.device.insert_code("before_network_run", BEFORE)
        b.device.insert_code("after_network_run", AFTER)
        b.Network(objects, spikes).run(options.seconds * b.second)
        b.device.build(directory=folder, run=False)
        compilation, started = time.perf_counter() - stated, time.monotonic()
        own_memory = peak_memory()  # Python's; later it also reads the weights
        b.device.run(with_output=False)
        found = (Path(folder) / "results" / "stdout.txt").read_text().split()
        built, cpu, memory = (float(found[found.index(name) + 1]) for name in ("built", "cpu", "memory"))
        before_first_step = since_start() - (time.monotonic() - built)
        count = int(np.sum(spikes.count))
        weight = None if options.static else np.asarray(synapses.w)
    return Outcome(
        wall=b.device._last_run_time,
        cpu=cpu,
        build=built - started,
        compilation=compilation,
        before_first_step=before_first_step,
        memory=round(1024 * memory) + own_memory,
        memory_before=own_memory,
        rate=count / network.neurons / options.seconds,
        **weights(weight),
    )


def values(p: Network) -> dict:
    """The constants, times in Brian2's units, everything else as numbers of mV or pA."""
    names = [name for name in dir(p) if not name.startswith("_") and isinstance(getattr(p, name), (int, float))]
    times = {"refractory", "delay", *(name for name in names if name.startswith("tau_"))}
    return {name: getattr(p, name) * (b.ms if name in times else 1) for name in names} | {"euler": math.e}


def group(p: Network, equations: str, counted_at_once: str = "", counted_late: str = ""):
    """All neurons, with the traces named, and the two subgroups."""
    traces = "".join(f"d{x}/dt = -{x} / {TIME_CONSTANTS[x]} : 1\n" for x in counted_at_once + counted_late)
    neurons = b.NeuronGroup(
        p.neurons,
        equations + traces,
        threshold="v >= threshold",
        reset="v = reset" + "".join(f"; {x} += 1" for x in counted_at_once),
        refractory=p.refractory * b.ms,
        method="exact",
        namespace=values(p),
    )
    return neurons, neurons[: p.excitatory], neurons[p.excitatory :]


def count_late(excitatory, trace: str, delay):
    """Deliver each neuron's spikes to itself, after the plastic synapses have seen the trace without them."""
    projection = b.Synapses(excitatory, excitatory, on_pre=f"{trace}_post += 1", delay=delay)
    projection.connect(j="i")
    projection.pre.order = 3
    return projection


def cuba(p: Cuba, plastic: bool) -> list:
    equations = """
    dv/dt = (ge + gi - (v - leak)) / tau_m : 1 (unless refractory)
    dge/dt = -ge / tau_e : 1
    dgi/dt = -gi / tau_i : 1
    """
    in_synapses = p.neurons < 10_000
    neurons, excitatory, inhibitory = group(p, equations, "xy" * (plastic and not in_synapses))
    neurons.v = "reset + rand() * (threshold - reset)"

    def connect(source, target, *arguments, **options):
        synapses = b.Synapses(source, target, *arguments, namespace=values(p), **options)
        synapses.connect(p=p.probability)
        return synapses

    inhibition = connect(inhibitory, neurons, on_pre="gi_post += w_i")
    if not plastic:
        return [neurons, connect(excitatory, neurons, on_pre="ge_post += w_e"), inhibition]
    model, on_pre, on_post = (
        "w : 1",
        "w = clip(w - a_minus * y_post, 0, w_max)",
        "w = clip(w + a_plus * x_pre, 0, w_max)",
    )
    if in_synapses:
        model += "".join(f"\nd{x}/dt = -{x} / {tau} : 1 (event-driven)" for x, tau in TIME_CONSTANTS.items())
        on_pre, on_post = on_pre.replace("y_post", "y") + "; x += 1", on_post.replace("x_pre", "x") + "; y += 1"
    learning = connect(excitatory, excitatory, model, on_pre="ge_post += w; " + on_pre, on_post=on_post)
    learning.post.order = 1
    learning.w = p.w_e
    return [neurons, learning, connect(excitatory, inhibitory, on_pre="ge_post += w_e"), inhibition]


def brunel(p: Brunel, plastic: bool) -> list:
    delay = p.delay * b.ms
    equations = "dv/dt = -(v - reset) / tau_m : 1 (unless refractory)\n"
    neurons, excitatory, inhibitory = group(p, equations, "y" * plastic, "x" * plastic)
    neurons.v = p.reset
    # What arrives in the refractory time is lost.
    neurons.run_regularly("v = reset + (v - reset) * int(not_refractory)", when="before_resets")
    drive = b.PoissonInput(neurons, "v", p.input_sources, p.input_rate / b.ms, p.w_e)

    def connect(source, target, *arguments, **options):
        synapses = b.Synapses(source, target, *arguments, namespace=values(p), **options)
        synapses.connect(p=p.probability)
        return synapses

    inhibition = connect(inhibitory, neurons, on_pre="v_post += w_i", delay=delay)
    if not plastic:
        return [neurons, connect(excitatory, neurons, on_pre="v_post += w_e", delay=delay), inhibition, drive]
    learning = connect(
        excitatory,
        excitatory,
        "w : 1",
        on_pre="v_post += w; w -= lambda_ * alpha * w * y_post",
        on_post="w += lambda_ * (w_max - w) * x_pre",
        delay={"pre": delay},
    )
    learning.post.order = 1
    learning.w = p.w_e
    static = connect(excitatory, inhibitory, on_pre="v_post += w_e", delay=delay)
    return [neurons, learning, static, inhibition, drive, count_late(excitatory, "x", delay)]


def hpc(p: Hpc, plastic: bool) -> list:
    delay = p.delay * b.ms
    equations = """
    dv/dt = -(v - reset) / tau_m + current / capacity / ms : 1 (unless refractory)
    dcurrent/dt = (euler * rise - current) / tau_syn : 1
    drise/dt = -rise / tau_syn : 1
    """
    neurons, excitatory, inhibitory = group(p, equations, "x" * plastic, "y" * plastic)
    neurons.v = "start_mean + start_sd * randn()"
    drive = b.PoissonInput(neurons, "rise", p.input_sources, p.input_rate / b.ms, p.w_e)

    def connect(source, target, *arguments, **options):
        synapses = b.Synapses(source, target, *arguments, namespace=values(p), **options)
        indegree = p.indegree_i if source is inhibitory else p.indegree_e
        # Any neuron, but not the target itself.
        other = "(j + 1 + int(rand() * (N_pre - 1))) % N_pre" if source is target else "int(rand() * N_pre)"
        synapses.connect(i=f"{other} for _ in range({indegree})")
        return synapses

    static = [
        connect(excitatory, inhibitory, on_pre="rise_post += w_e", delay=delay),
        connect(inhibitory, excitatory, on_pre="rise_post += w_i", delay=delay),
        connect(inhibitory, inhibitory, on_pre="rise_post += w_i", delay=delay),
    ]
    if not plastic:
        return [neurons, connect(excitatory, excitatory, on_pre="rise_post += w_e", delay=delay), drive, *static]
    learning = connect(
        excitatory,
        excitatory,
        "w : 1",
        on_pre={"pre": "w = clip(w - lambda_ * alpha * w * y_post, 0, inf)", "arrival": "rise_post += w"},
        on_post="w += lambda_ * w**mu * x_pre",
        delay={"arrival": delay, "post": delay},
    )
    learning.post.order = 1
    learning.arrival.order = 2
    learning.w = p.w_e
    return [neurons, learning, drive, *static, count_late(excitatory, "y", delay)]


if __name__ == "__main__":
    main(run)
