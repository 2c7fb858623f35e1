"""Everything whose place or name depends on the version of JAX."""

from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64  # type: ignore[attr-defined, no-redef]

__all__ = ["Primitive", "buffer_callback", "enable_x64"]
