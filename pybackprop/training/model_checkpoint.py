"""Checkpoints written as a run goes on."""

from __future__ import annotations

import contextlib
import math
import os
import re
import string
import time
from collections.abc import Mapping
from typing import Any

from .._form import Optional
from .callback import BEST, Logs, Monitor, check_state


class ModelCheckpoint(Monitor):
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
        check_state(self, state, {**BEST, "files": Optional([str])})  # older files lack it
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
