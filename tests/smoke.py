"""Run by hand or CI with an installed wheel and nothing but NumPy: trains XOR, saves and loads it."""

import tempfile
from pathlib import Path

import numpy as np

import pybackprop as pb
from pybackprop import nn, optim

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
y = np.array([0, 1, 1, 0])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))


trainer = pb.Trainer(network(), loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=0.02), seed=0)
trainer.fit(X, y, epochs=400, batch_size=4, verbose=0)
assert (trainer.predict(X).argmax(axis=1) == y).all()
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "xor.safetensors"
    pb.save(trainer.model, path)
    again = network()
    pb.load(again, path)
    assert (again(X) == trainer.predict(X)).all()
print(f"pybackprop {pb.__version__} learned XOR and reads its own files")
