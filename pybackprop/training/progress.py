"""What ``fit`` shows while it runs: a tqdm bar with the time left, or lines of text where tqdm is not installed."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from typing import Any

_BETWEEN = 0.5  # seconds between two lines of text: an epoch may take microseconds


class Progress:
    """One bar for the whole run, counted in batches.

    In a notebook the bar is one of ipywidgets, if that is installed, else one of text.

    Args:
        verbose: 0 shows nothing, 1 the bar, 2 a line an epoch.
        epochs: number of the last epoch, for ``epoch 3/10``.
        done: epochs done before this run.
        batches: in an epoch; None if unknown.
    """

    def __init__(self, verbose: int, epochs: int, done: int, batches: int | None) -> None:
        self._epochs, self._done, self._batches = epochs, done, batches
        self._bar: Any = None
        self._shown = verbose > 0 and epochs > done
        self._between = 0.0 if verbose == 2 else _BETWEEN
        self._begin = time.monotonic()
        self._said = -_BETWEEN  # when the last line was printed
        self._unsaid: str | None = None
        self._base = 0
        self._validation: dict[str, float] = {}  # of the last epoch, shown until the next one
        if not self._shown:
            return
        bar = _bar_class() if verbose == 1 else None
        if bar is None:
            return
        total = None if batches is None else (epochs - done) * batches
        # miniters: a look at the clock at each update; guessed from the speed so far, a slow epoch would stand still.
        self._bar = bar(total=total, unit="batch", dynamic_ncols=True, miniters=1)

    def epoch(self, epoch: int) -> None:
        """An epoch begins."""
        self._base = (epoch - self._done) * (self._batches or 0)
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)

    def chunk(self, batches: int, logs: Mapping[str, float]) -> None:
        """So many batches of the epoch are done."""
        if self._bar is not None:
            self._bar.set_postfix_str(_text({**logs, **self._validation}), refresh=False)
            at = self._base + batches if self._batches is not None else self._bar.n + 1
            self._bar.update(at - self._bar.n)

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """An epoch is over."""
        if self._bar is not None:
            self._validation = {name: value for name, value in logs.items() if name.startswith("val_")}
            self._bar.set_postfix_str(_text(logs), refresh=False)  # it is drawn when its time has come
        elif self._shown:
            spent = time.monotonic() - self._begin
            left = spent / (epoch + 1 - self._done) * (self._epochs - epoch - 1)
            self._unsaid = f"epoch {epoch + 1}/{self._epochs}  {_text(logs)}  {spent:.1f} s, {left:.1f} s left"
            if spent - self._said >= self._between:
                self._say()
                self._said = spent

    def close(self, early: bool = False) -> None:
        """The run is over; ``early`` if it ended as it should, before its last epoch."""
        if self._bar is not None:
            if early and self._bar.total is not None:
                self._bar.total = self._bar.n  # or a notebook's bar would turn red, as after an error
                for part in getattr(getattr(self._bar, "container", None), "children", ()):
                    if hasattr(part, "max"):
                        part.max = self._bar.n  # the widget has a total of its own
            self._bar.close()
        self._say()

    def _say(self) -> None:
        if self._unsaid is not None:
            print(self._unsaid, flush=True)
            self._unsaid = None


def _bar_class() -> Any:
    """A class of tqdm, None if that is not installed."""
    try:
        if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm
        else:
            from tqdm.std import tqdm  # tqdm.auto would warn in a notebook without ipywidgets
    except ImportError:
        return None
    return tqdm


def _in_notebook() -> bool:
    """Whether a kernel runs this that can show widgets; IPython is not imported for it."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if hasattr(ipython, "get_ipython") else None
    return "IPKernelApp" in getattr(shell, "config", ())


def _text(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
