r"""Handwritten digits, learned from spikes without labels: Diehl & Cook (2015), on the images of scikit-learn.

    P. U. Diehl & M. Cook (2015), Unsupervised learning of digit recognition using spike-timing-dependent plasticity,
    Frontiers in Computational Neuroscience 9:99, doi:10.3389/fncom.2015.00099

An image's pixels are rates of Poisson inputs, all of which connect to all excitatory neurons. Each spike of a neuron
takes its weights towards the inputs that are active then, makes its threshold higher, and inhibits all other neurons:
so they share the images out. Only then, with what was learned held fixed, each neuron is given the class of images to
which it spikes most, and an image that was not seen before the class whose neurons spike most.

    tau dv/dt = E_rest - v + g_e (E_e - v) + g_i (E_i - v)     where v > threshold + theta, it is reset and theta rises

Images have 64 pixels, of 16 shades, where the paper's have 784, and there are 1 797, where it has 70 000. What follows
from that, and is said to be hebbax's in `Parameters`: rates are higher, so that about as many input spikes arrive; the
sum of a neuron's weights is smaller, with the same mean; and thresholds rise and fall faster. Besides, images are
separated by a reset in place of 150 ms of rest, and the inhibitory neurons, each of which in the paper follows every
spike of its excitatory one and has no other input, are left out: a spike inhibits all others from the next step on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import hebbax
from hebbax.experiments.keeping import Journal, Keeper, described, like, named, on_devices
from hebbax.experiments.parameters import parameter
from hebbax.rules import PreTrace

IMAGES, PIXELS, CLASSES = 1797, 64, 10
HELD_OUT = 360  # images
BLOCK = 50  # images shown at once, between two looks at whether to stop
MOST_SHOWINGS = 10  # of one image, if few neurons spike


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source.

    "paper" is Diehl & Cook (2015), "program" what the authors ran, https://github.com/peter-u-diehl/stdp-mnist, though
    that learns by a rule of triplets, and not by the paper's.
    Conductances, and so weights, are in units of the neuron's leak conductance.
    """

    membrane_time: u.Quantity = parameter(100.0 * u.ms, "membrane time constant")
    resting_potential: u.Quantity = parameter(-65.0 * u.mV, "resting potential", "program")
    excitatory_potential: u.Quantity = parameter(0.0 * u.mV, "reversal potential of excitatory synapses", "program")
    inhibitory_potential: u.Quantity = parameter(-100.0 * u.mV, "reversal potential of inhibitory synapses", "program")
    reset_potential: u.Quantity = parameter(-65.0 * u.mV, "potential after a spike", "program")
    refractory_time: u.Quantity = parameter(5.0 * u.ms, "time after a spike in which the potential is held", "program")
    threshold: u.Quantity = parameter(-72.0 * u.mV, "potential at which a neuron spikes, less theta", "program")
    theta_start: u.Quantity = parameter(20.0 * u.mV, "theta at first", "program")
    theta_step: u.Quantity = parameter(0.3 * u.mV, "what a spike adds to theta", "hebbax; program: 0.05 mV")
    theta_time: u.Quantity = parameter(2e6 * u.ms, "decay time of theta", "hebbax; program: 1e7 ms")
    excitatory_time: u.Quantity = parameter(1.0 * u.ms, "decay time of the excitatory conductance", "program")
    inhibitory_time: u.Quantity = parameter(2.0 * u.ms, "decay time of the inhibitory conductance", "program")
    inhibitory_weight: float = parameter(17.0, "inhibition of all others by a spike", "program")
    largest_weight: float = parameter(1.0, "upper bound of a weight (the lower is 0)", "program")
    total_weight: float = parameter(6.4, "sum of a neuron's weights before each image", "hebbax; program: 78 of 784")
    start_range: tuple[float, float] = parameter((0.003, 0.303), "initial weights, uniform", "program")
    trace_time: u.Quantity = parameter(20.0 * u.ms, "time constant of the input's trace", "program")
    learning_rate: float = parameter(0.01, "eta", "program, of its own rule")
    target: float = parameter(0.4, "trace of the input that leaves a weight as it is", "program, which defines it only")
    exponent: float = parameter(0.2, "mu, of the distance to the largest weight", "program, which defines it only")
    image_time: u.Quantity = parameter(350.0 * u.ms, "how long an image is shown")
    largest_rate: u.Quantity = parameter(333.0 * u.Hz, "rate of a white pixel's input", "hebbax; paper: 63.75 Hz")
    rate_step: u.Quantity = parameter(167.0 * u.Hz, "its rise if few neurons spike", "hebbax; paper: 32 Hz")
    fewest_spikes: int = parameter(5, "spikes by an image below which it is shown again, at a higher rate")
    time_step: u.Quantity = parameter(0.5 * u.ms, "time step", "program")

    @property
    def steps(self) -> int:
        """Time steps in which an image is shown."""
        return max(1, round(self.image_time / self.time_step))


