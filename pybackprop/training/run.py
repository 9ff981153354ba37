"""One call of ``fit``: epochs, validation, callbacks, limits."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .callbacks import Callback, overrides
from .interrupt import Interruptible
from .progress import Progress

if TYPE_CHECKING:
    from .trainer import Trainer

_SECONDS = 0.05  # between two returns to Python


@dataclass
class Cut:
    """Where an epoch was left before its end: what a checkpoint needs to finish it exactly."""

    position: int  # batches done
    results: np.ndarray
    rows: np.ndarray


@dataclass
class Plan:
    """What ``fit`` settled before anything changes."""

    start: int  # epochs done when the run began
    target: int  # epochs done when it will be over
    batches: int | None  # in an epoch, None if unknown
    epoch: Callable[[int, Cut | None], Any]  # an EpochRun or StreamEpoch
    validate: Callable[[], dict[str, float]] | None
    close: Callable[[], None]
    time_limit: float | None
    began: float  # time.monotonic() when fit was called
    verbose: bool


class Run:
    """Carries out a :class:`Plan` on a Trainer."""

    def __init__(self, trainer: Trainer, plan: Plan, callbacks: list[Callback]) -> None:
        self._trainer, self._plan = trainer, plan
        self._callbacks = sorted(callbacks, key=lambda c: c.saves)  # stable: see Callback.saves
        self._each_batch = any(overrides(c, "on_train_batch_begin", "on_train_batch_end") for c in callbacks)
        self._interrupt = Interruptible()
        self._progress = Progress(plan.verbose, plan.target - plan.start, trainer.epoch - plan.start, plan.batches)
        self._validation_seconds = 0.0
        self._stopped: str | None = None
        self.active: Any = None  # the epoch in progress, for a checkpoint written within it

    def execute(self) -> None:
        """Train; whatever ends it early, the weights are those of the last finished update."""
        trainer, history = self._trainer, self._trainer.history
        with self._interrupt:
            try:
                self._call("on_train_begin", {})
                while trainer.epoch < self._plan.target and not self._stopped:
                    self._epoch()
                    self._stopped = self._stopped or self._reason()
            except KeyboardInterrupt:
                self._stopped = "interrupted"
            finally:
                self.active = None
                self._progress.close()
                self._plan.close()
            history.stopped = self._stopped
            self._call("on_train_end", {name: values[-1] for name, values in history.history.items() if values})
        if self._stopped == "interrupted":
            warnings.warn(
                "training was interrupted; the weights of the last finished batch are kept",
                RuntimeWarning,
                stacklevel=4,
            )

    def _reason(self) -> str | None:
        """Why the run should end now, if it should."""
        if self._interrupt.requested:
            return "interrupted"
        if self._trainer.stop_training:
            return "callback"
        if (
            self._deadline is not None
            and time.monotonic() >= self._deadline
            and self._trainer.epoch < self._plan.target
        ):
            return "time_limit"
        return None

    @property
    def _deadline(self) -> float | None:
        """When batches must end for the validation after them to fit into the limit."""
        limit = self._plan.time_limit
        return None if limit is None else self._plan.began + limit - self._validation_seconds

    def _epoch(self) -> None:
        trainer = self._trainer
        epoch = trainer.epoch
        self._call("on_epoch_begin", epoch, {})
        self._progress.epoch(epoch - self._plan.start)
        self.active = self._plan.epoch(epoch, trainer.cut)
        trainer.cut = None
        reason = self._reason()
        try:
            while not self.active.finished and reason is None:
                self._chunk()
                reason = self._reason()
        except KeyboardInterrupt:  # from a callback, or where another handler of Ctrl-C is installed
            reason = "interrupted"
        while reason and self.active.position and not self.active.finished and trainer.accumulating:
            self.active.advance(1, _SECONDS)  # a checkpoint is taken between updates
        run, self.active = self.active, None
        if reason and not run.position:
            self._stopped = reason
            return
        if run.finished or reason == "callback":
            logs = self._logs(run, validate=True)
            trainer.history.record(epoch, logs)
            trainer.epoch = epoch + 1
            trainer.optimizer.schedule.epoch_end(logs)
            self._progress.epoch_end(epoch - self._plan.start, logs)
            self._call("on_epoch_end", epoch, logs)
            return
        # Cut short: recorded for the reader, not an epoch for callbacks and schedules, which a resume will bring to its
        # end.
        self._stopped = reason
        trainer.cut = Cut(run.position, run.results.copy(), run.rows.copy())
        trainer.history.record(epoch, self._logs(run, validate=reason == "time_limit"))

    def _chunk(self) -> None:
        run = self.active
        if self._each_batch:
            self._call("on_train_batch_begin", run.position, {})
            before = run.position
            run.advance(1, _SECONDS)
            if run.position == before:  # an iterable has ended
                return
            logs = self._trainer.logs(run.extras, run.results, run.rows)
            self._call("on_train_batch_end", run.position - 1, logs)
        else:
            left = _SECONDS if self._deadline is None else self._deadline - time.monotonic()
            run.advance(None, min(_SECONDS, max(left, 0.0)))
            if not run.position:
                return
            logs = self._trainer.logs(run.extras, run.results, run.rows)
        self._call("on_train_chunk_end", run.position, logs)
        self._progress.chunk(run.position, logs)

    def _logs(self, run: Any, validate: bool) -> dict[str, float]:
        if not run.position:
            raise ValueError("the iterable gave no batch")
        logs = dict(self._trainer.logs(run.extras, run.results, run.rows))
        if validate and self._plan.validate is not None:
            begin = time.monotonic()
            logs.update({f"val_{name}": value for name, value in self._plan.validate().items()})
            self._validation_seconds = time.monotonic() - begin
        return logs

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, hook)(*args)
