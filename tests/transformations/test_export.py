"""jax.export: a function with an operator in it is saved as bytes and runs again, derivatives too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import update_problem
from jax import export

from problems import CSC_SPECS, SPECS, call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE = (9, 10)
# `jax.export` promises that what it saves can be run for months. We promise that for no kernel, so this is asked for.
OURS = [export.DisabledSafetyCheck.custom_call(f"hebbax_{name}") for name in ("update", "propagate", "collect")]


def problem(spec, rng, backend):
    """A function of a dict of all operands, and these."""
    network = random_network(rng, SHAPE, 60)
    if spec.kind == "update":
        given, options = update_problem(spec, network, rng, "gain, bounds of each")
    else:
        given, options = {name: operands(spec, rng, network)[name] for name in ("weight", "spike")}, {}
    given = {name: jnp.asarray(x) for name, x in (given | network.structure(spec)).items()}
    return jax.jit(lambda x: call(spec, x, shape=SHAPE, backend=backend, **options)), given


def round_trip(exported, vjp_order=0):
    return export.deserialize(exported.serialize(vjp_order=vjp_order))


@pytest.mark.parametrize("spec_or_csc", SPECS + CSC_SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("backend_in_file", [None, "cython", "jax"])
def test_round_trip(spec_or_csc, rng, backend_in_file):
    spec = spec_or_csc
    function, given = problem(spec, rng, backend_in_file)
    checks = [] if backend_in_file == "jax" else OURS
    exported = export.export(function, platforms=["cpu"], disabled_checks=checks)(given)
    assert (f"@hebbax_{spec.kind}" in exported.mlir_module()) == (backend_in_file != "jax")
    again = round_trip(exported)
    out = again.call(given)
    np.testing.assert_array_equal(out, function(given))
    others = given | {"weight": 0.5 * given["weight"], "spike": ~given["spike"]}
    np.testing.assert_array_equal(jax.jit(again.call)(others), function(others))
    assert not np.array_equal(function(others), out)


def test_kernels_are_exported_on_request_only(spec, rng):
    function, given = problem(spec, rng, "cython")
    with pytest.raises(ValueError, match=rf"(?s)custom calls? .*hebbax_{spec.kind}"):
        export.export(function, platforms=["cpu"])(given)


def test_a_callback_is_not_exported(spec, rng):
    """It is an object in this process; JAX says so."""
    function, given = problem(spec, rng, "callback")
    with pytest.raises(NotImplementedError, match="serialization of host_callbacks"):
        export.export(function, platforms=["cpu"], disabled_checks=OURS)(given)


def test_exported_for_several_platforms(spec, rng):
    """Each gets what it can run."""
    function, given = problem(spec, rng, None)
    exported = export.export(function, platforms=["cpu", "cuda", "tpu"], disabled_checks=OURS)(given)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_array_equal(round_trip(exported).call(given), function(given))
    other, _ = problem(spec, rng, "cython")
    with pytest.raises(ValueError, match=r"'cython'.*it runs on cpu only"):
        export.export(other, platforms=["cuda"], disabled_checks=OURS)(given)


@pytest.mark.slow
@pytest.mark.parametrize("exported_backend", ["cython", "jax"])
def test_gradients_of_what_was_exported(spec, rng, exported_backend):
    function, given = problem(spec, rng, exported_backend)
    names = ("weight", "trace", "gain", "w_max")
    x = {name: given.pop(name) for name in names if name in given}
    loss = jax.jit(lambda x, given: (function(x | given) ** 2).sum())
    exported = export.export(loss, platforms=["cpu"], disabled_checks=OURS)(x, given)
    again = round_trip(exported, vjp_order=1)
    actual, expected = jax.grad(again.call)(x, given), jax.grad(loss)(x, given)
    for name in x:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, atol=1e-6)
        assert np.any(expected[name] != 0)


@pytest.mark.parametrize("exported_backend", ["cython", "jax"])
def test_a_gradient_and_a_batch_are_exported(spec, rng, exported_backend):
    function, given = problem(spec, rng, exported_backend)
    weights = jnp.stack([given["weight"], -given["weight"]])
    gradient = jax.jit(jax.vmap(jax.grad(lambda w: (function(given | {"weight": w}) ** 2).sum())))
    again = round_trip(export.export(gradient, platforms=["cpu"], disabled_checks=OURS)(weights))
    np.testing.assert_allclose(again.call(weights), gradient(weights), rtol=1e-6)
    assert np.any(gradient(weights) != 0)
