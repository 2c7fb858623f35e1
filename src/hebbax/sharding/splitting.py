"""How synapses come to be split: from the whole, or part by part."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hebbax._core import connectivity
from hebbax._core.building import CSC, CSR, csc_view, weight_numbers, with_unit
from hebbax._core.layout import Layout, padded, part_of_columns, place
from hebbax._core.pytree import assemble
from hebbax._core.unitless import check_options
from hebbax.errors import ShapeError
from hebbax.sharding.sharded import ShardedSynapses
from hebbax.synapses import Synapses


def split(
    synapses: Synapses,
    mesh: Mesh,
    axis: str | None = None,
    *,
    recurrent: bool = False,
    pre: Layout | None = None,
    post: Layout | None = None,
    csc: bool = True,
) -> ShardedSynapses:
    r"""Split synapses over the devices of a mesh by postsynaptic neuron, in equal shares.

    Parameters
    ----------
    synapses : Synapses
        The whole network, the same in every process; `from_parts` does without it.
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
    csc : bool, default True
        Whether to keep the CSC view, too. Without it a synapse takes 4 bytes in place of 12 (of 32-bit indices) in the
        end, though not while it is built. What reads the view then raises a TypeError: `update_on_post`, thus the steps
        of most rules, `propagate_on_post`, and of `local()` also `apply_on_post` and `hebbax.rewire_within`, and
        `split` and `from_parts` if they are given it.

    Returns
    -------
    ShardedSynapses
        A process keeps the parts of its own devices only.

    Raises
    ------
    TypeError
        `synapses` is not a `Synapses`, or traced; or `mesh` is not a mesh, or `csc` not a bool.
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
    indices, indptr, _ = map(np.asarray, csc_view(synapses, "split"))
    balanced = functools.partial(Layout.balanced, np.diff(indptr))
    where = _where(synapses.shape, mesh, axis, recurrent, pre, post, csc, balanced)
    starts = where.post.starts

    def columns(k: int) -> tuple[np.ndarray, np.ndarray]:
        return indptr[starts[k] : starts[k + 1] + 1], indices

    return _assembled(columns, np.diff(indptr[list(starts)].astype(np.int64)), where, synapses.nse)


def from_parts(
    part: Callable[[int, int], Any],
    shape: tuple[int, int],
    mesh: Mesh,
    axis: str | None = None,
    *,
    recurrent: bool = False,
    pre: Layout | None = None,
    post: Layout | None = None,
    csc: bool = True,
) -> Any:
    """Split synapses as `split` does, without the whole network: each process builds the parts of its own devices.

    All processes of the mesh call it together. What one of them keeps is its parts. While it builds, there is also what
    `part` returns and, of one shard at a time, what is made of that: about three times what parts take with both views.

    Parameters
    ----------
    part : callable
        `part(first, stop)` returns the synapses onto the postsynaptic neurons `first <= j < stop`, as a `Synapses` of
        the whole `shape`, in which others have none: what `Synapses.random(..., part=(first, stop))` returns, and
        `Synapses.from_coo` of a part of a list. Or it returns these and their weights, `(nse,)`, as `from_coo` does.
        It is called once for every shard of this process.
    shape : tuple of int
        `(n_pre, n_post)` of the whole network.
    mesh, axis, recurrent, pre, post, csc
        As in `split`, but that postsynaptic neurons too are shared out in equal numbers by default.

    Returns
    -------
    synapses : ShardedSynapses
    weight : Array or Quantity, shape (nse,)
        As `ShardedSynapses.split_weight` returns it, if `part` returns weights.

    Raises
    ------
    TypeError
        `part` returns something else, or not everywhere weights of the same dtype and unit, or none; or as `split`.
    ValueError
        A part has a synapse onto a neuron of another part; or as `split`.
    hebbax.errors.ShapeError
        A part is of another shape; or as `split`.
    RuntimeError
        `part` raised in another process: then all processes raise, and none waits.
    OverflowError
        As `split`.

    Examples
    --------
    >>> import hebbax, jax
    >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("devices",))
    >>> def part(first, stop):
    ...     return hebbax.Synapses.random((1000, 1000), indegree=100, autapses=False, seed=1, part=(first, stop))
    >>> sharded = hebbax.sharding.from_parts(part, (1000, 1000), mesh, recurrent=True)
    >>> sharded
    ShardedSynapses(shape=(1000, 1000), nse=100000, shards=1, room for 100000 each)
    >>> sharded.full(0.5).shape
    (100000,)
    """
    shape = check_options(shape, None)
    where = _where(shape, mesh, axis, recurrent, pre, post, csc, functools.partial(Layout.even, shape[1]))
    parts: dict[int, _Part] = {}
    failure: Exception | None = None
    try:
        for k in _own_shards(where):
            parts[k] = _checked(part, shape, *where.post.starts[k : k + 2])
    except Exception as error:  # raised below, when the other processes know
        failure = error
    sizes = _agreed(parts, where, failure)
    sharded = _assembled(lambda k: parts[k][:2], sizes, where, int(sizes.sum()))
    numbers, unit = next(iter(parts.values()))[2:]
    if numbers is None:
        return sharded
    room = sharded.nse // sharded.shards

    def weight(k: int) -> np.ndarray:
        return padded(np.asarray(parts[k].weight), room)

    return sharded, with_unit(place(mesh, where.axis, weight, (), room, numbers.dtype), unit)


