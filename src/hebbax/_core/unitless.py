"""The operators on plain arrays, without units: checks of what they are given, and one of the primitives."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hebbax import _cpu
from hebbax._core import forks, lowering
from hebbax._core.compat import enable_x64
from hebbax._core.foreign import array_of
from hebbax._core.primitives import bind, propagate_p, update_p
from hebbax._core.sent import SpikeLists
from hebbax._core.specs import (
    CSC_SPECS,
    PROPAGATE_POST,
    PROPAGATE_PRE,
    SPECS,
    STRUCTURE,
    UPDATE_POST,
    UPDATE_PRE,
    Sent,
    Spec,
)
from hebbax.errors import ShapeError

MOST_NEURONS = 2**48  # of which no memory holds an array; of one whose bytes int64 does not count, XLA ends the process
_INT32_MAX = np.iinfo(np.int32).max
WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64")


def arithmetic_dtype(weight_dtype) -> np.dtype:
    """The dtype that weights of `weight_dtype` are added in."""
    return np.dtype(np.float64 if weight_dtype == np.float64 else np.float32)


class Operator:
    """One operator on plain arrays, without units: what checks operands, settles dtypes and binds the primitive.

    Called like the public function of the same name. `propagate` returns the dtype it sums in, float32 for 16-bit
    weights.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self.name = spec.name

    def __repr__(self) -> str:
        return f"<hebbax operator {self.name}>"

    def __call__(self, *arguments, shape: tuple[int, int], backend: str | None = None, **optional) -> jax.Array:
        spec = self.spec
        options = {name: optional.pop(name) for name in UPDATE_OPTIONS if spec.kind == "update" and name in optional}
        given = _name_arguments(spec, arguments, optional)
        after = arrays_of("after", given.pop("after", None))
        shape = check_options(shape, backend)
        given = {
            name: x if isinstance(x, jax.Array) else jnp.asarray(check_host_array(spec.public_name(name), x))
            for name, x in given.items()
            if x is not None
        }
        check_dtypes(spec, given)
        check_shapes(spec, given, shape)
        operands = _settle_dtypes(spec, given)
        if spec.kind == "propagate":
            return bind(propagate_p, *operands, spec=spec, n_out=spec.sizes(shape)[1], backend=backend)
        options = check_update_options(given.keys(), **options)
        return bind(update_p, *operands, *map(jnp.asarray, after), spec=spec, backend=backend, **options)

    def available_backends(self, platform: str) -> tuple[str, ...]:
        """Return the names of the backends that can run on `platform` ('cpu', 'gpu', ...), best first."""
        return lowering.available_backends(platform)

    def set_default(self, platform: str, backend: str) -> None:
        """Make `backend` the automatic choice on `platform`, also in functions that are already compiled."""
        lowering.set_default(self.spec, platform, backend)


UPDATE_OPTIONS = ("weight_in_bounds", "soft_bound", "mu")


def check_update_options(
    given: Collection[str], weight_in_bounds: bool = False, soft_bound: str | None = None, mu: float = 1.0
) -> dict[str, Any]:
    """Return the options of `update_p`, where `given` names the operands that there are."""
    if not isinstance(weight_in_bounds, (bool, np.bool_)):
        raise TypeError(f"weight_in_bounds: got {weight_in_bounds!r}, expected True or False")
    if soft_bound not in (None, "upper", "lower"):
        raise ValueError(f"soft_bound: got {soft_bound!r}, expected None, 'upper' or 'lower'")
    check_mu("mu", mu)
    if soft_bound is None and mu != 1:
        raise ValueError(f"mu: got {mu}, expected 1 where soft_bound is None")
    own = "w_max" if soft_bound == "upper" else "w_min"
    if soft_bound and own not in given:
        raise ValueError(f"soft_bound: got {soft_bound!r} without {own}, expected that bound")
    clip_all = ("w_min" in given or "w_max" in given) and not weight_in_bounds
    soft_bound = soft_bound if mu else None  # a change times 1
    return dict(clip_all=clip_all, soft_bound=soft_bound, mu=float(mu) if soft_bound else 1.0)


