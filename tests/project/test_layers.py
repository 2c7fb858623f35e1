"""Layers: a module imports only from those below its own, and what is private to JAX is asked for nowhere."""

import ast
from pathlib import Path

import pytest

import hebbax

PACKAGE = Path(hebbax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(("hebbax", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}

# From the ground up. The package itself, which re-exports the layers up to the rules, is what the ones above import.
LAYERS = [
    ["_core", "_core.specs", "_core.docs", "_core.compat", "_core.pytree", "_core.dlpack", "errors"],
    ["_core.foreign"],
    ["_core.forks", "_core.sides", "_core.numbers"],
    ["_cpu", "_cuda", "_core.reference", "_core.members"],
    ["_core.lowering", "_core.fence"],
    ["_core.primitives"],
    ["_core.events", "_core.delivery", "_core.sent", "_core.logs"],
    ["_core.visit"],
    ["_core.unitless"],
    ["_core.exchange"],
    ["_core.memory", "_core.connectivity"],
    ["_core.building", "_core.merging", "_core.drawing"],
    ["_core.applying"],
    ["_core.any_rule"],
    ["_core.layout", "_core.matrices", "operators", "inplace"],
    ["synapses", "csc"],
    ["sharding", "delays", "record", "rewiring"],
    ["rules"],
    ["hebbax"],
    ["brainevent"],
    ["_terminal"],
    ["experiments"],
    ["replay"],
    ["runs"],
    ["cli", "__main__"],
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def layer(module):
    """The name in `LAYERS` of a dotted module: `experiments` of `hebbax.experiments.song2000`, say."""
    parts = [part for part in module.split(".") if part != "__init__"]
    if parts[1:2] == ["_core"]:  # whose modules have layers of their own
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else "hebbax"


def imports(path, module):
    """Every module of the package that the code names, functions' own imports too."""
    package = module.rsplit(".", 1)[0].split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level] if node.level else []).strip(".")
            base = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if layer(full) in HEIGHT and layer(full) != layer(base) else base


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_below(module):
    own = layer(module)
    assert own in HEIGHT, f"{module} belongs to no layer"
    for name in imports(MODULES[module], module):
        if name.split(".")[0] == "hebbax" and layer(name) != own:
            assert HEIGHT[layer(name)] < HEIGHT[own], f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_only_compat_may_know_what_jax_hides(module):
    private = [name for name in imports(MODULES[module], module) if name.startswith("jax._src")]
    assert not private or module == "hebbax._core.compat"
    source = MODULES[module].read_text(encoding="utf-8")
    assert "jax.__version__" not in source or layer(module) in (
        "_core.compat",
        "cli",
    )


def test_the_package_only_reexports():
    tree = ast.parse(MODULES["hebbax.__init__"].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        assert isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Assign) and node.targets[0].id in ("__version__", "__all__")
        )
    assert sorted(hebbax.__all__) == hebbax.__all__ and all(hasattr(hebbax, name) for name in hebbax.__all__)


def test_the_test_sees_a_wrong_import(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(
        "from hebbax import operators\ndef f():\n    from ..cli import main\n    import hebbax.rules as r\n"
    )
    assert list(imports(path, "hebbax._cpu.wrong")) == ["hebbax.operators", "hebbax.cli", "hebbax.rules"]


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
