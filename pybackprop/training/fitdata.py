"""What ``fit``, ``evaluate`` and ``step`` are given, taken in and checked before anything changes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .._trace import Spec
from ..data.arrays import as_array, check_finite, check_lengths, check_range, map_leaves, named_leaves

# A shape rule's complaint about the kind of numbers an input holds, rather than about its shape.
_KIND_COMPLAINT = re.compile(r"integer|floating-point|dtype")


class Data:
    """Arrays of one length in the structure of an objective's arguments: ``(X,)``, ``(X, y)`` or ``(X, y, w)``.

    Attributes:
        args: the arguments; X and y may be nested tuples and dicts of arrays.
        arrays, names: their leaves in order, and what messages call them.
        rows: common length.
        weighted: whether the last array is row weights.
    """

    def __init__(self, args: tuple[Any, ...], names: list[str], weighted: bool) -> None:
        self.args, self.names, self.weighted = args, names, weighted
        self.arrays = [leaf for arg in args for _, leaf in named_leaves(arg, "")]
        self.rows = check_lengths(self.arrays, names)

    @classmethod
    def take(
        cls,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        names: tuple[str, str] = ("X", "y"),
        dtype: str = "float32",
    ) -> Data:
        """Convert and check everything but the model's own rules. ``dtype`` is that of the computation.

        Raises:
            TypeError: something holds no numbers.
            ValueError: lengths differ, no rows, NaN or infinity, or bad weights.
        """
        parts, labels = [], []
        for value, name in ((X, names[0]), (y, names[1])):
            if value is None and name == names[1]:
                continue
            leaves = [(label, as_array(leaf, label)) for label, leaf in named_leaves(value, name)]
            if not leaves:
                raise ValueError(f"{name} holds no arrays")
            arrays = iter([array.view(np.uint8) if array.dtype.kind == "b" else array for _, array in leaves])
            parts.append(map_leaves(value, lambda _, arrays=arrays: next(arrays)))
            labels += [label for label, _ in leaves]
        weight = row_weights(y, sample_weight, class_weight, len(next(named_leaves(parts[0], ""))[1]), names[1])
        if weight is not None:
            parts.append(weight)
            labels.append("sample_weight")
        data = cls(tuple(parts), labels, weight is not None)
        for array, label in zip(data.arrays, data.names, strict=True):
            check_finite(array, label, dtype)
        return data

    def specs(self, rows: int, integers: tuple[bool, ...]) -> tuple[Any, ...]:
        """Specs of a batch of ``rows`` rows; ``integers`` says for each array whether it stays integer."""
        kinds = iter(integers)
        return map_leaves(self.args, lambda a: Spec((rows, *a.shape[1:]), next(kinds)))

    def batch(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """Views of some rows of all arrays."""
        return tuple(a[first:last] for a in self.arrays)

    def part(self, first: int, last: int) -> Data:
        """Some rows as Data."""
        return Data(map_leaves(self.args, lambda a: a[first:last]), self.names, self.weighted)

    def rows_that_weigh(self) -> np.ndarray | None:
        """Rows whose weight is not 0, if some are 0. A batch of the others would have no loss: 0 / 0."""
        if not self.weighted or self.arrays[-1].all():
            return None
        return np.flatnonzero(self.arrays[-1])

    def check_ranges(self, program: Any) -> None:
        """Raises ValueError if labels or ids anywhere are out of the range that the program takes."""
        for index, low, high, exempt, what, where in program.input_ranges():
            check_range(self.arrays[index], self.names[index], low, high, exempt, what, where)

    def describe(self) -> list[Any]:
        """Rows, shapes and names as JSON values: what a resumed run must agree with."""
        return [self.rows, [[name, list(a.shape[1:])] for name, a in zip(self.names, self.arrays, strict=True)]]


def row_weights(y: Any, sample_weight: Any, class_weight: Any, rows: int, name: str) -> np.ndarray | None:
    """Weights of the rows: ``sample_weight`` times the weight of the row's class; None if there are neither.

    Args:
        class_weight: ``{label: weight}`` (1 for labels not named), or ``"balanced"``: ``n / (classes * count of the
            class)``.

    Raises:
        ValueError, TypeError: bad weights, or class weights for a target that is no column of labels.
    """
    weight = None
    if sample_weight is not None:
        weight = as_array(sample_weight, "sample_weight")
        if weight.ndim == 2 and weight.shape[1] == 1:
            weight = weight[:, 0]
        if weight.ndim != 1:
            raise ValueError(f"sample_weight has shape {weight.shape}; one number a row is expected")
        if len(weight) != rows:
            raise ValueError(f"sample_weight has {len(weight)} rows, but the data has {rows}")
        check_finite(weight, "sample_weight")
        if (weight < 0).any():
            raise ValueError(f"sample_weight is negative in row {int(np.argmax(weight < 0))}")
        weight = weight.astype(np.float64)
    if class_weight is not None:
        labels = None if y is None or isinstance(y, (tuple, dict)) else as_array(y, name)
        if labels is None or labels.size != len(labels):
            raise ValueError("class_weight needs y to be one column of labels")
        labels = labels.reshape(-1)
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if isinstance(class_weight, str):
            if class_weight != "balanced":
                raise ValueError(f"class_weight must be a dict or 'balanced', got {class_weight!r}")
            by_class = len(labels) / (len(classes) * counts)
        elif isinstance(class_weight, Mapping):
            unknown = [key for key in class_weight if key not in classes]
            if unknown:
                raise ValueError(f"class_weight names the class {unknown[0]!r}, which {name} does not hold")
            by_class = np.array([class_weight.get(c.item(), 1.0) for c in classes], np.float64)
            if not np.isfinite(by_class).all() or (by_class < 0).any():
                raise ValueError("class_weight must hold finite numbers that are not negative")
        else:
            raise TypeError(f"class_weight must be a dict or 'balanced', got {type(class_weight).__name__}")
        weight = by_class[codes] * (1.0 if weight is None else weight)
    if weight is not None and weight.size:
        with np.errstate(over="ignore"):
            single = weight.astype(np.float32)
        if not single.any():
            raise ValueError("all weights are 0: there is nothing to learn from")
        if not np.isfinite(single).all():
            raise ValueError(f"the weight of row {int(np.argmin(np.isfinite(single)))} is more than float32 can hold")
    return weight


def resolve_kinds(data: Data, rows: int, loss: Any, compile: Callable[[Any], Any]) -> tuple[tuple[bool, ...], Any]:
    """Which arrays enter the graph as integers, and the program compiled so for ``rows`` rows.

    Floats are floats. An integer array may be labels or ids, or just numbers: what the loss says of its target
    (``target_integer``) decides for y; for the rest the model does, by accepting one kind and refusing the other.

    Raises:
        TypeError: y holds floats where the loss expects class labels.
        ValueError, TypeError: the model's own complaint about shapes.
    """
    wanted = getattr(loss, "target_integer", None)
    target = data.names.index("y") if "y" in data.names else -1
    if target >= 0 and wanted is True and data.arrays[target].dtype.kind == "f":
        raise TypeError(_labels_wanted(data.arrays[target], loss))
    errors: list[Exception] = []
    for kinds in _candidates(data, target, wanted):
        try:
            return kinds, compile(data.specs(rows, kinds))
        except (ValueError, TypeError) as error:
            errors.append(error)
    if target >= 0 and wanted is None and loss is not None and data.arrays[target].dtype.kind == "f":
        kinds = tuple(i == target or a.dtype.kind in "iu" for i, a in enumerate(data.arrays))
        try:
            compile(data.specs(rows, kinds))
        except (ValueError, TypeError):
            pass  # not the kind of y, then: the first complaint stands
        else:
            raise TypeError(_labels_wanted(data.arrays[target], loss)) from errors[0]
    raise next((e for e in errors if not _KIND_COMPLAINT.search(str(e))), errors[0])


def _labels_wanted(y: np.ndarray, loss: Any) -> str:
    return f"y has dtype {y.dtype}, but {type(loss).__name__} expects integer class labels: pass y.astype('int64')"


def _candidates(data: Data, target: int, wanted: bool | None) -> Iterator[tuple[bool, ...]]:
    choices: list[tuple[bool, ...]] = []
    for i, array in enumerate(data.arrays):
        if array.dtype.kind == "f" or (data.weighted and i == len(data.arrays) - 1):
            choices.append((False,))
        elif i == target and wanted is not None:
            choices.append((wanted,))
        elif i != target and array.dtype == np.uint8:
            choices.append((False, True))  # pixels and flags rather than ids
        else:
            choices.append((True, False))
    return itertools.product(*choices)