class _Where(NamedTuple):
    """What goes where, and whether in both views."""

    mesh: Mesh
    axis: str
    pre: Layout
    post: Layout
    csc: bool


class _Part(NamedTuple):
    """The columns of a shard, and their weights in CSR order, if there are any."""

    indptr: np.ndarray
    indices: np.ndarray
    weight: Any
    unit: Any


def _where(
    shape: tuple[int, int], mesh: Mesh, axis: str | None, recurrent: bool, pre: Layout | None, post: Layout | None,
    csc: bool, layout: Callable[[int], Layout],
) -> _Where:  # fmt: skip
    """The arguments of `split`, checked; `layout` makes that of postsynaptic neurons where none is given."""
    connectivity.check_flag("csc", csc)
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: got {type(mesh).__name__}, expected a jax.sharding.Mesh")
    if axis is None and len(mesh.axis_names) == 1:
        axis = mesh.axis_names[0]
    if axis is None or axis not in mesh.axis_names:
        raise ValueError(
            f"axis: got {axis!r}, expected one of the mesh's axes, {', '.join(map(repr, mesh.axis_names))}"
        )
    if recurrent and shape[0] != shape[1]:
        raise ShapeError(f"recurrent: got synapses of shape {shape}, expected as many neurons on either side")
    if recurrent and pre is not None:
        raise ValueError("pre: got a layout, expected none where recurrent=True, which lays it out as post")
    shards = mesh.shape[axis]
    post = layout(shards) if post is None else post
    if pre is None:
        pre = post if recurrent else Layout.even(shape[0], shards)
    for name, given, n in (("pre", pre, shape[0]), ("post", post, shape[1])):
        if (given.n, given.shards) != (n, shards):
            got = f"a layout of {given.n} neurons on {given.shards} shards"
            raise ValueError(f"{name}: got {got}, expected {n} on {shards}")
    return _Where(mesh, axis, pre, post, csc)


def _own_shards(where: _Where) -> list[int]:
    """Those of the devices of this process."""
    sharding = NamedSharding(where.mesh, P(where.axis))
    indices = sharding.addressable_devices_indices_map((where.post.shards,)).values()
    return sorted({(index[0].start or 0) if index else 0 for index in indices})


