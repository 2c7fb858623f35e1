"""What `hebbax.inplace` gives for seeded operands, written to the file named; platforms.py compares two of these.

The operands are made without libm and without sums of products, which may round elsewhere differently. Every dtype of
indices and number of threads has to give the same bits here; what does not is named under "unequal".
"""

import itertools
import sys

import numpy as np
from ml_dtypes import bfloat16

import hebbax

DTYPES = (np.float16, bfloat16, np.float32, np.float64)
# More spikes' elements than one thread is given, and fewer.
NETWORKS = {"large": (300, 400, 200_000), "small": (30, 20, 500)}
SOFT = {"linear": ("upper", 1.0), "power 0.4": ("upper", 0.4), "power 1.7": ("lower", 1.7)}
POWERS = (0.1, 0.4, 0.5, 0.99, 1.7, 10)
THREADS = (1, 3)


def between(rng, low, high, size):
    return low + (high - low) * rng.random(size)


def operands(n_pre, n_post, nse):
    """By name, for both orders of synapses; some weights are special numbers."""
    rng = np.random.default_rng(2000)
    pre, post = np.sort(rng.integers(0, n_pre, nse)), rng.integers(0, n_post, nse)
    order = np.argsort(post, kind="stable")
    weight = between(rng, -2, 2, nse)
    tiny = rng.integers(0, nse, nse // 50)
    weight[tiny] = np.ldexp(weight[tiny], -rng.integers(10, 160, tiny.size))  # subnormal in some of the dtypes
    return {
        "pre": (post, np.searchsorted(pre, np.arange(n_pre + 1)), None, n_pre, n_post),
        "post": (pre[order], np.searchsorted(post[order], np.arange(n_post + 1)), order, n_post, n_pre),
        "weight": weight,
        "special": rng.integers(0, nse, nse // 100),
        "spike": rng.random(max(n_pre, n_post)) < 0.75,
        "trace": between(rng, -1, 1, max(n_pre, n_post)),
        "gain": between(rng, -2, 2, max(n_pre, n_post)),
        "w_min": between(rng, -2, -0.5, nse),
        "w_max": between(rng, 0.5, 2, nse),
    }


def with_special(given, dtype):
    """An update keeps them to themselves; in sums they would hide all else."""
    weight = given["weight"].astype(dtype)
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan]).astype(dtype)
    weight[given["special"]] = np.resize(specials, given["special"].size)
    return weight


def calls(given, shape, dtype, index_dtype):
    """Yield a name and the result of every way to call the four operators."""
    arithmetic = np.float64 if dtype == np.float64 else np.float32
    trace, gain = given["trace"].astype(arithmetic), given["gain"].astype(arithmetic)
    own = {name: given[name].astype(dtype) for name in ("w_min", "w_max")}
    hard = {"plain": {}, "bounds": {"w_min": -1.0, "w_max": 1.0}, "own bounds": own}
    soft = {name: dict(w_min=-2.0, w_max=2.0, soft_bound=bound, mu=mu) for name, (bound, mu) in SOFT.items()}
    soft_own = {f"{name}, own bounds": x | own for name, x in soft.items()}
    for side in ("pre", "post"):
        indices, indptr, slots, n_event, n_other = given[side]
        structure = [indices.astype(index_dtype), indptr.astype(index_dtype)]
        structure += [] if slots is None else [slots.astype(index_dtype)]
        spike, partners = given["spike"][:n_event], trace[:n_other]
        ends = (spike, partners) if side == "pre" else (partners, spike)
        update = getattr(hebbax.inplace, f"update_csr_on_binary_{side}")
        propagate = getattr(hebbax.inplace, f"propagate_csr_on_binary_{side}")
        for (name, options), gains in itertools.product((hard | soft | soft_own).items(), (None, gain[:n_event])):
            weight = with_special(given, dtype)
            update(weight, *structure, *ends, shape=shape, gain=gains, **options)
            yield f"update {side}, {name}{'' if gains is None else ', gain'}", weight
        for gains in (None, gain[:n_event]):
            out = propagate(given["weight"].astype(dtype), *structure, spike, shape=shape, gain=gains)
            yield f"propagate {side}{'' if gains is None else ', gain'}", out


def power(base, mu):
    """As the soft bound of one weight after another takes it."""
    n = base.size
    weight, indices, indptr = np.zeros(n, base.dtype), np.zeros(n, np.int32), np.array([0, n])
    return hebbax.inplace.update_csr_on_binary_pre(
        weight, indices, indptr, np.ones(1, bool), np.ones(1, base.dtype), w_min=-base, shape=(1, 1),
        weight_in_bounds=True, soft_bound="lower", mu=mu,
    )  # fmt: skip


def main(path):
    kept, unequal, made = {}, [], 0
    for (size, (n_pre, n_post, nse)), dtype in itertools.product(NETWORKS.items(), DTYPES):
        given = operands(n_pre, n_post, nse)
        for index_dtype, threads in itertools.product((np.int32, np.int64), THREADS):
            hebbax.set_num_threads(threads)
            for name, result in calls(given, (n_pre, n_post), dtype, index_dtype):
                name = f"{size}, {np.dtype(dtype).name}: {name}"
                bits = np.asarray(result).view(f"u{result.itemsize}")
                made += 1
                if (kept.setdefault(name, bits) != bits).any():
                    unequal.append(f"{name}, {np.dtype(index_dtype).name}, {threads} threads")
    single = np.arange(1, 0x7F800000, 4999, dtype=np.uint32).view(np.float32)
    for mu, base in itertools.product(POWERS, (single, single.astype(np.float64))):
        kept[f"{base.dtype} ** {mu}"] = power(base, mu).view(f"u{base.itemsize}")
        made += 1
    np.savez(path, unequal=np.array(unequal, str), made=made, **kept)


if __name__ == "__main__":
    main(sys.argv[1])
