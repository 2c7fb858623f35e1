"""Competitive learning by spike-timing-dependent plasticity (STDP), after Song, Miller & Abbott (2000).

Many Poisson inputs converge on an integrate-and-fire neuron. A pair of spikes strengthens a synapse if the input came
first and weakens it if the output did, a little more on the whole. So the inputs compete for the timing of the
output's spikes: the weights end near either bound, and the firing rate settles.

    S. Song, K. D. Miller & L. F. Abbott (2000), Competitive Hebbian learning through spike-timing-dependent synaptic
    plasticity, Nature Neuroscience 3:919-926, doi:10.1038/78829

Every neuron repeats the experiment with inputs of its own: the inputs of all neurons are one presynaptic population,
whose weight matrix, of shape `(neurons * inputs, neurons)`, has one synapse in every row.
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
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax._core.layout import everywhere, to_host
from hebbax.experiments.keeping import Journal, Keeper, check_not_over, described, like, named, on_devices
from hebbax.experiments.parameters import parameter
from hebbax.experiments.poisson import bernoulli_cells
from hebbax.experiments.processes import any_process
from hebbax.rules import PairTraces

LOW, HIGH = 0.1, 0.9  # of the largest weight: nearer to a bound than this is "near"
RECORD = 1.0 * u.second  # how often the weights are looked at
SAMPLES = 15  # weights whose time course is kept
BLOCK_STEPS, BLOCK_CELLS = 1000, 1 << 22  # input spikes are drawn for so many steps at once, in so many bytes, at most
MAX_SYNAPSES, MIN_PROBABILITY = 1 << 28, 1e-7  # so that the cells of a block can be counted in 32 bits


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source.

    "paper" is Song et al. (2000). Conductances, and so weights, are in units of the neuron's leak conductance.
    """

    membrane_time: u.Quantity = parameter(20.0 * u.ms, "membrane time constant")
    resting_potential: u.Quantity = parameter(-70.0 * u.mV, "resting potential")
    excitatory_potential: u.Quantity = parameter(0.0 * u.mV, "reversal potential of excitatory synapses")
    inhibitory_potential: u.Quantity = parameter(-70.0 * u.mV, "reversal potential of inhibitory synapses")
    threshold: u.Quantity = parameter(-54.0 * u.mV, "potential at which a neuron spikes")
    reset_potential: u.Quantity = parameter(-60.0 * u.mV, "potential after a spike")
    excitatory_time: u.Quantity = parameter(5.0 * u.ms, "decay time of the excitatory conductance")
    inhibitory_time: u.Quantity = parameter(5.0 * u.ms, "decay time of the inhibitory conductance")
    largest_weight: float = parameter(0.015, "upper bound of an excitatory weight (the lower is 0)")
    inhibitory_weight: float = parameter(0.05, "weight of an inhibitory synapse")
    inhibitory_inputs: int = parameter(200, "inhibitory inputs of a neuron")
    inhibitory_rate: u.Quantity = parameter(10.0 * u.Hz, "rate of an inhibitory Poisson input")
    excitatory_rate: u.Quantity = parameter(15.0 * u.Hz, "rate of an excitatory Poisson input", "in the paper's range")
    potentiation: float = parameter(0.005, "largest step up by a pair of spikes, A+, in largest weights")
    depression_ratio: float = parameter(1.05, "largest step down over largest step up, A-/A+")
    potentiation_time: u.Quantity = parameter(20.0 * u.ms, "time constant of potentiation, tau+")
    depression_time: u.Quantity = parameter(20.0 * u.ms, "time constant of depression, tau-")
    time_step: u.Quantity = parameter(0.1 * u.ms, "time step", "hebbax")
    start_range: tuple[float, float] = parameter((0.0, 1.0), "initial weights: uniform, in largest weights", "hebbax")


