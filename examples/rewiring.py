"""A network that looks for its inputs: every second its weakest synapses are replaced by others at random places.

Neurons have synapses from a tenth of their inputs, drawn at random. A tenth of the inputs, a group, have spikes in
common with each other; the rest spike at the same rate, each by itself. STDP strengthens the synapses from the group,
and weakens the others down to the bound, where they do nothing any more. So after each second the synapses at the lower
bound are taken away, and as many others grow between neurons that are drawn at random: those that come from the group
stay, others are soon replaced again. In the second half of the time it is another group that has spikes in common.

Beside it, for comparison: a network whose synapses stay where they are, and one in which as many are replaced as are at
the bound, but any, drawn at random.

That is the idea of deep rewiring (Bellec, Kappel, Maass & Legenstein 2018, arXiv:1711.05136), which trains a network by
gradients under a fixed number of connections: one whose weight reaches 0 becomes dormant, and another one, drawn at
random, becomes active. Here it is STDP that moves weights. (They do not diffuse, as they do there.)

The number of synapses is the same at any time, and so is the size of all arrays: all seconds are one compiled loop.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import hebbax

INPUTS, NEURONS, SYNAPSES, GROUP = 400, 20, 800, 40
STEPS, DT = 1000, 1.0 * u.ms  # a second, after which the network is rewired
RATE, COMMON, COPIED = 0.02, 0.01, 0.8  # a step: spikes of an input, events of the group, copies of one in an input
W_MAX, NEW = 0.12, 0.06  # in units of the threshold
LEFT = float(np.exp(-1 / 20))  # of a neuron's potential after a step
RULE = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, a_plus=0.006, a_minus=0.009, w_min=0.0, w_max=W_MAX)
REPLACED = ("none", "any", "weakest")
COLORS = ("#000000", "#D55E00", "#0072B2")


class State(NamedTuple):
    """What the loop carries."""

    synapses: hebbax.Synapses
    weight: jax.Array
    traces: hebbax.rules.PairTraces
    voltage: jax.Array
    current: jax.Array


def group_of(second, seconds):
    """Which inputs have spikes in common, bool, shape `(INPUTS,)`."""
    return jnp.arange(INPUTS) // GROUP == jnp.where(second < seconds // 2, 0, 1)


def draw_spikes(key, group):
    """Spikes of all inputs in a second, bool, shape `(STEPS, INPUTS)`, where `group` says which have some in common."""
    keys = jax.random.split(key, 3)
    event = jax.random.bernoulli(keys[0], COMMON, (STEPS, 1))
    copied = jax.random.bernoulli(keys[1], COPIED, (STEPS, INPUTS))
    own = jax.random.bernoulli(keys[2], jnp.where(group, RATE - COMMON * COPIED, RATE), (STEPS, INPUTS))
    return (event & copied & group) | own


def step(synapses, state, spike):
    """One step: what arrives, which neurons spike, what the weights become."""
    weight, traces, voltage, current = state
    voltage = hebbax.fence(LEFT * voltage + current)
    fires = voltage > 1
    current = synapses.propagate_on_pre(weight, spike)  # which arrives in the next step
    weight, traces = RULE.step(synapses, weight, traces, spike, fires, DT, after=current)
    return (weight, traces, jnp.where(fires, 0.0, voltage), current), fires


def learn(synapses, state, spikes):
    """What a second of spikes makes of what changes at every step, and which neurons spike."""
    return jax.lax.scan(functools.partial(step, synapses), state, spikes)


def choose(keys, weight, replaced, shape):
    """Which synapses are kept, and pairs of neurons for others, drawn at random: more than enough."""
    strong = weight > 0
    keep = jnp.stack([jnp.ones_like(strong), jax.random.permutation(keys[0], strong), strong])[replaced]
    return keep, *(jax.random.randint(key, SYNAPSES, 0, n) for key, n in zip(keys[1:], shape, strict=True))


@functools.partial(jax.jit, static_argnames="seconds")
def simulate(key, synapses, replaced, seconds):
    """The state at the end, and after each second the group's share of synapses and weights, and what else is told.

    `replaced` is a position in `REPLACED`.
    """

    def second(state, key_and_second):
        key, second = key_and_second
        keys = jax.random.split(key, 4)
        group = group_of(second, seconds)
        synapses, *rest = state
        (weight, *rest), fires = learn(synapses, tuple(rest), draw_spikes(keys[0], group))
        keep, pre, post = choose(keys[1:], weight, replaced, synapses.shape)
        synapses, weight, *_ = hebbax.rewire_within(synapses, keep, pre, post, values=weight, new=NEW)
        on_group = group[pre_of(synapses)]
        seen = {
            "synapses": jnp.mean(on_group), "weight": jnp.sum(weight * on_group) / jnp.sum(weight),
            "replaced": jnp.sum(~keep), "spikes": jnp.mean(fires) * STEPS, "count": synapses.indptr[-1],
        }  # fmt: skip
        return State(synapses, weight, *rest), seen

    return jax.lax.scan(second, start(synapses), (jax.random.split(key, seconds), jnp.arange(seconds)))


def start(synapses):
    """The state before the first step."""
    return State(synapses, jnp.full(SYNAPSES, NEW), RULE.init(synapses), jnp.zeros(NEURONS), jnp.zeros(NEURONS))


def pre_of(synapses):
    """The presynaptic neuron of every synapse; there are no free places here."""
    return jnp.repeat(jnp.arange(INPUTS), jnp.diff(synapses.indptr), total_repeat_length=SYNAPSES)


def figure(courses, W) -> Figure:
    """Draw the group's share over time, and the weight matrix at the end of one of the last networks."""
    fig = Figure(figsize=(8.2, 3.2), layout="constrained", dpi=130)
    share, matrix = fig.subplots(1, 2)
    for (name, course), color in zip(courses.items(), COLORS, strict=True):
        seconds = np.arange(1, course["weight"].shape[1] + 1)
        share.plot(seconds, 100 * course["weight"].mean(axis=0), ":", color=color)
        share.plot(seconds, 100 * course["synapses"].mean(axis=0), color=color, label=name)
    share.axvline(seconds.size / 2, color="0.8", linewidth=0.8, zorder=0)
    share.set(xlabel="time (s)", ylabel="from the group (%)", ylim=(0, 120), yticks=range(0, 101, 20))
    share.legend(
        frameon=False, title="synapses (dotted: weight), replaced:", loc="upper center", ncols=3, columnspacing=1.2,
        handlelength=1.4,
    )  # fmt: skip
    image = matrix.imshow(W.T / W_MAX, aspect="auto", cmap="magma_r", interpolation="nearest")
    matrix.set(xlabel="input", ylabel="neuron", xticks=(0, GROUP, 2 * GROUP, INPUTS), yticks=(0, NEURONS - 1))
    fig.colorbar(image, ax=matrix, label="weight at the end / w_max")
    for letter, axes in (("a", share), ("b", matrix)):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(letter, loc="left", fontweight="bold")
    return fig


