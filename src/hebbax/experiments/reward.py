r"""A reward that comes seconds late, and the one synapse that it is for: Izhikevich (2007), Figure 1.

A network fires at random. Whenever one chosen neuron happens to be followed by another one, a target of it, a reward
comes 1 to 3 s later, after hundreds of other spikes. Pairs of spikes leave an eligibility at each synapse, and dopamine
turns what is left of it into weight. Which pairs precede a reward by chance differs from one to the next; the chosen
one is always there. So its synapse grows from 0 to the largest weight, and stays near it, while the mean of the others
falls (of which some are large at any time too, by chance).

    E. M. Izhikevich (2007), Solving the distal reward problem through linkage of STDP and dopamine signaling, Cerebral
    Cortex 17:2443-2452, doi:10.1093/cercor/bhl152

The neurons are those of E. M. Izhikevich (2003), Simple model of spiking neurons, IEEE Transactions on Neural Networks
14:1569, doi:10.1109/TNN.2003.820440, in mV and ms:

    dv/dt = 0.04 v^2 + 5 v + 140 - u + I        du/dt = a (b v - u)        from v = 30 on: v <- c, u <- u + d

Constants whose source is "program" are those of `daspnet.m`, which the author published beside the paper, where that
has another one or none; we state both from memory. Ours differs from the program in this: pairs of spikes are formed
by the times of spikes (the program counts from the arrival of the presynaptic one, a step later, and depresses for
spikes that coincide); eligibility becomes weight at every step, not at every tenth; decays are exponentials of the time
constants (the program's factors decay up to 2.5% faster); a neuron's targets are distinct.
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
from hebbax.experiments.keeping import Journal, Keeper, check_not_over, described, like, named, on_devices
from hebbax.experiments.parameters import parameter
from hebbax.rules import RewardTraces

BLOCK_STEPS = 1000  # whose input is drawn at once
RECORD_STEPS = 10 * BLOCK_STEPS  # after so many, the weights are looked at
MOST_STEPS = 2_000_000_000  # which fit int32
CAPACITY = 256  # of the updates: in most steps one neuron spikes or two
HIGH = 0.9  # of the largest weight: what is above is "high"


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The constants of the model; each field's metadata has its meaning and its source."""

    excitatory: int = parameter(800, "excitatory neurons, of regular spiking")
    inhibitory: int = parameter(200, "inhibitory neurons, of fast spiking")
    targets: int = parameter(100, "targets of a neuron; of an inhibitory one, excitatory neurons")
    recovery_rate: tuple[float, float] = parameter((0.02, 0.1), "a of either kind, per ms", "Izhikevich 2003")
    recovery_step: tuple[float, float] = parameter((8.0, 2.0), "d of either kind, mV/ms", "Izhikevich 2003")
    sensitivity: float = parameter(0.2, "b, per ms", "Izhikevich 2003")
    reset_potential: u.Quantity = parameter(-65.0 * u.mV, "c, potential after a spike", "Izhikevich 2003")
    peak: u.Quantity = parameter(30.0 * u.mV, "potential at which a neuron spikes", "Izhikevich 2003")
    input_range: float = parameter(13.0, "range of the input, uniform around 0 at every step, mV/ms", "program")
    first_weight: u.Quantity = parameter(1.0 * u.mV, "excitatory weights at first, but for the chosen one, of 0")
    largest_weight: u.Quantity = parameter(4.0 * u.mV, "upper bound of an excitatory weight (the lower is 0)")
    inhibitory_weight: u.Quantity = parameter(-1.0 * u.mV, "weight of all inhibitory synapses")
    potentiation: u.Quantity = parameter(0.1 * u.mV, "step of the eligibility by a pair, A+", "program")
    depression_ratio: float = parameter(1.5, "step down over step up, A-/A+", "program")
    trace_time: u.Quantity = parameter(20.0 * u.ms, "time constant of pairs of spikes", "program")
    eligibility_time: u.Quantity = parameter(1.0 * u.second, "time constant of eligibility, tau_c")
    dopamine_time: u.Quantity = parameter(0.2 * u.second, "time constant of dopamine, tau_d")
    tonic: u.Quantity = parameter(0.2 * u.Hz, "dopamine without a reward: 0.002 in every 10 ms", "program")
    reward: u.Quantity = parameter(50.0 * u.Hz, "dopamine added by a reward: 0.5 in every 10 ms", "program")
    reward_window: u.Quantity = parameter(
        20.0 * u.ms, "a spike less than this after the other one is rewarded", "program; 10 ms in the paper"
    )
    reward_delay: tuple[u.Quantity, u.Quantity] = parameter(
        (1.0 * u.second, 3.0 * u.second), "time from the second spike to the reward, uniform"
    )
    time_step: u.Quantity = parameter(1.0 * u.ms, "time step; the potential takes two halves of it", "program")

    @property
    def neurons(self) -> int:
        """Number of neurons; the excitatory ones come first."""
        return self.excitatory + self.inhibitory

    @property
    def window_steps(self) -> int:
        """Steps after a spike from which on another one is not rewarded."""
        return round(self.reward_window / self.time_step)


