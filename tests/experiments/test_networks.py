"""The experiments on networks: neurons, delays, plasticity and what is recorded, against models in double precision."""

import dataclasses
import functools
import json
from pathlib import Path

import brainunit as u
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from network_reference import DT, passed_thresholds, pre_of, raster, weights_and_arrivals
from small_networks import EXPERIMENTS, RUNS, Repeating, echoes

import hebbax
from children import run_tests
from hebbax.experiments import brunel10k, cuba, hpc, network, network_loop, network_report, network_sweep
from hebbax.experiments.network_figure import figure
from hebbax.experiments.poisson import LARGEST_MEAN, poisson_counts

HERE = Path(__file__).parent
SETTLING = 1e-3  # mV: a threshold that is passed by less may be passed in float32 or not


@pytest.mark.optimised
def test_on_four_devices(pytestconfig):
    """The tests in on_four_devices.py."""
    run_tests(HERE / "on_four_devices.py", pytestconfig.getoption("markexpr"), devices=4)


# -- neurons


def potentials(neurons, voltage=0.0, steps=200, excitation=None, inhibition=None, drive=None):
    """Potential and spikes of one neuron at the end of each step, for what arrives: `{step: amount}`."""
    one, state = jnp.ones(1, jnp.float32), neurons.start(jnp.arange(1))
    state = state._replace(voltage=np.full(1, voltage, np.float32))

    def amounts(given):
        return jnp.array([(given or {}).get(t, 0.0) for t in range(steps)], jnp.float32)

    def step(state, arriving):
        excitation, inhibition, drive = (x * one for x in arriving)
        state, spike = neurons.step(state, excitation, inhibition, drive)
        return state, (state.voltage[0], spike[0])

    arriving = amounts(excitation), amounts(inhibition), amounts(drive)
    return map(np.asarray, jax.jit(lambda state: jax.lax.scan(step, state, arriving)[1])(state))


def solve(derivative, state, jumps, steps):
    """First component of an ODE's solution at the end of each step; `jumps[t]` is added at the time of t steps."""
    course, state = [], np.asarray(state, float)
    for t in range(steps):
        state = state + jumps.get(t, 0.0)
        solution = scipy.integrate.solve_ivp(derivative, (0.0, DT), state, rtol=1e-9, atol=1e-12)
        state = solution.y[:, -1]
        course.append(state[0])
    return np.array(course)


def test_hpc_potentials_solve_the_equations():
    p = hpc.Parameters()
    tau, arriving = p.synaptic_time / u.ms, {3: 45.6, 4: 100.0, 50: -228.0}

    def derivative(_, state):
        v, current, rise = state
        return [-v / 10 + current / 250, (np.e * rise - current) / tau, -rise / tau]

    jumps = {t + 1: np.array([0, 0, x]) for t, x in arriving.items()}  # it arrives at the end of a step
    voltage, spikes = potentials(
        hpc.Neurons(p, seed=0), 5.0, 120, {3: 45.6}, {50: -228.0}, {4: 100 / (p.weight / u.pA)}
    )
    np.testing.assert_allclose(voltage, solve(derivative, [5.0, 0, 0], jumps, 120), rtol=2e-5, atol=2e-6)
    assert not spikes.any()


def test_hpc_an_excitatory_spike_peaks_at_what_it_should():
    p = hpc.Parameters()
    assert p.weight / u.pA == pytest.approx(45.6, abs=0.05)
    fine = dataclasses.replace(p, time_step=0.01 * u.ms)
    voltage, _ = potentials(hpc.Neurons(fine, seed=0), steps=1000, excitation={0: p.weight / u.pA})
    assert voltage.max() == pytest.approx(0.14, rel=1e-4)


def test_hpc_the_drive_alone_would_lift_the_potential_to_eta_thresholds():
    """Its mean: rate * charge * resistance."""
    p = hpc.Parameters()
    rate, charge = p.drive_rate * u.second, p.weight / u.pA * np.e * (p.synaptic_time / u.ms)  # in 1/s and fC
    resistance = 10.0 / 250.0  # of the membrane, tau_m / C, in GOhm
    assert rate * charge * resistance / 1000 == pytest.approx(1.685 * 20.0, rel=1e-6)  # in mV


