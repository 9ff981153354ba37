"""How an MLP estimator is trained: epochs of a stochastic solver through `Trainer`, or L-BFGS on the whole data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from .. import _core, optim
from ..training import Callback, NonFiniteError, Trainer, TrainStep
from .network import Network
from .objective import MLPObjective

if TYPE_CHECKING:
    from .mlp import MLP

STOCHASTIC = ("sgd", "adam", "adamw")
RUN_SCHEDULES = {"cosine": optim.CosineLR, "one_cycle": optim.OneCycle}
"""Learning rates that need the length of the run."""
LEARNING_RATES = ("constant", "invscaling", "adaptive", *RUN_SCHEDULES)

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


class Stochastic:
    """A stochastic solver at work on one network; its moments and learning rate live on through ``partial_fit``.

    Attributes:
        learning_rate: the number that scikit-learn's rules move; the solver starts from ``learning_rate_init``.
    """

    def __init__(self, estimator: MLP) -> None:
        self.learning_rate = float(estimator.learning_rate_init)
        self._trainer: Trainer | None = None
        self._state: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = self._state if self._trainer is None else self._trainer.state()["optimizer"]
        return {"learning_rate": self.learning_rate, "_state": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _trainer=None)

    def trainer(self, estimator: MLP, network: Network, objective: MLPObjective) -> Trainer:
        """The Trainer of this network and objective, with the moments gathered so far."""
        trainer = self._trainer
        if trainer is not None:
            if trainer.model is network and vars(trainer.objective) == vars(objective):
                return trainer
            self._state = trainer.state()["optimizer"]
        self._trainer = Trainer(
            network,
            objective=objective,
            optimizer=_optimizer(estimator, self.learning_rate),
            clip_norm=estimator.clip_norm,
            threads=estimator.threads,
            seed=estimator._dropout_seed,
        )
        if self._state is not None:
            self._trainer._step.load_state_dict(self._state)
        self._state = None
        return self._trainer

    def epoch_ends(self, estimator: MLP) -> None:
        """The rule of ``learning_rate="invscaling"``."""
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            self._set_rate(estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t)

    def stops(self, estimator: MLP, message: str) -> bool:
        """Whether training ends, now that it does not improve; ``"adaptive"`` goes on at a fifth of the rate."""
        if estimator.solver == "sgd" and estimator.learning_rate == "adaptive":
            if self.learning_rate > 1e-6:
                self._set_rate(self.learning_rate / 5)
                if estimator.verbose:
                    print(f"{message} Setting learning rate to {self.learning_rate:f}")
                return False
            message += " Learning rate too small."
        if estimator.verbose:
            print(f"{message} Stopping.")
        return True

    def _set_rate(self, rate: float) -> None:
        """A new learning rate; the momentum keeps the length of its step, as scikit-learn's velocities do."""
        assert self._trainer is not None
        stepper = self._trainer._step.stepper
        moments = stepper.state()
        factor = self.learning_rate / rate
        stepper.load_state({name: [array * factor for array in arrays] for name, arrays in moments.items()})
        self.learning_rate = self._trainer.optimizer.lr = rate


def _optimizer(estimator: MLP, rate: float) -> optim.Optimizer:
    lr: Any = rate
    if isinstance(estimator.learning_rate, optim.Schedule):
        lr = estimator.learning_rate
    elif estimator.learning_rate in RUN_SCHEDULES:
        lr = RUN_SCHEDULES[estimator.learning_rate](rate)
    if estimator.solver == "sgd":
        nesterov = estimator.nesterovs_momentum and estimator.momentum > 0
        return optim.SGD(lr, momentum=estimator.momentum, nesterov=nesterov)
    betas, eps = (estimator.beta_1, estimator.beta_2), estimator.epsilon
    if estimator.solver == "adam":
        return optim.Adam(lr, betas, eps, eps_hat=True)
    groups = {optim.VECTORS: {"weight_decay": 0}}
    return optim.AdamW(lr, betas, eps, estimator.weight_decay, groups=groups)