class Learned(NamedTuple):
    """What lasts from image to image."""

    weight: jax.Array  # (nse,)
    theta: u.Quantity  # (n,)


class Activity(NamedTuple):
    """What an image starts anew; conductances have already decayed to the time of the next step."""

    voltage: u.Quantity  # (n,)
    excitation: jax.Array  # (n,)
    inhibition: jax.Array  # (n,)
    refractory: jax.Array  # (n,), steps that remain
    spikes: jax.Array  # (n,), so far
    traces: PreTrace


class Images(NamedTuple):
    """Pixels, from 0 to 1, and classes of some images."""

    pixels: np.ndarray  # (images, PIXELS)
    label: np.ndarray  # (images,)


class Answers(NamedTuple):
    """What the network did when it was shown images."""

    label: np.ndarray  # (images,), of those shown
    spikes: np.ndarray  # (images, neurons)


@dataclasses.dataclass(frozen=True)
class Result:
    """A run, or what there was of it when it was stopped."""

    parameters: Parameters
    seed: int
    learning: Answers  # while the network learned
    known: Answers  # to the same images afterwards
    held_out: Answers
    weight: np.ndarray  # (PIXELS, neurons), in leak conductances
    theta: u.Quantity  # (neurons,)
    wall_time: u.Quantity

    @property
    def steps(self) -> int:
        """Time steps of all images, each shown once."""
        return self.parameters.steps * sum(len(x.label) for x in (self.learning, self.known, self.held_out))

    @functools.cached_property
    def assignment(self) -> np.ndarray:
        """Class of every neuron, -1 if it has none; until all has been learned, by what was seen of that."""
        return assign(self.known if len(self.known.label) else self.learning)

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Numbers of held-out images by their class and by that which the network gave them, (CLASSES, CLASSES)."""
        counts = np.zeros((CLASSES, CLASSES), int)
        np.add.at(counts, (self.held_out.label, classify(self.assignment, self.held_out.spikes)), 1)
        return counts

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that were given their class; NaN before any was shown."""
        return float(np.trace(self.confusion) / n) if (n := self.confusion.sum()) else math.nan

    def course(self, window: int = 240) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy while learning: of each `window` of images, with the classes that the window before gives neurons.

        Returns the number of images seen at the end of each, and the share that is right.
        """
        ends = np.arange(2 * window, len(self.learning.label) + 1, window)
        parts = [Answers(*(x[end - 2 * window : end] for x in self.learning)) for end in ends]
        right = [
            (classify(assign(Answers(*(x[:window] for x in part))), part.spikes[window:]) == part.label[window:]).mean()
            for part in parts
        ]
        return ends, np.array(right)


def load() -> Images:
    """The images that scikit-learn ships: the test images of E. Alpaydin & C. Kaynak (1998), doi:10.24432/C50P49."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("sklearn"):
            raise
        message = 'the images are in scikit-learn, which is not installed: pip install "hebbax[digits]"'
        raise ModuleNotFoundError(message, name=error.name) from error
    pixels, label = load_digits(return_X_y=True)
    return Images((pixels / 16).astype(np.float32), label)


