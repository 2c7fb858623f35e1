"""A copy of the package that a sanitizer watches: how it is built, what is changed in it, and what is reported."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from record import ROOT

HERE = Path(__file__).parent
COPIED = ("src", "cuda", "meson.build", "meson.options", "pyproject.toml", "README.md", "LICENSE", "LICENSE.libgomp")
# Little is optimised away that a sanitizer would see, and its reports have names and lines.
MESON = ("-Dopenmp=enabled", "-Doptimization=1", "-Ddebug=true")
REPORT = re.compile(
    r"^.*(?:(?:ERROR|FATAL|WARNING): (?:Address|Thread)Sanitizer|AddressSanitizer CHECK failed|runtime error): .*$",
    re.M,
)
FRAME = re.compile(r"6hebbax_\d+_(?:core|cpu|cuda)_\d+([a-z]+)_(\w+)")  # as Cython names a module's functions


def found(compiler: str, library: str) -> str | None:
    """Where a compiler has a library, None where it has not."""
    if (program := shutil.which(compiler)) is None:
        return None
    said = subprocess.run([compiler, f"--print-file-name={library}"], capture_output=True, text=True).stdout.strip()
    beside = Path(program).resolve().parents[1] / "lib" / library  # where Clang's OpenMP is
    return next((str(path) for path in (Path(said), beside) if path.is_absolute() and path.exists()), None)


class Sanitizer(NamedTuple):
    """What is compiled with what, which libraries a process needs before all others, and by which settings."""

    name: str
    flags: tuple[str, ...]
    preload: tuple[tuple[str, str], ...]  # libraries, of which compiler
    settings: dict[str, str]
    packages: str  # of Debian

    def missing(self) -> str | None:
        """What to install, None if all is there."""
        others = [("clang", "libomp.so"), ("clang", "libarcher.so")]
        if sys.platform == "linux" and all(found(*library) for library in (*self.preload, *others)):
            return None
        return f"needs Linux, clang and the runtimes of its sanitizers, OpenMP and archer (Debian: {self.packages})"


# Clang's, as modules for Python need it: shared. Libstdc++ too, of which it otherwise does not find what throws.
ADDRESS = Sanitizer(
    "ASan and UBSan",
    ("-fsanitize=address,undefined,float-cast-overflow", "-shared-libasan", "-fno-omit-frame-pointer"),
    (("clang", "libclang_rt.asan-x86_64.so"), ("clang", "libstdc++.so.6")),
    # Python, NumPy and XLA keep what they allocate, which would be leaks; each array is to be an allocation of its own.
    {
        "ASAN_OPTIONS": "detect_leaks=0:log_path={log}", "PYTHONMALLOC": "malloc",
        "UBSAN_OPTIONS": "print_stacktrace=1:log_path={log}:halt_on_error={halts}",
    },
    "clang gcc libomp-dev libclang-rt-14-dev",
)  # fmt: skip
# Clang's OpenMP tells archer, and archer tells the sanitizer, who waits for whom; GCC's tells nobody. The runtime is
# that of GCC, which has the same functions: Clang 14's shared one ends every process, as it is not ready for libstdc++.
THREAD = Sanitizer(
    "TSan",
    ("-fsanitize=thread", "-fno-omit-frame-pointer", "-fno-builtin", f"-include {HERE / 'watched.h'}"),
    (("gcc", "libtsan.so"),),
    # Python and XLA are not compiled for it: what they call (`free`, `memcpy`) is no access to report, but their locks
    # count. A child that was forked may start threads.
    {
        "TSAN_OPTIONS": (
            "ignore_noninstrumented_modules=1:die_after_fork=0:history_size=4:log_path={log}:halt_on_error={halts}"
        ),
        "OMP_TOOL_LIBRARIES": "{archer}", "HEBBAX_NUM_THREADS": "4",
    },
    "clang gcc libomp-dev",
)  # fmt: skip


class Edit(NamedTuple):
    """A fault that is planted in a copy: what to change in which file, and by which commands it is to be reported."""

    what: str
    path: str
    right: str
    wrong: str
    report: str  # what is in a report that is of this fault
    commands: dict[str, tuple[str, ...]]  # by whose threads


class Ran(NamedTuple):
    status: int
    output: str
    reports: list[str]


class Copy:
    """A copy of the package in a folder, built for a sanitizer."""

    def __init__(self, sanitizer: Sanitizer, folder: Path):
        self.sanitizer, self.folder, self.log = sanitizer, folder, folder / "log"
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        self.build()

    def build(self) -> None:
        """Build what changed."""
        runtimes = {os.path.dirname(found(*library) or "") for library in self.sanitizer.preload}
        flags = " ".join(["-g", *self.sanitizer.flags, *(f"-Wl,-rpath,{folder}" for folder in runtimes)])
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "CC": "clang",
            "CFLAGS": flags, "LDFLAGS": flags, "ASAN_OPTIONS": "detect_leaks=0",  # of what meson compiles and runs
        }  # fmt: skip
        site = self.folder / "site"
        options = (*MESON, *(f"-Dpython.{name}dir={site}" for name in ("purelib", "platlib")))
        setup = [] if (self.folder / "build").exists() else [("setup", "build", *options)]
        steps = ("compile", "-C", "build", "-j", "1"), ("install", "-C", "build", "--no-rebuild")  # others build too
        for command in (*setup, *steps):
            built = subprocess.run(
                ["meson", *command], cwd=self.folder, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if built.returncode:
                raise RuntimeError(f"the build for {self.sanitizer.name} fails:\n{built.stdout}")

    @contextlib.contextmanager
    def planted(self, edit: Edit):
        """The copy with a fault, which is then taken out again (and built, when the next one is)."""
        path = self.folder / edit.path
        source = path.read_text("utf-8")
        if (times := source.count(edit.right)) != 1:
            raise RuntimeError(f"{edit.path}: {edit.right!r} is there {times} times, expected once")
        path.write_text(source.replace(edit.right, edit.wrong), "utf-8")
        try:
            self.build()
            yield
        finally:
            path.write_text(source, "utf-8")

    def environment(self, halts: bool) -> dict[str, str]:
        """Of a Python that uses the copy, and is watched. (CXX: no CUDA kernels, which are not compiled for it.)"""
        preload = " ".join(found(*library) or "" for library in self.sanitizer.preload)
        places = {"log": self.log / "report", "halts": int(halts), "archer": found("clang", "libarcher.so")}
        settings = {name: text.format(**places) for name, text in self.sanitizer.settings.items()}
        path = os.pathsep.join(str(x) for x in (self.folder / "site", ROOT / "tests"))
        return os.environ | settings | {
            "LD_PRELOAD": preload, "PYTHONPATH": path, "XLA_FLAGS": quick_flags(), "CXX": "none",
            "JAX_PLATFORMS": "cpu",
        }  # fmt: skip

    def run(self, command: tuple[str, ...], halts: bool = False) -> Ran:
        """Run Python with these arguments, in the repository, maybe to the first report; return what was reported."""
        shutil.rmtree(self.log, ignore_errors=True)
        self.log.mkdir()
        ran = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=self.environment(halts), text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        reports = []
        for path in sorted(self.log.iterdir()):
            text = path.read_text(errors="replace")
            starts = [match.start() for match in REPORT.finditer(text)] + [len(text)]
            reports += [text[a:b] for a, b in itertools.pairwise(starts)]
        return Ran(ran.returncode, ran.stdout, reports)


def quick_flags() -> str:
    """Those of `.ci/quickly`, by which XLA compiles quickly: that is a program of bash, which ends under TSan."""
    command = [ROOT / ".ci" / "quickly", sys.executable, "-c", "import os; print(os.environ['XLA_FLAGS'])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def headline(report: str) -> str:
    """What a report says, in a line: which function of a kernel, and what."""
    first = report.splitlines()[0]
    said = re.sub(r"^.*(?:Sanitizer|runtime error): | (?:on|from) (?:unknown )?(?:address )?0x.*| \(pid.*", "", first)
    where = FRAME.search(report)
    return f"{said.strip()} in {where[1]}.{where[2]}" if where else said.strip()
