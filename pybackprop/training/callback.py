"""The base of all callbacks: what a user wants done at the turning points of a run. Hooks and names are Keras's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._form import FLOAT, Maybe, fault

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

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> class Enough(pb.Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.trainer.stop_training = logs["loss"] < 1e-3
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> history = trainer.fit(*data, epochs=1000, callbacks=[Enough()], verbose=0)
        >>> history.stopped, len(history.epoch) < 1000
        ('callback', True)
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

    def on_train_terminate(self) -> None:
        """SIGTERM has ended the run after the last batch done, and will end the process after ``on_train_end``.

        Only a callback that overrides this hook makes ``fit`` wait for the end of a batch: the signal ends the process
        at once otherwise, and if another handler is installed, that one is called.
        """

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


def check_state(callback: Callback, state: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    wrong = fault(state, form, "its state")
    if wrong:
        raise ValueError(f"{type(callback).__name__} cannot take over what it is given: {wrong}")


BEST = {"best": Maybe(FLOAT)}


class Monitor(Callback):
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
        if not math.isfinite(value) or not self._is_better(value, self.best):
            return False
        self.best = float(value)
        return True

    def _is_better(self, value: float, than: float | None) -> bool:
        return than is None or self._sign * (than - value) > self.min_delta
