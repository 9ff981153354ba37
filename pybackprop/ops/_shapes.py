"""Functions that move elements and compute nothing."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from .._tensor import Operators, Tensor
from .._tracer import prefix
from ._call import lift, many_dims, node, one_dim, op, shape_arg


@op("x", integers=("x",))
def reshape(x: Any, shape: Any) -> Any:
    """The same elements, in row-major order, under another shape.

    Args:
        x: Tensor or array, integers too.
        shape: tuple of integers; one of them may be -1, for what is left.

    Raises:
        ValueError: the numbers of elements differ.

    >>> reshape([1.0, 2.0, 3.0, 4.0], (2, -1))
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """
    return node("reshape", lift(x, "reshape", integer=True), shape=shape_arg("reshape", shape))


@op("x", integers=("x",))
def stop_gradient(x: Any) -> Any:
    """``x`` itself, taken as a constant by backward: targets made by the model, straight-through estimators.

    The semantics are those of ``torch.Tensor.detach`` and ``jax.lax.stop_gradient``.

    >>> stop_gradient([1.0, 2.0])
    array([1., 2.], dtype=float32)
    """
    return node("stop_gradient", lift(x, "stop_gradient", integer=True))


@op("x", integers=("x",))
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions ``start_dim`` to ``end_dim`` (included) as one.

    >>> flatten([[[1.0], [2.0]]], 1).shape
    (1, 2)
    """
    x = lift(x, "flatten", integer=True)
    if x.ndim == 0:
        return node("reshape", x, shape=[1])
    first, last = one_dim("flatten", start_dim, x.ndim), one_dim("flatten", end_dim, x.ndim)
    if first > last:
        raise ValueError(f"{prefix('flatten')}start_dim {start_dim} lies behind end_dim {end_dim}")
    middle = int(np.prod(x.shape[first : last + 1], dtype=np.int64))
    return node("reshape", x, shape=[*x.shape[:first], middle, *x.shape[last + 1 :]])


@op("x", integers=("x",))
def squeeze(x: Any, dim: Any = None) -> Any:
    """Without the dimensions of length 1: all of them, or those of ``dim`` (an integer or several) that have it.

    >>> squeeze([[1.0], [2.0]], 1)
    array([1., 2.], dtype=float32)
    """
    x = lift(x, "squeeze", integer=True)
    dims = many_dims("squeeze", dim, None, x.ndim)
    return node("reshape", x, shape=[n for i, n in enumerate(x.shape) if n != 1 or i not in dims])


@op("x", integers=("x",))
def unsqueeze(x: Any, dim: int) -> Any:
    """With one more dimension of length 1, which is ``dim`` of the result.

    >>> unsqueeze([1.0, 2.0], -1).shape
    (2, 1)
    """
    x = lift(x, "unsqueeze", integer=True)
    shape = list(x.shape)
    shape.insert(one_dim("unsqueeze", dim, x.ndim + 1), 1)
    return node("reshape", x, shape=shape)


@op("x")
def permute(x: Any, dims: Any) -> Any:
    """Dimensions in another order: dimension i of the result is ``dims[i]`` of ``x``.

    >>> permute([[[1.0], [2.0]]], (2, 0, 1)).shape
    (1, 1, 2)
    """
    x = lift(x, "permute")
    order = [one_dim("permute", d, x.ndim) for d in shape_arg("permute", dims)]
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"{prefix('permute')}dims must name each of {x.ndim} dimensions once, got {tuple(dims)}")
    return x if order == sorted(order) else node("transpose", x, perm=order)


@op("x")
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """With two dimensions swapped.

    >>> transpose([[1.0, 2.0]], 0, 1)
    array([[1.],
           [2.]], dtype=float32)
    """
    x = lift(x, "transpose")
    order = list(range(x.ndim))
    a, b = one_dim("transpose", dim0, x.ndim), one_dim("transpose", dim1, x.ndim)
    order[a], order[b] = b, a
    return x if a == b else node("transpose", x, perm=order)


