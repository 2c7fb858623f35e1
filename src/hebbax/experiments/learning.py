"""How the synapses of a network learn in a step: at once, or, where that is faster, when they are next visited.

Either is a class with the same methods, of which the loop of networks calls two a step: `arrive` before synapses send
their weights, and `leave` when the neurons have spiked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import brainunit as u
import jax
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax import _cpu
from hebbax._core import lowering
from hebbax._core.specs import UPDATE_POST
from hebbax._core.visit import Archive, PairRule
from hebbax.experiments.network import Network
from hebbax.rules import _late

Traces = Any


class Learning(Protocol):
    """Synapses that learn by a rule."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def csc(self) -> bool:
        """Whether it reads the CSC view of the synapses."""

    def start(self, synapses: hebbax.Synapses) -> Traces:
        """The traces of neurons that have not spiked yet."""

    def specs(self, part: P) -> Traces:
        """How traces lie on devices, each of which has a part of the postsynaptic neurons."""

    def arrive(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, returned: Any, step: Any
    ) -> tuple[jax.Array, Traces, jax.Array]:
        """What presynaptic spikes do, and bring; with a dendritic delay, the step's postsynaptic ones have returned."""

    def leave(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, post_spike: Any, sent: Any
    ) -> tuple[jax.Array, Traces]:
        """What spikes do, with an axonal delay, when weights were `sent` and neurons have spiked."""

    def settle(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, step: Any
    ) -> tuple[jax.Array, Traces]:
        """The weight that has learnt from all spikes before this step, and traces to go on with."""

    def kept(self, traces: Traces) -> Any:
        """Traces of a settled weight as arrays whose last axis is one of neurons."""

    def kept_specs(self, part: P) -> Any:
        """How these lie on devices."""

    def restored(self, synapses: hebbax.Synapses, kept: Any, step: Any, learns: jax.Array | None) -> Traces:
        """What `kept` was made of; with `learns`, of postsynaptic neurons of which the rule is told alone."""


@dataclass(frozen=True)
class AtOnce:
    """By the operators, on any device."""

    rule: Any
    dt: u.Quantity
    dendritic: bool
    backend: str | None
    name: ClassVar[str] = "at once"
    csc: ClassVar[bool] = True

    def start(self, synapses: hebbax.Synapses) -> Traces:
        return self.rule.init(synapses, at_events=True)

    def specs(self, part: P) -> Traces:
        return hebbax.rules.PairTraces(pre=P(), post=part)

    def arrive(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, returned: Any, step: Any
    ) -> tuple[jax.Array, Traces, jax.Array]:
        if self.dendritic:
            arguments = synapses, weight, traces, pre_spike, returned, self.dt, self.backend
            weight, traces = _late.step_returned(self.rule, *arguments)
        return weight, traces, synapses.propagate_on_pre(weight, pre_spike, backend=self.backend)

    def leave(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, post_spike: Any, sent: Any
    ) -> tuple[jax.Array, Traces]:
        if self.dendritic:
            return weight, traces
        options: Any = dict(after=sent, backend=self.backend)
        return self.rule.step(synapses, weight, traces, pre_spike, post_spike, self.dt, **options)

    def settle(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, step: Any
    ) -> tuple[jax.Array, Traces]:
        return weight, traces

    def kept(self, traces: Traces) -> Any:
        return traces

    def kept_specs(self, part: P) -> Any:
        return self.specs(part)

    def restored(self, synapses: hebbax.Synapses, kept: Any, step: Any, learns: jax.Array | None) -> Traces:
        return kept  # (of those that learn at once, all do)


@dataclass(frozen=True)
class Late:
    """By a kernel for CPUs that visits synapses when their presynaptic neuron spikes, and not in between."""

    rule: Any
    dt: u.Quantity
    numbers: PairRule
    name: ClassVar[str] = "late"
    csc: ClassVar[bool] = False

    def start(self, synapses: hebbax.Synapses) -> Traces:
        return _late.start(synapses)

    def specs(self, part: P) -> Traces:
        archive = Archive(rows=part, recent=P(None, *part), settling=part)
        return _late.LateTraces(archive, post=part, spike=part)

    def arrive(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, returned: Any, step: Any
    ) -> tuple[jax.Array, Traces, jax.Array]:
        weight, traces, arriving = _late.arrive(self.numbers, synapses, weight, traces, pre_spike, returned, step)
        if returned is not None:
            traces = _late.leave(self.rule, synapses, traces, returned, self.dt, arriving)
        return weight, traces, arriving

    def leave(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, pre_spike: Any, post_spike: Any, sent: Any
    ) -> tuple[jax.Array, Traces]:
        if self.numbers.returned:
            return weight, traces
        return weight, _late.leave(self.rule, synapses, traces, post_spike, self.dt, sent)

    def settle(
        self, synapses: hebbax.Synapses, weight: jax.Array, traces: Traces, step: Any
    ) -> tuple[jax.Array, Traces]:
        return _late.settle(self.numbers, synapses, weight, traces, step)

    def kept(self, traces: Traces) -> Any:
        return _late.kept(traces)

    def kept_specs(self, part: P) -> Any:
        return _late.Kept(rows=P(), post=part, spike=part)

    def restored(self, synapses: hebbax.Synapses, kept: Any, step: Any, learns: jax.Array | None) -> Traces:
        return _late.restored(synapses, kept if learns is None else kept.of(learns), step)


def learning_of(network: Network, backend: str | None, platform: str | None = None) -> dict[int, Learning]:
    """How each projection of a network learns that does, by its place; late only on a platform that is known."""
    dt, dendritic = network.neurons.time_step, network.dendritic
    late = platform == "cpu" and _cpu.missing is None
    late = late and (backend or lowering.default_backend(UPDATE_POST, "cpu")) == "cython"
    found: dict[int, Learning] = {}
    for k, p in enumerate(network.projections):
        if p.rule is None:
            continue
        if dendritic and not _late.is_of_pairs(p.rule):
            got = type(p.rule).__name__
            raise TypeError(f"projections: got {got} with a dendritic delay, expected PairSTDP or PowerLawSTDP")
        numbers = _late.pair_rule(p.rule, network, dt, dendritic=dendritic) if late else None
        found[k] = Late(p.rule, dt, numbers) if numbers else AtOnce(p.rule, dt, dendritic, backend)
    return found
