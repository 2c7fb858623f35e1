"""The command line: what is installed and usable here, and the commands of `hebbax.runs`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from typing import Annotated

import jax
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import hebbax
from hebbax import _cpu
from hebbax._cpu import cpus
from hebbax._terminal import Program, answer, table
from hebbax.runs.options import Json
from hebbax.runs.replay import replay_command
from hebbax.runs.simulate import simulate
from hebbax.runs.sweep import sweep_command

app = typer.Typer(
    cls=Program, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Event-driven synaptic plasticity for JAX.",
    epilog="Exit status: 0 done, 1 a run or a file failed, 2 wrong usage, 130 interrupted.",
)  # fmt: skip
app.add_typer(simulate, name="simulate")
app.command("replay")(replay_command)
app.command("sweep")(sweep_command)


def main() -> None:
    """Run the command line."""
    app()


def _say_version(value: bool) -> None:
    if value:
        typer.echo(f"hebbax {hebbax.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the name of a command."""


@app.command()
def info(json: Json = False) -> None:
    """Show versions, backends and why one is missing, OpenMP, threads and NUMA domains, and devices."""
    console = Console(stderr=json)
    versions = {name: _version(name) for name in ("hebbax", "jax", "jaxlib", "numpy", "scipy", "brainunit")}
    versions["cupy"] = _version("cupy-cuda13x", "cupy-cuda12x", "cupy")
    versions["python"] = f"{platform.python_version()} on {platform.platform()}"
    console.print(table("Versions", versions))

    backends = Table("backend", "platforms", "how it runs", title="Backends, best first", title_justify="left")
    backends.add_column("usable here", overflow="fold")
    for backend in hebbax.backends():
        usable = f"no: {backend.missing}" if backend.missing else "yes"
        backends.add_row(backend.name, ", ".join(backend.platforms), backend.description, escape(usable))
    console.print(backends)

    openmp, usable_cpus, domains = _cpu.openmp_version(), cpus.usable_cpus(), cpus.numa_domains()
    kernels = {
        "OpenMP": f"standard of {openmp // 100}-{openmp % 100:02}" if openmp else "not built in",
        "threads": str(hebbax.get_num_threads()),
        "usable CPUs": str(len(usable_cpus)),
    }
    for domain, own in domains.items():
        kernels[f"NUMA domain {domain}"] = f"{len(own & usable_cpus)} of its {len(own)} CPUs usable"
    console.print(table("CPU kernels", kernels))
    devices = {f"{d.platform}:{d.id}": d.device_kind for d in jax.devices()}
    console.print(table("Devices", devices))
    answer.add(
        versions=versions, backends=[dataclasses.asdict(backend) for backend in hebbax.backends()], openmp=openmp,
        threads=hebbax.get_num_threads(), usable_cpus=sorted(usable_cpus), devices=devices,
        numa_domains={domain: sorted(own) for domain, own in domains.items()},
    )  # fmt: skip


def _version(*distributions: str) -> str:
    """The version of the first of these that is installed."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"
