"""What a rule asks of the engine: for either side, the traces that its spikes leave, and what they do to weights."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import brainunit as u
import numpy as np

from hebbax import PairSTDP, PowerLawSTDP, TripletSTDP

Rule = PairSTDP | PowerLawSTDP | TripletSTDP


class Half(NamedTuple):
    """The spikes of one side.

    A spike changes each weight by `soft * other * (amplitude + triplet * slow)`, where `other` is the partner's trace,
    and `slow` the neuron's own slower one, just before the spike. Then it raises its neuron's traces.
    """

    tau: float  # of the trace that the other side's spikes read, in seconds
    amplitude: float
    soft_bound: str | None = None
    mu: float = 0.0
    slow_tau: float = math.inf  # of the trace that its own next spikes read
    triplet: float = 0.0


class Plan(NamedTuple):
    """A rule in plain numbers."""

    pre: Half
    post: Half
    low: float
    high: float  # infinite where weights have no upper bound
    is_nearest: bool = False

    @property
    def halves(self) -> tuple[Half, Half]:
        return self.pre, self.post


@functools.singledispatch
def plan_of(rule: Any) -> Plan:
    """The plan of a rule; a TypeError of another one than `Rule`, or of one whose parameters are arrays."""
    raise TypeError(f"rule: got {type(rule).__name__}, expected PairSTDP, TripletSTDP or PowerLawSTDP")


@plan_of.register
def _(rule: PairSTDP) -> Plan:
    tau_plus, tau_minus = _seconds(rule, "tau_plus", "tau_minus")
    a_plus, a_minus, low, high = _numbers(rule, "a_plus", "a_minus", "w_min", "w_max")
    pre = Half(tau_plus, -a_minus, "lower" if rule.mu_minus else None, rule.mu_minus)
    post = Half(tau_minus, a_plus, "upper" if rule.mu_plus else None, rule.mu_plus)
    return Plan(pre, post, low, high, rule.pairing == "nearest")


@plan_of.register
def _(rule: TripletSTDP) -> Plan:
    tau_plus, tau_minus, tau_x, tau_y = _seconds(rule, "tau_plus", "tau_minus", "tau_x", "tau_y")
    a2_plus, a2_minus, a3_plus, a3_minus = _numbers(rule, "a2_plus", "a2_minus", "a3_plus", "a3_minus")
    low, high = _numbers(rule, "w_min", "w_max")
    pre = Half(tau_plus, -a2_minus, slow_tau=tau_x, triplet=-a3_minus)
    post = Half(tau_minus, a2_plus, slow_tau=tau_y, triplet=a3_plus)
    return Plan(pre, post, low, high, rule.pairing == "nearest")


@plan_of.register
def _(rule: PowerLawSTDP) -> Plan:
    tau_plus, tau_minus = _seconds(rule, "tau_plus", "tau_minus")
    rate, alpha, w_0 = _numbers(rule, "learning_rate", "alpha", "w_0")
    # Without an upper bound, the distance to the lower one is the weight.
    pre = Half(tau_plus, -rate * alpha, "lower", 1.0)
    post = Half(tau_minus, rate * w_0 ** (1 - rule.mu), "lower" if rule.mu else None, rule.mu)
    return Plan(pre, post, 0.0, math.inf)


def _seconds(rule: Rule, *names: str) -> list[float]:
    return [_plain(name, getattr(rule, name).to_decimal(u.second)) for name in names]


def _numbers(rule: Rule, *names: str) -> list[float]:
    return [_plain(name, getattr(rule, name)) for name in names]


def _plain(name: str, value: Any) -> float:
    if isinstance(value, u.Quantity) or np.ndim(value):
        raise TypeError(f"{name}: got {value}, expected a plain number")
    return float(value)
