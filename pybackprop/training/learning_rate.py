"""Callbacks that set the learning rate of an optimizer whose ``lr`` is a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._form import COUNT, FLOAT, Maybe
from .._schedules import ReduceLROnPlateau as Rule
from .._schedules import Schedule, checked_count
from .callback import Callback, Logs, Monitor, check_state


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch: ``optimizer.lr = schedule(epoch, lr)``.

    Schedules that follow the step are better given to the optimizer (``optim.CosineLR`` and others).

    Args:
        schedule: function of the epoch, from 0, and the present learning rate.

    Raises:
        TypeError: at the start of a run whose optimizer has a schedule already.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> halve = pb.callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
        >>> history = trainer.fit(*data, epochs=3, callbacks=[halve], verbose=0)
        >>> trainer.learning_rate
        0.025
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = schedule

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if isinstance(self.trainer.optimizer.lr, Schedule):
            raise TypeError(
                f"LearningRateScheduler needs a number as lr, but the optimizer's is {self.trainer.optimizer.lr!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer: Any = self.trainer.optimizer
        optimizer.lr = float(self.schedule(epoch, optimizer.lr))


class ReduceLROnPlateau(Monitor):
    """Multiplies ``optimizer.lr`` by ``factor`` when a metric has not improved for ``patience`` epochs.

    Arguments, defaults and timing are those of Keras's callback of that name: the reduction comes at the end of the
    ``patience``-th epoch in a row without improvement (patience 0 is as 1), and of a ``cooldown`` of c epochs the last
    one counts again. NaN is no improvement. The schedule ``optim.ReduceLROnPlateau`` has the names and the timing of
    PyTorch instead. As the callback changes a number, other callbacks and your own code may change ``optimizer.lr``
    too.

    A checkpoint holds its state and the learning rate: a resumed run has the same bits.

    Args:
        monitor: name of the metric. Default ``"val_loss"``.
        factor: of the reduction, in [0, 1). Default 0.1.
        patience: epochs without improvement that lead to one. Default 10.
        mode: ``"min"``, ``"max"`` or ``"auto"`` (max for accuracies and r2). Default ``"auto"``.
        min_delta: an improvement is larger than this. Default 1e-4.
        cooldown: epochs after a reduction before others are counted again. Default 0.
        min_lr: the rate is not lowered below it. Default 0.

    Attributes:
        best: best value seen, None at first. ``wait``: epochs since.
        reductions: of this run, ``(epoch, new rate)`` each; epochs count from 0.

    Raises:
        ValueError, TypeError: a bad argument; at the start of a run, a metric that it will not have.
        TypeError: at the start of a run whose optimizer has a schedule.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> plateau = pb.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2)
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight = [[1.0]]  # already right: the loss stays at 0
        >>> trainer = pb.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1), callbacks=[plateau])
        >>> history = trainer.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=4, verbose=0)
        >>> plateau.reductions
        [(2, 0.05)]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = factor
        self.patience = checked_count("patience", patience, 0)
        self.cooldown = checked_count("cooldown", cooldown, 0)
        self.min_lr = min_lr
        self._resumed = False
        self._rule = self._new_rule()
        self.reductions: list[tuple[int, float]] = []

    def _new_rule(self) -> Rule:
        # Keras reduces one epoch earlier than PyTorch does, and counts the last epoch of a cooldown again.
        return Rule(
            0.0,
            mode="min" if self._sign > 0 else "max",
            factor=self.factor,
            patience=max(self.patience - 1, 0),
            threshold=self.min_delta,
            threshold_mode="abs",
            cooldown=max(self.cooldown - 1, 0),
            min_lr=self.min_lr,
            eps=0.0,
        )

    @property
    def wait(self) -> int:
        """Epochs without improvement, since the last improvement or reduction."""
        return self._rule.bad_epochs

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        if isinstance(self.trainer.optimizer.lr, Schedule):
            raise TypeError(
                f"ReduceLROnPlateau needs a number as lr, but the optimizer's is {self.trainer.optimizer.lr!r}; "
                "a schedule of that kind is optim.ReduceLROnPlateau"
            )
        if not self._resumed:
            self._rule, self.best, self.reductions = self._new_rule(), None, []
        self._resumed = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer: Any = self.trainer.optimizer
        self._rule.current_lr = optimizer.lr
        self._rule.step((logs or {}).get(self.monitor, float("nan")))
        self.best = self._rule.best
        if self._rule.current_lr < optimizer.lr:
            optimizer.lr = self._rule.current_lr
            self.reductions.append((epoch, optimizer.lr))

    def state_dict(self) -> dict[str, Any]:
        rule = self._rule
        return {
            "best": rule.best,
            "bad_epochs": rule.bad_epochs,
            "cooldown_left": rule.cooldown_left,
            "reductions": [list(pair) for pair in self.reductions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        form = {"best": Maybe(FLOAT), "bad_epochs": COUNT, "cooldown_left": COUNT, "reductions": [[FLOAT]]}
        check_state(self, state, form)
        if any(len(pair) != 2 for pair in state["reductions"]):
            raise ValueError("ReduceLROnPlateau cannot take over what it is given: a reduction is (epoch, rate)")
        self._rule = self._new_rule()
        self._rule.best = self.best = state["best"]
        self._rule.bad_epochs, self._rule.cooldown_left = state["bad_epochs"], state["cooldown_left"]
        self.reductions = [(int(epoch), float(rate)) for epoch, rate in state["reductions"]]
        self._resumed = True
