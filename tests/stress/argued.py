"""Changes that no test can find, as results stay the same, and why."""

from __future__ import annotations

import re
from typing import NamedTuple

from mutants import Mutant

SPEED = "a threshold between ways with the same result"
AHEAD = "how far ahead memory is fetched: no result depends on it"


class Argued(NamedTuple):
    path: str
    line: str  # a regular expression that the whole line has in it
    why: str
    change: str = ""  # one that "old -> new" has in it


ARGUED: tuple[Argued, ...] = ()


def argument(mutant: Mutant, line: str) -> str:
    """Why a change of this line has no effect; nothing if no reason is known."""
    change = f"{mutant.old} -> {mutant.new}"
    for known in ARGUED:
        if mutant.path == known.path and re.search(known.line, line) and known.change in change:
            return known.why
    return ""
