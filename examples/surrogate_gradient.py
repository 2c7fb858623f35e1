"""Train a sparse spiking network to tell spike patterns apart, with surrogate gradients.

In a pattern every input spikes once, at a time that is its own in each class. All classes thus have the same spike
counts: only the timing tells them apart. A sample shifts every spike at random and drops some.

Whether a neuron spikes is a step function of its voltage, whose derivative is 0. Training replaces that derivative, and
only that, by a smooth one (Neftci, Mostafa & Zenke 2019, doi:10.1109/MSP.2019.2931595). Spikes are floating numbers, 0
or 1, and `propagate_on_pre` is differentiated as `spike @ W`: with respect to the weights along the events alone, and
with respect to all spikes, silent ones too, because a surrogate asks what a spike there would have changed.
"""

from __future__ import annotations

import time
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
import typer

import hebbax

CLASSES, INPUTS, HIDDEN, STEPS = 4, 80, 100, 60
SYNAPSES = (
    hebbax.Synapses.random((INPUTS, HIDDEN), indegree=20, seed=1),
    hebbax.Synapses.random((HIDDEN, CLASSES), indegree=50, seed=2),
)
DECAY = 0.9  # of voltages, per step


@jax.custom_jvp
def spikes_at(voltage):
    """1 where the voltage is above the threshold, 1."""
    return (voltage > 1).astype(voltage.dtype)


@spikes_at.defjvp
def _surrogate(primals, tangents):
    (voltage,), (change,) = primals, tangents
    return spikes_at(voltage), change / (1 + 5 * jnp.abs(voltage - 1)) ** 2  # that of a fast sigmoid


def scores(weights, pattern):
    """How much the readout favours each class, for one pattern of shape `(STEPS, INPUTS)`, and the hidden spikes."""
    to_hidden, to_readout = SYNAPSES

    def step(state, input_spike):
        voltage, readout = state
        voltage = DECAY * voltage + to_hidden.propagate_on_pre(weights[0], input_spike)
        spike = spikes_at(voltage)
        readout = DECAY * readout + to_readout.propagate_on_pre(weights[1], spike)
        return (voltage - spike, readout), (readout, spike)  # a spike lowers the voltage by the threshold

    start = jnp.zeros(HIDDEN), jnp.zeros(CLASSES)
    _, (readout, spikes) = jax.lax.scan(step, start, pattern)
    return readout.mean(0), spikes


def loss(weights, patterns, labels):
    """The cross entropy over a batch, and the share of patterns that are told right."""
    favour, _ = jax.vmap(scores, in_axes=(None, 0))(weights, patterns)
    entropy = optax.softmax_cross_entropy_with_integer_labels(favour, labels).mean()
    return entropy, (favour.argmax(1) == labels).mean()


def draw(key, times, size: int):
    """A batch of patterns, shape `(size, STEPS, INPUTS)`, and their labels."""
    label_key, jitter_key, drop_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (size,), 0, CLASSES)
    shifted = times[labels] + 5 * jax.random.normal(jitter_key, (size, INPUTS))  # steps
    kept = jax.random.bernoulli(drop_key, 0.5, shifted.shape)
    here = jnp.round(shifted)[:, None, :] == jnp.arange(STEPS)[:, None]
    return (here & kept[:, None, :]).astype(jnp.float32), labels


def train(iterations: int, batch: int, seed: int, report):
    """Return the trained weights, and loss and accuracy on fresh patterns."""
    time_key, *weight_keys, test_key, key = jax.random.split(jax.random.key(seed), 5)
    times = jax.random.uniform(time_key, (CLASSES, INPUTS), minval=0, maxval=STEPS)
    weights = [
        scale * jax.random.normal(weight_key, synapses.nse)
        for weight_key, synapses, scale in zip(weight_keys, SYNAPSES, (0.4, 0.1), strict=True)
    ]
    optimizer = optax.adam(0.01)

    @jax.jit
    def iterate(weights, state, key):
        (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(weights, *draw(key, times, batch))
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state, value, accuracy

    state = optimizer.init(weights)
    for k in range(iterations):
        weights, state, value, accuracy = iterate(weights, state, jax.random.fold_in(key, k))
        if k % 10 == 0 or k == iterations - 1:
            report(k, float(value), float(accuracy))
    return weights, *(float(x) for x in jax.jit(loss)(weights, *draw(test_key, times, 500)))


def main(
    iterations: Annotated[int, typer.Option(min=1, help="Steps of gradient descent.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Patterns in a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the patterns and the first weights.")] = 0,
) -> None:
    """Train the network, and print how loss and accuracy change."""
    started = time.perf_counter()

    def report(k, value, accuracy):
        print(f"iteration {k:3}: loss {value:.3f}, accuracy {accuracy:4.0%}, {time.perf_counter() - started:4.1f} s")

    _, value, accuracy = train(iterations, batch, seed, report)
    print(f"500 fresh patterns: loss {value:.3f}, accuracy {accuracy:.1%}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
