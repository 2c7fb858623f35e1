"""The kernels as a library for fuzzing: the sources as they are, but for constants and doors to what is private.

Python loads it, which Cython's modules need to find each other, and is then in nobody's way: one call runs it all.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import sanitized
from record import ROOT

HERE = Path(__file__).parent / "kernels"
KINDS = tuple("update propagate collect deliver record fade tile pack merge exchange append tally sample visit".split())
MODULES = (
    "_core.dlpack",
    *(f"_cpu.{x}" for x in "threads rows update propagate collect calls tiles exchange logs".split()),
    *(f"_cpu.{x}" for x in "handlers visit visits".split()),
)
FUZZER, ADDRESS = "libclang_rt.fuzzer_no_main-x86_64.a", "libclang_rt.asan-x86_64.so"
# Measures against threads and batches that small arrays would never reach: with these they take every path.
SMALL = {
    "rows": {"BATCH": 64, "LONGEST": 80, "PIECE": 4, "CACHED": 256, "LOOKED_UP": 8},
    "update": {"POWERS": 2, "RUN": 2, "NEAR": 24, "GRAIN": 8, "CLIP_GRAIN": 16, "CLIP_BLOCK": 8, "CLIP_AHEAD": 16},
    "propagate": {
        "GRAIN": 8,
        "COPIED": 256,
        "RUN": 2,
        "LINE": 2,
        "WINDOW": 4,
        "SAMPLE": 16,
        "FETCH": 2,
        "ROWS_AHEAD": 4,
    },
    "collect": {"GRAIN": 8},
    "calls": {"GRAIN": 8, "LARGE": 64, "FADED_AHEAD": 4},
    "exchange": {"GRAIN": 2},
    "pieces": {"RECENT": 8, "PIECE": 16},
    "visit": {
        "GRAIN": 8,
        "FEW": 2,
        "SPIKES": 2,
        "SPIKES_AHEAD": 2,
        "AGE": 16,
        "LONGEST": 8,
        "LATEST": 64,
        "LAST": 4,
        "ROWS": 4,
    },
}
DOORS = {
    "threads": """
cdef public void hebbax_fuzz_limit(long long n) noexcept nogil:
    global limit
    limit = n
""",
    "handlers": """
cdef public int hebbax_fuzz_call(
    int kind, const void* result, const void* operands, int flags, double mu, char* message
) noexcept nogil:
    cdef const Buffer* out = <const Buffer*> result
    cdef const Buffer* given = <const Buffer*> operands
    cdef Attributes attributes = Attributes(flags, mu)
    cdef Pool openmp = Pool(NULL, NULL, False, NULL)
    cdef const char* wrong = NULL
    cdef int count = UPDATE_OPERANDS if kind == 0 else PROPAGATE_OPERANDS
    cdef Run run = run_update if kind == 0 else run_propagate if kind == 1 else run_collect
    if kind == 0:
        wrong = wrong_update(out, given, flags)
    elif kind == 1:
        wrong = wrong_propagate(out, given, flags)
    else:
        wrong = wrong_collect(out, given, flags)
    if wrong != NULL:
        return 2
    if not fit(given, count, out):
        return 3
    return 0 if run_batch(run, &openmp, out, given, count, &attributes, message) else 1

cdef extern from *:
    '''
    void* hebbax_fuzz_exchange_handler(int kind);
    void* hebbax_fuzz_visit_handler(void);
    '''
    void* hebbax_fuzz_exchange_handler(int kind) noexcept nogil
    void* hebbax_fuzz_visit_handler() noexcept nogil

cdef public void* hebbax_fuzz_handler(int kind) noexcept nogil:
    if kind == 0:
        return <void*> handle_update
    if kind == 1:
        return <void*> handle_propagate
    if kind == 2:
        return <void*> handle_collect
    if kind == 3:
        return <void*> handle_deliver
    if kind == 4:
        return <void*> handle_record
    if kind == 5:
        return <void*> handle_fade
    if kind == 6:
        return <void*> handle_tile
    if kind == 10:
        return <void*> handle_append
    if kind == 11:
        return <void*> handle_tally
    if kind == 12:
        return <void*> handle_sample
    if kind == 13:
        return hebbax_fuzz_visit_handler()
    return hebbax_fuzz_exchange_handler(kind)
""",
    "visit": """
cdef public int hebbax_fuzz_recent() noexcept nogil:
    return RECENT
""",
    "visits": """
cdef public void* hebbax_fuzz_visit_handler() noexcept nogil:
    return <void*> handle_visit
""",
    "exchange": """
cdef public void* hebbax_fuzz_exchange_handler(int kind) noexcept nogil:
    if kind == 7:
        return <void*> handle_pack
    return <void*> handle_merge if kind == 8 else <void*> handle_exchange
