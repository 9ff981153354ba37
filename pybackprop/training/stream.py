"""Training data that comes as an iterable of batches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .fitdata import Data

if TYPE_CHECKING:
    from .step import TrainStep


def is_stream(X: Any) -> bool:
    """Whether ``X`` is an iterable of batches rather than data: it is no array, list, tuple, dict or data frame."""
    return (
        isinstance(X, Iterable) and not isinstance(X, (list, tuple, dict, str, bytes)) and not hasattr(X, "__array__")
    )


def read_batch(item: Any, number: int) -> Data:
    """One batch, ``(X, y)``, ``(X, y, sample_weight)`` or ``(X,)``, checked.

    Raises:
        TypeError: it is no tuple of one to three.
        ValueError: what :meth:`Data.take` refuses.
    """
    if isinstance(item, list):
        item = tuple(item)
    if not isinstance(item, tuple) or not 1 <= len(item) <= 3:
        what = f"a tuple of {len(item)}" if isinstance(item, tuple) else type(item).__name__
        raise TypeError(f"batch {number} of the iterable must be (X, y) or (X, y, sample_weight), got {what}")
    try:
        return Data.take(*item)
    except (TypeError, ValueError) as error:
        raise type(error)(f"batch {number} of the iterable: {error}") from None


class StreamEpoch:
    """One pass over an iterable; the counterpart of ``EpochRun``.

    A batch is checked when it comes: a bad one ends the run before its step.
    """

    def __init__(
        self, step: TrainStep, iterable: Iterable[Any], position: int, before: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        self._step = step
        self._items = iter(iterable)
        self._results = list(before[0][:position]) if before else []
        self._rows = list(before[1][:position]) if before else []
        self.extras: tuple[str, ...] = ()
        self.finished = False
        for _ in range(position):
            next(self._items, None)

    @property
    def position(self) -> int:
        """Batches done."""
        return len(self._results)

    @property
    def results(self) -> np.ndarray:
        """(batches, outputs): loss and extras of the batches done."""
        return np.array(self._results, np.float64)

    @property
    def rows(self) -> np.ndarray:
        """Rows of the batches done."""
        return np.array(self._rows, np.float64)

    def advance(self, most: int | None, seconds: float) -> None:
        """Run up to ``most`` batches for about ``seconds``, then on to the end of an accumulation that has begun."""
        until, done = time.monotonic() + seconds, 0
        while not self.finished:
            item = next(self._items, self)
            if item is self:
                self.finished = True
                break
            data = read_batch(item, self.position)
            loss = self._step(*data.args)
            extras = self._step.extras
            self.extras = tuple(extras)
            self._results.append([loss, *extras.values()])
            self._rows.append(float(data.rows))
            done += 1
            waiting = self._step.stepper.micro > 0 and most is None
            if not waiting and ((most is not None and done >= most) or time.monotonic() >= until):
                break
        if self.finished and self.position and self._step.stepper.micro:
            self._step.update()
