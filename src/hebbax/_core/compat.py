"""Everything whose place or name depends on the version of JAX."""

import functools
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import jax
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import batching
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64  # type: ignore[attr-defined, no-redef]

try:
    from jax._src.xla_bridge import backends_are_initialized  # to ask JAX itself would start it
except ImportError:

    def backends_are_initialized() -> bool:
        return True


__all__ = [
    "BATCHING_RULES",
    "Primitive",
    "backends_are_initialized",
    "batch",
    "buffer_callback",
    "cuda_plugin_missing",
    "enable_x64",
    "reshard",
    "shard_map",
    "vary_alike",
]

# With its check of varying axes; before JAX 0.8, functions of JAX (`searchsorted`) do not pass that.
shard_map = jax.shard_map if hasattr(jax.lax, "pcast") else functools.partial(jax.shard_map, check_vma=False)

# By primitive. In newer JAX rules cannot be read where they are set, and are told the batch's axis before all else.
_rules: Any = batching.primitive_batchers
_told_axis = not isinstance(_rules, dict)
BATCHING_RULES: dict[Any, Callable] = batching.fancy_primitive_batchers if _told_axis else _rules


def batch(rule: Callable, operands: Sequence[Any], axes: Sequence[Any], **params: Any) -> Any:
    """Call a rule of `BATCHING_RULES` that was set in `jax.interpreters.batching.primitive_batchers`."""
    return rule(*([None] if _told_axis else []), operands, axes, **params)


@functools.cache
def cuda_plugin_missing() -> str | None:
    """Say in one sentence that JAX has no plugin for CUDA; None: it has one. To ask JAX's devices would start JAX."""
    names = [entry.name for entry in entry_points(group="jax_plugins")]
    if package := importlib.util.find_spec("jax_plugins"):
        names += [module.name for module in pkgutil.iter_modules(package.submodule_search_locations)]
    if any("cuda" in name for name in names):
        return None
    return "JAX has no plugin for CUDA: install jax[cuda13] or jax[cuda12], whichever the driver supports"


def vary_alike(operands: Sequence[Any]) -> list[Any]:
    """The operands as arrays that vary over the same axes of a `shard_map`: over all that one of them does.

    This is what `jax.shard_map` checks of a primitive unless `check_vma=False`, and what it needs for derivatives.
    """
    varying = [_varying_axes(x) for x in operands]
    axes = frozenset().union(*varying)
    return [_vary(x, axes - own) if axes - own else x for x, own in zip(operands, varying, strict=True)]


def _varying_axes(x: Any) -> frozenset:
    aval = jax.typeof(x)
    if hasattr(aval, "manual_axis_type"):  # since JAX 0.10
        return aval.manual_axis_type.varying
    return aval.vma


def _vary(x: Any, axes: frozenset) -> Any:
    if hasattr(jax.lax, "pcast"):  # since JAX 0.8
        return jax.lax.pcast(x, tuple(axes), to="varying")
    return jax.lax.pvary(x, tuple(axes))  # type: ignore[attr-defined]


def reshard(x: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """`x` laid out as a `shard_map` with this spec wants it, which does not see to that where axes are explicit.

    JAX 0.6 has no function for this, and no such axes unless they are asked for.
    """
    if AxisType.Explicit in mesh.axis_types and hasattr(jax.sharding, "reshard"):
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))
    return x
