"""Rings: what comes out, in place, under JAX's transformations, and what they refuse."""

import pickle

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax.delays import Ring, steps
from hlo import at_least, compiled
from problems import enable_x64

DT = 0.1 * u.ms
STEPS, N = 12, 5


def delayed(x, ago):
    """`x[k - ago]`, and zeros before the start."""
    return np.concatenate([np.zeros_like(x[:ago]), x[: len(x) - ago]])


def run(ring, x):
    return jax.lax.scan(lambda ring, x: ring.push(x), ring, x)


def trains(rng, dtype):
    return rng.random((STEPS, N)) < 0.4 if dtype is bool else rng.integers(-9, 9, (STEPS, N)).astype(dtype)


@pytest.mark.parametrize("dtype", [bool, np.float32, np.int32])
@pytest.mark.parametrize("ago", [0, 1, 4, STEPS + 3])
def test_what_was_pushed_comes_out_later(rng, dtype, ago):
    x = trains(rng, dtype)
    ring, out = run(Ring.of(jnp.asarray(x[0]), ago * DT, DT), jnp.asarray(x))
    assert out.dtype == dtype and ring.length == ago
    np.testing.assert_array_equal(out, delayed(x, min(ago, STEPS)))


def test_any_delay_up_to_the_longest_is_read_and_what_is_due_is_known_before(rng):
    x = trains(rng, np.float32)
    ring = Ring.of(x[0], 0.4 * u.ms, DT)
    for k in range(STEPS):
        due = ring.due()
        ring, out = ring.push(x[k])
        np.testing.assert_array_equal(due, out)
        for ago in range(5):
            np.testing.assert_array_equal(ring.read(ago * DT, DT), delayed(x, ago)[k])


def test_units_are_kept_and_converted():
    ring = Ring.of(jnp.zeros(2) * u.nA, 1.0 * u.ms, 1.0 * u.ms)
    ring, out = ring.push(jnp.array([1000.0, 2000.0]) * u.pA)
    assert out.unit == u.nA and (out == 0 * u.nA).all()
    _, out = ring.push(jnp.zeros(2) * u.nA)
    np.testing.assert_allclose(out.to(u.pA).mantissa, [1000.0, 2000.0])
    with pytest.raises(u.UnitMismatchError, match=r"^x: "):
        ring.push(jnp.zeros(2) * u.mV)
    with pytest.raises(u.UnitMismatchError, match=r"^x: "):
        ring.push(jnp.zeros(2))


def test_leading_dimensions_are_the_callers(rng):
    x = rng.random((STEPS, 3, N)).astype(np.float32)
    np.testing.assert_array_equal(run(Ring.of(x[0], 0.2 * u.ms, DT), x)[1], delayed(x, 2))


@pytest.mark.parametrize("ago", [0, 3])
def test_vmap_of_the_rings_and_inside(rng, ago):
    x = rng.random((4, STEPS, N)).astype(np.float32)
    expected = np.stack([delayed(one, ago) for one in x])
    alone = jax.vmap(lambda x: run(Ring.of(x[0], ago * DT, DT), x)[1])
    np.testing.assert_array_equal(alone(x), expected)
    rings = jax.vmap(lambda x: Ring.of(x, ago * DT, DT))(x[:, 0])
    np.testing.assert_array_equal(jax.vmap(run)(rings, x)[1], expected)


def test_shard_map(rng):
    x = rng.random((STEPS, N)).astype(np.float32)
    mesh = Mesh(jax.devices()[:1], ("devices",))
    split = P(None, "devices")

    def function(x):
        return run(Ring.of(x[0], 0.3 * u.ms, DT), x)[1]

    sharded = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split))
    np.testing.assert_array_equal(sharded(x), delayed(x, 3))


def test_derivatives_pass_through(rng):
    x, factor = rng.random((2, STEPS, N))

    def loss(x):
        return (factor * run(Ring.of(x[0], 0.3 * u.ms, DT), x)[1]).sum()

    expected = np.concatenate([factor[3:], np.zeros((3, N))])
    np.testing.assert_allclose(jax.grad(loss)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (x,), (x,))[1], (x * expected).sum(), rtol=1e-5)


@pytest.mark.optimised
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_a_loop_and_a_donated_push_do_not_copy_the_ring(rng, dtype):
    n, longest = 1009, 40  # whose product nothing else here has
    x = jnp.asarray(rng.random((STEPS, n)) < 0.4, dtype)
    ring = Ring.of(x[0], longest * DT, DT)

    def step(ring, x):
        due = ring.due()
        ring, out = ring.push(x ^ due if dtype is bool else x + due)  # recurrent
        return ring, (out, ring.read(0.2 * u.ms, DT))

    loop = jax.jit(lambda ring, x: jax.lax.scan(step, ring, x), donate_argnums=0)
    push = jax.jit(Ring.push, donate_argnums=0)
    for function, given in ((loop, x), (push, x[0])):
        text = function.lower(ring, given).compile().as_text()
        assert at_least(text, n * (longest + 1)) and at_least(text, n * (longest + 1), "copy", "copy-start") == []
        before = ring.values.unsafe_buffer_pointer()
        ring, _ = function(ring, given)
        assert ring.values.unsafe_buffer_pointer() == before
    assert at_least(compiled(Ring.push, ring, x[0]).as_text(), n * (longest + 1), "copy")  # the test would see one