class Constants(NamedTuple):
    """What a step computes with, of all that `Parameters` say."""

    resting: u.Quantity
    excitatory: u.Quantity
    inhibitory: u.Quantity
    threshold: u.Quantity
    reset: u.Quantity
    membrane_step: Any  # the time step in membrane time constants
    excitatory_decay: Any
    inhibitory_decay: Any
    inhibitory_weight: Any
    start: tuple[Any, Any]  # the range of the initial weights
    rule: hebbax.PairSTDP


class State(NamedTuple):
    """What a step hands to the next one; conductances have already decayed to the time of the next step."""

    weight: jax.Array
    voltage: u.Quantity
    excitation: jax.Array
    inhibition: jax.Array
    traces: PairTraces


class Record(NamedTuple):
    """What is kept of one moment; weights are in leak conductances."""

    time: u.Quantity
    spikes: np.ndarray  # (neurons,), so far
    weight_mean: np.ndarray  # (neurons,)
    weight_sd: np.ndarray  # (neurons,)
    fraction_low: np.ndarray  # (neurons,), of weights below LOW * largest_weight
    fraction_high: np.ndarray  # (neurons,), of weights above HIGH * largest_weight
    weight_sample: np.ndarray  # (samples,), of all weights, evenly spaced


@dataclasses.dataclass(frozen=True)
class Result:
    """A run: a record at the start, one about every second of biological time, and one at the end."""

    parameters: Parameters
    seed: int
    records: tuple[Record, ...]
    weight_start: np.ndarray  # (neurons, inputs), in leak conductances
    weight_end: np.ndarray
    steps: int
    updates: int  # of a synapse: by each spike of its input, and by each of its neuron
    wall_time: u.Quantity  # of the steps, without compilation

    @property
    def time(self) -> u.Quantity:
        """Biological time of the records, shape `(records,)`."""
        return np.array([r.time / u.second for r in self.records]) * u.second

    @property
    def rate(self) -> u.Quantity:
        """Firing rate between one record and the next, shape `(records - 1, neurons)`."""
        return np.diff(self.course("spikes"), axis=0) / np.diff(self.time / u.second)[:, None] * u.Hz

    def course(self, name: str) -> np.ndarray:
        """Time course of a record's entry, shape `(records, ...)`."""
        return np.array([getattr(r, name) for r in self.records])


def connect(neurons: int, inputs: int) -> hebbax.Synapses:
    """Give every neuron `inputs` presynaptic neurons of its own."""
    synapse = np.arange(neurons * inputs + 1)  # also the number of its input
    return hebbax.Synapses(synapse, synapse[:-1] // inputs, shape=(neurons * inputs, neurons))


def plasticity(parameters: Parameters) -> hebbax.PairSTDP:
    """The rule by which the weights change."""
    p = parameters
    step_up = p.potentiation * p.largest_weight
    step_down = p.depression_ratio * step_up
    return hebbax.PairSTDP(p.potentiation_time, p.depression_time, step_up, step_down, 0.0, p.largest_weight)


def constants(parameters: Parameters) -> Constants:
    """What a step computes with."""
    p = parameters
    low, high = (x * p.largest_weight for x in p.start_range)
    return Constants(
        p.resting_potential, p.excitatory_potential, p.inhibitory_potential, p.threshold, p.reset_potential,
        membrane_step=p.time_step / p.membrane_time,
        excitatory_decay=math.exp(-(p.time_step / p.excitatory_time)),
        inhibitory_decay=math.exp(-(p.time_step / p.inhibitory_time)),
        inhibitory_weight=p.inhibitory_weight,
        start=(low, high),
        rule=plasticity(p),
    )  # fmt: skip


def initial_weight(c: Constants, neurons: jax.Array, inputs: int, key: jax.Array) -> jax.Array:
    """Weights of the inputs of these neurons, drawn at random, each neuron's by a key of its own."""
    low, high = c.start

    def of_one(neuron: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, neuron), (inputs,), jnp.float32, low, high)

    return jax.vmap(of_one)(neurons).ravel()


def initial_state(c: Constants, synapses: hebbax.Synapses, weight: jax.Array) -> State:
    """Neurons at rest."""
    return State(
        weight=weight,
        voltage=jnp.full(synapses.n_post, 1.0, jnp.float32) * c.resting,
        excitation=jnp.zeros(synapses.n_post, jnp.float32),
        inhibition=jnp.zeros(synapses.n_post, jnp.float32),
        traces=c.rule.init(synapses),
    )


