"""Learning-rate schedules: functions of the step, evaluated a block at a time for the C++ loop. Public in `optim`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from ._form import COUNT, FLOAT, Maybe, fault


def checked_number(
    where: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """``value`` as a float in [low, high] (an open end excludes its bound); TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{where} must be a number, got {type(value).__name__} {value!r}.")
    number = float(value)
    inside = (number > low if open_low else number >= low) and (number < high if open_high else number <= high)
    if not inside:
        if high == math.inf:
            bound = f"above {low:g}" if open_low else f"{low:g} or more"
        else:
            bound = f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{where} must be {bound}, got {value!r}.")
    return number


def checked_count(where: str, value: Any, low: int = 1) -> int:
    """``value`` as an int of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where} must be an integer, got {type(value).__name__} {value!r}.")
    if value < low:
        raise ValueError(f"{where} must be {low} or more, got {value!r}.")
    return int(value)


def checked_choice(where: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{where} must be {' or '.join(map(repr, choices))}, got {value!r}.")
    return str(value)


class Schedule:
    """A learning rate that follows the step.

    Pass one as ``lr`` to an optimizer: ``optim.SGD(lr=optim.CosineLR(0.1))``. Steps are optimizer updates counted
    from 0. ``Trainer.fit`` tells a schedule how long the run is (`bind`); with `TrainStep`, give lengths yourself.

    Subclasses write ``_at(t)``: learning rates for an array of times ``t``, in steps or in epochs as ``self.by`` says.

    >>> class Inverse(Schedule):
    ...     def _at(self, t):
    ...         return 1.0 / (1.0 + t)
    >>> Inverse().values(0, 3).round(3)
    array([1.   , 0.5  , 0.333])
    """

    by: str = "step"
    _fields: tuple[str, ...] = ()
    _steps_per_epoch: int | None = None
    _total_steps: int | None = None

    def bind(self, steps_per_epoch: int | None, total_steps: int | None) -> Schedule:
        """Tell the schedule the run's length: updates in an epoch and in all (None: unknown). Returns self.

        A length given at construction wins over ``total_steps``.
        """
        self._steps_per_epoch = None if steps_per_epoch is None else checked_count("steps_per_epoch", steps_per_epoch)
        self._total_steps = None if total_steps is None else checked_count("total_steps", total_steps, 0)
        return self

    def values(self, first: int, count: int) -> np.ndarray:
        """Learning rates of the updates ``first`` … ``first + count - 1``, float64 of shape (count,)."""
        steps = np.arange(first, first + count, dtype=np.int64)
        if self.by == "epoch":
            if self._steps_per_epoch is None:
                raise ValueError(
                    f"{type(self).__name__} counts epochs, but the number of steps in an epoch is unknown: "
                    "use it through Trainer.fit, call bind(steps_per_epoch, total_steps), or give by='step'."
                )
            steps //= self._steps_per_epoch
        return np.ascontiguousarray(self._at(steps), dtype=np.float64)

    def __call__(self, step: int) -> float:
        """The learning rate of one update, counted from 0."""
        return float(self.values(step, 1)[0])

    def epoch_end(self, logs: Mapping[str, float]) -> None:
        """Called by ``Trainer.fit`` after each epoch (validation included) with that epoch's metrics."""

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs besides the step: empty for all but `ReduceLROnPlateau`. JSON types only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        wanted, got = sorted(self.state_dict()), sorted(state)
        if wanted != got:
            raise ValueError(f"{type(self).__name__} keeps the state {wanted}, but the given state holds {got}.")
        for name, value in state.items():
            setattr(self, name, value)

    def _at(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define _at(t).")

    def _length(self, given: int | None) -> int:
        """A run's length in units of ``self.by``: the one given at construction, or the bound one."""
        if given is not None:
            return given
        if self._total_steps is None:
            raise ValueError(
                f"{type(self).__name__} needs the length of the run: give it at construction, "
                "or use the schedule through Trainer.fit."
            )
        if self.by == "epoch" and self._steps_per_epoch is not None:
            return -(-self._total_steps // self._steps_per_epoch)
        return self._total_steps

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"


def as_schedule(lr: float | Schedule) -> Schedule:
    """A number becomes a `Constant`."""
    return lr if isinstance(lr, Schedule) else Constant(lr)


class Constant(Schedule):
    """The same learning rate at every step: what a plain number means.

    >>> Constant(0.1).values(0, 3)
    array([0.1, 0.1, 0.1])
    """

    _fields = ("lr",)

    def __init__(self, lr: float) -> None:
        self.lr = checked_number("lr", lr, 0)

    def _at(self, t: np.ndarray) -> np.ndarray:
        return np.full(t.shape, self.lr)


class StepLR(Schedule):
    """``lr * gamma ** (t // step_size)``, as ``torch.optim.lr_scheduler.StepLR``.

    ``t`` counts updates, or finished epochs with ``by="epoch"``.

    >>> StepLR(1.0, step_size=2, gamma=0.5).values(0, 5)
    array([1.  , 1.  , 0.5 , 0.5 , 0.25])
    """

    _fields = ("lr", "step_size", "gamma", "by")

    def __init__(self, lr: float, step_size: int, gamma: float = 0.1, *, by: str = "step") -> None:
        self.lr = checked_number("lr", lr, 0)
        self.step_size = checked_count("step_size", step_size)
        self.gamma = checked_number("gamma", gamma, 0)
        self.by = checked_choice("by", by, ("step", "epoch"))

    def _at(self, t: np.ndarray) -> np.ndarray:
        return self.lr * self.gamma ** (t // self.step_size).astype(np.float64)


class ExponentialLR(Schedule):
    """``lr * gamma ** t``, as ``torch.optim.lr_scheduler.ExponentialLR``.

    ``t`` counts updates, or finished epochs with ``by="epoch"``.

    >>> ExponentialLR(1.0, gamma=0.5).values(0, 3)
    array([1.  , 0.5 , 0.25])
    """

    _fields = ("lr", "gamma", "by")

    def __init__(self, lr: float, gamma: float, *, by: str = "step") -> None:
        self.lr = checked_number("lr", lr, 0)
        self.gamma = checked_number("gamma", gamma, 0)
        self.by = checked_choice("by", by, ("step", "epoch"))

    def _at(self, t: np.ndarray) -> np.ndarray:
        return self.lr * self.gamma ** t.astype(np.float64)


class CosineLR(Schedule):
    """``min_lr + (lr - min_lr) * (1 + cos(pi * t / total)) / 2``, then ``min_lr``.

    Loshchilov and Hutter 2017 (arXiv 1608.03983) without restarts. ``total`` is PyTorch's ``T_max``; None: the whole
    run, as ``Trainer.fit`` knows it. ``t`` and ``total`` count updates, or epochs with ``by="epoch"``.

    >>> CosineLR(1.0, total=4).values(0, 5).round(3)
    array([1.   , 0.854, 0.5  , 0.146, 0.   ])
    """

    _fields = ("lr", "total", "min_lr", "by")

    def __init__(self, lr: float, total: int | None = None, min_lr: float = 0.0, *, by: str = "step") -> None:
        self.lr = checked_number("lr", lr, 0)
        self.total = None if total is None else checked_count("total", total)
        self.min_lr = checked_number("min_lr", min_lr, 0, self.lr)
        self.by = checked_choice("by", by, ("step", "epoch"))

    def _at(self, t: np.ndarray) -> np.ndarray:
        done = np.minimum(t / max(self._length(self.total), 1), 1.0)
        return self.min_lr + (self.lr - self.min_lr) * (1.0 + np.cos(np.pi * done)) / 2.0


class OneCycle(Schedule):
    """Up from ``max_lr / div_factor`` to ``max_lr`` and down to ``max_lr / div_factor / final_div_factor``: Smith 2018.

    The formulas of ``torch.optim.lr_scheduler.OneCycleLR`` with ``cycle_momentum=False``: the rise takes the share
    ``pct_start`` of ``total_steps``; with ``three_phase`` an equally long descent to the first value follows, then the
    final fall. ``total_steps=None`` means the whole run, as ``Trainer.fit`` knows it; after it the last value stays.

    >>> OneCycle(1.0, total_steps=5, pct_start=0.4).values(0, 5).round(3)
    array([0.04, 1.  , 0.75, 0.25, 0.  ])
    """

    _fields = ("max_lr", "total_steps", "pct_start", "anneal_strategy", "div_factor", "final_div_factor", "three_phase")

    def __init__(
        self,
        max_lr: float,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        self.max_lr = checked_number("max_lr", max_lr, 0)
        self.total_steps = None if total_steps is None else checked_count("total_steps", total_steps)
        self.pct_start = checked_number("pct_start", pct_start, 0, 1)
        self.anneal_strategy = checked_choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.div_factor = checked_number("div_factor", div_factor, 0, open_low=True)
        self.final_div_factor = checked_number("final_div_factor", final_div_factor, 0, open_low=True)
        self.three_phase = bool(three_phase)

    def _at(self, t: np.ndarray) -> np.ndarray:
        total = self._length(self.total_steps)
        low = self.max_lr / self.div_factor
        rise = self.pct_start * total
        phases = [(rise - 1, low, self.max_lr)]  # last step, lr before, lr at the last step
        if self.three_phase:
            phases.append((2 * rise - 2, self.max_lr, low))
        phases.append((total - 1, phases[-1][2], low / self.final_div_factor))

        t = np.minimum(t, total - 1).astype(np.float64)
        lr = np.empty(t.shape)
        todo = np.ones(t.shape, dtype=bool)
        begin = 0.0
        for i, (end, before, after) in enumerate(phases):
            here = todo & ((t <= end) | (i == len(phases) - 1))
            part = (t[here] - begin) / (end - begin) if end != begin else np.ones(int(here.sum()))
            if self.anneal_strategy == "cos":
                lr[here] = after + (before - after) / 2.0 * (np.cos(np.pi * part) + 1.0)
            else:
                lr[here] = (after - before) * part + before
            todo &= ~here
            begin = end
        return lr


class Warmup(Schedule):
    """A linear rise over ``steps`` updates in front of another schedule.

    ``after(0) * (start_factor + (1 - start_factor) * t / steps)`` for ``t < steps``, then ``after(t - steps)``:
    PyTorch's ``SequentialLR([LinearLR(start_factor, total_iters=steps), after], milestones=[steps])``. Where ``after``
    takes its length from the run, the rise is counted off.

    >>> Warmup(1.0, steps=4, start_factor=0.2).values(0, 5)
    array([0.2, 0.4, 0.6, 0.8, 1. ])
    """

    _fields = ("after", "steps", "start_factor")

    def __init__(self, after: float | Schedule, steps: int, start_factor: float = 1.0 / 3.0) -> None:
        self.after = as_schedule(after)
        self.steps = checked_count("steps", steps, 0)
        self.start_factor = checked_number("start_factor", start_factor, 0, 1)

    def bind(self, steps_per_epoch: int | None, total_steps: int | None) -> Schedule:
        rest = None if total_steps is None else max(total_steps - self.steps, 0)
        self.after.bind(steps_per_epoch, rest)
        return super().bind(steps_per_epoch, total_steps)

    def values(self, first: int, count: int) -> np.ndarray:
        rising = min(max(self.steps - first, 0), count)
        t = np.arange(first, first + rising)
        start = self.after(0) if rising else 0.0
        rise = start * (self.start_factor + (1.0 - self.start_factor) * t / max(self.steps, 1))
        return np.concatenate([rise, self.after.values(first + rising - self.steps, count - rising)])

    def epoch_end(self, logs: Mapping[str, float]) -> None:
        self.after.epoch_end(logs)

    def state_dict(self) -> dict[str, Any]:
        return self.after.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.after.load_state_dict(state)


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by ``factor`` when a metric has not improved for more than ``patience`` epochs.

    The rules of ``torch.optim.lr_scheduler.ReduceLROnPlateau``: an epoch improves if the metric is below
    ``best * (1 - threshold)`` (``threshold_mode="rel"``) or ``best - threshold`` (``"abs"``), above with
    ``mode="max"``; after a reduction the next ``cooldown`` epochs do not count as bad; steps smaller than ``eps`` are
    not taken. ``Trainer.fit`` feeds the metric ``monitor`` after each epoch (None: ``"val_loss"`` if there is
    validation data, else ``"loss"``); with `TrainStep`, call ``step(metric)`` yourself.

    >>> schedule = ReduceLROnPlateau(1.0, factor=0.5, patience=1)
    >>> for loss in [3.0, 3.0, 3.0]:
    ...     schedule.step(loss)
    >>> schedule.current_lr
    0.5
    """

    _fields = (
        "lr", "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps", "monitor",
    )  # fmt: skip

    def __init__(
        self,
        lr: float,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        monitor: str | None = None,
    ) -> None:
        self.lr = checked_number("lr", lr, 0)
        self.mode = checked_choice("mode", mode, ("min", "max"))
        self.factor = checked_number("factor", factor, 0, 1, open_high=True)
        self.patience = checked_count("patience", patience, 0)
        self.threshold = checked_number("threshold", threshold, 0)
        self.threshold_mode = checked_choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = checked_count("cooldown", cooldown, 0)
        self.min_lr = checked_number("min_lr", min_lr, 0)
        self.eps = checked_number("eps", eps, 0)
        self.monitor = monitor
        self.current_lr = self.lr
        self.best: float | None = None
        self.bad_epochs = 0
        self.cooldown_left = 0

    def step(self, metric: float) -> None:
        """Judge one epoch by its metric. NaN counts as no improvement."""
        metric = float(metric)
        self.bad_epochs += 1
        if self._improves(metric):
            self.best, self.bad_epochs = metric, 0
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            lower = max(self.current_lr * self.factor, self.min_lr)
            if self.current_lr - lower > self.eps:
                self.current_lr = lower
            self.cooldown_left = self.cooldown
            self.bad_epochs = 0

    def epoch_end(self, logs: Mapping[str, float]) -> None:
        name = self.monitor if self.monitor is not None else "val_loss" if "val_loss" in logs else "loss"
        if name not in logs:
            raise ValueError(f"ReduceLROnPlateau monitors {name!r}, but the epoch's metrics are {sorted(logs)}.")
        self.step(logs[name])

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("current_lr", "best", "bad_epochs", "cooldown_left")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        form = {"current_lr": FLOAT, "best": Maybe(FLOAT), "bad_epochs": COUNT, "cooldown_left": COUNT}
        wrong = fault(dict(state), form, "its state")
        if wrong:
            raise ValueError(f"ReduceLROnPlateau cannot take over what it is given: {wrong}.")
        super().load_state_dict(state)

    def _improves(self, metric: float) -> bool:
        if self.best is None:
            return math.isfinite(metric)
        sign = 1.0 if self.mode == "max" else -1.0
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        return metric > self.best + margin if sign > 0 else metric < self.best - margin

    def _at(self, t: np.ndarray) -> np.ndarray:
        return np.full(t.shape, self.current_lr)
