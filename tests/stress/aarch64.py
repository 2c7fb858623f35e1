"""hebbax on aarch64: cross-compiled, and run there by qemu in user mode, with the Python of this machine's Debian.

That Python, the C library and what both need are unpacked into a folder under build/, and wheels for aarch64 of what
this environment has, so that nothing here is installed and no root is needed.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from record import Result
from trying import BUILD, NEEDED, compare, must, skipped, tested

ROOT = BUILD / "aarch64"
PYTHON = ROOT / "usr" / "bin" / "hebbax-python"
TOOLS = {"qemu-aarch64": "qemu-user", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "apt-get": "Debian"}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
CROSS = """[binaries]
c = 'aarch64-linux-gnu-gcc'
strip = 'aarch64-linux-gnu-strip'
cython = '{cython}'
python = '{python}'
[built-in options]
c_args = ['-I{root}/usr/include']
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
"""
# apt-get with lists and a state of its own, as if nothing were installed; where packages come from is this machine's.
APT = """Dir::State "{here}"; Dir::State::status "{here}/status"; Dir::Cache "{here}/cache";
APT::Architecture "arm64"; APT::Architectures {{ "arm64"; }}; APT::Sandbox::User "root";
"""


def rows(effort: float, plain: Path) -> Iterator[Result]:
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        yield skipped("aarch64, emulated", f"it needs {', '.join(missing)}")
        return
    version = "{}.{}".format(*sys.version_info)
    if not (ROOT / "usr" / "bin" / f"python{version}").exists():
        unpack_python(version)
    site = ROOT / "usr" / "local" / "lib" / f"python{version}" / "dist-packages"
    # Told under which name it runs: children are started by that, and this machine can run it.
    emulator = f"qemu-aarch64 -L '{ROOT}' -0 '{PYTHON}' '{ROOT}/usr/bin/python{version}'"
    PYTHON.write_text(f'#!/bin/sh\nexec {emulator} "$@"\n')
    PYTHON.chmod(0o755)
    if not (site / "jaxlib").exists():
        install_wheels(version, site)
    build(site)
    seen = must(
        PYTHON, "-c", "import hebbax, jax, platform; print(platform.machine(), jax.__version__, hebbax.__file__)"
    )
    machine, jax, where = seen.split()
    if machine != "aarch64" or not where.startswith(str(ROOT)):
        raise RuntimeError(f"expected the build for aarch64, got {seen}")
    yield tested(f"aarch64, emulated, Python {version}, jax {jax}", effort, (PYTHON,), CXX="none")
    yield compare("aarch64, emulated: bits of results", plain, (PYTHON,))


def unpack_python(version: str) -> None:
    apt, debs = BUILD / "apt-arm64", BUILD / "apt-arm64" / "debs"
    for folder in (apt / "lists" / "partial", apt / "cache" / "archives" / "partial", debs):
        folder.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "apt.conf").write_text(APT.format(here=apt))
    config = {"APT_CONFIG": str(apt / "apt.conf")}
    must("apt-get", "update", "-qq", **config)
    wanted = (f"python{version}", f"libpython{version}-dev", "libgomp1", "libstdc++6")
    plan = must("apt-get", "install", "-s", "--no-install-recommends", *wanted, **config)
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    # The compiler brings its own headers of the C library.
    packages = [name for name in packages if name not in ("dpkg", "tar", "libc6-dev", "linux-libc-dev")]
    must("sh", "-c", f"cd '{debs}' && apt-get download -qq {' '.join(packages)}", **config)
    for deb in debs.glob("*.deb"):
        must("dpkg", "-x", deb, ROOT)


def install_wheels(version: str, site: Path) -> None:
    """Of the versions that are installed here."""
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in (*NEEDED, "jaxlib")]
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    must(
        sys.executable, "-m", "pip", "install", "-qq", "--only-binary=:all:", *platforms, "--python-version", version,
        "--implementation", "cp", "--abi", f"cp{version.replace('.', '')}", "--target", site, *pins,
    )  # fmt: skip


def build(site: Path) -> None:
    folder, cross = BUILD / "aarch64-build", BUILD / "aarch64.ini"
    cython = Path(sys.executable).with_name("cython")
    cross.write_text(CROSS.format(cython=cython, python=PYTHON, root=ROOT))
    if not (folder / "build.ninja").exists():
        must(
            "meson", "setup", f"--cross-file={cross}", f"--prefix={ROOT}/usr/local", "-Dopenmp=enabled",
            f"-Dpython.purelibdir={site}", f"-Dpython.platlibdir={site}", folder,
        )  # fmt: skip
    must("meson", "compile", "-C", folder, "-j", "2")
    must("meson", "install", "-C", folder, "--quiet")
    compiler = json.loads((folder / "meson-info" / "intro-compilers.json").read_text())["host"]["c"]
    if "aarch64" not in compiler["exelist"][0]:
        raise RuntimeError(f"expected a compiler for aarch64, got {compiler['exelist']}")
    about = site / f"hebbax-{importlib.metadata.version('hebbax')}.dist-info"  # meson does not write it
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(importlib.metadata.distribution("hebbax").read_text("METADATA"))
