"""Rules of pairs in loops in which nothing reads a weight between two visits of its synapse (see `_core.visit`)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core.fence import fence
from hebbax._core.numbers import concrete
from hebbax._core.sent import SpikeLists, nobody
from hebbax._core.specs import Sent
from hebbax._core.visit import Archive, Change, PairRule, visit
from hebbax.operators import in_unit
from hebbax.rules._parameters import Factors, Shaped
from hebbax.rules._traces import PairTraces, add_spikes, decay
from hebbax.rules.pair import PairSTDP, step_pairs
from hebbax.rules.power_law import PowerLawSTDP
from hebbax.synapses import Synapses

_FLOAT32 = np.dtype(np.float32)


class LateTraces(NamedTuple):
    """Traces of the neurons on either side, and spikes that weights have yet to take."""

    pre: Archive
    post: Any  # (n_post,)
    spike: Any  # (n_post,) bool: postsynaptic spikes of the last step, which are yet to be archived


def start(synapses: Synapses) -> LateTraces:
    """The traces of neurons that have not spiked yet."""
    n_post = synapses.shape[1]
    return LateTraces(Archive.empty(synapses), jnp.zeros(n_post), jnp.zeros(n_post, bool))


def is_of_pairs(rule: Any) -> bool:
    """Whether this is a rule of which either half of a step can be done by itself."""
    return type(rule) in (PairSTDP, PowerLawSTDP)  # (one that is derived from them may do another thing)


def pair_rule(rule: Any, synapses: Shaped, dt: Any, *, dendritic: bool) -> PairRule | None:
    """A rule for weights that are plain numbers, if it is one of pairs with one number for all synapses."""
    if not is_of_pairs(rule):
        return None
    changes = rule._changes(synapses, u.UNITLESS, _FLOAT32)
    plus = decay(rule, "tau_plus", dt, synapses, "pre", _FLOAT32)
    minus = decay(rule, "tau_minus", dt, synapses, "post", _FLOAT32)
    up, down = changes.up.amplitude, changes.down.amplitude.times(minus.factors)
    low, high = (_number(changes.bounds.get(name), at) for name, at in (("w_min", -math.inf), ("w_max", math.inf)))
    if not (_is_number(up) and _is_number(down) and isinstance(plus.ratio, float)) or low is None or high is None:
        return None
    return PairRule(
        Change(up.one, **changes.up.softness), Change(-down.one, **changes.down.softness), plus.ratio, low, high,
        nearest=getattr(rule, "pairing", "all") == "nearest", returned=dendritic,
    )  # fmt: skip


def _is_number(x: Factors) -> bool:
    return x.pre is None and x.post is None and isinstance(x.one, float)


def _number(bound: Any, otherwise: float) -> float | None:
    """A bound that is one for all synapses and known, as a number."""
    if bound is None:
        return otherwise
    number = concrete(in_unit("bound", bound, u.UNITLESS))
    return float(number) if number is not None and np.ndim(number) == 0 else None


def step_returned(
    rule: Any, synapses: Synapses, weight: jax.Array, state: PairTraces, pre_spike: Any, post_spike: Any, dt: Any,
    backend: str | None,
) -> tuple[jax.Array, PairTraces]:  # fmt: skip
    """A rule's step, not late, with postsynaptic spikes that come before the presynaptic ones of the same step."""
    changes = rule._changes(synapses, u.UNITLESS, _FLOAT32)
    return step_pairs(rule, synapses, weight, state, pre_spike, post_spike, dt, None, changes, backend, returned=True)


def arrive(
    numbers: PairRule, synapses: Synapses, weight: jax.Array, traces: LateTraces, pre_spike: SpikeLists,
    returned: jax.Array | None, step: Any,
) -> tuple[jax.Array, LateTraces, jax.Array]:  # fmt: skip
    """Let presynaptic spikes arrive, and return what they bring too; `returned` are the step's postsynaptic spikes.

    Without, with an axonal delay, these come later, and those of the step before are archived.
    """
    kept, post_step = (traces.spike, step - 1) if returned is None else (returned, step)
    weight, archive, arriving = visit(
        numbers, weight, traces.pre, synapses, pre_spike, kept, traces.post, step, post_step
    )  # fmt: skip
    return weight, traces._replace(pre=archive), arriving


def leave(rule: Any, synapses: Synapses, traces: LateTraces, post_spike: jax.Array, dt: Any, after: Any) -> LateTraces:
    """The traces after the postsynaptic spikes of a step, when all of `after` is known."""
    minus = decay(rule, "tau_minus", dt, synapses, "post", _FLOAT32)
    post, _ = fence((traces.post, after))
    post = add_spikes(minus.of(post), post_spike, getattr(rule, "pairing", "all"))
    return LateTraces(traces.pre, post, post_spike)


def settle(
    numbers: PairRule, synapses: Synapses, weight: jax.Array, traces: LateTraces, step: Any
) -> tuple[jax.Array, LateTraces]:
    """The weight that has taken all spikes before this step, and what is left to do then."""
    none = nobody(Sent(synapses.shape[0], 1, 0))
    silent = jnp.zeros_like(traces.spike)
    missed, post_step = (silent, step) if numbers.returned else (traces.spike, step - 1)
    weight, archive, _ = visit(
        numbers, weight, traces.pre, synapses, none, missed, traces.post, step, post_step, everyone=True
    )  # fmt: skip
    return weight, traces._replace(pre=archive, spike=silent)


class Kept(NamedTuple):
    """Traces of a settled weight, as arrays of neurons."""

    rows: Any  # (2, n_pre)
    post: Any
    spike: Any

    def of(self, told: jax.Array) -> Kept:
        """The same if the rule had not been told of the spikes of other postsynaptic neurons."""
        return self._replace(post=jnp.where(told, self.post, 0), spike=self.spike & told)


def kept(traces: LateTraces) -> Kept:
    """Settled traces, to be kept."""
    return Kept(traces.pre.rows[:, 2:].T, traces.post, traces.spike)


def restored(synapses: Synapses, kept: Kept, step: Any) -> LateTraces:
    """What `kept` was made of, at this step."""
    archive = Archive(Archive.rows_with(synapses, kept.rows.T), *Archive.settled(kept.post.size, step))
    return LateTraces(archive, kept.post, kept.spike)
