"""`MLPClassifier`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from .mlp import MLP, SHARE, keep
from .targets import column, row_weights


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
        "label_smoothing": [SHARE],
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
        keep(self, locals())

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
        y = column(y)
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
        y = column(np.asarray(y))
        strange = np.setdiff1d(unique_labels(y), self.classes_)
        if len(strange):
            raise ValueError(f"validation_data has the class {strange[0]}, which y does not have")
        return self._target(y)

    def _columns(self, target: np.ndarray) -> int:
        return len(self.classes_) if target.ndim == 1 else target.shape[1]

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return target.astype(bool) if target.ndim == 2 and target.shape[1] == 1 else None

    def _weights(self, y: Any, sample_weight: np.ndarray | None) -> np.ndarray | None:
        return row_weights(self.class_weight, y, sample_weight)

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
