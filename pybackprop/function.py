"""Function: a differentiable operation written in Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._tensor import Tensor
from ._tracer import Tracer, current, prefix


class Function:
    """An operation of your own, on NumPy arrays, with its own derivative.

    Subclass it with three methods; an instance is called on Tensors in ``forward`` of a Module or in an objective, and
    on arrays anywhere. The methods are given copies, theirs to keep or to write in, of the program's dtype (labels and
    ids int64). An exception in a method ends the step before the update, with nothing changed. An instance is kept by
    the programs that use it, so what it remembers between ``forward`` and ``backward`` is shared by them.

    >>> import numpy as np
    >>> import pybackprop as pb
    >>> class Cube(pb.Function):
    ...     def shape(self, x):
    ...         return x
    ...     def forward(self, x):
    ...         return x**3
    ...     def backward(self, inputs, outputs, d_outputs):
    ...         return (3 * inputs[0] ** 2 * d_outputs[0],)
    >>> Cube()(np.array([2.0]))
    array([8.])
    """

    def shape(self, *shapes: tuple[int, ...]) -> Any:
        """Shape of the result from the inputs' shapes, or a list of shapes for several. May raise ValueError."""
        raise TypeError(f"{type(self).__name__} has no shape method: define shape(self, *shapes)")

    def forward(self, *arrays: np.ndarray) -> Any:
        """The result from the inputs: an array, or a tuple of arrays for several."""
        raise TypeError(f"{type(self).__name__} has no forward method: define forward(self, *arrays)")

    def backward(
        self, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...], d_outputs: tuple[np.ndarray | None, ...]
    ) -> Any:
        """One gradient for each input, None for zero.

        ``d_outputs`` holds the gradient of each result, None if the loss does not depend on it.
        """
        raise TypeError(
            f"{type(self).__name__} has no backward method: define backward(self, inputs, outputs, d_outputs)"
        )

    def __call__(self, *inputs: Any) -> Any:
        """Tensors from Tensors while tracing, arrays from arrays otherwise.

        Raises:
            ValueError: what ``shape`` raises, or a result has another shape than it said.
        """
        tracer = current()
        return self._run(inputs) if tracer is None else self._traced(tracer, inputs)

    def _traced(self, tracer: Tracer, inputs: tuple[Any, ...]) -> Any:
        name = type(self).__name__
        tensors = [tracer.lift(x, name, integer=getattr(x, "dtype", np.dtype(float)).kind in "iu") for x in inputs]
        try:
            given = self.shape(*[t.shape for t in tensors])
        except ValueError as error:
            raise ValueError(f"{prefix(name)}{error}") from error
        one = _is_shape(given)
        shapes = [given] if one else given
        if not isinstance(shapes, (tuple, list)) or not shapes or not all(map(_is_shape, shapes)):
            raise TypeError(f"{prefix(name)}shape must return a tuple of integers, or a list of them, got {given!r}")
        place = f"{tracer.place} ({name})" if tracer.place else name
        values = tracer.graph.function(
            self, [t._value for t in tensors], [[int(n) for n in shape] for shape in shapes], place
        )
        tracer.record(name, [t._value for t in tensors], values)
        results = tuple(Tensor(tracer, v) for v in values)
        return results[0] if one else results

    def _run(self, inputs: tuple[Any, ...]) -> Any:
        from ._trace import Spec, trace, unflatten
        from .nn.running import as_input, dtype_of

        dtype = dtype_of(list(inputs))
        arrays = tuple(as_input(x, dtype) for x in inputs)
        specs = tuple(Spec(a.shape, a.dtype.kind == "i") for a in arrays)
        traced = trace(self, None, specs, dtype=dtype)
        values, tree = traced.output_values()
        return unflatten(tree, _core.Program(traced.graph, values).run(arrays)[0])


def _is_shape(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and all(isinstance(n, (int, np.integer)) and n >= 0 for n in x)