def fit_stochastic(
    estimator: MLP,
    network: Network,
    objective: MLPObjective,
    X: Any,
    targets: tuple[np.ndarray, ...],
    *,
    epochs: int,
    validation: tuple[Any, tuple[np.ndarray, ...]] | None,
    score: Callable[[], float] | None,
) -> bool:
    """Train for up to ``epochs`` epochs by scikit-learn's rules.

    Args:
        X: dense rows, or a CSR matrix, which is fed batch by batch.
        targets: what goes beside them.
        validation: the same of rows whose loss is recorded.
        score: gives the validation score after an epoch; None without early stopping.

    Returns:
        Whether the run was ended by something else than its number of epochs.

    Raises:
        ValueError: training diverged, and there are no better weights to go back to.
    """
    trainer = estimator._optimizer.trainer(estimator, network, objective)
    rules = Rules(estimator, network, X.shape[0], score)
    order = _Orders(estimator._random_state) if estimator.shuffle else None
    batch_size = estimator._batch_rows(X.shape[0])
    options: dict[str, Any] = {"epochs": epochs, "callbacks": [rules, *(estimator.callbacks or ())]}
    options |= {"verbose": int(estimator.progress), "time_limit": estimator.time_limit}
    try:
        with np.errstate(over="ignore"):
            if isinstance(X, np.ndarray):
                options |= {"batch_size": batch_size, "shuffle": order or False, "validation_data": validation}
                trainer.fit(X, targets, **options)
            else:
                trainer.fit(SparseBatches(X, targets, batch_size, order), validation_data=validation, **options)
    except NonFiniteError as error:
        if rules.best is None or score is None:
            raise ValueError(f"{NOT_FINITE} {error}") from error
        rules.diverged()
    rules.restore()
    return rules.ended or trainer.history.stopped is not None


class Rules(Callback):
    """What scikit-learn's MLPs do at the end of an epoch: record, compare, move the learning rate, stop."""

    def __init__(self, estimator: MLP, network: Network, rows: int, score: Callable[[], float] | None) -> None:
        self._of, self._network, self._rows, self._score = estimator, network, rows, score
        self.ended = False
        self.best: dict[str, np.ndarray] | None = None
        self._keep = score is not None if estimator.restore_best_weights is None else estimator.restore_best_weights
        self._least = np.inf  # validation loss
        if self._keep and score is not None:
            self.best = network.state_dict()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        of = self._of
        self._record(logs)
        self._count(logs)
        of._optimizer.epoch_ends(of)
        if of._no_improvement_count > of.n_iter_no_change:
            what = "Training loss" if self._score is None else "Validation score"
            message = f"{what} did not improve more than tol={of.tol:f} for {of.n_iter_no_change} consecutive epochs."
            if of._optimizer.stops(of, message):
                self.ended = True
                self.trainer.stop_training = True
            else:
                of._no_improvement_count = 0

    def diverged(self) -> None:
        """An epoch met numbers that are not finite: there is a score that says so, and no more epochs."""
        of = self._of
        self._record({"loss": np.nan})
        of.validation_scores_.append(float("nan"))
        warnings.warn(
            f"Training diverged in epoch {of.n_iter_}; the weights of the best epoch are kept.",
            ConvergenceWarning,
            stacklevel=5,
        )
        self.ended = True

    def restore(self) -> None:
        """Back to the best weights, if they were kept."""
        if self._keep and self.best is not None:
            self._network.load_state_dict(self.best)

    def _record(self, logs: Any) -> None:
        of = self._of
        of.n_iter_ += 1
        of.t_ += self._rows
        of.loss_ = float(logs.get("shown", logs["loss"]))
        of.loss_curve_.append(of.loss_)
        if "val_data_loss" in logs:
            of.validation_loss_curve_.append(float(logs["val_data_loss"]))
        if of.verbose:
            print(f"Iteration {of.n_iter_}, loss = {of.loss_:.8f}")

    def _count(self, logs: Any) -> None:
        """Count the epochs without improvement."""
        of = self._of
        if self._score is not None:
            score = float(self._score())
            of.validation_scores_.append(score)
            if of.verbose:
                print(f"Validation score: {score:f}")
            of._no_improvement_count = of._no_improvement_count + 1 if score < of.best_validation_score_ + of.tol else 0
            if score > of.best_validation_score_:
                of.best_validation_score_ = score
                if self._keep:
                    self.best = self._network.state_dict()
            return
        of._no_improvement_count = of._no_improvement_count + 1 if of.loss_ > of.best_loss_ - of.tol else 0
        of.best_loss_ = min(of.best_loss_, of.loss_)
        if self._keep and logs.get("val_data_loss", np.inf) < self._least:
            self._least, self.best = logs["val_data_loss"], self._network.state_dict()


