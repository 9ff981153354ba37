"""Metrics: sums computed as nodes of the same graph as the loss, finished into one number at the end of an epoch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import ops
from ..nn.loss import BCEWithLogitsLoss


class Metric:
    """A number that tells how good predictions are.

    Subclasses define ``name``, ``sums`` and ``finish``. An instance keeps nothing between epochs.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> class RootMeanSquare(pb.Metric):
        ...     name = "rms"
        ...     def sums(self, pred, target):
        ...         return (((pred - target) ** 2).sum(),)
        ...     def finish(self, sums, rows):
        ...         return float(np.sqrt(sums[:, 0].sum() / rows.sum()))
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight = [[3.0]]
        >>> trainer = pb.Trainer(model, nn.MSELoss(), optimizer=optim.SGD(lr=0.1), metrics=[RootMeanSquare()])
        >>> trainer.evaluate(np.ones((4, 1)), np.ones((4, 1)))
        {'loss': 4.0, 'rms': 2.0}
    """

    name: str

    def sums(self, pred: Any, target: Any) -> tuple[Any, ...]:
        """Scalar Tensors of one batch, from the model's output and the target as Tensors."""
        raise NotImplementedError(f"{type(self).__name__} must define sums(pred, target)")

    def finish(self, sums: np.ndarray, rows: np.ndarray) -> float:
        """One number for all batches seen.

        Args:
            sums: float64, (batches, scalars that ``sums`` gave).
            rows: float64, (batches,): rows of each batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define finish(sums, rows)")


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Sum of ``values * weights`` over the sum of ``weights``; a batch of weight 0 does not count, even if NaN."""
    total = weights.sum()
    return float(np.where(weights > 0, values * weights, 0.0).sum() / total) if total > 0 else float("nan")


class MeanMetric(Metric):
    """The mean over rows of a function ``f(pred, target)`` that gives the batch's mean as a scalar Tensor."""

    def __init__(self, function: Callable[[Any, Any], Any], name: str) -> None:
        self.function, self.name = function, name

    def sums(self, pred: Any, target: Any) -> tuple[Any, ...]:
        value = self.function(pred, target)
        if tuple(getattr(value, "shape", (None,))) != ():
            raise ValueError(
                f"metric {self.name} must give a scalar Tensor, got {getattr(value, 'shape', type(value).__name__)}"
            )
        return (value,)

    def finish(self, sums: np.ndarray, rows: np.ndarray) -> float:
        return weighted_mean(sums[:, 0], rows)


class R2(Metric):
    """Coefficient of determination, ``1 - sum (y - p)^2 / sum (y - mean y)^2``, averaged over the target's columns.

    As ``sklearn.metrics.r2_score``. Sums of squares of batches are joined around their own means (Chan et al. 1983), so
    a large mean of ``y`` does not cost precision.
    """

    name = "r2"
    _most_columns = 64

    def sums(self, pred: Any, target: Any) -> tuple[Any, ...]:
        p, y = (t.reshape(t.shape[0], -1) for t in (pred, aligned(target, pred, "r2")))
        columns = p.shape[1]
        if columns > self._most_columns:
            raise ValueError(f"metric r2 takes at most {self._most_columns} columns, got {columns}; use 'mse'")
        mean = y.mean(0, keepdim=True)
        residual, spread = ((y - p) ** 2).sum(0), ((y - mean) ** 2).sum(0)
        flat = mean.reshape(-1)
        return tuple(v[i] for i in range(columns) for v in (residual, spread, flat))

    def finish(self, sums: np.ndarray, rows: np.ndarray) -> float:
        residual, spread, means = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
        n = rows[:, None]
        mean = (means * n).sum(0) / n.sum()
        total = spread.sum(0) + (n * (means - mean) ** 2).sum(0)
        residual = residual.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(total > 0, 1 - residual / total, np.where(residual > 0, 0.0, 1.0))
        return float(score.mean())


