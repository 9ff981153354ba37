"""Running an epoch: many batches a call into C++, or one where a callback wants to see each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..data import PREFETCH_BYTES, ArrayFeeder, PrefetchFeeder
from .nonfinite import NonFiniteError, explain

if TYPE_CHECKING:
    from .fitdata import Data
    from .step import Compiled, TrainStep

_MOST = 1 << 16  # batches of one call: bounds the table of learning rates


def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The shuffled row numbers of an epoch; depends on nothing but its arguments."""
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    return np.random.Generator(bits).permutation(rows)


class Batches:
    """The batches of an in-memory data set: ``full`` of ``batch_rows`` rows, then one of ``tail`` rows if any are left.

    Args:
        batch_rows: rows a batch, at most as many as there are.
        keep: the only rows to take; None for all.
        compile: gives the training program for a number of rows.
    """

    def __init__(
        self,
        data: Data,
        kinds: tuple[bool, ...],
        batch_rows: int,
        dtype: str,
        keep: np.ndarray | None,
        compile: Callable[[int], Compiled],
    ) -> None:
        self._data, self._kinds, self._keep = data, kinds, keep
        self.names = data.names
        self.rows = data.rows if keep is None else len(keep)
        self.batch_rows = batch_rows
        self.full, self.tail = divmod(self.rows, batch_rows)
        self.count = self.full + (self.tail > 0)
        self.sizes = np.full(self.count, self.batch_rows, np.float64)  # rows of each batch
        if self.tail:
            self.sizes[-1] = self.tail
        self._compile = compile
        self._inner = ArrayFeeder(data.arrays, ["int64" if integer else dtype for integer in kinds])
        self.feeder: Any = self._inner
        width = sum(a.nbytes // max(len(a), 1) for a in data.arrays)
        if any(isinstance(a, np.memmap) for a in data.arrays) and width * self.batch_rows >= PREFETCH_BYTES:
            self.feeder = PrefetchFeeder(self._inner)
        self.capsule = self.feeder.capsule()

    def set_order(self, order: np.ndarray | None) -> None:
        """The order of the rows taken; None for their own."""
        self.feeder.set_order(order if self._keep is None else self._keep if order is None else self._keep[order])

    def compiled(self, position: int) -> Compiled:
        """The program of the batch at this position; made again if a callback changed the model."""
        return self._compile(self.batch_rows if position < self.full else self.tail)

    def take(self, position: int) -> tuple[list[np.ndarray], tuple[Any, ...]]:
        """The arrays of the batch at this position as a run sees them, and their Specs."""
        rows = self.batch_rows if position < self.full else self.tail
        return self._inner.take(position * self.batch_rows, rows), self._data.specs(rows, self._kinds)

    def close(self) -> None:
        """Ends the thread that reads ahead, if there is one."""
        if self.feeder is not self._inner:
            self.feeder.close()


class Position:
    """Where an epoch in progress is; the common half of ``EpochRun`` and ``StreamEpoch``.

    A batch that the stepper refuses is not among those done: the epoch stands before it until it is told to skip it.

    Attributes:
        position: batches done. Those skipped are among them, and their loss is NaN.
        settled: of these, the batches that no begun accumulation holds.
        refusal: what the stepper said of the batch at ``position``, if it was refused.
        extras: names of the outputs after the loss.
    """

    position: int
    settled: int
    refusal: tuple[str, float, int, int, int, int] | None = None
    extras: tuple[str, ...]

    def __init__(self, step: TrainStep, position: int) -> None:
        self._step = step
        self.position = self.settled = self._after = position

    @property
    def results(self) -> np.ndarray:
        """(batches, outputs): loss and extras of the batches done."""
        raise NotImplementedError

    @property
    def rows(self) -> np.ndarray:
        """Rows of the batches done."""
        raise NotImplementedError

    def applied(self) -> tuple[np.ndarray, np.ndarray]:
        """``results`` and ``rows`` without the batches that were skipped."""
        results, rows = self.results, self.rows
        kept = np.isfinite(results[:, 0])
        return (results, rows) if kept.all() else (results[kept], rows[kept])

    def skip(self) -> None:
        """Leave out what was refused."""
        self.refusal = None
        self._leave_out(self._after)
        self.position = self._after
        if not self._step.stepper.micro:
            self.settled = self.position
        self._settle_at_end()

    def explain(self, epoch: int) -> NonFiniteError:
        """Why the batch was refused."""
        raise NotImplementedError

    def _leave_out(self, end: int) -> None:
        raise NotImplementedError

    def _at_end(self) -> bool:
        raise NotImplementedError

    def _note(self, done: int, refusal: tuple[str, float, int, int, int, int] | None) -> None:
        """After ``done`` more batches, the last of which may have been refused."""
        self.position += done
        pending = self._step.stepper.micro + (refusal[2] if refusal is not None else 0)
        if pending <= done:  # else they began before this call
            self.settled = self.position - pending
        if refusal is not None:
            self.refusal, self._after = refusal, self.position
            self.position = self.position - 1 if refusal[0] == "loss" else self.settled

    def _settle_at_end(self) -> None:
        """The update of a last accumulation that has not become full."""
        if self.refusal is not None or not self._at_end() or not self._step.stepper.micro:
            return
        try:
            self._step.settle()
        except _core.Refused as error:
            self._note(0, error.args[1])
        else:
            self.settled = self.position


class EpochRun(Position):
    """One epoch in progress."""

    def __init__(self, step: TrainStep, batches: Batches, position: int, results: np.ndarray | None) -> None:
        super().__init__(step, position)
        self._batches = batches
        self.extras = batches.compiled(0).extras
        self._results = np.zeros((batches.count, 1 + len(self.extras)))
        if results is not None:
            self._results[:position] = results[:position]

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        return self.position == self._batches.count

    @property
    def results(self) -> np.ndarray:
        return self._results[: self.position]

    @property
    def rows(self) -> np.ndarray:
        return self._batches.sizes[: self.position]

    def advance(self, most: int | None, seconds: float) -> None:
        """Run up to ``most`` batches for about ``seconds``, then on to the end of an accumulation that has begun.

        Ends at a batch that is refused.
        """
        compiled = self._batches.compiled(self.position)
        stepper = self._step.stepper
        end = self._batches.full if self.position < self._batches.full else self._batches.count
        count = min(end - self.position, most or _MOST)
        self._call(compiled, count, seconds)
        if most is None and self.position < end and stepper.micro and self.refusal is None:
            self._call(compiled, min(self._step.accumulate - stepper.micro, end - self.position), 1e9)
        self._settle_at_end()

    def explain(self, epoch: int) -> NonFiniteError:
        assert self.refusal is not None
        batch = self._after - 1
        inputs, specs = self._batches.take(batch)
        return explain(self._step, self.refusal, None, inputs, specs, self._batches.names, epoch, batch)

    def _leave_out(self, end: int) -> None:
        self._results[self.position : end] = np.nan

    def _at_end(self) -> bool:
        return self.finished

    def _call(self, compiled: Compiled, count: int, seconds: float) -> None:
        stepper, accumulate = self._step.stepper, self._step.accumulate
        rates = self._step.rates.batches(stepper.steps, stepper.micro, count, accumulate)
        full = self.position < self._batches.full
        before = stepper.seen
        try:
            stepper.run(
                compiled.program,
                self._batches.capsule,
                self.position * self._batches.batch_rows,
                self._batches.batch_rows if full else self._batches.tail,
                count,
                rates,
                seconds,
                self._results[self.position : self.position + count],
            )
        finally:  # also where a KeyboardInterrupt comes back from the call, its batches are done
            done = stepper.seen - before
            self._note(done, stepper.refusal if done else None)
            self._step.ran(compiled)
