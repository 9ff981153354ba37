"""Callbacks: what a user wants done at the turning points of a run. Hooks and names are Keras's."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..optim import Schedule

if TYPE_CHECKING:
    from .nonfinite import NonFiniteError
    from .trainer import Trainer

Logs = Mapping[str, float]


class Callback:
    """Base of all callbacks. Override the hooks you need.

    ``logs`` are metrics: of the epoch, validation included, at its end; means over the epoch so far within it.
    Overriding a batch hook makes the run come back to Python after every batch; ``on_train_chunk_end`` is called about
    every 50 ms instead, with the number of batches done. To end the run, set ``self.trainer.stop_training = True``.

    Hooks may call ``evaluate``, ``predict`` and ``save_checkpoint`` of the trainer, and ``step``, which is one more
    training step and counts in schedules; ``fit`` and ``load_checkpoint`` are errors there. An exception ends the run
    with the weights of the last finished update.

    Attributes:
        trainer: the Trainer, from ``on_train_begin`` on. ``self.model`` is its model.
        params: ``epochs``, ``batch_size``, ``rows``, ``batches`` and ``metrics`` (names that ``logs`` will have).
    """

    trainer: Trainer
    params: dict[str, Any]
    saves = False  # writes checkpoints: called after all others, so that a checkpoint holds their newest state

    @property
    def model(self) -> Any:
        """The model in training."""
        return self.trainer.model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch, also when the run was stopped."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before each epoch; counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After each epoch; its metrics are in the history already."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each batch; counted from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each batch."""

    def on_train_chunk_end(self, batches: int, logs: Logs | None = None) -> None:
        """About every 50 ms within an epoch, after ``batches`` of its batches."""

    def on_train_nonfinite(self, error: NonFiniteError) -> None:
        """After a batch that was not applied, before ``fit`` does what ``on_nonfinite`` says.

        With ``self.trainer.stop_training = True`` it ends the run instead.
        """

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs: JSON values, and arrays, in dicts and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""


def overrides(callback: Callback, *hooks: str) -> bool:
    """Whether a callback does anything at these hooks."""
    return any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


class _Monitor(Callback):
    """Keeps the best value of a metric."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', got {mode!r}")
        if min_delta < 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta}")
        self.monitor, self.min_delta = monitor, float(min_delta)
        name = monitor.removeprefix("val_")
        rising = mode == "max" or (mode == "auto" and (name == "r2" or name.startswith(("acc", "top"))))
        self._sign = -1.0 if rising else 1.0
        self.best: float | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        known = self.params["metrics"]
        if known and self.monitor not in known:
            hint = "; give fit validation data" if self.monitor.removeprefix("val_") in known else ""
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, but the metrics are {', '.join(known)}{hint}"
            )

    def _improves(self, logs: Logs | None) -> bool:
        value = (logs or {}).get(self.monitor, float("nan"))
        if math.isnan(value) or (self.best is not None and self._sign * (self.best - value) <= self.min_delta):
            return False
        self.best = float(value)
        return True


class EarlyStopping(_Monitor):
    """Stops when a metric has not improved for ``patience`` epochs.

    Args:
        monitor: name of the metric. Default ``"val_loss"``.
        patience: epochs without improvement that are endured. Default 0.
        min_delta: an improvement is larger than this. Default 0.
        mode: ``"min"``, ``"max"`` or ``"auto"`` (max for accuracies and r2). Default ``"auto"``.
        restore_best_weights: at the end of the run put back the weights of the best epoch. Default False.

    Attributes:
        best: best value seen. ``best_epoch``: its epoch. ``stopped_epoch``: the epoch at which it stopped the run, or
            None.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if patience < 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        self.patience, self.restore_best_weights = patience, restore_best_weights
        self._resumed = False
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self.wait = 0
        self._weights: dict[str, np.ndarray] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        if not self._resumed:
            self._forget()
        self._resumed = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._improves(logs):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
            return
        self.wait += 1
        if self.wait >= max(self.patience, 1):
            self.stopped_epoch = epoch
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._weights is not None:
            self.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "wait": self.wait, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]
        self._weights = state["weights"]
        self._resumed = True


class ModelCheckpoint(_Monitor):
    """Writes a checkpoint after each epoch (``Trainer.save_checkpoint``), or only the model's weights.

    Args:
        path: file to write; may hold ``{epoch}`` (counted from 1) and metrics, as
            ``"run-{epoch:03d}-{val_loss:.3f}.safetensors"``.
        monitor: metric for ``save_best_only``. Default ``"val_loss"``.
        save_best_only: write only when ``monitor`` improves. Default False.
        mode: as in :class:`EarlyStopping`.
        save_weights_only: write a model file (``pb.save``) instead of a checkpoint. Default False.
    """

    saves = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        save_weights_only: bool = False,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.path, self.save_best_only, self.save_weights_only = os.fspath(path), save_best_only, save_weights_only

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.save_best_only:
            super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_best_only and not self._improves(logs):
            return
        try:
            path = self.path.format(epoch=epoch + 1, **(logs or {}))
        except KeyError as error:
            raise ValueError(
                f"ModelCheckpoint's path uses {error}, but the metrics are {', '.join(logs or {})}"
            ) from None
        if self.save_weights_only:
            from ..io import save

            save(self.model, path)
        else:
            self.trainer.save_checkpoint(path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state["best"]


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch: ``optimizer.lr = schedule(epoch, lr)``.

    Schedules that follow the step are better given to the optimizer (``optim.CosineLR`` and others).

    Args:
        schedule: function of the epoch, from 0, and the present learning rate.

    Raises:
        TypeError: at the start of a run whose optimizer has a schedule already.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = schedule

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if isinstance(self.trainer.optimizer.lr, Schedule):
            raise TypeError(
                f"LearningRateScheduler needs a number as lr, but the optimizer's is {self.trainer.optimizer.lr!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer: Any = self.trainer.optimizer
        optimizer.lr = float(self.schedule(epoch, optimizer.lr))


class CSVLogger(Callback):
    """Appends each epoch's metrics to a CSV file as they come.

    Args:
        path: the file.
        separator: default ``","``.
        append: keep what the file holds, as after a resume. Default False: start anew.
    """

    def __init__(self, path: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = os.fspath(path), separator, append
        self._names: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._names = None
        if self.append and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                self._names = next(csv.reader(file, delimiter=self.separator), None)
        else:
            open(self.path, "w", encoding="utf-8").close()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        row = {"epoch": epoch, **(logs or {})}
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self._names is None:
                self._names = list(row)
                writer.writerow(self._names)
            writer.writerow([row.get(name, "") for name in self._names])


class LambdaCallback(Callback):
    """Functions as hooks: ``LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))``.

    Raises:
        TypeError: a keyword that is no hook.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                known = ", ".join(n for n in vars(Callback) if n.startswith("on_"))
                raise TypeError(f"{name!r} is no hook; there are {known}")
            setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends the run quietly where ``fit`` would raise :class:`NonFiniteError`: at a batch whose loss is not finite.

    That batch is not applied, and not in the history.

    Attributes:
        error: the NonFiniteError that says why, None if there was none.
    """

    def __init__(self) -> None:
        self.error: NonFiniteError | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.error = None

    def on_train_nonfinite(self, error: NonFiniteError) -> None:
        self.error = error
        self.trainer.stop_training = True