@pytest.mark.optimised
def test_what_is_due_may_be_used_after_the_push_without_a_copy():
    """As in a trace of what arrives."""
    n, longest = 1009, 40

    def step(state, _):
        ring, trace = state
        due = ring.due()
        ring, _ = ring.push(due | (trace > 1))
        return (ring, 0.9 * trace + due), None

    state = Ring.of(jnp.zeros(n, bool), longest * DT, DT), jnp.zeros(n)
    text = compiled(lambda state: jax.lax.scan(step, state, length=STEPS)[0], state).as_text()
    in_loop = text[: text.index("\nENTRY")]
    assert at_least(in_loop, n * (longest + 1)) and at_least(in_loop, n * (longest + 1), "copy", "copy-start") == []


def test_a_checkpoint_of_the_arrays_goes_on(rng):
    x = trains(rng, bool)
    ring, _ = run(Ring.of(x[0], 0.3 * u.ms, DT), x[:7])
    leaves, treedef = jax.tree.flatten(ring)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    for restored in (
        jax.tree.unflatten(treedef, [jnp.asarray(np.asarray(leaf)) for leaf in leaves]),
        pickle.loads(pickle.dumps(ring)),
    ):
        np.testing.assert_array_equal(run(restored, x[7:])[1], delayed(x, 3)[7:])
    assert [str(path[0]) for path, _ in jax.tree_util.tree_flatten_with_path(ring)[0]] == [".values", ".position"]


def test_x64_does_not_change_the_state():
    with enable_x64(True):
        ring = Ring.of(jnp.zeros(3), 0.2 * u.ms, DT)
        after = run(ring, jnp.zeros((4, 3)))[0]
    assert after.values.shape == ring.values.shape == (3, 3) and after.position.shape == ()
    assert after.position.dtype == np.int32 and after.values.dtype == np.float64


# -- steps


def test_steps_in_any_unit_and_up_to_a_thousandth_of_a_step():
    assert (
        steps(1.5 * u.ms, 0.1 * u.ms) == steps(1500.0 * u.us, 0.1 * u.ms) == steps(0.0015 * u.second, 0.1 * u.ms) == 15
    )
    assert steps(3, 1) == 3 and type(steps(3, 1)) is int
    assert steps(0.30009 * u.ms, 0.1 * u.ms) == 3
    got = steps(np.float32([0.0, 0.1, 1.7]) * u.ms, 0.1 * u.ms)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, [0, 1, 17])
    assert jax.jit(lambda x: x + steps(1.5 * u.ms, 0.1 * u.ms))(1) == 16


@pytest.mark.parametrize(
    "delay, dt, error, message",
    [
        (0.15 * u.ms, DT, ValueError, r"^delay: got 0\.15 ms, expected a multiple of dt = 0\.1"),
        (0.3002 * u.ms, DT, ValueError, r"^delay: got 0\.3002 ms, expected a multiple"),
        (-0.1 * u.ms, DT, ValueError, r"^delay: got -0\.1 ms, expected a finite value of at least 0"),
        (np.nan * u.ms, DT, ValueError, r"^delay: got nan ms, expected a finite value"),
        (np.inf * u.ms, DT, ValueError, r"^delay: got inf ms, expected a finite value"),
        (np.array([0.1, 0.2, -0.3]) * u.ms, DT, ValueError, r"^delay\[2\]: got -0\.3 ms"),
        (0.1 * u.mV, DT, u.UnitMismatchError, "^dt: "),
        (0.1, DT, u.UnitMismatchError, "^dt: "),
        (1e9 * u.ms, DT, ValueError, r"^delay: got 1e\+09 ms, expected fewer than 2\*\*31 steps of dt = 0\.1"),
        ("1 ms", DT, TypeError, "^delay: got '1 ms'"),
        (0.1 * u.ms, 0.0 * u.ms, ValueError, "^dt: got 0"),
        (0.1 * u.ms, -0.1 * u.ms, ValueError, "^dt: got -0.1"),
        (0.1 * u.ms, np.nan * u.ms, ValueError, "^dt: got nan"),
        (0.1 * u.ms, np.array([0.1, 0.1]) * u.ms, hebbax.ShapeError, r"^dt: got shape \(2,\)"),
    ],
)
def test_what_is_no_delay_is_refused(delay, dt, error, message):
    with pytest.raises(error, match=message):
        steps(delay, dt)


def test_a_traced_delay_is_refused():
    with pytest.raises(TypeError, match=r"^delay: got a traced value"):
        jax.jit(lambda delay: Ring.of(jnp.zeros(2), delay * u.ms, DT))(0.3)


def test_what_a_ring_refuses():
    ring = Ring.of(jnp.zeros(2, bool), 0.2 * u.ms, DT)
    with pytest.raises(ValueError, match=r"^delay: got 0\.3 ms, 3 steps, expected at most the ring's 2"):
        ring.read(0.3 * u.ms, DT)
    with pytest.raises(hebbax.ShapeError, match=r"^x: got shape \(3,\), expected \(2,\)"):
        ring.push(jnp.zeros(3, bool))
    with pytest.raises(TypeError, match=r"^x: got dtype float32, expected bool"):
        ring.push(jnp.zeros(2))
    with pytest.raises(hebbax.ShapeError, match=r"^delay: got shape \(2,\), expected a scalar"):
        Ring.of(jnp.zeros(2), np.array([0.1, 0.2]) * u.ms, DT)
    with pytest.raises(ValueError, match=r"^delay: got 0 steps, expected at least 1"):
        Ring.of(jnp.zeros(2), 0.0 * u.ms, DT).due()
