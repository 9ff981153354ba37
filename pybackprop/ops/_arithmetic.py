"""Functions of two and three operands, with NumPy's broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._call import node, op


@op("a", "b")
def add(a: Any, b: Any) -> Any:
    """``a + b``, broadcast.

    >>> add([1.0, 2.0], 10.0)
    array([11., 12.], dtype=float32)
    """
    return node("add", a, b)


@op("a", "b")
def sub(a: Any, b: Any) -> Any:
    """``a - b``, broadcast.

    >>> sub([1.0, 2.0], 1.0)
    array([0., 1.], dtype=float32)
    """
    return node("sub", a, b)


@op("a", "b")
def mul(a: Any, b: Any) -> Any:
    """``a * b``, broadcast.

    >>> mul([1.0, 2.0], 3.0)
    array([3., 6.], dtype=float32)
    """
    return node("mul", a, b)


@op("a", "b")
def div(a: Any, b: Any) -> Any:
    """``a / b``, broadcast.

    >>> div([1.0, 2.0], 2.0)
    array([0.5, 1. ], dtype=float32)
    """
    return node("div", a, b)


@op("a", "b")
def pow(a: Any, b: Any) -> Any:
    """``a ** b``, broadcast. In a trace, a number ``b`` is a constant exponent, as in ``power``.

    >>> pow([1.0, 2.0], [3.0, 3.0])
    array([1., 8.], dtype=float32)
    """
    if isinstance(b, (int, float, np.number)):
        return node("power", a, exponent=float(b))
    return node("pow", a, b)


@op("a", "b")
def maximum(a: Any, b: Any) -> Any:
    """The larger of two, element by element, broadcast; equal ones share the gradient.

    >>> maximum([1.0, 2.0], 1.5)
    array([1.5, 2. ], dtype=float32)
    """
    return node("maximum", a, b)


@op("a", "b")
def minimum(a: Any, b: Any) -> Any:
    """The smaller of two, element by element, broadcast; equal ones share the gradient.

    >>> minimum([1.0, 2.0], 1.5)
    array([1. , 1.5], dtype=float32)
    """
    return node("minimum", a, b)


@op("condition", "a", "b")
def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where ``condition`` is not 0, ``b`` elsewhere, broadcast. The condition has no gradient.

    >>> where([True, False], 1.0, [5.0, 6.0])
    array([1., 6.], dtype=float32)
    """
    return node("where", condition, a, b)


@op("a", "b")
def greater(a: Any, b: Any) -> Any:
    """1 where ``a > b``, else 0, broadcast. No gradient.

    >>> greater([1.0, 2.0], 1.0)
    array([0., 1.], dtype=float32)
    """
    return node("greater", a, b)


@op("a", "b")
def less(a: Any, b: Any) -> Any:
    """1 where ``a < b``, else 0, broadcast. No gradient.

    >>> less([1.0, 2.0], 2.0)
    array([1., 0.], dtype=float32)
    """
    return node("less", a, b)


@op("a", "b")
def greater_equal(a: Any, b: Any) -> Any:
    """1 where ``a >= b``, else 0, broadcast. No gradient.

    >>> greater_equal([1.0, 2.0], 2.0)
    array([0., 1.], dtype=float32)
    """
    return node("greater_equal", a, b)


@op("a", "b")
def less_equal(a: Any, b: Any) -> Any:
    """1 where ``a <= b``, else 0, broadcast. No gradient.

    >>> less_equal([1.0, 2.0], 1.0)
    array([1., 0.], dtype=float32)
    """
    return node("less_equal", a, b)


@op("a", "b")
def equal(a: Any, b: Any) -> Any:
    """1 where ``a == b``, else 0, broadcast. No gradient.

    >>> equal([1.0, 2.0], 2.0)
    array([0., 1.], dtype=float32)
    """
    return node("equal", a, b)


@op("a", "b")
def not_equal(a: Any, b: Any) -> Any:
    """1 where ``a != b``, else 0, broadcast. No gradient.

    >>> not_equal([1.0, 2.0], 2.0)
    array([1., 0.], dtype=float32)
    """
    return node("not_equal", a, b)
