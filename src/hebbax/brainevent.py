"""hebbax as a backend of brainevent: what is written for brainevent, brainstate or BrainPy runs on hebbax's kernels.

brainevent lets others register kernels for its primitives. Each primitive that an operator of hebbax computes gets one
here. What the operators do not have (`W @ spike` from rows alone, events that carry values) is handed back to the
backend that brainevent itself would have used. Only public hooks are called, and nothing of brainevent is changed but
default backends, which `disable` puts back, and rules of `vmap`, which are brainevent's own for any other backend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hebbax._core import compat
from hebbax._core.unitless import WEIGHT_DTYPES, propagate_csr_on_binary_pre_p
from hebbax.operators import (
    propagate_csr_on_binary_post,
    propagate_csr_on_binary_pre,
    update_csr_on_binary_post,
    update_csr_on_binary_pre,
)

__all__ = ["NAME", "Enabled", "disable", "enable"]

NAME = "hebbax"  # of the backend
OLDEST = (0, 3, 0)

Info: TypeAlias = jax.ShapeDtypeStruct
Kernel: TypeAlias = Callable[..., list]


class Enabled:
    """What brainevent used before a call of `enable`, to which the end of a `with` goes back."""

    def __init__(self, before: list[_State]):
        self._before = before

    def __enter__(self) -> Enabled:
        for state in self._before:
            state.enable()  # again, if this was left before
        return self

    def __exit__(self, *error: object) -> None:
        for state in self._before:
            state.restore()


def enable() -> Enabled:
    """Let brainevent compute with hebbax, on CPUs, and on NVIDIA GPUs where hebbax's kernels can run.

    hebbax becomes the default backend of the primitives that it serves: event-driven products with CSR, CSC and
    fixed-number matrices, and their updates on pre- and postsynaptic spikes. A backend that is named in a call or a
    matrix (`backend='numba'`) stays what it is. JAX forgets what it has compiled, so that functions which have run
    before change over too: as with brainevent's own switches, call this while no other thread uses JAX. (A CSR that was
    used in one `jit` alone fails in the next one, also without hebbax: use it once outside of any.)

    Returns
    -------
    Enabled
        As a context manager, it goes back at the end to what was set before this call, after an error too.

    Raises
    ------
    ImportError
        If there is no brainevent, or one before 0.3.0, where only positive events were spikes.
    ValueError
        If `brainevent.config.set_backend` has chosen another backend, which would win.

    Examples
    --------
    >>> import hebbax.brainevent
    >>> hebbax.brainevent.enable()  # doctest: +SKIP
    >>> with hebbax.brainevent.enable():  # doctest: +SKIP
    ...     current = brainevent.BinaryArray(spike) @ csr
    """
    config = _import_brainevent().config
    registered = _register()
    for platform in _platforms():
        if (chosen := config.get_backend(platform)) not in (None, NAME):
            raise ValueError(
                f"brainevent.config.get_backend({platform!r}): got {chosen!r}, which comes before every default, "
                f"expected None; call brainevent.config.set_backend({platform!r}, None) first"
            )
    before = [_State.of(primitive) for primitive in registered]
    for state in before:
        if NAME not in state.defaults.values():
            _own[state.primitive.name] = state
        state.enable()
    return Enabled(before)


def disable() -> None:
    """Let brainevent compute by itself again, with the defaults that it had before `enable`.

    The backend stays registered, so that a call or a matrix can still name it: `backend='hebbax'`. A default that was
    changed since stays.
    """
    for state in _own.values():
        now = _State.of(state.primitive).defaults
        ours = {platform: backend for platform, backend in state.defaults.items() if now[platform] == NAME}
        state._replace(defaults=ours).restore()


class _State(NamedTuple):
    """What a primitive of brainevent uses: by platform, its default backend."""

    primitive: Any
    defaults: dict[str, str]

    @classmethod
    def of(cls, primitive: Any) -> _State:
        platforms = [platform for platform in _platforms() if NAME in primitive.available_backends(platform)]
        return cls(primitive, {platform: primitive.get_default(platform) for platform in platforms})

    def enable(self) -> None:
        for platform in self.defaults:
            self.primitive.set_default(platform, NAME)

    def restore(self) -> None:
        for platform, backend in self.defaults.items():
            self.primitive.set_default(platform, backend)


# By name, what primitives had before hebbax became their default: what it does not compute is handed back to that; and
# how brainevent batches them.
_own: dict[str, _State] = {}
_batched_by: dict[str, Callable] = {}


def _import_brainevent() -> Any:
    try:
        import brainevent
    except ImportError as error:
        raise ImportError(
            "hebbax.brainevent: there is no brainevent; install hebbax with the extra 'brainevent' (Python 3.12 and up)"
        ) from error
    if brainevent.__version_info__ < OLDEST:
        raise ImportError(
            f"hebbax.brainevent: got brainevent {brainevent.__version__}, expected 0.3.0 or newer, where every nonzero "
            f"event is a spike, as in hebbax"
        )
    return brainevent


def _platforms() -> tuple[str, ...]:
    """The platforms, by brainevent's names, where hebbax has kernels and not only plain JAX."""
    on_gpus = "cupy" in propagate_csr_on_binary_pre_p.available_backends("gpu")
    return ("cpu", "gpu") if on_gpus else ("cpu",)


