"""Song, Miller & Abbott (2000) in hebbax and in Brian2: the same weights in the end, and the same firing rates.

The synapses of one neuron compete with each other, so they are no independent samples; the neurons are, since each has
inputs of its own. So the Kolmogorov-Smirnov distance between the weights of two groups of neurons is compared with the
distances that come about when the same neurons are dealt into two groups at random: a permutation test over neurons.
`python tests/test_brian2.py` makes longer runs with the published parameters; `docs/agreement.md` has the result.
"""

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbax.experiments import song2000

MISSING = [
    reason
    for reason, there in {
        "Brian2 is not installed: `pip install brian2`": importlib.util.find_spec("brian2"),
        "Brian2 needs a C++ compiler, g++": shutil.which("g++"),
    }.items()
    if not there
]
needs_brian2 = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))

PUBLISHED = song2000.Parameters()
FAST = dataclasses.replace(PUBLISHED, potentiation=0.02)  # four times the published step: weights settle sooner


def run_hebbax(parameters, *, neurons, seconds, seed=0):
    """The final weights, shape `(neurons, inputs)`, and the rate in each second, `(seconds, neurons)`, in Hz."""
    result = song2000.simulate(parameters, neurons=neurons, seconds=seconds, seed=seed)
    return result.weight_end, result.rate / u.Hz


def run_brian2(parameters, directory, *options, neurons, seconds, seed=0):
    """The same, of Brian2, where seconds are counted exactly."""
    command = [sys.executable, str(Path(__file__).with_name("brian2_song2000.py")), str(directory / "result.npz")]
    settings = dict(neurons=neurons, seconds=seconds, seed=seed, potentiation=parameters.potentiation)
    command += [f"--{name}={value}" for name, value in settings.items()]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(directory / "result.npz") as result:
        return result["weight"], result["spikes"]


