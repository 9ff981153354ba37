"""Sums, means and extremes over dimensions."""

from __future__ import annotations

from typing import Any

from ._call import lift, many_dims, node, op


def _reduce(name: str, x: Any, dim: Any, keepdim: bool, axis: Any, keepdims: bool) -> Any:
    x = lift(x, name)
    dims = many_dims(name, dim, axis, x.ndim)
    return node(name, x, dims=dims, keepdim=int(bool(keepdim or keepdims)))


@op("x")
def sum(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum over ``dim``.

    Args:
        x: Tensor or array.
        dim: an integer, several, or None for all dimensions; ``axis`` is another name for it.
        keepdim: leave the reduced dimensions with length 1; ``keepdims`` is another name for it.

    Raises:
        ValueError: no such dimension.

    >>> sum([[1.0, 2.0], [3.0, 4.0]], dim=1)
    array([3., 7.], dtype=float32)
    """
    return _reduce("sum", x, dim, keepdim, axis, keepdims)


@op("x")
def mean(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean over ``dim``; arguments as in ``sum``. The mean of nothing is an error.

    >>> mean([[1.0, 2.0], [3.0, 4.0]], dim=0)
    array([2., 3.], dtype=float32)
    """
    return _reduce("mean", x, dim, keepdim, axis, keepdims)


@op("x")
def max(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Largest element over ``dim``; arguments as in ``sum``. Equal ones share the gradient (as PyTorch's ``amax``).

    >>> max([[1.0, 2.0], [3.0, 4.0]], dim=1)
    array([2., 4.], dtype=float32)
    """
    return _reduce("max", x, dim, keepdim, axis, keepdims)


@op("x")
def min(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Smallest element over ``dim``; arguments as in ``sum``. Equal ones share the gradient (as PyTorch's ``amin``).

    >>> min([[1.0, 2.0], [3.0, 4.0]], dim=1)
    array([1., 3.], dtype=float32)
    """
    return _reduce("min", x, dim, keepdim, axis, keepdims)


@op("x")
def logsumexp(x: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over ``dim`` without overflow; arguments as in ``sum``.

    >>> logsumexp([1000.0, 1000.0]).round(2)
    np.float32(1000.69)
    """
    return _reduce("logsumexp", x, dim, keepdim, axis, keepdims)
