"""Learn the parameters of an STDP rule by gradient descent through the simulation of a network.

A rule of unknown amplitudes and time constants made a distribution of synaptic weights, as an experiment could measure
it. Which parameters does it have? We guess, simulate the network with this guess, compare the weights at the end with
the target, and follow the derivative of their distance back through every step of the simulation.

Spikes. The network has groups of inputs and neurons. Those of a group pick up the events of a common source with
delays, so that some inputs lead and others trail the neurons, by up to 60 ms; they also spike by themselves. The spikes
are given. So the final weights are smooth functions of the parameters, and the gradient is the exact one of the
simulation. (In a network whose neurons are driven by these weights, spikes would come and go as the parameters change:
see `surrogate_gradient.py`.)

Rule. Pair-based STDP with multiplicative bounds, which the weights approach but never reach: at a hard bound they would
rest, and have no derivative.

Loss. The mean squared difference of the sorted weights and the sorted target weights, which is the square of the
Wasserstein distance between the two distributions. Which synapse has which weight is not told.

The target comes from *other* spike trains of the same statistics. So the distance cannot fall to zero, and parameters
are found no better than the distribution determines them: the table's last column estimates how well that is, to first
order, so that real errors may be larger. The two amplitudes are found less well than their ratio, which decides where
weights settle: spike trains that happen to have more events of the source do what larger amplitudes would do.
"""

from __future__ import annotations

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
from matplotlib.ticker import NullLocator
from rich.console import Console
from rich.table import Table

import hebbax

UNITS = {"tau_plus": u.ms, "tau_minus": u.ms, "a_plus": u.psiemens, "a_minus": u.psiemens}
LABELS = {"tau_plus": r"$\tau_+$", "tau_minus": r"$\tau_-$", "a_plus": r"$A_+$", "a_minus": r"$A_-$"}
TRUE = {"tau_plus": 16.8, "tau_minus": 33.7, "a_plus": 60.0, "a_minus": 30.0}  # time constants of Bi & Poo (2001)
GUESS = {"tau_plus": 40.0, "tau_minus": 15.0, "a_plus": 25.0, "a_minus": 60.0}

GROUPS, INPUTS, NEURONS = 20, 20, 5  # each group has a source of its own, 20 inputs and 5 neurons
MAX_DELAY, DELAY = 120, 60  # ms: inputs have delays of 0 to 120, neurons all the same one
W_MAX = 1.0 * u.nS
DT = 1.0 * u.ms
BLOCK = 100  # steps: the backward pass keeps one state per block, and simulates a block again when it comes to it

BLUE, ORANGE, BLACK, GREEN = "#0072B2", "#D55E00", "#000000", "#009E73"  # told apart by all kinds of colour vision
STYLES = (dict(color=ORANGE, linestyle="--"), dict(color=BLUE), dict(color=BLACK, linestyle=":"))


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


def squared_distance(weight, target):
    """The square of the Wasserstein distance between the weights and the sorted `target`."""
    return jnp.mean((jnp.sort(weight) - target) ** 2)


def loss(log_parameters, synapses, spikes, target):
    """The squared distance, in nS², between what the simulation ends with and the sorted `target`."""
    return squared_distance(final_weight(log_parameters, synapses, spikes), target)


def logs(parameters):
    """The form in which parameters are learned: it keeps them positive, and their steps relative."""
    return {name: jnp.log(x) for name, x in parameters.items()}


def learn(guess, synapses, spikes, target, iterations: int, report):
    """Return the parameters and the distance (pS), each before the first iteration and after every one."""
    # The learning rate falls to 0, so that the last iterations no longer jump about.
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, iterations), b2=0.95)

    @jax.jit
    def iterate(log_parameters, state, synapses, spikes, target):
        value, gradient = jax.value_and_grad(loss)(log_parameters, synapses, spikes, target)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(log_parameters, updates), state, value

    log_parameters = logs(guess)
    state = optimizer.init(log_parameters)
    course = []
    for k in range(iterations + 1):
        following, state, value = iterate(log_parameters, state, synapses, spikes, target)
        course.append({name: float(jnp.exp(log_parameters[name])) for name in guess})
        course[-1]["distance"] = 1e3 * float(jnp.sqrt(value))
        if k % 10 == 0 or k == iterations:
            report(k, course[-1]["distance"])
        log_parameters = following
    return {name: np.array([x[name] for x in course]) for name in course[0]}


def expected_errors(parameters, synapses, keys, blocks: int):
    """Errors of the logarithms of learned parameters, a row for each parameter and a column for each pair of keys.

    To first order: the distributions that two sets of spikes make with the same parameters differ, and learning follows
    this difference as far as parameters can.
    """

    draw = jax.jit(draw_spikes, static_argnums=1)

    def quantiles(log_parameters, spikes):
        return jnp.sort(final_weight(log_parameters, synapses, spikes))

    log_parameters, simulate = logs(parameters), jax.jit(quantiles)
    samples = np.stack([simulate(log_parameters, draw(key, blocks)) for key in keys])
    # All parameters at once in forward mode, which needs no checkpoints. The mean over spikes, because the scatter of
    # single slopes would seem to tell parameters apart.
    slope = jax.jit(jax.jacfwd(quantiles))
    slopes = [slope(log_parameters, draw(key, blocks)) for key in keys[:8]]
    mean = np.stack([np.mean([x[name] for x in slopes], axis=0) for name in parameters], axis=1)
    return np.linalg.lstsq(mean, (samples[::2] - samples[1::2]).T)[0]


