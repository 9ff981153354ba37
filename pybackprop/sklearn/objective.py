"""What an MLP estimator minimises."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from .. import ops

LOSSES = ("squared_error", "poisson", "absolute_error", "huber", "quantile")
"""Names of a regressor's losses: scikit-learn's two, and more."""

_OUTPUTS = {"log_loss": "logistic", "multiclass_log_loss": "softmax", "poisson": "exp"}


def output_of(loss: str) -> str:
    """The function that turns the last layer's numbers into predictions."""
    return _OUTPUTS.get(loss, "identity")


class MLPObjective:
    """A loss summed over outputs and averaged over rows, and the L2 term that scikit-learn has.

    ``loss + alpha / 2 * sum(coef ** 2) / rows``, where ``rows`` are those of the batch, or the sum of their weights.
    The gradient is scikit-learn's. What it shows as the loss of several columns of a squared error is their mean,
    though the gradient is that of their sum; it is ``shown`` here.

    Args:
        loss: ``"log_loss"`` (a column for each label), ``"multiclass_log_loss"`` (class numbers), or one of `LOSSES`.
        columns: outputs of the network.
        alpha: factor of the L2 term.
        weighted: whether the rows have weights.
        validated: whether the loss without the L2 term is wanted beside it, as ``data_loss``.
        label_smoothing, delta, quantiles: of the losses that have them.
    """

    def __init__(
        self,
        loss: str,
        columns: int,
        *,
        alpha: float = 0.0,
        weighted: bool = False,
        validated: bool = False,
        label_smoothing: float = 0.0,
        delta: float = 1.0,
        quantiles: tuple[float, ...] = (),
    ) -> None:
        self.loss, self.columns, self.alpha = loss, columns, alpha
        self.weighted, self.validated = weighted, validated
        self.label_smoothing, self.delta, self.quantiles = label_smoothing, delta, quantiles

    def targets(self, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """What goes beside X: the target as the loss reads it, and the weights if there are any."""
        if self.loss == "poisson":  # with the part of the deviance that does not depend on the prediction
            y = np.concatenate([y, (xlogy(y, y) - y).sum(axis=1, keepdims=True)], axis=1)
        elif self.loss == "log_loss" and self.label_smoothing:
            y = y * (1 - self.label_smoothing) + self.label_smoothing / 2
        return (y,) if weight is None else (y, weight)

    def __call__(self, network: Any, X: Any, y: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        weight = y[1] if self.weighted else None
        loss = self._loss(network.raw(X), y[0], weight)
        extras = {"data_loss": loss} if self.validated else {}
        penalty = None
        if self.alpha:
            rows = X.shape[0] if weight is None else weight.sum()
            squares = sum(((layer.weight**2).sum() for layer in network.layer), start=0.0)
            penalty = squares * (0.5 * self.alpha) / rows
        if self.loss == "squared_error" and self.columns > 1:
            shown = loss / self.columns
            extras["shown"] = shown if penalty is None else shown + penalty
        if penalty is not None:
            loss = loss + penalty
        return loss, extras

    def _loss(self, pred: Any, y: Any, weight: Any) -> Any:
        k = self.columns
        if self.loss == "multiclass_log_loss":
            return ops.cross_entropy(pred, y, sample_weight=weight, label_smoothing=self.label_smoothing)
        if self.loss == "log_loss":
            return ops.bce_with_logits(pred, y, weight) * k
        if self.loss == "squared_error":
            return ops.mse(pred, y, weight) * (0.5 * k)
        if self.loss == "poisson":
            constant = y[:, k]
            mean = constant.mean() if weight is None else (constant * weight).sum() / weight.sum()
            return ops.poisson_nll(pred, y[:, :k], weight) * k + mean
        if self.loss == "absolute_error":
            return ops.l1(pred, y, weight) * k
        if self.loss == "huber":
            return ops.huber(pred, y, weight, delta=self.delta) * k
        return ops.pinball(pred, y, weight, quantiles=self.quantiles) * k
