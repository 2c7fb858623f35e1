"""CUDA without a GPU: kernels compiled for the host (`shim.h`, `compiler.py`), and what plays CuPy (`stand_in.py`)."""

import sys

from emulated import compiler, stand_in


def install():
    """Put the stand-in in CuPy's place; return why that makes no sense here, or None."""
    if compiler.find_compiler() is None:
        return compiler.why_no_compiler()
    sys.modules["cupy"] = stand_in.cupy
    return None
