"""Cases of `overflow`: what int32 cannot count or name is refused, by the name of the argument, before it is copied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from overflow_operators import Case
from pretended import enable_x64, shown_to_jax, zeros

import hebbax
from hebbax._core.pytree import assemble
from hebbax._core.specs import SPECS, Spec

MANY = (1 << 31) + 5


def refused(run: Callable[[], Any], name: str, *words: str) -> None:
    try:
        run()
    except (OverflowError, ValueError) as error:
        text = str(error)
        assert text.startswith(f"{name}: got "), f"another message: {text}"
        missing = [word for word in words if word not in text]
        assert not missing, f"says nothing of {missing}: {text}"
    else:
        raise AssertionError(f"accepted, expected an error that begins with {name!r}")


def operands(spec: Spec, nse: int, shape: tuple[int, int], wide: tuple[str, ...]) -> dict[str, np.ndarray]:
    n_event, n_other = spec.sizes(shape)
    sizes = {"indices": nse, "indptr": n_event + 1, "weight_indices": nse, "weight": nse, "spike": n_event}
    dtypes = dict.fromkeys(("weight", "trace"), np.float32) | {"spike": np.bool_} | dict.fromkeys(wide, np.int64)
    sizes["trace"] = n_other
    return {name: zeros(sizes[name], dtypes.get(name, np.int32)) for name in spec.arguments}


def cases(rng: np.random.Generator) -> Iterator[Case]:
    del rng
    for spec in SPECS:
        far = (3, MANY) if spec.event == "pre" else (MANY, 3)
        wrong = [("indptr", MANY, (3, 4), ("indices", "weight_indices")), ("indices", 20, far, ("indptr",))]
        wrong += [("weight_indices", MANY, (3, 4), ("indices", "indptr"))] if spec.permuted else []
        for name, nse, shape, wide in wrong:
            for module in (hebbax, hebbax.inplace):
                for x64 in (False, True) if module is hebbax else (False,):

                    def run(spec=spec, name=name, nse=nse, shape=shape, wide=wide, module=module, x64=x64) -> None:
                        given = operands(spec, nse, shape, wide if x64 or module is hebbax.inplace else ())
                        show = shown_to_jax if module is hebbax else np.asarray
                        given = {spec.public_name(operand): show(x) for operand, x in given.items()}
                        # (Without the flag, all index arrays are of int32, and the first is named that is not enough.)
                        first = "indptr" if nse == MANY and module is hebbax and not x64 else name
                        with enable_x64(x64):
                            refused(lambda: getattr(module, spec.name)(**given, shape=shape), first, "int32", "int64")

                    yield f"{module.__name__}.{spec.name}, x64 {x64}: {name} of {nse} synapses, {shape}", run
    for name, run in CONSTRUCTORS.items():
        yield name, run


def ids(size: int = MANY) -> np.ndarray:
    return zeros(size, np.int32)


def of_views() -> None:
    refused(lambda: hebbax.Synapses([0, MANY], ids(), shape=(1, 3)), "shape", str(MANY), "jax_enable_x64")


def of_lists() -> None:
    weight = zeros(MANY, np.float16)
    refused(lambda: hebbax.Synapses.from_coo(ids(), ids(), weight, shape=(1, 3)), "shape", str(MANY), "jax_enable_x64")


def of_shapes() -> None:
    for shape in ((MANY, 3), (3, MANY)):
        for build in (
            lambda s: hebbax.Synapses.from_coo([], [], np.zeros(0, np.float32), shape=s),
            lambda s: hebbax.Synapses.random(s, indegree=1),
            lambda s: hebbax.Synapses.random(s, prob=1e-9),
        ):
            refused(lambda build=build, shape=shape: build(shape), "shape", str(MANY), "jax_enable_x64")
    for rule in ("indegree", "outdegree"):
        build = functools.partial(hebbax.Synapses.random, (100000, 100000), **{rule: 30000})
        refused(build, "shape", "3000000000", "jax_enable_x64")


def of_rewiring() -> None:
    """Which would have more synapses than its index arrays can name."""
    synapses = hebbax.Synapses([0, 1], [0], shape=(1, 3))
    room = np.iinfo(np.int32).max
    refused(lambda: hebbax.rewire(synapses, np.ones(1, bool), [], [], room=room), "synapses", "int32", str(room))
    offered = shown_to_jax(ids(room))
    refused(lambda: hebbax.rewire_within(synapses, np.ones(1, bool), offered, offered), "synapses", "int32")


def of_delays() -> None:
    synapses = hebbax.Synapses([0, 1], [0], shape=(1, 3))
    for name in ("axonal", "dendritic"):
        run = {name: float(1 << 30)}
        refused(lambda run=run: hebbax.delays.DelayedSynapses(synapses, 1.0, **run), name, str(1 << 30))
    refused(lambda: hebbax.delays.steps(float(1 << 31), 1.0), "delay", "2**31")


def of_functions() -> None:
    with enable_x64(True):
        for side, shape in (("pre", (MANY, 3)), ("post", (3, MANY))):
            sizes = dict(indptr=shape[0] + 1, indices=5, csc_indptr=shape[1] + 1, csc_indices=5, weight_indices=5)
            fields = {name: shown_to_jax(zeros(size, np.int64)) for name, size in sizes.items()}
            synapses = assemble(hebbax.Synapses, {**fields, "shape": shape})
            spike = shown_to_jax(zeros(MANY, bool))
            apply = getattr(synapses, f"apply_on_{side}")
            refused(
                lambda apply=apply, spike=spike: apply(lambda w, *_: w, jnp.ones(5), spike), f"{side}_spike", str(MANY)
            )


def of_exchanges() -> None:
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("x",))
    P = jax.sharding.PartitionSpec
    spikes = shown_to_jax(zeros(3 << 30, bool)).reshape(3, 1 << 30)
    for function, options in ((hebbax.sharding.exchange, {"capacity": 10}), (hebbax.sharding.exchange_all, {})):

        def run(x: Any, function: Callable = function, options: dict = options) -> Any:
            return function(x, "x", **options).message

        mapped = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        refused(lambda mapped=mapped: mapped(spikes), "spikes", "(3, 1073741824)", str((1 << 31) - 1))


CONSTRUCTORS = {
    "Synapses, too many synapses": of_views,
    "Synapses.from_coo, too many synapses": of_lists,
    "Synapses.from_coo and .random, too many neurons, or synapses for these": of_shapes,
    "rewire and rewire_within, too many places": of_rewiring,
    "DelayedSynapses and steps, too long": of_delays,
    "apply_on_pre and apply_on_post, too many neurons": of_functions,
    "exchange and exchange_all, too many spikes": of_exchanges,
}
