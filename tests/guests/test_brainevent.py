"""brainevent with hebbax as its backend: what its own backends give, bit for bit, of what hebbax computes and of what
it hands back. Weights and traces are multiples of 1/8, so that no sum is rounded."""

import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hebbax.brainevent
from hlo import compiled, custom_calls
from problems import DTYPES, WHY_NO_CUPY, enable_x64

brainevent = pytest.importorskip("brainevent", "0.3.0")

SHAPE, LENGTH, BATCH = (30, 40), 7, 3
KINDS = ("CSR", "CSC", "FixedNumPerPre", "FixedNumPerPost")
# The side of the matrix on which spikes pick whole rows of what is stored; CSR and CSC have nothing else.
ROWS = {"CSR": "left", "CSC": "right", "FixedNumPerPre": "left", "FixedNumPerPost": "right"}
EVENTS = ("bool", "int32", "float16", "float32")


def eighths(rng, size, dtype="float32"):
    return jnp.asarray(rng.integers(-8, 9, size) / 8, DTYPES[dtype])


def events(rng, size, dtype="bool"):
    """A third of them spikes; numbers are of either sign, and one of them is no number."""
    spikes = np.where(rng.random(size) < 1 / 3, rng.choice([-1.0, 1.0, 2.0], size), 0)
    if dtype.startswith("float"):
        spikes.flat[0] = np.nan
    return jnp.asarray(spikes != 0 if dtype == "bool" else spikes.astype(dtype))


def matrix(kind, rng, dtype="float32", one_weight=False, backend=None):
    """A random matrix of brainevent; those in rows have rows of any length, empty ones too."""
    rows, columns = SHAPE if ROWS[kind] == "left" else SHAPE[::-1]
    if kind.startswith("Fixed"):
        indices = rng.integers(0, columns, (rows, LENGTH)).astype(np.int32)
        structure = (indices,)
    else:
        indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 2 * LENGTH, rows))])
        indices = rng.integers(0, columns, indptr[-1]).astype(np.int32)
        structure = indices, indptr.astype(np.int32)
    weight = eighths(rng, 1 if one_weight else indices.shape, dtype)
    return getattr(brainevent, kind)((weight, *structure), shape=SHAPE, backend=backend)


def copy(m, backend=None):
    structure = (m.indices,) if hasattr(m, "num_conn") else (m.indices, m.indptr)
    return type(m)((m.data, *structure), shape=m.shape, backend=backend)


def multiply(m, side, spikes, wrap=None):
    spikes = (wrap or brainevent.BinaryArray)(spikes)
    return spikes @ m if side == "left" else m @ spikes


def spikes_for(rng, side, dtype="bool", batch=False):
    n = SHAPE[0] if side == "left" else SHAPE[1]
    return events(rng, n if not batch else (BATCH, n) if side == "left" else (n, BATCH), dtype)


