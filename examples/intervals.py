"""An objective of one's own, and several inputs: how far a disease will progress in a year, with an interval.

One network gives three quantiles at once (5 %, 50 %, 95 %) of the disease's progression in scikit-learn's diabetes
data, from measurements and an id; the objective takes inputs, target and a weight per patient, and reports the median's
error beside the loss. pip install 'pybackprop[demo]', then python examples/intervals.py
"""

import numpy as np
from sklearn.datasets import load_diabetes

import pybackprop as pb
from pybackprop import nn, optim

QUANTILES = (0.05, 0.5, 0.95)


class Intervals(nn.Module):
    """A median, and distances below and above it that cannot be negative: quantiles never cross."""

    def __init__(self, width):
        self.sex = nn.Embedding(2, 2)
        self.body = nn.Sequential(nn.Linear(9 + 2, width), nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, 3))

    def forward(self, inputs):
        out = self.body(pb.ops.concat([inputs["measured"], self.sex(inputs["sex"])], dim=1))
        median, below, above = out[:, 0:1], out[:, 1:2].softplus(), out[:, 2:3].softplus()
        return pb.ops.concat([median - below, median, median + above], dim=1)


pinball = nn.PinballLoss(quantiles=QUANTILES)


def objective(model, inputs, y, weight):
    quantiles = model(inputs)
    return pinball(quantiles, y, sample_weight=weight), {"median_error": (quantiles[:, 1] - y).abs().mean()}


def main(epochs=150):
    data = load_diabetes()
    scale, shift = data.target.std(), data.target.mean()
    y = ((data.target - shift) / scale).astype(np.float32)
    measured = np.delete(data.data, 1, axis=1)
    inputs = {
        "measured": (measured / measured.std(axis=0)).astype(np.float32),
        "sex": (data.data[:, 1] > 0).astype(int),
    }
    weight = np.where(data.target > 200, 2, 1).astype(np.float32)  # severe cases count twice
    test, train = np.split(np.random.default_rng(0).permutation(len(y)), [100])

    model = Intervals(32)
    trainer = pb.Trainer(model, objective=objective, optimizer=optim.AdamW(lr=3e-3, weight_decay=0.05), seed=0)
    some = {name: array[train] for name, array in inputs.items()}
    errors = trainer.fit(some, y[train], sample_weight=weight[train], epochs=epochs).history["median_error"]
    print(f"median's error in training: {errors[0] * scale:.1f} -> {errors[-1] * scale:.1f}")

    low, median, high = model({name: array[test] for name, array in inputs.items()}).T
    inside = ((y[test] >= low) & (y[test] <= high)).mean()
    error = np.abs(median - y[test]).mean() * scale
    print(f"test: median's error {error:.1f} (always the mean: {np.abs(y[test]).mean() * scale:.1f})")
    print(f"test: {inside:.0%} of the patients inside their 90 % interval")
    return error, inside


if __name__ == "__main__":
    main()
