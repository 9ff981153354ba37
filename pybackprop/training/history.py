"""What a run recorded."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from .._text_table import Table

_SHOWN = 8  # epochs in the table


class History:
    """Metrics of a run, one entry an epoch. ``print`` and notebooks show a table of the last epochs.

    Attributes:
        history: ``{"loss": [...], "accuracy": [...], "val_loss": [...]}``.
        epoch: the epochs' numbers, from 0; tables and pictures count from 1, as the progress bar does.
        params: what ``fit`` was called with: ``epochs``, ``batch_size``, ``rows``, ``batches`` (a epoch), ``metrics``.
        stopped: why the run ended before its last epoch: ``"interrupted"`` (Ctrl-C), ``"terminated"`` (SIGTERM),
            ``"time_limit"``, ``"callback"``; None if it did not.
        skipped: batches that were left out because their loss or gradient was not finite.
        restored: times the run went back to the end of an epoch for the same reason.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight = [[0.0]]
        >>> trainer = pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.25))
        >>> trainer.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=3, verbose=0)
        History: 3 epochs
        epoch    loss
        -------------
            1       1
            2    0.25
            3  0.0625
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params: dict[str, Any] = {}
        self.stopped: str | None = None
        self.skipped = 0
        self.restored = 0

    def record(self, epoch: int, logs: dict[str, float]) -> None:
        """Add an epoch. A metric that other epochs have and this one has not is NaN."""
        for name in logs:
            self.history.setdefault(name, [float("nan")] * len(self.epoch))
        for name, values in self.history.items():
            values.append(float(logs.get(name, float("nan"))))
        self.epoch.append(epoch)

    def drop_last(self) -> None:
        """Take the last epoch out again."""
        self.epoch.pop()
        for values in self.history.values():
            values.pop()

    def to_frame(self) -> Any:
        """The metrics as a pandas DataFrame: a row an epoch, indexed by its number from 0, a column a metric.

        Raises:
            ImportError: pandas is not installed.

        Example:
            >>> import pybackprop as pb
            >>> history = pb.History()
            >>> history.record(0, {"loss": 0.5, "val_loss": 0.75})
            >>> history.to_frame().loc[0, "val_loss"].item()
            0.75
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError('History.to_frame needs pandas: pip install "pybackprop[table]"') from None
        return pd.DataFrame(self.history, index=pd.Index(self.epoch, name="epoch"))

    def plot(self, path: str | os.PathLike[str] | None = None, metrics: str | Sequence[str] | None = None) -> Any:
        """Draw the run: :func:`pybackprop.plot.learning_curves` of it.

        Args:
            path: write an image there (PNG, SVG, PDF by its ending). Default None.
            metrics: what to draw. Default None: the loss and all metrics.

        Returns:
            The matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no epoch to draw, or an unknown metric.

        Example:
            >>> import pybackprop as pb
            >>> history = pb.History()
            >>> history.record(0, {"loss": 0.5, "val_loss": 0.75})
            >>> len(history.plot().axes)
            1
        """
        from ..plot import learning_curves

        return learning_curves(self, path, metrics)

    def _table(self) -> Table:
        count = f"{len(self.epoch)} epoch{'s' * (len(self.epoch) != 1)}"
        facts = [f"{count}, the last {_SHOWN}" if len(self.epoch) > _SHOWN else count]
        facts += [f"stopped: {self.stopped}"] if self.stopped else []
        facts += [f"{self.skipped} batches skipped"] if self.skipped else []
        facts += [f"went back {self.restored} times"] if self.restored else []
        rows = [
            [str(self.epoch[i] + 1), *(f"{values[i]:.4g}" for values in self.history.values())]
            for i in range(max(len(self.epoch) - _SHOWN, 0), len(self.epoch))
        ]
        finite = [(loss, epoch) for loss, epoch in zip(self.history.get("val_loss", []), self.epoch, strict=False)]
        finite = [(loss, epoch) for loss, epoch in finite if math.isfinite(loss)]
        below = [f"least val_loss: {min(finite)[0]:.4g} in epoch {min(finite)[1] + 1}"] if finite else []
        head = ["epoch", *self.history]
        return Table(head, rows, range(len(head)), [f"History: {'; '.join(facts)}"], below)

    def __repr__(self) -> str:
        table = self._table()
        return table.text() if self.epoch else table.above[0]

    def _repr_html_(self) -> str:
        return self._table().html()
