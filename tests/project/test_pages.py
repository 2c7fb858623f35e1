"""Pages: their examples print what they say, their links lead somewhere, and all that is public is in the reference.

Sphinx is not needed here; `make docs` looks for what only it can see, and runs the tutorials.
"""

import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hebbax
from children import environment

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
EXPERIMENTS = sorted((DOCS / "experiments").glob("plot_*.py"))
AFTER = {"runs.md": ["simulate", "cuba", "--seconds", "0.1"]}  # commands whose results a page's examples read
TAKE = {"runs.md": ["xarray", "h5netcdf"]}
WITH_DEVICES = ["derivatives.md", "devices.md"]  # whose examples are for several
in_repository = pytest.mark.skipif(not README.exists(), reason="the pages are not part of an installed package")


def blocks(path, language="python"):
    """The examples of a page, each going on from those before it; "py" are those of other simulators."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def check_output(code, printed):
    """A line that prints says in a comment what."""
    comments = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert comments and printed.strip().splitlines() == [comment.strip() for comment in comments]


@pytest.mark.slow
@in_repository
@pytest.mark.parametrize("path", [path for path in PAGES if path.exists() and blocks(path)], ids=lambda path: path.stem)
def test_examples_of_a_page_print_what_they_say(path, monkeypatch, threads, tmp_path):
    code = "\n".join(blocks(path))
    for library in TAKE.get(path.name, ()):
        pytest.importorskip(library)
    if path.name in AFTER:
        monkeypatch.chdir(tmp_path)
        command = [sys.executable, "-c", "from hebbax.cli import main; main()", *AFTER[path.name]]
        subprocess.run(command, check=True, capture_output=True, env=environment())
    monkeypatch.setattr(sys, "argv", ["page"])
    if path.name in WITH_DEVICES:
        env = environment(devices=4)
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert child.returncode == 0, child.stderr
        printed = child.stdout
    else:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, str(path), "exec"), {"__name__": "page"})
        printed = out.getvalue()
    check_output(code, printed)


@in_repository
@pytest.mark.parametrize("simulator", ["brainevent", "brian2", "nest"])
def test_other_simulators_print_the_same(simulator, tmp_path):
    if importlib.util.find_spec(simulator) is None:
        pytest.skip(f"{simulator} is not installed")
    theirs = blocks(DOCS / "coming_from.md", "py")
    (code,) = (x for x in theirs if re.match(rf"(from|import) {simulator}\b", x))
    command, env = [sys.executable, "-c", code], environment(PYNEST_QUIET="1")
    child = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert child.returncode == 0, child.stderr
    check_output(code, child.stdout.strip().splitlines()[-1])  # NEST also says what it does


@in_repository
def test_every_experiment_has_a_page_with_its_command():
    from hebbax import cli

    pages = {path.stem.removeprefix("plot_"): path.read_text() for path in EXPERIMENTS}
    assert pages.keys() == {command.name for command in cli.simulate.registered_commands}
    for name, page in pages.items():
        assert f"hebbax simulate {name}\n" in page and f"{name}.simulate(" in page and "figure(" in page


@in_repository
def test_every_public_name_is_in_the_reference():
    """And nothing else."""
    text = (DOCS / "api.rst").read_text()
    listed, module = [], None
    for line in text.splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"   ([a-zA-Z]\w*)$", line):
            listed.append(f"{module}.{found[1]}")
    assert len(listed) == len(set(listed))
    there = [named(name) for name in listed]
    for module in PUBLIC:
        public = importlib.import_module(module)
        own = f"``{module}``" in text or f".. automodule:: {module}" in text or f"\n{module}\n-" in text
        assert own, module
        for name in getattr(public, "__all__", ()):
            value = getattr(public, name)
            known = inspect.ismodule(value) or isinstance(value, str) or any(value is x for x in there)
            assert known, f"{module}.{name}"
    for module in sorted((Path(hebbax.__file__).parent / "experiments").glob("[a-z]*.py")):
        assert f"hebbax.experiments.{module.stem}" in listed


MODULES = ("brainevent", "csc", "delays", "experiments", "inplace", "replay", "rules", "sharding")
PUBLIC = ["hebbax", *(f"hebbax.{name}" for name in MODULES)]


def named(name):
    """What a dotted name of the reference is."""
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute, None)
    return importlib.import_module(name) if value is None else value


@in_repository
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_of_a_page_lead_somewhere(path):
    """In the repository; on the site Sphinx looks."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path.parent / target if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file), link


def anchors(path):
    """Of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@in_repository
def test_every_page_is_on_the_site():
    index = (DOCS / "index.md").read_text()
    for path in PAGES[1:]:
        assert path.stem == "index" or re.search(rf"^{path.stem}$", index, re.MULTILINE), path.name