def main(
    seconds: Annotated[int, typer.Option(min=2, help="Biological time that is simulated.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="How many networks of each kind.")] = 5,
    output: Annotated[Path, typer.Option(help="Folder for the figure.")] = Path("rewiring"),
) -> None:
    """Let networks find the inputs that have spikes in common, by their synapses' weights and by new synapses."""
    started, console = time.perf_counter(), Console(width=120)
    times = seconds // 2, seconds
    columns = (f"{what} at {t} s" for what in ("synapses", "weight") for t in times)
    table = Table("replaced", *columns, "replaced/s", "spikes/s")
    courses = {}
    for k, name in enumerate(REPLACED):
        runs = []
        for seed in range(seeds):
            synapses = hebbax.Synapses.random((INPUTS, NEURONS), indegree=SYNAPSES // NEURONS, seed=seed)
            state, seen = simulate(jax.random.key(seed), synapses, jnp.array(k), seconds)
            runs.append(jax.tree.map(np.asarray, seen))
        course = courses[name] = {what: np.stack([run[what] for run in runs]) for what in runs[0]}
        if not (course["count"] == SYNAPSES).all():
            raise RuntimeError(f"got {course['count'].min()} synapses, expected {SYNAPSES} at any time")
        cells = [spread(100 * course[what][:, t - 1]) for what in ("synapses", "weight") for t in times]
        table.add_row(name, *cells, f"{course['replaced'].mean():.0f}", f"{course['spikes'].mean():.1f}")
    console.print(table)
    path = output / "rewiring.png"
    output.mkdir(parents=True, exist_ok=True)
    figure(courses, np.asarray(state.synapses.todense(state.weight))).savefig(path)
    console.print(f"{path}, {time.perf_counter() - started:.0f} s")


def spread(x: np.ndarray) -> str:
    """Mean and range over the seeds."""
    return f"{x.mean():.0f}% ({x.min():.0f} to {x.max():.0f})"


if __name__ == "__main__":
    typer.run(main)
