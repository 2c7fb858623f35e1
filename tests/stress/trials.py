"""A copy of the repository in which one source at a time is changed, built and tested."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT

BIN = Path(sys.executable).parent
KERNELS = "src/hebbax/_cpu/"
HANGS = 900  # seconds without the end of a run of tests; each test has SECONDS of computing (a pause does not count)
SECONDS = 30
# Ends a process whose test computes for longer; what tests start by themselves has a limit of its own. Tests that
# took little time when all passed come first, so that most changes are found soon.
PLUGIN = f"""
import json, pathlib, resource, signal

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
KEPT = pathlib.Path(__file__).parents[1] / "durations.json"
known = json.loads(KEPT.read_text()) if KEPT.exists() else {{}}

def pytest_collection_modifyitems(items):
    took = [known.get(item.nodeid, 0) for item in items]
    # Few steps, within which tests that share what is made for them stay side by side.
    items[:] = [x for _, x in sorted(enumerate(items), key=lambda x: (took[x[0]] > 0.1) + (took[x[0]] > 1))]

def pytest_runtest_setup(item):
    signal.setitimer(signal.ITIMER_PROF, {SECONDS})

def pytest_runtest_teardown(item):
    signal.setitimer(signal.ITIMER_PROF, 0)

def pytest_runtest_logreport(report):
    if report.when == "call":
        known[report.nodeid] = report.duration

def pytest_sessionfinish(exitstatus):
    if exitstatus == 0:
        scratch = pathlib.Path(__file__).with_name("durations.new")
        scratch.write_text(json.dumps(known))
        scratch.replace(KEPT)
"""


class Copy:
    """A copy with its own build, all modules of which are compiled but quickly; what changed alone is built again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "tree"
        built = self.tree / "build" / "build.ninja"
        folder.mkdir(parents=True, exist_ok=True)
        if not built.exists():
            shutil.rmtree(self.tree, ignore_errors=True)
            ignored = shutil.ignore_patterns(
                ".*_cache", ".git", ".venv*", ".hypothesis", "build", "dist", "demo", "__pycache__"
            )
            shutil.copytree(ROOT, self.tree, ignore=ignored)
            self._must("meson", "setup", "build", "-Dbuildtype=plain", "-Doptimization=1", "-Ddebug=false")
        shutil.rmtree(folder / "site", ignore_errors=True)
        for part in ("src", "cuda", "tests"):  # which may have changed since
            self._bring(part)
        self._must("ninja", "-j2", "-C", "build")
        self._must("meson", "install", "-C", "build", "--no-rebuild", "--quiet", "--destdir", str(folder / "site"))
        (self.site,) = {x.parent for x in folder.glob("site/**/hebbax") if x.is_dir()}
        (folder / "limits.py").write_text(PLUGIN)
        self.environment = self._environment()

    def _bring(self, part: str) -> None:
        """Make a folder of the copy as it is, and leave alone what is so already, which need not be built again."""
        wanted = {x.relative_to(ROOT) for x in (ROOT / part).rglob("*") if x.is_file() and "__pycache__" not in x.parts}
        for path in (self.tree / part).rglob("*"):
            if path.is_file() and path.relative_to(self.tree) not in wanted:
                path.unlink()
        for path in wanted:
            source, target = (ROOT / path).read_bytes(), self.tree / path
            if not target.exists() or target.read_bytes() != source:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source)

    def _must(self, *command: str) -> None:
        done = self._run([str(BIN / command[0]), *command[1:]], os.environ)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}")

    def _run(self, command: list[str], environment, cwd: Path | None = None, timeout: float | None = None):
        environment = dict(environment) | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
            cwd=cwd or self.tree, timeout=timeout,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """What `.ci/quickly` sets, found out once."""
        say = "import json, os; print(json.dumps(dict(os.environ)))"
        done = subprocess.run([ROOT / ".ci" / "quickly", sys.executable, "-c", say], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout) | {
            "PYTHONPATH": f"{self.site}{os.pathsep}{self.folder}",
            # What XLA has compiled is the same for most changes.
            "JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def put(self, path: str, text: str) -> bool:
        """Change a source and build what it is part of; return whether that was possible."""
        (self.tree / path).write_text(text, "utf-8")
        if not path.startswith(KERNELS) or path.endswith(".py"):
            below = self.site / path.removeprefix("src/") if path.startswith("src/") else self.site / "hebbax" / path
            below.write_text(text, "utf-8")
            return True
        return all(self._compile(module) for module in self._modules(path))

    def take_back(self, path: str) -> None:
        """The source as it was, and the modules that were built of it."""
        text = (ROOT / path).read_text("utf-8")
        if not path.startswith(KERNELS) or path.endswith(".py"):
            self.put(path, text)
            return
        (self.tree / path).write_text(text, "utf-8")
        for module in self._modules(path):
            shutil.copyfile(self.folder / "kept" / module, self._installed(module))

    def _installed(self, module: str) -> Path:
        return next((self.site / "hebbax" / "_cpu").glob(f"{module.partition('.')[0]}.*so"))

    def _modules(self, path: str) -> list[str]:
        """The extension modules, as files, whose code is made of a source, itself or by what it takes from others."""
        texts = {x.name: x.read_text("utf-8") for x in (ROOT / KERNELS).glob("*.p[yx]*")}
        names, changed = {Path(path).name}, True
        while changed:
            changed = False
            for name, text in texts.items():
                below = {x for x in names if x.endswith((".pxd", ".pxi"))}
                taken = any(re.search(rf"\b{x.partition('.')[0]} cimport|include \"{x}\"", text) for x in below)
                taken |= name == Path(path).stem + ".pyx" and path.endswith(".pxd")
                changed |= taken and name not in names
                names |= {name} if taken else set()
        modules = sorted(x.replace(".pyx", ".so") for x in names if x.endswith(".pyx"))
        (self.folder / "kept").mkdir(exist_ok=True)
        for module in modules:
            if not (kept := self.folder / "kept" / module).exists():
                shutil.copyfile(self._installed(module), kept)
        return modules

    def _compile(self, module: str) -> bool:
        """By the commands that ninja has for it, as ninja would build anew what is taken back later too."""
        target = f"src/{self._installed(module).name}"
        build = self.tree / "build"
        commands = self._run([str(BIN / "ninja"), "-t", "commands", target], os.environ, build).stdout.splitlines()
        for command in commands:
            if self._run(["sh", "-c", command], os.environ, build).returncode:
                return False
        # A new file: the old one may be mapped into a process that is about to end.
        (scratch := self._installed(module).with_suffix(".new")).write_bytes((build / target).read_bytes())
        scratch.replace(self._installed(module))
        return True

    def found_by(self, tests: list[str]) -> str:
        """Which test fails or ends its process, by what; nothing if all pass."""
        (temporary := self.folder / "temporary").mkdir(exist_ok=True)  # where the emulated kernels are kept, too
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            log = Path(scratch) / "log"
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-p",
                "limits",
                "-x",
                "-vv",
                "--tb=line",
            ]
            command += ["--no-header", "-m", "not slow", "-o", "addopts=--strict-markers", *tests]
            environment = self.environment | {"TMPDIR": str(temporary)}
            with log.open("w") as out:
                child = subprocess.Popen(
                    command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=self.tree,
                    start_new_session=True,
                )  # fmt: skip
                try:
                    code = child.wait(HANGS)
                except subprocess.TimeoutExpired:
                    code = None
                finally:
                    _end_group(child)
            text = log.read_text("utf-8", errors="replace")
        if code == 0:
            return ""
        started = re.findall(r"^(tests/\S+::\S+)", text, re.MULTILINE)
        failed = re.findall(r"^(tests/\S+::.*?) (?:FAILED|ERROR)", text, re.MULTILINE)
        if failed:
            return failed[-1]
        last = started[-1] if started else "the import"
        if code is None or code == -signal.SIGPROF:
            return f"{last} (hangs)"
        if code < 0:
            return f"{last} (signal {-code})"
        if code in (2, 3, 4) or "rror" in text:
            return f"{last} (pytest {code})"
        raise RuntimeError(f"pytest ends by {code}:\n{text[-2000:]}")


def _end_group(child: subprocess.Popen) -> None:
    """Whatever a test started and left, too: it has a session, and so a group of processes, of its own."""
    try:
        os.killpg(child.pid, 9)
    except ProcessLookupError:
        pass
    child.wait()


def is_parsed(path: str, text: str) -> bool:
    """Whether Python takes a source."""
    try:
        return not path.endswith(".py") or bool(ast.parse(text))
    except SyntaxError:
        return False
