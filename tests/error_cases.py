"""Every error that a caller can make, as (what is called, the error, parts of its message).

pytest runs these through test_errors.py. Run as a script it checks them without `assert`, so that `python -O` counts.
"""

import functools
import re
import sys

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import hebbax
from hebbax._core.specs import SPECS
from problems import call, operands, random_network

SHAPE, NSE = (6, 7), 20
UnitMismatch = u.UnitMismatchError


def correct(spec, **changed):
    return operands(spec, np.random.default_rng(1), random_network(np.random.default_rng(0), SHAPE, NSE)) | changed


def wrong_operands(spec):
    """(operand, value, error, words of the message beside the public name of the operand)"""
    n_event, n_other = spec.sizes(SHAPE)
    Shape = hebbax.ShapeError
    yield "weight", np.ones(NSE + 1, np.float32), Shape, ["(21,)", "(20,)"]
    yield "weight", np.ones((4, 5), np.float32), Shape, ["(4, 5)", "(20,)"]
    if spec.kind == "update":
        yield "weight", np.ones(1, np.float32), Shape, ["per-synapse", "20"]
        yield "weight", np.float32(1), Shape, ["per-synapse", "20"]
    else:
        for shape in ((1, 1), (0,), (2,), (NSE, 1)):
            yield "weight", np.ones(shape, np.float32), Shape, [str(shape), "(20,)", "a scalar", "(1,)"]
        yield "weight", np.ones(1, np.int32), TypeError, ["int32", "float32"]
        yield "weight", 1j, TypeError, ["complex"]
    yield "weight", np.ones(NSE, np.int32), TypeError, ["int32", "float32"]
    yield "weight", np.ones(NSE, bool), TypeError, ["bool", "float32"]
    yield "weight", np.ones(NSE, np.complex64), TypeError, ["complex64", "float32"]
    yield "weight", [1.0] * NSE, TypeError, ["list", "array"]
    yield "weight", None, TypeError, []
    yield "indices", np.zeros((NSE, 1), np.int32), Shape, ["(20, 1)", "(20,)"]
    yield "indices", np.zeros(NSE, np.float32), TypeError, ["float32", "integer"]
    yield "indices", np.zeros(NSE, bool), TypeError, ["bool", "integer"]
    yield "indptr", np.zeros(n_event, np.int32), Shape, [f"({n_event},)", f"({n_event + 1},)"]
    yield "indptr", np.zeros((1, n_event + 1), np.int32), Shape, [f"(1, {n_event + 1})", f"({n_event + 1},)"]
    yield "indptr", np.zeros(n_event + 1, np.float32), TypeError, ["float32", "integer"]
    yield "spike", np.ones(n_event + 1, bool), Shape, [f"({n_event + 1},)", f"({n_event},)"]
    yield "spike", np.ones((n_event, 1), bool), Shape, [f"({n_event}, 1)", f"({n_event},)", "jax.vmap"]
    yield "spike", np.ones((3, n_event), bool), Shape, [f"(3, {n_event})", f"({n_event},)", "jax.vmap"]
    yield "spike", np.bool_(True), Shape, ["()", f"({n_event},)"]
    yield "spike", np.ones(n_event, np.complex64), TypeError, ["complex64", "real"]
    yield "gain", np.ones(n_event + 1), Shape, [f"({n_event + 1},)", f"({n_event},)"]
    yield "gain", np.ones((n_event, 1)), Shape, [f"({n_event}, 1)", "a scalar", f"({n_event},)"]
    yield "gain", np.ones(n_event, np.complex64), TypeError, ["complex64", "real"]
    for operand in spec.arguments:  # (of one size, so that what they are is looked at first)
        size = correct(spec)[operand].size
        yield operand, np.full(size, None), TypeError, ["object"]
        yield operand, np.full(size, "1"), TypeError, ["<U1"]
        yield operand, jax.random.split(jax.random.key(0), size), TypeError, ["key<fry>"]
    yield "indices", np.full(NSE, 2**40), OverflowError, [str(2**40), "int64", "jax_enable_x64"]
    yield "indptr", np.full(n_event + 1, -(2**40)), OverflowError, [str(-(2**40)), "int64", "jax_enable_x64"]
    if spec.permuted:
        yield "weight_indices", np.zeros(NSE - 1, np.int32), Shape, ["(19,)", "(20,)"]
        yield "weight_indices", np.zeros(NSE, np.float16), TypeError, ["float16", "integer"]
        yield "weight_indices", np.full(NSE, 2**31), OverflowError, [str(2**31), "int64", "jax_enable_x64"]
    if spec.kind == "update":
        yield "trace", np.ones(n_other - 1), Shape, [f"({n_other - 1},)", f"({n_other},)"]
        yield "trace", np.ones((n_other, 2)), Shape, [f"({n_other}, 2)", f"({n_other},)", "jax.vmap"]
        yield "trace", np.ones(n_other, np.complex64), TypeError, ["complex64", "real"]
        yield "trace", np.ones(n_other) * u.mV, UnitMismatch, ["mV"]
        yield "gain", np.ones(n_event) * u.mV, UnitMismatch, ["mV"]
        for bound in ("w_min", "w_max"):
            yield bound, np.ones(NSE + 1, np.float32), Shape, ["(21,)", "scalar", "(20,)"]
            yield bound, np.ones((NSE, 1), np.float32), Shape, ["(20, 1)", "scalar", "(20,)"]
            yield bound, 1j, TypeError, ["complex"]
            yield bound, "0", TypeError, ["str"]
            yield bound, 1.0 * u.mV, UnitMismatch, ["mV"]
            yield bound, np.int64(2**32), OverflowError, [str(2**32), "int64", "jax_enable_x64"]
            yield bound, np.full(NSE, -(2**32)), OverflowError, [str(-(2**32)), "int64", "jax_enable_x64"]
            yield bound, np.full(NSE, "1"), TypeError, ["<U1"]
            yield bound, np.full(NSE, None), TypeError, ["object"]