def split(images: Images, known: int, held_out: int, seed: int) -> tuple[Images, Images]:
    """Images to learn from and others to hold out, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(images.label))
    learned, unknown = (Images(*(x[part] for x in images)) for part in (order[held_out:][:known], order[:held_out]))
    return learned, unknown


def assign(answers: Answers) -> np.ndarray:
    """For every neuron the class to whose images it spiked most on average, -1 if it never spiked."""
    mean = _means(answers.spikes.T, answers.label)
    return np.where(mean.max(1) > 0, mean.argmax(1), -1)


def classify(assignment: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """For every image the class whose neurons spiked most on average."""
    return _means(spikes, assignment).argmax(1)


def _means(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Of each row, the means over the columns of each class, 0 where it has none."""
    members = group[:, None] == np.arange(CLASSES)
    return x @ members / np.maximum(members.sum(0), 1)


def connect(neurons: int) -> hebbax.Synapses:
    """All inputs to all neurons; weights in CSR order are a matrix of shape (PIXELS, neurons)."""
    rows = np.arange(PIXELS + 1) * neurons
    return hebbax.Synapses(rows, np.tile(np.arange(neurons), PIXELS), shape=(PIXELS, neurons))


def plasticity(p: Parameters) -> hebbax.DiehlCookSTDP:
    """The rule by which the weights change."""
    return hebbax.DiehlCookSTDP(
        p.trace_time, p.learning_rate, p.target, 0.0, p.largest_weight, mu=p.exponent, pairing="nearest"
    )


def normalised(p: Parameters, synapses: hebbax.Synapses, weight: jax.Array) -> jax.Array:
    """Weights with the same sum for every neuron, as far as the largest weight allows."""
    matrix = weight.reshape(synapses.shape)
    return jnp.minimum(matrix * (p.total_weight / matrix.sum(0)), p.largest_weight).reshape(-1)


def at_first(p: Parameters, synapses: hebbax.Synapses, key: jax.Array) -> Learned:
    """Nothing learned yet."""
    low, high = p.start_range
    weight = jax.random.uniform(key, (synapses.nse,), jnp.float32, low, high)
    return Learned(weight, jnp.ones(synapses.n_post, jnp.float32) * p.theta_start)


def at_rest(p: Parameters, synapses: hebbax.Synapses) -> Activity:
    """Neurons before an image."""
    zeros = jnp.zeros(synapses.n_post, jnp.float32)
    counts = jnp.zeros(synapses.n_post, jnp.int32)
    voltage = jnp.ones(synapses.n_post, jnp.float32) * p.resting_potential
    return Activity(voltage, zeros, zeros, counts, counts, plasticity(p).init(synapses))


def make_step(p: Parameters, synapses: hebbax.Synapses, learns: bool, backend: str | None = None) -> Callable:
    """Return the function `((learned, activity), pre_spike) -> (learned, activity), None` of one time step.

    Input, and inhibition by a spike, act on the voltage from the next step on.
    """
    rule = plasticity(p)
    rest = round(p.refractory_time / p.time_step)

    def decay(time_constant: u.Quantity) -> float:
        return math.exp(-(p.time_step / time_constant))

    def step(state: tuple[Learned, Activity], pre_spike: jax.Array) -> tuple[tuple[Learned, Activity], None]:
        (weight, theta), now = state
        # The solution of the membrane's equation for constant conductances.
        conductance = 1.0 + now.excitation + now.inhibition
        target = (
            p.resting_potential + now.excitation * p.excitatory_potential + now.inhibition * p.inhibitory_potential
        ) / conductance
        voltage = target + (now.voltage - target) * jnp.exp(-(p.time_step / p.membrane_time) * conductance)
        voltage = u.math.where(now.refractory > 0, p.reset_potential, voltage)
        spike = voltage > p.threshold + theta

        received = synapses.propagate_on_pre(weight, pre_spike, backend=backend)
        traces = now.traces
        if learns:
            weight, traces = rule.step(
                synapses, weight, traces, pre_spike, spike, p.time_step, after=received, backend=backend
            )
            theta = theta + p.theta_step * spike
        others = spike.sum(dtype=jnp.float32) - spike
        after = Activity(
            voltage=u.math.where(spike, p.reset_potential, voltage),
            excitation=now.excitation * decay(p.excitatory_time) + received,
            inhibition=now.inhibition * decay(p.inhibitory_time) + p.inhibitory_weight * others,
            refractory=jnp.where(spike, rest, jnp.maximum(now.refractory - 1, 0)),
            spikes=now.spikes + spike,
            traces=traces,
        )
        return (Learned(weight, theta), after), None

    return step