class _Orders:
    """The order of an epoch's rows: the one before, shuffled again."""

    def __init__(self, random_state: np.random.RandomState) -> None:
        self._random_state = random_state
        self._order: np.ndarray | None = None

    def __call__(self, epoch: int, rows: int) -> np.ndarray:
        places = np.arange(rows)
        self._random_state.shuffle(places)
        self._order = places if self._order is None else self._order[places]
        return self._order


class SparseBatches:
    """The batches of a CSR matrix, made dense one at a time."""

    def __init__(
        self, X: Any, targets: tuple[np.ndarray, ...], batch_rows: int, order: Callable[[int, int], np.ndarray] | None
    ) -> None:
        self._X, self._targets, self._batch_rows, self._order = X, targets, batch_rows, order

    def __len__(self) -> int:
        return -(-self._X.shape[0] // self._batch_rows)

    def __iter__(self) -> Iterator[Any]:
        rows = self._X.shape[0]
        order = np.arange(rows) if self._order is None else self._order(0, rows)
        for first in range(0, rows, self._batch_rows):
            chosen = order[first : first + self._batch_rows]
            yield self._X[chosen].toarray(), tuple(target[chosen] for target in self._targets)


def fit_lbfgs(
    estimator: MLP, network: Network, objective: MLPObjective, X: Any, targets: tuple[np.ndarray, ...]
) -> None:
    """Minimise the objective over all rows with SciPy's L-BFGS-B (Byrd et al. 1995), in double."""
    if not isinstance(X, np.ndarray):
        X = X.toarray()
    X = X.astype(np.float64, copy=False)
    y = tuple(target.astype(np.float64) if target.dtype.kind == "f" else target for target in targets)
    twin = network.astype("float64")
    step = TrainStep(objective, twin, optim.SGD(lr=0.0), threads=estimator.threads, on_nonfinite="skip")
    names, params = zip(*twin.named_parameters(), strict=True)
    handles = [parameter._param for parameter in params]
    cuts = np.cumsum([int(np.prod(parameter.shape)) for parameter in params])[:-1]
    shapes = [parameter.shape for parameter in params]
    shown = 0.0

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal shown
        _core.write_all(handles, [part.reshape(s) for part, s in zip(np.split(flat, cuts), shapes, strict=True)])
        loss = step.backward(X, y)
        if not np.isfinite(loss):
            return np.inf, np.zeros_like(flat)
        gradients = step.grads()
        shown = step.extras.get("shown", loss)
        return loss, np.concatenate([np.ravel(gradients[name]) for name in names])

    start = np.concatenate([array.ravel() for array in _core.read_all(handles)])
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    found = minimize(value_and_gradient, start, method="L-BFGS-B", jac=True, options=options)
    if not np.isfinite(found.x).all():
        raise ValueError(NOT_FINITE)
    value_and_gradient(found.x)
    estimator.loss_ = shown
    estimator.n_iter_ = min(int(found.nit), estimator.max_iter)
    if estimator.verbose:
        print(f"L-BFGS: {estimator.n_iter_} iterations, {found.nfev} evaluations, loss = {shown:.8f}")
    if found.status != 0:
        warnings.warn(
            f"lbfgs stopped after {estimator.n_iter_} iterations before it converged ({found.message}): raise "
            "max_iter or max_fun, or scale the data",
            ConvergenceWarning,
            stacklevel=5,
        )
