"""Largest errors of the vector functions, in units in the last place of float32, on every instruction set.

The bounds are those of the table in csrc/kernels/math.h (elu is expm1 below zero; gelu is x times the normal cdf).
Arguments: floats of every exponent at random, and the interesting range densely. Results below the smallest normal
number may be zero.
"""

import math

import numpy as np
import pytest

from pybackprop import _core

# op, options, reference in float64, least and greatest argument, bound with FMA, bound without
FUNCTIONS = [
    ("exp", {}, np.exp, -110, 89, 1.0, 1.0),
    ("elu", {}, np.expm1, -110, -1e-37, 1.5, 1.5),
    ("log", {}, np.log, 0, 3e38, 0.8, 0.8),
    ("tanh", {}, np.tanh, -20, 20, 1.8, 2.0),
    ("sigmoid", {}, lambda x: 1 / (1 + np.exp(-x)), -87, 89, 2.0, 2.0),
    ("silu", {}, lambda x: x / (1 + np.exp(-x)), -87, 89, 2.3, 2.3),
    ("softplus", {}, lambda x: np.logaddexp(0, x), -87, 89, 2.3, 2.5),
    ("gelu", {}, np.vectorize(lambda x: 0.5 * x * math.erfc(-x / math.sqrt(2))), -4, 30, 8.5, 10.0),
]


def computed(op, options, x, level):
    graph = _core.Graph(training=False, isa=level)
    (y,) = graph.node(op, [graph.input(x.shape)], **options)
    (result,), _, _ = _core.Program(graph, [y]).run((x,))
    return result


def arguments(low, high):
    rng = np.random.default_rng(0)
    every = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = rng.uniform(max(low, -90), min(high, 90), 1 << 16).astype(np.float32)
    near = rng.normal(size=1 << 15).astype(np.float32)
    x = np.concatenate([every, dense, near])
    with np.errstate(invalid="ignore"):
        return x[(np.abs(x) >= np.finfo(np.float32).tiny) & (x >= low) & (x <= high)]


@pytest.mark.parametrize("level", _core.isa_names())
@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda c: c[0])
def test_errors_stay_below_the_stated_bounds(case, level):
    op, options, reference, low, high, with_fma, without = case
    x = arguments(low, high)
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
        inside = (np.abs(exact) >= np.finfo(np.float32).tiny) & (np.abs(exact) < np.finfo(np.float32).max)
        x, exact = x[inside], exact[inside]
        error = np.abs(computed(op, options, x, level) - exact) / np.spacing(np.abs(exact).astype(np.float32))
    worst = int(np.argmax(error))
    bound = without if level == "x86-64-v2" else with_fma
    assert error[worst] <= bound, f"{op}({x[worst]!r}): {error[worst]:.2f} ulp"


@pytest.mark.parametrize("level", _core.isa_names())
def test_gelu_by_tanh_has_a_small_absolute_error(level):
    x = arguments(-30, 30)
    d = x.astype(np.float64)
    exact = 0.5 * d * (1 + np.tanh(math.sqrt(2 / math.pi) * (d + 0.044715 * d**3)))
    got = computed("gelu", {"tanh": 1}, x, level)
    np.testing.assert_allclose(got, exact, rtol=4e-7, atol=4e-7)


@pytest.mark.parametrize("level", _core.isa_names())
@pytest.mark.parametrize(
    ("op", "reference", "low", "high", "bound"),
    [
        ("exp", np.exp, -708, 709.7, 1.5),
        ("tanh", np.tanh, -25, 25, 2.5),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), -700, 700, 3.0),
    ],
)
def test_doubles(op, reference, low, high, bound, level):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(low, high, 1 << 15), rng.normal(size=1 << 15), 10.0 ** rng.uniform(-300, 0, 1 << 14)]
    )
    exact = reference(x.astype(np.longdouble))
    graph = _core.Graph(dtype="float64", training=False, isa=level)
    (y,) = graph.node(op, [graph.input(x.shape)])
    (got,), _, _ = _core.Program(graph, [y]).run((x,))
    error = np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float64))
    assert error.max() <= bound, f"{op}({x[error.argmax()]!r}): {error.max():.2f} ulp"
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e308, 5e-324])
    graph = _core.Graph(dtype="float64", training=False, isa=level)
    (y,) = graph.node(op, [graph.input(special.shape)])
    (got,), _, _ = _core.Program(graph, [y]).run((special,))
    with np.errstate(all="ignore"):
        expected = reference(special)
    np.testing.assert_allclose(got, expected, rtol=1e-15, atol=1e-300)
    assert (np.signbit(got[3:5]) == np.signbit(expected[3:5])).all()
