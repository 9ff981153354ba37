"""Initial values. Each function writes into a Parameter, in place, and returns it.

Numbers come from the generator that ``pb.manual_seed`` sets. ``fan_in`` and ``fan_out`` are the numbers of inputs and
outputs of one unit: for a weight (out, in, ...) the product of all dimensions but the first, and but the second.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from ..random import generator
from .parameter import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

P = TypeVar("P", bound=Parameter)


def _assign(parameter: P, values: Any) -> P:
    if not isinstance(parameter, Parameter):
        raise TypeError(f"[init] expects a Parameter, got {type(parameter).__name__}")
    parameter.assign(np.broadcast_to(values, parameter.shape))
    return parameter


def uniform_(parameter: P, a: float = 0.0, b: float = 1.0) -> P:
    """Evenly from ``[a, b)``.

    >>> from pybackprop import nn
    >>> nn.init.uniform_(nn.Parameter([0.0, 0.0]), 2.0, 3.0).numpy().min() >= 2
    np.True_
    """
    return _assign(parameter, generator().uniform(a, b, parameter.shape))


def normal_(parameter: P, mean: float = 0.0, std: float = 1.0) -> P:
    """Normal, with this mean and standard deviation.

    >>> from pybackprop import nn
    >>> nn.init.normal_(nn.Parameter([0.0, 0.0]), 5.0, 0.0).numpy()
    array([5., 5.], dtype=float32)
    """
    return _assign(parameter, generator().normal(mean, std, parameter.shape))


def constant_(parameter: P, value: float) -> P:
    """``value`` everywhere.

    >>> from pybackprop import nn
    >>> nn.init.constant_(nn.Parameter([0.0, 0.0]), 3.0).numpy()
    array([3., 3.], dtype=float32)
    """
    return _assign(parameter, value)


def zeros_(parameter: P) -> P:
    """0 everywhere.

    >>> from pybackprop import nn
    >>> nn.init.zeros_(nn.Parameter([1.0, 2.0])).numpy()
    array([0., 0.], dtype=float32)
    """
    return _assign(parameter, 0.0)


def ones_(parameter: P) -> P:
    """1 everywhere.

    >>> from pybackprop import nn
    >>> nn.init.ones_(nn.Parameter([0.0, 0.0])).numpy()
    array([1., 1.], dtype=float32)
    """
    return _assign(parameter, 1.0)


def _fans(parameter: Parameter, name: str) -> tuple[int, int]:
    shape = parameter.shape
    if len(shape) < 2:
        raise ValueError(f"[{name}] expects a weight of at least 2 dimensions (out, in, ...), got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a layer followed by ``nonlinearity``, as in PyTorch.

    Args:
        nonlinearity: ``"linear"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"`` or ``"selu"``.
        param: the negative slope of a leaky ReLU, 0.01 if None.

    >>> round(calculate_gain("relu"), 4)
    1.4142
    """
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        known = ", ".join([*gains, "leaky_relu"])
        raise ValueError(f"[calculate_gain] nonlinearity must be one of {known}, got {nonlinearity!r}")
    return gains[nonlinearity]


def xavier_uniform_(parameter: P, gain: float = 1.0) -> P:
    """Evenly within ``gain * sqrt(6 / (fan_in + fan_out))`` of 0 (Glorot and Bengio 2010).

    >>> from pybackprop import nn
    >>> bool((abs(nn.init.xavier_uniform_(nn.Linear(4, 2).weight).numpy()) <= 1).all())
    True
    """
    bound = gain * math.sqrt(6.0 / max(1, sum(_fans(parameter, "xavier_uniform_"))))
    return uniform_(parameter, -bound, bound)


def xavier_normal_(parameter: P, gain: float = 1.0) -> P:
    """Normal with standard deviation ``gain * sqrt(2 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    >>> from pybackprop import nn
    >>> nn.init.xavier_normal_(nn.Linear(4, 2).weight).shape
    (2, 4)
    """
    return normal_(parameter, 0.0, gain * math.sqrt(2.0 / max(1, sum(_fans(parameter, "xavier_normal_")))))


def _kaiming_std(parameter: Parameter, a: float, mode: str, nonlinearity: str, name: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'[{name}] mode must be "fan_in" or "fan_out", got {mode!r}')
    fan = _fans(parameter, name)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan))


def kaiming_uniform_(parameter: P, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> P:
    """Evenly within ``gain * sqrt(3 / fan)`` of 0 (He et al. 2015, arXiv:1502.01852).

    Args:
        parameter: a weight (out, in, ...).
        a: the negative slope of the leaky ReLU that follows; 0 for ReLU.
        mode: ``"fan_in"`` keeps the variance forward, ``"fan_out"`` backward.
        nonlinearity: see ``calculate_gain``.

    >>> from pybackprop import nn
    >>> bool((abs(nn.init.kaiming_uniform_(nn.Linear(6, 2).weight).numpy()) <= 1).all())
    True
    """
    bound = math.sqrt(3.0) * _kaiming_std(parameter, a, mode, nonlinearity, "kaiming_uniform_")
    return uniform_(parameter, -bound, bound)


def kaiming_normal_(parameter: P, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> P:
    """Normal with standard deviation ``gain / sqrt(fan)``; arguments as in ``kaiming_uniform_``.

    >>> from pybackprop import nn
    >>> nn.init.kaiming_normal_(nn.Linear(4, 2).weight, nonlinearity="relu").shape
    (2, 4)
    """
    return normal_(parameter, 0.0, _kaiming_std(parameter, a, mode, nonlinearity, "kaiming_normal_"))


def orthogonal_(parameter: P, gain: float = 1.0) -> P:
    """Orthonormal rows or columns, whichever are fewer, times ``gain`` (Saxe et al. 2013, arXiv:1312.6120).

    >>> from pybackprop import nn
    >>> weight = nn.init.orthogonal_(nn.Linear(3, 2).weight).numpy()
    >>> abs(weight @ weight.T).round(3)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    rows = parameter.shape[0] if parameter.shape else 1
    _fans(parameter, "orthogonal_")
    columns = math.prod(parameter.shape[1:])
    q, r = np.linalg.qr(generator().normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the distribution uniform
    return _assign(parameter, gain * (q if rows >= columns else q.T).reshape(parameter.shape))


def trunc_normal_(parameter: P, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> P:
    """Normal, with what falls outside of ``[a, b]`` drawn again.

    >>> from pybackprop import nn
    >>> bool((abs(nn.init.trunc_normal_(nn.Linear(40, 20).weight).numpy()) <= 2).all())
    True
    """
    if not a < b:
        raise ValueError(f"[trunc_normal_] expects a < b, got {a} and {b}")
    if std > 0 and not (b > mean - 6 * std and a < mean + 6 * std):
        raise ValueError(f"[trunc_normal_] [{a}, {b}] lies more than 6 standard deviations from the mean {mean}")
    values = generator().normal(mean, std, parameter.shape)
    outside = (values < a) | (values > b)
    while std > 0 and outside.any():
        values[outside] = generator().normal(mean, std, int(outside.sum()))
        outside = (values < a) | (values > b)
    return _assign(parameter, np.clip(values, a, b))
