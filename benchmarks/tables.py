"""What all tables of results share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby


def groups(results: dict) -> Iterator[tuple[str, list[dict]]]:
    names = list(dict.fromkeys(case["group"] for case in results["cases"]))
    ordered = sorted(results["cases"], key=lambda case: names.index(case["group"]))
    for name, cases in groupby(ordered, key=lambda case: case["group"]):
        yield name, list(cases)


def microseconds(value: float) -> str:
    """Three significant digits, thousands apart."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}".replace(",", " ")
