"""Threads: no result depends on their number, any Python thread may call, and who decides how many there are."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

import hebbax
import oracle
from hebbax._cpu import cpus
from problems import DTYPES, INDEX_ERRORS, SPECS, Network, call, enable_x64, operands, random_network

THREADS = (1, 2, 3, 8)

# Shape, synapses, whether rows are sorted (then `propagate` splits the targets) and how uneven they are: most are large
# enough for every kernel to go parallel. Rows are many and short, few and long, one alone, or one of 3 * 10^5 beside
# many of 0, 1 or 2; a batch of rows is full in the first.
NETWORKS = {
    "many rows": ((6000, 500), 1_200_000, True), "few rows": ((500, 6000), 1_200_000, True),
    "unsorted rows": ((900, 1000), 1_200_000, False), "one row": ((1, 5000), 1_200_000, True),
    "one column": ((5000, 1), 1_200_000, False), "small": ((50, 60), 1000, True),
    "short rows": ((400_000, 700), 2_400_000, False),
    "a hub among many rows": ((90_000, 100_000), 400_000, True, "hub"),
    "a hub among few rows": ((700, 900), 400_000, True, "hub"),
    "an unsorted hub": ((800, 600), 400_000, False, "hub"),
    "lognormal rows": ((1500, 2000), 600_000, True, "lognormal"),
    "Pareto rows": ((900, 800), 600_000, False, "Pareto"),
}  # fmt: skip


SLOW = {"few rows", "one column", "a hub among few rows", "lognormal rows", "Pareto rows"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NETWORKS],
)
def network(request):
    return random_network(np.random.default_rng(0), *NETWORKS[request.param])


def in_order(spec, network, given):
    """`propagate` by NumPy, which adds one by one, in the order of events."""
    rows = np.repeat(np.arange(given["spike"].size), np.diff(given["indptr"]))
    k = np.flatnonzero(given["spike"][rows])
    out = np.zeros(spec.sizes(network.shape)[1], np.float64 if given["weight"].dtype == np.float64 else np.float32)
    slots = given["weight_indices"][k] if spec.permuted else k
    np.add.at(out, given["indices"][k], given["weight"][slots].astype(out.dtype))
    return out.astype(given["weight"].dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bitwise_the_same_for_any_number_of_threads(spec, network, cpu_kernel, dtype, threads):
    rng = np.random.default_rng(1)
    given = operands(spec, rng, network, DTYPES[dtype], p_spike=0.8, exact=False)
    given["spike"][np.argmax(np.diff(given["indptr"]))] = True  # the longest row, whose loss would show most
    if spec.kind == "update":
        given |= {"w_min": np.float32(-1.5), "w_max": rng.uniform(0, 2, network.nse).astype(DTYPES[dtype])}
    results = []
    with enable_x64(True):
        for n in THREADS:
            threads(n)
            results.append(np.asarray(call(spec, given, shape=network.shape, backend=cpu_kernel)))
        if spec.kind == "update":
            expected = np.asarray(call(spec, given, shape=network.shape, backend="jax"))
        else:
            expected = in_order(spec, network, given)
    for n, result in zip(THREADS, results, strict=True):
        assert result.tobytes() == results[0].tobytes(), f"{n} threads"
    np.testing.assert_array_equal(results[0].astype(np.float64), expected.astype(np.float64))


@pytest.mark.together(1)
def test_gain_is_bitwise_the_same_for_any_number_of_threads(update, network, cpu_kernel, threads):
    rng = np.random.default_rng(1)
    given = operands(update, rng, network, p_spike=1.0)
    given |= {"gain": rng.uniform(-2, 2, given["spike"].size).astype(np.float32), "w_max": 3.0}
    rows = np.repeat(np.arange(given["spike"].size), np.diff(given["indptr"]))
    slots = given["weight_indices"] if update.permuted else np.arange(network.nse)
    expected = given["weight"].copy()
    expected[slots] += given["gain"][rows] * given["trace"][given["indices"]]
    expected = np.minimum(expected, np.float32(3))
    for n in THREADS:
        threads(n)
        out = np.asarray(call(update, given, shape=network.shape, backend=cpu_kernel))
        assert out.tobytes() == expected.tobytes(), f"{n} threads"


# The loops of a soft bound: a power or none, one pair of bounds or one for each synapse.
SOFT = {
    "linear": ("upper", 1.0, False), "power": ("lower", 0.5, False),
    "arrays": ("upper", 0.3, True),
}  # fmt: skip


@pytest.mark.together(1)
@pytest.mark.parametrize("soft", SOFT)
def test_a_soft_bound_is_bitwise_the_same_for_any_number_of_threads(update, network, cpu_kernel, threads, soft):
    soft_bound, mu, arrays = SOFT[soft]
    rng = np.random.default_rng(1)
    given = operands(update, rng, network, p_spike=0.8)
    given["spike"][np.argmax(np.diff(given["indptr"]))] = True  # the longest row
    low, high = np.float32(-1), np.float32(1.5)
    if arrays:
        low, high = (rng.uniform(x - 0.5, x, network.nse).astype(np.float32) for x in (low, high))
    given |= {"w_min": low, "w_max": high}
    rows = np.repeat(np.arange(given["spike"].size), np.diff(given["indptr"]))
    k = np.flatnonzero(given["spike"][rows])
    slots = given["weight_indices"][k] if update.permuted else k
    change = np.zeros_like(given["weight"])
    change[slots] = given["trace"][given["indices"][k]]
    base = (high - given["weight"] if soft_bound == "upper" else given["weight"] - low) / (high - low)
    expected = np.clip(given["weight"] + change * np.maximum(base, 0) ** np.float32(mu), low, high)
    first = None
    for n in THREADS:
        threads(n)
        options = {"shape": network.shape, "backend": cpu_kernel, "soft_bound": soft_bound, "mu": mu}
        out = np.asarray(call(update, given, **options))
        first = out if first is None else first
        assert out.tobytes() == first.tobytes(), f"{n} threads"
    oracle.assert_close(first, expected)


# Rows whose parts are hard to find: how long they are, how many neurons they may name, and which ones.
ROWS = {
    "of 100": (100, 1000, lambda rng, n, size: np.sort(rng.integers(0, n, size))),
    "of 0, 1 and 100": (None, 1000, lambda rng, n, size: np.sort(rng.integers(0, n, size))),
    "crowded": (100, 1001, lambda rng, n, size: np.sort((n * rng.random(size) ** 4).astype(int))),
    "at the edges": (100, 999, lambda rng, n, size: np.sort(rng.choice([0, 15, 16, n - 1], size))),
    "to one neuron": (100, 500, lambda rng, n, size: np.full(size, n // 2)),
    "to few neurons": (100, 3, lambda rng, n, size: np.sort(rng.integers(0, n, size))),
    "unsorted": (100, 1000, lambda rng, n, size: rng.integers(0, n, size)),
    "mostly sorted": (
        100, 1000, lambda rng, n, size: np.sort(rng.integers(0, n, size))[:: rng.choice([1, -1], p=[0.99, 0.01])]
    ),
}  # fmt: skip


@pytest.mark.together(1)
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("rows", ROWS)
def test_parts_of_rows_are_bitwise_the_same_for_any_number_of_threads(spec, threads, rows, index_dtype):
    length, n_other, draw = ROWS[rows]
    rng = np.random.default_rng(2)
    sizes = np.full(800, length) if length else rng.choice([0, 1, 100], 1600, p=[0.1, 0.2, 0.7])
    indices = np.concatenate([draw(rng, n_other, size) for size in sizes])
    given = {
        "weight": rng.uniform(-2, 2, indices.size).astype(np.float32),
        "indices": indices.astype(index_dtype),
        "indptr": np.concatenate([[0], np.cumsum(sizes)]).astype(index_dtype),
        "spike": rng.random(sizes.size) < 0.9,
    }
    if spec.permuted:
        given["weight_indices"] = rng.permutation(indices.size).astype(index_dtype)
    if spec.kind == "update":
        given["trace"] = rng.uniform(-2, 2, n_other).astype(np.float32)
    shape = (sizes.size, n_other) if spec.event == "pre" else (n_other, sizes.size)
    with enable_x64(True):
        if spec.kind == "update":
            expected = np.asarray(call(spec, given, shape=shape, backend="jax"))
        else:
            expected = in_order(spec, Network(shape, indices, indices, indices), given)
        for n in (1, 2, 3, 8, 64):
            threads(n)
            out = np.asarray(call(spec, given, shape=shape, backend="cython"))
            assert out.tobytes() == expected.tobytes(), f"{n} threads"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_short_rows_that_threads_copy_have_their_gains(propagate, dtype, threads):
    """One for all, one for each, or none, and a weight that they share: integers, whose sums are exact."""
    rng, length, n_event, n_other = np.random.default_rng(1), 6, 400_000, 700
    given = {
        "indices": rng.integers(0, n_other, length * n_event).astype(np.int32),
        "indptr": length * np.arange(n_event + 1, dtype=np.int32), "spike": rng.random(n_event) < 0.01,
    }  # fmt: skip
    slots = np.arange(length * n_event)
    if propagate.permuted:
        slots = given["weight_indices"] = np.roll(slots, 12345).astype(np.int32)
    k = np.flatnonzero(np.repeat(given["spike"], length))
    shape = (n_event, n_other) if propagate.event == "pre" else (n_other, n_event)
    weights = rng.integers(-4, 5, slots.size).astype(dtype), np.asarray([3], dtype)
    gains = None, np.asarray(2, dtype), rng.integers(-3, 4, n_event).astype(dtype)
    with enable_x64(dtype == "float64"):
        for weight, gain in itertools.product(weights, gains):
            terms = (
                np.broadcast_to(weight, slots.size)[slots[k]]
                * np.broadcast_to(1 if gain is None else gain, n_event)[k // length]
            )
            expected = np.bincount(given["indices"][k], terms, n_other)
            operands = given | {"weight": weight} | ({} if gain is None else {"gain": gain})
            for n in (1, 4):
                threads(n)
                out = call(propagate, operands, shape=shape, backend="cython")
                np.testing.assert_array_equal(out, expected.astype(dtype))


@pytest.fixture(scope="module")
def large_network():
    return random_network(np.random.default_rng(0), (600, 500), 1_200_000, sorted_rows=True)


@pytest.mark.together(1)
def test_subnormals_are_the_same_for_any_number_of_threads(spec, large_network, cpu_kernel, threads):
    """Pool threads must round and flush as the calling thread does."""
    network = large_network
    given = operands(spec, np.random.default_rng(1), network, p_spike=1.0)
    given |= {name: given[name] * np.float32(1e-39) for name in ("weight", "trace") if name in given}
    results = []
    for n in THREADS:
        threads(n)
        results.append(np.asarray(call(spec, given, shape=network.shape, backend=cpu_kernel)).tobytes())
    assert len(set(results)) == 1


def test_many_python_threads_at_once(cpu_kernel, threads):
    rng = np.random.default_rng(0)
    networks = [random_network(rng, (300, 400), 300_000, sorted_rows=True), random_network(rng, (30, 40), 500)]
    problems = [(spec, network, operands(spec, rng, network, exact=False)) for spec in SPECS for network in networks]
    expected = [
        np.asarray(call(spec, given, shape=network.shape, backend=cpu_kernel)) for spec, network, given in problems
    ]

    def work(seed):
        rng = np.random.default_rng(seed)
        for which in rng.integers(len(problems), size=20):
            spec, network, given = problems[which]
            hebbax.set_num_threads(int(rng.integers(1, 5)))
            if rng.random() < 0.1:
                with pytest.raises(INDEX_ERRORS, match="indices"):
                    wrong = given | {"indices": given["indices"] - 1000}
                    jax.block_until_ready(call(spec, wrong, shape=network.shape, backend=cpu_kernel))
            out = np.asarray(call(spec, given, shape=network.shape, backend=cpu_kernel))
            assert out.tobytes() == expected[which].tobytes()
        return seed

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))


def test_set_num_threads(threads):
    for n in (1, 3, np.int64(64), 1024):
        threads(n)
        assert hebbax.get_num_threads() == n


def test_more_threads_than_elements(spec, cpu_kernel, rng, threads):
    threads(64)
    network = Network((1, 2), *np.array([[0, 0], [0, 1], [0, 1]]))
    given = operands(spec, rng, network, p_spike=1.0)
    out = call(spec, given, shape=network.shape, backend=cpu_kernel)
    np.testing.assert_array_equal(out, call(spec, given, shape=network.shape, backend="jax"))


@pytest.fixture
def default_in(monkeypatch):
    """`default_in(variable=value, ...)`: the number of threads of a process that starts in such an environment."""
    for name in ("HEBBAX_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def default(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return cpus.default_num_threads()

    return default


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"HEBBAX_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "6"}, 6),
        ({"OMP_NUM_THREADS": "7,2"}, 7),
        ({"HEBBAX_NUM_THREADS": "3", "OMP_NUM_THREADS": "6"}, 3),
        ({"HEBBAX_NUM_THREADS": "1024"}, 1024),
        ({"HEBBAX_NUM_THREADS": "", "OMP_NUM_THREADS": "6"}, 6),
    ],
    ids=str,
)
def test_environment_sets_the_number_of_threads(default_in, environment, expected):
    assert default_in(**environment) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot tie a process to CPUs")
def test_by_default_as_many_threads_as_the_process_may_use(default_in):
    before = os.sched_getaffinity(0)
    assert 1 <= default_in() <= len(before)
    os.sched_setaffinity(0, {min(before)})  # (of this thread alone)
    try:
        assert default_in() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("value", ["many", "abc", "0", "-1", "1.5", "1025", "3000000000", "²"])
def test_nonsense_in_the_environment_is_named(default_in, value):
    with pytest.raises(ValueError, match=rf"^HEBBAX_NUM_THREADS: got '?{value}'?, expected .* 1 to 1024"):
        default_in(HEBBAX_NUM_THREADS=value)


def test_a_process_reads_its_environment():
    environment = os.environ | {"HEBBAX_NUM_THREADS": "many"}
    command = [sys.executable, "-c", "import hebbax"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("ValueError: HEBBAX_NUM_THREADS: got 'many', expected ")


AT_MOST = """
import numpy as np
import hebbax
from problems import CPU_KERNELS, SPECS, call, operands, random_network

