"""Every variant of the CUDA kernels compiles for every architecture that is promised, without a GPU or a driver."""

import re
from pathlib import Path

import nvrtc
import pytest
import resources
from resources import ARCHITECTURES, KINDS

from hebbax._cuda.launch import OPTIONS, source
from hebbax._cuda.plan import CONSTANTS, THREADS

BLOCKS = CONSTANTS["BLOCKS"]
pytestmark = pytest.mark.skipif(nvrtc.find() is None, reason="NVRTC is not installed (nvidia-cuda-nvrtc)")


def check(compiled):
    """No variant spills, and a multiprocessor has room for the blocks that are launched."""
    assert all(kernel.instructions > 60 for kernel in compiled.values())
    assert not {name: kernel for name, kernel in compiled.items() if kernel.spilled or kernel.stack}
    assert not {name: kernel for name, kernel in compiled.items() if kernel.blocks(THREADS) < BLOCKS}
    # 3 776 and more when every thread did its own divisions, and blocks searched together.
    simplest = [kernel for name, kernel in compiled.items() if "HARD, FLAT" in name or "update" not in name]
    assert max(kernel.instructions for kernel in simplest) <= 1250


@pytest.mark.slow
@pytest.mark.long  # machine code of all updates for one architecture takes 50 s
@pytest.mark.together(1)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_variants_compile(kind, architecture):
    compiled = resources.compiled(kind, architecture)
    each = 4 * 2 * 2  # dtypes of weights, of indices, and whether there are weight_indices
    assert set(compiled) == set(resources.variants(kind))
    sums = 2 * (each + 4 * 2) + 1  # and those with a weight that all synapses share
    assert len(compiled) == {"update": 3 * 2 * each + 1 + 2 * 4, "propagate": sums, "collect": sums}[kind]
    check(compiled)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_variants_of_float32_compile(kind):
    compiled = resources.compiled(kind, "sm_90", "float")
    assert len(compiled) == {"update": 3 * 2 * 2 * 2 + 2, "propagate": 2 * 3 * 2, "collect": 2 * 3 * 2}[kind]
    check(compiled)


def test_the_recorded_table_is_of_these_kernels():
    """Figures change with the compiler; which kernels there are does not."""
    table = (Path(__file__).parents[2] / "benchmarks/results/cuda_kernels.md").read_text()
    for kind in KINDS:
        for name in resources.variants(kind):
            assert f"| `{resources.row_of(name)}` |" in table


def test_an_error_in_a_kernel_is_seen():
    with pytest.raises(RuntimeError, match=r"update\.cu\(\d+\).*nonsense"):
        nvrtc.compile_for("sm_80", source("update").replace("bounds.clip", "nonsense"), ["clip<float, FLAT>"], OPTIONS)


def test_no_kernel_uses_what_the_host_cannot_play():
    """Of what the design allows: shared memory, barriers, atomics, ballots and shuffles."""
    for kind in KINDS:
        words = set(re.findall(r"\b(?:__\w+|atomic\w+)\b", re.sub(r"//.*", "", source(kind))))
        assert words <= {
            "__device__", "__forceinline__", "__global__", "__launch_bounds__", "__shared__", "__syncthreads",
            "__CUDA_ARCH__", "atomicAdd", "__ballot_sync", "__shfl_sync", "__shfl_up_sync", "__shfl_xor_sync",
            "__popc", "__ffs",
        }  # fmt: skip
