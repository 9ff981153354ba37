"""Learning rates for the coming updates, as the optimizer's number or schedule gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..optim import Optimizer

_AHEAD = 64  # updates for which a schedule is asked at once by single steps


class Rates:
    """Reads ``optimizer.lr``: a number anew at every update, a schedule as a table of the next updates.

    A schedule that keeps state (ReduceLROnPlateau) may change at any time, so it is asked at every update.

    Attributes:
        factor: what a schedule's numbers are multiplied by; see :meth:`halve`.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._table: np.ndarray | None = None
        self._first = 0
        self._version = -1
        self.factor = 1.0

    def at(self, step: int) -> float:
        """The learning rate of update ``step``, counted from 0."""
        lr = self._optimizer.lr
        if isinstance(lr, float):
            return lr
        if lr.state_dict():
            return lr(step) * self.factor
        offset = step - self._first
        if self._table is None or self._version != self._optimizer.version or not 0 <= offset < _AHEAD:
            self._table, self._first, self._version = lr.values(step, _AHEAD), step, self._optimizer.version
            offset = 0
        return float(self._table[offset]) * self.factor

    def halve(self, times: int) -> None:
        """Halve the learning rate so many times: a number in the optimizer itself, a schedule by ``factor``."""
        by = 0.5**times
        if isinstance(self._optimizer.lr, float):
            self._optimizer.lr *= by
        else:
            self.factor *= by

    def forget(self) -> None:
        """Ask the schedule again: the length of the run has become known, or its state was replaced."""
        self._table = None

    def batches(self, step: int, micro: int, count: int, accumulate: int) -> np.ndarray:
        """One learning rate for each of the next ``count`` batches: that of the update it takes part in.

        Args:
            step: updates done.
            micro: batches already in the accumulation that has begun.
            count: batches.
            accumulate: batches an update.
        """
        update = (micro + np.arange(count)) // accumulate
        schedule = self._optimizer.schedule
        rates = schedule.values(step, int(update[-1]) + 1 if count else 0)[update]
        return np.ascontiguousarray(rates if isinstance(self._optimizer.lr, float) else rates * self.factor)
