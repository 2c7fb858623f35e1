"""Runs small enough for a test, their blocks too, and whether two came to the same."""

import dataclasses
import functools
import sys
from pathlib import Path

import brainunit as u
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "experiments"))
from small_networks import RUNS as NETWORKS

from hebbax.experiments import digits, network_loop, reward, song2000

SECONDS = {"song2000": 0.75, "reward": 2.3, "digits": 0.0, **dict.fromkeys(NETWORKS, 0.045)}


def make_blocks_small(monkeypatch):
    """So that a short run has several, and the last one is not whole."""
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 90)
    monkeypatch.setattr(song2000, "RECORD", 0.2 * u.second)
    monkeypatch.setattr(reward, "BLOCK_STEPS", 500)
    monkeypatch.setattr(reward, "RECORD_STEPS", 1000)
    monkeypatch.setattr(digits, "BLOCK", 8)


def runner(name, longer=1.0):
    """`simulate` of an experiment, of this many times its length."""
    simulate = {
        "song2000": functools.partial(song2000.simulate, neurons=3, inputs=50),
        "reward": reward.simulate,
        "digits": functools.partial(
            digits.simulate,
            dataclasses.replace(digits.Parameters(), image_time=50.0 * u.ms),
            neurons=10,
            epochs=2,
            images=20,
            held_out=10,
        ),
        **NETWORKS,
    }[name]
    return functools.partial(simulate, seconds=longer * SECONDS[name]) if SECONDS[name] else simulate


def check_same(got, expected, where="run"):
    """Bit for bit, but for how long it took, and what it was split over."""
    if dataclasses.is_dataclass(got):
        for field in dataclasses.fields(got):
            if not field.name.endswith("_time") and field.name not in ("devices", "crowded", "network", "parameters"):
                check_same(getattr(got, field.name), getattr(expected, field.name), f"{where}.{field.name}")
    elif isinstance(got, tuple):
        assert len(got) == len(expected), where
        for k, (x, y) in enumerate(zip(got, expected, strict=True)):
            check_same(x, y, f"{where}[{k}]")
    else:
        numbers = [np.asarray(x.mantissa if isinstance(x, u.Quantity) else x) for x in (got, expected)]
        np.testing.assert_array_equal(*numbers, err_msg=where, strict=True)