@op("x")
def broadcast_to(x: Any, shape: Any) -> Any:
    """``x`` repeated to ``shape``, by NumPy's rule; the gradient is summed over the repetitions.

    >>> broadcast_to([1.0, 2.0], (2, 2))
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    return node("broadcast_to", x, shape=shape_arg("broadcast_to", shape))


@op("*tensors")
def concat(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    """Tensors one behind the other along ``dim``; the other dimensions agree. ``axis`` is another name for ``dim``.

    >>> concat([[1.0], [2.0, 3.0]])
    array([1., 2., 3.], dtype=float32)
    """
    tensors = [lift(t, "concat") for t in tensors]
    if not tensors:
        raise ValueError(f"{prefix('concat')}expects at least one Tensor")
    return node("concat", *tensors, dim=one_dim("concat", dim if axis is None else axis, tensors[0].ndim))


@op("*tensors")
def stack(tensors: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    """Tensors of one shape along a new dimension ``dim``; ``axis`` is another name for it.

    >>> stack([[1.0, 2.0], [3.0, 4.0]], dim=1)
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """
    tensors = [lift(t, "stack") for t in tensors]
    if len({t.shape for t in tensors}) != 1:
        raise ValueError(f"{prefix('stack')}expects Tensors of one shape, got {[t.shape for t in tensors]}")
    place = one_dim("stack", dim if axis is None else axis, tensors[0].ndim + 1)
    return node("concat", *[unsqueeze(t, place) for t in tensors], dim=place)


@op("x")
def split(x: Any, sizes: Any, dim: int = 0, *, axis: int | None = None) -> Any:
    """Cut along ``dim``, as PyTorch's ``split``.

    Args:
        x: Tensor or array.
        sizes: lengths of the parts, which add up to the whole; or one length, the last part may then be shorter.
        dim: the dimension; ``axis`` is another name for it.

    Returns:
        A tuple of parts.

    >>> [part.shape for part in split([[1.0, 2.0, 3.0]], [1, 2], dim=1)]
    [(1, 1), (1, 2)]
    """
    x = lift(x, "split")
    dim = one_dim("split", dim if axis is None else axis, x.ndim)
    length = x.shape[dim]
    if isinstance(sizes, (int, np.integer)):
        if sizes < 1:
            raise ValueError(f"{prefix('split')}sizes must be positive, got {sizes}")
        sizes = [min(int(sizes), length - at) for at in range(0, length, int(sizes))]
    if sum(sizes) != length:
        raise ValueError(
            f"{prefix('split')}sizes {list(sizes)} do not add up to {length}, the length of dimension {dim}"
        )
    ends = np.cumsum(sizes).tolist()
    return tuple(_part(x, dim, end - n, end) for n, end in zip(sizes, ends, strict=True))


def _part(x: Tensor, dim: int, start: int, stop: int) -> Any:
    starts, stops = [0] * x.ndim, list(x.shape)
    starts[dim], stops[dim] = start, stop
    return node("slice", x, start=starts, stop=stops, step=[1] * x.ndim)


@op("x")
def slice(x: Any, start: Any, stop: Any, step: Any = None) -> Any:
    """``x[start[0]:stop[0]:step[0], start[1]:stop[1]:step[1], ...]``.

    Args:
        x: Tensor or array.
        start, stop: one integer for each dimension, or None for an end; as in Python's slices they count from the end
            if negative and are cut to the length.
        step: one integer for each dimension, not 0; None for 1.

    >>> slice([1.0, 2.0, 3.0, 4.0], [None], [None], [-2])
    array([4., 2.], dtype=float32)
    """
    x = lift(x, "slice")
    step = [1] * x.ndim if step is None else step
    for name, given in (("start", start), ("stop", stop), ("step", step)):
        if len(given) != x.ndim:
            raise ValueError(
                f"{prefix('slice')}{name} must have {x.ndim} entries, one for each dimension, got {len(given)}"
            )
    return _slice(x, [builtins.slice(*ends) for ends in zip(start, stop, step, strict=True)])


def _slice(x: Tensor, slices: list[Any]) -> Any:
    ends = [s.indices(n) for s, n in zip(slices, x.shape, strict=True)]
    if all(e == (0, n, 1) for e, n in zip(ends, x.shape, strict=True)):
        return x
    start, stop, step = ([e[k] for e in ends] for k in range(3))
    # An empty range may begin outside.
    empty = [len(range(*e)) == 0 for e in ends]
    start = [0 if none else v for none, v in zip(empty, start, strict=True)]
    stop = [0 if none else v for none, v in zip(empty, stop, strict=True)]
    return node("slice", x, start=start, stop=stop, step=step)


@op("x", "ids", integers=("ids",))
def gather(x: Any, ids: Any) -> Any:
    """Rows of ``x``: ``x[ids]``. The gradients of a row taken several times add up.

    Args:
        x: (n, ...).
        ids: integers of any shape, from 0 to n - 1.

    Returns:
        ``ids.shape + x.shape[1:]``.

    Raises:
        ValueError: an id is out of range.
        TypeError: ids are not integers.

    >>> gather([[1.0], [2.0], [3.0]], [2, 0])
    array([[3.],
           [1.]], dtype=float32)
    """
    return node("gather", x, lift(ids, "gather", integer=True))


@op("x", "ids", integers=("ids",))
def pick(x: Any, ids: Any) -> Any:
    """One element of each row: ``x[i, ids[i]]``, such as the value of the action taken.

    Args:
        x: (n, c).
        ids: (n,) integers from 0 to c - 1.

    Returns:
        (n,)

    >>> pick([[1.0, 2.0], [3.0, 4.0]], [1, 0])
    array([2., 3.], dtype=float32)
    """
    labels = lift(ids, "pick", integer=True)
    return node("neg", node("nll", x, labels, reduction=0, ignore_index=-(2**31)))


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` for integers, slices, ``...``, ``None``, and one integer array or Tensor in the first place.

    >>> import numpy as np
    >>> getitem(np.array([[1.0, 2.0], [3.0, 4.0]]), (..., -1))
    array([2., 4.])
    """
    items = list(key) if isinstance(key, tuple) else [key]
    if items and isinstance(items[0], (np.ndarray, list, Operators)):
        rows = _rows(x, items[0])
        if len(items) == 1:
            return rows
        ndim = items[0].ndim if not isinstance(items[0], list) else np.ndim(items[0])
        return getitem(rows, (*[builtins.slice(None)] * ndim, *items[1:]))
    return _index(x, tuple(items))


