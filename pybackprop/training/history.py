"""What a run recorded."""

from __future__ import annotations

import os
from typing import Any


class History:
    """Metrics of a run, one entry an epoch.

    Attributes:
        history: ``{"loss": [...], "accuracy": [...], "val_loss": [...]}``.
        epoch: the epochs' numbers, from 0.
        params: what ``fit`` was called with: ``epochs``, ``batch_size``, ``rows``, ``batches`` (a epoch), ``metrics``.
        stopped: why the run ended before its last epoch: ``"interrupted"`` (Ctrl-C), ``"terminated"`` (SIGTERM),
            ``"time_limit"``, ``"callback"``; None if it did not.
        skipped: batches that were left out because their loss or gradient was not finite.
        restored: times the run went back to the end of an epoch for the same reason.
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

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items() if values)
        parts = [f"{len(self.epoch)} epochs", last, f"stopped: {self.stopped}" if self.stopped else ""]
        return f"History({'; '.join(p for p in parts if p)})"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw learning curves: the loss, and the first metric beside it, for training and validation data.

        Args:
            path: write an image there (PNG, SVG, PDF by its ending). Default None.

        Returns:
            The matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no epoch to draw.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError:
            raise ImportError('History.plot needs matplotlib: pip install "pybackprop[demo]"') from None
        if not self.epoch:
            raise ValueError("the history is empty: nothing to plot")
        names = [n for n in self.history if not n.startswith("val_")]
        shown = [n for n in names if n == "loss"] + [n for n in names if n != "loss"][:1]
        figure = Figure(figsize=(5.2 * len(shown), 3.8), layout="constrained")
        epochs = [e + 1 for e in self.epoch]
        marker = "o" if len(epochs) < 16 else None
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for key, label, colour, style in (
                (name, "training", "#4c72b0", "-"),
                (f"val_{name}", "validation", "#dd8452", "-"),
            ):
                if key in self.history:
                    axes.plot(
                        epochs, self.history[key], style, color=colour, label=label, marker=marker, ms=3.5, lw=1.8
                    )
            axes.set_xlabel("epoch")
            axes.set_ylabel(name.replace("_", " "))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25, lw=0.6)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.legend(frameon=False)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure
