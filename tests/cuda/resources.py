"""What every variant of the CUDA kernels takes of a multiprocessor, by ptxas and the machine code: no GPU is needed.

Usage: python resources.py > ../../benchmarks/results/cuda_kernels.md
"""

import functools
import itertools
import re

import nvrtc

from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from hebbax._cuda.launch import OPTIONS, source
from hebbax._cuda.plan import CONSTANTS, SOFT, THREADS, WAYS, expressions
from problems import DTYPES

KINDS = ("update", "propagate", "collect")
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
CUPYS = ("-ftz=true", "--device-as-default-execution-space")  # what CuPy adds to our options
HEAD = """Registers of a thread, and instructions, of every variant of the CUDA kernels. A row has those that differ in
the type of `indices`, in whether there are `weight_indices`, and in whether all synapses share a weight. No variant
spills, and a multiprocessor has room for {blocks} blocks of {threads} threads of each. Instructions are those of the
whole kernel, padding included.

By `PYTHONPATH=tests python tests/cuda/resources.py`, with NVRTC {version}.

| kernel |{architectures}
|---|{lines}
"""


@functools.cache
def variants(kind):
    """The C++ names of all kernels of an operator, from the table of operators."""
    specs = [spec.like(kind) for spec in (UPDATE_POST, UPDATE_PRE)]
    soft = SOFT if kind == "update" else SOFT[:1]
    weights, indices = DTYPES.values(), ("int32", "int64")
    shared = (False,) if kind == "update" else (False, True)
    found = {}
    for spec, weight, index, softness, way, one in itertools.product(specs, weights, indices, soft, WAYS, shared):
        found |= dict.fromkeys(expressions(spec, weight, index, soft=softness, way=way, shared=one).values())
    return tuple(found)


def compiled(kind, architecture, weight=""):
    """What an operator's kernels take; or only those of a type of weights."""
    names = [name for name in variants(kind) if f"<{weight}," in name or not weight]
    return nvrtc.compile_for(architecture, source(kind), names, (*OPTIONS, *CUPYS))


def row_of(name):
    """The row of the table that a kernel is in."""
    return re.sub(r"(, |<)(int|long long), (true|false)(, (true|false))?", r"\1...", name)


def span(numbers):
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def table():
    """Rows of kernels; for each architecture what they take."""
    rows = {}
    for kind, architecture in itertools.product(KINDS, ARCHITECTURES):
        for name, kernel in compiled(kind, architecture).items():
            rows.setdefault(row_of(name), {}).setdefault(architecture, []).append(kernel)
    for row, found in rows.items():
        cells = [f"{span([x.registers for x in y])}; {span([x.instructions for x in y])}" for y in found.values()]
        yield f"| `{row}` | {' | '.join(cells)} |"


def main():
    names = "".join(f" {architecture} |" for architecture in ARCHITECTURES)
    head = HEAD.format(
        blocks=CONSTANTS["BLOCKS"], threads=THREADS, version=nvrtc.version(), architectures=names,
        lines="---|" * len(ARCHITECTURES),
    )  # fmt: skip
    print(head + "\n".join(table()))


if __name__ == "__main__":
    main()
