"""What is measured: a network, its batches, and how it is trained."""

import dataclasses
from itertools import pairwise

import numpy as np

__all__ = ["QUICK", "Case", "FitCase"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A multilayer perceptron and the batches on which every peer trains it.

    Attributes:
        layers: widths from input to output.
        batch: rows per batch.
        activation: between layers, ``"relu"`` or ``"tanh"``.
        loss: ``"cross_entropy"`` on labels or ``"mse"`` on real targets.
        optimizer: ``"adam"`` or ``"sgd"``.
        lr: learning rate.
        batches: number of different batches, visited in turn.
    """

    layers: tuple[int, ...]
    batch: int
    activation: str = "relu"
    loss: str = "cross_entropy"
    optimizer: str = "adam"
    lr: float = 1e-3
    batches: int = 64

    @property
    def name(self) -> str:
        """What tables and the command line call it, as ``784-128-10/64/adam``."""
        return f"{'-'.join(map(str, self.layers))}/{self.batch}/{self.optimizer}"

    def data(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Batches ``x`` (batches, batch, in) and ``y``, and starting weights ``w0``, ``b0``, ... in PyTorch's layout.

        Targets follow from the inputs by a random linear rule, so that every correct peer's loss must fall.
        """
        rng = np.random.default_rng(seed)
        data = {}
        for k, (i, o) in enumerate(pairwise(self.layers)):
            bound = i**-0.5  # PyTorch's default for Linear
            data[f"w{k}"] = rng.uniform(-bound, bound, (o, i)).astype(np.float32)
            data[f"b{k}"] = rng.uniform(-bound, bound, o).astype(np.float32)
        x = rng.normal(size=(self.batches, self.batch, self.layers[0])).astype(np.float32)
        scores = (
            x
            @ rng.normal(size=(self.layers[0], self.layers[-1])).astype(np.float32)
            * np.float32(self.layers[0] ** -0.5)
        )
        data["x"] = x
        data["y"] = scores if self.loss == "mse" else scores.argmax(axis=-1)
        return data


@dataclasses.dataclass(frozen=True)
class FitCase(Case):
    """A whole training run on rows that are shuffled in every epoch. ``batches`` has no meaning here.

    Attributes:
        rows: of the data set; the last batch of an epoch may be smaller.
        epochs: passes over it.
    """

    rows: int = 20_000
    epochs: int = 5

    @property
    def name(self) -> str:
        """As ``784-128-10/64/adam, 5 epochs of 20000``."""
        return f"{super().name}, {self.epochs} epochs of {self.rows}"

    def data(self, seed: int = 0) -> dict[str, np.ndarray]:
        """As :meth:`Case.data`, but ``x`` (rows, in) and ``y`` are not cut into batches."""
        whole = dataclasses.replace(self, batches=1, batch=self.rows)
        data = Case.data(whole, seed)
        return data | {"x": data["x"][0], "y": data["y"][0]}


# Small networks of control loops are trained on real targets, classifiers on labels.
QUICK = (
    Case((2, 16, 2), 4, loss="mse"),
    Case((784, 128, 10), 64),
    Case((784, 512, 512, 10), 128, batches=8),
)
