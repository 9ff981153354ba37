"""The inference side of a Trainer: losses, metrics and predictions over whole data sets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._cache import LRU
from .._trace import flatten, trace, unflatten
from .objective import model_dtype, trace_objective
from .step import Compiled

if TYPE_CHECKING:
    from ..nn import Module
    from .fitdata import Data

_PROGRAMS, _PROGRAM_BYTES = 32, 1 << 29

# Rows of one run at inference. A row's prediction has the same bits in any batch, so any data set is cut into these few
# sizes, and few programs serve all.
BATCH_ROWS = (1024, 256, 64, 16, 4, 1)


class Evaluator:
    """Inference programs of a model, made when first needed and again when the model changes."""

    def __init__(
        self, objective: Callable[..., Any], model: Module, threads: int | None, precision: str = "float32"
    ) -> None:
        self._objective, self._model, self._threads, self._precision = objective, model, threads, precision
        self._programs: LRU[Any] = LRU(_PROGRAMS, _PROGRAM_BYTES, lambda entry: entry[0].arena_bytes)

    def compile(self, specs: tuple[Any, ...]) -> Compiled:
        """The inference program of the objective."""
        return self._cached("objective", specs, lambda: self._build_objective(specs))

    def results(
        self, data: Data, kinds: tuple[bool, ...], batch_rows: int, check: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Loss and extras of every batch, (batches, outputs), with the batches' rows and the extras' names.

        ``check`` is called before each batch, and may raise.
        """
        results, rows = [], []
        extras: tuple[str, ...] = ()
        with self._settled(data.rows > batch_rows):
            for first in range(0, data.rows, batch_rows):
                check()
                last = min(first + batch_rows, data.rows)
                compiled = self.compile(data.specs(last - first, kinds))
                outputs, _, _ = compiled.program.run(data.batch(first, last))
                results.append([float(v) for v in outputs])
                rows.append(last - first)
                extras = compiled.extras
        return np.array(results), np.array(rows, np.float64), extras

    def predict(self, data: Data, kinds: Callable[[Data, int], tuple[tuple[bool, ...], Any]], batch_rows: int) -> Any:
        """What the model gives for all rows, in its own structure."""
        parts: list[list[np.ndarray]] = []
        tree = None
        first, chosen = 0, None
        sizes = (batch_rows, *(n for n in BATCH_ROWS if n < batch_rows))
        with self._settled(data.rows not in sizes):
            for size in sizes:
                while data.rows - first >= size:
                    if chosen is None:
                        chosen = kinds(data, size)[0]
                    program, tree = self.compile_model(data.specs(size, chosen))
                    outputs, _, _ = program.run(data.batch(first, first + size))
                    parts.append(outputs)
                    first += size
        return unflatten(
            tree, [np.concatenate(pieces) if len(pieces) > 1 else pieces[0] for pieces in zip(*parts, strict=True)]
        )

    def _settled(self, several: bool) -> contextlib.AbstractContextManager[None]:
        """Keeps trainings in other threads between two steps, so that several runs see one model."""
        if not several:
            return contextlib.nullcontext()
        return _core.Reading([stored._param for _, stored in self._model._named_state()])

    def compile_model(self, specs: tuple[Any, ...]) -> Any:
        """The inference program of the model alone, and the structure of its output."""
        return self._cached("model", specs, lambda: self._build_model(specs))

    def _cached(self, what: str, specs: tuple[Any, ...], build: Callable[[], Any]) -> Any:
        key = (what, repr(specs))
        entry = self._programs.get((_core.version(), *key))
        if entry is None:
            entry = build()
            self._programs.put((_core.version(), *key), entry)  # the version after: objectives may construct modules
        return entry

    def _build_objective(self, specs: tuple[Any, ...]) -> Compiled:
        dtype = model_dtype(self._model)
        objective = trace_objective(
            self._objective, self._model, specs, dtype=dtype, training=False, precision=self._precision
        )
        program = _core.Program(objective.traced.graph, objective.outputs, threads=self._threads)
        return Compiled(program, tuple(objective.extras))

    def _build_model(self, specs: tuple[Any, ...]) -> Any:
        dtype = model_dtype(self._model)
        traced = trace(call_model, self._model, specs, dtype=dtype, training=False, precision=self._precision)
        values, tree = traced.output_values()
        rows = flatten(specs)[0][0].shape[0]
        for value in values:
            shape = tuple(traced.graph.shape(value))
            if not shape or shape[0] != rows:
                raise ValueError(f"predict needs one output row for each input row, but {rows} rows gave shape {shape}")
        return _core.Program(traced.graph, values, threads=self._threads), tree


def call_model(model: Module, X: Any) -> Any:
    """The model on a batch: a tuple is its positional arguments, a dict its keyword arguments."""
    if isinstance(X, tuple):
        return model(*X)
    if isinstance(X, dict):
        return model(**X)
    return model(X)