def aligned(target: Any, pred: Any, who: str) -> Any:
    """``target`` in the shape of ``pred``; (n,) and (n, 1) are the same column, anything else is an error."""
    if tuple(target.shape) == tuple(pred.shape):
        return target
    shapes = [(*s, 1) if len(s) == 1 else tuple(s) for s in (target.shape, pred.shape)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"metric {who} expects a target of shape {tuple(pred.shape)}, got {tuple(target.shape)}")
    return target.reshape(pred.shape)


def accuracy(pred: Any, target: Any) -> Any:
    """Share of rows whose largest score is at the label; one column of logits has its sign compared with 0/1.

    The target is a column of labels, or rows of one-hot or other probabilities, whose largest is the label. Of equal
    scores the first counts.
    """
    if pred.ndim == 1 or pred.shape[-1] == 1:
        return ops.binary_correct(pred, target).mean()
    return top_k(1)(pred, target)


def binary_accuracy(pred: Any, target: Any) -> Any:
    """Share of elements whose logit has the sign that the target, 0 or 1, asks for: several questions a row."""
    return ops.equal(pred > 0, aligned(target, pred, "accuracy") > 0.5).mean()


def top_k(k: int) -> Callable[[Any, Any], Any]:
    """Share of rows whose label is among the ``k`` largest scores."""

    def top_k_accuracy(pred: Any, target: Any) -> Any:
        if target.ndim == pred.ndim and target.shape[-1] == 1:  # a column of labels
            target = target.reshape(target.shape[:-1])
        if pred.ndim > 2:
            target = target.reshape((-1, pred.shape[-1]) if target.ndim == pred.ndim else -1)
            pred = pred.reshape(-1, pred.shape[-1])
        return ops.top_k_correct(pred, target, k=k).mean()

    return top_k_accuracy


def mae(pred: Any, target: Any) -> Any:
    """Mean absolute error."""
    return (pred - aligned(target, pred, "mae")).abs().mean()


def mse(pred: Any, target: Any) -> Any:
    """Mean squared error."""
    return ((pred - aligned(target, pred, "mse")) ** 2).mean()


_NAMED: dict[str, Callable[[Any, Any], Any]] = {"accuracy": accuracy, "acc": accuracy, "mae": mae, "mse": mse}


def as_metric(given: Any, loss: Any = None) -> Metric:
    """A Metric from a name, a Metric (or class of one), or a function ``f(pred, target)`` giving a scalar Tensor.

    With the loss ``BCEWithLogitsLoss`` "accuracy" is that of single elements.

    Raises:
        ValueError: an unknown name.
        TypeError: something else.
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, type) and issubclass(given, Metric):
        return given()
    if isinstance(given, str):
        if given == "r2":
            return R2()
        if given in ("accuracy", "acc") and isinstance(loss, BCEWithLogitsLoss):
            return MeanMetric(binary_accuracy, given)
        if given in _NAMED:
            return MeanMetric(_NAMED[given], given)
        if match := re.fullmatch(r"top_?(\d+|k)(?:_accuracy)?", given):
            return MeanMetric(top_k(5 if match[1] == "k" else int(match[1])), given)
        raise ValueError(
            f"unknown metric {given!r}; there are accuracy, top_k_accuracy (k = 5), top3, …, mae, mse and r2"
        )
    if callable(given):
        return MeanMetric(given, getattr(given, "__name__", type(given).__name__))
    raise TypeError(f"a metric is a name, a Metric or a function of (pred, target), got {type(given).__name__}")


def as_metrics(given: Iterable[Any], loss: Any = None) -> tuple[Metric, ...]:
    """All of them, with distinct names, as they go with this loss.

    Raises:
        ValueError: unknown or repeated names.
        TypeError: no list, or something in it that is no metric.
    """
    if isinstance(given, str):
        raise TypeError(f"metrics must be a list, got the string {given!r}: write [{given!r}]")
    metrics = tuple(as_metric(m, loss) for m in given)
    names = [m.name for m in metrics]
    for name in names:
        if names.count(name) > 1 or name == "loss":
            raise ValueError(f"two metrics are called {name!r}; give one of them another name")
    return metrics