@functools.cache
def _register() -> list[Any]:
    """Register the backend, once; return the primitives that it serves.

    With all others it can be named too, as the default that they have: a matrix names one backend for all that is done
    with it.
    """
    brainevent = _import_brainevent()
    registered = [(getattr(brainevent, name), served) for name, served in SERVED.items() if hasattr(brainevent, name)]
    served_by_name = {primitive.name: served for primitive, served in registered}
    for primitive in brainevent.get_registry().values():
        served = served_by_name.get(primitive.name)
        for platform in _platforms():
            if primitive.available_backends(platform) and (served is None or platform in served.platforms):
                primitive.def_kernel(NAME, platform, functools.partial(_kernel, primitive, platform, served))
        _own[primitive.name] = _State.of(primitive)
    for primitive, served in registered:
        _batched_by[primitive.name] = compat.BATCHING_RULES[primitive.primitive]
        primitive.def_batching_rule(functools.partial(_batch, primitive, served))
    return [primitive for primitive, _ in registered]


def _kernel(primitive: Any, platform: str, served: Served | None, /, **params: Any) -> Kernel:
    """What brainevent asks for when JAX lowers a primitive: the function of its operands."""
    kernel = served.build(**params) if served else None
    return kernel or _hand_back(primitive, platform, served is not None, **params)


def _hand_back(primitive: Any, platform: str, widen: bool, /, outs: Any, **params: Any) -> Kernel:
    """The kernel of brainevent's own backend; `widen` 16-bit weights for numba, which has no such numbers."""
    backend = primitive.get_default(platform)
    backend = _own[primitive.name].defaults[platform] if backend == NAME else backend
    weight = params.get("weight_info")
    if not (widen and backend == "numba" and weight and weight.dtype.itemsize == 2):
        return functools.partial(primitive, outs=outs, backend=backend, **params)
    wide = [jax.ShapeDtypeStruct(x.shape, np.float32) for x in (weight, outs[0])]
    params["weight_info"] = wide[0]

    def kernel(weight: jax.Array, *operands: jax.Array) -> list:
        called = primitive(weight.astype(np.float32), *operands, outs=(wide[1], *outs[1:]), backend=backend, **params)
        return [called[0].astype(weight.dtype), *called[1:]]

    return kernel


def _batch(primitive: Any, served: Served, operands: Any, axes: Any, **params: Any) -> tuple:
    """One call for all members of a batch; where hebbax does not compute it, as brainevent does."""
    platform = jax.default_backend()
    backend = params["backend"] or _import_brainevent().config.get_backend(platform) or primitive.get_default(platform)
    usable = backend == NAME and platform in served.platforms
    kernel = served.build(**params) if usable else None
    if kernel is None or any(axis is not None and k not in served.batched for k, axis in enumerate(axes)):
        return compat.batch(_batched_by[primitive.name], operands, axes, **params)
    out_axes = [0, *(None for _ in params["outs"][1:])]
    return jax.vmap(kernel, in_axes=tuple(axes), out_axes=out_axes)(*operands), out_axes


def _fits(weight: Info, indices: Info, *others: Info) -> bool:
    """Whether the operators take these weights, one for each synapse or one for all, and real numbers beside them."""
    is_real = not any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in others)
    return str(weight.dtype) in WEIGHT_DTYPES and weight.size in (1, indices.size) and is_real


