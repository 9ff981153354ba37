"""Losses as modules: ``loss(pred, target, sample_weight=None)``.

On Tensors a loss is a scalar Tensor, or one of the prediction's shape for ``reduction="none"``; on arrays a float or an
array. The formulas are those of the functions in ``ops``. Weighted means are ``sum(w * l) / sum(w)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from .._tracer import current
from .module import Module


class Loss(Module):
    """Base class of losses: a ``forward(pred, target, sample_weight=None)`` on Tensors.

    Attributes:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        target_integer: whether targets are integer labels (True), numbers (False), or whatever the array holds (None).

    >>> from pybackprop import nn
    >>> class Quartic(nn.Loss):
    ...     def forward(self, pred, target, sample_weight=None):
    ...         return ((pred - target) ** 4).mean()
    >>> Quartic()([1.0, 2.0], [1.0, 4.0])
    8.0
    """

    target_integer: bool | None = False
    _reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in self._reductions:
            name = type(self).__name__
            raise ValueError(f"[{name}] reduction must be one of {', '.join(self._reductions)}, got {reduction!r}")
        self.reduction = reduction

    def __call__(  # type: ignore[override]
        self, pred: Any, target: Any, sample_weight: Any = None, **options: Any
    ) -> Any:
        """The loss of predictions against targets; ``sample_weight`` is (n,), n the length of their first dimension."""
        if current() is not None:
            return super().__call__(pred, target, sample_weight, **options)
        pred, target = _floats(pred), np.asarray(target) if self.target_integer is not False else _floats(target)
        if sample_weight is not None:
            sample_weight = _floats(sample_weight)
        value = super().__call__(pred, target, sample_weight, **options)
        return float(value) if value.ndim == 0 else value

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        raise TypeError(
            f"{type(self).__name__} has no forward method: define forward(self, pred, target, sample_weight=None)"
        )

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


def _floats(x: Any) -> np.ndarray:
    array = np.asarray(x)
    is_single = array.dtype.kind in "iub" or not hasattr(x, "dtype")
    return array.astype(np.float32) if is_single and array.dtype.kind in "iubf" else array


class MSELoss(Loss):
    """Squared error; see ``ops.mse``.

    >>> from pybackprop import nn
    >>> nn.MSELoss()([1.0, 2.0], [1.0, 4.0])
    2.0
    """

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.mse(pred, target, sample_weight, self.reduction)


class L1Loss(Loss):
    """Absolute error; see ``ops.l1``.

    >>> from pybackprop import nn
    >>> nn.L1Loss()([1.0, 2.0], [1.0, 5.0])
    1.5
    """

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.l1(pred, target, sample_weight, self.reduction)


class HuberLoss(Loss):
    """Squared near 0 and absolute beyond ``delta``; see ``ops.huber``.

    >>> from pybackprop import nn
    >>> nn.HuberLoss()([0.0, 0.0], [0.5, 3.0])
    1.3125
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"[HuberLoss] delta must be positive, got {delta}")
        self.delta = delta

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.huber(pred, target, sample_weight, self.reduction, self.delta)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits; see ``ops.bce_with_logits``.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: weight of the positive class: a number, or one for each column; None for 1.

    >>> from pybackprop import nn
    >>> round(nn.BCEWithLogitsLoss()([0.0], [1]), 4)
    0.6931
    """

    def __init__(self, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.pos_weight = _constant(pos_weight)

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.bce_with_logits(pred, target, sample_weight, self.reduction, self.pos_weight)


class PoissonNLLLoss(Loss):
    """Negative log-likelihood of counts; see ``ops.poisson_nll``.

    >>> from pybackprop import nn
    >>> nn.PoissonNLLLoss(log_input=False)([2.0], [0])
    2.0
    """

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.poisson_nll(pred, target, sample_weight, self.reduction, self.log_input, self.full, self.eps)


class PinballLoss(Loss):
    """Quantile loss, one column of the prediction for each quantile; see ``ops.pinball``.

    Args:
        quantiles: numbers between 0 and 1, or one number.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a quantile is not between 0 and 1.

    >>> from pybackprop import nn
    >>> nn.PinballLoss(0.75)([0.0], [2.0])
    1.5
    """

    def __init__(self, quantiles: Any = (0.5,), reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.quantiles = tuple(float(q) for q in np.atleast_1d(quantiles))
        if not self.quantiles or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError(f"[PinballLoss] quantiles must lie between 0 and 1, got {quantiles!r}")

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.pinball(pred, target, sample_weight, self.reduction, self.quantiles)

    def extra_repr(self) -> str:
        return f"quantiles={self.quantiles}"


class HingeLoss(Loss):
    """``max(0, 1 - target * pred)`` for targets -1 and 1; see ``ops.hinge``.

    >>> from pybackprop import nn
    >>> nn.HingeLoss()([0.5, -2.0], [1, -1])
    0.25
    """

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.hinge(pred, target, sample_weight, self.reduction)


class KLDivLoss(Loss):
    """Kullback-Leibler divergence of log-probabilities; see ``ops.kl_div``. ``reduction`` may be ``"batchmean"``.

    >>> from pybackprop import nn
    >>> round(nn.KLDivLoss("batchmean")([[-0.6931, -0.6931]], [[1.0, 0.0]]), 4)
    0.6931
    """

    _reductions = ("mean", "sum", "none", "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.kl_div(pred, target, sample_weight, self.reduction, self.log_target)


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits (N, C) or (N, C, d...) and labels or probabilities; see ``ops.cross_entropy``.

    Args:
        weight: (C,), a weight for each class.
        ignore_index: a label that counts nowhere.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: share of the target that is spread evenly over the classes.

    >>> from pybackprop import nn
    >>> round(nn.CrossEntropyLoss()([[0.0, 0.0]], [1]), 4)
    0.6931
    """

    target_integer = None

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"[CrossEntropyLoss] label_smoothing must be from 0 to 1, got {label_smoothing}")
        self.weight = _constant(weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.cross_entropy(
            pred, target, self.weight, sample_weight, self.reduction, self.ignore_index, self.label_smoothing
        )


class NLLLoss(Loss):
    """Negative log-likelihood of log-probabilities (N, C) or (N, C, d...) and labels; see ``ops.nll``.

    >>> from pybackprop import nn
    >>> nn.NLLLoss()([[-0.25, -1.5]], [1])
    1.5
    """

    target_integer = True

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = _constant(weight)
        self.ignore_index = ignore_index

    def forward(self, pred: Any, target: Any, sample_weight: Any = None) -> Any:
        return ops.nll(pred, target, self.weight, sample_weight, self.reduction, self.ignore_index)


def _constant(weight: Any) -> np.ndarray | None:
    return None if weight is None else np.array(weight, np.float64)
