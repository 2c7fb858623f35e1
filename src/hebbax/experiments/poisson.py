"""Random spike trains and numbers of neurons, that depend on the neuron and not on which device draws them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hebbax


def bernoulli_cells(key: jax.Array, cells: int, probability: float) -> jax.Array:
    """Return, in ascending order, the cells in which independent events of this probability happen; `cells` pads them.

    A Poisson process in discrete time: the cells are steps times neurons, and the probability is rate times time step.
    The gaps between events are geometric, so only events cost random numbers: for 4000 trains of 15 Hz in steps of
    0.1 ms it took 0.3 microseconds a step to draw them and set them in a raster; `jax.random.bernoulli` took 50.
    """
    mean = cells * probability
    most = math.ceil(mean + 8.0 * math.sqrt(mean) + 16.0)  # more events than this have a probability below 1e-14
    gaps = jax.random.geometric(key, probability, (most,), jnp.int32)
    return jnp.minimum(jnp.cumsum(gaps, dtype=jnp.int32) - 1, cells)


class Limits(NamedTuple):
    """Of 32 random bits: how many of these they reach is the number of Poisson events."""

    values: Any  # (most,) uint32
    number: Any  # int32: the others are padding


def poisson_limits(mean: float) -> Limits:
    """The cumulative probabilities, up to the last that differs from 1 in 32 bits."""
    if not 0 < mean <= LARGEST_MEAN:
        raise ValueError(f"mean: got {mean}, expected more than 0 and at most {LARGEST_MEAN}")
    probabilities = np.cumsum([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(200)])
    limits = np.round(probabilities * 2.0**32)
    values = limits[limits < 2**32].astype(np.uint32)
    return Limits(values, np.int32(values.size))


def poisson_counts(seed: int, mean: float | Limits, neurons: jax.Array, steps: jax.Array) -> jax.Array:
    """Numbers of Poisson events of these neurons in these steps, float32, shape `(steps, neurons)`.

    Each depends on the seed, the neuron and the step only, so devices that share neurons out draw what one would. The
    random bits are those of Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as
    easy as 1, 2, 3, doi:10.1145/2063384.2063405), JAX's own generator, written out here for XLA to merge. They are
    compared with the cumulative probabilities, which may be given in place of the mean, as `poisson_limits` has them.
    """
    values, number = mean if isinstance(mean, Limits) else poisson_limits(mean)
    bits = _threefry(_key(seed), neurons.astype(jnp.uint32)[None], steps.astype(jnp.uint32)[:, None])
    count = jnp.zeros(bits.shape, jnp.float32)
    for k in range(values.shape[0]):
        reached = bits >= values[k]
        if isinstance(number, jax.Array):  # of the members of a sweep
            reached &= k < number
        count += jnp.where(reached, np.float32(1), np.float32(0))
    return hebbax.fence(count)


def uniform(seed: int, neurons: jax.Array) -> jax.Array:
    """A number between 0 and 1, neither of them, for each of these neurons, float32: of the step that no run has."""
    bits = _threefry(_key(seed), neurons.astype(jnp.uint32), jnp.uint32(0xFFFFFFFF))
    return ((bits >> 9).astype(jnp.float32) + np.float32(0.5)) * np.float32(2.0**-23)


def _key(seed: int) -> tuple[np.uint32, np.uint32]:
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)


LARGEST_MEAN = 50.0  # for which numbers up to 199 suffice
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: tuple[np.uint32, np.uint32], x: jax.Array, y: jax.Array) -> jax.Array:
    """The first word of Threefry-2x32 with 20 rounds, of the counter `(x, y)`."""
    keys = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x, y = x + keys[0], y + keys[1]
    for turn in range(5):
        for bits in ROTATIONS[turn % 2]:
            x = x + y
            y = x ^ (y << np.uint32(bits) | y >> np.uint32(32 - bits))
        x, y = x + keys[(turn + 1) % 3], y + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x
