"""What a part of `make stress` found, kept as JSON, and the table that docs/reliability.md makes of all of it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results: `make stress` writes them -->", "<!-- end of results -->"

sys.path.insert(0, str(ROOT / "benchmarks"))
from machine import commit, machine, versions  # noqa: E402

HEAD = ("part", "what", "how much", "seed", "seconds", "found")
USED = ("hebbax", "jax", "jaxlib", "numpy")


@dataclasses.dataclass(frozen=True)
class Result:
    """One row: `what` was done `count` times (calls, mutants, steps, ...), in so many seconds, and what that showed."""

    what: str
    count: int
    unit: str
    seconds: float
    found: str  # "nothing", or what
    passed: bool
    seed: int | None = None


def keep(part: str, results: list[Result], effort: float, folder: Path = RESULTS) -> None:
    """Write what a part found, whole or not at all, beside the effort, machine, versions and commit."""
    known = versions(USED)
    about = {
        "machine": machine()["cpu"], "commit": commit(), "date": datetime.date.today().isoformat(), "effort": effort,
        "versions": ", ".join(f"{name} {known[name]}" for name in known),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(about | {"results": [dataclasses.asdict(x) for x in results]}, indent=1) + "\n")
    scratch.replace(path)


def table(folder: Path = RESULTS) -> str:
    """All that is kept, in Markdown."""
    lines = [" | ".join(HEAD), "---|---|---:|---:|---:|---"]
    notes = {}
    for path in sorted(folder.glob("*.json")):
        about = json.loads(path.read_text())
        effort = f"effort {about['effort']:g}, " if "effort" in about else ""
        notes[path.stem] = f"{effort}{about['date']}, {about['commit']}, {about['machine']}; {about['versions']}"
        for row in (Result(**x) for x in about["results"]):
            found = row.found if row.passed else f"**{row.found}**"
            seed = "" if row.seed is None else str(row.seed)
            cells = (path.stem, row.what, f"{row.count:,} {row.unit}", seed, f"{row.seconds:,.0f}", found)
            lines.append(" | ".join(cells))
    same: dict[str, list[str]] = {}
    for part, note in notes.items():
        same.setdefault(note, []).append(part)
    said = "\n".join(f"- {', '.join(parts)}: {note}" for note, parts in same.items())
    return "\n".join(f"| {line} |" for line in lines) + f"\n\nWhen, on what commit and machine:\n\n{said}\n"


def write_page(page: Path = PAGE, folder: Path = RESULTS) -> None:
    """Put the table where the page has its place for it."""
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(folder)}\n{END}{after}", "utf-8")
