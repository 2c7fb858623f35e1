"""The operators in differentiable plain JAX, each weight gathering what it needs: the standard for derivatives.

It shares nothing with the package: no event rows, no permutation, no kernels' order; every weight knows its two
neurons (`Network.ends`).
"""

import jax
import jax.numpy as jnp
import numpy as np


def arithmetic(weight):
    return weight.astype(jnp.float64 if weight.dtype == jnp.float64 else jnp.float32)


def softness(x, low, high, soft_bound, mu):
    """What scales a change of `x` with a soft bound; constant, 0, where `x` is at that bound or beyond."""
    if mu == 0:
        return jnp.ones_like(x)
    base = (high - x if soft_bound == "upper" else x - low) / jnp.where(low < high, high - low, 1)
    inside = (base > 0) & (low < high)
    return jnp.where(inside, jnp.where(inside, base, 1) ** mu, 0)


def update(
    spec, network, weight, trace, spike, gain=None, w_min=None, w_max=None, *, weight_in_bounds=False, soft_bound=None,
    mu=1.0,
):  # fmt: skip
    event, partner = network.ends(spec)
    old = arithmetic(weight)
    low, high = (None if x is None else jnp.asarray(x, weight.dtype).astype(old.dtype) for x in (w_min, w_max))
    change = jnp.asarray(trace, old.dtype)[partner]
    if gain is not None:
        change = change * (jnp.asarray(gain, old.dtype)[event] if jnp.ndim(gain) else jnp.asarray(gain, old.dtype))
    if soft_bound:
        change = change * softness(old, low, high, soft_bound, mu)
    touched = jax.lax.stop_gradient(jnp.asarray(spike)[event].astype(bool))
    if weight_in_bounds:
        new = jnp.where(touched, jnp.clip(old + change, low, high), old)
    else:
        new = jnp.clip(old + jnp.where(touched, change, 0), low, high)
    return new.astype(weight.dtype)


@jax.custom_jvp
def binary(spike):
    """0 or 1, with the derivative of `spike` itself."""
    return jnp.where(spike != 0, 1, 0).astype(spike.dtype)


binary.defjvp(lambda primals, tangents: (binary(*primals), *tangents))


def propagate(spec, network, weight, spike, gain=None):
    """`(gain * spike) @ W` with spikes of 0 and 1, W dense."""
    numbers = arithmetic(weight)
    matrix = jnp.zeros(network.shape, numbers.dtype).at[network.pre, network.post].add(numbers)
    spike = jnp.asarray(spike)
    if jnp.issubdtype(spike.dtype, jnp.floating):
        spike = binary(spike.astype(numbers.dtype))
    else:
        spike = spike.astype(bool).astype(numbers.dtype)
    spike = spike if gain is None else spike * jnp.asarray(gain, numbers.dtype)
    out = (spike[:, None] * (matrix if spec.event == "pre" else matrix.T)).sum(0)
    return out.astype(weight.dtype)


def evaluate(spec, network, operands, **options):
    """The operator of `spec` on operands named as in `_core.specs`."""
    return {"update": update, "propagate": propagate}[spec.kind](spec, network, **operands, **options)


def direction(rng, x):
    """Small integers of the shape and dtype of `x`: their sums are exact, also in 16 bits, and none is 0."""
    return jnp.asarray(rng.choice([-1, 1, 2, 3], np.shape(x)), x.dtype)


def all_derivatives(function, primals, seed=0):
    """Value, JVP, VJP and the JVP of the VJP (second order) of `function` of a dict, in directions that `seed` sets."""
    rng = np.random.default_rng(seed)
    primals = {name: jnp.asarray(x) for name, x in primals.items()}
    out = jax.eval_shape(function, primals)
    cotangent, its_tangent = direction(rng, out), direction(rng, out)
    tangents = {name: direction(rng, primals[name]) for name in sorted(primals)}

    def pull_back(primals, cotangent):
        return jax.vjp(function, primals)[1](cotangent)[0]

    @jax.jit
    def derivatives(primals, tangents, cotangent, its_tangent):
        value, jvp = jax.jvp(function, (primals,), (tangents,))
        vjp, second = jax.jvp(pull_back, (primals, cotangent), (tangents, its_tangent))
        return {"value": value, "jvp": jvp, "vjp": vjp, "jvp of vjp": second}

    return jax.tree.map(np.asarray, derivatives(primals, tangents, cotangent, its_tangent))


