"""What there is: the card, versions, hebbax's backends, and what its kernels need of a multiprocessor."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from typing import Any

from gpu_stage import Cases, Options, Skipped, first_line
from machine import PACKAGES, versions

import hebbax
from hebbax._core.specs import SPECS, Spec

CUDA_PACKAGES = (
    "jax-cuda12-plugin", "jax-cuda13-plugin", "cupy-cuda12x", "cupy-cuda13x", "cuda-pathfinder",
    "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "pytest-xdist",
)  # fmt: skip
ATTRIBUTES = ("num_regs", "local_size_bytes", "shared_size_bytes", "max_threads_per_block")


def cases(options: Options) -> Cases:
    yield "card", lambda: card(options)
    yield "versions", lambda: installed((*PACKAGES, *CUDA_PACKAGES))
    yield "backends", lambda: backends(options)
    for spec in SPECS:
        yield f"kernels of {spec.name}", functools.partial(kernels, options, spec)


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    return {name: number for name, number in versions(packages).items() if number != "not installed"}


def card(options: Options) -> dict[str, str]:
    """As JAX, the driver and CuPy name it."""
    import jax

    device = jax.devices(options.platform)[0]
    about = {
        "device": device.device_kind,
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "xla": " ".join(device.client.platform_version.split()),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    if not options.on_gpu:
        return about
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem", "--format=csv"]
    try:
        about["nvidia-smi"] = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        about["nvidia-smi"] = first_line(error)
    import cupy

    runtime = cupy.cuda.runtime
    return about | {"cuda": f"runtime of CuPy {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"}


def backends(options: Options) -> dict[str, str]:
    """Why a backend cannot be used, by its name; on a GPU all must."""
    if not options.on_gpu:
        import problems  # installs the stand-in for CuPy

        assert problems.WHY_NO_CUPY is None, problems.WHY_NO_CUPY
    missing = {backend.name: backend.missing or "" for backend in hebbax.backends()}
    assert not missing["cupy"], f"backend 'cupy' cannot be used: {missing['cupy']}"
    return missing


def kernels(options: Options, spec: Spec) -> dict[str, Any]:
    """Registers, spills and shared memory of an operator's kernels for float32 and int32, as CuPy compiles them."""
    if not options.on_gpu:
        raise Skipped("only a GPU's compiler knows")
    import cupy

    from hebbax._cuda.launch import OPTIONS, source
    from hebbax._cuda.plan import WAYS, expressions

    names = tuple(
        dict.fromkeys(name for way in WAYS for name in expressions(spec, "float32", "int32", way=way).values())
    )
    module = cupy.RawModule(code=source(spec.kind), options=OPTIONS, name_expressions=names)
    return {name: {key: module.get_function(name).attributes[key] for key in ATTRIBUTES} for name in names}
