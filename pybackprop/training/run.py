"""One call of ``fit``: epochs, validation, callbacks, limits."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .callback import Callback, overrides
from .interrupt import Interruptible, Terminated
from .nonfinite import NonFiniteError, finite_model
from .progress import Progress

if TYPE_CHECKING:
    from .trainer import Trainer

_SECONDS = 0.05  # between two returns to Python
_RESTORES = 5  # without an epoch finished in between: then going back does not help


@dataclass
class Cut:
    """Where an epoch was left before its end: what a checkpoint needs to finish it exactly."""

    position: int  # batches done
    results: np.ndarray
    rows: np.ndarray


@dataclass
class Good:
    """A state of the trainer to go back to: all parameters were finite."""

    epoch: int
    cut: Cut | None
    weights: dict[str, Any]
    optimizer: dict[str, Any]


@dataclass
class Plan:
    """What ``fit`` settled before anything changes."""

    start: int  # epochs done when the run began
    target: int  # epochs done when it will be over
    batches: int | None  # in an epoch, None if unknown
    epoch: Callable[[int, Cut | None], Any]  # an EpochRun or StreamEpoch
    validate: Callable[[Callable[[], None]], dict[str, float]] | None  # calls its argument now and then
    close: Callable[[], None]
    on_nonfinite: str  # "raise", "skip" or "restore"
    time_limit: float | None
    began: float  # time.monotonic() when fit was called
    verbose: int


class Run:
    """Carries out a :class:`Plan` on a Trainer."""

    def __init__(self, trainer: Trainer, plan: Plan, callbacks: list[Callback], interrupt: Interruptible) -> None:
        self._trainer, self._plan = trainer, plan
        self._callbacks = sorted(callbacks, key=lambda c: c.saves)  # stable: see Callback.saves
        self._each_batch = any(overrides(c, "on_train_batch_begin", "on_train_batch_end") for c in callbacks)
        self._interrupt = interrupt
        self._progress = Progress(plan.verbose, plan.target - plan.start, trainer.epoch - plan.start, plan.batches)
        self._validation_seconds = 0.0
        self._stopped: str | None = None
        self._good: Good | None = None
        self._restores = 0  # since an epoch was finished
        self.active: Any = None  # the epoch in progress, for a checkpoint written within it

    def execute(self) -> None:
        """Train; whatever ends it early, the weights are those of the last finished update.

        To be called within the block of ``interrupt``.
        """
        trainer, history = self._trainer, self._trainer.history
        try:
            self._call("on_train_begin", {})
            self._remember()
            if trainer.stop_training:
                self._stopped = "callback"
            while trainer.epoch < self._plan.target and not self._stopped:
                self._epoch()
                self._stopped = self._stopped or self._reason()
        except KeyboardInterrupt:
            self._stopped = "interrupted"
            self._leave()
        except BaseException:
            self._leave()
            raise
        finally:
            self.active = None
            self._progress.close(early=self._stopped in ("callback", "time_limit"))
            self._plan.close()
        history.stopped = self._stopped
        if self._stopped == "terminated":
            self._call("on_train_terminate")
        self._call("on_train_end", {name: values[-1] for name, values in history.history.items() if values})

    def report(self) -> None:
        """Says so if Ctrl-C ended the run."""
        if self._stopped == "interrupted":
            self._warn("training was interrupted; the weights of the last finished batch are kept")

    def _leave(self) -> None:
        """An exception has ended the epoch: a checkpoint written now goes on after the last finished update."""
        run = self.active
        if run is None:
            return
        self._trainer.forget_accumulation()
        if run.settled:
            self._trainer.cut = Cut(run.settled, run.results[: run.settled].copy(), run.rows[: run.settled].copy())

    def _reason(self) -> str | None:
        """Why the run should end now, if it should."""
        if self._interrupt.terminated:
            return "terminated"
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
            self._answer()
        epoch = trainer.epoch  # an earlier one, if the run went back to it
        run, self.active = self.active, None
        if reason and not run.position:
            self._stopped = reason
            return
        whole = run.finished or reason == "callback"
        try:
            logs = self._logs(run, validate=whole or reason == "time_limit")
        except Terminated:
            whole, reason = False, "terminated"
            logs = self._logs(run, validate=False)
        if whole:
            trainer.history.record(epoch, logs)
            trainer.epoch = epoch + 1
            trainer.optimizer.schedule.epoch_end(logs)
            self._progress.epoch_end(epoch - self._plan.start, logs)
            self._call("on_epoch_end", epoch, logs)
            self._remember()
            return
        # Cut short: recorded for the reader, not an epoch for callbacks and schedules, which a resume will bring to its
        # end.
        self._stopped = reason
        trainer.cut = Cut(run.position, run.results.copy(), run.rows.copy())
        trainer.history.record(epoch, logs)

    def _chunk(self) -> None:
        run = self.active
        if self._each_batch:
            self._call("on_train_batch_begin", run.position, {})
            before = run.position
            run.advance(1, _SECONDS)
            if self._answer() or run.position == before:  # an iterable has ended
                return
            logs = self._training_logs(run)
            self._call("on_train_batch_end", run.position - 1, logs)
        else:
            left = _SECONDS if self._deadline is None else self._deadline - time.monotonic()
            run.advance(None, min(_SECONDS, max(left, 0.0)))
            if self._answer() or not run.position:
                return
            logs = self._training_logs(run)
        self._call("on_train_chunk_end", run.position, logs)
        self._progress.chunk(run.position, logs)

    def _logs(self, run: Any, validate: bool) -> dict[str, float]:
        if not run.position:
            raise ValueError("the iterable gave no batch")
        logs = dict(self._training_logs(run))
        if validate and self._plan.validate is not None:
            begin = time.monotonic()
            values = self._plan.validate(self._interrupt.check)
            logs.update({f"val_{name}": value for name, value in values.items()})
            self._validation_seconds = time.monotonic() - begin
        return logs

    def _training_logs(self, run: Any) -> dict[str, float]:
        results, rows = run.applied()
        return self._trainer.logs(run.extras, results, rows) if len(rows) else {"loss": float("nan")}

    def _remember(self) -> None:
        """Where ``on_nonfinite="restore"`` goes back to, if the parameters are finite."""
        self._restores = 0
        trainer = self._trainer
        if self._plan.on_nonfinite == "restore" and finite_model(trainer.model):
            self._good = Good(trainer.epoch, trainer.cut, *trainer.weights_and_optimizer())

    def _answer(self) -> bool:
        """What follows if the last batch was refused; true if the present chunk ends with it."""
        while self.active.refusal is not None:
            trainer, history, policy = self._trainer, self._trainer.history, self._plan.on_nonfinite
            error = None
            if any(overrides(c, "on_train_nonfinite") for c in self._callbacks):
                error = self.active.explain(trainer.epoch)
                self._call("on_train_nonfinite", error)
                if trainer.stop_training:
                    self.active.refusal = None
                    trainer.forget_accumulation()
                    return True
            if policy == "skip" and finite_model(trainer.model):
                count = self.active.refusal[2]
                if not history.skipped:
                    self._warn(
                        f"{error or self.active.explain(trainer.epoch)}; on_nonfinite='skip' leaves such batches out"
                    )
                history.skipped += count
                self.active.skip()
                continue
            if policy == "restore" and self._good is not None and self._restores < _RESTORES:
                self._restore(error or self.active.explain(trainer.epoch))
                return True
            raise error or self.active.explain(trainer.epoch)
        return False

    def _restore(self, error: NonFiniteError) -> None:
        trainer, good = self._trainer, self._good
        assert good is not None
        self._restores += 1
        trainer.go_back(good.weights, good.optimizer, self._restores)
        trainer.history.restored += 1
        while trainer.history.epoch and trainer.history.epoch[-1] >= good.epoch:
            trainer.history.drop_last()
        trainer.epoch = good.epoch
        self._warn(
            f"{error}; on_nonfinite='restore' went back to the weights and optimizer state with which epoch "
            f"{good.epoch} began, with {0.5**self._restores:g} of its learning rate"
        )
        self.active = self._plan.epoch(good.epoch, good.cut)

    def _warn(self, message: str) -> None:
        depth = 2  # points at whoever called the library
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pybackprop."):
            depth, frame = depth + 1, frame.f_back
        warnings.warn(message, RuntimeWarning, stacklevel=depth)

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, hook)(*args)
