"""`MLPClassifier` and `MLPRegressor`: scikit-learn's parameters, attributes and behaviour, and more of each."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import d2_pinball_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..optim import Schedule
from .network import ACTIVATIONS, NORMALIZATIONS, Held, Network, Parts
from .objective import LOSSES, MLPObjective, output_of
from .solver import LEARNING_RATES, NOT_FINITE, STOCHASTIC, Stochastic, fit_lbfgs, fit_stochastic

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_SHARE = Interval(Real, 0, 1, closed="left")
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
        "learning_rate_init": [_POSITIVE],
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
        "validation_fraction": [_SHARE],
        "beta_1": [_SHARE],
        "beta_2": [_SHARE],
        "epsilon": [_POSITIVE],
        "n_iter_no_change": [_COUNT, Options(Real, {np.inf})],
        "max_fun": [_COUNT],
        "dropout": [_SHARE],
        "normalization": [StrOptions(set(NORMALIZATIONS)), None],
        "weight_decay": [_NOT_NEGATIVE],
        "clip_norm": [_POSITIVE, None],
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
            self._show(held)
        else:
            self._fit_stochastic(held, X, target, weight, sample_weight, validation, incremental)
        return self

    def _fit_stochastic(
        self,
        held: Held,
        X: Any,
        target: np.ndarray,
        weight: np.ndarray | None,
        sample_weight: np.ndarray | None,
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
            score = lambda: self._score_of(held, *tested)  # noqa: E731
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
            self._show(held)
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
        if incremental and (isinstance(self.learning_rate, Schedule) or self.learning_rate in LEARNING_RATES[3:]):
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

    def _show(self, held: Held) -> None:
        held.read()
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


class MLPClassifier(ClassifierMixin, MLP):
    """scikit-learn's ``MLPClassifier``, computed by pybackprop, with more options.

    Cross-entropy of softmax for several classes, of the logistic function for two and for each of several labels. From
    the same ``random_state`` weights, batches and updates are scikit-learn's, to rounding. float32 data is computed in
    float32, all else in float64.

    Args:
        hidden_layer_sizes: units of each hidden layer, or a number for one. Default ``(100,)``.
        activation: ``"identity"``, ``"logistic"``, ``"tanh"``, ``"relu"``; or ``"elu"``, ``"gelu"``, ``"leaky_relu"``,
            ``"mish"``, ``"relu6"``, ``"silu"``, ``"softplus"``; or a list with one for each hidden layer. Default
            ``"relu"``.
        solver: ``"adam"`` (Kingma and Ba 2015), ``"sgd"``, ``"lbfgs"``; or ``"adamw"``. Default ``"adam"``.
        alpha: factor of the L2 term ``alpha / 2 * sum(coef ** 2) / rows of the batch``. Default 1e-4.
        batch_size: rows a step; ``"auto"`` is at most 200. Default ``"auto"``.
        learning_rate: ``"constant"``; for sgd ``"invscaling"`` (``learning_rate_init / (t_ + 1) ** power_t``) or
            ``"adaptive"`` (a fifth, whenever training would stop); or ``"cosine"``, ``"one_cycle"``, or a schedule of
            `pybackprop.optim`. Default ``"constant"``.
        learning_rate_init: Default 1e-3.
        power_t: exponent of ``"invscaling"``. Default 0.5.
        max_iter: epochs, or iterations of L-BFGS. Default 200.
        shuffle: a new order of rows in each epoch. Default True.
        random_state: seed or ``RandomState`` of weights, batches and the validation split. Default None.
        tol: training stops when the loss (or validation score) has not improved by this much for ``n_iter_no_change``
            epochs. Default 1e-4.
        verbose: print the loss of every epoch. Default False.
        warm_start: ``fit`` goes on from the weights it has. Default False.
        momentum, nesterovs_momentum: of sgd. Default 0.9, True.
        early_stopping: hold out ``validation_fraction`` of the rows, stop by their score, and keep the best weights.
            Default False.
        validation_fraction: Default 0.1.
        beta_1, beta_2, epsilon: of adam. Default 0.9, 0.999, 1e-8.
        n_iter_no_change: Default 10.
        max_fun: evaluations of L-BFGS. Default 15000.
        class_weight: ``{class: weight}`` or ``"balanced"``. Default None.
        label_smoothing: share of each target that is spread evenly over the classes. Default 0.
        dropout: share of the hidden units left out of each training step (Srivastava et al. 2014). Default 0.
        normalization: ``"batch"`` or ``"layer"``, before each hidden activation. Default None.
        weight_decay: of adamw (Loshchilov and Hutter 2019), on the coefs. Default 0.01.
        clip_norm: scale gradients down to this global 2-norm. Default None.
        restore_best_weights: keep the weights of the best epoch: by the score with ``early_stopping``, else by the loss
            of ``validation_data``. Default None: only with ``early_stopping``.
        callbacks: `pybackprop.Callback` objects that take part in ``fit``. Default None.
        time_limit: seconds after which ``fit`` ends at the next batch. Default None.
        progress: show a progress bar. Default False.
        threads: exactly so many; None for what the work is worth, within the limits set by joblib, threadpoolctl and
            ``OMP_NUM_THREADS``. Default None.

    Attributes:
        classes_: the class labels, or their numbers if there may be several a row.
        coefs_, intercepts_: weights (inputs, outputs) and (outputs,) of each layer. They cannot be written to; put
            another array in an array's place to change it.
        loss_, best_loss_, loss_curve_: the loss of the last epoch, the least, and of each epoch.
        validation_scores_, best_validation_score_: with ``early_stopping`` the accuracy after each epoch; None else.
        validation_loss_curve_: with ``validation_data`` its loss after each epoch, without the L2 term.
        n_iter_, t_: epochs of the last ``fit``, and rows seen.
        n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from pybackprop.sklearn import MLPClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> model = MLPClassifier(dropout=0.1, random_state=0, early_stopping=True)
        >>> bool(model.fit(X[:1500] / 16, y[:1500]).score(X[1500:] / 16, y[1500:]) > 0.85)
        True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **MLP._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "label_smoothing": [_SHARE],
    }
    loss = "log_loss"

    def __init__(
        self,
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
        class_weight: Any = None,
        label_smoothing: float = 0.0,
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
        _keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X and their labels.

        Args:
            X: (n, features), dense or sparse.
            y: (n,) labels, or (n, labels) of 0 and 1 for several a row.
            sample_weight: (n,) weights.
            validation_data: ``(X, y)`` or ``(X, y, sample_weight)``: its loss is recorded after each epoch; with
                ``early_stopping`` its score takes the place of a part of X held out.

        Returns:
            self.

        Raises:
            ValueError: what scikit-learn refuses, in its words; training diverged.
        """
        return self._fit(X, y, sample_weight, validation_data=validation_data)

    @available_if(MLP._has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """One epoch over these rows, from where training is.

        Args:
            X, y, sample_weight: as in :meth:`fit`.
            classes: all classes that will ever come; needed by the first call.
        """
        if self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all rows at once; give partial_fit a dict of weights")
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The class of each row (n,), or 0 and 1 for each label (n, labels)."""
        outputs = self._infer(X)
        if self.out_activation_ == "softmax":
            return self.classes_[outputs.argmax(axis=1)]
        if outputs.shape[1] == 1 and len(self.classes_) == 2:
            return self.classes_[(outputs[:, 0] > 0.5).astype(np.intp)]
        return self._label_binarizer.inverse_transform(outputs[:, 0] if outputs.shape[1] == 1 else outputs)

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities, in the order of ``classes_``."""
        outputs = self._infer(X)
        if outputs.shape[1] == 1:
            return np.concatenate([1 - outputs, outputs], axis=1)
        return outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """(n, classes) logarithms of the probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=(np.float64, np.float32), reset=reset
        )
        y = _column(y)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y
        classes = unique_labels(y)
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _target(self, y: Any) -> np.ndarray:
        """Class numbers (n,) of several classes; else 0 and 1 in a column for each label."""
        if self._label_binarizer.y_type_ == "multiclass":
            return np.searchsorted(self.classes_, y).astype(np.int64)
        return self._label_binarizer.transform(y).astype(np.float32)

    def _known_target(self, y: Any) -> np.ndarray:
        y = _column(np.asarray(y))
        strange = np.setdiff1d(unique_labels(y), self.classes_)
        if len(strange):
            raise ValueError(f"validation_data has the class {strange[0]}, which y does not have")
        return self._target(y)

    def _columns(self, target: np.ndarray) -> int:
        return len(self.classes_) if target.ndim == 1 else target.shape[1]

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return target.astype(bool) if target.ndim == 2 and target.shape[1] == 1 else None

    def _weights(self, y: Any, sample_weight: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return sample_weight
        weight = compute_sample_weight(self.class_weight, y)
        return weight if sample_weight is None else weight * sample_weight

    def _loss_name(self) -> str:
        return "multiclass_log_loss" if self._label_binarizer.y_type_ == "multiclass" else "log_loss"

    def _loss_options(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing}

    def _score(self, target: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> float:
        """The accuracy."""
        several = target.ndim == 1
        right = outputs.argmax(axis=1) == target if several else ((outputs > 0.5) == target).all(axis=1)
        return float(np.average(right, weights=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


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
        "delta": [_POSITIVE],
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
        _keep(self, locals())

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
        return X, _column(y)

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


def _keep(estimator: Any, given: dict[str, Any]) -> None:
    """An estimator's arguments as its attributes, unchanged, as scikit-learn wants it."""
    for name, value in given.items():
        if name != "self":
            setattr(estimator, name, value)


def _column(y: Any) -> Any:
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
