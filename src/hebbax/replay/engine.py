"""A rule applied to spikes as they were recorded: time goes from spike to spike, with exact decay in between.

Traces are kept relative to one time `t0` for all neurons: `y = x exp((t - t0) / tau)` stays as it is while `x` decays,
so that an event costs what its own synapses do. The factor `exp(-(t - t0) / tau)` that makes traces of it goes into the
gain of the update. Before the exponent becomes large, all `y` are decayed and `t0` moves on.

The kernels are called with operands that are settled once, where `hebbax.inplace` would check them at every event.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hebbax import Synapses, _cpu
from hebbax._core.lowering import attributes
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from hebbax.errors import ShapeError
from hebbax.replay.plans import Rule, plan_of

PRE, POST, BOTH = 1, 2, 3  # whose spike it is; of both where they are one population
LONGEST = 20.0  # exponent at which traces are decayed: float32 holds exp(88)


class Replay:
    r"""Synapses that learn by recorded spikes.

    Parameters
    ----------
    rule : hebbax.PairSTDP, hebbax.TripletSTDP or hebbax.PowerLawSTDP
        Its parameters plain numbers and not arrays, but for the time constants, which have units.
    pre, post : array of int, shape (nse,)
        Presynaptic and postsynaptic neuron of every synapse, in any order. Several between the same two neurons have
        weights of their own.
    weight : array of float32 or float64, shape (nse,)
        Their weights, within the bounds of the rule. They are copied.
    shape : tuple of int
        `(n_pre, n_post)`.

    Attributes
    ----------
    updates : int
        How many synapses all spikes have looked at so far, from both sides.

    Raises
    ------
    TypeError, ValueError
        Another rule, a parameter of it that is an array, or a weight of another dtype or outside the bounds.
    RuntimeError
        The CPU kernels are missing.

    Notes
    -----
    The equations are those of the rule, with exact traces: where it has :math:`x_i` with a time constant
    :math:`\tau`, it is at a time :math:`t`

    .. math::

        x_i(t) = \sum_{t_i < t} e^{-(t - t_i) / \tau}

    over the spikes :math:`t_i` of the neuron, or for 'nearest' the last of these terms. As in a step of the rule,
    spikes at the same time do not pair with each other, and depression comes before potentiation.

    Examples
    --------
    >>> import brainunit as u, hebbax
    >>> from hebbax.replay import Replay
    >>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.12, 0.0, 1.0)
    >>> replay = Replay(rule, [0], [1], [0.5], shape=(2, 2))
    >>> replay.advance([0.003, 0.004], [0, 1])  # a pair with a lag of 1 ms
    >>> print(f"{replay.weight[0]:.4f}")
    0.5951
    """

    def __init__(self, rule: Rule, pre: Any, post: Any, weight: Any, *, shape: tuple[int, int]) -> None:
        if _cpu.missing:
            raise RuntimeError(f"the CPU kernels cannot be used: {_cpu.missing}")
        weight = np.asarray(weight)
        if weight.dtype not in (np.float32, np.float64):
            raise TypeError(f"weight: got dtype {weight.dtype}, expected float32 or float64")
        dtype = weight.dtype.newbyteorder("=")
        self._plan = plan_of(rule)
        low, high = (np.array([x] if np.isfinite(x) else [], dtype) for x in (self._plan.low, self._plan.high))
        bounds = [dtype.type(x) for x in (self._plan.low, self._plan.high)]
        outside = np.flatnonzero(~((weight >= bounds[0]) & (weight <= bounds[1])))
        if outside.size:
            k = outside[0]
            raise ValueError(f"weight[{k}]: got {weight[k]}, expected within the bounds {bounds[0]} and {bounds[1]}")
        # The structure alone: JAX might round the weights.
        synapses, _, order = Synapses.from_coo(
            np.asarray(pre), np.asarray(post), np.zeros(weight.shape, np.float16),
            shape=shape, multapses=True, return_permutation=True,
        )  # fmt: skip
        self._order, self._weight = np.asarray(order), weight[np.asarray(order)].astype(dtype)
        self._y = tuple(np.zeros(n, dtype) for n in synapses.shape)
        self._slow = tuple(
            np.zeros(n if half.triplet else 0, dtype) for n, half in zip(synapses.shape, self._plan.halves, strict=True)
        )
        self._spike = tuple(np.zeros(n, bool) for n in synapses.shape)
        self._gain = tuple(np.zeros(n, dtype) for n in synapses.shape)
        rows, columns = np.asarray(synapses.indptr), np.asarray(synapses.csc_indptr)
        self._degree = np.diff(rows), np.diff(columns)
        structure = (
            (np.asarray(synapses.indices), rows, None, self._spike[0], self._y[1]),
            (
                np.asarray(synapses.csc_indices),
                columns,
                np.asarray(synapses.weight_indices),
                self._spike[1],
                self._y[0],
            ),
        )
        self._operands = tuple(
            (self._weight, *own, gain, low, high) for own, gain in zip(structure, self._gain, strict=True)
        )
        self._told = tuple(
            attributes(spec, soft_bound=half.soft_bound, mu=half.mu or 1.0)
            for spec, half in zip((UPDATE_PRE, UPDATE_POST), self._plan.halves, strict=True)
        )
        self._traces = [
            (trace, tau)
            for half, y, slow in zip(self._plan.halves, self._y, self._slow, strict=True)
            for trace, tau in ((y, half.tau), (slow, half.slow_tau))
            if trace.size
        ]
        self._reach = LONGEST * min((tau for _, tau in self._traces), default=np.inf)
        self._start = self._last = -np.inf
        self.updates = 0

    @property
    def weight(self) -> np.ndarray:
        """A copy of the weights, in the order in which they were given."""
        given = np.empty_like(self._weight)
        given[self._order] = self._weight
        return given

    def state(self) -> dict[str, np.ndarray]:
        """Return all that spikes have changed, copied, for `restore`."""
        numbers = {"start": self._start, "last": self._last, "updates": self.updates}
        traces = {name: x.copy() for name, x in self._named_traces().items()}
        return {"weight": self.weight} | traces | {name: np.array(x) for name, x in numbers.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of a replay of the same synapses, by the same rule.

        Raises
        ------
        hebbax.errors.ShapeError
            It is that of other synapses.
        """
        now = {"weight": self._weight} | self._named_traces()
        for name, x in now.items():
            if np.shape(state[name]) != x.shape:
                raise ShapeError(f"{name}: got shape {np.shape(state[name])}, expected {x.shape}")
        for name, x in now.items():  # which the kernels' operands are
            x[:] = state[name][self._order] if name == "weight" else state[name]
        self._start, self._last, self.updates = float(state["start"]), float(state["last"]), int(state["updates"])

    def _named_traces(self) -> dict[str, np.ndarray]:
        return dict(zip(("pre", "post", "pre_slow", "post_slow"), (*self._y, *self._slow), strict=True))

    def advance(self, time: Any, neuron: Any, side: Any = None) -> None:
        """Let these spikes happen.

        Parameters
        ----------
        time : array of float, shape (k,)
            In seconds, ascending, and after all spikes of calls before: what happens at the same time is one event.
        neuron : array of int, shape (k,)
            Who spikes.
        side : array of int, shape (k,), optional
            1 for a presynaptic neuron, 2 for a postsynaptic one, 3 for one of a population that is both, as all are
            without it.

        Raises
        ------
        TypeError, ValueError
            Times do not ascend, a neuron or a side is out of range or no integer, or a neuron is there twice at a time;
            nothing has happened then.
        """
        time, neuron = np.asarray(time, np.float64), np.asarray(neuron)
        side = np.full(time.shape, BOTH, np.int8) if side is None else np.asarray(side)
        self._check(time, neuron, side)
        if not time.size:
            return
        for one, degree in zip((PRE, POST), self._degree, strict=True):
            self.updates += int(degree[neuron[(side & one) > 0]].sum())
        starts = np.concatenate(([0], np.flatnonzero(np.diff(time)) + 1))
        events, bounds = time[starts], np.append(starts, time.size)
        reach, done = self._reach, 0
        while done < events.size:
            if events[done] - self._start > reach:
                self._decay_to(events[done])
            end = int(np.searchsorted(events, self._start + reach, "right"))
            end = max(end, done + 1)
            self._run(events[done:end], bounds[done : end + 1], neuron, side)
            done = end
        self._last = float(time[-1])

    def _check(self, time: np.ndarray, neuron: np.ndarray, side: np.ndarray) -> None:
        if time.ndim != 1:
            raise ShapeError(f"time: got shape {time.shape}, expected (k,)")
        for name, x in (("neuron", neuron), ("side", side)):
            if x.shape != time.shape:
                raise ShapeError(f"{name}: got shape {x.shape}, expected {time.shape}, one for each time")
        if not time.size:
            return
        if neuron.dtype.kind not in "iu":
            raise TypeError(f"neuron: got dtype {neuron.dtype}, expected integers")
        if side.dtype.kind not in "iu":
            raise TypeError(f"side: got dtype {side.dtype}, expected integers")
        if not PRE <= side.min() <= side.max() <= BOTH:
            raise ValueError(f"side: got {side.min()} to {side.max()}, expected 1, 2, or 3 for a neuron of both")
        earlier = np.append(np.nextafter(self._last, np.inf), time[:-1])
        wrong = ~np.isfinite(time) | (time < earlier)
        if wrong.any():
            k = int(np.argmax(wrong))
            last = self._last if k == 0 else time[k - 1]
            raise ValueError(f"time[{k}]: got {time[k]} after {last}, expected finite times that ascend")
        for one, degree in zip((PRE, POST), self._degree, strict=True):
            among = np.flatnonzero(side & one)
            own = neuron[among]
            if own.size and not 0 <= own.min() <= own.max() < degree.size:
                raise ValueError(f"neuron: got {own.min()} to {own.max()}, expected 0 to {degree.size - 1}")
            if (again := repeated(time[among], own)).any():
                k = among[np.argmax(again)]
                raise ValueError(f"neuron[{k}]: got {neuron[k]} twice at time {time[k]}, expected every spike once")

    def _decay_to(self, time: float) -> None:
        for trace, tau in self._traces:
            trace *= np.exp((self._start - time) / tau)
            trace[trace < np.finfo(trace.dtype).tiny] = 0  # subnormal numbers are slow
        self._start = time

    def _run(self, events: np.ndarray, bounds: np.ndarray, neuron: np.ndarray, side: np.ndarray) -> None:
        """Events so close to the reference time that `exp` is exact."""
        kernel, nearest = _cpu.kernels()["update"], self._plan.is_nearest
        grown = [np.exp((events - self._start) / half.tau) for half in self._plan.halves]  # of traces since then
        sides = []
        for k, half in enumerate(self._plan.halves):
            raised: list = [(self._y[k], grown[k].tolist())]  # traces, and by what a spike raises them
            gain, slow = half.amplitude / grown[1 - k], None  # of the pairs, and by the slow trace, of the triplets
            if half.triplet:
                slower = np.exp((events - self._start) / half.slow_tau)
                slow = (half.triplet / grown[1 - k] / slower).tolist()
                raised.append((self._slow[k], slower.tolist()))
            update = functools.partial(kernel, self._weight, *self._operands[k], **self._told[k])
            sides.append(_Side((PRE, POST)[k], update, self._spike[k], self._gain[k], gain.tolist(), slow, raised))
        ends = bounds.tolist()
        ids, whose = neuron[ends[0] : ends[-1]].tolist(), side[ends[0] : ends[-1]].tolist()
        for k, (first, stop) in enumerate(pairwise(x - ends[0] for x in ends)):
            if stop - first == 1:
                spiking: Any = [(s, ids[first]) for s in sides if whose[first] & s.number]
            else:
                several, mine = np.array(ids[first:stop]), np.array(whose[first:stop])
                spiking = [(s, several[(mine & s.number) > 0]) for s in sides]
            for s, who in spiking:
                s.gain[who] = s.pairs[k] if s.triplets is None else s.pairs[k] + s.triplets[k] * s.raised[1][0][who]
                s.spike[who] = True
                s.update()
                s.spike[who] = False
            for s, who in spiking:
                for trace, by in s.raised:
                    trace[who] = by[k] if nearest else trace[who] + by[k]


class _Side(NamedTuple):
    """What the loop over events needs of a side."""

    number: int
    update: Any  # of the weights, by `spike` and `gain`
    spike: np.ndarray  # whether each neuron spikes
    gain: np.ndarray  # of each neuron's update
    pairs: list[float]  # by event
    triplets: list[float] | None
    raised: list[tuple[np.ndarray, list[float]]]


def repeated(time: np.ndarray, neuron: np.ndarray) -> np.ndarray:
    """Which spikes of a neuron at a time are not the first."""
    again, same = np.zeros(time.size, bool), np.zeros(time.size, bool)
    same[1:] = time[1:] == time[:-1]
    same[:-1] |= same[1:]
    among = np.flatnonzero(same)
    order = among[np.lexsort((neuron[among], time[among]))]
    is_same = (time[order[1:]] == time[order[:-1]]) & (neuron[order[1:]] == neuron[order[:-1]])
    again[order[1:][is_same]] = True
    return again
