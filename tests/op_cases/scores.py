"""Cases of csrc/ops/scores.cpp."""

from __future__ import annotations

import numpy as np

from .base import OpCase


def _labelled(rows, classes):
    # Scores from a small set, so that equal ones are common.
    return lambda rng: [rng.integers(-3, 4, (rows, classes)).astype("float64"), rng.integers(0, classes, rows)]


def _top_k(scores, labels, k=1):
    import torch

    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return (order[:, :k] == labels[:, None]).any(1).to(scores.dtype)


def _binary(x, target, threshold=0.0):
    return ((x.reshape(-1) > threshold) == (target.reshape(-1) > 0.5)).to(x.dtype)


def _logits(shape, target_shape):
    return lambda rng: [rng.standard_normal(shape), rng.integers(0, 2, target_shape).astype("float64")]


CASES = [
    *(
        OpCase(
            "top_k_correct",
            f"{rows}x{classes}-{k}",
            _labelled(rows, classes),
            {"k": k},
            torch=_top_k,
            grad=False,
            rows=True,
            row_inputs=(0, 1),
        )
        for rows, classes, k in ((9, 5, 1), (20, 7, 3), (1, 1, 1), (17, 33, 5), (0, 4, 2), (6, 3, 3))
    ),
    OpCase(
        "top_k_correct",
        "default",
        _labelled(11, 4),
        torch=_top_k,
        grad=False,
        rows=True,
        row_inputs=(0, 1),
        sizes=lambda rng, n: _labelled(6, n)(rng),
    ),
    *(
        OpCase("binary_correct", name, _logits(a, b), attrs, torch=_binary, grad=False, rows=True, row_inputs=(0, 1))
        for name, a, b, attrs in (
            ("vector", (21,), (21,), {}),
            ("columns", (9, 1), (9, 1), {}),
            ("mixed", (5, 1), (5,), {}),
            ("threshold", (30,), (30,), {"threshold": 0.7}),
            ("empty", (0,), (0,), {}),
        )
    ),
    OpCase(
        "binary_correct",
        "integers",
        lambda rng: [rng.standard_normal(8), np.array([0, 1, 1, 0, 1, 0, 0, 1])],
        torch=_binary,
        grad=False,
        rows=True,
        row_inputs=(0, 1),
    ),
]