def wrong_options(spec):
    """(name, options, error, words of the message)"""
    for shape in ((6,), (6, 7, 8), (6.0, 7), (-6, 7), 6, None, "67"):
        yield "shape", {"shape": shape}, hebbax.ShapeError, ["shape", repr(shape), "(n_pre, n_post)"]
    yield "swapped shape", {"shape": SHAPE[::-1]}, hebbax.ShapeError, ["(7, 6)"]
    yield "backend", {"backend": "numba"}, ValueError, ["backend", "'numba'", *map(repr, ("cython", "callback", "jax"))]
    yield "backend", {"backend": 3}, ValueError, ["backend", "3", "'jax'"]
    yield "backend", {"backend": ["cython"]}, ValueError, ["backend", "['cython']", "'jax'"]
    yield "option", {"no_such_option": 3}, TypeError, ["no_such_option"]
    if spec.kind == "propagate":
        yield "option", {"soft_bound": "upper"}, TypeError, ["soft_bound"]


def wrong_soft_bounds():
    """(bounds and options of an update, error, words of the message)"""
    both = {"w_min": np.float32(0), "w_max": np.float32(1)}
    for soft_bound in ("both", "Upper", "", True, 1, ["upper"]):
        words = ["soft_bound", repr(soft_bound).strip("'"), "None, 'upper' or 'lower'"]
        yield both | {"soft_bound": soft_bound}, ValueError, words
    for soft_bound, own, other in (("upper", "w_max", "w_min"), ("lower", "w_min", "w_max")):
        for given in ({other: both[other]}, {}):
            for mu in (1.0, 0.5, 0):  # for 0 too, though no bound is used then
                options = {"soft_bound": soft_bound, "mu": mu}
                yield given | options, ValueError, ["soft_bound", soft_bound, f"without {own}", "that bound"]
    finite = "a finite number of at least 0"
    for mu in (-1, -0.5, float("nan"), float("inf"), -float("inf"), np.float32("nan")):
        yield both | {"soft_bound": "upper", "mu": mu}, ValueError, ["mu", str(mu).lstrip("-"), finite]
        yield both | {"mu": mu}, ValueError, ["mu", str(mu).lstrip("-"), finite]
    for mu, name in (
        ("0.5", "str"), (None, "NoneType"), (1j, "complex"), ([0.5], "list"), (np.ones(()), "ndarray"),
        (jnp.ones(()), type(jnp.ones(())).__name__), (u.Quantity(0.5), "Quantity"),
    ):  # fmt: skip
        for soft_bound in ("lower", None):
            options = {"soft_bound": soft_bound, "mu": mu}
            yield both | options, TypeError, ["mu", name, "a number", "compiled in"]
    for mu in (0.5, 0, 2, np.float64(0.5)):
        yield both | {"mu": mu}, ValueError, ["mu", str(mu), "1 where soft_bound is None"]