def test_cuba_potentials_solve_the_equations():
    def derivative(_, state):
        v, excitation, inhibition = state
        return [(-v + excitation + inhibition) / 20, -excitation / 5, -inhibition / 10]

    start = -11.0  # above -49 mV
    jumps = {2: np.array([0, 3.0, -9.0]), 30: np.array([0, 1.62, 0])}  # at the start of a step
    voltage, spikes = potentials(cuba.Neurons(cuba.Parameters()), start, 60, {2: 3.0, 30: 1.62}, {2: -9.0})
    np.testing.assert_allclose(voltage, solve(derivative, [start, 0, 0], jumps, 60), rtol=2e-5)
    assert not spikes.any()


def test_brunel10k_potentials_jump_and_decay():
    voltage, spikes = potentials(
        brunel10k.Neurons(brunel10k.Parameters(), 0), 7.0, 50, {3: 0.2}, {3: -0.5, 20: -1.0}, {9: 4.0}
    )
    t = np.arange(1, 51)
    expected = 7 * np.exp(-t * DT / 20)
    for arrival, jump in ((3, -0.3), (20, -1.0), (9, 4 * 0.1)):  # at the end of a step
        expected += np.where(t > arrival, jump * np.exp(-(t - arrival - 1) * DT / 20), 0)
    np.testing.assert_allclose(voltage, expected, rtol=1e-5)
    assert not spikes.any()


def test_brunel10k_neurons_rest_and_lose_what_arrives():
    neurons = brunel10k.Neurons(brunel10k.Parameters(), 0)
    arriving = dict.fromkeys(range(70), 21.0)
    voltage, spikes = potentials(neurons, steps=70, excitation=arriving)
    np.testing.assert_array_equal(np.flatnonzero(spikes), [1, 22, 43, 64])  # 2 ms and a step, to take up and to spike
    assert voltage[0] == 21.0
    assert not voltage[1:21].any()  # in the step of the spike and 19 more: 2 ms
    assert voltage[21] == 21.0


def test_brunel10k_neurons_without_a_refractory_time_spike_where_they_should():
    neurons = brunel10k.Neurons(brunel10k.Parameters(refractory_time=0.0 * u.ms), 0)
    voltage, spikes = potentials(neurons, steps=9, excitation={0: 21.0, 4: 21.0})
    np.testing.assert_array_equal(np.flatnonzero(spikes), [1, 5])
    np.testing.assert_array_equal(voltage, [21.0, 0, 0, 0, 21.0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "experiment, start, reset, rest, excitation", [(cuba, -1.5, -11.0, 50, 1e4), (hpc, 19.0, 0.0, 5, 1e6)]
)
def test_cuba_and_hpc_neurons_rest_and_go_on_with_their_currents(experiment, start, reset, rest, excitation):
    p = experiment.Parameters()
    neurons = cuba.Neurons(p) if experiment is cuba else hpc.Neurons(p, seed=0)
    voltage, spikes = potentials(neurons, start, 80, {0: excitation})
    times = np.flatnonzero(spikes)
    assert times[0] < 3 and times.size >= 2
    assert (np.diff(times) == rest + 1).all()  # the current suffices for a spike as soon as there can be one
    np.testing.assert_allclose(voltage[times[0] : times[1]], reset, rtol=1e-6)


# -- whole networks


def test_a_spike_acts_exactly_after_the_delay(monkeypatch):
    """Around a ring of neurons, through chunks, as long as the run: and what is recorded is what happened."""
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 20)
    for delay, steps, dendritic in ((1, 50, False), (7, 100, False), (15, 46, False), (7, 99, True), (3, 2, True)):
        run, (times, neurons) = echoes(n=3, delay=delay, steps=steps, dendritic=dendritic)
        assert run.steps == steps
        np.testing.assert_array_equal(run.spike_step, times)
        np.testing.assert_array_equal(run.spike_neuron, neurons)


@pytest.mark.parametrize("shape", [(0, 3), (1, 7), (1, 8), (5, 13), (40, 9)])
@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_every_spike_of_a_raster_is_found(rng, shape, probability):
    raster = rng.random(shape) < probability
    np.testing.assert_array_equal(network_loop._spikes_in(raster), np.flatnonzero(raster))


