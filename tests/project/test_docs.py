"""Docstrings: every example runs and shows what it says. (Those of pages: `test_pages.py`.)"""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import hebbax

MODULES = ["hebbax", *(module.name for module in pkgutil.walk_packages(hebbax.__path__, "hebbax."))]
FUNCTIONS = {name: x for name in hebbax.__all__ if inspect.isfunction(x := getattr(hebbax, name))}
FUNCTIONS |= {f"inplace.{name}": getattr(hebbax.inplace, name) for name in hebbax.inplace.__all__}
WITH_PARAMETERS = [name for name, function in FUNCTIONS.items() if inspect.signature(function).parameters]


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert result.failed == 0


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_every_parameter_is_documented_and_an_example_shown(name):
    function = FUNCTIONS[name]
    assert doctest.DocTestFinder(recurse=False).find(function, name)[0].examples
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"\b{parameter}\b", inspect.getdoc(function))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "_on_binary_" in name])
def test_docstrings_are_filled_in(name):
    doc = FUNCTIONS[name].__doc__
    sections = re.findall(r"^([A-Z]\w+)\n-+$", doc, re.MULTILINE)
    assert sections == ["Parameters", "Returns", "Raises", "Notes", "Examples"]
    assert not re.search(r"(?<![\w\\])\{[a-z_]+\}", doc), "a shared part is missing"
    assert ("Quantity" in doc and "backend : " in doc) != FUNCTIONS[name].__module__.endswith("inplace")
    assert "dimension of" not in doc or not FUNCTIONS[name].__module__.endswith("inplace")


@pytest.mark.parametrize(
    "name", ["__init__", "random", *sorted(name for name in vars(hebbax.Synapses) if name.startswith("from_"))]
)
def test_every_way_to_build_synapses_is_documented(name):
    function = getattr(hebbax.Synapses, name)
    doc = inspect.getdoc(hebbax.Synapses if name == "__init__" else function)
    for parameter in set(inspect.signature(function).parameters) - {"self"}:
        assert re.search(rf"^.*\b{parameter}\b.* : ", doc, re.MULTILINE), parameter
    assert doctest.DocTestParser().get_examples(doc)
