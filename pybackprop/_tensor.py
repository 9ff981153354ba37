"""The Tensor that stands for an array while a model is traced, and the trace it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from . import _core
    from .nn.module import Module


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
    ``model``.
    """

    def __init__(self, graph: _core.Graph, model: Module | None, place: str = "") -> None:
        self.graph = graph
        self.training: bool = graph.training
        self.dtype = np.dtype(graph.dtype)
        self.params: dict[str, tuple[Any, int, bool]] = {}
        self.buffers: dict[str, tuple[Any, int]] = {}
        self.names: dict[str, int] = {}
        self.calls: list[tuple[Module, Any]] = []
        self.random_nodes = 0
        self._base_place = place
        self._stack: list[Module] = []
        self._places: dict[int, tuple[str, str]] = {}  # id of a module -> (activation name, place)
        self._stored: dict[int, str] = {}  # id of a parameter or buffer -> dotted name
        self._own: set[int] = set()  # ids of the model's modules and parameters; all others are used frozen
        self._alive: list[Any] = []  # objects known by id must live as long as the trace
        self._scalars: dict[float, Tensor] = {}
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
            if isinstance(leaf, Tensor):
                self.add_name(base if len(leaves) == 1 else f"{base}[{i}]", leaf)
        self.calls.append((module, output))

    def add_name(self, name: str, tensor: Tensor) -> None:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}#{count}"
        self.names[unique] = tensor._value

    def tensor(self, value: int) -> Tensor:
        return Tensor(self, value)

    def node(self, op: str, inputs: list[Any], **attrs: Any) -> Any:
        """Adds a node; gives a Tensor, or a tuple of them if the op has several outputs."""
        values = self.graph.node(op, [self.lift(x, op)._value for x in inputs], self.place, **attrs)
        outputs = tuple(Tensor(self, v) for v in values)
        return outputs[0] if len(outputs) == 1 else outputs

    def lift(self, x: Any, op: str = "Tensor", integer: bool = False) -> Tensor:
        """``x`` as a Tensor of this trace; numbers and arrays become constants, of integers if ``integer``."""
        if isinstance(x, Tensor):
            if x._tracer is not self:
                raise ValueError(
                    f"{prefix(op)}a Tensor of an earlier trace is used again: forward must compute from its arguments, "
                    "not from Tensors kept elsewhere"
                )
            return x
        if isinstance(x, Operators):
            return self._stored_value(x, op)
        if isinstance(x, (int, float)) and not integer:
            key = float(x)
            if key not in self._scalars or key != key or key == 0:  # -0.0 == 0.0: not shared
                self._scalars[key] = Tensor(self, self.graph.constant(np.asarray(x, self.dtype)))
            return self._scalars[key]
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{prefix(op)}expects Tensors, arrays or numbers, got {type(x).__name__}")
        if integer and array.dtype.kind in "iu":
            return Tensor(self, self.graph.constant(np.asarray(array, np.int64, order="C")))
        return Tensor(self, self.graph.constant(np.asarray(array, self.dtype, order="C")))

    def _stored_value(self, x: Any, op: str) -> Tensor:
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
        return Tensor(self, value)


