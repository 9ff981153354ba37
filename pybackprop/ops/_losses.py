"""Losses. The mean is over all elements; with sample weights w it is sum(w * l) / sum(w), l a sample's mean loss.

A prediction and a target agree in shape; only (n,) against (n, 1), either way, is taken as a column. ``reduction`` is
``"mean"``, ``"sum"`` or ``"none"`` (the loss of each element, times its sample's weight).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tensor import Tensor
from .._tracer import prefix
from ._call import lift, node, op

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _reduction(name: str, reduction: str, allowed: dict[str, int] = _REDUCTIONS) -> int:
    code = allowed.get(reduction) if isinstance(reduction, str) else None
    if code is None:
        raise ValueError(f"{prefix(name)}reduction must be one of {', '.join(allowed)}, got {reduction!r}")
    return code


def _pointwise(name: str, pred: Any, target: Any, sample_weight: Any, reduction: int, **options: Any) -> Any:
    inputs = [pred, target]
    if sample_weight is not None:
        inputs.append(sample_weight)
        options["weighted"] = 1
    return node(name, *inputs, reduction=reduction, **options)


@op("pred", "target", "sample_weight")
def mse(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean") -> Any:
    """Squared error ``(pred - target) ** 2``.

    Args:
        pred: any shape.
        target: the same shape.
        sample_weight: (n,), n the length of the first dimension, or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of ``pred`` for ``"none"``.

    Raises:
        ValueError: shapes differ.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    np.float32(2.0)
    """
    return _pointwise("mse", pred, target, sample_weight, _reduction("mse", reduction))


@op("pred", "target", "sample_weight")
def l1(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean") -> Any:
    """Absolute error ``|pred - target|``; arguments as in ``mse``.

    >>> l1([1.0, 2.0], [1.0, 4.0])
    np.float32(1.0)
    """
    return _pointwise("l1", pred, target, sample_weight, _reduction("l1", reduction))


@op("pred", "target", "sample_weight")
def huber(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean", delta: float = 1.0) -> Any:
    """``e ** 2 / 2`` where ``|e| <= delta``, else ``delta * (|e| - delta / 2)``, e the error (Huber 1964).

    >>> huber([0.0, 0.0], [1.0, 3.0], reduction="none")
    array([0.5, 2.5], dtype=float32)
    """
    return _pointwise("huber", pred, target, sample_weight, _reduction("huber", reduction), delta=float(delta))


@op("pred", "target", "sample_weight", "pos_weight")
def bce_with_logits(
    pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Binary cross-entropy of logits: ``-(p t log s + (1 - t) log(1 - s))``, s the sigmoid of ``pred``, p
    ``pos_weight``.

    Args:
        pred: logits of any shape.
        target: the same shape, from 0 to 1.
        sample_weight: (n,), or None.
        reduction: as in ``mse``.
        pos_weight: weight of the positive class: a number, or one for each column; None for 1.

    >>> bce_with_logits([0.0], [1.0]).round(4)
    np.float32(0.6931)
    """
    code = _reduction("bce_with_logits", reduction)
    if pos_weight is None:
        return _pointwise("bce_with_logits", pred, target, sample_weight, code)
    weighted = [] if sample_weight is None else [sample_weight]
    flags = {"pos_weighted": 1, "weighted": len(weighted)}
    return node("bce_with_logits", pred, target, pos_weight, *weighted, reduction=code, **flags)


@op("pred", "target", "sample_weight")
def poisson_nll(
    pred: Any,
    target: Any,
    sample_weight: Any = None,
    reduction: str = "mean",
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
) -> Any:
    """Negative log-likelihood of counts: ``exp(pred) - target * pred``; arguments as in ``mse``, and:

    Args:
        pred, target, sample_weight, reduction: as in ``mse``.
        log_input: False: ``pred`` is the rate itself, ``pred - target * log(pred + eps)``.
        full: add Stirling's ``t log t - t + log(2 pi t) / 2`` where ``target > 1``.
        eps: keeps the logarithm finite.

    >>> poisson_nll([0.0], [1.0])
    np.float32(1.0)
    """
    options = {"log_input": int(log_input), "full": int(full), "eps": float(eps)}
    return _pointwise("poisson_nll", pred, target, sample_weight, _reduction("poisson_nll", reduction), **options)


