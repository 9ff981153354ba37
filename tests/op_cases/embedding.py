"""Cases of csrc/ops/embedding.cpp."""

from __future__ import annotations

import math

from .base import OpCase


def _inputs(ids, table):
    return lambda rng: [rng.integers(0, table[0], ids), rng.standard_normal(table)]


def _torch(ids, weight, padding_idx=-1, sparse=0):
    import torch

    # F.embedding's own sparse gradients differ only in their storage.
    return torch.nn.functional.embedding(ids, weight, padding_idx if padding_idx >= 0 else None)


# ids, table, attributes
FORMS = {
    "vector": ((7,), (10, 5), {}),
    "matrix": ((3, 4), (6, 17), {}),
    "scalar": ((), (4, 3), {}),
    "repeated": ((40,), (3, 16), {}),
    "one-row": ((5,), (1, 2), {}),
    "no-ids": ((0,), (4, 3), {}),
    "narrow": ((6,), (5, 1), {}),
    "padding": ((20,), (5, 6), {"padding_idx": 2}),
    "padding-zero": ((4, 5), (3, 33), {"padding_idx": 0}),
    # Beyond the sizes an insertion sort takes, with ids of two bytes.
    "many": ((90,), (700, 2), {}),
}

CASES = [
    OpCase(
        "embedding",
        name + ("-sparse" if sparse else ""),
        _inputs(ids, table),
        {**attrs, "sparse": sparse},
        torch=_torch,
        param=(1,) if sparse else (),
        held={1: attrs["padding_idx"]} if attrs else {},
        rows=len(ids) > 0 and math.prod(ids) > 0,
        row_inputs=(0,),
    )
    for name, (ids, table, attrs) in FORMS.items()
    for sparse in (0, 1)
] + [
    OpCase(
        "embedding",
        "tails",
        _inputs((5,), (4, 3)),
        torch=_torch,
        sizes=lambda rng, n: [rng.integers(0, 4, 9), rng.standard_normal((4, n))],
    ),
]
