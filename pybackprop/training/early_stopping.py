"""Ending a run when a metric stands still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._form import COUNT, Each, Maybe, Optional
from .callback import BEST, Logs, Monitor, check_state


class EarlyStopping(Monitor):
    """Stops when a metric has not improved for ``patience`` epochs.

    A checkpoint holds that it has stopped the run: ``fit`` after a load returns at once then, unless it is given more
    epochs than that run had.

    Args:
        monitor: name of the metric. Default ``"val_loss"``.
        patience: epochs without improvement that are endured. Default 0.
        min_delta: an improvement is larger than this. Default 0.
        mode: ``"min"``, ``"max"`` or ``"auto"`` (max for accuracies and r2). Default ``"auto"``.
        restore_best_weights: at the end of the run put back the weights of the best epoch. Default False.
        baseline: the count of epochs begins anew only at an improvement that is better than this too. Default None.
        start_from_epoch: so many epochs at the beginning are not looked at. Default 0.

    Attributes:
        best: best value seen. ``best_epoch``: its epoch. ``stopped_epoch``: the epoch at which it stopped the run, or
            None.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> stop = pb.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
        >>> history = trainer.fit(*data, epochs=10_000, callbacks=[stop], verbose=0)
        >>> len(history.epoch) == stop.stopped_epoch + 1 < 10_000
        True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
        baseline: float | None = None,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if patience < 0:
            raise ValueError(f"patience must be at least 0, got {patience}")
        if start_from_epoch < 0:
            raise ValueError(f"start_from_epoch must be at least 0, got {start_from_epoch}")
        self.patience, self.restore_best_weights = patience, restore_best_weights
        self.baseline, self.start_from_epoch = baseline, start_from_epoch
        self._resumed = False
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._of: int | None = None  # epochs that the run it stopped was to have
        self.wait = 0
        self._weights: dict[str, np.ndarray] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        if not self._resumed:
            self._forget()
        elif self._of is not None and self.params["epochs"] <= self._of:
            self.trainer.stop_training = True  # the loaded run is over
        else:
            self.stopped_epoch = self._of = None
        self._resumed = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        recorded = self.trainer.history.epoch  # also those of a run that was loaded
        if epoch - recorded[0] < self.start_from_epoch:
            return
        self.wait += 1
        if self._improves(logs):
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
            if self.best is not None and self._is_better(self.best, self.baseline):
                self.wait = 0
            return
        if self.wait >= max(self.patience, 1):
            self.stopped_epoch, self._of = epoch, self.params["epochs"]
            self.trainer.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._weights is not None:
            self.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "of": self._of,
            "wait": self.wait,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        form = {**BEST, "best_epoch": Maybe(COUNT), "wait": COUNT, "weights": Maybe(Each(np.ndarray))}
        form |= {"stopped_epoch": Optional(Maybe(COUNT)), "of": Optional(Maybe(COUNT))}  # older files lack them
        check_state(self, state, form)
        self._forget()
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]
        self.stopped_epoch, self._of = state.get("stopped_epoch"), state.get("of")
        self._weights = state["weights"]
        self._resumed = True
