"""Gradients without training: value_and_grad, inspect, and analytic against numerical gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._cache import LRU
from .._trace import flatten, unflatten
from .._tracer import current, prefix
from ..nn.module import Module
from .objective import argument_specs, model_dtype, trace_objective

_PROGRAMS, _PROGRAM_BYTES = 16, 1 << 28


class _Built(NamedTuple):
    program: _core.Program
    extras: tuple[str, ...]
    names: tuple[str, ...]  # of the parameters with a gradient
    inputs: tuple[int, ...]  # numbers of the flattened inputs with a gradient
    kept: tuple[str, ...]  # names of the activations


class _Differentiated:
    """Programs for the gradients of an objective: one for each set of shapes, made anew when the model changes."""

    def __init__(self, objective: Callable[..., Any], model: Module, training: bool, keep: bool) -> None:
        if not callable(objective) or isinstance(objective, Module):
            raise TypeError(f"objective must be a function of the model and arrays, got {type(objective).__name__}")
        if not isinstance(model, Module):
            raise TypeError(f"model must be a Module, got {type(model).__name__}")
        self._objective, self._model, self._training, self._keep = objective, model, training, keep
        self._programs: LRU[_Built] = LRU(_PROGRAMS, _PROGRAM_BYTES, lambda b: b.program.arena_bytes)

    def __call__(self, args: tuple[Any, ...], argnums: tuple[int, ...], seed: int) -> tuple[_Built, Any, Any, Any]:
        """What was built, the flattened arrays' outputs, gradients and kept values."""
        inputs, specs = argument_specs(args)
        what = (repr(specs), argnums)
        built = self._programs.get((_core.version(), *what))
        if built is None:
            built = self._build(specs, argnums)
            self._programs.put((_core.version(), *what), built)  # the version after: objectives may construct modules
        outputs, gradients, kept = built.program.run(inputs, seed)
        return built, outputs, gradients, kept

    def _build(self, specs: tuple[Any, ...], argnums: tuple[int, ...]) -> _Built:
        dtype = model_dtype(self._model)
        objective = trace_objective(self._objective, self._model, specs, dtype=dtype, training=self._training)
        traced = objective.traced
        params = {name: value for name, (_, value, trainable) in traced.params.items() if trainable}
        names = [name for name, _ in self._model.named_parameters() if name in params]
        first = [0]
        for spec in specs:
            first.append(first[-1] + len(flatten(spec)[0]))
        leaves = flatten(specs)[0]
        wanted: list[int] = []
        for number in argnums:
            if not -len(specs) <= number < len(specs):
                raise ValueError(
                    f"argnums asks for argument {number}, but the objective got {len(specs)} besides the model"
                )
            number %= len(specs)
            for i in range(first[number], first[number + 1]):
                if leaves[i].integer:
                    raise TypeError(f"argnums asks for the gradient of argument {number}, which holds integers")
                wanted.append(i)
        kept = traced.names if self._keep else {}
        program = _core.Program(
            traced.graph,
            objective.outputs,
            loss=objective.loss,
            wrt=[params[name] for name in names] + [traced.inputs[i] for i in wanted],
            keep=list(kept.values()),
        )
        return _Built(program, tuple(objective.extras), tuple(names), tuple(wanted), tuple(kept))


