"""Comparisons, under broadcasting: 0 or 1 and no gradient."""

from __future__ import annotations

import numpy as np

from op_cases.base import OpCase

PAIRS = {
    "same": ((5, 7), (5, 7)),
    "row": ((9, 17), (17,)),
    "scalar": ((6, 5), ()),
    "outer": ((8, 1), (1, 19)),
    "no_rows": ((0, 3), (3,)),
    "long": ((1, 17003), (1, 17003)),
}
TORCH = {"greater": "gt", "less": "lt", "greater_equal": "ge", "less_equal": "le", "equal": "eq", "not_equal": "ne"}


def _few(rng: np.random.Generator, shape) -> np.ndarray:
    """Whole numbers from a small range, so that some are equal."""
    return rng.integers(-2, 3, shape).astype(float)


def _case(op: str, name: str) -> OpCase:
    a, b = PAIRS[name]

    def torch(x, y):
        import torch

        return getattr(torch, TORCH[op])(x, y).to(x.dtype)

    return OpCase(
        op,
        name,
        lambda rng: [_few(rng, a), _few(rng, b)],
        torch=torch,
        rows=a == b,
        row_inputs=(0, 1),
        grad=False,
        sizes=(lambda rng, n: [_few(rng, (2, n)), _few(rng, (n,))]) if name == "row" else None,
    )


CASES = [_case(op, name) for op in TORCH for name in PAIRS]