def _checked(part: Callable[[int, int], Any], shape: tuple[int, int], first: int, stop: int) -> _Part:
    """What `part` returns of these neurons."""
    call, returned = f"part: got from part({first}, {stop})", part(first, stop)
    synapses, *weights = returned if isinstance(returned, tuple) else (returned,)
    if not isinstance(synapses, Synapses) or len(weights) > 1:
        raise TypeError(f"{call} {type(returned).__name__}, expected a hebbax.Synapses, or one and its weights")
    if synapses.shape != shape:
        raise ShapeError(f"{call} synapses of shape {synapses.shape}, expected {shape}, that of the whole network")
    indices, indptr, _ = map(np.asarray, csc_view(synapses, "from_parts: part"))
    if indptr[first] or indptr[stop] < indptr[-1]:
        degrees = np.diff(indptr)
        degrees[first:stop] = 0
        expected = f"expected {f'{first} to {stop - 1}' if stop > first else 'none'}"
        raise ValueError(f"{call} a synapse onto neuron {np.flatnonzero(degrees)[0]}, {expected}")
    numbers, unit = None, None
    if weights:
        numbers, unit = weight_numbers("part: weight", weights[0], (synapses.nse,))
        numbers = numbers[: int(indptr[-1])]  # without free places
    return _Part(indptr[first : stop + 1].copy(), indices, numbers, unit)


def _agreed(parts: dict[int, _Part], where: _Where, failure: Exception | None) -> np.ndarray:
    """The number of synapses of every shard, in all processes, or an error in all."""
    kinds = {f"{x.weight.dtype} {x.unit}" if x.weight is not None else "none" for x in parts.values()}
    known = np.zeros(where.post.shards + 3, np.int64)
    for k, part in parts.items():
        known[k] = part.indptr[-1]
    code = zlib.crc32("".join(kinds).encode()) % 2**31
    known[-3:] = code, len(kinds) > 1, failure is not None
    together = known[None]
    processes = len({device.process_index for device in where.mesh.devices.flat})
    if 1 < processes < jax.process_count():  # the others would be waited for
        raise ValueError(f"mesh: got devices of {processes} processes, expected one or all {jax.process_count()}")
    if processes > 1:
        together = multihost_utils.process_allgather(known.astype(jax.dtypes.canonicalize_dtype(known.dtype)))
    if failure is not None:
        raise failure
    if together[:, -1].any():
        raise RuntimeError(f"part: raised in process {together[:, -1].argmax()}, whose error says what")
    if together[:, -2].any() or np.unique(together[:, -3]).size > 1:
        got = f"got {' and '.join(sorted(kinds))}" + (" here" if len(kinds) == 1 else "")
        raise TypeError(f"part: {got} as weights, expected the same dtype and unit, or none, of every part")
    return together[:, :-3].max(axis=0).astype(np.int64)


def _assembled(
    columns: Callable[[int], tuple[np.ndarray, np.ndarray]], sizes: np.ndarray, where: _Where, count: int
) -> ShardedSynapses:
    """Synapses from the columns of each shard, the numbers of synapses of all, and the length of a whole weight."""
    mesh, axis, pre, post, csc = where
    size = max(1, int(sizes.max()))
    local_shape = pre.length, post.size
    dtype = connectivity.index_dtype(size, local_shape)
    places = pre.places.astype(dtype)
    lengths = dict(zip(CSR, (pre.length + 1, size), strict=True))
    lengths |= dict(zip(CSC, (post.size + 1, size, size), strict=True)) if csc else {}

    def shard(name: str, k: int) -> np.ndarray:
        return fields_of(k)[name]

    @functools.cache
    def fields_of(k: int) -> dict[str, np.ndarray]:
        values = part_of_columns(*columns(k), places, size, local_shape, csc)
        return {name: x.astype(dtype, copy=False) for name, x in zip(lengths, values, strict=True)}

    fields: dict[str, Any] = dict(dict.fromkeys(CSC), pre=pre, post=post, count=count, mesh=mesh, axis=axis)
    for name, n in lengths.items():
        fields[name] = place(mesh, axis, functools.partial(shard, name), (), n, dtype)
    return assemble(ShardedSynapses, fields)
