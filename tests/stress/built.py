"""C sources of this folder, compiled when they are needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def why_no_compiler() -> str | None:
    """Say why nothing can be compiled; None: it can."""
    return None if shutil.which("cc") else "skipped: there is no C compiler, `cc` (apt install gcc)"


def library(name: str) -> Path:
    """The shared library that a source becomes, in a folder that lives as long as the machine's temporary files."""
    path = Path(tempfile.mkdtemp(prefix="hebbax-stress-")) / f"{name}.so"
    flags = ("-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-ffp-contract=off", "-fno-builtin-malloc")
    command = ["cc", *flags, "-o", str(path), str(HERE / f"{name}.c"), "-lm", "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return path
