"""The data in `examples/replay`: twice the same, and small."""

from pathlib import Path

import brainunit as u
import numpy as np
import pytest

import hebbax
from hebbax.replay import connectivity, files

DATA = Path(__file__).parents[2] / "examples" / "replay"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the repository's examples beside tests")


def test_csv_and_sonata_give_the_same_weights():
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.0015, 0.001575, 0.0, 0.3)
    results = []
    for synapses, spikes in (("synapses.csv", "spikes.csv"), ("edges.h5", "spikes.h5")):
        found = connectivity.read(DATA / synapses, None, True, None)
        results.append(files.replay(found, rule, files.source(DATA / spikes, found.populations[0], None)))
    one, other = results
    assert one.spikes == other.spikes and one.updates == other.updates and one.connectivity.shape == (100, 100)
    np.testing.assert_allclose(one.weight, other.weight, rtol=0, atol=1e-12)
    assert np.ptp(one.weight) > 0.01
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 300_000
