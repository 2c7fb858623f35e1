"""CUDA sources that include nothing, compiled by the host's C++ compiler behind `shim.h`."""

import ctypes
import functools
import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHIM = Path(__file__).with_name("shim.h")
# No contraction: NVRTC is told the same. Hidden: a shared array of one library is not that of another one's template.
# An index that leaves a local or shared array, and an access that is not aligned, which fails on a GPU alone, end the
# process, where they would mostly go unseen.
FLAGS = (
    "-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-w",
    "-fsanitize=bounds,alignment", "-fsanitize-undefined-trap-on-error",
)  # fmt: skip

_seeds = itertools.count()  # each launch has another order of threads and blocks

# The names of the shim that a source may overload come first, so that what it says of float16 is found in templates.
# Macros come after the shim, which is none of theirs.
_FILE = """#include "{shim}"
{macros}
namespace source {{
using shim::load;
using shim::store;
#line 1 "kernels.cu"
{code}
extern "C" __attribute__((visibility("default"))) const char* launch(
    int which, const unsigned* sizes, const void* argument, size_t bytes, unsigned seed) {{
  switch (which) {{
{cases}
  }}
  return "no such kernel";
}}
}}
"""
_CASE = "    case {}: return shim::run({}, sizes, argument, bytes, seed);"


class CompileError(Exception):
    """What the compiler said."""


class LaunchError(Exception):
    """Threads of a block that do not meet at a barrier, or an argument that is not the kernel's."""


@functools.cache
def _compiler():
    """The command of a C++ compiler, or None, and why there is none."""
    if not sys.platform.startswith("linux"):
        return None, "the kernels are emulated on Linux only"
    for command in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return (shutil.which(words[0]), *words[1:]), None
    return None, "no C++ compiler was found: neither $CXX nor g++, c++ or clang++"


def find_compiler():
    """The path of a C++ compiler, or None: then `why_no_compiler` has the reason."""
    command, _ = _compiler()
    return command and command[0]


def why_no_compiler():
    return _compiler()[1]


def cache_folder():
    """Where the libraries are kept: this user's own, as libraries are code."""
    folder = Path(tempfile.gettempdir(), f"hebbax-emulated-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


@functools.cache
def library(code, name_expressions, macros=()):
    """The path of the shared library of these kernels: compiled, unless some process has done so before."""
    command, why_not = _compiler()
    if command is None:
        raise CompileError(why_not)
    cases = "\n".join(_CASE.format(i, name) for i, name in enumerate(name_expressions))
    defined = "\n".join("#define " + (macro if "=" in macro else f"{macro}=1").replace("=", " ", 1) for macro in macros)
    text = _FILE.format(shim=SHIM, macros=defined, code=code, cases=cases)
    date = os.stat(command[0]).st_mtime_ns
    key = hashlib.sha256(repr((text, SHIM.read_text(), command, date, FLAGS)).encode()).hexdigest()[:32]
    folder = cache_folder()
    target = folder / f"{key}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as own:  # several processes may be at it: the last one wins
        source, made = Path(own, "emulated.cpp"), Path(own, "emulated.so")
        source.write_text(text)
        done = subprocess.run([*command, *FLAGS, "-o", made, source], capture_output=True, text=True)
        if done.returncode:
            raise CompileError(done.stderr)
        os.replace(made, target)
    return target


class Module:
    """The kernels of a source that `name_expressions` name, such as `update<float, int>`; macros as in "N=3"."""

    def __init__(self, code, name_expressions, macros=()):
        self.names = tuple(name_expressions)
        # PyDLL keeps the interpreter's lock: the shim's memory is there once.
        self._launch = ctypes.PyDLL(str(library(code, self.names, tuple(macros)))).launch
        self._launch.restype = ctypes.c_char_p

    def launch(self, name, grid, block, argument, seed=None):
        """Run a kernel on an array or scalar of NumPy, whose bytes are its only parameter."""
        argument = np.asarray(argument)
        sizes = (ctypes.c_uint * 6)(*grid, *[1] * (3 - len(grid)), *block, *[1] * (3 - len(block)))
        seed = next(_seeds) if seed is None else seed
        error = self._launch(
            self.names.index(name), sizes, ctypes.c_void_p(argument.ctypes.data), ctypes.c_size_t(argument.nbytes),
            ctypes.c_uint(seed),
        )  # fmt: skip
        if error:
            raise LaunchError(f"{name}: {error.decode()} (seed {seed})")
