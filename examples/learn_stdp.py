"""Learn the parameters of an STDP rule by gradient descent through the simulation of a network.

A rule of unknown amplitudes and time constants made a distribution of synaptic weights, as an experiment could measure
it. Which parameters does it have? We guess, simulate the network with this guess, compare the weights at the end with
the target, and follow the derivative of their distance back through every step of the simulation.

Spikes. All neurons pick up events of a common source, each neuron with its own delay, so that some inputs lead and
others trail their targets, by up to 60 ms; they also spike by themselves. The spikes are given. So the final weights are
smooth functions of the parameters, and the gradient is the exact one of the simulation. (In a network whose neurons
are driven by these weights, spikes would come and go as the parameters change: see `surrogate_gradient.py`.)

Rule. Pair-based STDP with multiplicative bounds, which the weights approach but never reach: at a hard bound they would
rest, and have no derivative.

Loss. The mean squared difference of the sorted weights and the sorted target weights, which is the square of the
Wasserstein distance between the two distributions. Which synapse has which weight is not told.

The target comes from *other* spike trains of the same statistics. So the distance cannot fall to zero, and parameters
are found no better than the distribution determines them: the last column of the table says how well that is.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Annotated

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import hebbax

UNITS = {"tau_plus": u.ms, "tau_minus": u.ms, "a_plus": u.psiemens, "a_minus": u.psiemens}
LABELS = {"tau_plus": r"$\tau_+$", "tau_minus": r"$\tau_-$", "a_plus": r"$A_+$", "a_minus": r"$A_-$"}
TRUE = {"tau_plus": 16.8, "tau_minus": 33.7, "a_plus": 60.0, "a_minus": 30.0}  # time constants of Bi & Poo (2001)
GUESS = {"tau_plus": 40.0, "tau_minus": 15.0, "a_plus": 25.0, "a_minus": 60.0}

GROUPS, INPUTS, NEURONS = 10, 20, 10  # each group has a source of its own, 20 inputs and 10 neurons
MAX_DELAY, DELAY = 120, 70  # ms: inputs have delays of 0 to 120, neurons all the same one
W_MAX = 1.0 * u.nS
DT = 1.0 * u.ms
BLOCK = 100  # steps: the backward pass keeps one state per block, and simulates a block again when it comes to it

BLUE, ORANGE, BLACK, GREEN = "#0072B2", "#D55E00", "#000000", "#009E73"  # told apart by all kinds of colour vision


def draw_spikes(key, blocks: int):
    """Spikes of the inputs and of the neurons, bool, shapes `(blocks, BLOCK, n_pre)` and `(blocks, BLOCK, n_post)`."""
    steps = blocks * BLOCK
    source_key, *keys = jax.random.split(key, 5)
    source = jax.random.bernoulli(source_key, 0.005, (steps + MAX_DELAY, GROUPS))  # 5 Hz
    delays = jnp.linspace(0, MAX_DELAY, INPUTS).astype(int), jnp.full(NEURONS, DELAY)
    spikes = []
    for delay, copy_key, own_key in zip(delays, keys[:2], keys[2:], strict=True):
        common = source[jnp.arange(steps)[:, None] + MAX_DELAY - delay].swapaxes(1, 2).reshape(steps, -1)
        common &= jax.random.bernoulli(copy_key, 0.9, common.shape)
        own = jax.random.bernoulli(own_key, 0.002, common.shape)  # 2 Hz
        spikes.append((common | own).reshape(blocks, BLOCK, -1))
    return tuple(spikes)


def final_weight(log_parameters, synapses, spikes):
    """The weights after all spikes, in nS."""
    parameters = {name: jnp.exp(x) * UNITS[name] for name, x in log_parameters.items()}
    rule = hebbax.PairSTDP(**parameters, w_min=0.0 * u.nS, w_max=W_MAX, mu_plus=1.0, mu_minus=1.0)

    def step(state, spikes):
        return rule.step(synapses, *state, *spikes, DT), None

    @jax.checkpoint
    def block(state, spikes):
        return jax.lax.scan(step, state, spikes)

    weight = jnp.full(synapses.nse, 0.5) * W_MAX
    (weight, _), _ = jax.lax.scan(block, (weight, rule.init(synapses)), spikes)
    return weight / u.nS


def loss(log_parameters, synapses, spikes, target):
    """The squared Wasserstein distance, in nS², between the weights and the sorted `target`."""
    return jnp.mean((jnp.sort(final_weight(log_parameters, synapses, spikes)) - target) ** 2)


def learn(guess, synapses, spikes, target, iterations: int, report):
    """Return the parameters and the distance (pS) before every iteration and after the last."""
    # The learning rate falls to 0, so that the last iterations no longer jump about.
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, iterations))

    @jax.jit
    def iterate(log_parameters, state):
        value, gradient = jax.value_and_grad(loss)(log_parameters, synapses, spikes, target)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(log_parameters, updates), state, value

    log_parameters = {name: jnp.log(x) for name, x in guess.items()}
    state = optimizer.init(log_parameters)
    course = []
    for k in range(iterations + 1):
        following, state, value = iterate(log_parameters, state)
        course.append({name: float(jnp.exp(x)) for name, x in log_parameters.items()})
        course[-1]["distance"] = 1e3 * float(jnp.sqrt(value))
        if k % 10 == 0 or k == iterations:
            report(k, course[-1])
        log_parameters = following
    return {name: np.array([x[name] for x in course]) for name in course[0]}


def uncertainty(parameters, synapses, keys, blocks: int):
    """By which factor, as its logarithm, each parameter that was learned would vary if other spikes made the target.

    To first order: the distribution varies by so much from one set of spikes to the next, which parameters could follow.
    """
    log_parameters = {name: jnp.log(x) for name, x in parameters.items()}

    @jax.jit
    def quantiles(log_parameters, key):
        return jnp.sort(final_weight(log_parameters, synapses, draw_spikes(key, blocks)))

    # A column per parameter: four at once in forward mode, which needs no checkpoints.
    slopes = np.stack(list(jax.jacfwd(quantiles)(log_parameters, keys[0]).values()), axis=1)
    samples = np.stack([quantiles(log_parameters, key) for key in keys])
    shifts = np.linalg.lstsq(slopes, (samples - samples.mean(0)).T)[0]
    return dict(zip(log_parameters, shifts.std(axis=1, ddof=1), strict=True))


def figure(course, uncertain, weights, target) -> Figure:
    """Draw the loss, the distributions, the STDP windows and the course of the parameters."""
    fig = Figure(figsize=(8.2, 6.0), layout="constrained", dpi=130)
    panels = fig.subplots(2, 2)
    (of_loss, of_weights), (of_window, of_course) = panels

    of_loss.semilogy(course["distance"], color=BLUE)
    of_loss.set(xlabel="iteration", ylabel="distance to the target (pS)")

    bins = np.linspace(0, 1, 41)
    for name, color, style in (("start", ORANGE, "--"), ("learned", BLUE, "-"), ("target", BLACK, "-")):
        x = target if name == "target" else weights[name]
        percent = np.full(len(x), 100 / len(x))
        if name == "learned":
            of_weights.hist(x, bins, weights=percent, color=BLUE, alpha=0.45, label=name)
        else:
            of_weights.hist(x, bins, weights=percent, color=color, linestyle=style, histtype="step", label=name)
    of_weights.set(xlabel="weight (nS)", ylabel="synapses (%)", xlim=(0, 1))

    lag = np.linspace(0, 80, 200)
    for color, style, index in ((ORANGE, "--", 0), (BLUE, "-", -1), (BLACK, ":", None)):
        p = TRUE if index is None else {name: course[name][index] for name in TRUE}
        of_window.plot(lag, p["a_plus"] / 2 * np.exp(-lag / p["tau_plus"]), color=color, linestyle=style)
        of_window.plot(-lag, -p["a_minus"] / 2 * np.exp(-lag / p["tau_minus"]), color=color, linestyle=style)
    of_window.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    of_window.set(xlabel="lag of the neuron behind its input (ms)", ylabel="change of a weight of 0.5 nS (pS)")

    last = len(course["distance"]) - 1
    for k, (name, color) in enumerate(zip(TRUE, (BLUE, GREEN, ORANGE, BLACK), strict=True)):
        ratio = course[name] / TRUE[name]
        of_course.semilogy(ratio, color=color, label=LABELS[name])
        ends = ratio[-1] * np.exp([[-uncertain[name]], [uncertain[name]]])
        of_course.vlines(last * (1.03 + 0.025 * k), *ends, color=color, linewidth=2.5)
    of_course.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    of_course.set(xlabel="iteration", ylabel="parameter / the target's")
    for letter, axes in zip("abcd", panels.flat, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(letter, loc="left", fontweight="bold")
    return fig


def main(
    iterations: Annotated[int, typer.Option(min=1, help="Steps of gradient descent.")] = 80,
    seconds: Annotated[float, typer.Option(min=0.5, help="Biological time that is simulated.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of the network and of all spikes.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the figure.")] = Path("learn_stdp"),
) -> None:
    """Find the amplitudes and time constants of the rule that made a distribution of weights."""
    started, console, blocks = time.perf_counter(), Console(), round(seconds / (BLOCK * DT).to_decimal(u.second))
    synapses, _ = hebbax.Synapses.from_dense(np.kron(np.eye(GROUPS), np.ones((INPUTS, NEURONS), np.float32)))
    spike_key, target_key, *other_keys = jax.random.split(jax.random.key(seed), 18)
    spikes = draw_spikes(spike_key, blocks)
    weight = jax.jit(functools.partial(final_weight, synapses=synapses))
    logs = lambda p: {name: jnp.log(x) for name, x in p.items()}
    target = jnp.sort(weight(logs(TRUE), spikes=draw_spikes(target_key, blocks)))
    floor = 1e3 * float(jnp.sqrt(loss(logs(TRUE), synapses, spikes, target)))

    def report(k, now):
        console.print(f"iteration {k:3}: distance {now['distance']:6.2f} pS, {time.perf_counter() - started:4.1f} s")

    course = learn(GUESS, synapses, spikes, target, iterations, report)
    learned = {name: float(course[name][-1]) for name in TRUE}
    uncertain = uncertainty(learned, synapses, jnp.stack(other_keys), blocks)

    table = Table("parameter", "unit", "start", "learned", "target's", "learned / target's", "expected error")
    for name, true in TRUE.items():
        row = f"{GUESS[name]:.1f}", f"{learned[name]:.1f}", f"{true:.1f}", f"{learned[name] / true:.2f}"
        table.add_row(name, str(UNITS[name]), *row, f"{100 * np.expm1(uncertain[name]):.0f}%")
    console.print(table)
    console.print(f"distance {course['distance'][-1]:.2f} pS; with the target's own parameters {floor:.2f} pS")
    output.mkdir(parents=True, exist_ok=True)
    weights = {"start": weight(logs(GUESS), spikes=spikes), "learned": weight(logs(learned), spikes=spikes)}
    figure(course, uncertain, {k: np.asarray(x) for k, x in weights.items()}, np.asarray(target)).savefig(
        output / "learn_stdp.png"
    )
    console.print(f"{output / 'learn_stdp.png'}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