@pytest.fixture(scope="module", params=RUNS)
def small(request):
    """An experiment, and a run of it, whose steps are a multiple of the delay."""
    return EXPERIMENTS[request.param], RUNS[request.param](seconds=0.06, seed=3)


def test_weights_are_those_of_the_spike_times(small):
    """The rules in double precision, from recorded spikes: with axonal delays, and with NEST's dendritic ones."""
    experiment, run = small
    expected, _ = weights_and_arrivals(experiment, run)
    assert run.steps % run.network.delay == 0
    assert abs(expected / run.weight_start - 1).max() > 0.02
    np.testing.assert_allclose(run.weight_end, expected, rtol=2e-5)


def test_neurons_spike_where_the_model_in_double_precision_does(small):
    experiment, run = small
    _, arrivals = weights_and_arrivals(experiment, run)
    above, spikes = passed_thresholds(experiment, run, arrivals), raster(run)
    assert spikes.sum() > 2 * run.n
    assert (above[spikes] > -SETTLING).all()
    assert (above[~spikes] < SETTLING).all()
    assert (abs(above) < SETTLING).sum() < 0.1 * spikes.sum()  # so few were not decided


def test_what_arrives_matters(small):
    """Thresholds are not passed as they were without what arrives, or a step later."""
    experiment, run = small
    _, arrivals = weights_and_arrivals(experiment, run)
    late = {kind: np.roll(x, 1, axis=0) for kind, x in arrivals.items()}
    nothing = {kind: np.zeros_like(x) for kind, x in arrivals.items()}
    spikes = raster(run)
    for wrong in (late, nothing):
        assert (abs(passed_thresholds(experiment, run, wrong)[spikes]) > SETTLING).any()


@pytest.mark.parametrize("name", RUNS)
def test_without_plasticity_there_are_as_many_synapses(name):
    static, plastic = (RUNS[name](seconds=0.001, plastic=plastic) for plastic in (False, True))
    assert static.weight_end.size == 0 and plastic.weight_end.size > 0
    assert static.synapses == pytest.approx(plastic.synapses, rel=0.15)
    assert all(p.rule is None for p in static.network.projections)


def test_hpc_has_the_published_numbers_of_inputs():
    p = dataclasses.replace(hpc.Parameters(), excitatory_inputs=100, inhibitory_inputs=30)
    for inputs in (1.0, 0.1):
        net = hpc.build(p, scale=0.01, inputs=inputs, plastic=True, seed=0)
        excitatory = net.excitatory
        assert (excitatory.sum(), (~excitatory).sum()) == (90, 22)
        onto = np.zeros((2, 112), int)  # from excitatory and inhibitory neurons
        for projection in net.projections:
            pre, post = pre_of(projection.synapses), np.asarray(projection.synapses.indices)
            assert (pre != post).all()  # no autapses
            assert (excitatory[pre] != projection.inhibitory).all()
            onto[int(projection.inhibitory)] += np.bincount(post, minlength=112)
            weight = 45.6 / inputs * (-5 if projection.inhibitory else 1)
            assert projection.weight == pytest.approx(weight, rel=1e-3)
        np.testing.assert_array_equal(onto[0], round(100 * inputs))
        np.testing.assert_array_equal(onto[1], round(30 * inputs))


@pytest.mark.parametrize("plastic", [False, True])
def test_hpc_with_fewer_inputs_has_the_same_weight_in_all(plastic):
    p = hpc.Parameters()
    for inputs in (1.0, 0.01, 1e-3):
        built = hpc.build(p, scale=0.01, inputs=inputs, plastic=plastic, seed=0)
        total = {False: 0.0, True: 0.0}
        for projection in built.projections:
            total[projection.inhibitory] += projection.weight * projection.synapses.nse
        for inhibitory, published in ((False, 9000), (True, -5 * 2250)):
            assert total[inhibitory] / built.excitatory.size == pytest.approx(published * (p.weight / u.pA))


