"""Taking in what users call data: nested arrays with names for messages, and the checks done once at the entrance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_BLOCK = 1 << 20  # elements looked at in one go, so that a check never doubles the memory of a large array


def as_array(value: Any, name: str) -> np.ndarray:
    """``value`` as an array of numbers with at least one dimension; arrays and memory maps are not copied.

    Raises:
        TypeError: it does not hold numbers.
        ValueError: it has no dimension.
    """
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} is no rectangle of numbers: its rows differ in length "
            "(several inputs are a tuple or a dict of arrays)"
        ) from None
    if array.dtype.kind == "O" or array.dtype == np.longdouble:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name} holds objects that are no numbers; encode or drop such columns first") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}; real numbers are expected")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number; an array with one row a sample is expected")
    return array


def named_leaves(structure: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of nested tuples and dicts in order, each with the name a user would write: ``X[0]``, ``X['age']``."""
    if isinstance(structure, tuple):
        for i, item in enumerate(structure):
            yield from named_leaves(item, f"{name}[{i}]")
    elif isinstance(structure, dict):
        for key, item in structure.items():
            yield from named_leaves(item, f"{name}[{key!r}]")
    else:
        yield name, structure


def map_leaves(structure: Any, function: Any) -> Any:
    """The structure with ``function`` applied to every leaf."""
    if isinstance(structure, tuple):
        return tuple(map_leaves(item, function) for item in structure)
    if isinstance(structure, dict):
        return {key: map_leaves(item, function) for key, item in structure.items()}
    return function(structure)


def check_lengths(arrays: list[np.ndarray], names: list[str]) -> int:
    """The common number of rows.

    Raises:
        ValueError: lengths differ, or there are no rows.
    """
    rows = len(arrays[0])
    for array, name in zip(arrays, names, strict=True):
        if len(array) != rows:
            raise ValueError(f"{name} has {len(array)} rows, but {names[0]} has {rows}")
    if rows == 0:
        raise ValueError(f"{names[0]} has no rows")
    return rows


class NonFiniteData(ValueError):
    """Data holds NaN or infinity, or what is infinite in the dtype of the computation."""


def check_finite(array: np.ndarray, name: str, dtype: str = "float64") -> None:
    """Raises NonFiniteData naming the first row (and column) with NaN, infinity, or what is infinite in ``dtype``.

    Memory maps are not read through: they may be larger than memory.
    """
    if array.dtype.kind != "f" or isinstance(array, np.memmap) or not array.size:
        return
    step = max(1, _BLOCK // (array.size // len(array)))
    for first in range(0, len(array), step):
        block = array[first : first + step]
        finite = np.abs(block) <= np.finfo(dtype).max if block.dtype.itemsize > 4 else np.isfinite(block)
        if finite.all():
            continue
        at = np.unravel_index(int(np.argmin(finite)), finite.shape)
        what = "NaN" if np.isnan(block[at]) else "infinity" if np.isinf(block[at]) else f"{block[at]:g}"
        if np.isfinite(block[at]):
            raise NonFiniteData(
                f"{name} holds {what} in row {first + at[0]}, more than {dtype} can hold; scale it first"
            )
        column = f", column {at[1] if len(at) == 2 else at[1:]}" if len(at) > 1 else ""
        raise NonFiniteData(f"{name} holds {what} in row {first + at[0]}{column}; remove or fill such values first")


def check_range(array: np.ndarray, name: str, low: int, high: int, exempt: int | None, what: str, where: str) -> None:
    """Raises ValueError naming the first integer outside ``[low, high)``, ``exempt`` apart."""
    array = np.asarray(array)
    if not array.size:
        return
    wrong = (array < low) | (array >= high)
    if exempt is not None:
        wrong &= array != exempt
    if not wrong.any():
        return
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    row = at[0] if len(at) == 1 else tuple(int(i) for i in at)
    raise ValueError(
        f"{where}: {what} must be from {low} to {high - 1}, but {name}[{row}] is {array[at]}".removeprefix(": ")
    )


def split_last(arrays: list[np.ndarray], fraction: float, rows: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first rows and the last ``fraction`` of them, as Keras's ``validation_split`` cuts.

    Raises:
        ValueError: ``fraction`` is outside [0, 1), or leaves one side empty.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation_split must be at least 0 and below 1, got {fraction}")
    cut = rows - int(rows * fraction)
    if cut == rows:
        raise ValueError(f"validation_split={fraction} of {rows} rows leaves no row to validate on")
    return [a[:cut] for a in arrays], [a[cut:] for a in arrays]
