"""Whole training runs: fit, evaluate, predict."""

from __future__ import annotations

import copy
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec

import numpy as np

from .._precision import check_precision
from ..data.arrays import split_last
from ..nn.module import Module
from ..optim import Optimizer
from . import checkpoint
from .callback import Callback, overrides
from .evaluate import BATCH_ROWS, Evaluator, call_model
from .fitdata import Data, resolve_kinds
from .history import History
from .interrupt import Interruptible
from .loop import Batches, EpochRun, epoch_order
from .metrics import as_metrics, weighted_mean
from .objective import model_dtype
from .profile import Profile, profile_steps
from .run import Cut, Plan, Run
from .step import TrainStep
from .stream import StreamEpoch, is_stream

_NOBODY = (0, 0)
_WEIGHT = "sum of weights"  # travels with the extras, never shown


_P = ParamSpec("_P")


def _one_at_a_time(fit: Callable[Concatenate[Trainer, _P], History]) -> Callable[Concatenate[Trainer, _P], History]:
    """Not within itself, and not in two threads at once."""

    @functools.wraps(fit)
    def claimed(self: Trainer, *args: _P.args, **kwargs: _P.kwargs) -> History:
        me = _who()
        while self.__dict__.setdefault("_fitting", me) is not me:  # atomic: two threads may come here at once
            self._refuse_within_fit("fit")
        try:
            return fit(self, *args, **kwargs)
        finally:
            self.__dict__.pop("_fitting", None)

    return claimed


