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
from hebbax._core import members, reference
from hebbax._core.compat import buffer_callback, cuda_plugin_missing
from hebbax._core.specs import OPERANDS, Sent, Spec
from hebbax._cuda import launch
from hebbax._cuda.plan import plan_call

try:
    import hebbax._cuda.native as native
    from hebbax._core.dlpack import pointers
except ImportError:  # not built here, as `launch.missing` says
    native = None

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Backend:
    """One way to run the operators, where it runs, and why it cannot run here (None: it can)."""

    name: str
    platforms: tuple[str, ...]
    description: str
    missing: str | None = None


class Entry(NamedTuple):
    """A backend, and where it runs: for each platform what says why it cannot run here (which may import CuPy)."""

    name: str
    missing: dict[str, Callable[[], str | None]]
    description: str


def _missing_on_cpu() -> str | None:
    return _cpu.missing


def _missing_on_cuda() -> str | None:
    return launch.missing() or cuda_plugin_missing()  # the second only JAX needs, not `hebbax.inplace`


# In order of preference.
ENTRIES = (
    Entry("cython", {"cpu": _missing_on_cpu}, "compiled kernels, called by XLA itself"),
    Entry("cupy", {"cuda": _missing_on_cuda}, "CUDA kernels, compiled by CuPy, launched by XLA itself"),
    Entry(
        "callback", {"cpu": _missing_on_cpu, "cuda": _missing_on_cuda}, "the same kernels, called by XLA through Python"
    ),
    Entry("jax", dict.fromkeys(PLATFORMS, lambda: None), "plain JAX"),
)

# By kind of operator, whether rows are permuted, and platform: the updates in CSC order follow those in CSR order whose
# kernel they run.
_defaults: dict[tuple[str, bool, str], str] = {}

if _cpu.missing is None:
    for _kind, _capsule in _cpu.ffi_handlers().items():
        jax.ffi.register_ffi_target(f"hebbax_{_kind}", _capsule, platform="cpu")
if native is not None:
    for _kind in OPERANDS:  # JAX keeps this until there is a plugin for CUDA, and starts nothing
        jax.ffi.register_ffi_target(f"hebbax_cuda_{_kind}", native.capsules(), platform="CUDA")


def backends() -> tuple[Backend, ...]:
    """Return every backend with the platforms it serves and, where it cannot be used here, the reason.

    To find that out, this imports CuPy.

    Examples
    --------
    >>> import hebbax
    >>> [backend.name for backend in hebbax.backends()]
    ['cython', 'cupy', 'callback', 'jax']
    """
    return tuple(_backend(entry) for entry in ENTRIES)


def _backend(entry: Entry) -> Backend:
    reasons = [missing() for missing in entry.missing.values()]
    usable = None in reasons
    return Backend(entry.name, tuple(entry.missing), entry.description, None if usable else reasons[0])


def available_backends(platform: str) -> tuple[str, ...]:
    """The names of the backends that can run on `platform`, best first."""
    return tuple(name for name, missing in _candidates(platform).items() if missing() is None)


def _candidates(platform: str) -> dict[str, Callable[[], str | None]]:
    """The backends that run on a platform, best first, with what says why one cannot here."""
    platform = canonical_platform(platform)
    return {entry.name: entry.missing[platform] for entry in ENTRIES if platform in entry.missing}


