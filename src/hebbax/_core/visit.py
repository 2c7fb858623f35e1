"""Synapses that learn from pairs of spikes, each visited when its presynaptic neuron spikes, and not in between.

Nobody reads a weight between two visits, if spikes are all that reads it. So a step need not go to the synapses of the
neurons that spike behind them: what a synapse has missed is found when it is visited, in an `Archive` of the last
spikes of its postsynaptic neuron, and of the last step and the trace of its presynaptic one, from which all since
follow. In the same visit the presynaptic spike changes the weight, and is sent. (This is how NEST does it: A. Morrison,
A. Aertsen & M. Diesmann (2007), Neural Computation 19:1437-1467, doi:10.1162/neco.2007.19.6.1437.)

Compiled for CPUs only. The same, step by step, is what the operators do with traces that decay at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import mlir

from hebbax import _cpu
from hebbax._core.compat import Primitive
from hebbax._core.primitives import bind
from hebbax._core.sent import SpikeLists

_NEVER = -(2**30)  # a step
_NO_TRACE = int(np.float32(-1).view(np.int32))


class Archive(NamedTuple):
    """Where what synapses have missed is found: of these synapses, and of no others."""

    rows: Any  # (n_pre, 4) int32: where a neuron's synapses begin and end, its last step, bits of its trace before that
    recent: Any  # (kept, n_post) uint16: steps of the last postsynaptic spikes, the last one first; 0: none
    settling: Any  # (5,) int32: the step that these count as 1, and how far rows have taken them (`pieces.pxd`: Pass)

    @classmethod
    def empty(cls, synapses: Any, step: Any = 0) -> Archive:
        """The archive of neurons that have not spiked before this step."""
        n_pre, n_post = synapses.shape
        spikes = jnp.broadcast_to(jnp.array([_NEVER, _NO_TRACE], jnp.int32), (n_pre, 2))
        return cls(cls.rows_with(synapses, spikes), *cls.settled(n_post, step))

    @staticmethod
    def rows_with(synapses: Any, spikes: jax.Array) -> jax.Array:
        """The rows of neurons whose last spikes, `(n_pre, 2)`, are known."""
        return jnp.column_stack([synapses.indptr[:-1], synapses.indptr[1:], spikes])

    @staticmethod
    def settled(n_post: int, step: Any) -> tuple[jax.Array, jax.Array]:
        """The other two where all synapses have taken what was before this step."""
        settling = jnp.stack([jnp.asarray(x, jnp.int32) for x in (step, step, step, 0, 0)])
        return jnp.zeros((_cpu.most_recent(), n_post), jnp.uint16), settling


@dataclass(frozen=True)
class Change:
    """What the spikes of one side do: `factor` times the other side's trace, scaled as the updates do it."""

    factor: float
    soft_bound: str
    mu: float


@dataclass(frozen=True)
class PairRule:
    """What the spikes of either side do, as numbers that are one for all synapses."""

    up: Change
    down: Change
    ratio: float  # what a presynaptic trace decays by in a step, in time constants
    low: float = -math.inf  # bounds
    high: float = math.inf
    nearest: bool = False  # whether a spike sets its trace to 1
    returned: bool = False  # whether, in one step, postsynaptic spikes come first, and synapses send what they then are

    @property
    def attributes(self) -> dict[str, Any]:
        """For the kernel."""
        names = ["NEAREST"] * self.nearest + ["RETURNED"] * self.returned
        numbers = dict(decay=self.ratio / math.log(2), low=self.low, high=self.high)
        for side, change in (("up", self.up), ("down", self.down)):
            numbers |= {f"{side}_factor": change.factor, f"{side}_mu": change.mu or 1.0}
            if change.mu:
                names.append(f"{'SOFT' if side == 'up' else 'DOWN'}_{change.soft_bound.upper()}")
        flags = sum(map(_cpu.flag, names))
        return {name: np.float64(x) for name, x in numbers.items()} | {"flags": np.int32(flags)}


def visit(
    rule: PairRule, weight: jax.Array, archive: Archive, synapses: Any, lists: SpikeLists, post_spike: jax.Array,
    post_trace: jax.Array, step: Any, post_step: Any, *, everyone: bool = False,
) -> tuple[jax.Array, Archive, jax.Array]:  # fmt: skip
    """Keep postsynaptic spikes, then visit the synapses of presynaptic neurons that spike.

    Parameters
    ----------
    rule : PairRule
    weight : Array, shape (nse,), float32
    archive : Archive
    synapses : Synapses
        Of which the CSR view is read.
    lists : SpikeLists
        Presynaptic spikes.
    post_spike : Array, shape (n_post,), bool
    post_trace : Array, shape (n_post,), float32
        As it is at the presynaptic spikes.
    step, post_step : int
        Of the presynaptic and of the postsynaptic spikes: the same if these are `returned`, else the one before is the
        last one that can be. Later ones than those of the call before.
    everyone : bool
        Let all synapses take what they have missed until `step`, and let no presynaptic spike arrive.

    Returns
    -------
    weight : Array
    archive : Archive
    arriving : Array, shape (n_post,)
        What the presynaptic spikes bring.
    """
    steps = jnp.stack([jnp.asarray(x, jnp.int32) for x in (step, post_step)])
    operands = weight, *archive, synapses.indices, synapses.indptr, lists.message, post_spike, post_trace, steps
    weight, *rest, arriving = bind(visit_p, *operands, rule=rule, second=lists.sent.second, everyone=everyone)
    return weight, Archive(*rest), arriving


def _abstract(*operands: Any, **_: Any) -> list:
    return [x.update(weak_type=False) for x in (*operands[:4], operands[8])]


def _natively(*operands: Any, rule: PairRule, second: bool, everyone: bool) -> Any:
    attributes = rule.attributes
    names = [name for name, is_set in (("SECOND", second), ("ALL", everyone)) if is_set]
    attributes["flags"] += np.int32(sum(map(_cpu.flag, names)))
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (*operands[:4], operands[8])]
    return jax.ffi.ffi_call("hebbax_visit", results, input_output_aliases={k: k for k in range(4)})(
        *operands, **attributes
    )


visit_p = Primitive("hebbax_visit")
visit_p.multiple_results = True
visit_p.def_abstract_eval(_abstract)
if _cpu.missing is None:
    mlir.register_lowering(visit_p, mlir.lower_fun(_natively, multiple_results=True), platform="cpu")