@op("pred", "target", "sample_weight")
def pinball(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean", quantiles: Any = (0.5,)) -> Any:
    """Quantile loss ``max(q e, (q - 1) e)``, e = ``target - pred`` (Koenker and Bassett 1978).

    Args:
        pred: (n, Q), one column for each quantile; or (n,) for one quantile.
        target: (n,) or (n, 1).
        sample_weight: (n,), or None.
        reduction: as in ``mse``.
        quantiles: numbers between 0 and 1.

    >>> pinball([[0.0, 0.0]], [1.0], reduction="none", quantiles=(0.1, 0.9))
    array([[0.1, 0.9]], dtype=float32)
    """
    quantiles = [float(q) for q in np.atleast_1d(quantiles)]
    return _pointwise("pinball", pred, target, sample_weight, _reduction("pinball", reduction), quantiles=quantiles)


@op("pred", "target", "sample_weight")
def hinge(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean") -> Any:
    """``max(0, 1 - target * pred)`` for targets -1 and 1; arguments as in ``mse``.

    >>> hinge([0.5, 2.0], [1.0, 1.0], reduction="none")
    array([0.5, 0. ], dtype=float32)
    """
    return _pointwise("hinge", pred, target, sample_weight, _reduction("hinge", reduction))


@op("pred", "target", "sample_weight")
def kl_div(pred: Any, target: Any, sample_weight: Any = None, reduction: str = "mean", log_target: bool = False) -> Any:
    """Kullback-Leibler divergence ``target * (log(target) - pred)``.

    Args:
        pred: log-probabilities, any shape.
        target: probabilities of the same shape, or their logarithms.
        sample_weight: (n,), or None.
        reduction: as in ``mse``, or ``"batchmean"``: the sum divided by n, which is the divergence itself.
        log_target: whether ``target`` holds logarithms.

    >>> kl_div([0.0], [1.0])
    np.float32(0.0)
    """
    code = _reduction("kl_div", reduction, {**_REDUCTIONS, "batchmean": 3})
    return _pointwise("kl_div", pred, target, sample_weight, code, log_target=int(log_target))


def _classes(
    name: str, pred: Any, target: Any, weight: Any, sample_weight: Any, reduction: str, **options: float
) -> Any:
    code = _reduction(name, reduction)
    pred, target = lift(pred, name), lift(target, name, integer=True)
    probabilities = target.dtype.kind == "f"
    expected = pred.shape if probabilities else (*pred.shape[:1], *pred.shape[2:])
    if pred.ndim > 2 and target.shape != expected:
        raise ValueError(f"{prefix(name)}expects a target of shape {expected} for {pred.shape}, got {target.shape}")
    places = pred.shape[2:]
    rows = [pred.shape[0], *places] if pred.ndim > 2 else []
    if places:
        # (N, C, d...) to (N * d..., C): each place is a row of its own.
        if sample_weight is not None:
            sample_weight = lift(sample_weight, name)
            column = node("reshape", sample_weight, shape=[pred.shape[0], 1])
            count = int(np.prod(places, dtype=np.int64))
            sample_weight = node("reshape", node("broadcast_to", column, shape=[pred.shape[0], count]), shape=[-1])
        target = _class_rows(target) if probabilities else node("reshape", target, shape=[-1])
        pred = _class_rows(pred)
    inputs = [pred, target]
    if weight is not None:
        inputs.append(weight)
        options["class_weighted"] = 1
    if sample_weight is not None:
        inputs.append(sample_weight)
        options["weighted"] = 1
    y = node(name, *inputs, reduction=code, **options)
    return node("reshape", y, shape=rows) if rows and code == 0 else y


def _class_rows(x: Tensor) -> Any:
    order = [0, *range(2, x.ndim), 1]
    count = x.shape[0] * int(np.prod(x.shape[2:], dtype=np.int64))
    return node("reshape", node("transpose", x, perm=order), shape=[count, x.shape[1]])


@op("pred", "target", "weight", "sample_weight", integers=("target",))
def cross_entropy(
    pred: Any,
    target: Any,
    weight: Any = None,
    sample_weight: Any = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of softmax: ``-log softmax(pred)[target]``.

    Args:
        pred: logits (N, C), or (N, C, d...).
        target: labels from 0 to C - 1, integers of shape (N,) or (N, d...); or probabilities of the shape of ``pred``.
        weight: (C,), a weight for each class, or None. As in PyTorch, the mean over labels divides by the weights that
            were applied, and the mean over probabilities by the number of rows.
        sample_weight: (N,), or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: a label that counts nowhere.
        label_smoothing: share of the target that is spread evenly over the classes, from 0 to 1.

    Returns:
        A scalar, or (N,) or (N, d...) for ``"none"``.

    Raises:
        ValueError: shapes do not fit, or a label is out of range.

    >>> cross_entropy([[0.0, 0.0]], [1]).round(4)
    np.float32(0.6931)
    """
    options = {"label_smoothing": float(label_smoothing), "ignore_index": int(ignore_index)}
    return _classes("cross_entropy", pred, target, weight, sample_weight, reduction, **options)


@op("pred", "target", "weight", "sample_weight", integers=("target",))
def nll(
    pred: Any,
    target: Any,
    weight: Any = None,
    sample_weight: Any = None,
    reduction: str = "mean",
    ignore_index: int = -100,
) -> Any:
    """Negative log-likelihood ``-pred[target]`` of log-probabilities; arguments as in ``cross_entropy``, labels only.

    >>> nll([[-1.0, -2.0]], [1])
    np.float32(2.0)
    """
    return _classes("nll", pred, target, weight, sample_weight, reduction, ignore_index=int(ignore_index))
