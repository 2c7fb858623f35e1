"""Fails unless each wheel given carries all that git tracks in src/ and cuda/, compiled where it is Cython.

Of others' libraries it is to bring along none but, where it is for many Linuxes, that of OpenMP, with its licence.
"""

import re
import subprocess
import sys
import zipfile

tracked = subprocess.run(["git", "ls-files", "src/hebbax", "cuda"], capture_output=True, check=True, text=True).stdout
expected = {"hebbax/py.typed"}
for path in tracked.splitlines():
    path = path.removeprefix("src/") if path.startswith("src/") else f"hebbax/{path}"
    if path.endswith((".py", ".pyx")) or path.startswith("hebbax/cuda/"):
        expected.add(path.removesuffix(".pyx") + ".so" if path.endswith(".pyx") else path)

for wheel in sys.argv[1:]:
    found = zipfile.ZipFile(wheel).namelist()
    names = {re.sub(r"\.(cpython|abi3)-?[^/]*\.so$", ".so", name) for name in found}
    if missing := expected - names:
        raise SystemExit(f"{wheel}: missing: {', '.join(sorted(missing))}")
    libraries = {name for name in names - expected if re.search(r"\.(so|dylib)\b", name)}
    bundled = {re.sub(r"hebbax\.libs/libgomp-[0-9a-f]+\.so[.0-9]*", "libgomp", name) for name in libraries}
    if bundled != ({"libgomp"} if "manylinux" in wheel else set()):
        raise SystemExit(f"{wheel}: brings along: {', '.join(sorted(libraries)) or 'no libgomp'}")
    if not any(name.endswith("/licenses/LICENSE.libgomp") for name in names):
        raise SystemExit(f"{wheel}: missing: LICENSE.libgomp")
    print(f"{wheel}: all of {len(expected)} files present, bundled: {', '.join(bundled) or 'nothing'}")
