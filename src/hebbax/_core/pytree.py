"""Frozen dataclasses as JAX pytrees."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def pytree(*static: str) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass as a pytree: its fields are children, but for `static` ones, which must be hashable.

    `jax.tree_util.register_dataclass` would call `__init__` whenever JAX puts an instance together again, and JAX does
    that with tracers, `None` and its own placeholders, of which no check could be passed.
    """

    def register(cls: type[T]) -> type[T]:
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        children = [name for name in names if name not in static]
        keys = [jax.tree_util.GetAttrKey(name) for name in children]

        def flatten(x: T) -> tuple[tuple, tuple]:
            return tuple(getattr(x, name) for name in children), tuple(getattr(x, name) for name in static)

        def flatten_with_keys(x: T) -> tuple[tuple, tuple]:
            leaves, aux = flatten(x)
            return tuple(zip(keys, leaves, strict=True)), aux

        def unflatten(aux: tuple, leaves: Any) -> T:
            return assemble(cls, dict(zip((*children, *static), (*leaves, *aux), strict=True)))

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register


def assemble(cls: type[T], fields: Mapping[str, Any]) -> T:
    """An instance of a frozen dataclass with these fields, neither `__init__` nor `__post_init__` called."""
    instance = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
    return instance
