"""What test_sharding.py runs in processes of their own: in each, JAX has four virtual CPU devices."""

import dataclasses
import functools
import re
import warnings

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import hebbax
import oracle
from hebbax import sharding
from hebbax._core.compat import shard_map
from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, UPDATE_PRE
from problems import DEGREES, DTYPES, SPECS, UPDATES, enable_x64, random_network

pytestmark = [pytest.mark.together(1), pytest.mark.optimised]
SHARDS = 4


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() == SHARDS
    return Mesh(jax.devices(), ("devices",))


def network(rng, shape, nse, degrees="even"):
    """In which some pairs of neurons have several synapses."""
    drawn = random_network(rng, shape, nse, degrees=degrees)
    weight = np.zeros(drawn.nse, np.float32)
    return hebbax.Synapses.from_coo(drawn.pre, drawn.post, weight, shape=shape, multapses=True)[0]


def make_operands(spec, rng, synapses, dtype=np.float32, unit=None):
    """Arguments of `Synapses`' method by the names of `_core.specs`, on one device."""
    n_event, n_other = spec.sizes(synapses.shape)
    given = {"weight": rng.uniform(-2, 2, synapses.nse).astype(dtype), "spike": rng.random(n_event) < 0.5}
    if spec.kind == "update":
        given["trace"] = rng.uniform(-2, 2, n_other).astype(np.float32)
    return {name: x if unit is None or name == "spike" else x * unit for name, x in given.items()}


def call(spec, synapses, given, **options):
    named = {spec.public_name(name): x for name, x in given.items()}
    return getattr(synapses, f"{spec.kind}_on_{spec.event}")(**named, **options)


def split_operands(spec, sharded, given):
    split_event = sharded.split_post if spec.event == "post" else sharded.split_pre
    whole = {"replicated": True} if spec.kind == "update" else {}
    split = {"weight": sharded.split_weight, "w_min": sharded.split_weight, "w_max": sharded.split_weight}
    if spec.event == "post":
        split |= {"spike": sharded.split_post, "gain": sharded.split_post}
        split |= {"trace": lambda x: sharded.split_pre(x, replicated=True)}
    else:
        split |= {"spike": lambda x: split_event(x, **whole), "gain": lambda x: split_event(x, replicated=True)}
        split |= {"trace": sharded.split_post}
    return {name: split[name](x) if np.ndim(x) else x for name, x in given.items()}


def join(spec, sharded, out):
    if spec.kind == "update":
        return sharded.join_weight(out)
    return sharded.join_post(out) if spec is PROPAGATE_PRE else sharded.join_pre(out)


def check(spec, synapses, sharded, given, **options):
    """The same bits as on one device; for sums over devices, the same but for roundings."""
    expected = call(spec, synapses, given, **options)
    out = join(spec, sharded, call(spec, sharded, split_operands(spec, sharded, given), **options))
    assert u.get_unit(out) == u.get_unit(expected)
    out, expected = u.get_mantissa(out), u.get_mantissa(expected)
    if spec is PROPAGATE_POST:
        oracle.assert_close(out, expected)
    else:
        np.testing.assert_array_equal(out, expected, strict=True)
    return np.asarray(out)


# -- operators


@pytest.mark.parametrize("shape", [(41, 23), (37, 37)], ids=str)
@pytest.mark.parametrize("degrees", DEGREES)
def test_values_of_uneven_networks(spec, degrees, shape, rng, mesh):
    synapses = network(rng, shape, 300, degrees)
    sharded = sharding.split(synapses, mesh, recurrent=shape == (37, 37))
    out = check(spec, synapses, sharded, make_operands(spec, rng, synapses))
    assert np.unique(out).size > 5


@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (0, 5), (5, 0), (0, 0), (2, 9)], ids=str)
@pytest.mark.parametrize("nse", [0, 12])
def test_networks_smaller_than_the_mesh(spec, shape, nse, rng, mesh):
    synapses = network(rng, shape, nse)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(spec, rng, synapses)
    given["spike"] = np.ones_like(given["spike"])
    check(spec, synapses, sharded, given)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(spec, dtype, rng, mesh):
    with enable_x64(dtype == "float64"):
        synapses = network(rng, (41, 23), 300)
        out = check(spec, synapses, sharding.split(synapses, mesh), make_operands(spec, rng, synapses, DTYPES[dtype]))
        assert str(out.dtype) == dtype


def test_units(spec, rng, mesh):
    synapses = network(rng, (41, 23), 300)
    given = make_operands(spec, rng, synapses, unit=u.nS)
    check(spec, synapses, sharding.split(synapses, mesh), given)
    if spec.kind == "update":
        given["trace"] = given["trace"].mantissa * u.mV
        with pytest.raises(u.UnitMismatchError, match=spec.public_name("trace")):
            check(spec, synapses, sharding.split(synapses, mesh), given)


