"""Objects of other packages in place of arrays: events stand for their spikes, what holds an array is refused."""

import importlib.util
import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import hebbax
from problems import CSC_SPECS, call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE, NSE = (6, 7), 30


@jax.tree_util.register_pytree_node_class
class Events:
    """What brainevent's `BinaryArray` has, but for what we do not need."""

    def __init__(self, value):
        self.value = value

    def tree_flatten(self):
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


class Valued:
    def __init__(self, value):
        self.value = value


def make_class(package, name, base=Valued, **attributes):
    """A class that says it is one of that package."""
    return type(name, (base,), {"__module__": package} | attributes)


State = make_class("brainstate", "State")
Array = make_class("brainpy.math.ndarray", "Array", __dlpack__=lambda self: self.value.__dlpack__())
HOLDERS = [
    (State, "a brainstate State"),
    (make_class("brainstate", "ParamState", State), "a brainstate State (ParamState)"),
    (make_class("my_model", "Rate", State), "a brainstate State (Rate)"),
    (Array, "a brainpy Array"),
    (make_class("brainpy.math.object_transform.variables", "Variable", Array), "a brainpy Array (Variable)"),
]
EVENTS, WEIGHTED = [Events], [make_class("brainevent", "WeightedArray")]
# The real ones too, where they are installed.
if importlib.util.find_spec("brainevent"):
    brainevent = importlib.import_module("brainevent")
    EVENTS.append(brainevent.BinaryArray)
    WEIGHTED.append(brainevent.WeightedArray)
if importlib.util.find_spec("brainstate"):
    HOLDERS.append((importlib.import_module("brainstate").ParamState, "a brainstate State (ParamState)"))
if importlib.util.find_spec("brainpy"):
    HOLDERS.append((importlib.import_module("brainpy.math").Array, "a brainpy Array"))


@pytest.fixture(params=EVENTS, ids=lambda x: f"{x.__module__}.{x.__name__}")
def events(request):
    return request.param


@pytest.fixture(params=HOLDERS, ids=lambda x: f"{x[0].__module__}.{x[0].__name__}")
def holder(request):
    """What makes one of an array, and what it is called."""
    return request.param


def refuses(name, what):
    return pytest.raises(TypeError, match=rf"^{name}: got {re.escape(what)}, expected its array: pass \.value$")


@pytest.fixture
def given_of(rng):
    network = random_network(rng, SHAPE, NSE)
    return lambda spec: operands(spec, rng, network)


# -- events


def test_events_are_their_spikes(spec, given_of, backend, events):
    """Of NumPy and of JAX, bool and numbers; called at once, in `jit`, as an argument of it, and without units."""
    given = given_of(spec)
    expected = call(spec, given, shape=SHAPE, backend=backend)
    jitted = jax.jit(lambda spike: call(spec, given | {"spike": spike}, shape=SHAPE, backend=backend))
    for spike in (given["spike"], jnp.asarray(given["spike"]), -3.0 * given["spike"]):
        out = call(spec, given | {"spike": events(spike)}, shape=SHAPE, backend=backend)
        np.testing.assert_array_equal(out, expected, strict=True)
        np.testing.assert_array_equal(jitted(events(spike)), expected, strict=True)
    operator, named = getattr(hebbax, f"{spec.name}_p"), {spec.public_name(name): x for name, x in given.items()}
    out = operator(**named | {spec.public_name("spike"): events(given["spike"])}, shape=SHAPE, backend=backend)
    np.testing.assert_array_equal(out, expected, strict=True)
    assert np.unique(out).size > 3


def test_events_of_an_update_in_csc_order(given_of, events):
    for spec in CSC_SPECS:
        given = given_of(spec)
        out = call(spec, given | {"spike": events(given["spike"])}, shape=SHAPE)
        np.testing.assert_array_equal(out, call(spec, given, shape=SHAPE))
        assert not np.array_equal(out, given["weight"])


def test_events_in_place(spec, given_of, events):
    given = given_of(spec)
    function = getattr(hebbax.inplace, spec.name)

    def run(spike):
        x = given | {"weight": given["weight"].copy(), "spike": spike}
        return function(**{spec.public_name(name): value for name, value in x.items()}, shape=SHAPE)

    np.testing.assert_array_equal(run(events(given["spike"])), run(given["spike"]))


