"""CUDA without a GPU: the kernels' sources compiled for the host, and a stand-in for CuPy that launches them.

`shim.h` plays the grid, and says what it cannot show; `compiler.py` compiles; `cupy_stand_in.py` is what hebbax sees of
CuPy, and `driver.py` of CUDA's driver. `machine` has the knobs, such as the number of devices, and the log of what
hebbax asked for.
"""

import contextlib
import sys

from emulated import cupy_stand_in
from emulated.compiler import find_compiler, why_no_compiler
from emulated.machine import GraphMemory, Launch, Load, Memset, machine

__all__ = ["GraphMemory", "Launch", "Load", "Memset", "find_compiler", "install", "installed", "machine", "uninstall"]

_hidden: list[dict] = []  # what had these names before each `install`


def install():
    """Let `import cupy` find the stand-in, and reset the machine; return why the kernels could not run, or None."""
    if reason := why_no_compiler():
        return reason
    machine.reset()
    _hidden.append({name: x for name, x in sys.modules.items() if name.partition(".")[0] == "cupy"})
    for name in _hidden[-1]:
        del sys.modules[name]
    sys.modules.update(cupy_stand_in.modules())
    return None


def uninstall():
    """Undo the last `install`."""
    for name in cupy_stand_in.modules():
        sys.modules.pop(name, None)
    sys.modules.update(_hidden.pop())


@contextlib.contextmanager
def installed():
    """The machine, for one test; raises where there is no compiler."""
    if reason := install():
        raise RuntimeError(reason)
    try:
        yield machine
    finally:
        uninstall()
