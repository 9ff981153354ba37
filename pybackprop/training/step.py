"""One training step: backward, reduce, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._cache import LRU
from .._precision import check_precision
from ..nn.module import Module
from ..optim import Optimizer
from .nonfinite import explain
from .objective import argument_specs, model_dtype, trace_objective
from .rates import Rates

_version = _core.version
_PROGRAMS = 32  # kept by one TrainStep
_PROGRAM_BYTES = 1 << 30


class Compiled(NamedTuple):
    """A training program for inputs of given shapes and kinds."""

    program: _core.Program
    extras: tuple[str, ...]


class TrainStep:
    """Trains a model on an objective, one batch a call.

    ``step(x, y)`` computes the loss of one batch, its gradients and the optimizer's update in one call into C++. The
    parts are callable apart: ``step.backward(x, y)``, ``step.grads()``, ``step.update()``. The objective is traced once
    for each set of shapes and dtypes of the arrays, so Python inside it runs only then.

    Gradients, optimizer state, and the random position of dropout belong to this object, parameters to the model: two
    TrainSteps may train one model by turns, or two parts of it. Frozen parameters, and those the objective does not
    use, are left alone.

    Args:
        objective: ``objective(model, *arrays)`` gives a scalar Tensor, or ``(scalar, {"name": scalar})``; the named
            extras of the last step are in ``step.extras``.
        model: the Module to train; its parameters' dtype is the dtype of all computation. Float arrays of other dtypes
            are cast, integer arrays stay integers (labels, ids), booleans are 0 and 1.
        optimizer: for example ``optim.AdamW(lr=1e-3)``. Its numbers are read at each update.
        accumulate: average the gradients of so many batches into one update. Default 1.
        clip_norm: scale gradients down to this global 2-norm. Default None: off.
        clip_value: then clamp each gradient to ``[-clip_value, clip_value]``. Default None: off.
        seed: seed of dropout. Default 0.
        on_nonfinite: what follows when the loss or a gradient is NaN or infinite. Such a batch is not applied:
            parameters, running statistics, optimizer state and step count stay as they were (for a gradient see
            ``NonFiniteError.applied_in_part``). ``"raise"`` raises :class:`NonFiniteError`; ``"skip"`` counts it in
            ``step.skipped`` and gives back its loss. Default ``"raise"``.
        precision: ``"bf16"`` multiplies matrices in bfloat16, with float32 sums: faster where layers are wide, see
            "half-width products" in the README. All else, parameters included, stays float32. Default ``"float32"``:
            the model's own dtype.
        threads: a team of exactly so many threads. Default None: what the work is worth, at most ``get_num_threads()``.
            The results are the same bits for any number.
        isa: an instruction set's name. Default None: the best of this machine.

    Raises:
        ValueError: a bad option, or ``precision="bf16"`` for a float64 model or without the CPU feature avx512_bf16.
        ValueError, TypeError: at the first step with arrays of new shapes, a mistake in the model or objective.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> model = nn.Linear(2, 1)
        >>> step = pb.TrainStep(lambda model, x, y: ((model(x) - y) ** 2).mean(), model, optim.SGD(lr=0.1))
        >>> x = np.eye(2, dtype=np.float32); y = np.ones((2, 1), np.float32)
        >>> losses = [step(x, y) for _ in range(50)]
        >>> losses[-1] < 0.01 * losses[0]
        True
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        model: Module,
        optimizer: Optimizer,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        seed: int = 0,
        on_nonfinite: str = "raise",
        precision: str = "float32",
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        if not callable(objective):
            raise TypeError(f"objective must be a function of the model and arrays, got {type(objective).__name__}")
        if not isinstance(model, Module):
            got = f"the class {model.__name__}; make one" if isinstance(model, type) else type(model).__name__
            raise TypeError(f"model must be a Module, got {got}")
        if not isinstance(optimizer, Optimizer):
            got = (
                f"the class {optimizer.__name__}; make one" if isinstance(optimizer, type) else type(optimizer).__name__
            )
            raise TypeError(f"optimizer must be one of pybackprop.optim, such as optim.Adam(lr=1e-3), got {got}")
        if isinstance(accumulate, bool) or not isinstance(accumulate, (int, np.integer)):
            raise TypeError(f"accumulate must be an integer, got {type(accumulate).__name__}")
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate}")
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0 or None, got {value}")
        if on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'raise' or 'skip', got {on_nonfinite!r}")
        self.objective, self.model, self.optimizer = objective, model, optimizer
        self.on_nonfinite = on_nonfinite
        self.skipped = 0  # batches not applied, with on_nonfinite="skip"
        self.accumulate = int(accumulate)
        self._clip_norm, self._clip_value = clip_norm, clip_value
        self.threads, self.isa = threads, isa
        self.precision = check_precision(precision, model_dtype(model), isa)
        self._seed = int(seed)
        self.argument_specs = argument_specs  # how arrays become specs; a Trainer knows more about its arrays
        self.rates = Rates(optimizer)
        self._programs: LRU[Compiled] = LRU(_PROGRAMS, _PROGRAM_BYTES, lambda c: c.program.arena_bytes)
        self._ready: dict[Any, Compiled] = {}  # the same programs, by what is cheap to look up
        self._usual: Any = None  # the last of them, and the shape of its first array
        self._usual_shape: tuple[int, ...] | None = None
        self._structure_version = -1
        self._optimizer_version = -1
        self._params: dict[str, Any] = {}  # name -> core Param, in the model's order
        self._groups: tuple[list[int], list[dict[str, float]]] = ([], [])
        self._stepper: Any = None  # a _core.Stepper once there is something to train
        self._last: Compiled | None = None
        self._given: tuple[Any, ...] | None = None  # to `backward`, until `update`
        self._seen_before = 0  # by steppers that this one has replaced

    def __call__(self, *arrays: Any) -> float:
        """One step on one batch; returns the loss before the update.

        With ``accumulate=k`` every k-th call updates. Arrays of the model's dtype from 8 KB on are not copied but read
        where they lie, so other threads must not write to them during the call.

        Raises:
            ValueError, TypeError: the arrays do not fit the model; nothing has changed then.
            NonFiniteError: the loss or a gradient is not finite; the batch was not applied.
        """
        stepper = self._stepper
        optimizer = self.optimizer
        # The usual call is like the one before. The core checks every array against the program it is given and refuses
        # before it changes anything, so a glance at the first array is enough here.
        if _version() == self._structure_version and optimizer.version == self._optimizer_version and arrays:
            try:
                if arrays[0].shape == self._usual_shape:
                    compiled = self._usual
                    lr = optimizer.lr
                    loss = stepper.step(
                        compiled.program, arrays, lr if type(lr) is float else self.rates.at(stepper.steps)
                    )
                    self._last = compiled
                    return loss
            except (AttributeError, TypeError, ValueError):
                if stepper is not None and stepper.failed:
                    raise  # while running
                # Arrays of other shapes or kinds: the way below finds their program, or says what is wrong.
            except _core.Refused as error:
                return self._refused(arrays, error)
        try:
            return self.once(arrays)
        except _core.Refused as error:
            return self._refused(arrays, error)

    def backward(self, *arrays: Any) -> float:
        """Loss and gradients of one batch; with ``accumulate`` they add to those since the last update.

        Raises:
            NonFiniteError: the loss is not finite, or, with ``accumulate``, a gradient. There are no gradients then of
                this batch, and of none of those accumulated if it was a gradient.
        """
        compiled, inputs = self._lookup(arrays)
        try:
            loss = self._stepper.backward(compiled.program, inputs)
        except _core.Refused as error:
            return self._refused(arrays, error)
        self._last, self._given = compiled, arrays
        return loss

    def grads(self) -> dict[str, Any]:
        """The gradients of the last :meth:`backward` (or step) by parameter name, before any clipping.

        Arrays of the parameters' shapes; ``(rows, values)`` for an embedding with ``sparse=True``.

        Raises:
            ValueError: there was none.
        """
        return dict(zip(self._params, self._needed().grads(), strict=True))

    def update(self) -> None:
        """Apply the gradients of :meth:`backward` with the optimizer.

        Raises:
            ValueError: there are none.
            NonFiniteError: they are not finite, and are gone; see ``NonFiniteError.applied_in_part``.
        """
        self._needed()
        if self._last is None:
            raise ValueError("update() needs gradients; call backward(...) first")
        given, self._given = self._given, None
        try:
            self.settle()
        except _core.Refused as error:
            self._refused(given, error)

    @property
    def extras(self) -> dict[str, float]:
        """The named scalars that the objective returned beside the loss, at the last step."""
        if self._last is None or not self._last.extras:
            return {}
        return {name: float(v) for name, v in zip(self._last.extras, self._stepper.outputs()[1:], strict=True)}

    @property
    def steps(self) -> int:
        """Updates done."""
        return self._stepper.steps if self._stepper is not None else 0

    def state_dict(self) -> dict[str, Any]:
        """Optimizer state for an exact resume.

        ``{"rule", "steps", "seed", "lr", "lr_factor", "state": {"exp_avg": {"0.weight": array, …}, …}}``.

        The model's parameters are not in it.

        Raises:
            ValueError: an accumulation has begun; a state is taken between updates.
        """
        if self._stepper is not None and self._stepper.micro:
            raise ValueError(
                f"{self._stepper.micro} of {self.accumulate} batches are accumulated; call update() before state_dict()"
            )
        states = self._stepper.state() if self._stepper is not None else {}
        return {
            "rule": self.optimizer.rule,
            "steps": self.steps,
            "seed": self._seed,
            "lr": self.optimizer.lr if isinstance(self.optimizer.lr, float) else self.optimizer.lr.state_dict(),
            "lr_factor": self.rates.factor,
            "state": {key: dict(zip(self._params, arrays, strict=True)) for key, arrays in states.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, for the same model and kind of optimizer.

        Raises:
            ValueError: another optimizer, unknown parameter names, or other shapes; nothing has changed then.
        """
        missing = {"rule", "steps", "seed", "lr", "state"} - set(state)
        if missing:
            raise ValueError(f"the optimizer state has no entry {sorted(missing)[0]!r}; it must come from state_dict()")
        if state["rule"] != self.optimizer.rule:
            raise ValueError(
                f"the state is of the rule {state['rule']!r}, but the optimizer's is {self.optimizer.rule!r}"
            )
        if isinstance(state["lr"], Mapping) == isinstance(self.optimizer.lr, float):
            raise ValueError("the state and the optimizer disagree on whether lr is a number or a schedule")
        own = dict(self.model.named_parameters())
        names = list(dict.fromkeys(name for arrays in state["state"].values() for name in arrays))
        for key, arrays in state["state"].items():
            for name in names:
                if name not in own:
                    raise ValueError(f"the state holds {key} of {name!r}, which is no parameter of the model")
                if name not in arrays:
                    raise ValueError(f"the state has no {key} for {name!r}")
                if tuple(np.shape(arrays[name])) != tuple(own[name].shape):
                    raise ValueError(
                        f"the state holds {key} of {name!r} with shape {tuple(np.shape(arrays[name]))}, "
                        f"but the parameter has shape {tuple(own[name].shape)}"
                    )
        order = (
            [name for name in own if name in set(names)] if names else [name for name in self._params if name in own]
        )
        params = {name: own[name]._param for name in order}
        stepper = self._new_stepper(params)
        if names:
            dtype = model_dtype(self.model)
            stepper.load_state(
                {key: [np.ascontiguousarray(arrays[n], dtype) for n in order] for key, arrays in state["state"].items()}
            )
        if isinstance(self.optimizer.lr, float):
            self.optimizer.lr = float(state["lr"])
        else:
            self.optimizer.lr.load_state_dict(state["lr"])
        # From here on nothing can fail.
        if list(params.items()) != list(self._params.items()):
            self._forget_programs()  # their gradients are those of other parameters
        self._adopt(stepper, params)
        self._seed = int(state["seed"])
        self._stepper.seed, self._stepper.steps, self._stepper.micro = self._seed, int(state["steps"]), 0
        self.rates.factor = float(state.get("lr_factor", 1.0))  # older files lack it
        self.rates.forget()

    # What Trainer needs besides.

    def once(self, arrays: tuple[Any, ...]) -> float:
        """A call whose batch may be refused: ``_core.Refused`` then."""
        compiled, inputs = self._lookup(arrays)
        stepper = self._stepper
        loss = stepper.step(compiled.program, inputs, self.rates.at(stepper.steps))
        self._last = compiled
        if inputs is arrays:
            self._usual, self._usual_shape = compiled, arrays[0].shape
        return loss

    def settle(self) -> None:
        """An update whose gradients may be refused, likewise."""
        self._read_optimizer()
        self._stepper.update(self.rates.at(self._stepper.steps))

    def compile(self, specs: tuple[Any, ...]) -> Compiled:
        """The training program for arguments of these (nested) Specs, traced again only if the model changes."""
        self._refresh()
        key = repr(specs)
        compiled = self._programs.get(key)
        if compiled is None:
            compiled = self._build(specs)
            self._programs.put(key, compiled)
            # An objective may construct modules (a loss, say) while it is traced; that is no change of the model.
            self._structure_version = _version()
        return compiled

    @property
    def stepper(self) -> _core.Stepper:
        """The core's stepper; there is one after the first :meth:`compile`."""
        return self._needed()

    @property
    def seen(self) -> int:
        """Batches run, refused ones included."""
        return self._seen_before + (self._stepper.seen if self._stepper is not None else 0)

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of :attr:`extras`."""
        return self._last.extras if self._last is not None else ()

    @property
    def trained(self) -> list[_core.Param]:
        """The core's parameters that are updated."""
        return list(self._params.values())

    def twin(self, model: Module) -> TrainStep:
        """A new step with the same settings for a copy of the model."""
        return TrainStep(
            self.objective,
            model,
            self.optimizer,
            accumulate=self.accumulate,
            clip_norm=self._clip_norm,
            clip_value=self._clip_value,
            seed=self._seed,
            precision=self.precision,
            threads=self.threads,
            isa=self.isa,
        )

    def ran(self, compiled: Compiled) -> None:
        """Told by whoever runs the stepper directly: :attr:`extras` and :meth:`update` speak of this program now."""
        self._last = compiled

    # Internal.

    def _refused(self, arrays: tuple[Any, ...] | None, error: _core.Refused) -> float:
        """The loss of a batch that is skipped, or an error."""
        refusal = error.args[1]
        self._last = None
        if self.on_nonfinite == "raise":
            raise explain(self, refusal, arrays) from None
        self.skipped += refusal[2]
        return float(refusal[1])

    def _lookup(self, arrays: tuple[Any, ...]) -> tuple[Compiled, tuple[Any, ...]]:
        """The program for these arguments, and the arrays to give it, which it checks and casts."""
        if _version() != self._structure_version or self.optimizer.version != self._optimizer_version:
            self._refresh()
        try:
            key = tuple([(a.shape, a.dtype.char) for a in arrays])
            return self._ready[key], arrays
        except (AttributeError, KeyError):
            pass
        inputs, specs = self.argument_specs(arrays)
        compiled = self.compile(specs)
        if all(isinstance(a, np.ndarray) and a is b for a, b in zip(arrays, inputs, strict=False)):
            if len(self._ready) >= _PROGRAMS:
                self._ready.pop(next(iter(self._ready)))
            self._ready[tuple([(a.shape, a.dtype.char) for a in arrays])] = compiled
        return compiled, inputs

    def _refresh(self) -> None:
        """Drops what was built for a model or optimizer that has changed since."""
        if _version() != self._structure_version:
            self._structure_version = _version()
            self._forget_programs()
        self._read_optimizer()

    def _forget_programs(self) -> None:
        self._programs.clear()
        self._ready.clear()
        self._usual = self._usual_shape = None

    def _read_optimizer(self) -> None:
        if self.optimizer.version == self._optimizer_version:
            return
        groups, hyper, frozen = self._resolve(self._params)
        if self._stepper is not None:
            if frozen or groups != self._groups[0] or len(hyper) != len(self._groups[1]):
                self._forget_programs()
                self._rebuild({name: p for name, p in self._params.items() if name not in frozen})
            elif hyper != self._groups[1]:
                self._stepper.set_hyper(hyper)
                self._groups = (groups, hyper)
        self._optimizer_version = self.optimizer.version

    def _resolve(self, names: Mapping[str, Any]) -> tuple[list[int], list[dict[str, float]], frozenset[str]]:
        """Groups of these parameters; patterns are matched against the whole model."""
        everything = dict(self.model.named_parameters())
        groups, hyper, frozen = self.optimizer.resolve(everything)
        group_of = dict(zip(everything, groups, strict=True))
        return [group_of[name] for name in names], hyper, frozenset(name for name in names if name in frozen)

    def _build(self, specs: Any) -> Compiled:
        dtype = model_dtype(self.model)
        objective = trace_objective(
            self.objective, self.model, specs, dtype=dtype, training=True, precision=self.precision, isa=self.isa
        )
        traced = objective.traced
        own = {name: p for name, p in self.model.named_parameters() if p.trainable}
        used = {name: entry[0] for name, entry in traced.params.items() if entry[2]}
        frozen = self.optimizer.resolve(dict(self.model.named_parameters()))[2]
        # Parameters trained so far stay in, with a zero gradient if this trace does not use them.
        wanted = {
            name: p._param
            for name, p in own.items()
            if name not in frozen and (name in used or self._params.get(name) is p._param)
        }
        if not wanted:
            raise ValueError("there is nothing to train: the objective uses no parameter that is not frozen")
        wrt = [traced.graph.param(param, name, True) for name, param in wanted.items()]
        program = _core.Program(traced.graph, objective.outputs, loss=objective.loss, wrt=wrt, threads=self.threads)
        if self._stepper is None or list(wanted.items()) != list(self._params.items()):
            self._forget_programs()  # their gradients are those of other parameters
            self._rebuild(wanted)
        return Compiled(program, tuple(objective.extras))

    def _new_stepper(self, params: dict[str, Any]) -> _core.Stepper:
        groups, hyper, _ = self._resolve(params)
        _core.gather([p._param for _, p in self.model.named_parameters()], [b._param for b in self.model.buffers()])
        stepper = _core.Stepper(
            self.optimizer.rule,
            list(params.values()),
            groups,
            hyper,
            clip_norm=self._clip_norm,
            clip_value=self._clip_value,
            accumulate=self.accumulate,
            isa=self.isa,
            threads=self.threads,
        )
        stepper.seed = self._seed
        return stepper

    def _rebuild(self, params: dict[str, Any]) -> None:
        """A stepper for these parameters, with the state of those it trained before."""
        stepper = self._new_stepper(params)
        if self._stepper is not None:
            before = self._stepper.state()
            state = stepper.state()
            for key, arrays in state.items():
                known = dict(zip(self._params, before[key], strict=True))
                state[key] = [
                    known[name] if self._params.get(name) is param else fresh
                    for (name, param), fresh in zip(params.items(), arrays, strict=True)
                ]
            stepper.load_state(state)
            stepper.steps = self._stepper.steps
        self._adopt(stepper, params)

    def _adopt(self, stepper: _core.Stepper, params: dict[str, Any]) -> None:
        self._seen_before = self.seen
        self._stepper, self._params, self._last = stepper, dict(params), None
        groups, hyper, _ = self._resolve(params)
        self._groups = (groups, hyper)
        self._optimizer_version = self.optimizer.version

    def _needed(self) -> _core.Stepper:
        if self._stepper is None:
            raise ValueError("nothing was computed yet; call step(...) or backward(...) first")
        return self._stepper
