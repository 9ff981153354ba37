"""Running a Module on arrays: its inference programs, kept by input shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _core, random
from .._cache import LRU
from .._tensor import Tensor
from .._trace import ARRAY, Spec, flatten, trace, unflatten

if TYPE_CHECKING:
    from .module import Module

_MOST_PROGRAMS = 32
_MOST_BYTES = 256 * 2**20


class Entry(NamedTuple):
    program: _core.Program
    tree: Any  # structure of the outputs
    random: bool


class Programs:
    """The programs that ``module(x)`` runs, for one structure of the module."""

    def __init__(self, module: Module, signature: tuple[int, ...]) -> None:
        self.signature = signature
        self.version = 0
        self._module = module
        self._entries: LRU[Entry] = LRU(_MOST_PROGRAMS, _MOST_BYTES, lambda e: e.program.arena_bytes)
        floats = (s.dtype.name for _, s in module._named_state() if s.dtype.kind == "f")
        self._dtype: str | None = next(floats, None)  # None: no parameters, the input decides
        # The last call with one array and one array as result: repeated calls should cost little beyond the run.
        self._last: tuple[Any, _core.Program] | None = None

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> Any:
        short = None
        if len(args) == 1 and not kwargs and type(args[0]) is np.ndarray:
            short = (args[0].shape, args[0].dtype, training)
            last = self._last
            if last is not None and last[0] == short:
                return last[1].run(args)[0][0]
        leaves, tree = flatten((args, kwargs))
        dtype = self._dtype or dtype_of(leaves)
        arrays = tuple([as_input(leaf, dtype) for leaf in leaves])
        key = (tree, tuple([(a.shape, a.dtype.kind) for a in arrays]), dtype, training)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._build(tree, arrays, dtype, training)
            self._entries.put(key, entry)
        if short is not None and entry.tree is ARRAY and not entry.random and arrays[0].dtype == args[0].dtype:
            self._last = (short, entry.program)
        results, _, _ = entry.program.run(arrays, random.draw_seed() if entry.random else 0, 0)
        return results[0] if entry.tree is ARRAY else unflatten(entry.tree, results)

    def _build(self, tree: Any, arrays: tuple[np.ndarray, ...], dtype: str, training: bool) -> Entry:
        specs = unflatten(tree, [Spec(a.shape, a.dtype.kind == "i") for a in arrays])
        traced = trace(_call, self._module, specs, dtype=dtype, training=training, place="")
        values, outputs = traced.output_values()
        return Entry(_core.Program(traced.graph, values), outputs, traced.random_nodes > 0)


def _call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return module(*args, **kwargs)


def dtype_of(leaves: list[Any]) -> str:
    """float64 if some array is; Python numbers and lists leave it at float32."""
    return "float64" if any(getattr(x, "dtype", None) == np.float64 for x in leaves) else "float32"


def as_input(x: Any, dtype: str) -> np.ndarray:
    """An array as programs take it: C order; integers as int64, all else in ``dtype``."""
    if isinstance(x, Tensor):
        raise ValueError("a Tensor is used outside of the function it was made in: return values from forward instead")
    array = np.asarray(x)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise TypeError(f"expected an array of numbers, got one of dtype {array.dtype}")
    return np.asarray(array, np.int64 if kind in "iu" else dtype, order="C")
