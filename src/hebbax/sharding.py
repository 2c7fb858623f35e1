r"""Networks split over devices and processes, by postsynaptic neuron.

A device owns contiguous postsynaptic neurons with all synapses onto them. Arrays that are split have one axis for all
devices, one equal part for each, padded where neurons or synapses are fewer; what is added belongs to no neuron and no
synapse. Updates need no communication, because presynaptic traces and spikes are whole on every device. Propagation
to postsynaptic neurons gathers the spikes, a byte a neuron unless they are floating; propagation to presynaptic ones
adds up what the devices have. The first two give the same bits as one device, the last the same up to rounding.

In a simulation, run the loop within one `jax.shard_map`. There, `ShardedSynapses.local` is an ordinary `Synapses`, for
the rules and operators as they are (with `check_vma=False`, or JAX asks which of the traces that a rule starts with
will differ between devices):

>>> import brainunit as u, hebbax, jax, jax.numpy as jnp
>>> from jax.sharding import Mesh, PartitionSpec as P
>>> mesh = Mesh(jax.devices()[:1], ("devices",))
>>> rule = hebbax.PairSTDP(20.0 * u.ms, 20.0 * u.ms, 0.1, 0.105, 0.0, 1.0)
>>> synapses = hebbax.Synapses.random((100, 100), prob=0.1, autapses=False)
>>> sharded = hebbax.sharding.split(synapses, mesh, recurrent=True)
>>> weight = sharded.split_weight(jnp.full(synapses.nse, 0.5))
>>> spike = sharded.split_post(jnp.arange(100) % 7 == 0)
>>> def simulate(sharded, weight, spike):  # the arguments are this device's parts
...     synapses = sharded.local()
...     def step(state, _):
...         weight, traces, post_spike = state
...         pre_spike = jax.lax.all_gather(post_spike, "devices", tiled=True)
...         current = synapses.propagate_on_pre(weight, pre_spike)
...         post_spike = current > 0.75
...         weight, traces = rule.step(synapses, weight, traces, pre_spike, post_spike, 1.0 * u.ms, after=current)
...         return (weight, traces, post_spike), post_spike.sum()
...     (weight, *_), spikes = jax.lax.scan(step, (weight, rule.init(synapses), spike), length=3)
...     return weight, jax.lax.psum(spikes, "devices")
>>> out_specs = P("devices"), P()
>>> simulate = jax.shard_map(simulate, mesh=mesh, in_specs=P("devices"), out_specs=out_specs, check_vma=False)
>>> weight, spikes = jax.jit(simulate)(sharded, weight, spike)
>>> sharded.join_weight(weight).shape == (synapses.nse,)
True
"""

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

from hebbax._core import connectivity, unitless
from hebbax._core.building import with_unit
from hebbax._core.compat import reshard, shard_map
from hebbax._core.exchange import exchange, exchange_all
from hebbax._core.forks import check_jax
from hebbax._core.layout import (
    Layout,
    host_numbers,
    join_neurons,
    padded,
    part_of_columns,
    place,
    slots,
    split_neurons,
    to_host,
)
from hebbax._core.pytree import assemble, pytree
from hebbax._core.sent import SpikeLists
from hebbax._core.sides import side_of
from hebbax._core.specs import PROPAGATE_POST, PROPAGATE_PRE, STRUCTURE, UPDATE_POST, UPDATE_PRE, Spec
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit, check_bound_order, in_unit_of_product
from hebbax.synapses import Synapses

__all__ = ["Layout", "ShardedSynapses", "SpikeLists", "exchange", "exchange_all", "split"]

T = TypeVar("T")
FIELDS = ("indptr", "indices", "csc_indptr", "csc_indices", "weight_indices")


@pytree("pre", "post", "count", "mesh", "axis")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class ShardedSynapses:
    """Synapses split over the devices of a mesh by postsynaptic neuron: what `split` returns, a frozen pytree.

    In `jax.shard_map` its partition spec is `PartitionSpec(axis)`. Outside, its methods are those of `Synapses`, on
    arrays that are split, and rules take it in place of one; JAX then decides what is sent when.

    Attributes
    ----------
    indptr, indices, csc_indptr, csc_indices, weight_indices : Array
        Those of every shard's `Synapses`, one shard after the other. All shards have all presynaptic neurons.
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
    csc_indptr: jax.Array
    csc_indices: jax.Array
    weight_indices: jax.Array
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
            return f"ShardedSynapses({network}, shards={self.shards}, room for {self.nse // self.shards} each)"
        except (AttributeError, TypeError):  # JAX, or a function in `jax.tree.map`, put other things there than arrays
            return f"ShardedSynapses({', '.join(f'{name}={x!r}' for name, x in vars(self).items())})"

    def local(self) -> Synapses:
        """Return the synapses of this device, inside `jax.shard_map`.

        Its presynaptic neurons are those of all shards, in the order in which `jax.lax.all_gather(..., tiled=True)`
        puts the parts of an array; its postsynaptic neurons are those of this device, with padding; so are the weights.

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
        fields = {name: getattr(self, name) for name in FIELDS}
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


