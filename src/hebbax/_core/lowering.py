"""From platform to backend, decided when XLA lowers and not when Python traces.

One traced function can so be compiled for several platforms, and every one of them gets the best backend it has.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.interpreters import mlir

from hebbax import _cpu
from hebbax._core import reference
from hebbax._core.compat import buffer_callback, cuda_plugin_missing
from hebbax._core.specs import Spec
from hebbax._cuda import launch
from hebbax._cuda.plan import plan_call

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Backend:
    """One way to run the operators, where it runs, and why it cannot run here (None: it can)."""

    name: str
    platforms: tuple[str, ...]
    description: str
    missing: str | None = None


class Entry(NamedTuple):
    """A backend of which it is not known yet whether it can run here: to find out may take an import of CuPy."""

    name: str
    platforms: tuple[str, ...]
    description: str
    missing: Callable[[], str | None]


def _cupy_missing() -> str | None:
    return launch.missing() or cuda_plugin_missing()  # the second only JAX needs, not `hebbax.inplace`


# In order of preference.
ENTRIES = (
    Entry("cython", ("cpu",), "compiled kernels, called by XLA itself", lambda: _cpu.missing),
    Entry("callback", ("cpu",), "the same kernels, called by XLA through Python", lambda: _cpu.missing),
    Entry("cupy", ("cuda",), "CUDA kernels, compiled and launched through CuPy", _cupy_missing),
    Entry("jax", PLATFORMS, "plain JAX", lambda: None),
)

CALLED_THROUGH_PYTHON = ("callback", "cupy")

# By kind of operator, whether rows are permuted, and platform: the updates in CSC order follow those in CSR order whose
# kernel they run.
_defaults: dict[tuple[str, bool, str], str] = {}

if _cpu.missing is None:
    for _kind, _capsule in _cpu.ffi_handlers().items():
        jax.ffi.register_ffi_target(f"hebbax_{_kind}", _capsule, platform="cpu")


def backends() -> tuple[Backend, ...]:
    """Return every backend with the platforms it serves and, where it cannot be used here, the reason.

    To find that out, this imports CuPy.

    Examples
    --------
    >>> import hebbax
    >>> [backend.name for backend in hebbax.backends()]
    ['cython', 'callback', 'cupy', 'jax']
    """
    return tuple(Backend(*entry[:3], entry.missing()) for entry in ENTRIES)


def available_backends(platform: str) -> tuple[str, ...]:
    """The names of the backends that can run on `platform`, best first."""
    return tuple(entry.name for entry in _entries(platform) if entry.missing() is None)


def _entries(platform: str) -> tuple[Entry, ...]:
    platform = canonical_platform(platform)
    return tuple(entry for entry in ENTRIES if platform in entry.platforms)


@functools.cache
def best_backend(platform: str) -> str:
    """The name of the first backend that can run on `platform`; warn, once, of better ones that cannot."""
    entries = _entries(platform)
    best = next(entry.name for entry in entries if entry.missing() is None)
    for entry in entries:
        if entry.name == best:
            break
        warnings.warn(
            f"hebbax: backend {best!r} runs on platform {platform!r} instead of {entry.name!r}, which is faster: "
            f"{entry.missing()}",
            RuntimeWarning,
            stacklevel=2,
        )
    return best


def canonical_platform(platform: str) -> str:
    platform = "cuda" if platform == "gpu" else platform
    if platform not in PLATFORMS:
        raise ValueError(f"platform: got {platform!r}, expected one of {', '.join(map(repr, PLATFORMS))}, 'gpu'")
    return platform


def check_backend(backend: str, platform: str | None = None) -> None:
    """Raise a ValueError unless `backend` exists and, where a platform is given, can run there."""
    if backend in [entry.name for entry in (_entries(platform) if platform else ENTRIES)]:
        if platform is None or backend in available_backends(platform):
            return
    where = f" on platform {platform!r}" if platform else ""
    usable, reasons = [], []
    for entry in ENTRIES:
        reason = entry.missing() if platform is None or platform in entry.platforms else None
        if platform is not None and platform not in entry.platforms:
            reason = f"it runs on {', '.join(entry.platforms)} only"
        if reason is None:
            usable.append(entry.name)
        else:
            reasons.append(f"{entry.name!r} cannot be used: {reason}")
    raise ValueError("; ".join([f"backend: got {backend!r}, expected one of {tuple(usable)}{where}", *reasons]))


def set_default(spec: Spec, platform: str, backend: str) -> None:
    """Make `backend` the automatic choice for `spec` on `platform`, also in functions that are already compiled."""
    platform = canonical_platform(platform)
    check_backend(backend, platform)
    _defaults[spec.kind, spec.permuted, platform] = backend
    jax.clear_caches()  # a compiled function would keep the backend it was lowered with


def lowering_rule(platform: str):
    """The lowering rule of all primitives for one platform."""

    def lower(ctx, *operands, backend: str | None, **params):
        if backend is None:
            spec = params["spec"]
            backend = _defaults.get((spec.kind, spec.permuted, platform)) or best_backend(platform)
            several = len(ctx.module_context.platforms) > 1
            if (backend in CALLED_THROUGH_PYTHON and several) or (backend == "cupy" and not _device_numbers()):
                backend = "jax"  # JAX lowers no callback for several platforms, and where it has no GPU it only exports
        check_backend(backend, platform)

        def function(weight, indices, indptr, weight_indices, spike, *others):
            spike = spike if spike.dtype == bool else spike != 0
            operands = weight, indices, indptr, weight_indices, spike, *others
            return _RUNNERS[backend](*operands, avals_out=ctx.avals_out, **params)

        return mlir.lower_fun(function, multiple_results=False)(ctx, *operands)

    return lower


def attributes(spec: Spec, clip_all: bool = False, soft_bound: str | None = None, mu: float = 1.0, **_) -> dict:
    """What the kernels are told beside their operands."""
    flags = {
        "PERMUTED": spec.permuted,
        "CSC": spec.order == "csc",
        "CLIP_ALL": clip_all,
        "SOFT_UPPER": soft_bound == "upper",
        "SOFT_LOWER": soft_bound == "lower",
    }
    told: dict[str, Any] = {"flags": np.int32(sum(_cpu.flag(name) for name, is_set in flags.items() if is_set))}
    return told | {"mu": np.float64(mu)} if spec.kind == "update" else told


def _run_cython(*operands, avals_out, spec: Spec, **params):
    (out,) = avals_out
    call = jax.ffi.ffi_call(
        f"hebbax_{spec.kind}",
        jax.ShapeDtypeStruct(out.shape, out.dtype),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
    )
    return call(*operands, **attributes(spec, **params))


def _run_callback(*operands, avals_out, spec: Spec, **params):
    (out,) = avals_out
    kernel, told = _cpu.kernels()[spec.kind], attributes(spec, **params)

    def callback(ctx, result, *buffers):
        del ctx
        kernel(result, *buffers, **told)

    call = buffer_callback(
        callback,
        jax.ShapeDtypeStruct(out.shape, out.dtype),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
    )
    return call(*operands)


def _device_numbers() -> list[int]:
    """CUDA's numbers of the devices that a program of this process may run on."""
    try:
        return [device.local_hardware_id for device in jax.local_devices(backend="cuda")]
    except RuntimeError:  # JAX knows no such backend here
        return []


def _run_cupy(*operands, avals_out, spec: Spec, **params):
    (out,) = avals_out
    plan = plan_call(spec, out, dict(zip(spec.operands, operands, strict=False)), **params)
    # Now, for this must not happen while XLA captures the launches in a CUDA graph.
    launch.prepare(plan, _device_numbers())

    def callback(ctx, results, *buffers):
        result, rows = results
        named = {"result": result, "rows": rows, **dict(zip(spec.operands, buffers, strict=False))}
        device = result.__dlpack_device__()[1]
        launch.run(plan, launch.addresses(named), device, launch.stream_of(ctx.stream, device))

    call = buffer_callback(
        callback,
        (jax.ShapeDtypeStruct(out.shape, out.dtype), jax.ShapeDtypeStruct((plan.scratch,), np.uint8)),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
        command_buffer_compatible=True,
    )
    return call(*operands)[0]


def _run_reference(*operands, avals_out, spec: Spec, **params):
    del avals_out
    return reference.run(spec, operands[: len(spec.operands)], **params)


_RUNNERS = {"cython": _run_cython, "callback": _run_callback, "cupy": _run_cupy, "jax": _run_reference}
