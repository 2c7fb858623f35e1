"""What a user installs is what git holds: sdist and wheel, built twice in different folders, are the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import ROOT, Result

FOLDERS = ("a", "another, with a longer name")
BUILD = "import mesonpy; mesonpy.build_sdist('..'); mesonpy.build_wheel('..')"


def run(effort: float, say: Callable[[str], None]) -> list[Result]:
    del effort  # nothing that could be done by halves
    results = [_lock_file()]
    if subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode:
        return [*results, Result("sdist and wheels of a commit", 0, "builds", 0, "skipped: needs git", True)]
    with tempfile.TemporaryDirectory() as temp:
        start = time.monotonic()
        built = [_build(Path(temp) / name) for name in FOLDERS]
        seconds = (time.monotonic() - start) / 2
        failed = [error for error in built if isinstance(error, str)]
        if failed:
            return [*results, Result("sdist and wheels of a commit", 0, "builds", 2 * seconds, failed[0], False)]
        pairs = [
            next(path for path in folder if path.name.endswith(suffix))
            for suffix in (".gz", ".whl")
            for folder in built
        ]
        results.append(_same("the sdist, built twice in different folders", pairs[:2], seconds, say))
        results.append(_same("the wheel, built twice in different folders", pairs[2:], seconds, say))
        results.append(_holds_what_git_holds(pairs[0]))
        results.append(_holds_all_modules(pairs[2]))
    return results


def _lock_file() -> Result:
    start = time.monotonic()
    done = subprocess.run([sys.executable, ".ci/check_locked.py"], cwd=ROOT, capture_output=True, text=True)
    found = (done.stdout + done.stderr).strip()
    count = int(found.split()[1]) if done.returncode == 0 else 0
    what = "the lock file: hashes of all, no address, what pyproject.toml asks for"
    return Result(what, count, "packages", time.monotonic() - start, "nothing" if count else found, count > 0)


def _build(folder: Path) -> list[Path] | str:
    """The sdist and the wheel of the last commit, with the time of that; or what went wrong."""
    folder.mkdir()
    subprocess.run(["git", "clone", "-q", ROOT, folder / "hebbax"], check=True)
    when = subprocess.check_output(["git", "-C", ROOT, "log", "-1", "--format=%ct"], text=True).strip()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": when, "PATH": path}
    command = [sys.executable, "-c", BUILD]
    done = subprocess.run(command, cwd=folder / "hebbax", env=environment, capture_output=True, text=True)
    if done.returncode:
        return f"does not build: {(done.stdout + done.stderr).strip().splitlines()[-1]}"
    return sorted(path for path in folder.iterdir() if path.is_file())


def _same(what: str, files: list[Path], seconds: float, say: Callable[[str], None]) -> Result:
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    for path, checksum in zip(files, sums, strict=True):
        say(f"{checksum}  {path.name}")
    same = sums[0] == sums[1]
    found = f"nothing (SHA-256 {sums[0][:16]}...)" if same else "they differ"
    return Result(what, 2, "builds", seconds, found, same)


def _holds_what_git_holds(sdist: Path) -> Result:
    """Each file that is tracked, with its content, and beside these only what says what the package is."""
    start = time.monotonic()
    tracked = _contents(
        subprocess.check_output(["git", "-C", sdist.parent / "hebbax", "archive", "--prefix=x/", "HEAD"])
    )
    packed = _contents(gzip.decompress(sdist.read_bytes()))
    packed.pop("PKG-INFO", None)
    wrong = sorted(name for name in tracked | packed if tracked.get(name) != packed.get(name))
    found = f"differs from git in: {', '.join(wrong[:5])}" if wrong else "nothing"
    return Result("the sdist against git", len(tracked), "files", time.monotonic() - start, found, not wrong)


def _contents(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        members = {member.name.partition("/")[2]: files.extractfile(member) for member in files if not member.isdir()}
        return {name: stream.read() if stream else b"" for name, stream in members.items()}


def _holds_all_modules(wheel: Path) -> Result:
    start = time.monotonic()
    done = subprocess.run([sys.executable, ".ci/check_wheel.py", wheel], cwd=ROOT, capture_output=True, text=True)
    found = "nothing" if done.returncode == 0 else done.stderr.strip()
    return Result("the wheel against git", 1, "wheels", time.monotonic() - start, found, done.returncode == 0)
