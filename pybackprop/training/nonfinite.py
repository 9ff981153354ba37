"""Why a batch gave NaN or infinity: found by running it once more with every number kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._tracer import Node
from .objective import model_dtype, trace_objective

if TYPE_CHECKING:
    from .step import TrainStep

_LARGE = 1e4  # numbers beyond this are named as a likely cause


class NonFiniteError(FloatingPointError):
    """A training step met NaN or infinity, and was not applied.

    Attributes:
        loss: of the batch; finite if it was a gradient that is not. NaN from :meth:`TrainStep.update`.
        epoch, batch: where in ``fit``, both counted from 0; None outside of it.
        layer: what made the first number that is not finite, as messages name it: ``"Sequential[2] (log)"``. None if
            running the batch once more did not show it.
        direction: ``"forward"`` or ``"backward"``, None as above.
        input_range: (least, largest) finite number among the layer's input, None as above or if it has none.
        applied_in_part: the loss was finite and a gradient was not, in a network of 4096 parameters or more, without
            ``clip_norm`` and ``accumulate``: parameters are updated during the backward pass there, so those elements
            whose gradient was finite have been updated. None of them is NaN.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> step = pb.TrainStep(lambda model, x: model(x).log().mean(), nn.Linear(1, 1, bias=False), optim.SGD(lr=0.1))
        >>> try:
        ...     loss = step(np.zeros((2, 1)))
        ... except pb.NonFiniteError as error:
        ...     print(error.layer, error.direction, error.input_range)
        objective (log) forward (0.0, 0.0)
    """

    loss: float = float("nan")
    epoch: int | None = None
    batch: int | None = None
    layer: str | None = None
    direction: str | None = None
    input_range: tuple[float, float] | None = None
    applied_in_part: bool = False


@dataclass
class Found:
    """The first number on the way to the loss, or back from it, that is not finite."""

    layer: str
    direction: str
    input_range: tuple[float, float] | None
    cause: str


def explain(
    step: TrainStep,
    refusal: tuple[str, float, int, int, int, int],
    args: tuple[Any, ...] | None,
    inputs: Sequence[Any] = (),
    specs: tuple[Any, ...] | None = None,
    names: Sequence[str] = (),
    epoch: int | None = None,
    batch: int | None = None,
) -> NonFiniteError:
    """The error for a batch that the stepper has refused.

    Args:
        refusal: what the stepper says of it.
        args: the objective's arguments; or, if None,
        inputs, specs: its arrays, flattened, and their Specs. Without either the batch is not run again.
        names: what to call the arrays.
    """
    why, loss, _, seed, number, row0 = refusal
    found = None
    failure: Exception | None = None
    try:
        if args is not None:
            inputs, specs = step.argument_specs(args)
        if specs is not None:
            found = _Replay(step, inputs, specs, names, (seed, number, row0)).find(why == "loss")
    except Exception as error:  # an op written in Python may fail the second time: the report must not
        failure = error
    parts = [f"epoch {epoch}, batch {batch} (counted from 0)" if epoch is not None else f"training step {number}"]
    if why == "loss":
        parts.append(f": the loss is {loss}")
    elif loss == loss:
        parts.append(f": the loss is {loss:.6g}, but its gradient is not finite")
    else:
        parts.append(": the gradient is not finite")
    if found is not None:
        parts.append(f", first in the {found.direction} pass of {found.layer}")
        if found.input_range is not None:
            parts.append(", whose input lies between {:.6g} and {:.6g}".format(*found.input_range))
        parts.append(f"; {found.cause}")
    else:
        parts.append("; running the batch once more did not show where")
    if why == "piece":
        parts.append("; the parameters whose gradient is finite were updated, the others were not")
    else:
        parts.append("; the batch was not applied")
    told = NonFiniteError("".join(parts))
    told.loss, told.epoch, told.batch, told.applied_in_part = loss, epoch, batch, why == "piece"
    if found is not None:
        told.layer, told.direction, told.input_range = found.layer, found.direction, found.input_range
    told.__cause__ = failure
    return told


def not_finite_data(error: ValueError, epoch: int, batch: int) -> NonFiniteError:
    """The error for a batch that was refused when it came."""
    told = NonFiniteError(f"epoch {epoch}, batch {batch} (counted from 0): {error}; the batch was not applied")
    told.epoch, told.batch = epoch, batch
    return told


def finite_model(model: Any) -> bool:
    """Whether all parameters and running statistics of a model are finite."""
    return all(np.isfinite(array).all() for array in model.state_dict().values() if array.dtype.kind == "f")


class _Replay:
    """The refused batch once more, with the same random numbers, and every value and gradient kept."""

    def __init__(
        self,
        step: TrainStep,
        inputs: Sequence[Any],
        specs: tuple[Any, ...],
        names: Sequence[str],
        position: tuple[int, int, int],
    ) -> None:
        dtype = model_dtype(step.model)
        objective = trace_objective(
            step.objective, step.model, specs, dtype=dtype, training=True, precision=step.precision, isa=step.isa
        )
        traced = objective.traced
        self.graph, self.loss = traced.graph, objective.loss
        self.nodes = self._before_the_loss(traced.nodes)
        self.producer = {value: node for node in self.nodes for value in node.outputs}
        kept = [v for v in self.producer if not self.graph.is_integer(v)]
        trained = {value: param for param, value, trainable in traced.params.values() if trainable}
        program = _core.Program(
            self.graph, [self.loss], loss=self.loss, wrt=list(trained), keep=kept, threads=step.threads
        )
        seed, self.number, row0 = position
        _, gradients, pairs = program.run(tuple(inputs), seed, self.number, row0)
        self.params = {value: param.numpy() for param, value, _ in traced.params.values()}
        self.params |= {value: param.numpy() for param, value in traced.buffers.values()}
        with np.errstate(over="ignore"):
            self.data = {
                value: np.asarray(array, None if self.graph.is_integer(value) else dtype)
                for value, array in zip(traced.inputs, inputs, strict=True)
            }
        self.names = dict(zip(traced.inputs, names, strict=False))
        self.values = {**self.params, **self.data, **dict(zip(kept, (value for value, _ in pairs), strict=True))}
        self.gradients = dict(zip(kept, (gradient for _, gradient in pairs), strict=True))
        self.gradients |= dict(zip(trained, [g[1] if isinstance(g, tuple) else g for g in gradients], strict=True))

    def find(self, in_loss: bool) -> Found | None:
        """Where it began, or None if every number is finite this time."""
        if not self._finite(self.loss):
            return self._forward()
        return None if in_loss else self._backward()

    def _before_the_loss(self, nodes: list[Node]) -> list[Node]:
        needed, chosen = {self.loss}, []
        for node in reversed(nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                chosen.append(node)
        return chosen[::-1]

    def _finite(self, value: int) -> bool:
        array = self.values.get(value)
        return array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())

    def _bad_gradient(self, value: int) -> bool:
        array = self.gradients.get(value)
        return array is not None and not np.isfinite(array).all()

    def _forward(self) -> Found | None:
        # From the loss back along numbers that are not finite: others may be there that never reach it.
        value = self.loss
        while value in self.producer:
            node = self.producer[value]
            bad = [v for v in node.inputs if not self._finite(v)]
            if not bad:
                return self._found(node, "forward", self._forward_cause(node))
            value = bad[0]
            if value not in self.producer:
                if value in self.data:
                    cause = (
                        f"{self._name(value)} holds numbers that are not finite: clean the data, or scale what is "
                        f"beyond {self._dtype_name()}"
                    )
                else:
                    cause = f"{self.graph.describe(value)} was not finite before, " + (
                        "so the learning rate is probably too high: lower it, or set clip_norm"
                        if self.number
                        else "and no update has made it so: it was loaded or set"
                    )
                return self._found(node, "forward", cause)
        return None

    def _backward(self) -> Found | None:
        # From a parameter towards the loss, as long as the gradient that arrives is not finite.
        bad = [value for value in self.params if self._bad_gradient(value)]
        if not bad:
            return None
        value = bad[0]
        while True:
            readers = [node for node in self.nodes if value in node.inputs]
            if not readers:
                return None
            origin = next((n for n in readers if not any(map(self._bad_gradient, n.outputs))), None)
            if origin is not None:
                return self._found(origin, "backward", self._backward_cause(origin))
            value = next(v for v in readers[-1].outputs if self._bad_gradient(v))

    def _found(self, node: Node, direction: str, cause: str) -> Found:
        layer = self.graph.describe(node.outputs[0])
        return Found(layer, direction, self._range(self._main_input(node)), cause)

    def _main_input(self, node: Node) -> int | None:
        known = [v for v in node.inputs if v in self.values and self.values[v].dtype.kind == "f"]
        return next((v for v in known if v not in self.params), known[0] if known else None)

    def _range(self, value: int | None) -> tuple[float, float] | None:
        array = None if value is None else self.values.get(value)
        if array is None:
            return None
        finite = array[np.isfinite(array)]
        return (float(finite.min()), float(finite.max())) if finite.size else None

    def _largest(self, values: Any) -> tuple[float, int]:
        """Of the finite numbers, and whose it is."""
        best = (0.0, -1)
        for value in values:
            limits = self._range(value) if self.values[value].dtype.kind == "f" else None
            if limits is not None:
                best = max(best, (max(-limits[0], limits[1]), value))
        return best

    def _name(self, value: int) -> str:
        return self.names.get(value) or self.graph.describe(value)

    def _dtype_name(self) -> str:
        return self.graph.dtype

    def _forward_cause(self, node: Node) -> str:
        low, high = self._range(self._main_input(node)) or (0.0, 0.0)
        if node.op == "log" and low <= 0:
            what = "zero" if low == 0 else "a negative number"
            return f"the logarithm of {what}: keep its argument above 0, as by adding a small number"
        if node.op == "sqrt" and low < 0:
            return "the square root of a negative number"
        if node.op == "div" and self._holds_zero(node.inputs[1]):
            return "a division by zero: keep the divisor away from 0, as by adding a small number"
        if node.op == "exp" and high > 80:
            return "exp overflows: bound its argument, or use a loss that takes logits"
        if sizes := self._size_cause():
            return sizes
        if node.op in ("pow", "power") and low <= 0:
            return "a power that has no value at zero or negative numbers"
        return self._own_cause(node, "forward") or "0 / 0, as where a batch's weights sum to 0, or an overflow"

    def _backward_cause(self, node: Node) -> str:
        low, _ = self._range(self._main_input(node)) or (1.0, 1.0)
        if node.op in ("sqrt", "pow", "power", "log") and low <= 0:
            return f"the derivative of {node.op} is infinite at 0: add a small number to its argument"
        if node.op == "div" and self._holds_zero(node.inputs[1]):
            return "the derivative of a division by zero: keep the divisor away from 0"
        return self._own_cause(node, "backward") or self._size_cause() or "its derivative overflows: use clip_norm"

    def _holds_zero(self, value: int) -> bool:
        array = self.values.get(value)
        return array is not None and bool((array == 0).any())

    def _own_cause(self, node: Node, method: str) -> str:
        if node.op not in _core.op_names():
            return f"{node.op}.{method}, an op written in Python, gave it"
        return ""

    def _size_cause(self) -> str:
        weight, which = self._largest(self.params)
        if weight > _LARGE:
            return (
                f"{self.graph.describe(which)} has grown to {weight:.3g}, so the learning rate is probably too high: "
                "lower it, or set clip_norm"
            )
        reached, which = self._largest(self.data)
        if reached > _LARGE:
            return f"{self._name(which)} reaches {reached:.3g}: scale it, as to mean 0 and standard deviation 1"
        reached, which = self._largest(v for v in self.producer if v in self.values)
        if reached > _LARGE:
            return (
                f"{self.graph.describe(which)} reaches {reached:.3g}, so activations explode: lower the learning rate, "
                "or add a norm layer"
            )
        return ""
