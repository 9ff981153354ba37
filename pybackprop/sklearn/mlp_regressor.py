"""`MLPRegressor`."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import d2_pinball_score, r2_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from .mlp import MLP, POSITIVE, keep
from .objective import LOSSES
from .targets import column


class MLPRegressor(RegressorMixin, MLP):
    """scikit-learn's ``MLPRegressor``, computed by pybackprop, with more options and losses.

    Args:
        loss: ``"squared_error"`` (half of it) or ``"poisson"`` (half the deviance, prediction ``exp``, ``y >= 0``); or
            ``"absolute_error"``, ``"huber"`` (Huber 1964, with ``delta``) or ``"quantile"`` (Koenker and Bassett 1978,
            with ``quantiles``). Default ``"squared_error"``.
        delta: the error from which ``"huber"`` is linear. Default 1.
        quantiles: of ``"quantile"``, between 0 and 1; several give a column each. Default ``(0.5,)``.

    All other arguments and the attributes are those of `MLPClassifier`; ``validation_scores_`` is R2.

    Example:
        >>> from sklearn.datasets import make_friedman1
        >>> from pybackprop.sklearn import MLPRegressor
        >>> X, y = make_friedman1(500, random_state=0)
        >>> model = MLPRegressor(loss="quantile", quantiles=(0.1, 0.5, 0.9), max_iter=500, random_state=0,
        ...                      learning_rate_init=0.01)
        >>> model.fit(X, y).predict(X[:2]).shape
        (2, 3)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **MLP._parameter_constraints,
        "loss": [StrOptions(set(LOSSES))],
        "delta": [POSITIVE],
        "quantiles": ["array-like", Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        delta: float = 1.0,
        quantiles: Any = (0.5,),
        dropout: float = 0.0,
        normalization: str | None = None,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
        restore_best_weights: bool | None = None,
        callbacks: Any = None,
        time_limit: float | None = None,
        progress: bool = False,
        threads: int | None = None,
    ) -> None:
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X and their targets.

        Args:
            X: (n, features), dense or sparse.
            y: (n,) or (n, outputs) numbers.
            sample_weight, validation_data: as in `MLPClassifier.fit`.

        Returns:
            self.
        """
        return self._fit(X, y, sample_weight, validation_data=validation_data)

    @available_if(MLP._has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch over these rows, from where training is; arguments as in :meth:`fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row: (n,), or (n, outputs) if there are several outputs or quantiles."""
        outputs = self._infer(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2; of several quantiles the mean of D2, the share of the pinball loss that the model explains."""
        if self.loss != "quantile" or len(self._quantiles()) == 1:
            return super().score(X, y, sample_weight)
        return self._score(np.asarray(y, np.float64).reshape(-1, 1), self.predict(X), sample_weight)

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        return X, column(y)

    def _target(self, y: Any) -> np.ndarray:
        y = np.asarray(y)
        y = y.reshape(len(y), -1)
        if y.dtype.kind != "f":
            y = y.astype(np.float64)
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError("loss='poisson' needs y >= 0")
        if self.loss == "quantile" and y.shape[1] != 1:
            raise ValueError(f"loss='quantile' needs one column of y, got {y.shape[1]}")
        return y

    def _known_target(self, y: Any) -> np.ndarray:
        return self._target(y)

    def _quantiles(self) -> tuple[float, ...]:
        return tuple(float(q) for q in np.atleast_1d(self.quantiles))

    def _columns(self, target: np.ndarray) -> int:
        return len(self._quantiles()) if self.loss == "quantile" else target.shape[1]

    def _strata(self, target: np.ndarray) -> None:
        return None

    def _weights(self, y: Any, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return sample_weight

    def _loss_name(self) -> str:
        return self.loss

    def _loss_options(self) -> dict[str, Any]:
        return {"delta": self.delta, "quantiles": self._quantiles()}

    def _score(self, target: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> float:
        """R2, or the mean of D2 over several quantiles."""
        if self.loss == "quantile" and outputs.shape[1] > 1:
            pairs = zip(self._quantiles(), outputs.T, strict=True)
            return float(np.mean([d2_pinball_score(target[:, 0], o, alpha=q, sample_weight=weight) for q, o in pairs]))
        return float(r2_score(target, outputs, sample_weight=weight))
