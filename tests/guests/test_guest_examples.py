"""The examples of other libraries run on hebbax, and compute what they did before."""

import importlib.util
import re
from pathlib import Path

import pytest

import hebbax.brainevent

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the repository's examples beside tests")
UPDATES = {"update_csr_on_binary_pre", "update_csr_on_binary_post"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("library, synapses, updates", [("brainstate", 40, set()), ("brainpy", 100, UPDATES)])
def test_examples_run_on_hebbax_with_equal_spikes(library, synapses, updates, capsys, monkeypatch):
    pytest.importorskip(library)
    used = set()

    def counting(name, function):
        def counted(*operands, **options):
            used.add(name)
            return function(*operands, **options)

        return counted

    for name in (*UPDATES, "propagate_csr_on_binary_pre"):
        monkeypatch.setattr(hebbax.brainevent, name, counting(name, getattr(hebbax.brainevent, name)))
    load(f"{library}_network").main(neurons=400, synapses=synapses, milliseconds=100)
    out = capsys.readouterr().out
    assert float(re.search(r"([\d.]+) spikes/s", out)[1]) > 1
    assert "equal" in out and "DIFFER" not in out
    assert used == {"propagate_csr_on_binary_pre", *updates}
