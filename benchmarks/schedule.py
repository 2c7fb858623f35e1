"""How the kernels' schedule divides a step among more threads than there are cores here. See `schedule.py --help`.

A simulation, not a measurement: of the arithmetic by which the kernels choose chunks, and of which elements fall into
them, in networks drawn here. It knows no time: what it counts is work, cache lines and bytes.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from machine import commit
from rich.console import Console
from rich.table import Table

import hebbax
from hebbax._cpu import propagate as propagate_kernel
from hebbax._cpu import rows as kernel_rows
from hebbax._cpu import threads as kernel_threads
from hebbax._cpu import update as update_kernel

RESULTS = Path(__file__).parent / "results"
LINE = 64  # bytes
NETWORKS = {  # neurons, synapses of each, Hz; steps of 0.1 ms
    "cuba": (4_000, 80, 20.0),
    "brunel10k": (10_000, 1_000, 35.0),
    "hpc, a tenth of the synapses": (11_250, 1_125, 11.0),
    "rows of 100, 1% spike": (100_000, 100, 100.0),
    "rows of 1 000, 10% spike": (10_000, 1_000, 1000.0),
}
COLUMNS = (
    "network", "operator", "elements a step", "threads", "chunks", "most work over mean", "rows of a thread, at most",
    "lines written", "by more than one thread", "kB of a thread, at most",
)  # fmt: skip


class Side(NamedTuple):
    """A network's rows, as an operator sees them."""

    indices: np.ndarray
    indptr: np.ndarray
    slots: np.ndarray | None


class Share(NamedTuple):
    """What falls to the threads in a step."""

    elements: int
    chunks: int
    imbalance: float  # the most elements of a thread over the mean of all threads
    rows: int  # that a thread has elements of, at most
    lines: int  # of weights or sums that are written
    shared: int  # by more than one thread
    bytes: int  # of all lines that a thread reads or writes, at most


