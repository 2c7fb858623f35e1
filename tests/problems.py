"""Random networks, operands for the operators, and how to call an operator by its row in the table."""

import os
from dataclasses import dataclass

import jax
import numpy as np
from ml_dtypes import bfloat16

import gpu_on_cpu
import hebbax
from hebbax._core.specs import CSC_SPECS, SPECS

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64

__all__ = [
    "BACKENDS", "CPU_KERNELS", "CSC_SPECS", "DEGREES", "DTYPES", "INDEX_ERRORS", "KERNELS", "PLATFORM", "PROPAGATES",
    "SPECS", "UPDATES", "WHY_NO_CUPY", "Network", "call", "enable_x64", "operands", "random_network",
]  # fmt: skip

DTYPES = {"float16": np.float16, "bfloat16": bfloat16, "float32": np.float32, "float64": np.float64}
UPDATES = tuple(spec for spec in SPECS if spec.kind == "update")
PROPAGATES = tuple(spec for spec in SPECS if spec.kind == "propagate")
# Where backends that tests name run: "cuda" for `make test-gpu`. On a CPU, the CUDA kernels run on it too.
PLATFORM = os.environ.get("HEBBAX_TEST_PLATFORM", "cpu")
WHY_NO_CUPY = gpu_on_cpu.install() if PLATFORM == "cpu" else None
BACKENDS = hebbax.update_csr_on_binary_post_p.available_backends(PLATFORM)  # test_backends.py says which must be there
if PLATFORM != "cpu" and "cupy" not in BACKENDS:  # or else no test would be left, and none would fail
    missing = {backend.name: backend.missing for backend in hebbax.backends()}
    raise RuntimeError(f"HEBBAX_TEST_PLATFORM={PLATFORM}, but backend 'cupy' cannot be used: {missing['cupy']}")
KERNELS = tuple(backend for backend in BACKENDS if backend != "jax")
CPU_KERNELS = tuple(x for x in KERNELS if PLATFORM == "cpu" and x != "cupy")  # which report an index out of range
# What an index out of range raises: the second where the call has failed before JAX wraps its result.
INDEX_ERRORS = (jax.errors.JaxRuntimeError, ValueError)


def call(spec, operands, **options):
    """Call the public function of `spec` with operands named as in `_core.specs`."""
    return getattr(hebbax, spec.name)(**{spec.public_name(name): x for name, x in operands.items()}, **options)


@dataclass(frozen=True)
class Network:
    """Synapses from `pre[k]` to `post[k]`, in CSR order; `csc_order[k]` is the CSR position of CSC element `k`."""

    shape: tuple[int, int]
    pre: np.ndarray
    post: np.ndarray
    csc_order: np.ndarray

    @property
    def nse(self):
        return self.pre.size

    def structure(self, spec, index_dtype=np.int32, indptr_dtype=None):
        """The view that the function of `spec` takes: `indices`, `indptr` and maybe `weight_indices`."""
        by_column = spec.event == "post" or spec.order == "csc"
        rows, indices = (self.post, self.pre) if by_column else (self.pre, self.post)
        out = {}
        if by_column:
            rows, indices = rows[self.csc_order], indices[self.csc_order]
            if spec.order == "csr":
                out["weight_indices"] = self.csc_order.astype(index_dtype)
        indptr = np.searchsorted(rows, np.arange(self.shape[1 if by_column else 0] + 1))
        return {"indices": indices.astype(index_dtype), "indptr": indptr.astype(indptr_dtype or index_dtype), **out}

    def ends(self, spec):
        """Event neuron and partner of every weight, in the order in which `spec` stores weights."""
        order = self.csc_order if spec.order == "csc" else slice(None)
        ends = self.pre[order], self.post[order]
        return ends if spec.event == "pre" else ends[::-1]

    def matrix(self, weight):
        """W as a dense array."""
        dense = np.zeros(self.shape, np.asarray(weight).dtype)
        np.add.at(dense, (self.pre, self.post), weight)
        return dense


def random_network(rng, shape, nse, sorted_rows=False, degrees="even"):
    """`nse` random synapses: some rows and columns stay empty, some pairs are connected twice."""
    if 0 in shape:
        nse = 0
    pre, post = (DEGREES[degrees](rng, n, nse).astype(np.int64) for n in shape)
    order = np.lexsort((post, pre)) if sorted_rows else np.argsort(pre, kind="stable")
    pre, post = pre[order], post[order]
    order = np.arange(nse) if sorted_rows else rng.permutation(nse)
    return Network(shape, pre, post, order[np.argsort(post[order], kind="stable")])


def _even(rng, n, nse):
    neurons = np.flatnonzero(rng.random(n) < 0.8)
    return rng.choice(neurons if neurons.size else n, nse)


def _in_proportion(rng, share, nse):
    return rng.choice(share.size, nse, p=share / share.sum()) if nse else np.zeros(0)


def _hub(rng, n, nse):
    """All but one neuron, which is not the first, have 0, 1 or 2 synapses, and that one has the rest."""
    few = np.repeat(np.arange(n), rng.integers(0, 3, n))
    if n and few.size and few[0] != 0:
        few[0] = 0  # a short row that starts at element 0
    few = rng.permutation(few[:nse])
    return np.concatenate([few, np.full(nse - few.size, rng.integers(min(1, n - 1), n) if n else 0)])


# How the synapses are shared out among the neurons of either side.
DEGREES = {
    "even": _even,
    "lognormal": lambda rng, n, nse: _in_proportion(rng, rng.lognormal(0, 2.5, n), nse),
    "Pareto": lambda rng, n, nse: _in_proportion(rng, rng.pareto(0.7, n) + 1e-9, nse),
    "hub": _hub,
}


def operands(spec, rng, network, dtype=np.float32, p_spike=0.5, exact=True, **structure):
    """Required operands of `spec`: weights and traces in [-2, 2), spikes with probability `p_spike`.

    If `exact`, weights that are to be summed are eighths, whose sums are the same in any order.
    """
    n_event, n_other = spec.sizes(network.shape)
    out = {
        "weight": rng.uniform(-2, 2, network.nse).astype(dtype),
        **network.structure(spec, **structure),
        "spike": rng.random(n_event) < p_spike,
    }
    if spec.kind == "propagate" and exact:
        out["weight"] = (np.round(8 * out["weight"].astype(np.float64)) / 8).astype(dtype)
    if spec.kind == "update":
        out["trace"] = rng.uniform(-2, 2, n_other).astype(np.float64 if dtype == np.float64 else np.float32)
    return out
