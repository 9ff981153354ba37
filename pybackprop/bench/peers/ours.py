"""pybackprop itself: ``step`` calls TrainStep once per batch from Python, ``fit`` hands whole epochs to Trainer.fit."""

from itertools import pairwise

import pybackprop as pb
from pybackprop import nn, optim


class _Run:
    def __init__(self, case, data):
        widths = case["layers"]
        activation = nn.ReLU if case["activation"] == "relu" else nn.Tanh
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for i, o in pairwise(widths[1:]):
            layers += [activation(), nn.Linear(i, o)]
        self.model = nn.Sequential(*layers)
        linear = [k for k, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        self.model.load_state_dict(
            {f"{k}.{name}": data[f"{name[0]}{i}"] for i, k in enumerate(linear) for name in ("weight", "bias")}
        )
        self.loss = nn.CrossEntropyLoss() if case["loss"] == "cross_entropy" else nn.MSELoss()
        self.optimizer = optim.Adam(lr=case["lr"]) if case["optimizer"] == "adam" else optim.SGD(lr=case["lr"])
        self.x, self.y = data["x"], data["y"]


class Step(_Run):
    def __init__(self, case, data):
        super().__init__(case, data)
        loss = self.loss
        self._step = pb.TrainStep(lambda model, x, y: loss(model(x), y), self.model, self.optimizer)
        self._batches = list(zip(self.x, self.y, strict=True))
        self._next = 0

    def losses(self, count):
        losses = [self._step(*self._batches[(self._next + i) % len(self._batches)]) for i in range(count)]
        self._next = (self._next + count) % len(self._batches)
        return losses

    def run(self, steps):
        step, batches, i = self._step, self._batches, self._next
        for _ in range(steps):
            x, y = batches[i]
            step(x, y)
            i += 1
            if i == len(batches):
                i = 0
        self._next = i


class Fit(_Run):
    """A run of n steps is n / batches epochs: the runner asks for whole epochs only."""

    whole_epochs = True

    def __init__(self, case, data):
        super().__init__(case, data)
        self._trainer = pb.Trainer(self.model, loss=self.loss, optimizer=self.optimizer, seed=0)
        self._batch = case["batch"]
        self._rows_x = self.x.reshape(-1, *self.x.shape[2:])
        self._rows_y = self.y.reshape(-1, *self.y.shape[2:])

    def losses(self, count):
        """The mean loss of each epoch, as fit reports it."""
        return self._fit(count // len(self.x)).history["loss"]

    def run(self, steps):
        self._fit(steps // len(self.x))

    def _fit(self, epochs):
        return self._trainer.fit(
            self._rows_x, self._rows_y, epochs=epochs, batch_size=self._batch, shuffle=False, verbose=0
        )


class WholeFit(_Run):
    """Trainer.fit as its user calls it: shuffled, several epochs."""

    def __init__(self, case, data):
        super().__init__(case, data)
        self._trainer = pb.Trainer(self.model, loss=self.loss, optimizer=self.optimizer, seed=0)
        self._epochs, self._batch = case["epochs"], case["batch"]

    def losses(self, count):
        history = self._trainer.fit(self.x, self.y, epochs=self._epochs, batch_size=self._batch, verbose=0)
        return history.history["loss"]

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    if "epochs" in case:
        return WholeFit(case, data)
    return Fit(case, data) if variant == "fit" else Step(case, data)


def version():
    return pb.__version__