@pytest.mark.parametrize("unit", [1, u.mV], ids=str)
def test_a_gain_of_sums(propagate, unit, rng, mesh):
    """One for all, and one for each, as an array that is split and as one that is not: nothing more is sent."""
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(propagate, rng, synapses, unit=None if unit == 1 else u.nS)
    without = call(propagate, synapses, given)
    for gain in (0.5, rng.uniform(-2, 2, given["spike"].size).astype(np.float32)):
        out = check(propagate, synapses, sharded, given | {"gain": gain * unit})
        assert not np.array_equal(out, u.get_mantissa(without))
    split = split_operands(propagate, sharded, given)
    whole = split_operands(propagate, sharded, {"gain": gain})["gain"]
    function = lambda gain: u.get_mantissa(call(propagate, sharded, split | {"gain": gain}))  # noqa: E731
    assert collectives(function, whole) == ["all-gather" if propagate is PROPAGATE_PRE else "all-reduce"]
    if propagate is PROPAGATE_PRE:
        np.testing.assert_array_equal(function(sharded.split_pre(gain)), function(whole))


@pytest.mark.parametrize("weight", [0.1, np.full(1, 0.1, np.float16), 0.1 * u.nS, jnp.full(1, 0.1) * u.nS], ids=str)
def test_a_weight_that_all_synapses_share(propagate, weight, rng, mesh):
    """It is whole on every device, whatever it is, and its derivative one number."""
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(propagate, rng, synapses) | {"weight": weight}
    split = split_operands(propagate, sharded, {"spike": given["spike"]})
    out = call(propagate, sharded, split | {"weight": weight})
    expected = call(propagate, synapses, given)
    assert u.get_unit(out) == u.get_unit(expected) and out.dtype == expected.dtype
    out, expected = (u.get_mantissa(x) for x in (join(propagate, sharded, out), expected))
    check_sums = oracle.assert_close if propagate is PROPAGATE_POST else np.testing.assert_array_equal
    check_sums(out, expected)
    assert np.unique(out).size > 5

    def loss(synapses, given, weight):
        return (u.get_mantissa(call(propagate, synapses, given | {"weight": weight})) ** 2).sum()

    number = jnp.asarray(u.get_mantissa(weight), jnp.float32)
    expected = jax.grad(lambda weight: loss(synapses, given, weight))(number)
    for derivative in (jax.grad, lambda f: jax.jit(jax.grad(f))):
        out = derivative(lambda weight: loss(sharded, split, weight))(number)
        np.testing.assert_allclose(out, expected, rtol=1e-5)
        assert out.shape == number.shape
    collective = ["all-gather" if propagate is PROPAGATE_PRE else "all-reduce"]
    assert collectives(lambda x: call(propagate, sharded, split | {"weight": x}), number) == collective
    with pytest.raises(hebbax.ShapeError, match=r"weight: got shape \(2,\)"):
        call(propagate, sharded, split | {"weight": np.ones(2)})


def test_an_update_wants_a_weight_for_each(update, rng, mesh):
    sharded = sharding.split(network(rng, (41, 23), 300), mesh)
    given = make_operands(update, rng, network(rng, (41, 23), 300)) | {"weight": np.ones(1)}
    with pytest.raises(hebbax.ShapeError, match=r"weight: got shape \(1,\), expected \(\d+,\), as split"):
        call(update, sharded, given)


@pytest.mark.parametrize("arrays", [False, True])
def test_bounds_gain_and_options(update, arrays, rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(update, rng, synapses)
    n = given["spike"].size
    if arrays:
        given |= {"w_min": rng.uniform(-1.5, 0, synapses.nse).astype(np.float32), "w_max": np.float32(1.0)}
        given |= {"gain": rng.uniform(-2, 2, n).astype(np.float32)}
    else:
        given |= {"w_min": -1.0, "w_max": rng.uniform(0.5, 1, synapses.nse).astype(np.float32), "gain": 0.5}
    check(update, synapses, sharded, given)
    given["weight"] = np.clip(given["weight"], -0.0, 0.5)
    check(update, synapses, sharded, given, weight_in_bounds=True, soft_bound="upper", mu=0.5, backend="jax")
    check(update, synapses, sharded, given, weight_in_bounds=True, after=[np.zeros(7), {"more": (np.float32(1), None)}])


def test_what_is_padded_has_no_effect(spec, rng, mesh):
    """Not even if all of it spikes, with traces and weights that are no numbers."""
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(spec, rng, synapses)
    clean, split = split_operands(spec, sharded, given), {}
    for name, x in split_operands(spec, sharded, {name: np.ones_like(x) for name, x in given.items()}).items():
        split[name] = jnp.where(x != 0, clean[name], True if name == "spike" else np.nan)
    assert any(np.isnan(x).any() for x in split.values())
    out, expected = (join(spec, sharded, call(spec, sharded, x)) for x in (split, clean))
    np.testing.assert_array_equal(out, expected)
    assert np.isfinite(expected).all()


def test_one_axis_of_several(spec, rng):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("model", "network"))
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh, "network")
    assert sharded.shards == 2
    check(spec, synapses, sharded, make_operands(spec, rng, synapses))


def test_explicit_axes(spec, rng):
    mesh = Mesh(jax.devices(), ("devices",), axis_types=(jax.sharding.AxisType.Explicit,))
    synapses = network(rng, (41, 23), 300)
    sharded, given = sharding.split(synapses, mesh), make_operands(spec, rng, synapses)
    check(spec, synapses, sharded, given)
    split = split_operands(spec, sharded, given)
    elsewhere = jax.tree.map(lambda x: x if np.ndim(x) == 0 else np.asarray(x), split)  # not split, so moved first
    np.testing.assert_array_equal(call(spec, sharded, elsewhere), call(spec, sharded, split))
    if not hasattr(jax, "set_mesh"):
        return

    def loss(synapses, given, weight):
        return (call(spec, synapses, given | {"weight": weight}) ** 2).sum()

    expected = jax.grad(lambda w: loss(synapses, given, w))(given["weight"])
    with jax.set_mesh(mesh):
        out = jax.jit(jax.grad(lambda w: loss(sharded, split, w)))(split["weight"])
    np.testing.assert_allclose(sharded.join_weight(out), expected, rtol=2e-5, atol=1e-5)


