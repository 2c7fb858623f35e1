"""Whether `make test` still bites: ten deliberate faults, of one line each, must all be found by its tests.

    make test-mutations                   all of them
    python tests/mutations.py rules rows  those in files of such names

Each is made in a copy of the sources, built there and tested: first by the tests that should see it, and, should they
pass, by all that `make test` runs. Fails where one survives, or where its line is no longer there to be changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """What to change in which file, and where it should be found."""

    path: str
    right: str
    wrong: str
    tests: str


FAULTS = (
    Fault(
        "src/hebbax/_cpu/update.pyx",
        "x = high if x > high else x",
        "x = high if x > high + 1 else x",
        "operators/test_values.py",
    ),
    Fault(
        "src/hebbax/_cpu/propagate.pyx",
        "out[indices[k]] += factor * x",
        "out[indices[k]] += x",
        "transformations/test_jvp.py",
    ),
    Fault(
        "src/hebbax/_cpu/collect.pyx",
        "sum = sum + x * trace[partner]",
        "sum = x * trace[partner]",
        "transformations/test_grad.py",
    ),
    Fault("src/hebbax/_cpu/rows.pyx", "j += 32", "j += 33", "outside_jax/test_inplace.py"),
    Fault("cuda/update.cu", "if (high_moves) x = high;", "if (high_moves) x = low;", "operators/test_values.py"),
    Fault(
        "src/hebbax/_core/primitives.py",
        "net.propagate(weight, d_gain, n_out)",
        "net.propagate(weight, gain, n_out)",
        "transformations/test_grad.py",
    ),
    Fault(
        "src/hebbax/_core/connectivity.py",
        "0 <= ids.min() <= ids.max() < n",
        "0 <= ids.min() <= ids.max() <= n",
        "structure/test_synapses_errors.py",
    ),
    Fault("src/hebbax/inplace.py", "x = x != 0", "x = x > 0", "outside_jax/test_inplace.py"),
    Fault(
        "src/hebbax/rules/pair.py",
        "add_spikes(plus.of(value)",
        "add_spikes(minus.of(value)",
        "rules/test_rules.py",
    ),
    Fault("src/hebbax/rules/inhibitory.py", "post - 2 * at_target", "post - 1 * at_target", "rules/test_rules.py"),
)


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def build(copy):
    """Build the package of a copy; what did not change since the last time is not built again."""
    shutil.rmtree(copy / "site", ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    built = run([*pip, "-Cbuild-dir=build", "--target", "site", "."], cwd=copy, env=os.environ | {"PATH": path})
    if built.returncode:
        raise SystemExit(f"the build fails:\n{built.stdout}")


def found_by(copy, tests):
    """The first test that fails, None if all pass."""
    pytest = [str(ROOT / ".ci" / "quickly"), sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]
    command = [*pytest, "-x", "-q", "-m", "not slow", *tests]
    result = run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy / "site")})
    failed = [line.split()[1] for line in result.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if result.returncode and not failed:
        raise SystemExit(f"pytest fails by itself:\n{result.stdout}")
    return failed[0] if failed else None


def main():
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "hebbax"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "demo", "__pycache__"))
        build(copy)
        if failed := found_by(copy, sorted({f"tests/{fault.tests}" for fault in FAULTS})):
            raise SystemExit(f"{failed} fails without a fault")
        for fault in FAULTS:
            if sys.argv[1:] and not any(name in fault.path for name in sys.argv[1:]):
                continue
            path = copy / fault.path
            source = path.read_text("utf-8")
            if (times := source.count(fault.right)) != 1:
                raise SystemExit(f"{fault.path}: {fault.right!r} is there {times} times, expected once")
            path.write_text(source.replace(fault.right, fault.wrong), "utf-8")
            build(copy)
            found = found_by(copy, [f"tests/{fault.tests}"]) or found_by(copy, [])
            path.write_text(source, "utf-8")
            survived += found is None
            print(f"{found or 'SURVIVED'}: {fault.path}: {fault.right} -> {fault.wrong}", flush=True)
    raise SystemExit(survived)


if __name__ == "__main__":
    main()