def split(
    synapses: Synapses,
    mesh: Mesh,
    axis: str | None = None,
    *,
    recurrent: bool = False,
    pre: Layout | None = None,
    post: Layout | None = None,
) -> ShardedSynapses:
    r"""Split synapses over the devices of a mesh by postsynaptic neuron, in equal shares.

    Parameters
    ----------
    synapses : Synapses
        The whole network, the same in every process.
    mesh : jax.sharding.Mesh
        The devices, of one process or of several.
    axis : str, optional
        Axis of the mesh; needed where it has several. Over the others, everything is replicated.
    recurrent : bool, default False
        Whether pre- and postsynaptic neurons are the same population. Then both are laid out alike, and the spikes of
        one step, gathered, are the presynaptic spikes of the next.
    pre, post : Layout, optional
        Where neurons of either side are, if it is not for `split` to choose: those of another `ShardedSynapses` on the
        same population. By default presynaptic neurons are shared out in equal numbers, postsynaptic ones so that the
        largest number of synapses of a shard, plus its neurons, is as small as contiguous ranges allow.

    Returns
    -------
    ShardedSynapses
        A process keeps the parts of its own devices only.

    Raises
    ------
    TypeError
        `synapses` is not a `Synapses`, or traced; or `mesh` is not a mesh.
    ValueError
        `mesh` lacks the axis, or a layout does not fit.
    hebbax.errors.ShapeError
        `recurrent`, with a network that is not square.
    OverflowError
        The numbers of neurons or synapses of a shard do not fit 32 bits, and JAX's x64 flag is off.

    Notes
    -----
    Shard :math:`s` has the columns :math:`a_s \le j < a_{s+1}` of :math:`W`, so that

    .. math:: (x W)_j = \sum_i x_i w_{ij}, \qquad (W y)_i = \sum_s \sum_{j = a_s}^{a_{s+1} - 1} w_{ij} y_j

    of which the first is a sum within a shard, in the order of one device. That synapses are stored where their
    postsynaptic neuron is, and spikes are sent to all, is also the scheme of NEST (Morrison, Mehring, Geisel, Aertsen
    & Diesmann 2005, Neural Computation 17:1776, doi:10.1162/0899766054026648).

    Examples
    --------
    >>> import hebbax, jax, jax.numpy as jnp
    >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[0.5, 0.0, 1.0], [0.0, 0.25, 0.75]]))
    >>> sharded = hebbax.sharding.split(synapses, mesh)
    >>> sharded
    ShardedSynapses(shape=(2, 3), nse=4, shards=1, room for 4 each)
    >>> current = sharded.propagate_on_pre(sharded.split_weight(weight), sharded.split_pre(jnp.array([True, True])))
    >>> sharded.join_post(current)
    Array([0.5 , 0.25, 1.75], dtype=float32)
    """
    if not isinstance(synapses, Synapses):
        raise TypeError(f"synapses: got {type(synapses).__name__}, expected a hebbax.Synapses")
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(synapses)):
        raise TypeError("synapses: got traced arrays, expected concrete ones: call split outside jit")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: got {type(mesh).__name__}, expected a jax.sharding.Mesh")
    if axis is None and len(mesh.axis_names) == 1:
        axis = mesh.axis_names[0]
    if axis is None or axis not in mesh.axis_names:
        raise ValueError(
            f"axis: got {axis!r}, expected one of the mesh's axes, {', '.join(map(repr, mesh.axis_names))}"
        )
    if recurrent and synapses.n_pre != synapses.n_post:
        raise ShapeError(f"recurrent: got synapses of shape {synapses.shape}, expected as many neurons on either side")
    if recurrent and pre is not None:
        raise ValueError("pre: got a layout, expected none where recurrent=True, which lays it out as post")
    shards = mesh.shape[axis]
    columns = {name: np.asarray(getattr(synapses, f"csc_{name}")) for name in ("indptr", "indices")}
    post = Layout.balanced(np.diff(columns["indptr"]), shards) if post is None else post
    if pre is None:
        pre = post if recurrent else Layout.even(synapses.n_pre, shards)
    for name, layout, n in (("pre", pre, synapses.n_pre), ("post", post, synapses.n_post)):
        if (layout.n, layout.shards) != (n, shards):
            got = f"a layout of {layout.n} neurons on {layout.shards} shards"
            raise ValueError(f"{name}: got {got}, expected {n} on {shards}")

    ends = columns["indptr"][list(post.starts)].astype(np.int64)
    size = max(1, int(np.diff(ends).max()))
    local_shape = pre.length, post.size
    dtype, places = connectivity.index_dtype(size, local_shape), pre.places

    def shard(name: str, k: int) -> np.ndarray:
        return fields_of(k)[name]

    @functools.cache
    def fields_of(k: int) -> dict[str, np.ndarray]:
        own = columns["indptr"][post.starts[k] : post.starts[k + 1] + 1]
        values = part_of_columns(own, columns["indices"], places, size, local_shape)
        return {name: x.astype(dtype, copy=False) for name, x in zip(FIELDS, values, strict=True)}

    sizes = (pre.length + 1, size, post.size + 1, size, size)
    fields = {
        name: place(mesh, axis, functools.partial(shard, name), (), n, dtype)
        for name, n in zip(FIELDS, sizes, strict=True)
    }
    return assemble(
        ShardedSynapses, {**fields, "pre": pre, "post": post, "count": synapses.nse, "mesh": mesh, "axis": axis}
    )


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
                numbers, local.csc_indices, local.csc_indptr, local.weight_indices, operands["spike"],
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
