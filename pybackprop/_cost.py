"""What ops cost, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence


def multiply_adds(op: str, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> int:
    """Multiply-adds of an op's forward pass if it is a matrix product, else 0.

    Each element of the output sums as many products as the first input has columns.

    Args:
        op: its name in the core.
        inputs, output: shapes.
    """
    return math.prod(output) * inputs[0][-1] if op in ("linear", "matmul") else 0
