"""Tensor, which stands for an array while a model is traced, and the operators it shares with Parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ._tracer import Tracer, current, prefix


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

    # NumPy asks here first, for its functions and for ``array + tensor``.
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if current() is None and not any(isinstance(x, Tensor) for x in inputs):
            return getattr(ufunc, method)(*_as_arrays(inputs), **options)
        name = _UFUNCS.get(ufunc.__name__)
        if name is None or method != "__call__" or options:
            raise _refusal(ufunc.__name__)
        return getattr(ops, name)(*inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if current() is not None or any(issubclass(t, Tensor) for t in types):
            raise _refusal(func.__name__)
        return func(*_as_arrays(args), **_as_arrays(kwargs))

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

    def detach(self) -> Any:
        """``ops.stop_gradient``: the same value, taken as a constant by backward."""
        return ops.stop_gradient(self)

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


# What the operators of an array on the left call.
_UFUNCS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "power": "pow",
    "matmul": "matmul",
    "greater": "greater",
    "less": "less",
    "greater_equal": "greater_equal",
    "less_equal": "less_equal",
    "equal": "equal",
    "not_equal": "not_equal",
}


def _refusal(name: str) -> TypeError:
    instead = f"ops.{name}" if name in ops.__all__ else "the functions of pybackprop.ops"
    return TypeError(f"{prefix('Tensor')}NumPy's {name} cannot be traced: use {instead} instead")


def _as_arrays(x: Any) -> Any:
    """Arrays in place of Parameters, also inside of sequences."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(_as_arrays, x))
    if isinstance(x, dict):
        return {key: _as_arrays(value) for key, value in x.items()}
    return np.asarray(x) if isinstance(x, Operators) else x


class Tensor(Operators):
    """Stands for an array while a model is traced: it has a shape and a dtype, and no values.

    ``forward`` is run once for each set of input shapes, on Tensors; what it does with them becomes the program that is
    then run on arrays. Shapes are plain integers, so Python's ``if`` and ``for`` work on them. Arithmetic, comparisons
    (``==`` too, element by element), indexing with integers, slices, ``...``, ``None`` and integer arrays, and the
    methods here are traced; numbers and NumPy arrays mix in as constants.

    >>> import numpy as np, pybackprop as pb
    >>> class Centre(pb.nn.Module):
    ...     def forward(self, x):
    ...         print(x)
    ...         return x - x.mean(dim=1, keepdim=True)
    >>> Centre()(np.array([[1.0, 3.0]], np.float32))
    Tensor(shape=(1, 2), dtype=float32)
    array([[-1.,  1.]], dtype=float32)
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
            f"{prefix('Tensor')}a Tensor has no truth value while the model is being traced: use "
            "ops.where(condition, a, b) instead of `if`, `and`, `or` and `not`"
        )

    def _no_value(self) -> TypeError:
        return TypeError(
            f"{prefix('Tensor')}a Tensor has no value while the model is being traced, so it cannot become a number or "
            "a NumPy array: compute with the functions of pybackprop.ops, or write a pb.Function for work on arrays"
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
            f"{prefix('Tensor')}a Tensor cannot be written in place: build a new one with ops.where(condition, a, b) "
            "or ops.concat"
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