@pytest.mark.parametrize("experiment", [brunel10k, cuba])
def test_pairs_are_connected_as_often_as_the_parameter_says(experiment):
    p = dataclasses.replace(experiment.Parameters(), connectivity=0.1)
    net = experiment.build(p, neurons=400, plastic=True, seed=1)
    excitatory, count = net.excitatory, np.zeros((400, 400), int)
    for projection in net.projections:
        dense = np.asarray(projection.synapses.todense(np.ones(projection.synapses.nse)) != 0)
        assert (excitatory[dense.any(1)] != projection.inhibitory).all()
        if projection.rule is not None:
            assert excitatory[dense.any(0)].all()
        count += dense
    assert count.max() == 1
    assert (~excitatory).sum() == 80
    for part in (count[excitatory], count[~excitatory]):
        assert part.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / part.size))


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    first, again, other = (RUNS["brunel10k"](seconds=0.03, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.spike_step, again.spike_step)
    np.testing.assert_array_equal(first.weight_end, again.weight_end)
    assert not np.array_equal(first.spike_step, other.spike_step)


def test_a_shorter_or_stopped_run_is_the_beginning_of_a_longer_one(monkeypatch):
    monkeypatch.setattr(network_loop, "CHUNK_STEPS", 100)
    simulate, seen = RUNS["hpc"], []
    stopped = simulate(seconds=0.06, on_progress=lambda done: seen.append(done) or done > 0.025)
    assert seen == pytest.approx([0.009, 0.018, 0.027])  # six delays of 15 steps each
    assert stopped.steps == 270 and stopped.time == 27.0 * u.ms
    short = simulate(seconds=0.027)
    long = simulate(seconds=0.0601, on_progress=lambda _: None)  # ends inside an interval
    assert long.steps == 601 and long.spike_step.max() > 500
    np.testing.assert_array_equal(stopped.weight_end, short.weight_end)
    for run in (stopped, short):
        kept = long.spike_step < 270
        np.testing.assert_array_equal(run.spike_step, long.spike_step[kept])
        np.testing.assert_array_equal(run.spike_neuron, long.spike_neuron[kept])


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_seconds_out_of_range_are_named(seconds):
    with pytest.raises(ValueError, match=rf"^seconds: got {seconds}, expected a positive number"):
        network_loop.simulate(lambda: pytest.fail("built"), seconds=seconds)


def test_more_steps_than_are_numbered_are_refused():
    build = functools.partial(network.Network, Repeating(), np.ones(3, bool), [], delay=1)
    with pytest.raises(ValueError, match=r"^seconds: got 1000000\.0, 10000000000 steps of 0\.1 ms, expected at most"):
        network_loop.simulate(build, seconds=1e6)


@pytest.mark.parametrize("experiment", [brunel10k, cuba])
@pytest.mark.parametrize("neurons", [0, 1, 4, -5, 7.5])
def test_too_few_neurons_are_named(experiment, neurons):
    with pytest.raises(ValueError, match=rf"^neurons: got {neurons}, expected an integer of at least 5"):
        experiment.simulate(neurons=neurons, seconds=0.001)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(scale=0.0), "scale: got 0.0, expected a positive number"),
        (dict(scale=float("nan")), "scale: got nan"),
        (dict(inputs=0.0), "inputs: got 0.0, expected more than 0 and at most 1"),
        (dict(inputs=1.5), "inputs: got 1.5"),
        (dict(inputs=2e-4), "inputs: got 0.0002, of which nothing is left, expected more than 0.00022"),
    ],
)
def test_hpc_names_what_is_out_of_range(options, message):
    with pytest.raises(ValueError) as error:
        hpc.simulate(seconds=0.001, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("experiment", [brunel10k, hpc])
def test_a_delay_is_a_number_of_steps(experiment):
    p = experiment.Parameters()
    assert p.delay_steps == 15
    for change, message in (
        (dict(time_step=0.7 * u.ms), "expected a multiple of dt"),
        (dict(delay=0.0 * u.ms), "expected at least a step"),
    ):
        with pytest.raises(ValueError, match=rf"^delay: got .*{message}"):
            _ = dataclasses.replace(p, **change).delay_steps


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_every_parameter_says_what_it_is_and_whence(experiment):
    for field in dataclasses.fields(experiment.Parameters):
        assert field.metadata["meaning"] and field.metadata["source"], field.name


@pytest.mark.parametrize("excitatory, inhibitory", [(8000, 2000), (43, 10), (3, 0), (0, 4), (2, 5), (0, 0)])
def test_inhibitory_neurons_are_evenly_spread(excitatory, inhibitory):
    of = network.interleaved(excitatory, inhibitory)
    assert (of.sum(), (~of).sum()) == (excitatory, inhibitory)
    for parts in (2, 3, 4):
        own = [(~part).sum() for part in np.array_split(of, parts)]
        sizes = [part.size for part in np.array_split(of, parts)]
        expected = np.array(sizes) * inhibitory / max(of.size, 1)
        assert (abs(own - expected) <= 1 + 1e-9).all()


# -- the drive


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**40 + 12345])
def test_poisson_counts_are_made_of_jax_s_random_bits(seed):
    neurons, steps = np.array([0, 1, 77, 2**31 - 1], np.int32), np.array([0, 5, 10**6], np.int32)
    x, y = np.broadcast_arrays(neurons[None].astype(np.uint32), steps[:, None].astype(np.uint32))
    key = jnp.array([seed & 0xFFFFFFFF, seed >> 32], jnp.uint32)
    bits = jax.extend.random.threefry_2x32(key, jnp.concatenate([x.ravel(), y.ravel()]))[: x.size]
    for mean in (0.01, 2.0, LARGEST_MEAN):
        expected = scipy.stats.poisson.ppf((np.asarray(bits, float) + 0.5) / 2**32, mean)
        counts = poisson_counts(seed, mean, jnp.asarray(neurons), jnp.asarray(steps))
        np.testing.assert_array_equal(counts, expected.reshape(x.shape))
        assert counts.dtype == jnp.float32


