"""What a batch costs, seen in the compiled program: one kernel call, no copy of what its members share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hlo
from problems import call, operands, random_network

pytestmark = pytest.mark.optimised
SHAPE, NSE, BATCH = (60, 70), 1777, 5


@pytest.fixture(scope="module")
def network():
    return random_network(np.random.default_rng(0), SHAPE, NSE)


@pytest.fixture
def problem(network, rng):
    """`problem(spec, names)`: a function of those operands under `vmap`, and a batch of each."""

    def make(spec, names, **options):
        given = operands(spec, rng, network)
        if spec.kind == "update":
            given |= {
                "w_min": rng.uniform(-2, -1, NSE).astype(np.float32),
                "w_max": np.float32(1),
                "gain": np.float32(0.5),
            }
        batch = {n: jnp.asarray([np.roll(given[n], k) for k in range(BATCH)]) for n in names}
        fixed = {name: jnp.asarray(x) for name, x in given.items() if name not in names}

        def function(fixed, batch):
            return jax.vmap(lambda x: call(spec, fixed | x, shape=SHAPE, backend="cython", **options))(batch)

        return function, fixed, batch

    return make


def subsets(spec):
    if spec.kind == "propagate":
        return [("weight",), ("spike",), ("weight", "spike")]
    return [
        ("weight",),
        ("spike",),
        ("trace",),
        ("gain",),
        ("w_max",),
        ("weight", "w_min"),
        ("weight", "spike", "trace"),
    ]


def test_one_call_for_a_batch(spec, problem):
    for names in subsets(spec):
        text = hlo.compiled(*problem(spec, names)).as_text()
        assert hlo.custom_calls(text) == [spec.kind], names
        assert " while(" not in text, names
        assert [x for x in hlo.at_least(text, NSE + 1) if x[0] in ("s32", "s64", "u32")] == [], names


def test_a_shared_weight_is_not_copied_for_propagate(propagate, problem):
    text = hlo.compiled(*problem(propagate, ("spike",))).as_text()
    assert hlo.at_least(text, NSE + 1) == []


def test_a_shared_weight_is_copied_into_the_result(update, problem):
    """Once: the kernel works there, and there is no second array of that size."""
    for names in (("spike",), ("trace",), ("spike", "trace")):
        function, fixed, batch = problem(update, names)
        compiled = hlo.compiled(function, fixed, batch)
        first, second = hlo.written(compiled.as_text(), NSE + 1)
        assert first in ("broadcast", "fusion") and second == "custom-call"
        assert compiled.memory_analysis().temp_size_in_bytes < 4 * NSE


def test_no_memory_for_batched_weights(update, problem):
    """A donated batch is updated where it is."""
    function, fixed, batch = problem(update, ("weight", "spike"))
    spikes, weights = batch["spike"], batch["weight"]
    step = jax.jit(lambda w, s: function(fixed, {"weight": w, "spike": s}), donate_argnums=0)
    compiled = step.lower(weights, spikes).compile()
    assert hlo.written(compiled.as_text(), NSE) == ["custom-call"]
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * NSE
    before = weights.unsafe_buffer_pointer()
    out = step(weights, spikes)
    assert weights.is_deleted() and out.unsafe_buffer_pointer() == before


def test_an_ensemble_in_scan(update, problem):
    """Eight networks, each with its own spikes: one call a step, in place."""
    function, fixed, batch = problem(update, ("weight", "spike"))
    spikes = jnp.asarray([np.roll(batch["spike"], k, 1) for k in range(4)])

    def simulate(weights, spikes):
        return jax.lax.scan(lambda w, s: (function(fixed, {"weight": w, "spike": s}), None), weights, spikes)[0]

    text = jax.jit(simulate, donate_argnums=0).lower(batch["weight"], spikes).compile().as_text()
    assert hlo.custom_calls(text) == ["update"]
    assert text.count(" while(") == 1
    assert hlo.written(text, NSE) == ["custom-call"]


@pytest.mark.parametrize("levels", [2, 3])
def test_nested_batches_are_one_call(spec, problem, levels):
    """Weights by spikes by, for an update, traces."""
    names = ("weight", "spike", *(("trace",) if spec.kind == "update" else ()))[:levels]
    _, fixed, batch = problem(spec, names)

    def function(*x):
        return call(spec, fixed | dict(zip(names, x, strict=True)), shape=SHAPE, backend="cython")

    every = function
    for k in range(len(names)):
        every = jax.vmap(every, in_axes=tuple(0 if i == k else None for i in range(len(names))))
    compiled = hlo.compiled(every, *(batch[name] for name in names))
    text = compiled.as_text()
    assert hlo.custom_calls(text) == [spec.kind]
    assert " while(" not in text
    assert [x for x in hlo.at_least(text, NSE + 1) if x[0] == "s32"] == []
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * NSE * BATCH


def test_a_batch_of_structures_is_a_loop(spec, problem):
    """One call, in a loop."""
    text = hlo.compiled(*problem(spec, ("indices",))).as_text()
    assert hlo.custom_calls(text) == [spec.kind]
    assert " while(" in text


@pytest.mark.parametrize("mode", [{}, {"weight_in_bounds": True}], ids=str)
def test_gradients_of_a_batch(spec, network, rng, mode):
    """vmap of grad: a call or a few for the whole batch, and no loop."""
    given = operands(spec, rng, network)
    if spec.kind == "update":
        given |= {"w_min": np.float32(-1), "w_max": np.float32(1)}
    mode = mode if spec.kind == "update" else {}
    weights = jnp.stack([jnp.asarray(given.pop("weight"))] * BATCH)

    def loss(weight):
        return (call(spec, given | {"weight": weight}, shape=SHAPE, backend="cython", **mode) ** 2).sum()

    one, several = (
        hlo.compiled(f, w).as_text() for f, w in ((jax.grad(loss), weights[0]), (jax.vmap(jax.grad(loss)), weights))
    )
    assert hlo.custom_calls(several) == hlo.custom_calls(one) != []
    assert " while(" not in several
    assert [x for x in hlo.at_least(several, NSE + 1) if x[0] == "s32"] == []


@pytest.mark.parametrize("names", [("weight", "spike"), ("spike",)], ids=str)
def test_bitwise_the_same_for_any_number_of_threads(spec, cpu_kernel, threads, names):
    """Of batches large enough for several threads."""
    rng = np.random.default_rng(0)
    network = random_network(rng, (500, 600), 100_000, sorted_rows=True)
    given = operands(spec, rng, network, p_spike=0.8, exact=False)
    batch = {name: np.stack([np.roll(given[name], k) for k in range(8)]) for name in names}
    function = jax.jit(jax.vmap(lambda x: call(spec, given | x, shape=network.shape, backend=cpu_kernel)))
    results = []
    for n in (1, 2, 4):
        threads(n)
        results.append(np.asarray(function(batch)))
        assert results[-1].tobytes() == results[0].tobytes(), f"{n} threads"
    for k in (0, 7):
        one = call(spec, given | {name: x[k] for name, x in batch.items()}, shape=network.shape, backend=cpu_kernel)
        np.testing.assert_array_equal(results[0][k], one)
    assert not np.array_equal(results[0][0], results[0][1])
