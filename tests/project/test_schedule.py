"""benchmarks/schedule.py and benchmarks/threads.py: what the simulation divides, and how a measurement is judged."""

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")


@pytest.fixture
def schedule(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import schedule

    return schedule


@pytest.fixture
def side(schedule):
    """1 000 rows of 100, every target once in every row's part of 10."""
    indices = np.concatenate([np.arange(100) * 10 + row % 10 for row in range(1000)]).astype(np.int32)
    return schedule.Side(indices, np.arange(1001) * 100, None)


@pytest.mark.parametrize("count, parts, chunks", [(1, 1, 1), (2, 2, 4), (4, 4, 8), (64, 6, 24)], ids=lambda x: str(x))
def test_even_rows_are_divided_evenly(schedule, side, threads, count, parts, chunks):
    spikes = np.arange(1000)
    targets = schedule.share(side, 1000, spikes, count, "propagate")
    rows = schedule.share(side, 1000, spikes, count, "update pre")
    assert (targets.elements, targets.chunks, targets.shared, targets.lines) == (10**5, parts, 0, 63)
    assert (rows.elements, rows.chunks, rows.lines) == (10**5, chunks, 6250)
    if count <= 4:
        assert targets.imbalance < 1.05 and rows.imbalance == 1
    assert targets.rows == 1000 and rows.shared <= chunks - 1


def test_places_of_rows_are_each_somebodys(schedule, side, threads):
    threads(2)
    scattered = side._replace(slots=np.random.default_rng(0).permutation(side.indices.size))
    begin, size = schedule.rows_of(scattered, np.arange(0, 1000, 2))
    chunks, chunk = schedule.chunks_of_rows_or_places(scattered, 1000, begin, size)
    assert chunks == 4
    np.testing.assert_array_equal(chunk.reshape(-1, 100), np.tile(np.arange(100) // 25, (500, 1)))


def test_chunks_are_claimed_by_who_is_through(schedule):
    assert schedule.threads_of(np.array([5, 1, 1, 1, 4]), 2).tolist() == [0, 1, 1, 1, 1]


def test_what_a_second_thread_must_be_worth(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import threads as benchmark

    few, many = (benchmark.Case("propagate pre", 100, elements, 10**6) for elements in (10**4, 10**5))
    assert few.n == 10**4
    assert benchmark.Times(1, 1, 0.96, 2).judged(few) and not benchmark.Times(1, 1, 0.95, 2).judged(few)
    assert benchmark.Times(1, 1, 1.6, 2).judged(many) and not benchmark.Times(1, 1, 1.59, 2).judged(many)
