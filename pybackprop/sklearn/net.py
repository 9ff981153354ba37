"""`NetClassifier` and `NetRegressor`: any Module as a scikit-learn estimator."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import nn, ops, optim, random
from ..training import Trainer
from .targets import column, row_weights

_PREFIXES = ("module", "optimizer")
_OPTIMIZERS = {name.lower(): getattr(optim, name) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion")}


class Net(BaseEstimator):
    """What both share.

    Besides the named arguments, ``module__name=value`` goes to the module and ``optimizer__name=value`` to the
    optimizer; both are parameters of the estimator, for ``set_params`` and searches.
    """

    def _take(self, given: dict[str, Any]) -> None:
        options = given.pop("options")
        for name, value in given.items():
            if name != "self":
                setattr(self, name, value)
        for name, value in options.items():
            setattr(self, name, value)
        self._options = sorted(options)

    def _check_options(self) -> None:
        """Whether all options have an owner; `fit` asks, because scikit-learn wants no errors from constructors."""
        for name in self._options:
            if not _is_nested(name):
                raise TypeError(
                    f"{type(self).__name__} has no argument {name!r}; those of the module are module__…, of the "
                    "optimizer optimizer__…"
                )

    # Parameters.

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The estimator's parameters, those of module and optimizer included."""
        return {**super().get_params(deep=False), **{name: getattr(self, name) for name in self._options}}

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name; ``module__…`` and ``optimizer__…`` may be new ones."""
        nested = {name: value for name, value in params.items() if _is_nested(name)}
        super().set_params(**{name: value for name, value in params.items() if name not in nested})
        for name, value in nested.items():
            setattr(self, name, value)
        self._options = sorted({*self._options, *nested})
        return self

    def _options_of(self, prefix: str) -> dict[str, Any]:
        start = f"{prefix}__"
        return {name.removeprefix(start): getattr(self, name) for name in self._options if name.startswith(start)}

    # Fitting.

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation_data: Any, incremental: bool) -> Any:
        self._check_options()
        first = not hasattr(self, "module_") or (not self.warm_start and not incremental)
        X, y = validate_data(
            self, X, y, dtype=self.dtype, allow_nd=True, multi_output=True, y_numeric=self._numeric, reset=first
        )
        y = self._target(column(y), first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        validation = None if validation_data is None else self._known(*validation_data)
        if first:
            seed = int(check_random_state(self.random_state).randint(1 << 31))
            self.module_ = self._build(X.shape[1:], seed)
            self._trainer: Any = None
            self._seed = seed
        if self._trainer is None or not incremental:
            self._trainer = self._make_trainer()
        weights: dict[str, Any] = {} if sample_weight is None else {"sample_weight": sample_weight}
        options: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": self.shuffle, "verbose": self.verbose}
        if validation is not None:
            options["validation_data"] = validation
        elif self.validation_fraction and not incremental:
            X, y, weights, options["validation_data"] = self._hold_out(X, y, weights)
        epochs = 1 if incremental else self.epochs
        callbacks = () if self.callbacks is None or incremental else self.callbacks
        self._trainer.fit(X, y, epochs=epochs, callbacks=callbacks, time_limit=self.time_limit, **weights, **options)
        self.history_ = self._trainer.history
        self.n_iter_ = len(self.history_.epoch)
        return self

    def _build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A new module for rows of this shape: its weights depend on the seed alone."""
        options = self._options_of("module")
        if isinstance(self.module, nn.Module):
            if options:
                raise ValueError(f"module is a Module already, so module__{next(iter(options))} cannot reach it")
            return copy.deepcopy(self.module).astype(self.dtype)
        make: Callable[..., Any] = DefaultModule if self.module is None else self.module
        if not callable(make):
            raise TypeError(f"module must be a Module, or a class or function that makes one, got {self.module!r}")
        known = {"n_features": int(np.prod(shape)), "n_outputs": self._n_outputs()}
        named = inspect.signature(make).parameters
        if any(p.kind is p.VAR_KEYWORD for p in named.values()):
            options = {**known, **options}
        else:
            options = {**{name: value for name, value in known.items() if name in named}, **options}
        with random.seeded(seed):
            module = make(**options)
        if not isinstance(module, nn.Module):
            raise TypeError(f"module made {type(module).__name__}, but a Module is expected")
        return module.astype(self.dtype)

    def _make_trainer(self) -> Trainer:
        optimizer = self.optimizer
        if isinstance(optimizer, str):
            if optimizer not in _OPTIMIZERS:
                raise ValueError(f"optimizer must be one of {', '.join(_OPTIMIZERS)}, got {optimizer!r}")
            optimizer = _OPTIMIZERS[optimizer]
        if isinstance(optimizer, optim.Optimizer):
            optimizer = copy.deepcopy(optimizer)
            for name, value in self._options_of("optimizer").items():
                setattr(optimizer, name, value)
        else:
            optimizer = optimizer(**self._options_of("optimizer"))
        return Trainer(
            self.module_,
            loss=self._loss(),
            optimizer=optimizer,
            metrics=self._metrics(),
            seed=self._seed,
            clip_norm=self.clip_norm,
            threads=self.threads,
        )

    def _hold_out(self, X: np.ndarray, y: np.ndarray, weights: dict[str, Any]) -> Any:
        train, test = train_test_split(
            np.arange(len(X)), test_size=self.validation_fraction, random_state=self._seed, stratify=self._strata(y)
        )
        held_out = (X[test], y[test], *(w[test] for w in weights.values()))
        return X[train], y[train], {name: w[train] for name, w in weights.items()}, held_out

    def _known(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, ...]:
        X = validate_data(self, X, dtype=self.dtype, allow_nd=True, reset=False)
        y = self._target(column(np.asarray(y)), False)
        return (X, y) if sample_weight is None else (X, y, _check_sample_weight(sample_weight, X))

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=self.dtype, allow_nd=True, reset=False)
        return self._trainer.predict(X)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        if trainer is not None:
            state["_training"] = trainer.epoch, trainer.state()["optimizer"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        training = state.pop("_training", None)
        super().__setstate__(state)
        if training is not None:
            self._trainer = self._make_trainer()
            self._trainer.epoch = training[0]  # epochs are shuffled by their number
            self._trainer._step.load_state_dict(training[1])


class NetClassifier(ClassifierMixin, Net):
    """A Module as a classifier: one output for each class, or for each label if a row may have several.

    Args:
        module: a class or function that makes a Module, called with ``n_features`` and ``n_outputs`` as far as it takes
            them, and with ``module__…``; or a Module, which is copied. Default None: a hidden layer of 100 units
            (``module__width``).
        loss: a loss on logits and class numbers; None for cross-entropy, of the logistic function for several labels.
            Default None.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"``, ``"rmsprop"``, ``"adagrad"``, ``"lion"``; or an optimizer of
            `pybackprop.optim`, or its class. ``optimizer__lr`` and so on are its options. Default ``"adam"``.
        epochs, batch_size, shuffle: as in ``Trainer.fit``. Default 20, 32, True.
        class_weight: ``{class: weight}`` or ``"balanced"``. Default None.
        validation_fraction: hold out this share of the rows, for ``val_`` metrics and callbacks. Default 0.
        warm_start: ``fit`` goes on from the weights it has. Default False.
        random_state: seed of weights, batches and dropout. Default None.
        callbacks: `pybackprop.Callback` objects that take part in ``fit``. Default None.
        clip_norm, threads: as in ``Trainer``. Default None.
        time_limit: seconds. Default None.
        verbose: 1 shows a progress bar. Default 0.
        dtype: ``"float32"`` or ``"float64"``. Default ``"float32"``.

    Attributes:
        module_: the trained Module. ``history_``: the `History` of the last ``fit``. ``n_iter_``: its epochs.
        classes_, n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from pybackprop import nn
        >>> from pybackprop.sklearn import NetClassifier
        >>> def build(n_features, n_outputs, width=16):
        ...     return nn.Sequential(nn.Linear(n_features, width), nn.GELU(), nn.Linear(width, n_outputs))
        >>> model = make_pipeline(StandardScaler(), NetClassifier(build, optimizer__lr=0.01, random_state=0))
        >>> search = GridSearchCV(model, {"netclassifier__module__width": [4, 16]}, cv=3)
        >>> bool(search.fit(*load_wine(return_X_y=True)).best_score_ > 0.95)
        True
    """

    _numeric = False

    def __init__(
        self,
        module: Any = None,
        *,
        loss: Any = None,
        optimizer: Any = "adam",
        epochs: int = 20,
        batch_size: int = 32,
        shuffle: bool = True,
        class_weight: Any = None,
        validation_fraction: float = 0.0,
        warm_start: bool = False,
        random_state: Any = None,
        callbacks: Any = None,
        clip_norm: float | None = None,
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: int = 0,
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        given = dict(locals())
        given.pop("__class__", None)
        self._take(given)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X (n, …) and their labels (n,), or 0 and 1 for each label (n, labels).

        Args:
            sample_weight: (n,) weights.
            validation_data: ``(X, y)`` or ``(X, y, sample_weight)``, evaluated after each epoch.

        Returns:
            self.
        """
        return self._fit(X, y, row_weights(self.class_weight, y, sample_weight), validation_data, False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """One epoch over these rows; the first call needs all ``classes`` that will ever come."""
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_, self._several = np.unique(classes), type_of_target(y).startswith("multilabel")
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
            )
        return self._fit(X, y, row_weights(self.class_weight, y, sample_weight), None, True)

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row (n,), or 0 and 1 for each label (n, labels)."""
        probabilities = self.predict_proba(X)
        if self._several:
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities, in the order of ``classes_``."""
        outputs = self._outputs(X)
        return np.asarray(ops.sigmoid(outputs) if self._several else ops.softmax(outputs))

    def _target(self, y: Any, first: bool) -> np.ndarray:
        if first and not (hasattr(self, "classes_") and not hasattr(self, "module_")):
            check_classification_targets(y)
            self._several = y.ndim == 2
            self.classes_ = np.arange(y.shape[1]) if self._several else np.unique(y)
        if self._several:
            return np.asarray(y, self.dtype)
        strange = np.setdiff1d(y, self.classes_)
        if len(strange):
            raise ValueError(f"y has the class {strange[0]}, which is not among {self.classes_.tolist()}")
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _n_outputs(self) -> int:
        return max(len(self.classes_), 2)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return None if self._several else y

    def _loss(self) -> Any:
        if self.loss is not None:
            return self.loss
        return nn.BCEWithLogitsLoss() if self._several else nn.CrossEntropyLoss()

    def _metrics(self) -> list[str]:
        return [] if self._several else ["accuracy"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NetRegressor(RegressorMixin, Net):
    """A Module as a regressor: one output for each target.

    Args:
        loss: a loss on predictions and targets (n, outputs). Default None: squared error.

    All other arguments and the attributes are those of `NetClassifier`, without ``class_weight``.

    Example:
        >>> import numpy as np
        >>> from pybackprop.sklearn import NetRegressor
        >>> X = np.linspace(-1, 1, 200)[:, None]; y = np.abs(X[:, 0])
        >>> bool(NetRegressor(optimizer__lr=0.01, epochs=50, random_state=0).fit(X, y).score(X, y) > 0.9)
        True
    """

    _numeric = True

    def __init__(
        self,
        module: Any = None,
        *,
        loss: Any = None,
        optimizer: Any = "adam",
        epochs: int = 20,
        batch_size: int = 32,
        shuffle: bool = True,
        validation_fraction: float = 0.0,
        warm_start: bool = False,
        random_state: Any = None,
        callbacks: Any = None,
        clip_norm: float | None = None,
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: int = 0,
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        given = dict(locals())
        given.pop("__class__", None)
        self._take(given)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None) -> Any:
        """Train on rows X (n, …) and their targets (n,) or (n, outputs); the rest as in `NetClassifier.fit`."""
        return self._fit(X, y, sample_weight, validation_data, False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """One epoch over these rows."""
        return self._fit(X, y, sample_weight, None, True)

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row: (n,), or (n, outputs) if y had two dimensions."""
        outputs = np.asarray(self._outputs(X))
        return outputs[:, 0] if self._flat and outputs.ndim == 2 and outputs.shape[1] == 1 else outputs

    def _target(self, y: Any, first: bool) -> np.ndarray:
        if first:
            self._flat, self._targets = y.ndim == 1, 1 if y.ndim == 1 else y.shape[1]
        return np.asarray(y, self.dtype).reshape(len(y), -1)

    def _n_outputs(self) -> int:
        return self._targets

    def _strata(self, y: np.ndarray) -> None:
        return None

    def _loss(self) -> Any:
        return nn.MSELoss() if self.loss is None else self.loss

    def _metrics(self) -> list[str]:
        return []


def _is_nested(name: str) -> bool:
    prefix, _, rest = name.partition("__")
    return prefix in _PREFIXES and bool(rest)


class DefaultModule(nn.Module):
    """One hidden layer: what is trained if nobody says what."""

    def __init__(self, n_features: int, n_outputs: int, width: int = 100) -> None:
        self.hidden, self.out = nn.Linear(n_features, width), nn.Linear(width, n_outputs)

    def forward(self, x: Any) -> Any:
        return self.out(self.hidden(x).relu())
