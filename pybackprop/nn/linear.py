"""Affine layers and what changes nothing but the shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from . import init
from .module import Module
from .parameter import Parameter


def positive(name: str, argument: str, value: Any) -> int:
    """A size given to a layer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"[{name}] {argument} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"[{name}] {argument} must be at least 1, got {value}")
    return int(value)


class Linear(Module):
    """``y = x @ weight.T + bias``: (..., in_features) to (..., out_features).

    Args:
        in_features: columns of the input.
        out_features: columns of the output.
        bias: whether to add one.

    Attributes:
        weight: (out_features, in_features), evenly within ``1 / sqrt(in_features)`` of 0, as in PyTorch.
        bias: (out_features,), likewise; or None.

    Raises:
        ValueError: a size below 1; when called, another number of columns.

    >>> from pybackprop import nn
    >>> nn.Linear(3, 2)([[1.0, 2.0, 3.0]]).shape
    (1, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features = positive("Linear", "in_features", in_features)
        self.out_features = positive("Linear", "out_features", out_features)
        self.weight = Parameter(np.zeros((out_features, in_features), np.float32), layout="linear")
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = None
        if bias:
            bound = 1 / math.sqrt(in_features)
            self.bias = init.uniform_(Parameter(np.zeros(out_features, np.float32)), -bound, bound)

    def forward(self, x: Any) -> Any:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Identity(Module):
    """``y = x``. Arguments are accepted and not used, as in PyTorch.

    >>> from pybackprop import nn
    >>> nn.Identity()([1.0, 2.0])
    array([1., 2.], dtype=float32)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        return x


class Flatten(Module):
    """Dimensions ``start_dim`` to ``end_dim`` as one: (N, a, b) to (N, a b).

    >>> import numpy as np
    >>> from pybackprop import nn
    >>> nn.Flatten()(np.ones((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
