"""Functions of one element."""

from __future__ import annotations

import numpy as np

from op_cases.base import OpCase

SHAPES = {
    "matrix": (5, 7),
    "many_rows": (37, 17),
    "one_row": (1, 4999),
    "vector": (19,),
    "scalar": (),
    "cube": (3, 4, 17),
    "no_rows": (0, 3),
    "no_columns": (3, 0),
}


def _away(x: np.ndarray, kinks: tuple[float, ...]) -> np.ndarray:
    """``x`` with every element at least 0.02 away from the kinks."""
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 0.02, kink + np.where(x < kink, -0.04, 0.04), x)
    return x


def _normal(*kinks: float, scale: float = 3.0):
    return lambda rng, shape: [_away(rng.normal(0, scale, shape), kinks)]


def _uniform(low: float, high: float):
    return lambda rng, shape: [rng.uniform(low, high, shape)]


def _case(op, draw, torch, id="plain", shape=SHAPES["matrix"], **attrs) -> OpCase:
    return OpCase(
        op,
        id,
        lambda rng: draw(rng, shape),
        attrs,
        torch=torch,
        rows=len(shape) > 0,
        sizes=lambda rng, n: draw(rng, (n,)),
    )


def _functional(name: str):
    """``torch.nn.functional.<name>``, attributes by the same names."""

    def call(x, **attrs):
        import torch

        return getattr(torch.nn.functional, name)(x, **attrs)

    return call


def _function(name: str, *attributes: str):
    """``torch.<name>`` with the named attributes by position."""

    def call(x, **attrs):
        import torch

        return getattr(torch, name)(x, *(attrs[a] for a in attributes))

    return call


def _gelu(x, tanh=0):
    import torch

    return torch.nn.functional.gelu(x, approximate="tanh" if tanh else "none")


def _hardtanh(x, min=-1.0, max=1.0):
    import torch

    return torch.nn.functional.hardtanh(x, min, max)


def _clip(x, min=None, max=None):
    import torch

    return torch.clamp(x, min, max) if (min, max) != (None, None) else x * 1.0


_relu = _functional("relu")

CASES = [
    *(_case("relu", _normal(0), _relu, name, shape) for name, shape in SHAPES.items()),
    _case("leaky_relu", _normal(0), _functional("leaky_relu")),
    _case("leaky_relu", _normal(0), _functional("leaky_relu"), "steep", negative_slope=0.3),
    _case("leaky_relu", _normal(0), _functional("leaky_relu"), "flat", negative_slope=0.0),
    _case("elu", _normal(0), _functional("elu")),
    _case("elu", _normal(0), _functional("elu"), "half", alpha=0.5),
    _case("gelu", _normal(), _gelu),
    _case("gelu", _normal(), _gelu, "many_rows", SHAPES["many_rows"]),
    _case("gelu", _normal(), _gelu, "tanh", tanh=1),
    _case("silu", _normal(scale=5), _functional("silu")),
    _case("tanh", _normal(scale=1.5), _function("tanh")),
    _case("sigmoid", _normal(scale=5), _function("sigmoid")),
    _case("softplus", _normal(scale=5), _functional("softplus")),
    # The function jumps by log(1 + exp(-threshold)) / beta where beta * x = threshold: a kink at x = 2.5.
    _case("softplus", _normal(2.5, scale=5), _functional("softplus"), "beta", beta=2.0, threshold=5.0),
    _case("hardtanh", _normal(-1, 1), _hardtanh),
    _case("hardtanh", _normal(-0.5, 2), _hardtanh, "lopsided", min=-0.5, max=2.0),
    _case("mish", _normal(scale=5), _functional("mish")),
    _case("exp", _normal(), _function("exp")),
    _case("log", _uniform(0.1, 9), _function("log")),
    _case("sqrt", _uniform(0.1, 9), _function("sqrt")),
    _case("abs", _normal(0), _function("abs")),
    _case("neg", _normal(), _function("neg")),
    _case("clip", _normal(-1, 2), _clip, "both", min=-1.0, max=2.0),
    _case("clip", _normal(-1), _clip, "below", min=-1.0),
    _case("clip", _normal(2), _clip, "above", max=2.0),
    _case("clip", _normal(), _clip),
    # Away from zero where a derivative grows without bound or the function is not defined.
    *(_case("power", _normal(), _function("pow", "exponent"), f"to_{e}", exponent=e) for e in (0, 1, 2, 3, 4, 7)),
    *(
        _case("power", _uniform(0.3, 4), _function("pow", "exponent"), f"to_{e}", exponent=e)
        for e in (-2.5, -1, -0.5, 0.5, 1.5, 2.7)
    ),
]
