"""Optimizers and learning-rate schedules. They describe; the update runs in C++ over flat spans (``csrc/optim``).

An optimizer here holds numbers only: no parameters, no state. A `TrainStep` or `Trainer` binds it to a model and owns
the state, so one optimizer object may serve several. Names, defaults and formulas are PyTorch's.

Every number may be changed at any time and counts from the next update on::

    opt = optim.AdamW(lr=1e-3, groups={"*.bias": dict(weight_decay=0), "0.*": dict(frozen=True)})
    opt.lr = 1e-4

``groups`` maps patterns on dotted parameter names (`fnmatch`: ``*`` also crosses dots) to options for the parameters
they match: any of the optimizer's own options, ``lr_scale`` (a factor on the learning rate) and ``frozen`` (no
gradient, no state, no update). All matching patterns apply, later ones override earlier ones. The key `VECTORS`
matches by shape instead: every parameter with fewer than two dimensions, that is biases and the scales and shifts of
norms. The usual weight decay for matrices only is ``groups={optim.VECTORS: dict(weight_decay=0)}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from ._schedules import (
    Constant,
    CosineLR,
    ExponentialLR,
    OneCycle,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    Warmup,
    as_schedule,
    checked_number,
)

__all__ = [
    "SGD",
    "VECTORS",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "CosineLR",
    "ExponentialLR",
    "Lion",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
    "Warmup",
]

VECTORS = "<vectors>"
"""A key for ``groups``: all parameters with fewer than two dimensions (biases, scales and shifts of norms)."""

_Check = Callable[[str, Any], Any]
_Hyper = dict[str, float]


def _at_least_zero(where: str, value: Any) -> float:
    return checked_number(where, value, 0)


def _below_one(where: str, value: Any) -> float:
    return checked_number(where, value, 0, 1, open_high=True)


def _share(where: str, value: Any) -> float:
    return checked_number(where, value, 0, 1)


def _any_number(where: str, value: Any) -> float:
    return checked_number(where, value)


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{where} must be True or False, got {value!r}.")
    return bool(value)


def _betas(where: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{where} must be two numbers (beta1, beta2), got {value!r}.")
    return _below_one(f"{where}[0]", value[0]), _below_one(f"{where}[1]", value[1])


class Optimizer:
    """What all optimizers share: options checked when they are set, and parameter groups.

    Attributes:
        rule: name of the C++ update rule.
        lr: a number or a `Schedule`.
        groups: read-only mapping of patterns to options; assign a new dict to change it.
        version: grows with every change of an option, so that a `TrainStep` sees changes for the price of a comparison.
    """

    rule: ClassVar[str]
    _options: ClassVar[Mapping[str, _Check]]
    version: int = 0
    lr: float | Schedule
    groups: Mapping[str, Mapping[str, Any]]

    def __init__(self, lr: float | Schedule, groups: Mapping[str, Mapping[str, Any]] | None, **options: Any) -> None:
        self.lr = lr
        for name, value in options.items():
            setattr(self, name, value)
        self._check(self._values())
        self.groups = {} if groups is None else groups  # checked last: its checks read the options above

    def __setattr__(self, name: str, value: Any) -> None:
        where = f"{type(self).__name__}({name})"
        if name == "lr":
            value = value if isinstance(value, Schedule) else checked_number(where, value, 0)
        elif name == "groups":
            value = self._checked_groups(value)
        elif name in self._options:
            value = self._options[name](where, value)
        else:
            raise AttributeError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(self._names())}.")
        object.__setattr__(self, name, value)
        object.__setattr__(self, "version", self.version + 1)

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in ("lr", *self._options)]
        if self.groups:
            shown.append(f"groups={ {key: dict(options) for key, options in self.groups.items()}!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "groups": {key: dict(options) for key, options in self.groups.items()}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, self._checked_groups(value) if name == "groups" else value)

    @property
    def schedule(self) -> Schedule:
        """``lr`` as a `Schedule`; a number is a `Constant`."""
        return as_schedule(self.lr)

    @property
    def hyper(self) -> dict[str, float]:
        """The options as the update rule takes them: one float a name, without the learning rate."""
        return self._hyper(self._values())

    def resolve(
        self, parameters: Iterable[str] | Mapping[str, Any]
    ) -> tuple[list[int], list[dict[str, float]], frozenset[str]]:
        """Sort parameters into groups.

        Args:
            parameters: dotted names in order, or a mapping from them to anything with a ``shape`` (for `VECTORS`).

        Returns:
            ``(groups, hyper, frozen)``: for each parameter the index of its group; for each group its numbers, those of
            `hyper` and ``lr_scale`` where it is not 1; and the names that are not trained. Frozen parameters have a
            group index as well, to be left out together with the name.

        Raises:
            ValueError: a pattern matches no parameter, or a group's options do not go together.
        """
        names = list(parameters)
        shapes = parameters if isinstance(parameters, Mapping) else {}
        self._check(self._values())
        used: set[str] = set()
        frozen: set[str] = set()
        groups: list[int] = []
        hyper: list[dict[str, float]] = []
        index: dict[tuple[tuple[str, float], ...], int] = {}
        for name in names:
            values = self._values()
            for key, options in self.groups.items():
                if self._matches(key, name, shapes):
                    used.add(key)
                    values.update(options)
            self._check(values, f" for parameter {name}")
            if values.pop("frozen", False):
                frozen.add(name)
            numbers = self._hyper(values)
            key_of = tuple(numbers.items())
            if key_of not in index:
                index[key_of] = len(hyper)
                hyper.append(numbers)
            groups.append(index[key_of])
        for key in self.groups:
            if key not in used:
                raise ValueError(f"groups: {key!r} matches no parameter; there are {_some(names)}.")
        return groups, hyper or [self.hyper], frozenset(frozen)

    @staticmethod
    def _matches(key: str, name: str, shapes: Mapping[str, Any]) -> bool:
        if key != VECTORS:
            return fnmatchcase(name, key)
        if name not in shapes:
            raise ValueError("groups: VECTORS needs shapes: give resolve() a mapping from names to parameters.")
        return len(shapes[name].shape) < 2

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return ("lr", *cls._options, "groups")

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._options}

    def _checked_groups(self, groups: Any) -> Mapping[str, Mapping[str, Any]]:
        if not isinstance(groups, Mapping):
            raise TypeError(f"groups must be a dict of patterns to dicts of options, got {type(groups).__name__}.")
        checks = {**self._options, "lr_scale": _at_least_zero, "frozen": _flag}
        result = {}
        for key, options in groups.items():
            if not isinstance(key, str):
                raise TypeError(f"groups: a pattern must be a string, got {key!r}.")
            if not isinstance(options, Mapping):
                raise TypeError(f"groups[{key!r}] must be a dict of options, got {options!r}.")
            for name in options:
                if name == "lr":
                    raise ValueError(f"groups[{key!r}]: a group has no lr of its own; give lr_scale, a factor on lr.")
                if name not in checks:
                    raise ValueError(
                        f"groups[{key!r}]: {type(self).__name__} has no option {name!r}; "
                        f"a group takes {', '.join(checks)}."
                    )
            checked = {name: checks[name](f"groups[{key!r}][{name!r}]", value) for name, value in options.items()}
            result[key] = MappingProxyType(checked)
        return MappingProxyType(result)

    def _check(self, values: Mapping[str, Any], where: str = "") -> None:
        """Raise ValueError if options that are legal one by one do not go together."""

    @staticmethod
    def _hyper(values: Mapping[str, Any]) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, value in values.items():
            if name == "betas":
                numbers["beta1"], numbers["beta2"] = value
            elif name != "lr_scale" or value != 1:
                numbers[name] = float(value)
        return numbers


def _some(names: list[str], most: int = 8) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD``.

    ``g = g + weight_decay * w``; ``b = momentum * b + (1 - dampening) * g`` (``b = g`` at the first step);
    ``w = w - lr * (g + momentum * b if nesterov else b)``; without momentum ``b = g``.

    Args:
        lr: learning rate or `Schedule`, default 1e-3.
        momentum: weight of the previous step, 0 or more, default 0.
        dampening: default 0.
        weight_decay: L2 coefficient added to the gradient, 0 or more, default 0.
        nesterov: look ahead by one momentum step, default False; needs ``momentum > 0`` and ``dampening == 0``.
        groups: options for some parameters, see the module's page.

    >>> SGD(lr=0.1, momentum=0.9).hyper
    {'momentum': 0.9, 'dampening': 0.0, 'nesterov': 0.0, 'weight_decay': 0.0}
    """

    rule = "sgd"
    _options: ClassVar[Mapping[str, _Check]] = {
        "momentum": _at_least_zero,
        "dampening": _any_number,
        "nesterov": _flag,
        "weight_decay": _at_least_zero,
    }

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            lr, groups, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=weight_decay
        )

    def _check(self, values: Mapping[str, Any], where: str = "") -> None:
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            raise ValueError(
                f"SGD with nesterov=True needs momentum above 0 and dampening 0{where}, "
                f"got momentum={values['momentum']:g} and dampening={values['dampening']:g}."
            )