# -- arrays


def test_arrays_go_to_the_devices_and_back(rng, mesh):
    synapses = network(rng, (41, 23), 300, "hub")
    sharded = sharding.split(synapses, mesh)
    ways = {
        synapses.nse: (sharded.split_weight, sharded.join_weight),
        synapses.n_post: (sharded.split_post, sharded.join_post),
        synapses.n_pre: (sharded.split_pre, sharded.join_pre),
    }
    for n, (split, join) in ways.items():
        for shape in ((n,), (3, n)):
            for x in (rng.normal(size=shape).astype(np.float32), rng.random(shape) < 0.5, np.arange(n)):
                out = split(x)
                assert len(out.addressable_shards) == SHARDS
                assert all(part.data.shape[-1] == out.shape[-1] // SHARDS for part in out.addressable_shards)
                np.testing.assert_array_equal(join(out), x)
        x = rng.normal(size=n).astype(np.float32) * u.mV
        assert join(split(x)).unit == u.mV
        np.testing.assert_array_equal(join(split(x)).mantissa, x.mantissa)


def test_a_device_holds_its_own_columns_only(rng, mesh):
    synapses = network(rng, (41, 23), 300, "lognormal")
    sharded = sharding.split(synapses, mesh)
    dense = np.asarray(synapses.todense(jnp.arange(1.0, synapses.nse + 1)))
    weight = sharded.split_weight(jnp.arange(1.0, synapses.nse + 1))
    for k, device in enumerate(mesh.devices):
        one = jax.tree.map(
            lambda x, device=device: next(s.data for s in x.addressable_shards if s.device == device), (sharded, weight)
        )
        starts = sharded.post.starts
        local = one[0].local()
        assert isinstance(local, hebbax.Synapses)
        assert sorted(np.asarray(local.weight_indices)) == list(range(local.nse))
        columns = dense[:, starts[k] : starts[k + 1]]
        sums = local.propagate_on_post(one[1], np.ones(local.n_post, bool))
        np.testing.assert_array_equal(sums[:41], columns.sum(1))
        np.testing.assert_array_equal(
            local.propagate_on_pre(one[1], np.ones(local.n_pre, bool))[: columns.shape[1]], columns.sum(0)
        )


def test_populations_share_a_layout(rng, mesh):
    """Two kinds of synapses onto the same neurons, from these neurons and from others."""
    within, onto = network(rng, (37, 37), 300), network(rng, (41, 37), 300, "Pareto")
    first = sharding.split(within, mesh, recurrent=True)
    second = sharding.split(onto, mesh, post=first.post)
    assert first.pre == first.post == second.post != sharding.split(onto, mesh).post
    for spec in SPECS:
        check(spec, onto, second, make_operands(spec, rng, onto))


def test_a_device_rewires_its_own_columns(rng, mesh):
    """As the part alone would be, also with the check of what varies over devices."""
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    weight = sharded.split_weight(rng.uniform(1, 2, synapses.nse).astype(np.float32))
    keep = rng.random(sharded.nse) < 0.6
    pre, post = (rng.integers(-1, n, size=SHARDS * 20) for n in (41, sharded.post.size))

    def renew(synapses, keep, pre, post, weight):
        out = hebbax.rewire_within(synapses, keep, pre, post, values=weight, new=3.0)
        sums = out.synapses.propagate_on_post(out.values, jnp.ones(synapses.n_post, bool))
        return out.values, out.synapses.weight_indices, out.added, out.dropped[None], sums

    arguments = sharded, keep, pre, post, weight
    run = shard_map(
        lambda sharded, *rest: renew(sharded.local(), *rest), mesh=mesh, in_specs=P("devices"), out_specs=P("devices")
    )
    together, added = jax.jit(run)(*arguments), 0
    for k in range(SHARDS):
        own = jax.tree.map(lambda x, k=k: np.asarray(x).reshape(SHARDS, -1)[k], (arguments, together))
        single = jax.jit(renew)(own[0][0].local(), *own[0][1:])
        for got, expected in zip(own[1], single, strict=True):
            np.testing.assert_array_equal(got, expected)
        added += single[2].sum()
    assert added > 20


def test_the_part_of_a_device_and_all_of_it_are_not_mixed_up(rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    with pytest.raises(TypeError, match=r"^local: got the synapses of all 4 shards, .* PartitionSpec\('devices'\)"):
        sharded.local()
    weight, spike = sharded.split_weight(np.ones(synapses.nse)), sharded.split_pre(np.ones(41, bool))
    part = jax.sharding.PartitionSpec("devices")
    inside = jax.shard_map(
        lambda s, w, x: s.propagate_on_pre(w, x), mesh=mesh, in_specs=part, out_specs=part, check_vma=False
    )
    with pytest.raises(TypeError, match=r"^propagate_on_pre: got the synapses of one shard, .* local\(\)"):
        inside(sharded, weight, spike)


# -- communication


def collectives(function, *arguments):
    """Every collective operation of the compiled program."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    names = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter|send|recv"
    return re.findall(rf" ({names})(?:-start)?\(", text)


def test_communication(spec, rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = split_operands(spec, sharded, make_operands(spec, rng, synapses))
    expected = {"update": []}.get(spec.kind, ["all-gather"] if spec is PROPAGATE_PRE else ["all-reduce"])
    assert collectives(lambda s, x: call(spec, s, x), sharded, given) == expected


def test_after_moves_no_result_of_ours(rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    for update in UPDATES:
        given = split_operands(update, sharded, make_operands(update, rng, synapses))
        for spec in (PROPAGATE_PRE, PROPAGATE_POST):
            x = split_operands(spec, sharded, make_operands(spec, rng, synapses))
            after = {"seen": [call(spec, sharded, x), None]}
            assert collectives(lambda s, x, y, f=update: call(f, s, x, after=y), sharded, given, after) == []


# -- simulations


@pytest.mark.parametrize("name", recurrent.RULES)
def test_a_recurrent_network_is_the_same_as_on_one_device(name, mesh):
    network = recurrent.make()
    rule = recurrent.RULES[name]
    recurrent.assert_same(recurrent.on_mesh(rule, *network, mesh), recurrent.on_one_device(rule, *network))


def test_rules_take_sharded_synapses(mesh):
    """Outside `shard_map`, where JAX moves what has to be moved."""
    synapses, weight, inputs = recurrent.make()
    rule = recurrent.RULES["pair"]
    expected = recurrent.on_one_device(rule, synapses, weight, inputs)
    sharded = sharding.split(synapses, mesh, recurrent=True)
    split = sharded, sharded.split_weight(weight), sharded.split_post(inputs)
    weight, traces, spikes = recurrent.on_one_device(rule, *split)
    joined = sharded.join_weight(weight), type(traces)(sharded.join_pre(traces.pre), sharded.join_post(traces.post))
    recurrent.assert_same((*joined, sharded.join_post(spikes)), expected)


@pytest.mark.parametrize("name", ["pair", "power law"])
def test_parameters_per_neuron_and_synapse_are_split_too(mesh, name):
    synapses, weight, inputs = recurrent.make()
    rng = np.random.default_rng(8)
    tau, up = (rng.uniform(10, 30, size).astype(np.float32) for size in ((37, 1), (1, 37)))
    plastic = rng.random(synapses.nse) < 0.7
    top = np.where(plastic, np.float32(2), weight.mantissa)
    changed = {
        "pair": {"tau_plus": tau * u.ms, "a_plus": up / 200 * u.mV, "w_max": top * u.mV},
        "power law": {"tau_plus": tau * u.ms, "learning_rate": up / 100},
    }[name]
    rule = dataclasses.replace(recurrent.RULES[name], **changed)
    expected = recurrent.on_one_device(rule, synapses, weight, inputs)
    sharded = sharding.split(synapses, mesh, recurrent=True)
    split = sharded, sharded.split_weight(weight), sharded.split_post(inputs)
    weight, traces, spikes = recurrent.on_one_device(sharded.split_rule(rule), *split)
    joined = sharded.join_weight(weight), type(traces)(sharded.join_pre(traces.pre), sharded.join_post(traces.post))
    recurrent.assert_same((*joined, sharded.join_post(spikes)), expected)


def test_what_is_not_of_pairs_of_spikes_alone_is_split_too(mesh):
    """The voltage rule, triplets with homeostasis, short-term plasticity and scaling, with parameters per neuron."""
    synapses, weight, _ = recurrent.make()
    rng, n, triplet = np.random.default_rng(9), synapses.n_post, recurrent.RULES["triplet"]
    sharded = sharding.split(synapses, mesh)
    several = rng.uniform(0.5, 1.5, n).astype(np.float32)
    voltage_rule = hebbax.ClopathSTDP(
        15 * u.ms, 10 * u.ms, 7 * several[None] * u.ms, -70 * u.mV, -45 * u.mV, several[:, None] * 1e-3, 1e-4 / u.mV,
        triplet.w_min, triplet.w_max, 1 * u.second, 8 * u.mV,
    )  # fmt: skip
    homeostatic = hebbax.HomeostaticTripletSTDP(triplet, 200 * several[None] * u.ms, 20 * u.Hz)
    short_term = hebbax.ShortTermPlasticity(several[:, None] / 2, 100 * u.ms, 50 * u.ms)
    scaling = hebbax.SynapticScaling(50 * several[None] * u.ms, 20 * u.Hz, 0.1)
    rules = voltage_rule, homeostatic, short_term, scaling
    pre, post = (rng.random((20, n)) < 0.2 for _ in range(2))
    voltage = np.where(post, 20, rng.uniform(-75, -55, (20, n))).astype(np.float32)

    @jax.jit
    def learn(synapses, rules, weight, pre, post, voltage):
        by_voltage, triplets, short_term, scaling = rules

        def step(carry, now):
            first, second, states = carry
            pre, post, voltage = now
            first, a = by_voltage.step(synapses, first, states[0], pre, voltage * u.mV, 1 * u.ms)
            second, b = triplets.step(synapses, second, states[1], pre, post, 1 * u.ms)
            gain, c = short_term.step(states[2], pre, 1 * u.ms)
            return (first, second, (a, b, c, scaling.step(states[3], post, 1 * u.ms))), gain

        start = weight, weight, tuple(rule.init(synapses) for rule in rules)
        (first, second, states), gains = jax.lax.scan(step, start, (pre, post, voltage))
        current = synapses.propagate_on_pre(weight, pre[-1], gain=gains[-1]) * scaling.factor(states[3])
        return first, second, scaling.fold(synapses, weight, states[3])[0], current

    expected = learn(synapses, rules, weight, pre, post, voltage)
    given = sharded.split_weight(weight), sharded.split_pre(pre), sharded.split_post(post), sharded.split_post(voltage)
    *weights, current = learn(sharded, [sharded.split_rule(rule) for rule in rules], *given)
    for got, one in zip((*map(sharded.join_weight, weights), sharded.join_post(current)), expected, strict=True):
        assert got.unit == one.unit and (one.mantissa[:10] != weight.mantissa[:10]).any()
        np.testing.assert_allclose(got.mantissa, one.mantissa, rtol=1e-5)


def test_what_split_rule_refuses(mesh):
    synapses = recurrent.make()[0]
    sharded, rule = sharding.split(synapses, mesh, recurrent=True), recurrent.RULES["pair"]
    for name, shape, words in (
        ("tau_plus", (36, 1), "or (37, 1), one per presynaptic neuron"),
        ("w_max", (5,), f"expected (..., {synapses.nse})"),
    ):
        wrong = dataclasses.replace(rule, **{name: np.ones(shape, np.float32) * getattr(rule, name).unit})
        with pytest.raises(hebbax.ShapeError, match=rf"^{name}: got shape .*{re.escape(words)}"):
            sharded.split_rule(wrong)
    unsplit = dataclasses.replace(rule, tau_plus=np.ones((37, 1)) * u.ms)
    with pytest.raises(hebbax.ShapeError, match=r"^tau_plus: .*as split_rule of these synapses makes it"):
        weight = sharded.split_weight(np.ones(synapses.nse) * u.mV)
        unsplit.step(sharded, weight, rule.init(sharded), None, None, 1 * u.ms)
    for wrong in (hebbax.PairSTDP, "a rule"):
        with pytest.raises(TypeError, match=r"^rule: got .*, expected a rule of hebbax"):
            sharded.split_rule(wrong)


def test_a_network_of_one_neuron_is_split_by_what_its_parameters_may_be(mesh):
    synapses, weight = hebbax.Synapses.from_dense(np.float32([[0.5]]))
    sharded = sharding.split(synapses, mesh)
    one = np.full((1, 1), 5.0, np.float32)
    rule = sharded.split_rule(hebbax.PairSTDP(one, one, 0.1, 0.1, 0.0, 1.0))
    spikes = sharded.split_pre(np.array([True])), sharded.split_post(np.array([True]))
    weight, state = sharded.split_weight(weight), rule.init(sharded)
    for _ in range(2):
        weight, state = rule.step(sharded, weight, state, *spikes, 1.0)
    np.testing.assert_allclose(sharded.join_weight(weight), 0.5, rtol=1e-6)  # up as much as down
    assert sharded.join_pre(state.pre)[0] == pytest.approx(1 + np.exp(-0.2))


def test_bounds_that_are_numbers_belong_to_no_mesh():
    """The same ones under one mesh after the other, and on one device after the other."""
    devices, given = jax.devices(), (jnp.full(4, 0.5), jnp.array([True, False]), jnp.array([0.75, -0.9]))
    synapses = hebbax.Synapses.from_dense(jnp.full((2, 2), 0.5))[0]
    meshes = (("x", devices[:2]), ("y", devices[2:]), ("x", devices[2:]), ("x", devices[:2]))
    for axis, some in meshes if hasattr(jax, "set_mesh") else ():  # since JAX 0.7
        with jax.set_mesh(jax.make_mesh((2,), (axis,), devices=some)):
            np.testing.assert_array_equal(synapses.update_on_pre(*given, 0.0, 1.0), [1, 0, 0.5, 0.5])
    for device in (*devices, devices[0]):
        with jax.default_device(device):
            weight, *others = (jnp.array(np.asarray(x)) for x in given)
            moved = jax.tree.map(lambda x: jnp.array(np.asarray(x)), synapses)
            out = moved.update_on_pre(weight, *others, 0.0, 1.0)
            assert out.devices() == {device}
            np.testing.assert_array_equal(out, [1, 0, 0.5, 0.5])


def test_a_simulation_copies_no_weight(mesh):
    """Each device updates its weights in place, in a loop."""
    synapses, weight, inputs = recurrent.make()
    sharded = sharding.split(synapses, mesh, recurrent=True)
    part, rule = jax.sharding.PartitionSpec("devices"), recurrent.RULES["pair"]

    def body(sharded, weight, inputs):
        gather = lambda x: jax.lax.all_gather(x, "devices", tiled=True)  # noqa: E731
        return recurrent.run(rule, sharded.local(), weight, inputs, gather)[0]

    specs = dict(in_specs=(part, part, jax.sharding.PartitionSpec(None, "devices")), out_specs=part)
    function = jax.jit(jax.shard_map(body, mesh=mesh, check_vma=False, **specs), donate_argnums=1)
    split = sharded, sharded.split_weight(weight), sharded.split_post(inputs)
    text = function.lower(*split).compile().as_text()
    size = sharded.nse // SHARDS
    assert re.search(rf"f32\[{size}\]", text)
    assert not re.findall(rf"f32\[{size}\]\S* copy\(", text)


# -- derivatives and batches


def test_derivatives_are_those_on_one_device(spec, rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    given = make_operands(spec, rng, synapses)
    given |= {"gain": rng.uniform(-2, 2, given["spike"].size).astype(np.float32)}
    if spec.kind == "update":
        given |= {"w_min": -1.0, "w_max": 1.0}
    else:
        given |= {"spike": given["spike"].astype(np.float32)}
    floating = ("weight", "trace", "gain", "w_min", "w_max", *(["spike"] if spec.kind == "propagate" else []))
    names = [name for name in floating if name in given]

    def gradient(synapses, given, factors):
        def loss(x):
            return (call(spec, synapses, given | x) ** 2 * factors).sum()

        return jax.jit(jax.grad(loss))({name: given[name] for name in names})

    size = call(spec, synapses, given).size
    factors = rng.uniform(-1, 1, size).astype(np.float32)
    expected = gradient(synapses, given, factors)
    split = {
        "update": sharded.split_weight, "propagate": sharded.split_post if spec is PROPAGATE_PRE else sharded.split_pre
    }[spec.kind](factors)  # fmt: skip
    out = gradient(sharded, split_operands(spec, sharded, given), split)
    out["weight"] = sharded.join_weight(out["weight"])
    join_event, join_other = sharded.join_pre, sharded.join_post
    if spec.event == "post":
        join_event, join_other = join_other, join_event
    for name in ("gain", "trace", "spike"):
        if name in names:
            out[name] = (join_other if name == "trace" else join_event)(out[name])
    for name in names:
        assert np.abs(expected[name]).max() > 0.1
        np.testing.assert_allclose(out[name], expected[name], rtol=2e-5, atol=1e-5, err_msg=name)


def test_vmap_is_one_network_after_the_other(spec, rng, mesh):
    synapses = network(rng, (41, 23), 300)
    sharded = sharding.split(synapses, mesh)
    members = [split_operands(spec, sharded, make_operands(spec, rng, synapses)) for _ in range(3)]
    batch = {name: jnp.stack([x[name] for x in members]) for name in members[0]}
    out = jax.jit(jax.vmap(lambda x: call(spec, sharded, x)))(batch)
    for k, member in enumerate(members):
        np.testing.assert_array_equal(out[k], call(spec, sharded, member))


def test_a_fence_gathers_nothing(mesh):
    part = jax.sharding.PartitionSpec("devices")
    x = jax.device_put(np.arange(8.0 * SHARDS), jax.sharding.NamedSharding(mesh, part))

    def fenced(x):
        return hebbax.fence(x) + 1

    for f in (fenced, jax.shard_map(fenced, mesh=mesh, in_specs=part, out_specs=part)):
        np.testing.assert_array_equal(jax.jit(f)(x), x + 1)
        assert collectives(f, x) == []


# -- delays


def learn_with_delays(synapses, rule, weight, pre, post, gather=lambda x: x):
    """Weights, and the currents at the somata, of a projection with one delay for all."""
    dt, axonal, dendritic = 1.0 * u.ms, 3.0 * u.ms, 2.0 * u.ms

    def step(state, spikes):
        weight, traces, axon, back, dendrite = state
        axon, pre_spike = axon.push(spikes[0])
        back, post_spike = back.push(spikes[1])
        pre_spike = gather(pre_spike)
        current = synapses.propagate_on_pre(weight, pre_spike)
        weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, dt, after=current)
        dendrite, current = dendrite.push(current)
        return (weight, traces, axon, back, dendrite), current

    rings = (
        hebbax.delays.Ring.of(pre[0], axonal, dt),
        hebbax.delays.Ring.of(post[0], dendritic, dt),
        hebbax.delays.Ring.of(jnp.zeros(post.shape[1]), dendritic, dt),
    )
    (weight, *_), currents = jax.lax.scan(step, (weight, rule.init(synapses), *rings), (pre, post))
    return weight, currents


def test_one_delay_for_a_projection_on_split_neurons(rng, mesh):
    """Each device delays the spikes of its own neurons, before they are gathered."""
    synapses, rule = network(rng, (24, 24), 130), hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.1, 0.0, 1.0)
    sharded = sharding.split(synapses, mesh, recurrent=True)
    weight, spikes = jnp.full(synapses.nse, 0.5), jnp.asarray(rng.random((2, 30, 24)) < 0.2)
    split = P(None, "devices")

    def function(sharded, weight, pre, post):
        gather = functools.partial(jax.lax.all_gather, axis_name="devices", tiled=True)
        return learn_with_delays(sharded.local(), rule, weight, pre, post, gather)

    pre, post = (jnp.stack([sharded.split_post(x) for x in train]) for train in spikes)
    run = jax.shard_map(
        function, mesh=mesh, in_specs=(P("devices"), P("devices"), split, split), out_specs=(P("devices"), split),
        check_vma=False,
    )  # fmt: skip
    got, currents = jax.jit(run)(sharded, sharded.split_weight(weight), pre, post)
    expected, expected_currents = learn_with_delays(synapses, rule, weight, *spikes)
    assert (np.asarray(expected) != 0.5).any() and np.any(expected_currents)
    oracle.assert_close(sharded.join_weight(got), expected)
    for k in range(30):
        oracle.assert_close(sharded.join_post(currents[k]), expected_currents[k])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_function_on_every_device(seed, mesh):
    rng = np.random.default_rng(seed)
    synapses = hebbax.Synapses.random((40, 30), prob=0.3, seed=seed)
    weight, pre, post = (rng.random(n).astype(np.float32) for n in (synapses.nse, 40, 30))
    spikes = rng.random(40) < 0.4, rng.random(30) < 0.4

    def apply(synapses, weight, pre, post, pre_spike, post_spike):
        for run, spike in ((synapses.apply_on_pre, pre_spike), (synapses.apply_on_post, post_spike)):
            weight = run(lambda w, x, y: w * y + x, weight, spike, pre=pre, post=post)
        return weight

    sharded = hebbax.sharding.split(synapses, mesh)
    part, whole = P(sharded.axis), P()
    specs = part, part, whole, part, whole, part
    run = shard_map(
        lambda sharded, *given: apply(sharded.local(), *given), mesh=mesh, in_specs=specs, out_specs=part
    )  # fmt: skip
    given = sharded.split_weight(weight), pre, sharded.split_post(post), spikes[0], sharded.split_post(spikes[1])
    out = sharded.join_weight(jax.jit(run)(sharded, *given))
    np.testing.assert_array_equal(out, apply(synapses, weight, pre, post, *spikes))


# -- parts


@pytest.mark.parametrize("options", [{"indegree": 7}, {"prob": 0.2}, {"outdegree": 7}], ids=str)
@pytest.mark.parametrize("recurrent", [True, False])
def test_parts_give_the_same_as_the_whole(options, recurrent, mesh):
    """And each is asked for its own neurons only."""
    shape, asked = (37, 37), []

    def part(first, stop):
        asked.append((first, stop))
        return hebbax.Synapses.random(shape, **options, seed=3, part=(first, stop))

    layout = sharding.Layout.even(37, SHARDS)
    whole = hebbax.Synapses.random(shape, **options, seed=3)
    expected = sharding.split(whole, mesh, recurrent=recurrent, post=layout)
    out = sharding.from_parts(part, shape, mesh, recurrent=recurrent)
    assert asked == [(0, 10), (10, 20), (20, 30), (30, 37)]
    assert (out.pre, out.post, out.count) == (expected.pre, expected.post, whole.nse)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    weight = np.arange(whole.nse, dtype=np.float32)
    np.testing.assert_array_equal(out.join_weight(out.split_weight(weight)), weight)


def test_parts_of_a_list_bring_their_weights(rng, mesh):
    pre, post = np.unravel_index(rng.permutation(41 * 23)[:300], (41, 23))
    weight = rng.uniform(1, 2, 300).astype(np.float32) * u.nS

    def part(first, stop):
        own = (first <= post) & (post < stop)
        return hebbax.Synapses.from_coo(pre[own], post[own], weight[own], shape=(41, 23))

    synapses, expected = hebbax.Synapses.from_coo(pre, post, weight, shape=(41, 23))
    sharded, out = sharding.from_parts(part, (41, 23), mesh)
    assert sharded.count == 300 and out.unit == u.nS
    np.testing.assert_array_equal(sharded.join_weight(out).mantissa, expected.mantissa)
    spike = rng.random(41) < 0.5
    current = sharded.join_post(sharded.propagate_on_pre(out, sharded.split_pre(spike)))
    np.testing.assert_array_equal(current / u.nS, synapses.propagate_on_pre(expected, spike) / u.nS)


# -- without the CSC view


@pytest.fixture(params=["split", "from_parts"])
def of_rows(request, mesh):
    """Synapses, and these split without and with the CSC view."""
    options = {"indegree": 7, "multapses": True, "seed": 3}
    synapses = hebbax.Synapses.random((41, 23), **options)

    def split(csc):
        if request.param == "split":
            return sharding.split(synapses, mesh, csc=csc)
        part = lambda *own: hebbax.Synapses.random((41, 23), **options, part=own)  # noqa: E731
        return sharding.from_parts(part, (41, 23), mesh, csc=csc)

    return synapses, split(False), split(True)


def double(weight, pre, post):
    return 2 * weight


def test_without_the_csc_view_rows_are_the_same(of_rows, rng, mesh):
    synapses, sharded, whole = of_rows
    assert sharded.csc_indptr is sharded.csc_indices is sharded.weight_indices is None
    np.testing.assert_array_equal(sharded.indptr, whole.indptr, strict=True)
    np.testing.assert_array_equal(sharded.indices, whole.indices, strict=True)
    assert repr(sharded) == repr(whole)[:-1] + ", without CSC view)"
    assert (sharded.post, sharded.nse) == (whole.post, whole.nse)
    for spec in (UPDATE_PRE, PROPAGATE_PRE):
        assert np.unique(check(spec, synapses, sharded, make_operands(spec, rng, synapses))).size > 5
    weight = rng.uniform(1, 2, synapses.nse).astype(np.float32)
    np.testing.assert_array_equal(sharded.join_weight(sharded.split_weight(weight)), weight)

    def scaled(sharded, weight, spike):
        return sharded.local().apply_on_pre(double, weight, spike)

    run = shard_map(scaled, mesh=mesh, in_specs=(P("devices"), P("devices"), P()), out_specs=P("devices"))
    spike = rng.random(41) < 0.5
    given = sharded.split_weight(weight), sharded.split_pre(spike, replicated=True)
    out = sharded.join_weight(jax.jit(run)(sharded, *given))
    np.testing.assert_array_equal(out, synapses.apply_on_pre(double, weight, spike))


def test_without_the_csc_view_who_reads_columns_is_refused(of_rows, rng):
    _, sharded, whole = of_rows
    rule = hebbax.PairSTDP(20.0, 20.0, 0.1, 0.1, 0.0, 1.0)

    def readers(synapses):
        n_pre, n_post = synapses.shape
        weight, trace, pre, post = (jnp.ones(n) for n in (synapses.nse, n_pre, n_pre, n_post))
        yield "update_on_post", lambda: synapses.update_on_post(weight, trace, post)
        yield "propagate_on_post", lambda: synapses.propagate_on_post(weight, post)
        yield "update_on_post", lambda: rule.step(synapses, weight, rule.init(synapses), pre, post, 1.0)
        if isinstance(synapses, hebbax.Synapses):
            none = jnp.full(3, -1)
            yield "apply_on_post", lambda: synapses.apply_on_post(double, weight, post)
            yield "rewire_within", lambda: hebbax.rewire_within(synapses, weight > 0, none, none)
            one = Mesh(jax.devices()[:1], ("devices",))
            yield "split", lambda: sharding.split(synapses, one)
            yield "from_parts: part", lambda: sharding.from_parts(lambda *_: synapses, synapses.shape, one)

    def of_first_device(sharded):
        return jax.tree.map(lambda x: jnp.asarray(x.reshape(SHARDS, -1)[0]), sharded).local()

    for synapses, complete in ((sharded, whole), (of_first_device(sharded), of_first_device(whole))):
        for (name, read), (_, fine) in zip(readers(synapses), readers(complete), strict=True):
            fine()
            with pytest.raises(TypeError, match=rf"^{name}: got synapses split with csc=False, expected csc=True"):
                read()
    shown = repr(of_first_device(sharded))
    assert re.fullmatch(r"Synapses\(shape=\(44, 6\), nse=42, .*, 348 B, without CSC view\)", shown)


# -- exchange


def exchanged(mesh, spikes, function=hebbax.sharding.exchange, **options):
    """The shape of the message that the devices end up with."""
    (axis,) = mesh.axis_names
    run = lambda x: function(x, axis, **options).message  # noqa: E731
    run = shard_map(run, mesh=mesh, in_specs=P(None, axis), out_specs=P(), check_vma=False)
    return jax.eval_shape(run, jax.ShapeDtypeStruct(spikes, bool)).shape


def test_a_capacity_of_few_bits_is_multiplied_as_an_integer(mesh):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exchanged(mesh, (2, 40), capacity=np.int8(100)) == (5 + 3 + 400,)
    with pytest.raises(ValueError, match="capacity: got 1073741824 for 10 neurons on each of 4 devices"):
        exchanged(mesh, (2, 40), capacity=np.int32(2**30))


def test_more_spikes_than_int32_counts_on_all_devices_are_refused_by_name(mesh):
    for shape, function in (((3, 2**32), hebbax.sharding.exchange), ((3, 2**30), hebbax.sharding.exchange_all)):
        with pytest.raises(ValueError, match=r"^spikes: got shape .*, expected at most 2147483647"):
            exchanged(mesh, shape, function)
    assert exchanged(mesh, (1, 2**31 - 4), hebbax.sharding.exchange_all) == (5 + 2 + 2**31 - 4,)


def test_weights_of_one_value(rng, mesh):
    sharded = sharding.split(network(rng, (41, 23), 300), mesh)
    out = sharded.full(0.5 * u.nS)
    assert out.unit == u.nS and out.shape == (sharded.nse,) and out.dtype == jnp.float32
    assert {s.data.shape for s in out.mantissa.addressable_shards} == {(sharded.nse // SHARDS,)}
    np.testing.assert_array_equal(sharded.join_weight(out).mantissa, np.full(300, np.float32(0.5)))
    assert sharded.full(2, jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(hebbax.ShapeError, match=r"^value: got shape \(2,\), expected a scalar"):
        sharded.full(np.ones(2))


def test_what_is_no_part(mesh):
    def fails(first, stop):
        raise KeyError("mine")

    def uneven(first, stop):
        synapses = hebbax.Synapses.random((8, 8), prob=0.5, part=(first, stop))
        return (synapses, np.ones(synapses.nse, np.float32 if first else np.float16))

    def whole(first, stop):
        return hebbax.Synapses.random((8, 8), indegree=2)

    for part, error, message in [
        (fails, KeyError, "mine"),
        (
            lambda *_: 3,
            TypeError,
            r"part: got from part\(0, 2\) int, expected a hebbax.Synapses, or one and its weights",
        ),
        (whole, ValueError, r"part: got from part\(0, 2\) a synapse onto neuron 2, expected 0 to 1"),
        (
            lambda *_: hebbax.Synapses([0, 0], [], shape=(1, 2)),
            hebbax.ShapeError,
            r"part: .* of shape \(1, 2\), .*\(8, 8\)",
        ),
        (lambda a, b: (whole(a, b), np.ones(3)), ValueError, "part: "),
        (uneven, TypeError, "part: got float16 None and float32 None as weights, expected the same"),
    ]:
        with pytest.raises(error, match=message):
            sharding.from_parts(part, (8, 8), mesh)