def make_show(p: Parameters, synapses: hebbax.Synapses, learns: bool, backend: str | None = None) -> Callable:
    """Return the function `(learned, pixels, key) -> (learned, spikes)` that shows one image.

    Again, at a higher rate, until enough neurons have spiked; `spikes` are those of the last showing.
    """
    step = make_step(p, synapses, learns, backend)

    def show_once(learned: Learned, rate: u.Quantity, key: jax.Array) -> tuple[Learned, jax.Array]:
        if learns:
            kept = math.exp(-(p.image_time / p.theta_time))
            learned = Learned(normalised(p, synapses, learned.weight), learned.theta * kept)
        pre_spikes = jax.random.bernoulli(key, rate * p.time_step, (p.steps, PIXELS))
        (learned, activity), _ = jax.lax.scan(step, (learned, at_rest(p, synapses)), pre_spikes)
        return learned, activity.spikes

    def show(learned: Learned, pixels: jax.Array, key: jax.Array) -> tuple[Learned, jax.Array]:
        def few(state: tuple) -> jax.Array:
            showing, _, spikes = state
            return (showing == 0) | ((showing < MOST_SHOWINGS) & (spikes.sum() < p.fewest_spikes))

        def again(state: tuple) -> tuple:
            showing, learned, _ = state
            rate = pixels * (p.largest_rate + p.rate_step * showing)
            return showing + 1, *show_once(learned, rate, jax.random.fold_in(key, showing))

        start = jnp.int32(0), learned, jnp.zeros(synapses.n_post, jnp.int32)
        return jax.lax.while_loop(few, again, start)[1:]

    return show


def check(parameters: Parameters, neurons: int, epochs: int, images: int, held_out: int) -> int:
    """Return the number of images to show in all; raise a ValueError that names what is out of range."""
    p = parameters
    for name, n in {"neurons": neurons, "epochs": epochs, "images": images, "held_out": held_out}.items():
        if n < 1:
            raise ValueError(f"{name}: got {n}, expected at least 1")
    if images + held_out > IMAGES:
        raise ValueError(f"images: got {images} and {held_out} held out, expected at most {IMAGES} in all")
    if not 0 < p.time_step / u.ms <= 1:
        raise ValueError(f"time_step: got {p.time_step}, expected more than 0 and at most 1 ms")
    return (epochs + 1) * images + held_out


