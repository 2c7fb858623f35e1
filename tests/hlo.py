"""What is looked for in compiled HLO."""

import math
import re

import jax

NAMES = {"pred": "bool", "s32": "int32", "s64": "int64", "f32": "float32"}
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
    """The instructions whose result has `size` elements or more: those `operations` (or any), of type `kind` (or any)."""
    return [
        found for found in instructions(text)
        if found[1] >= size and (not operations or found[2] in operations) and kind in (None, found[0])
    ]  # fmt: skip


def custom_calls(text):
    """The targets of our kernels' calls, in alphabetical order; loops count once."""
    return sorted(re.findall(r'custom_call_target="hebbax_(\w+)"', text))
