"""Training data that comes as an iterable of batches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..data.arrays import NonFiniteData
from .fitdata import Data
from .loop import Position
from .nonfinite import NonFiniteError, explain, not_finite_data

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


class StreamEpoch(Position):
    """One pass over an iterable; the counterpart of ``EpochRun``.

    A batch is checked when it comes: a bad one ends the run before its step. With ``refuse`` one that holds NaN or
    infinity is refused instead, as one whose loss is not finite.
    """

    def __init__(
        self,
        step: TrainStep,
        iterable: Iterable[Any],
        position: int,
        before: tuple[np.ndarray, np.ndarray] | None,
        refuse: bool = False,
    ) -> None:
        super().__init__(step, position)
        self._refuse = refuse
        self._items = iter(iterable)
        self._results = list(before[0][:position]) if before else []
        self._rows = list(before[1][:position]) if before else []
        self._refused: Data | NonFiniteData | None = None
        self.extras: tuple[str, ...] = ()
        self.finished = False
        for _ in range(position):
            next(self._items, None)

    @property
    def results(self) -> np.ndarray:
        width = 1 + len(self.extras)
        rows = [row if len(row) == width else np.full(width, np.nan) for row in self._results[: self.position]]
        return np.array(rows, np.float64).reshape(len(rows), width)

    @property
    def rows(self) -> np.ndarray:
        return np.array(self._rows[: self.position], np.float64)

    def advance(self, most: int | None, seconds: float) -> None:
        """Run up to ``most`` batches for about ``seconds``, then on to the end of an accumulation that has begun.

        Ends at a batch that is refused.
        """
        until, done = time.monotonic() + seconds, 0
        while not self.finished and self.refusal is None:
            item = next(self._items, self)
            if item is self:
                self.finished = True
                break
            try:
                self._take(read_batch(item, self.position))
            except NonFiniteData as error:
                if not self._refuse:
                    raise
                self._keep([np.nan], 0)
                self._refused = error
                self._note(1, ("loss", float("nan"), 1, 0, 0, 0))
            done += 1
            waiting = self._step.stepper.micro > 0 and most is None
            if not waiting and ((most is not None and done >= most) or time.monotonic() >= until):
                break
        self._settle_at_end()

    def explain(self, epoch: int) -> NonFiniteError:
        assert self.refusal is not None
        if isinstance(self._refused, NonFiniteData):
            return not_finite_data(self._refused, epoch, self._after - 1)
        args, names = (self._refused.args, self._refused.names) if self._refused else (None, ())
        batch = self._after - 1
        return explain(self._step, self.refusal, args, names=names, epoch=epoch, batch=batch)

    def _take(self, data: Data) -> None:
        before = self._step.seen
        refused = None
        self._refused = None
        try:
            self._step.once(data.args)
        except _core.Refused as error:
            self._refused, refused = data, error.args[1]
        finally:  # as in EpochRun
            if self._step.seen > before:
                self._keep([np.nan] if refused else [float(v) for v in self._step.stepper.outputs()], data.rows)
                if not refused:
                    self.extras = self._step.extra_names
                self._note(1, refused)

    def _keep(self, outputs: list[float], rows: int) -> None:
        del self._results[self.position :], self._rows[self.position :]
        self._results.append(outputs)
        self._rows.append(float(rows))

    def _leave_out(self, end: int) -> None:
        for i in range(self.position, end):
            self._results[i] = [np.nan] * len(self._results[i])

    def _at_end(self) -> bool:
        return self.finished and self.position > 0