class Trainer:
    """Trains a model on data, and uses it.

    Args:
        model: the Module to train.
        loss: a loss such as ``nn.CrossEntropyLoss()``, or a function ``loss(pred, target)`` on Tensors that gives a
            scalar.
        objective: instead of ``loss``: ``objective(model, X, y)`` on Tensors gives a scalar, or ``(scalar, {"name":
            scalar})`` whose extras go to the History; ``objective(model, X)`` if ``fit`` gets no y, and a last argument
            ``w`` if there are weights. X is a tuple or dict of Tensors if the data is one.
        optimizer: for example ``optim.AdamW(lr=1e-3)``.
        metrics: names (``"accuracy"``, ``"top_k_accuracy"``, ``"top3"``, ``"mae"``, ``"mse"``, ``"r2"``), functions
            ``f(pred, target)`` that give a batch's mean as a scalar Tensor, or ``pb.Metric``. They are computed in the
            same pass as the loss, and not weighted.
        seed: of shuffling and dropout; never touches weights. Default 0.
        dtype: ``"float32"`` or ``"float64"``: converts the model. Default None: the model's own.
        precision: ``"bf16"`` multiplies matrices in bfloat16 in ``fit``, ``evaluate`` and ``predict``, as in
            :class:`TrainStep`; ``model(x)`` does not. Default ``"float32"``: the model's own dtype.
        callbacks: take part in every ``fit``.
        clip_norm, clip_value, accumulate, threads: as in :class:`TrainStep`.

    Attributes:
        model, optimizer, metrics, seed, precision: as given.
        history: :class:`History` of the last ``fit``.
        epoch: epochs trained.
        stop_training: set by a callback to end the run.

    Raises:
        ValueError: neither or both of ``loss`` and ``objective``, an unknown metric, a bad number; ``precision="bf16"``
            for a float64 model or without the CPU feature avx512_bf16.
        TypeError: something is of the wrong type.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32); y = np.array([0, 1, 1, 0])
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.05), metrics=["accuracy"])
        >>> history = trainer.fit(X, y, epochs=200, verbose=0)
        >>> trainer.evaluate(X, y)["accuracy"]
        1.0
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Any] | None = None,
        *,
        objective: Callable[..., Any] | None = None,
        optimizer: Optimizer,
        metrics: Iterable[Any] = (),
        seed: int = 0,
        dtype: str | None = None,
        precision: str = "float32",
        callbacks: Iterable[Callback] = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        threads: int | None = None,
    ) -> None:
        if (loss is None) == (objective is None):
            raise ValueError("Trainer needs either loss= or objective=, and not both")
        if not callable(loss if objective is None else objective):
            raise TypeError("loss and objective must be functions of Tensors, such as nn.MSELoss()")
        if isinstance(loss, type):
            raise TypeError(f"loss is the class {loss.__name__}; make one: {loss.__name__}()")
        if not isinstance(model, Module):
            got = f"the class {model.__name__}; make one" if isinstance(model, type) else type(model).__name__
            raise TypeError(f"model must be a Module, got {got}")
        if not isinstance(optimizer, Optimizer):
            got = type(optimizer).__name__
            raise TypeError(f"optimizer must be one of pybackprop.optim, such as optim.Adam(lr=1e-3), got {got}")
        self.metrics = as_metrics(metrics, loss)
        if objective is not None and self.metrics:
            raise ValueError("metrics need loss=; an objective returns its own as (scalar, {name: scalar})")
        self.seed = _count("seed", seed, 0)
        self.callbacks = _checked_callbacks(callbacks)
        self.precision = check_precision(precision, model_dtype(model) if dtype is None else dtype)
        if dtype is not None and dtype != model_dtype(model):
            model.astype(dtype)
        self.model, self.optimizer = model, optimizer
        self.loss: Any = loss
        self.objective: Any = objective
        self._step = TrainStep(
            self._compute,
            model,
            optimizer,
            accumulate=accumulate,
            clip_norm=clip_norm,
            clip_value=clip_value,
            seed=self.seed,
            precision=precision,
            threads=threads,
        )
        self._step.argument_specs = self._argument_specs
        self._evaluator = Evaluator(self._compute, model, threads, precision)
        self.history = History()
        self.stop_training = False
        self.epoch = 0
        self.cut: Cut | None = None  # where the epoch number `epoch` was left, if it was begun
        self._run: Run | None = None
        self._resumed = False
        self._described: dict[str, Any] = {}  # the run as a checkpoint knows it
        self._callback_states: list[tuple[str, Any]] = []  # from a checkpoint, for callbacks that the next fit will get
        self._active: list[Callback] = list(self.callbacks)

    # Training.

    @_one_at_a_time
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float = 0.0,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Iterable[Callback] = (),
        shuffle: bool | Callable[[int, int], np.ndarray] = True,
        verbose: int | str = 1,
        time_limit: float | None = None,
        on_nonfinite: str = "raise",
    ) -> History:
        """Train for ``epochs`` passes over the data.

        After :meth:`load_checkpoint`, ``fit`` finishes the loaded run instead: it trains up to ``epochs`` epochs in
        total, and returns at once if they are done.

        Args:
            X: inputs with one row a sample: an array, data frame or memory map, or a tuple or dict of them (the model's
                positional or keyword arguments). Floats of any width, integers and booleans are cast batch by batch. Or
                an iterable of batches ``(X, y)`` or ``(X, y, sample_weight)``.
            y: targets with as many rows; integers for losses of class labels.
            epochs: default 1.
            batch_size: rows a step, default 32; the last batch may be smaller, and one batch holds all if there are
                fewer rows.
            validation_data: ``(X, y)`` or ``(X, y, sample_weight)``, evaluated after each epoch.
            validation_split: instead, hold out this share of the last rows, before shuffling. Default 0.
            sample_weight: (n,) weights of the rows: the loss is the sum of ``w * l`` over the sum of ``w``. With
                ``loss=`` a row of weight 0 is as good as not there.
            class_weight: ``{label: weight}``, or ``"balanced"``: inverse to the classes' frequencies; multiplies
                ``sample_weight``.
            callbacks: besides those of the Trainer.
            shuffle: a new order of rows in every epoch, from ``seed`` and the epoch's number; or a function of the
                epoch's number and the number of rows that gives the row numbers in order. Default True.
            verbose: 0 shows nothing, 1 (or ``"auto"``) a progress bar with the time left, 2 a line an epoch. Default 1.
            time_limit: seconds after which training ends at the next batch, validation included as far as it can be
                foreseen.
            on_nonfinite: what follows when the loss or a gradient of a batch is NaN or infinite. Such a batch is not
                applied: weights, running statistics, optimizer state and step count stay as before it (for a gradient
                see ``NonFiniteError.applied_in_part``). ``"raise"`` raises :class:`NonFiniteError`. ``"skip"`` goes on
                without the batch (of an iterable, also without one that holds NaN or infinity), warns once, counts it
                in ``history.skipped``, and raises only if the weights themselves are no longer finite. ``"restore"``
                goes back to the weights, optimizer state and step of the last epoch's end, halves the learning rate for
                good (once more each time, until an epoch is finished), begins that epoch again without calling
                ``on_epoch_begin``, warns, counts it in ``history.restored``, and raises if five times in a row have not
                been enough. Validation losses may be NaN. Default ``"raise"``.

        Returns:
            The :class:`History`. Ctrl-C ends the run at a batch boundary with a warning, keeps the weights, and returns
            too.

        Raises:
            ValueError: lengths differ, no rows, NaN or infinity, labels out of range, shapes that do not fit the model,
                a bad option; or other data, batch size or model than those of the loaded run.
            TypeError: data that is no numbers, float labels for a loss of class labels.
            NonFiniteError: see ``on_nonfinite``. The trainer can go on from the weights it has.
            In the first two cases nothing has changed; the batches of an iterable are checked one by one as they come.
        """
        began = time.monotonic()
        epochs = _count("epochs", epochs, 0)
        batch_size = _count("batch_size", batch_size, 1)
        if time_limit is not None and not time_limit >= 0:
            raise ValueError(f"time_limit must be at least 0 seconds, got {time_limit}")
        if on_nonfinite not in ("raise", "skip", "restore"):
            raise ValueError(f"on_nonfinite must be 'raise', 'skip' or 'restore', got {on_nonfinite!r}")
        verbose = _verbosity(verbose)
        active = self.callbacks + _checked_callbacks(callbacks)

        if is_stream(X):
            given = {"y": y, "sample_weight": sample_weight, "class_weight": class_weight}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name} must be None when X is an iterable of batches; the batches hold it")
            if validation_split:
                raise ValueError("validation_split needs arrays; give validation_data with an iterable of batches")
            length = len(X) if hasattr(X, "__len__") else None
            described: dict[str, Any] = {"stream": True, **self._options()}
            validate = self._validation(validation_data, None, None)
            self._check_resumed(described)
            plan = self._plan(epochs, length, time_limit, began, verbose)
            if iter(X) is X and plan.target - (self.epoch if self._resumed else plan.start) > 1:
                raise ValueError(
                    "an iterator gives one pass; for several epochs give an object that can be iterated again"
                )
            if iter(X) is X and on_nonfinite == "restore":
                raise ValueError(
                    "on_nonfinite='restore' begins an epoch again, but an iterator gives one pass: "
                    "give an object that can be iterated again, or on_nonfinite='skip'"
                )
            plan.epoch = lambda _, cut: StreamEpoch(
                self._step,
                X,
                cut.position if cut else 0,
                (cut.results, cut.rows) if cut else None,
                on_nonfinite == "skip",
            )
            metrics = ["loss", *(m.name for m in self.metrics)] if self.objective is None else []
        else:
            data = self._take(X, y, sample_weight, class_weight)
            self._check_target(y, "fit")
            if validation_split and validation_data is None:
                data, held_out = _split(data, validation_split)
            else:
                held_out = None
            keep = data.rows_that_weigh() if self.objective is None else None
            rows = min(batch_size, data.rows if keep is None else len(keep))
            kinds, compiled = resolve_kinds(data, rows, self.loss, self._step.compile)
            batches = Batches(
                data, kinds, rows, model_dtype(self.model), keep, lambda n: self._step.compile(data.specs(n, kinds))
            )
            data.check_ranges(compiled.program)
            try:
                batches.compiled(batches.count - 1)
            except ValueError as error:
                raise ValueError(
                    f"the last batch of an epoch has {batches.tail} of {batches.rows} rows: {error}"
                ) from None
            for extra in compiled.extras:
                if extra == "loss" or extra.startswith("val_"):
                    raise ValueError(f"an extra of the objective cannot be called {extra!r}: the history needs it")
            validate = self._validation(validation_data, held_out, kinds)
            described = {
                "data": data.describe(),
                "batch_size": batch_size,
                "shuffle": bool(shuffle),
                **self._options(),
            }
            self._check_resumed(described)
            plan = self._plan(epochs, batches.count, time_limit, began, verbose)
            plan.close = batches.close
            order = shuffle if callable(shuffle) else functools.partial(epoch_order, self.seed) if shuffle else _as_is

            def begin(epoch: int, cut: Cut | None) -> EpochRun:
                rows_in_order = order(epoch, batches.rows)
                if rows_in_order is not None and len(rows_in_order) != batches.rows:
                    raise ValueError(f"shuffle gave {len(rows_in_order)} row numbers for {batches.rows} rows")
                batches.set_order(rows_in_order)
                return EpochRun(self._step, batches, cut.position if cut else 0, cut.results if cut else None)

            plan.epoch = begin
            metrics = ["loss", *self._shown(compiled.extras)]
        if validate is not None:
            plan.validate = validate
            metrics += [f"val_{name}" for name in metrics]

        params = {"epochs": epochs, "batch_size": batch_size, "batches": plan.batches, "metrics": metrics}
        params["rows"] = None if is_stream(X) else data.rows
        plan.on_nonfinite = on_nonfinite
        with Interruptible(any(overrides(c, "on_train_terminate") for c in active)) as interrupt:
            try:
                self._begin_run(plan, described, active, params)
                self._run = run = Run(self, plan, active, interrupt)
                run.execute()
            finally:
                self._run = None
        run.report()
        return self.history

    def step(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """One training step on one batch, as :class:`TrainStep`; returns the loss before the update.

        Raises:
            NonFiniteError: the loss or a gradient is not finite; the batch was not applied.
            ValueError: ``fit`` of this Trainer is running in another thread. Steps from several threads run one after
                the other.
        """
        self._refuse_within_fit("step", elsewhere=True)
        if sample_weight is not None:
            return self._step(X, y, sample_weight)
        return self._step(X) if y is None else self._step(X, y)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last update, or of the first one if there was none; as it would be now.

        Raises:
            ValueError: a schedule takes its length from the run, and there was no ``fit`` yet.
        """
        return self._step.rates.at(max(self._step.steps - 1, 0))

    def profile(
        self, X: Any, y: Any = None, *, batch_size: int = 32, steps: int = 50, sample_weight: Any = None
    ) -> Profile:
        """Where the time of a training step goes: every node of the network, the update, feeding and waiting.

        The steps are those of :meth:`fit`, on a copy of the model with an optimizer's state of its own: nothing of the
        Trainer changes. They keep to the threads that ``fit`` would start with: where another process keeps a CPU busy,
        ``fit`` goes back to one thread, and the profile shows the waiting. ``print`` shows the :class:`Profile` as a
        table.

        Args:
            X, y, sample_weight: as in :meth:`fit`, arrays only.
            batch_size: rows a step, default 32.
            steps: steps to measure, default 50.

        Raises:
            ValueError, TypeError: as :meth:`fit`; and for a model with ops written in Python.

        Example:
            >>> import numpy as np, pybackprop as pb
            >>> from pybackprop import nn, optim
            >>> trainer = pb.Trainer(nn.Linear(4, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
            >>> profile = trainer.profile(np.ones((64, 4)), np.ones((64, 1)), steps=4)
            >>> [row["name"] for row in profile.rows][0]
            'Linear (linear)'
        """
        batch_size, steps = _count("batch_size", batch_size, 1), _count("steps", steps, 1)
        if is_stream(X):
            raise TypeError("profile needs arrays; take one batch of the iterable and give its arrays")
        data = self._take(X, y, sample_weight)
        self._check_target(y, "profile")
        keep = data.rows_that_weigh() if self.objective is None else None
        rows = min(batch_size, data.rows if keep is None else len(keep))
        step = self._step.twin(copy.deepcopy(self.model))
        kinds, compiled = resolve_kinds(data, rows, self.loss, step.compile)
        data.check_ranges(compiled.program)
        return profile_steps(step, data, kinds, compiled, rows, steps, keep, self.seed)

    # Use.

    def evaluate(
        self, X: Any, y: Any = None, *, sample_weight: Any = None, batch_size: int = BATCH_ROWS[0]
    ) -> dict[str, float]:
        """Loss and metrics on a data set, by the inference program: ``{"loss": …, "accuracy": …}``.

        Args:
            X, y, sample_weight: as in :meth:`fit`.
            batch_size: rows a run, default 1024.
        """
        data = self._take(X, y, sample_weight)
        self._check_target(y, "evaluate")
        rows = min(_count("batch_size", batch_size, 1), data.rows)
        kinds, compiled = resolve_kinds(data, rows, self.loss, self._evaluator.compile)
        data.check_ranges(compiled.program)
        return self._evaluate(data, kinds, rows)

    def predict(self, X: Any, *, batch_size: int = BATCH_ROWS[0]) -> Any:
        """What the model gives for every row, by the inference program.

        A row's prediction has the same bits whatever rows it comes with.

        Args:
            X: as in :meth:`fit`.
            batch_size: most rows a run, default 1024.

        Returns:
            An array (n, …), or a tuple or dict of them as the model gives.
        """
        data = self._take(X)

        def kinds(data: Data, rows: int) -> Any:
            found, entry = resolve_kinds(data, rows, None, self._evaluator.compile_model)
            data.check_ranges(entry[0])
            return found, entry

        return self._evaluator.predict(data, kinds, _count("batch_size", batch_size, 1))

    # Files.

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write what an exact resume needs to ``path``: weights, optimizer, position in the run, history, callbacks.

        The file is in the safetensors format and cannot run code; it is replaced atomically.

        Raises:
            ValueError: an accumulation has begun (within a batch hook), or ``fit`` is running in another thread.
            OSError: the file cannot be written.
        """
        self._refuse_within_fit("save_checkpoint", elsewhere=True)
        checkpoint.save(self, path)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Read what :meth:`save_checkpoint` wrote. The next :meth:`fit` finishes that run, to the same bits.

        Callbacks that keep state take it over, in the order of their classes; those given to ``fit`` when it begins.

        Raises:
            ValueError: no checkpoint, or one of another model or optimizer; nothing has changed then.
            OSError: the file cannot be read.
        """
        self._refuse_within_fit("load_checkpoint")
        checkpoint.load(self, path)

    # For Run and checkpoint.

    @property
    def accumulating(self) -> bool:
        """Whether gradients have been computed that no update has taken in yet."""
        return self._step.stepper.micro > 0

    def forget_accumulation(self) -> None:
        """Drops gradients that no update has taken in."""
        if self._step.seen:
            self._step.stepper.zero_grad()

    def weights_and_optimizer(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What :meth:`go_back` needs."""
        return self.model.state_dict(), self._step.state_dict()

    def go_back(self, weights: dict[str, Any], optimizer: dict[str, Any], halve: int) -> None:
        """To these weights and this optimizer state, with the learning rate halved ``halve`` times."""
        self.forget_accumulation()
        self._step.load_state_dict(optimizer)
        self._step.rates.halve(halve)
        self.model.load_state_dict(weights)

    def logs(self, extras: tuple[str, ...], results: np.ndarray, rows: np.ndarray) -> dict[str, float]:
        """Loss and metrics of some batches, from their outputs (batches, 1 + extras) and rows."""
        columns = {name: results[:, 1 + i] for i, name in enumerate(extras)}
        weights = columns.pop(_WEIGHT, rows)
        logs = {"loss": weighted_mean(results[:, 0], weights)}
        if self.objective is not None:
            return {**logs, **{name: weighted_mean(values, weights) for name, values in columns.items()}}
        for i, metric in enumerate(self.metrics):
            sums = [values for name, values in columns.items() if name.startswith(f"{i} ")]
            logs[metric.name] = float(metric.finish(np.stack(sums, 1), rows))
        return logs

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights."""
        cut = self.cut
        active = self._run.active if self._run is not None else None
        if active is not None and active.position:
            cut = Cut(active.position, active.results, active.rows)
        return {
            "optimizer": self._step.state_dict(),
            "epoch": self.epoch,
            "cut": None if cut is None else {"position": cut.position, "results": cut.results, "rows": cut.rows},
            "seed": self.seed,
            "run": self._described,
            "history": {
                "history": self.history.history,
                "epoch": self.history.epoch,
                "params": self.history.params,
                "skipped": self.history.skipped,
                "restored": self.history.restored,
            },
            "callbacks": [[type(c).__name__, state] for c in self._active if (state := c.state_dict())],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over :meth:`state`; all of it, or nothing if the optimizer or a callback cannot."""
        before = self._callback_states, [dict(vars(callback)) for callback in self.callbacks]
        try:
            self._callback_states = [(name, value) for name, value in state["callbacks"]]
            self._restore(self.callbacks)
            self._step.load_state_dict(state["optimizer"])
        except BaseException:
            self._callback_states = before[0]
            for callback, attributes in zip(self.callbacks, before[1], strict=True):
                vars(callback).clear()
                vars(callback).update(attributes)
            raise
        self.epoch, self.seed, self._described = state["epoch"], state["seed"], state["run"]
        cut = state["cut"]
        self.cut = (
            None if cut is None else Cut(cut["position"], cut["results"].reshape(cut["position"], -1), cut["rows"])
        )
        self.history = History()
        self.history.history, self.history.epoch = state["history"]["history"], state["history"]["epoch"]
        self.history.params = state["history"]["params"]
        self.history.skipped = state["history"].get("skipped", 0)  # older files lack it
        self.history.restored = state["history"].get("restored", 0)
        self._resumed = bool(self._described)  # a trainer that never ran fit has no run to go on with

    # Internal.

    def _compute(self, model: Module, X: Any, *rest: Any) -> Any:
        """What is traced: loss and metrics of one batch."""
        if self.objective is not None:
            result = self.objective(model, X, *rest)
            if len(rest) < 2:
                return result
            loss, extras = result if isinstance(result, tuple) else (result, {})
            return loss, {**extras, _WEIGHT: rest[1].sum()}
        pred, y = call_model(model, X), rest[0]
        extras = {}
        for i, metric in enumerate(self.metrics):
            try:
                sums = metric.sums(pred, y)
            except (ValueError, TypeError) as error:
                raise type(error)(f"metric {metric.name}: {error}") from None
            extras |= {f"{i} {k}": value for k, value in enumerate(sums)}
        if len(rest) == 1:
            return self.loss(pred, y), extras
        return self.loss(pred, y, sample_weight=rest[1]), {**extras, _WEIGHT: rest[1].sum()}

    def _shown(self, extras: tuple[str, ...]) -> list[str]:
        """Names of the metrics among a program's extras."""
        if self.objective is None:
            return [m.name for m in self.metrics]
        return [name for name in extras if name != _WEIGHT]

    def _take(self, X: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None) -> Data:
        return Data.take(X, y, sample_weight, class_weight, dtype=model_dtype(self.model))

    def _check_target(self, y: Any, who: str) -> None:
        if y is None and self.objective is None:
            raise ValueError(f"{who} needs y: the loss compares it with the model's output")

    def _argument_specs(self, args: tuple[Any, ...]) -> tuple[tuple[np.ndarray, ...], Any]:
        """Specs of one batch given to ``step`` or by an iterable."""
        self._check_target(args[1] if len(args) > 1 else None, "step")
        data = self._take(*args)
        kinds, _ = resolve_kinds(data, data.rows, self.loss, self._step.compile)
        return tuple(data.arrays), data.specs(data.rows, kinds)

    def _validation(
        self, given: tuple[Any, ...] | None, held_out: Data | None, kinds: tuple[bool, ...] | None
    ) -> Callable[[Callable[[], None]], dict[str, float]] | None:
        """Checks validation data; gives what evaluates it."""
        if given is None and held_out is None:
            return None
        if given is not None:
            if not isinstance(given, (tuple, list)) or not 1 <= len(given) <= 3:
                raise TypeError("validation_data must be (X, y) or (X, y, sample_weight)")
            self._check_target(given[1] if len(given) > 1 else None, "validation_data")
        try:
            data = held_out if held_out is not None else self._take(*(given or ()))
            rows = min(BATCH_ROWS[0], data.rows)
            found, compiled = resolve_kinds(data, rows, self.loss, self._evaluator.compile)
            data.check_ranges(compiled.program)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation data: {error}") from None
        return lambda check: self._evaluate(data, found, rows, check)

    def _evaluate(
        self, data: Data, kinds: tuple[bool, ...], rows: int, check: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        results, sizes, extras = self._evaluator.results(data, kinds, rows, check)
        return self.logs(extras, results, sizes)

    def _plan(self, epochs: int, batches: int | None, time_limit: float | None, began: float, verbose: int) -> Plan:
        # An epoch that was cut short is over for a new run.
        start = self._described["start"] if self._resumed else self.epoch + (self.cut is not None)
        return Plan(start, start + epochs, batches, _no_epoch, None, lambda: None, "raise", time_limit, began, verbose)

    def _refuse_within_fit(self, what: str, elsewhere: bool = False) -> None:
        """Raises ValueError while ``fit`` is running, or, with ``elsewhere``, while it is in another thread."""
        process, thread = self.__dict__.get("_fitting", _NOBODY)
        if process == 0:
            return
        if process != os.getpid():
            self.__dict__.pop("_fitting", None)  # a forked child, without the thread that was at it
        elif not (elsewhere and thread == threading.get_ident()):
            advice = "use a callback" if elsewhere else "end it with trainer.stop_training = True"
            raise ValueError(
                f"{what} was called while fit of the same Trainer is running: wait for its end, or {advice}"
            )

    def _options(self) -> dict[str, Any]:
        """What else a run has to go on with, as a checkpoint knows it."""
        return {"accumulate": self._step.accumulate, "precision": self.precision}

    def _check_resumed(self, described: dict[str, Any]) -> None:
        """Raises ValueError unless a loaded run is continued as it began."""
        if not self._resumed:
            return
        for name, value in described.items():
            before = self._described.get(name, "float32" if name == "precision" else None)  # older files lack it
            if before != value:
                what = {"data": "rows or row shapes"}.get(name, name)
                raise ValueError(f"the loaded run cannot go on with other {what}: it had {before}, now it has {value}")

    def _begin_run(self, plan: Plan, described: dict[str, Any], active: list[Callback], params: dict[str, Any]) -> None:
        per_epoch = None if plan.batches is None else -(-plan.batches // self._step.accumulate)
        if self._resumed:
            described["start"], described["first_step"] = self._described["start"], self._described["first_step"]
            if self.history.epoch and self.history.epoch[-1] == self.epoch:
                self.history.drop_last()  # the epoch that was cut short and goes on now
        else:
            self.history = History()
            self.epoch, self.cut = plan.start, None
            described["start"], described["first_step"] = plan.start, self._step.steps
        total = None if per_epoch is None else described["first_step"] + per_epoch * (plan.target - plan.start)
        self.optimizer.schedule.bind(per_epoch, total)
        self._step.rates.forget()
        self._described, self._active = described, active
        self.history.params, self.history.stopped = params, None
        self._resumed, self.stop_training = False, False
        for callback in active:
            callback.trainer, callback.params = self, params
        self._restore([c for c in active if c not in self.callbacks])  # these had theirs when the file was loaded
        self._callback_states = []

    def _restore(self, callbacks: list[Callback]) -> None:
        """Gives states of a checkpoint to callbacks of the same classes, in order; the rest waits for the next fit."""
        for callback in callbacks:
            for i, (name, state) in enumerate(self._callback_states):
                if name == type(callback).__name__:
                    callback.load_state_dict(state)
                    del self._callback_states[i]
                    break


def _as_is(epoch: int, rows: int) -> None:
    """The order of an epoch's rows: their own."""


def _no_epoch(epoch: int, cut: Cut | None) -> Any:
    raise ValueError("the run has no data")


def _who() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _verbosity(value: Any) -> int:
    if value == "auto":
        return 1
    if not isinstance(value, (bool, int, np.integer)) or not 0 <= value <= 2:
        raise ValueError(f"verbose must be 0, 1 or 2, got {value!r}")
    return int(value)


def _checked_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must be instances of pb.Callback, got {callback!r}")
    return callbacks


def _split(data: Data, fraction: float) -> tuple[Data, Data]:
    """The data without its last rows, and these."""
    split_last(data.arrays, fraction, data.rows)
    cut = data.rows - int(data.rows * fraction)
    return data.part(0, cut), data.part(cut, data.rows)
