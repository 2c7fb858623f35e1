"""What is looked for in compiled HLO."""

import math
import re

import jax

# One instruction: its result's type and dimensions, its operation.
_INSTRUCTION = re.compile(r"= (\w+)\[([\d,]*)\]\S* ([\w-]+)\(")


def compiled(function, *arguments):
    """`function` compiled for `arguments`."""
    return jax.jit(function).lower(*arguments).compile()


def instructions(text):
    """Yield every instruction with an array for a result, as (type, number of elements, operation)."""
    for kind, dimensions, operation in _INSTRUCTION.findall(text):
        yield kind, math.prod(int(n) for n in dimensions.split(",") if n), operation


def at_least(text, size, *operations, kind=None):
    """The instructions whose result has `size` elements or more, of `operations` and a `kind` if these are given."""
    return [
        found for found in instructions(text)
        if found[1] >= size and (not operations or found[2] in operations) and kind in (None, found[0])
    ]  # fmt: skip


def written(text, size):
    """The operations whose result, of `size` elements or more, takes memory: not those inside a fusion, nor views."""
    fused = set(re.findall(r"fusion\(.*calls=%?([\w.-]+)", text))
    found, inside = [], False
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            inside = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0] in fused
        elif not inside:
            found += [
                x[2]
                for x in at_least(line, size)
                if x[2] not in ("parameter", "constant", "bitcast", "get-tuple-element")
            ]
    return found


def custom_calls(text):
    """The targets of our kernels' calls, in alphabetical order; loops count once."""
    return sorted(re.findall(r'custom_call_target="hebbax_(\w+)"', text))
