"""What an all-gather between real processes takes, by each of JAX's implementations for CPUs. See `messages.py --help`.

    python benchmarks/messages.py

The processes are on this machine, so a message goes through the kernel (Gloo: TCP to itself) or shared memory (MPI) and
over no cable. What this measures is the part of an exchange that is software: XLA's, that of the implementation, and
waking up. `measure` is for other scripts.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import commit, machine, versions
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
IMPLEMENTATIONS = ("gloo", "mpi")
SIZES = tuple(16 * 4**k for k in range(10))  # bytes of a process: to 4 MB
LIMIT = 600  # seconds after which processes that hang are ended
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")  # where an MPI says which process one is
# Messages that follow one another in an all-gather, by the sources of Gloo (gloo/allgather.cc), a ring, and of MPICH
# (src/mpi/coll): recursive doubling, or Bruck's algorithm where the processes are no power of two, unless much is
# gathered, 512 kB in all (80 kB): then a ring too.
ROUNDS: dict[str, Callable[[int], int]] = {"gloo": lambda n: n - 1, "mpi": lambda n: math.ceil(math.log2(n))}


@dataclass(frozen=True)
class Row:
    """An all-gather of `size` bytes from each process: seconds, the median of rounds and the quartiles."""

    implementation: str
    processes: int
    size: int
    seconds: float
    low: float
    high: float


def missing(implementation: str) -> str | None:
    """Say in one sentence why processes cannot talk by an implementation here; None: they can."""
    if implementation == "mpi" and _mpiexec() is None:
        return "there is no mpiexec (pip install mpich brings one)"
    if implementation == "mpi" and not Path(os.environ.get("MPITRAMPOLINE_LIB", "")).is_file():
        return "MPITRAMPOLINE_LIB does not say where MPIwrapper is, built for this MPI"
    return None


def measure(
    processes: int, implementation: str, sizes: Sequence[int] = SIZES, rounds: int = 9, duration: float = 0.1
) -> list[Row]:
    """Start processes, and measure an all-gather of each size, in loops of about `duration` seconds that take turns."""
    if reason := missing(implementation):
        raise RuntimeError(f"{implementation}: {reason}")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        job = [implementation, processes, address, list(sizes), rounds, duration, folder]
        child = [sys.executable, __file__, "--child", json.dumps(job)]
        if implementation == "mpi":
            commands = [[str(_mpiexec()), "-n", str(processes), *child]]
        else:
            commands = [[*child, "--rank", str(rank)] for rank in range(processes)]
        outputs = [Path(folder, f"{rank}.json") for rank in range(processes)]
        _run(commands, outputs)
        samples = json.loads(outputs[0].read_text())
    out = []
    for size, seconds in zip(sizes, samples, strict=True):
        low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else 3 * seconds
        out.append(Row(implementation, processes, size, middle, low, high))
    return out


def fit(rows: Sequence[Row]) -> tuple[float, float]:
    """Seconds that a message takes however short it is, and bytes a second of the longest ones that a process receives.

    So that an all-gather takes `ROUNDS` times the first, and `(processes - 1) * size` over the second.
    """
    first, last = min(rows, key=lambda row: row.seconds), max(rows, key=lambda row: row.size)
    latency = first.seconds / ROUNDS[first.implementation](first.processes)
    received = (first.processes - 1) * (last.size - first.size)
    return latency, received / (last.seconds - first.seconds) if last.seconds > first.seconds else math.inf


def _mpiexec() -> str | None:
    """That of this environment first: a program must be started by the MPI that it is linked to."""
    return shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def _run(commands: list[list[str]], outputs: list[Path]) -> None:
    """Run processes, all at once, that write these files when they have measured.

    What comes after that may fail, or hang: gRPC's server, which the first process ends, at times fails a check of its
    own, and MPICH ends processes that outlive another one.
    """
    kept = {name: x for name, x in os.environ.items() if not name.lower().endswith("_proxy")}
    env = kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}

    def run(command: list[str]) -> subprocess.CompletedProcess:
        output: Any = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            return subprocess.run(command, env=env, timeout=LIMIT, **output)
        except subprocess.TimeoutExpired as error:
            late = f"\nended after {LIMIT} s".encode()
            return subprocess.CompletedProcess(command, -signal.SIGKILL, (error.stdout or b"") + late)

    with ThreadPoolExecutor(len(commands)) as pool:  # all at once, or they would wait for each other
        children = list(pool.map(run, commands))
    if not all(output.exists() for output in outputs):
        told = [(child.returncode, child.stdout[-2000:].decode(errors="replace")) for child in children]
        raise RuntimeError("\n".join(f"a process ended with status {status}: {text}" for status, text in told))


def _in_a_process(
    rank: int, implementation: str, processes: int, address: str, sizes: list, rounds: int, duration: float, folder: str
) -> None:
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    jax.config.update("jax_cpu_collectives_implementation", implementation)
    jax.distributed.initialize(address, num_processes=processes, process_id=rank, initialization_timeout=120)
    mesh, split = Mesh(jax.devices(), ("processes",)), PartitionSpec("processes")

    def gathering(size: int, steps: int) -> Callable[[], float]:
        """A run of so many of them, which returns the seconds of one."""

        def step(part: jax.Array, _: None) -> tuple[jax.Array, None]:
            gathered = jax.lax.all_gather(part, "processes", tiled=True)
            return part.at[-1].set(gathered[-1] + 1), None  # which the next one needs

        def loop(part: jax.Array) -> jax.Array:
            return jax.lax.scan(step, part, None, length=steps)[0]

        own = np.full(size, rank, np.uint8)
        part = jax.make_array_from_process_local_data(NamedSharding(mesh, split), own, (processes * size,))
        compiled = jax.jit(jax.shard_map(loop, mesh=mesh, in_specs=split, out_specs=split)).lower(part).compile()
        last = (processes - 1 + steps) % 256

        def run() -> float:
            started = time.perf_counter()
            out = jax.block_until_ready(compiled(part))
            seconds = (time.perf_counter() - started) / steps
            if (found := int(out.addressable_data(0)[-1])) != last:
                raise AssertionError(f"got {found} from the last process after {steps} steps, expected {last}")
            return seconds

        run()
        return run

    runs = []
    for size in sizes:
        seconds = min(gathering(size, 4)() for _ in range(2))
        slowest = np.max(process_allgather(np.float32(seconds)))  # so that all take the same number of steps
        runs.append(gathering(size, max(4, min(1 << 14, int(duration / slowest)))))
    samples: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for run, past in zip(runs, samples, strict=True):
            past.append(run())
    Path(folder, f"{rank}.json").write_text(json.dumps(samples))
    jax.distributed.shutdown()


def _rank() -> int:
    return next(int(os.environ[name]) for name in RANKS if name in os.environ)


def amount(size: int) -> str:
    return f"{size} B" if size < 1 << 10 else f"{size >> 10} kB" if size < 1 << 20 else f"{size >> 20} MB"


def tables(found: dict[tuple[int, str], list[Row]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What an all-gather takes, and what is fitted: titles, names of columns, cells."""
    measured, fitted = [], []
    for (processes, name), rows in found.items():
        for row in rows:
            times = f"{row.seconds * 1e6:,.1f} µs", f"{row.low * 1e6:,.1f} to {row.high * 1e6:,.1f} µs"
            measured.append([name, str(processes), amount(row.size), *times])
        latency, bandwidth = fit(rows)
        messages = ROUNDS[name](processes)
        fitted.append([name, str(processes), str(messages), f"{latency * 1e6:,.1f} µs", f"{bandwidth / 1e9:.2f} GB/s"])
    return [
        ("An all-gather", ["implementation", "processes", "of each", "median", "quartiles"], measured),
        ("Fitted", ["implementation", "processes", "messages, one after another", "a message", "received"], fitted),
    ]


