"""What layers are made of: products, softmax, norms, dropout, embedding."""

from __future__ import annotations

from typing import Any

from .._tensor import Operators, Tensor
from .._tracer import prefix
from ._call import lift, node, one_dim, op, products, shape_arg, tracer


@op("x", "weight", "bias")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """``x @ weight.T + bias``.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,), or None.

    Returns:
        (..., out)

    Raises:
        ValueError: shapes do not fit.

    >>> linear([[1.0, 2.0]], [[3.0, 4.0]], [0.5])
    array([[11.5]], dtype=float32)
    """
    return node("linear", x, weight, *([] if bias is None else [bias]), **products())


@op("a", "b")
def matmul(a: Any, b: Any) -> Any:
    """Matrix product, as NumPy's ``@``: the last two dimensions multiply, those before broadcast; vectors are allowed.

    >>> matmul([[1.0, 2.0]], [3.0, 4.0])
    array([11.], dtype=float32)
    """
    a, b = lift(a, "matmul"), lift(b, "matmul")
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"{prefix('matmul')}expects operands with dimensions, got shapes {a.shape} and {b.shape}")
    row, column = a.ndim == 1, b.ndim == 1
    a = node("reshape", a, shape=[1, *a.shape]) if row else a
    b = node("reshape", b, shape=[*b.shape, 1]) if column else b
    y = node("matmul", a, b, **products())
    if row or column:
        shape = [*y.shape[:-2], *([] if row else [y.shape[-2]]), *([] if column else [y.shape[-1]])]
        y = node("reshape", y, shape=shape)
    return y


def _softmax(name: str, x: Any, dim: int, axis: int | None) -> Any:
    x = lift(x, name)
    return node(name, x, dim=one_dim(name, dim if axis is None else axis, x.ndim))


@op("x")
def softmax(x: Any, dim: int = -1, *, axis: int | None = None) -> Any:
    """``exp(x) / sum(exp(x))`` along ``dim``, without overflow; ``axis`` is another name for ``dim``.

    >>> softmax([0.0, 0.0])
    array([0.5, 0.5], dtype=float32)
    """
    return _softmax("softmax", x, dim, axis)


@op("x")
def log_softmax(x: Any, dim: int = -1, *, axis: int | None = None) -> Any:
    """``x - logsumexp(x)`` along ``dim``; ``axis`` is another name for ``dim``.

    >>> log_softmax([0.0, 0.0]).round(4)
    array([-0.6931, -0.6931], dtype=float32)
    """
    return _softmax("log_softmax", x, dim, axis)


def _normalized(name: str, x: Tensor, normalized_shape: Any) -> int:
    shape = shape_arg(name, normalized_shape)
    if not shape or list(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"{prefix(name)}expects an input whose shape ends in {tuple(shape)}, got {x.shape}")
    return len(shape)


@op("x", "weight", "bias")
def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions, with the biased variance.

    Ba, Kiros and Hinton 2016, arXiv:1607.06450.

    Args:
        x: (..., *normalized_shape).
        normalized_shape: an integer or a tuple: the lengths of the last dimensions.
        weight, bias: of shape ``normalized_shape``, or None.
        eps: keeps the quotient finite.

    >>> layer_norm([[1.0, 3.0]], 2).round(3)
    array([[-1.,  1.]], dtype=float32)
    """
    x = lift(x, "layer_norm")
    dims = _normalized("layer_norm", x, normalized_shape)
    if weight is None and bias is not None:
        raise ValueError(f"{prefix('layer_norm')}a bias needs a weight")
    given = [v for v in (weight, bias) if v is not None]
    return node("layer_norm", x, *given, eps=float(eps), dims=dims)


@op("x", "weight")
def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last dimensions (Zhang and Sennrich 2019, arXiv:1910.07467).

    Args:
        x: (..., *normalized_shape).
        normalized_shape: an integer or a tuple: the lengths of the last dimensions.
        weight: of shape ``normalized_shape``, or None.
        eps: None for the machine epsilon of x's dtype, as in PyTorch.

    >>> rms_norm([[3.0, 3.0]], 2).round(3)
    array([[1., 1.]], dtype=float32)
    """
    x = lift(x, "rms_norm")
    dims = _normalized("rms_norm", x, normalized_shape)
    eps = _EPSILON[x.dtype.name] if eps is None else float(eps)
    return node("rms_norm", x, *([] if weight is None else [weight]), eps=eps, dims=dims)


_EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


def _in_training(name: str, training: bool | None) -> bool:
    on = tracer().training
    if training and not on:
        raise ValueError(f"{prefix(name)}training=True needs a training program, and this one is for inference")
    return on if training is None else on and training


@op("x", "running_mean", "running_var", "weight", "bias")
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    training: bool | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    frozen: bool = False,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    In training mean and variance (biased) are those of the batch, otherwise the running ones. Buffers given as running
    statistics become ``(1 - momentum) * old + momentum * batch`` after a training step, with the unbiased variance.

    Args:
        x: (N, C) or (N, C, L).
        running_mean, running_var: (C,).
        weight, bias: (C,), both or none.
        training: None stands for the kind of program being traced, and for False on arrays.
        momentum: weight of the new value.
        eps: keeps the quotient finite.
        frozen: use the running statistics in training, too, and leave them as they are.

    >>> batch_norm([[1.0], [3.0]], [1.0], [4.0]).round(3)
    array([[0.],
           [1.]], dtype=float32)
    """
    if (weight is None) != (bias is None):
        raise ValueError(f"{prefix('batch_norm')}give both weight and bias, or none of them")
    batch = _in_training("batch_norm", training) and not frozen
    t = tracer()
    mean, var = t.lift(running_mean, "batch_norm"), t.lift(running_var, "batch_norm")
    given = [] if weight is None else [weight, bias]
    options = {"eps": float(eps), "momentum": float(momentum), "frozen": int(not batch), "affine": int(bool(given))}
    if batch:  # a second call in one step goes on from the first one's statistics
        mean_now, var_now = (Tensor(t, t.graph.latest(v._value)) for v in (mean, var))
    else:
        mean_now, var_now = mean, var
    y = node("batch_norm", x, *given, mean_now, var_now, **options)
    if not batch:
        return y
    y, new_mean, new_var = y
    for stored, old, new in ((running_mean, mean, new_mean), (running_var, var, new_var)):
        if isinstance(stored, Operators) and not isinstance(stored, Tensor):
            t.graph.assign(old._value, new._value)
    return y


@op("x", training=True, random=True)
def dropout(x: Any, p: float = 0.5, *, training: bool | None = None) -> Any:
    """Each element is 0 with probability ``p``, else divided by ``1 - p`` (Srivastava et al. 2014, JMLR 15).

    In inference ``x`` itself. The mask depends on the run's seed, the step, the row and the column, not on threads or
    shards.

    Args:
        x: (N, ...), any shape.
        p: from 0 to 1.
        training: None stands for the kind of program being traced, and for True on arrays.

    >>> dropout([1.0, 2.0], 0.5, training=False)
    array([1., 2.], dtype=float32)
    """
    if not 0 <= p <= 1:
        raise ValueError(f"{prefix('dropout')}p must be from 0 to 1, got {p}")
    x = lift(x, "dropout")
    if p == 0 or not _in_training("dropout", training):
        return x
    if p == 1:
        return node("mul", x, 0.0)
    t = tracer()
    t.random_nodes += 1
    return node("dropout", x, rate=float(p), index=t.random_nodes - 1)


@op("ids", "weight", integers=("ids",))
def embedding(ids: Any, weight: Any, padding_idx: int | None = None, sparse: bool = False) -> Any:
    """Rows of a table: ``weight[ids]``.

    Args:
        ids: integers of any shape, from 0 to V - 1.
        weight: (V, C).
        padding_idx: a row that gets no gradient.
        sparse: the gradient is rows; ``weight`` must then be a Parameter made with ``sparse=True``.

    Returns:
        ``ids.shape + (C,)``

    Raises:
        ValueError: an id is out of range.
        TypeError: ids are not integers.

    >>> embedding([1, 0], [[1.0, 2.0], [3.0, 4.0]])
    array([[3., 4.],
           [1., 2.]], dtype=float32)
    """
    weight = lift(weight, "embedding")
    padding = -1
    if padding_idx is not None:
        padding = one_dim("embedding", padding_idx, weight.shape[0]) if weight.ndim else -1
    ids = lift(ids, "embedding", integer=True)
    return node("embedding", ids, weight, padding_idx=padding, sparse=int(sparse))
