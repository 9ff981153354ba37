"""The demonstration: handwritten digits, learnt here and in pure NumPy from the same start on the same batches.

Needs scikit-learn for the digits (they ship with it), matplotlib for the picture, tqdm for the progress bar (extra
``demo``).
"""

import time
from itertools import pairwise
from typing import Any

import numpy as np

from . import nn, optim
from .bench.peers.numpy_mlp import NumpyMLP
from .plot.axes import learning_curve
from .random import manual_seed
from .training import Callback, Trainer
from .training.loop import epoch_order

__all__ = ["run"]

_WIDTHS = (64, 256, 128, 10)
_BATCH = 32
_LR = 1e-3
_SEED = 0


def run(epochs: int = 30, picture: str = "learning_curve.png") -> dict[str, Any]:
    """Train, compare, print, and draw the learning curve.

    Args:
        epochs: passes over the training digits.
        picture: the file of the learning curve.

    Returns:
        ``accuracy`` on the test digits, ``seconds`` and ``numpy_seconds`` of the two trainings, and ``difference``, the
        largest relative difference between their losses of an epoch.

    Raises:
        ImportError: an optional package is missing.
    """
    x, y, x_test, y_test = digits()
    model = network()
    start = {name: np.array(value) for name, value in model.state_dict().items()}
    print(f"Handwritten digits: {len(x)} to train on, {len(x_test)} to test; network {'-'.join(map(str, _WIDTHS))}")

    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=_LR), seed=_SEED)
    curve = _TestAccuracy(x_test, y_test)
    began = time.perf_counter()
    history = trainer.fit(x, y, epochs=epochs, batch_size=_BATCH, callbacks=[curve], verbose=1)
    seconds = time.perf_counter() - began
    losses = history.history["loss"]
    accuracy = curve.values[-1]
    print(f"test accuracy: {accuracy:.1%} ({round(accuracy * len(y_test))} of {len(y_test)} digits)")

    began = time.perf_counter()
    numpy_losses, numpy_accuracies = train_with_numpy(start, x, y, x_test, y_test, epochs)
    numpy_seconds = time.perf_counter() - began
    difference = max(abs(a - b) / b for a, b in zip(losses, numpy_losses, strict=True))
    print("the same network in pure NumPy, from the same weights on the same batches:")
    print(f"  pybackprop {seconds:8.3f} s")
    print(f"  NumPy      {numpy_seconds:8.3f} s   {numpy_seconds / seconds:.1f} times as long")
    print(f"  losses per epoch agree to {difference:.1g} (largest relative difference)")

    learning_curve(
        picture,
        {"pybackprop": losses, "NumPy": numpy_losses},
        title=f"Handwritten digits: {accuracy:.1%} of the test digits",
        accuracies={"pybackprop, test": curve.values, "NumPy, test": numpy_accuracies},
    )
    print(f"learning curve: {picture}")
    return {"accuracy": accuracy, "seconds": seconds, "numpy_seconds": numpy_seconds, "difference": difference}


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's 1797 digits of 8 x 8 pixels: ``x, y, x_test, y_test``, one in five to test.

    Pixels are float32, standardised by the training digits; a tenth of grey is added to the deviations, because some
    pixels at the edge are always white.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("The demo needs scikit-learn's digits: pip install 'pybackprop[demo]'.") from None
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    order = np.random.default_rng(_SEED).permutation(len(x))
    test, train = np.split(order, [len(x) // 5])
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + np.float32(0.1))
    return x[train], y[train], x[test], y[test]


def network() -> nn.Sequential:
    """The demo's network; without dropout, so that NumPy can follow it exactly."""
    manual_seed(_SEED)
    layers: list[nn.Module] = [nn.Linear(_WIDTHS[0], _WIDTHS[1])]
    for i, o in pairwise(_WIDTHS[1:]):
        layers += [nn.ReLU(), nn.Linear(i, o)]
    return nn.Sequential(*layers)


def train_with_numpy(
    start: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, epochs: int
) -> tuple[list[float], list[float]]:
    """Loss and test accuracy per epoch of the same training: same weights, batches, order, and optimizer."""
    net = NumpyMLP(
        [value for name, value in start.items() if name.endswith("weight")],
        [value for name, value in start.items() if name.endswith("bias")],
        batch=_BATCH,
        lr=_LR,
    )
    losses, accuracies = [], []
    for epoch in range(epochs):
        order = epoch_order(_SEED, epoch, len(x))
        total = 0.0
        for first in range(0, len(x), _BATCH):
            rows = order[first : first + _BATCH]
            total += net.step(x[rows], y[rows]) * len(rows)
        losses.append(total / len(x))
        accuracies.append(float((net.predict(x_test).argmax(axis=1) == y_test).mean()))
    return losses, accuracies


class _TestAccuracy(Callback):
    """Accuracy on the test digits after each epoch; nothing is chosen by it."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.values: list[float] = []
        self.trainer: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        outputs = self.trainer.predict(self.x)
        self.values.append(float((outputs.argmax(axis=1) == self.y).mean()))