def _product(
    permuted: bool,
    matrix: bool,
    *,
    shape: tuple[int, int],
    weight_info: Info,
    indices_info: Info,
    vector_info: Info,
    transpose: bool,
    weighted: bool = False,
    **_: Any,
) -> Kernel | None:
    """`spike @ W` by rows of a CSR structure, whose weights may be found through a permutation.

    The columns of a matrix of spikes are a batch. Without `transpose` it is `W @ spike`, which has no rows to pick.
    """
    if weighted or not transpose or not _fits(weight_info, indices_info, vector_info):
        return None

    def kernel(weight: jax.Array, indices: jax.Array, indptr: jax.Array, *operands: jax.Array) -> list:
        *weight_indices, spike = operands[: permuted + 1]
        workspace = operands[permuted + 1 :]  # of brainevent's own kernels

        def product(spike: jax.Array) -> jax.Array:
            if permuted and weight.size > 1:
                rows = indices, indptr, *weight_indices
                return propagate_csr_on_binary_post(weight, *rows, spike, shape=shape[::-1])
            return propagate_csr_on_binary_pre(weight, indices, indptr, spike, shape=shape)

        return [jax.vmap(product, 1, 1)(spike) if matrix else product(spike), *workspace]

    return kernel


def _fixed_number_product(matrix: bool, *, indices_info: Info, **params: Any) -> Kernel | None:
    """The same for as many synapses in every row, which brainevent keeps as matrices."""
    vector_info = params["matrix_info" if matrix else "spike_info"]
    product = _product(False, matrix, indices_info=indices_info, vector_info=vector_info, **params)
    if product is None or indices_info.size > np.iinfo(np.int32).max:
        return None
    return lambda weight, indices, spike: product(weight.ravel(), *_flat(indices), spike)


def _flat(indices: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """`indices` and `indptr` of rows of equal length."""
    rows, length = indices.shape
    return indices.ravel(), np.arange(rows + 1, dtype=np.int32) * np.int32(length)


def _update_on_pre(
    *, shape: tuple[int, int], weight_info: Info, indices_info: Info, spike_info: Info, trace_info: Info, **_: Any
) -> Kernel | None:
    if not _fits(weight_info, indices_info, spike_info, trace_info):
        return None
    return lambda *operands: [update_csr_on_binary_pre(*operands, shape=shape)]


def _update_on_post(
    *, shape: tuple[int, int], weight_info: Info, indices_info: Info, spike_info: Info, trace_info: Info, **_: Any
) -> Kernel | None:
    if not _fits(weight_info, indices_info, spike_info, trace_info):
        return None
    return lambda *operands: [update_csr_on_binary_post(*operands, shape=shape)]


def _fixed_number_update(*, indices_info: Info, trace_info: Info, **params: Any) -> Kernel | None:
    shape = indices_info.shape[0], trace_info.shape[0]
    update = _update_on_pre(shape=shape, indices_info=indices_info, trace_info=trace_info, **params)
    if update is None or indices_info.size > np.iinfo(np.int32).max:
        return None

    def kernel(weight: jax.Array, indices: jax.Array, spike: jax.Array, trace: jax.Array) -> list:
        return [x.reshape(weight.shape) for x in update(weight.ravel(), *_flat(indices), spike, trace)]

    return kernel


class Served(NamedTuple):
    """How hebbax computes one of brainevent's primitives.

    `build` takes what the primitive is bound with and returns a function of its operands, or None for what hebbax does
    not compute. `batched` says, by position, which operands the members of a batch may have of their own.
    """

    build: Callable[..., Kernel | None]
    batched: tuple[int, ...]
    platforms: tuple[str, ...] = ("cpu", "gpu")


SERVED = {
    "binary_csrmv_p": Served(functools.partial(_product, False, False), (0, 3)),
    "binary_csrmm_p": Served(functools.partial(_product, False, True), (0, 3)),
    "binary_csrmv_indexed_p": Served(functools.partial(_product, True, False), (0, 4)),
    "binary_csrmm_indexed_p": Served(functools.partial(_product, True, True), (0, 4)),
    "binary_fcnmv_p": Served(functools.partial(_fixed_number_product, False), (0, 2)),
    # On a GPU, the shape of its result depends on which backend is the default there.
    "binary_fcnmm_p": Served(functools.partial(_fixed_number_product, True), (0, 2), ("cpu",)),
    "update_csr_on_binary_pre_p": Served(_update_on_pre, (0, 3, 4)),
    "update_csr_on_binary_post_p": Served(_update_on_post, (0, 4, 5)),
    "fcn_plasticity_row_p": Served(_fixed_number_update, (0, 2, 3)),
}