def mu_that_is_traced(spec, function):
    """A call whose `mu` is an argument of `jit`; `function` is the public function or the operator below it."""
    arguments = [correct(spec)[name] for name in spec.arguments]
    options = {"w_min": 0.0, "w_max": 1.0, "soft_bound": "upper", "shape": SHAPE}
    return lambda: jax.jit(lambda mu: function(*arguments, **options, mu=mu))(0.5)


def wrong_after():
    """(what an update cannot wait for, words of the message)"""
    yield "current", ["str", "an array"]
    yield {"seen": [np.ones(2), "current"], "current": None}, ["str", "an array"]
    yield np.full(2, None), ["object"]


def bounds_in_the_wrong_order(spec):
    plain = (1, 0.5), (np.float32(1), -1), (np.array(2.0), np.float64(1))
    for low, high in (*plain, (2 * u.mV, 1 * u.mV), (1 * u.mV, 1 * u.uvolt)):
        unit = u.mV if isinstance(low, u.Quantity) else 1
        given = correct(spec, w_min=low, w_max=high)
        yield given | {"weight": given["weight"] * unit, "trace": given["trace"] * unit}


def plain_among_units(spec):
    """A plain number, 0 too, where the weight has a unit."""
    given = correct(spec)
    given |= {"weight": given["weight"] * u.mV, "trace": given["trace"] * u.mV}
    yield "trace", given | {"trace": given["trace"].mantissa}
    yield "w_min", given | {"w_min": 0.0}
    yield "w_max", given | {"w_max": np.ones(NSE)}


def too_large_with_a_unit(spec):
    """64-bit integers that JAX would truncate, inside a quantity."""
    given = correct(spec)
    given |= {"weight": given["weight"] * u.mV, "trace": given["trace"] * u.mV}
    yield "trace", given | {"trace": u.Quantity(np.full(given["trace"].size, 2**32), unit=u.mV)}
    yield "w_max", given | {"w_max": u.Quantity(np.full(NSE, 2**32), unit=u.mV)}
    yield "w_min", given | {"w_min": u.Quantity(np.full(NSE, 2**32), unit=u.uvolt)}


def wrong_calls_of_the_operator(spec):
    """(name, a wrong call of the operator without units, words of the message)"""
    operator = getattr(hebbax, f"{spec.name}_p")
    arguments = [correct(spec)[name] for name in spec.arguments]
    most = len(arguments) + 2 * (spec.kind == "update")

    def wrong(*more, arguments=arguments, **named):
        return lambda: operator(*arguments, *more, shape=SHAPE, **named)

    yield "too many arguments", wrong(*[None] * (most + 1 - len(arguments))), ["positional", str(most), str(most + 1)]
    for name in ("indices", spec.public_name("spike")):
        yield f"{name} twice", wrong(**{name: arguments[1]}), [name, "values for argument"]
    yield "too few arguments", wrong(arguments=arguments[:-1]), [spec.public_name(spec.arguments[-1])]
    yield "unknown argument", wrong(no_such_option=1), ["no_such_option"]
    if spec.kind == "propagate":
        yield "weight_in_bounds", wrong(weight_in_bounds=True), ["weight_in_bounds"]
        yield "weight_in_bounds=False", wrong(weight_in_bounds=False), ["weight_in_bounds"]
        yield "soft_bound", wrong(soft_bound="upper"), ["soft_bound"]
        yield "mu", wrong(mu=1.0), ["mu"]


