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
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import hebbax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW, HIGH = 0.1, 0.9  # of the largest weight: nearer to a bound than this is "near"
RECORD = 1.0 * u.second  # how often the weights are looked at
SAMPLES = 24  # weights whose time course is kept
BLOCK_STEPS, BLOCK_CELLS = 1000, 1 << 22  # input spikes are drawn for so many steps at once, in so many bytes, at most
MAX_SYNAPSES = 1 << 30  # a block's cells are counted in 32 bits


def _parameter(value: Any, meaning: str, source: str = "paper") -> Any:
    return dataclasses.field(default_factory=lambda: value, metadata={"meaning": meaning, "source": source})


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source.

    "paper" is Song et al. (2000). Conductances, and so weights, are in units of the neuron's leak conductance.
    """

    membrane_time: u.Quantity = _parameter(20.0 * u.ms, "membrane time constant")
    resting_potential: u.Quantity = _parameter(-70.0 * u.mV, "resting potential")
    excitatory_potential: u.Quantity = _parameter(0.0 * u.mV, "reversal potential of excitatory synapses")
    inhibitory_potential: u.Quantity = _parameter(-70.0 * u.mV, "reversal potential of inhibitory synapses")
    threshold: u.Quantity = _parameter(-54.0 * u.mV, "potential at which a neuron spikes")
    reset_potential: u.Quantity = _parameter(-60.0 * u.mV, "potential after a spike")
    excitatory_time: u.Quantity = _parameter(5.0 * u.ms, "decay time of the excitatory conductance")
    inhibitory_time: u.Quantity = _parameter(5.0 * u.ms, "decay time of the inhibitory conductance")
    largest_weight: float = _parameter(0.015, "upper bound of an excitatory weight (the lower is 0)")
    inhibitory_weight: float = _parameter(0.05, "weight of an inhibitory synapse")
    inhibitory_inputs: int = _parameter(200, "inhibitory inputs of a neuron")
    inhibitory_rate: u.Quantity = _parameter(10.0 * u.Hz, "rate of an inhibitory Poisson input")
    excitatory_rate: u.Quantity = _parameter(15.0 * u.Hz, "rate of an excitatory Poisson input", "in the paper's range")
    potentiation: float = _parameter(0.005, "largest step up by a pair of spikes, A+, in largest weights")
    depression_ratio: float = _parameter(1.05, "largest step down over largest step up, A-/A+")
    potentiation_time: u.Quantity = _parameter(20.0 * u.ms, "time constant of potentiation, tau+")
    depression_time: u.Quantity = _parameter(20.0 * u.ms, "time constant of depression, tau-")
    time_step: u.Quantity = _parameter(0.1 * u.ms, "time step", "hebbax")
    start_range: tuple[float, float] = _parameter((0.0, 1.0), "initial weights: uniform, in largest weights", "hebbax")


class Network(NamedTuple):
    """Which input connects to which neuron: CSR, and a CSC view of the same weights."""

    indices: jax.Array
    indptr: jax.Array
    csc_indices: jax.Array
    csc_indptr: jax.Array
    weight_indices: jax.Array


class State(NamedTuple):
    """What a step hands to the next one; conductances and traces have already decayed to the time of the next step."""

    weight: jax.Array
    voltage: u.Quantity
    excitation: jax.Array
    inhibition: jax.Array
    pre_trace: jax.Array
    post_trace: jax.Array


@dataclasses.dataclass(frozen=True)
class Result:
    """A run: its time courses, sampled about once a second of biological time, and its weights, in leak conductances."""

    parameters: Parameters
    time: u.Quantity  # (records,), the biological time when each record was made
    rate: u.Quantity  # (records, neurons), since the record before
    weight_mean: np.ndarray  # (records, neurons)
    weight_sd: np.ndarray  # (records, neurons)
    fraction_low: np.ndarray  # (records, neurons), of weights below LOW * largest_weight
    fraction_high: np.ndarray  # (records, neurons), of weights above HIGH * largest_weight
    sample: np.ndarray  # (samples,), positions in the flattened weights
    weight_sample: np.ndarray  # (records, samples)
    weight_start: np.ndarray  # (neurons, inputs)
    weight_end: np.ndarray  # (neurons, inputs)
    steps: int
    input_spikes: int
    output_spikes: int
    wall_time: u.Quantity  # of the steps, without compilation

    @property
    def updates(self) -> int:
        """How many times a synapse was updated: once by each input spike, once by each spike of its neuron."""
        return self.input_spikes + self.output_spikes * self.weight_end.shape[1]


def connect(neurons: int, inputs: int) -> Network:
    """Give every neuron `inputs` presynaptic neurons of its own."""
    synapse = np.arange(neurons * inputs + 1, dtype=np.int32)  # also the number of its input
    csc_indptr = synapse[::inputs]
    return Network(*map(jnp.asarray, (synapse[:-1] // inputs, synapse, synapse[:-1], csc_indptr, synapse[:-1])))


def initial_state(parameters: Parameters, neurons: int, inputs: int, key: jax.Array) -> State:
    """Neurons at rest, weights drawn at random."""
    low, high = (x * parameters.largest_weight for x in parameters.start_range)
    return State(
        weight=jax.random.uniform(key, neurons * inputs, jnp.float32, low, high),
        voltage=jnp.full(neurons, 1.0, jnp.float32) * parameters.resting_potential,
        excitation=jnp.zeros(neurons, jnp.float32),
        inhibition=jnp.zeros(neurons, jnp.float32),
        pre_trace=jnp.zeros(neurons * inputs, jnp.float32),
        post_trace=jnp.zeros(neurons, jnp.float32),
    )


def make_step(parameters: Parameters, network: Network, backend: str | None) -> Callable:
    """Return the function `(state, (pre_spike, inhibitory_spikes)) -> (state, post_spike)` of one time step.

    Input acts on the voltage from the next step on. Traces are read before the step's own spikes are added to them, so
    that spikes which coincide in a step change nothing.
    """
    p = parameters
    n_post = network.csc_indptr.size - 1
    options: Any = dict(shape=(network.indptr.size - 1, n_post), backend=backend)
    bounds: Any = dict(w_min=0.0, w_max=p.largest_weight, weight_in_bounds=True)
    step_up = p.potentiation * p.largest_weight
    step_down = p.depression_ratio * step_up

    def decay(time_constant: u.Quantity) -> float:
        return math.exp(-(p.time_step / time_constant))

    def step(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        pre_spike, inhibitory_spikes = inputs
        # The solution of tau dV/dt = E_rest - V + g_ex (E_ex - V) + g_in (E_in - V) for constant conductances.
        conductance = 1.0 + state.excitation + state.inhibition
        target = (
            p.resting_potential
            + state.excitation * p.excitatory_potential
            + state.inhibition * p.inhibitory_potential
        ) / conductance
        voltage = target + (state.voltage - target) * jnp.exp(-(p.time_step / p.membrane_time) * conductance)
        post_spike = voltage >= p.threshold

        weight, csr = state.weight, (network.indices, network.indptr)
        csc = (network.csc_indices, network.csc_indptr, network.weight_indices)
        received = hebbax.propagate_csr_on_binary_pre(weight, *csr, pre_spike, **options)
        weight = hebbax.update_csr_on_binary_pre(
            weight, *csr, pre_spike, state.post_trace, after=received, **bounds, **options
        )
        weight = hebbax.update_csr_on_binary_post(weight, *csc, state.pre_trace, post_spike, **bounds, **options)
        return State(
            weight=weight,
            voltage=u.math.where(post_spike, p.reset_potential, voltage),
            excitation=state.excitation * decay(p.excitatory_time) + received,
            inhibition=state.inhibition * decay(p.inhibitory_time) + p.inhibitory_weight * inhibitory_spikes,
            pre_trace=(state.pre_trace + step_up * pre_spike) * decay(p.potentiation_time),
            post_trace=(state.post_trace - step_down * post_spike) * decay(p.depression_time),
        ), post_spike

    return step


def bernoulli_cells(key: jax.Array, cells: int, probability: float) -> jax.Array:
    """Return, in ascending order, the cells in which independent events of this probability happen; `cells` pads.

    The gaps between events are geometric, so that only events cost random numbers: one number per cell would take longer
    than the rest of the simulation.
    """
    mean = cells * probability
    most = math.ceil(mean + 8.0 * math.sqrt(mean) + 16.0)  # more than this has a probability below 1e-14
    gaps = jax.random.geometric(key, probability, (most,), jnp.int32)
    return jnp.minimum(jnp.cumsum(gaps, dtype=jnp.int32) - 1, cells)


def draw_inputs(parameters: Parameters, neurons: int, inputs: int, steps: int, key: jax.Array):
    """Return input spikes, bool of shape `(steps, neurons * inputs)`, and numbers of inhibitory ones, `(steps, neurons)`."""
    p = parameters
    excitatory_key, inhibitory_key = jax.random.split(key)
    cells = steps * neurons * inputs
    events = bernoulli_cells(excitatory_key, cells, p.excitatory_rate * p.time_step)
    spikes = jnp.zeros(cells, bool).at[events].set(True, mode="drop")
    cells = steps * neurons * p.inhibitory_inputs
    events = bernoulli_cells(inhibitory_key, cells, p.inhibitory_rate * p.time_step)
    counts = jnp.zeros(steps * neurons, jnp.float32).at[events // p.inhibitory_inputs].add(1.0, mode="drop")
    return spikes.reshape(steps, -1), counts.reshape(steps, -1)


def simulate(
    parameters: Parameters | None = None,
    *,
    neurons: int = 4,
    inputs: int = 1000,
    seconds: float = 300.0,
    seed: int = 0,
    backend: str | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> Result:
    """Simulate `neurons` independent copies of the experiment; the same seed gives the same result.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default those of the paper.
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
    on_progress : callable, optional
        Called with the biological time in seconds once everything is compiled (0.0) and after every block of at most
        1000 steps. If what it returns is true, the run ends there and keeps what it has.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        An argument is out of range.

    Examples
    --------
    >>> from hebbax.experiments import song2000
    >>> result = song2000.simulate(neurons=2, inputs=100, seconds=0.2)
    >>> result.weight_end.shape, result.steps
    ((2, 100), 2000)
    """
    p = Parameters() if parameters is None else parameters
    steps = _check(p, neurons, inputs, seconds)
    cells_per_step = neurons * max(inputs, p.inhibitory_inputs)
    block_steps = max(1, min(BLOCK_STEPS, BLOCK_CELLS // cells_per_step))
    start_key, input_key = jax.random.split(jax.random.key(seed))
    network = connect(neurons, inputs)

    @functools.partial(jax.jit, static_argnames="length", donate_argnames="state")
    def run_block(state: State, network: Network, block: jax.Array, *, length: int):
        """Run the first `length` steps of a block. What is drawn for it depends on its number only."""
        drawn = draw_inputs(p, neurons, inputs, block_steps, jax.random.fold_in(input_key, block))
        drawn = jax.tree.map(lambda x: x[:length], drawn)
        state, post_spikes = jax.lax.scan(make_step(p, network, backend), state, drawn)
        return state, post_spikes.sum(0, dtype=jnp.int32), drawn[0].sum(dtype=jnp.int32)

    state = initial_state(p, neurons, inputs, start_key)
    recorder = _Recorder(p, np.array(state.weight).reshape(neurons, inputs))
    lengths = _lengths(steps, block_steps)
    compiled = {
        length: run_block.lower(state, network, jnp.int32(0), length=length).compile() for length in set(lengths)
    }
    started = time.perf_counter()
    stop = on_progress and on_progress(0.0)
    for block, length in enumerate(lengths):
        if stop:
            break
        state, spikes, input_spikes = compiled[length](state, network, jnp.int32(block))
        ...
