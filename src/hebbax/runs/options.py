"""Options that every run has, stated once: each command of `hebbax simulate` gets them by a decorator."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from hebbax._terminal import within

BackendName = Annotated[
    str | None, typer.Option(help="Backend of the operators (see `hebbax info`).", show_default="the best here")
]
Threads = Annotated[
    int | None,
    typer.Option(callback=within(1), help="Threads of the CPU kernels.", show_default="as in `hebbax info`"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run may be asked for; the annotations are options of the command line."""

    backend: BackendName = None
    threads: Threads = None


def every_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, which takes a keyword `options`, the options of `RunOptions`, and it these as one object."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        p.replace(annotation=hints[name])
        for name, p in inspect.signature(command).parameters.items()
        if name != "options"
    ]
    shared_hints = get_type_hints(RunOptions, include_extras=True)
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=shared_hints[f.name])
        for f in dataclasses.fields(RunOptions)
    ]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        chosen = RunOptions(**{p.name: values.pop(p.name) for p in shared})
        command(**values, options=chosen)

    signature = inspect.Signature([*own, *shared])
    with_options.__signature__ = signature  # type: ignore[attr-defined]  # which typer reads
    with_options.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return with_options