class Adam(Optimizer):
    """Adam, Kingma and Ba 2015 (arXiv 1412.6980), as ``torch.optim.Adam`` without ``amsgrad``.

    ``g = g + weight_decay * w``; ``m = beta1 * m + (1 - beta1) * g``; ``v = beta2 * v + (1 - beta2) * g**2``;
    ``w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)`` at step ``t`` = 1, 2, …

    Args:
        lr: learning rate or `Schedule`, default 1e-3.
        betas: decay of the two averages, each in [0, 1), default (0.9, 0.999).
        eps: added to the root, 0 or more, default 1e-8.
        weight_decay: L2 coefficient added to the gradient, 0 or more, default 0; `AdamW` decouples it.
        eps_hat: divide by ``(sqrt(v) + eps) / sqrt(1 - beta2**t)``, as TensorFlow, Keras and scikit-learn do (the form
            just before section 2.1 of the paper), default False.
        groups: options for some parameters, see the module's page.

    An embedding with ``sparse=True`` has only its touched rows updated, averages included, as in ``SparseAdam``.

    >>> Adam().hyper
    {'beta1': 0.9, 'beta2': 0.999, 'eps': 1e-08, 'weight_decay': 0.0, 'eps_hat': 0.0}
    """

    rule = "adam"
    _options: ClassVar[Mapping[str, _Check]] = {
        "betas": _betas,
        "eps": _at_least_zero,
        "weight_decay": _at_least_zero,
        "eps_hat": _flag,
    }

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        eps_hat: bool = False,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(lr, groups, betas=betas, eps=eps, weight_decay=weight_decay, eps_hat=eps_hat)


