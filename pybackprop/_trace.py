"""From a Python function of Tensors to a graph, for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core
from ._precision import check_precision
from ._tensor import Operators, Tensor
from ._tracer import Node, Tracer, tracing

if TYPE_CHECKING:
    from .nn.module import Module


class Spec(NamedTuple):
    """What a program knows of an input: its shape, and whether it holds integers (labels, ids)."""

    shape: tuple[int, ...]
    integer: bool = False


def spec_of(array: Any) -> Spec:
    """The Spec of an array: integers stay integers, booleans are numbers 0 and 1.

    Raises:
        TypeError: the array does not hold numbers.
    """
    if not isinstance(array, np.ndarray):
        array = np.asarray(array)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise TypeError(f"expected an array of numbers, got one of dtype {array.dtype}")
    return Spec(array.shape, kind in "iu")


def specs_of(structure: Any) -> Any:
    """Nested arguments with a Spec for each array and Tensor; None if there is more in them than numbers."""
    leaves, tree = flatten(structure)
    specs: list[Any] = []
    for x in leaves:
        if isinstance(x, Tensor):
            specs.append(Spec(x.shape, x._integer))
        elif isinstance(x, np.ndarray) and x.dtype.kind in "fiub":
            specs.append(spec_of(x))
        elif isinstance(x, (int, float, np.generic)):
            specs.append(x)
        else:
            return None
    return unflatten(tree, specs)


# Nested arguments. A hashable tree describes a structure: ARRAY for a leaf, ("static", value) for what is no array.
ARRAY = "array"


def flatten(structure: Any) -> tuple[list[Any], Any]:
    """The leaves of nested tuples, lists and dicts, and the tree that ``unflatten`` needs to build the structure again.

    ``None``, booleans and strings are no leaves: they stay in the tree. A list of numbers, nested or not, is one leaf:
    it stands for an array.
    """
    leaves: list[Any] = []
    return leaves, _flatten(structure, leaves)


def _flatten(x: Any, leaves: list[Any]) -> Any:
    if isinstance(x, (tuple, list)) and not isinstance(x, Spec) and not _is_array_like(x):
        return (type(x), tuple([_flatten(item, leaves) for item in x]))
    if isinstance(x, dict):
        return (dict, tuple(x), tuple([_flatten(item, leaves) for item in x.values()]))
    if x is None or isinstance(x, (bool, str)):
        return ("static", x)
    leaves.append(x)
    return ARRAY


def _is_array_like(x: Any) -> bool:
    is_list = isinstance(x, list)
    while isinstance(x, list) and x:
        x = x[0]
    return is_list and isinstance(x, (int, float, np.number, np.bool_))


def unflatten(tree: Any, leaves: Any) -> Any:
    """The structure with these leaves in their places."""
    return _unflatten(tree, iter(leaves))


def _unflatten(tree: Any, leaves: Any) -> Any:
    if tree is ARRAY:
        return next(leaves)
    kind = tree[0]
    if kind == "static":
        return tree[1]
    if kind is dict:
        return {key: _unflatten(item, leaves) for key, item in zip(tree[1], tree[2], strict=True)}
    items = [_unflatten(item, leaves) for item in tree[1]]
    if kind in (list, tuple):
        return kind(items)
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


@dataclass
class Traced:
    """A function written down as a graph.

    ``inputs`` are the value ids of the inputs in flattened argument order, ``params`` maps the dotted name of every
    parameter of the model that was used to (core Param, value id, trainable), ``buffers`` likewise to (core Param,
    value id), ``outputs`` is what the function returned, with Tensors as leaves, and ``names`` maps the names of
    activations (dotted names of modules, with ``#2`` at a second call) to value ids. ``calls`` lists the modules called
    with what they returned, ``nodes`` all operations.
    """

    graph: _core.Graph
    inputs: list[int]
    params: dict[str, tuple[_core.Param, int, bool]]
    buffers: dict[str, tuple[_core.Param, int]]
    outputs: Any
    names: dict[str, int]
    calls: list[tuple[Module, Any]]
    nodes: list[Node]
    random_nodes: int

    def output_values(self) -> tuple[list[int], Any]:
        """Value ids of the outputs' leaves, and the tree to give the results their structure."""
        leaves, tree = flatten(self.outputs)
        return [leaf._value for leaf in leaves], tree


def trace(
    fn: Callable[..., Any],
    model: Module | None,
    specs: Any,
    *,
    dtype: str = "float32",
    training: bool = False,
    precision: str = "float32",
    isa: str | None = None,
    place: str | None = None,
) -> Traced:
    """Run ``fn(model, *args)`` on Tensors and write down what it computes.

    Args:
        fn: called as ``fn(model, *args)``, or ``fn(*args)`` if ``model`` is None.
        model: the Module whose parameters may be trained. Modules outside of it are used with their present and future
            values, and never trained.
        specs: a tuple with one entry for each argument, nested tuples, lists and dicts of ``Spec``.
        dtype: ``"float32"`` or ``"float64"``.
        training: whether dropout drops and batch statistics are used.
        precision: of matrix products: ``"float32"`` for ``dtype`` itself, or ``"bf16"``.
        isa: an instruction set's name; None for the best this machine has.
        place: what messages call the function itself; None for its name.

    Raises:
        ValueError, TypeError: a mistake in the model, with its place.
        ValueError: this machine or ``dtype`` cannot have that precision.
    """
    check_precision(precision, dtype, isa)
    if place is None:
        name = getattr(fn, "__name__", "")
        place = name if name.isidentifier() else ""
    graph = _core.Graph(dtype, training, isa)
    tracer = Tracer(graph, model, place, precision)
    leaves, tree = flatten(specs)
    inputs = [graph.input(tuple(spec.shape), spec.integer) for spec in leaves]
    args = unflatten(tree, [Tensor(tracer, v) for v in inputs])
    with tracing(tracer):
        outputs = fn(*args) if model is None else fn(model, *args)
        outputs = lift_outputs(tracer, outputs, tracer.place or "the traced function")
    return Traced(
        graph,
        inputs,
        tracer.params,
        tracer.buffers,
        outputs,
        tracer.names,
        tracer.calls,
        tracer.nodes,
        tracer.random_nodes,
    )


def lift_outputs(tracer: Tracer, outputs: Any, who: str) -> Any:
    """What a traced function returned, with every leaf a Tensor."""
    if isinstance(outputs, Tensor):
        return outputs
    leaves, tree = flatten(outputs)
    for leaf in leaves:
        if not isinstance(leaf, (Operators, np.ndarray, np.generic, int, float)):
            raise TypeError(f"{who} must return Tensors, or tuples, lists or dicts of them, got {type(leaf).__name__}")
    if outputs is None or not leaves:
        raise TypeError(f"{who} returned {outputs!r}: it must return a Tensor, or a tuple, list or dict of Tensors")
    return unflatten(tree, [tracer.lift(leaf) for leaf in leaves])
