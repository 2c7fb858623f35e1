"""What is kept of past steps, and the updates that a rule makes by what arrives now."""

from __future__ import annotations

import dataclasses
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from hebbax import operators
from hebbax._core.building import with_unit, without_unit
from hebbax._core.compat import vary_alike
from hebbax._core.specs import UPDATE_POST, UPDATE_PRE, Arrivals


def start_of(side: Arrivals, position: Any) -> Any:
    """Where the values of the last `length` steps begin in what is kept twice."""
    return jnp.int32(0) if side.length == 1 else (position + 1) * side.n


def kept(past: Any, numbers: Any, side: Arrivals, position: Any) -> Any:
    """The values of the last steps, with those of this one, in one dimension, twice, so that no part wraps around."""
    past, numbers = vary_alike([past, numbers])
    for start in (position * side.n, (position + side.length) * side.n):
        past = jax.lax.dynamic_update_slice_in_dim(past, numbers, start, 0)
    return past


def window(past: Any, side: Arrivals, position: Any) -> Any:
    """The values of the last steps, one for each row of the unrolled structure."""
    return jax.lax.dynamic_slice_in_dim(past, start_of(side, position), side.length * side.n)


class Now:
    """What a rule sees in place of `Synapses` in a step: updates by what arrives, with the traces of then."""

    def __init__(self, delayed: Any, state: Any) -> None:
        self._delayed, self._state = delayed, state
        self.shape, self.n_pre, self.n_post, self.nse = (
            delayed.shape, delayed.n_pre, delayed.n_post, delayed.nse,
        )  # fmt: skip
        self.past: dict[str, Any] = {}

    def update_on_pre(
        self, weight: Any, pre_spike: Any, post_trace: Any, w_min: Any = None, w_max: Any = None, *,
        gain: Any = None, after: Any = None, backend: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        delayed, structure = self._delayed, self._delayed.unrolled
        spec = dataclasses.replace(UPDATE_PRE, arrivals=_shifted(delayed.pre, delayed.post))
        operands = (
            weight, structure.indices, structure.indptr, self._state.pre, self._kept("post", "trace", post_trace),
            w_min, w_max, self._gain("pre", gain), after,
        )  # fmt: skip
        return operators.call(spec, structure.shape, backend, operands, _options(**options))

    def update_on_post(
        self, weight: Any, pre_trace: Any, post_spike: Any, w_min: Any = None, w_max: Any = None, *,
        gain: Any = None, after: Any = None, backend: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        delayed, structure = self._delayed, self._delayed.unrolled
        spec = dataclasses.replace(UPDATE_POST, arrivals=_shifted(delayed.post, delayed.pre))
        operands = (
            weight, structure.csc_indices, structure.csc_indptr, structure.weight_indices,
            self._kept("pre", "trace", pre_trace), self._state.post, w_min, w_max, self._gain("post", gain), after,
        )  # fmt: skip
        return operators.call(spec, structure.shape, backend, operands, _options(**options))

    def apply_on_pre(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            "apply_on_pre and apply_on_post know no delay of each synapse; hebbax.delays.Ring has one for all"
        )

    apply_on_post = apply_on_pre

    def _kept(self, name: str, what: str, x: Any) -> Any:
        """The values `x` of a side's neurons with those of the steps before."""
        side, position = self._side(name)
        if side.length == 1:
            return x
        numbers, unit = without_unit(x)
        key = f"{name}_{what}"
        while key in self.past:  # of another update in the same step
            key += "'"
        past = self._state.past.get(key)
        if past is None:  # in `init`: as it has always been
            past = with_unit(jnp.tile(numbers, 2 * side.length), unit)
        past = operators.in_unit(key, past, u.UNITLESS if unit is None else unit)
        self.past[key] = with_unit(kept(past, jnp.asarray(numbers), side, position), unit)
        return self.past[key]

    def _side(self, name: str) -> tuple[Arrivals, jax.Array]:
        return getattr(self._delayed, name), self._state.position[0 if name == "pre" else 1]

    def _gain(self, name: str, gain: Any) -> Any:
        """A gain of the rows: that of their neurons when these spiked."""
        if np.ndim(gain) == 0:
            return gain
        side, position = self._side(name)
        if side.length == 1:
            return gain
        return window(without_unit(self._kept(name, "gain", gain))[0], side, position)


def _shifted(event: Arrivals, partner: Arrivals) -> Arrivals:
    return dataclasses.replace(event, shifted=partner.length > 1)


def _options(weight_in_bounds: bool = False, soft_bound: str | None = None, mu: float = 1.0) -> tuple:
    return weight_in_bounds, soft_bound, mu
