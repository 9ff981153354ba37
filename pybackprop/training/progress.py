"""What ``fit`` shows while it runs: a tqdm bar with the time left, or one line an epoch where tqdm is not installed."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Progress:
    """One bar for the whole run, counted in batches.

    Args:
        verbose: False shows nothing.
        epochs: number of the last epoch, for ``epoch 3/10``.
        done: epochs done before this run.
        batches: in an epoch; None if unknown.
    """

    def __init__(self, verbose: bool, epochs: int, done: int, batches: int | None) -> None:
        self._epochs, self._done, self._batches = epochs, done, batches
        self._bar = None
        self._shown = bool(verbose) and epochs > done
        self._begin = time.monotonic()
        self._base = 0
        if not self._shown:
            return
        try:
            from tqdm.auto import tqdm
        except ImportError:  # optional
            return
        total = None if batches is None else (epochs - done) * batches
        self._bar = tqdm(total=total, unit="batch", dynamic_ncols=True)

    def epoch(self, epoch: int) -> None:
        """An epoch begins."""
        self._base = (epoch - self._done) * (self._batches or 0)
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)

    def chunk(self, batches: int, logs: Mapping[str, float]) -> None:
        """So many batches of the epoch are done."""
        if self._bar is not None:
            self._bar.set_postfix_str(_text(logs), refresh=False)
            at = self._base + batches if self._batches is not None else self._bar.n + 1
            self._bar.update(at - self._bar.n)

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """An epoch is over."""
        if self._bar is not None:
            self._bar.set_postfix_str(_text(logs))
        elif self._shown:
            spent = time.monotonic() - self._begin
            left = spent / (epoch + 1 - self._done) * (self._epochs - epoch - 1)
            print(f"epoch {epoch + 1}/{self._epochs}  {_text(logs)}  {spent:.1f} s, {left:.1f} s left", flush=True)

    def close(self) -> None:
        """The run is over."""
        if self._bar is not None:
            self._bar.close()


def _text(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