network = random_network(np.random.default_rng(0), (300, 400), 1_200_000, sorted_rows=True)
for spec in SPECS:
    given = operands(spec, np.random.default_rng(1), network, exact=False)
    for cpu_kernel in CPU_KERNELS:
        results = []
        for n in (1, 1024, 1):
            hebbax.set_num_threads(n)
            results.append(np.asarray(call(spec, given, shape=network.shape, backend=cpu_kernel)).tobytes())
        assert len(set(results)) == 1, (spec.name, cpu_kernel)
"""


@pytest.mark.slow
def test_the_largest_number_of_threads_works():
    """In a process of its own, since OpenMP keeps its threads."""
    tests = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", AT_MOST], cwd=tests, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


IN_PLACE = """
import os
import numpy as np
import hebbax

n = 2**21
weight, indices, indptr = np.zeros(n, "f4"), np.zeros(n, "i4"), np.arange(0, n + 1, n // 8)
spike, trace = np.ones(8, bool), np.ones(1, "f4")
print(hebbax._cpu.openmp_version(), len(os.listdir("/proc/self/task")))
for threads in (1, 5):
    hebbax.set_num_threads(threads)
    hebbax.inplace.update_csr_on_binary_pre(weight, indices, indptr, spike, trace, shape=(8, 1))
    print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not say which threads there are")
def test_calls_in_place_take_threads_of_openmp():
    """Which stay; in a process of its own."""
    result = subprocess.run([sys.executable, "-c", IN_PLACE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    openmp, before, with_one, with_five = map(int, result.stdout.split())
    assert with_one == before and (with_five >= before + 4 if openmp else with_five == before)
    assert openmp == 0 or 1 <= openmp % 100 <= 12  # the month of a standard
