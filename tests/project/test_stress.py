"""`make stress`: what is kept of a part that ends in an error, or for which tools are missing."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

STRESS = Path(__file__).parents[1] / "stress"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"  # which machine it is
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def stress(monkeypatch, tmp_path):
    """`stress(part, run)`: run one part; the JSON that is kept of it, by the effort it was made with."""
    monkeypatch.syspath_prepend(str(STRESS))
    import record
    import run as command

    page = tmp_path / "page.md"
    page.write_text(f"before\n{record.BEGIN}\n{record.END}\nafter\n")
    for name in ("keep", "write_page"):
        function = getattr(record, name)
        options = {"folder": tmp_path} | ({"page": page} if name == "write_page" else {})
        monkeypatch.setattr(command, name, lambda *given, f=function, o=options: f(*given, **o))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)

    def run(part, function, effort):
        module = ModuleType(part)
        module.run = function
        monkeypatch.setitem(sys.modules, part, module)
        monkeypatch.setattr(command, "PARTS", (part,))
        status = None
        try:
            command.main([part], effort)
        except SystemExit as ended:
            status = ended.code
        kept = tmp_path / f"{part}.json"
        return status, json.loads(kept.read_text()) if kept.exists() else None, page.read_text()

    return run, record.Result


def test_an_error_in_a_part_is_a_row_and_missing_tools_leave_what_was_kept(stress):
    run, result = stress
    row = result("calls", 3, "calls", 1.0, "nothing", True, 5)
    status, kept, page = run("some", lambda effort, say: [row], 0.25)
    assert status is None and kept["effort"] == 0.25 and kept["results"][0]["count"] == 3
    assert "| some | calls | 3 calls | 5 | 1 | nothing |" in page and "some: effort 0.25, " in page
    assert run("some", lambda effort, say: [result("skipped", 0, "", 0, "no clang", True)], 1.0)[1:] == (kept, page)

    def broken(effort, say):
        raise OSError("no space\nleft")

    status, kept, page = run("some", broken, 1.0)
    assert status == "did not pass: some: the run itself"
    assert "**ended early: OSError: no space left**" in page and not kept["results"][0]["passed"]


def test_a_clang_without_its_runtime_is_a_row_that_says_what_to_install(monkeypatch):
    monkeypatch.syspath_prepend(str(STRESS))
    import fuzz_build
    import fuzz_kernels

    monkeypatch.setattr(fuzz_build.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(fuzz_build.sanitized, "found", lambda compiler, library: None if "asan" in library else library)
    (row,) = fuzz_kernels.run(0.0, print)
    assert row.what == "skipped" and row.passed and "libclang_rt.asan" in row.found and "libclang-rt-dev" in row.found