def check_mu(name: str, mu: Any) -> None:
    if not isinstance(mu, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: got {type(mu).__name__}, expected a number, from Python or NumPy (it is compiled in)")
    if not 0 <= mu < math.inf:
        raise ValueError(f"{name}: got {mu}, expected a finite number of at least 0")


def _name_arguments(spec: Spec, arguments: tuple, optional: dict[str, Any]) -> dict[str, Any]:
    """The operands by name, as Python would match a call of the public function."""
    names = spec.arguments + spec.bounds
    if len(arguments) > len(names):
        raise TypeError(f"{spec.name}() takes {len(names)} positional arguments, but got {len(arguments)}")
    named = dict(zip(names, arguments, strict=False))
    operand_of = {spec.public_name(name): name for name in spec.parameters}
    for name, value in optional.items():
        if name not in operand_of:
            raise TypeError(f"{spec.name}() got an unexpected argument {name!r}")
        if operand_of[name] in named:
            raise TypeError(f"{spec.name}() got several values for argument {name!r}")
        named[operand_of[name]] = value
    missing = [spec.public_name(name) for name in spec.arguments if named.get(name) is None]
    if missing:
        raise TypeError(f"{spec.name}() lacks {', '.join(missing)}")
    return named


def check_options(shape, backend: str | None) -> tuple[int, int]:
    """Return `shape` as two Python ints; raise unless it is that, `backend` names a backend, and JAX can run."""
    forks.check_jax()
    if backend is not None:
        lowering.check_backend(backend)
    return check_shape(shape)


def check_shape(shape) -> tuple[int, int]:
    """Return `shape` as two Python ints; raise unless it is that."""
    try:
        n_pre, n_post = map(operator.index, shape)
    except (TypeError, ValueError):
        n_pre = n_post = -1
    if n_pre < 0 or n_post < 0:
        raise ShapeError(f"shape: got {shape!r}, expected (n_pre, n_post), two integers >= 0")
    if max(n_pre, n_post) > MOST_NEURONS:
        raise ShapeError(f"shape: got {shape!r}, expected at most 2**48 neurons on either side")
    return n_pre, n_post


def check_host_array(name: str, x):
    """Return `x`, which is not a JAX array, as JAX may take it: integers that JAX would truncate are narrowed.

    What speaks DLPack is taken without a copy where JAX can use its memory as it is. Events are their spikes.
    """
    if isinstance(x, (bool, int, float)):
        return x
    found = array_of(name, x)
    if found is not x:
        return found if isinstance(found, jax.Array) else check_host_array(name, found)
    narrowed = None
    if in_host_memory(name, x):
        host = host_array(name, x)
        narrowed = _narrow(name, host.astype(host.dtype.newbyteorder("="), copy=False))
        if narrowed is not host or isinstance(x, (np.ndarray, np.generic)) or not _is_like_jax(host):
            return narrowed
    if narrowed is not None and jax.default_backend() != "cpu":
        return narrowed  # as of NumPy: JAX would keep what it shares where it lies, and run on the CPU
    try:
        with enable_x64(True):  # or 64-bit integers would be truncated right here
            shared = jax.dlpack.from_dlpack(x)
    except Exception as error:  # whatever its library, or JAX, raises
        if narrowed is not None:  # JAX takes fewer layouts and devices than there are, and the more, the newer it is
            return narrowed
        raise TypeError(f"{name}: got {type(x).__name__}, which JAX cannot take: {error}") from error
    return shared if jax.dtypes.canonicalize_dtype(shared.dtype) == shared.dtype else _narrow(name, np.asarray(shared))


def arrays_of(name: str, tree: Any) -> list[Any]:
    """The arrays of a pytree, as JAX may take them; a Quantity is its numbers, and numbers of Python are left out."""
    leaves = [x for x in jax.tree.leaves(tree) if not isinstance(x, (bool, int, float, complex))]
    return [x if isinstance(x, jax.Array) else check_host_array(name, x) for x in leaves]


def _is_like_jax(x: np.ndarray) -> bool:
    """Whether JAX can use this memory on a CPU, where it wants 64 bytes aligned, without a change of dtype."""
    return x.flags.c_contiguous and x.ctypes.data % 64 == 0 and jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype


def in_host_memory(name: str, x) -> bool:
    """Whether `x`, not a number, lies where the CPU can read it; raises if it is no array at all."""
    if isinstance(x, (np.ndarray, np.generic)):
        return True
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(f"{name}: got {type(x).__name__}, expected an array or a real number")
    return _cpu.can_view(x)


def host_array(name: str, x) -> np.ndarray:
    """The memory of an array in the host's memory, as NumPy's, of a dtype that JAX knows; nothing is copied."""
    if isinstance(x, (np.ndarray, np.generic)):
        x = np.asarray(x)
    else:
        try:
            x = _cpu.view(x)
        except Exception as error:  # whatever its library raises
            raise TypeError(f"{name}: got {type(x).__name__}, which does not share its memory: {error}") from error
    widest = {"f": 8, "c": 16}.get(x.dtype.kind, 8)
    numeric = x.dtype.kind in "biufc" or jnp.issubdtype(x.dtype, jnp.floating)  # bfloat16 has a kind of its own
    if not numeric or x.dtype.itemsize > widest:
        raise TypeError(f"{name}: got dtype {x.dtype}, expected one that JAX knows")
    return x


def _narrow(name: str, x: np.ndarray) -> np.ndarray:
    """`x` in the dtype it will have in JAX; raises where integers do not fit that, which JAX would truncate."""
    if x.dtype.kind not in "iu":
        return x
    dtype = index_dtype(x.dtype) if name in STRUCTURE else jax.dtypes.canonicalize_dtype(x.dtype)
    if dtype == x.dtype:
        return x
    if x.size and not np.iinfo(dtype).min <= x.min() <= x.max() <= np.iinfo(dtype).max:
        raise OverflowError(
            f"{name}: got {x.dtype} values from {x.min()} to {x.max()}, which do not fit {dtype}; "
            f"set the jax_enable_x64 flag to keep 64-bit integers"
        )
    return x.astype(dtype)


def check_dtypes(spec: Spec, given: dict[str, Any]) -> None:
    for operand, x in given.items():
        if expected := expected_instead(operand, x.dtype):
            raise TypeError(f"{spec.public_name(operand)}: got dtype {x.dtype}, expected {expected}")


@functools.lru_cache(maxsize=256)
def expected_instead(operand: str, dtype: Any) -> str | None:
    """What an operand should be where this dtype is not among it."""
    if operand == "weight":
        ok, expected = str(dtype) in WEIGHT_DTYPES, f"one of {', '.join(WEIGHT_DTYPES)}"
    elif operand in STRUCTURE:
        ok, expected = jnp.issubdtype(dtype, jnp.integer), "an integer dtype"
    else:
        ok = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, bool)
        expected = "a real dtype"
    return None if ok else expected


