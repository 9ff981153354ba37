"""What ``Module.summary`` gives: the modules with their shapes and sizes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .._cost import multiply_adds
from .._text_table import Table, size
from .._trace import Spec, Traced, flatten, spec_of, trace, unflatten
from .module import Module
from .parameter import Parameter, Stored


class Layer(NamedTuple):
    """A module in a :class:`Summary`; numbers are of the module itself, without the modules inside.

    Attributes:
        name: dotted name, ``""`` for the model.
        kind: its class.
        depth: how many modules it is inside of.
        output: shape of what its first call gives, as a tuple or nested tuples, lists and dicts of them; None if it is
            not called.
        parameters: numbers in its parameters; a tied Parameter counts where it comes first.
        trainable: so many of them are.
        bytes: of its parameters, its buffers and its first output.
        multiply_adds: of the matrix products in its ``forward``, all calls together.
        leaf: whether it has no modules inside.
    """

    name: str
    kind: str
    depth: int
    output: Any
    parameters: int
    trainable: int
    bytes: int
    multiply_adds: int
    leaf: bool


class Summary:
    """A model's modules, and their sums; ``str`` and notebooks show it as a table.

    Attributes:
        layers: a :class:`Layer` each, in the order of the tree.
        inputs: the shapes it was made for, as given; None if there were none.
        parameters, trainable: numbers in the model's parameters, and how many of them are trainable.
        parameter_bytes: of parameters and buffers.
        working_bytes: the memory that one inference call with these inputs works in, outputs of layers included where
            they are needed; as planned, so that values share it. None without inputs.
        multiply_adds: of one inference call, in matrix products; None without inputs. A training step does about three
            times as many.
    """

    def __init__(self, layers: list[Layer], stored: list[Stored], inputs: Any, working_bytes: int | None) -> None:
        self.layers, self.inputs, self.working_bytes = layers, inputs, working_bytes
        parameters = [p for p in stored if isinstance(p, Parameter)]
        self.parameters = sum(p.size for p in parameters)
        self.trainable = sum(p.size for p in parameters if p.trainable)
        self.parameter_bytes = sum(_bytes(s) for s in stored)
        self.multiply_adds = None if inputs is None else sum(layer.multiply_adds for layer in layers)

    def _table(self) -> Table:
        rows = []
        for layer in self.layers:
            own = layer.leaf or layer.parameters
            short = layer.name.rsplit(".", 1)[-1]
            rows.append(
                (
                    "  " * layer.depth + (f"({short}): " if short else "") + layer.kind,
                    "-" if layer.output is None else str(layer.output),
                    f"{layer.parameters:,}" if own else "",
                    _trainable(layer),
                    size(layer.bytes) if own else "",
                    f"{layer.multiply_adds:,}" if self.inputs is not None and (own or layer.multiply_adds) else "",
                )
            )
        frozen = self.parameters - self.trainable
        below = [
            f"{self.parameters:,} parameters: {self.trainable:,} trainable, {frozen:,} frozen; "
            f"{size(self.parameter_bytes)} with buffers"
        ]
        if self.inputs is None:
            below.append("shapes are unknown before a call: give them, as in summary((batch, features))")
        else:
            below.append(
                f"a call with inputs {self.inputs}: {self.multiply_adds:,} multiply-adds, "
                f"{size(self.working_bytes or 0)} of working memory"
            )
        head = ("Module", "Output shape", "Parameters", "Trainable", "Memory", "Multiply-adds")
        return Table(head, rows, (2, 4, 5), below=below)

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html()


def _trainable(layer: Layer) -> str:
    if not layer.parameters:
        return ""
    return "yes" if layer.trainable == layer.parameters else "in part" if layer.trainable else "frozen"


def summarize(model: Module, inputs: tuple[Any, ...]) -> Summary:
    """See ``Module.summary``."""
    given: Any = (tuple(_spec(x) for x in inputs), {}) if inputs else model.__dict__.get("_last_specs")
    stored: list[Stored] = [*model.parameters(), *model.buffers()]
    outputs: dict[int, Any] = {}
    sizes: dict[int, int] = {}
    work: dict[int | None, int] = defaultdict(int)
    shown = working_bytes = None
    if given is not None:
        traced = _trace(model, given, next((s.dtype.name for s in stored if s.dtype.kind == "f"), "float32"))
        width = np.dtype(traced.graph.dtype).itemsize
        for module, output in traced.calls:
            leaves, tree = flatten(output)
            outputs.setdefault(id(module), unflatten(tree, [leaf.shape for leaf in leaves]))
            sizes.setdefault(id(module), sum(leaf.size * width for leaf in leaves))
        shape = traced.graph.shape
        for node in traced.nodes:
            work[node.module] += multiply_adds(node.op, [shape(v) for v in node.inputs], shape(node.outputs[0]))
        working_bytes = _core.Program(traced.graph, traced.output_values()[0]).arena_bytes
        shown = _shown(given)
    layers: list[Layer] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [s for s in (*module.parameters(recurse=False), *module.buffers(recurse=False)) if id(s) not in seen]
        seen.update(map(id, own))
        parameters = [s for s in own if isinstance(s, Parameter)]
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                depth=name.count(".") + bool(name),
                output=outputs.get(id(module)),
                parameters=sum(p.size for p in parameters),
                trainable=sum(p.size for p in parameters if p.trainable),
                bytes=sum(map(_bytes, own)) + sizes.get(id(module), 0),
                multiply_adds=work[id(module)],
                leaf=next(module.children(), None) is None,
            )
        )
    return Summary(layers, stored, shown, working_bytes)


def _bytes(stored: Stored) -> int:
    return stored.size * stored.dtype.itemsize


def _trace(model: Module, given: tuple[Any, Any], dtype: str) -> Traced:
    """The inference program for these arguments; what is no Spec among them is part of it."""
    leaves, tree = flatten(given)
    specs = tuple(leaf for leaf in leaves if isinstance(leaf, Spec))

    def call(model: Module, *tensors: Any) -> Any:
        free = iter(tensors)
        args, kwargs = unflatten(tree, [next(free) if isinstance(leaf, Spec) else leaf for leaf in leaves])
        return model(*args, **kwargs)

    return trace(call, model, specs, dtype=dtype, place="")


def _spec(x: Any) -> Any:
    if isinstance(x, Spec):
        return x
    if isinstance(x, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in x):
        return Spec(tuple(int(n) for n in x))
    leaves, tree = flatten(x)
    return unflatten(tree, [spec_of(leaf) for leaf in leaves])


def _shown(given: tuple[Any, Any]) -> Any:
    """The arguments as shapes; the only one stands alone."""
    leaves, tree = flatten(given)
    args, kwargs = unflatten(tree, [leaf.shape if isinstance(leaf, Spec) else leaf for leaf in leaves])
    if kwargs:
        return {**dict(enumerate(args)), **kwargs}
    return args[0] if len(args) == 1 else args