class Operators:
    """What Tensors and Parameters can do: operators and methods, each the function of the same name in ``ops``."""

    __slots__ = ()
    shape: tuple[int, ...]

    # Arithmetic.
    def __add__(self, other: Any) -> Any:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Any:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Any:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return ops.div(other, self)

    def __pow__(self, other: Any) -> Any:
        return ops.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return ops.pow(other, self)

    def __matmul__(self, other: Any) -> Any:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return ops.matmul(other, self)

    def __neg__(self) -> Any:
        return ops.neg(self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return ops.abs(self)

    # Comparisons give 0 and 1.
    def __gt__(self, other: Any) -> Any:
        return ops.greater(self, other)

    def __lt__(self, other: Any) -> Any:
        return ops.less(self, other)

    def __ge__(self, other: Any) -> Any:
        return ops.greater_equal(self, other)

    def __le__(self, other: Any) -> Any:
        return ops.less_equal(self, other)

    # Shape and elements.
    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def T(self) -> Any:
        """All dimensions in reverse order."""
        return ops.permute(self, tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a Tensor without dimensions has no len()")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        return ops.getitem(self, key)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # NumPy's functions, e.g. ``array + tensor`` and ``np.exp(tensor)``.
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if current() is None and not any(isinstance(x, Tensor) for x in inputs):
            return getattr(ufunc, method)(
                *(np.asarray(x) if isinstance(x, Operators) else x for x in inputs), **options
            )
        name = _UFUNCS.get(ufunc.__name__)
        if name is None or method != "__call__" or options:
            raise TypeError(
                f"{prefix('Tensor')}np.{ufunc.__name__} cannot be traced: use the functions of pybackprop.ops instead"
            )
        return getattr(ops, name)(*inputs)

    # Methods.
    def abs(self) -> Any:
        """``ops.abs``."""
        return ops.abs(self)

    def exp(self) -> Any:
        """``ops.exp``."""
        return ops.exp(self)

    def log(self) -> Any:
        """``ops.log``."""
        return ops.log(self)

    def sqrt(self) -> Any:
        """``ops.sqrt``."""
        return ops.sqrt(self)

    def square(self) -> Any:
        """``ops.square``."""
        return ops.square(self)

    def pow(self, exponent: Any) -> Any:
        """``ops.pow``."""
        return ops.pow(self, exponent)

    def clip(self, min: float | None = None, max: float | None = None) -> Any:
        """``ops.clip``."""
        return ops.clip(self, min, max)

    def relu(self) -> Any:
        """``ops.relu``."""
        return ops.relu(self)

    def gelu(self, approximate: str = "none") -> Any:
        """``ops.gelu``."""
        return ops.gelu(self, approximate)

    def silu(self) -> Any:
        """``ops.silu``."""
        return ops.silu(self)

    def tanh(self) -> Any:
        """``ops.tanh``."""
        return ops.tanh(self)

    def sigmoid(self) -> Any:
        """``ops.sigmoid``."""
        return ops.sigmoid(self)

    def softplus(self, beta: float = 1.0, threshold: float = 20.0) -> Any:
        """``ops.softplus``."""
        return ops.softplus(self, beta, threshold)

    def softmax(self, dim: int = -1, *, axis: int | None = None) -> Any:
        """``ops.softmax``."""
        return ops.softmax(self, dim, axis=axis)

    def log_softmax(self, dim: int = -1, *, axis: int | None = None) -> Any:
        """``ops.log_softmax``."""
        return ops.log_softmax(self, dim, axis=axis)

    def maximum(self, other: Any) -> Any:
        """``ops.maximum``."""
        return ops.maximum(self, other)

    def minimum(self, other: Any) -> Any:
        """``ops.minimum``."""
        return ops.minimum(self, other)

    def matmul(self, other: Any) -> Any:
        """``ops.matmul``."""
        return ops.matmul(self, other)

    def sum(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """``ops.sum``."""
        return ops.sum(self, dim, keepdim, axis=axis, keepdims=keepdims)

    def mean(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """``ops.mean``."""
        return ops.mean(self, dim, keepdim, axis=axis, keepdims=keepdims)

    def max(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """``ops.max``."""
        return ops.max(self, dim, keepdim, axis=axis, keepdims=keepdims)

    def min(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """``ops.min``."""
        return ops.min(self, dim, keepdim, axis=axis, keepdims=keepdims)

    def logsumexp(self, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        """``ops.logsumexp``."""
        return ops.logsumexp(self, dim, keepdim, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Any:
        """``ops.reshape``; the shape as one tuple or as several integers."""
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        """``ops.flatten``."""
        return ops.flatten(self, start_dim, end_dim)

    def squeeze(self, dim: Any = None) -> Any:
        """``ops.squeeze``."""
        return ops.squeeze(self, dim)

    def unsqueeze(self, dim: int) -> Any:
        """``ops.unsqueeze``."""
        return ops.unsqueeze(self, dim)

    def transpose(self, dim0: int, dim1: int) -> Any:
        """``ops.transpose``."""
        return ops.transpose(self, dim0, dim1)

    def permute(self, *dims: Any) -> Any:
        """``ops.permute``; the order as one tuple or as several integers."""
        return ops.permute(self, dims[0] if len(dims) == 1 else dims)

    def broadcast_to(self, *shape: Any) -> Any:
        """``ops.broadcast_to``; the shape as one tuple or as several integers."""
        return ops.broadcast_to(self, shape[0] if len(shape) == 1 else shape)


_UFUNCS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "power": "pow",
    "matmul": "matmul",
    "negative": "neg",
    "maximum": "maximum",
    "minimum": "minimum",
    "greater": "greater",
    "less": "less",
    "greater_equal": "greater_equal",
    "less_equal": "less_equal",
    "equal": "equal",
    "not_equal": "not_equal",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "square": "square",
    "tanh": "tanh",
    "absolute": "abs",
}


class Tensor(Operators):
    """Stands for an array while a model is traced: it has a shape and a dtype, and no values.

    ``forward`` is run once for each set of input shapes, on Tensors; what it does with them becomes the program that is
    then run on arrays. Shapes are plain integers, so Python's ``if`` and ``for`` work on them. Arithmetic, comparisons
    (``== `` too, element by element), indexing with integers, slices, ``...``, ``None`` and integer arrays, and the
    methods here are traced; numbers and NumPy arrays mix in as constants.
    """

    __slots__ = ("_integer", "_tracer", "_value", "shape")
    __hash__ = object.__hash__

    def __init__(self, tracer: Tracer, value: int) -> None:
        self._tracer = tracer
        self._value = value
        self._integer: bool = tracer.graph.is_integer(value)
        self.shape: tuple[int, ...] = tuple(tracer.graph.shape(value))

    @property
    def dtype(self) -> np.dtype[Any]:
        """``float32`` or ``float64``, the program's; ``int64`` for labels and ids."""
        return np.dtype(np.int64) if self._integer else self._tracer.dtype

    def named(self, name: str) -> Tensor:
        """This Tensor, shown under ``name`` by ``pb.inspect``."""
        self._tracer.add_name(name, self)
        return self

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype})"

    def __eq__(self, other: object) -> Any:
        return ops.equal(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return ops.not_equal(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __bool__(self) -> bool:
        raise TypeError(
            f"{prefix('Tensor')}a Tensor has no value while the model is being traced: use ops.where(condition, a, b) "
            "instead of `if`, `and`, `or` and `not`"
        )

    def _no_value(self) -> TypeError:
        return TypeError(
            f"{prefix('Tensor')}a Tensor has no value while the model is being traced: compute with the functions of "
            "pybackprop.ops, or write a pb.Function for work on arrays"
        )

    def __float__(self) -> float:
        raise self._no_value()

    def __int__(self) -> int:
        raise self._no_value()

    def __index__(self) -> int:
        raise self._no_value()

    def item(self) -> float:
        raise self._no_value()

    def numpy(self) -> np.ndarray:
        raise self._no_value()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise self._no_value()

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            f"{prefix('Tensor')}a Tensor cannot be written to: build a new one with ops.where(condition, a, b) or "
            "ops.concat"
        )

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        raise TypeError(f"{prefix('Tensor')}a Tensor cannot be copied: it lives only while the model is being traced")

    def __reduce__(self) -> Any:
        raise TypeError("a Tensor cannot be pickled: it lives only while the model is being traced")


_OPERANDS = (Operators, np.ndarray, np.generic, int, float)

# ops is written in terms of this module; the operators above need it only when they are used.
from . import ops  # noqa: E402