def cases():
    """(name, call, error, parts of its message)"""

    def case(name, spec, error, words, given, **options):
        options = {"shape": SHAPE} | options
        return f"{spec.name}: {name}", lambda: jax.block_until_ready(call(spec, given, **options)), error, words

    for spec in SPECS:
        for operand, value, error, words in wrong_operands(spec):
            name = spec.public_name(operand)
            what = f"{name} = {type(value).__name__}{getattr(value, 'shape', value)} {getattr(value, 'dtype', '')}"
            yield case(what, spec, error, [name, *words], correct(spec, **{operand: value}))
        for name, options, error, words in wrong_options(spec):
            yield case(f"{name} = {options}", spec, error, words, correct(spec), **options)
        if spec.kind == "update":
            for given in bounds_in_the_wrong_order(spec):
                name = f"w_min = {given['w_min']}, w_max = {given['w_max']}"
                yield case(name, spec, ValueError, ["w_min", "w_max"], given)
            for bound, other in (("w_min", "w_max"), ("w_max", "w_min")):  # whose order cannot be looked at
                given = correct(spec, **{bound: np.datetime64("2000"), other: np.float32(1)})
                yield case(f"{bound} is a date", spec, TypeError, [bound, "datetime64"], given)
            for name, given in plain_among_units(spec):
                yield case(f"plain {name}", spec, UnitMismatch, [spec.public_name(name), "mV"], given)
            for name, given in too_large_with_a_unit(spec):
                words = [spec.public_name(name), str(2**32), "jax_enable_x64"]
                yield case(f"large {name} with a unit", spec, OverflowError, words, given)
            operator = getattr(hebbax, f"{spec.name}_p")
            arguments = [correct(spec)[name] for name in spec.arguments]
            for options, error, words in wrong_soft_bounds():
                yield case(f"{options}", spec, error, words, correct(spec), **options)
                wrong = functools.partial(operator, *arguments, shape=SHAPE, **options)
                yield f"{spec.name}_p: {options}", wrong, error, words
            for after, words in wrong_after():
                for name, function in ((spec.name, getattr(hebbax, spec.name)), (f"{spec.name}_p", operator)):
                    wrong = functools.partial(function, *arguments, shape=SHAPE, after=after)
                    yield f"{name}: after = {after}", wrong, TypeError, ["after", *words]
            for name, function in ((spec.name, getattr(hebbax, spec.name)), (f"{spec.name}_p", operator)):
                yield f"{name}: mu is traced", mu_that_is_traced(spec, function), TypeError, ["mu", "a number"]
        for name, function, words in wrong_calls_of_the_operator(spec):
            yield f"{spec.name}_p: {name}", function, TypeError, [spec.name, *words]
        operator = getattr(hebbax, f"{spec.name}_p")
        for what, function, words in (
            ("platform", lambda op=operator: op.available_backends("abacus"), ["platform", "'abacus'", "'cpu'"]),
            ("unknown default", lambda op=operator: op.set_default("cpu", "numba"), ["'numba'", "'cpu'", "'jax'"]),
            ("default", lambda op=operator: op.set_default("gpu", "cython"), ["'cython'", "'cuda'", "cpu only"]),
        ):
            yield f"{spec.name}: {what}", function, ValueError, words
    for n in (0, -1, 1.5, "2", None, True, 1025, 2**30, 2**64):
        yield f"set_num_threads({n!r})", lambda n=n: hebbax.set_num_threads(n), ValueError, ["n", repr(n), "1 to 1024"]


def wrong_message(function, error, words):
    """What is wrong with the error that `function` raises, or None."""
    try:
        function()
    except Exception as raised:
        message = str(raised)
        if not isinstance(raised, error):
            return f"{type(raised).__name__} instead of {error.__name__}: {message}"
        missing = [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message)]
        return f"{missing} not in the message: {message}" if missing else None
    return f"no {error.__name__}"


if __name__ == "__main__":
    wrong = {name: wrong_message(*rest) for name, *rest in cases()}
    print(len(wrong), "cases, optimised:", not __debug__)
    sys.exit("\n".join(f"{name}: {what}" for name, what in wrong.items() if what) or 0)
