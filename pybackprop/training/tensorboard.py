"""Runs shown in TensorBoard, written by tensorboardX, which is imported when a callback of this kind is made."""

from __future__ import annotations

import os
import time
from typing import Any

from .._schedules import checked_count
from .callback import Callback, Logs

_PARTS = {"train": "", "validation": "val_"}  # folder of a part's curves: prefix of its metrics
_SECONDS = 5  # between two writes to the disk


class TensorBoard(Callback):
    """Writes each epoch's metrics for TensorBoard: ``tensorboard --logdir logs`` shows them.

    Folders and names are Keras's: training metrics go to ``log_dir/train``, those of validation data to
    ``log_dir/validation``, both as ``epoch_loss``, ``epoch_accuracy`` and so on, so that they are drawn in one picture;
    the learning rate of the epoch's last update is ``epoch_learning_rate``. The step is the epoch, from 0. Events reach
    the disk within seconds, and at the end of the run. A run that goes on (a further ``fit``, or after
    ``load_checkpoint``) goes on in the same curves, and replaces the epochs that a killed run had written after its
    checkpoint.

    Args:
        log_dir: folder of the run, made if need be. Give each run one of its own. Default ``"logs"``.
        histogram_freq: every so many epochs write histograms of all parameters, under their names; 0 for never.
            Default 0.

    Raises:
        ImportError: tensorboardX is not installed.
        ValueError, TypeError: a bad argument.

    Example:
        >>> import os, tempfile, numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> folder = tempfile.mkdtemp()
        >>> board = pb.callbacks.TensorBoard(folder, histogram_freq=1)
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> history = trainer.fit(*data, epochs=2, validation_data=data, callbacks=[board], verbose=0)
        >>> sorted(os.listdir(folder))
        ['train', 'validation']
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "logs", histogram_freq: int = 0) -> None:
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = checked_count("histogram_freq", histogram_freq, 0)
        self._writer_class = _summary_writer()
        self._writers: dict[str, Any] = {}
        self._first = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._close()  # of a run that an exception ended
        self._first = self.trainer.epoch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        values = dict(logs or {})
        for part, prefix in _PARTS.items():
            for name, value in values.items():
                if name.startswith("val_") == bool(prefix):
                    self._writer(part).add_scalar(f"epoch_{name.removeprefix(prefix)}", value, epoch)
        train = self._writer("train")
        train.add_scalar("epoch_learning_rate", self.trainer.learning_rate, epoch)
        if self.histogram_freq and (epoch + 1) % self.histogram_freq == 0:
            for name, parameter in self.model.named_parameters():
                train.add_histogram(name, parameter.numpy(), epoch)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._close()

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            # Told where a run goes on, TensorBoard drops what an earlier file of the folder has from there.
            begin = self._first or None
            # Names are of the second: without more in them, the next run of a fast model would take this one's file.
            self._writers[part] = self._writer_class(
                os.path.join(self.log_dir, part),
                purge_step=begin,
                flush_secs=_SECONDS,
                filename_suffix=f".{time.time_ns()}",
            )
        return self._writers[part]

    def _close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ImportError('TensorBoard needs tensorboardX: pip install "pybackprop[tensorboard]"') from None
    return SummaryWriter