def value_and_grad(
    objective: Callable[..., Any],
    model: Module,
    argnums: int | tuple[int, ...] | None = None,
    *,
    training: bool = True,
    seed: int = 0,
) -> Callable[..., Any]:
    """A function that gives an objective's value and its gradients.

    Nothing is trained, and running statistics never change.

    Args:
        objective: ``objective(model, *arrays)`` gives a scalar Tensor, or ``(scalar, {"name": scalar})``.
        model: the Module whose parameters are differentiated; frozen ones are left out.
        argnums: also give the gradients of these arguments; 0 is the first after the model.
        training: run the training program, with dropout and batch statistics. Default True.
        seed: seed of dropout; every call drops the same.

    Returns:
        A function of the arrays that returns ``(value, grads)``: a float, and ``{"0.weight": array, …}`` (``(rows,
        values)`` for a sparse embedding). ``value`` is ``(float, {"name": float})`` if the objective gives extras. With
        ``argnums`` there is a third item: an array for a single number, a tuple for several, in the structure of the
        arguments.

    Raises:
        ValueError, TypeError: when called, a mistake in the model or arrays.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> model = pb.nn.Linear(2, 1)
        >>> loss, grads = pb.value_and_grad(lambda model, x: model(x).sum(), model)(np.ones((3, 2), np.float32))
        >>> grads["bias"].tolist()
        [3.0]
    """
    if not (argnums is None or isinstance(argnums, int) or all(isinstance(n, int) for n in argnums)):
        raise TypeError("argnums must be integers; the arrays go to the function that value_and_grad returns")
    wanted = () if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)
    differentiated = _Differentiated(objective, model, training, keep=False)

    def value_and_gradients(*args: Any) -> Any:
        if current() is not None:
            raise ValueError(
                f"{prefix('value_and_grad')}derivatives of derivatives are not offered: "
                "call value_and_grad outside of an objective or forward, on arrays"
            )
        built, outputs, gradients, _ = differentiated(args, wanted, seed)
        loss = float(outputs[0])
        value: Any = loss
        if built.extras:
            value = (loss, {name: float(v) for name, v in zip(built.extras, outputs[1:], strict=True)})
        grads = dict(zip(built.names, gradients[: len(built.names)], strict=True))
        if argnums is None:
            return value, grads
        rest = iter(gradients[len(built.names) :])
        given = []
        for number in wanted:
            leaves, tree = flatten((args[number],)) if isinstance(args[number], (tuple, dict)) else ([0], None)
            arrays = [next(rest) for _ in leaves]
            given.append(arrays[0] if tree is None else unflatten(tree, arrays)[0])
        return value, grads, given[0] if isinstance(argnums, int) else tuple(given)

    return value_and_gradients


class Inspection(Mapping[str, tuple[np.ndarray, np.ndarray | None]]):
    """What one step computed: ``inspection["0"]`` is the pair (value, gradient of the loss with respect to it).

    A mapping from the names of activations, the dotted names of the modules that gave them (``"0"``, ``"2.norm"``, with
    ``#2`` at a second call). A gradient is None where the loss does not depend on the activation.

    Attributes:
        loss: float.
        extras: the named scalars of the objective.
        gradients: ``{"0.weight": array, …}``.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> model = pb.nn.Sequential(pb.nn.Linear(3, 2), pb.nn.Tanh())
        >>> inspection = pb.inspect(lambda model, x: model(x).mean(), model)(np.ones((4, 3)))
        >>> list(inspection), [array.shape for array in inspection["0"]]
        (['0', '1', 'Sequential'], [(4, 2), (4, 2)])
    """

    def __init__(
        self, loss: float, extras: dict[str, float], gradients: dict[str, Any], activations: dict[str, Any]
    ) -> None:
        self.loss, self.extras, self.gradients = loss, extras, gradients
        self._activations = activations

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        return self._activations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        return f"Inspection(loss={self.loss:.6g}, activations={list(self._activations)})"


def inspect(
    objective: Callable[..., Any], model: Module, *, training: bool = True, seed: int = 0
) -> Callable[..., Inspection]:
    """A function that gives every named activation of one step, with its gradient, and the parameters' gradients.

    Args and errors are those of :func:`value_and_grad`.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> seen = pb.inspect(lambda model, x: model(x).sum(), model)(np.ones((1, 2), np.float32))
        >>> value, gradient = seen["1"]
        >>> gradient.tolist()
        [[1.0, 1.0, 1.0]]
    """
    differentiated = _Differentiated(objective, model, training, keep=True)

    def inspected(*args: Any) -> Inspection:
        built, outputs, gradients, kept = differentiated(args, (), seed)
        return Inspection(
            float(outputs[0]),
            {name: float(v) for name, v in zip(built.extras, outputs[1:], strict=True)},
            dict(zip(built.names, gradients, strict=True)),
            dict(zip(built.kept, kept, strict=True)),
        )

    return inspected