def make_step(c: Constants, time_step: u.Quantity, synapses: hebbax.Synapses, backend: str | None) -> Callable:
    """Return the function `(state, (pre_spike, inhibitory_spikes)) -> (state, post_spike)` of one time step.

    Input acts on the voltage from the next step on.
    """

    def step(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        pre_spike, inhibitory_spikes = inputs
        # The solution of tau dV/dt = E_rest - V + g_ex (E_ex - V) + g_in (E_in - V) for constant conductances.
        conductance = 1.0 + state.excitation + state.inhibition
        target = (c.resting + state.excitation * c.excitatory + state.inhibition * c.inhibitory) / conductance
        voltage = target + (state.voltage - target) * jnp.exp(-c.membrane_step * conductance)
        post_spike = voltage >= c.threshold

        received = synapses.propagate_on_pre(state.weight, pre_spike, backend=backend)
        weight, traces = c.rule.step(
            synapses, state.weight, state.traces, pre_spike, post_spike, time_step, after=received, backend=backend
        )
        return State(
            weight=weight,
            voltage=u.math.where(post_spike, c.reset, voltage),
            excitation=state.excitation * c.excitatory_decay + received,
            inhibition=state.inhibition * c.inhibitory_decay + c.inhibitory_weight * inhibitory_spikes,
            traces=traces,
        ), post_spike

    return step


def draw_inputs(p: Parameters, neurons: jax.Array, inputs: int, steps: int, key: jax.Array) -> tuple[jax.Array, ...]:
    """Draw the input of these neurons in some steps, each neuron's by a key of its own, whoever draws the others'.

    Returns input spikes, shape `(steps, neurons * inputs)`, numbers of inhibitory spikes, `(steps, neurons)`, and the
    steps of each neuron's input spikes, `(neurons, spikes)`, ascending and padded with `steps`.
    """

    def events(neuron: jax.Array) -> tuple[jax.Array, jax.Array]:
        excitatory_key, inhibitory_key = jax.random.split(jax.random.fold_in(key, neuron))
        return (
            bernoulli_cells(excitatory_key, steps * inputs, p.excitatory_rate * p.time_step),
            bernoulli_cells(inhibitory_key, steps * p.inhibitory_inputs, p.inhibitory_rate * p.time_step),
        )

    excitatory, inhibitory = jax.vmap(events)(neurons)
    n, step = neurons.size, excitatory // inputs  # what pads is in step `steps`, and dropped
    row = jnp.arange(n)[:, None]
    spikes = jnp.zeros((steps, n * inputs), bool)
    spikes = spikes.at[step, row * inputs + excitatory % inputs].set(True, mode="drop")
    counts = jnp.zeros((steps, n), jnp.float32).at[inhibitory // p.inhibitory_inputs, row].add(1.0, mode="drop")
    return spikes, counts, step


def check(parameters: Parameters, neurons: int, inputs: int, seconds: float) -> int:
    """Return the number of time steps; raise a ValueError that names what is out of range."""
    p = parameters
    for name, n in {"neurons": neurons, "inputs": inputs, "inhibitory_inputs": p.inhibitory_inputs}.items():
        if n < 1:
            raise ValueError(f"{name}: got {n}, expected at least 1")
    if neurons * max(inputs, p.inhibitory_inputs) > MAX_SYNAPSES:
        raise ValueError(f"neurons * inputs: got {neurons} * {inputs}, expected at most {MAX_SYNAPSES} synapses")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds: got {seconds}, expected a positive number")
    if not 0 < p.time_step / u.ms <= 1:
        raise ValueError(f"time_step: got {p.time_step}, expected more than 0 and at most 1 ms")
    for name, rate in {"excitatory_rate": p.excitatory_rate, "inhibitory_rate": p.inhibitory_rate}.items():
        if not MIN_PROBABILITY <= rate * p.time_step < 1:
            raise ValueError(f"{name}: got {rate}, expected from {MIN_PROBABILITY} to less than 1 spike in a time step")
    return max(1, round(seconds * u.second / p.time_step))


def block_of(p: Parameters, neurons: int, inputs: int) -> int:
    """Steps for which inputs are drawn at once."""
    return max(1, min(BLOCK_STEPS, BLOCK_CELLS // (neurons * max(inputs, p.inhibitory_inputs))))


def simulate(
    parameters: Parameters | None = None,
    *,
    neurons: int = 4,
    inputs: int = 1000,
    seconds: float = 600.0,
    seed: int = 0,
    backend: str | None = None,
    mesh: Mesh | None = None,
    on_progress: Callable[[float], object] | None = None,
    keeper: Keeper | None = None,
) -> Result:
    """Simulate `neurons` independent copies of the experiment; the same seed gives the same result on any devices.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default the published ones.
    neurons : int
        Postsynaptic neurons.
    inputs : int
        Excitatory inputs of each neuron.
    seconds : float
        Biological time. A shorter run is the beginning of a longer one.
    seed : int
        Of the initial weights and of all input spikes.
    backend : str, optional
        Of the operators (see `hebbax.backends`).
    mesh : jax.sharding.Mesh, optional
        Devices to share the neurons out among, along its one axis, by default one. If they are several processes', all
        of these call this function alike, and have the result.
    on_progress : callable, optional
        Called with the biological time in seconds after every block of at most 1000 steps. If what it returns is true,
        the run ends there, in all processes, and the result has what was computed.
    keeper : Keeper, optional
        What keeps the run, and has what there was of it (see `hebbax.experiments.keeping`).

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        An argument or a parameter is out of range, or the run was kept beyond `seconds`.

    Examples
    --------
    >>> from hebbax.experiments import song2000
    >>> result = song2000.simulate(neurons=2, inputs=100, seconds=0.2)
    >>> result.weight_end.shape, result.steps
    ((2, 100), 2000)
    """
    p = Parameters() if parameters is None else parameters
    steps, c = check(p, neurons, inputs, seconds), constants(p)
    block_steps = block_of(p, neurons, inputs)
    blocks_per_record = max(1, round(RECORD / (block_steps * p.time_step)))
    start_key, input_key = jax.random.split(jax.random.key(seed))
    mesh = Mesh(jax.local_devices()[:1], ("neurons",)) if mesh is None else mesh
    (axis,) = mesh.axis_names
    own = -(-neurons // mesh.size)  # neurons of a device; what is beyond the last one is simulated, and left out
    whole, part = P(), P(axis)
    # The same structure on every device: nothing connects neurons of two of them, so nothing is sent.
    synapses = jax.tree.map(functools.partial(everywhere, mesh), connect(own, inputs))
    # (Unchecked, or JAX would ask which of the first traces will differ between devices.)
    on_every_device = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def own_neurons() -> jax.Array:
        return jax.lax.axis_index(axis) * own + jnp.arange(own)

    def start(synapses: hebbax.Synapses) -> State:
        return initial_state(c, synapses, initial_weight(c, own_neurons(), inputs, start_key))

    def run_own(state: State, synapses: hebbax.Synapses, block: jax.Array, length: int) -> tuple[State, jax.Array]:
        """Run the first `length` steps of a block; return its numbers of spikes, of inputs and of neurons."""
        key = jax.random.fold_in(input_key, block)
        pre_spikes, counts, event_steps = draw_inputs(p, own_neurons(), inputs, block_steps, key)
        drawn = pre_spikes[:length], counts[:length]
        state, spikes = jax.lax.scan(make_step(c, p.time_step, synapses, backend), state, drawn)
        return state, jnp.stack([(event_steps < length).sum(1), spikes.sum(0)]).astype(jnp.int32)

    @functools.partial(jax.jit, static_argnames="length", donate_argnames="state")
    def run_block(state: State, *arrays: Any, length: int) -> tuple[State, jax.Array]:
        run = functools.partial(run_own, length=length)
        specs: Any = dict(in_specs=(part, whole, whole), out_specs=(part, P(None, axis)))
        return on_every_device(run, **specs)(state, *arrays)

    state = jax.jit(on_every_device(start, in_specs=whole, out_specs=part))(synapses)
    about = described("song2000", p, neurons=neurons, inputs=inputs, seed=seed, block_steps=block_steps)
    journal = Journal(keeper, about)
    check_not_over(journal.steps, steps, "seconds")
    starts = range(journal.steps, steps, block_steps)
    lengths = {min(block_steps, steps - start) for start in (*starts[:1], *starts[-1:])}
    compiled = {n: run_block.lower(state, synapses, np.int32(0), length=n).compile() for n in lengths}
    updates, spikes, done = 0, np.zeros(neurons, np.int64), journal.steps
    weight = weight_start = _whole(state.weight, neurons * inputs).reshape(neurons, inputs)

    def kept() -> dict[str, Any]:
        of_neurons = named(jax.tree.map(lambda x: _whole(x, x.size // (own * mesh.size) * neurons), state))
        return of_neurons | {"updates": np.int64(updates), "spikes": spikes}

    if journal.kept:
        arrays = journal.kept.state
        updates, spikes = int(arrays["updates"]), arrays["spikes"]
        state = like(state, arrays, _with_first)
        weight = _whole(state.weight, neurons * inputs).reshape(neurons, inputs)
    else:
        journal.add(**_record(p, 0, spikes, weight))
        journal.save(0, kept)
    end = steps // block_steps * block_steps  # up to where blocks are those of any longer run
    is_recorded = done % (block_steps * blocks_per_record) == 0
    journal.begin()
    if on_progress and done:
        on_progress(done * (p.time_step / u.second))
    for first in starts:
        done = min(first + block_steps, steps)
        state, counted = compiled[done - first](state, synapses, np.int32(first // block_steps))
        input_spikes, new_spikes = _whole(counted, neurons)
        spikes = spikes + new_spikes
        updates += int(input_spikes.sum()) + inputs * int(new_spikes.sum())
        stop = any_process(bool(on_progress and on_progress(done * (p.time_step / u.second))))
        is_recorded = done % (block_steps * blocks_per_record) == 0
        if is_recorded or stop or done == steps:
            weight = _whole(state.weight, neurons * inputs).reshape(neurons, inputs)
        if is_recorded:
            journal.add(**_record(p, done, spikes, weight))
        if done % block_steps == 0 and (stop or done == end or journal.due()):
            journal.save(done, kept)
        if stop:
            break
    wall_time = journal.wall_time * u.second
    if not is_recorded:  # of this run alone, which ends here
        journal.add(**_record(p, done, spikes, weight))
    seen = zip(*(journal.read(name) for name in Record._fields), strict=True)
    records = tuple(Record(steps * p.time_step, *x) for steps, *x in seen)
    return Result(p, seed, records, weight_start, weight, done, updates, wall_time)


def _whole(x: jax.Array, size: int) -> np.ndarray:
    """The first entries of the last axis of an array, whichever processes hold them; all call this together."""
    return np.array(to_host(x))[..., :size]


def _with_first(x: jax.Array, kept: np.ndarray) -> jax.Array:
    """`x` with these first entries; what is beyond belongs to no neuron."""
    numbers = np.array(to_host(x))
    numbers[: kept.size] = kept
    return on_devices(x, numbers)


def _record(p: Parameters, steps: int, spikes: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """One of the entries of `Record`, its time in steps."""
    sample = np.linspace(0, weight.size - 1, min(SAMPLES, weight.size)).astype(int)
    record = Record(
        time=steps,
        spikes=spikes,
        weight_mean=weight.mean(1),
        weight_sd=weight.std(1),
        fraction_low=(weight < LOW * p.largest_weight).mean(1),
        fraction_high=(weight > HIGH * p.largest_weight).mean(1),
        weight_sample=weight.ravel()[sample],
    )
    return {name: np.asarray(x)[None] for name, x in record._asdict().items()}
