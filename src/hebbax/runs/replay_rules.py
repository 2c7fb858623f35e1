"""The rules of `hebbax replay`, and their options."""

from __future__ import annotations

import dataclasses
import math
import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import brainunit as u
import numpy as np
import typer

import hebbax
from hebbax._terminal import within
from hebbax.replay.connectivity import Connectivity
from hebbax.replay.plans import Rule
from hebbax.runs.quantities import Number


class Name(StrEnum):
    pair, triplet, power_law = "pair", "triplet", "power-law"


class Pairing(StrEnum):
    all, nearest = "all", "nearest"


def _option(kind: Any, about: str, default: str, panel: str, **options: Any) -> Any:
    return Annotated[kind | None, typer.Option(help=about, show_default=default, rich_help_panel=panel, **options)]


def _time(about: str, default: str, panel: str = "Rule") -> Any:
    return _option(float, f"{about}, in ms.", default, panel, parser=Number("ms"), callback=within(1e-3, 1e6))


def _exponent(about: str, default: str, panel: str) -> Any:
    return _option(float, about, default, panel, callback=within(0, 1e3))


PAIR, TRIPLET, POWER = (f"Rule: {name.value}" for name in Name)
TauPlus: Any = _time("Of potentiation", "20; triplet 16.8; power-law 15")
TauMinus: Any = _time("Of depression", "20; triplet 33.7; power-law 30")
Lower: Any = _option(float, "Lower bound of weights; power-law has 0.", "0", "Rule")
Upper: Any = _option(float, "Upper bound of weights; power-law has none.", "the largest weight there is", "Rule")
Pairs: Any = _option(Pairing, "With all earlier spikes, or the last; power-law has all.", "all", "Rule")
APlus: Any = _option(float, "Change by a pair, in the unit of weights.", "0.005 of the bounds' distance", PAIR)
AMinus: Any = _option(float, "The same, of depression.", "1.05 a-plus", PAIR)
MuPlus: Any = _exponent("0: additive; 1: in proportion to the distance from the bound.", "0", PAIR)
MuMinus: Any = _exponent("The same, of depression.", "0", PAIR)
TauX: Any = _time("Of the slow presynaptic trace", "101", TRIPLET)
TauY: Any = _time("Of the slow postsynaptic trace", "114", TRIPLET)
A2Plus: Any = _option(float, "Potentiation by a pair, in the unit of weights.", "0", TRIPLET)
A2Minus: Any = _option(float, "Depression by a pair.", "0.0071 of the bounds' distance", TRIPLET)
A3Plus: Any = _option(float, "Potentiation by a triplet.", "0.0065 of the bounds' distance", TRIPLET)
A3Minus: Any = _option(float, "Depression by a triplet.", "0", TRIPLET)
Rate: Any = _option(float, "lambda.", "0.1", POWER, callback=within(0, 1e6))
Alpha: Any = _option(float, "Depression over potentiation.", "0.0513", POWER, callback=within(0, 1e6))
Reference: Any = _option(float, "Weight that potentiation is relative to.", "1", POWER)
Mu: Any = _exponent("Exponent of potentiation.", "0.4", POWER)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Options that choose a rule and its parameters; what is None is as `KINDS` has it."""

    rule: Annotated[Name, typer.Option(help="How weights change.", rich_help_panel="Rule")] = Name.pair
    tau_plus: TauPlus = None
    tau_minus: TauMinus = None
    w_min: Lower = None
    w_max: Upper = None
    pairing: Pairs = None
    a_plus: APlus = None
    a_minus: AMinus = None
    mu_plus: MuPlus = None
    mu_minus: MuMinus = None
    tau_x: TauX = None
    tau_y: TauY = None
    a2_plus: A2Plus = None
    a2_minus: A2Minus = None
    a3_plus: A3Plus = None
    a3_minus: A3Minus = None
    learning_rate: Rate = None
    alpha: Alpha = None
    w_0: Reference = None
    mu: Mu = None


class Kind(NamedTuple):
    """A rule of hebbax, and its parameters as they are if nothing else is said."""

    make: Any
    taus: dict[str, float]  # in ms
    amplitudes: dict[str, float]  # in distances of the bounds
    others: dict[str, Any]
    is_bounded: bool = True

    @property
    def parameters(self) -> list[str]:
        return [*self.taus, *self.amplitudes, *self.others, *(("w_min", "w_max") if self.is_bounded else ())]


KINDS = {
    Name.pair: Kind(
        hebbax.PairSTDP, dict(tau_plus=20.0, tau_minus=20.0), dict(a_plus=0.005, a_minus=1.05 * 0.005),
        dict(mu_plus=0.0, mu_minus=0.0, pairing="all"),
    ),
    Name.triplet: Kind(  # as `TripletSTDP` has it from visual cortex
        hebbax.TripletSTDP, dict(tau_plus=16.8, tau_minus=33.7, tau_x=101.0, tau_y=114.0),
        dict(a2_plus=0.0, a2_minus=7.1e-3, a3_plus=6.5e-3, a3_minus=0.0), dict(pairing="all"),
    ),
    Name.power_law: Kind(  # as the experiment hpc
        hebbax.PowerLawSTDP, dict(tau_plus=15.0, tau_minus=30.0), {},
        dict(learning_rate=0.1, alpha=0.0513, w_0=1.0, mu=0.4), is_bounded=False,
    ),
}  # fmt: skip


def rule_of(stated: RuleOptions, found: Connectivity) -> Rule:
    """The rule that options state, for these synapses; a `typer.BadParameter` where that is none."""
    kind = KINDS[stated.rule]
    given = {f.name: getattr(stated, f.name) for f in dataclasses.fields(RuleOptions) if f.name != "rule"}
    given = {name: x for name, x in given.items() if x is not None}
    for name in given:
        if name not in kind.parameters:
            expected = ", ".join(map(_hint, kind.parameters))
            raise typer.BadParameter(
                f"not of the rule {stated.rule}, expected some of {expected}", param_hint=_hint(name)
            )
    values = {name: given.get(name, x) for name, x in kind.others.items()}
    values |= {name: given.get(name, x) * u.ms for name, x in kind.taus.items()}
    if kind.is_bounded:
        values |= _bounds(given, found)
    distance = values.get("w_max", 0.0) - values.get("w_min", 0.0)
    values |= {name: given.get(name, x * distance) for name, x in kind.amplitudes.items()}
    if "a_plus" in given and "a_minus" not in given:
        values["a_minus"] = given["a_plus"] * kind.amplitudes["a_minus"] / kind.amplitudes["a_plus"]
    for name, value in values.items():
        if re.match("(a[23]?|w)_", name):
            _check_weight(name, value, found.weight.dtype)
    try:
        return kind.make(**values)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def _bounds(given: dict[str, Any], found: Connectivity) -> dict[str, float]:
    low = given.get("w_min", 0.0)
    high = given.get("w_max", float(found.weight.max(initial=low)))
    if "w_max" not in given and not high > low:
        message = f"expected a value: no weight of {found.path} is above --w-min, {low:g}"
        raise typer.BadParameter(message, param_hint="'--w-max'")
    return {"w_min": low, "w_max": high}


def _check_weight(name: str, value: float, dtype: np.dtype) -> None:
    if not math.isfinite(value):
        raise typer.BadParameter(f"got {value}, expected a finite number", param_hint=_hint(name))
    if abs(value) > float(np.finfo(dtype).max):
        message = f"got {value}, which {dtype}, the dtype of the weights, cannot hold"
        raise typer.BadParameter(message, param_hint=_hint(name))


def _hint(name: str) -> str:
    return f"'--{name.replace('_', '-')}'"