def check_shapes(spec: Spec, given: dict[str, Any], shape: tuple[int, int], vmaps: bool = True) -> None:
    nse = given["indices"].size
    n_event, n_other = spec.sizes(shape)
    other = "pre" if spec.event == "post" else "post"
    for named, largest, many in (
        ("indptr", nse, f"{nse} synapses"),
        ("weight_indices", nse - 1, f"{nse} synapses"),
        ("indices", n_other - 1, f"{n_other} {other}synaptic neurons"),
    ):
        if largest > _INT32_MAX and named in given:
            check_can_name(named, given[named].dtype, largest, many, in_jax=vmaps)
    weight = given["weight"].shape
    is_shared = spec.kind == "propagate" and weight in ((), (1,))
    if spec.kind == "update" and math.prod(weight) == 1 and nse > 1:
        raise ShapeError(
            f"weight: got one (homogeneous) weight for {nse} synapses, expected per-synapse weights, shape ({nse},)"
        )
    expected = {
        "indices": (nse,), "weight": weight if is_shared else (nse,), "weight_indices": (nse,),
        "indptr": (n_event + 1,), "spike": (n_event,), "trace": (n_other,),
    }  # fmt: skip
    if isinstance(spec.arrivals, Sent):
        del expected["spike"]
        if spec.arrivals.n != n_event:
            got = f"lists of {spec.arrivals.n} neurons"
            raise ShapeError(f"{spec.public_name('spike')}: got {got}, expected {n_event} for shape {shape}")
    elif spec.arrivals:  # whose caller has made both of these
        del expected["spike"], expected["trace"]
    for operand, want in expected.items():
        if operand in given and given[operand].shape != want:
            what = dict.fromkeys(("spike", "trace", "indptr"), f" for shape {shape}")
            if spec.kind == "propagate":
                what["weight"] = ", or a scalar or (1,) that all synapses share"
            name, got = spec.public_name(operand), given[operand].shape
            batch = for_a_batch(got) if vmaps and operand in ("spike", "trace") else ""
            raise ShapeError(f"{name}: got shape {got}, expected {want}{what.get(operand, '')}{batch}")
    for operand, size in {"w_min": nse, "w_max": nse, "gain": n_event}.items():
        if operand in given and given[operand].shape not in ((), (size,)):
            raise ShapeError(f"{operand}: got shape {given[operand].shape}, expected a scalar or ({size},)")