class State(NamedTuple):
    """What a step hands to the next one."""

    potential: Any  # (n,), mV
    recovery: Any  # (n,), mV/ms
    weight: Any  # (nse,), mV, as `RewardSTDP` keeps it
    traces: RewardTraces
    dopamine: Any  # in Hz, above the tonic level
    coming: Any  # (longest delay + 1,), rewards by the step in which they come, modulo its length
    last: Any  # step of the last spike of the chosen presynaptic neuron


class Seen(NamedTuple):
    """What is kept of a step."""

    excitatory: Any  # number of spikes
    inhibitory: Any
    pre: Any  # whether the chosen neurons spiked
    post: Any
    rewards: Any  # that came


class Record(NamedTuple):
    """What is kept of one moment; weights are in mV."""

    time: u.Quantity
    spikes: np.ndarray  # (2,), so far, of excitatory and of inhibitory neurons
    chosen: float  # weight of the chosen synapse
    mean: float  # of the others
    low: float  # which 5% of the others are below
    high: float  # which 5% are above


@dataclasses.dataclass(frozen=True)
class Result:
    """A run: a record at the start, one about every 10 s of biological time, and one at the end."""

    parameters: Parameters
    seed: int
    records: tuple[Record, ...]
    pair: tuple[int, int]  # the chosen neurons
    chosen: int  # the place of their synapse
    pre_step: np.ndarray  # steps in which they spiked
    post_step: np.ndarray
    reward_step: np.ndarray  # steps in which a reward came
    weight_end: np.ndarray  # (nse,), in mV
    steps: int
    wall_time: u.Quantity  # of the steps, without compilation

    @property
    def others(self) -> np.ndarray:
        """Weights of all synapses but the chosen one, in mV."""
        return np.delete(self.weight_end, self.chosen)

    def course(self, name: str) -> np.ndarray:
        """Time course of a record's entry."""
        return np.array([getattr(r, name) for r in self.records])

    @property
    def time(self) -> u.Quantity:
        """Biological time of the records."""
        return np.array([r.time / u.second for r in self.records]) * u.second

    def lags(self, first: float, last: float, window: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """Lags in steps, and how many spikes of the second neuron followed one of the first by so many.

        Of the spikes of the first one between two times, as parts of the run.
        """
        pre, post = self.pre_step, self.post_step
        pre = pre[(pre >= first * self.steps) & (pre < last * self.steps)]
        lags = np.arange(-window, window + 1)
        return lags, np.isin(pre[:, None] + lags, post).sum(0)


def plasticity(p: Parameters) -> hebbax.RewardSTDP:
    """The rule by which excitatory weights, plain numbers in mV, change."""
    up = p.potentiation / u.mV
    bounds = 0.0, p.largest_weight / u.mV
    return hebbax.RewardSTDP(
        p.trace_time, p.trace_time, p.eligibility_time, up, p.depression_ratio * up, *bounds, pairing="nearest"
    )


def connect(p: Parameters, seed: int) -> tuple[hebbax.Synapses, hebbax.Synapses]:
    """The synapses from excitatory neurons to all, and from inhibitory ones to excitatory ones."""
    rng = np.random.default_rng(seed)
    return (
        hebbax.Synapses.random((p.excitatory, p.neurons), outdegree=p.targets, seed=rng),
        hebbax.Synapses.random((p.inhibitory, p.excitatory), outdegree=p.targets, seed=rng),
    )


def chosen_synapse(synapses: hebbax.Synapses) -> int:
    """The place of the first synapse of neuron 0 onto another one."""
    return int(synapses.indices[0] == 0)


def initial_state(p: Parameters, synapses: hebbax.Synapses, chosen: int) -> State:
    """Neurons at the reset potential."""
    reset = p.reset_potential / u.mV
    potential = jnp.full(p.neurons, reset, jnp.float32)
    return State(
        potential=potential,
        recovery=p.sensitivity * potential,
        weight=jnp.full(synapses.nse, p.first_weight / u.mV, jnp.float32).at[chosen].set(0.0),
        traces=plasticity(p).init(synapses),
        dopamine=jnp.float32(0),
        coming=jnp.zeros(round(p.reward_delay[1] / p.time_step) + 1, jnp.float32),
        last=jnp.int32(-p.window_steps),
    )


def make_step(
    p: Parameters, excitation: hebbax.Synapses, inhibition: hebbax.Synapses, chosen: int, backend: str | None
) -> Callable:
    """Return the function `(state, (step, input, delay)) -> (state, seen)` of one time step.

    Spikes act on the potentials of the next step, and a reward's delay is in steps.
    """
    rule, dt, first = plasticity(p), p.time_step / u.ms, p.excitatory
    a, d = (np.repeat(np.array(x, np.float32), (first, p.inhibitory)) for x in (p.recovery_rate, p.recovery_step))
    peak, reset, inhibitory_weight = (np.float32(x / u.mV) for x in (p.peak, p.reset_potential, p.inhibitory_weight))
    fade = math.exp(-(p.time_step / p.dopamine_time))
    window = p.window_steps
    target = excitation.indices[chosen]

    def step(state: State, now: tuple) -> tuple[State, Seen]:
        t, drive, delay = now
        spike = state.potential >= peak
        dopamine = fade * state.dopamine
        reward = (p.tonic / u.Hz + dopamine) * u.Hz
        weight, traces = rule.step(
            excitation, state.weight, state.traces, spike[:first], spike, reward, p.time_step, capacity=CAPACITY
        )
        arriving = excitation.propagate_on_pre(weight, spike[:first], backend=backend)
        inhibiting = inhibition.propagate_on_pre(inhibitory_weight, spike[first:], backend=backend)
        current = drive + arriving + jnp.pad(inhibiting, (0, p.inhibitory))
        v, w = jnp.where(spike, reset, state.potential), state.recovery + jnp.where(spike, d, 0)
        for _ in range(2):
            v = v + 0.5 * dt * ((0.04 * v + 5) * v + 140 - w + current)
        w = w + dt * a * (p.sensitivity * v - w)

        place = t % state.coming.size
        came = state.coming[place]
        last = jnp.where(spike[0], t, state.last)
        rewarded = spike[target] & (last < t) & (t - last < window)
        coming = state.coming.at[place].set(0.0)
        coming = coming.at[(t + delay) % coming.size].add(rewarded.astype(coming.dtype))
        dopamine = dopamine + p.reward / u.Hz * came
        v, w = hebbax.fence((v, w))
        excitatory, inhibitory = (x.sum(dtype=jnp.int32) for x in (spike[:first], spike[first:]))
        seen = Seen(excitatory, inhibitory, spike[0], spike[target], came)
        return State(v, w, weight, traces, dopamine, coming, last), seen

    return step


def draw(p: Parameters, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The input of a block's steps, and the delay in steps of a reward that is earned in each."""
    input_key, delay_key = jax.random.split(key)
    half = p.input_range / 2
    drive = jax.random.uniform(input_key, (BLOCK_STEPS, p.neurons), jnp.float32, -half, half)
    shortest, longest = (round(x / p.time_step) for x in p.reward_delay)
    return drive, jax.random.randint(delay_key, (BLOCK_STEPS,), shortest + 1, longest + 1, jnp.int32)


def check(p: Parameters, seconds: float) -> int:
    """Return the number of time steps; raise a ValueError that names what is out of range."""
    for name, n in (("excitatory", p.excitatory), ("inhibitory", p.inhibitory)):
        if n < 1:
            raise ValueError(f"{name}: got {n}, expected at least 1")
    if not 2 <= p.targets <= p.excitatory:
        raise ValueError(f"targets: got {p.targets}, expected from 2 to {p.excitatory}, the excitatory neurons")
    if not 0 < p.time_step / u.ms <= 1:
        raise ValueError(f"time_step: got {p.time_step}, expected more than 0 and at most 1 ms")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds: got {seconds}, expected a positive number")
    steps = max(1, round(seconds * u.second / p.time_step))
    if steps > MOST_STEPS:
        raise ValueError(f"seconds: got {seconds}, {steps} steps of {p.time_step}, expected at most {MOST_STEPS}")
    return steps


def simulate(
    parameters: Parameters | None = None, *, seconds: float = 3600.0, seed: int = 0, backend: str | None = None,
    on_progress: Callable[[float], object] | None = None, keeper: Keeper | None = None,
) -> Result:  # fmt: skip
    """Simulate the network; the same seed gives the same result.

    Parameters
    ----------
    parameters : Parameters, optional
        The model's constants, by default the published ones.
    seconds : float
        Biological time. A shorter run is the beginning of a longer one.
    seed : int
        Of structure, input and delays.
    backend : str, optional
        Of the operators (see `hebbax.backends`).
    on_progress : callable, optional
        Called with the biological time in seconds after every block of at most 1000 steps. If what it returns is true,
        the run ends there, and the result has what was computed.
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
    >>> from hebbax.experiments import reward
    >>> result = reward.simulate(seconds=0.05)
    >>> result.weight_end.shape, result.steps
    ((80000,), 50)
    """
    p = Parameters() if parameters is None else parameters
    steps = check(p, seconds)
    excitation, inhibition = connect(p, seed)
    chosen, rule = chosen_synapse(excitation), plasticity(p)
    key = jax.random.key(seed)

    @functools.partial(jax.jit, static_argnames="length", donate_argnames="state")
    def run_block(
        state: State, synapses: tuple[hebbax.Synapses, hebbax.Synapses], block: jax.Array, length: int
    ) -> tuple[State, Seen]:
        drive, delay = draw(p, jax.random.fold_in(key, block))
        number = block * BLOCK_STEPS + jnp.arange(length, dtype=jnp.int32)
        step = make_step(p, synapses[0], synapses[1], chosen, backend)
        return jax.lax.scan(step, state, (number, drive[:length], delay[:length]))

    @jax.jit
    def weights(state: State, synapses: hebbax.Synapses) -> jax.Array:
        return rule.settle(synapses, state.weight, state.traces)[0]

    state, synapses = initial_state(p, excitation, chosen), (excitation, inhibition)
    journal = Journal(keeper, described("reward", p, seed=seed, block_steps=BLOCK_STEPS))
    check_not_over(journal.steps, steps, "seconds")
    starts, end = range(journal.steps, steps, BLOCK_STEPS), steps // BLOCK_STEPS * BLOCK_STEPS
    lengths = {min(BLOCK_STEPS, steps - start) for start in (*starts[:1], *starts[-1:])}
    compiled = {n: run_block.lower(state, synapses, np.int32(0), length=n).compile() for n in lengths}
    spikes, done, is_recorded = np.zeros(2, int), journal.steps, journal.steps % RECORD_STEPS == 0

    def kept() -> dict[str, Any]:
        return named(state) | {"spikes": spikes}

    if journal.kept:
        state, spikes = like(state, journal.kept.state, on_devices), journal.kept.state["spikes"]
    weight = np.array(weights(state, excitation))
    if not journal.kept:
        journal.add(**_record(0, spikes, weight, chosen))
        journal.save(0, kept)
    journal.begin()
    if on_progress and done:
        on_progress(done * (p.time_step / u.second))
    for first in starts:
        done = min(first + BLOCK_STEPS, steps)
        state, new = compiled[done - first](state, synapses, np.int32(first // BLOCK_STEPS))
        spikes = spikes + [np.asarray(x).sum() for x in (new.excitatory, new.inhibitory)]
        seen = (new.pre, new.post, new.rewards)
        journal.add(**{f"step_{k}": first + np.flatnonzero(np.asarray(x)) for k, x in enumerate(seen)})
        stop, is_recorded = bool(on_progress and on_progress(done * (p.time_step / u.second))), done % RECORD_STEPS == 0
        if stop or is_recorded or done == steps:
            weight = np.array(weights(state, excitation))
        if is_recorded:
            journal.add(**_record(done, spikes, weight, chosen))
        if done % BLOCK_STEPS == 0 and (stop or done == end or journal.due()):
            journal.save(done, kept)
        if stop:
            break
    wall_time = journal.wall_time * u.second
    if not is_recorded:  # of this run alone, which ends here
        journal.add(**_record(done, spikes, weight, chosen))
    courses = zip(*(journal.read(name) for name in Record._fields), strict=True)
    records = tuple(Record(t * p.time_step, counts, *map(float, course)) for t, counts, *course in courses)
    pre, post, rewards = (journal.read(f"step_{k}") for k in range(3))
    pair = 0, int(excitation.indices[chosen])
    return Result(p, seed, records, pair, chosen, pre, post, rewards, weight, done, wall_time)


def _record(steps: int, spikes: np.ndarray, weight: np.ndarray, chosen: int) -> dict[str, Any]:
    """One of the entries of `Record`, its time in steps."""
    others = np.delete(weight, chosen)
    low, high = np.quantile(others, [0.05, 0.95])
    record = Record(steps, spikes, weight[chosen], others.mean(), low, high)
    return {name: np.asarray(x)[None] for name, x in record._asdict().items()}
