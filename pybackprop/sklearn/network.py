"""The network of an MLP estimator: affine layers held as scikit-learn holds them, and what stands between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core, nn, ops
from ..training.evaluate import Evaluator
from ..training.fitdata import Data

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}
"""Names of activations: scikit-learn's four, and more."""

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}

_OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "logistic": ops.sigmoid,
    "softmax": ops.softmax,
    "exp": ops.exp,
}
_CHUNK = 1024  # rows predicted at once


class Parts(NamedTuple):
    """What a Network has besides its affine layers: its last four arguments."""

    activations: list[str]
    output: str
    normalization: str | None
    dropout: float


class Affine(nn.Module):
    """``x @ coef + intercept``."""

    def __init__(self, coef: np.ndarray, intercept: np.ndarray, dtype: str) -> None:
        self.weight = nn.Parameter(np.asarray(coef, dtype).T, layout="linear", dtype=dtype)
        self.bias = nn.Parameter(np.asarray(intercept, dtype), dtype=dtype)

    def forward(self, x: Any) -> Any:
        return ops.linear(x, self.weight, self.bias)


class Network(nn.Module):
    """Affine layers; after each but the last a normalisation, an activation and dropout, as far as there are any.

    Args:
        coefs, intercepts: for each layer (inputs, outputs) and (outputs,), floats of one dtype.
        activations: a name for each hidden layer.
        output: what ``forward`` puts after the last layer: ``"identity"``, ``"logistic"``, ``"softmax"`` or ``"exp"``.
        normalization: ``"batch"``, ``"layer"`` or None.
        dropout: share of each hidden layer that a training step leaves out.
    """

    def __init__(
        self,
        coefs: Sequence[np.ndarray],
        intercepts: Sequence[np.ndarray],
        activations: Sequence[str],
        output: str,
        normalization: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        self.float = "float32" if np.asarray(coefs[0]).dtype == np.float32 else "float64"
        layers = zip(coefs, intercepts, strict=True)
        self.layer = nn.ModuleList([Affine(coef, intercept, self.float) for coef, intercept in layers])
        hidden = [np.shape(intercept)[0] for intercept in intercepts[:-1]]
        self.norm = None
        if normalization is not None:
            self.norm = nn.ModuleList([NORMALIZATIONS[normalization](width) for width in hidden]).astype(self.float)
        self.activation = nn.ModuleList([ACTIVATIONS[name]() for name in activations])
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.output = output

    def raw(self, x: Any) -> Any:
        """What the last layer gives."""
        for i, layer in enumerate(self.layer):
            x = layer(x)
            if i < len(self.activation):
                if self.norm is not None:
                    x = self.norm[i](x)
                x = self.activation[i](x)
                if self.dropout is not None:
                    x = self.dropout(x)
        return x

    def forward(self, x: Any) -> Any:
        return _OUTPUTS[self.output](self.raw(x))


class Held:
    """A Network together with the arrays that an estimator shows of it.

    The arrays are copies that cannot be written to, so that putting others in their place is the only way to change
    them, and is seen.

    Attributes:
        network: the Network.
        parts: what it was made of.
        coefs, intercepts: its weights as arrays.
    """

    def __init__(self, network: Network, parts: Parts) -> None:
        self.network, self.parts = network, parts
        self.read()
        self._evaluator = Evaluator(lambda *_: None, network, None)

    def read(self) -> None:
        """Take the network's weights over."""
        layers: list[Any] = list(self.network.layer)
        arrays = _core.read_all([layer.weight._param for layer in layers] + [layer.bias._param for layer in layers])
        self.coefs = [_frozen(np.ascontiguousarray(array.T)) for array in arrays[: len(layers)]]
        self.intercepts = [_frozen(array) for array in arrays[len(layers) :]]

    def shows(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> bool:
        """Whether these are the arrays it gave."""
        return (
            len(coefs) == len(self.coefs)
            and len(intercepts) == len(self.intercepts)
            and all(map(_same, coefs, self.coefs))
            and all(map(_same, intercepts, self.intercepts))
        )

    def rest(self) -> dict[str, np.ndarray]:
        """The state that ``coefs`` and ``intercepts`` do not hold."""
        return {} if self.network.norm is None else self.network.norm.state_dict()

    def load_rest(self, state: dict[str, np.ndarray]) -> None:
        """Take over what :meth:`rest` gave."""
        if self.network.norm is not None and state:
            self.network.norm.load_state_dict(state)

    def infer(self, X: Any) -> np.ndarray:
        """The network's outputs (n, outputs) for the rows of a dense or sparse matrix; a row's bits are its own."""
        if isinstance(X, np.ndarray):
            if len(X) == 1 and X.dtype == self.network.float:
                return self.network(X)
            return self._evaluator.predict(Data((X,), ["X"], False), self._kinds, _CHUNK)
        X = X.tocsr()
        parts = [self.infer(X[first : first + _CHUNK].toarray()) for first in range(0, X.shape[0], _CHUNK)]
        return np.concatenate(parts)

    def _kinds(self, data: Data, rows: int) -> Any:
        kinds = (False,)
        return kinds, self._evaluator.compile_model(data.specs(rows, kinds))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _same(a: Any, b: Any) -> bool:
    return a is b