def test_a_batch_of_events(spec, given_of, events):
    given = given_of(spec)
    spikes = np.stack([np.roll(given["spike"], k) for k in range(3)])
    out = jax.vmap(lambda spike: call(spec, given | {"spike": spike}, shape=SHAPE))(events(jnp.asarray(spikes)))
    for k in range(3):
        np.testing.assert_array_equal(out[k], call(spec, given | {"spike": spikes[k]}, shape=SHAPE))
    assert not np.array_equal(out[0], out[1])
    with pytest.raises(hebbax.ShapeError, match=rf"^{spec.public_name('spike')}: got shape \(3, \d\), .*jax\.vmap"):
        call(spec, given | {"spike": events(spikes)}, shape=SHAPE)


def test_floating_events_have_a_derivative(propagate, given_of, events):
    given = given_of(propagate)
    spike = jnp.asarray(given["spike"], jnp.float32)

    def loss(spike):
        return (call(propagate, given | {"spike": spike}, shape=SHAPE) ** 2).sum()

    out, expected = jax.grad(loss)(events(spike)), jax.grad(loss)(spike)
    assert type(out) is events
    np.testing.assert_array_equal(out.value, expected)
    assert np.any(expected != 0)


RULES = [
    hebbax.PairSTDP(20.0, 20.0, 0.1, 0.05, 0.0, 2.0),
    hebbax.TripletSTDP(17.0, 34.0, 100.0, 100.0, 0.1, 0.1, 0.1, 0.1, 0.0, 2.0),
    hebbax.InhibitorySTDP(20.0, 0.1, 0.01, 0.0, 2.0),
    hebbax.PowerLawSTDP(20.0, 20.0, 0.1, 0.1, 1.0),
    hebbax.DiehlCookSTDP(20.0, 0.1, 0.4, 0.0, 2.0),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("how", ["Synapses", "DelayedSynapses", "ShardedSynapses"])
def test_rules_and_structures_take_events(rule, how, synapses, events):
    """Two steps, so that the traces count, and what is summed."""

    def run(wrap):
        traces, weight, of_some = rule.init(synapses), jnp.ones(5), synapses
        spikes = [wrap(jnp.array(x)) for x in ([True, False, True], [False, True, True, False])]
        if how == "DelayedSynapses":
            of_some = hebbax.delays.DelayedSynapses(synapses, 1.0, axonal=1.0)
            state = of_some.init(weight, rule)
        if how == "ShardedSynapses":
            of_some = hebbax.sharding.split(synapses, Mesh(jax.devices()[:1], ("devices",)))
        for _ in range(2):
            if how == "DelayedSynapses":
                state = of_some.push(state, *spikes)
                current, state = of_some.propagate(weight, state)
                weight, traces, state = of_some.step(rule, weight, traces, state, *spikes)
            else:
                current = of_some.propagate_on_pre(weight, spikes[0]), of_some.propagate_on_post(weight, spikes[1])
                weight, traces = rule.step(of_some, weight, traces, *spikes, 1.0)
        return weight, traces, current

    out, expected = run(events), run(lambda x: x)
    jax.tree.map(np.testing.assert_array_equal, out, expected)
    assert np.any(expected[0] != 1) and all(np.any(x != 0) for x in jax.tree.leaves(expected[2]))


def test_a_ring_takes_events(events):
    spike = jnp.array([True, False])
    ring = hebbax.delays.Ring.of(events(spike), 1.0, dt=1.0)
    ring, _ = ring.push(events(spike))
    _, arriving = ring.push(events(~spike))
    np.testing.assert_array_equal(arriving, spike, strict=True)


# -- what is refused


def test_what_holds_an_array_is_refused(spec, given_of, holder):
    make, what = holder
    given = given_of(spec) | {"gain": jnp.float32(2)}
    for name in given.keys() - {"indices", "indptr", "weight_indices"}:
        public, wrong = spec.public_name(name), {name: make(jnp.asarray(given[name]))}
        named = {spec.public_name(other): x for other, x in (given | wrong).items()}
        for module in (hebbax, hebbax.inplace):
            with refuses(public, what):
                getattr(module, spec.name)(**named, shape=SHAPE)
        with refuses(public, what):
            getattr(hebbax, f"{spec.name}_p")(**named, shape=SHAPE)
    waited_for = make(jnp.ones(2))
    if spec.kind == "update" and jax.tree.leaves(waited_for)[0] is waited_for:  # no pytree, as those of brainpy
        with refuses("after", what):
            call(spec, given | {"after": waited_for}, shape=SHAPE)


def test_rules_and_structures_refuse_it(synapses, holder):
    make, what = holder
    weight, spikes = jnp.ones(5), (jnp.ones(3, bool), jnp.ones(4, bool))
    for rule in RULES:
        traces = rule.init(synapses)
        with refuses("weight", what):
            rule.step(synapses, make(weight), traces, *spikes, 1.0)
        with refuses("pre_spike", what):
            rule.step(synapses, weight, traces, make(spikes[0]), spikes[1], 1.0)
        name = traces._fields[-1]
        with refuses(rf"state\.{name}", what):
            rule.step(synapses, weight, traces._replace(**{name: make(jnp.zeros(4))}), *spikes, 1.0)
    with refuses("weight", what):  # before its unit is compared with those of parameters
        hebbax.PairSTDP(20.0, 20.0, 0.1 * u.nS, 0.1 * u.nS, 0.0 * u.nS, 2.0 * u.nS).step(
            synapses, make(weight), RULES[0].init(synapses), *spikes, 1.0
        )
    with refuses("tau_plus", what):
        hebbax.PairSTDP(make(jnp.float32(20)), 20.0, 0.1, 0.1, 0.0, 1.0)
    for function in (synapses.todense, synapses.to_scipy):
        with refuses("weight", what):
            function(make(weight))
    with refuses("weight", what):
        hebbax.Synapses.from_coo([0], [0], make(weight[:1]), shape=(1, 1))
    with refuses("x", what):
        hebbax.delays.Ring.of(spikes[0], 1.0, dt=1.0).push(make(spikes[0]))
    delayed = hebbax.delays.DelayedSynapses(synapses, 1.0, axonal=1.0)
    with refuses("post_spike", what):
        delayed.push(delayed.init(weight), spikes[0], make(spikes[1]))
    with refuses("weight", what):
        delayed.propagate(make(weight), delayed.init(weight))
    sharded = hebbax.sharding.split(synapses, Mesh(jax.devices()[:1], ("devices",)))
    with refuses("weight", what):
        sharded.split_weight(make(weight))
    with refuses("pre_spike", what):
        sharded.propagate_on_pre(weight, make(spikes[0]))


def test_only_spikes_may_be_events(spec, given_of, events):
    given = given_of(spec)
    for name in given.keys() - {"indices", "indptr", "weight_indices", "spike"}:
        with refuses(spec.public_name(name), events.__name__):
            call(spec, given | {name: events(jnp.asarray(given[name]))}, shape=SHAPE)


def test_weighted_events_are_refused(spec, given_of):
    """Their values, which brainevent multiplies by, would be lost."""
    given = given_of(spec)
    for cls in WEIGHTED:
        with pytest.raises(TypeError, match=rf"^{spec.public_name('spike')}: got a WeightedArray, .*\.value as gain$"):
            call(spec, given | {"spike": cls(jnp.asarray(given["spike"]))}, shape=SHAPE)


def test_what_has_a_value_that_is_no_array_is_said(propagate, given_of):
    with pytest.raises(TypeError, match=rf"^{propagate.public_name('spike')}: got str, expected an array"):
        call(propagate, given_of(propagate) | {"spike": Events("spikes")}, shape=SHAPE)


@pytest.mark.parametrize(("cls", "what"), HOLDERS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_structure_from_what_holds_an_array_is_refused_too(cls, what):
    message = f"indices: got {what}, expected its array: pass .value"
    with pytest.raises(TypeError, match=re.escape(message)):
        hebbax.Synapses(np.array([0, 1]), cls(np.array([0])), shape=(1, 1))