@functools.cache
def best_backend(platform: str) -> str:
    """The name of the first backend that can run on `platform`; warn, once, if it is not the fastest one."""
    candidates = _candidates(platform)
    best = next(name for name, missing in candidates.items() if missing() is None)
    fastest = next(iter(candidates))
    if best != fastest:
        warnings.warn(
            f"hebbax: backend {best!r} runs on platform {platform!r} instead of {fastest!r}, which is faster: "
            f"{candidates[fastest]()}",
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
    if backend in (available_backends(platform) if platform else [entry.name for entry in ENTRIES]):
        return
    usable, reasons = [], []
    for entry in ENTRIES:
        if platform is None:
            reason = _backend(entry).missing
        elif platform in entry.missing:
            reason = entry.missing[platform]()
        else:
            reason = f"it runs on {', '.join(entry.missing)} only"
        if reason is None:
            usable.append(entry.name)
        else:
            reasons.append(f"{entry.name!r} cannot be used: {reason}")
    where = f" on platform {platform!r}" if platform else ""
    raise ValueError("; ".join([f"backend: got {backend!r}, expected one of {tuple(usable)}{where}", *reasons]))


def set_default(spec: Spec, platform: str, backend: str) -> None:
    """Make `backend` the automatic choice for `spec` on `platform`, also in functions that are already compiled."""
    platform = canonical_platform(platform)
    check_backend(backend, platform)
    _defaults[spec.kind, spec.permuted, platform] = backend
    jax.clear_caches()  # a compiled function would keep the backend it was lowered with


def default_backend(spec: Spec, platform: str) -> str:
    """The backend of a call that names none."""
    return _defaults.get((spec.kind, spec.permuted, platform)) or best_backend(platform)


def chosen_backend(ctx, platform: str, spec: Spec, backend: str | None) -> str:
    """The backend of a call that is lowered for a platform: the one that was asked for, if it can run there."""
    if backend is None:
        backend = default_backend(spec, platform)
        several = len(ctx.module_context.platforms) > 1
        if (backend != "cython" and several) or (platform == "cuda" and not _device_numbers()):
            backend = "jax"  # JAX lowers no callback for several platforms, and where it has no GPU it only exports
    check_backend(backend, platform)
    return backend


def lowering_rule(platform: str):
    """The lowering rule of all primitives for one platform."""

    def lower(ctx, *operands, backend: str | None, **params):
        backend = chosen_backend(ctx, platform, params["spec"], backend)
        run = _call_back_on_cuda if (backend, platform) == ("callback", "cuda") else _RUNNERS[backend]

        def function(out, weight, indices, indptr, weight_indices, spike, *others):
            lists = params["spec"].arrivals is not None
            spike = spike if spike.dtype == bool or lists else spike != 0
            operands = weight, indices, indptr, weight_indices, spike, *others
            called = functools.partial(run, out=out)
            if lists and backend != "cython":
                return reference.without_lists(called, *operands, **params)
            return called(*operands, **params)

        if backend in ("cython", "cupy"):  # the others XLA splits itself, or keeps no Python function of a part
            return members.lower(ctx, function, *operands, read=len(params["spec"].operands))
        return mlir.lower_fun(functools.partial(function, *ctx.avals_out), multiple_results=False)(ctx, *operands)

    return lower


def register(primitive: Any, on_cpu: Callable, in_jax: Callable) -> None:
    """Lower a primitive by a rule on CPUs, where the kernels are there, and as a function of plain JAX elsewhere."""
    plain = mlir.lower_fun(in_jax, multiple_results=False)
    for platform in PLATFORMS:
        native = platform == "cpu" and _cpu.missing is None
        mlir.register_lowering(primitive, on_cpu if native else plain, platform=platform)


def attributes(spec: Spec, clip_all: bool = False, soft_bound: str | None = None, mu: float = 1.0, **_) -> dict:
    """What the kernels are told beside their operands."""
    flags = {
        "PERMUTED": spec.permuted,
        "CSC": spec.order == "csc",
        "CLIP_ALL": clip_all,
        "SOFT_UPPER": soft_bound == "upper",
        "SOFT_LOWER": soft_bound == "lower",
        "LISTED": spec.arrivals is not None,
        "SENT": isinstance(spec.arrivals, Sent),
        "SECOND": isinstance(spec.arrivals, Sent) and spec.arrivals.second,
        "DUE": spec.arrivals is not None and spec.arrivals.due,
        "SHIFTED": spec.arrivals is not None and spec.arrivals.shifted,
    }
    told: dict[str, Any] = {"flags": np.int32(sum(_cpu.flag(name) for name, is_set in flags.items() if is_set))}
    return told | {"mu": np.float64(mu)} if spec.kind == "update" else told


def _run_cython(*operands, out, spec: Spec, **params):
    call = jax.ffi.ffi_call(
        f"hebbax_{spec.kind}",
        jax.ShapeDtypeStruct(out.shape, out.dtype),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
    )
    return call(*operands, **attributes(spec, **params))


def _run_callback(*operands, out, spec: Spec, **params):
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


def _run_cupy(*operands, out, spec: Spec, **params):
    encoded, scratch = _encode(operands, out, spec, **params)
    call = jax.ffi.ffi_call(
        f"hebbax_cuda_{spec.kind}",
        (jax.ShapeDtypeStruct(out.shape, out.dtype), scratch),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
    )
    return call(*operands, **encoded)[0]


def _call_back_on_cuda(*operands, out, spec: Spec, **params):
    encoded, scratch = _encode(operands, out, spec, **params)
    launcher, count = native.Launcher(**encoded), len(spec.operands)

    def callback(ctx, results, *buffers):
        _, device = results[0].__dlpack_device__()
        launcher(device, ctx.stream, pointers((*buffers[:count], *results)))

    call = buffer_callback(
        callback,
        (jax.ShapeDtypeStruct(out.shape, out.dtype), scratch),
        input_output_aliases={0: 0} if spec.kind == "update" else None,
        command_buffer_compatible=True,
    )
    return call(*operands)[0]


def _encode(operands, out, spec: Spec, **params) -> tuple[dict[str, Any], jax.ShapeDtypeStruct]:
    """A call of the CUDA kernels, whose compilation fails here rather than where XLA runs it; its scratch memory."""
    plan = plan_call(spec, out, dict(zip(spec.operands, operands, strict=False)), **params)
    devices = _device_numbers() or [0]
    encoded = launch.encode(plan, spec, out, devices)
    for device in devices:
        native.Launcher(**encoded).load(device)
    return encoded, jax.ShapeDtypeStruct((plan.scratch,), np.uint8)


def _run_reference(*operands, out, spec: Spec, **params):
    del out
    return reference.run(spec, operands[: len(spec.operands)], **params)


_RUNNERS = {"cython": _run_cython, "callback": _run_callback, "cupy": _run_cupy, "jax": _run_reference}
