"""Every variant of the CUDA kernels compiles for every architecture that is promised, without a GPU or a driver."""

import itertools
import re

import nvrtc
import pytest

from hebbax._core.specs import UPDATE_POST, UPDATE_PRE
from hebbax._cuda.launch import OPTIONS as CUPYS_OPTIONS
from hebbax._cuda.launch import source
from hebbax._cuda.plan import SOFT, WAYS, expressions
from problems import DTYPES

pytestmark = pytest.mark.skipif(nvrtc.find() is None, reason="NVRTC is not installed (nvidia-cuda-nvrtc)")
KINDS = ("update", "propagate", "collect")
# What CuPy adds to ours.
OPTIONS = (*CUPYS_OPTIONS, "-ftz=true", "--device-as-default-execution-space")
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
INDEX_DTYPES = ("int32", "int64")


def variants(kind, weight_dtypes=tuple(DTYPES), index_dtypes=INDEX_DTYPES):
    """The C++ names of all kernels of an operator, from the table of operators."""
    specs = [spec.like(kind) for spec in (UPDATE_POST, UPDATE_PRE)]
    soft = SOFT if kind == "update" else SOFT[:1]
    found = {}
    ways = WAYS if kind == "update" else WAYS[:2]
    for spec, *dtypes, softness, way in itertools.product(specs, weight_dtypes, index_dtypes, soft, ways):
        found |= dict.fromkeys(expressions(spec, *dtypes, soft=softness, way=way).values())
    return tuple(found)


@pytest.mark.slow  # machine code of all updates for one architecture takes 15 s
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_variants_compile(kind, architecture):
    names = variants(kind)
    each = 4 * 2 * 2  # dtypes of weights, of indices, and whether there are weight_indices
    assert len(names) == {"update": 3 * 3 * each + 1 + 2 * 4, "propagate": 2 * each + 1, "collect": 2 * each + 1}[kind]
    check_compiles(kind, names, architecture)


@pytest.mark.parametrize("kind, architecture", [*zip(KINDS, ARCHITECTURES, strict=True)])
def test_the_usual_variants_compile(kind, architecture):
    check_compiles(kind, variants(kind, ("float32",), ("int32",)), architecture)


def check_compiles(kind, names, architecture):
    compiled = nvrtc.compile_for(architecture, source(kind), names, OPTIONS)
    assert set(compiled) == set(names) and all(kernel.instructions > 60 for kernel in compiled.values())
    assert not {name: kernel for name, kernel in compiled.items() if kernel.spilled or kernel.stack}


def test_an_error_in_a_kernel_is_seen():
    with pytest.raises(RuntimeError, match=r"update\.cu\(\d+\).*nonsense"):
        nvrtc.compile_for(
            "sm_80", source("update").replace("bounds.clip", "nonsense"), ["clip<float, FLAT>"], CUPYS_OPTIONS
        )


def test_no_kernel_uses_what_the_host_cannot_play():
    """Of what the design allows: shared memory, barriers, atomics, ballots and shuffles."""
    for kind in KINDS:
        words = set(re.findall(r"\b(?:__\w+|atomic\w+)\b", re.sub(r"//.*", "", source(kind))))
        assert words <= {
            "__device__", "__forceinline__", "__global__", "__launch_bounds__", "__shared__", "__syncthreads",
            "__CUDA_ARCH__", "atomicAdd", "__ballot_sync", "__shfl_sync", "__shfl_up_sync", "__shfl_xor_sync",
            "__popc", "__ffs",
        }  # fmt: skip