def _rows(x: Any, ids: Any) -> Any:
    if isinstance(ids, Operators):
        return gather(x, ids)
    ids = np.asarray(ids)
    if ids.dtype.kind == "b":
        raise TypeError(
            f"{prefix('Tensor')}a boolean mask would give a shape that depends on values: use ops.where, or multiply "
            "by the mask"
        )
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{prefix('Tensor')}an index array must hold integers, got dtype {ids.dtype}")
    return gather(x, np.where(ids < 0, ids + x.shape[0], ids))


@op("x", integers=("x",))
def _index(x: Any, key: Any) -> Any:
    x = lift(x, "Tensor", integer=True)
    taken = sum(1 for item in key if item is not None and item is not Ellipsis)
    if taken > x.ndim:
        raise IndexError(f"{prefix('Tensor')}{taken} indices are too many for shape {x.shape}")
    if sum(1 for item in key if item is Ellipsis) > 1:
        raise IndexError(f"{prefix('Tensor')}an index can have one ellipsis ('...')")
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    at = key.index(Ellipsis)
    key = (*key[:at], *[builtins.slice(None)] * (x.ndim - taken), *key[at + 1 :])
    slices: list[Any] = []
    shape: list[int] = []
    for item in key:
        if item is None:
            shape.append(1)
            continue
        n = x.shape[len(slices)]
        if isinstance(item, builtins.slice):
            slices.append(item)
            shape.append(len(range(*item.indices(n))))
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            if not -n <= item < n:
                raise IndexError(
                    f"{prefix('Tensor')}index {item} is out of range for dimension {len(slices)} of {x.shape}"
                )
            slices.append(builtins.slice(int(item) % n, int(item) % n + 1))
        else:
            raise TypeError(
                f"{prefix('Tensor')}an index is made of integers, slices, ... and None, or is an integer array in the "
                f"first place, got {type(item).__name__}: ops.pick(x, ids) gives x[i, ids[i]]"
            )
    y = _slice(x, slices)
    return y if list(y.shape) == shape else node("reshape", y, shape=shape)
