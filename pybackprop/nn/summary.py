"""The table that ``Module.summary`` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._trace import Spec, flatten, spec_of, trace, unflatten
from .module import Module

if TYPE_CHECKING:
    from .parameter import Parameter

_HEAD = ("Module", "Output shape", "Parameters")


def summarize(model: Module, inputs: tuple[Any, ...]) -> str:
    """One line a module, in the order of the tree; a module that is not called shows no shape."""
    dtype = next((p.dtype.name for p in model.parameters()), "float32")
    traced = trace(lambda m, *args: m(*args), model, tuple(_spec(x) for x in inputs), dtype=dtype)
    shapes: dict[int, str] = {}
    for module, output in traced.calls:
        leaves, tree = flatten(output)
        text = str(unflatten(tree, [leaf.shape for leaf in leaves])) if len(leaves) != 1 else str(leaves[0].shape)
        shapes.setdefault(id(module), text)
    rows: list[tuple[str, str, str]] = []
    _add_rows(rows, model, "", 0, shapes, set())
    return _table(rows, list(model.parameters()))


def _spec(x: Any) -> Any:
    if isinstance(x, Spec):
        return x
    if isinstance(x, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in x):
        return Spec(tuple(int(n) for n in x))
    leaves, tree = flatten(x)
    return unflatten(tree, [spec_of(leaf) for leaf in leaves])


def _add_rows(
    rows: list[tuple[str, str, str]], module: Module, name: str, depth: int, shapes: dict[int, str], seen: set[int]
) -> None:
    own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
    seen.update(map(id, own))
    children = list(module.named_children())
    count = "" if children and not own else f"{sum(p.size for p in own):,}"
    label = "  " * depth + (f"({name}): " if name else "") + type(module).__name__
    rows.append((label, shapes.get(id(module), "-"), count))
    for child_name, child in children:
        _add_rows(rows, child, child_name, depth + 1, shapes, seen)


def _table(rows: list[tuple[str, str, str]], parameters: list[Parameter]) -> str:
    widths = [max(len(row[i]) for row in [_HEAD, *rows]) for i in range(3)]

    def line(row: tuple[str, str, str]) -> str:
        return f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}".rstrip()

    rule = "-" * (sum(widths) + 4)
    total = sum(p.size for p in parameters)
    trainable = sum(p.size for p in parameters if p.trainable)
    end = f"{total:,} parameters, {trainable:,} of them trainable"
    return "\n".join([line(_HEAD), rule, *map(line, rows), rule, end])
