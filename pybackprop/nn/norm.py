"""Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from .._tracer import current
from .linear import positive
from .module import Module
from .parameter import Parameter


def _shape(name: str, normalized_shape: Any) -> tuple[int, ...]:
    sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else [normalized_shape]
    return tuple(positive(name, "normalized_shape", n) for n in sizes)


class LayerNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions (Ba et al. 2016, arXiv:1607.06450).

    Args:
        normalized_shape: lengths of the last dimensions of the input: an integer or a tuple.
        eps: keeps the quotient finite.
        elementwise_affine: whether there are a weight and a bias.
        bias: whether there is a bias.

    Attributes:
        weight: ones of ``normalized_shape``, or None.
        bias: zeros of ``normalized_shape``, or None.

    >>> from pybackprop import nn
    >>> nn.LayerNorm(2)([[1.0, 3.0]]).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        self.normalized_shape = _shape("LayerNorm", normalized_shape)
        self.eps = eps
        self.weight = Parameter(np.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(Module):
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last dimensions (Zhang and Sennrich 2019, arXiv:1910.07467).

    Args:
        normalized_shape: lengths of the last dimensions of the input: an integer or a tuple.
        eps: None for the machine epsilon of the input's dtype.
        elementwise_affine: whether there is a weight.

    Attributes:
        weight: ones of ``normalized_shape``, or None.

    >>> from pybackprop import nn
    >>> nn.RMSNorm(2)([[3.0, 3.0]]).round(3)
    array([[1., 1.]], dtype=float32)
    """

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True) -> None:
        self.normalized_shape = _shape("RMSNorm", normalized_shape)
        self.eps = eps
        self.weight = Parameter(np.ones(self.normalized_shape)) if elementwise_affine else None

    def forward(self, x: Any) -> Any:
        return ops.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class BatchNorm1d(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel (Ioffe and Szegedy 2015, arXiv:1502.03167).

    Input (N, C) or (N, C, L). A training program takes mean and variance of the batch, and a training step then moves
    the running ones; an inference program takes the running ones.

    Args:
        num_features: C.
        eps: keeps the quotient finite.
        momentum: weight of the new value in the running statistics.
        affine: whether there are a weight and a bias.
        frozen: take the running statistics in training, too, and leave them. May be set later: ``layer.frozen = True``.

    Attributes:
        weight, bias: ones and zeros (C,), or None.
        running_mean, running_var: (C,), zeros and ones at first; the variance is the unbiased one.
        num_batches_tracked: int64 scalar, training steps so far.

    >>> from pybackprop import nn
    >>> nn.BatchNorm1d(1, eps=0.0)([[1.0], [3.0]], training=True)
    array([[-1.],
           [ 1.]], dtype=float32)
    """

    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, frozen: bool = False
    ) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"[BatchNorm1d] momentum must be from 0 to 1, got {momentum}")
        self.num_features = positive("BatchNorm1d", "num_features", num_features)
        self.eps, self.momentum, self.frozen = eps, momentum, frozen
        self.weight = Parameter(np.ones(num_features)) if affine else None
        self.bias = Parameter(np.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features))
        self.register_buffer("running_var", np.ones(num_features))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Any) -> Any:
        tracer = current()
        if tracer is not None and tracer.training and not self.frozen:
            tracer.graph.increment(tracer.lift(self.num_batches_tracked)._value)
        return ops.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            momentum=self.momentum,
            eps=self.eps,
            frozen=self.frozen,
        )

    def extra_repr(self) -> str:
        affine = self.weight is not None
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={affine}"
