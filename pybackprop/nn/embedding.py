"""Embedding tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from . import init
from .linear import positive
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """Rows of a table by integer id: ids of any shape to ``ids.shape + (embedding_dim,)``.

    Args:
        num_embeddings: rows of the table; ids are from 0 to one less.
        embedding_dim: columns.
        padding_idx: a row that starts at zero and gets no gradient; negative counts from the end.
        sparse: gradients are rows, and updates touch these rows only (as SparseAdam): for large tables. False gives
            exactly the dense optimizer's results.

    Attributes:
        weight: (num_embeddings, embedding_dim), standard normal at first.

    Raises:
        ValueError: a size below 1, ``padding_idx`` out of range; when called, an id out of range.
        TypeError: when called, ids are not integers.

    >>> import numpy as np
    >>> from pybackprop import nn
    >>> nn.Embedding(10, 3)(np.array([[1, 2]])).shape
    (1, 2, 3)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, sparse: bool = False
    ) -> None:
        self.num_embeddings = positive("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = positive("Embedding", "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"[Embedding] padding_idx must be one of {num_embeddings} rows, got {padding_idx}")
            padding_idx = int(padding_idx) % num_embeddings
        self.padding_idx, self.sparse = padding_idx, bool(sparse)
        self.weight = Parameter(np.zeros((num_embeddings, embedding_dim), np.float32), sparse=self.sparse)
        init.normal_(self.weight)
        if padding_idx is not None:
            self.weight[padding_idx] = 0.0

    def forward(self, ids: Any) -> Any:
        return ops.embedding(ids, self.weight, self.padding_idx, self.sparse)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}" + (", sparse=True" if self.sparse else "")
