"""Other builds, versions and platforms than `.ci/run` has: for each, tests, and the bits of results (same_bits.py).

`.ci/run` has the oldest and newest Python and JAX, and the oldest version of every dependency together. Here are the
oldest of one dependency beside the newest of others, Python 3.14 (also with free threads), a build without OpenMP, one
by Clang, Python's own switches, and other processors: aarch64 (aarch64.py), and x86-64 without AVX2.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aarch64
from record import ROOT, Result, keep
from trying import BUILD, HERE, NEEDED, command, compare, must, skipped, tested

OLDEST = ROOT / ".ci" / "oldest.txt"
PIP = (sys.executable, "-m", "pip", "install", "-qq")
VERSIONS = (
    "import importlib.metadata as m, numpy, brainunit, jax; "
    "print(', '.join(f'{x}=={m.version(x)}' for x in ('numpy', 'brainunit', 'jax')))"
)


def switches(effort: float) -> Iterator[Result]:
    yield tested("python -O", effort, (sys.executable, "-O"), PYTHONOPTIMIZE="1")
    yield tested("warnings are errors", effort, PYTHONWARNINGS="error")


def mixed_versions(effort: float) -> Iterator[Result]:
    """The oldest of one package beside the newest of all others, laid over what is installed."""
    pins = dict(line.split(";")[0].split("==") for line in OLDEST.read_text().splitlines() if line[0] != "#")
    for package, same in (("numpy", ()), ("brainunit", ("saiunit",))):  # of which it takes the same version alone
        version = pins[package].strip()
        pin, folder = f"{package}=={version}", BUILD / f"{package}-{version}"
        if not folder.exists():
            must(*PIP, "--no-deps", "--target", folder, pin, *(f"{name}=={version}" for name in same))
        seen = must(sys.executable, "-c", VERSIONS, PYTHONPATH=str(folder)).strip()
        if pin not in seen:
            raise RuntimeError(f"expected {pin}, got {seen}")
        yield tested(seen.replace("==", " "), effort, PYTHONPATH=str(folder))


def builds(effort: float, plain: Path) -> Iterator[Result]:
    """Builds of the kernels by other compilers and options, beside that which is installed."""
    openmp = "; assert hebbax._cpu.openmp_version() == 0"
    yield from built("without OpenMP", effort, plain, openmp, ("-Csetup-args=-Dopenmp=disabled",))
    if shutil.which("clang") is None:
        yield skipped("Clang", "it needs clang and libomp-dev")
    else:
        openmp = "; assert hebbax._cpu.openmp_version() > 0"
        yield from built("Clang", effort, plain, openmp, ("-Csetup-args=-Dopenmp=enabled",), CC="clang")


def built(
    what: str, effort: float, plain: Path, check: str, arguments: Sequence[str], **changes: str
) -> Iterator[Result]:
    name = re.sub(r"\W+", "-", what)
    folder, build = BUILD / name, BUILD / f"{name}-build"
    shutil.rmtree(folder, ignore_errors=True)
    must(
        *PIP,
        "--no-build-isolation",
        "--no-deps",
        "--target",
        folder,
        f"-Cbuild-dir={build}",
        *arguments,
        ROOT,
        **changes,
    )
    compiler = json.loads((build / "meson-info" / "intro-compilers.json").read_text())["host"]["c"]
    check = f"import hebbax._cpu as x, hebbax; assert {str(folder)!r} in x.__file__{check}"
    must(sys.executable, "-c", check, PYTHONPATH=str(folder))
    what = f"{what} ({compiler['id']} {compiler['version']})"
    yield tested(what, effort, PYTHONPATH=str(folder))
    yield compare(f"{what}: bits of results", plain, (sys.executable,), PYTHONPATH=str(folder))


def newer_pythons(effort: float, plain: Path) -> Iterator[Result]:
    """What .ci/run has not: each in an environment of its own, with the newest of all that hebbax needs."""
    for version in ("3.14", "3.14t"):
        found = command(".ci/pythons", version).stdout.split()
        if not found:
            yield skipped(f"Python {version}", f"no python{version} with C headers on PATH")
            continue
        folder = BUILD / f"python{version}"
        python = folder / "bin" / "python"
        if not python.exists():
            must(found[0], "-m", "venv", "--without-pip", folder)  # Debian's has pip elsewhere
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-qq")
        must(*pip, "ninja", "meson-python", "Cython", "jaxlib", *NEEDED, "pip")
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        must(
            *pip,
            "--no-build-isolation",
            "--no-deps",
            "--force-reinstall",
            f"-Cbuild-dir={folder}-build",
            ROOT,
            PATH=path,
        )
        seen = must(python, "-c", VERSIONS).strip().replace("==", " ")
        yield tested(f"Python {version}: {seen}", effort, (python,), PATH=path)
        yield compare(f"Python {version}: bits of results", plain, (python,))


def without_avx2(plain: Path) -> Iterator[Result]:
    what = "x86-64 without AVX2, emulated: bits of results"
    if shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64":
        yield skipped(what, "it needs x86-64 and qemu-user")
        return
    yield compare(what, plain, ("qemu-x86_64", "-cpu", "SandyBridge", sys.executable))


def run(effort: float, say: Callable[[str], object]) -> list[Result]:
    """All of them, two at a time, and what is found kept as it comes; below an effort of 1, few tests of each."""
    BUILD.mkdir(parents=True, exist_ok=True)
    plain = BUILD / "plain.npz"
    must(sys.executable, HERE / "same_bits.py", plain)
    groups = {
        "aarch64": aarch64.rows(effort, plain),
        "builds": builds(effort, plain),
        "newer Pythons": newer_pythons(effort, plain),
        "x86-64 without AVX2": without_avx2(plain),
        "mixed versions": mixed_versions(effort),
        "Python's switches": switches(effort),
    }
    found: dict[str, list[Result]] = {name: [] for name in groups}
    lock = threading.Lock()

    def so_far() -> list[Result]:
        return [row for rows in found.values() for row in rows]

    def add(name: str, row: Result) -> None:
        with lock:
            found[name].append(row)
            say(f"{row.what}: {row.count} {row.unit}: {row.found}")
            keep("platforms", so_far(), effort)

    def exhaust(name: str) -> None:
        try:
            for row in groups[name]:
                add(name, row)
        except RuntimeError as error:  # a variant that could not be set up; others can
            add(
                name,
                Result(name, 0, "tests passed", 0.0, f"not set up: {str(error).replace(f'{ROOT}/', '')[-300:]}", False),
            )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(exhaust, groups))
    return so_far()