def assert_same(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def assert_as_brainevent(compute, m, dtype):
    """`compute(m)` with hebbax by default and by name, beside the backends of brainevent's that know the dtype."""
    with hebbax.brainevent.enable():
        got = [compute(copy(m)), compute(copy(m, backend="hebbax"))]
    for backend in ("jax_raw",) if dtype.endswith("16") else ("jax_raw", "numba"):
        for result in got:
            assert_same(result, compute(copy(m, backend=backend)))


@pytest.fixture
def enabled():
    with hebbax.brainevent.enable():
        yield


@pytest.mark.parametrize("batch", [False, True], ids=["vector", "matrix"])
@pytest.mark.parametrize("one_weight", [False, True], ids=["weights", "one weight"])
@pytest.mark.parametrize("event_dtype", EVENTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_brainevent(rng, kind, side, dtype, event_dtype, one_weight, batch):
    with enable_x64(dtype == "float64"):
        spikes = spikes_for(rng, side, event_dtype, batch)
        assert_as_brainevent(lambda m: multiply(m, side, spikes), matrix(kind, rng, dtype, one_weight), dtype)


@pytest.mark.parametrize("bounds", [(None, None), (-0.5, 0.75), (None, 0.5)], ids=str)
@pytest.mark.parametrize("event_dtype", EVENTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["pre", "post"])
@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_those_of_brainevent(rng, kind, side, dtype, event_dtype, bounds):
    with enable_x64(dtype == "float64"):
        n_pre, n_post = SHAPE if side == "pre" else SHAPE[::-1]
        spike, trace = events(rng, n_pre, event_dtype), eighths(rng, n_post, dtype)

        def update(m):
            if side == "pre":
                return m.update_on_pre(spike, trace, *bounds).data
            return m.update_on_post(trace, spike, *bounds).data

        assert_as_brainevent(update, matrix(kind, rng, dtype), dtype)


@pytest.mark.parametrize("batch", [False, True], ids=["vector", "matrix"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_that_hebbax_serves_are_one_call_of_its_kernel(rng, enabled, kind, batch):
    m = matrix(kind, rng)
    for side in ("left", "right"):
        program = compiled(lambda spikes, side=side: multiply(m, side, spikes), spikes_for(rng, side, batch=batch))
        served = side == ROWS[kind] or kind.startswith("Fixed")
        assert custom_calls(program.as_text()) == ["propagate"] * served


@pytest.mark.parametrize("batch", [False, True], ids=["vector", "matrix"])
@pytest.mark.parametrize("one_weight", [False, True], ids=["weights", "one weight"])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_that_are_rounded_are_those_of_numba_too(rng, kind, one_weight, batch):
    m = matrix(kind, rng, one_weight=one_weight)
    m = m.with_data(jnp.asarray(rng.normal(size=m.data.shape), jnp.float32))
    for side in ("left", "right") if kind.startswith("Fixed") else (ROWS[kind],):
        spikes = spikes_for(rng, side, batch=batch)
        with hebbax.brainevent.enable():
            got = multiply(copy(m), side, spikes)
        assert_same(got, multiply(copy(m, "numba"), side, spikes))


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_one_call_of_hebbax_kernel(rng, enabled, kind):
    m, spike, trace = matrix(kind, rng), events(rng, SHAPE[0]), eighths(rng, SHAPE[1])
    program = compiled(lambda data: m.with_data(data).update_on_pre(spike, trace).data, m.data)
    assert custom_calls(program.as_text()) == ["update"]
    program = compiled(lambda data: m.with_data(data).update_on_post(trace[:30], events(rng, 40)).data, m.data)
    assert custom_calls(program.as_text()) == ["update"]


@pytest.mark.parametrize("batch", [False, True], ids=["vector", "matrix"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_events_that_carry_values_are_handed_back(rng, kind, side, dtype, batch):
    spikes = spikes_for(rng, side, "float32", batch)
    spikes = jnp.where(jnp.isnan(spikes), 2, spikes).astype(dtype)

    def compute(m):
        return multiply(m, side, spikes, brainevent.WeightedArray)

    assert_as_brainevent(compute, matrix(kind, rng, dtype), dtype)
    with hebbax.brainevent.enable():
        m = matrix(kind, rng, dtype)
        assert not custom_calls(compiled(lambda: compute(m)).as_text())


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_may_be_64_bit_and_units_are_kept(rng, kind):
    with enable_x64(True):
        m = matrix(kind, rng)
        parts = m.indices, *([m.indptr.astype(np.int64)] if hasattr(m, "indptr") else [])
        options = {"indptr_dtype": np.int64} if len(parts) > 1 else {}
        m = type(m)((m.data * u.mV, *parts), shape=SHAPE, **options)
        spike, trace = events(rng, SHAPE[0]), eighths(rng, SHAPE[1]) / 1000 * u.volt
        expected = brainevent.BinaryArray(spike) @ m, m.update_on_pre(spike, trace, 0 * u.mV, 0.5 * u.mV).data
        with hebbax.brainevent.enable():
            got = brainevent.BinaryArray(spike) @ m, m.update_on_pre(spike, trace, 0 * u.mV, 0.5 * u.mV).data
        for x, y in zip(got, expected, strict=True):
            assert x.unit == y.unit == u.mV
            np.testing.assert_allclose(x.mantissa, y.mantissa, rtol=1e-6)


def test_nothing_is_no_special_case(enabled):
    m = brainevent.CSR((jnp.zeros(0), np.zeros(0, np.int32), np.zeros(4, np.int32)), shape=(3, 2))
    assert_same(brainevent.BinaryArray(jnp.ones(3, bool)) @ m, np.zeros(2, np.float32))
    assert m.update_on_pre(jnp.ones(3, bool), jnp.ones(2)).data.shape == (0,)


@pytest.mark.parametrize("what", ["spikes", "weights", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_products_is_one_call(rng, enabled, kind, what):
    m, side = matrix(kind, rng), ROWS[kind]
    weights = eighths(rng, (BATCH, *m.data.shape))
    spikes = jnp.stack([spikes_for(rng, side, "float32") for _ in range(BATCH)])
    axes = (None if what == "spikes" else 0), (None if what == "weights" else 0)
    given = (m.data if what == "spikes" else weights), (spikes[0] if what == "weights" else spikes)

    def product(weight, spike):
        return multiply(m.with_data(weight), side, spike)

    batched = jax.vmap(product, axes)
    text = compiled(batched, *given).as_text()
    assert custom_calls(text) == ["propagate"] and "while(" not in text
    expected = [
        product(*(x if axis is None else x[k] for x, axis in zip(given, axes, strict=True))) for k in range(BATCH)
    ]
    assert_same(batched(*given), jnp.stack(expected))


@pytest.mark.parametrize("side", ["pre", "post"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_updates_is_one_call(rng, enabled, kind, side):
    m = matrix(kind, rng)
    n_event, n_other = SHAPE if side == "pre" else SHAPE[::-1]
    weights = eighths(rng, (BATCH, *m.data.shape))
    spikes, traces = events(rng, (BATCH, n_event)), eighths(rng, (n_other, BATCH))

    def update(weight, spike, trace):
        if side == "pre":
            return m.with_data(weight).update_on_pre(spike, trace).data
        return m.with_data(weight).update_on_post(trace, spike).data

    batched = jax.vmap(update, (0, 0, 1))
    text = compiled(batched, weights, spikes, traces).as_text()
    assert custom_calls(text) == ["update"] and "while(" not in text
    expected = [update(weights[k], spikes[k], traces[:, k]) for k in range(BATCH)]
    assert_same(batched(weights, spikes, traces), jnp.stack(expected))


def test_a_batch_of_structures_and_a_named_backend_are_left_to_brainevent(rng, enabled):
    m, spike, trace = matrix("CSR", rng), events(rng, SHAPE[0]), eighths(rng, SHAPE[1])
    indices = jnp.stack([m.indices, jnp.flip(m.indices)])

    def update(indices, backend=None):
        return brainevent.update_csr_on_binary_pre(
            m.data, indices, m.indptr, spike, trace, shape=SHAPE, backend=backend
        )

    expected = jnp.stack([update(x, "numba") for x in indices])
    assert_same(jax.vmap(update)(indices), expected)
    batched = jax.vmap(lambda weight: copy(m, "numba").with_data(weight).update_on_pre(spike, trace).data)
    assert not custom_calls(compiled(batched, eighths(rng, (BATCH, *m.data.shape))).as_text())


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_brainevent(rng, kind, batch):
    m, side = matrix(kind, rng), ROWS[kind]
    spikes = spikes_for(rng, side, "float32")
    spikes = jnp.where(jnp.isnan(spikes), 1, spikes)
    pre, post = (events(rng, n) for n in SHAPE)
    trace = eighths(rng, SHAPE[1])
    weights = jnp.stack([m.data, m.data / 2])

    def loss(weight, spikes, trace):
        one = m.with_data(weight)
        changed = one.update_on_pre(pre, trace, -0.5, 0.5).update_on_post(eighths(rng, SHAPE[0]), post)
        return jnp.sum(jnp.sin(multiply(one, side, spikes))) + jnp.sum(jnp.cos(changed.data))

    def total(weights, *others):
        return jnp.sum(jax.vmap(loss, (0, None, None))(weights, *others)) if batch else loss(weights[0], *others)

    def gradients():
        nonlocal rng
        rng = np.random.default_rng(1)
        return jax.grad(total, (0, 1, 2))(weights, spikes, trace)

    expected = gradients()
    with hebbax.brainevent.enable():
        for got, want in zip(gradients(), expected, strict=True):
            assert np.any(want)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def state():
    registry = brainevent.get_registry()
    return (
        {name: primitive.defaults for name, primitive in registry.items()},
        {platform: brainevent.config.get_backend(platform) for platform in ("cpu", "gpu", "tpu")},
    )


def test_what_was_set_comes_back(rng):
    m = matrix("CSR", rng)
    brainevent.binary_csrmv_p.set_default("cpu", "jax_raw")
    try:
        before = state()
        with hebbax.brainevent.enable() as switch:
            assert isinstance(switch, hebbax.brainevent.Enabled)
            inside = state()
            assert inside != before and brainevent.binary_csrmv_p.get_default("cpu") == "hebbax"
            with pytest.raises(KeyError), hebbax.brainevent.enable():
                raise KeyError
            assert state()[0] == inside[0]
            text = compiled(lambda spike: m @ brainevent.BinaryArray(spike), events(rng, SHAPE[1])).as_text()
            assert "hebbax" not in text and "custom_call_target" not in text  # it is handed back to what was set
        assert state() == before
        hebbax.brainevent.enable()
        hebbax.brainevent.enable()
        assert brainevent.update_csr_on_binary_pre_p.get_default("cpu") == "hebbax"
        hebbax.brainevent.disable()
        assert state() == before
        hebbax.brainevent.disable()
        assert state() == before
        with hebbax.brainevent.enable():
            hebbax.brainevent.disable()
            assert state() == before
        assert state() == before
    finally:
        brainevent.binary_csrmv_p.set_default("cpu", "numba")


def test_a_default_that_is_changed_meanwhile_stays_and_batches_as_brainevent_does(rng):
    m, spikes = matrix("CSR", rng), events(rng, (BATCH, SHAPE[0]))
    hebbax.brainevent.enable()
    try:
        brainevent.binary_csrmv_p.set_default("cpu", "jax_raw")
        hebbax.brainevent.disable()
        assert brainevent.binary_csrmv_p.get_default("cpu") == "jax_raw"
        hebbax.brainevent.enable()
        hebbax.brainevent.disable()
        product = jax.vmap(lambda weight, spike: brainevent.BinaryArray(spike) @ m.with_data(weight))
        weights = jnp.stack([m.data] * BATCH)
        assert_same(product(weights, spikes), jnp.stack([brainevent.BinaryArray(spike) @ m for spike in spikes]))
        assert custom_calls(compiled(product, weights, spikes).as_text()) == []
    finally:
        brainevent.binary_csrmv_p.set_default("cpu", "numba")


def test_a_named_backend_batches_in_one_call_also_after_disable(rng):
    with hebbax.brainevent.enable():
        pass
    m = matrix("CSR", rng, backend="hebbax")

    def product(weight, spike):
        return brainevent.BinaryArray(spike) @ m.with_data(weight)

    text = compiled(jax.vmap(product), jnp.stack([m.data] * BATCH), events(rng, (BATCH, SHAPE[0]))).as_text()
    assert custom_calls(text) == ["propagate"] and " while(" not in text


def test_a_context_can_be_entered_again():
    context = hebbax.brainevent.enable()
    for _ in range(2):
        with context:
            assert brainevent.binary_csrmv_p.get_default("cpu") == "hebbax"
        assert brainevent.binary_csrmv_p.get_default("cpu") == "numba"


def test_a_function_that_has_run_changes_over_and_back(rng):
    m, spike = matrix("CSR", rng), events(rng, SHAPE[0])
    brainevent.BinaryArray(spike) @ m  # or it would keep a workspace from inside the first `jit`
    product = jax.jit(lambda spike: brainevent.BinaryArray(spike) @ m)

    def calls():
        product(spike)
        return custom_calls(product.lower(spike).compile().as_text())

    assert calls() == []
    with hebbax.brainevent.enable():
        assert calls() == ["propagate"]
    assert calls() == []


def test_a_backend_for_all_of_brainevent_is_not_overruled(enabled):
    hebbax.brainevent.disable()
    brainevent.config.set_backend("cpu", "jax_raw")
    try:
        before = state()
        with pytest.raises(ValueError, match=r"get_backend\('cpu'\): got 'jax_raw'.*set_backend\('cpu', None\)"):
            hebbax.brainevent.enable()
        assert state() == before
    finally:
        brainevent.config.set_backend("cpu", None)


def test_the_backend_of_everything_may_be_hebbax(rng, recwarn):
    """All primitives know it by name: those that hebbax does not serve compute as they would."""
    hebbax.brainevent.enable()
    hebbax.brainevent.disable()
    m, vector = matrix("CSR", rng), eighths(rng, SHAPE[1])
    expected = m @ vector, m[3], (brainevent.BinaryArray(vector) @ m.T)
    brainevent.config.set_backend("cpu", "hebbax")
    try:
        got = m @ vector, m[3], (brainevent.BinaryArray(vector) @ m.T)
        for x, y in zip(got, expected, strict=True):
            assert_same(x, y)
    finally:
        brainevent.config.set_backend("cpu", None)
    assert not [str(warning.message) for warning in recwarn if "hebbax" in str(warning.message)]


def test_a_program_for_cuda_is_lowered_from_hebbax(rng, monkeypatch):
    """Where there is neither CuPy nor what plays it, JAX exports it in plain JAX; never from brainevent's kernels."""
    monkeypatch.setattr(hebbax.brainevent, "_platforms", lambda: ("cpu", "gpu"))
    hebbax.brainevent._register.cache_clear()
    m, spike, trace = matrix("CSR", rng), events(rng, SHAPE[0]), eighths(rng, SHAPE[1])
    fixed = matrix("FixedNumPerPre", rng)

    def step(weight, spike):
        one = m.with_data(weight)
        current = brainevent.BinaryArray(spike) @ one + brainevent.BinaryArray(spike) @ fixed
        return current, one.update_on_pre(spike, trace, 0, 1).data, fixed.update_on_pre(spike, trace).data

    targets = [f"hebbax_cuda_{kind}" for kind in ("update", "propagate")]
    with hebbax.brainevent.enable():
        assert brainevent.binary_csrmv_p.get_default("gpu") == "hebbax"
        checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in targets]
        exported = jax.export.export(jax.jit(step), platforms=["cuda"], disabled_checks=checks)(m.data, spike)
    calls = set(re.findall(r"custom_call @(\w+)", exported.mlir_module())) - {"AllocateBuffer"}  # JAX's own
    assert sorted(calls) == ([] if WHY_NO_CUPY else sorted(targets))
    assert brainevent.binary_csrmv_p.get_default("gpu") == "cuda_raw"
    assert "hebbax" not in brainevent.binary_fcnmm_p.available_backends("gpu")
