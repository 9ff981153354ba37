"""Parameters and buffers: handles on arrays that live in the core's store."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from .. import _core
from .._tensor import Operators, Tensor
from .._tracer import current, prefix

Layout = Literal["dense", "linear"]
_FLOATS = ("float32", "float64")


def as_array(value: Any, dtype: Any, what: str) -> np.ndarray:
    """``value`` as a C-ordered array of ``dtype``; booleans and integers may become floats, not the other way."""
    if isinstance(value, Tensor):
        raise TypeError(
            f"{prefix('Tensor')}{what} cannot take a Tensor, which has no value while the model is being traced"
        )
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and np.dtype(dtype).kind != "f"):
        raise TypeError(f"{what} expects {np.dtype(dtype)} values, got dtype {array.dtype}")
    return np.asarray(array, dtype, order="C")


class Stored(Operators):
    """An array in the core's store. In a traced function it acts as a Tensor, elsewhere as a NumPy array."""

    __slots__ = ("__weakref__", "_param", "_stamp")
    trainable: bool | None = None

    def __init__(self, param: _core.Param) -> None:
        self._param = param
        self._stamp = _core.bump_version()

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Logical shape, whatever the layout in memory."""
        return tuple(self._param.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """``float32`` or ``float64``; a buffer may be ``int64``."""
        return np.dtype(self._param.dtype)

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        return self._param.numpy()

    def assign(self, value: Any) -> None:
        """Write new values in place.

        Raises:
            ValueError: ``value`` has another shape.
            TypeError: ``value`` does not hold numbers of this kind.
        """
        array = as_array(value, self.dtype, f"a {type(self).__name__}")
        if array.shape != self.shape:
            raise ValueError(f"a {type(self).__name__} of shape {self.shape} cannot take values of shape {array.shape}")
        self._param.assign(array)

    @property
    def _layout(self) -> Layout:
        return "linear" if self._param.layout == "linear" else "dense"

    def _convert(self, dtype: str) -> None:
        if self.dtype.kind == "f" and self.dtype != dtype:
            self._param = _core.Param(self.numpy().astype(dtype), self._layout, self._param.sparse)
            self._stamp = _core.bump_version()

    def item(self) -> float:
        """The value of a single element."""
        return self._values().item()

    def _values(self) -> np.ndarray:
        if current() is not None:
            raise TypeError(
                f"{prefix('Tensor')}a {type(self).__name__} has no value while the model is being traced: compute with "
                "the functions of pybackprop.ops, or take numpy() for a constant"
            )
        return self.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._values()
        return values if dtype is None else values.astype(dtype, copy=False)

    def __setitem__(self, key: Any, value: Any) -> None:
        values = self._values()
        values[key] = value
        self.assign(values)

    def __bool__(self) -> bool:
        return bool(self._values())

    def __float__(self) -> float:
        return float(self._values())

    def __int__(self) -> int:
        return int(self._values())

    def __repr__(self) -> str:
        return f"{type(self).__name__} containing:\n{self.numpy()!r}"


class Parameter(Stored):
    """An array that training changes.

    Make it an attribute of a Module. In ``forward`` it acts as a Tensor; elsewhere ``np.asarray(parameter)`` reads it,
    and ``module.name = array`` or ``parameter[...] = array`` writes it.

    Args:
        data: array-like, any shape. A copy is kept.
        trainable: False freezes it: it gets no gradient and no optimizer state. May be set later.
        dtype: ``"float32"`` (default) or ``"float64"``.
        layout: ``"dense"`` or, for a 2-d weight of ``ops.linear``, ``"linear"``: stored as that product reads it best.
            Shape and values are the same.
        sparse: for an embedding table: its gradient is rows, and updates touch these rows only.

    Raises:
        TypeError: ``data`` does not hold numbers.
        ValueError: unknown ``dtype`` or ``layout``.

    >>> import numpy as np
    >>> from pybackprop import nn
    >>> scale = nn.Parameter([1.0, 2.0])
    >>> scale.shape, scale.dtype
    ((2,), dtype('float32'))
    >>> np.asarray(scale)
    array([1., 2.], dtype=float32)
    """

    __slots__ = ("_trainable",)

    def __init__(
        self,
        data: Any,
        trainable: bool = True,
        *,
        dtype: Any = "float32",
        layout: Layout = "dense",
        sparse: bool = False,
    ) -> None:
        name = np.dtype(dtype).name
        if name not in _FLOATS:
            raise ValueError(f"a Parameter is float32 or float64, got dtype {name}")
        super().__init__(_core.Param(as_array(data, name, "a Parameter"), layout, sparse))
        self._trainable = bool(trainable)

    @property
    def trainable(self) -> bool:  # type: ignore[override]
        """Whether training changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if self._trainable != bool(value):
            self._trainable = bool(value)
            self._stamp = _core.bump_version()

    def __reduce__(self) -> Any:
        return _parameter, (self.numpy(), self.trainable, self._layout, self._param.sparse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = memo[id(self)] = _parameter(self.numpy(), self.trainable, self._layout, self._param.sparse)
        return twin


class Buffer(Stored):
    """An array of a model's state that is not trained, such as running statistics; see ``register_buffer``.

    >>> from pybackprop import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> type(layer.running_mean).__name__, layer.running_mean.numpy()
    ('Buffer', array([0., 0.], dtype=float32))
    """

    __slots__ = ()

    def __init__(self, data: Any, *, dtype: Any = None) -> None:
        array = np.asarray(data)
        if dtype is None:
            dtype = np.int64 if array.dtype.kind in "iu" else np.float32
        super().__init__(_core.Param(as_array(array, dtype, "a buffer"), "dense", False))

    def __reduce__(self) -> Any:
        return _buffer, (self.numpy(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        twin = memo[id(self)] = _buffer(self.numpy())
        return twin


def _parameter(array: np.ndarray, trainable: bool, layout: Layout, sparse: bool) -> Parameter:
    return Parameter(array, trainable, dtype=array.dtype, layout=layout, sparse=sparse)


def _buffer(array: np.ndarray) -> Buffer:
    return Buffer(array, dtype=array.dtype)