def check_can_name(name: str, dtype: Any, largest: int, what: str, in_jax: bool = True) -> None:
    """Raise where indices that are kept in the dtype for this one cannot be as large as those of so many."""
    kept = index_dtype(dtype) if in_jax else _common_index_dtype(dtype)
    if largest > np.iinfo(kept).max:
        hint = "; JAX has it with its jax_enable_x64 flag" if in_jax else ""
        raise OverflowError(f"{name}: got dtype {dtype} for {what}, expected int64{hint}")


def spikes_of(name: str, spike: Any, size: int | None = None) -> jax.Array:
    """Whether each neuron spikes, as bool; raise where they are not so many."""
    if isinstance(spike, SpikeLists):
        spike = spike.todense()
    spike = jnp.asarray(spike if isinstance(spike, jax.Array) else check_host_array(name, spike))
    if expected := expected_instead("spike", spike.dtype):
        raise TypeError(f"{name}: got dtype {spike.dtype}, expected {expected}")
    if size is not None and spike.shape != (size,):
        raise ShapeError(f"{name}: got shape {spike.shape}, expected {(size,)}{for_a_batch(spike.shape)}")
    return spike if spike.dtype == bool else spike != 0


def for_a_batch(shape: tuple[int, ...]) -> str:
    """What is said where spikes or a trace of this shape do not fit."""
    return " (for a batch, map over it with jax.vmap)" if len(shape) > 1 else ""


def _settle_dtypes(spec: Spec, given: dict[str, Any]) -> list[jax.Array]:
    """The operands in the primitive's order and dtypes: what the kernels are compiled for."""
    dtypes = {name: jax.dtypes.canonicalize_dtype(dtype) for name, dtype in kernel_dtypes(given).items()}

    def settle(operand: str) -> jax.Array:
        x = given.get(operand)
        if x is None:
            return jnp.zeros(0, dtypes[operand])
        if operand == "spike":
            x = jnp.asarray(x)
            if spec.arrivals:
                return x
            has_derivative = spec.kind == "propagate" and jnp.issubdtype(x.dtype, jnp.floating)
            return x if x.dtype == bool or has_derivative else x != 0
        x = jnp.asarray(x, dtypes[operand])
        return x.reshape(1) if x.ndim == 0 else x

    return [settle(operand) for operand in spec.operands]


def kernel_dtypes(given: dict[str, Any]) -> dict[str, np.dtype]:
    """The dtype in which a kernel takes each operand, by those that are given."""
    weight = given["weight"].dtype
    arithmetic = arithmetic_dtype(weight)
    index = _common_index_dtype(*(given[name].dtype for name in ("indices", "weight_indices") if name in given))
    return {
        "indices": index, "weight_indices": index, "indptr": _common_index_dtype(given["indptr"].dtype),
        "weight": weight, "w_min": weight, "w_max": weight, "trace": arithmetic, "gain": arithmetic,
        "spike": np.dtype(bool),
    }  # fmt: skip


def index_dtype(dtype) -> np.dtype:
    """The one of int32 and int64 that holds every index of this dtype (int32 without JAX's x64 flag)."""
    return jax.dtypes.canonicalize_dtype(_common_index_dtype(dtype))


def _common_index_dtype(*dtypes) -> np.dtype:
    return np.dtype(np.int32 if all(np.can_cast(dtype, np.int32) for dtype in dtypes) else np.int64)


OPERATORS = {spec: Operator(spec) for spec in (*SPECS, *CSC_SPECS)}


@functools.cache
def operator_of(spec: Spec) -> Operator:
    return OPERATORS.get(spec) or Operator(spec)


update_csr_on_binary_post_p = OPERATORS[UPDATE_POST]
update_csr_on_binary_pre_p = OPERATORS[UPDATE_PRE]
propagate_csr_on_binary_pre_p = OPERATORS[PROPAGATE_PRE]
propagate_csr_on_binary_post_p = OPERATORS[PROPAGATE_POST]