@dataclass(frozen=True)
class GradCheck:
    """What :func:`gradcheck` found.

    Attributes:
        ok: every error is at most ``rtol``.
        errors: by parameter name, the largest ``|analytic - numerical|`` among the coordinates tried, relative to the
            largest gradient of that parameter.
        rtol: the tolerance.
        worst: ``(name, index, analytic, numerical)`` of the largest error, None if there was nothing to try.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> found = pb.gradcheck(lambda model, x: model(x).tanh().mean(), pb.nn.Linear(3, 2), np.ones((4, 3)))
        >>> bool(found), sorted(found.errors)
        (True, ['bias', 'weight'])
    """

    ok: bool
    errors: dict[str, float]
    rtol: float
    worst: tuple[str, tuple[int, ...], float, float] | None

    def __bool__(self) -> bool:
        return self.ok


def gradcheck(
    objective: Callable[..., Any],
    model: Module,
    *args: Any,
    eps: float = 1e-3,
    rtol: float = 1e-6,
    samples: int = 24,
    training: bool = True,
    seed: int = 0,
) -> GradCheck:
    """Compare analytic gradients with numerical ones, in float64 on a copy of the model.

    The numerical derivative is the four-point central difference
    ``(f(w-2h) - 8 f(w-h) + 8 f(w+h) - f(w+2h)) / 12h`` with ``h = eps * max(1, |w|)``, whose error falls with ``h**4``
    (Abramowitz and Stegun, 25.3.6). Where it disagrees it is taken again with a hundredth of ``h``, so that a kink
    close to the point (a ReLU near 0) is not mistaken for a wrong gradient.

    Args:
        objective: as in :func:`value_and_grad`.
        model: the Module; it is not changed.
        args: the objective's arrays; floats are cast to float64.
        eps: relative step. Default 1e-3.
        rtol: largest accepted error relative to the parameter's largest gradient. Default 1e-6.
        samples: coordinates tried in each parameter, picked at random by ``seed``. Default 24.
        training: check the training program. Default True.
        seed: of dropout, the same in all evaluations, and of the choice of coordinates.

    Returns:
        A :class:`GradCheck`; true if all errors are at most ``rtol``.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> model = pb.nn.Linear(3, 2)
        >>> pb.gradcheck(lambda model, x: (model(x) ** 2).mean(), model, np.ones((4, 3))).ok
        True
    """
    twin = copy.deepcopy(model)
    twin = twin.astype("float64") or twin
    differentiated = _Differentiated(objective, twin, training, keep=False)
    parameters = dict(twin.named_parameters())
    built, _, gradients, _ = differentiated(args, (), seed)
    rng = np.random.default_rng(seed)

    errors: dict[str, float] = {}
    worst: tuple[str, tuple[int, ...], float, float] | None = None
    for name, gradient in zip(built.names, gradients, strict=True):
        handle = parameters[name]
        values = np.array(handle.numpy(), np.float64)
        if isinstance(gradient, tuple):
            rows, touched = gradient
            gradient = np.zeros_like(values)
            gradient[rows] = touched

        def loss(index: tuple[int, ...], value: float, handle: Any = handle, values: np.ndarray = values) -> float:
            moved = values.copy()
            moved[index] = value
            handle.assign(moved)
            return float(differentiated(args, (), seed)[1][0])

        def difference(index: tuple[int, ...], h: float, loss: Any = loss, values: np.ndarray = values) -> float:
            w = values[index]
            return (
                loss(index, w - 2 * h) - 8 * loss(index, w - h) + 8 * loss(index, w + h) - loss(index, w + 2 * h)
            ) / (12 * h)

        # Rounding of the loss, about 1e-16 / h, is the least error there can be, also where every gradient is 0.
        scale = max(float(np.abs(gradient).max(initial=0.0)), 1e-6)
        errors[name] = 0.0
        for flat in rng.permutation(values.size)[:samples]:
            index = tuple(int(i) for i in np.unravel_index(int(flat), values.shape))
            h = eps * max(1.0, abs(float(values[index])))
            tries = [difference(index, h)]
            if abs(tries[0] - gradient[index]) > rtol * scale:
                tries.append(difference(index, h / 100))
            analytic = float(gradient[index])
            misses = [abs(d - analytic) for d in tries]
            error = min(misses) / scale
            if worst is None or error > max(errors.values()):
                worst = (name, index, analytic, tries[misses.index(min(misses))])
            errors[name] = max(errors[name], error) if error == error else float("inf")
        handle.assign(values)
    return GradCheck(all(e <= rtol for e in errors.values()), errors, rtol, worst)
