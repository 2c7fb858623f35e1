"""Everything whose place or name depends on the version of JAX."""

from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive

__all__ = ["Primitive", "buffer_callback"]