def main(
    processes: Annotated[list[int], typer.Option(min=2, help="Processes, one number or several.")] = [2, 4],  # noqa: B006
    implementation: Annotated[list[str], typer.Option(help="gloo, mpi, or both.")] = list(IMPLEMENTATIONS),  # noqa: B006
    largest: Annotated[int, typer.Option(min=64, help="Bytes of a process, at most.")] = SIZES[-1],
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each size, which take turns.")] = 9,
    duration: Annotated[float, typer.Option(min=1e-3, help="Seconds that one takes, about.")] = 0.1,
    output: Annotated[Path, typer.Option(help="Folder for the file.")] = RESULTS,
    child: Annotated[str, typer.Option(hidden=True)] = "",
    rank: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Measure all-gathers between processes of this machine, print tables and write them as Markdown.

    Gloo is in JAX. MPI wants an MPI and, by MPITRAMPOLINE_LIB, MPIwrapper (github.com/eschnett/MPIwrapper) that was
    built for it.
    """
    if child:
        _in_a_process(_rank() if rank < 0 else rank, *json.loads(child))
        sys.stdout.flush()
        os._exit(0)  # at the usual end, JAX frees what is MPI's after it has ended MPI, which MPICH calls an error
    sizes = [size for size in SIZES if size <= largest]
    found, left_out = {}, []
    for name in implementation:
        if name not in IMPLEMENTATIONS:
            raise typer.BadParameter(f"implementation: got {name!r}, expected one of {IMPLEMENTATIONS}")
        if reason := missing(name):
            left_out.append(f"Not measured: {name}, since {reason}.")
            continue
        for count in processes:
            found[count, name] = measure(count, name, sizes, rounds, duration)
    about, known = machine(), versions(("hebbax", "jax", "jaxlib", "mpich"))
    used = ", ".join(f"{name} {number}" for name, number in known.items())
    text = [
        f"Processes of one machine, and no cable between them: {about['cpu']}, {about['cpus']} CPUs, load average "
        f"{about['load_average'][0]:.1f} at the end; {used}. From "
        f"`{shlex.join(['python', 'benchmarks/messages.py', *sys.argv[1:]])}` at {commit()}, "
        f"{datetime.date.today().isoformat()}. Where there are more processes than CPUs, they take turns, and times "
        f"are the scheduler's.",
        f"An all-gather of bytes in `lax.scan` in `jax.shard_map`, of which each waits for the one before; median of "
        f"{rounds} loops of about {duration:g} s. Gloo passes parts around a ring, over TCP; MPICH doubles what a "
        f"process has from message to message, up to 512 kB in all, through memory that its processes share.",
        "Fitted: a message is the time of the shortest all-gather over the messages that follow one another in it; "
        "received, what more bytes a process receives of the longest one over the time that it takes more.",
        *left_out,
    ]
    console, parts = Console(), ["# Messages between processes"]
    for title, columns, rows in tables(found):
        table = Table(*columns, title=title, title_justify="left")
        for cells in rows:
            table.add_row(*cells)
        console.print(table)
        lines = [" | ".join(columns), "|".join(["---:"] * len(columns)), *map(" | ".join, rows)]
        parts += [f"## {title}", "\n".join(f"| {line} |" for line in lines)]
    output.mkdir(parents=True, exist_ok=True)
    (output / "messages.md").write_text("\n\n".join([*parts, *text]) + "\n")
    for line in [*text, f"wrote {output / 'messages.md'}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