def simulate(
    parameters: Parameters | None = None,
    *,
    neurons: int = 400,
    epochs: int = 2,
    images: int = IMAGES - HELD_OUT,
    held_out: int = HELD_OUT,
    seed: int = 0,
    backend: str | None = None,
    on_progress: Callable[[float], object] | None = None,
    keeper: Keeper | None = None,
) -> Result:
    """Learn from images, find out what the neurons have learned, and have them tell what others show.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants.
    neurons : int
        Of the excitatory ones.
    epochs : int
        How often each image is learned from, every time in another order.
    images, held_out : int
        Numbers of images that are learned from, and of those that are not; drawn at random.
    seed : int
        Seed of all random numbers, also of which images are held out.
    backend : str, optional
        Of the operators (see `hebbax.backends`).
    on_progress : callable, optional
        Called with the biological time in seconds after at most `BLOCK` images. If what it returns is true, the run
        ends there, and the result has what was computed.
    keeper : Keeper, optional
        What keeps the run, and has what there was of it (see `hebbax.experiments.keeping`).

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        An argument or a parameter is out of range.
    ModuleNotFoundError
        scikit-learn, which has the images, is not installed.

    Examples
    --------
    >>> from hebbax.experiments import digits
    >>> result = digits.simulate(neurons=10, epochs=1, images=20, held_out=5)
    >>> result.weight.shape, result.assignment.shape, int(result.confusion.sum())
    ((64, 10), (10,), 5)
    """
    p = Parameters() if parameters is None else parameters
    in_all = check(p, neurons, epochs, images, held_out)
    known, unknown = split(load(), images, held_out, seed)
    synapses = connect(neurons)
    start_key, input_key = jax.random.split(jax.random.key(seed))
    options: Any = dict(neurons=neurons, epochs=epochs, images=images, held_out=held_out, seed=seed)
    journal = Journal(keeper, described("digits", p, **options))
    learned = at_first(p, synapses, start_key)
    shown, stop, before = 0, False, journal.steps // p.steps

    def kept() -> dict[str, Any]:
        return named(learned)

    if journal.kept:
        learned = like(learned, journal.kept.state, on_devices)
    else:
        journal.save(0, kept)
    journal.begin()
    if on_progress and before:
        on_progress(before * (p.image_time / u.second))

    @functools.partial(jax.jit, static_argnames="learns", donate_argnames="learned")
    def show_block(
        learned: Learned, pixels: jax.Array, count: jax.Array, first: jax.Array, learns: bool
    ) -> tuple[Learned, jax.Array]:
        """Show the first `count` of these images, the first of which is the run's image number `first`."""
        show = make_show(p, synapses, learns, backend)

        def one(k: jax.Array, state: tuple[Learned, jax.Array]) -> tuple[Learned, jax.Array]:
            learned, spikes = state
            learned, own = show(learned, pixels[k], jax.random.fold_in(input_key, first + k))
            return learned, spikes.at[k].set(own)

        return jax.lax.fori_loop(0, count, one, (learned, jnp.zeros((BLOCK, neurons), jnp.int32)))

    def show_all(images: Images, learns: bool = False) -> Answers:
        nonlocal learned, shown, stop
        spikes = np.zeros((len(images.label), neurons), np.int32)
        done = min(max(0, before - shown), len(images.label))  # those that were shown before this run
        if done:
            spikes[:done] = journal.read("spikes")[shown : shown + done]
        shown += done
        while done < len(images.label) and not stop:
            pixels = images.pixels[done : done + BLOCK]
            count, padded = len(pixels), np.zeros((BLOCK, PIXELS), np.float32)
            padded[:count] = pixels
            learned, own = show_block(learned, padded, np.int32(count), np.int32(shown), learns=learns)
            spikes[done : done + count] = own[:count]
            journal.add(spikes=spikes[done : done + count])
            done, shown = done + count, shown + count
            stop = bool(on_progress and on_progress(shown * (p.image_time / u.second)))
            if stop or shown == in_all or journal.due():
                journal.save(shown * p.steps, kept)
        return Answers(images.label[:done], spikes[:done])

    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([rng.permutation(images) for _ in range(epochs)])
    learning = show_all(Images(*(x[order] for x in known)), learns=True)
    answers = show_all(known), show_all(unknown)
    weight = np.array(learned.weight).reshape(synapses.shape)
    wall_time = journal.wall_time * u.second
    theta = np.array(learned.theta / u.mV) * u.mV
    return Result(p, seed, learning, *answers, weight, theta, wall_time)
