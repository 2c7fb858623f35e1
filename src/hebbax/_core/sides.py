"""Parameters of rules that differ between the neurons of one side: which shapes they have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from hebbax.errors import ShapeError

Side = Literal["pre", "post"]


def side_of(
    name: str, shape: tuple[int, ...], sides: Iterable[Side], sizes: tuple[int, int] | None = None, hint: str = ""
) -> Side | None:
    """Of which neurons a parameter of this shape has one value each; None: one for all. Raises where it is neither.

    The shapes are those that broadcast against the weight matrix, so that a square network is not ambiguous. `sizes`
    are those of the network, if it is known.
    """
    if shape == ():
        return None
    n_pre, n_post = sizes or (None, None)
    wanted = {"pre": (n_pre, 1), "post": (1, n_post)}
    words = ["a scalar"]
    for side in sides:
        if len(shape) == 2 and all(want in (None, got) for got, want in zip(shape, wanted[side], strict=True)):
            return side
        words.append(f"{str(wanted[side]).replace('None', f'n_{side}')}, one per {side}synaptic neuron")
    raise ShapeError(f"{name}: got shape {shape}, expected {', or '.join(words)}{hint}")