def assert_same_derivatives(actual, expected):
    """Up to a few roundings; what is not 0 by nature must not be 0."""

    def check(path, x, y):
        where = jax.tree_util.keystr(path)
        assert x.dtype == y.dtype and x.shape == y.shape, where
        tolerance = (8 if x.dtype.itemsize == 2 else 64) * float(jnp.finfo(x.dtype).eps)
        x, y = np.float64(x), np.float64(y)
        np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * max(1, np.abs(y).max(initial=0)), err_msg=where
        )

    jax.tree_util.tree_map_with_path(check, actual, expected)


# -- problems: numbers on a grid, so that sums are exact, and equal a bound where that is meant and nowhere else

HARD, SOFT = {}, {}
for _name, _operands, _options in (
    ("no bounds", {}, {}),
    ("gain", {"gain": "each"}, {}),
    ("one gain, bounds", {"gain": "one", "w_min": "one", "w_max": "one"}, {}),
    ("gain, bounds of each", {"gain": "each", "w_min": "each", "w_max": "each"}, {}),
    ("w_max of each", {"w_max": "each"}, {}),
    ("one gain, in w_min", {"gain": "one", "w_min": "one"}, {"weight_in_bounds": True}),
    ("gain, in bounds of each", {"gain": "each", "w_min": "each", "w_max": "each"}, {"weight_in_bounds": True}),
):
    HARD[_name] = _operands, _options
for _name, _how, _options in (
    ("upper", "one", {"soft_bound": "upper"}),
    ("lower, square", "each", {"soft_bound": "lower", "mu": 2.0}),
    ("upper, root, in bounds", "each", {"soft_bound": "upper", "mu": 0.5, "weight_in_bounds": True}),
    ("lower, in bounds", "one", {"soft_bound": "lower", "weight_in_bounds": True}),
):
    SOFT[_name] = {"gain": "each", "w_min": _how, "w_max": _how}, _options
CASES = HARD | SOFT


def on_grid(rng, low, high, step, size):
    """Multiples of `step` from `low` to `high`."""
    return rng.integers(round(low / step), round(high / step) + 1, size) * step


def update_problem(spec, network, rng, case, dtype=np.float32, ties=False):
    """Operands of an update without its structure, and its options.

    With ties, many weights and sums equal a bound, and some bounds each other; without, none do, but for weights that
    are kept in bounds and rest there.
    """
    kinds, options = CASES[case]
    n_event, n_other = spec.sizes(network.shape)
    sizes = {"gain": n_event, "w_min": network.nse, "w_max": network.nse}
    step = 1 / 4 if ties else 1 / 32
    given = {"weight": on_grid(rng, -1, 1, step, network.nse), "trace": on_grid(rng, -1, 1, 2 * step, n_other)}
    for name, kind in kinds.items():
        size = () if kind == "one" else sizes[name]
        if name == "gain":
            given[name] = rng.choice([-1, -0.5, 0.5, 1], size)
        else:
            low, high = (-0.75, 0) if name == "w_min" else (0, 0.75)
            given[name] = on_grid(rng, low, high, step, size) + (0 if ties else step / 2)
    if options.get("weight_in_bounds"):
        given["weight"] = np.clip(given["weight"], given["w_min"], given.get("w_max"))
    arithmetic = np.float64 if dtype == np.float64 else np.float32
    dtypes = {"trace": arithmetic, "gain": arithmetic}
    given = {name: np.asarray(x, dtypes.get(name, dtype)) for name, x in given.items()}
    return given | {"spike": rng.random(n_event) < 0.6}, options
