"""A classifier of handwritten digits with a module of one's own: residual blocks with layer norm and dropout.

Real data that ships with scikit-learn: pip install 'pybackprop[demo]', then python examples/digits.py
"""

import numpy as np
from sklearn.datasets import load_digits

import pybackprop as pb
from pybackprop import nn, optim


class Residual(nn.Module):
    def __init__(self, width):
        self.norm, self.fc, self.drop = nn.LayerNorm(width), nn.Linear(width, width), nn.Dropout(0.2)

    def forward(self, x):
        return x + self.drop(self.fc(self.norm(x)).relu())


def main(epochs=25):
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(x))
    train, valid, test = np.split(order, [1200, 1400])

    model = nn.Sequential(nn.Linear(64, 128), Residual(128), Residual(128), nn.LayerNorm(128), nn.Linear(128, 10))
    steps = epochs * -(-len(train) // 32)
    trainer = pb.Trainer(
        model,
        loss=nn.CrossEntropyLoss(label_smoothing=0.05),
        optimizer=optim.AdamW(
            lr=optim.Warmup(optim.CosineLR(3e-3, steps), 100), groups={optim.VECTORS: dict(weight_decay=0)}
        ),
        metrics=["accuracy"],
        seed=0,
    )
    trainer.fit(x[train], y[train], epochs=epochs, batch_size=32, validation_data=(x[valid], y[valid]))
    accuracy = trainer.evaluate(x[test], y[test])["accuracy"]
    print(f"test accuracy {accuracy:.1%}")

    pb.save(model, "digits.safetensors")
    again = nn.Sequential(nn.Linear(64, 128), Residual(128), Residual(128), nn.LayerNorm(128), nn.Linear(128, 10))
    pb.load(again, "digits.safetensors")
    assert (again(x[test]) == model(x[test])).all()
    return accuracy


if __name__ == "__main__":
    main()
