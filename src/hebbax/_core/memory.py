"""Where arrays of `hebbax.inplace` lie: in the host's memory, as NumPy's, or in that of a CUDA device, as CuPy's."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hebbax import _cpu
from hebbax._core import lowering, unitless
from hebbax._core.specs import Spec
from hebbax._cuda import launch
from hebbax._cuda.plan import plan_call

CUDA = (2, 13)  # DLPack's device types: CUDA's own memory, and what it shares with the host
_BFLOAT16 = np.dtype("bfloat16")
_attributes = functools.lru_cache(lowering.attributes)


def memory_of(name: str, x: Any) -> Host | Cuda:
    """Where `x` lies, if there are kernels for that; raises otherwise."""
    on_host = isinstance(x, (bool, int, float, np.generic)) or unitless.in_host_memory(name, x)
    device_type, device = (1, 0) if on_host else map(int, x.__dlpack_device__())
    what = f"{name}: got a {type(x).__name__}"
    if device_type in CUDA:
        if reason := launch.missing():
            raise RuntimeError(f"{what} on a CUDA device, whose kernels cannot be used: {reason}")
        return Cuda(device)
    if _cpu.missing:
        raise RuntimeError(f"the CPU kernels cannot be used: {_cpu.missing}")
    if not on_host:
        raise NotImplementedError(
            f"{what} on a device of DLPack type {device_type}, expected one in the host's memory (1) or on a CUDA "
            f"device (2)"
        )
    return Host()


class Host:
    """The host's memory."""

    xp = np

    def here(self) -> contextlib.AbstractContextManager:
        """A context in which arrays are made and kernels run."""
        return np.errstate(all="ignore")

    def view(self, name: str, x: Any) -> np.ndarray:
        """The memory of an array as one of this kind; nothing is copied."""
        if not unitless.in_host_memory(name, x):
            raise ValueError(f"{name}: got a {type(x).__name__} on another device than weight, which is in host memory")
        return unitless.host_array(name, x)

    def is_read_only(self, x: np.ndarray) -> bool:
        return not x.flags.writeable

    def is_laid_out(self, x: np.ndarray) -> bool:
        """Whether kernels can use it as it is."""
        return x.flags.c_contiguous and x.flags.aligned

    def check_copy(self, name: str, x: np.ndarray, dtype: np.dtype) -> None:
        """Raise where a copy would not live as long as what reads it."""

    def run(self, spec: Spec, result: np.ndarray, operands: Mapping[str, np.ndarray | None], **options: Any) -> None:
        """Run the operator's kernel on operands of its dtypes, all of them flat; None: not given."""
        arrays = [None if x is None else _as_kernels_take(x) for x in operands.values()]
        _cpu.kernels()[spec.kind](_as_kernels_take(result), *arrays, **_attributes(spec, **options))


class Cuda:
    """The memory of one CUDA device."""

    def __init__(self, device: int):
        self.device = device
        self.xp = importlib.import_module("cupy")

    def here(self) -> contextlib.AbstractContextManager:
        return self.xp.cuda.Device(self.device)

    def view(self, name: str, x: Any) -> Any:
        expected = f"expected an array on that of weight, CUDA device {self.device}"
        if isinstance(x, (np.ndarray, np.generic)):
            if x.ndim == 0:  # a number, which needs no place
                return unitless.host_array(name, x)
            raise TypeError(f"{name}: got a NumPy array, {expected}: pass `cupy.asarray({name})`")
        if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
            raise TypeError(f"{name}: got {type(x).__name__}, expected an array or a real number")
        device_type, device = map(int, x.__dlpack_device__())
        if device_type not in CUDA or device != self.device:
            raise ValueError(
                f"{name}: got a {type(x).__name__} on device {device} of DLPack type {device_type}, {expected}"
            )
        if isinstance(x, self.xp.ndarray):
            return x
        try:
            return self.xp.from_dlpack(x)
        except Exception as error:  # whatever its library, or CuPy, raises
            raise TypeError(f"{name}: got {type(x).__name__}, which CuPy cannot take: {error}") from error

    def is_read_only(self, x: Any) -> bool:
        return False  # CuPy does not know

    def is_laid_out(self, x: Any) -> bool:
        return x.flags.c_contiguous and x.data.ptr % x.dtype.itemsize == 0

    def check_copy(self, name: str, x: Any, dtype: np.dtype) -> None:
        """Raise where a copy would not live as long as what reads it: a CUDA graph, if one is captured."""
        if self.xp.cuda.get_current_stream().is_capturing():
            raise ValueError(
                f"{name}: got a {type(x).__name__} of dtype {x.dtype} of which a copy is needed while a CUDA graph is "
                f"captured, which outlives it, expected a contiguous array of dtype {dtype} on CUDA device "
                f"{self.device}"
            )

    def run(self, spec: Spec, result: Any, operands: Mapping[str, Any], **options: Any) -> None:
        """Run the operator's kernels on operands of its dtypes, all of them flat; None: not given."""
        shapes = tuple([None if x is None else (x.shape, x.dtype) for x in operands.values()])
        call = _cuda_call(spec, _Aval(result.shape, result.dtype), shapes, self.device, tuple(options.items()))
        stream = self.xp.cuda.get_current_stream()
        addresses = [0 if x is None else x.data.ptr for x in operands.values()]
        addresses.append(result.data.ptr)
        if not stream.is_capturing():
            scratch = self.xp.empty(call.scratch, np.uint8)
            call.launcher(self.device, stream.ptr, [*addresses, scratch.data.ptr])
            return
        if not call.launcher.is_loaded(self.device):  # to load now would fail, and end the capture
            raise RuntimeError(
                f"{spec.name}: the kernels for these shapes and dtypes are not loaded on CUDA device {self.device} "
                f"yet, which cannot be done while a CUDA graph is captured: call it once before"
            )
        # Memory of the graph's own, which CuPy's pool cannot give to others while the graph lives.
        runtime = self.xp.cuda.runtime
        scratch = runtime.mallocAsync(call.scratch, stream.ptr)
        try:
            call.launcher(self.device, stream.ptr, [*addresses, scratch])
        finally:
            runtime.freeAsync(scratch, stream.ptr)


class _Aval(NamedTuple):
    """What an array is but for its content."""

    shape: tuple[int, ...]
    dtype: np.dtype


class _CudaCall(NamedTuple):
    launcher: Any
    scratch: int  # bytes of memory that it needs beside its operands


@functools.lru_cache(maxsize=4096)
def _cuda_call(
    spec: Spec, result: _Aval, operands: tuple[tuple | None, ...], device: int, options: tuple[tuple[str, Any], ...]
) -> _CudaCall:
    """A call of the CUDA kernels, planned and encoded once for all arrays of these shapes and dtypes."""
    from hebbax._cuda.native import Launcher

    given = {name: _Aval(*x) for name, x in zip(spec.operands, operands, strict=True) if x is not None}
    plan = plan_call(spec, result, given, **dict(options))
    return _CudaCall(Launcher(**launch.encode(plan, spec, result, [device])), plan.scratch)


def _as_kernels_take(x: np.ndarray) -> np.ndarray:
    """The same memory; bfloat16, which Python's buffer protocol does not know, as uint16."""
    return x.view(np.uint16) if x.dtype == _BFLOAT16 else x
