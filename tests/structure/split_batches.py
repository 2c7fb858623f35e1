"""What test_split_batches.py runs in a process of its own, in which JAX has four virtual CPU devices.

Each device is to call a kernel for its own members, and to be sent no weights.
"""

import re

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import hebbax
from hebbax._core.sent import pack
from hebbax.delays import DelayedSynapses
from hlo import at_least
from problems import call, operands, random_network

pytestmark = pytest.mark.together(1)
SHAPE, NSE, MEMBERS = (23, 17), 130, 8
COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
OURS = [export.DisabledSafetyCheck.custom_call(f"hebbax_{name}") for name in ("update", "propagate", "collect")]


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == 4
    return Mesh(jax.devices(), ("devices",))


@pytest.fixture
def problem(rng):
    """`problem(spec)`: operands that all members share, and such as each has its own of, with options."""
    network = random_network(rng, SHAPE, NSE)

    def make(spec, plain=False):
        shared, own = network.structure(spec), []
        for _ in range(MEMBERS):
            given = operands(spec, rng, network)
            given |= {} if plain else {"gain": rng.integers(1, 16, given["spike"].size).astype(np.float32) / 8}
            if spec.kind == "update" and not plain:
                given |= {"w_min": np.float32(-1), "w_max": rng.uniform(0, 2, NSE).astype(np.float32)}
            own.append({name: x for name, x in given.items() if name not in shared})
        batch = {name: np.stack([x[name] for x in own]) for name in own[0]}
        return shared, batch, {} if plain or spec.kind != "update" else {"soft_bound": "upper", "mu": 0.5}

    return make


def vectorized(spec, shared, **options):
    return jax.vmap(lambda own: call(spec, shared | own, shape=SHAPE, **options))


def put(batch, mesh, *axes):
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(*axes))), batch)


