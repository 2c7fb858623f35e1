"""The structure of a network: which neuron connects to which, checked once, by row and by column."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from hebbax import operators
from hebbax._core import building, connectivity, drawing, matrices
from hebbax._core.any_rule import CAPACITY, apply_on
from hebbax._core.docs import documented
from hebbax._core.forks import check_jax
from hebbax._core.pytree import assemble, pytree
from hebbax._core.unitless import arithmetic_dtype, check_options
from hebbax.errors import ShapeError
from hebbax.operators import Plain, WithUnit

Integers: TypeAlias = jax.Array | np.ndarray | Sequence[int]


@pytree("shape")
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Synapses:
    r"""Who connects to whom: the nonzero pattern of the weight matrix `W`, of shape `(n_pre, n_post)`.

    It holds no weights: these stay ordinary arrays or Quantities of shape `(nse,)`, in CSR order (row by row, columns
    ascending). It is a frozen pytree: pass it to `jit`, close over it, pickle it.

    Parameters
    ----------
    indptr : array of int, shape (n_pre + 1,)
        Where each presynaptic neuron's synapses start; the last entry is `nse`.
    indices : array of int, shape (nse,)
        Postsynaptic neuron of every synapse. Rows that are not in ascending order are sorted, with a warning.
    shape : tuple of int
        `(n_pre, n_post)`.
    multapses : bool, default False
        Allow several synapses between the same two neurons, each with a weight of its own; in CSR order they keep the
        order in which they are given. Without it, they raise.

    Attributes
    ----------
    indptr, indices : Array
        As above. `hebbax.rewire_within` may leave free places behind the last row, which count in `nse`.
    csc_indptr, csc_indices : Array, shape (n_post + 1,) and (nse,)
        The same column by column: where each postsynaptic neuron's synapses start, and their presynaptic neurons.
    weight_indices : Array, shape (nse,)
        Position in CSR order of every synapse in CSC order. All three are None in a part of synapses that were split
        with `csc=False` (see `hebbax.sharding.split`).
    shape : tuple of int
        `(n_pre, n_post)`.

    Raises
    ------
    hebbax.errors.ShapeError
        An argument's rank or size does not fit (a ValueError and an AssertionError).
    TypeError
        An argument is not of integers, or it is traced: build `Synapses` outside `jit`.
    ValueError
        `indptr` descends, an index is out of range, or a synapse is there twice (and not `multapses`); with the
        position and value.
    OverflowError
        The numbers of neurons or synapses do not fit 32 bits, and JAX's x64 flag is off.

    Notes
    -----
    Index arrays are int32 where `nse`, `n_pre` and `n_post` fit that, else int64. Building takes time and memory
    linear in `nse`, on the host.

    Examples
    --------
    >>> import hebbax, jax.numpy as jnp
    >>> synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
    >>> synapses
    Synapses(shape=(2, 3), nse=4, 0.667 per pair, int32, 76 B)
    >>> weight = jnp.array([0.5, 0.25, 1.0, 0.125])
    >>> synapses.todense(weight)
    Array([[0.5  , 0.25 , 0.   ],
           [1.   , 0.   , 0.125]], dtype=float32)
    >>> synapses.update_on_post(weight, jnp.array([0.25, -0.25]), jnp.array([True, False, False]))
    Array([0.75 , 0.25 , 0.75 , 0.125], dtype=float32)
    """

    indptr: jax.Array
    indices: jax.Array
    csc_indptr: Any
    csc_indices: Any
    weight_indices: Any
    shape: tuple[int, int]

    def __init__(self, indptr: Integers, indices: Integers, *, shape: tuple[int, int], multapses: bool = False) -> None:
        connectivity.check_flag("multapses", multapses)
        shape = check_options(shape, None)
        post = connectivity.checked_ids("indices", indices, shape[1], shape)
        starts = connectivity.checked_indptr("indptr", indptr, shape[0], post.size, f" for shape {shape}")
        pre = np.repeat(np.arange(shape[0], dtype=post.dtype), np.diff(starts))
        order = connectivity.csr_order(pre, post, shape)
        sorted_post = post if order is None else post[order]
        if not multapses:
            connectivity.reject_duplicates(pre, sorted_post, order, connectivity.AGAIN_IN_INDICES)
        if order is not None:
            k = int(np.argmax((pre[1:] == pre[:-1]) & (post[1:] < post[:-1]))) + 1
            warnings.warn(
                f"indices[{k}]: got {post[k]} after {post[k - 1]} in row {pre[k]}; rows are sorted now, and weights "
                f"must follow the sorted order (Synapses.from_coo and Synapses.from_scipy reorder weights along, and "
                f"return the order with return_permutation=True)",
                stacklevel=2,
            )
        for name, value in building.both_views(starts, sorted_post, shape).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_coo(
        cls, pre: Integers, post: Integers, weight: WithUnit, *, shape: tuple[int, int], sum_duplicates: bool = False,
        multapses: bool = False, return_permutation: bool = False,
    ) -> tuple[Any, ...]:  # fmt: skip
        r"""Synapses from a list of them, in any order, with their weights.

        Parameters
        ----------
        pre, post : array of int, shape (nse,)
            Presynaptic and postsynaptic neuron of every synapse.
        weight : Array or Quantity, shape (nse,)
            Weight of every synapse, float16, bfloat16, float32 or float64.
        shape : tuple of int
            `(n_pre, n_post)`.
        sum_duplicates : bool, default False
            Make one synapse of those between the same pair, by adding their weights.
        multapses : bool, default False
            Keep all of them. Without either, such a pair raises.
        return_permutation : bool, default False
            Also return the order of the synapses, for other arrays that go with the list (not with `sum_duplicates`).

        Returns
        -------
        synapses : Synapses
        weight : Array or Quantity, shape (nse,)
            The weight in CSR order, with its dtype (as JAX keeps it), unit and device.
        permutation : Array, shape (nse,), integer
            Position in the list of every synapse in CSR order, for `Synapses.reorder`. Synapses between the same two
            neurons keep the order of the list.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, ValueError, OverflowError
            As the class; a TypeError also where the dtype of `weight` does not fit.

        Notes
        -----
        .. math:: w_{ij} = \sum_{k:\, pre_k = i,\, post_k = j} weight_k

        Weights of 16 bits are added in float32 and rounded once.

        Examples
        --------
        >>> import hebbax, jax.numpy as jnp
        >>> synapses, weight = hebbax.Synapses.from_coo([1, 0, 1], [0, 1, 2], jnp.array([0.5, 0.25, 1.0]), shape=(2, 3))
        >>> weight
        Array([0.25, 0.5 , 1.  ], dtype=float32)
        >>> synapses, weight, permutation = hebbax.Synapses.from_coo(
        ...     [1, 0, 1], [0, 1, 0], weight, shape=(2, 3), multapses=True, return_permutation=True
        ... )
        >>> permutation
        Array([1, 0, 2], dtype=int32)
        """
        shape = check_options(shape, None)
        rows = connectivity.checked_ids("pre", pre, shape[0], shape)
        columns = connectivity.checked_ids("post", post, shape[1], shape)
        if rows.size != columns.size:
            raise ShapeError(f"post: got shape {columns.shape}, expected {rows.shape}, as pre has")
        numbers, unit = building.weight_numbers("weight", weight, rows.shape)
        listed = building.Listed(rows, columns, numbers, shape, connectivity.AGAIN_IN_COO)
        return cls._from_list(listed, unit, sum_duplicates, multapses, return_permutation)

    @classmethod
    def _from_list(
        cls, listed: building.Listed, unit: Any, sum_duplicates: bool, multapses: bool, return_permutation: bool
    ) -> tuple[Any, ...]:
        views, numbers, permutation = building.from_list(
            listed, sum_duplicates=sum_duplicates, multapses=multapses, return_permutation=return_permutation
        )
        built = assemble(cls, views), building.with_unit(numbers, unit)
        return (*built, permutation) if return_permutation else built

    @classmethod
    @documented
    def from_scipy(
        cls, matrix: Any, *, sum_duplicates: bool = False, multapses: bool = False, return_permutation: bool = False
    ) -> tuple[Any, ...]:
        """Synapses and weights from a sparse matrix or array of SciPy, of any format.

        Parameters
        ----------
        matrix : scipy.sparse array or matrix, shape (n_pre, n_post)
            Every stored element is a synapse, also one whose value is zero (in DIA format, every nonzero element).
        {several_in_a_place}

        Returns
        -------
        synapses : Synapses
        weight : Array, shape (nse,)
            The stored values in CSR order; float64 becomes float32 unless JAX's x64 flag is on.
        permutation : Array, shape (nse,), integer
            Position in `matrix.tocoo().data` of every synapse in CSR order, for `Synapses.reorder`. In the formats CSR,
            CSC and COO that is the position in `matrix.data`.

        Raises
        ------
        {matrix_raises}

        Examples
        --------
        >>> import hebbax, numpy as np, scipy.sparse
        >>> matrix = scipy.sparse.csc_array(np.float32([[0.0, 0.5], [1.0, 0.25]]))
        >>> synapses, weight = hebbax.Synapses.from_scipy(matrix)
        >>> synapses.indices, weight
        (Array([1, 0, 1], dtype=int32), Array([0.5 , 1.  , 0.25], dtype=float32))
        """
        return cls._from_list(*matrices.of_scipy(matrix), sum_duplicates, multapses, return_permutation)

    @classmethod
    @documented
    def from_bcoo(
        cls, matrix: Any, *, sum_duplicates: bool = False, multapses: bool = False, return_permutation: bool = False
    ) -> tuple[Any, ...]:
        """Synapses and weights from a sparse matrix of JAX in COO format.

        Parameters
        ----------
        matrix : jax.experimental.sparse.BCOO, shape (n_pre, n_post)
            With no batch and no dense dimensions. Every stored element is a synapse, also one whose value is zero, but
            for padding, which is left out with its values: as JAX has it, an element beyond the shape on either side.
        {several_in_a_place}

        Returns
        -------
        {matrix_returns}

        Raises
        ------
        {matrix_raises}

        Examples
        --------
        >>> import hebbax, jax.numpy as jnp
        >>> from jax.experimental.sparse import BCOO
        >>> matrix = BCOO.fromdense(jnp.array([[0.0, 0.5], [1.0, 0.25]]), nse=5)
        >>> synapses, weight = hebbax.Synapses.from_bcoo(matrix)
        >>> synapses.indices, weight
        (Array([1, 0, 1], dtype=int32), Array([0.5 , 1.  , 0.25], dtype=float32))
        """
        return cls._from_list(*matrices.of_bcoo(matrix), sum_duplicates, multapses, return_permutation)

    @classmethod
    @documented
    def from_bcsr(
        cls, matrix: Any, *, sum_duplicates: bool = False, multapses: bool = False, return_permutation: bool = False
    ) -> tuple[Any, ...]:
        """Synapses and weights from a sparse matrix of JAX in CSR format.

        Parameters
        ----------
        matrix : jax.experimental.sparse.BCSR, shape (n_pre, n_post)
            As in `from_bcoo`; what is stored behind the last row is padding too.
        {several_in_a_place}

        Returns
        -------
        {matrix_returns}

        Raises
        ------
        {matrix_raises}

        Examples
        --------
        >>> import hebbax, jax.numpy as jnp
        >>> from jax.experimental.sparse import BCSR
        >>> matrix = BCSR.fromdense(jnp.array([[0.0, 0.5], [1.0, 0.25]]))
        >>> synapses, weight = hebbax.Synapses.from_bcsr(matrix)
        >>> synapses.indices, weight
        (Array([1, 0, 1], dtype=int32), Array([0.5 , 1.  , 0.25], dtype=float32))
        """
        return cls._from_list(*matrices.of_bcsr(matrix), sum_duplicates, multapses, return_permutation)

    @classmethod
    @documented
    def from_brainevent(
        cls, matrix: Any, *, sum_duplicates: bool = False, multapses: bool = False, return_permutation: bool = False
    ) -> tuple[Any, ...]:
        """Synapses and weights from a sparse matrix of brainevent.

        Parameters
        ----------
        matrix : brainevent.CSR or brainevent.CSC, shape (n_pre, n_post)
            Every stored element is a synapse, also one whose value is zero. It is told by what its class is called and
            by `data`, `indices`, `indptr` and `shape`, so that brainunit's do too. One value for all elements is
            returned as it is, a weight that all synapses share: `propagate_on_pre` and `propagate_on_post` take it so,
            updates take one for each, `jnp.full(synapses.nse, weight)`.
        {several_in_a_place}

        Returns
        -------
        {matrix_returns}

        Raises
        ------
        {matrix_raises}

        Examples
        --------
        >>> from brainunit.sparse import CSR  # or from brainevent
        >>> import hebbax, jax.numpy as jnp
        >>> matrix = CSR((jnp.array([0.5, 1.0, 0.25]), jnp.array([1, 0, 1]), jnp.array([0, 1, 3])), shape=(2, 2))
        >>> synapses, weight = hebbax.Synapses.from_brainevent(matrix)
        >>> synapses.indices, weight
        (Array([1, 0, 1], dtype=int32), Array([0.5 , 1.  , 0.25], dtype=float32))
        """
        listed, unit = matrices.of_compressed(matrix)
        built = cls._from_list(listed, unit, sum_duplicates, multapses, return_permutation)
        return built if listed.numbers is not None else (built[0], matrix.data, *built[2:])

    @classmethod
    def from_dense(cls, W: WithUnit) -> tuple[Synapses, Any]:
        """Synapses and weights from a dense matrix.

        Parameters
        ----------
        W : Array or Quantity, shape (n_pre, n_post)
            Weight matrix, float16, bfloat16, float32 or float64; every nonzero element, NaN too, is a synapse.

        Returns
        -------
        synapses : Synapses
        weight : Array or Quantity, shape (nse,)
            The nonzero elements in CSR order, with the dtype (as JAX keeps it), unit and device of `W`.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, OverflowError
            As the class; a TypeError also where the dtype of `W` does not fit.

        Examples
        --------
        >>> import brainunit as u, hebbax, numpy as np
        >>> synapses, weight = hebbax.Synapses.from_dense(np.float32([[0.0, 0.5], [1.0, 0.25]]) * u.nS)
        >>> synapses.indptr, weight.mantissa
        (Array([0, 1, 3], dtype=int32), Array([0.5 , 1.  , 0.25], dtype=float32))
        """
        numbers, unit = building.weight_numbers("W", W, None)
        if numbers.ndim != 2:
            raise ShapeError(f"W: got shape {numbers.shape}, expected two dimensions")
        if isinstance(numbers, jax.core.Tracer):
            raise TypeError("W: got a traced array, expected a concrete one: build Synapses outside jit")
        pre, post = np.nonzero(np.asarray(numbers) != 0)
        views = building.both_views(connectivity.row_starts(pre, numbers.shape[0]), post, numbers.shape)
        return assemble(cls, views), building.with_unit(jnp.array(numbers[pre, post]), unit)

    @classmethod
    def random(
        cls, shape: tuple[int, int], *, prob: float | None = None, indegree: int | None = None,
        outdegree: int | None = None, autapses: bool = True, multapses: bool = False,
        seed: int | np.random.Generator = 0, pre: Integers | None = None, post: Integers | None = None,
        part: tuple[int, int] | None = None,
    ) -> Synapses:  # fmt: skip
        r"""Random synapses by exactly one of three rules, at most one between any pair unless `multapses`.

        Parameters
        ----------
        shape : tuple of int
            `(n_pre, n_post)`.
        prob : float, optional
            Probability with which each pair is connected, independently of the others.
        indegree : int, optional
            Number of synapses onto each postsynaptic neuron, from distinct neurons that are drawn uniformly.
        outdegree : int, optional
            Number of synapses from each presynaptic neuron, onto distinct neurons that are drawn uniformly.
        autapses : bool, default True
            Whether neuron `i` may connect to neuron `i`, as where both sides are the same population.
        multapses : bool, default False
            Draw the neurons of a degree independently of each other, not distinct ones: what NEST's rules
            'fixed_indegree' and 'fixed_outdegree' do by default. Not with `prob`.
        seed : int or numpy.random.Generator, default 0
            The same seed gives the same synapses; a Generator is advanced.
        pre, post : array of int, optional
            The neurons to connect, by default all: each once, in ascending order. Degrees are of these.
        part : tuple of int, optional
            `(first, stop)`: of all these synapses draw those onto the postsynaptic neurons `first <= j < stop` only,
            for `hebbax.sharding.from_parts`. Parts of one seed are those of one network. Their cost is their own, but
            for at most 2^19 synapses at their ends, in memory always; in time, with `outdegree`, that of the network,
            since each neuron's targets are drawn together.

        Returns
        -------
        Synapses

        Raises
        ------
        TypeError
            Not exactly one rule, or an argument of another type.
        ValueError
            A probability outside [0, 1], one with `multapses`, a degree that is negative or, without them, larger
            than the number of candidates, or a part that is not one.

        Notes
        -----
        With `prob`, the pairs are run through neuron by neuron in steps of geometrically distributed length,

        .. math:: P(\Delta = d) = p (1 - p)^{d - 1}, \quad d = 1, 2, \ldots

        so that the cost is that of the synapses, as in Batagelj & Brandes (2005), Physical Review E 71:036113,
        doi:10.1103/PhysRevE.71.036113. With a degree, every set of so many candidates is equally probable, or, with
        `multapses`, every sequence of them. What is drawn for a neuron, postsynaptic unless by `outdegree`, depends on
        the seed, its number, the candidates and the rule, and not on which others are drawn for: random numbers are
        those of NumPy's Philox-4x64, a stream for every few neurons.

        Examples
        --------
        >>> import hebbax
        >>> hebbax.Synapses.random((1000, 1000), outdegree=100, autapses=False)
        Synapses(shape=(1000, 1000), nse=100000, 0.1 per pair, int32, 1.2 MB)
        >>> hebbax.Synapses.random((1_000_000, 1_000_000), indegree=1000, part=(0, 100)).nse
        100000
        """
        shape = check_options(shape, None)
        drawn = drawing.random(shape, prob, indegree, outdegree, autapses, seed, multapses, pre, post, part)
        starts, indices, by_column = drawn
        return assemble(cls, building.both_views(starts, indices, shape, by_column))

    @property
    def nse(self) -> int:
        """Number of synapses ("number of specified elements")."""
        return self.indices.size

    @property
    def n_pre(self) -> int:
        """Number of presynaptic neurons."""
        return self.shape[0]

    @property
    def n_post(self) -> int:
        """Number of postsynaptic neurons."""
        return self.shape[1]

    def __repr__(self) -> str:
        try:
            size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self))
            pairs = self.n_pre * self.n_post
            share = f", {self.nse / pairs:.3g} per pair" if pairs else ""
            memory = f"{_in_bytes(size)}{building.without_csc_view(self)}"
            return f"Synapses(shape={self.shape}, nse={self.nse}{share}, {self.indices.dtype}, {memory})"
        except (AttributeError, TypeError):  # JAX, or a function in `jax.tree.map`, put other things there than arrays
            return f"Synapses({', '.join(f'{name}={x!r}' for name, x in vars(self).items())})"

    def reorder(self, x: Any, permutation: Integers) -> Any:
        """Put an array that goes with a list of synapses into CSR order, that of `Synapses` and of weights.

        Parameters
        ----------
        x : array of any dtype or Quantity, shape (..., nse)
            One entry per synapse in the last axis: delays, ids, masks.
        permutation : array of int, shape (nse,)
            From `from_coo` or `from_scipy`. With `weight_indices` instead, from CSR order into CSC order.

        Returns
        -------
        Array or Quantity, shape (..., nse)
            A JAX array if `x` is one, or if `permutation` is traced; else of NumPy, so that 64 bits stay.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, ValueError
            A shape does not fit, or `permutation` is not one (where it is traced, its values are not looked at).

        Examples
        --------
        >>> import brainunit as u, hebbax, numpy as np
        >>> synapses, weight, permutation = hebbax.Synapses.from_coo(
        ...     [1, 0, 1], [0, 1, 2], np.float32([0.5, 0.25, 1.0]), shape=(2, 3), return_permutation=True
        ... )
        >>> delay = synapses.reorder(np.array([3, 1, 2]) * u.ms, permutation)
        >>> delay.mantissa
        array([1, 3, 2])
        >>> synapses.restore(delay, permutation).mantissa
        array([3, 1, 2])
        """
        return building.reordered(x, permutation, self.nse, back=False)

    def restore(self, x: Any, permutation: Integers) -> Any:
        """Put an array from CSR order back into that of the list: the inverse of `reorder`, with its arguments."""
        return building.reordered(x, permutation, self.nse, back=True)

    def update_on_pre(
        self, weight: WithUnit, pre_spike: Plain, post_trace: WithUnit, w_min: WithUnit | None = None,
        w_max: WithUnit | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Call `hebbax.update_csr_on_binary_pre` with this structure; `options` are its keywords."""
        return operators.update_csr_on_binary_pre(
            weight, self.indices, self.indptr, pre_spike, post_trace, w_min, w_max, shape=self.shape, **options
        )

    def update_on_post(
        self, weight: WithUnit, pre_trace: WithUnit, post_spike: Plain, w_min: WithUnit | None = None,
        w_max: WithUnit | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Call `hebbax.update_csr_on_binary_post` with this structure; `options` are its keywords."""
        columns = building.csc_view(self, "update_on_post")
        return operators.update_csr_on_binary_post(
            weight, *columns, pre_trace, post_spike, w_min, w_max, shape=self.shape, **options
        )

    def propagate_on_pre(self, weight: WithUnit, pre_spike: Plain, **options: Any) -> Any:
        """Call `hebbax.propagate_csr_on_binary_pre` (`spike @ W`) with this structure; `options` are its keywords.

        `weight` may be one that all synapses share, as there.
        """
        return operators.propagate_csr_on_binary_pre(
            weight, self.indices, self.indptr, pre_spike, shape=self.shape, **options
        )

    def propagate_on_post(self, weight: WithUnit, post_spike: Plain, **options: Any) -> Any:
        """Call `hebbax.propagate_csr_on_binary_post` (`W @ spike`) with this structure; `options` are its keywords.

        `weight` may be one that all synapses share, as there.
        """
        columns = building.csc_view(self, "propagate_on_post")
        return operators.propagate_csr_on_binary_post(weight, *columns, post_spike, shape=self.shape, **options)

    def apply_on_pre(
        self, function: Callable, per_synapse: Any, pre_spike: Plain, *, pre: Any = None, post: Any = None,
        capacity: int = CAPACITY, after: Any = None,
    ) -> Any:  # fmt: skip
        r"""Apply a function of one synapse to all synapses from the neurons that spike: any rule, at its events' cost.

        Parameters
        ----------
        function : callable
            `function(synapse, pre, post)` takes the values of one synapse, of its presynaptic and of its postsynaptic
            neuron, without the first dimension, and returns the new ones of the synapse. JAX traces it; it may close
            over arrays. What it returns as it got it, bounds say, is only read.
        per_synapse : pytree of arrays or Quantities, shape (nse, ...)
            Weights and whatever else there is of each synapse, in CSR order, of any dtypes.
        pre_spike : Array, shape (n_pre,), bool or real
            Whether each presynaptic neuron spikes.
        pre, post : pytree of arrays or Quantities, shape (n_pre, ...) and (n_post, ...), optional
            What `function` is to know of the neurons.
        capacity : int
            Synapses that are looked at together; however many there are, all are. A step costs a whole number of times
            so many.
        after : pytree of arrays, optional
            What was computed from `per_synapse` in the same step, `propagate_on_pre` say: with it, XLA need not copy
            all values so as to have the old ones for that.

        Returns
        -------
        pytree
            As `per_synapse`, cast to the same dtypes, in the same units; changed in place where XLA allows it.

        Raises
        ------
        hebbax.errors.ShapeError, TypeError, ValueError, brainunit.UnitMismatchError
            A shape does not fit, `function` returns something else than it takes, or `capacity` is not positive.

        Notes
        -----
        .. math:: s_{ij} \leftarrow f(s_{ij}, x_i, y_j) \quad \text{for all } i \text{ that spike}

        The derivative is the first, forwards or backwards, also in what `function` closes over, but not in spikes; a
        backward pass keeps the old values. 16-bit values are computed with as `function` does. Under `vmap` the members
        run one after the other. Outside `jit` each call compiles anew.

        Examples
        --------
        Depression by the postsynaptic trace, of each synapse as it has not been used for a while:

        >>> import hebbax, jax.numpy as jnp
        >>> synapses = hebbax.Synapses([0, 2, 4], [0, 1, 0, 2], shape=(2, 3))
        >>> def depress(synapse, since, trace):
        ...     weight, uses = synapse
        ...     return weight - trace * since / (1 + uses), uses + 1
        >>> state = jnp.array([0.5, 0.25, 1.0, 0.125]), jnp.array([0, 1, 1, 0])
        >>> since, trace = jnp.array([1.0, 0.5]), jnp.array([0.25, 0.5, 0.0])
        >>> synapses.apply_on_pre(depress, state, jnp.array([True, False]), pre=since, post=trace)
        (Array([0.25 , 0.   , 1.   , 0.125], dtype=float32), Array([1, 2, 1, 0], dtype=int32))
        """
        return apply_on("pre", self, function, per_synapse, pre_spike, pre, post, capacity, after)

    def apply_on_post(
        self, function: Callable, per_synapse: Any, post_spike: Plain, *, pre: Any = None, post: Any = None,
        capacity: int = CAPACITY, after: Any = None,
    ) -> Any:  # fmt: skip
        """Apply a function of one synapse to all synapses onto the neurons that spike, as `apply_on_pre` does."""
        return apply_on("post", self, function, per_synapse, post_spike, pre, post, capacity, after)

    def todense(self, weight: WithUnit) -> Any:
        """Return `W` as a dense array with the dtype and unit of `weight`: sums, 0 where there is no synapse."""
        check_jax()
        numbers, unit = building.weight_numbers("weight", weight, self.indices.shape)
        numbers = jnp.asarray(numbers)
        wide = numbers.astype(arithmetic_dtype(numbers.dtype))  # sums are rounded once
        rows = jnp.arange(self.n_pre + 1, dtype=self.indices.dtype)  # the last one has the free places, and is none
        ends = jnp.concatenate([self.indptr, jnp.full(1, self.nse, self.indptr.dtype)])
        pre = jnp.repeat(rows, jnp.diff(ends), total_repeat_length=self.nse)
        dense = jnp.zeros(self.shape, wide.dtype).at[pre, self.indices].add(wide, mode="drop")
        return building.with_unit(dense.astype(numbers.dtype), unit)

    def to_scipy(self, weight: Plain) -> scipy.sparse.csr_array:
        """Return `W` as a SciPy CSR array on the host; weights of 16 bits, which SciPy lacks, become float32.

        Every synapse is a stored element, also where there are several between the same two neurons: SciPy takes the
        sum of these, as in `toarray`, and `sum_duplicates` makes one of them.
        """
        numbers, unit = building.weight_numbers("weight", weight, self.indices.shape)
        if unit is not None:
            raise TypeError(
                f"weight: got a Quantity of unit {unit}, expected plain numbers, since SciPy has no units: "
                f"pass weight.to(unit).mantissa"
            )
        if isinstance(numbers, jax.core.Tracer):
            raise TypeError("weight: got a traced array, expected a concrete one: call to_scipy outside jit")
        data = np.array(numbers, arithmetic_dtype(numbers.dtype))
        return scipy.sparse.csr_array((data, np.array(self.indices), np.array(self.indptr)), shape=self.shape)


def _in_bytes(size: float) -> str:
    if size < 1000:
        return f"{size} B"
    power = min(int(math.log10(size) / 3), 4)
    return f"{size / 1000**power:.1f} {'kMGT'[power - 1]}B"
