r"""One delay per synapse: a synapse is visited when a spike arrives at it.

The network is unrolled in time. A presynaptic neuron has a row for each delay that its spikes may have, and each row
the synapses of that delay; a postsynaptic neuron has columns in the same way. That is an ordinary structure, on which
the ordinary operators run; only that the spikes which arrive are listed and not looked for, and that traces of past
steps lie one behind the other as the rows do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax import operators
from hebbax._core import building, connectivity, events
from hebbax._core.building import with_unit, without_unit
from hebbax._core.delivery import add_columns, deliver
from hebbax._core.foreign import array_of
from hebbax._core.pytree import assemble, pytree
from hebbax._core.specs import PROPAGATE_PRE, Arrivals
from hebbax._core.unitless import arithmetic_dtype, check_dtypes, check_host_array, for_a_batch, spikes_of
from hebbax.delays._past import Now, kept, start_of, window
from hebbax.delays.ring import steps
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit
from hebbax.synapses import Synapses


class DelayState(NamedTuple):
    """What is on its way: a pytree of arrays, to be carried through a loop, donated and saved."""

    pre: Any  # spikes of the last steps, listed: int32
    post: Any
    position: Any  # int32, where in the lists of either side the last step is
    last: Any  # the last current: what the next push waits for, so that XLA need not copy the lists
    pending: Any  # currents that have not arrived at the somata, as `_core.delivery` keeps them
    graded: Any  # presynaptic spikes of the last steps, if they are floating, twice as `past`; else of size 0
    gain: Any  # what the presynaptic spikes of the last steps release, twice as `past`; or None
    past: dict[str, Any]  # what the rule has handed to updates in the last steps, twice, so that no part wraps around


@pytree("shape", "pre", "post", "time")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class DelayedSynapses:
    r"""Synapses with a delay each, which has an axonal and a dendritic part.

    A frozen pytree without weights, like `Synapses`. Weights have an order of its own, by presynaptic delay, neuron and
    target: `synapses.reorder(weight, delayed.permutation)` puts them (and bounds that are one per synapse) into it, and
    `synapses.restore(weight, delayed.permutation)` back.

    Parameters
    ----------
    synapses : Synapses
        The structure.
    dt : number or Quantity, scalar
        Length of a step.
    axonal : number, array or Quantity, scalar or shape (nse,), default 0
        The part between the presynaptic neuron and the synapse, in CSR order: multiples of `dt` up to a thousandth
        of it.
    dendritic : number, array or Quantity, scalar or shape (nse,), default 0
        The part between the synapse and the soma, for the current on its way there and for the postsynaptic spike on
        its way back.

    Attributes
    ----------
    unrolled : Synapses
        Rows and columns by delay and neuron, the longest delay first.
    permutation : Array, shape (nse,), integer
        Position in CSR order of every synapse in this order.
    shape : tuple of int
        `(n_pre, n_post)`.

    Raises
    ------
    ValueError, TypeError, brainunit.UnitMismatchError
        As `hebbax.delays.steps`, naming the delay.
    hebbax.errors.ShapeError
        A delay has another shape.
    OverflowError
        Neurons times steps of the longest delay do not fit 30 bits.

    Notes
    -----
    With the axonal delay :math:`a` and the dendritic delay :math:`d` of the synapse from `i` to `j`, in a step at `t`

    .. math::

        I_j(t) = \sum w_{ij}(t - d) \text{ over synapses where } i \text{ spiked at } t - d - a

    and a rule sees a presynaptic spike at :math:`t` where `i` spiked at :math:`t - a`, a postsynaptic one where `j`
    spiked at :math:`t - d`, and the traces :math:`x_i(t - a)` and :math:`y_j(t - d)`.

    A step costs a look at the step's spikes, then what arrives: each spike once for every delay that any synapse has
    on that side, and the synapses that it reaches. Where axonal delays are not 0, the presynaptic traces of every step
    are written twice, and so the postsynaptic ones for dendritic delays. Only a gain that differs between the neurons
    of a side whose spikes are delayed is read for all steps of the longest delay. A backward pass keeps the lists of
    every step, an integer for every neuron and step of the longest delay. All this is on the CPU, with the backend
    'cython'; others turn lists into arrays of one bool for each row.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[0.5, 0.25]]) * u.nA)
    >>> delayed = hebbax.delays.DelayedSynapses(synapses, 0.1 * u.ms, axonal=jnp.array([0.2, 0.1]) * u.ms)
    >>> weight = synapses.reorder(weight, delayed.permutation)
    >>> state = delayed.init(weight)
    >>> for spike in (True, False, False):
    ...     state = delayed.push(state, jnp.array([spike]))
    ...     current, state = delayed.propagate(weight, state)
    ...     print(current.mantissa)
    [0. 0.]
    [0.   0.25]
    [0.5 0. ]
    """

    unrolled: Synapses
    permutation: jax.Array
    shape: tuple[int, int]
    pre: Arrivals
    post: Arrivals
    time: tuple[float, u.Unit]

    def __init__(self, synapses: Synapses, dt: WithUnit, *, axonal: WithUnit = 0, dendritic: WithUnit = 0) -> None:
        if not isinstance(synapses, Synapses):
            raise TypeError(f"synapses: got {type(synapses).__name__}, expected hebbax.Synapses")
        indptr, post = (connectivity.checked_integers("synapses", x) for x in (synapses.indptr, synapses.indices))
        if free := post.size - int(indptr[-1]):
            raise ValueError(f"synapses: got {free} free places, expected none (hebbax.rewire does without them)")
        pre = np.repeat(np.arange(synapses.n_pre), np.diff(indptr))
        sides, places = [], []
        for name, delay, neuron, n in (
            ("axonal", axonal, pre, synapses.n_pre),
            ("dendritic", dendritic, post, synapses.n_post),
        ):
            ago = _steps_of_each(name, delay, dt, synapses.nse)
            side = Arrivals(n, tuple(map(int, np.unique(ago)[::-1])))
            if 2 * side.length * (n + 1) + side.length >= 2**31:
                raise OverflowError(
                    f"{name}: got up to {side.length - 1} steps for {n} neurons, which do not fit 31 bits"
                )
            sides.append(side)
            places.append((side.length - 1 - ago) * n + neuron)
        shape = sides[0].length * synapses.n_pre, sides[1].length * synapses.n_post
        order = connectivity.csr_order(places[0], places[1], shape)
        order = np.arange(synapses.nse) if order is None else order
        rows, columns = (place[order] for place in places)
        views = building.both_views(connectivity.row_starts(rows, shape[0]), columns, shape)
        with jax.ensure_compile_time_eval():
            permutation = jnp.array(order, views["indices"].dtype)
        fields: dict[str, Any] = dict(unrolled=assemble(Synapses, views), permutation=permutation, shape=synapses.shape)
        fields |= dict(pre=sides[0], post=sides[1], time=(float(u.get_mantissa(dt)), u.get_unit(dt)))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"DelayedSynapses(shape={self.shape}, axonal={self.pre!r}, dendritic={self.post!r}, {self.unrolled!r})"

    @property
    def dt(self) -> Any:
        """Length of a step."""
        number, unit = self.time
        return number if unit == u.UNITLESS else u.Quantity(number, unit=unit)

    @property
    def nse(self) -> int:
        """Number of synapses."""
        return self.permutation.size

    @property
    def n_pre(self) -> int:
        """Number of presynaptic neurons."""
        return self.shape[0]

    @property
    def n_post(self) -> int:
        """Number of postsynaptic neurons."""
        return self.shape[1]

    def init(
        self, weight: WithUnit, rule: Any = None, spike_dtype: Any = bool, *, with_gain: bool = False
    ) -> DelayState:
        """Return the state in which nothing has spiked yet, for weights like these, and for the steps of this rule.

        With a floating `spike_dtype`, presynaptic spikes are to be of that dtype, and have a derivative in `propagate`,
        that of `spike @ W`. A step then passes over all neurons for each step of the longest delay.

        With `with_gain`, every `push` is given the gains of its presynaptic spikes.
        """
        pre, post = (jnp.array(events.none_yet(side)) for side in (self.pre, self.post))
        numbers, unit = self._numbers(weight)
        size = 2 * self.post.length * self.n_post if self.post.length > 1 else 0
        pending = with_unit(jnp.zeros(size, arithmetic_dtype(numbers.dtype)), unit)
        position = jnp.array([self.pre.length - 1, self.post.length - 1], jnp.int32)
        size = 2 * self.pre.length * self.n_pre if jnp.issubdtype(spike_dtype, jnp.floating) else 0
        graded = jnp.zeros(size, spike_dtype)
        gain = jnp.zeros(2 * self.pre.length * self.n_pre, arithmetic_dtype(numbers.dtype)) if with_gain else None
        state = DelayState(pre, post, position, jnp.zeros(self.n_post, numbers.dtype), pending, graded, gain, {})
        if rule is None:
            return state
        silent = tuple(jnp.zeros(n, bool) for n in self.shape)
        hand_over = jax.jit(lambda weight, state: self._step(rule, weight, rule.init(self), state, *silent)[2])
        return state._replace(past=hand_over(weight, state))

    def push(
        self, state: DelayState, pre_spike: Plain, post_spike: Plain | None = None, gain: Plain | None = None
    ) -> DelayState:
        """Return the state after the neurons have spiked in a step: what `propagate` and `step` go on from.

        Parameters
        ----------
        state : DelayState
            From `init` or the step before.
        pre_spike : Array, shape (n_pre,), bool or real
            Whether each presynaptic neuron spikes. It has a derivative only if `init` was given its dtype.
        post_spike : Array, shape (n_post,), bool or real, optional
            Whether each postsynaptic neuron spikes; none do, if it is not given.
        gain : Array, shape (n_pre,) or scalar, if the state was made `with_gain`
            What `propagate` multiplies the weights of these presynaptic spikes by, whenever they arrive: what they
            release, as short-term plasticity has it. Plain numbers: the currents have the weight's unit.

        Raises
        ------
        hebbax.errors.ShapeError
            An array has another shape.
        TypeError
            `init` was given a floating dtype, and `pre_spike` is not of it; or a gain is missing, not expected or no
            real number.
        brainunit.UnitMismatchError
            The gain has a unit.
        """
        pre_spike = array_of("pre_spike", pre_spike)
        post_spike = jnp.zeros(self.n_post, bool) if post_spike is None else array_of("post_spike", post_spike)
        sides = self.pre, self.post
        position = state.position + 1
        position = jnp.where(position == jnp.array([side.length for side in sides]), 0, position)

        def recorded(name: str, lists: Any, spike: Any, own: int) -> Any:
            side, partner = sides[own], 1 - own
            spike = spikes_of(name, spike, side.n)
            shift = start_of(sides[partner], position[partner])
            return events.record(lists, spike, position[own], shift, state.last, side)

        pre, post = (recorded("pre_spike", state.pre, pre_spike, 0), recorded("post_spike", state.post, post_spike, 1))
        graded = state.graded
        if jnp.issubdtype(graded.dtype, jnp.floating):
            if jnp.result_type(pre_spike) != graded.dtype:
                got = jnp.result_type(pre_spike)
                raise TypeError(f"pre_spike: got dtype {got}, expected {graded.dtype}, for which the state was made")
            graded = kept(graded, jnp.asarray(pre_spike), self.pre, position[0])
        return state._replace(
            pre=pre, post=post, position=position, graded=graded, gain=self._gains(state.gain, gain, position[0])
        )

    def _gains(self, gains: Any, gain: Any, position: Any) -> Any:
        """The gains of the last steps and of this one."""
        if (gain is None) != (gains is None):
            got, expected = ("none", "one") if gain is None else ("one", "none")
            raise TypeError(f"gain: got {got}, expected {expected}, since init had with_gain={gains is not None}")
        if gain is None:
            return None
        numbers = array_of("gain", gain)
        numbers = operators.in_unit("gain", numbers, u.UNITLESS) if isinstance(numbers, u.Quantity) else numbers
        numbers = jnp.asarray(numbers if isinstance(numbers, jax.Array) else check_host_array("gain", numbers))
        check_dtypes(PROPAGATE_PRE, {"gain": numbers})
        if numbers.shape not in ((), (self.n_pre,)):
            expected = f"a scalar or {(self.n_pre,)}{for_a_batch(numbers.shape)}"
            raise ShapeError(f"gain: got shape {numbers.shape}, expected {expected}")
        return kept(gains, jnp.broadcast_to(numbers.astype(gains.dtype), self.n_pre), self.pre, position)

    def propagate(self, weight: WithUnit, state: DelayState, backend: str | None = None) -> tuple[Any, DelayState]:
        """Return the current that arrives at the postsynaptic somata in the step that was pushed, and the state.

        Call it once for each step, this or `propagate_due`.

        Parameters
        ----------
        weight : Array or Quantity, shape (nse,)
            In the order of `permutation`; or a scalar that all synapses share.
        state : DelayState
            After `push`.
        backend : str, optional
            Of the operator.

        Returns
        -------
        current : Array or Quantity, shape (n_post,)
        state : DelayState
        """
        return self._propagate(weight, state, self.pre, backend)

    def propagate_due(self, weight: WithUnit, state: DelayState, backend: str | None = None) -> tuple[Any, DelayState]:
        """Return the current of the step that comes, before its spikes are pushed, and the state.

        That is what a recurrent network needs. The arguments are those of `propagate`.

        Raises
        ------
        ValueError
            A synapse has no axonal delay, so that its spikes are not known yet.
        """
        if self.pre.delays and min(self.pre.delays) == 0:
            raise ValueError("axonal: got a delay of 0 steps, expected at least 1 for all, or what is due is not known")
        return self._propagate(weight, state, dataclasses.replace(self.pre, due=True), backend)

    def _propagate(self, weight: Any, state: DelayState, pre: Arrivals, backend: str | None) -> tuple[Any, DelayState]:
        structure, post = self.unrolled, self.post
        spec, lists = dataclasses.replace(PROPAGATE_PRE, arrivals=pre), state.pre
        position = (state.position[0] + pre.due) % pre.length
        gain = None if state.gain is None else window(state.gain, pre, position)
        if graded := jnp.issubdtype(state.graded.dtype, jnp.floating):
            spec, lists = PROPAGATE_PRE, window(state.graded, pre, position)
        if graded or post.length == 1:
            operands = weight, structure.indices, structure.indptr, lists, gain
            current = operators.call(spec, structure.shape, backend, operands)
        if post.length == 1:
            return current, state._replace(last=without_unit(current)[0])
        numbers, unit = self._numbers(weight)
        sums = operators.in_unit("weight", state.pending, u.UNITLESS if unit is None else unit)
        row = post.length - 1 - (state.position[1] + pre.due) % post.length
        if graded:
            sums = add_columns(sums, row * post.n, post.n, without_unit(current)[0].astype(sums.dtype))
        else:
            views = structure.indices, structure.indptr, jnp.zeros(0, structure.indices.dtype)
            sums = deliver(numbers, views, lists, gain, sums, row * post.n, post.n, spec=spec, backend=backend)
        start = (row - 1) % post.length * post.n  # of what has no delay, and what had, and has come
        first, second = (jax.lax.dynamic_slice_in_dim(sums, x, post.n) for x in (start, start + post.length * post.n))
        current = (first + second).astype(numbers.dtype)
        return with_unit(current, unit), state._replace(last=current, pending=with_unit(sums, unit))

    def _numbers(self, weight: Any) -> tuple[jax.Array, u.Unit | None]:
        """The numbers of weights, shape (nse,), or (1,) if all synapses share one, and their unit."""
        numbers, unit = building.weight_numbers("weight", weight, None)
        if numbers.shape not in ((), (1,), (self.nse,)):
            expected = f"({self.nse},), or a scalar or (1,) that all synapses share"
            raise ShapeError(f"weight: got shape {numbers.shape}, expected {expected}")
        return jnp.asarray(numbers).reshape(-1), unit

    def step(
        self, rule: Any, weight: WithUnit, traces: Any, state: DelayState, pre_spike: Plain, post_spike: Plain,
        after: Any = None, backend: str | None = None,
    ) -> tuple[Any, Any, DelayState]:  # fmt: skip
        """Return the weight, the traces and the state after the rule's step, for spikes that were pushed.

        Parameters
        ----------
        rule : a rule of hebbax, or one that like these updates what it is given for `synapses`
            Its parameters are one for all, or of shape `(n_pre, 1)` or `(1, n_post)`.
        weight : Array or Quantity, shape (nse,)
            In the order of `permutation`, as bounds that are one per synapse are.
        traces : pytree
            From `rule.init(synapses)` or the step before: those of the neurons now, without delay.
        state : DelayState
            From `init(weight, rule)`, after `push`.
        pre_spike, post_spike : Array, shape (n_pre,) and (n_post,), bool or real
            What was pushed in this step.
        after, backend
            As in `PairSTDP.step`.

        Raises
        ------
        TypeError
            `state` was not made for this rule.
        """
        options = dict(after=after, backend=backend)
        weight, traces, past = self._step(rule, weight, traces, state, pre_spike, post_spike, **options)
        if past.keys() != state.past.keys():
            got, expected = (", ".join(x) or "no traces" for x in (state.past, past))
            raise TypeError(f"state: got one with {got}, expected {expected}: make it with init(weight, rule)")
        return weight, traces, state._replace(past=past)

    def _step(self, rule: Any, weight: Any, traces: Any, state: DelayState, *spikes: Any, **options: Any) -> Any:
        now = Now(self, state)
        weight, traces = rule.step(now, weight, traces, *spikes, self.dt, **options)
        return weight, traces, now.past


def _steps_of_each(name: str, delay: WithUnit, dt: WithUnit, nse: int) -> np.ndarray:
    if isinstance(delay, (int, float)) and delay == 0:  # in any unit
        return np.zeros(nse, np.int64)
    count = np.asarray(steps(delay, dt, name))
    if count.shape not in ((), (nse,)):
        raise ShapeError(f"{name}: got shape {count.shape}, expected a scalar or ({nse},), one per synapse")
    return np.broadcast_to(count, (nse,))
