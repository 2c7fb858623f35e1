"""Fails unless the wheel given carries everything that git tracks in src/ and cuda/, compiled where it is Cython."""

import re
import subprocess
import sys
import zipfile

names = {re.sub(r"\.(cpython|abi3)-?[^/]*\.so$", ".so", name) for name in zipfile.ZipFile(sys.argv[1]).namelist()}
tracked = subprocess.run(["git", "ls-files", "src/hebbax", "cuda"], capture_output=True, check=True, text=True).stdout
expected = {"hebbax/py.typed"}
for path in tracked.splitlines():
    path = path.removeprefix("src/") if path.startswith("src/") else f"hebbax/{path}"
    if path.endswith((".py", ".pyx")) or path.startswith("hebbax/cuda/"):
        expected.add(path.removesuffix(".pyx") + ".so" if path.endswith(".pyx") else path)
if missing := expected - names:
    raise SystemExit(f"missing in the wheel: {', '.join(sorted(missing))}")
print(f"{sys.argv[1]}: all of {len(expected)} files present")
