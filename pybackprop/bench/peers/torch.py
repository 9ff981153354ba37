"""PyTorch at its best on a CPU: eager with the fused optimizer, or the same whole step compiled."""

import os
from itertools import pairwise

import torch
import torch.nn.functional as F


class Run:
    def __init__(self, case, data, compiled):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        widths = case["layers"]
        activation = torch.nn.ReLU if case["activation"] == "relu" else torch.nn.Tanh
        layers: list[torch.nn.Module] = []
        for k, (i, o) in enumerate(pairwise(widths)):
            linear = torch.nn.Linear(i, o)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(data[f"w{k}"]))
                linear.bias.copy_(torch.from_numpy(data[f"b{k}"]))
            layers += [activation(), linear] if layers else [linear]
        model = torch.nn.Sequential(*layers)
        loss_of = F.cross_entropy if case["loss"] == "cross_entropy" else F.mse_loss
        algorithm = torch.optim.Adam if case["optimizer"] == "adam" else torch.optim.SGD
        optimizer = algorithm(model.parameters(), lr=case["lr"], fused=True)
        self._x, self._y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
        self._batches = [] if "epochs" in case else list(zip(self._x, self._y, strict=True))
        self._next = 0

        def step(x, y):
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss

        self._step = torch.compile(step) if compiled else step

    def losses(self, count):
        return [float(self._advance()) for _ in range(count)]

    def run(self, steps):
        for _ in range(steps):
            self._advance()

    def _advance(self):
        x, y = self._batches[self._next]
        self._next = (self._next + 1) % len(self._batches)
        return self._step(x, y)


class Fit(Run):
    """A plain training loop: a random order of rows, batches by index, losses kept as tensors until the epoch's end."""

    def __init__(self, case, data, compiled):
        super().__init__(case, data, compiled)
        self._epochs, self._batch = case["epochs"], case["batch"]

    def losses(self, count):
        losses = []
        for _ in range(self._epochs):
            parts = []
            for rows in torch.randperm(len(self._x)).split(self._batch):
                parts.append(len(rows) * self._step(self._x[rows], self._y[rows]).detach())
            losses.append(float(torch.stack(parts).sum()) / len(self._x))
        return losses

    def run(self, steps):
        for _ in range(steps):
            self.losses(1)


def build(case, data, variant):
    return (Fit if "epochs" in case else Run)(case, data, compiled=variant == "compile")


def version():
    return torch.__version__