def rows_of(side: Side, spikes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each spiking neuron's row begins, and its size; no more of them than the kernels take at once."""
    begin, size = side.indptr[spikes].astype(np.int64), np.diff(side.indptr)[spikes].astype(np.int64)
    if spikes.size > kernel_rows.BATCH - 64:
        raise ValueError(f"spikes: got {spikes.size}, expected at most {kernel_rows.BATCH - 64}")
    return begin[size > 0], size[size > 0]


def chunks_of_targets(side: Side, n: int, begin: np.ndarray, size: np.ndarray) -> tuple[int, np.ndarray]:
    """`propagate`: the number of chunks, and that of each element."""
    k, elements = elements_of(begin, size), int(size.sum())
    lines = -(-n // propagate_kernel.LINE)
    parts = kernel_threads.chunks(elements, propagate_kernel.GRAIN, 1)
    parts = max(1, min(parts, elements // (propagate_kernel.RUN * size.size), lines))
    ends = lines * np.arange(1, parts + 1) // parts
    return parts, np.searchsorted(ends, side.indices[k] // propagate_kernel.LINE, side="right")


def chunks_of_rows_or_places(side: Side, n: int, begin: np.ndarray, size: np.ndarray) -> tuple[int, np.ndarray]:
    """`update`: the number of chunks, and that of each element."""
    elements, nse = int(size.sum()), side.indices.size
    chunks = kernel_threads.chunks(elements, update_kernel.GRAIN, 2)
    parts = np.arange(1, chunks + 1)
    if not update_kernel.by_places(chunks, side.slots is not None, nse, size.size, elements):
        return chunks, np.searchsorted(elements * parts // chunks, np.arange(elements), side="right")
    ends = update_kernel.PLACES * parts // chunks / update_kernel.PLACES
    place = np.arange(elements) - np.repeat(np.cumsum(size) - size, size)
    found = [np.searchsorted((s * ends).astype(np.int64), np.arange(s), side="right") for s in np.unique(size)]
    return chunks, np.concatenate(found)[np.repeat(starts_of_sizes(size), size) + place]


def starts_of_sizes(size: np.ndarray) -> np.ndarray:
    """Where each row's size begins among `range(s)` for every different size `s`, one after the other."""
    different, which = np.unique(size, return_inverse=True)
    return (np.cumsum(different) - different)[which]


def elements_of(begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The positions of the rows' elements."""
    return np.arange(size.sum()) + np.repeat(begin - (np.cumsum(size) - size), size)


def threads_of(work: np.ndarray, threads: int) -> np.ndarray:
    """Which thread runs each chunk, if each claims the next one when it is through: all equally fast."""
    busy, found = np.zeros(threads), np.zeros(work.size, int)
    for chunk, elements in enumerate(work):
        found[chunk] = busy.argmin()
        busy[found[chunk]] += elements
    return found


def share(side: Side, n: int, spikes: np.ndarray, threads: int, kind: str) -> Share:
    """What one step comes to."""
    hebbax.set_num_threads(threads)
    begin, size = rows_of(side, spikes)
    divide = chunks_of_targets if kind == "propagate" else chunks_of_rows_or_places
    chunks, chunk = divide(side, n, begin, size)
    owner = threads_of(np.bincount(chunk, minlength=chunks), threads)[chunk]
    k = elements_of(begin, size)
    slots = k if side.slots is None else side.slots[k].astype(np.int64)
    rows = np.unique(np.stack([owner, np.repeat(np.arange(size.size), size)]), axis=1)[0]
    written = np.unique(np.stack([owner, (side.indices[k] if kind == "propagate" else slots) * 4 // LINE]), axis=1)
    _, times = np.unique(written[1], return_counts=True)
    # Indices, slots, and weights and sums or traces lie apart.
    arrays = [k, slots, side.indices[k]] + ([] if side.slots is None else [k])
    touched = [np.unique(np.stack([owner, array * 4 // LINE]), axis=1)[0] for array in arrays]
    return Share(
        k.size, chunks, np.bincount(owner, minlength=threads).max() * threads / k.size, int(np.bincount(rows).max()),
        times.size, int((times > 1).sum()), LINE * int(np.bincount(np.concatenate(touched)).max()),
    )  # fmt: skip


def cells(name: str, kind: str, threads: int, found: Share) -> list[str]:
    """A row of the table, as `COLUMNS`."""
    return [
        name, kind, f"{found.elements:,}", str(threads), str(found.chunks), f"{found.imbalance:.2f}",
        f"{found.rows:,}", f"{found.lines:,}", f"{found.shared / found.lines:.1%}", f"{found.bytes / 1e3:,.0f}",
    ]  # fmt: skip


def main(
    networks: Annotated[list[str], typer.Option(help="One or several.")] = list(NETWORKS),  # noqa: B006
    threads: Annotated[list[int], typer.Option(min=1, help="Numbers of threads.")] = [1, 2, 8, 64],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Of the networks and their spikes.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the file.")] = RESULTS,
) -> None:
    """Simulate the schedule of a step, print a table and write it as Markdown."""
    if unknown := set(networks) - set(NETWORKS):
        raise typer.BadParameter(f"got {', '.join(sorted(unknown))}, expected some of: {'; '.join(NETWORKS)}")
    rows = []
    for name in networks:
        n, degree, rate = NETWORKS[name]
        rng = np.random.default_rng(seed)
        spikes = np.flatnonzero(rng.random(n) < rate * 1e-4)
        synapses = hebbax.Synapses.random((n, n), outdegree=degree, seed=seed)
        pre = Side(*map(np.asarray, (synapses.indices, synapses.indptr)), None)
        post = Side(*map(np.asarray, (synapses.csc_indices, synapses.csc_indptr, synapses.weight_indices)))
        for kind, side in {"propagate": pre, "update pre": pre, "update post": post}.items():
            for count in threads:
                rows.append(cells(name, kind, count, share(side, n, spikes, count, kind)))
    text = [
        f"**A simulation of the schedule, not a measurement.** It counts what falls to each thread, by the arithmetic "
        f"of the kernels, in networks of the published sizes and rates, drawn here; no thread was run. "
        f"`{shlex.join(['python', 'benchmarks/schedule.py', *sys.argv[1:]])}` at {commit()}, "
        f"{datetime.date.today().isoformat()}.",
        "One step of 0.1 ms. Most work over mean: elements of the thread that has most over the mean of all threads, "
        "idle ones too, where each claims the next chunk when it is through and all are equally fast; the number of "
        "threads over it is what they can be faster, at most. Lines: of 64 bytes, of the weights that an update, or "
        "the sums that `propagate` writes. kB: all lines that a thread reads or writes.",
    ]
    table = Table(*COLUMNS, title="The schedule, simulated", title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(table)
    lines = [" | ".join(COLUMNS), "---|---|" + "|".join(["---:"] * (len(COLUMNS) - 2)), *map(" | ".join, rows)]
    output.mkdir(parents=True, exist_ok=True)
    report = ["# The schedule of the kernels, simulated", *text, "\n".join(f"| {line} |" for line in lines)]
    (output / "schedule.md").write_text("\n\n".join(report) + "\n")
    console.print(f"wrote {output / 'schedule.md'}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
