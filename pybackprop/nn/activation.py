"""Activations as modules. Each is the function of ``ops`` of the same name, for any shape."""

from __future__ import annotations

from typing import Any

from .. import ops
from .module import Module


class ReLU(Module):
    """``max(x, 0)``.

    >>> from pybackprop import nn
    >>> nn.ReLU()([-1.0, 2.0])
    array([0., 2.], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return ops.relu(x)


class LeakyReLU(Module):
    """``x`` where positive, ``negative_slope * x`` elsewhere.

    >>> from pybackprop import nn
    >>> nn.LeakyReLU(0.1)([-2.0, 3.0])
    array([-0.2,  3. ], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere.

    >>> from pybackprop import nn
    >>> nn.ELU()([-1.0, 3.0]).round(3)
    array([-0.632,  3.   ], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """``x * Phi(x)``; ``approximate="tanh"`` for the approximation by tanh.

    >>> from pybackprop import nn
    >>> nn.GELU()([-1.0, 3.0]).round(3)
    array([-0.159,  2.996], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return ops.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """``x * sigmoid(x)``.

    >>> from pybackprop import nn
    >>> nn.SiLU()([-1.0, 3.0]).round(3)
    array([-0.269,  2.858], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return ops.silu(x)


class Tanh(Module):
    """Hyperbolic tangent.

    >>> from pybackprop import nn
    >>> nn.Tanh()([-1.0, 3.0]).round(3)
    array([-0.762,  0.995], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return ops.tanh(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``.

    >>> from pybackprop import nn
    >>> nn.Sigmoid()([-1.0, 3.0]).round(3)
    array([0.269, 0.953], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return ops.sigmoid(x)


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, and ``x`` where ``beta * x > threshold``.

    >>> from pybackprop import nn
    >>> nn.Softplus()([-1.0, 30.0]).round(3)
    array([ 0.313, 30.   ], dtype=float32)
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Any) -> Any:
        return ops.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """``x`` held between ``min_val`` and ``max_val``.

    >>> from pybackprop import nn
    >>> nn.Hardtanh()([-3.0, 0.5])
    array([-1. ,  0.5], dtype=float32)
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if not min_val < max_val:
            raise ValueError(f"[Hardtanh] min_val must be below max_val, got {min_val} and {max_val}")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Any) -> Any:
        return ops.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Hardtanh):
    """``min(max(x, 0), 6)``.

    >>> from pybackprop import nn
    >>> nn.ReLU6()([-3.0, 0.5, 9.0])
    array([0. , 0.5, 6. ], dtype=float32)
    """

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)

    def extra_repr(self) -> str:
        return ""


class Mish(Module):
    """``x * tanh(softplus(x))``.

    >>> from pybackprop import nn
    >>> nn.Mish()([-1.0, 3.0]).round(3)
    array([-0.303,  2.987], dtype=float32)
    """

    def forward(self, x: Any) -> Any:
        return ops.mish(x)


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` along ``dim``. For training, ``CrossEntropyLoss`` takes logits, without this layer.

    >>> from pybackprop import nn
    >>> nn.Softmax()([[0.0, 0.0, 0.0, 0.0]])
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return ops.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """``x - logsumexp(x)`` along ``dim``.

    >>> from pybackprop import nn
    >>> nn.LogSoftmax()([[0.0, 0.0]]).round(3)
    array([[-0.693, -0.693]], dtype=float32)
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return ops.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
