"""Synapses that are split over devices, and arrays that go with them."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from hebbax._core import unitless
from hebbax._core.building import CSC, CSR, csc_view, with_unit, without_csc_view, without_unit
from hebbax._core.compat import reshard, shard_map
from hebbax._core.forks import check_jax
from hebbax._core.layout import (
    Layout,
    host_numbers,
    join_neurons,
    padded,
    place,
    slots,
    split_neurons,
    to_host,
)
from hebbax._core.pytree import assemble, pytree
from hebbax._core.sides import side_of
from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, STRUCTURE, UPDATE_POST, UPDATE_PRE, Spec
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, check_bound_order, in_unit_of_product
from hebbax.synapses import Synapses

T = TypeVar("T")


@pytree("pre", "post", "count", "mesh", "axis")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class ShardedSynapses:
    """Synapses split over the devices of a mesh by postsynaptic neuron: what `split` returns, a frozen pytree.

    In `jax.shard_map` its partition spec is `PartitionSpec(axis)`. Outside, its methods are those of `Synapses`, on
    arrays that are split, and rules take it in place of one; JAX then decides what is sent when.

    Attributes
    ----------
    indptr, indices, csc_indptr, csc_indices, weight_indices : Array
        Those of every shard's `Synapses`, one shard after the other. All shards have all presynaptic neurons. The last
        three are None where `csc=False` left them out.
    pre, post : Layout
        Where the neurons of either side are.
    count : int
        Number of synapses, without padding.
    mesh : jax.sharding.Mesh
        The devices.
    axis : str
        The axis of the mesh.
    """

    indptr: jax.Array
    indices: jax.Array
    csc_indptr: jax.Array | None
    csc_indices: jax.Array | None
    weight_indices: jax.Array | None
    pre: Layout
    post: Layout
    count: int
    mesh: Mesh
    axis: str

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self.post.shards

    @property
    def nse(self) -> int:
        """Length of a weight that is split, padding included."""
        return self.indices.size

    @property
    def n_pre(self) -> int:
        """Length of a presynaptic array that is split, padding included."""
        return self.pre.length

    @property
    def n_post(self) -> int:
        """Length of a postsynaptic array that is split, padding included."""
        return self.post.length

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_pre, n_post)`, padding included."""
        return self.n_pre, self.n_post

    def __repr__(self) -> str:
        try:
            network = f"shape={(self.pre.n, self.post.n)}, nse={self.count}"
            room = f"room for {self.nse // self.shards} each{without_csc_view(self)}"
            return f"ShardedSynapses({network}, shards={self.shards}, {room})"
        except (AttributeError, TypeError):  # JAX, or a function in `jax.tree.map`, put other things there than arrays
            return f"ShardedSynapses({', '.join(f'{name}={x!r}' for name, x in vars(self).items())})"

    def local(self) -> Synapses:
        """Return the synapses of this device, inside `jax.shard_map`.

        Its presynaptic neurons are those of all shards, in the order in which `jax.lax.all_gather(..., tiled=True)`
        puts the parts of an array; its postsynaptic neurons are those of this device, with padding; so are the weights.
        What reads the CSC view raises a TypeError where `csc=False` left that out.

        Raises
        ------
        TypeError
            This is not the part of one device.
        """
        if self.indptr.size != self.n_pre + 1:
            raise TypeError(
                f"local: got the synapses of all {self.shards} shards, expected those of one: call it inside "
                f"jax.shard_map, on an argument whose spec is PartitionSpec({self.axis!r})"
            )
        fields = {name: getattr(self, name) for name in (*CSR, *CSC)}
        return assemble(Synapses, {**fields, "shape": (self.n_pre, self.post.size)})

    def split_pre(self, x: WithUnit, *, replicated: bool = False) -> Any:
        """Split an array over presynaptic neurons, as `split_post`; `replicated` puts all of it on every device."""
        return split_neurons(x, self.pre, self.mesh, None if replicated else self.axis)

    def split_post(self, x: WithUnit) -> Any:
        """Split an array over postsynaptic neurons.

        Parameters
        ----------
        x : Array or Quantity, shape (..., neurons)
            The same in every process. The last axis is split.

        Returns
        -------
        Array or Quantity, shape (..., n_post)
            Padded with zeros. A process keeps the parts of its own devices only.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError
            A shape does not fit, or `x` is traced.
        """
        return split_neurons(x, self.post, self.mesh, self.axis)

    def split_weight(self, weight: WithUnit) -> Any:
        """Split weights, or bounds, in CSR order, as `split_post` does it; all processes call it together.

        Padding takes part in what is computed of the whole array: for a mean or a loss, join the weights first.
        """
        return self._split_synapses("weight", weight)

    def full(self, value: Any, dtype: Any = jnp.float32) -> Any:
        """Weights that are all the same, split, without an array of the whole network: `jnp.full` for `split_weight`.

        Parameters
        ----------
        value : scalar or Quantity
            Of every synapse, and of padding.
        dtype : dtype, default float32
            float64 becomes float32 where JAX's x64 flag is off.

        Returns
        -------
        Array or Quantity, shape (nse,)

        Raises
        ------
        hebbax.errors.ShapeError
            `value` is no scalar.
        """
        number, unit = without_unit(value)
        if number.shape:
            raise ShapeError(f"value: got shape {number.shape}, expected a scalar; split_weight takes one for each")
        size, dtype = self.nse // self.shards, jax.dtypes.canonicalize_dtype(dtype)
        part = np.full(size, number, dtype)
        return with_unit(place(self.mesh, self.axis, lambda _: part, (), size, dtype), unit)

    def _split_synapses(self, name: str, x: Any) -> Any:
        numbers, unit = host_numbers(name, x, self.count)
        places = self._slots()

        def part(k: int) -> np.ndarray:
            return padded(numbers[..., places[k]], self.nse // self.shards)

        return with_unit(
            place(self.mesh, self.axis, part, numbers.shape[:-1], self.nse // self.shards, numbers.dtype), unit
        )

    def split_rule(self, rule: T) -> T:
        """Split the parameters of a rule that differ between neurons or synapses, for its steps on these synapses.

        Parameters
        ----------
        rule : rule of hebbax
            As for `Synapses`: the parameters of all neurons, the bounds of all synapses, the same in every process.

        Returns
        -------
        rule
            What is per presynaptic neuron is whole on every device. Padding is 1.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError
            A parameter's shape does not fit, or it is traced, or this is not a rule.
        """
        sides = getattr(rule, "sides", None)
        if sides is None or isinstance(rule, type):
            raise TypeError(f"rule: got {rule!r}, expected a rule of hebbax, such as PairSTDP(...)")
        parts: dict[str, Any] = {}
        for name in (*sides, *(name for name in ("w_min", "w_max") if hasattr(rule, name))):
            x = getattr(rule, name)
            shape = np.shape(u.get_mantissa(x))
            if name not in sides:
                parts[name] = self._split_synapses(name, x) if shape else x
            elif (side := side_of(name, shape, sides[name], (self.pre.n, self.post.n))) == "pre":
                flat = x.reshape(-1)
                parts[name] = split_neurons(flat, self.pre, self.mesh, None, fill=1, name=name)[:, None]
            else:
                parts[name] = x if side is None else split_neurons(x, self.post, self.mesh, self.axis, 1, name)
        parts |= {name: self.split_rule(x) for name, x in vars(rule).items() if hasattr(x, "sides")}  # built on another
        return dataclasses.replace(rule, **parts)  # type: ignore[type-var]

    def join_pre(self, x: WithUnit) -> Any:
        """Join an array over presynaptic neurons, the inverse of `split_pre`, as `join_post` does it."""
        return join_neurons(x, self.pre)

    def join_post(self, x: WithUnit) -> Any:
        """Join an array over postsynaptic neurons, the inverse of `split_post`.

        All processes call it together, and each has the whole result.

        Parameters
        ----------
        x : Array or Quantity, shape (..., n_post)
            As `split_post` or a computation on such arrays returned it.

        Returns
        -------
        Array or Quantity, shape (..., neurons)

        Raises
        ------
        hebbax.errors.ShapeError, TypeError
            A shape does not fit, or `x` is traced.
        """
        return join_neurons(x, self.post)

    def join_weight(self, weight: WithUnit) -> Any:
        """Join weights, into CSR order: the inverse of `split_weight`, as `join_post` does it."""
        numbers, unit = host_numbers("weight", weight, self.nse)
        out = np.zeros((*numbers.shape[:-1], self.count), numbers.dtype)  # also in free places, which no shard has
        for k, places in enumerate(self._slots()):
            first = k * (self.nse // self.shards)
            out[..., places] = numbers[..., first : first + places.size]
        return with_unit(jnp.asarray(out), unit)

    def update_on_pre(
        self, weight: WithUnit, pre_spike: Plain, post_trace: WithUnit, w_min: WithUnit | None = None,
        w_max: WithUnit | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Call `hebbax.update_csr_on_binary_pre` on every device; `options` are its keywords.

        Arrays are split, but for `pre_spike` and an array as `gain`, which are whole on every device (others are
        gathered first). There is no communication beyond that.
        """
        return self._call(UPDATE_PRE, weight, pre_spike, post_trace, w_min, w_max, **options)

    def update_on_post(
        self, weight: WithUnit, pre_trace: WithUnit, post_spike: Plain, w_min: WithUnit | None = None,
        w_max: WithUnit | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Call `hebbax.update_csr_on_binary_post` on every device; `options` are its keywords.

        Arrays are split, but for `pre_trace`, which is whole on every device (others are gathered first). There is no
        communication beyond that.
        """
        return self._call(UPDATE_POST, weight, pre_trace, post_spike, w_min, w_max, **options)

    def propagate_on_pre(self, weight: WithUnit, pre_spike: Plain, **options: Any) -> Any:
        """Call `hebbax.propagate_csr_on_binary_pre` on every device; `options` are its keywords.

        `pre_spike` is split, and gathered here, a byte a neuron unless it is floating; so is the result, `(n_post,)`.
        An array as `gain`, and a weight that all synapses share, a scalar or of shape (1,), are whole on every device.
        """
        return self._call(PROPAGATE_PRE, weight, pre_spike, **options)

    def propagate_on_post(self, weight: WithUnit, post_spike: Plain, **options: Any) -> Any:
        """Call `hebbax.propagate_csr_on_binary_post` on every device and add up; `options` are its keywords.

        `post_spike` and an array as `gain` are split; the result, `(n_pre,)`, is whole on every device. Weights of 16
        bits are added in float32 and rounded once. A weight that all synapses share is whole on every device too.
        """
        return self._call(PROPAGATE_POST, weight, post_spike, **options)

    def _call(self, spec: Spec, *arguments: Any, **options: Any) -> Any:
        check_jax()
        if self.indptr.size == self.n_pre + 1 and self.shards > 1:
            raise TypeError(
                f"{spec.kind}_on_{spec.event}: got the synapses of one shard, expected those of all; inside "
                f"jax.shard_map, call it on local()"
            )
        required = [name for name in spec.arguments if name not in STRUCTURE]
        given = dict(zip((*required, *spec.bounds), arguments, strict=True))
        given |= {name: options.pop(name) for name in spec.optional if name in options}
        after = unitless.arrays_of("after", given.pop("after", None))
        known = ("backend", *(unitless.UPDATE_OPTIONS if spec.kind == "update" else ()))
        for name in options:
            if name not in known:
                raise TypeError(f"{spec.kind}_on_{spec.event}() got an unexpected argument {name!r}")
        given = {name: x for name, x in given.items() if x is not None}
        missing = [spec.public_name(name) for name in required if name not in given]
        if missing:
            raise TypeError(f"{spec.kind}_on_{spec.event}() lacks {', '.join(missing)}")
        check_bound_order(given.get("w_min"), given.get("w_max"))
        for name, x in given.items():
            numbers, public = getattr(x, "mantissa", x), spec.public_name(name)
            if not isinstance(numbers, jax.Array):
                numbers = unitless.check_host_array(public, numbers)
                given[name] = u.Quantity(numbers, unit=x.unit) if isinstance(x, u.Quantity) else numbers
            self._check_shape(spec, name, public, np.shape(numbers))
        return _compiled(self, given | ({"after": after} if after else {}), (spec, tuple(options.items())))

    def _check_shape(self, spec: Spec, name: str, public: str, shape: tuple[int, ...]) -> None:
        n_event, n_other = spec.sizes(self.shape)
        sizes = {"weight": self.nse, "spike": n_event, "trace": n_other}
        if name in sizes and shape != (sizes[name],) and not self._is_shared(spec, name, shape):
            batch = "" if name == "weight" else unitless.for_a_batch(shape)
            raise ShapeError(f"{public}: got shape {shape}, expected {(sizes[name],)}, as split{batch}")
        either = {"w_min": self.nse, "w_max": self.nse, "gain": n_event}
        if name in either and shape not in ((), (either[name],)):
            raise ShapeError(f"{public}: got shape {shape}, expected a scalar or {(either[name],)}, as split")

    def _partition(self, spec: Spec, name: str, x: Any) -> Any:
        """How an operand is laid out over the devices."""
        if name == "after":  # not used, so any spec is right; this one moves nothing where it is a result of ours
            return [P(self.axis) if np.ndim(y) and np.shape(y)[0] % self.shards == 0 else P() for y in x]
        gathered_here = spec is PROPAGATE_PRE and name == "spike"
        whole = name in {"pre": ("spike", "gain"), "post": ("trace",)}[spec.event] and not gathered_here
        return P() if whole or np.ndim(x) == 0 or self._is_shared(spec, name, np.shape(x)) else P(self.axis)

    def _is_shared(self, spec: Spec, name: str, shape: tuple[int, ...]) -> bool:
        """Whether this is one weight for all synapses."""
        return spec.kind == "propagate" and name == "weight" and shape in ((), (1,))

    def _slots(self) -> list[np.ndarray]:
        return slots(to_host(self.indptr).reshape(self.shards, -1))


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _compiled(synapses: ShardedSynapses, operands: dict[str, Any], static: tuple) -> Any:
    spec, options = static
    axis = synapses.axis

    def run(synapses: ShardedSynapses, operands: dict[str, Any]) -> Any:
        local, given = synapses.local(), {spec.public_name(name): x for name, x in operands.items()}
        if spec is PROPAGATE_POST:
            weight, gain = operands["weight"], operands.get("gain")
            numbers: Any = getattr(weight, "mantissa", weight)
            # The unitless operator returns the dtype that it adds in.
            part = unitless.OPERATORS[spec](
                numbers, *csc_view(local, "propagate_on_post"), operands["spike"],
                shape=local.shape, gain=getattr(gain, "mantissa", gain), **dict(options),
            )  # fmt: skip
            return in_unit_of_product(jax.lax.psum(part, axis).astype(numbers.dtype), weight, gain)
        if spec is PROPAGATE_PRE:
            spike = jnp.asarray(operands["spike"])
            if not jnp.issubdtype(spike.dtype, jnp.floating):  # which have a derivative
                spike = spike != 0  # a byte a neuron
            given["pre_spike"] = jax.lax.all_gather(spike, axis, tiled=True)
        return getattr(local, f"{spec.kind}_on_{spec.event}")(**given, **dict(options))

    specs = {name: synapses._partition(spec, name, x) for name, x in operands.items()}
    operands = jax.tree.map(
        lambda spec, x: jax.tree.map(functools.partial(reshard, mesh=synapses.mesh, spec=spec), x),
        specs, operands, is_leaf=lambda x: isinstance(x, P),
    )  # fmt: skip
    out_specs = P() if spec is PROPAGATE_POST else P(axis)
    mapped = shard_map(run, mesh=synapses.mesh, in_specs=(P(axis), specs), out_specs=out_specs)
    return mapped(synapses, operands)
