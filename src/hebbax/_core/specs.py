"""The table of operators: the single source of the public functions' plumbing, the primitives,
the kernels' variants, the tests' parameters and the benchmarks."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

UPDATE_OPERANDS = ("weight", "indices", "indptr", "weight_indices", "spike", "trace", "gain", "w_min", "w_max")
OPERANDS = {
    "update": UPDATE_OPERANDS,
    "propagate": (*UPDATE_OPERANDS[:5], "gain"),
    "collect": (*UPDATE_OPERANDS[:5], "trace"),
}
STRUCTURE = ("indices", "indptr", "weight_indices")  # what a batch shares


@dataclass(frozen=True)
class Arrivals:
    """Spikes that arrive after delays: an operand `spike` that lists them (see `_core.events`), over unrolled rows.

    A row of the structure is a delay and a neuron: row `(length - 1 - delay) * n + i` is event neuron `i`'s.
    """

    n: int  # event neurons
    delays: tuple[int, ...]  # in steps, each once, the longest first
    due: bool = False  # those of the step after the last recorded one
    shifted: bool = False  # the partners' trace begins at an offset, which stands beside the lists

    @property
    def length(self) -> int:
        """Steps whose spikes are kept."""
        return max(self.delays, default=0) + 1


@dataclass(frozen=True)
class Sent:
    """Spikes that devices have sent each other: an operand `spike` that lists them (see `_core.sent`)."""

    n: int  # event neurons
    steps: int  # that were sent at once, of which the operand names one
    capacity: int  # spikes in all of these that there is room for
    second: bool = False  # the step that is meant is half of all steps later than the one named

    due: ClassVar[bool] = False
    shifted: ClassVar[bool] = False


@dataclass(frozen=True)
class Spec:
    """One operator: what it does, whose spikes select the rows it does it to, and in which order weights are stored.

    `collect` is no public function: it is what the other two are transposed by with respect to their gain.
    """

    kind: Literal["update", "propagate", "collect"]
    event: Literal["pre", "post"]
    order: Literal["csr", "csc"] = "csr"
    arrivals: Arrivals | Sent | None = None  # the spikes are not an array of bool, but such lists

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.order}_on_binary_{self.event}"

    @property
    def permuted(self) -> bool:
        """Whether rows cross the order in which weights are stored, which are then found through `weight_indices`."""
        return (self.event == "post") == (self.order == "csr")

    @property
    def operands(self) -> tuple[str, ...]:
        """What the primitive takes, in order; an operand that is not given is an array of size 0.

        An update takes more arrays behind them, those of `after`, which it waits for and does not read.
        """
        return OPERANDS[self.kind]

    def like(self, kind: Literal["update", "propagate", "collect"]) -> "Spec":
        """The operator of another kind on the same structure."""
        return dataclasses.replace(self, kind=kind)

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The required operands in the order in which the public function takes them."""
        structure = ("weight", "indices", "indptr", *(("weight_indices",) if self.permuted else ()))
        if self.kind == "propagate":
            return (*structure, "spike")
        return (*structure, "trace", "spike") if self.event == "post" else (*structure, "spike", "trace")

    @property
    def optional(self) -> tuple[str, ...]:
        """What the public function can do without."""
        return (*self.bounds, "gain", "after") if self.kind == "update" else ("gain",)

    @property
    def bounds(self) -> tuple[str, ...]:
        """Those of them that it takes by position too."""
        return ("w_min", "w_max") if self.kind == "update" else ()

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """All operands that the public function takes, in its order."""
        return (*self.arguments, *self.optional)

    def public_name(self, operand: str) -> str:
        """What the public function calls an operand."""
        if operand == "spike":
            return f"{self.event}_spike"
        if operand == "trace":
            return "pre_trace" if self.event == "post" else "post_trace"
        return operand

    def sizes(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Numbers of event neurons (one row each) and of the neurons they connect to."""
        n_pre, n_post = shape
        return (n_post, n_pre) if self.event == "post" else (n_pre, n_post)


UPDATE_POST = Spec("update", "post")
UPDATE_PRE = Spec("update", "pre")
PROPAGATE_PRE = Spec("propagate", "pre")
PROPAGATE_POST = Spec("propagate", "post")
SPECS = (UPDATE_POST, UPDATE_PRE, PROPAGATE_PRE, PROPAGATE_POST)

# The updates of weights in CSC order: the same kernels, with the matrix transposed.
UPDATE_CSC_POST = Spec("update", "post", "csc")
UPDATE_CSC_PRE = Spec("update", "pre", "csc")
CSC_SPECS = (UPDATE_CSC_POST, UPDATE_CSC_PRE)