class AdamW(Adam):
    """Adam with decoupled weight decay, Loshchilov and Hutter 2019 (arXiv 1711.05101), as ``torch.optim.AdamW``.

    `Adam`'s step, and ``w = w - lr * weight_decay * w`` beside it: the decay does not pass through the averages.

    Args:
        lr: learning rate or `Schedule`, default 1e-3.
        betas: decay of the two averages, each in [0, 1), default (0.9, 0.999).
        eps: added to the root, 0 or more, default 1e-8.
        weight_decay: 0 or more, default 1e-2.
        eps_hat: as in `Adam`.
        groups: options for some parameters, see the module's page.

    >>> AdamW(lr=1e-3, groups={VECTORS: dict(weight_decay=0)}).weight_decay
    0.01
    """

    rule = "adamw"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        eps_hat: bool = False,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, eps_hat, groups=groups)


class RMSprop(Optimizer):
    """RMSprop, Hinton's lecture 6e (2012), as ``torch.optim.RMSprop``.

    ``g = g + weight_decay * w``; ``v = alpha * v + (1 - alpha) * g**2``; ``d = g / (sqrt(v) + eps)``; with momentum
    ``b = momentum * b + d`` takes ``d``'s place; ``w = w - lr * d``. With ``centered`` (Graves 2013) the root is of
    ``v - a**2``, ``a`` being the running mean of ``g``.

    Args:
        lr: learning rate or `Schedule`, default 1e-2.
        alpha: decay of the averages, in [0, 1], default 0.99.
        eps: added to the root, 0 or more, default 1e-8.
        weight_decay: L2 coefficient added to the gradient, 0 or more, default 0.
        momentum: 0 or more, default 0.
        centered: divide by the standard deviation, default False.
        groups: options for some parameters, see the module's page.

    >>> RMSprop(momentum=0.9).lr
    0.01
    """

    rule = "rmsprop"
    _options: ClassVar[Mapping[str, _Check]] = {
        "alpha": _share,
        "eps": _at_least_zero,
        "weight_decay": _at_least_zero,
        "momentum": _at_least_zero,
        "centered": _flag,
    }

    def __init__(
        self,
        lr: float | Schedule = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            lr, groups, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
        )


class Adagrad(Optimizer):
    """Adagrad, Duchi, Hazan and Singer 2011, as ``torch.optim.Adagrad``.

    ``g = g + weight_decay * w``; ``v = v + g**2``; ``w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(v) + eps)``,
    where ``v`` starts from ``initial_accumulator_value``.

    Args:
        lr: learning rate or `Schedule`, default 1e-2.
        lr_decay: 0 or more, default 0.
        weight_decay: L2 coefficient added to the gradient, 0 or more, default 0.
        initial_accumulator_value: 0 or more, default 0.
        eps: added to the root, 0 or more, default 1e-10.
        groups: options for some parameters, see the module's page.

    >>> Adagrad(lr=0.1).eps
    1e-10
    """

    rule = "adagrad"
    _options: ClassVar[Mapping[str, _Check]] = {
        "lr_decay": _at_least_zero,
        "weight_decay": _at_least_zero,
        "initial_accumulator_value": _at_least_zero,
        "eps": _at_least_zero,
    }

    def __init__(
        self,
        lr: float | Schedule = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            lr,
            groups,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )


class Lion(Optimizer):
    """Lion, Chen et al. 2023 (arXiv 2302.06675): a step of fixed size in the sign of an average.

    ``w = w - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)``; ``m = beta2 * m + (1 - beta2) * g``.
    A good ``lr`` is 3 to 10 times smaller than Adam's, ``weight_decay`` as much larger.

    Args:
        lr: learning rate or `Schedule`, default 1e-4.
        betas: each in [0, 1), default (0.9, 0.99).
        weight_decay: decoupled, 0 or more, default 0.
        groups: options for some parameters, see the module's page.

    >>> Lion().hyper
    {'beta1': 0.9, 'beta2': 0.99, 'weight_decay': 0.0}
    """

    rule = "lion"
    _options: ClassVar[Mapping[str, _Check]] = {"betas": _betas, "weight_decay": _at_least_zero}

    def __init__(
        self,
        lr: float | Schedule = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(lr, groups, betas=betas, weight_decay=weight_decay)
