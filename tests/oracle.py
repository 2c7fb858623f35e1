"""The operators in plain NumPy, one element at a time: the standard that every backend is held to."""

import numpy as np


def arithmetic_dtype(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def elements(spec, shape, nse, operands):
    """Yield (row, slot, partner) of every element that a spike touches; what is out of range is skipped."""
    n_event, n_other = spec.sizes(shape)
    spike, indptr, indices = operands["spike"], operands["indptr"], operands["indices"]
    for row in range(n_event):
        if spike[row] != 0:
            for k in range(max(int(indptr[row]), 0), min(int(indptr[row + 1]), nse)):
                slot = int(operands["weight_indices"][k]) if spec.permuted else k
                partner = int(indices[k])
                if 0 <= slot < nse and 0 <= partner < n_other:
                    yield row, slot, partner


def clip(x, low, high):
    if low is not None:
        x = np.maximum(x, low)
    if high is not None:
        x = np.minimum(x, high)
    return x


def softness(x, low, high, soft_bound, mu):
    """What scales a change of `x` with a soft bound: 0 at it and beyond, 1 at the other bound, if there is one."""
    number = x.dtype.type
    if mu == 0:  # additive: there too
        return number(1)
    base = high - x if soft_bound == "upper" else x - low
    if low is not None and high is not None:
        base = base / (high - low) if low < high else number(0)
    return base ** number(mu) if base > 0 else number(0)


def update(spec, shape, operands, weight_in_bounds=False, soft_bound=None, mu=1.0):
    weight = np.array(operands["weight"])
    nse, dtype = weight.size, weight.dtype
    arithmetic = arithmetic_dtype(dtype)
    trace = np.asarray(operands["trace"]).astype(arithmetic)
    gain = None if operands.get("gain") is None else np.asarray(operands["gain"]).astype(arithmetic)
    low, high = (
        None if operands.get(name) is None else np.asarray(operands[name]).astype(dtype).astype(arithmetic)
        for name in ("w_min", "w_max")
    )

    def bounds(slot):
        return tuple(bound[slot] if np.ndim(bound) else bound for bound in (low, high))

    def clipped(x, slot):
        return clip(x, *bounds(slot))

    for row, slot, partner in elements(spec, shape, nse, operands):
        change = trace[partner] if gain is None else (gain[row] if np.ndim(gain) else gain) * trace[partner]
        old = weight[slot].astype(arithmetic)
        if soft_bound:
            change = change * softness(old, *bounds(slot), soft_bound, mu)
        weight[slot] = clipped(old + change, slot).astype(dtype)
    if not weight_in_bounds and not (low is None and high is None):
        for slot in range(nse):
            weight[slot] = clipped(weight[slot].astype(arithmetic), slot).astype(dtype)
    return weight


def propagate(spec, shape, operands):
    weight = np.broadcast_to(operands["weight"], operands["indices"].shape)  # which all synapses may share
    out = np.zeros(spec.sizes(shape)[1], arithmetic_dtype(weight.dtype))
    gain = np.asarray(operands.get("gain", 1)).astype(out.dtype)
    for row, slot, partner in elements(spec, shape, weight.size, operands):
        out[partner] += weight[slot].astype(out.dtype) * (gain[row] if gain.ndim else gain)
    return out.astype(weight.dtype)


def evaluate(spec, shape, operands, **options):
    """What the public function of `spec` returns for unitless operands, named as in `_core.specs`."""
    with np.errstate(all="ignore"):
        return {"update": update, "propagate": propagate}[spec.kind](spec, shape, operands, **options)


def assert_same(actual, expected, signed_zeros=True):
    """Bit for bit, except for NaN payloads and, where a zero may equal a bound, its sign."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)  # bfloat16's NaNs are unknown to NumPy
    np.testing.assert_array_equal(actual, expected, strict=True)
    if signed_zeros:
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual[number]), np.signbit(expected[number]))


def assert_close(actual, expected, roundings=8):
    """Equal up to a few roundings of numbers of size 8 (the sums and products in these tests are no larger)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[str(expected.dtype)]
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_allclose(actual, expected, rtol=roundings * eps, atol=8 * roundings * eps)
