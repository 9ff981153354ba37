"""The trace that this thread is writing: a graph, and where in the user's model the writing is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from . import _core
    from .nn.module import Module


class Node(NamedTuple):
    """An operation as it was traced: ids of values in the graph, and ``id()`` of the module in whose forward it is."""

    op: str
    inputs: list[int]
    outputs: tuple[int, ...]
    module: int | None


class _Local(threading.local):
    tracer: Tracer | None = None


_local = _Local()


def current() -> Tracer | None:
    """The trace this thread is writing, if any."""
    return _local.tracer


@contextmanager
def tracing(tracer: Tracer) -> Iterator[Tracer]:
    """Makes ``tracer`` the current one."""
    outer, _local.tracer = _local.tracer, tracer
    try:
        yield tracer
    finally:
        _local.tracer = outer


def prefix(op: str) -> str:
    """``"[op] Sequential[1]: "``: how every message about an op begins."""
    place = _local.tracer.place if _local.tracer is not None else ""
    return f"[{op}] {place}: " if place else f"[{op}] "


class Tracer:
    """One trace: the graph being written, and where in the user's model the writing is.

    ``place`` names the function when no module is being called. Parameters are known by their dotted names in
    ``model``. ``precision`` is that of matrix products: ``"float32"`` for the graph's own dtype, or ``"bf16"``.
    """

    def __init__(self, graph: _core.Graph, model: Module | None, place: str = "", precision: str = "float32") -> None:
        self.graph = graph
        self.training: bool = graph.training
        self.precision = precision
        self.dtype = np.dtype(graph.dtype)
        self.params: dict[str, tuple[Any, int, bool]] = {}
        self.buffers: dict[str, tuple[Any, int]] = {}
        self.names: dict[str, int] = {}
        self.calls: list[tuple[Module, Any]] = []
        self.nodes: list[Node] = []
        self.random_nodes = 0
        self._base_place = place
        self._stack: list[Module] = []
        self._places: dict[int, tuple[str, str]] = {}  # id of a module -> (activation name, place)
        self._stored: dict[int, str] = {}  # id of a parameter or buffer -> dotted name
        self._own: set[int] = set()  # ids of the model's modules and parameters; all others are used frozen
        self._alive: list[Any] = []  # objects known by id must live as long as the trace
        self._scalars: dict[float, _tensor.Tensor] = {}
        if model is not None:
            self._adopt(model, own=True)

    @property
    def place(self) -> str:
        return self._places[id(self._stack[-1])][1] if self._stack else self._base_place

    def _adopt(self, root: Module, own: bool) -> None:
        name = type(root).__name__
        inside = f" in {self.place}" if self._stack else ""
        self._alive.append(root)
        for path, module in root.named_modules():
            place = name + "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in path.split(".") if p) + inside
            self._places.setdefault(id(module), ((path or name) if own else place, place))
            if own:
                self._own.add(id(module))
        for kind in (root.named_parameters(), root.named_buffers()):
            for path, stored in kind:
                self._stored.setdefault(id(stored), path if own else f"{name}.{path}")
                if own:
                    self._own.add(id(stored))

    def enter(self, module: Module) -> None:
        """``module`` is being called."""
        if id(module) not in self._places:
            self._adopt(module, own=False)
        self._stack.append(module)

    def leave(self) -> None:
        self._stack.pop()

    def name(self, module: Module, output: Any, leaves: list[Any]) -> None:
        """Remembers the Tensors that ``module`` gave."""
        base = self._places[id(module)][0]
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, _tensor.Tensor):
                self.add_name(base if len(leaves) == 1 else f"{base}[{i}]", leaf)
        self.calls.append((module, output))

    def add_name(self, name: str, tensor: _tensor.Tensor) -> None:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}#{count}"
        self.names[unique] = tensor._value

    def tensor(self, value: int) -> _tensor.Tensor:
        return _tensor.Tensor(self, value)

    def node(self, op: str, inputs: list[Any], **attrs: Any) -> Any:
        """Adds a node; gives a Tensor, or a tuple of them if the op has several outputs."""
        taken = [self.lift(x, op)._value for x in inputs]
        values = self.graph.node(op, taken, self.place, **attrs)
        self.record(op, taken, values)
        outputs = tuple(_tensor.Tensor(self, v) for v in values)
        return outputs[0] if len(outputs) == 1 else outputs

    def record(self, op: str, inputs: list[int], outputs: tuple[int, ...]) -> None:
        """Remembers a node that was added to the graph."""
        self.nodes.append(Node(op, inputs, outputs, id(self._stack[-1]) if self._stack else None))

    def lift(self, x: Any, op: str = "Tensor", integer: bool = False) -> _tensor.Tensor:
        """``x`` as a Tensor of this trace; numbers and arrays become constants, of integers if ``integer``."""
        if isinstance(x, _tensor.Tensor):
            if x._tracer is not self:
                raise ValueError(
                    f"{prefix(op)}a Tensor of an earlier trace is used again: forward must compute from its arguments, "
                    "not from Tensors kept elsewhere"
                )
            return x
        if isinstance(x, _tensor.Operators):
            return self._stored_value(x, op)
        if isinstance(x, (int, float)) and not integer:
            key = float(x)
            if key not in self._scalars or key != key or key == 0:  # -0.0 == 0.0: not shared
                self._scalars[key] = _tensor.Tensor(self, self.graph.constant(np.asarray(x, self.dtype)))
            return self._scalars[key]
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{prefix(op)}expects Tensors, arrays or numbers, got {type(x).__name__}")
        if integer and array.dtype.kind in "iu":
            return _tensor.Tensor(self, self.graph.constant(np.asarray(array, np.int64, order="C")))
        return _tensor.Tensor(self, self.graph.constant(np.asarray(array, self.dtype, order="C")))

    def _stored_value(self, x: Any, op: str) -> _tensor.Tensor:
        name = self._stored.get(id(x))
        outermost_is_own = not self._stack or id(self._stack[0]) in self._own
        if id(x) not in self._own and outermost_is_own:
            raise ValueError(
                f"{prefix(op)}a Parameter of shape {x.shape} is used that does not belong to the model: make it an "
                "attribute of one of the model's modules, and keep modules in nn.ModuleList or nn.ModuleDict, not in a "
                "list or dict"
            )
        if name is None:
            name = f"{self.place}.parameter"
        own = id(x) in self._own
        trainable = own and x.trainable
        value = self.graph.param(x._param, name, trainable)
        if x.trainable is None:
            self.buffers[name] = (x._param, value)
        elif own:
            self.params[name] = (x._param, value, trainable)
        return _tensor.Tensor(self, value)


# The two modules need each other; this one only when a trace is written.
from . import _tensor  # noqa: E402
