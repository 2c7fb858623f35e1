"""Objects of other packages that stand for an array. They are told by what they have and are called: none is imported.

Events, such as brainevent's `BinaryArray`, have their spikes in `value`. What holds an array that changes, such as
`brainstate.State` and `brainpy.math.Array`, has that there too, but is refused with a sentence: it is for its owner to
read it, and to put a result back. It is known by a class among its bases, of that package and name.
"""

from __future__ import annotations

import functools
from typing import Any

import brainunit as u

HOLDERS = {("brainstate", "State"), ("brainpy", "Array")}
SPIKES = ("pre_spike", "post_spike", "spike", "x")  # arguments that are spikes, or may be


def array_of(name: str, x: Any) -> Any:
    """The spikes of events, where the argument of this name may be some; what is no such object, as it is."""
    refused = _refused(type(x))  # type: ignore[arg-type]  # (a class is hashable)
    if refused is None and (isinstance(x, u.Quantity) or hasattr(x, "__dlpack__") or not hasattr(x, "value")):
        return x
    if refused is None and name in SPIKES:
        return x.value
    raise TypeError(f"{name}: got {refused or f'{type(x).__name__}, expected its array: pass .value'}")


@functools.lru_cache(maxsize=256)
def _refused(cls: type) -> str | None:
    """Why objects of this class are no spikes either, though they have a value."""
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if (package, base.__name__) in HOLDERS:
            own = "" if cls is base else f" ({cls.__name__})"
            return f"a {package} {base.__name__}{own}, expected its array: pass .value"
        if base.__name__ == "WeightedArray":  # events that brainevent multiplies by their values
            return "a WeightedArray, expected spikes that count as 1: pass .value != 0, and .value as gain"
    return None
