"""`TabularClassifier` and `TabularRegressor`: `pybackprop.tabular.TabularModel` as scikit-learn estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..tabular import TabularModel

_TARGET = "target of the table"
_LEAST = 10  # rows


class _Tabular(BaseEstimator):
    """What both share."""

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128),
        members: int | None = None,
        bins: int = 16,
        epochs: int = 200,
        batch_size: int | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        dropout: float = 0.1,
        patience: int = 20,
        validation: float = 0.15,
        categorical: tuple[str, ...] = (),
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.hidden, self.members, self.bins, self.epochs = hidden, members, bins, epochs
        self.batch_size, self.lr, self.weight_decay = batch_size, lr, weight_decay
        self.dropout, self.patience, self.validation = dropout, patience, validation
        self.categorical, self.random_state, self.verbose = categorical, random_state, verbose

    def _fit(self, X: Any, y: np.ndarray, task: str) -> None:
        if len(y) < _LEAST:
            raise ValueError(f"{type(self).__name__} needs at least {_LEAST} rows, got n_samples={len(y)}")
        options = {name: value for name, value in self.get_params().items() if name not in ("random_state", "verbose")}
        seed = int(check_random_state(self.random_state).randint(1 << 31))
        model = TabularModel(_TARGET, task=task, test=0.0, seed=seed, **options)
        self.report_ = model.fit(self._table(X, reset=True).assign(**{_TARGET: y}), verbose=self.verbose)
        self.model_ = model

    def _table(self, X: Any, reset: bool) -> Any:
        """X as a DataFrame whose columns keep their kinds."""
        import pandas as pd

        if isinstance(X, pd.DataFrame):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X.set_axis([str(name) for name in X.columns], axis=1)
        X = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")
        frame = pd.DataFrame(X).infer_objects()
        return frame.set_axis([f"x{i}" for i in range(X.shape[1])], axis=1)

    def _predict(self, X: Any) -> Any:
        check_is_fitted(self)
        return self.model_.predict(self._table(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags


class TabularClassifier(ClassifierMixin, _Tabular):
    """`pybackprop.tabular.TabularModel` as a classifier: columns of any kind, missing values, calibrated probabilities.

    Args:
        hidden, members, bins, epochs, batch_size, lr, weight_decay, dropout, patience, validation, categorical: as in
            `TabularModel`, with its defaults; no row is held out for a test.
        random_state: seed. Default None.
        verbose: 1 shows progress. Default 0.

    Attributes:
        model_: the `TabularModel`, for its ``save``. ``report_``: its `Report`, on rows held out by some networks.
        classes_, n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.model_selection import cross_val_score
        >>> from pybackprop.sklearn import TabularClassifier
        >>> X, y = load_wine(return_X_y=True, as_frame=True)
        >>> bool(cross_val_score(TabularClassifier(members=2, random_state=0), X, y, cv=3).mean() > 0.9)
        True
    """

    def fit(self, X: Any, y: Any) -> Any:
        """Train on a DataFrame or an array (n, features), and labels (n,)."""
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("TabularClassifier needs at least two classes; y has one class")
        self._fit(X, codes, "classification")
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) calibrated probabilities, in the order of ``classes_``."""
        probabilities = self._predict(X).iloc[:, 1:].to_numpy(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)  # they were float32


class TabularRegressor(RegressorMixin, _Tabular):
    """`pybackprop.tabular.TabularModel` as a regressor; arguments and attributes as in `TabularClassifier`.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from pybackprop.sklearn import TabularRegressor
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> TabularRegressor(members=1, random_state=0).fit(X[:300], y[:300]).predict(X[300:]).shape
        (142,)
    """

    def fit(self, X: Any, y: Any) -> Any:
        """Train on a DataFrame or an array (n, features), and numbers (n,)."""
        self._fit(X, np.asarray(column_or_1d(y, warn=True), np.float64), "regression")
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row (n,)."""
        return self._predict(X)["prediction"].to_numpy(np.float64)
