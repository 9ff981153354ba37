"""From an objective, a function of a model and arrays that gives a scalar, to a traced graph with its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._tensor import Tensor
from .._trace import Traced, flatten, spec_of, trace, unflatten
from ..data.arrays import map_leaves


class Objective(NamedTuple):
    """A traced objective: value ids of the loss and of the named extras beside it."""

    traced: Traced
    loss: int
    extras: dict[str, int]

    @property
    def outputs(self) -> list[int]:
        """The loss, then the extras."""
        return [self.loss, *self.extras.values()]


def model_dtype(model: Any) -> str:
    """The dtype of a model's parameters; float32 if it has none."""
    for _, parameter in model.named_parameters():
        return str(np.dtype(parameter.dtype))
    return "float32"


def trace_objective(
    objective: Callable[..., Any],
    model: Any,
    specs: Any,
    *,
    dtype: str,
    training: bool,
    precision: str = "float32",
    isa: str | None = None,
) -> Objective:
    """Trace ``objective(model, *args)`` for arguments of these specs.

    Raises:
        TypeError: it returns neither a Tensor nor (Tensor, dict of Tensors).
        ValueError: the loss or an extra is no scalar, or a shape rule fails inside.
    """
    name = getattr(objective, "__name__", "objective")
    if not name.isidentifier() or name.startswith("_"):  # a lambda, or the Trainer's own
        name = "objective"
    extras: dict[str, Any] = {}

    def checked(*args: Any) -> Any:
        result = objective(*args)
        loss = result
        if isinstance(result, tuple):
            if len(result) != 2 or not isinstance(result[1], dict):
                raise TypeError(
                    f"{name} must return a scalar Tensor or (scalar, {{name: scalar}}), got a tuple of {len(result)}"
                )
            loss = result[0]
            extras.update(result[1])
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"{name} must return a scalar Tensor or (scalar, {{name: scalar}}), got {type(loss).__name__}"
            )
        for label, value in {"the loss": loss, **extras}.items():
            if tuple(getattr(value, "shape", ())) != ():
                what = label if value is loss else f"the extra {label!r}"
                raise ValueError(
                    f"{name} must return scalars, but {what} has shape {tuple(value.shape)}: use .mean() or .sum()"
                )
        return (loss, *extras.values())

    traced = trace(checked, model, specs, dtype=dtype, training=training, precision=precision, isa=isa, place=name)
    values, _ = traced.output_values()
    return Objective(traced, values[0], dict(zip(extras, values[1:], strict=True)))


def argument_specs(args: tuple[Any, ...]) -> tuple[tuple[np.ndarray, ...], Any]:
    """The arrays among (nested) arguments in flattened order, and Specs in the arguments' structure.

    Tuples and dicts are structure; lists are data.

    Raises:
        TypeError: an argument does not hold numbers.
    """
    args = map_leaves(args, np.asarray)
    leaves, tree = flatten(args)
    return tuple(leaves), unflatten(tree, [spec_of(a) for a in leaves])
