"""benchmarks/hpc_beside_numpy.py: a run of hpc passes, and one that is not what the equations say does not."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hebbax.experiments import hpc

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an installed package")
P = hpc.Parameters()


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from hpc_beside_numpy import check

    return check


@pytest.fixture(scope="module")
def run():
    return hpc.simulate(P, scale=0.05, inputs=0.05, seconds=0.04)


def test_spikes_and_weights_are_those_of_the_equations(check, run):
    found = check(run, P)
    assert found.spikes > 100
    assert found.rounded
    assert len(found.wrong) <= found.close < 10
    assert found.weights == run.weight_end.size
    assert abs(found.weight - run.weight_start.mean()) > 1e-2


def test_without_learning_too(check):
    found = check(hpc.simulate(P, scale=0.05, inputs=0.05, seconds=0.02, plastic=False), P)
    assert found.spikes > 50
    assert found.rounded
    assert found.weights == found.difference == 0


def test_another_rule_is_found(check, run):
    assert not check(run, dataclasses.replace(P, depression_ratio=1.0001 * P.depression_ratio)).rounded


def test_a_weight_that_is_no_number_is_found(check, run):
    weight = run.weight_end.copy()
    weight[weight.size // 2] = np.nan
    assert not check(dataclasses.replace(run, weight_end=weight), P).rounded


def test_a_missing_spike_is_found(check, run):
    step, neuron = run.spike_step[50], run.spike_neuron[50]
    keep = np.arange(run.spike_step.size) != 50
    found = check(dataclasses.replace(run, spike_step=run.spike_step[keep], spike_neuron=run.spike_neuron[keep]), P)
    assert (step, neuron) in [wrong[:2] for wrong in found.wrong]


def test_a_spike_too_many_is_found(check, run):
    step, (neuron, *_) = run.spike_step[50], np.setdiff1d(np.arange(run.n), run.spike_neuron)
    steps, neurons = np.insert(run.spike_step, 50, step), np.insert(run.spike_neuron, 50, neuron)
    found = check(dataclasses.replace(run, spike_step=steps, spike_neuron=neurons), P)
    assert (step, neuron) in [wrong[:2] for wrong in found.wrong]


def command(*options):
    line = [sys.executable, BENCHMARKS / "hpc_beside_numpy.py", "--scale=0.02", "--inputs=0.02", *options]
    return subprocess.run(line, capture_output=True, text=True)


def test_the_command_prints_a_table():
    done = command("--seconds=0.01")
    assert done.returncode == 0, done.stderr
    assert "| spikes too many or missing | 0 |" in done.stdout


@pytest.mark.parametrize("option", ["--seconds=0.001", "--scale=0", "--inputs=2", "--seed=-1"])
def test_the_command_names_what_is_wrong(option):
    done = command(option)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert option.removeprefix("--").partition("=")[0] in done.stderr