@pytest.mark.parametrize("mean", [1e-3, 0.5, 2.0, 45.0])
def test_poisson_counts_have_the_distribution(mean):
    counts = np.asarray(poisson_counts(11, mean, jnp.arange(300), jnp.arange(1000)))
    law = scipy.stats.poisson(mean)
    low, high = int(law.ppf(1e-4)), int(law.ppf(1 - 1e-4))  # beyond which outcomes are taken together
    observed = np.bincount(np.clip(counts, low, high).astype(int).ravel() - low)
    expected = np.diff([0.0, *law.cdf(np.arange(low, high)), 1.0]) * counts.size
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
    for other in (np.roll(counts, 1, axis=0), np.roll(counts, 1, axis=1)):  # neighbours have nothing to do with it
        assert abs(np.corrcoef(counts.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(counts.size)


def test_poisson_counts_do_not_depend_on_how_neurons_and_steps_are_shared_out():
    ids, steps = jnp.arange(37), jnp.arange(20)
    whole = poisson_counts(5, 2.0, ids, steps)
    for some in (slice(0, 1), slice(3, 20), slice(20, 37)):
        np.testing.assert_array_equal(poisson_counts(5, 2.0, ids[some], steps), whole[:, some])
    np.testing.assert_array_equal(poisson_counts(5, 2.0, ids, steps[7:9]), whole[7:9])
    assert (poisson_counts(6, 2.0, ids, steps) != whole).any()


@pytest.mark.parametrize("mean", [0.0, -1.0, LARGEST_MEAN + 1, float("nan")])
def test_a_mean_out_of_range_is_named(mean):
    with pytest.raises(ValueError, match=r"^mean: got .*, expected more than 0 and at most"):
        poisson_counts(0, mean, jnp.arange(2), jnp.arange(2))


# -- reports


@pytest.fixture(scope="module")
def ran():
    return RUNS["brunel10k"](seconds=0.09, seed=5)


def test_rates_count_spikes(ran):
    for first in (0, 300):
        expected = [((ran.spike_neuron == k) & (ran.spike_step >= first)).sum() for k in range(ran.n)]
        seconds = (ran.steps - first) * 1e-4
        np.testing.assert_allclose(ran.rates(first) / u.Hz, np.array(expected) / seconds)


def test_irregularity_is_that_of_a_plain_loop(ran):
    for first, spikes in ((0, 4), (250, 3)):
        expected = []
        for k in np.flatnonzero(ran.network.excitatory):
            times = [t for t, i in zip(ran.spike_step, ran.spike_neuron, strict=True) if i == k and t >= first]
            if len(times) >= spikes:
                expected.append(np.std(np.diff(times)) / np.mean(np.diff(times)))
        assert len(expected) > 10
        np.testing.assert_allclose(network_report.irregularity(ran, first, spikes), expected, rtol=1e-9, atol=1e-7)
    assert network_report.irregularity(ran, ran.steps).size == 0


def test_the_summary_says_what_happened(ran):
    rows = network_report.summary(ran)
    rate = ran.rates(int(0.2 * ran.steps)) / u.Hz
    excitatory = ran.network.excitatory
    assert rows["neurons"] == "53, 43 of them excitatory"
    assert rows["synapses"] == f"{ran.synapses}, of which {ran.weight_end.size} learn"
    assert rows["biological time"] == "0.09 s in 900 steps"
    for name, group in (("excitatory", excitatory), ("inhibitory", ~excitatory)):
        assert rows[f"firing rate, {name}"] == f"{rate[group].mean():.2f} ± {rate[group].std():.2f} Hz"
    assert rows["weight, at the start"].startswith("0.1 ± ") and rows["weight, at the start"].endswith(" mV")
    assert rows["weight, at the end"].startswith(f"{ran.weight_end.mean():.5g} ± ")
    assert rows["devices"] == "1"
    static = network_report.summary(dataclasses.replace(ran, weight_start=np.zeros(0), weight_end=np.zeros(0)))
    assert static.keys() == rows.keys() - {"weight, at the start", "weight, at the end"}


def test_the_summary_of_silence():
    run, _ = echoes(n=3, delay=1, steps=3)
    some = dataclasses.replace(run.network, excitatory=np.array([True, True, False]))
    none = np.zeros(0, np.int32)
    rows = network_report.summary(dataclasses.replace(run, network=some, spike_step=none, spike_neuron=none))
    assert rows["firing rate, excitatory"] == rows["firing rate, inhibitory"] == "0.00 ± 0.00 Hz"
    assert rows["irregularity (CV of intervals)"] == "too few spikes"


@pytest.mark.parametrize("start, end", [(4e6, 4e6), (4e6, np.nextafter(np.float32(4e6), np.float32(5e6))), (0, 0)])
def test_a_figure_of_weights_that_hardly_differ(ran, start, end):
    weights = dict(weight_start=np.full(9, start, np.float32), weight_end=np.full(9, end, np.float32))
    _, _, axes = figure(dataclasses.replace(ran, **weights)).axes
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)


def test_arrays_survive_a_file(ran, tmp_path):
    np.savez(tmp_path / "run.npz", **network_report.arrays(ran))
    data = np.load(tmp_path / "run.npz", allow_pickle=False)
    metadata = json.loads(str(data["metadata"]))
    assert set(metadata["arrays"]) == set(data.files) - {"metadata"}
    np.testing.assert_allclose(data["spike_time_s"], ran.spike_step * 1e-4)
    for name in ("spike_neuron", "weight_start", "weight_end"):
        np.testing.assert_array_equal(data[name], getattr(ran, name), strict=True)
    np.testing.assert_array_equal(data["excitatory"], ran.network.excitatory)
    assert (metadata["seed"], metadata["steps"], metadata["devices"]) == (5, 900, 1)
    assert metadata["arrays"]["weight_end"] == "mV"
    threshold = metadata["parameters"]["threshold"]
    assert threshold["source"] == "paper" and threshold["meaning"] and "mV" in threshold["value"]
    assert metadata["hebbax"] == hebbax.__version__


@pytest.mark.parametrize(("wrong", "kinds"), [(0, ("inhibitory", "excitatory")), (2, ("excitatory", "inhibitory"))])
def test_a_projection_of_the_other_population_is_refused(wrong, kinds):
    """Whose spikes would never arrive: each population's are looked up in its own projections."""
    built = cuba.build(cuba.Parameters(), neurons=100, plastic=True, seed=0)
    turned = [dataclasses.replace(p, inhibitory=p.inhibitory ^ (k == wrong)) for k, p in enumerate(built.projections)]
    built = dataclasses.replace(built, projections=turned)
    for simulate in (lambda: network_loop.simulate(lambda: built, seconds=0.001, seed=0),
                     lambda: network_sweep.simulate([built], seconds=0.001)):  # fmt: skip
        with pytest.raises(ValueError, match=rf"projections: got an {kinds[0]} one of neuron \d+, which is {kinds[1]}"):
            simulate()
