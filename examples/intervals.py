"""An objective of one's own with several inputs: how ill a patient will be in a year, with an interval and weights.

One network gives three quantiles at once (5 %, 50 %, 95 %) of the disease's progression in scikit-learn's diabetes
data; the objective takes inputs, target and a weight per patient, and reports the median's error beside the loss.
pip install 'pybackprop[demo]', then python examples/intervals.py
"""

import numpy as np
from sklearn.datasets import load_diabetes

import pybackprop as pb
from pybackprop import nn, optim

QUANTILES = (0.05, 0.5, 0.95)


class Intervals(nn.Module):
    """A median, and distances below and above it that cannot be negative: quantiles never cross."""

    def __init__(self, width):
        self.body = nn.Sequential(nn.Linear(10, width), nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, 3))

    def forward(self, x):
        out = self.body(x)
        median = out[:, 0:1]
        below, above = pb.ops.softplus(out[:, 1:2]), pb.ops.softplus(out[:, 2:3])
        return pb.ops.concat([median - below, median, median + above], dim=1)


pinball = nn.PinballLoss(quantiles=QUANTILES)


def objective(model, x, y, weight):
    quantiles = model(x)
    loss = pinball(quantiles, y, sample_weight=weight)
    return loss, {"median_error": (quantiles[:, 1] - y).abs().mean()}


def main(epochs=200):
    data = load_diabetes()
    x = (data.data / data.data.std(axis=0)).astype(np.float32)
    scale, shift = data.target.std(), data.target.mean()
    y = ((data.target - shift) / scale).astype(np.float32)
    weight = np.where(data.target > 200, 2, 1).astype(np.float32)  # severe cases count twice
    test, train = np.split(np.random.default_rng(0).permutation(len(x)), [100])

    model = Intervals(32)
    trainer = pb.Trainer(model, objective=objective, optimizer=optim.AdamW(lr=3e-3, weight_decay=0.05), seed=0)
    history = trainer.fit((x[train], y[train], weight[train]), epochs=epochs, batch_size=32).history
    first, last = history["median_error"][0] * scale, history["median_error"][-1] * scale
    print(f"median error in training {first:.1f} -> {last:.1f}")

    low, median, high = model(x[test]).T
    inside = ((y[test] >= low) & (y[test] <= high)).mean()
    error = np.abs(median - y[test]).mean() * scale
    print(f"test: median error {error:.1f} (mean of training patients: {np.abs(y[test]).mean() * scale:.1f}), "
          f"{inside:.0%} inside the 90 % interval")  # fmt: skip
    return error, inside


if __name__ == "__main__":
    main()
