"""Inputs are never unpickled, nor run: no code of ours imports or calls what would do that."""

import ast
import re
from pathlib import Path

import pytest

import hebbax

ROOT = Path(__file__).parents[2]
FOLDERS = (Path(hebbax.__file__).parent, *(ROOT / name for name in ("src", "examples", "benchmarks", "docs", ".ci")))
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "read_pickle", "unsafe_load"}


def dangers(tree):
    """What in a program may unpickle or run what it reads, by line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: {x.name}" for x in node.names if x.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"{node.lineno}: {node.module}"
        elif isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            by_name = called in ("import_module", "__import__") and getattr(node.args[0], "value", "") in MODULES
            plain = isinstance(node.func, ast.Name) or called not in ("eval", "exec")  # `model.eval()` runs no text
            if (called in CALLS and plain) or by_name:
                yield f"{node.lineno}: {called}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True):
                    yield f"{node.lineno}: allow_pickle"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import numpy, marshal", "def f():\n    from joblib import load",
        "eval(x)", "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)", "pandas.read_pickle(path)",
        "yaml.unsafe_load(text)", "importlib.import_module('pickle')",
    ],
)  # fmt: skip
def test_it_is_seen(text):
    assert len(list(dangers(ast.parse(text)))) == 1


@pytest.mark.parametrize(
    "text", ["np.load(path)", "np.load(path, allow_pickle=False)", "model.eval()", "json.loads(x)"]
)
def test_what_is_harmless_is_not(text):
    assert not list(dangers(ast.parse(text)))


def test_no_code_of_ours_unpickles_or_runs_what_it_reads():
    files = [path for folder in FOLDERS for path in folder.rglob("*.py")]
    found = {str(path): names for path in files if (names := list(dangers(ast.parse(path.read_text("utf-8")))))}
    assert len(files) > 50 and not found
    for path in (
        path for folder in FOLDERS for path in folder.rglob("*.p[yx][xid]")
    ):  # of Cython, which `ast` cannot read
        names = re.findall(r"^\s*(?:c?import|from)\s+(\w+)", path.read_text("utf-8"), flags=re.M)
        assert not MODULES & set(names), path
