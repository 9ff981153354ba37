"""What `MLPClassifier` and `MLPRegressor` share: scikit-learn's parameters, attributes and behaviour, and more."""

from __future__ import annotations

import functools
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..optim import Schedule
from .network import ACTIVATIONS, NORMALIZATIONS, Held, Network, Parts
from .objective import MLPObjective, output_of
from .solver import LEARNING_RATES, NOT_FINITE, RUN_SCHEDULES, STOCHASTIC, Stochastic, fit_lbfgs, fit_stochastic

POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
SHARE = Interval(Real, 0, 1, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")


class MLP(BaseEstimator):
    """What classifier and regressor share."""

    _dropout_seed = 0
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", _COUNT],
        "activation": [StrOptions(set(ACTIVATIONS)), list, tuple],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
        "alpha": [_NOT_NEGATIVE],
        "batch_size": [StrOptions({"auto"}), _COUNT],
        "learning_rate": [StrOptions(set(LEARNING_RATES)), Schedule],
        "learning_rate_init": [POSITIVE],
        "power_t": [_NOT_NEGATIVE],
        "max_iter": [_COUNT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [_NOT_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [SHARE],
        "beta_1": [SHARE],
        "beta_2": [SHARE],
        "epsilon": [POSITIVE],
        "n_iter_no_change": [_COUNT, Options(Real, {np.inf})],
        "max_fun": [_COUNT],
        "dropout": [SHARE],
        "normalization": [StrOptions(set(NORMALIZATIONS)), None],
        "weight_decay": [_NOT_NEGATIVE],
        "clip_norm": [POSITIVE, None],
        "restore_best_weights": ["boolean", None],
        "callbacks": ["array-like", HasMethods("on_epoch_end"), None],
        "time_limit": [_NOT_NEGATIVE, None],
        "progress": ["boolean"],
        "threads": [_COUNT, None],
    }

    # Fitting.

    def _fit(
        self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False, validation_data: Any = None
    ) -> Any:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        if any(width <= 0 for width in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        activations = self._activations(len(hidden))
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        self._check_options(incremental, validation_data)
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validate_input(X, y, incremental, reset=first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        target, weight = self._target(y), self._weights(y, sample_weight)
        validation = None if validation_data is None else self._take_validation(validation_data, X.dtype, target)

        self._random_state = check_random_state(self.random_state)
        columns = self._columns(target)
        if first:
            self._initialize([X.shape[1], *hidden, columns], X.dtype)
        self.n_outputs_ = columns
        held = self._hold(Parts(activations, self.out_activation_, self.normalization, self.dropout))
        if first and self.dropout:
            self._dropout_seed = int(self._random_state.randint(1 << 31))

        if self.solver == "lbfgs":
            objective = self._objective(weight is not None, False)
            kept = held.network.float
            try:
                fit_lbfgs(self, held.network, objective, X, objective.targets(target, weight))
            finally:
                held.network.astype(kept)
            self._show_trained(held)
        else:
            self._fit_stochastic(held, X, target, weight, validation, incremental)
        return self

    def _fit_stochastic(
        self,
        held: Held,
        X: Any,
        target: np.ndarray,
        weight: np.ndarray | None,
        validation: Any,
        incremental: bool,
    ) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Stochastic(self)
        score = None
        if self.early_stopping:
            if validation is None:
                X, target, weight, tested = self._split(X, target, weight)
            else:
                tested = validation
            score = functools.partial(self._score_of, held, *tested)
        objective = self._objective(weight is not None, validation is not None)
        targets = objective.targets(target, weight)
        recorded = None
        if validation is not None:
            Xv, yv, wv = validation
            if weight is not None and wv is None:
                wv = np.ones(len(yv))
            recorded = Xv, objective.targets(yv, wv if weight is not None else None)
        if not isinstance(X, np.ndarray):
            X = X.tocsr()
        self.n_iter_ = 0
        epochs = 1 if incremental else self.max_iter
        try:
            ended = fit_stochastic(
                self, held.network, objective, X, targets, epochs=epochs, validation=recorded, score=score
            )
        finally:
            self._show_trained(held)
        if not ended and not incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(NOT_FINITE)

    def _check_options(self, incremental: bool, validation_data: Any) -> None:
        stochastic = self.solver in STOCHASTIC
        if validation_data is not None and not stochastic:
            raise ValueError(f"validation_data needs a stochastic solver, got solver={self.solver!r}")
        if self.solver == "lbfgs" and (self.dropout or self.normalization == "batch"):
            raise ValueError(
                "solver='lbfgs' needs a loss without chance or batches: no dropout, no batch normalization"
            )
        if incremental and (isinstance(self.learning_rate, Schedule) or self.learning_rate in RUN_SCHEDULES):
            raise ValueError(
                f"partial_fit does not know the length of the run, which learning_rate={self.learning_rate!r} needs"
            )
        if self.restore_best_weights and validation_data is None and not self.early_stopping:
            raise ValueError("restore_best_weights=True needs validation_data in fit, or early_stopping=True")

    def _activations(self, layers: int) -> list[str]:
        if isinstance(self.activation, str):
            return [self.activation] * layers
        names = list(self.activation)
        if len(names) != layers or any(name not in ACTIVATIONS for name in names):
            raise ValueError(
                f"activation must be a name, or one for each of the {layers} hidden layers, out of "
                f"{', '.join(sorted(ACTIVATIONS))}; got {self.activation!r}"
            )
        return names

    def _initialize(self, widths: list[int], dtype: Any) -> None:
        """Weights as scikit-learn draws them: evenly within Glorot's bound (Glorot and Bengio 2010)."""
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(widths)
        self._dropout_seed = 0
        self._rest: dict[str, np.ndarray] = {}
        self._held: Held | None = None
        names = self._activations(len(widths) - 2)
        names.append(self.activation if isinstance(self.activation, str) else (names or ["relu"])[-1])
        self.coefs_, self.intercepts_ = [], []
        for name, fan_in, fan_out in zip(names, widths, widths[1:], strict=False):
            bound = np.sqrt((2.0 if name == "logistic" else 6.0) / (fan_in + fan_out))
            draw = self._random_state.uniform
            self.coefs_.append(draw(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(draw(-bound, bound, fan_out).astype(dtype, copy=False))
        self.out_activation_ = output_of(self._loss_name())
        if self.solver in STOCHASTIC:
            self.loss_curve_: list[float] = []
            self.validation_loss_curve_: list[float] = []
            self._no_improvement_count = 0
            self.validation_scores_: Any = [] if self.early_stopping else None
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.best_loss_: Any = None if self.early_stopping else np.inf

    def _objective(self, weighted: bool, validated: bool) -> MLPObjective:
        options = {"alpha": self.alpha, "weighted": weighted, "validated": validated, **self._loss_options()}
        return MLPObjective(self._loss_name(), self.n_outputs_, **options)

    def _batch_rows(self, rows: int) -> int:
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        return int(min(self.batch_size, rows))

    def _split(self, X: Any, target: np.ndarray, weight: np.ndarray | None) -> Any:
        """Training rows, and (X, target, weight) of those to be scored; as scikit-learn draws them."""
        rows = np.arange(X.shape[0])
        train, test = train_test_split(
            rows, random_state=self._random_state, test_size=self.validation_fraction, stratify=self._strata(target)
        )
        if len(test) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        parts = (None, None) if weight is None else (weight[train], weight[test])
        return X[train], target[train], parts[0], (X[test], target[test], parts[1])

    def _take_validation(self, given: Any, dtype: Any, target: np.ndarray) -> Any:
        if not isinstance(given, (tuple, list)) or not 2 <= len(given) <= 3:
            raise ValueError("validation_data must be (X, y) or (X, y, sample_weight)")
        X = validate_data(self, given[0], accept_sparse="csr", dtype=dtype, reset=False)
        X = X if isinstance(X, np.ndarray) else X.toarray()
        y, weight = self._known_target(given[1]), given[2] if len(given) == 3 else None
        if len(y) != len(X):
            raise ValueError(f"validation_data has {len(X)} rows of X and {len(y)} of y")
        if y.shape[1:] != target.shape[1:]:
            raise ValueError(f"validation_data has {y.shape[1]} columns of y, but y has {target.shape[1]}")
        return X, y, None if weight is None else _check_sample_weight(weight, X)

    def _score_of(self, held: Held, X: Any, target: np.ndarray, weight: np.ndarray | None) -> float:
        outputs = held.infer(X)
        return self._score(target, outputs, weight) if np.isfinite(outputs).all() else float("nan")

    # What is shown of the network, and what is kept of it.

    def _hold(self, parts: Parts) -> Held:
        """The network that `coefs_` and `intercepts_` show; made anew if others were put in their place."""
        held: Held | None = self.__dict__.get("_held")
        if held is not None and held.shows(self.coefs_, self.intercepts_) and held.parts == parts:
            return held
        rest = held.rest() if held is not None and held.parts == parts else self.__dict__.get("_rest", {})
        held = Held(Network(self.coefs_, self.intercepts_, *parts), parts)
        held.load_rest(rest)
        self._parts = parts
        self._show(held)
        return held

    def _show_trained(self, held: Held) -> None:
        held.read()
        self._show(held)

    def _show(self, held: Held) -> None:
        self._held, self.coefs_, self.intercepts_ = held, list(held.coefs), list(held.intercepts)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        held = state.pop("_held", None)
        if held is not None:
            state["_rest"] = held.rest()
        return state

    def _infer(self, X: Any) -> np.ndarray:
        """The network's outputs for rows, checked as scikit-learn checks them."""
        if not self._is_plain(X):
            check_is_fitted(self)
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        hold = self.__dict__.get("_held")
        if hold is None or not hold.shows(self.coefs_, self.intercepts_):
            hold = self._hold(self._parts)
        return hold.infer(X)

    def _is_plain(self, X: Any) -> bool:
        """Whether a glance shows that `validate_data` would let these rows pass as they are."""
        own = self.__dict__
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype.char in "fd"
            and X.shape[1] == own.get("n_features_in_")
            and len(X) > 0
            and "feature_names_in_" not in own
            and "_parts" in own
            and bool(np.isfinite(X).all())
        )

    def _has_partial_fit(self) -> bool:
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def keep(estimator: Any, given: dict[str, Any]) -> None:
    """An estimator's arguments as its attributes, unchanged, as scikit-learn wants it."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)