def compiled_text(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def sent(text, smallest=0):
    """Collective operations, and what of that size or more they have as results."""
    return at_least(text, smallest, *COLLECTIVES.split("|"))


def calls(text, kind):
    """The batch, in dimensions, that each call of a kernel has as its result, in alphabetical order."""
    found = re.findall(rf'= \w+\[([\d,]+)\]\S* custom-call\([^\n]*custom_call_target="hebbax_{kind}"', text)
    return sorted({tuple(int(n) for n in x.split(",")[:-1]) for x in found})


def same(out, expected):
    for x, y in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


# -- operators


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "all operands"])
def test_each_device_runs_its_own_members(spec, plain, problem, mesh):
    shared, batch, options = problem(spec, plain)
    function, split = vectorized(spec, shared, **options), put(batch, mesh, "devices")
    text = compiled_text(function, split)
    assert calls(text, spec.kind) == [(MEMBERS // 4,)] and sent(text) == []
    out, expected = jax.jit(function)(split), function(batch)
    same(out, expected)
    assert out.sharding.is_equivalent_to(NamedSharding(mesh, P("devices")), 2)
    assert not np.array_equal(expected[0], expected[1])


def test_operands_that_the_members_share(spec, problem, mesh):
    """Whichever has the batch: the weights alone, or all but the weights, which are not sent then either."""
    shared, batch, options = problem(spec)
    for names in ({"weight"}, batch.keys() - {"weight"}):
        own = {name: x for name, x in batch.items() if name in names}
        rest = shared | {name: x[0] for name, x in batch.items() if name not in names}
        function = vectorized(spec, rest, **options)
        text = compiled_text(function, put(own, mesh, "devices"))
        assert calls(text, spec.kind) == [(MEMBERS // 4,)] and sent(text) == []
        same(jax.jit(function)(put(own, mesh, "devices")), function(own))


def test_operands_that_are_not_split_alike(spec, problem, mesh):
    """The weights are, and stay where they are; neurons' arrays are whole on every device, or split by neurons."""
    shared, batch, options = problem(spec, plain=True)
    function, weight = vectorized(spec, shared, **options), put(batch["weight"], mesh, "devices")
    given = batch | {"weight": weight}
    text = compiled_text(function, given)
    assert calls(text, spec.kind) == [(MEMBERS // 4,)] and sent(text) == []
    same(jax.jit(function)(given), function(batch))
    padded = {name: np.pad(x, [(0, 0), (0, -x.shape[1] % 4)]) for name, x in batch.items() if name != "weight"}

    def of_padded(weight, padded):
        return function({"weight": weight} | {name: x[:, : batch[name].shape[1]] for name, x in padded.items()})

    split = weight, put(padded, mesh, None, "devices")
    assert sent(compiled_text(of_padded, *split), MEMBERS // 4 * NSE) == []
    same(jax.jit(of_padded)(*split), function(batch))


@pytest.mark.parametrize("how", ["weight", "structure", "both"])
def test_what_is_split_otherwise_is_gathered_and_right(spec, how, rng, problem, mesh):
    network = random_network(rng, SHAPE, 128)
    shared = network.structure(spec)
    batch = np.float32(rng.uniform(-2, 2, (MEMBERS, 128)))
    given = {name: x for name, x in operands(spec, rng, network).items() if name not in (*shared, "weight")}
    function = jax.vmap(lambda w, x: call(spec, x | given | {"weight": w}, shape=SHAPE), (0, None))
    by_synapse = P(None, "devices") if how != "structure" else P("devices")
    split = {name: put(x, mesh, "devices") if len(x) % 4 == 0 else x for name, x in shared.items()}
    structure = shared if how == "weight" else split
    same(jax.jit(function)(jax.device_put(batch, NamedSharding(mesh, by_synapse)), structure), function(batch, shared))


@pytest.mark.parametrize("axes", [("x",), ("y",), (("x", "y"),), (("y", "x"),)], ids=str)
def test_a_mesh_of_two_axes(spec, axes, problem, mesh):
    """Over one of which the batch is split, and whole along the other, or split over both."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
    shared, batch, options = problem(spec)
    function, split = vectorized(spec, shared, **options), put(batch, mesh, *axes)
    text = compiled_text(function, split)
    assert calls(text, spec.kind) == [(MEMBERS // (2 if isinstance(axes[0], str) else 4),)] and sent(text) == []
    same(jax.jit(function)(split), function(batch))


def test_a_batch_of_batches(spec, problem):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
    shared, batch, options = problem(spec)
    batch = {name: x.reshape(2, 4, *x.shape[1:]) for name, x in batch.items()}
    once = vectorized(spec, shared, **options)
    expected = jax.vmap(once)(batch)
    for axes, parts in ((("x", "y"), (1, 2)), (("y",), (1, 4)), ((None, ("x", "y")), (2, 1))):
        text = compiled_text(jax.vmap(once), put(batch, mesh, *axes))
        assert calls(text, spec.kind) == [parts] and sent(text) == []
        same(jax.jit(jax.vmap(once))(put(batch, mesh, *axes)), expected)
    outer = {name: x[:, 0] if name in ("spike", "gain") else x for name, x in batch.items()}  # have one dimension less
    inner = {name: None if name in ("spike", "gain") else 0 for name in batch}
    some = jax.vmap(jax.vmap(lambda own: call(spec, shared | own, shape=SHAPE, **options), (inner,)))
    split = {name: put(x, mesh, *("x", "y")[: x.ndim - 1]) for name, x in outer.items()}
    text = compiled_text(some, split)
    assert calls(text, spec.kind) == [(1, 2)] and sent(text) == []
    same(jax.jit(some)(split), some(outer))


def test_members_that_do_not_share_out_evenly(spec, problem, mesh):
    shared, batch, options = problem(spec)
    batch = {name: x[:6] for name, x in batch.items()}
    function, over_devices = vectorized(spec, shared, **options), NamedSharding(mesh, P("devices"))

    def uneven(batch):
        return function(jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, over_devices), batch))

    same(jax.jit(uneven)(batch), function(batch))


@pytest.mark.parametrize("whole", ["given", "wanted"])
def test_results_that_are_wanted_elsewhere(spec, whole, problem, mesh):
    shared, batch, options = problem(spec)
    split, everywhere = NamedSharding(mesh, P("devices")), NamedSharding(mesh, P())
    function = vectorized(spec, shared, **options)
    given, wanted = (everywhere, split) if whole == "given" else (split, everywhere)
    out = jax.jit(function, in_shardings=given, out_shardings=wanted)(batch)
    assert out.sharding.is_equivalent_to(wanted, 2)
    same(out, function(batch))


def test_derivatives(spec, problem, mesh):
    """With respect to all that a member has."""
    shared, batch, options = problem(spec)
    spikes = {"spike": batch.pop("spike")}

    def loss(own, spike):
        return (call(spec, shared | own | spike, shape=SHAPE, **options) ** 2).sum()

    function = jax.vmap(jax.value_and_grad(loss))
    split = put((batch, spikes), mesh, "devices")
    text = compiled_text(function, *split)
    kinds = [kind for kind in ("update", "propagate", "collect") if calls(text, kind)]
    assert len(kinds) >= 2 and all(calls(text, kind) == [(MEMBERS // 4,)] for kind in kinds) and sent(text) == []
    for x, y in zip(*map(jax.tree.leaves, (jax.jit(function)(*split), function(batch, spikes))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_derivatives_of_derivatives(update, problem, mesh):
    shared, batch, _ = problem(update, plain=True)

    def change(own):
        def loss(trace):
            return (call(update, shared | own | {"trace": trace}, shape=SHAPE) ** 2).sum()

        return jax.jvp(jax.grad(loss), (own["trace"],), (jnp.ones_like(own["trace"]),))[1]

    text = compiled_text(jax.vmap(change), put(batch, mesh, "devices"))
    assert sent(text) == [] and calls(text, "propagate") == [(MEMBERS // 4,)]
    out, expected = jax.jit(jax.vmap(change))(put(batch, mesh, "devices")), jax.vmap(change)(batch)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_other_backends_give_the_same(spec, kernel, problem, mesh):
    shared, batch, options = problem(spec)
    function = vectorized(spec, shared, backend=kernel, **options)
    same(jax.jit(function)(put(batch, mesh, "devices")), function(batch))


# -- in programs


@pytest.mark.parametrize("loop", [False, True])
def test_weights_stay_in_place(update, loop, problem, mesh):
    """Donated, and in a loop that another one follows: nowhere is a copy of a device's weights."""
    shared, batch, _ = problem(update, plain=True)

    def learn(weight, trace, spike):
        def step(weight, _):
            own = {"weight": weight, "trace": trace, "spike": spike}
            return vectorized(update, shared)(own), None

        return jax.lax.scan(step, weight, None, length=3)[0] if loop else step(weight, None)[0]

    split = put(batch, mesh, "devices")
    compiled = jax.jit(learn, donate_argnums=0).lower(split["weight"], split["trace"], split["spike"]).compile()
    size = MEMBERS // 4 * NSE
    assert at_least(compiled.as_text(), size, "copy") == [] and sent(compiled.as_text()) == []
    assert calls(compiled.as_text(), "update") == [(MEMBERS // 4,)]
    expected = learn(batch["weight"], batch["trace"], batch["spike"])
    weight = split["weight"] + 0  # which is JAX's own, as what is put may not be
    before = {x.device: x.data.unsafe_buffer_pointer() for x in weight.addressable_shards}
    out = compiled(weight, split["trace"], split["spike"])
    assert {x.device: x.data.unsafe_buffer_pointer() for x in out.addressable_shards} == before
    same(out, expected)


@pytest.mark.parametrize("listed", [False, True])
def test_a_rule(rng, mesh, listed):
    """A step of propagate and both updates, none of which waits for what another device has, of spikes in lists too."""
    synapses = hebbax.Synapses.random(SHAPE, prob=0.3, seed=1)
    rule = hebbax.PairSTDP(20 * u.ms, 20 * u.ms, 0.1, 0.1, 0.0, 1.0)
    weight = np.float32(rng.uniform(0, 1, (MEMBERS, synapses.nse)))
    pre, post = (rng.random((MEMBERS, 10, n)) < 0.3 for n in SHAPE)
    if listed:
        pre = jax.vmap(lambda x: pack(x, x.size))(pre)

    def learn(weight, pre, post):
        def step(state, spikes):
            weight, traces, voltage, pre = state
            k, post_spike = spikes
            pre = pre.at(k) if listed else pre
            pre_spike = pre if listed else pre[k]
            current = synapses.propagate_on_pre(weight, pre_spike)
            voltage = hebbax.fence(0.9 * voltage + current)
            post_spike |= voltage > 2
            weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, 1 * u.ms, after=current)
            return (weight, traces, voltage, pre), current

        state = weight, rule.init(synapses, at_events=listed), jnp.zeros(SHAPE[1]), pre
        return jax.lax.scan(step, state, (jnp.arange(10), post))

    split = put((weight, pre, post), mesh, "devices")
    text = compiled_text(jax.vmap(learn), *split)
    assert sent(text) == []
    assert calls(text, "update") == calls(text, "propagate") == [(MEMBERS // 4,)]
    assert calls(text, "fade") == [(MEMBERS // 4,)] * listed
    same(jax.jit(jax.vmap(learn))(*split), jax.jit(jax.vmap(learn))(weight, pre, post))


def test_delays(rng, mesh):
    """Lists of spikes on their way, and sums of currents, are written in place by each device."""
    synapses, dt = hebbax.Synapses.random(SHAPE, prob=0.3, seed=1), 1.0 * u.ms
    axonal, dendritic = (rng.integers(0, x, synapses.nse) for x in (5, 4))
    delayed = DelayedSynapses(synapses, dt, axonal=axonal * dt, dendritic=dendritic * dt)
    rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.1, 0.0, 1.0)
    spikes = tuple(rng.random((MEMBERS, 12, n)) < 0.2 for n in SHAPE)
    weight = np.float32(rng.uniform(0, 1, (MEMBERS, synapses.nse)))

    def learn(weight, *spikes):
        def step(carry, spikes):
            weight, traces, state = carry
            state = delayed.push(state, *spikes)
            current, state = delayed.propagate(weight, state)
            return delayed.step(rule, weight, traces, state, *spikes, after=current), current

        start = weight, rule.init(synapses), delayed.init(weight, rule)
        (weight, *_), currents = jax.lax.scan(step, start, spikes)
        return weight, currents

    split = put((weight, *spikes), mesh, "devices")
    text = compiled_text(jax.vmap(learn), *split)
    assert sent(text) == []
    for kind in ("update", "deliver", "record"):
        assert calls(text, kind) == [(MEMBERS // 4,)], kind
    expected, members = jax.jit(jax.vmap(learn))(weight, *spikes), P("devices")
    same(jax.jit(jax.vmap(learn))(*split), expected)
    mapped = jax.shard_map(jax.vmap(learn), mesh=mesh, in_specs=members, out_specs=members, check_vma=False)
    same(jax.jit(mapped)(weight, *spikes), expected)


def test_what_an_update_waits_for_stays_where_it_is(update, rng, problem, mesh):
    shared, batch, _ = problem(update, plain=True)
    seen = rng.normal(size=(8, 40)).astype(np.float32)

    def learn(own, seen):
        return jax.vmap(lambda own: call(update, shared | own, shape=SHAPE, after=seen))(own)

    split = put(batch, mesh, "devices")
    for axes in (("devices",), (None, "devices")):
        assert sent(compiled_text(learn, split, jax.device_put(seen, NamedSharding(mesh, P(*axes))))) == []
    together = jax.vmap(lambda own, seen: call(update, shared | own, shape=SHAPE, after=seen))
    text = compiled_text(together, split, put(seen, mesh, "devices"))
    assert sent(text) == [] and calls(text, "update") == [(2,)]
    same(jax.jit(together)(split, put(seen, mesh, "devices")), together(batch, seen))


# -- what is as it was


def test_fences_gather_nothing(mesh):
    x = np.arange(4.0 * MEMBERS, dtype=np.float32).reshape(MEMBERS, 4)
    function = jax.vmap(lambda x: hebbax.fence({"x": 2 * x})["x"] + 1)
    assert sent(compiled_text(function, put(x, mesh, "devices"))) == []
    same(jax.jit(function)(put(x, mesh, "devices")), 2 * x + 1)


def test_shard_map_around_vmap(spec, problem, mesh):
    shared, batch, options = problem(spec)
    function = vectorized(spec, shared, **options)
    own = jax.shard_map(function, mesh=mesh, in_specs=P("devices"), out_specs=P("devices"), check_vma=False)
    text = compiled_text(own, put(batch, mesh, "devices"))
    assert calls(text, spec.kind) == [(MEMBERS // 4,)] and sent(text) == []
    same(jax.jit(own)(put(batch, mesh, "devices")), function(batch))


def test_networks_that_are_split_themselves(rng):
    """Over another axis than the members, which `vmap` has to be told."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("members", "neurons"))
    synapses = hebbax.Synapses.random(SHAPE, prob=0.3, seed=1)
    sharded = hebbax.sharding.split(synapses, mesh, "neurons")
    weight = np.float32(rng.uniform(0, 1, (MEMBERS, synapses.nse)))
    pre, trace = rng.random(SHAPE[0]) < 0.5, np.float32(rng.uniform(-1, 1, SHAPE[1]))
    given = sharded.split_pre(pre, replicated=True), sharded.split_post(trace)
    split = put(sharded.split_weight(weight), mesh, "members", "neurons")

    def update(weight):
        return sharded.update_on_pre(weight, *given, 0.0, 1.0)

    expected = jax.vmap(lambda weight: synapses.update_on_pre(weight, pre, trace, 0.0, 1.0))(weight)
    for options, batch in (({}, MEMBERS), ({"spmd_axis_name": "members"}, MEMBERS // 2)):
        function = jax.vmap(update, **options)
        text = compiled_text(function, split)
        assert calls(text, "update") == [(batch,)] and bool(sent(text)) == (batch == MEMBERS)
        same(sharded.join_weight(jax.jit(function)(split)), expected)


def test_explicit_axes(spec, problem):
    mesh = Mesh(jax.devices(), ("devices",), axis_types=(jax.sharding.AxisType.Explicit,))
    shared, batch, options = problem(spec)
    function, split = vectorized(spec, shared, **options), put(batch, mesh, "devices")
    text = compiled_text(function, split)
    assert calls(text, spec.kind) == [(MEMBERS // 4,)] and sent(text) == []
    same(jax.jit(function)(split), function(batch))


def test_two_meshes_in_a_program(update, problem, mesh):
    """Of different shapes, over the same devices."""
    shared, batch, options = problem(update)
    function = vectorized(update, shared, **options)
    square = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
    split = put(batch, mesh, "devices") | {"weight": put(batch["weight"], square, ("x", "y"))}
    text = compiled_text(function, split)
    assert calls(text, "update") == [(MEMBERS // 4,)] and sent(text) == []
    same(jax.jit(function)(split), function(batch))


def test_a_program_for_several_devices_is_exported(spec, problem, mesh):
    """Whole members on every device: what JAX saves cannot take along what splits them."""
    shared, batch, options = problem(spec)
    function, split = jax.jit(vectorized(spec, shared, **options)), put(batch, mesh, "devices")
    exported = export.export(function, platforms=["cpu"], disabled_checks=OURS)(split)
    again = export.deserialize(exported.serialize())
    same(jax.jit(again.call)(split), function(batch))
    if hasattr(jax.sharding, "AbstractMesh"):
        abstract = NamedSharding(mesh.abstract_mesh, P("devices"))
        given = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=abstract) for name, x in split.items()}
        assert export.export(function, platforms=["cpu"], disabled_checks=OURS)(given).nr_devices == 4
