"""Metrics as a CSV file, written as they come."""

from __future__ import annotations

import csv
import os

from .callback import Callback, Logs


class CSVLogger(Callback):
    """Appends each epoch's metrics to a CSV file as they come.

    Args:
        path: the file.
        separator: default ``","``.
        append: keep what the file holds, as after a resume. Default False: start anew.

    Example:
        >>> import os, tempfile
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
        >>> history = trainer.fit(*data, epochs=2, callbacks=[pb.callbacks.CSVLogger(path)], verbose=0)
        >>> with open(path) as file:
        ...     print(file.readline(), len(file.readlines()))
        epoch,loss
         2
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
