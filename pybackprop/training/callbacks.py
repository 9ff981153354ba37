"""Callbacks: what a user wants done at the turning points of a run. Hooks and names are Keras's."""

from __future__ import annotations

import contextlib
import math
import os
import re
import string
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._form import COUNT, FLOAT, Each, Maybe, Optional, fault

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


def _check_state(callback: Callback, state: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    wrong = fault(state, form, "its state")
    if wrong:
        raise ValueError(f"{type(callback).__name__} cannot take over what it is given: {wrong}")


_BEST = {"best": Maybe(FLOAT)}


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
        if not math.isfinite(value) or not self._is_better(value, self.best):
            return False
        self.best = float(value)
        return True

    def _is_better(self, value: float, than: float | None) -> bool:
        return than is None or self._sign * (than - value) > self.min_delta


class EarlyStopping(_Monitor):
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
        form = {**_BEST, "best_epoch": Maybe(COUNT), "wait": COUNT, "weights": Maybe(Each(np.ndarray))}
        form |= {"stopped_epoch": Optional(Maybe(COUNT)), "of": Optional(Maybe(COUNT))}  # older files lack them
        _check_state(self, state, form)
        self._forget()
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]
        self.stopped_epoch, self._of = state.get("stopped_epoch"), state.get("of")
        self._weights = state["weights"]
        self._resumed = True