def results(learned, errors) -> Table:
    """The parameters that were learned beside the target's."""
    table = Table("parameter", "start", "learned", "target's", "error", "expected error")
    errors = dict(zip(TRUE, errors, strict=True))
    rows = [(f"{name} ({unit})", lambda p, name=name: p[name], errors[name]) for name, unit in UNITS.items()]
    rows.append(("a_plus / a_minus", lambda p: p["a_plus"] / p["a_minus"], errors["a_plus"] - errors["a_minus"]))
    for label, value, error in rows:
        start, found, true = (value(p) for p in (GUESS, learned, TRUE))
        cells = f"{start:.2f}", f"{found:.2f}", f"{true:.2f}", f"{100 * (found / true - 1):+.0f}%"
        table.add_row(label, *cells, f"±{100 * np.sqrt(np.mean(error**2)):.0f}%")
    return table


def figure(course, floor, errors, weights) -> Figure:
    """Draw the loss, the distributions, the STDP windows and the course of the parameters."""
    fig = Figure(figsize=(8.2, 5.8), layout="constrained", dpi=130)
    panels = fig.subplots(2, 2)
    (of_loss, of_weights), (of_window, of_course) = panels
    iterations = len(course["distance"]) - 1

    of_loss.semilogy(course["distance"], color=BLUE)
    of_loss.axhline(floor, color=BLACK, linestyle=":")
    of_loss.annotate("the target's own parameters", (iterations, floor), (0, 4), textcoords="offset points", ha="right")
    of_loss.set(xlabel="iteration", ylabel="distance to the target (pS)")

    bins = np.linspace(0, 1, 41)
    for (name, weight), style in zip(weights.items(), STYLES, strict=True):
        percent = np.full(len(weight), 100 / len(weight))
        of_weights.hist(weight, bins, weights=percent, histtype="step", linewidth=1.3, **style)
        of_weights.plot([], [], label=name, **style)  # a line in the legend, as panel c has them
    of_weights.set(xlabel="weight (nS)", ylabel="synapses (%)", xlim=(0, 1))
    of_weights.legend(frameon=False, title="in b and c")

    lag = np.linspace(0, 80, 200)
    learned = {name: course[name][-1] for name in TRUE}
    for p, style in zip((GUESS, learned, TRUE), STYLES, strict=True):
        of_window.plot(lag, p["a_plus"] / 2 * np.exp(-lag / p["tau_plus"]), **style)
        of_window.plot(-lag, -p["a_minus"] / 2 * np.exp(-lag / p["tau_minus"]), **style)
    of_window.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    of_window.set(xlabel="neuron's spike after its input's (ms)", ylabel="change of a weight of 0.5 nS (pS)")

    for k, (name, color) in enumerate(zip(TRUE, (BLUE, GREEN, ORANGE, BLACK), strict=True)):
        ratio, error = course[name] / TRUE[name], np.sqrt(np.mean(errors[k] ** 2))
        of_course.semilogy(ratio, color=color, label=LABELS[name])
        ends = ratio[-1] * np.exp([-error, error])
        of_course.vlines(iterations * (1.04 + 0.03 * k), *ends, color=color, linewidth=2.5)
    of_course.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    of_course.set(xlabel="iteration", ylabel="parameter / the target's")
    of_course.set_xticks([x for x in of_loss.get_xticks() if 0 <= x <= iterations])
    of_course.legend(frameon=False, ncols=4, columnspacing=1.2, handlelength=1.4, title="bars: expected error")
    for axes, ticks in ((of_loss, (1, 2, 5, 10, 20, 50)), (of_course, (0.25, 0.5, 1, 2, 4))):
        low, high = axes.get_ylim()
        axes.set_yticks([x for x in ticks if low < x < high])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    for letter, axes in zip("abcd", panels.flat, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(letter, loc="left", fontweight="bold")
    return fig


def main(
    iterations: Annotated[int, typer.Option(min=1, help="Steps of gradient descent.")] = 120,
    seconds: Annotated[float, typer.Option(min=0.5, help="Biological time that is simulated.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of all spikes.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the figure.")] = Path("learn_stdp"),
) -> None:
    """Find the amplitudes and time constants of the rule that made a distribution of weights."""
    started, console = time.perf_counter(), Console()
    blocks = round(float(seconds * u.second / (BLOCK * DT)))
    synapses, _ = hebbax.Synapses.from_dense(np.kron(np.eye(GROUPS), np.ones((INPUTS, NEURONS), np.float32)))
    spike_key, target_key, *other_keys = jax.random.split(jax.random.key(seed), 34)
    spikes = draw_spikes(spike_key, blocks)
    simulate = jax.jit(final_weight)
    target = jnp.sort(simulate(logs(TRUE), synapses, draw_spikes(target_key, blocks)))
    floor = 1e3 * float(jnp.sqrt(squared_distance(simulate(logs(TRUE), synapses, spikes), target)))

    def report(k, distance):
        console.print(f"iteration {k:3}: distance {distance:5.2f} pS, {time.perf_counter() - started:4.1f} s")

    course = learn(GUESS, synapses, spikes, target, iterations, report)
    learned = {name: float(course[name][-1]) for name in TRUE}
    errors = expected_errors(learned, synapses, jnp.stack(other_keys), blocks)
    console.print(results(learned, errors))
    console.print(f"distance {course['distance'][-1]:.2f} pS; with the target's own parameters {floor:.2f} pS")

    weights = {name: simulate(logs(p), synapses, spikes) for name, p in (("start", GUESS), ("learned", learned))}
    weights["target"] = target
    path = output / "learn_stdp.png"
    output.mkdir(parents=True, exist_ok=True)
    figure(course, floor, errors, {name: np.asarray(x) for name, x in weights.items()}).savefig(path)
    console.print(f"{path}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
