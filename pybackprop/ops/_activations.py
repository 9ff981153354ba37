"""Functions of one element."""

from __future__ import annotations

from typing import Any

from .._tracer import prefix
from ._call import node, op


@op("x")
def relu(x: Any) -> Any:
    """``max(x, 0)``; derivative 0 at 0. Any shape.

    >>> relu([-1.0, 2.0])
    array([0., 2.], dtype=float32)
    """
    return node("relu", x)


@op("x")
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """``x`` where positive, ``negative_slope * x`` elsewhere. Any shape.

    >>> leaky_relu([-1.0, 2.0], 0.5)
    array([-0.5,  2. ], dtype=float32)
    """
    return node("leaky_relu", x, negative_slope=float(negative_slope))


@op("x")
def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2015, arXiv:1511.07289). Any shape.

    >>> elu([0.0, 2.0])
    array([0., 2.], dtype=float32)
    """
    return node("elu", x, alpha=float(alpha))


@op("x")
def gelu(x: Any, approximate: str = "none") -> Any:
    """``x * Phi(x)``, Phi the normal distribution function (Hendrycks and Gimpel 2016, arXiv:1606.08415). Any shape.

    Args:
        x: Tensor or array.
        approximate: ``"none"``, or ``"tanh"`` for ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3)))``.

    Raises:
        ValueError: another ``approximate``.

    >>> gelu([0.0, 1.0]).round(4)
    array([0.    , 0.8413], dtype=float32)
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f'{prefix("gelu")}approximate must be "none" or "tanh", got {approximate!r}')
    return node("gelu", x, tanh=int(approximate == "tanh"))


@op("x")
def silu(x: Any) -> Any:
    """``x * sigmoid(x)``, also called swish (Elfwing et al. 2017, arXiv:1702.03118). Any shape.

    >>> silu([0.0, 1.0]).round(4)
    array([0.    , 0.7311], dtype=float32)
    """
    return node("silu", x)


@op("x")
def tanh(x: Any) -> Any:
    """Hyperbolic tangent. Any shape.

    >>> tanh([0.0])
    array([0.], dtype=float32)
    """
    return node("tanh", x)


@op("x")
def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``. Any shape.

    >>> sigmoid([0.0])
    array([0.5], dtype=float32)
    """
    return node("sigmoid", x)


@op("x")
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` where ``beta * x > threshold``. Any shape.

    >>> softplus([0.0, 30.0]).round(4)
    array([ 0.6931, 30.    ], dtype=float32)
    """
    return node("softplus", x, beta=float(beta), threshold=float(threshold))


@op("x")
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """``x`` held between ``min_val`` and ``max_val``; derivative 0 at and beyond them. Any shape.

    >>> hardtanh([-3.0, 0.5])
    array([-1. ,  0.5], dtype=float32)
    """
    return node("hardtanh", x, min=float(min_val), max=float(max_val))


@op("x")
def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))`` (Misra 2019, arXiv:1908.08681). Any shape.

    >>> mish([0.0, 1.0]).round(4)
    array([0.    , 0.8651], dtype=float32)
    """
    return node("mish", x)


@op("x")
def exp(x: Any) -> Any:
    """``e ** x``. Any shape.

    >>> exp([0.0])
    array([1.], dtype=float32)
    """
    return node("exp", x)


@op("x")
def log(x: Any) -> Any:
    """Natural logarithm; NaN below 0. Any shape.

    >>> log([1.0])
    array([0.], dtype=float32)
    """
    return node("log", x)


@op("x")
def sqrt(x: Any) -> Any:
    """Square root; NaN below 0. Any shape.

    >>> sqrt([4.0])
    array([2.], dtype=float32)
    """
    return node("sqrt", x)


@op("x")
def abs(x: Any) -> Any:
    """Absolute value; derivative 0 at 0. Any shape.

    >>> abs([-2.0])
    array([2.], dtype=float32)
    """
    return node("abs", x)


@op("x")
def neg(x: Any) -> Any:
    """``-x``. Any shape.

    >>> neg([2.0])
    array([-2.], dtype=float32)
    """
    return node("neg", x)


@op("x")
def square(x: Any) -> Any:
    """``x ** 2``. Any shape.

    >>> square([-3.0])
    array([9.], dtype=float32)
    """
    return node("power", x, exponent=2.0)


@op("x")
def clip(x: Any, min: float | None = None, max: float | None = None) -> Any:
    """``x`` held between ``min`` and ``max``; None is no bound. The derivative is 1 within them, bounds included. Any
    shape.

    >>> clip([-3.0, 0.5, 7.0], 0.0, 1.0)
    array([0. , 0.5, 1. ], dtype=float32)
    """
    if min is not None and max is not None and not min <= max:
        raise ValueError(f"{prefix('clip')}min must not be above max, got {min} and {max}")
    bounds = {name: float(b) for name, b in (("min", min), ("max", max)) if b is not None}
    return node("clip", x, **bounds)


@op("x")
def power(x: Any, exponent: float) -> Any:
    """``x ** exponent`` for a constant exponent. Any shape.

    >>> power([2.0], 3)
    array([8.], dtype=float32)
    """
    return node("power", x, exponent=float(exponent))
