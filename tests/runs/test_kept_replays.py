"""Replays that are stopped, and go on from what was kept to the same bits; and what is left of them."""

import functools
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "replay"))
from recorded import NEURON, RULE, TIME, write_spikes, write_synapses

from hebbax import cli
from hebbax.experiments.keeping import Refused
from hebbax.replay import connectivity, files
from hebbax.runs.checkpoints import Checkpoints


@pytest.fixture
def replay(tmp_path, monkeypatch):
    """A function that replays spikes of a file, or of two, piece by piece."""
    monkeypatch.setattr(files, "PIECE", 40)

    def run(kind, two=False, **options):
        path = tmp_path / f"w.{kind}"
        found = connectivity.read(path if path.exists() else write_synapses(path), None, not two, None)
        places = [tmp_path / f"{name}.{kind}" for name in (("pre", "post") if two else ("spikes",))]
        for k, place in enumerate(places):
            if not place.exists():
                write_spikes(place, TIME[k::2] if two else TIME, NEURON[k::2] if two else NEURON)
        sources = [files.source(place, found.populations[0], None) for place in places]
        return files.replay(found, RULE, *sources, **options)

    return run


@pytest.mark.parametrize("kind, two", [("csv", False), ("parquet", True), ("h5", True)])
def test_a_replay_goes_on_to_the_same_bits(kind, two, replay, tmp_path):
    whole, parts = replay(kind, two), []
    keep = functools.partial(Checkpoints, tmp_path / "ck", "w", every=0)
    part = replay(kind, two, keeper=keep(), on_progress=lambda spikes, *_: spikes > 100)
    assert not part.is_whole and 100 < part.updates < whole.updates
    rest = replay(kind, two, keeper=keep(resume=True), on_progress=lambda *told: parts.append(told[2]))
    for run in (rest, replay(kind, two, keeper=keep(resume=True))):  # from the end, too
        assert run.is_whole and (run.updates, run.spikes) == (whole.updates, whole.spikes)
        np.testing.assert_array_equal(run.weight, whole.weight, strict=True)
        np.testing.assert_array_equal(run.course.counts, whole.course.counts)
        assert (run.course.start, run.course.end) == (whole.course.start, whole.course.end)
    assert parts == sorted(parts) and parts[-1] == 1.0  # of the files


def test_it_does_not_go_on_with_spikes_that_changed(replay, tmp_path):
    keep = functools.partial(Checkpoints, tmp_path / "ck", "w", every=0)
    replay("csv", keeper=keep(), on_progress=lambda *_: True)
    text = (tmp_path / "spikes.csv").read_text()
    (tmp_path / "spikes.csv").write_text(text[:-2] + str(int(text[-2]) ^ 1) + "\n")
    with pytest.raises(Refused, match=r"with spikes spikes.csv, \d+ bytes, SHA-256 of its ends and middle \w+, .* not"):
        replay("csv", keeper=keep(resume=True))
    (tmp_path / "spikes.csv").write_text(text)  # a copy of what there was
    assert replay("csv", keeper=keep(resume=True)).is_whole


def test_ctrl_c_keeps_a_replay(tmp_path, monkeypatch):
    write_synapses(tmp_path / "w.csv")
    write_spikes(tmp_path / "spikes.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PIECE", 40)
    replay, pressed = files.replay, []

    def interrupted(found, rule, pre, post, on_progress, keeper):
        def press_ctrl_c_once(*told):
            if not pressed:
                pressed.append(signal.raise_signal(signal.SIGINT))
            return on_progress(*told)

        return replay(found, rule, pre, post, press_ctrl_c_once, keeper)

    monkeypatch.setattr(files, "replay", interrupted)

    def run(*options):
        command = ["replay", "w.csv", "spikes.csv", "--w-max", "1", *options]
        return CliRunner().invoke(cli.app, command, env={"COLUMNS": "300"})

    result = run("--checkpoint", "ck")
    assert result.exit_code == 130 and "--resume goes on from ck" in result.output
    assert not Path("w-replayed.csv").exists() and list(Path("ck").iterdir())
    for options in (("--checkpoint", "ck", "--resume"), ("--output", "one.csv")):
        result = run(*options)
        assert result.exit_code == 0, result.output
    assert Path("w-replayed.csv").read_bytes() == Path("one.csv").read_bytes()