""",
}
CFLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-g"]


def missing() -> str | None:
    """What this machine lacks for it."""
    for tool in ("clang++", "llvm-profdata", "llvm-cov"):
        if not shutil.which(tool):
            return f"no {tool}: install clang, llvm and compiler-rt (Debian: clang llvm)"
    for library in (FUZZER, ADDRESS, "libclang_rt.profile-x86_64.a"):
        if not sanitized.found("clang", library):
            return f"clang has no {library}: install compiler-rt (Debian: libclang-rt-dev or libclang-common-14-dev)"
    return None


def build(
    folder: Path, cc: str, flags: list[str], small: bool = True, libfuzzer: bool = False, link: list[str] = (),
) -> Path:  # fmt: skip
    """Compile all in a folder, with constants that are small or as they are, to one shared library."""
    changed = _copy(folder / "src", small)
    include = subprocess.run(
        [sys.executable, "-c", "import os, jaxlib; print(os.path.join(os.path.dirname(jaxlib.__file__), 'include'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    includes = [f"-I{include}", f"-I{sysconfig.get_path('include')}"]
    objects = []
    for module in MODULES:
        source = folder / "src" / "hebbax" / (module.replace(".", "/") + ".pyx")
        target = source.with_suffix(".c")
        options = [
            "-3",
            "-X",
            "boundscheck=False",
            "-X",
            "wraparound=False",
            "-X",
            "cdivision=True",
            "-X",
            "emit_code_comments=False",
        ]
        objects.append(folder / f"{source.stem}.o")
        if source.name not in changed and not any(".pxd" in x or ".pxi" in x for x in changed) and objects[-1].exists():
            continue
        _run([sys.executable, "-m", "cython", *options, "--line-directives", "--module-name", f"hebbax.{module}",
              "-I", str(folder / "src"), str(source), "-o", str(target)])  # fmt: skip
        _run(
            [
                cc,
                *CFLAGS,
                *flags,
                *includes,
                "-w",
                "-Werror=implicit-function-declaration",
                "-c",
                str(target),
                "-o",
                str(objects[-1]),
            ]
        )
    cxx = {"clang": "clang++", "gcc": "g++"}.get(cc, cc)
    # (what guides libFuzzer is what the kernels do, and not the oracle: that took most of the time, and of the corpus)
    define = ["-DWITH_LIBFUZZER", "-fno-sanitize=fuzzer-no-link"] if libfuzzer else []
    objects.append(folder / "harness.o")
    _run([cxx, "-std=c++20", *CFLAGS, *flags, *define, *includes, "-Wall", "-Wno-unused-function", "-c",
          str(HERE / "harness.cpp"), "-o", str(objects[-1])])  # fmt: skip
    library = folder / "kernels.so"
    _run([cxx, "-shared", *flags, *map(str, objects), "-o", str(library), "-lpthread", "-lm", *link])
    return library


def _copy(target: Path, small: bool) -> set[str]:
    """Copy the sources; return which are not what they were."""
    changed = set()
    for package in (".", "_core", "_cpu"):
        (target / "hebbax" / package).mkdir(parents=True, exist_ok=True)
        (target / "hebbax" / package / "__init__.py").touch()
    for path in (x for package in ("_core", "_cpu") for x in (ROOT / "src" / "hebbax" / package).glob("*.p[yx][xdi]")):
        text = _with_small_constants(path) if small else path.read_text()
        text += DOORS.get(path.stem, "") if path.suffix == ".pyx" else ""
        copy = target / "hebbax" / path.parent.name / path.name
        if not copy.exists() or copy.read_text() != text:
            copy.write_text(text)
            changed.add(path.name)
    return changed


def _with_small_constants(path: Path) -> str:
    text = path.read_text()
    for name, value in SMALL.get(path.stem, {}).items():
        text = re.sub(rf"(?m)^(    {name}) = [^#\n]*", rf"\1 = {value}  ", text)
        both = (path.with_suffix(".pxd"), path.with_suffix(".pyx"))
        if not any(re.search(rf"(?m)^    {name} = ", x.read_text()) for x in both if x.exists()):
            raise ValueError(f"{path.name} has no constant {name} any more: SMALL in {Path(__file__).name} names it")
    return text


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-6000:]}")


def load(library: Path) -> ctypes.CDLL:
    """The library, with its modules imported, under their own names, by this Python."""
    for name in ("hebbax", "hebbax._core", "hebbax._cpu"):
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = []
    for module in MODULES:
        name = f"hebbax.{module}"
        loader = importlib.machinery.ExtensionFileLoader(name, str(library))
        spec = importlib.util.spec_from_loader(name, loader)
        sys.modules[name] = found = importlib.util.module_from_spec(spec)
        loader.exec_module(found)
    return ctypes.CDLL(str(library))


def main() -> None:
    """In a process of its own: LIBRARY random FIRST COUNT SIZE, or files FOLDER, or libfuzzer ARGUMENT ..."""
    library, what, *rest = sys.argv[1:]
    kernels = load(Path(library))
    if what == "random":
        kernels.hebbax_fuzz_random(ctypes.c_ulonglong(int(rest[0])), ctypes.c_ulonglong(int(rest[1])), int(rest[2]))
    elif what == "files":
        paths = [str(path).encode() for path in sorted(Path(rest[0]).iterdir())]
        kernels.hebbax_fuzz_files((ctypes.c_char_p * len(paths))(*paths), len(paths))
    else:
        arguments = [b"kernels", *(x.encode() for x in rest)]
        raise SystemExit(kernels.hebbax_fuzz_main(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)))
    kernels.hebbax_fuzz_counts.restype = ctypes.POINTER(ctypes.c_longlong)
    counts = kernels.hebbax_fuzz_counts()
    print("inputs", counts[0])
    for k, kind in enumerate(KINDS):
        print(kind, counts[1 + k], counts[1 + len(KINDS) + k])


if __name__ == "__main__":
    main()