def settled(weight, rate):
    """The distribution of every neuron's weights, and its rate in the last third of the run."""
    return distribution(weight / PUBLISHED.largest_weight), rate[-len(rate) // 3 :].mean(0)


def distribution(weight):
    """The fraction of a neuron's weights up to each thousandth of the largest one, shape `(neurons, 1000)`."""
    levels = np.arange(1000) / 1000 + 1e-6  # single precision and double must not differ in what is a bound
    return (weight[:, None, :] <= levels[:, None]).mean(2)


def permutation_test(first, second, rng, deals=4999):
    """Compare two groups of neurons by what each neuron has, shape `(neurons, ...)`.

    Returns the largest difference between the groups' means, which for distributions is the Kolmogorov-Smirnov
    distance, and the probability of one as large if the neurons had been dealt into the groups at random.
    """
    both = np.concatenate([first, second]).reshape(len(first) + len(second), -1)
    sides = np.repeat([1 / len(first), -1 / len(second)], [len(first), len(second)])
    distances = [abs(side @ both).max() for side in (sides, *(rng.permutation(sides) for _ in range(deals)))]
    return distances[0], np.mean(np.array(distances) >= distances[0] * (1 - 1e-12))


def test_the_permutation_test_sees_a_difference_and_no_other(rng):
    weight = np.clip(rng.normal(0.5, 0.4, (16, 400)), 0, 1) + 0.02 * rng.standard_normal((16, 1))
    distance, p = permutation_test(*np.split(distribution(weight), 2), rng)
    assert distance < 0.1 and p > 0.05
    weight[8:] += 0.1
    distance, p = permutation_test(*np.split(distribution(weight), 2), rng)
    assert distance > 0.1 and p < 0.01


@needs_brian2
@pytest.mark.slow
def test_the_same_input_gives_the_same_spikes_and_weights(tmp_path):
    """Until rounding, in single precision here and double there, moves a spike by a step."""
    neurons, inputs, steps = 4, 1000, 10_000
    result = song2000.simulate(FAST, neurons=neurons, inputs=inputs, seconds=steps / 10_000, seed=3)
    _, key = jax.random.split(jax.random.key(3))  # as `simulate` draws
    blocks = [jax.random.fold_in(key, k) for k in range(steps // song2000.BLOCK_STEPS)]
    ids = jnp.arange(neurons)
    drawn = [song2000.draw_inputs(FAST, ids, inputs, song2000.BLOCK_STEPS, block)[:2] for block in blocks]
    excitatory, inhibitory = (np.concatenate(x) for x in zip(*drawn, strict=True))
    step, source = np.nonzero(excitatory)
    given = tmp_path / "given.npz"
    np.savez(given, weight=result.weight_start.astype(float), step=step, source=source, inhibitory=inhibitory)

    weight, spikes = run_brian2(FAST, tmp_path, f"--given={given}", neurons=neurons, seconds=1)
    np.testing.assert_array_equal(spikes[0], result.records[-1].spikes)
    assert spikes.sum() > 200
    moved = abs(result.weight_end - result.weight_start).max()
    worst = abs(weight - result.weight_end).max() / moved
    print(f"{spikes.sum()} spikes; weights differ by at most {worst:.1e} of the largest change")
    assert worst < 1e-4
    usual, _ = run_brian2(FAST, tmp_path, f"--given={given}", "--usual-order", neurons=neurons, seconds=1)
    assert abs(usual - result.weight_end).max() > 1e-2 * moved


@needs_brian2
@pytest.mark.slow
def test_random_input_gives_the_same_weights_and_rates_in_the_end(rng, tmp_path):
    """The comparison also sees what it should: another depression in the weights, and another rule for coincidences.

    The latter, which is how Brian2's pathways are ordered unless one thinks of it, makes the neurons fire faster, but
    hardly changes how the weights are distributed.
    """
    size = dict(neurons=8, seconds=150)
    weight, rate = settled(*run_hebbax(FAST, **size))
    other_weight, other_rate = settled(*run_brian2(FAST, tmp_path, **size))
    for name, ours, theirs in (("weights", weight, other_weight), ("rates", rate, other_rate)):
        difference, p = permutation_test(ours, theirs, rng)
        print(f"{name}: difference {difference:.3f}, p = {p:.3f}")
        assert p > 0.001

    another_weight, _ = settled(*run_hebbax(dataclasses.replace(FAST, depression_ratio=1.02), **size))
    assert permutation_test(another_weight, other_weight, rng)[1] < 0.001
    _, another_rate = settled(*run_brian2(FAST, tmp_path, "--usual-order", **size))
    assert permutation_test(rate, another_rate, rng)[1] < 0.001


def main(seeds=3, neurons=4, seconds=600):
    """The long comparison with the published parameters, for `docs/agreement.md`."""
    rng, size = np.random.default_rng(2000), dict(neurons=neurons, seconds=seconds)
    groups = {"hebbax": [], "Brian2": [], "Brian2, usual order": []}
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(seeds):
            runs = [
                run_hebbax(PUBLISHED, seed=seed, **size),
                run_brian2(PUBLISHED, Path(directory), seed=seed, **size),
                run_brian2(PUBLISHED, Path(directory), "--usual-order", seed=seed, **size),
            ]
            for (name, group), (weight, rate) in zip(groups.items(), runs, strict=True):
                weights = weight / PUBLISHED.largest_weight
                group.append(settled(weight, rate))
                print(
                    f"| {name} | {seed} | {rate[:5].mean():.1f} | {group[-1][1].mean():.2f} ± {group[-1][1].std():.2f} "
                    f"| {weights.mean():.3f} | {(weights < 0.1).mean():.1%} | {(weights > 0.9).mean():.1%} |",
                    flush=True,
                )
    for pairs in combinations(range(seeds), 2):
        for name, group in groups.items():
            distance = abs(group[pairs[0]][0].mean(0) - group[pairs[1]][0].mean(0)).max()
            print(f"distance of seeds {pairs} of {name}: {distance:.4f}")
    pooled = {name: [np.concatenate(x) for x in zip(*group, strict=True)] for name, group in groups.items()}
    for name in list(groups)[1:]:
        for what, ours, theirs in zip(("weights", "rates"), pooled["hebbax"], pooled[name], strict=True):
            difference, p = permutation_test(ours, theirs, rng)
            print(f"hebbax and {name}: {what} differ by {difference:.4f}, p = {p:.4f}")


if __name__ == "__main__":
    main()