class ModelCheckpoint(_Monitor):
    """Writes checkpoints as a run goes on (``Trainer.save_checkpoint``), or only the model's weights.

    A file is replaced atomically: whenever the process or the machine stops, ``path`` holds a whole checkpoint, from
    which ``load_checkpoint`` and ``fit`` finish the run to the same bits. SIGTERM, by which systems ask a process to
    end, makes ``fit`` write one at the end of the batch (unless ``save_best_only`` or ``save_weights_only``); then the
    process ends as SIGTERM ends it.

    Args:
        path: file to write, in a folder that is made if need be; may hold ``{epoch}`` (the epoch in training, counted
            from 1), ``{batch}`` (batches of it that are done), ``{step}`` (updates in all) and, at an epoch's end,
            metrics, as ``"run-{epoch:03d}-{val_loss:.3f}.safetensors"``. Within an epoch validation metrics are NaN.
        monitor: metric for ``save_best_only``. Default ``"val_loss"``.
        save_best_only: write only after an epoch in which ``monitor`` improved. Default False.
        mode: as in :class:`EarlyStopping`.
        save_weights_only: write a model file (``pb.save``) instead of a checkpoint. Default False.
        save_freq: ``"epoch"``, or a number of batches: then also within epochs, when ``fit`` next comes back to Python,
            which takes at most one batch or 50 ms. Default ``"epoch"``.
        seconds: write also when so much time has passed since the last file. Default None.
        keep: keep only so many of the files that it has written, the newest; ``path`` must give them different names.
            The best of ``save_best_only`` is the newest. Default None: all.

    Attributes:
        files: paths written and kept, the newest last.

    Raises:
        ValueError: a bad option, or a name in ``path`` that is none of the above.
        OSError: out of ``fit``, if a file cannot be written; the former one is as it was.

    Example:
        >>> import os, tempfile, numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> path = os.path.join(tempfile.mkdtemp(), "run-{epoch:03d}.safetensors")
        >>> save = pb.callbacks.ModelCheckpoint(path, keep=2)
        >>> def trainer():
        ...     return pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1), callbacks=[save])
        >>> data = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
        >>> history = trainer().fit(*data, epochs=3, verbose=0)
        >>> [os.path.basename(file) for file in save.files]
        ['run-002.safetensors', 'run-003.safetensors']
        >>> resumed = trainer()
        >>> resumed.load_checkpoint(pb.callbacks.latest_checkpoint(path))
        >>> resumed.fit(*data, epochs=5, verbose=0).epoch
        [0, 1, 2, 3, 4]
    """

    saves = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        save_weights_only: bool = False,
        save_freq: str | int = "epoch",
        seconds: float | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.path, self.save_best_only, self.save_weights_only = os.fspath(path), save_best_only, save_weights_only
        if save_freq != "epoch" and (type(save_freq) is not int or save_freq < 1):
            raise ValueError(f"save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds must be above 0, got {seconds}")
        if save_best_only and (save_freq != "epoch" or seconds is not None):
            raise ValueError("save_best_only compares epochs: it goes with save_freq='epoch' and no seconds")
        if keep is not None and (type(keep) is not int or keep < 1):
            raise ValueError(f"keep must be a number of files, got {keep!r}")
        if keep is not None and not _fields(self.path):
            raise ValueError(
                f"keep={keep} needs a path that names its files apart, such as 'run-{{epoch}}.safetensors'"
            )
        self.save_freq, self.seconds, self.keep = save_freq, seconds, keep
        self.files: list[str] = []
        self._seen = self._since = 0  # batches of the epoch, and since the last file
        self._last = 0.0  # time.monotonic() of it

    def on_train_begin(self, logs: Logs | None = None) -> None:
        known = self.params["metrics"]
        if self.save_best_only:
            super().on_train_begin(logs)
        for name in _fields(self.path):
            if known and name not in (*_POSITIONS, *known):
                raise ValueError(f"ModelCheckpoint's path uses {name!r}, but the metrics are {', '.join(known)}")
        self._seen = self._since = 0
        self._last = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._seen = 0

    def on_train_chunk_end(self, batches: int, logs: Logs | None = None) -> None:
        self._since += max(batches - self._seen, 0)
        self._seen = batches
        due = self.save_freq != "epoch" and self._since >= int(self.save_freq)
        due = due or (self.seconds is not None and time.monotonic() - self._last >= self.seconds)
        if due and not self.trainer.accumulating:  # a checkpoint is taken between updates
            self._save(self.trainer.epoch, batches, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch" and (not self.save_best_only or self._improves(logs)):
            self._save(epoch, self._seen, logs)

    def on_train_terminate(self) -> None:
        if not self.save_best_only and not self.save_weights_only:
            cut = self.trainer.cut
            begun = cut is not None
            self._save(self.trainer.epoch - (not begun), cut.position if cut is not None else self._seen, {})

    def _save(self, epoch: int, batches: int, logs: Logs | None) -> None:
        names = dict.fromkeys(self.params["metrics"], math.nan) | dict(logs or {})
        names |= {"epoch": epoch + 1, "batch": batches, "step": self.trainer._step.steps}
        try:
            path = self.path.format(**names)
        except KeyError as error:
            raise ValueError(f"ModelCheckpoint's path uses {error}, but the metrics are {', '.join(names)}") from None
        before, self.files = self.files, [file for file in self.files if file != path] + [path]
        drop = self.files[: -self.keep] if self.keep is not None else []
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            if self.save_weights_only:
                from ..io import save

                save(self.model, path)
            else:
                self.trainer.save_checkpoint(path)
        except BaseException:
            self.files = before
            raise
        for file in drop:
            self.files.remove(file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
        self._since, self._last = 0, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "files": list(self.files)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_state(self, state, {**_BEST, "files": Optional([str])})  # older files lack it
        names = re.compile(_pattern(os.path.abspath(self.path)))
        self.best = state["best"]
        # Only what has the form of its own names: a file must not choose what is deleted.
        self.files = [file for file in state.get("files", []) if names.fullmatch(os.path.abspath(file))]


_POSITIONS = ("epoch", "batch", "step")


def _fields(path: str) -> list[str]:
    """The names in braces of a path, without what follows them."""
    return [re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(path) if name is not None]


def _pattern(path: str) -> str:
    """A regular expression for the files that a path with names in braces may stand for."""
    pieces = string.Formatter().parse(path)
    return "".join(re.escape(text) + ("" if name is None else r"[^/\\]*") for text, name, _, _ in pieces)


def latest_checkpoint(path: str | os.PathLike[str]) -> str | None:
    """The newest of the files that a :class:`ModelCheckpoint` of this ``path`` has written; None if there is none.

    Args:
        path: as given to ModelCheckpoint; names in braces stand for anything, and are not looked for in folders' names.

    Example:
        >>> import pybackprop as pb
        >>> pb.callbacks.latest_checkpoint("no-such-folder/run-{epoch}.safetensors") is None
        True
    """
    whole = os.path.abspath(os.fspath(path))
    folder, names = os.path.dirname(whole), re.compile(_pattern(whole))
    if not os.path.isdir(folder):
        return None
    found = [os.path.join(folder, name) for name in os.listdir(folder)]
    found = [file for file in found if names.fullmatch(file) and os.path.isfile(file)]
    return max(found, key=lambda file: (os.stat(file).st_mtime_ns, file), default=None)


class LambdaCallback(Callback):
    """Functions as hooks.

    Args:
        hooks: a function for each name of a hook of :class:`Callback`.

    Raises:
        TypeError: a keyword that is no hook.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> tell = pb.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, sorted(logs)))
        >>> history = trainer.fit(*data, epochs=2, callbacks=[tell], verbose=0)
        0 ['loss']
        1 ['loss']
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

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> steep = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=1e6))
        >>> stop = pb.callbacks.TerminateOnNaN()
        >>> steep.fit(*data, epochs=50, callbacks=[stop], verbose=0).stopped
        'callback'
        >>> type(stop.error).__name__
        'NonFiniteError'
    """

    def __init__(self) -> None:
        self.error: NonFiniteError | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.error = None

    def on_train_nonfinite(self, error: NonFiniteError) -> None:
        self.error = error
        self.trainer.stop_training = True


# Public here, as the others are; these files need the base class above.
from .csvlog import CSVLogger  # noqa: E402
from .learning_rate import LearningRateScheduler, ReduceLROnPlateau  # noqa: E402
from .tensorboard import TensorBoard  # noqa: E402

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "latest_checkpoint",
]
