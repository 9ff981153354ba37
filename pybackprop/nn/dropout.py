"""Dropout."""

from __future__ import annotations

from typing import Any

from .. import ops
from .module import Module


class Dropout(Module):
    """In training each element is 0 with probability ``p``, else divided by ``1 - p``; in inference nothing happens.

    Srivastava et al. 2014, JMLR 15. Any shape. ``layer.p = 0.2`` may be set at any time.

    Args:
        p: from 0 to 1.

    Raises:
        ValueError: ``p`` is out of range.

    >>> from pybackprop import nn
    >>> nn.Dropout(0.5)([1.0, 2.0])
    array([1., 2.], dtype=float32)
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"[Dropout] p must be from 0 to 1, got {p}")
        self.p = p

    def forward(self, x: Any) -> Any:
        return ops.dropout(x, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
