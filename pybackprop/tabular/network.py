"""The network of a tabular model."""

import numpy as np

from .. import nn, ops
from .columns import Columns

__all__ = ["Network", "network_for", "shape_of"]

_SMALL = 0.1  # embeddings start near 0, beside inputs of about 1


class _Layer(nn.Module):
    """``relu(linear(x))`` with dropout; around a layer as wide as its input also a shortcut, and a norm before it."""

    def __init__(self, before: int, width: int, dropout: float):
        self.norm = nn.LayerNorm(before) if before == width else None
        self.linear = nn.Linear(before, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        y = self.dropout(self.linear(x if self.norm is None else self.norm(x)).relu())
        return y if self.norm is None else x + y


class Network(nn.Module):
    """Embeddings of the id inputs beside the dense input, then layers that are residual where widths allow it.

    Of a dense input with more than ``dense`` columns it takes the first ones: those without bins.
    """

    def __init__(
        self, dense: int, tables: list[tuple[int, int]], hidden: tuple[int, ...], outputs: int, dropout: float
    ):
        embeddings = [nn.Embedding(rows, width) for rows, width in tables]
        self.embeddings = nn.ModuleList(embeddings)
        for embedding in embeddings:
            weight = np.array(embedding.weight) * _SMALL
            weight[0] = 0  # values not seen in training: no row trains this one unless some value is rare
            embedding.weight.assign(weight)
        width = dense + sum(width for _, width in tables)
        layers = []
        for size in hidden:
            layers.append(_Layer(width, size, dropout))
            width = size
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(width, outputs)
        self.dense = dense

    def forward(self, *inputs):
        first_id = len(inputs) - len(self.embeddings)
        parts = [x if x.shape[1] == self.dense else x[:, : self.dense] for x in inputs[:first_id]]
        parts += [embed(ids) for embed, ids in zip(self.embeddings, inputs[first_id:], strict=True)]
        x = parts[0] if len(parts) == 1 else ops.concat(parts, dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def _embedding_width(values: int) -> int:
    """fastai's rule (Howard and Gugger, 2020): min(600, 1.6 n^0.56), held to 50 here."""
    return min(50, round(1.6 * values**0.56))


def _table_sizes(columns: Columns) -> list[tuple[int, int]]:
    """Rows and width of each embedding; row 0 is for values not seen in training."""
    return [(len(v) + 1, _embedding_width(len(v) + 1)) for v in columns.embedded.values()]


def network_for(columns: Columns, dense: int, hidden: tuple[int, ...], outputs: int, dropout: float) -> Network:
    return Network(dense, _table_sizes(columns), hidden, outputs, dropout)


def shape_of(weights: dict[str, np.ndarray], columns: Columns, path: str) -> tuple[int, tuple[int, ...]]:
    """Columns of the dense input that a network takes, and widths of its hidden layers, from its tensors.

    No number in a file can ask for more memory than the file has.
    """
    embedded = sum(width for _, width in _table_sizes(columns))
    widths: list[int] = []
    while (name := f"layers.{len(widths)}.linear.weight") in weights or (name := "out.weight") in weights:
        shape = weights[name].shape
        if len(shape) != 2 or shape[0] < 1 or (widths and shape[1] != widths[-1]):
            raise ValueError(
                f"{path}: a network's tensor {name!r} has the shape {shape}, which does not fit the others."
            )
        if not widths:
            dense = shape[1] - embedded
            if dense not in (columns.plain_width, columns.dense_width):
                raise ValueError(
                    f"{path}: a network's tensor {name!r} has the shape {shape}, which does not fit the columns."
                )
        widths.append(shape[0])
        if name == "out.weight":
            return dense, tuple(widths[:-1])
    raise ValueError(f"{path}: a network has no tensor 'out.weight'.")
